"""Trees of arrays: one array, or a dict of trees. A Box observation is an array, a Dict observation may stay a dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tree = Any  # a tensor or numpy array, or a dict from names to trees


def tree_map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Any:
    """The tree of f(leaf, *the same leaf of the rest). All trees must have the names of the first one; order is its own."""
    if not isinstance(tree, dict):
        return f(tree, *rest)
    if not rest:  # in every minibatch
        return {name: tree_map(f, part) for name, part in tree.items()}
    return {name: tree_map(f, part, *(other[name] for other in rest)) for name, part in tree.items()}


def rows(tree: Tree) -> int:
    """The length of the leaves' first axis, which all of them share."""
    while isinstance(tree, dict):
        tree = next(iter(tree.values()))
    return len(tree)
