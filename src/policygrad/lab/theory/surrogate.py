"""The surrogate of trust-region methods: the right side of the lemma with the states of the *old* policy.

    L_π(π') = J(π) + Σ_t Σ_s γᵗ P(s_t = s | π) Σ_a π'(a|s) A^π_t(s, a)

It needs no data of π', and at π' = π it has the value and the gradient of J. So J − L is of second order in the step, and it is
bounded by the distance of the two policies. With α = max_s TV(π, π'), ε = max |A|, ε' = max_s |Σ_a π' A|, and TV half the ℓ₁
distance:

    |J(π') − L_π(π')|  ≤  2 ε' Σ_k Σ_s γᵏ P(s_k = s | π) TV_k(s) Σ_{0<j<H−k} γʲ      (Achiam et al. 2017, theorem 1)
                       ≤  4 ε α² Σ_t t γᵗ,   4 ε γ α² / (1 − γ)² without a horizon    (Schulman et al. 2015, theorem 1)

In the papers there is no horizon, and Σ_{0<j} γʲ = γ / (1 − γ). Both bounds follow from |Σ_a π' A| ≤ 2 α ε and from counting
the steps at which the two policies may have taken different actions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policygrad.lab.exact.tabular import MDP, advantage, objective, occupancy, policy_matrix, tabular_policy
from policygrad.lab.results import Result, align, slope
from policygrad.lab.theory.functions import probabilities
from policygrad.lab.theory.lemma import expected_advantage
from policygrad.models.policy import Policy

LENGTHS = tuple(np.logspace(-4, 1, 21).tolist())
MAX_FIT_LENGTH = 0.1  # ‖Δθ‖ up to which slopes are fitted
ROUNDING = 1e-14  # differences of J below this share of Σ_t γᵗ E|r_t| are rounding


def surrogate(
    mdp: MDP, pi: Tensor, pi_new: Tensor, *, adv: Tensor | None = None, reached: Tensor | None = None
) -> Tensor:
    """L_π(π'), a scalar, differentiable in π'. Policies are tables, (S, A) or (H, S, A).

    adv (H | 1, S, A), reached (H | 1, S): advantages and states, [those of π: `advantage`, `occupancy`].
    """
    adv = advantage(mdp, pi) if adv is None else adv
    reached = occupancy(mdp, pi) if reached is None else reached
    return objective(mdp, pi) + (reached.unsqueeze(-1) * (pi_new - pi) * adv).sum()


@dataclass(frozen=True)
class Bounds:
    """The error of the surrogate and the two bounds on it."""

    error: float  # J(π') − L_π(π')
    achiam: float  # bound on |error|, with the mean TV over the states visited
    schulman: float  # bound on |error|, with the largest TV; both are ∞ without a horizon and γ = 1
    max_tv: float  # α
    max_advantage: float  # ε


def bounds(mdp: MDP, pi: Tensor, pi_new: Tensor) -> Bounds:
    """J(π') − L_π(π') and the two bounds on it."""
    tv = 0.5 * (pi_new - pi).abs().sum(-1) * mdp.live  # (S,) or (H, S)
    A, Abar = advantage(mdp, pi), expected_advantage(mdp, pi, pi_new)
    error = float(objective(mdp, pi_new) - surrogate(mdp, pi, pi_new))
    alpha, epsilon = float(tv.amax()), float(A.abs().amax())
    ahead, late = _ahead(mdp)
    parted = torch.where(tv > 0.0, tv * ahead.unsqueeze(-1), 0.0)  # 0 · ∞ is 0 here
    achiam = 2.0 * float(Abar.abs().amax()) * float((occupancy(mdp, pi) * parted).sum())
    trpo = 4.0 * epsilon * alpha**2 * late if alpha > 0.0 else 0.0
    return Bounds(error, achiam, trpo, alpha, epsilon)


def _ahead(mdp: MDP) -> tuple[Tensor, float]:
    """Σ_{0<j<H−k} γʲ for every step k, (H,), or (1,) without a horizon; and Σ_t t γᵗ."""
    gamma = mdp.gamma
    if mdp.horizon is None:
        ahead = gamma / (1.0 - gamma) if gamma < 1.0 else math.inf
        return torch.tensor([ahead], dtype=torch.float64), ahead / (1.0 - gamma) if gamma < 1.0 else math.inf
    t = torch.arange(mdp.horizon, dtype=torch.float64)
    sums = (gamma**t).cumsum(0)
    return (sums - 1.0).flip(0), float((t * gamma**t).sum())


@dataclass(frozen=True)
class SurrogateOrder(Result):
    """|J − L| along a line θ + h u, ‖u‖ = 1, for step lengths h; the bounds; and the same for two wrong surrogates.

    slopes: powers of h, fitted to at least three steps with h ≤ 0.1 whose difference is more than rounding. The slope is 2 for
    a surrogate that matches J to first order and 1 for a wrong one; where all differences are rounding (horizon 1) there is
    none.
    """

    lengths: tuple[float, ...]
    error: tuple[float, ...]
    achiam: tuple[float, ...]  # ∞: there is no bound
    schulman: tuple[float, ...]
    wrong_advantages: tuple[float, ...]  # of another policy
    wrong_states: tuple[float, ...]  # that another policy visits
    rounding: tuple[float, ...]  # of each of these

    @property
    def slopes(self) -> dict[str, float]:
        """The slope of each field, by its name."""
        names = ("error", "wrong_advantages", "wrong_states", "achiam", "schulman")
        found = {}
        for name in names:
            points = zip(self.lengths, getattr(self, name), self.rounding, strict=True)
            fitted = [(h, y) for h, y, least in points if h <= MAX_FIT_LENGTH and least < y < math.inf]
            if len(fitted) > 2:
                found[name] = slope(*zip(*fitted, strict=True))
        return found

    @property
    def bounded(self) -> bool:
        """Whether the bounds are finite: they are not if γ = 1 without a horizon."""
        return all(y < math.inf for y in (*self.achiam, *self.schulman))

    @property
    def holds(self) -> bool:
        """Whether the bounds are finite and hold at every step length, up to rounding."""
        rows = zip(self.error, self.achiam, self.schulman, self.rounding, strict=True)
        return self.bounded and all(e <= a + least and a <= t * (1.0 + 1e-9) + least for e, a, t, least in rows)

    def table(self) -> str:
        """Every second step length, the slopes, and the verdict on the bounds."""
        names = ("error", "achiam", "schulman", "wrong_advantages", "wrong_states")
        columns, found = [getattr(self, name) for name in names], self.slopes
        shown = list(enumerate(self.lengths))[::2]
        rows = [[f"{h:.1e}", *("none" if y[i] == math.inf else f"{y[i]:.1e}" for y in columns)] for i, h in shown]
        rows.append(["slope", *(f"{found[name]:.2f}" if name in found else "–" for name in names)])
        header = ("‖Δθ‖", "|J − L|", "Achiam's bound", "TRPO's bound", "|J − L|, A wrong", "|J − L|, s wrong")
        end = max(MAX_FIT_LENGTH, min(self.lengths))
        least = max(y for h, y in zip(self.lengths, self.rounding, strict=True) if h <= end)
        none = "" if "error" in found else "; |J − L| is not larger and has no slope"
        note = f"slopes are fitted to steps up to {MAX_FIT_LENGTH:g} and differences above rounding, {least:.0e}{none}"
        return f"{align(header, rows)}\n{self.verdict}\n{note}"

    @property
    def verdict(self) -> str:
        """The verdict on the bounds, a sentence."""
        if not self.bounded:
            return "there is no bound: γ = 1 without a horizon"
        return "the bounds hold at every step" if self.holds else "a bound does not hold"


@torch.no_grad()
def surrogate_order(
    mdp: MDP, policy: Policy, direction: Tensor | None = None, lengths: Sequence[float] = LENGTHS, seed: int = 0
) -> SurrogateOrder:
    """J − L by step length in a direction (P,) [random]. seed: of the direction and of the policy for the wrong surrogates."""
    generator = torch.Generator().manual_seed(seed)
    if direction is None:
        direction = torch.randn(len(policy.flat), generator=generator, dtype=torch.float64)
    u, table = direction / direction.norm(), probabilities(mdp, policy)
    other = policy_matrix(mdp, tabular_policy(mdp, generator))
    theta, pi = policy.flat.clone(), policy_matrix(mdp, policy)
    wrong = {"adv": advantage(mdp, other)}, {"reached": occupancy(mdp, other)}
    before = _size(mdp, pi)
    rows = []
    for h in lengths:
        new = table(theta + h * u)
        found, J = bounds(mdp, pi, new), objective(mdp, new)
        control = [abs(float(J - surrogate(mdp, pi, new, **keywords))) for keywords in wrong]
        rounding = ROUNDING * (before + _size(mdp, new))
        rows.append((h, abs(found.error), found.achiam, found.schulman, *control, rounding))
    return SurrogateOrder(*(tuple(column) for column in zip(*rows, strict=True)))


def _size(mdp: MDP, pi: Tensor) -> float:
    """Σ_t γᵗ E|r_t|, r the mean reward of an action."""
    return float((occupancy(mdp, pi).unsqueeze(-1) * pi * mdp.reward.abs()).sum())
