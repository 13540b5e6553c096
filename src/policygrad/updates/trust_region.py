"""Trust-region policy optimisation."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.models.ascent import mean_kl
from policygrad.models.policy import Policy, PolicyEvaluation
from policygrad.models.schedules import Schedule, at
from policygrad.total import total
from policygrad.updates.natural import NaturalGradient


@dataclass(eq=False)
class TrustRegion(NaturalGradient):
    """Maximise L(θ) subject to mean KL(old ‖ new) ≤ max_kl: TRPO, Schulman et al. 2015 (arXiv 1502.05477), eq. 14, appendix C.

    The natural step, taken whole if the *exact* mean KL keeps the bound and L has not fallen; otherwise shrink, shrink², … of
    it; after `backtracks` of those, none, and the parameters are what they were, bit for bit.

    backtracks: how many shorter steps are tried, at least 0.
    shrink: what each is shorter by, between 0 and 1.
    Other keywords: those of `NaturalGradient` but for lr, as the step comes from max_kl.
    """

    _: KW_ONLY
    lr: Schedule | None = field(default=None, init=False)
    backtracks: int = 10
    shrink: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backtracks < 0:
            raise ValueError(f"backtracks must be at least 0, got {self.backtracks}")
        if not 0.0 < self.shrink < 1.0:
            raise ValueError(f"shrink must be between 0 and 1, got {self.shrink}")

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> Stats:
        start = self.evaluate(policy, batch)
        step, stats = self.propose(start, batch, progress)
        ent_coef, theta, accepted, tried = at(self.ent_coef, progress), policy.flat.clone(), 0.0, 0
        before = self.surrogate(start, batch, ent_coef)
        try:
            for tried in range(self.backtracks + 1):
                fraction = self.shrink**tried
                torch.add(theta, step, alpha=fraction, out=policy.flat)
                trial = policy.evaluate(batch)
                kl = mean_kl(policy, start.dist, batch, trial.dist)
                if kl <= at(self.max_kl, progress) and self.surrogate(trial, batch, ent_coef) >= before:
                    accepted = fraction
                    break
        finally:
            if not accepted:
                policy.flat.copy_(theta)
        return stats | {"accepted": accepted, "backtracks": tried}

    def surrogate(self, evaluation: PolicyEvaluation, batch: Batch, ent_coef: float) -> float:
        """L = Σ weight · ratio · adv + ent_coef · Σ weight · entropy, ratio = π/π_old, summed in float64."""
        gain: Tensor = batch.weight * batch.adv * (evaluation.logp - batch.logp).exp()
        if ent_coef:
            gain = gain + ent_coef * batch.weight * evaluation.head.entropy(evaluation.dist)
        return float(total(gain.double().sum()))
