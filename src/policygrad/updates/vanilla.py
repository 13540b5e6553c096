"""The plain policy gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from policygrad.data import Batch
from policygrad.updates.first_order import FirstOrder


@dataclass(eq=False)
class VanillaGradient(FirstOrder):
    """θ ← θ + lr · Σ weight · adv · ∇log π, by SGD or Adam. Keywords: those of `FirstOrder`.

    One step a batch; `epochs` > 1 would reuse on-policy data without a correction and is refused with a ValueError.
    """

    kind = "plain"
    reads_logp = False  # of the policy before the update

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs > 1 or self.minibatches > 1:
            raise ValueError(
                "VanillaGradient takes one step per batch: more steps need an importance ratio, as in ClippedSurrogate"
            )

    def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
        """The weights w = weight · adv, (B,)."""
        return batch.weight * batch.adv
