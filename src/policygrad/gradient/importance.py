"""Importance sampling: the gradient of a policy π from trajectories that another policy μ has sampled.

    ρ_t = π(a_t|s_t) / μ(a_t|s_t),     W_t = ρ_0 ρ_1 ⋯ ρ_t,     E_μ[ W_t x ] = E_π[ x ]   for any x that is known by step t

The dynamics cancel in P_π(τ) / P_μ(τ), so only the policies are needed; μ must give every action that π may take a probability
above 0 (full support). W keeps its last value after a trajectory's end. log μ is `Rollout.behavior`, log π is `Rollout.logp`:
`rollout.seen_with(logp)` shows stored trajectories to another policy. Where both are the same, W = 1 and every
estimator is what it is without weights.

| keyword | estimate | bias | variance |
|---|---|---|---|
| `weighting = trajectory` | all of a trajectory's ratios weight its every step | none | highest |
| `weighting = per-decision` | the ratios up to k weight reward k | none | usually, not always, lower |
| `self_normalize` (default) | each step's weights divided by their mean over trajectories | O(1/N) | lower; no weight above N |
| `max_weight = c` | the weight is min(W, c), before normalisation | E[ (min(W, c) − W) x ], for any N | bounded |

The first is `ImportanceWeighted`, of any estimator, with adv_t = W (ret_t − b_t), W of the whole trajectory, the second
`PerDecision`, of `RewardToGo`, with adv_t = Σ_{k≥t} γ^{k−t} W_k r_k − W_t b_t. Both carry every estimator's expectation over
from π to μ: unbiased where it is, with any baseline that is unbiased there. The price is variance, which grows with the horizon
and with the distance from μ to π. The last two pay with bias instead; weights are clipped first, then normalised.

Precup, Sutton & Singh 2000, "Eligibility traces for off-policy policy evaluation"; Ionides 2008, "Truncated importance
sampling".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policygrad.data import Estimate, Rollout, Stats, Values
from policygrad.errors import TrainingError
from policygrad.gradient import returns
from policygrad.gradient.estimators import RewardToGo, _Wrapper
from policygrad.total import greatest, total


class CollapsedError(TrainingError, ValueError):
    """The weights have collapsed: the effective sample size is too small."""


def log_ratios(rollout: Rollout) -> Tensor:
    """Log ρ_t = log π(a_t|s_t) − log μ(a_t|s_t), (T, N), float64; 0 after the end.

    Raises ValueError where columns are no whole episodes, and where μ cannot have taken an action: log μ = −inf. Actions that
    μ never takes and π does, which no sample shows, cannot be noticed: they bias the estimate.
    """
    if not rollout.whole_episodes:
        raise ValueError("importance weights need whole episodes, one per column, from time 0 to their end")
    impossible = rollout.mask & ~(rollout.behavior > -math.inf)
    if impossible.any():
        t, n = (int(i) for i in impossible.nonzero()[0])
        raise ValueError(
            f"log μ = {float(rollout.behavior[t, n])} at step {t} of trajectory {n}: the policy that sampled it never takes "
            "this action. The trajectories are not its own, or its log-probabilities are wrong."
        )
    return torch.where(rollout.mask, rollout.logp.double() - rollout.behavior.double(), 0.0)


def log_weights(rollout: Rollout) -> Tensor:
    """Log W_t = Σ_{k≤t} log ρ_k, (T, N), float64; rows after the end repeat it. Raises ValueError as `log_ratios` does."""
    return log_ratios(rollout).cumsum(0)


def trajectory_kl(rollout: Rollout, kind: str = "k1") -> Tensor:
    """Estimates of KL(P_μ ‖ P_π), how far the distributions of whole trajectories are apart, from trajectories of μ: (N,),
    float64, one per trajectory, of which the mean is taken.

    The dynamics cancel: KL(P_μ ‖ P_π) = E_μ[ Σ_t log μ(a_t|s_t) − log π(a_t|s_t) ] = E_μ[ Σ_t KL(μ(·|s_t) ‖ π(·|s_t)) ]. kind
    says how a step is estimated from ρ = π/μ of its action: k1, −log ρ, is unbiased, and below 0 at times; k2, ½ (log ρ)², is
    never below 0 and biased; k3, ρ − 1 − log ρ, is neither (Schulman 2020, "Approximating KL divergence"). On finite MDPs
    `policygrad.lab.exact_trajectory_kl` is the exact one. Raises ValueError as `log_ratios` does, and for another kind.
    """
    log_rho = log_ratios(rollout)
    kinds = {"k1": lambda: -log_rho, "k2": lambda: 0.5 * log_rho.square(), "k3": lambda: log_rho.expm1() - log_rho}
    if kind not in kinds:
        raise ValueError(f"kind must be one of {', '.join(kinds)}, got {kind!r}")
    return kinds[kind]().sum(0)


def effective_sample_size(log_w: Tensor) -> float:
    """(Σw)² / Σw² of weights given as logarithms (N,): N where all are equal, 1 where one is everything, 0 where all are 0.

    Kong 1992: a weighted mean of N has about the variance of a plain one of so many.
    """
    largest = greatest(log_w.max())
    if largest == -math.inf:
        return 0.0
    w = (log_w - largest).exp()
    return float(total(w.sum()) ** 2 / total(w.square().sum()))


@dataclass(frozen=True)
class _Weighted(_Wrapper):
    """The common part of both forms. min_ess: the least effective sample size accepted, as a share of the trajectories."""

    self_normalize: bool = False
    max_weight: float | None = None
    min_ess: float = 0.0

    # what is done to weighted advantages is not weighted, and biased: `Standardized` would subtract a mean
    outermost = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_weight is not None and not self.max_weight > 0.0:
            raise ValueError(f"max_weight must be above 0, got {self.max_weight}")
        if not 0.0 <= self.min_ess <= 1.0:
            raise ValueError(f"min_ess must be a share of the trajectories, in [0, 1], got {self.min_ess}")

    def needs_episodes(self, bootstraps: bool) -> bool:
        return True

    def log_weights(self, rollout: Rollout) -> Tensor:
        """Log W_t as they are used, (T, N): clipped, normalised. Raises CollapsedError where they have collapsed.

        T is that of the longest shard; the last row has the weights of whole trajectories.
        """
        log_w = self._clipped(rollout)
        self._check(rollout, effective_sample_size(log_w[-1]))
        if not self.self_normalize:
            return log_w
        missing = greatest(len(log_w)) - len(log_w)
        log_w = torch.cat([log_w, log_w[-1:].expand(missing, -1)])
        largest = greatest(log_w.amax(1, keepdim=True))
        mean = total((log_w - largest).exp().sum(1, keepdim=True)) / total(log_w.shape[1])
        return log_w - largest - mean.log()

    def stats(self, rollout: Rollout) -> Stats:
        """ess: the effective sample size, in trajectories. weight_mean: 1 on average. behavior_kl: KL(μ ‖ π) of a trajectory,
        in nats, unbiased and noisy, so below 0 at times. The last two of the weights as they are before clipping.
        """
        log_w, n = log_weights(rollout)[-1], total(rollout.trajectories)
        ess = effective_sample_size(self._clipped(rollout)[-1])
        return {
            "ess": ess,
            "weight_mean": float(total(log_w.exp().sum())) / n,
            "behavior_kl": -float(total(log_w.sum())) / n,
        }

    def _clipped(self, rollout: Rollout) -> Tensor:
        log_w = log_weights(rollout)
        return log_w if self.max_weight is None else log_w.clamp(max=math.log(self.max_weight))

    def _check(self, rollout: Rollout, ess: float) -> None:
        n = total(rollout.trajectories)
        if ess < self.min_ess * n or (ess == 0.0 and self.self_normalize):
            kl = self.stats(rollout)["behavior_kl"]
            raise CollapsedError(
                f"the importance weights have collapsed: the effective sample size is {ess:.1f} of {n} trajectories, "
                f"below {self.min_ess:.0%} (min_ess); the policy is {kl:.3g} nats per trajectory away from the one that "
                "sampled them. Nothing was updated: collect new trajectories with it, take fewer or smaller steps, or replay "
                "fewer old trajectories."
            )


@dataclass(frozen=True)
class ImportanceWeighted(_Weighted):
    """W · adv, W the weight of the whole trajectory: E_μ[ W x ] = E_π[ x ] for whatever the estimator inside makes of it.

    Unbiased where that is (with `self_normalize` or `max_weight`: see above). A critic learns from the targets as they are:
    V of the policy that sampled, as a baseline without bias, and its word where episodes are truncated.
    """

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        estimate = self.inner(rollout, values)
        return replace(estimate, stats=estimate.stats | self.stats(rollout))

    def wrap(self, adv: Tensor, rollout: Rollout) -> Tensor:
        return self.log_weights(rollout)[-1].exp().to(adv.dtype) * self.inner.wrap(adv, rollout)


@dataclass(frozen=True)
class PerDecision(_Weighted):
    """ret_t = r_t + γ (W_{t+1} / W_t) ret_{t+1}, and W_t · adv: every reward is weighted by the ratios up to its step.

    Σ_t ∇log π_t Σ_{k≥t} γ^{k−t} r_k W_k: what comes after a reward has mean 1 and is left out. Of `RewardToGo`, in
    `StateDiscounted` and `Standardized` or bare; ret_t is then an estimate of Q^π(s_t, a_t). Critics: as above.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        innermost: Any = self.inner
        while isinstance(innermost, _Wrapper):
            innermost = innermost.inner
        if not isinstance(innermost, RewardToGo):
            raise ValueError(f"PerDecision weights each reward, so it needs RewardToGo, got {innermost}")

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        estimate, log_w = self.inner(rollout, values), self.log_weights(rollout)[: len(rollout.rew)]
        weight_ratio = torch.ones_like(log_w)  # W_{t+1} / W_t; after a weight of 0 nothing counts
        weight_ratio[:-1] = torch.where(log_w[:-1] > -math.inf, (log_w[1:] - log_w[:-1]).exp(), 0.0)
        ret = returns.reward_to_go(rollout, values.next_val, self.gamma, weight_ratio.to(rollout.rew.dtype))
        return replace(estimate, ret=ret, stats=estimate.stats | self.stats(rollout))

    def wrap(self, adv: Tensor, rollout: Rollout) -> Tensor:
        return self.log_weights(rollout)[: len(adv)].exp().to(adv.dtype) * self.inner.wrap(adv, rollout)
