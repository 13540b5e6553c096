"""Trees of arrays: an array, or a dict of trees. Observations are trees, and so are the named arrays that travel with them.

All functions take NumPy arrays and torch tensors alike. A Box is a tree of one array, so nothing is wrapped where there is
nothing to wrap. torch is imported where there are tensors: processes that step environments do without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Tree = Any  # an array or a tensor, or dict[str, Tree]


def tree_map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """The tree of f(x, …), for every array of a tree and the arrays at the same places of other trees."""
    if not isinstance(tree, dict):
        return f(tree, *rest)
    if not rest:  # in every minibatch
        return {key: tree_map(f, part) for key, part in tree.items()}
    return {key: tree_map(f, part, *(other[key] for other in rest)) for key, part in tree.items()}


def tree_leaves(tree: Tree) -> list[Any]:
    """The arrays of a tree."""
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for part in tree.values() for leaf in tree_leaves(part)]


def rows(tree: Tree) -> int:
    """The length of the first axis, which is the same for all arrays."""
    return len(tree_leaves(tree)[0])


def flat(x: Any) -> Any:
    """(N, *) → (N, D), of no rows, too, where reshape(N, −1) would not know D."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))  # len(x) would be a constant in exported graphs


def take(tree: Tree, index: Any) -> Tree:
    """x[index] of every array: a row, a slice, rows by their numbers."""
    if isinstance(tree, dict):
        return {key: take(part, index) for key, part in tree.items()}
    return tree[index]


def put(tree: Tree, index: Any, values: Tree) -> None:
    """x[index] = values of every array."""
    if isinstance(tree, dict):
        for key, part in tree.items():
            put(part, index, values[key])
    else:
        tree[index] = values


def concatenate(trees: Sequence[Tree], axis: int = 0) -> Tree:
    """Concatenate trees of the same structure along an axis."""

    def join(*parts: Any) -> Any:
        if isinstance(parts[0], np.ndarray):
            return np.concatenate(parts, axis)
        import torch

        return torch.cat(parts, axis)

    return tree_map(join, *trees)


NUMBERS = 2**26  # in a pass over observations: 256 MiB as float32


def in_chunks(compute: Callable[[Tree], Tree], rows: Tree) -> Tree:
    """compute(rows) for rows (B, *): in one call where they are few, piece by piece where memory would not be bounded.

    compute gives a tree of (B, *). Pieces are copied: a network's next pass may reuse its memory.
    """
    numbers = sum(x.numel() for x in tree_leaves(rows))
    if numbers <= NUMBERS:
        return compute(rows)
    count = len(tree_leaves(rows)[0])
    length = max(1, NUMBERS * count // numbers)
    parts = (compute(take(rows, slice(i, i + length))) for i in range(0, count, length))
    return concatenate([tree_map(lambda x: x.clone(), part) for part in parts])


def to_torch(tree: Tree) -> Tree:
    """NumPy arrays as tensors on the same memory; tensors stay as they are."""
    import torch

    return tree_map(lambda x: torch.from_numpy(x) if isinstance(x, np.ndarray) else x, tree)


def to_device(tree: Tree, device: Any) -> Tree:
    """Tensors on a device; those that are there already stay as they are, and None leaves all where they are."""
    return tree if device is None else tree_map(lambda x: x.to(device), tree)


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """A tensor of any device as an array, on the same memory where it is the CPU's."""
    return x.cpu().numpy()


def as_float(x: Any, dtype: torch.dtype | None = None) -> Any:
    """An array as float32, a tensor as `dtype`, without a copy if possible."""
    return x.astype(np.float32, copy=False) if isinstance(x, np.ndarray) else x.to(dtype)
