"""Every keyword of every recipe with a score function reaches the object that it names, and changes what is learned."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps
from gymnasium import spaces
from torch import Tensor, nn
from zoo import SCORED

from policygrad.algorithms.crew import CrewSource, PulledLearner
from policygrad.algorithms.recipes import RECIPES
from policygrad.algorithms.simulated import SimulatedLearner
from policygrad.algorithms.task import Plan, Task
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain, Target
from policygrad.gradient.baselines import (
    Constant,
    CriticValue,
    CrossFit,
    LeaveOneOut,
    LinearFeatures,
    NoBaseline,
    RunningMean,
    TimeAverage,
)
from policygrad.gradient.estimators import (
    GAE,
    QValue,
    RewardToGo,
    Standardized,
    StateDiscounted,
    TDError,
    TotalReturn,
)
from policygrad.gradient.importance import CollapsedError, ImportanceWeighted, PerDecision
from policygrad.models.critic import Critic, NoCritic, QCritic
from policygrad.models.networks import MLP, BodyNetwork, WithLogStd
from policygrad.models.optim import SGD, Adam
from policygrad.models.pictures import has_pictures
from policygrad.models.policy import Policy
from policygrad.models.schedules import at
from policygrad.models.shared import SharedCritic
from policygrad.stored.replay import Replay
from policygrad.stored.trajectories import TrajectoryError, collect
from policygrad.training.agent import Agent
from policygrad.updates import NaturalGradient

ELSEWHERE = {"steps", "num_envs"}  # of the Agent, not of the recipe
BASE = {"hidden": (8,), "lr": 0.05, "critic_lr": 0.02}
SMALL: dict[str, dict[str, Any]] = {
    "reinforce": {"episodes": 4, "critic_epochs": 2, "critic_minibatches": 2},
    "off_policy_pg": {"episodes": 4, "critic_epochs": 2, "critic_minibatches": 2},
    "a2c": {"num_steps": 7},
    "a3c": {"num_steps": 7},
    "npg": {"num_steps": 7, "lr": None, "critic_epochs": 2, "critic_minibatches": 2},
    "trpo": {"num_steps": 7, "critic_epochs": 2, "critic_minibatches": 2},
    "ppo": {"num_steps": 7, "epochs": 3, "minibatches": 2, "critic_epochs": 2, "critic_minibatches": 2},
    "ppo_kl": {"num_steps": 7, "epochs": 3, "minibatches": 2, "critic_epochs": 2, "critic_minibatches": 2},
}


def chain() -> Chain:
    return Chain((1.0, -2.0, 0.5, 3.0), terminate_after=3)


class Masked(Chain):
    """A chain that allows the second action on every other step only."""

    def __init__(self) -> None:
        super().__init__((1.0, -2.0, 0.5, 3.0), terminate_after=3)

    def observe(self) -> np.ndarray:
        self.calls = getattr(self, "calls", 0) + 1
        return super().observe()

    def reset(self, **keywords: Any) -> Any:
        obs, info = super().reset(**keywords)
        return obs, info | {"action_mask": np.array([1, self.calls % 2], np.int8)}

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, info | {"action_mask": np.array([1, self.calls % 2], np.int8)}


class Shown(Chain):
    """A chain that shows its state as a picture of 4 × 4."""

    def __init__(self) -> None:
        super().__init__((1.0, -2.0, 0.5, 3.0), terminate_after=3)
        self.observation_space = spaces.Box(0.0, 4.0, (4, 4))

    def observe(self) -> np.ndarray:
        return np.full((4, 4), super().observe())


BOX = {"head", "std", "log_std", "noise_autocorrelation"}  # keywords for Box actions


def environment(keywords: dict[str, Any]) -> Callable[[], gym.Env]:
    """One in which the keywords matter."""
    if "network" in keywords:
        return Shown
    return Target if BOX & set(keywords) else Masked if "mask_source" in keywords else chain


def keywords_of(recipe: str) -> set[str]:
    parameters = inspect.signature(RECIPES[recipe]).parameters.values()
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def make(recipe: str, keywords: dict[str, Any]) -> Plan:
    example = environment(keywords)()
    task = Task(example.observation_space, example.action_space)
    base = {name: value for name, value in BASE.items() if name in keywords_of(recipe)}
    return RECIPES[recipe](task, **base | SMALL.get(recipe, {}) | keywords)


def wrappers(plan: Plan) -> list[Any]:
    """The estimator, from the outermost wrapper to the innermost."""
    layers: list[Any] = [plan.learner.estimator]
    while hasattr(layers[-1], "inner"):
        layers.append(layers[-1].inner)
    return layers


def kinds(plan: Plan) -> list[type]:
    return [type(layer) for layer in wrappers(plan) if not isinstance(layer, ImportanceWeighted | PerDecision)][:-1]


def over(plan: Plan) -> list[str]:
    return [layer.over for layer in wrappers(plan) if isinstance(layer, Standardized)]


def mlps(plan: Plan) -> tuple[MLP, MLP]:
    assert isinstance(plan.learner.critic, Critic)
    mean = plan.learner.policy.network
    mean = mean.mean if isinstance(mean, WithLogStd) else mean
    assert isinstance(mean, MLP)
    assert isinstance(plan.learner.critic.network, MLP)
    return mean, plan.learner.critic.network


def rates(progress: float) -> Callable[[Any], Any]:
    return lambda plan: (at(plan.learner.update.lr, progress), at(plan.learner.critic.lr, progress))


def critic_rate(progress: float) -> Callable[[Any], Any]:
    return lambda plan: at(plan.learner.critic.lr, progress)


def norms(plan: Plan) -> Any:
    """Where gradients are clipped: the critic's always, the policy's under the rules that follow a gradient."""
    learner = plan.learner
    natural = isinstance(learner.update, NaturalGradient)
    assert hasattr(learner.update, "max_grad_norm") != natural
    parts = [learner.critic] if natural else [learner.update, learner.critic]
    return {part.max_grad_norm for part in parts}


def budget(progress: float) -> Callable[[Any], Any]:
    return lambda plan: at(plan.learner.update.max_kl, progress)


def target_kl(plan: Plan) -> Any:
    """What stops the clipped surrogate's epochs, and what steers the penalty, which stops at nothing."""
    return plan.learner.update.target_kl


