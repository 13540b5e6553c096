"""One iteration of any policy-gradient algorithm: estimator × update rule."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from policygrad.algorithms.meter import gradient_noise
from policygrad.data import REDUCTIONS, Batch, Rollout, Stats, Values
from policygrad.errors import NotFiniteError
from policygrad.gradient.baselines import Baseline, CriticValue, NoBaseline
from policygrad.gradient.estimators import Estimator, advantages
from policygrad.models.critic import Critic, NoCritic, QCritic
from policygrad.models.policy import Policy
from policygrad.updates.diagnostics import UpdateDiagnostics


class UpdateRule(Protocol):
    """How the parameters move. A rule sees a batch, never time, rewards or γ."""

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
        ...


class Learner:
    """A cell of the grid: `Learner(policy, GAE(0.99, 0.95), ClippedSurrogate())` is PPO.

    baseline: the critic's V where there is a critic, none otherwise. reduction: see `Rollout.flatten`. eigenvalues: how many of
    the largest of the Fisher matrix diagnostics find as well.
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
        reduction: str = "step",
        eigenvalues: int = 0,
    ) -> None:
        self.policy, self.estimator, self.update, self.eigenvalues = policy, estimator, update, eigenvalues
        self.critic = critic or NoCritic()
        self.baseline: Baseline = baseline or (CriticValue() if self.critic.bootstraps else NoBaseline())
        self.reduction = reduction
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {REDUCTIONS}, got {reduction!r}")
        for part in (estimator, self.baseline):
            if part.needs_critic and not self.critic.bootstraps:
                raise ValueError(f"{part} uses V: give the learner a critic")

    @property
    def needs_episodes(self) -> bool:
        """Whether rollouts must be whole episodes, one a column."""
        return self.estimator.needs_episodes(self.critic.bootstraps) or self.baseline.needs_episodes

    def step(self, rollout: Rollout, progress: float = 0.0, diagnose: bool = False, meter: bool = False) -> Stats:
        """Learn from one rollout. progress in [0, 1] drives schedules; diagnose adds `UpdateDiagnostics` to the stats, meter
        what `gradient_noise` finds before it.

        Raises NotFiniteError, before anything moves, when an advantage is not finite.
        """
        if rollout.steps == 0:
            return {}
        values = self.critic(rollout, self.policy)
        adv, estimate = advantages(rollout, values, self.estimator, self.baseline)
        batch = rollout.flatten(adv, self.reduction)
        _check_finite(batch.adv, adv, rollout)
        noise = gradient_noise(self.policy, rollout, batch, self.reduction) if meter else {}
        diagnostics = UpdateDiagnostics(self.policy, batch, self.eigenvalues) if diagnose else None
        stats = estimate.stats | self.update(self.policy, batch, progress)
        if diagnostics is not None:
            measured, logp = diagnostics.compute(self.policy, batch)
            stats |= measured | self.update.report(logp, batch)
            stats["explained_variance"] = explained_variance(values, estimate.target, rollout)
            stats["value_loss"] = value_loss(values, estimate.target, rollout)
        stats |= self.critic.fit(rollout, estimate.target, self.policy, progress)
        self.baseline.fit(rollout, estimate.ret)
        if self.policy.normalizer is not None:
            self.policy.normalizer.update(rollout)
        return stats | noise

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, but for the environments."""
        parts = {"policy": self.policy, "update": self.update, "critic": self.critic, "baseline": self.baseline}
        return {name: dict(part.state_dict()) for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in ("policy", "update", "critic", "baseline"):
            getattr(self, name).load_state_dict(state[name])


def explained_variance(values: Values, target: Tensor, rollout: Rollout) -> float:
    """1 − Var(target − V) / Var(target) over valid rows: 1 perfect, 0 no better than a constant. NaN if target is constant.

    V is what the critic regresses on its targets: V(s), or q(s, a) of the actions taken.
    """
    if not values.bootstraps:
        return float("nan")
    variance = target[rollout.mask].double().var(correction=0)
    return float(1.0 - _errors(values, target, rollout).var(correction=0) / variance) if variance > 0 else float("nan")


def value_loss(values: Values, target: Tensor, rollout: Rollout) -> float:
    """Mean (target − V)² over valid rows, in units of the returns; before the fit. NaN without a critic."""
    return float(_errors(values, target, rollout).square().mean()) if values.bootstraps else float("nan")


def _errors(values: Values, target: Tensor, rollout: Rollout) -> Tensor:
    val = values.val if values.act_val is None else values.act_val
    return target[rollout.mask].double() - val[rollout.mask].double()


def _check_finite(flat: Tensor, adv: Tensor, rollout: Rollout) -> None:
    # a sum is finite unless a term is not (or it overflows, which the second look tells apart)
    if math.isfinite(float(flat.sum())) or torch.isfinite(flat).all():
        return
    # what is not finite flows backwards through the returns: its last row is where it came from
    t, n = (int(i) for i in (rollout.mask & ~torch.isfinite(adv)).nonzero()[-1])
    raise NotFiniteError(
        f"the advantage is not finite ({float(adv[t, n])}) in environment {n} at step {int(rollout.time[t, n])} of its "
        f"episode (row {t}); its reward was {float(rollout.rew[t, n])}. Nothing was updated."
    )
