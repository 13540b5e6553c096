"""The performance difference lemma and the surrogate: identities to rounding, orders as slopes, bounds that hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from policygrad.lab.exact.tabular import (
    MDP,
    advantage,
    greedy,
    objective,
    occupancy,
    policy_matrix,
    random_mdp,
    solve,
    tabular_policy,
    visits,
)
from policygrad.lab.exact.worlds import make_mdp, starting_policy
from policygrad.lab.theory.derivatives import automatic
from policygrad.lab.theory.functions import performance, probabilities
from policygrad.lab.theory.lemma import expected_advantage, lemma, sampled_lemma
from policygrad.lab.theory.surrogate import bounds, surrogate, surrogate_order


def table(mdp: MDP, seed: int) -> Tensor:
    return policy_matrix(mdp, tabular_policy(mdp, torch.Generator().manual_seed(seed))).detach()


def world(seed: int, horizon: int | None) -> MDP:
    """With and without terminal states, discounted or not where there is a horizon."""
    gamma = 0.9 if horizon is None or seed % 2 else 1.0
    return random_mdp(5, 3, horizon, np.random.default_rng(seed), gamma, (4,) if seed % 3 == 0 else ())


@pytest.mark.parametrize("horizon", [6, None], ids=["finite", "infinite"])
def test_both_sides_are_equal_for_100_pairs_of_policies(horizon):
    for seed in range(100):
        mdp = world(seed, horizon)
        pi, new = table(mdp, 2 * seed), table(mdp, 2 * seed + 1)
        found = lemma(mdp, pi, new)
        assert found.gap <= 1e-10
        assert found.difference == pytest.approx(float(objective(mdp, new) - objective(mdp, pi)), abs=1e-13)
        assert sum(found.by_state) == pytest.approx(found.difference, abs=1e-12)
        # control: the states of the old policy give something else
        old_states = float((occupancy(mdp, pi) * expected_advantage(mdp, pi, new)).sum())
        assert abs(old_states - found.difference) > 1e-6


def test_it_holds_for_policies_that_depend_on_time_and_for_greedy_ones_and_where_states_look_alike():
    mdp = world(1, 6)
    pi, new = torch.stack([table(mdp, t) for t in range(6)]), greedy(solve(mdp, table(mdp, 9))[1])
    assert lemma(mdp, pi, new).gap <= 1e-13
    assert lemma(mdp, table(mdp, 0), new).gap <= 1e-13
    assert lemma(mdp, new, pi).gap <= 1e-13
    for name in ("corridor", "aliased", "rock-paper-scissors", "FrozenLake-v1"):
        mdp = make_mdp(name)
        assert lemma(mdp, table(mdp, 0), table(mdp, 1)).gap <= 1e-10


def test_advantages_of_the_new_policy_would_be_wrong():
    """Control: with A of π' instead of A of π the right side is 0."""
    mdp = world(1, 6)
    pi, new = table(mdp, 0), table(mdp, 1)
    wrong = (occupancy(mdp, new) * expected_advantage(mdp, new, new)).sum()
    assert abs(float(wrong)) <= 1e-13 < abs(lemma(mdp, pi, new).difference)


@pytest.mark.parametrize("horizon", [6, None], ids=["finite", "infinite"])
def test_the_sampled_side_is_unbiased_and_the_dot_product_has_less_variance(horizon):
    """Σ_a π'(a|s) A(s,a) is a dot product; actions need not be sampled."""
    mdp = world(1, horizon)
    pi, new = table(mdp, 0), table(mdp, 1)
    found = sampled_lemma(mdp, pi, new, 5_000, torch.Generator().manual_seed(0))
    assert abs(found.actions - found.exact) <= 4.0 * found.actions_error
    assert abs(found.states - found.exact) <= 4.0 * found.states_error
    assert found.exact == pytest.approx(lemma(mdp, pi, new).difference, abs=1e-4)
    assert found.states_error < 0.9 * found.actions_error
    low, high = found.interval
    assert high - low == pytest.approx(2.0 * 1.96 * found.actions_error)
    # control: episodes of the old policy say something else
    old = sampled_lemma(mdp, pi, pi, 5_000, torch.Generator().manual_seed(0))
    assert abs(old.actions - found.exact) > 6.0 * old.actions_error


