"""Observations as networks see them: any supported space as one float tensor.

    encoded observation (N, *) = features | context

Features: a Box keeps its shape; a Discrete is one-hot, a MultiDiscrete one-hot entry by entry, a MultiBinary 0 and 1; Dict and
Tuple are their parts one after another. Context: what conditions the distribution besides the network's outputs, the legal
actions or the previous noise (`Head.context` columns). It travels with the observation, so that nothing between the
collector and the head has to know of it; networks, critics and normalisers see the features alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from policygrad.errors import EnvError

if TYPE_CHECKING:
    from torch import Tensor

MAX_FEATURES = 100_000
LEGAL = "action_mask"  # the key of legal actions, in a Dict observation and in `info`

Key = str | int


class LegalActionsError(EnvError, ValueError):
    """Legal actions are to be told and are not, or there is none."""


@dataclass(frozen=True)
class Leaf:
    """A part of the observation without parts of its own, and its columns among the features."""

    path: tuple[Key, ...]
    space: spaces.Space
    start: int
    width: int

    def of(self, obs: Any) -> np.ndarray:
        """This part of a batch of observations."""
        return np.asarray(_part(obs, self.path))

    def features(self, x: np.ndarray) -> np.ndarray:
        """(N, *) → (N, width)."""
        x = x.reshape(len(x), -1)
        if isinstance(self.space, spaces.Box | spaces.MultiBinary):
            return x
        entry, value = self._one_hot_columns
        return x[:, entry] == value

    @cached_property
    def _one_hot_columns(self) -> tuple[np.ndarray, np.ndarray]:
        """For every column of a one-hot encoding: the entry it looks at, and the value it stands for."""
        sizes, starts = _choices(self.space)
        values = [start + np.arange(n) for n, start in zip(sizes, starts, strict=True)]
        return np.repeat(np.arange(len(sizes)), sizes), np.concatenate(values)


def _part(obs: Any, path: tuple[Key, ...]) -> Any:
    for key in path:
        obs = obs[key]
    return obs


def _choices(space: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and starts of a Discrete's or MultiDiscrete's entries."""
    if isinstance(space, spaces.Discrete):
        return np.array([space.n]), np.array([space.start])
    assert isinstance(space, spaces.MultiDiscrete)
    return space.nvec.reshape(-1), space.start.reshape(-1)


def width(space: spaces.Space) -> int:
    """How many features a space without parts has. Raises TypeError, naming the space, where we cannot tell."""
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        size = math.prod(space.shape)
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        size = int(_choices(space)[0].sum())
    else:
        raise TypeError(
            f"unsupported observation space {space}: expected Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple "
            "of those (gymnasium.wrappers.TransformObservation makes one)"
        )
    if size > MAX_FEATURES:
        raise TypeError(f"unsupported observation space {space}: {size:,} features, more than {MAX_FEATURES:,}")
    return size


