"""The records that flow between the rooms. Shapes are written here once, and checked here, at the boundary.

Axes: T steps, N environments (time-major), B valid steps, `*` event shapes. What is *not* here: maths, networks, environments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from policygrad.errors import TrainingError

Stats = dict[str, float]
Row = dict[str, float | int | None]  # of metrics.jsonl; None: there is no such number yet

REDUCTIONS = ("trajectory", "step")


class TooFewError(TrainingError, ValueError):
    """A rollout holds too little for what is asked of it."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """T steps of N environments, time-major.

    Ends: V(next) = 0 at `terminated`; V(next_obs) counts at `truncated` and at `cut`, the rollout's edge inside an
    unfinished episode. Rows with `mask` False (resets, padding) are no steps and enter nothing. The last valid row of
    every column is an end, so every return is one recursion without special cases.
    """

    obs: Tensor  # (T+1, N, *)
    next_obs: Tensor  # (T, N, *)   s_{t+1} before any reset; a view of obs[1:] wherever the layout allows
    act: Tensor  # (T, N, *)        as sampled, before clipping to the action space
    rew: Tensor  # (T, N)           as the environment gave it
    logp: Tensor  # (T, N)          log-probability under the policy that learns
    terminated: Tensor  # (T, N) bool
    truncated: Tensor  # (T, N) bool
    cut: Tensor  # (T, N) bool
    mask: Tensor  # (T, N) bool     True on the steps that count
    time: Tensor  # (T, N) int      step index inside the episode, from 0
    # (T, N) log-probability under the policy that acted; unless another one is given, that is the one that learns: `logp`
    behavior: Tensor = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        T, N = self.rew.shape
        if self.behavior is None:
            object.__setattr__(self, "behavior", self.logp)
        for name in ("act", "next_obs"):
            if getattr(self, name).shape[:2] != (T, N):
                raise ValueError(f"{name} must start with (T, N) = {(T, N)}, got {tuple(getattr(self, name).shape)}")
        for name in ("logp", "behavior", "terminated", "truncated", "cut", "mask", "time"):
            if getattr(self, name).shape != (T, N):
                raise ValueError(f"{name} must be (T, N) = {(T, N)}, got {tuple(getattr(self, name).shape)}")
        if self.obs.shape != (T + 1, *self.next_obs.shape[1:]):
            raise ValueError(f"obs must be {(T + 1, *self.next_obs.shape[1:])}, got {tuple(self.obs.shape)}")
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

    @cached_property
    def end(self) -> Tensor:
        """(T, N) bool: where a trajectory ends, for whatever reason."""
        return self.terminated | self.truncated | self.cut

    @cached_property
    def rows(self) -> Tensor:
        """(B,) the valid rows' indices in the flattened rollout."""
        return self.mask.reshape(-1).nonzero().squeeze(-1)

    def valid(self, x: Tensor) -> Tensor:
        """The valid rows of x: (T, N, *) → (B, *). Not a copy where all rows are valid."""
        flat = x.flatten(0, 1)
        return flat if self.steps == len(flat) else flat.index_select(0, self.rows)

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
        return Batch(valid(self.obs[:-1]), valid(self.act), valid(self.logp), adv, weight, self.trajectories)


@dataclass(frozen=True, eq=False)
class Batch:
    """B valid steps without time: all an update rule may see."""

    obs: Tensor  # (B, *)
    act: Tensor  # (B, *)
    logp: Tensor  # (B,)    under the policy before the update
    adv: Tensor  # (B,)     whatever multiplies ∇log π
    weight: Tensor  # (B,)  the weights of every mean: Σ weight·x
    trajectories: int
    dist: Tensor | None = None  # (B, P)  the distribution before the update, for a rule that compares with it

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
        fields = (self.obs, self.act, self.logp, self.adv, self.weight, *(() if self.dist is None else (self.dist,)))
        for obs, act, logp, adv, weight, *dist in shuffled(fields, count, generator):
            yield Batch(obs, act, logp, adv, weight * (len(self) / len(adv)), self.trajectories, *dist)


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
    return {name: x.index_select(1, chosen) if isinstance(x, Tensor) else x for name, x in parts.items()}


def shuffled(parts: tuple[Tensor, ...], count: int, generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
    """One pass over rows (B, *) in `count` even pieces, B at most, shuffled where there is more than one."""
    count = min(count, len(parts[0]))
    if count == 1:
        return iter([parts])
    order = torch.randperm(len(parts[0]), generator=generator)
    return zip(*(part.index_select(0, order).tensor_split(count) for part in parts), strict=True)
