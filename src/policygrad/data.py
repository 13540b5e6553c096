"""The records that flow between the rooms. Shapes are written here once, and checked here, at the boundary.

Axes: T steps, N environments (time-major), B valid steps, `*` event shapes. What is *not* here: maths, networks, environments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.errors import TrainingError
from policygrad.pieces import shuffled
from policygrad.total import total
from policygrad.tree import Tree, rows, take, to_device, to_torch, tree_leaves, tree_map

Stats = dict[str, float]
Row = dict[str, float | int | None]  # of metrics.jsonl; None: there is no such number yet


class TooFewError(TrainingError, ValueError):
    """A rollout has too few steps or trajectories for a computation."""


@dataclass(frozen=True)
class Wants:
    """The amount of experience that a learner needs next: rows per environment, or a number of whole episodes."""

    num_steps: int | None = None
    episodes: int | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.num_steps, self.episodes) if x is not None]
        if len(given) != 1 or given[0] < 1:
            raise ValueError(f"expected num_steps or episodes, at least 1, got {self}")


@dataclass(frozen=True, eq=False)
class Record:
    """T steps of N environments and of the actor, without log-probabilities, values or advantages: in NumPy, or as tensors
    of the device on which they were played.

    The ends and the mask obey the law of `Rollout`. Between resets, column n of consecutive fixed-step records is one
    uninterrupted environment; a record of whole episodes has one episode per column. extra: named arrays (T, N, *) of
    whoever acted, or of the source: "logp", the log-probability under the policy that acted; "noise", the noise of the step
    before, which conditions an action; a recurrent state; a group key.
    """

    obs: Tree  # (T+1, N, *)
    next_obs: Tree  # (T, N, *)   before any reset; a view of obs[1:] wherever the layout allows
    act: np.ndarray  # (T, N, *)  as sampled, before clipping to the action space
    rew: np.ndarray  # (T, N)
    terminated: np.ndarray  # (T, N) bool
    truncated: np.ndarray  # (T, N) bool
    cut: np.ndarray  # (T, N) bool
    mask: np.ndarray  # (T, N) bool
    time: np.ndarray  # (T, N) int
    extra: dict[str, Tree] = field(default_factory=dict)
    finished: list[tuple[float, int]] = field(default_factory=list)  # return and length of the episodes that ended here

    @property
    def end(self) -> np.ndarray:
        """(T, N) bool: the ends the environment announced."""
        return self.terminated | self.truncated

    @property
    def steps(self) -> int:
        """The number of valid steps."""
        return count(torch.as_tensor(self.mask))


@dataclass(frozen=True, eq=False)
class Rollout:
    """T steps of N environments, time-major.

    Ends: V(next) = 0 at `terminated`; V(next_obs) counts at `truncated` and at `cut`, the rollout's edge inside an
    unfinished episode. Rows with `mask` False (resets, padding) are no steps and enter nothing. The last valid row of
    every column is an end, so every return is one recursion without special cases.
    """

    obs: Tree  # (T+1, N, *)
    next_obs: Tree  # (T, N, *)     s_{t+1} before any reset; a view of obs[1:] wherever the layout allows
    act: Tensor  # (T, N, *)        as sampled, before clipping to the action space
    rew: Tensor  # (T, N)           as the environment gave it
    logp: Tensor  # (T, N)          log-probability under the policy that learns
    terminated: Tensor  # (T, N) bool
    truncated: Tensor  # (T, N) bool
    cut: Tensor  # (T, N) bool
    mask: Tensor  # (T, N) bool     True on the steps that count
    time: Tensor  # (T, N) int      step index inside the episode, from 0
    extra: dict[str, Tree] = field(default_factory=dict)  # (T, N, *) named arrays, see `Record`

    def __post_init__(self) -> None:
        shape = self.rew.shape
        for name, tree in (("act", self.act), ("next_obs", self.next_obs), *self.extra.items()):
            for x in tree_leaves(tree):
                if x.shape[:2] != shape:
                    raise ValueError(f"{name} must start with (T, N) = {tuple(shape)}, got {tuple(x.shape)}")
        for name in ("logp", "behavior", "terminated", "truncated", "cut", "mask", "time"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be (T, N) = {tuple(shape)}, got {tuple(getattr(self, name).shape)}")
        tree_map(_check_follows, self.obs, self.next_obs)
        given: Any = self.mask, self.end, self.terminated, self.truncated
        # in NumPy, see `end`
        mask, end, terminated, truncated = (x.numpy() if x.is_cpu else x for x in given)
        wrong = (end & ~mask) | (terminated & truncated)
        wrong[:-1] |= mask[:-1] & ~mask[1:] & ~end[:-1]  # of the valid rows with no valid row after them
        wrong[-1:] |= mask[-1:] & ~end[-1:]
        if count(wrong := torch.as_tensor(wrong)):
            t, n = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"row (t={t}, n={n}): the last valid row of every column must be an end, ends must be valid rows, and "
                "terminated excludes truncated. Set `cut` where an episode goes on beyond the rollout."
            )

    @staticmethod
    def of(record: Record | Rollout, policy: Any, device: torch.device | None = None) -> Rollout:
        """The record as tensors, with the log-probabilities of `policy` (`Policy.log_probs`), or with NaN in their place where
        it is None, since nobody reads them. What is a rollout already stays as it is.

        device: where the tensors are to be, by default where the policy is. On the CPU they are on the record's memory; to
        another device each array is moved once.
        """
        if isinstance(record, Rollout):
            return record
        device = getattr(policy, "device", None) if device is None else device
        obs, next_obs = to_torch(record.obs), to_torch(record.next_obs)
        view = shares_memory(obs, next_obs)
        obs = to_device(obs, device)
        next_obs = take(obs, slice(1, None)) if view else to_device(next_obs, device)
        rest = {
            name: getattr(record, name) for name in ("act", "rew", "terminated", "truncated", "cut", "mask", "time")
        }
        rest = to_device(to_torch(rest | {"extra": dict(record.extra)}), device)
        if policy is None:
            logp = torch.full_like(rest["rew"], math.nan)
        else:
            logp = policy.log_probs(take(obs, slice(-1)), rest["act"], rest["extra"])
        rest["rew"] = rest["rew"].to(logp.dtype)
        return Rollout(obs=obs, next_obs=next_obs, logp=logp, **rest)

    @property
    def behavior(self) -> Tensor:
        """(T, N) log-probability under the policy that acted: `extra["logp"]`; without one it is the one that learns."""
        return self.extra.get("logp", self.logp)

    def seen_with(self, logp: Tensor) -> Rollout:
        """A copy for another policy with log-probabilities `logp` (T, N); `behavior` is still that of the policy that acted."""
        return replace(self, logp=logp, extra=dict(self.extra) | {"logp": self.behavior})

    @cached_property
    def end(self) -> Tensor:
        """(T, N) bool: where a trajectory ends, for any reason."""
        if not self.mask.is_cpu:
            return self.terminated | self.truncated | self.cut
        # in NumPy, on the same memory: of small rollouts a torch call costs more than the arithmetic
        return torch.from_numpy(self.terminated.numpy() | self.truncated.numpy() | self.cut.numpy())

    @cached_property
    def valid_obs(self) -> Tree:
        """(B, *) the observations that were acted on."""
        return self.valid(take(self.obs, slice(-1)))

    @cached_property
    def rows(self) -> Tensor:
        """(B,) the valid rows' indices in the flattened rollout."""
        return self.mask.reshape(-1).nonzero().squeeze(-1)

    def valid(self, x: Tree) -> Tree:
        """The valid rows of x: (T, N, *) → (B, *). Not a copy where all rows are valid."""
        if self.steps == self.mask.numel():
            return x.flatten(0, 1) if isinstance(x, Tensor) else tree_map(lambda x: x.flatten(0, 1), x)
        return tree_map(lambda x: x.flatten(0, 1).index_select(0, self.rows), x)

    @cached_property
    def steps(self) -> int:
        """B, the number of valid steps."""
        return count(self.mask)

    @cached_property
    def trajectories(self) -> int:
        """The number of trajectories: every end closes one."""
        return count(self.end)

    @cached_property
    def whole_episodes(self) -> bool:
        """Whether every column is one episode, from its first step to an end the environment announced."""
        return bool((self.time[0] == 0).all() and self.mask[0].all() and not self.cut.any()) and (
            self.trajectories == self.mask.shape[1]
        )

    def columns(self, index: Sequence[int] | Tensor | slice) -> Rollout:
        """The rollout of these columns, in this order; a column may come twice. Those of a slice stay on the same memory."""
        return Rollout(**_columns(self, index))

    def scatter(self, x: Tensor) -> Tensor:
        """The inverse of `valid`: (B,) → (T, N), 0 on the rows that are not valid."""
        flat = x.new_zeros(self.mask.numel())
        return flat.index_copy_(0, self.rows, x).view(self.mask.shape)

    def flatten(self, adv: Tensor, reduction: str | Reduction, target: Tensor | None = None, segment: int = 1) -> Batch:
        """Drop time: the valid rows as a `Batch`. adv, target: (T, N).

        reduction: the weights of the rows, `by_trajectory` ("trajectory"), `by_step` ("step") or a function of your own.
        segment: where rows belong together, see `Batch`, all rows of so many steps of a column, those that are no steps with
        weight 0. Raises ValueError where T is no multiple of it.
        """
        rows, weight = self.valid, resolve_reduction(reduction)(self).to(adv)
        if segment > 1:
            rows, adv = partial(segments, length=segment), torch.where(self.mask, adv, 0.0)
            weight = rows(self.scatter(weight))
        return Batch(
            self.valid_obs if segment == 1 else rows(take(self.obs, slice(-1))),
            rows(self.act),
            rows(self.logp),
            rows(adv),
            weight,
            self.trajectories,
            target=None if target is None else rows(target),
            extra=rows(dict(self.extra)),
            segment=segment,
        )


