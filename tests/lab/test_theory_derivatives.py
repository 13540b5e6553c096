"""One derivative, three ways: orders and costs are those of theory, and the gradient check finds what is wrong and no more."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from policygrad.lab.exact.tabular import (
    bandit,
    exact_gradient,
    gradient_theorem,
    objective,
    policy_matrix,
    random_mdp,
    tabular_policy,
)
from policygrad.lab.results import slope
from policygrad.lab.theory.derivatives import (
    SIZES,
    STEPS,
    automatic,
    central,
    check_gradient,
    complex_step,
    costs,
    error_by_step,
    forward,
    three_ways,
)
from policygrad.lab.theory.functions import branches_and_loops, performance, table_performance

MDP = random_mdp(4, 3, 5, np.random.default_rng(0), 0.9, terminal=(3,))
POLICY = tabular_policy(MDP, torch.Generator().manual_seed(0))
THETA, J, EXACT = POLICY.flat.clone(), table_performance(MDP), gradient_theorem(MDP, POLICY)


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_J_written_out_is_J_and_so_is_that_of_a_network():
    exact = float(objective(MDP, policy_matrix(MDP, POLICY).detach()))
    assert float(J(THETA)) == pytest.approx(exact, abs=1e-14)
    assert float(performance(MDP, POLICY)(THETA)) == pytest.approx(exact, abs=1e-14)
    moved = THETA + 0.1
    moved[0] += 1.0
    assert float(performance(MDP, POLICY)(moved)) == pytest.approx(float(J(moved)), abs=1e-14)
    assert torch.equal(POLICY.flat, THETA)


def test_three_ways_agree_on_20_random_mdps():
    """Closed form, autodiff and complex step to rounding, central differences to 1e-7."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mdp = random_mdp(3, 2, 4, rng, (1.0, 0.8)[seed % 2], terminal=((), (2,))[seed // 2 % 2])
        policy = tabular_policy(mdp, torch.Generator().manual_seed(seed))
        J, theta, exact = table_performance(mdp), policy.flat.clone(), gradient_theorem(mdp, policy)
        torch.testing.assert_close(automatic(J, theta), exact, rtol=0, atol=1e-14)
        torch.testing.assert_close(complex_step(J, theta), exact, rtol=0, atol=1e-14)
        torch.testing.assert_close(exact_gradient(mdp, policy), exact, rtol=0, atol=1e-14)
        assert float((central(J, theta, 1e-5) - exact).norm() / exact.norm()) <= 1e-7


def test_errors_over_the_step_are_a_V_with_the_slopes_of_truncation_and_rounding():
    found = error_by_step(J, THETA, EXACT)
    for method, order in (("forward", 1.0), ("central", 2.0)):
        rounding, truncation = found.slopes(method)
        assert rounding == pytest.approx(-1.0, abs=0.15)
        assert truncation == pytest.approx(order, abs=0.03)
    eps = np.finfo(float).eps
    assert 0.1 < found.best("forward")[0] / math.sqrt(eps) < 100.0
    assert 0.1 < found.best("central")[0] / eps ** (1 / 3) < 100.0
    assert found.best("central")[1] < 1e-9 < found.best("forward")[1] < 1e-6
    assert found.errors["complex"][0] < 1e-14  # h = 1e-13: nothing to round
    assert found.automatic < 1e-14


def test_another_functions_gradient_gives_no_V():
    """Negative control: measured against a wrong gradient the error is the same, whatever the step."""
    wrong = EXACT.clone()
    wrong[0] += 0.01

    def spread(gradient):
        found = error_by_step(J, THETA, gradient)
        errors = [e for h, e in zip(found.steps, found.errors["central"], strict=True) if 1e-8 <= h <= 1e-3]
        return min(errors), max(errors) / min(errors)

    least, ratio = spread(wrong)
    assert least > 1e-3
    assert ratio < 1.01
    assert spread(EXACT)[1] > 1e3


def test_of_a_large_mdp_the_largest_components_are_differenced():
    """As many as there is work for; errors are those of these components alone."""
    found = three_ways(MDP, sizes=(2,), components=3)
    assert (found.parameters, found.components) == (len(THETA), 3)
    assert "in its 3 largest components" in str(found)
    largest = EXACT.abs().topk(3).indices
    error = (central(J, THETA, STEPS[22]) - EXACT)[largest].norm() / EXACT[largest].norm()
    assert found.by_step.errors["central"][22] == pytest.approx(float(error), rel=1e-6)
    assert found.by_step.best("central")[1] < 1e-8
    assert three_ways(MDP, sizes=(2,)).components == len(THETA)
    with pytest.raises(ValueError, match="the gradient is 0"):
        three_ways(bandit([0.0, 0.0]), sizes=(2,))


def test_costs_are_D_plus_1_and_2D_against_one():
    found = costs((2, 8))
    assert [(c.method, c.evaluations) for c in found if c.parameters == 8] == [
        ("forward", 9),
        ("central", 16),
        ("automatic", 1),
    ]
    assert [c.evaluations for c in found if c.parameters == 32] == [33, 64, 1]
    assert SIZES[-1] * 4 == 256