def bonus(progress: float) -> Callable[[Any], Any]:
    return lambda plan: at(plan.learner.update.ent_coef, progress)


def of_update(name: str) -> Callable[[Any], Any]:
    return lambda plan: getattr(plan.learner.update, name)


def of_critic(name: str) -> Callable[[Any], Any]:
    return lambda plan: getattr(plan.learner.critic, name)


# the keyword first, then what it needs beside it; where it ends up; what must be there
CASES: list[tuple[dict[str, Any], Callable[[Any], Any], Any]] = [
    ({"num_steps": 11}, lambda plan: plan.num_steps, 11),
    ({"episodes": 7}, lambda plan: plan.episodes, 7),
    ({"weighting": "per-decision"}, lambda plan: type(plan.learner.estimator), PerDecision),
    ({"weighting": "trajectory"}, lambda plan: type(plan.learner.estimator), ImportanceWeighted),
    ({"self_normalize": False}, lambda plan: plan.learner.estimator.self_normalize, False),
    ({"max_weight": 3.5}, lambda plan: plan.learner.estimator.max_weight, 3.5),
    ({"min_ess": 0.15}, lambda plan: plan.learner.estimator.min_ess, 0.15),
    ({"clone_epochs": 3}, lambda plan: plan.clone_epochs, 3),
    ({"replay_episodes": 3}, lambda plan: plan.learner.earlier.most, 3),
    ({"returns": "to-go"}, lambda plan: type(wrappers(plan)[-1]), RewardToGo),
    ({"returns": "total"}, lambda plan: type(wrappers(plan)[-1]), TotalReturn),
    ({"baseline": "value"}, lambda p: (type(p.learner.baseline), type(p.learner.critic)), (CriticValue, Critic)),
    (
        {"baseline": "leave-one-out"},
        lambda p: (type(p.learner.baseline), type(p.learner.critic)),
        (LeaveOneOut, NoCritic),
    ),
    (
        {"baseline": "running-mean"},
        lambda p: (type(p.learner.baseline), type(p.learner.critic)),
        (RunningMean, NoCritic),
    ),
    (
        {"baseline": "time-average"},
        lambda p: (type(p.learner.baseline), type(p.learner.critic)),
        (TimeAverage, NoCritic),
    ),
    ({"baseline": "linear"}, lambda p: (type(p.learner.baseline), type(p.learner.critic)), (LinearFeatures, NoCritic)),
    (
        {"cross_fit": 3, "baseline": "linear"},
        lambda p: (type(p.learner.baseline), type(p.learner.baseline.inner), p.learner.baseline.folds),
        (CrossFit, LinearFeatures, 3),
    ),
    ({"baseline": "constant"}, lambda p: (type(p.learner.baseline), type(p.learner.critic)), (Constant, NoCritic)),
    ({"baseline": "none"}, lambda p: (type(p.learner.baseline), type(p.learner.critic)), (NoBaseline, NoCritic)),
    ({"baseline_value": 0.7, "baseline": "constant"}, lambda p: p.learner.baseline.value, 0.7),
    ({"gamma": 0.61}, lambda plan: [layer.gamma for layer in wrappers(plan)][-1], 0.61),
    ({"gamma": 0.61, "returns": "total"}, lambda plan: wrappers(plan)[-1].gamma, 0.61),
    ({"lam": 0.62}, lambda plan: wrappers(plan)[-1], GAE(0.99, 0.62)),
    ({"state_discount": True}, lambda plan: StateDiscounted in kinds(plan), True),
    ({"state_discount": False}, lambda plan: StateDiscounted in kinds(plan), False),
    ({"state_discount": True, "standardize": "no"}, kinds, [StateDiscounted]),
    ({"state_discount": False, "standardize": "no"}, kinds, []),
    ({"state_discount": True, "standardize": "batch"}, kinds, [Standardized, StateDiscounted]),
    ({"standardize": "no"}, over, []),
    ({"standardize": "batch"}, over, ["batch"]),
    ({"standardize": "episode"}, over, ["episode"]),
    ({"standardize": "running"}, over, ["running"]),
    ({"reduction": "trajectory"}, lambda plan: plan.learner.reduction, "trajectory"),
    ({"reduction": "step"}, lambda plan: plan.learner.reduction, "step"),
    ({"optimizer": "sgd"}, lambda plan: type(plan.learner.update.optimizer), SGD),
    ({"optimizer": "adam"}, lambda plan: type(plan.learner.update.optimizer), Adam),
    ({"lr": 0.013}, rates(0.5), (0.013, 0.02)),
    ({"lr_schedule": "linear", "lr": 0.05}, rates(0.25), pytest.approx((0.0375, 0.015))),
    ({"lr_schedule": "constant", "lr": 0.05}, rates(0.25), (0.05, 0.02)),
    ({"lr_schedule": "linear"}, critic_rate(0.25), pytest.approx(0.015)),
    ({"lr_schedule": "constant"}, critic_rate(0.25), 0.02),
    ({"max_kl": 0.03}, budget(0.5), 0.03),
    ({"kl_schedule": "linear", "max_kl": 0.04}, budget(0.25), pytest.approx(0.03)),
    ({"kl_schedule": "constant", "max_kl": 0.04}, budget(0.25), 0.04),
    ({"workers": 3}, lambda plan: len(plan.learner.workers), 3),
    ({"workers": 9}, lambda plan: len(plan.learner.workers), 8),  # of 8 environments
    ({"asynchrony": "simulated"}, lambda plan: (type(plan.learner), plan.source), (SimulatedLearner, None)),
    ({"asynchrony": "processes"}, lambda plan: (type(plan.learner), plan.source), (PulledLearner, CrewSource(2))),
    ({"damping": 0.23}, of_update("damping"), 0.23),
    ({"cg_iterations": 4}, of_update("cg_iterations"), 4),
    ({"solver": "dense"}, of_update("solver"), "dense"),
    ({"solver": "cg"}, of_update("solver"), "cg"),
    ({"backtracks": 3}, of_update("backtracks"), 3),
    ({"shrink": 0.6}, of_update("shrink"), 0.6),
    ({"beta": 2.5}, of_update("beta"), 2.5),
    ({"ent_coef": 0.3}, bonus(0.5), 0.3),
    ({"ent_schedule": "linear", "ent_coef": 0.4}, bonus(0.25), pytest.approx(0.3)),
    ({"max_grad_norm": 0.17}, norms, {0.17}),
    ({"max_grad_norm": None}, norms, {None}),
    ({"epochs": 5}, of_update("epochs"), 5),
    ({"minibatches": 3}, of_update("minibatches"), 3),
    ({"clip": 0.07}, of_update("clip"), 0.07),
    ({"target_kl": 0.019}, target_kl, 0.019),
    ({"target_kl": None}, target_kl, None),
    ({"critic": "v"}, lambda p: (type(p.learner.critic), type(p.learner.estimator)), (Critic, TDError)),
    ({"critic": "q"}, lambda p: (type(p.learner.critic), type(p.learner.estimator)), (QCritic, QValue)),
    ({"critic_lr": 0.017}, critic_rate(0.0), 0.017),
    ({"critic_lr": 0.017, "lr": 0.05}, rates(0.0), (0.05, 0.017)),
    ({"critic_epochs": 6}, of_critic("epochs"), 6),
    ({"critic_minibatches": 5}, of_critic("minibatches"), 5),
    ({"hidden": (5, 3)}, lambda p: [[x.out_features for x in m.layers][:-1] for m in mlps(p)], [[5, 3], [5, 3]]),
    ({"critic_hidden": (6,)}, lambda p: [[x.out_features for x in m.layers][:-1] for m in mlps(p)], [[8], [6]]),
    ({"critic_hidden": ()}, lambda p: [[x.out_features for x in m.layers][:-1] for m in mlps(p)], [[8], []]),
    ({"shared_body": True}, lambda p: (type(p.learner.critic), len(p.learner.update.terms)), (SharedCritic, 1)),
    ({"shared_body": False}, lambda p: (type(p.learner.critic), p.learner.update.terms), (Critic, ())),
    ({"value_coef": 0.7, "shared_body": True}, lambda p: p.learner.update.terms[0].weight, 0.7),
    ({"memory": "gru"}, lambda p: type(p.learner.policy.core.cell), nn.GRU),
    ({"memory": "lstm"}, lambda p: type(p.learner.policy.core.cell), nn.LSTM),
    ({"memory": "none"}, lambda p: type(p.learner.policy), Policy),
    ({"memory_size": 5, "memory": "gru"}, lambda p: p.learner.policy.core.size, 5),
    ({"segment_steps": 7, "memory": "gru"}, lambda p: p.learner.policy.segment, 7),
    ({"activation": "silu"}, lambda plan: [m.activation for m in mlps(plan)], ["silu", "silu"]),
    (
        {"network": "cnn"},
        lambda plan: [has_pictures(x.network) for x in (plan.learner.policy, plan.learner.critic)],
        [True] * 2,
    ),
    ({"network": "auto"}, lambda plan: type(plan.learner.policy.network), MLP),
    ({"log_std": -1.3}, lambda plan: plan.learner.policy.network.log_std.tolist(), [pytest.approx(-1.3)]),
    ({"head": "gaussian"}, lambda plan: repr(plan.learner.policy.head), "Gaussian((1,))"),
    ({"head": "squashed"}, lambda plan: repr(plan.learner.policy.head), "SquashedGaussian((1,))"),
    ({"head": "beta"}, lambda plan: repr(plan.learner.policy.head), "Beta((1,))"),
    ({"std": "parameter"}, lambda plan: type(plan.learner.policy.network), WithLogStd),
    ({"std": "network"}, lambda plan: type(plan.learner.policy.network), MLP),
    ({"noise_autocorrelation": 0.8}, lambda plan: plan.learner.policy.head.rho, 0.8),
    (
        {"mask_source": "info"},
        lambda p: (p.learner.policy.head.context, p.learner.policy.encoding.mask_source),
        (2, "info"),
    ),
    (
        {"mask_source": "none"},
        lambda p: (p.learner.policy.head.context, p.learner.policy.encoding.mask_source),
        (0, "none"),
    ),
    ({"normalize_obs": True}, lambda plan: plan.learner.policy.normalizer is not None, True),
    ({"normalize_obs": False}, lambda plan: plan.learner.policy.normalizer is not None, False),
]