def count(mask: Tensor) -> int:
    """How many entries of a mask are True."""
    # in NumPy, see `Rollout.end`
    return int(np.count_nonzero(mask.numpy()) if mask.is_cpu else torch.count_nonzero(mask))


def segments(x: Tree, length: int) -> Tree:
    """(T, N, *) → (T · N, *), the rows of `length` steps of a column one after another."""
    if rows(x) % length:
        raise ValueError(f"{rows(x)} steps do not divide into segments of {length}: choose another num_steps")
    return tree_map(lambda x: x.unflatten(0, (-1, length)).transpose(1, 2).flatten(0, 2), x)


Reduction = Callable[[Rollout], Tensor]  # the weights (B,) of the valid rows, in any floating-point type


def by_trajectory(rollout: Rollout) -> Tensor:
    """1 / (number of trajectories) for every row, so that Σ weight · adv · score is ĝ as in the theory."""
    return rollout.rew.new_full((rollout.steps,), 1.0 / total(rollout.trajectories))


def by_step(rollout: Rollout) -> Tensor:
    """1 / (number of steps) for every row, as in deep RL libraries: a scale that depends on the data."""
    return rollout.rew.new_full((rollout.steps,), 1.0 / total(rollout.steps))


REDUCTIONS: dict[str, Reduction] = {"trajectory": by_trajectory, "step": by_step}


