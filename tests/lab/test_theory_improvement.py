"""Policy iteration against steps that stay near: who loses, the bound, and how far the states visited move."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from policygrad.lab.exact.tabular import (
    MDP,
    exact_gradient,
    greedy,
    objective,
    occupancy,
    optimum,
    policy_matrix,
    random_mdp,
    solve,
    tabular_policy,
)
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.results import slope
from policygrad.lab.theory.derivatives import automatic
from policygrad.lab.theory.functions import performance, probabilities
from policygrad.lab.theory.improvement import (
    attained,
    cautious,
    change,
    fitted_batch,
    fitted_values,
    improvement,
    shortcut,
)
from policygrad.lab.theory.surrogate import bounds

FOUND = improvement(iterations=40, horizons=(10, 40, 160))


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_the_table_of_a_short_path_has_all_of_it(iterations):
    path = str(improvement(iterations=iterations, horizons=(5,))).split("\n\n")[1]
    assert path.splitlines()[0].split()[-2 - iterations :] == [*map(str, range(iterations + 1)), "lowest"]


def test_exact_policy_iteration_never_loses():
    """The policy improvement theorem, for 50 policies with and without a horizon."""
    for seed in range(50):
        mdp = random_mdp(5, 3, (6, None)[seed % 2], np.random.default_rng(seed), 0.9)
        pi = policy_matrix(mdp, tabular_policy(mdp, torch.Generator().manual_seed(seed))).detach()
        found = change(mdp, pi, greedy(solve(mdp, pi)[1]))
        assert found.rise > 0.0
        assert found.worst >= -1e-12


def test_a_fitted_step_loses_nearly_all_that_the_bound_allows_and_a_trust_region_step_rises():
    lost = FOUND.steps["PI, fitted Q"]
    assert lost.rise < -18.0
    assert lost.bound <= lost.rise
    assert lost.share > 0.9
    for rule in ("PG", "NPG", "TRPO"):
        assert FOUND.steps[rule].rise > 0.4
        assert min(FOUND.paths[rule]) == FOUND.paths[rule][0]  # never below the start
    assert FOUND.steps["PI, exact Q"].rise > 9.0


def test_fitted_policy_iteration_goes_round_in_circles_where_trpo_comes_near_the_best_blind_policy():
    assert {round(J, 6) for J in FOUND.paths["PI, fitted Q"][1:]} == {-18.0, 0.0}
    mdp, policy = shortcut(), cautious(shortcut())
    blind = []
    for p in np.linspace(0.01, 0.99, 99):
        pi = torch.tensor([[1.0 - p, p]] * 2, dtype=torch.float64)
        blind.append(float(objective(mdp, pi)))
    assert max(blind) < FOUND.best == pytest.approx(optimum(mdp))
    assert min(FOUND.paths["TRPO"][10:]) > 0.95 * max(blind)
    assert float(objective(mdp, policy_matrix(mdp, policy).detach())) < 0.5 * max(blind)


def test_the_loss_grows_as_the_horizon_and_the_bound_is_attained_but_for_a_constant():
    """H times the worst advantage; what is left over does not grow with H."""
    for horizon, found in FOUND.horizons:
        assert found.bound == pytest.approx(horizon * found.worst)
        assert found.bound <= found.rise < 0.0
        assert found.rise - found.bound < 2.1
    losses = [-found.rise for _, found in FOUND.horizons]
    assert slope([10, 40, 160], losses) == pytest.approx(1.0, abs=0.1)
    assert attained(1000).share > 0.995


def test_the_bound_holds_for_100_pairs_and_a_smaller_one_would_not():
    broken = 0
    for seed in range(100):
        mdp = random_mdp(4, 3, (6, None)[seed % 2], np.random.default_rng(seed), 0.9, (3,) if seed % 3 == 0 else ())
        pi, new = (
            policy_matrix(mdp, tabular_policy(mdp, torch.Generator().manual_seed(2 * seed + i), scale=2.0)).detach()
            for i in (0, 1)
        )
        found = change(mdp, pi, new)
        assert found.rise >= found.bound - 1e-12
        broken += found.rise < 0.1 * found.bound  # control: a tenth of it is no bound
    assert broken > 10


def test_the_fit_is_least_squares_and_exact_where_no_states_look_alike():
    mdp = random_mdp(4, 3, None, np.random.default_rng(0), 0.9)
    pi = policy_matrix(mdp, tabular_policy(mdp, torch.Generator().manual_seed(0))).detach()
    torch.testing.assert_close(fitted_values(mdp, pi), solve(mdp, pi)[1][0], rtol=0, atol=1e-12)
    features = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w, Q = occupancy(mdp, pi)[0], solve(mdp, pi)[1][0]
    residual = fitted_values(mdp, pi, features) - Q
    torch.testing.assert_close(features.T @ (w[:, None] * residual), torch.zeros(2, 3).double(), rtol=0, atol=1e-12)
    assert float(residual.norm()) > 0.1


def test_fitted_advantages_give_the_exact_gradient_of_a_policy_that_is_as_blind():
    """Compatible function approximation: why the same fit misleads policy iteration and not a gradient."""
    for mdp in (shortcut(), make_mdp("corridor"), make_mdp("rock-paper-scissors")):
        policy = tabular_policy(mdp, torch.Generator().manual_seed(3))
        batch = fitted_batch(mdp, policy)
        found = policy.evaluate(batch).gradient(batch.weight * batch.adv)
        torch.testing.assert_close(found, exact_gradient(mdp, policy), rtol=0, atol=1e-10)
    # control: a policy that sees more than the fit does not get its gradient
    sharp = make_mdp("small")
    policy = tabular_policy(sharp, torch.Generator().manual_seed(3))
    batch = fitted_batch(sharp, policy, torch.ones(3, 1, dtype=torch.float64))
    found = policy.evaluate(batch).gradient(batch.weight * batch.adv)
    assert float((found - exact_gradient(sharp, policy)).norm()) > 0.01


def test_the_states_visited_move_with_a_gradient_steps_length_and_jump_under_policy_iteration():
    """TV of the state distributions ∝ the step; of a greedy step it is what it is."""
    mdp, policy = shortcut(), cautious(shortcut())
    pi, table = policy_matrix(mdp, policy).detach(), probabilities(mdp, policy)
    g = automatic(performance(mdp, policy), policy.flat)
    lengths = (1e-4, 1e-3, 1e-2)
    moves = [change(mdp, pi, table(policy.flat + h * g / g.norm())) for h in lengths]
    assert slope(lengths, [m.tv for m in moves]) == pytest.approx(1.0, abs=0.02)
    assert slope(lengths, [m.kl for m in moves]) == pytest.approx(2.0, abs=0.02)
    assert all(0.0 < FOUND.steps[rule].tv < 0.05 for rule in ("PG", "NPG", "TRPO"))
    assert max(FOUND.shifts["TRPO"]) < 0.1 < 0.9 < min(FOUND.shifts["PI, fitted Q"])
    # Achiam et al. 2017, lemma 3: TV of the states ≤ γ/(1 − γ) · mean TV of the policies
    for rule in ("TRPO", "PG"):
        step = FOUND.steps[rule]
        assert step.tv <= 0.95 / 0.05 * step.policy_tv


def test_kl_is_infinite_where_the_new_policy_never_goes():
    P = torch.zeros(2, 2, 2)
    P[:, 0, 0] = P[:, 1, 1] = 1.0
    mdp = MDP(P, torch.zeros(2, 2), torch.tensor([1.0, 0.0]), 4)
    stay, even = torch.tensor([[1.0, 0.0]] * 2).double(), torch.full((2, 2), 0.5).double()
    assert change(mdp, even, stay).kl == math.inf
    assert change(mdp, stay, even).kl == pytest.approx(math.log(4 / 2.5))
    assert bounds(mdp, stay, even).max_advantage == 0.0


def test_where_nothing_is_left_to_gain_gradient_rules_stay_where_they_are():
    mdp = make_mdp("two-states")
    found = improvement(
        mdp, tabular_policy(mdp, torch.Generator().manual_seed(0)), iterations=60, max_kl=0.1, horizons=(5,)
    )
    for rule in ("PG", "NPG", "TRPO"):
        assert len(found.paths[rule]) == 61
        assert found.paths[rule][-1] == pytest.approx(found.best, abs=0.01)


def test_the_report_and_what_is_refused():
    text = str(FOUND)
    assert "PI, fitted Q" in text
    assert "share" in text
    assert json.loads(json.dumps(FOUND.to_json()))["steps"]["TRPO"]["rise"] > 0.0
    with pytest.raises(ValueError, match=r"probability must be in \(0, 1\), got 1"):
        cautious(shortcut(), 1.0)
