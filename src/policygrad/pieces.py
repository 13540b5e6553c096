"""Rows in even pieces, shuffled: the minibatches of one pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from policygrad.tree import Tree, rows, take, tree_leaves, tree_map


def even_pieces(
    count: int, pieces: int, generator: torch.Generator, segment: int = 1, device: torch.device | None = None
) -> tuple[Tensor, list[int]] | None:
    """An order of `count` rows, shuffled by the generator, and where in it each piece but the first begins; None where there
    is one piece, and nothing to shuffle.

    There are at most as many pieces as units of `segment` rows, and no unit is torn apart. device: where the order is to be, by
    default where the generator is.
    """
    units = count // segment if pieces > 1 else 1
    pieces = min(pieces, units)
    if pieces <= 1:
        return None
    order = permutation(units, generator, device or generator.device)
    if segment > 1:
        order = (order.unsqueeze(1) * segment + torch.arange(segment, device=order.device)).view(-1)
    small, larger = divmod(units, pieces)
    return order, [segment * (piece * small + min(piece, larger)) for piece in range(1, pieces)]


def permutation(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """A random order of so many numbers, from 0. On another device than the generator's it is drawn there, by a generator that
    gets its seed from this one, so that no order of a large batch is moved.
    """
    if device != generator.device:
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(device).manual_seed(seed)
    return torch.randperm(count, generator=generator, device=device)


def shuffled(columns: Tree, pieces: int, generator: torch.Generator, segment: int = 1) -> Iterator[Tree]:
    """One pass over rows (B, *) in so many pieces: see `even_pieces`."""
    device = tree_leaves(columns)[0].device
    found = even_pieces(rows(columns), pieces, generator, segment, device)
    if found is None:
        yield columns
        return
    order, cuts = found
    parts = tree_map(lambda x: x.index_select(0, order).tensor_split(cuts), columns)  # one gather, then slices of it
    for piece in range(len(cuts) + 1):
        yield take(parts, piece)