# enough of a change to be seen after two iterations, and what makes it visible
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "num_steps": (9, {}),
    "episodes": (5, {}),
    "weighting": ("trajectory", {}),
    "self_normalize": (False, {}),
    "max_weight": (0.9, {"self_normalize": False}),
    "min_ess": (1.0, {}),  # it refuses, and learns nothing
    "clone_epochs": (2, {}),
    "replay_episodes": (4, {}),
    "returns": ("total", {}),
    "baseline": ("none", {}),
    "baseline_value": (0.7, {"baseline": "constant"}),
    "cross_fit": (2, {"baseline": "linear"}),
    "gamma": (0.6, {}),
    "lam": (0.6, {}),
    "state_discount": (True, {}),
    "standardize": ("episode", {}),
    "reduction": ("step", {}),
    "optimizer": ("sgd", {}),
    "lr": (0.06, {}),
    "lr_schedule": ("linear", {}),
    "ent_coef": (0.3, {}),
    "ent_schedule": ("linear", {"ent_coef": 0.3}),
    "max_kl": (0.02, {}),
    "kl_schedule": ("linear", {}),
    "workers": (1, {}),
    "asynchrony": ("processes", {}),  # of records that no worker has learned from: it is one
    "damping": (0.2, {}),
    "cg_iterations": (2, {}),
    "solver": ("dense", {}),
    "backtracks": (0, {"max_kl": 3.0, "damping": 1e-3}),  # so that the whole step goes too far
    "shrink": (0.5, {"max_kl": 3.0, "damping": 1e-3}),
    "max_grad_norm": (1e-3, {}),
    "epochs": (4, {}),
    "minibatches": (3, {}),
    "clip": (1e-3, {}),
    "target_kl": (1e-9, {"lr": 1e-3}),  # so that KL is far below the default, too
    "beta": (2.0, {}),
    "critic": ("q", {}),
    "critic_lr": (0.03, {}),
    "critic_epochs": (5, {}),
    "critic_minibatches": (3, {}),
    "critic_hidden": ((9,), {}),
    "shared_body": (True, {}),
    "value_coef": (0.7, {"shared_body": True}),
    "memory": ("gru", {}),
    "memory_size": (5, {"memory": "gru"}),
    "segment_steps": (1, {"memory": "gru"}),
    "hidden": ((9,), {}),
    "activation": ("relu", {}),
    "network": ("cnn", {}),
    "log_std": (-1.0, {}),
    "head": ("beta", {}),
    "std": ("network", {}),
    "noise_autocorrelation": (0.8, {}),
    "mask_source": ("info", {}),
    "normalize_obs": (True, {}),
}