def test_branches_and_loops_are_differentiated_through_by_autodiff():
    for theta, expected in (
        (vector(3.0, -1.0), 2.0 * vector(3.0, -1.0) / 4.0**2),  # 4 → 2 → 1
        (vector(0.3, 0.2), 2.0 * vector(0.3, 0.2)),  # no round at all
        (vector(-3.0, -5.0), (vector(-3.0, -5.0) / 8.0).cos() / 8.0),  # the other branch
    ):
        torch.testing.assert_close(automatic(branches_and_loops, theta), expected, rtol=0, atol=1e-15)
    assert check_gradient(branches_and_loops, vector(-3.1, -5.0))
    assert check_gradient(branches_and_loops, vector(3.1, -1.0))
    # where a branch changes sides there is no derivative, and autodiff gives that of the side it is on
    assert check_gradient(branches_and_loops, vector(0.5, 0.5)).verdict == "unclear"


def test_the_gradient_check_passes_what_is_right():
    for seed in range(50):
        mdp = random_mdp(4, 3, 8, np.random.default_rng(seed), 0.95)
        policy = tabular_policy(mdp, torch.Generator().manual_seed(seed), scale=2.0)
        found = check_gradient(table_performance(mdp), policy.flat, gradient_theorem(mdp, policy))
        assert found, str(found)
    assert check_gradient(lambda x: (x.sin() * x).sum(), torch.tensor([1.0, 3.0, 2.0])), "float32"
    assert check_gradient(lambda x: 0.0 * x.sum(), vector(1.0, 2.0))
    assert check_gradient(lambda x: x.square().sum(), vector(1e6, -3e4, 1e-8))


def test_the_gradient_check_finds_planted_errors():
    gradient = EXACT.clone()
    gradient[5] *= 1.0 + 1e-6
    found = check_gradient(J, THETA, gradient)
    assert (found.verdict, found.wrong, found.index) == ("wrong", (5,), 5)
    assert not found
    assert "wrong in 1 of 12 components: 5" in str(found)
    assert json.loads(json.dumps(found.to_json()))["wrong"] == [5]
    # the usual ones: a sign, a factor, a forgotten γᵗ, a detached term, NaN
    assert check_gradient(J, THETA, -EXACT).verdict == "wrong"
    assert check_gradient(J, THETA, 0.999 * EXACT).verdict == "wrong"
    assert check_gradient(J, THETA, EXACT.clone().fill_(math.nan)).verdict == "wrong"
    assert check_gradient(lambda x: (x * x.detach()).sum(), vector(1.0, 2.0)).verdict == "wrong"
    undiscounted = random_mdp(4, 3, 5, np.random.default_rng(0), 1.0, terminal=(3,))
    assert check_gradient(J, THETA, gradient_theorem(undiscounted, POLICY)).verdict == "wrong"


def test_the_gradient_check_says_where_there_is_no_gradient():
    found = check_gradient(lambda x: x.abs().sum(), vector(1.0, 0.0, -2.0))
    assert (found.verdict, found.unclear) == ("unclear", (1,))
    assert not found
    assert check_gradient(lambda x: x.relu().sum(), vector(1.0, 4e-6)).unclear == (1,)  # a kink within the step
    # an error elsewhere is found all the same
    wrong = check_gradient(lambda x: x.abs().sum(), vector(1.0, 0.0), vector(2.0, 0.0))
    assert (wrong.verdict, wrong.wrong, wrong.unclear) == ("wrong", (0,), (1,))


def test_what_cannot_be_checked_is_refused():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="another value at the same theta"):
        check_gradient(lambda x: x.sum() + torch.randn((), generator=generator), vector(1.0))
    with pytest.raises(ValueError, match="one finite number"):
        check_gradient(lambda x: x, vector(1.0, 2.0))
    with pytest.raises(ValueError, match="one finite number"):
        check_gradient(lambda x: x.log().sum(), vector(-1.0))
    with pytest.raises(ValueError, match=r"the gradient must be \(2,\) as theta, got \(3,\)"):
        check_gradient(lambda x: x.sum(), vector(1.0, 2.0), vector(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="theta must be a vector"):
        check_gradient(lambda x: x.sum(), torch.ones(2, 2))
    with pytest.raises(ValueError, match="give its gradient yourself"):
        check_gradient(lambda x: torch.tensor(x.tolist()[0]), vector(1.0))
    with pytest.raises(ValueError, match="step must be positive, got 0"):
        forward(J, THETA, 0.0)


def test_the_report_says_it_all():
    found = three_ways(MDP, sizes=(2,))
    text = str(found)
    assert "automatic" in text
    assert "central: smallest error" in text
    assert "time, in evaluations" in text
    assert json.loads(json.dumps(found.to_json()))["parameters"] == 12
    assert slope([1.0, 10.0, 100.0], [3.0, 0.0, 3e4]) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="two points"):
        slope([1.0, 2.0], [0.0, 1.0])
