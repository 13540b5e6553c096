"""The common part of first-order rules: an optimiser, schedules, clipping, shuffling, and their state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.forms import Form, form_of, mersenne, table
from policygrad.models.ascent import Gain, Objective, Term, epochs_of, gradient_of, mean_kl, minibatch_ascent
from policygrad.models.compiling import policy_epochs
from policygrad.models.contracts import PolicyLike
from policygrad.models.optim import make_optimizer
from policygrad.models.policy import Policy
from policygrad.models.schedules import Schedule, at
from policygrad.models.workspace import AscentPlan, Workspace


@dataclass(eq=False)
class FirstOrder:
    """Gradient ascent with weights `score_weights(logp, batch)`. A subclass defines this one method.

    lr: the optimiser's rate, a number or a schedule of progress.
    optimizer: "adam", "sgd" or an `Optimizer`.
    epochs: passes over the batch, at least 1.
    minibatches: pieces of a pass, a step each, at least 1.
    ent_coef: weight of the mean entropy, a number or a schedule.
    max_grad_norm: what the gradient's ℓ₂ norm is clipped to; None: it is not.
    target_kl: the update ends after the epoch whose exact mean KL(old ‖ new) exceeds it; None: after all of them. With it
        the stats have `kl`.
    terms: what is ascended besides, by its derivative by the network's outputs: see `models.ascent.Term`.
    auxiliary: a gain that is ascended besides, by autograd: a function (policy, batch) → scalar, built in plain torch from
        `policy(batch.obs)` or `policy.latent(batch.obs)`. A loss is a gain with a minus. Means are sums with `batch.weight`.
        Its gradient is summed into the others' before the norm is clipped.
    seed: of the shuffling.

    Raises ValueError for numbers out of range, NotFiniteError where a gradient is not finite.
    """

    lr: Schedule = 3e-4
    _: KW_ONLY
    optimizer: Any = "adam"
    epochs: int = 1
    minibatches: int = 1
    ent_coef: Schedule = 0.0
    max_grad_norm: float | None = 0.5
    target_kl: Schedule | None = None
    terms: Sequence[Term] = ()
    auxiliary: Gain | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("minibatches", self.minibatches)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.optimizer = make_optimizer(self.optimizer)
        self.generator = torch.Generator().manual_seed(int(self.seed))
        self.workspace = Workspace()

    def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
        """The weights w (B,) of the ascent direction Σ w ∇log π, at the current log-probabilities."""
        raise NotImplementedError

    @property
    def numbers(self) -> Mapping[str, float]:
        """The numbers that `score_weights` depends on, as data: see `Objective`."""
        return {}

    def objective(self, progress: float) -> Objective:
        """The rule's own term. Its kind is what the class itself says: a subclass may have weights of its own."""
        kind = vars(type(self)).get("kind")
        return Objective(kind, self.numbers, self.score_weights, at(self.ent_coef, progress))

    def __call__(self, policy: PolicyLike, batch: Batch, progress: float = 0.0) -> Stats:
        terms = [self.objective(progress), *self.terms]
        if self.target_kl is None:
            return self.ascend(policy, batch, terms, progress)
        limit, policy, kl = self.target_kl, cast(Policy, policy), 0.0  # KL takes more than a PolicyLike has
        old, limit = policy.distributions(batch), at(limit, progress)

        def enough() -> bool:
            nonlocal kl
            kl = mean_kl(policy, old, batch)
            return kl > limit

        return self.ascend(policy, batch, terms, progress, enough) | {"kl": kl}

    def ascend(
        self,
        policy: PolicyLike,
        batch: Batch,
        terms: Sequence[Term],
        progress: float,
        enough: Callable[[], bool] | None = None,
    ) -> Stats:
        """Epochs × minibatches of ascent on the sum of the terms; `enough` is asked after every epoch."""
        how = AscentPlan(self.optimizer, at(self.lr, progress), self.max_grad_norm, self.minibatches, self.generator)
        compiled = policy_epochs(self.workspace, policy, batch, terms, how) if self.auxiliary is None else None
        ascent = compiled or epochs_of(
            policy.flat,
            lambda: batch.minibatches(self.minibatches, self.generator),
            lambda mb: gradient_of(terms, policy, mb, self.auxiliary),
            how,
        )
        return minibatch_ascent(ascent, self.epochs, enough=enough)

    def report(self, logp: Tensor, batch: Batch) -> Stats:
        """The rule's own numbers at the policy after the update, computed with the diagnostics."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state()}

    def state_form(self, params: Tensor) -> Form:
        """Of `state_dict`, beside a policy of these parameters (P,)."""
        return table(self._forms(params))

    def _forms(self, params: Tensor) -> dict[str, Form]:
        size = len(self.generator.get_state())
        return {"optimizer": form_of(self.optimizer, params), "generator": mersenne(size)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        mersenne(len(self.generator.get_state()))("generator", state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
