"""The learner: what it refuses, what one iteration does and in which order, and that its state is all of its state."""

from __future__ import annotations

import io
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps, same_state
from gymnasium import spaces
from torch import Tensor
from zoo import SCORED, home, quick

from policygrad.algorithms.diagnosed import diagnosed_step, explained_variance, measured_step, value_loss
from policygrad.algorithms.learner import Learner
from policygrad.algorithms.recipes import RECIPES
from policygrad.algorithms.task import Plan, Task
from policygrad.data import Batch, Record, Rollout, Values
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain, Target
from policygrad.gradient.baselines import CriticValue, LeaveOneOut, RunningMean
from policygrad.gradient.estimators import GAE, NStep, RewardToGo, Standardized, StateDiscounted, TDError, TotalReturn
from policygrad.models.critic import Critic, make_critic
from policygrad.models.policy import Policy, make_policy
from policygrad.updates import ClippedSurrogate, VanillaGradient

OBS, ACT = spaces.Box(-1.0, 12.0, (1,)), spaces.Discrete(2)
REWARDS = (1.0, -2.0, 0.5, 3.0, 0.0, -1.0, 2.0)


def chain() -> Chain:
    return Chain(REWARDS, terminate_after=5)


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def boxed_chain() -> Chain:
    """With a continuous action, which makes no difference."""
    env = chain()
    env.action_space = Target().action_space
    return env


def collect(plan: Plan, collector: Collector) -> Record:
    return collector.collect(plan.learner.policy, plan.wants)


def small_learner(**keywords: Any) -> Learner:
    policy = make_policy(OBS, ACT, hidden=(8,), normalize_obs=True)
    return Learner(policy, GAE(), VanillaGradient(0.01), critic=make_critic(OBS, hidden=(8,)), **keywords)


def one_rollout(policy: Policy, T: int = 12, num_envs: int = 3) -> Rollout:
    return roll_steps(Collector(make_envs(chain, num_envs), seed=1), policy, T)


@pytest.mark.parametrize(
    "estimator", [NStep(), TDError(), GAE(), Standardized(GAE()), StateDiscounted(TDError())], ids=repr
)
def test_a_bootstrapping_estimator_without_a_critic_is_refused(estimator: Any) -> None:
    with pytest.raises(ValueError, match="give the learner a critic"):
        Learner(make_policy(OBS, ACT), estimator, VanillaGradient())


def test_a_critic_baseline_without_a_critic_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CriticValue\(\) uses .*: give the learner a critic"):
        Learner(make_policy(OBS, ACT), RewardToGo(), VanillaGradient(), baseline=CriticValue())


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reduction must be one of .* got 'mean'"):
        small_learner(reduction="mean")


def test_episodes_are_needed_exactly_where_nothing_bootstraps() -> None:
    policy, critic = make_policy(OBS, ACT), make_critic(OBS)
    assert Learner(policy, RewardToGo(), VanillaGradient()).needs_episodes
    assert not Learner(policy, RewardToGo(), VanillaGradient(), critic=critic).needs_episodes
    assert Learner(policy, RewardToGo(), VanillaGradient(), critic=critic, baseline=LeaveOneOut()).needs_episodes
    assert not Learner(policy, GAE(), VanillaGradient(), critic=critic).needs_episodes


