"""Every keyword of the recipes that learn action values reaches the object that it names, and changes what is learned."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from explicit import same_state
from gymnasium import spaces
from zoo import RECIPES, SCORED, quick

from policygrad.algorithms.task import Plan, Task
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain, Target
from policygrad.models.pictures import has_pictures
from policygrad.models.schedules import at

VALUED = [recipe for recipe in RECIPES if recipe not in SCORED]
ELSEWHERE = {
    "steps",
    "num_envs",
    "head",
    "std",
    "mask_source",
}  # of the Agent, of other recipes, of masked environments
BOX = {"log_std", "noise_autocorrelation"}  # keywords of Box actions


def chain() -> Chain:
    return Chain((1.0, -2.0, 0.5, 3.0), terminate_after=3)


def boxed() -> Chain:
    """With a continuous action, which makes no difference."""
    env = chain()
    env.action_space = Target().action_space
    return env


def pictured(make: Callable[[], Chain]) -> Callable[[], gym.Env]:
    """The same, its state shown as a picture of 4 × 4."""
    space = spaces.Box(0.0, 4.0, (4, 4))
    return lambda: gym.wrappers.TransformObservation(make(), lambda obs: np.full((4, 4), obs, np.float32), space)


def environment(recipe: str, keywords: Collection[str] = ()) -> Callable[[], gym.Env]:
    if "network" in keywords:
        return pictured(environment(recipe))  # pyright: ignore
    return boxed if RECIPES[recipe].spec.gradient == "pathwise" else chain


def keywords_of(recipe: str) -> set[str]:
    """Those that mean something for the recipe."""
    refused = {"dqn": BOX, "pqn": BOX, "ddpg": {"log_std"}, "td3": {"log_std"}}
    return set(RECIPES[recipe].keywords) - ELSEWHERE - refused.get(recipe, set())


def make(recipe: str, keywords: dict[str, Any]) -> Plan:
    example = environment(recipe, keywords)()
    base = {"hidden": (8,), "lr": 0.02, "num_envs": 2, "num_steps": 4} | quick(recipe)
    base |= {"warmup": 4} if "warmup" in base else {}
    return RECIPES[recipe](Task(example.observation_space, example.action_space), **base | keywords)


def of(path: str) -> Callable[[Plan], Any]:
    """What is found at `rule.lr` of the learner, or at the first of several paths that is there."""

    def read(plan: Plan) -> Any:
        for one in path.split("|"):
            found: Any = plan.learner
            for name in one.split("."):
                found = getattr(found, name, None)
            if found is not None:
                return found
        return None

    return read


def rate(path: str) -> Callable[[Plan], Any]:
    return lambda plan: at(of(path)(plan), 0.25)


# the keyword first, then what it needs beside it; where it ends up; what must be there
CASES: list[tuple[dict[str, Any], Callable[[Plan], Any], Any]] = [
    ({"num_steps": 11}, lambda plan: plan.num_steps, 11),
    ({"lr": 0.013}, rate("rule.lr|lr"), 0.013),
    ({"lr_schedule": "linear"}, rate("rule.lr|lr"), pytest.approx(0.015)),
    ({"critic_lr": 0.017}, rate("rule.critic_lr"), 0.017),
    ({"max_grad_norm": 0.17}, of("rule.max_grad_norm|max_grad_norm"), 0.17),
    ({"gamma": 0.61}, of("gamma"), 0.61),
    ({"lam": 0.62}, of("lam"), 0.62),
    ({"epochs": 5}, of("epochs"), 5),
    ({"minibatches": 3}, of("minibatches"), 3),
    ({"buffer_size": 77}, of("replay.capacity"), 77),
    ({"batch_size": 9}, of("batch_size"), 9),
    ({"gradient_steps": 3}, of("gradient_steps"), 3),
    ({"warmup": 33}, of("warmup"), 33),
    ({"n_step": 4}, of("n_step"), 4),
    ({"epsilon": 0.3, "epsilon_fraction": 0.1}, rate("epsilon"), pytest.approx(0.3)),
    ({"epsilon_fraction": 0.5, "epsilon": 0.0}, rate("epsilon"), pytest.approx(0.5)),
    ({"replay": False}, of("replay.capacity"), 8),
    ({"target_every": 123}, of("rule.target_every"), 123),
    ({"double": False}, of("rule.double"), False),
    ({"loss": "squared"}, of("rule.loss"), "squared"),
    ({"noise": 0.27}, of("policy.head.sigma"), 0.27),
    ({"twin": True}, of("rule.critic.network.network.count"), 2),
    ({"twin": False}, of("rule.critic.network.network.count"), 1),
    ({"delay": 3}, of("rule.delay"), 3),
    ({"smoothing": 0.3}, of("rule.smoothing.sigma"), 0.3),
    ({"smoothing_limit": 0.7, "smoothing": 0.2}, of("rule.smoothing.limit"), 0.7),
    ({"tau": 0.03}, of("rule.critic.tau"), 0.03),
    ({"alpha": 0.4}, of("rule.temperature.alpha"), pytest.approx(0.4)),
    ({"learn_alpha": False}, of("rule.temperature.target"), None),
    ({"target_entropy": -0.3}, of("rule.temperature.target"), -0.3),
    ({"hidden": (5,)}, lambda plan: plan.learner.policy.network.layers[0].out_features, 5),
    ({"critic_hidden": (6,)}, lambda plan: plan.learner.rule.critic.network.network.biases[0].shape[1], 6),
    ({"activation": "silu"}, of("policy.network.activation"), "silu"),
    ({"network": "cnn"}, lambda plan: has_pictures(plan.learner.policy.network), True),
    ({"log_std": -1.3}, lambda plan: plan.learner.policy.network.layers[-1].bias[1].item(), pytest.approx(-1.3)),
    ({"noise_autocorrelation": 0.8}, of("policy.head.rho"), 0.8),
    ({"normalize_obs": True}, lambda plan: plan.learner.policy.normalizer is not None, True),
]

# what makes a change visible after a few iterations, where the case above does not
CHANGES: dict[str, dict[str, Any]] = {
    "buffer_size": {"buffer_size": 3},
    "warmup": {"warmup": 12},
    "max_grad_norm": {"max_grad_norm": 1e-3},
    "double": {
        "double": False,
        "hidden": (4, 4),
        "target_every": 6,
        "lr": 0.1,
        "gradient_steps": 4,
    },  # q and its copy disagree
    "target_every": {"target_every": 3},
    "twin": {"twin": None},  # the other one
    "loss": {"loss": "squared"},
    "delay": {"delay": 3},
    "smoothing_limit": {"smoothing_limit": 0.01, "smoothing": 0.3},
}


def test_every_keyword_has_its_case() -> None:
    every = {name for recipe in VALUED for name in keywords_of(recipe)}
    assert every == {next(iter(keywords)) for keywords, _, _ in CASES}


@pytest.mark.parametrize("recipe", VALUED)
def test_a_keyword_reaches_the_object_it_names(recipe: str) -> None:
    for keywords, read, expected in CASES:
        if next(iter(keywords)) in keywords_of(recipe):
            assert read(make(recipe, keywords)) == expected, keywords


@cache
def learned(recipe: str, items: frozenset[tuple[str, Any]]) -> dict[str, Any]:
    """Everything that a few iterations changed."""
    plan = make(recipe, dict(items))
    collector = Collector(make_envs(environment(recipe, dict(items)), 2))
    for i in range(6):
        plan.learner.step(collector.steps(plan.learner.policy, plan.num_steps or 1), i / 6)
    state = plan.learner.state_dict()
    return {name: state[name] for name in ("policy", "rule") if name in state}


@pytest.mark.parametrize(("recipe", "name"), [(r, n) for r in VALUED for n in sorted(keywords_of(r))])
def test_a_keyword_changes_what_is_learned(recipe: str, name: str) -> None:
    keywords = CHANGES.get(name) or next(k for k, _, _ in CASES if next(iter(k)) == name)
    default = inspect.signature(RECIPES[recipe]).parameters[name].default
    changed = dict(keywords) if keywords[name] is not None else {name: not default}
    around = {key: value for key, value in changed.items() if key != name}
    around |= {"network": default} if name == "network" else {}  # the same environment for both
    before = learned(recipe, frozenset(around.items()))
    assert same_state(before, learned.__wrapped__(recipe, frozenset(around.items())))  # nothing else differs
    assert not same_state(before, learned(recipe, frozenset(changed.items())))


@pytest.mark.parametrize(
    ("recipe", "keywords", "words"),
    [
        ("dqn", {"log_std": -1.0}, "log_std.*ActionValues"),
        ("dqn", {"noise_autocorrelation": 0.5}, "noise_autocorrelation.*ActionValues"),
        ("td3", {"log_std": -1.0}, "log_std.*Deterministic"),
        ("sac", {"head": "beta"}, "head = beta.*Squashed"),
        ("sac", {"std": "network"}, "std = network"),
        ("sac", {"mask_source": "info"}, "action masks are for discrete actions"),
    ],
)
def test_keywords_that_mean_nothing_for_the_policy_are_refused(
    recipe: str, keywords: dict[str, Any], words: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        make(recipe, keywords)


@pytest.mark.parametrize(
    ("recipe", "space", "words"),
    [
        ("dqn", spaces.Box(-1.0, 1.0, (1,)), "use sac or td3"),
        ("pqn", spaces.MultiDiscrete([2, 3]), "Discrete"),
        ("sac", spaces.Discrete(2), "use dqn"),
        ("td3", spaces.Box(-float("inf"), 1.0, (1,)), "RescaleAction"),
        ("ddpg", spaces.Dict(a=spaces.Box(-1.0, 1.0, (1,))), "Box actions"),
    ],
)
def test_action_spaces_that_do_not_go_are_refused_with_what_does(recipe: str, space: spaces.Space, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        RECIPES[recipe](Task(chain().observation_space, space))
