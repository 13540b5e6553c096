"""Symbolic differentiation: right to rounding, refused where there is no formula, and a formula that swells."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
import torch

from policygrad.lab.exact.tabular import bandit, gradient_theorem, random_mdp, tabular_policy
from policygrad.lab.theory.derivatives import three_ways
from policygrad.lab.theory.symbolic import MAX_TERMS, performance_formula, swell, symbolic, terms


def test_a_formula_is_differentiated_and_its_operations_are_counted() -> None:
    theta = torch.tensor([0.3, 2.0, -1.0], dtype=torch.float64)
    found = symbolic(lambda x: x[0] ** 2 * sympy.sin(x[1]), theta)
    expected = [2 * 0.3 * np.sin(2.0), 0.3**2 * np.cos(2.0), 0.0]
    assert found.gradient.tolist() == pytest.approx(expected, rel=1e-15)
    assert (found.operations, found.derivative_operations) == (3, 6)  # x²·sin y; 2·x·sin y and x²·cos y, and 0
    assert symbolic(lambda x: x[0] * x[1], theta, [1]).gradient.tolist() == [0.3]
    assert symbolic(lambda x: 5, theta).gradient.tolist() == [0.0] * 3


@pytest.mark.parametrize(("seed", "gamma", "terminal"), [(0, 1.0, ()), (1, 0.8, (1,)), (2, 0.9, ())])
def test_J_is_one_and_its_derivative_is_the_gradient(seed: int, gamma: float, terminal: tuple[int, ...]) -> None:
    mdp = random_mdp(2, 3 if terminal else 2, 2, np.random.default_rng(seed), gamma, terminal=terminal)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(seed))
    found = symbolic(performance_formula(mdp), policy.flat).gradient
    torch.testing.assert_close(found, gradient_theorem(mdp, policy), rtol=0, atol=1e-14)
    assert terms(mdp) <= MAX_TERMS
    assert three_ways(mdp, seed, sizes=(2,)).symbolic < 1e-13


def test_formulas_swell_and_their_derivatives_more() -> None:
    one, two = swell()
    assert 4.0 < two.operations / one.operations < two.derivative_operations / one.derivative_operations
    assert max(one.error, two.error) < 1e-13


def test_large_ones_are_left_out_and_said_so() -> None:
    mdp = random_mdp(3, 2, 6, np.random.default_rng(0))
    assert terms(mdp) > MAX_TERMS
    found = three_ways(mdp, sizes=(2,))
    assert found.symbolic is None
    assert "symbolic   " not in str(found)
    assert "operations of J" in str(found)
    small = three_ways(bandit([1.0, 2.0]), sizes=(2,))
    assert small.symbolic is not None
    assert "symbolic   " in str(small)


def test_what_is_no_formula_is_refused() -> None:
    theta = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="needs one formula"):
        symbolic(lambda x: x[0] if x[0] > 1 else x[1], theta)
    with pytest.raises(ValueError, match="without a horizon"):
        performance_formula(random_mdp(2, 2, None, np.random.default_rng(0), 0.9))
    assert terms(random_mdp(2, 2, None, np.random.default_rng(0), 0.9)) == float("inf")