def test_every_keyword_has_its_cases() -> None:
    every = {name for recipe in SCORED for name in keywords_of(recipe)} - ELSEWHERE
    assert every == set(CHANGES) == {next(iter(keywords)) for keywords, _, _ in CASES}


@pytest.mark.parametrize("recipe", SCORED)
def test_a_keyword_reaches_the_object_it_names(recipe: str) -> None:
    seen = set()
    for keywords, read, expected in CASES:
        if keywords.keys() <= keywords_of(recipe):
            seen.add(next(iter(keywords)))
            assert read(make(recipe, keywords)) == expected, keywords
    assert seen == keywords_of(recipe) - ELSEWHERE


def learned_from_stored(plan: Plan, other: Plan, env: Callable[[], gym.Env]) -> list[Tensor]:
    """The same from the episodes of another policy; nothing where weights or noise are refused."""
    other.learner.policy.flat.mul_(1.5)
    assert plan.episodes is not None
    try:
        replay = Replay(collect(other.learner.policy, env, 12), plan.learner.policy, clone_epochs=plan.clone_epochs)
        replay.begin(plan.learner.policy)
        for progress in (0.0, 0.5):
            plan.learner.step(replay.collect(plan.learner.policy, plan.wants), progress)
    except (CollapsedError, TrajectoryError):
        return []
    return [plan.learner.policy.flat, *([plan.learner.critic.flat] if isinstance(plan.learner.critic, Critic) else [])]


