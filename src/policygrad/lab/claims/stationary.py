"""A claim about stationary points: what a gradient of 0 does not say; exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tasks import detour
from policygrad.lab.exact.policies import tabular_policy
from policygrad.lab.theory.ascent import ascend
from policygrad.lab.theory.derivatives import automatic
from policygrad.lab.theory.functions import Function, performance, quadratic, two_hills

STEP = 0.1  # how far a direction is followed


def valley() -> tuple[Function, Tensor]:
    """J = 1 − p + 10 p³ of the task `detour`, where all states share p = π(1), and the logits with p = 1/√30: J's minimum."""
    mdp = replace(detour(3), groups=(0,) * 4)
    p = 30.0**-0.5
    return performance(mdp, tabular_policy(mdp)), torch.tensor([0.0, math.log(p / (1.0 - p))], dtype=torch.float64)


def stationary_points() -> dict[str, tuple[Function, Tensor]]:
    """Functions and points where their gradient is 0: a maximum, a lower maximum, a saddle, and a minimum of J."""
    tops = [ascend(two_hills, torch.tensor([x, 0.0], dtype=torch.float64), 2000, tolerance=1e-9) for x in (1.4, -1.4)]
    saddle = quadratic(torch.tensor([-1.0, 4.0], dtype=torch.float64))
    return {
        "maximum": (two_hills, tops[0].theta[-1]),
        "local maximum": (two_hills, tops[1].theta[-1]),
        "saddle": (saddle, torch.zeros(2, dtype=torch.float64)),
        "minimum of J": valley(),
    }


def rise(function: Callable[[Tensor], Tensor], theta: Tensor) -> float:
    """The largest rise of the function in steps of a length STEP, in 64 directions of the plane."""
    angle = torch.arange(64, dtype=torch.float64) * (math.pi / 32)
    steps = STEP * torch.stack([angle.cos(), angle.sin()], -1)
    return max(float(function(theta + step) - function(theta)) for step in steps)


@claim("At a stationary point it is impossible to increase the function by moving in any direction.", "exact")
def stationary_points_cannot_be_left() -> Outcome:
    """The largest rise in any direction, at four kinds of stationary points."""
    points = stationary_points()
    slope = max(float(automatic(f, theta).norm()) for f, theta in points.values())
    rises = {name: rise(f, theta) for name, (f, theta) in points.items()}
    up = [name for name, x in rises.items() if x > 1e-9]
    return Outcome(
        decide(slope <= 1e-6 and not up),
        f"It is true to first order: at four points with ‖∇f‖ ≤ {slope:.0e}, the slope is 0 in every direction. But a step of "
        f"length {STEP:g} in the best of 64 directions changes f by {rises['maximum']:+.3f} at a maximum, "
        f"{rises['local maximum']:+.3f} at a lower local maximum, {rises['saddle']:+.3f} at a saddle and "
        f"{rises['minimum of J']:+.4f} at a minimum of J. The last one is the J of a policy: of a task that pays 1 at once or "
        "10 after three right actions, at π(1) = 1/√30 in all states. Gradient ascent stays there, and every change of π(1) "
        "raises J.",
        {"largest ‖∇f‖": slope} | {f"largest rise, {name}": x for name, x in rises.items()},
    )
