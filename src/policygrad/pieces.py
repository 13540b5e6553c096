"""Rows in even pieces, shuffled: the minibatches of one pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from policygrad.tree import Tree, rows, take, tree_leaves, tree_map


def even_pieces(
    count: int, pieces: int, generator: torch.Generator, segment: int = 1
) -> tuple[Tensor, list[int]] | None:
    """An order of `count` rows, shuffled by the generator, and where in it each piece but the first begins; None where there
    is one piece, and nothing to shuffle.

    There are at most as many pieces as units of `segment` rows, and no unit is torn apart.
    """
    units = count // segment if pieces > 1 else 1
    pieces = min(pieces, units)
    if pieces <= 1:
        return None
    order = torch.randperm(units, generator=generator)
    if segment > 1:
        order = (order.unsqueeze(1) * segment + torch.arange(segment)).view(-1)
    small, larger = divmod(units, pieces)
    return order, [segment * (piece * small + min(piece, larger)) for piece in range(1, pieces)]


def shuffled(columns: Tree, pieces: int, generator: torch.Generator, segment: int = 1) -> Iterator[Tree]:
    """One pass over rows (B, *) in so many pieces: see `even_pieces`."""
    found = even_pieces(rows(columns), pieces, generator, segment)
    if found is None:
        yield columns
        return
    order, cuts = found
    order = order.to(tree_leaves(columns)[0].device)
    parts = tree_map(lambda x: x.index_select(0, order).tensor_split(cuts), columns)  # one gather, then slices of it
    for piece in range(len(cuts) + 1):
        yield take(parts, piece)
