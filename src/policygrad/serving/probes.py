"""Observations of a space, extreme ones among them, that an exported policy is compared with the original on.

Half of them are uniform between the bounds, a quarter is at bounds, and a quarter of all magnitudes up to 10,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from policygrad.models.heads import Head, MultiCategorical
from policygrad.models.observations import ACTION_MASK, Encoding, Leaf

FAR = 1e4  # how far from 0 observations without bounds are


@dataclass(frozen=True)
class Probes:
    """Observations and action masks, as `predict` takes them, and as the inputs of a graph.

    parts: the parts of the observations, each (n, *), in the order of the space. masks (n, A) bool, or None. memory (n, M), of
    a policy that has one, or None.
    """

    space: spaces.Space
    parts: dict[tuple[Any, ...], np.ndarray]
    masks: np.ndarray | None
    mask_source: str
    memory: np.ndarray | None = None

    def inputs(self, rows: slice = slice(None)) -> list[np.ndarray]:
        """For a graph: the parts, and the masks and the memory where there are any."""
        return [x[rows] for x in (*self.parts.values(), self.masks, self.memory) if x is not None]

    def given(self, rows: slice = slice(None)) -> tuple[Any, Any]:
        """For `predict`: observations, and action masks where they do not come with them."""
        masks = None if self.masks is None else self.masks[rows]
        obs = _nested(self.space, {path: x[rows] for path, x in self.parts.items()})
        if masks is not None and self.mask_source == "observation":
            assert isinstance(self.space, spaces.Dict)
            part = self.space[ACTION_MASK]
            obs[ACTION_MASK] = masks.reshape(len(masks), *(part.shape or ())).astype(part.dtype)
        return obs, list(masks) if masks is not None and self.mask_source == "info" else None


def probes(encoding: Encoding, head: Head, count: int, rng: np.random.Generator, memory: int = 0) -> Probes:
    """So many observations: half of them anywhere between the bounds, a quarter with every number at one of its bounds, and a
    quarter of all magnitudes. Masks leave one action, some, or all. memory: M, the numbers of the policy's memory: 0 in every
    fourth row, as where an episode begins.
    """
    parts = {leaf.path: _values(leaf, count, rng) for leaf in encoding.leaves}
    masks = _masks(head, encoding.context, count, rng) if encoding.context else None
    remembered = rng.uniform(-1.0, 1.0, (count, memory)).astype(np.float32) * rng.choice([0, 1, 1, 1], (count, 1))
    return Probes(encoding.space, parts, masks, encoding.mask_source, remembered.astype(np.float32) if memory else None)


def _values(leaf: Leaf, count: int, rng: np.random.Generator) -> np.ndarray:
    space = leaf.space
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, count)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(space.start, space.start + space.nvec, (count, *space.shape))
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(0, 2, (count, *space.shape), dtype=np.int8)
    assert isinstance(space, spaces.Box)
    low, high = (np.clip(bound.astype(np.float64), -FAR, FAR) for bound in (space.low, space.high))
    x = rng.uniform(low, high, (count, *space.shape))
    quarter = count // 4
    x[:quarter] = np.where(rng.random(x[:quarter].shape) < 0.5, low, high)
    sizes = 10.0 ** rng.uniform(-6.0, 4.0, x[:quarter].shape) * rng.choice([-1.0, 0.0, 1.0], x[:quarter].shape)
    x[quarter : 2 * quarter] = np.clip(sizes, low, high)
    return (x if leaf.dtype.kind == "f" else np.rint(x)).astype(leaf.dtype)


def _masks(head: Head, entries: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Legal actions: at least one of every entry of the action."""
    masks = rng.random((count, entries)) < rng.choice([0.0, 0.5, 1.0], (count, 1))
    sizes = head.sizes if isinstance(head, MultiCategorical) else (entries,)
    first = 0
    for size in sizes:
        masks[np.arange(count), first + rng.integers(0, size, count)] = True
        first += size
    return masks


def _nested(space: spaces.Space, parts: dict[tuple[Any, ...], np.ndarray], path: tuple[Any, ...] = ()) -> Any:
    """The parts as an observation of the space."""
    if isinstance(space, spaces.Dict):
        return {
            key: _nested(part, parts, (*path, key))
            for key, part in space.spaces.items()
            if (*path, key) != (ACTION_MASK,)
        }
    if isinstance(space, spaces.Tuple):
        return tuple(_nested(part, parts, (*path, i)) for i, part in enumerate(space.spaces))
    return parts[path]
