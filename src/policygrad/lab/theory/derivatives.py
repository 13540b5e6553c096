"""Three ways to compute one derivative: by calculus, by finite differences, and by automatic differentiation.

| method            | evaluations of f | error                                                                    |
|-------------------|------------------|--------------------------------------------------------------------------|
| closed form       | 0                | rounding                                                                 |
| symbolic          | 0, but a formula that may be huge | rounding; see symbolic.py                               |
| forward           | D + 1            | h f″/2 + 2 ε f/h; smallest, about √ε, at h ∝ √ε                          |
| central           | 2 D              | h² f‴/6 + ε f/h; smallest, about ε^⅔, at h ∝ ε^⅓                         |
| complex step      | D                | h² f‴/6, no subtraction, so that h = 1e-20 works; f must be analytic     |
| automatic         | 1 and a backward pass | rounding                                                            |

D is the number of parameters, h the step, ε the rounding error of the numbers (2e-16 in float64). Sources: Nocedal & Wright,
chapter 8; Squire & Trapp 1998 for the complex step; Baydin et al. 2018 for automatic differentiation. `check_gradient` tests
any gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policygrad.lab.exact.tabular import MDP, gradient_theorem, random_mdp, tabular_policy
from policygrad.lab.results import Result, align, least_seconds, slope
from policygrad.lab.theory.functions import Function, table_performance
from policygrad.lab.theory.symbolic import HORIZONS, MAX_TERMS, Swell, performance_formula, swell, symbolic, terms

METHODS = ("forward", "central", "complex")
STEPS = tuple(np.logspace(-13, -0.5, 26).tolist())
SIZES = (2, 8, 32, 64)  # states of the MDPs whose gradients are timed
MAX_MULTIPLICATIONS = 50_000_000  # H · S² · A per evaluation of J: limits the number of components that are differenced


def automatic(function: Function, theta: Tensor) -> Tensor:
    """∇f(θ), (P,), by torch's reverse mode: one evaluation and one backward pass.

    Raises ValueError if the value has no graph, because f does not use torch operations.
    """
    theta = theta.detach().clone().requires_grad_()
    value = function(theta)
    if not value.requires_grad:
        raise ValueError(
            "the function's value does not depend on theta by torch operations: give its gradient yourself"
        )
    return torch.autograd.grad(value, theta, materialize_grads=True, allow_unused=True)[0]


@torch.no_grad()
def forward(function: Function, theta: Tensor, step: float) -> Tensor:
    """Forward differences (f(θ + h e_i) − f(θ)) / h for each i, (P,), with D + 1 evaluations."""
    here = function(theta)
    return torch.stack([(function(theta + e) - here) / step for e in _axes(theta, step)])


@torch.no_grad()
def central(function: Function, theta: Tensor, step: float) -> Tensor:
    """Central differences (f(θ + h e_i) − f(θ − h e_i)) / 2h for each i, (P,), with 2 D evaluations."""
    return torch.stack([(function(theta + e) - function(theta - e)) / (2.0 * step) for e in _axes(theta, step)])


@torch.no_grad()
def complex_step(function: Function, theta: Tensor, step: float = 1e-20) -> Tensor:
    """Im f(θ + ih e_i) / h for each i, (P,), with D evaluations of an analytic f that takes complex numbers."""
    values = [function(theta.to(torch.complex128) + 1j * e) for e in _axes(theta, step)]
    return torch.stack(values).imag / step


def _axes(theta: Tensor, step: float) -> Tensor:
    if not step > 0.0:
        raise ValueError(f"step must be positive, got {step}")
    return step * torch.eye(len(theta), dtype=theta.dtype)


Difference = Callable[[Function, Tensor, float], Tensor]  # f, θ, the step → ∇f
DIFFERENCES: dict[str, Difference] = {"forward": forward, "central": central, "complex": complex_step}


@dataclass(frozen=True)
class StepSizes(Result):
    """Relative errors ‖D_h − ∇f‖ / ‖∇f‖ of differences, by their step h."""

    steps: tuple[float, ...]
    errors: dict[str, tuple[float, ...]]  # by method
    automatic: float  # error of automatic differentiation, which has no step

    def best(self, method: str) -> tuple[float, float]:
        """The step with the least error, and that error."""
        error, step = min(zip(self.errors[method], self.steps, strict=True))
        return step, error

    def slopes(self, method: str) -> tuple[float, float]:
        """The powers of h below the best step (rounding) and above it (truncation), at least a factor of 10 away from it."""
        at, points = self.best(method)[0], list(zip(self.steps, self.errors[method], strict=True))
        left, right = [p for p in points if p[0] < at / 10.0], [p for p in points if 10.0 * at < p[0] <= 0.03]
        found = [slope(*zip(*side, strict=True)) if len(side) > 2 else math.nan for side in (left, right)]
        return found[0], found[1]

    def table(self) -> str:
        """Every third step, then the best step and the powers of h."""
        shown = [(h, [self.errors[m][i] for m in METHODS]) for i, h in enumerate(self.steps) if i % 3 == 0]
        rows = [[f"{h:.0e}", *(f"{x:.1e}" for x in errors)] for h, errors in shown]
        lines = [align(("h", *METHODS), rows), f"automatic: {self.automatic:.1e}"]
        for method in ("forward", "central"):
            (step, error), (left, right) = self.best(method), self.slopes(method)
            lines.append(
                f"{method}: smallest error {error:.1e} at h = {step:.0e}; ∝ h^{left:.2f} below, h^{right:.2f} above"
            )
        return "\n".join(lines)


def error_by_step(function: Function, theta: Tensor, exact: Tensor, steps: Sequence[float] = STEPS) -> StepSizes:
    """Errors of `forward`, `central` and `complex_step` for each step h, relative to the exact gradient (P,).

    Raises ValueError if that is 0.
    """
    if not exact.any():
        raise ValueError("the gradient is 0, so that errors have no scale: take another θ")

    def error(found: Tensor) -> float:
        return float((found - exact).norm() / exact.norm())

    errors = {name: tuple(error(method(function, theta, h)) for h in steps) for name, method in DIFFERENCES.items()}
    return StepSizes(tuple(steps), errors, error(automatic(function, theta)))


@dataclass(frozen=True)
class GradientCost:
    """The cost of one gradient of a function with this number of parameters."""

    method: str
    parameters: int
    evaluations: int  # of the function; automatic differentiation adds its backward pass
    relative_seconds: float  # of the processor, in units of one evaluation


def costs(states: Sequence[int] = SIZES, seed: int = 0) -> list[GradientCost]:
    """The evaluations and the time of each method, for J of random MDPs with 4 actions and D = 4 S parameters."""
    return [cost for size in states for cost in _costs(size, np.random.default_rng(seed))]


def _costs(states: int, rng: np.random.Generator) -> list[GradientCost]:
    theta, calls = torch.from_numpy(rng.standard_normal(states * 4)), 0
    J = table_performance(random_mdp(states, 4, 10, rng))

    def counted(theta: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return J(theta)

    methods: dict[str, Callable[[], Tensor]] = {
        "forward": lambda: forward(counted, theta, 1e-8),
        "central": lambda: central(counted, theta, 1e-5),
        "automatic": lambda: automatic(counted, theta),
    }
    one, found = least_seconds(lambda: J(theta), 10, time.process_time), []
    for name, method in methods.items():
        calls = 0
        method()
        evaluations = calls
        found.append(GradientCost(name, len(theta), evaluations, least_seconds(method, 3, time.process_time) / one))
    return found


@dataclass(frozen=True)
class ThreeWays(Result):
    """∇J computed in three ways: errors relative to the closed form, and the cost of a gradient."""

    parameters: int
    components: int  # the number of components of ∇J that were differenced, the largest ones
    by_step: StepSizes
    costs: tuple[GradientCost, ...]
    symbolic: float | None  # error of the derivative of J as a formula; None where the formula would be too large
    swell: tuple[Swell, ...]  # how large formulas become

    def table(self) -> str:
        """Errors at the best step, then errors by step, then costs."""
        rows = [["automatic", "–", f"{self.by_step.automatic:.1e}", "1 and a backward pass"]]
        if self.symbolic is not None:
            rows.append(["symbolic", "–", f"{self.symbolic:.1e}", "0"])
        count = {"forward": self.parameters + 1, "central": 2 * self.parameters, "complex": self.parameters}
        for method in METHODS:
            step, error = self.by_step.best(method)
            rows.append([method, f"{step:.0e}", f"{error:.1e}", str(count[method])])
        head = align(("method", "best h", "error", "evaluations"), rows)
        bill = [[c.method, str(c.parameters), str(c.evaluations), f"{c.relative_seconds:.1f}"] for c in self.costs]
        cost = align(("method", "parameters", "evaluations", "time, in evaluations"), bill)
        title = f"∇J for {self.parameters:,} logits, compared with its closed form"
        if self.components < self.parameters:
            title += f", in its {self.components} largest component{'s' * (self.components > 1)}"
        sizes = [
            [str(x.horizon), f"{x.operations:,}", f"{x.derivative_operations:,}", f"{x.error:.1e}"] for x in self.swell
        ]
        formulas = align(("horizon", "operations of J", "of ∇J", "error"), sizes)
        symbolic = f"symbolic differentiation of random MDPs with 2 states and 2 actions\n{formulas}"
        return "\n\n".join([title, head, self.by_step.table(), cost, symbolic])


def three_ways(
    mdp: MDP,
    seed: int = 0,
    sizes: Sequence[int] = SIZES,
    components: int | None = None,
    horizons: Sequence[int] = HORIZONS,
) -> ThreeWays:
    """∇J for a random table of logits: by calculus, which is the policy gradient theorem in closed form and, where J is a short
    formula, symbolic differentiation; by differences; and by autodiff.

    sizes, horizons: of the random MDPs of which `costs` and `swell` are taken. components: the number of components of ∇J, the
    largest ones, [all; for large MDPs 50,000,000 / (H · S² · A), at least one].
    Raises ValueError for an MDP whose states share logits, and if ∇J is 0.
    """
    if mdp.groups is not None:
        raise ValueError("the closed form is for a table with one row of logits per state; these states share rows")
    policy, J = tabular_policy(mdp, torch.Generator().manual_seed(seed)), table_performance(mdp)
    theta, exact = policy.flat.clone(), gradient_theorem(mdp, policy)
    if components is None:
        components = max(1, MAX_MULTIPLICATIONS // ((mdp.horizon or mdp.states) * mdp.states**2 * mdp.actions))
    largest = exact.abs().topk(min(components, len(exact))).indices

    def of_largest(x: Tensor) -> Tensor:
        return J(theta.to(x.dtype).index_copy(0, largest, x))

    by_step, formula = error_by_step(of_largest, theta[largest], exact[largest]), None
    if terms(mdp) <= MAX_TERMS:
        found = symbolic(performance_formula(mdp), theta, largest.tolist()).gradient
        formula = float((found - exact[largest]).norm() / exact[largest].norm())
    return ThreeWays(len(exact), len(largest), by_step, tuple(costs(sizes, seed)), formula, swell(tuple(horizons)))


@dataclass(frozen=True)
class GradientCheck(Result):
    """A verdict on a gradient: "right", "wrong", or "unclear" if the differences are not accurate enough. True if right.

    given, numerical, allowed: the given and the numerical derivative and the allowed difference of the worst component,
    `index`.
    """

    verdict: str
    parameters: int
    index: int
    given: float
    numerical: float
    allowed: float
    wrong: tuple[int, ...]
    unclear: tuple[int, ...]  # a kink at θ or beside it, or noise

    def __bool__(self) -> bool:
        return self.verdict == "right"

    def table(self) -> str:
        """The verdict, and the component on which it is based."""
        where = f"∂f/∂θ[{self.index}] = {self.given:.10g} given, {self.numerical:.10g} by differences"
        where += f" (accurate to ±{self.allowed:.1e})"
        if self.verdict == "right":
            return f"right in all {self.parameters} components. The least certain one: {where}"
        if self.verdict == "wrong":
            return f"wrong in {len(self.wrong)} of {self.parameters} components: {_some(self.wrong)}. The worst one: {where}"
        return (
            f"unclear: differences with different steps disagree in {len(self.unclear)} of {self.parameters} components "
            f"({_some(self.unclear)}). Is there a kink (relu, abs, max, a branch), or noise? {where}"
        )


def _some(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:8])) + (", …" if len(indices) > 8 else "")


def check_gradient(
    function: Function, theta: Tensor, gradient: Tensor | Function | None = None, *, tolerance: float = 1e-3
) -> GradientCheck:
    """Check a gradient at θ (P,): every component is compared with central differences, in 4 P evaluations.

    gradient: (P,), or a function of θ that returns it, [automatic differentiation of `function`]. No step must be chosen: the
    differences with two steps, h and 2h with h = ε^⅓ max(1, |θ_i|), show how accurate they are, and the gradient must agree to
    that accuracy, about nine digits in float64 (ε is the rounding of the function's values). tolerance: the accuracy that the
    differences must have, relative to the largest component; otherwise the verdict is "unclear".

    Raises ValueError if the function is random, not finite or not a scalar, or if the gradient has another shape than θ.
    """
    theta = theta.detach()
    if theta.ndim != 1 or not theta.is_floating_point():
        raise ValueError(f"theta must be a vector of real numbers, got {theta.dtype} {tuple(theta.shape)}")
    here = _value(function, theta)
    if _value(function, theta) != here:
        raise ValueError("the function gives another value at the same theta: fix its seed or its data")
    found = automatic(function, theta) if gradient is None else gradient
    given = (found(theta) if callable(found) else found).detach().double()
    if given.shape != theta.shape:
        raise ValueError(f"the gradient must be {tuple(theta.shape)} as theta, got {tuple(given.shape)}")
    eps = torch.finfo(function(theta).dtype).eps
    steps = eps ** (1.0 / 3.0) * theta.abs().clamp(min=1.0)
    differences = [_differences(function, theta, i, h, here, eps) for i, h in enumerate(steps.tolist())]
    numerical, allowed, kinked = torch.tensor(differences, dtype=torch.float64).unbind(-1)
    allowed, kinked = allowed + 8.0 * eps * given.abs().amax(), kinked > 0
    scale = torch.maximum(given.abs().amax(), numerical.abs().amax())
    unclear = kinked | (allowed > tolerance * scale) & (scale > 0.0)
    excess = torch.where(unclear, 0.0, (given - numerical).abs() / allowed.clamp(min=1e-300))
    excess = torch.where(given.isfinite(), excess, math.inf)
    wrong = (excess > 1.0).nonzero().squeeze(-1).tolist()
    verdict = "wrong" if wrong else "unclear" if unclear.any() else "right"
    i = int(excess.argmax()) if verdict != "unclear" else int(unclear.nonzero()[0])
    unsure = tuple(unclear.nonzero().squeeze(-1).tolist())
    numbers = float(given[i]), float(numerical[i]), float(allowed[i])
    return GradientCheck(verdict, len(theta), i, *numbers, tuple(wrong), unsure)


def _differences(
    function: Function, theta: Tensor, i: int, step: float, here: float, eps: float
) -> tuple[float, float, bool]:
    """∂f/∂θ_i, its accuracy, and whether there is a kink, where left and right slopes differ by the same at every step."""
    f = {}
    for k in (-2, -1, 1, 2):
        moved = theta.clone()
        moved[i] += k * step
        f[k] = _value(function, moved)
    near, far = (f[1] - f[-1]) / (2.0 * step), (f[2] - f[-2]) / (4.0 * step)
    rounding = 32.0 * eps * max(abs(here), *map(abs, f.values())) / step
    bend, wide = abs(f[1] - 2.0 * here + f[-1]) / step, abs(f[2] - 2.0 * here + f[-2]) / (2.0 * step)
    return near, abs(near - far) + rounding, bend > 8.0 * rounding and wide < 1.5 * bend


def _value(function: Function, theta: Tensor) -> float:
    with torch.no_grad():
        value = function(theta)
    if value.numel() != 1 or not torch.isfinite(value).all():
        raise ValueError(f"the function must give one finite number, got {value}")
    return float(value)