def test_a_rollout_without_a_valid_row_changes_nothing() -> None:
    learner = small_learner()
    collector = Collector(make_envs(lambda: Chain(REWARDS, terminate_after=1), 2))
    first, second = (
        roll_steps(collector, learner.policy, 1),
        roll_steps(collector, learner.policy, 1),
    )
    assert (first.steps, second.steps) == (2, 0)
    before = deepcopy(learner.state_dict())
    assert learner.step(second) == {}
    assert same_state(learner.state_dict(), before)
    assert learner.step(first) != {}
    assert not same_state(learner.state_dict(), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_advantage_stops_before_anything_moves(bad: float) -> None:
    learner = small_learner()
    learner.step(one_rollout(learner.policy))
    rollout = one_rollout(learner.policy)
    rew = rollout.rew.clone()
    assert rollout.mask[7, 2]
    rew[7, 2] = bad
    time = int(rollout.time[7, 2])
    before = deepcopy(learner.state_dict())
    with pytest.raises(
        FloatingPointError, match=rf"in environment 2 at step {time} of its episode .*reward was {bad}.*Nothing"
    ):
        diagnosed_step(learner, replace(rollout, rew=rew))
    assert same_state(learner.state_dict(), before)


def test_a_masked_row_may_hold_anything() -> None:
    learner = small_learner()
    rollout = one_rollout(learner.policy)
    row = ~rollout.mask
    assert row.any()
    twin = deepcopy(learner)
    learner.step(rollout)
    twin.step(
        replace(rollout, rew=torch.where(row, torch.nan, rollout.rew), logp=torch.where(row, torch.inf, rollout.logp))
    )
    assert same_state(learner.state_dict(), twin.state_dict())


class Witness:
    """An update rule that notes what the other parts looked like when it was called, and moves nothing."""

    def __init__(self, notes: dict[str, Any]) -> None:
        self.notes = notes

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> dict[str, float]:
        assert policy.normalizer is not None
        self.notes |= {"seen": float(policy.normalizer.count), "adv": batch.adv.clone(), "progress": progress}
        self.notes["logp"] = policy.evaluate(batch).logp - batch.logp
        return {}

    def report(self, logp: Tensor, batch: Batch) -> dict[str, float]:
        return {"own": 1.0}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_the_update_comes_before_the_critic_and_both_before_the_normaliser(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = small_learner()
    learner.step(one_rollout(learner.policy))
    assert learner.policy.normalizer is not None
    seen = float(learner.policy.normalizer.count)
    rollout = one_rollout(learner.policy)
    notes: dict[str, Any] = {}
    learner.update = Witness(notes)

    def seen_by_fit(*given: Any) -> dict[str, float]:
        notes["fitted"] = float(learner.policy.normalizer.count)  # pyright: ignore[reportOptionalMemberAccess]
        return Critic.fit(learner.critic, *given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(learner.critic, "fit", seen_by_fit)
    values = learner.critic(rollout, learner.policy)
    expected = learner.estimator(rollout, values).ret - values.val
    stats = diagnosed_step(learner, rollout, progress=0.25)
    assert notes["seen"] == notes["fitted"] == seen
    assert float(learner.policy.normalizer.count) == seen + rollout.steps
    assert notes["progress"] == 0.25
    torch.testing.assert_close(notes["adv"], expected[rollout.mask], rtol=0, atol=0)
    assert not torch.equal(learner.critic(rollout, learner.policy).val, values.val)
    # the policy is the one that acted, so every ratio is 1; the two forward passes differ in their batch shape only
    assert float(notes["logp"].abs().max()) <= 1e-6
    assert stats["kl"] == stats["gain"] == 0.0
    assert stats["own"] == 1.0


@pytest.mark.parametrize(
    "rule", [VanillaGradient(0.05), ClippedSurrogate(0.05, minibatches=1)], ids=["vanilla", "clipped"]
)
@pytest.mark.parametrize("action_space", [ACT, spaces.Box(-2.0, 2.0, (1,))], ids=["discrete", "box"])
def test_diagnostics_are_those_of_torch_distributions(rule: Any, action_space: spaces.Space) -> None:
    policy = make_policy(OBS, action_space, hidden=(8,))
    env = chain if action_space is ACT else Target
    rollout = roll_steps(Collector(make_envs(env, 3), seed=1), policy, 12)
    learner = Learner(policy, GAE(), deepcopy(rule), critic=make_critic(OBS, hidden=(8,)))
    values = learner.critic(rollout, policy)
    adv = (learner.estimator(rollout, values).ret - values.val)[rollout.mask]
    obs, act = rollout.obs[:-1][rollout.mask], rollout.act[rollout.mask]
    gradient = policy.gradient((adv * policy.logp(obs, act)).mean())

    def distribution(dist: Tensor) -> torch.distributions.Distribution:
        if action_space is ACT:
            return torch.distributions.Categorical(logits=dist)
        mean, log_std = dist.detach().split(1, -1)
        return torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)

    before = distribution(policy.dist(obs))
    stats = diagnosed_step(learner, rollout)
    after = distribution(policy.dist(obs))
    gain = (adv * ((after.log_prob(act) - before.log_prob(act)).exp() - 1.0)).mean()
    assert stats["kl"] == pytest.approx(float(torch.distributions.kl_divergence(before, after).mean()), rel=1e-3)
    assert stats["kl"] > 1e-5
    assert stats["entropy"] == pytest.approx(float(after.entropy().mean()), rel=1e-5)
    assert stats["gain"] == pytest.approx(float(gain), rel=1e-3)
    assert stats["gain"] > 0.0
    assert stats["grad_norm"] == pytest.approx(float(gradient.norm()), rel=1e-4)


def test_explained_variance_is_one_for_the_truth_and_zero_for_a_constant() -> None:
    rollout = one_rollout(make_policy(OBS, ACT))
    target = torch.randn(rollout.rew.shape, generator=torch.Generator().manual_seed(0))
    padded = torch.where(rollout.mask, target, torch.nan)

    def of(val: Tensor, bootstraps: bool = True) -> float:
        return explained_variance(Values(val, val, bootstraps), padded, rollout)

    assert of(target) == 1.0
    assert of(target + 3.0) == pytest.approx(1.0)
    assert of(torch.full_like(target, 3.0)) == pytest.approx(0.0, abs=1e-12)
    assert of(-target) == pytest.approx(-3.0)
    assert np.isnan(of(target, bootstraps=False))


def test_the_value_loss_is_the_mean_squared_error_of_what_the_critic_fits() -> None:
    rollout = one_rollout(make_policy(OBS, ACT))
    target = torch.randn(rollout.rew.shape, generator=torch.Generator().manual_seed(0))
    padded, val = torch.where(rollout.mask, target, torch.nan), torch.full_like(target, 0.5)
    expected = float((target - 0.5)[rollout.mask].square().mean())
    assert value_loss(Values(val, val), padded, rollout) == pytest.approx(expected)
    assert value_loss(Values(0.0 * val, val, act_val=val), padded, rollout) == pytest.approx(expected)
    assert explained_variance(Values(0.0 * val, val, act_val=target), padded, rollout) == 1.0
    assert np.isnan(value_loss(Values(val, val, bootstraps=False), padded, rollout))


SMALL: dict[str, dict[str, Any]] = {
    "reinforce": {"episodes": 5, "critic_epochs": 2, "standardize": "batch"},
    "off_policy_pg": {"episodes": 5, "critic_epochs": 2, "standardize": "running", "replay_episodes": 7},
    "a2c": {"num_steps": 7},
    "a3c": {"num_steps": 7},
    "npg": {"num_steps": 7, "critic_epochs": 2, "critic_minibatches": 2},
    "trpo": {"num_steps": 7, "critic_epochs": 2, "critic_minibatches": 2},
    "ppo": {"num_steps": 7, "epochs": 2, "minibatches": 3, "critic_epochs": 2, "critic_minibatches": 2},
    "ppo_kl": {"num_steps": 7, "epochs": 2, "minibatches": 3, "critic_epochs": 2, "critic_minibatches": 2},
}
ENVS = {"discrete": chain, "box": Target}
PAIRS = [(recipe, env) for recipe in RECIPES for env in (ENVS if recipe in SCORED else [home(recipe, *ENVS)])]


def make_plan(recipe: str, env: str, seed: int = 0, **keywords: Any) -> tuple[Plan, Collector]:
    example = ENVS[env]()
    soon = quick(recipe) | ({"warmup": 2} if "warmup" in RECIPES[recipe].keywords else {})
    keywords = {"hidden": (8,), "normalize_obs": True, "num_envs": 3} | SMALL.get(recipe, {}) | soon | keywords
    keywords |= {"ent_coef": 0.01} if recipe in SCORED else {}
    plan = RECIPES[recipe](Task(example.observation_space, example.action_space, seed), **keywords)
    return plan, Collector(make_envs(ENVS[env], 3), seed)


def critic_of(learner: Any) -> torch.nn.Module | None:
    """The module of the critic; None where the policy's network is all there is."""
    if hasattr(learner, "critic"):
        assert isinstance(learner.critic, Critic)
        return learner.critic
    found = getattr(getattr(learner, "rule", None), "critic", None)
    return None if found is None else found.network


@pytest.mark.parametrize("recipe", RECIPES)
def test_modules_of_ones_own_go_where_they_were_meant(recipe: str) -> None:
    actor, critic = (torch.nn.Sequential(torch.nn.Linear(1, width), torch.nn.Tanh()) for width in (3, 5))
    env = home(recipe, chain, boxed_chain)
    task = Task(OBS, env().action_space, body=actor, critic_body=critic)
    soon = quick(recipe) | ({"warmup": 2} if "warmup" in RECIPES[recipe].keywords else {})
    learner = RECIPES[recipe](task, **{"hidden": (8,), "num_envs": 3} | SMALL.get(recipe, {}) | soon).learner
    assert set(actor.parameters()) <= set(learner.policy.parameters())
    module = critic_of(learner)
    assert module is None or set(critic.parameters()) <= set(module.parameters())
    bodies = (actor,) if module is None else (actor, critic)
    before = [[p.detach().clone() for p in body.parameters()] for body in bodies]
    collector = Collector(make_envs(env, 3))
    whole = recipe in SCORED
    for _ in range(2):  # where the policy is delayed it moves in the second step
        learner.step(collector.episodes(learner.policy, 5) if whole else collector.steps(learner.policy, 5))
    for body, old in zip(bodies, before, strict=True):
        assert not any(torch.equal(p, q) for p, q in zip(body.parameters(), old, strict=True))


@pytest.mark.parametrize(("recipe", "env"), PAIRS)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(recipe: str, env: str) -> None:
    def final(seed: int) -> dict[str, Any]:
        plan, collector = make_plan(recipe, env, seed)
        for i in range(3):
            plan.learner.step(collect(plan, collector), i / 3)
        return plan.learner.state_dict() | {"collector": collector.state_dict()}

    first = final(0)
    assert same_state(first, final(0))
    assert not same_state(first, final(1))


@pytest.mark.parametrize(("recipe", "env"), PAIRS)
def test_a_learner_loaded_from_a_file_goes_on_as_if_nothing_had_happened(recipe: str, env: str) -> None:
    plan, collector = make_plan(recipe, env)
    for i in range(2):
        plan.learner.step(collect(plan, collector), i / 4)
    # another seed: whatever the state leaves out stays different
    twin, _ = make_plan(recipe, env, seed=5)
    twin.learner.load_state_dict(through_a_file(plan.learner.state_dict()))
    for i in range(2, 4):
        rollout = collect(plan, collector)
        stats = measured_step(plan.learner, rollout, i / 4)
        assert measured_step(twin.learner, rollout, i / 4) == pytest.approx(stats, rel=0, abs=0, nan_ok=True)
        assert same_state(twin.learner.state_dict(), plan.learner.state_dict())


@pytest.mark.parametrize("estimator", [RewardToGo(), TotalReturn()], ids=repr)  # the second one's targets are others
def test_a_baseline_is_fitted_on_the_returns_after_the_update(estimator: Any) -> None:
    policy, baseline = make_policy(OBS, ACT, hidden=(8,)), RunningMean()
    notes: dict[str, Any] = {}
    learner = Learner(
        make_policy(OBS, ACT, hidden=(8,), normalize_obs=True), estimator, Witness(notes), baseline=baseline
    )
    rollout = roll_episodes(Collector(make_envs(chain, 3), seed=1), policy, 3)
    ret = estimator(rollout, Values.zeros(rollout)).ret[rollout.mask]
    for before in (0.0, float(ret.mean())):
        learner.step(rollout)
        torch.testing.assert_close(notes["adv"], ret - before, rtol=0, atol=1e-6)
        assert baseline.mean == pytest.approx(float(ret.mean()))


def test_a_running_mean_baseline_is_part_of_the_state() -> None:
    plan, collector = make_plan("reinforce", "discrete", baseline="running-mean", standardize="no")
    plan.learner.step(collect(plan, collector))
    twin, _ = make_plan("reinforce", "discrete", seed=5, baseline="running-mean", standardize="no")
    twin.learner.load_state_dict(through_a_file(plan.learner.state_dict()))
    rollout = collect(plan, collector)
    plan.learner.step(rollout)
    twin.learner.step(rollout)
    assert same_state(twin.learner.state_dict(), plan.learner.state_dict())
