"""PPO's clipped surrogate."""

from __future__ import annotations

from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.models.schedules import Schedule
from policygrad.updates.first_order import FirstOrder


class ClippedSurrogate(FirstOrder):
    """Ascend E[ min( ratio · adv, clip(ratio, 1 − ε, 1 + ε) · adv ) ], ratio = π/π_old: Schulman et al. 2017, eq. 7.

    Its gradient is a weighted score: ratio · adv where the minimum is the unclipped term, 0 where it is the clipped one.
    On the first minibatch ratio = 1 and it is the plain policy gradient. Deviations from common code: one norm is clipped
    for the actor alone, advantages are standardised over the batch, not the minibatch, and there is no value clipping.
    """

    def __init__(
        self, lr: Schedule = 3e-4, *, clip: float = 0.2, epochs: int = 10, minibatches: int = 4, **kwargs
    ) -> None:
        super().__init__(lr, epochs=epochs, minibatches=minibatches, **kwargs)
        if clip <= 0:
            raise ValueError(f"clip must be positive, got {clip}")
        self.clip = clip

    def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
        """The weights w = weight · ratio · adv · [not clipped], (B,): eq. 7 differentiated by log π."""
        ratio = (logp - batch.logp).exp()
        clipped = (ratio - 1.0).mul_(batch.adv.sign()) > self.clip
        return ratio.mul_(batch.adv).mul_(batch.weight).masked_fill_(clipped, 0.0)

    def report(self, logp: Tensor, batch: Batch) -> Stats:
        """clip_fraction: the share of steps whose gradient the clip removes."""
        ratio = (logp - batch.logp).exp()
        return {"clip_fraction": float(((ratio - 1.0) * batch.adv.sign() > self.clip).double().mean())}
