"""The records that flow between the rooms. Shapes are written here once, and checked here, at the boundary.

Axes: T steps, N environments (time-major), B valid steps, `*` event shapes. What is *not* here: maths, networks, environments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.tree import Tree, take, to_torch, tree_leaves, tree_map

Stats = dict[str, float]
Row = dict[str, float | int | None]  # of metrics.jsonl; None: there is no such number yet

REDUCTIONS = ("trajectory", "step")


class TooFewError(ValueError):
    """A rollout holds too little for what is asked of it."""


@dataclass(frozen=True)
class Wants:
    """How much a learner wants to see next: rows of every environment, or whole episodes in all."""

    num_steps: int | None = None
    episodes: int | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.num_steps, self.episodes) if x is not None]
        if len(given) != 1 or given[0] < 1:
            raise ValueError(f"expected num_steps or episodes, at least 1, got {self}")


@dataclass(frozen=True, eq=False)
class Record:
    """What N environments and who acted in them did, T rows, in NumPy: no log-probabilities, values or advantages.

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
    extra: Mapping[str, Tree] = field(default_factory=dict)
    finished: Sequence[tuple[float, int]] = ()  # return and length of the episodes that ended here, in order

    @property
    def end(self) -> np.ndarray:
        """(T, N) bool: the ends the environment announced."""
        return self.terminated | self.truncated

    @property
    def steps(self) -> int:
        """The number of valid steps."""
        return int(self.mask.sum())


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
    extra: Mapping[str, Tree] = field(default_factory=dict)  # (T, N, *) named arrays, see `Record`

    def __post_init__(self) -> None:
        T, N = self.rew.shape
        parts = {"act": self.act, "next_obs": self.next_obs} | dict(self.extra)
        for name, x in ((name, leaf) for name, part in parts.items() for leaf in tree_leaves(part)):
            if x.shape[:2] != (T, N):
                raise ValueError(f"{name} must start with (T, N) = {(T, N)}, got {tuple(x.shape)}")
        for name in ("logp", "behavior", "terminated", "truncated", "cut", "mask", "time"):
            if getattr(self, name).shape != (T, N):
                raise ValueError(f"{name} must be (T, N) = {(T, N)}, got {tuple(getattr(self, name).shape)}")
        for x, after in zip(tree_leaves(self.obs), tree_leaves(self.next_obs), strict=True):
            if x.shape != (T + 1, *after.shape[1:]):
                raise ValueError(f"obs must be {(T + 1, *after.shape[1:])}, got {tuple(x.shape)}")
        mask, end = self.mask, self.end
        last = mask.clone()  # valid rows with no valid row after them
        last[:-1] &= ~mask[1:]
        wrong = (last & ~end) | (end & ~mask) | (self.terminated & self.truncated)
        if wrong.any():
            t, n = (int(i) for i in wrong.nonzero()[0])
            raise ValueError(
                f"row (t={t}, n={n}): the last valid row of every column must be an end, ends must be valid rows, and "
                "terminated excludes truncated. Set `cut` where an episode goes on beyond the rollout."
            )

    @staticmethod
    def of(record: Record | Rollout, policy: Any) -> Rollout:
        """The record as tensors on the same memory, with the log-probabilities of `policy` (`Policy.log_probs`). What is a
        rollout already stays as it is.
        """
        if isinstance(record, Rollout):
            return record
        obs, act, extra = to_torch(record.obs), torch.from_numpy(record.act), to_torch(dict(record.extra))
        logp = policy.log_probs(take(obs, slice(-1)), act, extra)
        shared = shares_memory(record.obs, record.next_obs)
        ends = {
            name: torch.from_numpy(getattr(record, name)) for name in ("terminated", "truncated", "cut", "mask", "time")
        }
        return Rollout(
            obs=obs,
            next_obs=take(obs, slice(1, None)) if shared else to_torch(record.next_obs),
            act=act,
            rew=torch.from_numpy(record.rew).to(logp.dtype),
            logp=logp,
            extra=extra,
            **ends,
        )

    @property
    def behavior(self) -> Tensor:
        """(T, N) log-probability under the policy that acted: `extra["logp"]`; without one it is the one that learns."""
        return self.extra.get("logp", self.logp)

    @cached_property
    def end(self) -> Tensor:
        """(T, N) bool: where a trajectory ends, for whatever reason."""
        return self.terminated | self.truncated | self.cut

    @property
    def valid_obs(self) -> Tree:
        """(B, *) the observations that were acted on."""
        return self.valid(take(self.obs, slice(-1)))

    @cached_property
    def rows(self) -> Tensor:
        """(B,) the valid rows' indices in the flattened rollout."""
        return self.mask.reshape(-1).nonzero().squeeze(-1)

    def valid(self, x: Tree) -> Tree:
        """The valid rows of x: (T, N, *) → (B, *). Not a copy where all rows are valid."""
        every = self.steps == self.mask.numel()
        return tree_map(lambda x: x.flatten(0, 1) if every else x.flatten(0, 1).index_select(0, self.rows), x)

    @cached_property
    def steps(self) -> int:
        """B, the number of valid steps."""
        return len(self.rows)

    @cached_property
    def trajectories(self) -> int:
        """The number of trajectories: every end closes one."""
        return int(self.end.sum())

    @cached_property
    def whole_episodes(self) -> bool:
        """Whether every column is one episode, from its first step to an end the environment announced."""
        return bool((self.time[0] == 0).all() and self.mask[0].all() and not self.cut.any()) and (
            self.trajectories == self.mask.shape[1]
        )

    def columns(self, index: Sequence[int] | Tensor) -> Rollout:
        """The rollout of these columns, in this order; a column may come twice."""
        return Rollout(**_columns(self, index))

    def scatter(self, x: Tensor) -> Tensor:
        """The inverse of `valid`: (B,) → (T, N), 0 on the rows that are not valid."""
        flat = x.new_zeros(self.mask.numel())
        return flat.index_copy_(0, self.rows, x).view(self.mask.shape)

    def flatten(self, adv: Tensor, reduction: str) -> Batch:
        """Drop time: the valid rows as a `Batch`. adv: (T, N).

        reduction: "trajectory" weighs every row by 1/(number of trajectories), so Σ weight·adv·score is ĝ as in the
        theory; "step" weighs by 1/B, as deep libraries do: another, data-dependent scale.
        """
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {REDUCTIONS}, got {reduction!r}")
        adv = self.valid(adv)
        scale = 1.0 / (self.trajectories if reduction == "trajectory" else self.steps)
        weight = torch.full_like(adv, scale)
        valid = self.valid
        rows = self.valid_obs, valid(self.act), valid(self.logp)
        return Batch(*rows, adv, weight, self.trajectories, extra=valid(dict(self.extra)))