@pytest.mark.parametrize("name", ["small", "corridor", "aliased", "two-states"])
def test_J_minus_the_surrogate_is_of_second_order_and_that_of_a_wrong_one_of_first(name):
    mdp = make_mdp(name)
    slopes = surrogate_order(mdp, tabular_policy(mdp, torch.Generator().manual_seed(0))).slopes
    assert slopes["error"] == pytest.approx(2.0, abs=0.03)
    assert slopes["wrong_advantages"] == pytest.approx(1.0, abs=0.05)
    assert slopes["wrong_states"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("horizon", [6, None], ids=["finite", "infinite"])
def test_the_bounds_hold_for_100_pairs_near_and_far_and_are_of_second_order(horizon):
    for seed in range(100):
        mdp = world(seed, horizon)
        policy = tabular_policy(mdp, torch.Generator().manual_seed(seed), scale=0.5 + seed % 3)
        pi, step = policy_matrix(mdp, policy).detach(), torch.randn(len(policy.flat), dtype=torch.float64)
        new = probabilities(mdp, policy)(policy.flat + 10.0 ** (seed % 4 - 2) * step)
        for found in (bounds(mdp, pi, new), bounds(mdp, pi, greedy(advantage(mdp, pi)[0]))):
            assert abs(found.error) <= found.achiam + 1e-13
            assert found.achiam <= found.schulman * (1.0 + 1e-12) + 1e-13
    order = surrogate_order(world(1, horizon), tabular_policy(world(1, horizon), torch.Generator().manual_seed(0)))
    assert order.holds
    assert order.slopes["achiam"] == pytest.approx(2.0, abs=0.03)
    assert order.slopes["schulman"] == pytest.approx(2.0, abs=0.03)


@pytest.mark.parametrize("name", ["bandit", "deceptive"])
def test_with_one_step_the_surrogate_is_J_and_rounding_has_no_slope(name):
    mdp = make_mdp(name)
    found = surrogate_order(mdp, starting_policy(name, mdp))
    assert found.slopes == {}
    assert found.holds
    assert "bounds hold at every step\n" in str(found)
    assert "has no slope" in str(found)
    # control: what is above rounding has one, though some of the shortest steps may not be
    errors = tuple(0.3 * h**2 for h in found.lengths)
    assert replace(found, error=errors, rounding=(1e-7,) * 21).slopes == {"error": pytest.approx(2.0)}


def test_without_a_discount_and_a_horizon_there_is_no_bound_and_none_that_holds():
    mdp = make_mdp("corridor")
    found = surrogate_order(mdp, tabular_policy(mdp, torch.Generator().manual_seed(0)))
    assert (found.bounded, found.holds) == (False, False)
    assert "there is no bound: γ = 1 without a horizon" in str(found)
    assert "inf" not in str(found)
    broken = surrogate_order(world(1, 6), tabular_policy(world(1, 6), torch.Generator().manual_seed(0)))
    broken = replace(broken, achiam=tuple(1e-3 * x for x in broken.achiam))
    assert (broken.bounded, broken.holds) == (True, False)
    assert "a bound does not hold" in str(broken)


def test_the_trpo_bound_without_a_horizon_is_the_papers():
    mdp = world(1, None)
    pi, new = table(mdp, 0), table(mdp, 1)
    found, gamma = bounds(mdp, pi, new), mdp.gamma
    alpha, epsilon = 0.5 * float((pi - new).abs().sum(1).max()), float(advantage(mdp, pi).abs().max())
    assert found.schulman == pytest.approx(4.0 * epsilon * gamma * alpha**2 / (1.0 - gamma) ** 2)
    d, tv = (1.0 - gamma) * occupancy(mdp, pi)[0], 0.5 * (pi - new).abs().sum(1)
    worst = float(expected_advantage(mdp, pi, new).abs().max())
    assert found.achiam == pytest.approx(2.0 * gamma * worst / (1.0 - gamma) ** 2 * float(d @ tv))
    corridor = make_mdp("corridor")
    far = bounds(corridor, table(corridor, 0), table(corridor, 1))
    assert far.schulman == far.achiam == math.inf
    same = bounds(corridor, table(corridor, 0), table(corridor, 0))
    assert (same.error, same.achiam, same.schulman) == (0.0, 0.0, 0.0)


def test_the_bound_with_a_horizon_counts_the_steps_at_which_policies_may_have_parted():
    """‖P'_t − P_t‖₁ ≤ 2 Σ_{k<t} E[TV_k], so |J − L| ≤ ε' Σ_t γᵗ 2 Σ_{k<t} Σ_s P(s_k = s | π) TV(s): here as a double loop."""
    mdp = random_mdp(5, 3, 6, np.random.default_rng(1), 0.8, (4,))
    pi, new = table(mdp, 0), table(mdp, 1)
    d, tv = visits(mdp, pi), 0.5 * (pi - new).abs().sum(1)
    parted = sum(0.8**t * 2.0 * float(d[k] @ tv) for t in range(6) for k in range(t))
    found = bounds(mdp, pi, new)
    assert found.achiam == pytest.approx(parted * float(expected_advantage(mdp, pi, new).abs().max()))
    times = sum(t * 0.8**t for t in range(6))
    assert found.schulman == pytest.approx(4.0 * found.max_advantage * found.max_tv**2 * times)


def test_the_surrogate_has_the_gradient_of_J_where_it_starts():
    for horizon in (6, None):
        mdp = world(1, horizon)
        policy = tabular_policy(mdp, torch.Generator().manual_seed(2))
        pi, table_of = policy_matrix(mdp, policy).detach(), probabilities(mdp, policy)
        exact = automatic(performance(mdp, policy), policy.flat)
        torch.testing.assert_close(
            automatic(lambda theta, m=mdp, p=pi, f=table_of: surrogate(m, p, f(theta)), policy.flat),
            exact,
            rtol=0,
            atol=1e-13,
        )


def test_results_print_and_write_themselves():
    mdp = world(1, 6)
    found = lemma(mdp, table(mdp, 0), table(mdp, 1))
    assert "gap" in str(found)
    written = json.loads(json.dumps(found.to_json()))
    assert len(written["by_state"]) == 5
    assert written["difference"] == found.difference
    order = surrogate_order(mdp, tabular_policy(mdp, torch.Generator().manual_seed(0)), lengths=(1e-3, 1e-2, 1e-1))
    assert "bounds hold" in str(order)
    assert json.loads(json.dumps(order.to_json()))["slopes"].keys() == order.slopes.keys()
    assert "dot products" in str(sampled_lemma(mdp, table(mdp, 0), table(mdp, 1), 10, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="at least 2 episodes, got 1"):
        sampled_lemma(mdp, table(mdp, 0), table(mdp, 1), 1, torch.Generator())
