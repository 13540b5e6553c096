"""One iteration of any policy-gradient algorithm: estimator × update rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from policygrad.algorithms.earlier import EarlierEpisodes
from policygrad.algorithms.side_by_side import side_by_side
from policygrad.data import Batch, Estimate, Record, Reduction, Rollout, Stats, Values, resolve_reduction
from policygrad.envs.processes import cores_for
from policygrad.errors import NotFiniteError, check_part
from policygrad.forms import Form, form_of, table
from policygrad.gradient.baselines import Baseline, CriticValue, NoBaseline
from policygrad.gradient.estimators import Estimator, advantages
from policygrad.gradient.running import FORM as RUNNING_MOMENTS
from policygrad.models.ascent import ValueLoss
from policygrad.models.critic import Critic, NoCritic, QCritic
from policygrad.models.policy import Policy
from policygrad.models.shared import SharedCritic
from policygrad.models.workspace import Workspace
from policygrad.total import is_shared, total

LONG_FIT = 4096  # rows of all epochs of a critic's fit, from which a thread of its own pays
Move = Callable[[Policy, Batch, float], Stats]  # (policy, batch, progress): what moves the policy
Measured = Callable[[Move], Move]
BASELINE = "a baseline, such as policygrad.LeaveOneOut(); names of baselines are for policygrad.reinforce"
Fused = Callable[
    [float], Stats | None
]  # progress → a whole step; None: nothing has moved, and the parts are to be asked


class UpdateRule(Protocol):
    """How the parameters move. A rule sees a batch, never time, rewards or γ.

    A rule with `terms` that are not empty also gets `Batch.target`, (B,), what a critic regresses on; it costs a gather. One
    with an `auxiliary` gain gets that, too, and "next_obs", "rew" and "terminated" in `Batch.extra`.
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
    """What a learner knows before it moves. fresh: the new part of the rollout, which is all of it without earlier episodes."""

    rollout: Rollout
    fresh: Rollout
    values: Values
    estimate: Estimate
    batch: Batch


