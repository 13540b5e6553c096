"""Sums over a batch that several processes share. In one process there is nothing to add: `total(x)` is x.

Whatever is summed over the rows of a rollout or a batch (counts, weights, moments, gradients, Fisher products, mean KL) goes
through `total` before anybody uses it. A data-parallel learner gives every process a shard of the rollout and runs its
iterations in

    with reducing(add, largest):
        learner.step(shard)

where add(x) is the sum of all shards' x and largest(x) their maximum, element by element (`torch.distributed.all_reduce`). All
shards then make the same calls in the same order and keep the same parameters. They must have equally many minibatches.

Not sums, and so a shard's own: `LinearFeatures` and `Regressor`, which are fitted on rows; standardising over="episode"; the
gradient meter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

Reducer = Callable[[Tensor], Tensor]  # this process's tensor → all of theirs, of the same shape, in new memory
X = TypeVar("X", Tensor, int, float)

_reducers: ContextVar[tuple[Reducer, Reducer] | None] = ContextVar("reducers", default=None)


@contextmanager
def reducing(add: Reducer, largest: Reducer) -> Iterator[None]:
    """Inside this context, `total` is `add` and `greatest` is `largest`, in this thread only."""
    token = _reducers.set((add, largest))
    try:
        yield
    finally:
        _reducers.reset(token)


def is_shared() -> bool:
    """Whether this thread's sums go over several shards."""
    return _reducers.get() is not None


def total(x: X) -> X:
    """The sum of x over the shards of a batch; x itself in one process."""
    reducers = _reducers.get()
    return x if reducers is None else _reduced(reducers[0], x)


def greatest(x: X) -> X:
    """The maximum of x over the shards of a batch; x itself in one process."""
    reducers = _reducers.get()
    return x if reducers is None else _reduced(reducers[1], x)


def moments(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """The number of rows of x (B, *), their mean and their population variance (*), over all shards."""
    n, mean, var = len(x), x.mean(0), x.var(0, correction=0)
    if _reducers.get() is None:
        return n, mean, var
    count = total(n)
    whole = total(n * mean) / count
    return count, whole, total(n * (var + (mean - whole).square())) / count


def _reduced(reduce: Reducer, x: X) -> X:
    if isinstance(x, Tensor):
        return reduce(x)
    return type(x)(reduce(torch.tensor(x, dtype=torch.float64)).item())