def resolve_reduction(reduction: str | Reduction) -> Reduction:
    """A reduction by its name; functions are returned as they are."""
    if callable(reduction):
        return reduction
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction must be one of {tuple(REDUCTIONS)}, got {reduction!r}: or give a function of the rollout"
        )
    return REDUCTIONS[reduction]


@dataclass(frozen=True, eq=False)
class Batch:
    """B valid steps without time: everything that an update rule may see.

    Rows come in *units*: runs of `segment` consecutive rows that belong together, such as a stretch of an episode that a
    recurrent policy reads in order, or the tokens of an answer. A unit is never torn apart by `minibatches`; B is a
    multiple of `segment`. Raises ValueError where it is not.
    """

    obs: Tree  # (B, *)
    act: Tensor  # (B, *)
    logp: Tensor  # (B,)    under the policy before the update
    adv: Tensor  # (B,)     whatever multiplies ∇log π
    weight: Tensor  # (B,)  the weights of every mean: Σ weight·x
    trajectories: int
    dist: Tensor | None = None  # (B, P)  the distribution before the update, for a rule that compares with it
    target: Tensor | None = None  # (B,)  what a value regresses on; None where no term of the rule could ask for it
    extra: dict[str, Tree] = field(default_factory=dict)  # (B, *) named arrays, see `Record`
    segment: int = 1  # rows per unit

    def __post_init__(self) -> None:
        if len(self) % self.segment:
            raise ValueError(
                f"{len(self)} rows do not divide into segments of {self.segment}: pad them to equal length"
            )

    @staticmethod
    def of(obs: Tree, act: Tensor, weight: Tensor | None = None, **keywords: Any) -> Batch:
        """Rows to evaluate, without an advantage: adv and logp are 0, weights are 1/B unless given. keywords: other fields."""
        share = 1.0 / max(len(act), 1)
        weight = torch.full((len(act),), share, device=act.device) if weight is None else weight
        zeros = torch.zeros_like(weight)
        return Batch(obs, act, **{"logp": zeros, "adv": zeros, "weight": weight, "trajectories": 1} | keywords)

    def __len__(self) -> int:
        return len(self.adv)

    @property
    def normalized_weight(self) -> Tensor:
        """(B,) the weights scaled to sum 1: Σ normalized_weight · x is the mean of x."""
        # not cached: Python 3.11's cached_property holds a lock, and a `total` within waits for the other shards
        return self.weight / total(self.weight.sum())

    def unit_sum(self, x: Tensor) -> Tensor:
        """The sum of x within every unit: (B,) → (B / segment,)."""
        return x.view(-1, self.segment).sum(1)

    def to_rows(self, x: Tensor) -> Tensor:
        """A number per unit repeated for each of its rows: (B / segment,) → (B,)."""
        return x.repeat_interleave(self.segment)

    def take(self, index: Tensor | slice) -> Batch:
        """The batch of these rows, which must be whole units."""
        return replace(self, **tree_map(lambda x: x[index], self._columns()))

    def minibatches(self, count: int, generator: torch.Generator) -> Iterator[Batch]:
        """One pass over the units in `count` pieces of equal size, shuffled if there is more than one piece.

        Each piece's weights are scaled so that its sums estimate the batch's.
        """
        if count == 1:
            yield self
            return
        rows = total(len(self))
        for columns, size in shuffled(self._columns(), count, generator, self.segment):
            columns["weight"] = columns["weight"] * (rows / size)
            yield Batch(**columns, trajectories=self.trajectories, segment=self.segment)

    def _columns(self) -> dict[str, Tree]:
        """The fields that have rows."""
        columns = {name: getattr(self, name) for name in ("obs", "act", "logp", "adv", "weight", "dist", "target")}
        return {name: x for name, x in columns.items() if x is not None} | {"extra": self.extra}