@cache
def learned(recipe: str, items: frozenset[tuple[str, Any]]) -> list[Tensor]:
    """Policy and critic after two iterations."""
    keywords = dict(items)
    plan, env = make(recipe, keywords), environment(keywords)
    collector = Collector(make_envs(env, 2))
    if recipe == "off_policy_pg":
        return learned_from_stored(plan, make(recipe, keywords), env)
    for progress in (0.0, 0.5):
        if plan.num_steps is not None:
            rollout = roll_steps(collector, plan.learner.policy, plan.num_steps)
        else:
            assert plan.episodes is not None
            rollout = roll_episodes(collector, plan.learner.policy, plan.episodes)
        plan.learner.step(rollout, progress)
    return [plan.learner.policy.flat, *([plan.learner.critic.flat] if isinstance(plan.learner.critic, Critic) else [])]


@pytest.mark.parametrize(("recipe", "name"), [(r, n) for r in SCORED for n in sorted(keywords_of(r) - ELSEWHERE)])
@pytest.mark.filterwarnings("ignore:.*this policy does not look at")  # which masks the keyword is about
def test_a_keyword_changes_what_is_learned(recipe: str, name: str) -> None:
    value, needed = CHANGES[name]
    default = inspect.signature(RECIPES[recipe]).parameters[name].default
    before = needed | (
        {name: default} if name in BOX | {"mask_source", "network"} else {}
    )  # the same environment for both
    first = learned(recipe, frozenset(before.items()))
    again = learned.__wrapped__(recipe, frozenset(before.items()))
    assert all(map(torch.equal, first, again))  # nothing else differs between two runs
    other = learned(recipe, frozenset((needed | {name: value}).items()))
    assert len(first) != len(other) or not all(map(torch.equal, first, other))


