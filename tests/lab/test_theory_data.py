"""What data and losses are worth: SGD on J, losses that mislead, data of an older policy. Exact numbers, and controls."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from policygrad.data import Values
from policygrad.gradient.estimators import RewardToGo
from policygrad.lab.exact.tabular import (
    advantage,
    bandit,
    exact_gradient,
    log_policy,
    policy_matrix,
    random_mdp,
    tabular_policy,
)
from policygrad.lab.exact.trajectories import enumerate_trajectories, trajectory_count
from policygrad.lab.exact.worlds import exact_batch, make_mdp, starting_policy
from policygrad.lab.steps.relations import apply
from policygrad.lab.theory import experiments
from policygrad.lab.theory.ascent import sgd
from policygrad.lab.theory.derivatives import automatic
from policygrad.lab.theory.functions import performance
from policygrad.lab.theory.losses import losses
from policygrad.lab.theory.staleness import (
    AGES,
    MIN_GRADIENT_RATIO,
    UPDATE_KL,
    second_moment,
    stale_gradient,
    staleness,
)
from policygrad.lab.theory.stochastic import decay, lipschitz, sampled_gradient
from policygrad.lab.theory.surrogate import surrogate
from policygrad.updates import NaturalGradient

SMALL = make_mdp("small")


def policy_of(mdp, seed=0):
    return tabular_policy(mdp, torch.Generator().manual_seed(seed))


def test_sampled_gradients_are_unbiased_and_those_of_other_estimators_are_not():
    policy = policy_of(SMALL)
    theta, exact = policy.flat.clone() + 0.3, automatic(performance(SMALL, policy), policy.flat + 0.3)
    for estimator, unbiased in ((None, True), (RewardToGo(0.9), False)):  # the second forgets γᵗ
        generator = torch.Generator().manual_seed(0)
        estimate = sampled_gradient(SMALL, policy, 100, generator, estimator=estimator)
        found = torch.stack([estimate(theta) for _ in range(250)])
        z = (found.mean(0) - exact) / (found.std(0) / math.sqrt(250))
        assert (float(z.abs().max()) <= 4.5) is unbiased
    assert torch.equal(policy.flat, policy_of(SMALL).flat)


def test_the_mean_squared_gradient_falls_as_the_square_root_of_the_steps_and_stays_below_the_bound():
    """Three budgets, each four times the one before."""
    found = decay(SMALL, policy_of(SMALL), budgets=(4, 16, 64), runs=2)
    assert found.slope == pytest.approx(-0.5, abs=0.12)
    for budget in found.budgets:
        assert budget.squared_norm <= budget.bound
    assert found.budgets[-1].squared_norm < 0.15 * found.before
    # control: with steps ten times shorter nothing has become flat yet, and the fall is another
    short = decay(SMALL, policy_of(SMALL), budgets=(4, 16), runs=2, lr=0.1)
    assert short.slope > -0.2
    with pytest.raises(ValueError, match="runs must be at least 2, got 1"):
        decay(SMALL, policy_of(SMALL), runs=1)
    assert "bound" in str(found)


def test_one_path_and_losses_that_fall_and_rise_on_it():
    """The same policies, the same gradients, the same rise of J; a constant on the rewards decides on the loss."""
    mdp = make_mdp("random")
    found = losses(mdp, policy_of(mdp), steps=60)
    up, down = found.losses[2], found.losses[3]
    assert all(a < b for a, b in zip(found.J, found.J[1:], strict=False))
    assert up.correlation < -0.9
    assert down.correlation > 0.9
    assert up.values[-1] < up.values[0]
    assert down.values[-1] > down.values[0]
    assert down.worse > 0.9
    assert found["returns"].correlation > 0.9
    assert "correlation" in str(found)
    assert json.loads(json.dumps(found.to_json()))["shift"] == found.shift
    with pytest.raises(ValueError, match="a constant on all rewards changes the task"):
        losses(make_mdp("chain"), policy_of(make_mdp("chain")))


def test_the_losses_are_those_of_the_enumerated_trajectories_and_have_one_gradient():
    mdp = make_mdp("small")
    policy = policy_of(mdp)
    found = losses(mdp, policy, steps=1)
    rollout, p = enumerate_trajectories(mdp, policy)
    discount = mdp.gamma ** rollout.time.double()
    for c, loss in ((0.0, found.losses[1]), (found.shift, found.losses[2]), (-found.shift, found.losses[3])):
        shifted = type(rollout)(**{**vars_of(rollout), "rew": rollout.rew + c * rollout.mask.double()})
        ret = RewardToGo(mdp.gamma)(shifted, Values.zeros(shifted)).ret
        expected = -float((p * (discount * ret * rollout.logp).sum(0)).sum())
        assert loss.values[0] == pytest.approx(expected, abs=1e-12)
        logp = log_policy(mdp, policy)[rollout.obs[:-1].argmax(-1), rollout.act]
        gradient = policy.gradient((p * (discount * ret * logp).sum(0)).sum())
        torch.testing.assert_close(gradient, exact_gradient(mdp, policy), rtol=0, atol=1e-12)


def vars_of(rollout):
    return {name: getattr(rollout, name) for name in rollout.__dataclass_fields__}


def test_fresh_data_is_unbiased_and_older_data_the_more_biased_the_older_it_is():
    """Exact means and variances over twenty updates."""
    mdp = make_mdp("rock-paper-scissors")
    found = staleness(mdp, policy_of(mdp))
    first, rest = found.rows[0], found.rows[1:]
    assert (first.age, first.ess) == (0, pytest.approx(1.0))
    assert first.plain.error <= 1e-12
    assert first.ratio.error <= 1e-12
    assert first.plain.cosine == pytest.approx(1.0)
    cosines = [row.plain.cosine for row in found.rows]
    assert cosines == sorted(cosines, reverse=True)
    assert rest[-1].plain.cosine < 0.7
    assert all(row.plain.error > 0.1 for row in rest)
    # the weights of trajectories take all of the bias away, and bring variance
    weighted = [row.weighted for row in found.rows if row.weighted is not None]
    assert len(weighted) == len(found.rows)
    assert all(x.error <= 1e-12 for x in weighted)
    variances = [x.variance for x in weighted[1:]]
    assert variances == sorted(variances)
    assert variances[-1] > 100.0 * weighted[0].variance
    sizes = [row.ess for row in found.rows]
    assert sizes == sorted(sizes, reverse=True)
    assert "its ESS" in str(found)
    assert json.loads(json.dumps(found.to_json()))["rows"][0]["weighted"]["fresh"] > 0.0


def test_the_stale_gradients_are_those_of_enumerated_trajectories():
    old, now = policy_of(SMALL, 0), policy_of(SMALL, 1)
    rollout, p = enumerate_trajectories(SMALL, old)
    A = advantage(SMALL, policy_matrix(SMALL, old).detach())
    state = rollout.obs[:-1].argmax(-1)
    credit = torch.where(rollout.mask, SMALL.gamma ** rollout.time.double() * A[rollout.time, state, rollout.act], 0.0)
    logp = log_policy(SMALL, now)[state, rollout.act]
    plain = now.gradient((p * (credit * logp).sum(0)).sum())
    torch.testing.assert_close(stale_gradient(SMALL, old, now), plain, rtol=0, atol=1e-13)
    logp = log_policy(SMALL, now)[state, rollout.act]
    ratio = (logp.detach() - rollout.logp).exp()
    corrected = now.gradient((p * (ratio * credit * logp).sum(0)).sum())
    torch.testing.assert_close(stale_gradient(SMALL, old, now, ratio=True), corrected, rtol=0, atol=1e-13)
    # and the second is the gradient of the surrogate
    mu = policy_matrix(SMALL, old).detach()
    torch.testing.assert_close(
        now.gradient(surrogate(SMALL, mu, policy_matrix(SMALL, now))), corrected, rtol=0, atol=1e-13
    )


def test_the_second_moment_of_the_weights_is_that_of_all_trajectories():
    for mdp in (SMALL, random_mdp(3, 2, 4, np.random.default_rng(1), terminal=(2,))):
        old, now = policy_of(mdp, 0), policy_of(mdp, 1)
        mu, pi = (policy_matrix(mdp, p).detach() for p in (old, now))
        rollout, p = enumerate_trajectories(mdp, old)
        state = rollout.obs[:-1].argmax(-1)
        w = torch.where(rollout.mask, (pi / mu)[state, rollout.act], 1.0).prod(0)
        assert float(p @ w) == pytest.approx(1.0)
        assert second_moment(mdp, mu, pi) == pytest.approx(float(p @ w.square()))
        assert trajectory_count(mdp) == len(p)
        assert second_moment(mdp, mu, mu) == pytest.approx(1.0)
    assert trajectory_count(make_mdp("corridor")) == math.inf


def test_where_every_trajectory_gives_the_same_estimate_there_is_no_variance_to_compare_with():
    """Of two actions, both likely alike, with rewards 1 and 0, either says (1, −1) / 4."""
    mdp = bandit([1.0, 0.0])
    found = staleness(mdp, tabular_policy(mdp, scale=0.0), ages=(0,))
    weighted = found.rows[0].weighted
    assert weighted is not None
    assert math.isnan(weighted.relative)
    assert "nan" in str(found)


@pytest.mark.parametrize("name", ["delayed", "deceptive"])
def test_updates_end_before_the_gradient_vanishes(name):
    """In units of a gradient that is rounding, errors were 1e14, or NaN."""
    mdp = make_mdp(name)
    policy = starting_policy(name, mdp)
    found, first = staleness(mdp, policy), float(exact_gradient(mdp, policy).norm())
    assert found.vanished
    assert [row.age for row in found.rows] == [age for age in AGES if age <= found.updates]
    for row in found.rows:
        assert all(math.isfinite(x) for x in (row.kl, row.plain.cosine, row.plain.error, row.ratio.error, row.ess))
        assert row.plain.error < 1.0 / MIN_GRADIENT_RATIO
        assert row.weighted is not None
        assert row.weighted.error <= 1e-11
    assert f"ended after {found.updates} updates" in str(found)
    path = [policy]  # the next one is too near
    for _ in range(found.updates + 1):
        rule = NaturalGradient(UPDATE_KL, damping=0.0, solver="dense")
        path.append(apply(rule, path[-1], exact_batch(mdp, path[-1]))[1])
    norms = [float(exact_gradient(mdp, p).norm()) for p in path]
    assert norms[-1] < MIN_GRADIENT_RATIO * first <= norms[-2]
    with pytest.raises(ValueError, match=f"ages must be at most {found.updates}, where ∇J has all but vanished"):
        staleness(mdp, policy, ages=(found.updates + 1,))


def test_where_the_gradient_is_zero_from_the_start_no_data_is_compared_with_it():
    mdp = bandit([1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="∇J is 0 at this policy"):
        staleness(mdp, policy_of(mdp))
    rules = staleness(SMALL, policy_of(SMALL), ages=(0, 1))
    assert not rules.vanished
    assert "ended" not in str(rules)


def test_the_bound_is_for_steps_up_to_1_over_L_and_L_is_that_of_the_path():
    def gradient(theta):
        return -torch.tensor([3.0, 1.0], dtype=torch.float64) * theta

    path = sgd(torch.tensor([1.0, 0.0], dtype=torch.float64), gradient, 5, 0.1)
    assert lipschitz(gradient, path, gradient(path)) == pytest.approx(3.0)
    assert lipschitz(gradient, path[:1].expand(3, 2), gradient(path[:1]).expand(3, 2)) == 0.0
    leap = torch.tensor(
        [[0.5], [99.0]], dtype=torch.float64
    )  # onto the plateau of exp(−θ²/2): L where it began, 0.66, counts
    assert lipschitz(lambda x: -x * torch.exp(-x.square() / 2), leap, -leap * torch.exp(-leap.square() / 2)) > 0.6
    for lr, bounded in ((4.0, True), (40.0, False)):
        found = decay(SMALL, policy_of(SMALL), budgets=(4, 8), runs=2, lr=lr)
        assert all(math.isfinite(b.bound) is bounded for b in found.budgets)
        assert ("α > 1/L" in str(found)) is not bounded


def test_too_many_trajectories_are_not_listed_and_no_horizon_is_refused():
    mdp = make_mdp("random")
    found = staleness(mdp, policy_of(mdp), ages=(0, 2))
    assert found.rows[1].weighted is None
    assert "–" in str(found)
    with pytest.raises(ValueError, match="need a horizon"):
        staleness(make_mdp("corridor"), policy_of(make_mdp("corridor")))
    with pytest.raises(ValueError, match="ages must be numbers of updates"):
        staleness(mdp, policy_of(mdp), ages=())


@pytest.mark.parametrize(
    ("name", "mdp"), [("surrogate", "corridor"), ("lemma", "aliased"), ("lemma", "chain"), ("surrogate", "gridworld")]
)
def test_the_bench_takes_every_world(name, mdp):
    assert experiments.measure(name, mdp).to_json()


def test_the_bench_names_what_there_is():
    with pytest.raises(ValueError, match="did you mean 'lemma'"):
        experiments.measure("lema")
    with pytest.raises(ValueError, match="there is no MDP 'chian'"):
        experiments.measure("lemma", "chian")
    with pytest.raises(ValueError, match="these states share rows"):
        experiments.measure("derivatives", "corridor")
