"""What the first-order rules share: an optimiser, schedules, clipping, shuffling, and their state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.models.ascent import minibatch_ascent
from policygrad.models.optim import make_optimizer
from policygrad.models.policy import Policy
from policygrad.models.schedules import Schedule, at


class FirstOrder:
    """Gradient ascent with weights `score_weights(logp, batch)`: a rule is that one method.

    lr, ent_coef: numbers or schedules of progress. max_grad_norm: global ℓ₂ norm, None for none.
    """

    def __init__(
        self,
        lr: Schedule = 3e-4,
        *,
        optimizer: str = "adam",
        epochs: int = 1,
        minibatches: int = 1,
        ent_coef: Schedule = 0.0,
        max_grad_norm: float | None = 0.5,
        target_kl: float | None = None,
        seed: int = 0,
    ) -> None:
        for name, value in (("epochs", epochs), ("minibatches", minibatches)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.lr, self.ent_coef = lr, ent_coef
        self.epochs, self.minibatches = epochs, minibatches
        self.max_grad_norm, self.target_kl = max_grad_norm, target_kl
        self.optimizer = make_optimizer(optimizer)
        self.generator = torch.Generator().manual_seed(seed)

    def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
        """The weights w (B,) of the ascent direction Σ w ∇log π, at the current log-probabilities."""
        raise NotImplementedError

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> Stats:
        return self.ascend(policy, batch, progress)

    def ascend(self, policy: Policy, batch: Batch, progress: float, kl_coef: float = 0.0) -> Stats:
        """Epochs × minibatches of ascent with the rule's weights, and a penalty kl_coef on KL(old ‖ new)."""
        return minibatch_ascent(
            policy,
            batch,
            self.score_weights,
            optimizer=self.optimizer,
            lr=at(self.lr, progress),
            generator=self.generator,
            epochs=self.epochs,
            minibatches=self.minibatches,
            ent_coef=at(self.ent_coef, progress),
            kl_coef=kl_coef,
            max_grad_norm=self.max_grad_norm,
            target_kl=self.target_kl,
        )

    def report(self, logp: Tensor, batch: Batch) -> Stats:
        """Numbers of the rule's own at the policy after the update, taken when diagnostics are."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
