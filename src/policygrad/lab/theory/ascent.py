"""Gradient ascent: θ ← θ + α ∇f(θ), exact or with an estimate of the gradient.

It stops where ∇f = 0; whether that is a maximum depends on f. Every stationary point of a *concave* function is a global
maximum. A stationary point of a convex function is its minimum, and ascent moves away from it. For other functions it may be a
lower local maximum or a saddle point; ascent may also spend a long time on a plateau, where the gradient is nearly 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policygrad.errors import NotFiniteError
from policygrad.lab.exact.tabular import optimum
from policygrad.lab.exact.worlds import two_logit_policy, two_states
from policygrad.lab.results import Result, align
from policygrad.lab.theory.derivatives import automatic
from policygrad.lab.theory.functions import Function, performance, quadratic, two_hills
from policygrad.models.schedules import Schedule, at

DIVERGED_NORM = 1e9  # a path with a larger ‖θ‖ has diverged

# (f, θ, f(θ), ∇f(θ), the last α or None) → α, or 0 if no step was found
StepRule = Callable[[Function, Tensor, float, Tensor, float | None], float]


def fixed(lr: float) -> StepRule:
    """A step rule with α = lr, always. It never lowers f if lr ≤ 1/L, where L bounds the curvature."""
    return lambda function, theta, value, gradient, last: lr


def backtracking(lr: float = 1.0, *, shrink: float = 0.5, slope: float = 0.5) -> StepRule:
    """A step rule: the first of α, α · shrink, α · shrink², … with f(θ + α g) ≥ f(θ) + slope · α ‖g‖² (Armijo's condition).

    It starts from lr, and later from twice the last α. It needs no L, and f never falls. Nocedal & Wright, algorithm 3.1.
    """

    def rule(function: Function, theta: Tensor, value: float, gradient: Tensor, last: float | None) -> float:
        alpha, squared = lr if last is None else 2.0 * last, float(gradient @ gradient)
        while alpha > 1e-12:
            if float(function(theta + alpha * gradient)) >= value + slope * alpha * squared:
                return alpha
            alpha *= shrink
        return 0.0

    return rule


@dataclass(frozen=True, eq=False)
class Path(Result):
    """The path of an ascent with K steps, and the reason why it ended.

    stopped: "stationary" (‖∇f‖ ≤ tolerance), "steps" (all steps were used), "diverged" (θ or f grew without bound), or
    "no step" (the step rule found no step that raises f).
    """

    theta: Tensor  # (K+1, P)
    value: tuple[float, ...]  # (K+1,)
    grad_norm: tuple[float, ...]  # (K+1,)
    stopped: str

    @property
    def steps(self) -> int:
        """K."""
        return len(self.value) - 1

    def table(self) -> str:
        """Ten rows of the path, and why it ended."""
        shown = sorted({round(k * self.steps / 9) for k in range(10)})
        rows = [[f"{k:,}", f"{self.value[k]:.6g}", f"{self.grad_norm[k]:.2e}"] for k in shown]
        return align(("step", "f", "‖∇f‖"), rows) + f"\nstopped: {self.stopped}"


def ascend(
    function: Function,
    theta: Tensor,
    steps: int = 1000,
    rule: StepRule | None = None,
    *,
    gradient: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 1e-6,
) -> Path:
    """Exact gradient ascent from θ (P,), until it stops. θ is not changed.

    rule: [backtracking()]. gradient: of the function, [automatic differentiation].
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    rule = backtracking() if rule is None else rule
    gradient = (lambda theta: automatic(function, theta)) if gradient is None else gradient
    path, values, norms, alpha = [theta.detach().clone()], [], [], None
    while True:
        theta = path[-1]
        value, g = float(function(theta)), gradient(theta)
        values.append(value)
        norms.append(float(g.norm()))
        if not (math.isfinite(value) and float(theta.norm()) <= DIVERGED_NORM):
            stopped = "diverged"
        elif norms[-1] <= tolerance:
            stopped = "stationary"
        elif len(path) > steps:
            stopped = "steps"
        elif not (alpha := rule(function, theta, value, g, alpha)):
            stopped = "no step"
        else:
            path.append(theta + alpha * g)
            continue
        return Path(torch.stack(path), tuple(values), tuple(norms), stopped)


def sgd(
    theta: Tensor,
    estimate_gradient: Callable[[Tensor], Tensor],
    steps: int,
    lr: Schedule = 0.1,
    *,
    maximize: bool = True,
) -> Tensor:
    """The path of stochastic gradient ascent, θ_{k+1} = θ_k + lr · ĝ(θ_k), (steps + 1, P). Robbins & Monro 1951.

    estimate_gradient: θ (P,) → any estimate (P,). lr: a number, or a function of the progress k/steps. maximize=False: descent.
    Raises NotFiniteError if an estimate is not finite.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    path, sign = [theta.detach().clone()], 1.0 if maximize else -1.0
    for k in range(steps):
        estimate = estimate_gradient(path[-1])
        if not torch.isfinite(estimate).all():
            raise NotFiniteError(f"the estimate of step {k} is not finite: lower lr")
        path.append(path[-1] + sign * at(lr, k / steps) * estimate)
    return torch.stack(path)


@dataclass(frozen=True)
class AscentCase:
    """An ascent: the name of f, the path, and the largest value of f (NaN: unbounded or unknown)."""

    name: str
    path: Path
    best: float

    @property
    def lost(self) -> float:
        """How far the end is below the best value."""
        return self.best - self.path.value[-1]


@dataclass(frozen=True)
class Landscapes(Result):
    """Ascents on functions of several kinds, by name."""

    cases: tuple[AscentCase, ...]

    def __getitem__(self, name: str) -> AscentCase:
        return {case.name: case for case in self.cases}[name]

    def table(self) -> str:
        """One row per case."""
        rows = []
        for case in self.cases:
            path, lost = case.path, "no maximum" if math.isnan(case.best) else f"{case.lost:.4f}"
            numbers = [f"{path.value[0]:.3g}", f"{path.value[-1]:.3g}", lost, f"{path.grad_norm[-1]:.1e}"]
            rows.append([case.name, *numbers, f"{path.steps:,}", path.stopped])
        return align(("f", "start", "end", "below the best", "‖∇f‖", "steps", "stopped"), rows)


def landscapes(steps: int = 500, extra: Sequence[AscentCase] = ()) -> Landscapes:
    """Ascents on a concave and a convex function, a saddle, two hills (from three starts), and J (with and without a plateau).

    extra: further cases, shown below these.
    """
    bowl, start = torch.tensor([1.0, 4.0], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    concave, convex, saddle = quadratic(-bowl), quadratic(bowl), quadratic(torch.tensor([-1.0, 4.0]))
    on_ridge = torch.tensor([1.0, 0.0], dtype=torch.float64)
    best = float(ascend(two_hills, torch.tensor([1.4, 0.0], dtype=torch.float64)).value[-1])
    mdp = two_states()
    cases = [
        AscentCase("concave", ascend(concave, start, steps, fixed(0.2)), 0.0),
        AscentCase("convex", ascend(convex, start, steps, fixed(0.2)), math.nan),
        AscentCase("saddle, from its ridge", ascend(saddle, on_ridge, steps, fixed(0.2)), math.nan),
    ]
    for name, x, y in (("right", 0.5, 1.0), ("left", -0.6, 1.0), ("far", -4.5, 2.5)):
        theta = torch.tensor([x, y], dtype=torch.float64)
        cases.append(AscentCase(f"two hills, from {name}", ascend(two_hills, theta, steps, fixed(0.2)), best))
    for name, logits in (("even", (0.0, 0.0)), ("left", (-1.0, -6.0))):
        policy = two_logit_policy(logits)
        path = ascend(performance(mdp, policy), policy.flat.clone(), steps, fixed(0.2), tolerance=1e-4)
        cases.append(AscentCase(f"J, from {name} choices", path, optimum(mdp)))
    return Landscapes((*cases, *extra))