@pytest.mark.parametrize("recipe", ["actor_critic", "a2c", "ppo", "ppo_kl"])
def test_the_critics_rate_and_passes_follow_the_policys_where_they_are_not_given(recipe: str) -> None:
    plan = make(recipe, {"lr": 0.013, "critic_lr": None})
    assert rates(0.0)(plan) == (0.013, 0.013)
    if recipe in ("ppo", "ppo_kl"):
        plan = make(recipe, {"epochs": 5, "minibatches": 3, "critic_epochs": None, "critic_minibatches": None})
        assert (of_critic("epochs")(plan), of_critic("minibatches")(plan)) == (5, 3)


@pytest.mark.parametrize(("target_kl", "epochs"), [(1e-9, 1), (None, 3), (1e9, 3)])
def test_ppo_stops_its_epochs_at_the_target_kl(target_kl: float | None, epochs: int) -> None:
    plan = make("ppo", {"target_kl": target_kl})
    rollout = roll_steps(Collector(make_envs(chain, 2)), plan.learner.policy, 7)
    assert plan.learner.step(rollout)["epochs"] == epochs


def test_a_natural_rate_takes_the_place_of_the_budget() -> None:
    """Either, in npg: with lr the step is lr · F⁻¹ĝ however long, without it the critic alone has a rate."""
    assert at(make("npg", {"lr": 0.013}).learner.update.lr, 0.5) == 0.013
    assert make("npg", {}).learner.update.lr is None
    base, more = (learned("npg", frozenset({"max_kl": max_kl, "lr": 0.05}.items())) for max_kl in (0.01, 0.02))
    assert all(map(torch.equal, base, more))


@pytest.mark.parametrize(("target_kl", "betas"), [(1e-9, [1.0, 2.0]), (None, [1.0, 1.0]), (1e9, [1.0, 0.5])])
def test_ppo_kl_runs_all_of_its_epochs_and_steers_beta(target_kl: float | None, betas: list[float]) -> None:
    plan = make("ppo_kl", {"target_kl": target_kl})
    collector = Collector(make_envs(chain, 2))
    stats = [plan.learner.step(collector.steps(plan.learner.policy, 7)) for _ in betas]
    assert [s["beta"] for s in stats] == betas
    assert [s["epochs"] for s in stats] == [3, 3]


def body(space: spaces.Space) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(1, 6), nn.Tanh())


@pytest.mark.parametrize("algo", SCORED)
def test_a_function_makes_a_body_for_the_critic_too_and_a_module_is_the_policys_alone(algo: str) -> None:
    def networks(**bodies: Any) -> tuple[nn.Module, nn.Module]:
        agent = Agent(algo, chain, num_envs=1, hidden=(7,), **bodies)
        assert isinstance(agent.learner.critic, Critic)
        return agent.policy.network, agent.learner.critic.network

    actor, critic = networks(body=body)
    assert isinstance(actor, BodyNetwork)
    assert isinstance(critic, BodyNetwork)
    assert actor.body is not critic.body
    assert isinstance(critic.body, nn.Sequential)

    module, another = body(spaces.Box(-1.0, 1.0, (1,))), body(spaces.Box(-1.0, 1.0, (1,)))
    actor, critic = networks(body=module)
    assert isinstance(actor, BodyNetwork)
    assert actor.body is module
    assert isinstance(critic, MLP)
    assert critic.layers[0].out_features == 7

    actor, critic = networks(critic_body=another)
    assert isinstance(actor, MLP)
    assert isinstance(critic, BodyNetwork)
    assert critic.body is another

    third = body(spaces.Box(-1.0, 1.0, (1,)))
    actor, critic = networks(body=body, critic_body=third)
    assert isinstance(actor, BodyNetwork)
    assert isinstance(critic, BodyNetwork)
    assert critic.body is third


@pytest.mark.parametrize("name", sorted(BOX))
def test_what_only_box_actions_have_is_refused_for_others(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} = .* is for Box actions; the action space is Discrete"):
        RECIPES["ppo"](Task(chain().observation_space, chain().action_space), **{name: CHANGES[name][0]})
