"""PPO with a penalty on the KL divergence."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.models.policy import Policy
from policygrad.models.schedules import Schedule
from policygrad.updates.first_order import FirstOrder

LEAST_BETA, MOST_BETA = 1e-4, 1e4  # so that it can come back from where KL stays far from the target


class PenalizedSurrogate(FirstOrder):
    """Ascend E[ ratio · adv ] − β · mean KL(old ‖ new), ratio = π/π_old: Schulman et al. 2017, eq. 8. KL is the head's, exact.

    target_kl: β halves where an update's KL ends below target_kl / 1.5 and doubles where it ends above 1.5 · target_kl, within
    [1e-4, 1e4]; None: β is fixed. On the first minibatch KL and its gradient are 0 and it is the plain policy gradient.
    β is in units of `adv` a nat: with standardised advantages it means the same on all tasks.
    """

    def __init__(
        self,
        lr: Schedule = 3e-4,
        *,
        beta: float = 1.0,
        target_kl: float | None = 0.01,
        epochs: int = 10,
        minibatches: int = 4,
        **kwargs,
    ) -> None:
        super().__init__(lr, epochs=epochs, minibatches=minibatches, **kwargs)
        if not beta > 0:
            raise ValueError(f"beta must be positive, got {beta}")
        if target_kl is not None and not target_kl > 0:
            raise ValueError(f"target_kl must be positive, or None for a fixed beta, got {target_kl}")
        self.beta, self.kl_to_keep = beta, target_kl  # not FirstOrder's target_kl, which ends the epochs

    def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
        """The weights w = weight · ratio · adv, (B,); the penalty's gradient is the ascent's business."""
        return (logp - batch.logp).exp_().mul_(batch.adv).mul_(batch.weight)

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> Stats:
        beta = self.beta
        stats = self.ascend(policy, batch, progress, kl_coef=beta)
        if self.kl_to_keep is not None:
            over = stats["kl"] / self.kl_to_keep
            factor = 2.0 if over > 1.5 else 0.5 if over < 1.0 / 1.5 else 1.0
            self.beta = min(max(beta * factor, LEAST_BETA), MOST_BETA)
        return stats | {"beta": beta}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: β, too."""
        return super().state_dict() | {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        super().load_state_dict(state)
        self.beta = state["beta"]
