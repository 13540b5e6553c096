"""Rows in even pieces, shuffled: the minibatches of one pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from policygrad.total import counts, is_shared, rank
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
    return order, _cuts(units, pieces, segment)


def _cuts(units: int, pieces: int, segment: int) -> list[int]:
    small, larger = divmod(units, pieces)
    return [segment * (piece * small + min(piece, larger)) for piece in range(1, pieces)]


def permutation(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """A random order of so many numbers, from 0. On another device than the generator's it is drawn there, by a generator that
    gets its seed from this one, so that no order of a large batch is moved. So it is in shards, with a seed for each: their
    generators stay equal, however many rows each has.
    """
    if device != generator.device or is_shared():
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(device).manual_seed(seed + rank())
    return torch.randperm(count, generator=generator, device=device)


def shuffled(columns: Tree, pieces: int, generator: torch.Generator, segment: int = 1) -> Iterator[tuple[Tree, int]]:
    """One pass over rows (B, *) in so many pieces, see `even_pieces`; and how many rows each piece has, over all shards.

    Every shard has equally many pieces: as many as the one with the fewest units allows.
    """
    count, device = rows(columns), tree_leaves(columns)[0].device
    each = counts(count // segment)[:, 0].tolist() if is_shared() else [count // segment]
    if pieces > 1:
        pieces = min(pieces, *each)
    found = even_pieces(count, pieces, generator, segment, device)
    if found is None:
        yield columns, segment * sum(each)
        return
    order, cuts = found
    parts = tree_map(lambda x: x.index_select(0, order).tensor_split(cuts), columns)  # one gather, then slices of it
    stops = zip(*([*_cuts(units, pieces, segment), units * segment] for units in each), strict=True)
    ends = [0, *map(sum, stops)]
    for piece in range(len(cuts) + 1):
        yield take(parts, piece), ends[piece + 1] - ends[piece]
