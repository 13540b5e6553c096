"""Trees of arrays: an array, or a dict of trees. Observations are trees, and so are the named arrays that travel with them.

All functions take NumPy arrays and torch tensors alike. A Box is a tree of one array, so nothing is wrapped where there is
nothing to wrap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

Tree = Any  # an array or a tensor, or dict[str, Tree]


def tree_map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """f(x, …) of every array of a tree, and of the arrays in the same places of the other trees."""
    if isinstance(tree, dict):
        return {key: tree_map(f, part, *(other[key] for other in rest)) for key, part in tree.items()}
    return f(tree, *rest)


def tree_leaves(tree: Tree) -> Iterator[Any]:
    """The arrays of a tree."""
    if isinstance(tree, dict):
        for part in tree.values():
            yield from tree_leaves(part)
    else:
        yield tree


def rows(tree: Tree) -> int:
    """The length of the arrays' first axis, which all of them share."""
    return len(next(tree_leaves(tree)))


def take(tree: Tree, index: Any) -> Tree:
    """x[index] of every array: a row, a slice, rows by their numbers."""
    return tree_map(lambda x: x[index], tree)


def put(tree: Tree, index: Any, values: Tree) -> None:
    """x[index] = values of every array."""
    if isinstance(tree, dict):
        for key, part in tree.items():
            put(part, index, values[key])
    else:
        tree[index] = values


def concatenate(trees: Sequence[Tree], axis: int = 0) -> Tree:
    """Trees of one structure as one, along an axis."""

    def join(*parts: Any) -> Any:
        return torch.cat(parts, axis) if isinstance(parts[0], torch.Tensor) else np.concatenate(parts, axis)

    return tree_map(join, *trees)


NUMBERS = 2**26  # in a pass over observations: 256 MiB as float32


def in_chunks(compute: Callable[[Tree], Tree], rows: Tree) -> Tree:
    """compute(rows) for rows (B, *): in one call where they are few, piece by piece where memory would not be bounded.

    compute gives a tree of (B, *). Pieces are copied: a network's next pass may reuse its memory.
    """
    arrays = list(tree_leaves(rows))
    count, least = len(arrays[0]), max(1, NUMBERS // max(1, sum(x[:1].numel() for x in arrays)))
    if count <= least:
        return compute(rows)
    starts = range(0, count, least)
    return concatenate([tree_map(torch.clone, compute(take(rows, slice(i, i + least)))) for i in starts])


def to_torch(tree: Tree) -> Tree:
    """NumPy arrays as tensors on the same memory."""
    return tree_map(torch.from_numpy, tree)


def as_float(x: Any, dtype: torch.dtype | None = None) -> Any:
    """An array as float32, a tensor as `dtype`; no copy where it is that already."""
    return x.to(dtype) if isinstance(x, torch.Tensor) else x.astype(np.float32, copy=False)
