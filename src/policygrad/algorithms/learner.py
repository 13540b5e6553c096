"""One iteration of any policy-gradient algorithm: estimator × update rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Batch, Estimate, Record, Reduction, Rollout, Stats, Values, resolve_reduction
from policygrad.errors import NotFiniteError
from policygrad.forms import Form, form_of, table
from policygrad.gradient.baselines import Baseline, CriticValue, NoBaseline
from policygrad.gradient.estimators import Estimator, advantages
from policygrad.models.critic import Critic, NoCritic, QCritic
from policygrad.models.policy import Policy

Move = Callable[[Policy, Batch, float], Stats]  # (policy, batch, progress): what moves the policy
Measured = Callable[[Move], Move]


class UpdateRule(Protocol):
    """How the parameters move. A rule sees a batch, never time, rewards or γ.

    A rule with `terms` that are not empty also gets `Batch.target`, (B,), what a critic regresses on; it costs a gather.
    A class with `reads_logp = False` never reads `Batch.logp`, see `Learner.reads_logp`.
    """

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> Stats:
        """Move the policy."""
        ...

    def report(self, logp: Tensor, batch: Batch) -> Stats:
        """Numbers of its own, at the policy after the update."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


@dataclass(frozen=True, eq=False)
class Iteration:
    """What a learner knows before it moves."""

    rollout: Rollout
    values: Values
    estimate: Estimate
    batch: Batch


class Learner:
    """A cell of the grid: `Learner(policy, GAE(0.99, 0.95), ClippedSurrogate())` is PPO.

    baseline: the critic's V where there is a critic, none otherwise. reduction: see `Rollout.flatten`. observers: functions
    that are shown every rollout before anything is learned from it.
    Raises ValueError for combinations that make no sense, e.g. a bootstrapping estimator without a critic.
    """

    def __init__(
        self,
        policy: Policy,
        estimator: Estimator,
        update: UpdateRule,
        *,
        critic: Critic | QCritic | NoCritic | None = None,
        baseline: Baseline | None = None,
        reduction: str | Reduction = "step",
    ) -> None:
        self.policy, self.estimator, self.update, self.reduction = policy, estimator, update, reduction
        self.critic = critic or NoCritic()
        self.baseline: Baseline = baseline or (CriticValue() if self.critic.bootstraps else NoBaseline())
        self.observers: list[Callable[[Rollout], None]] = []
        resolve_reduction(reduction)  # raises ValueError for a name that there is not
        for part in (estimator, self.baseline):
            if part.needs_critic and not self.critic.bootstraps:
                raise ValueError(f"{part} uses the values V: give the learner a critic")

    @property
    def needs_episodes(self) -> bool:
        """Whether rollouts must be whole episodes, one per column."""
        return self.estimator.needs_episodes(self.critic.bootstraps) or self.baseline.needs_episodes

    @property
    def reads_logp(self) -> bool:
        """Whether anything here may read `Rollout.logp`, which costs a forward pass. Only a class that says of itself
        `reads_logp = False` is believed not to; its subclasses say so themselves.
        """
        parts = self.estimator, self.baseline, self.update
        silent = all(vars(type(part)).get("reads_logp", True) is False for part in parts)
        return not silent or bool(self.observers or callable(self.reduction) or getattr(self.update, "terms", ()))

    def step(self, record: Record | Rollout, progress: float = 0.0) -> Stats:
        """Learn from one record. progress in [0, 1] drives schedules.

        Raises NotFiniteError, before anything moves, when an advantage is not finite.
        """
        iteration = self.prepare(Rollout.of(record, self.policy if self.reads_logp else None))
        return {} if iteration is None else self.improve(iteration, progress)

    def prepare(self, rollout: Rollout) -> Iteration | None:
        """Values, advantages and the batch of a rollout; nothing moves. None where the rollout has no valid step."""
        for observer in self.observers:
            observer(rollout)
        if rollout.steps == 0:
            return None
        values = self.critic(rollout, self.policy)
        adv, estimate = advantages(rollout, values, self.estimator, self.baseline)
        target = estimate.target if getattr(self.update, "terms", ()) else None  # of which a term may be one of values
        batch = rollout.flatten(adv, self.reduction, target, self.policy.segment)
        _check_finite(batch.adv, adv, rollout)
        return Iteration(rollout, values, estimate, batch)

    def improve(self, iteration: Iteration, progress: float, measured: Measured = lambda move: move) -> Stats:
        """Move the policy, then what serves the next iteration: critic, baseline and normaliser. All of `iteration` saw the
        old ones. measured: puts measurements around what moves the policy.
        """
        rollout, estimate = iteration.rollout, iteration.estimate
        stats = estimate.stats | measured(self.update)(self.policy, iteration.batch, progress)
        stats |= self.critic.fit(rollout, estimate.target, self.policy, progress)
        self.baseline.fit(rollout, estimate.ret)
        if self.policy.normalizer is not None:
            self.merge(rollout)
        return stats

    def merge(self, rollout: Rollout) -> None:
        """Show the policy's normaliser what was acted on."""
        assert self.policy.normalizer is not None
        self.policy.normalizer.merge(self.policy.raw_features(rollout.valid_obs))

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, but for the environments."""
        parts = {"policy": self.policy, "update": self.update, "critic": self.critic, "baseline": self.baseline}
        return {name: dict(part.state_dict()) for name, part in parts.items()}

    def state_form(self) -> Form:
        """Of `state_dict`."""
        forms = {name: form_of(getattr(self, name)) for name in ("policy", "critic", "baseline")}
        return table(forms | {"update": form_of(self.update, self.policy.flat)})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in ("policy", "update", "critic", "baseline"):
            getattr(self, name).load_state_dict(state[name])


def _check_finite(flat: Tensor, adv: Tensor, rollout: Rollout) -> None:
    if np.isfinite(flat.numpy()).all():  # in NumPy, see `Rollout.end`
        return
    # what is not finite flows backwards through the returns: its last row is where it came from
    t, n = (int(i) for i in (rollout.mask & ~torch.isfinite(adv)).nonzero()[-1])
    raise NotFiniteError(
        f"the advantage is not finite ({float(adv[t, n])}) in environment {n} at step {int(rollout.time[t, n])} of its "
        f"episode (row {t}); its reward was {float(rollout.rew[t, n])}. Nothing was updated."
    )
