"""Stochastic gradient ascent on J, with gradients from the estimators that training uses: how small ‖∇J‖ becomes.

For a function f whose gradient is Lipschitz with constant L, unbiased estimates of variance σ², and a step α ≤ 1/L,

    (1/K) Σ_{k<K} E‖∇f(θ_k)‖²  ≤  2 (E f(θ_K) − f(θ_0)) / (α K) + α L σ²

(Ghadimi & Lan 2013, theorem 2.1). With α ∝ 1/√K the right side falls as 1/√K: the longer the run, the smaller the gradient, on
average over the path. It need not be a maximum. L is estimated along the path, see `lipschitz`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policygrad.gradient.baselines import LeaveOneOut
from policygrad.gradient.estimators import RewardToGo, StateDiscounted, advantages
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import MDP
from policygrad.lab.results import Result, align, slope
from policygrad.lab.theory.ascent import sgd
from policygrad.lab.theory.derivatives import automatic
from policygrad.lab.theory.functions import Function, performance
from policygrad.models.critic import NoCritic
from policygrad.models.policy import Policy

BUDGETS = (8, 32, 128, 512)
STEP_FRACTION = 1e-3  # of a step


def sampled_gradient(
    mdp: MDP,
    policy: Policy,
    episodes: int,
    generator: torch.Generator,
    *,
    estimator: Any = None,
    baseline: Any = None,
    critic: Any = None,
    limit: int | None = None,
) -> Callable[[Tensor], Tensor]:
    """A function θ (P,) → ĝ (P,) for `sgd`: an estimate of ∇J from new episodes.

    estimator, baseline, critic: as for a `Learner`, [reward-to-go with γᵗ, leave-one-out, none: unbiased]. limit: the largest
    number of steps per episode, without a horizon. The given policy is not changed.
    """
    own = deepcopy(policy)
    estimator = StateDiscounted(RewardToGo(mdp.gamma)) if estimator is None else estimator
    baseline = LeaveOneOut() if baseline is None else baseline
    critic = NoCritic() if critic is None else critic

    def estimate(theta: Tensor) -> Tensor:
        own.flat.copy_(theta)
        rollout = sample(mdp, own, episodes, generator, limit)
        adv, _ = advantages(rollout, critic(rollout, own), estimator, baseline)
        batch = rollout.flatten(adv, "trajectory")
        return own.evaluate(batch).gradient(batch.weight * batch.adv).clone()

    return estimate


@dataclass(frozen=True)
class GradientBudget:
    """Means over all runs with this number of steps."""

    steps: int
    lr: float
    squared_norm: float  # ‖∇J‖², mean over the path
    standard_error: float  # of squared_norm, between runs
    last: float  # ‖∇J‖² at the end
    bound: float  # on squared_norm, with L and σ² of the path; ∞ if a path has α > 1/L
    J: float  # J at the end


@dataclass(frozen=True)
class Decay(Result):
    """‖∇J‖² for several numbers of steps K, with steps ∝ 1/√K."""

    budgets: tuple[GradientBudget, ...]
    before: float  # ‖∇J‖² at the start
    runs: int
    episodes: int

    @property
    def slope(self) -> float:
        """The power of K with which the mean ‖∇J‖² falls; theory says −1/2 or less for large K."""
        return slope([b.steps for b in self.budgets], [b.squared_norm for b in self.budgets])

    def table(self) -> str:
        """One row per number of steps."""
        rows = []
        for b in self.budgets:
            numbers = [f"{x:.4f}" for x in (b.lr, b.squared_norm, b.standard_error, b.bound, b.last)]
            numbers[3] = numbers[3] if math.isfinite(b.bound) else "α > 1/L"
            rows.append([f"{b.steps:,}", *numbers, f"{b.J:.3f}"])
        head = align(("steps K", "step", "mean ‖∇J‖²", "± error", "bound", "‖∇J‖² at the end", "J at the end"), rows)
        return (
            f"{head}\n‖∇J‖² at the start {self.before:.4f}; mean ‖∇J‖² ∝ K^{self.slope:.2f}; {self.runs} runs each, "
            f"{self.episodes} episodes per step"
        )


def decay(
    mdp: MDP,
    policy: Policy,
    *,
    budgets: Sequence[int] = BUDGETS,
    lr: float = 4.0,
    episodes: int = 10,
    runs: int = 4,
    seed: int = 0,
    limit: int | None = None,
) -> Decay:
    """SGD on J from the policy's parameters, for several numbers of steps K, with the constant step lr/√K.

    The estimates are those of `sampled_gradient`; the exact ∇J is computed at every point. Raises ValueError for fewer than 2
    runs.
    """
    if runs < 2:
        raise ValueError(f"runs must be at least 2, got {runs}")
    J, theta = performance(mdp, policy), policy.flat.clone()
    generator = torch.Generator().manual_seed(seed)
    found = []
    for K in budgets:
        alpha, measured = lr / math.sqrt(K), []
        for _ in range(runs):
            estimates: list[Tensor] = []
            estimate = sampled_gradient(mdp, policy, episodes, generator, limit=limit)

            def kept(theta: Tensor, estimate=estimate, estimates=estimates) -> Tensor:
                estimates.append(estimate(theta))
                return estimates[-1]

            path = sgd(theta, kept, K, alpha)
            measured.append(_measure(J, path, torch.stack(estimates), alpha))
        norms, last, bound, value = torch.tensor(measured, dtype=torch.float64).unbind(-1)
        error = float(norms.std()) / math.sqrt(runs)
        means = (float(x.mean()) for x in (last, bound, value))
        found.append(GradientBudget(K, alpha, float(norms.mean()), error, *means))
    return Decay(tuple(found), float(automatic(J, theta).square().sum()), runs, episodes)


def _measure(J: Function, path: Tensor, estimates: Tensor, alpha: float) -> tuple[float, float, float, float]:
    """Mean ‖∇J‖² of a path (K+1, P), the last, the bound, and J at the end."""
    gradients = torch.stack([automatic(J, theta) for theta in path])
    squared, K = gradients.square().sum(-1), len(estimates)
    variance = float((estimates - gradients[:-1]).square().sum(-1).mean())
    L = lipschitz(lambda theta: automatic(J, theta), path, gradients)
    first, last = float(J(path[0])), float(J(path[-1]))
    bound = 2.0 * (last - first) / (alpha * K) + alpha * L * variance if alpha * L <= 1.0 else math.inf
    return float(squared[:-1].mean()), float(squared[-1]), bound, last


def lipschitz(gradient: Callable[[Tensor], Tensor], path: Tensor, gradients: Tensor) -> float:
    """The L of a path: the largest ‖Δ∇f‖ / ‖Δθ‖ of its steps, and of the first thousandth of 16 of them. Both are (K+1, P).

    Long steps alone would hide the curvature at their beginning.
    """
    steps, changes = path.diff(dim=0), gradients.diff(dim=0)
    for k in range(0, len(steps), max(1, len(steps) // 16)):
        begun = STEP_FRACTION * steps[k : k + 1]
        change = gradient(path[k] + begun[0]) - gradients[k]
        steps, changes = torch.cat([steps, begun]), torch.cat([changes, change.unsqueeze(0)])
    moved = steps.norm(dim=-1)
    return float((changes.norm(dim=-1)[moved > 0.0] / moved[moved > 0.0]).amax()) if moved.any() else 0.0