def leaves(space: spaces.Space, path: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], spaces.Space]]:
    """The parts of a space that have no parts, in Gymnasium's order, with their paths."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from leaves(part, (*path, i))
    else:
        yield path, space


class Encoding:
    """From the observations of a space to `features | context`, and back to what a body of the user's own sees.

    context: how many columns follow the features. legal: where legal actions come from: "observation" (the part of a Dict
    under `action_mask`, which is no feature in any case), "info", or "none".
    """

    def __init__(self, space: spaces.Space, context: int = 0, legal: str = "none") -> None:
        self.space, self.context, self.legal = space, context, legal
        self.leaves: list[Leaf] = []
        start = 0
        self.mask_space = space.spaces.get(LEGAL) if isinstance(space, spaces.Dict) else None
        for path, part in leaves(space):
            if self.mask_space is not None and path[0] == LEGAL:
                continue
            self.leaves.append(Leaf(path, part, start, width(part)))
            start += self.leaves[-1].width
        self.features = start
        if start == 0:
            raise TypeError(f"unsupported observation space {space}: there is nothing in it")
        self.plain = isinstance(space, spaces.Box)
        self.features_shape: tuple[int, ...] = tuple(space.shape or ()) if self.plain else (start,)
        self.shape = (start + context,) if context else self.features_shape
        if legal == "observation":
            given = None if self.mask_space is None else width(self.mask_space)
            if given != context:
                raise TypeError(f"legal actions in the observation need {LEGAL!r} with {context} entries, got {given}")

    @property
    def parts(self) -> bool:
        """Whether the space is a Dict or a Tuple, which a body sees as such."""
        return isinstance(self.space, spaces.Dict | spaces.Tuple)

    def encode(self, obs: Any, info: dict[str, Any], out: np.ndarray, silent: np.ndarray | None = None) -> None:
        """Write a batch of observations, and the legal actions that come with it, into out (N, *shape).

        info: a vector environment's. silent (N,) bool: who need not say which actions are legal; what out has stays there.
        """
        if self.plain and not self.context:
            out[...] = obs
            return
        for leaf in self.leaves:
            out[:, leaf.start : leaf.start + leaf.width] = leaf.features(leaf.of(obs))
        if self.legal == "observation":
            out[:, self.features :] = np.asarray(obs[LEGAL]).reshape(len(out), -1) != 0
        elif self.legal == "info":
            self._encode_legal(info, out, np.zeros(len(out), bool) if silent is None else silent)

    def _encode_legal(self, info: dict[str, Any], out: np.ndarray, silent: np.ndarray) -> None:
        """From a vector environment's info: `_action_mask` says which environments have reported."""
        given = info.get(LEGAL)
        told = info.get(f"_{LEGAL}", np.full(len(out), given is not None))
        if (~told & ~silent).any():
            raise LegalActionsError(
                f"legal = info, but the environment's info has no {LEGAL!r}: it has "
                f"{', '.join(key for key in info if LEGAL not in key) or 'nothing'}"
            )
        for n in told.nonzero()[0]:
            legal = flat_mask(given[n])  # pyright: ignore[reportOptionalSubscript]
            if len(legal) != self.context:
                raise LegalActionsError(f"{LEGAL} must have {self.context} entries, one an action, got {len(legal)}")
            out[n, self.features :] = legal

    def split(self, x: Any) -> tuple[Any, Any]:
        """Encoded observations (B, *shape) as features and context (None where there is none)."""
        if not self.context:
            return x, None
        return x[:, : self.features].reshape(len(x), *self.features_shape), x[:, self.features :]

    def batch(self, obs: Any) -> tuple[Any, bool]:
        """Observations as a batch, and whether it was a single one. Raises ValueError for shapes of another space."""
        parts = [(leaf.path, leaf.space) for leaf in self.leaves]
        parts += [((LEGAL,), self.mask_space)] if self.legal == "observation" and self.mask_space else []
        rows = set()
        for path, space in parts:
            try:
                given, expected = np.shape(_part(obs, path)), tuple(space.shape or ())
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(f"expected an observation of {self.space}, got {obs!r}") from error
            if given != expected and given[1:] != expected:
                raise ValueError(f"expected observations of shape {expected} or (n, *{expected}), got {given}")
            rows.add(None if given == expected else given[0])
        if len(rows) > 1:
            raise ValueError(f"expected one observation of {self.space}, or n of every part of it, got {obs!r}")
        single = rows == {None}
        return (expand(obs, self.space) if single else obs), single

    def empty(self, *shape: int) -> np.ndarray:
        """Room for encoded observations, shape + self.shape; every action legal until somebody says otherwise."""
        out = np.empty((*shape, *self.shape), np.float32)
        if self.context:
            out[..., self.features :] = 1.0
        return out

    def tree(self, features: Tensor, space: spaces.Space | None = None, path: tuple[Key, ...] = ()) -> Any:
        """Features (B, D) as the Dict or Tuple of tensors that a body sees; a Box in it has its shape."""
        space = self.space if space is None else space
        if isinstance(space, spaces.Dict):
            return {k: self.tree(features, s, (*path, k)) for k, s in space.spaces.items() if (*path, k) != (LEGAL,)}
        if isinstance(space, spaces.Tuple):
            return tuple(self.tree(features, s, (*path, i)) for i, s in enumerate(space.spaces))
        leaf = next(leaf for leaf in self.leaves if leaf.path == path)
        x = features[:, leaf.start : leaf.start + leaf.width]
        return x.reshape(len(x), *space.shape) if isinstance(space, spaces.Box | spaces.MultiBinary) else x


def flat_mask(mask: Any) -> np.ndarray:
    """Legal actions as one row of booleans: an array, or one a dimension of a MultiDiscrete."""
    parts = mask if isinstance(mask, list | tuple) else [mask]
    return np.concatenate([np.asarray(part).reshape(-1) for part in parts]).astype(bool)


def expand(obs: Any, space: spaces.Space) -> Any:
    """A single observation as a batch of one. A Box's may be a tuple of numbers, hence the space is asked, not the type."""
    if isinstance(space, spaces.Dict):
        return {key: expand(part, space[key]) for key, part in obs.items() if key in space.spaces}
    if isinstance(space, spaces.Tuple):
        return tuple(expand(part, inner) for part, inner in zip(obs, space.spaces, strict=True))
    return np.asarray(obs)[None]
