"""PPO with a penalty on the KL divergence."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, cast

from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.forms import LARGEST, Form, number
from policygrad.models.ascent import KLPenalty, mean_kl
from policygrad.models.contracts import PolicyLike
from policygrad.models.policy import Policy
from policygrad.models.schedules import Schedule, at
from policygrad.updates.first_order import FirstOrder

LEAST_BETA, MOST_BETA = 1e-4, 1e4  # so that it can come back from where KL stays far from the target
BETA = number(1e-18, LARGEST)


@dataclass(eq=False)
class PenalizedSurrogate(FirstOrder):
    """Ascend E[ ratio · adv ] − β · mean KL(old ‖ new), ratio = π/π_old: Schulman et al. 2017, eq. 8. KL is the head's, exact.

    On the first minibatch KL and its gradient are 0 and it is the plain policy gradient. β is in units of `adv` a nat: with
    standardised advantages it means the same on all tasks.

    beta: β at the start, above 0, or without target_kl a schedule of progress; the attribute is β now.
    target_kl: β halves where an update's KL ends below target_kl / 1.5 and doubles where it ends above 1.5 · target_kl, within
        [1e-4, 1e4]; None: β is fixed. No epoch is skipped.
    Other keywords: those of `FirstOrder`.
    """

    kind = "ratio"

    _: KW_ONLY
    beta: Any = 1.0  # a number, or a schedule
    target_kl: Schedule | None = 0.01
    epochs: int = 10
    minibatches: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Schedule = self.beta
        self.schedule, self.beta = given if callable(given) else None, at(given, 0.0)
        if self.schedule is not None and self.target_kl is not None:
            raise ValueError("beta is adapted towards target_kl, so a schedule of it needs target_kl = none")
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}")
        if self.target_kl is not None and not at(self.target_kl, 0.0) > 0:
            raise ValueError(f"target_kl must be positive, or None for a fixed beta, got {self.target_kl}")

    def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
        """The weights w = weight · ratio · adv, (B,); the penalty is a term of its own."""
        return (logp - batch.logp).exp_().mul_(batch.adv).mul_(batch.weight)

    def __call__(self, policy: PolicyLike, batch: Batch, progress: float = 0.0) -> Stats:
        self.beta = self.beta if self.schedule is None else self.schedule(progress)
        policy, beta = cast(Policy, policy), self.beta  # KL takes more than a PolicyLike has
        old = policy.distributions(batch)
        terms = [self.objective(progress), KLPenalty(beta), *self.terms]
        stats = self.ascend(policy, replace(batch, dist=old), terms, progress)
        kl = mean_kl(policy, old, batch)
        if self.target_kl is not None:
            over = kl / at(self.target_kl, progress)
            factor = 2.0 if over > 1.5 else 0.5 if over < 1.0 / 1.5 else 1.0
            self.beta = min(max(beta * factor, LEAST_BETA), MOST_BETA)
        return stats | {"kl": kl, "beta": beta}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: β, too."""
        return super().state_dict() | {"beta": self.beta}

    def _forms(self, params: Tensor) -> dict[str, Form]:
        return super()._forms(params) | {"beta": BETA}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        BETA("beta", state["beta"])
        super().load_state_dict(state)
        self.beta = state["beta"]
