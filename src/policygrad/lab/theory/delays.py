"""The bias of asynchronous updates: gradients that were computed k updates ago.

A worker of an asynchronous learner plays and differentiates at its copy of the parameters. When it pushes, others have moved
the newest parameters k times. Its expected gradient is ∇J(θ_{t−k}), which is right for its copy, and is applied at θ_t. Where
∇J is L-smooth the difference is at most L ‖θ_t − θ_{t−k}‖: of first order in the delay, and in the step size. W workers that
push in turn have the constant delay k = W − 1.

All numbers are exact: no gradient is sampled, and the copies are those of the path that the delayed gradients make.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import policy_matrix
from policygrad.lab.exact.tabular import exact_gradient, objective
from policygrad.lab.results import Result, align
from policygrad.models.policy import Policy

DELAYS = (0, 1, 2, 4, 8)
RATES = (0.01, 0.03, 0.1)
UPDATES = 24
MIN_GRADIENT_RATIO = 1e-3  # updates at which ‖∇J‖ is below this share of the first one are left out of the means


@dataclass(frozen=True)
class DelayedPath:
    """Ascent with gradients of `delay` updates ago, and step size `rate`."""

    delay: int
    rate: float
    bias: (
        float  # mean of ‖∇J(θ_{t−k}) − ∇J(θ_t)‖ / ‖∇J(θ_t)‖ over the updates that every delay has; NaN: ∇J has vanished
    )
    cosine: float  # mean of the cosine of the two
    J: tuple[float, ...]  # at first, and after every update


@dataclass(frozen=True)
class Delays(Result):
    """Exact ascents with delayed gradients: every delay with every step size."""

    paths: tuple[DelayedPath, ...]
    updates: int

    def find(self, delay: int, rate: float) -> DelayedPath:
        """The path of a delay and a step size. Raises KeyError where there is none."""
        for path in self.paths:
            if (path.delay, path.rate) == (delay, rate):
                return path
        raise KeyError((delay, rate))

    @property
    def delays(self) -> tuple[int, ...]:
        """Those measured."""
        return tuple(dict.fromkeys(path.delay for path in self.paths))

    @property
    def rates(self) -> tuple[float, ...]:
        """Those measured."""
        return tuple(dict.fromkeys(path.rate for path in self.paths))

    @property
    def delay_order(self) -> float:
        """The power of the delay that the bias grows with, at the smallest step size and delays of at most 4."""
        rate = min(self.rates)
        return order([(path.delay, path.bias) for path in self.paths if path.rate == rate and 0 < path.delay <= 4])

    @property
    def rate_order(self) -> float:
        """The power of the step size that the bias grows with, of its two smallest values, at the smallest delay above 0."""
        delay = min((k for k in self.delays if k > 0), default=0)
        chosen = sorted(self.rates)[:2]
        return order([(path.rate, path.bias) for path in self.paths if path.delay == delay and path.rate in chosen])

    def table(self) -> str:
        """One row per delay and step size."""
        lines = [
            [str(path.delay), f"{path.rate:g}", f"{path.bias:.4f}", f"{path.cosine:.4f}", f"{path.J[-1]:.4f}"]
            for path in self.paths
        ]
        header = ("delay", "step size", "bias", "cosine", f"J after {self.updates}")
        note = "bias: mean of ‖∇J(θ_{t−k}) − ∇J(θ_t)‖ / ‖∇J(θ_t)‖ over the updates. "
        note += f"It grows with delay^{self.delay_order:.2f} and step size^{self.rate_order:.2f}."
        return f"{align(header, lines)}\n{note}"


def order(points: Sequence[tuple[float, float]]) -> float:
    """The slope of a line through points on logarithmic axes; NaN through fewer than two."""
    if len(points) < 2 or min(y for _, y in points) <= 0.0:
        return math.nan
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def delayed_ascent(
    mdp: MDP,
    policy: Policy,
    *,
    delays: Sequence[int] = DELAYS,
    rates: Sequence[float] = RATES,
    updates: int = UPDATES,
) -> Delays:
    """Ascend J from the policy, θ_{t+1} = θ_t + rate · ∇J(θ_{t−k}), for every delay k and step size. The policy stays as it is.

    Until there have been k updates the gradient is that of the first policy, as all workers begin with the same copy. The
    means are over the updates from the largest delay on, the same ones for every delay. Raises ValueError for a delay that
    the updates are too few for, and where ∇J is 0 at first.
    """
    if not delays or min(delays) < 0 or max(delays) >= updates:
        raise ValueError(f"delays must be 0 or more and below the {updates} updates, got {tuple(delays)}")
    if float(exact_gradient(mdp, policy).norm()) == 0.0:
        raise ValueError("∇J is 0 at this policy: no gradient has a direction to be compared with")
    paths = [_path(mdp, policy, k, rate, updates, max(delays)) for rate in rates for k in delays]
    return Delays(tuple(paths), updates)


def _path(mdp: MDP, policy: Policy, delay: int, rate: float, updates: int, first: int) -> DelayedPath:
    now, gradients, J, compared = deepcopy(policy), [], [], []
    for t in range(updates):
        J.append(float(objective(mdp, policy_matrix(mdp, now).detach())))
        exact = exact_gradient(mdp, now)
        gradients.append(exact)
        pushed = gradients[max(t - delay, 0)]
        if t >= first and exact.norm() > MIN_GRADIENT_RATIO * gradients[0].norm():
            size = float(exact.norm())
            compared.append((float((pushed - exact).norm()) / size, float(pushed @ exact / (pushed.norm() * size))))
        now.flat.add_(rate * pushed)
    J.append(float(objective(mdp, policy_matrix(mdp, now).detach())))
    bias, cosine = map(float, np.mean(compared, 0)) if compared else (math.nan, math.nan)
    return DelayedPath(delay, rate, bias, cosine, tuple(J))
