"""PPO's clipped surrogate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.models.contracts import PolicyLike
from policygrad.models.schedules import Schedule, at
from policygrad.total import total
from policygrad.updates.first_order import FirstOrder


@dataclass(eq=False)
class ClippedSurrogate(FirstOrder):
    """Ascend E[ min( ratio · adv, clip(ratio, 1 − ε, 1 + ε) · adv ) ], ratio = π/π_old: Schulman et al. 2017, eq. 7.

    Its gradient is a weighted score: ratio · adv where the minimum is the unclipped term, 0 where it is the clipped one.
    On the first minibatch ratio = 1 and it is the plain policy gradient. Deviations from common code: one norm is clipped
    for the actor alone, advantages are standardised over the batch, not the minibatch, and there is no value clipping.

    clip: ε, how far the ratio may move from 1 before a step gains nothing more; above 0. A number, or a schedule of progress;
        the attribute is ε now.
    Other keywords: those of `FirstOrder`.
    """

    kind = "clipped"

    _: KW_ONLY
    clip: Any = 0.2  # a number, or a schedule
    epochs: int = 10
    minibatches: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Schedule = self.clip
        self.schedule, self.clip = given if callable(given) else None, at(given, 0.0)
        if self.clip <= 0:
            raise ValueError(f"clip must be positive, got {self.clip}")

    @property
    def scheduled(self) -> tuple[str, ...]:
        """The numbers that training sets."""
        return () if self.schedule is None else ("clip",)

    def __call__(self, policy: PolicyLike, batch: Batch, progress: float = 0.0) -> Stats:
        if self.schedule is not None:
            self.clip = self.schedule(progress)
        return super().__call__(policy, batch, progress)

    @property
    def numbers(self) -> Mapping[str, float]:
        return {"clip": self.clip}

    def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
        """The weights w = weight · ratio · adv · [not clipped], (B,): eq. 7 differentiated by log π."""
        ratio = (logp - batch.logp).exp()
        clipped = (ratio - 1.0).mul_(batch.adv.sign()) > self.clip
        return ratio.mul_(batch.adv).mul_(batch.weight).masked_fill_(clipped, 0.0)

    def report(self, logp: Tensor, batch: Batch) -> Stats:
        """clip_fraction: the share of steps whose gradient the clip removes."""
        ratio = (logp - batch.logp).exp()
        clipped = (ratio - 1.0) * batch.adv.sign() > self.clip
        steps = len(batch) if batch.segment == 1 else int(batch.weight.count_nonzero())  # segments are padded
        return {"clip_fraction": float(total(clipped.double().sum())) / total(steps)}
