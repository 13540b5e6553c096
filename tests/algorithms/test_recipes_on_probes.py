"""Every recipe on every probe environment whose answer it claims to find. Held for 20 seeds each when the numbers were set."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from policygrad.algorithms.recipes import RECIPES
from policygrad.algorithms.task import Task
from policygrad.data import Batch
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import PROBES, Probe, Target, TimeLimit
from policygrad.models.critic import Critic, QCritic
from policygrad.models.exploring import ExploringPolicy, PathwiseHead
from policygrad.models.shared import SharedCritic

NUM_ENVS = 8
ACTOR = {"hidden": (16,), "lr_schedule": "linear"}
EPISODIC = ACTOR | {"lr": 0.06, "episodes": 32}
CRITIC = {"critic_lr": 0.02}
# a step of a fixed length in policy space never ends by itself: its budget goes down with the rates
NATURAL = ACTOR | CRITIC | {"max_kl": 0.03, "kl_schedule": "linear", "num_steps": 32}
NATURAL |= {"critic_epochs": 4, "critic_minibatches": 2}

REPLAY = {"hidden": (16,), "lr_schedule": "linear", "num_envs": NUM_ENVS, "num_steps": 1, "buffer_size": 4000}
REPLAY |= {"warmup": 64, "batch_size": 64, "gradient_steps": 1}
PATHWISE = REPLAY | {"hidden": (32, 32), "lr": 0.01, "critic_lr": 0.01, "tau": 0.1, "warmup": 800}

# name: (recipe, keywords, iterations). One line a recipe or variant.
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "reinforce-value": ("reinforce", EPISODIC | CRITIC | {"baseline": "value"}, 40),
    "reinforce-leave-one-out": ("reinforce", EPISODIC | {"baseline": "leave-one-out"}, 40),
    "reinforce-running-mean": ("reinforce", EPISODIC | {"baseline": "running-mean"}, 40),
    "reinforce-constant": ("reinforce", EPISODIC | {"baseline": "constant", "baseline_value": 0.5}, 40),
    "reinforce-none": ("reinforce", EPISODIC | {"baseline": "none"}, 40),
    "reinforce-total": ("reinforce", EPISODIC | {"baseline": "none", "returns": "total"}, 40),
    "reinforce-time-average": ("reinforce", EPISODIC | {"baseline": "time-average"}, 40),
    "reinforce-linear": ("reinforce", EPISODIC | {"baseline": "linear"}, 40),
    "reinforce-linear-cross-fit": ("reinforce", EPISODIC | {"baseline": "linear", "cross_fit": 4}, 40),
    "off-policy": ("off_policy_pg", EPISODIC | CRITIC | {"baseline": "value"}, 40),  # on its own episodes
    "actor-critic": ("actor_critic", ACTOR | CRITIC | {"lr": 0.01}, 600),
    "actor-critic-q": ("actor_critic", ACTOR | CRITIC | {"lr": 0.01, "critic": "q"}, 600),
    "a2c": ("a2c", ACTOR | CRITIC | {"lr": 0.03, "num_steps": 16, "critic_epochs": 4}, 50),
    "a3c": ("a3c", ACTOR | CRITIC | {"lr": 0.03, "num_steps": 16, "critic_epochs": 4}, 25),  # two updates each
    "ppo": (
        "ppo",
        ACTOR
        | CRITIC
        | {"lr": 0.03, "num_steps": 16, "epochs": 4, "minibatches": 2, "critic_epochs": 4, "critic_minibatches": 2},
        20,
    ),
    "ppo-shared": (
        "ppo",
        ACTOR | {"lr": 0.03, "num_steps": 16, "epochs": 4, "minibatches": 2, "shared_body": True, "value_coef": 1.0},
        40,
    ),
    "a2c-shared": ("a2c", ACTOR | {"lr": 0.03, "num_steps": 16, "shared_body": True, "value_coef": 1.0}, 80),
    "npg": ("npg", NATURAL, 30),
    "trpo": ("trpo", NATURAL, 30),
    "ppo-kl": (
        "ppo_kl",
        ACTOR
        | CRITIC
        | {"lr": 0.03, "num_steps": 16, "epochs": 4, "minibatches": 2, "critic_epochs": 4, "critic_minibatches": 2}
        | {"target_kl": 0.1},
        20,
    ),
    "dqn": ("dqn", REPLAY | {"lr": 0.03, "target_every": 64, "gradient_steps": 4}, 200),
    "pqn": ("pqn", {"hidden": (16,), "lr_schedule": "linear", "lr": 0.03, "num_steps": 16, "lam": 0.5}, 30),
    "ddpg": ("ddpg", PATHWISE | {"noise": 0.3}, 400),
    "td3": ("td3", PATHWISE | {"noise": 0.3, "lr": 0.02, "gradient_steps": 2}, 400),
    "sac": ("sac", PATHWISE | {"alpha": 0.003, "learn_alpha": False}, 400),
}
VALUED = ("dqn", "pqn")  # the policy is greedy in its values
PATHS = ("ddpg", "td3", "sac")
WITH_CRITIC = (
    "reinforce-value",
    "off-policy",
    "actor-critic",
    "actor-critic-q",
    "a2c",
    "a3c",
    "npg",
    "trpo",
    "ppo",
    "ppo-shared",
    "a2c-shared",
    "ppo-kl",
)
DISCRETE = ("actor-critic-q",)


def train(case: str, probe: type[Probe], env: Any = None, seed: int = 0) -> Any:
    recipe, keywords, iterations = CASES[case]
    keywords = keywords | {"gamma": probe.gamma}
    if probe is Target and case not in PATHS:
        keywords["log_std"] = -0.5
    example = probe()
    plan = RECIPES[recipe](Task(example.observation_space, example.action_space, seed), **keywords)
    collector = Collector(make_envs(env or probe, NUM_ENVS), seed)
    policy = plan.learner.policy
    for i in range(iterations):
        plan.learner.step(collector.collect(policy, plan.wants), (i + 1) / iterations)
    return plan.learner


def value_error(learner: Any, probe: type[Probe]) -> float:
    obs, values = (torch.tensor(column) for column in zip(*probe.values, strict=True))
    policy, features = learner.policy, learner.policy.features(obs[:, None])
    if isinstance(policy.head, PathwiseHead):
        x = torch.tanh(policy.kernel.forward(features, grad=False)[:, : policy.head.dims])
        found = learner.rule.critic.target_value(features, x)
    elif isinstance(policy, ExploringPolicy):
        found = policy.kernel.forward(features, grad=False).amax(-1)
    elif isinstance(learner.critic, QCritic):
        found = (learner.policy.dist(obs[:, None]).exp() * learner.critic.action_values(features)).sum(-1)
    elif isinstance(learner.critic, SharedCritic):
        found = learner.critic.value(obs[:, None], policy)
    else:
        assert isinstance(learner.critic, Critic)
        found = learner.critic.value(features)
    return float((found - values).abs().max())


def test_every_recipe_is_tried() -> None:
    assert {recipe for recipe, _, _ in CASES.values()} == set(RECIPES), "a new recipe needs its line in CASES"


@pytest.mark.parametrize("probe", [p for p in PROBES if p.values], ids=lambda p: p.__name__)
@pytest.mark.parametrize("case", WITH_CRITIC + VALUED)
def test_the_critic_finds_the_value(case: str, probe: type[Probe]) -> None:
    learner = train(case, probe)
    assert value_error(learner, probe) <= 0.05
    if probe.best:
        assert best_probability(learner, probe) >= 0.95


@pytest.mark.parametrize("probe", [p for p in PROBES if p.best and p is not Target], ids=lambda p: p.__name__)
@pytest.mark.parametrize("case", [c for c in CASES if c not in WITH_CRITIC + VALUED + PATHS])
def test_the_policy_finds_the_best_action(case: str, probe: type[Probe]) -> None:
    assert best_probability(train(case, probe), probe) >= 0.95


def best_probability(learner: Any, probe: type[Probe]) -> float:
    obs, act = (torch.tensor(column) for column in zip(*probe.best, strict=True))
    return float(learner.policy.evaluate(Batch.of(obs[:, None], act)).logp.exp().min())


@pytest.mark.parametrize("case", [c for c in CASES if c not in DISCRETE + VALUED + PATHS])
def test_a_continuous_policy_finds_the_target(case: str) -> None:
    learner = train(case, Target)
    (obs, target), *_ = Target.best
    assert abs(float(learner.policy.dist(torch.tensor([[obs]]))[0, 0]) - target) <= 0.1


def boxed(probe: type[Probe]) -> type[Probe]:
    """The same probe with a continuous action, which makes no difference."""

    class Boxed(probe):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = Target().action_space

    return Boxed


@pytest.mark.parametrize("probe", [p for p in PROBES if p.values and not p.best], ids=lambda p: p.__name__)
@pytest.mark.parametrize("case", PATHS)
def test_the_critic_of_actions_finds_the_value(case: str, probe: type[Probe]) -> None:
    """α is so small that the entropy bonus is below the tolerance."""
    assert value_error(train(case, boxed(probe)), probe) <= 0.1


@pytest.mark.parametrize("case", PATHS)
def test_the_pathwise_gradient_finds_the_target(case: str) -> None:
    """Within a sixteenth of the range: where the values are off by ε², their maximum is off by ε."""
    policy = train(case, Target).policy
    (obs, target), *_ = Target.best
    act = policy.to_env(policy.mode(np.full((1, 1), obs, np.float32))[0])
    assert abs(act.item() - target) <= 0.25


class TerminatesAtTheLimit(gym.Wrapper):
    """What a library does that calls every end `done`."""

    def step(self, action: Any) -> Any:
        obs, rew, terminated, truncated, info = self.env.step(action)
        return obs, rew, terminated or truncated, False, info


@pytest.mark.parametrize("case", WITH_CRITIC + VALUED + PATHS)
def test_taking_truncation_for_termination_misses_the_value(case: str) -> None:
    probe = boxed(TimeLimit) if case in PATHS else TimeLimit
    learner = train(case, probe, lambda: TerminatesAtTheLimit(probe()))
    assert value_error(learner, TimeLimit) > 0.2
