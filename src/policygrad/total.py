"""Sums over a batch that several processes share. In one process there is nothing to add: `total(x)` is x.

Whatever is summed over the rows of a rollout or a batch (counts, weights, moments, gradients, Fisher products, mean KL) goes
through `total` before anybody uses it. A data-parallel learner gives every process a shard of the rollout and runs its
iterations in

    with reducing(add, largest, rank, size):
        learner.step(shard)

where add(x) is the sum of all shards' x and largest(x) their maximum, element by element (`torch.distributed.all_reduce`). All
shards then make the same calls in the same order and keep the same parameters. A shard may have no valid row at all.

Not sums, and so a shard's own: standardising over="episode"; the gradient meter; the folds of `CrossFit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Reducer = Callable[[Tensor], Tensor]  # this process's tensor → all of theirs, of the same shape, in new memory
X = TypeVar("X", Tensor, int, float)


@dataclass(frozen=True)
class Shards:
    """How the sums of this shard, the rank-th of `size`, become those of all."""

    add: Reducer
    largest: Reducer
    rank: int = 0
    size: int = 1


_shards: ContextVar[Shards | None] = ContextVar("shards", default=None)


@contextmanager
def reducing(add: Reducer, largest: Reducer, rank: int = 0, size: int = 1) -> Iterator[None]:
    """Inside this context, `total` is `add` and `greatest` is `largest`, in this thread only."""
    token = _shards.set(Shards(add, largest, rank, size))
    try:
        yield
    finally:
        _shards.reset(token)


@contextmanager
def alone() -> Iterator[None]:
    """Inside this context sums are this process's own: for what one shard does and the others do not."""
    token = _shards.set(None)
    try:
        yield
    finally:
        _shards.reset(token)


def is_shared() -> bool:
    """Whether this thread's sums go over several shards."""
    return _shards.get() is not None


def rank() -> int:
    """The number of this shard, from 0."""
    shards = _shards.get()
    return 0 if shards is None else shards.rank


def total(x: X) -> X:
    """The sum of x over the shards of a batch; x itself in one process."""
    shards = _shards.get()
    return x if shards is None else _reduced(shards.add, x)


def greatest(x: X) -> X:
    """The maximum of x over the shards of a batch; x itself in one process."""
    shards = _shards.get()
    return x if shards is None else _reduced(shards.largest, x)


def share(count: int) -> tuple[int, int]:
    """Which of `count` environments are this shard's: the number of the first, and of the one after the last."""
    shards = _shards.get()
    return (
        (0, count) if shards is None else (count * shards.rank // shards.size, count * (shards.rank + 1) // shards.size)
    )


def agreed(*flags: bool) -> list[bool]:
    """Of each of them, whether any shard says so."""
    if _shards.get() is None:
        return [*flags]
    return [bool(x) for x in greatest(torch.tensor(flags, dtype=torch.float64)).tolist()]


def counts(*x: int) -> Tensor:
    """These numbers of every shard, (shards, numbers), int64."""
    shards = _shards.get()
    if shards is None:
        return torch.tensor([x])
    each = torch.zeros(shards.size, len(x), dtype=torch.float64)  # every backend adds these
    each[shards.rank] = torch.tensor(x, dtype=torch.float64)
    return shards.add(each).long()


def span(rows: int) -> tuple[int, int]:
    """Where this shard's rows begin among those of all shards, one shard after another, and how many they are."""
    if _shards.get() is None:
        return 0, rows
    each = counts(rows)[:, 0]
    return int(each[: rank()].sum()), int(each.sum())


def gathered(x: Tensor) -> Tensor:
    """The rows of all shards' x (n, *), one shard after another: as a sum of arrays that are 0 elsewhere."""
    if _shards.get() is None:
        return x
    first, rows = span(len(x))
    whole = x.new_zeros(rows, *x.shape[1:])
    whole[first : first + len(x)] = x
    return total(whole)


def mean(x: Tensor) -> Tensor:
    """The mean of all numbers of x over all shards."""
    if _shards.get() is None:
        return x.mean()
    sums = total(torch.stack([x.sum().double(), x.new_tensor(x.numel()).double()]))
    return (sums[0] / sums[1]).to(x.dtype)


def moments(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """The number of rows of x (B, *), their mean and their population variance (*), over all shards."""
    n = len(x)
    if _shards.get() is None:
        return n, x.mean(0), x.var(0, correction=0)
    none = x.new_zeros(x.shape[1:])
    mean, var = (x.mean(0), x.var(0, correction=0)) if n else (none, none)
    sums = total(torch.cat([(n * mean).double().reshape(-1), torch.tensor([float(n)], device=x.device).double()]))
    count = int(sums[-1])
    whole = (sums[:-1] / count).to(x.dtype).view(mean.shape)
    return count, whole, total(n * (var + (mean - whole).square())) / count


def _reduced(reduce: Reducer, x: X) -> X:
    if isinstance(x, Tensor):
        return reduce(x)
    return type(x)(reduce(torch.tensor(x, dtype=torch.float64)).item())