class Learner:
    """A cell of the grid: `Learner(policy, GAE(0.99, 0.95), ClippedSurrogate())` is PPO.

    baseline: the critic's V where there is a critic, none otherwise. reduction: see `Rollout.flatten`. observers: functions
    that are shown every rollout before anything is learned from it. replay_episodes: how many episodes of earlier iterations
    every update learns from as well; an importance-weighted estimator carries them over to the policy that learns.
    Raises ValueError for combinations that make no sense, e.g. a bootstrapping estimator without a critic, and PartError for
    parts of another kind, e.g. a class in place of an instance.
    """

    any_device = True  # whether it learns wherever its networks are, and not on the CPU only

    def __init__(
        self,
        policy: Policy,
        estimator: Estimator,
        update: UpdateRule,
        *,
        critic: Critic | QCritic | SharedCritic | NoCritic | None = None,
        baseline: Baseline | None = None,
        reduction: str | Reduction = "step",
        replay_episodes: int = 0,
    ) -> None:
        _check_parts(policy, estimator, update, critic, baseline)
        self.policy, self.estimator, self.update, self.reduction = policy, estimator, update, reduction
        self.critic = critic or NoCritic()
        self.baseline: Baseline = baseline or (CriticValue() if self.critic.bootstraps else NoBaseline())
        self.observers: list[Callable[[Rollout], None]] = []
        self.earlier = EarlierEpisodes(replay_episodes)
        self.workspace = Workspace()
        if replay_episodes:
            _check_replay(policy, estimator)
        resolve_reduction(reduction)  # raises ValueError for a name that there is not
        for part in (estimator, self.baseline):
            if part.needs_critic and not self.critic.bootstraps:
                raise ValueError(f"{part} uses the values V: give the learner a critic")
        if isinstance(self.critic, SharedCritic) and self.critic.term not in getattr(update, "terms", ()):
            raise ValueError(
                "a SharedCritic is trained by a term of the policy's update: give a first-order rule terms=(critic.term,). "
                "A natural step moves the policy alone, and needs a critic with a network of its own"
            )

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
        return not silent or bool(
            self.earlier.most
            or self.observers
            or callable(self.reduction)
            or self._auxiliary
            or any(type(term) is not ValueLoss for term in getattr(self.update, "terms", ()))
        )

    @property
    def _auxiliary(self) -> bool:
        """Whether the rule ascends an auxiliary gain."""
        return getattr(self.update, "auxiliary", None) is not None

    def step(self, record: Record | Rollout, progress: float = 0.0) -> Stats:
        """Learn from one record. progress in [0, 1] drives schedules.

        Raises NotFiniteError, before anything moves, when an advantage is not finite.
        """
        fused = None if self.observers else self._fused(record)
        stats = None if fused is None else fused(progress)
        if stats is not None:
            if self.policy.normalizer is not None:
                self.merge(Rollout.of(record, None))
            return stats
        policy = self.policy if self.reads_logp else None
        iteration = self.prepare(Rollout.of(record, policy, getattr(self.policy, "device", None)))
        return {} if iteration is None else self.improve(iteration, progress)

    def prepare(self, rollout: Rollout) -> Iteration | None:
        """Values, advantages and the batch of a rollout; nothing moves. None where the rollout has no valid step."""
        for observer in self.observers:
            observer(rollout)
        if total(rollout.steps) == 0:
            return None
        fresh, rollout = rollout, self.earlier.joined(rollout, self.policy)
        values = self.critic(rollout, self.policy)
        adv, estimate = advantages(rollout, values, self.estimator, self.baseline)
        more = self._auxiliary or getattr(self.update, "terms", ())  # of which a term may be one of values
        target = estimate.target if more else None
        told = _with_transitions(rollout) if self._auxiliary else rollout
        segment = self.policy.segment or len(rollout.rew)  # 0: whole columns
        batch = told.flatten(adv, self.reduction, target, segment)
        _check_finite(batch.adv, adv, rollout)
        return Iteration(rollout, fresh, values, estimate, batch)

    def improve(self, iteration: Iteration, progress: float, measured: Measured = lambda move: move) -> Stats:
        """Move the policy, then what serves the next iteration: critic, baseline and normaliser. All of `iteration` saw the
        old ones. These learn from every episode once, when it is new. measured: puts measurements around what moves the policy.
        """
        fresh, estimate = iteration.fresh, iteration.estimate
        stats = dict(estimate.stats)
        if fresh is not iteration.rollout:
            estimate = _part_of(estimate, *fresh.rew.shape)
        stats |= self._moved(iteration, estimate.target, progress, measured)
        self.baseline.fit(fresh, estimate.ret)
        if estimate.plain is not None:
            self.estimator.fit(fresh, estimate.plain)  # pyright: ignore[reportAttributeAccessIssue]
        if self.policy.normalizer is not None:
            self.merge(fresh)
        if self.earlier.most:
            self.earlier.keep(fresh)
        return stats

    def _moved(self, iteration: Iteration, target: Tensor, progress: float, measured: Measured) -> Stats:
        """Move policy and critic: in one compiled function, or the one after the other, or side by side."""
        fresh, fused = iteration.fresh, self._fused(iteration.rollout)
        if isinstance(self.critic, SharedCritic):
            self.critic.rescale_to(fresh, target, self.policy)
        fit = partial(self.critic.fit, fresh, target, self.policy, progress)
        if fused is not None:

            def both(policy: Policy, batch: Batch, progress: float) -> Stats:
                return fused(progress) or self.update(policy, batch, progress) | fit()

            return measured(both)(self.policy, iteration.batch, progress)
        move = partial(measured(self.update), self.policy, iteration.batch, progress)
        moved, fitted = side_by_side(move, fit) if self._in_two(fresh) else (move(), fit())
        return moved | fitted

    def _fused(self, record: Record | Rollout) -> Fused | None:
        """All that a step of this learner moves in one compiled function, where its parts are known and the record is short."""
        compiles = type(self) is Learner and getattr(self.policy, "compiles", False)
        if not compiles or math.prod(record.rew.shape) >= LONG_FIT or not vars(type(self.policy)).get("known"):
            return None
        from policygrad.algorithms.fused import step_of

        return step_of(self, record)

    def _in_two(self, rollout: Rollout) -> bool:
        """Whether the critic is fitted beside the update of the policy, in a thread of its own.

        Neither sees what the other changes, so the numbers are the same; it pays where the fit is compiled and long.
        """
        critic = self.critic
        compiled = getattr(self.policy, "compiles", False) and vars(type(critic)).get("known")
        if not compiled or not isinstance(critic, Critic | QCritic):
            return False
        return rollout.steps * critic.epochs >= LONG_FIT and cores_for(2) > 1 and not is_shared()

    def merge(self, rollout: Rollout) -> None:
        """Show the policy's normaliser what was acted on."""
        assert self.policy.normalizer is not None
        self.policy.normalizer.merge(self.policy.raw_features(rollout.valid_obs))

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, but for the environments."""
        parts = {"policy": self.policy, "update": self.update, "critic": self.critic, "baseline": self.baseline}
        parts |= {"estimator": self.estimator} if getattr(self.estimator, "learns", False) else {}
        parts |= {"earlier": self.earlier} if self.earlier.most else {}
        return {name: dict(part.state_dict()) for name, part in parts.items()}

    def state_form(self) -> Form:
        """Of `state_dict`."""
        forms = {name: form_of(getattr(self, name)) for name in ("policy", "critic", "baseline")}
        forms["update"] = form_of(self.update, self.policy.flat)
        known = any(getattr(self.estimator, name, False) for name in ("learns", "state_form"))
        learned = form_of(self.estimator) if known else RUNNING_MOMENTS
        return table(forms, optional={"estimator": learned, "earlier": form_of(self.earlier)})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. A part that the state does not know begins anew, and what has no part is left out."""
        for name in ("policy", "update", "critic", "baseline"):
            getattr(self, name).load_state_dict(state[name])
        if getattr(self.estimator, "learns", False) and "estimator" in state:
            self.estimator.load_state_dict(state["estimator"])  # pyright: ignore[reportAttributeAccessIssue]
        self.earlier.load_state_dict(state.get("earlier", {}), self.policy)


