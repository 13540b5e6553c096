"""Gradient ascent: where it stops, and that a stationary point is a global maximum of concave functions, not of convex ones."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from policygrad.lab.exact.tabular import bandit, optimum, tabular_policy
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.theory.ascent import ascend, backtracking, fixed, landscapes, sgd
from policygrad.lab.theory.derivatives import automatic
from policygrad.lab.theory.functions import Function, performance, quadratic, two_hills


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


CURVATURE = vector(1.0, 4.0, 0.25)


@pytest.mark.parametrize("rule", [fixed(0.2), backtracking()], ids=["fixed", "backtracking"])
def test_on_a_concave_function_every_start_leads_to_the_global_maximum(rule):
    for seed in range(10):
        start = 3.0 * torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        path = ascend(quadratic(-CURVATURE), start, rule=rule)
        assert path.stopped == "stationary"
        assert path.grad_norm[-1] <= 1e-6
        assert abs(path.value[-1]) <= 1e-11
        assert all(a <= b for a, b in zip(path.value, path.value[1:], strict=False))


@pytest.mark.parametrize("rule", [fixed(0.2), backtracking()], ids=["fixed", "backtracking"])
def test_on_a_convex_function_ascent_diverges_and_its_stationary_point_is_the_minimum(rule):
    path = ascend(quadratic(CURVATURE), vector(0.1, 0.0, 0.0), rule=rule)
    assert path.stopped == "diverged"
    stuck = ascend(quadratic(CURVATURE), torch.zeros(3, dtype=torch.float64), rule=rule)
    assert (stuck.stopped, stuck.steps, stuck.value[0]) == ("stationary", 0, 0.0)  # the lowest point of all


def test_a_fixed_step_is_as_fast_as_theory_says_and_too_long_a_one_diverges():
    """θ_k = (1 − lr c)ᵏ θ_0 on ½cθ²; beyond lr = 2/L it grows."""
    path = ascend(quadratic(-vector(2.0)), vector(1.0), 20, fixed(0.1), tolerance=0.0)
    torch.testing.assert_close(path.theta[:, 0], 0.8 ** torch.arange(21, dtype=torch.float64))
    assert ascend(quadratic(-vector(2.0)), vector(1.0), 1000, fixed(1.1)).stopped == "diverged"
    assert ascend(quadratic(-vector(2.0)), vector(1.0), 1000, fixed(0.99)).stopped == "stationary"
    assert ascend(quadratic(-vector(2.0)), vector(1.0), 1000, backtracking(1000.0)).stopped == "stationary"


def test_ascent_on_J_never_falls_with_backtracking_and_follows_the_exact_gradient():
    mdp = make_mdp("random", 1)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(1))
    J = performance(mdp, policy)
    path = ascend(J, policy.flat, 40)
    assert all(a <= b for a, b in zip(path.value, path.value[1:], strict=False))
    assert path.value[0] < path.value[-1] <= optimum(mdp)
    step = path.theta[1] - path.theta[0]
    g = automatic(J, policy.flat)
    assert float(step @ g / (step.norm() * g.norm())) == pytest.approx(1.0, abs=1e-12)
    assert path.grad_norm[0] == pytest.approx(float(g.norm()))


def test_landscapes_have_the_ends_that_they_are_for():
    found = landscapes(400)
    assert {case.name: case.path.stopped for case in found.cases} == {
        "concave": "stationary",
        "convex": "diverged",
        "saddle, from its ridge": "stationary",
        "two hills, from right": "stationary",
        "two hills, from left": "stationary",
        "two hills, from far": "steps",
        "J, from even choices": "steps",
        "J, from left choices": "steps",
    }
    lost = {case.name: case.lost for case in found.cases}
    assert lost["concave"] == pytest.approx(0.0, abs=1e-10)
    assert lost["two hills, from right"] == pytest.approx(0.0, abs=1e-10)
    assert lost["two hills, from left"] == pytest.approx(0.4, abs=1e-3)  # a local maximum, 0.6 of 1
    curvature = hessian(two_hills, found["two hills, from left"].path.theta[-1])
    assert float(torch.linalg.eigvalsh(curvature)[-1]) < 0.0  # it is one
    far = found["two hills, from far"].path
    assert far.grad_norm[-1] < 1e-5 < 0.1 < far.grad_norm[-1] / 1e-6  # flat, and not stationary
    assert lost["J, from even choices"] < 0.1 < 5.0 < lost["J, from left choices"]
    assert found["J, from left choices"].path.grad_norm[-1] < 0.02
    assert "saddle" in str(found)
    assert json.loads(json.dumps(found.to_json()))["cases"][1]["best"] is None


def hessian(f: Function, theta: Tensor) -> Tensor:
    found = torch.autograd.functional.hessian(f, theta)
    assert isinstance(found, Tensor)
    return found


def test_J_is_not_concave():
    """A bandit's J in logits: curvatures of both signs, along its maximum's side and the other."""
    mdp = bandit([1.0, 0.0])
    J = performance(mdp, tabular_policy(mdp))
    signs = [float(hessian(J, vector(x, 0.0))[0, 0]) for x in (-2.0, 2.0)]
    assert signs[0] > 0.01
    assert signs[1] < -0.01


def test_sgd_with_the_exact_gradient_is_ascent_and_descends_when_told_to():
    f, start = quadratic(-CURVATURE), vector(1.0, -1.0, 2.0)
    path = sgd(start, lambda theta: automatic(f, theta), 30, 0.1)
    torch.testing.assert_close(path, ascend(f, start, 30, fixed(0.1), tolerance=0.0).theta)
    assert path.shape == (31, 3)
    assert torch.equal(start, vector(1.0, -1.0, 2.0))
    g = quadratic(CURVATURE)
    torch.testing.assert_close(sgd(start, lambda theta: automatic(g, theta), 30, 0.1, maximize=False), path)
    falling = sgd(start, lambda theta: torch.ones(3, dtype=torch.float64), 10, lambda progress: 1.0 - progress)
    torch.testing.assert_close(falling[-1] - start, torch.full((3,), 5.5, dtype=torch.float64))


def test_sgd_finds_the_maximum_through_noise_when_its_steps_shrink_and_keeps_a_distance_when_not():
    """A quadratic of curvature 1 with noise of variance 1: E[θ²] → lr/(2 − lr) with a fixed lr."""
    generator = torch.Generator().manual_seed(0)

    def estimate(theta: Tensor) -> Tensor:
        return -theta + torch.randn(theta.shape, generator=generator, dtype=torch.float64)

    start = torch.zeros(400, dtype=torch.float64)
    squares = sgd(start, estimate, 60, 0.2)[-1].square()
    assert float(squares.mean()) == pytest.approx(0.2 / 1.8, abs=4.0 * math.sqrt(2.0 / 400) * 0.2 / 1.8)
    shrinking = sgd(start, estimate, 400, lambda progress: 1.0 / (1.0 + 400.0 * progress))[-1]
    assert float(shrinking.square().mean()) == pytest.approx(1.0 / 400, rel=4.0 * math.sqrt(2.0 / 400))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        ascend(two_hills, vector(0.0, 0.0), 0)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        sgd(vector(0.0), lambda theta: theta, 0)
    with pytest.raises(FloatingPointError, match="the estimate of step 0 is not finite"):
        sgd(vector(0.0), lambda theta: theta / 0.0, 3)
