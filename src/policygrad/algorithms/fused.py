"""An iteration of an actor-critic with one step of each as one compiled function: its arrays. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from policygrad.compiled.cache import patience
from policygrad.compiled.epochs import AscentData
from policygrad.compiled.heads import CHOICES, PLAIN, Aim, Steps
from policygrad.compiled.iteration import NOT_FINITE, NOTHING, Ends, Estimates, Scale, iterate
from policygrad.compiled.networks import Work
from policygrad.data import Record, Rollout, Stats, shares_memory
from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import GAE, RewardToGo, Standardized, TDError
from policygrad.models.arrays import NO_CHOICES, largest_norm, vector, work_memory
from policygrad.models.critic import LEAST_STD, Critic
from policygrad.models.epochs import Arrays, arrays_of, choices_of
from policygrad.models.optim import Adam, check_norm
from policygrad.models.schedules import at
from policygrad.total import is_shared
from policygrad.tree import tree_map
from policygrad.updates.first_order import FirstOrder


class IterationMemory(NamedTuple):
    """What a step of T · N rows works in."""

    actor: Arrays
    critic: Arrays
    val: np.ndarray  # ((T + 1) · N,)
    work: Work
    adv: np.ndarray  # (T · N,), and so are the next two
    weight: np.ndarray
    target: np.ndarray
    order: np.ndarray  # (T · N,) int64


def step_of(learner: Any, record: Record | Rollout) -> Callable[[float], Stats | None] | None:
    """The step of a `Learner` on a record as one compiled function; None where there is none for it."""
    kind = _returns(learner.estimator)
    if kind is None or is_shared() or not _is_known(learner) or not shares_memory(record.obs, record.next_obs):
        return None
    policy, critic, rule, rows = learner.policy, learner.critic, learner.update, record.rew.shape
    owners = (policy, rule.optimizer), (critic, critic.optimizer)
    moments = [optimizer.moments(module.flat)[0] for module, optimizer in owners]
    memory: IterationMemory | None = learner.workspace.arrays(
        _memory, rows, [policy.flat, policy.head, critic.flat, *moments], owners
    )
    if memory is None:
        return None
    steps = _steps(policy, record, memory)
    types = (memory.adv.dtype, bool, bool, bool, bool)
    ends = Ends(*(np.ascontiguousarray(getattr(record, x), t) for x, t in zip(Ends._fields, types, strict=True)))
    how = Estimates(*kind, learner.reduction == "trajectory", memory.target, memory.order)

    def step(progress: float) -> Stats | None:
        scale = Scale(np.array([critic.seen, critic.mean, critic.std, critic.var]), critic.scale_rate, LEAST_STD)
        aim, norms = Aim(PLAIN, 0.0, at(rule.ent_coef, progress), 0.0, 0.0), np.empty(2)
        (actor, head, state, space), (value, _, moved, room) = memory.actor, memory.critic
        ascent = AscentData(state, rule.optimizer.t + 1, at(rule.lr, progress), largest_norm(rule.max_grad_norm))
        descent = AscentData(moved, critic.optimizer.t + 1, at(critic.lr, progress), largest_norm(critic.max_grad_norm))
        networks, plans = (actor, head, value, scale), (aim, ascent, descent)
        with patience():
            came = iterate(*networks, steps, ends, how, *plans, space, room, memory.val, memory.work, norms)
        if came in (NOTHING, NOT_FINITE):
            return None
        check_norm(norms[0], "the policy", "lower lr, or set max_grad_norm")
        rule.optimizer.t += 1
        critic.scaled(int(scale.numbers[0]), *scale.numbers[1:].tolist())
        check_norm(norms[1], "the critic", "lower critic_lr")
        critic.optimizer.t += 1
        return {"epochs": 1, "grad_norm": float(norms[0])}

    return step


def _returns(estimator: Any) -> tuple[float, float, bool] | None:
    """γ and λ of an estimator that is a λ-return, and whether it is standardised over the batch; None for another."""
    standardize = type(estimator) is Standardized and estimator.over == "batch"
    inner = estimator.inner if standardize else estimator
    lam = {RewardToGo: 1.0, TDError: 0.0}.get(type(inner), getattr(inner, "lam", None) if type(inner) is GAE else None)
    return None if lam is None else (inner.gamma, lam, standardize)


def _is_known(learner: Any) -> bool:
    """Whether all parts of a learner are of those that the compiled function knows, and each takes one step."""
    policy, critic, rule = learner.policy, learner.critic, learner.update
    if type(critic) is not Critic or not isinstance(rule, FirstOrder) or type(learner.baseline) is not CriticValue:
        return False
    once = rule.epochs == rule.minibatches == critic.epochs == critic.minibatches == 1
    more = rule.terms or rule.auxiliary is not None
    plain = vars(type(rule)).get("kind") == "plain" and rule.target_kl is None and not more
    adam = type(rule.optimizer) is type(critic.optimizer) is Adam
    bare = not policy.head.context and policy.segment == 1
    if {"fit", "regress", "follow"} & vars(critic).keys() or {"ascend", "score_weights"} & vars(rule).keys():
        return False  # somebody has put other methods in their place
    return once and plain and adam and bare and not learner.earlier.most and isinstance(learner.reduction, str)


def _memory(owners: Any, shape: tuple[int, int]) -> IterationMemory | None:
    (policy, optimizer), (critic, other) = owners
    T, N = shape
    actor, value = arrays_of(policy, policy.head, optimizer, T * N), arrays_of(critic, None, other, T * N)
    if actor is None or value is None or policy.flat.dtype is not critic.flat.dtype:
        return None
    dtype, rows = policy.flat.dtype, (T + 1) * N
    adv, weight, target = (vector(T * N, dtype) for _ in range(3))
    val, work, order = vector(rows, dtype), work_memory([value[0]], rows, dtype), np.empty(T * N, np.int64)
    return IterationMemory(actor, value, val, work, adv, weight, target, order)


def _steps(policy: Any, record: Record | Rollout, memory: IterationMemory) -> Steps:
    """The rows of a record, of which no log-probability is read."""
    head, dtype, act = memory.actor[1], memory.adv.dtype, np.asarray(record.act)
    none, choices = memory.adv[:0], head.kind == CHOICES
    return Steps(
        features=np.ascontiguousarray(policy.inputs(tree_map(_row_by_row, record.obs)), dtype).reshape(-1),
        context=none,
        choice=choices_of(act, head.sizes) if choices else NO_CHOICES,
        act=none if choices else np.ascontiguousarray(act, dtype).reshape(-1),
        logp=memory.adv,  # of which a plain gradient reads none, but takes one
        adv=memory.adv,
        weight=memory.weight,
        dist=none,
        target=none,
    )


def _row_by_row(x: Any) -> np.ndarray:
    """(T + 1, N, *) → ((T + 1) · N, *)."""
    x = np.asarray(x)
    return x.reshape(-1, *x.shape[2:])