def _check_parts(policy: Any, estimator: Any, update: Any, critic: Any, baseline: Any) -> None:
    """Raise PartError for classes, names, modules and optimisers where an object with another contract is expected."""
    check_part(
        "policy", policy, ("evaluate",), "a policy, such as policygrad.make_policy(obs_space, act_space, body=module)"
    )
    check_part(
        "estimator", estimator, ("needs_critic", "needs_episodes"), "an estimator, such as policygrad.RewardToGo()"
    )
    check_part(
        "update",
        update,
        ("__call__",),
        "an update rule, such as policygrad.VanillaGradient(lr=1e-3), which has an optimiser inside",
    )
    while baseline is not None:
        check_part("baseline", baseline, ("needs_critic", "needs_episodes"), BASELINE)
        baseline = getattr(baseline, "inner", None)
    if critic is not None:
        check_part(
            "critic", critic, ("bootstraps",), "a critic, such as policygrad.make_critic(obs_space, body=module)"
        )


def _with_transitions(rollout: Rollout) -> Rollout:
    """The rollout with what came of its steps among the named arrays, for auxiliary gains."""
    more = {"next_obs": rollout.next_obs, "rew": rollout.rew, "terminated": rollout.terminated}
    return replace(rollout, extra=rollout.extra | more)


def _part_of(estimate: Estimate, steps: int, columns: int) -> Estimate:
    """The first so many rows and columns."""
    parts = {"ret": estimate.ret, "target": estimate.target, "plain": estimate.plain}
    return replace(estimate, **{name: None if x is None else x[:steps, :columns] for name, x in parts.items()})


def _check_replay(policy: Any, estimator: Any) -> None:
    """Refuse earlier episodes where nothing carries them over from the policy that played them to the one that learns."""
    if not getattr(estimator, "outermost", False):
        raise ValueError(
            "replay_episodes > 0 needs importance weights: put the estimator into ImportanceWeighted or PerDecision, got "
            f"{estimator}"
        )
    if getattr(policy, "stateful", False) or getattr(policy, "segment", 1) != 1:
        raise ValueError(
            "replay_episodes > 0, but this policy acts with a state, which depends on the policy that had it, so that its "
            "episodes have no weight for another: set noise_autocorrelation = 0 and memory = none, or replay_episodes = 0"
        )


def _check_finite(flat: Tensor, adv: Tensor, rollout: Rollout) -> None:
    # in NumPy, see `Rollout.end`
    if bool(np.isfinite(flat.numpy()).all() if flat.is_cpu else torch.isfinite(flat).all()):
        return
    # what is not finite flows backwards through the returns: its last row is where it came from
    t, n = (int(i) for i in (rollout.mask & ~torch.isfinite(adv)).nonzero()[-1])
    raise NotFiniteError(
        f"the advantage is not finite ({float(adv[t, n])}) in environment {n} at step {int(rollout.time[t, n])} of its "
        f"episode (row {t}); its reward was {float(rollout.rew[t, n])}. Nothing was updated."
    )
