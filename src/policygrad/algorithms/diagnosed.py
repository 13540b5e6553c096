"""Diagnostics around a learner: what an iteration predicted and what it did. The learner is not aware of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from policygrad.algorithms.learner import Iteration, Learner, Move
from policygrad.algorithms.meter import gradient_noise
from policygrad.data import Batch, Record, Rollout, Stats, Values
from policygrad.models.continuous import Gaussian
from policygrad.models.policy import Policy
from policygrad.models.schedules import at
from policygrad.total import moments
from policygrad.tree import to_numpy
from policygrad.updates.diagnostics import UpdateDiagnostics


def measured_step(
    learner: Any,
    record: Record | Rollout,
    progress: float = 0.0,
    *,
    meter: bool = False,
    eigenvalues: int = 0,
    action_space: spaces.Space | None = None,
) -> Stats:
    """A step of any learner, with what can be said about it: of a `Learner` that is `diagnosed_step`, others have a `report`
    of their own or none. And lr, where the learner or its rule has one. action_space: with it, `clipped_actions` as well.
    """
    clipped = clipped_actions(learner.policy, record, action_space)
    if hasattr(learner, "prepare"):
        stats = diagnosed_step(learner, record, progress, meter=meter, eigenvalues=eigenvalues)
    else:
        stats = learner.step(record, progress) | (learner.report() if hasattr(learner, "report") else {})
    rule = next((getattr(learner, name) for name in ("update", "rule") if hasattr(learner, name)), learner)
    lr = getattr(rule, "lr", None)
    return (stats if lr is None else stats | {"lr": float(at(lr, progress))}) | clipped


def clipped_actions(policy: Any, record: Record | Rollout, space: spaces.Space | None) -> Stats:
    """The share of the numbers of the actions that were outside of a Box, and so were clipped to its bounds; of other spaces,
    and of heads that stay inside, nothing.
    """
    head = getattr(policy, "head", None)
    if type(head) is not Gaussian or not isinstance(space, spaces.Box) or not np.prod(record.mask.shape):
        return {}
    act, mask = (x if isinstance(x, np.ndarray) else to_numpy(x) for x in (record.act, record.mask))
    act = act[mask]
    return {"clipped_actions": float(((act < space.low) | (act > space.high)).mean())} if len(act) else {}


def diagnosed_step(
    learner: Learner, record: Record | Rollout, progress: float = 0.0, *, meter: bool = False, eigenvalues: int = 0
) -> Stats:
    """`learner.step(record, progress)`, with `UpdateDiagnostics` and the critic's errors in the stats.

    meter: also what `gradient_noise` finds. eigenvalues: how many of the largest of the Fisher matrix are found as well. The
    parameters move as in `step`, to the last bit.
    """
    iteration = learner.prepare(Rollout.of(record, learner.policy))
    if iteration is None:
        return {}
    noise = gradient_noise(learner.policy, iteration.rollout, iteration.batch, learner.reduction) if meter else {}

    def measured(move: Move) -> Move:
        def moved(policy: Policy, batch: Batch, progress: float) -> Stats:
            diagnostics = UpdateDiagnostics(policy, batch, eigenvalues)
            stats = move(policy, batch, progress)
            numbers, logp = diagnostics.compute(policy, batch)
            return stats | numbers | learner.update.report(logp, batch) | critic_errors(iteration)

        return moved

    return learner.improve(iteration, progress, measured) | noise


def critic_errors(iteration: Iteration) -> Stats:
    """explained_variance and value_loss of the values, before the critic's fit."""
    given = iteration.values, iteration.estimate.target, iteration.rollout
    return {"explained_variance": explained_variance(*given), "value_loss": value_loss(*given)}


def explained_variance(values: Values, target: Tensor, rollout: Rollout) -> float:
    """1 − Var(target − V) / Var(target) over valid rows: 1 perfect, 0 no better than a constant. NaN if target is constant.

    V is what the critic regresses on its targets: V(s), or q(s, a) of the actions taken.
    """
    if not values.bootstraps:
        return float("nan")
    variance = moments(target[rollout.mask].double())[2]
    return float(1.0 - moments(_errors(values, target, rollout))[2] / variance) if variance > 0 else float("nan")


def value_loss(values: Values, target: Tensor, rollout: Rollout) -> float:
    """Mean (target − V)² over valid rows, in units of the returns; before the fit. NaN without a critic."""
    return float(moments(_errors(values, target, rollout).square())[1]) if values.bootstraps else float("nan")


def _errors(values: Values, target: Tensor, rollout: Rollout) -> Tensor:
    val = values.val if values.act_val is None else values.act_val
    return target[rollout.mask].double() - val[rollout.mask].double()