@dataclass(frozen=True, eq=False)
class Values:
    """The values of a critic for a rollout. Without a critic they are 0, with `bootstraps = False`."""

    val: Tensor  # (T, N)       V(s_t)
    next_val: Tensor  # (T, N)  V(s_{t+1}), before any reset
    bootstraps: bool = True
    act_val: Tensor | None = None  # (T, N)  q(s_t, a_t), where the critic is one of state and action

    @staticmethod
    def zeros(rollout: Rollout) -> Values:
        zeros = torch.zeros_like(rollout.rew)
        return Values(zeros, zeros, bootstraps=False)

    def columns(self, index: Sequence[int] | Tensor) -> Values:
        """The values of these columns."""
        return Values(**_columns(self, index))


@dataclass(frozen=True, eq=False)
class Estimate:
    """The result of an estimator for a rollout: return estimates and targets of the critic."""

    ret: Tensor  # (T, N)     return estimate; the advantage is ret − baseline
    target: Tensor  # (T, N)  what the critic regresses on
    stats: Stats = field(default_factory=dict)  # numbers of its own, kept with the update's
    plain: Tensor | None = (
        None  # (T, N)  ret − baseline, of which an estimator with a state learns; None for the others
    )


def _check_follows(obs: Tensor, next_obs: Tensor) -> None:
    expected = (len(next_obs) + 1, *next_obs.shape[1:])
    if obs.shape != expected:
        raise ValueError(f"obs must be {expected}, got {tuple(obs.shape)}")


def _columns(record: Rollout | Values, index: Sequence[int] | Tensor | slice) -> dict[str, Any]:
    """Every field, its tensors (…, N, *) reduced to these columns."""
    device = (record.rew if isinstance(record, Rollout) else record.val).device
    chosen = index if isinstance(index, slice) else torch.as_tensor(index, dtype=torch.int64, device=device)
    parts = {f.name: getattr(record, f.name) for f in fields(record)}
    return tree_map(lambda x: x[:, chosen] if isinstance(x, Tensor) else x, parts)


def shares_memory(obs: Tree, next_obs: Tree) -> bool:
    """Whether next_obs is a view of obs[1:], so that one pass over obs is enough."""
    if isinstance(obs, dict):
        return all(shares_memory(part, next_obs[key]) for key, part in obs.items())
    return _address(obs[1:]) == _address(next_obs)


def _address(x: Any) -> int:
    """Where an array or a tensor begins."""
    return x.data_ptr() if isinstance(x, Tensor) else x.__array_interface__["data"][0]
