"""Schedules: their values, their text, where they may stand, and that files, resuming and loading keep them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest

import policygrad as pg
from policygrad.algorithms.config import ConfigError, options, parameters, resolve, with_schedules
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.arguments import parse_train
from policygrad.files import read_json
from policygrad.models.schedules import Linear, at, linear, make_schedule, read_schedule
from policygrad.reports.columns import Updates

SMALL: dict[str, Any] = {"num_envs": 2, "num_steps": 8, "hidden": (4,), "steps": 64}


def test_a_linear_schedule_moves_in_its_share_and_stays() -> None:
    assert [linear(1.0)(p) for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert [linear(1.0, 0.5, 0.5)(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1.0, 0.75, 0.5, 0.5, 0.5]
    assert linear(1.0, 0.1, 0.0)(0.0) == 0.1
    assert at(0.3, 0.7) == 0.3
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        linear(1.0, 0.0, 1.5)


@pytest.mark.parametrize(
    "schedule", [linear(1e-3), linear(0.1, 1 / 3), linear(1.0, 0.05, 0.1), linear(2.5e-300, -1e22)]
)
def test_its_text_is_the_schedule_to_the_last_bit(schedule: Linear) -> None:
    assert read_schedule(str(schedule)) == schedule


def test_what_is_read_as_a_schedule_and_what_is_not() -> None:
    assert read_schedule("lin_0.001") == read_schedule("lin_1e-3") == linear(0.001)
    assert read_schedule(" linear( 1e-3 , 1e-4 ) ") == linear(1e-3, 1e-4)
    for text in (
        "linear",
        "lin_",
        "lin_x",
        "linear()",
        "linear(1,2,3,4)",
        "linear(1e-3",
        "cosine(1)",
        "lin_1e-3 ",
        0.1,
        None,
    ):
        assert (read_schedule(text) is None) == (text != "lin_1e-3 ")
    sb3 = pytest.importorskip("stable_baselines3.common.utils")
    theirs = sb3.LinearSchedule(1e-3, 1e-4, 0.5)
    ours = read_schedule(theirs)
    assert ours is not None
    for done in (0.0, 0.2, 0.5, 0.9):
        assert ours(done) == pytest.approx(theirs(1.0 - done), rel=1e-12)  # theirs are of what remains


def test_a_name_makes_a_schedule_of_a_number_and_leaves_one_that_is_there() -> None:
    assert make_schedule("constant", 0.1) == 0.1
    assert make_schedule("linear", 0.1) == linear(0.1)
    assert make_schedule("linear", linear(1.0, 0.5)) == linear(1.0, 0.5)


SCHEDULED = [(algo, name) for algo in RECIPES for name, option in options(algo).items() if option.schedule]


def test_the_numbers_that_may_change_are_these() -> None:
    assert {name for _, name in SCHEDULED} == {
        "lr",
        "critic_lr",
        "clip",
        "ent_coef",
        "max_kl",
        "target_kl",
        "beta",
        "epsilon",
        "noise",
        "alpha",
    }


@pytest.mark.parametrize(("algo", "name"), SCHEDULED)
def test_each_of_them_takes_one_everywhere(algo: str, name: str) -> None:
    """In Python as an object or a text; on the command line; and the recipe gets a function."""
    low = options(algo)[name].low or 0.0
    schedule = linear(max(0.01, 2 * low), max(0.005, low))
    for given in (schedule, str(schedule)):
        config, _ = resolve(algo, "", {name: given})
        assert config[name] == str(schedule)
        assert with_schedules(algo, config)[name] == schedule
    words = parse_train([algo, "CartPole-v1", "--" + name.replace("_", "-"), str(schedule)])
    assert resolve(algo, "", words.overrides)[0][name] == str(schedule)
    assert resolve(algo, "", {name: "lin_0.01"})[0][name] == "linear(0.01, 0.0)"  # 0 is only reached at the end
    with pytest.raises(ConfigError, match=f"{name} = -2.0 must be"):
        resolve(algo, "", {name: linear(-2.0)})


def test_numbers_that_may_not_and_functions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"gamma = .* must be a number"):
        resolve("ppo", "", {"gamma": linear(0.9, 0.99)})
    with pytest.raises(ConfigError, match="epochs"):
        resolve("ppo", "", {"epochs": "lin_10"})
    with pytest.raises(ConfigError, match=r"files hold no code: use policygrad\.linear"):
        resolve("ppo", "", {"lr": lambda remaining: 1e-3 * remaining})
    with pytest.raises(ConfigError, match="or a schedule such as linear"):
        resolve("ppo", "", {"lr": "cosine"})
    with pytest.raises(ConfigError, match="share of training"):
        resolve("ppo", "", {"lr": "linear(1, 0, 2)"})
    with pytest.raises(ValueError, match="learn_alpha = false"):
        pg.sac("Pendulum-v1", hidden=(2,), buffer_size=100, alpha=linear(1.0, 0.1))
    with pytest.raises(ValueError, match="target_kl = none"):
        pg.ppo_kl("CartPole-v1", beta=linear(1.0, 0.1))


def seen(agent: pg.Agent, what: Any, steps: int = 64) -> list[float]:
    values: list[float] = []
    agent.learn(steps, lambda a, row: values.append(float(what(a))))
    return values


@pytest.mark.parametrize(
    ("algo", "keywords", "what"),
    [
        ("ppo", {"clip": linear(0.4, 0.2), "minibatches": 1, "epochs": 1}, lambda a: a.learner.update.clip),
        ("ppo_kl", {"beta": linear(0.4, 0.2), "target_kl": None, "minibatches": 1}, lambda a: a.learner.update.beta),
    ],
)
def test_rules_follow_them(algo: str, keywords: dict[str, Any], what: Any) -> None:
    agent = pg.Agent(algo, "CartPole-v1", **SMALL, **keywords)
    assert seen(agent, what) == pytest.approx([0.4 - 0.2 * done / 64 for done in (0, 16, 30, 46)], abs=0.02)


@pytest.mark.parametrize(
    ("algo", "env", "keywords", "what"),
    [
        ("dqn", "CartPole-v1", {"epsilon": linear(0.4, 0.2)}, lambda a: a.policy.epsilon),
        ("td3", "Pendulum-v1", {"noise": linear(0.4, 0.2)}, lambda a: a.policy.head.sigma),
        (
            "sac",
            "Pendulum-v1",
            {"alpha": linear(0.4, 0.2), "learn_alpha": False},
            lambda a: a.learner.rule.temperature.alpha,
        ),
    ],
)
def test_learners_that_replay_follow_them_too_and_go_on_where_they_were(algo, env, keywords, what, tmp_path) -> None:
    words = {"num_envs": 1, "num_steps": 16, "hidden": (4,), "warmup": 0, "gradient_steps": 1, "batch_size": 4}
    whole = pg.Agent(algo, env, **words, **keywords)
    values = seen(whole, what)
    assert values == sorted(values, reverse=True)
    assert values[0] == 0.4
    assert 0.2 < values[-1] < 0.3
    half = pg.Agent(algo, env, **words, **keywords)
    half.learn(64, lambda a, row: a.num_timesteps < 30)
    again = pg.load(half.save(tmp_path / "half"))
    assert what(again) == pytest.approx(what(half)) or algo == "sac"  # whose α is asked for when it is used
    again.collector.restore()
    again.trainer.stopped = False
    again.go_on()
    assert what(again) == values[-1]


def test_a_run_keeps_it_as_text_and_its_report_knows_the_bound(tmp_path) -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, lr="lin_0.01", target_kl=linear(0.2, 0.1), minibatches=1)
    run = pg.train(agent, tmp_path / "run", episodes=1)
    config = read_json(run.config_file)["config"]
    assert (config["lr"], config["target_kl"]) == ("linear(0.01, 0.0)", "linear(0.2, 0.1)")
    assert pg.load(run.path).learner.update.lr == linear(0.01)
    updates = Updates("ppo", config, [{"steps": 16 * k, "kl": 0.1} for k in range(1, 5)])
    bound = updates.bound()
    assert bound is not None
    assert bound[0] == "target_kl"
    assert bound[1] == pytest.approx([0.2, 0.175, 0.15, 0.125])


def test_a_constant_schedule_is_the_number_to_the_last_bit() -> None:
    """The negative control is a schedule that moves, which gives other weights."""

    def weights(**keywords: Any) -> list[float]:
        words = SMALL | {"minibatches": 2, "lr_schedule": "constant"} | keywords
        agent = pg.ppo(lambda: gym.make("CartPole-v1"), **words).learn()
        return agent.policy.flat.tolist()

    plain = weights(clip=0.1, lr=1e-2)
    assert weights(clip=linear(0.1, 0.1), lr=linear(1e-2, 1e-2)) == plain
    assert weights(clip=0.1, lr=linear(1e-2, 1e-3)) != plain


def test_every_parameter_that_may_be_scheduled_is_a_float() -> None:
    for algo, name in SCHEDULED:
        assert "float" in str(parameters(algo)[name][0])