@dataclass(frozen=True, eq=False)
class Batch:
    """B valid steps without time: all an update rule may see."""

    obs: Tree  # (B, *)
    act: Tensor  # (B, *)
    logp: Tensor  # (B,)    under the policy before the update
    adv: Tensor  # (B,)     whatever multiplies ∇log π
    weight: Tensor  # (B,)  the weights of every mean: Σ weight·x
    trajectories: int
    dist: Tensor | None = None  # (B, P)  the distribution before the update, for a rule that compares with it
    extra: Mapping[str, Tree] = field(default_factory=dict)  # (B, *) named arrays, see `Record`

    def __len__(self) -> int:
        return len(self.adv)

    @cached_property
    def share(self) -> Tensor:
        """(B,) the weights scaled to sum 1: Σ share · x is the mean of x."""
        return self.weight / self.weight.sum()

    def minibatches(self, count: int, generator: torch.Generator) -> Iterator[Batch]:
        """One shuffled pass in `count` even pieces; each piece's weights are scaled so that its sums estimate the batch's."""
        if count == 1:
            yield self
            return
        names = ("obs", "act", "logp", "adv", "weight", "extra", *(() if self.dist is None else ("dist",)))
        for columns in shuffled({name: getattr(self, name) for name in names}, count, generator):
            columns["weight"] = columns["weight"] * (len(self) / len(columns["adv"]))
            yield replace(self, **columns)


@dataclass(frozen=True, eq=False)
class Values:
    """What a critic says of a rollout. Zeros, and `bootstraps = False`, when there is no critic."""

    val: Tensor  # (T, N)       V(s_t)
    next_val: Tensor  # (T, N)  V(s_{t+1}), before any reset
    bootstraps: bool = True
    act_val: Tensor | None = None  # (T, N)  q(s_t, a_t), where the critic is one of state and action

    @staticmethod
    def zeros(rollout: Rollout) -> Values:
        zeros = torch.zeros_like(rollout.rew)
        return Values(zeros, zeros, bootstraps=False)

    def columns(self, index: Sequence[int] | Tensor) -> Values:
        """What the critic says of these columns."""
        return Values(**_columns(self, index))


@dataclass(frozen=True, eq=False)
class Estimate:
    """What an estimator makes of a rollout."""

    ret: Tensor  # (T, N)     return estimate; the advantage is ret − baseline
    target: Tensor  # (T, N)  what the critic regresses on
    stats: Stats = field(default_factory=dict)  # numbers of its own, kept with the update's


def _columns(record: Rollout | Values, index: Sequence[int] | Tensor) -> dict[str, Any]:
    """Every field, its tensors (…, N, *) reduced to these columns."""
    chosen = torch.as_tensor(index, dtype=torch.int64)
    parts = {f.name: getattr(record, f.name) for f in fields(record)}
    return tree_map(lambda x: x.index_select(1, chosen) if isinstance(x, Tensor) else x, parts)


def shares_memory(obs: Tree, next_obs: Tree) -> bool:
    """Whether next_obs is a view of obs[1:], in NumPy or torch, so that one pass over obs says it all."""

    def start(x: Any) -> int:
        return x.data_ptr() if isinstance(x, Tensor) else x.__array_interface__["data"][0]

    pairs = zip(tree_leaves(obs), tree_leaves(next_obs), strict=True)
    return all(start(x[1:]) == start(after) for x, after in pairs)


def shuffled(columns: Tree, count: int, generator: torch.Generator) -> Iterator[Tree]:
    """One pass over rows (B, *) in `count` even pieces, B at most, shuffled where there is more than one."""
    size = len(next(tree_leaves(columns)))
    count = min(count, size)
    if count == 1:
        yield columns
        return
    order = torch.randperm(size, generator=generator)
    mixed = tree_map(lambda x: x.index_select(0, order), columns)
    for piece in torch.arange(size).tensor_split(count):
        yield take(mixed, slice(int(piece[0]), int(piece[-1]) + 1))
