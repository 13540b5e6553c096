"""Importance sampling, on every trajectory of small MDPs: expectations and variances are finite sums."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from zoo import BASELINES, CRITICS, MDPS, World

from policygrad.algorithms.learner import Learner
from policygrad.data import Batch, Rollout, Values
from policygrad.gradient.baselines import Constant, CriticValue, LeaveOneOut, NoBaseline
from policygrad.gradient.estimators import (
    GAE,
    NStep,
    RewardToGo,
    Standardized,
    StateDiscounted,
    TotalReturn,
    advantages,
)
from policygrad.gradient.importance import (
    CollapsedError,
    ImportanceWeighted,
    PerDecision,
    effective_sample_size,
    log_weights,
)
from policygrad.lab.exact.tabular import (
    enumerate_batches,
    enumerate_trajectories,
    exact_gradient,
    objective,
    policy_matrix,
    tabular_policy,
)
from policygrad.models.policy import Policy
from policygrad.updates import ClippedSurrogate, VanillaGradient

EXACT = 1e-12
VISIBLE = 1e-4
WORLDS = {world.name: world for world in MDPS}
NAMES = list(WORLDS)
SMALL = ["bandit", "level, γ=0.8", "crossing, γ=0.8"]  # few trajectories, so that batches can be listed


@dataclass(frozen=True)
class Pair:
    """All trajectories of a policy μ, seen by another one, π."""

    world: World
    mu: Policy
    pi: Policy
    rollout: Rollout  # logp: π's, behavior: μ's
    probability: Tensor  # (N,) under μ

    @property
    def truth(self) -> Tensor:
        return exact_gradient(self.world.mdp, self.pi)


def seen_by(rollout: Rollout, policy: Policy) -> Rollout:
    logp = policy.evaluate(Batch.of(rollout.obs[:-1].flatten(0, 1), rollout.act.flatten(0, 1))).logp.view(
        rollout.logp.shape
    )
    return rollout.seen_with(logp)


@cache
def pair(name: str, seed: int = 1, scale: float = 1.0) -> Pair:
    world = WORLDS[name]
    mu = tabular_policy(world.mdp, torch.Generator().manual_seed(100 + seed), scale)
    rollout, probability = enumerate_trajectories(world.mdp, mu)
    return Pair(world, mu, world.policy(), seen_by(rollout, world.policy()), probability)


def per_trajectory(pair: Pair, estimator: Any, baseline: Any = None, values: Values | None = None) -> Tensor:
    """What each trajectory alone makes of the gradient, (N, P): no column looks at another one."""
    rollout = pair.rollout
    adv, _ = advantages(rollout, values or Values.zeros(rollout), estimator, baseline or NoBaseline())
    logits = pair.pi.flat.detach().view(pair.world.mdp.states, -1)
    score = torch.nn.functional.one_hot(rollout.act, logits.shape[1]) - logits.softmax(-1)[rollout.obs[:-1].argmax(-1)]
    weight = torch.where(rollout.mask, adv, 0.0).unsqueeze(-1) * score  # (T, N, A)
    return torch.einsum("tns,tna->nsa", rollout.obs[:-1], weight).flatten(1)


def mean(pair: Pair, x: Tensor) -> Tensor:
    return torch.einsum("n,n...->...", pair.probability, x)


def of_batches(pair: Pair, estimator: Any, k: int, baseline: Any = None) -> Tensor:
    """The expectation over batches of k trajectories, by the production path; batches that differ in order alone are one."""
    total = torch.zeros_like(pair.truth)
    for index in itertools.combinations_with_replacement(range(len(pair.probability)), k):
        rollout, counts = pair.rollout.columns(index), Counter(index).values()
        p = pair.probability[list(index)].prod() * math.factorial(k) / math.prod(map(math.factorial, counts))
        adv, _ = advantages(rollout, Values.zeros(rollout), estimator, baseline or NoBaseline())
        batch = rollout.flatten(adv, "trajectory")
        total += p * pair.pi.evaluate(batch).gradient(batch.weight * batch.adv)
    return total


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def unbiased(gamma: float) -> list[Any]:
    """Estimators whose expectation is ∇J of the policy that learns."""
    to_go = StateDiscounted(RewardToGo(gamma))
    return [ImportanceWeighted(TotalReturn(gamma)), ImportanceWeighted(to_go), PerDecision(to_go)]


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_weight_is_one_at_every_step(name):
    p = pair(name)
    weights = log_weights(p.rollout).exp()
    assert distance(weights @ p.probability, torch.ones(len(weights), dtype=torch.float64)) <= EXACT
    assert weights.max() > 1.5


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_weighted_gradients_are_unbiased_under_any_policy_of_full_support(name, seed):
    p = pair(name, seed, scale=2.0)
    unweighted = mean(p, per_trajectory(p, TotalReturn(p.world.mdp.gamma)))
    assert distance(unweighted, p.truth) > VISIBLE  # the negative control: another policy's trajectories as they are
    for estimator in unbiased(p.world.mdp.gamma):
        assert distance(mean(p, per_trajectory(p, estimator)), p.truth) <= EXACT, estimator


@pytest.mark.parametrize("name", NAMES)
def test_baselines_and_critics_that_are_unbiased_on_policy_stay_so_under_weights(name):
    p = pair(name)
    for critic, made in itertools.product(CRITICS, [b for b in BASELINES if not b.couples]):
        values, baseline = critic.make(p.world)(p.rollout, p.pi), made.make(p.world.mdp.states)
        if baseline.needs_critic and not values.bootstraps:
            continue
        for estimator in unbiased(p.world.mdp.gamma):
            found = mean(p, per_trajectory(p, estimator, baseline, values))
            assert distance(found, p.truth) <= EXACT, (critic.name, made.name, estimator)


@pytest.mark.parametrize("name", ["random, γ=0.8", "crossing, γ=0.8", "chain, γ=0.9"])
def test_any_estimator_has_under_weights_the_expectation_that_it_has_on_policy_biased_ones_too(name):
    p = pair(name)
    gamma, pi = p.world.mdp.gamma, p.pi
    rollout, probability = enumerate_trajectories(p.world.mdp, pi)
    own = Pair(p.world, pi, pi, rollout, probability)
    wrong = next(c for c in CRITICS if c.name == "wrong V").make(p.world)
    for inner in (GAE(gamma, 0.5), NStep(gamma, 2), StateDiscounted(GAE(gamma, 0.9)), RewardToGo(gamma)):
        on = mean(own, per_trajectory(own, inner, CriticValue(), wrong(rollout, pi)))
        off = mean(p, per_trajectory(p, ImportanceWeighted(inner), CriticValue(), wrong(p.rollout, pi)))
        assert distance(on, off) <= EXACT, inner
    on, off = (
        mean(x, per_trajectory(x, e)) for x, e in ((own, RewardToGo(gamma)), (p, PerDecision(RewardToGo(gamma))))
    )
    assert distance(on, off) <= EXACT


@pytest.mark.parametrize("name", NAMES)
def test_rewards_are_weighed_one_by_one_as_the_formula_says(name):
    """Σ_t ∇log π_t Σ_{k≥t} γᵏ r_k Π_{j≤k} ρ_j, in loops."""
    p = pair(name)
    rollout, gamma = p.rollout, p.world.mdp.gamma
    adv, _ = advantages(rollout, Values.zeros(rollout), PerDecision(StateDiscounted(RewardToGo(gamma))), Constant(0.7))
    rho = (rollout.logp - rollout.behavior).exp()
    for n in range(min(rollout.trajectories, 60)):
        T = int(rollout.mask[:, n].sum())
        W = [math.prod(rho[: k + 1, n].tolist()) for k in range(T)]
        for t in range(T):
            expected = sum(gamma**k * float(rollout.rew[k, n]) * W[k] for k in range(t, T)) - gamma**t * W[t] * 0.7
            assert float(adv[t, n]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_where_the_policy_has_sampled_itself_every_number_is_that_of_the_estimator_inside(name):
    world = WORLDS[name]
    rollout, _ = enumerate_trajectories(world.mdp, world.policy())
    gamma, zeros = world.mdp.gamma, Values.zeros(rollout)
    options = ({}, {"self_normalize": True}, {"max_weight": 1.0}, {"min_ess": 1.0, "self_normalize": True})
    for inner, weigh in (
        (TotalReturn(gamma), ImportanceWeighted),
        (StateDiscounted(RewardToGo(gamma)), ImportanceWeighted),
        (Standardized(RewardToGo(gamma)), ImportanceWeighted),
        (StateDiscounted(RewardToGo(gamma)), PerDecision),
        (Standardized(RewardToGo(gamma)), PerDecision),
    ):
        plain, estimate = advantages(rollout, zeros, inner, Constant(0.3))
        for keywords in options:
            weighed, other = advantages(rollout, zeros, weigh(inner, **keywords), Constant(0.3))
            assert torch.equal(plain[rollout.mask], weighed[rollout.mask])
            assert torch.equal(estimate.target, other.target)
            assert other.stats["ess"] == pytest.approx(rollout.trajectories, rel=1e-12)
            assert (other.stats["weight_mean"], other.stats["behavior_kl"]) == (1.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_stats_of_weights_are_a_divergence_from_who_sampled_and_1_on_average(name):
    p = pair(name)
    each = [ImportanceWeighted(RewardToGo()).stats(p.rollout.columns([n])) for n in range(len(p.probability))]
    kl, weight = (
        float(mean(p, torch.tensor([x[key] for x in each], dtype=torch.float64)))
        for key in ("behavior_kl", "weight_mean")
    )
    policies = (policy_matrix(p.world.mdp, policy).detach() for policy in (p.mu, p.pi))
    log_mu, log_pi = (x.log()[p.rollout.obs[:-1].argmax(-1), p.rollout.act] for x in policies)
    apart = torch.where(p.rollout.mask, log_mu - log_pi, 0.0).sum(0)  # the dynamics cancel
    assert kl == pytest.approx(float(mean(p, apart)), rel=1e-9)
    assert kl > 0.0
    assert weight == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_the_variance_of_batches_is_the_second_moment_of_one_trajectory_over_their_size(name):
    p, k = pair(name), 2
    for estimator in unbiased(p.world.mdp.gamma):
        x = per_trajectory(p, estimator)
        exact = (mean(p, x.square()) - mean(p, x).square()).sum() / k
        second = torch.zeros_like(p.truth)
        for rollout, q in enumerate_batches(p.rollout, p.probability, k):
            adv, _ = advantages(rollout, Values.zeros(rollout), estimator, NoBaseline())
            batch = rollout.flatten(adv, "trajectory")
            second += q * p.pi.evaluate(batch).gradient(batch.weight * batch.adv).square()
        assert float(exact) == pytest.approx(float((second - p.truth.square()).sum()), rel=1e-10)


def between(name: str, distance: float) -> Pair:
    """μ from π itself, distance 0, by way of the uniform policy, 1, to its opposite, 2: its logits times 1 − distance."""
    world = WORLDS[name]
    mu = tabular_policy(world.mdp, scale=0.0)
    mu.flat.copy_((1.0 - distance) * world.policy().flat)
    rollout, probability = enumerate_trajectories(world.mdp, mu)
    return Pair(world, mu, world.policy(), seen_by(rollout, world.policy()), probability)


@pytest.mark.parametrize("weigh", [ImportanceWeighted, PerDecision])
@pytest.mark.parametrize("name", ["random, γ=0.8", "chain, γ=0.9", "long crossing, γ=0.7"])
def test_variance_blows_up_and_the_effective_sample_size_falls_with_the_distance(name, weigh):
    variances, shares = [], []
    for far in (0.5, 1.0, 1.5, 2.0, 2.5):
        p = between(name, far)
        x = per_trajectory(p, weigh(StateDiscounted(RewardToGo(p.world.mdp.gamma))))
        variances.append(float((mean(p, x.square()) - mean(p, x).square()).sum()))
        shares.append(1.0 / float(mean(p, log_weights(p.rollout)[-1].exp().square())))  # what ESS / N tends to
    assert variances == sorted(variances)
    assert shares == sorted(shares, reverse=True)
    assert variances[-1] > 20 * variances[0]
    assert shares[-1] < 0.1 * shares[0]


@pytest.mark.parametrize(
    ("name", "far", "lower"),
    [
        ("chain, γ=0.9", 0.5, True),
        ("chain, γ=0.9", 2.0, True),
        ("long crossing, γ=0.7", 1.0, True),
        ("random, γ=0.8", 2.0, True),
        (
            "random, γ=0.8",
            0.5,
            False,
        ),  # the counterexample: near μ, where later ratios happen to make up for earlier ones
    ],
)
def test_weighing_reward_by_reward_mostly_has_the_lower_variance_and_is_no_theorem(name, far, lower):
    p = between(name, far)
    to_go = StateDiscounted(RewardToGo(p.world.mdp.gamma))
    whole, each = (
        float((mean(p, x.square()) - mean(p, x).square()).sum())
        for x in (per_trajectory(p, weigh(to_go)) for weigh in (ImportanceWeighted, PerDecision))
    )
    assert (each < whole) == lower
    assert abs(each / whole - 1.0) > 0.02


def bias_of_self_normalising(p: Pair, estimator: Any, k: int) -> Tensor:
    return of_batches(p, replace(estimator, self_normalize=True), k) - p.truth


@pytest.mark.parametrize("weigh", [ImportanceWeighted, PerDecision])
@pytest.mark.parametrize("name", ["bandit", "level, γ=0.8"])
def test_the_bias_of_normalised_weights_halves_when_the_batch_doubles(name, weigh):
    p = between(name, 0.5)
    estimator = weigh(StateDiscounted(RewardToGo(p.world.mdp.gamma)))
    few, many = (float(bias_of_self_normalising(p, estimator, k).norm()) for k in (6, 12))
    assert few > VISIBLE
    assert many / few == pytest.approx(0.5, abs=0.05)  # to first order in 1/N


@pytest.mark.parametrize("name", ["bandit", "level, γ=0.8"])
def test_the_first_term_of_that_bias_is_what_the_ratio_of_means_says(name):
    """−cov(W x, W) / N + E[x W] var(W) / N, to O(1/N²)."""
    p, errors = between(name, 0.5), []
    estimator = ImportanceWeighted(StateDiscounted(RewardToGo(p.world.mdp.gamma)))
    x, w = per_trajectory(p, estimator), log_weights(p.rollout)[-1].exp()
    first = -(mean(p, x * w.unsqueeze(1)) - p.truth) + p.truth * (mean(p, w.square()) - 1.0)
    for k in (6, 12):
        errors.append(float((k * bias_of_self_normalising(p, estimator, k) - first).norm()))
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("name", NAMES)
def test_clipped_weights_have_exactly_the_bias_that_enumeration_gives(name):
    p = pair(name)
    w = log_weights(p.rollout)
    clip = float(w[-1].exp().quantile(0.7))
    estimator = ImportanceWeighted(StateDiscounted(RewardToGo(p.world.mdp.gamma)), max_weight=clip)
    bare = per_trajectory(p, replace(estimator, max_weight=None))
    lost = (w[-1].exp().clamp(max=clip) / w[-1].exp() - 1.0).unsqueeze(1) * bare
    bias = mean(p, per_trajectory(p, estimator)) - p.truth
    assert distance(bias, mean(p, lost)) <= EXACT
    assert bias.norm() > VISIBLE
    if p.world.batches:  # whatever the size of the batch
        assert distance(of_batches(p, estimator, 2) - p.truth, bias) <= EXACT
    each = PerDecision(StateDiscounted(RewardToGo(p.world.mdp.gamma)), max_weight=clip)
    discounted = p.rollout.rew * p.world.mdp.gamma ** p.rollout.time.double() * w.exp().clamp(max=clip)
    to_go = torch.where(p.rollout.mask, discounted, 0.0).flip(0).cumsum(0).flip(0)
    adv, _ = advantages(p.rollout, Values.zeros(p.rollout), each, NoBaseline())
    assert distance(adv[p.rollout.mask], to_go[p.rollout.mask]) <= EXACT


@pytest.mark.parametrize("weigh", [ImportanceWeighted, PerDecision])
@pytest.mark.parametrize("name", SMALL)
def test_leave_one_out_is_unbiased_under_weights_and_the_batch_mean_is_not(name, weigh):
    p = pair(name)
    estimator = weigh(StateDiscounted(RewardToGo(p.world.mdp.gamma)))
    assert distance(of_batches(p, estimator, 2, LeaveOneOut()), p.truth) <= EXACT
    same = next(b for b in BASELINES if b.name == "BatchMean").make(1)
    assert distance(of_batches(p, estimator, 2, same), p.truth) > VISIBLE


def test_actions_that_the_sampling_policy_never_takes_bias_the_estimate_unnoticed():
    world = WORLDS["bandit"]
    mu = tabular_policy(world.mdp, scale=0.0)
    mu.flat[0] = -1e4  # exp underflows: probability 0
    rollout, probability = enumerate_trajectories(world.mdp, mu)
    p = Pair(world, mu, world.policy(), seen_by(rollout, world.policy()), probability)
    found = mean(p, per_trajectory(p, ImportanceWeighted(TotalReturn())))
    assert distance(found, p.truth) > VISIBLE
    missing = policy_matrix(world.mdp, world.policy()).detach()[0, 0]
    assert float(mean(p, log_weights(p.rollout)[-1].exp())) == pytest.approx(1.0 - float(missing))  # its only trace


def test_actions_that_the_sampling_policy_cannot_have_taken_are_refused():
    p = pair("random, γ=0.8")
    t, n = (int(i) for i in p.rollout.mask.nonzero()[-1])
    for impossible in (-math.inf, math.nan):
        behavior = p.rollout.behavior.clone()
        behavior[t, n] = impossible
        with pytest.raises(ValueError, match=rf"log μ = (-inf|nan) at step {t} of trajectory {n}"):
            log_weights(replace(p.rollout, extra={"logp": behavior}))
    behavior = torch.where(p.rollout.mask, p.rollout.behavior, -math.inf)  # padding may be anything
    assert torch.equal(log_weights(replace(p.rollout, extra={"logp": behavior})), log_weights(p.rollout))


@pytest.mark.parametrize("weigh", [ImportanceWeighted, PerDecision])
def test_actions_that_the_policy_never_takes_weigh_nothing(weigh):
    p = pair("chain, γ=0.9")
    logp = p.rollout.logp.clone()
    logp[1, :20] = -math.inf
    rollout = p.rollout.seen_with(logp)
    estimator = weigh(RewardToGo(0.9), self_normalize=True)
    adv, estimate = advantages(rollout, Values.zeros(rollout), estimator, NoBaseline())
    assert torch.isfinite(adv[rollout.mask]).all()
    assert torch.isfinite(estimate.ret[rollout.mask]).all()
    dead = rollout.mask[1, :20].nonzero().squeeze(1)
    assert len(dead) > 3
    assert (adv[1:, dead][rollout.mask[1:, dead]] == 0.0).all()


def test_the_effective_sample_size_of_known_weights():
    def ess(*w: float) -> float:
        return effective_sample_size(torch.tensor(w, dtype=torch.float64).log())

    assert ess(1.0, 1.0, 1.0, 1.0) == ess(7.0, 7.0, 7.0, 7.0) == 4.0
    assert ess(1.0, 0.0, 0.0) == 1.0
    assert ess(3.0, 1.0) == pytest.approx(16.0 / 10.0)
    assert ess(0.0, 0.0) == 0.0
    huge = torch.tensor([900.0, 900.0, -900.0], dtype=torch.float64)  # their exponentials overflow
    assert effective_sample_size(huge) == pytest.approx(2.0)


@pytest.mark.parametrize("weigh", [ImportanceWeighted, PerDecision])
def test_collapsed_weights_are_refused_with_the_reason_before_anything_moves(weigh):
    p = pair("chain, γ=0.9", scale=3.0)
    rollout = p.rollout.columns(list(range(64)))
    share = effective_sample_size(log_weights(rollout)[-1]) / 64
    for least, refused in ((0.999 * share, False), (1.001 * share, True)):
        policy = tabular_policy(p.world.mdp, scale=0.0)
        policy.flat.copy_(p.pi.flat)
        update = VanillaGradient(0.1)
        learner = Learner(policy, weigh(RewardToGo(0.9), min_ess=least), update, baseline=LeaveOneOut())
        before = {name: str(part) for name, part in learner.state_dict().items()}
        if refused:
            with pytest.raises(CollapsedError, match=r"is \d+\.\d of 64 trajectories, .* nats per trajectory"):
                learner.step(rollout)
            assert {name: str(part) for name, part in learner.state_dict().items()} == before
            assert torch.equal(policy.flat, p.pi.flat)
        else:
            assert learner.step(rollout)["ess"] == pytest.approx(64 * share)
            assert not torch.equal(policy.flat, p.pi.flat)


def test_weights_that_are_all_zero_are_refused_where_they_would_be_divided_by():
    p = pair("bandit")
    rollout = replace(p.rollout, logp=torch.full_like(p.rollout.logp, -math.inf))
    assert (
        advantages(rollout, Values.zeros(rollout), ImportanceWeighted(TotalReturn()), NoBaseline())[0].abs().max() == 0
    )
    with pytest.raises(CollapsedError, match=r"is 0\.0 of"):
        advantages(rollout, Values.zeros(rollout), ImportanceWeighted(TotalReturn(), True), NoBaseline())


def test_standardising_inside_the_weights_costs_one_over_n_and_outside_is_refused():
    """Around them it would subtract a mean from weighted advantages, unweighted: E_μ[ ∇log π ] is not 0."""
    to_go = RewardToGo(0.9)
    for outer, weigh in itertools.product((Standardized, StateDiscounted), (ImportanceWeighted, PerDecision)):
        with pytest.raises(ValueError, match=f"{weigh.__name__} must be the outermost wrapper"):
            outer(weigh(to_go))
    with pytest.raises(ValueError, match="outermost"):
        ImportanceWeighted(PerDecision(to_go))
    assert PerDecision(Standardized(StateDiscounted(to_go))).gamma == 0.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImportanceWeighted(TotalReturn(), max_weight=0.0), "max_weight must be above 0, got 0.0"),
        (lambda: ImportanceWeighted(TotalReturn(), min_ess=1.5), r"in \[0, 1\], got 1.5"),
        (lambda: ImportanceWeighted(TotalReturn(), min_ess=math.nan), r"in \[0, 1\], got nan"),
        (lambda: PerDecision(TotalReturn()), "needs RewardToGo, got TotalReturn"),
        (lambda: PerDecision(StateDiscounted(GAE())), "needs RewardToGo, got GAE"),
    ],
)
def test_what_cannot_be_weighed_so_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_trajectories_that_are_not_whole_are_refused():
    p = pair("random, γ=0.8")
    rollout = replace(p.rollout, terminated=torch.zeros_like(p.rollout.end), cut=p.rollout.end)
    assert ImportanceWeighted(GAE()).needs_episodes(bootstraps=True)
    with pytest.raises(ValueError, match="whole episodes"):
        log_weights(rollout)


def test_rules_with_a_ratio_count_it_from_the_policy_before_the_update():
    """The first step of a ratio rule is lr times the weighted gradient: π_old/μ is in the advantage, π/π_old in the rule."""
    p = pair("level, γ=0.8")
    estimator = PerDecision(StateDiscounted(RewardToGo(p.world.mdp.gamma)))
    steps = []
    for rule in (VanillaGradient, ClippedSurrogate):
        policy = tabular_policy(p.world.mdp, scale=0.0)
        policy.flat.copy_(p.pi.flat)
        update = rule(0.01, optimizer="sgd", max_grad_norm=None, epochs=1, minibatches=1)
        Learner(policy, estimator, update, reduction="trajectory").step(p.rollout)
        steps.append(policy.flat - p.pi.flat)
    assert distance(steps[0], steps[1]) <= 1e-15
    assert steps[0].norm() > 0


def test_improving_on_the_policy_that_sampled_with_all_its_trajectories():
    """Exact ascent from μ's trajectories alone: J rises where the weights are right, up to the best policy."""
    p = pair("level, γ=0.8")
    policy, mdp = tabular_policy(p.world.mdp, scale=0.0), p.world.mdp
    policy.flat.copy_(p.mu.flat)
    before = objective(mdp, policy_matrix(mdp, p.mu)).detach()
    for _ in range(50):
        here = Pair(p.world, p.mu, policy, seen_by(p.rollout, policy), p.probability)
        step = mean(here, per_trajectory(here, PerDecision(StateDiscounted(RewardToGo(mdp.gamma)))))
        policy.flat.add_(step)
    assert objective(mdp, policy_matrix(mdp, policy)).detach() > before + 0.5
