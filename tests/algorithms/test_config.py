"""What no single hyperparameter shows: combinations refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gymnasium import spaces
from torch import nn

from policygrad.algorithms.config import FITTED, ConfigError, changed, resolve
from policygrad.algorithms.recipe import current_keywords
from policygrad.algorithms.recipes import RECIPES
from policygrad.algorithms.task import Task, make_baseline
from policygrad.gradient.baselines import CriticValue, CrossFit, LeaveOneOut, NoBaseline
from policygrad.gradient.estimators import TotalReturn


@pytest.mark.parametrize(
    ("algo", "overrides", "message"),
    [
        (
            "reinforce",
            {"cross_fit": 4},
            "cross_fit needs a baseline that is fitted: running-mean, time-average, linear",
        ),
        ("reinforce", {"cross_fit": 4, "baseline": "leave-one-out"}, "cross_fit needs a baseline that is fitted"),
        (
            "reinforce",
            {"cross_fit": 4, "baseline": "linear", "episodes": 3},
            "cross_fit = 4 needs one episode per fold",
        ),
        ("reinforce", {"cross_fit": 1, "baseline": "linear"}, "cross_fit = 1 must be at least 2"),
        ("reinforce", {"baseline": "leave-one-out", "episodes": 1}, "episodes must be at least 2"),
        *[
            ("reinforce", {"baseline": given}, f"none. Did you mean '{meant}'?")
            for given, meant in (
                ("leave_one_out", "leave-one-out"),
                ("Value", "value"),
                ("critic", "value"),
                ("running mean", "running-mean"),
                ("time-avrage", "time-average"),
                (None, "none"),
                (LeaveOneOut(), "leave-one-out"),
                (LeaveOneOut, "leave-one-out"),
                (NoBaseline(), "none"),
                (CriticValue, "value"),
            )
        ],
        ("reinforce", {"baseline": "xyz"}, "linear, constant, none"),
        ("reinforce", {"returns": "reward-to-go"}, "to-go, total. Did you mean 'to-go'?"),
        ("reinforce", {"returns": TotalReturn()}, "to-go, total. Did you mean 'total'?"),
        ("ppo", {"activation": "ReLU"}, "activation = 'ReLU' is not one of: tanh, relu, silu. Did you mean 'relu'?"),
        (
            "ppo",
            {"activation": nn.ReLU},
            "activation = the class ReLU is not one of: tanh, relu, silu. Did you mean 'relu'?",
        ),
        ("ppo", {"update": "vanilla"}, "compose a policygrad.Learner"),
        ("ppo", {"lstm": True}, 'use memory="lstm"'),
        ("ppo", {"recurrent": True}, 'use memory="lstm"'),
        ("ppo", {"aux_loss": len}, "use auxiliary="),
        ("ppo", {"reward_fn": len}, "policygrad.ShapedReward"),
        ("ppo", {"model": None}, "use body="),
        (
            "reinforce",
            {"baseline_value": 50},
            "baseline_value = 50.0 is for baseline = constant, and the baseline is value",
        ),
        ("reinforce", {"baseline_value": 0, "baseline": "none"}, "is for baseline = constant"),
        ("reinforce", {"baseline": "constant"}, "baseline = constant needs its value"),
        (
            "off_policy_pg",
            {"baseline": "none", "critic_lr": 3e-3},
            "critic_lr = 0.003 is for a critic, and baseline = none",
        ),
        ("reinforce", {"baseline": "linear", "vf_lr": 0.1}, "critic_lr = 0.1 is for a critic"),
        ("reinforce", {"baseline": "none", "critic_epochs": 3}, "critic_epochs = 3 is for a critic"),
        ("reinforce", {"baseline": "none", "critic_minibatches": 3}, "critic_minibatches = 3 is for a critic"),
        ("reinforce", {"baseline": "none", "critic_hidden": (3,)}, "critic_hidden = (3,) is for a critic"),
        ("ppo", {"memory_size": 32}, "memory_size = 32 is for policies with a memory"),
        ("reinforce", {"lstm_hidden_size": 32}, "memory_size = 32 is for policies with a memory"),
        ("actor_critic", {"critic": "vq"}, "critic = 'vq' is not one of: v, q"),
        ("actor_critic", {"num_steps": 5}, "actor_critic has no hyperparameter 'num_steps'"),
        (
            "npg",
            {"learning_rate": 0.1},
            "npg has no hyperparameter 'learning_rate'",
        ),  # of the policy, or of the critic?
        ("ppo", {"legal": "info"}, "ppo has no hyperparameter 'legal'. Did you mean 'mask_source'?"),
        (
            "trpo",
            {"correlation": 0.5},
            "trpo has no hyperparameter 'correlation'. Did you mean 'noise_autocorrelation'?",
        ),
        ("ppo", {"vf_coef": 0.5}, "twice that of Stable-Baselines3, whose loss has no ½"),
        (
            "ppo",
            {"value_coef": 1.0},
            "value_coef = 1 is the weight of the values' loss in a network that policy and values",
        ),
        (
            "ppo",
            {"shared_body": True, "critic_lr": 1e-3},
            "critic_lr = 0.001 is for a critic with a network of its own",
        ),
        ("a2c", {"shared_body": True, "critic_hidden": 64}, "critic_hidden = (64,) is for a critic with a network of"),
        ("actor_critic", {"shared_body": True, "critic": "q"}, "critic = q is for a critic with a network of its own"),
        (
            "npg",
            {"shared_body": True},
            "npg has no hyperparameter 'shared_body': actor_critic, a2c, ppo and ppo_kl alone",
        ),
        ("trpo", {"value_coef": 0.5}, "a natural step moves the policy alone"),
        ("a3c", {"shared_body": True}, "a3c has no hyperparameter 'shared_body'"),
        ("ppo", {"delta": 0.1}, "ppo has no hyperparameter 'delta'"),  # an alias, but none of ppo's
    ],
)
def test_what_cannot_be_is_refused(algo: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(algo, "Some-v0", overrides)
    assert message in str(error.value)


def test_a_preset_leaves_out_what_is_of_a_separate_critic_where_there_is_none() -> None:
    tuned, found = resolve("a2c", "CartPole-v1", {"shared_body": True})
    assert found
    assert (tuned["critic_epochs"], tuned["critic_lr"]) == (1, None)  # the recipe's own
    separate, _ = resolve("a2c", "CartPole-v1", {})
    other = {name for name in tuned if tuned[name] != separate[name]}
    assert (
        {"shared_body", "critic_epochs"} <= other <= {"shared_body", "critic_epochs", "critic_minibatches", "critic_lr"}
    )
    again, _ = resolve("a2c", "CartPole-v1", tuned)  # as from a file
    assert again == tuned


RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json"))


def test_the_published_results_are_those_of_the_presets() -> None:
    recorded = [json.loads(path.read_text("utf8")) for path in RESULTS]
    assert {(made["algo"], made["env"]) for made in recorded} >= {("ppo", "LunarLander-v3"), ("trpo", "Hopper-v5")}
    for made in recorded:
        overrides = dict(item.split("=", 1) for item in made["set"])
        config, tuned = resolve(made["algo"], made["env"], overrides)
        then = current_keywords(made["algo"], made["config"])
        assert tuned
        assert {name: json.loads(json.dumps(config[name])) for name in then} == then, (made["algo"], made["env"])


@pytest.mark.parametrize("name", FITTED)
def test_as_many_episodes_as_folds_will_do(name: str) -> None:
    config, _ = resolve("reinforce", "Some-v0", {"cross_fit": 4, "baseline": name, "episodes": 4})
    assert config["cross_fit"] == 4
    made = make_baseline(name, cross_fit=4)
    assert isinstance(made, CrossFit)
    assert type(made.inner) is type(make_baseline(name))


def test_a_critic_of_q_is_refused_where_actions_are_not_discrete() -> None:
    box = spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(TypeError, match=r"needs Discrete actions, the space is Box.*\(critic = v\)"):
        RECIPES["actor_critic"](Task(box, box), critic="q")


def test_only_what_a_user_gives_by_name_is_refused_for_its_lack_of_effect() -> None:
    """Presets and stored configurations, whole or not, are taken as they are; changes of them are looked at."""
    idle = {"baseline": "none", "critic_lr": 0.5, "baseline_value": 3.0, "memory_size": 9}
    config, _ = resolve("reinforce", "", {}, preset=idle)
    assert {name: config[name] for name in idle} == idle
    assert resolve("reinforce", "", config)[0] == config
    assert changed("reinforce", idle, {"lr": 0.1}) == config | {"lr": 0.1}
    for again in ({"critic_lr": 0.1}, {"baseline_value": 1.0}, {"memory_size": 3}):
        with pytest.raises(ConfigError, match="leave"):
            changed("reinforce", config, again)
    with pytest.raises(ConfigError, match=r"leave \w+ out"):  # but for one keyword it is whole
        resolve("reinforce", "", {name: value for name, value in config.items() if name != "lr"})


def test_the_value_of_a_constant_baseline_may_be_given_as_zero_or_by_a_preset() -> None:
    for given, preset in (
        ({"baseline_value": 0.0}, None),
        ({"baseline_value": -1.0}, None),
        ({}, {"baseline_value": 2}),
    ):
        assert resolve("reinforce", "", {"baseline": "constant"} | given, preset)[0]["baseline"] == "constant"


def test_a_recipe_of_ones_own_may_mean_something_else_by_the_same_words() -> None:
    def mine(
        task: Task, *, baseline: str = "a", critic_lr: float = 0.1, memory: str = "none", memory_size: int = 3
    ) -> None: ...

    given = {"baseline": "b", "critic_lr": 0.2, "memory_size": 4}
    assert given.items() <= resolve(mine, "", given)[0].items()
