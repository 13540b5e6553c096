"""Observations as trees of arrays, and as the features that networks get.

A Box is one array; every other space is a tree: an array per part, in the part's own dtype (floats as float32), and the
action mask under `action_mask` where there is one. Integers and bytes stay what they are until a network wants numbers:

    features (N, *) = the parts, one after another, as floats

A Box alone keeps its shape; a Discrete is one-hot, a MultiDiscrete one-hot entry by entry, a MultiBinary 0 and 1. The mask
is no feature: it conditions the distribution (`Head.apply_context`); networks, critics and normalisers see the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from policygrad.errors import ContractError, EnvError, NotFiniteError, PartError, brief
from policygrad.tree import Tree, as_float, concatenate, flat

if TYPE_CHECKING:
    from torch import Tensor

MAX_FEATURES = 100_000  # of a one-hot encoding; a Box may have any size
LARGEST = 1e18  # observations below are safe to square and to sum as float32
ACTION_MASK = "action_mask"  # the key of the action mask, in a Dict observation and in `info`

Key = str | int


class ActionMaskError(EnvError, ValueError):
    """An action mask is missing, is not of 0 and 1, or allows no action."""


@dataclass(frozen=True)
class Leaf:
    """A part of the observation without parts of its own, and its columns among the features."""

    path: tuple[Key, ...]
    space: spaces.Space
    start: int
    width: int

    @property
    def name(self) -> str:
        """Where it is in the tree: no two parts of a space share a name."""
        return "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in self.path) if self.path else "obs"

    @property
    def one_hot(self) -> bool:
        """Whether its numbers are choices."""
        return isinstance(self.space, spaces.Discrete | spaces.MultiDiscrete)

    @property
    def limited(self) -> bool:
        """Whether its array can hold what no observation of the space is encoded as."""
        return self.one_hot or isinstance(self.space, spaces.MultiBinary)

    @property
    def where(self) -> str:
        """How Python finds it in an observation: `['camera'][0]`; nothing for an observation without parts."""
        return "".join(f"[{key!r}]" for key in self.path)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its array in the tree, without the batch."""
        return tuple(self.space.shape or ()) if isinstance(self.space, spaces.Box) else (self.width,)

    @property
    def dtype(self) -> np.dtype:
        """Of its array in the tree: integers keep theirs."""
        given = np.dtype(self.space.dtype)
        return given if given.kind in "iub" and not self.one_hot else np.dtype(np.float32)

    def of(self, obs: Any) -> np.ndarray:
        """This part of a batch of observations."""
        return np.asarray(_part(obs, self.path))

    def encode(self, obs: Any, out: np.ndarray) -> None:
        """Write this part of a batch of observations into its array (N, *shape)."""
        x = self.of(obs)
        if self.one_hot:
            entry, value = self._one_hot_columns
            out[...] = flat(x)[:, entry] == value
            return
        out[...] = x.reshape(out.shape)
        if out.dtype.kind != "f" and x.dtype != out.dtype and not np.array_equal(out, x.reshape(out.shape)):
            lost = x.reshape(out.shape)[out != x.reshape(out.shape)].reshape(-1)[0]
            raise ContractError(
                f"observations{self.where} of {self.space} must be {out.dtype}, got {x.dtype} with other values, such as {lost}"
            )

    def strangers(self, x: np.ndarray) -> Any:
        """Which rows of this part's array (…, *shape) no observation is encoded as, (…) bool; None where there are none.

        A one-hot row must have a one for every choice, a MultiBinary only 0 and 1. Floats must be finite, and below LARGEST.
        """
        if x.size == 0:
            return None
        lead = x.shape[: x.ndim - len(self.shape)]
        if self.one_hot:
            ones = len(_choices(self.space)[0])
            exact = np.float32 if x.size < 2**24 else np.float64
            if x.sum(dtype=exact) == math.prod(lead) * ones:
                return None
            return x.sum(-1) != ones
        if isinstance(self.space, spaces.MultiBinary):
            return None if x.max() <= 1 and x.min() >= 0 else ((x < 0) | (x > 1)).any(-1)
        if x.dtype.kind != "f" or (x.max() < LARGEST and x.min() > -LARGEST):
            return None
        return ~(np.abs(x) < LARGEST).reshape(*lead, -1).all(-1)

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
    """The number of features of a space without parts. Raises TypeError, naming the space, if it is unknown."""
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return math.prod(space.shape)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        size = int(_choices(space)[0].sum())
    else:
        raise TypeError(
            f"unsupported observation space {space}: expected Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple "
            "of those (gymnasium.wrappers.TransformObservation makes one)"
        )
    if size > MAX_FEATURES:
        raise TypeError(f"unsupported observation space {space}: {size:,} choices, more than {MAX_FEATURES:,}")
    return size


def check_space(name: str, space: object) -> None:
    """Raise PartError for what is no space, e.g. an environment. name: the argument's."""
    if not isinstance(space, spaces.Space):
        has = f"envs.single_{name}" if hasattr(space, "num_envs") else f"env.{name}"
        raise PartError(f"{name} must be a space of gymnasium, such as {has}, got {brief(space)}")


def leaves(space: spaces.Space, path: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], spaces.Space]]:
    """The smallest parts of a space, in Gymnasium's order, with their paths."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from leaves(part, (*path, i))
    else:
        yield path, space


class Encoding:
    """Converts observations of a space to trees of arrays, trees to features, and features to the input of a custom body.

    context: entries of the action mask, 0 for none. mask_source: where it comes from: "observation" (the part of a Dict under
    `action_mask`, which is no feature in any case), "info", or "none".
    """

    def __init__(self, space: spaces.Space, context: int = 0, mask_source: str = "none") -> None:
        check_space("observation_space", space)
        self.space, self.context, self.mask_source = space, context, mask_source
        self.leaves: list[Leaf] = []
        start = 0
        self.mask_space = space.spaces.get(ACTION_MASK) if isinstance(space, spaces.Dict) else None
        for path, part in leaves(space):
            if self.mask_space is not None and path[0] == ACTION_MASK:
                continue
            self.leaves.append(Leaf(path, part, start, width(part)))
            start += self.leaves[-1].width
        self.width = start  # features in all
        if start == 0:
            raise TypeError(f"unsupported observation space {space}: it is empty")
        self.parts = isinstance(space, spaces.Dict | spaces.Tuple)  # which a body of one's own sees as such
        self.bare = not self.parts and not context  # one array, no dict around it
        self.plain = self.bare and not self.leaves[0].one_hot and self.leaves[0].dtype == np.float32  # its own features
        self.features_shape: tuple[int, ...] = (start,) if self.parts else self.leaves[0].shape
        if mask_source == "observation":
            given = None if self.mask_space is None else width(self.mask_space)
            if given != context:
                raise TypeError(
                    f"action masks in the observation need {ACTION_MASK!r} with {context} entries, got {given}"
                )

    def empty(self, *shape: int) -> Tree:
        """Empty arrays for observations, each of shape + (…); every action is allowed until a mask is written."""
        room = {leaf.name: np.empty((*shape, *leaf.shape), leaf.dtype) for leaf in self.leaves}
        if self.context:
            room[ACTION_MASK] = np.ones((*shape, self.context), bool)
        return room[self.leaves[0].name] if self.bare else room

    def encode(self, obs: Any, info: dict[str, Any], out: Tree, silent: np.ndarray | None = None) -> None:
        """Write a batch of observations, and the action masks that come with it, into a tree of arrays (N, *).

        info: a vector environment's. silent (N,) bool: who need not give an action mask; what out has stays there.
        """
        if self.plain:
            out[...] = obs
            return
        if self.bare:
            self.leaves[0].encode(obs, out)
            return
        for leaf in self.leaves:
            leaf.encode(obs, out[leaf.name])
        if self.mask_source == "observation":
            out[ACTION_MASK][...] = truths(np.asarray(obs[ACTION_MASK]).reshape(out[ACTION_MASK].shape))
        elif self.mask_source == "info":
            mask = out[ACTION_MASK]
            self._encode_mask(info, mask, np.zeros(len(mask), bool) if silent is None else silent)

    def arrays(self, obs: Tree) -> list[tuple[Leaf, np.ndarray]]:
        """The parts and their arrays."""
        return [(leaf, obs if self.bare else obs[leaf.name]) for leaf in self.leaves]

    def check(self, obs: Tree, given: Any = None, whose: Callable[[int], str] = lambda n: "expected") -> None:
        """Raise ContractError or NotFiniteError for encoded observations (N, …) that none of the space are encoded as.

        given: what they were before, which the message then shows. whose: how the message begins, for row n.
        """
        for leaf, x in self.arrays(obs):
            wrong = leaf.strangers(x)
            if wrong is None:
                continue
            n = int(wrong.argmax())
            if leaf.limited:
                value = "one that is not" if given is None else leaf.of(given)[n]
                shown = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
                raise ContractError(f"{whose(n)} an observation{leaf.where} of {leaf.space}, got {shown!s:.200}")
            worst = x[n].reshape(-1)[int((~(np.abs(x[n]) < LARGEST)).argmax())]
            raise NotFiniteError(
                f"{whose(n)} an observation{leaf.where} of finite numbers below {LARGEST:g}, got {worst!s}"
            )

    def features(self, obs: Tree, dtype: Any = None) -> Any:
        """The features (N, *features_shape) as floats: of arrays as float32, of tensors as `dtype`."""
        if not self.parts:
            return as_float(obs if self.bare else obs[self.leaves[0].name], dtype)
        parts = [obs[leaf.name] for leaf in self.leaves]
        return concatenate([as_float(flat(x), dtype) for x in parts], axis=-1)

    def _encode_mask(self, info: dict[str, Any], out: np.ndarray, silent: np.ndarray) -> None:
        """From a vector environment's info: `_action_mask` says which environments have reported."""
        given = info.get(ACTION_MASK)
        told = info.get(f"_{ACTION_MASK}", np.full(len(out), given is not None))
        if (~told & ~silent).any():
            raise ActionMaskError(
                f"mask_source = info, but the environment's info has no {ACTION_MASK!r}: it has "
                f"{', '.join(key for key in info if ACTION_MASK not in key) or 'nothing'}"
            )
        for n in told.nonzero()[0]:
            mask = flat_mask(given[n], f"environment {n}: ")  # pyright: ignore[reportOptionalSubscript]
            if len(mask) != self.context:
                raise ActionMaskError(
                    f"environment {n}: {ACTION_MASK} must have {self.context} entries, one per action, got {len(mask)}"
                )
            out[n] = mask

    def batch(self, obs: Any) -> tuple[Any, bool]:
        """Observations as a batch, and whether it was a single one. Raises ValueError for shapes of another space."""
        parts = [(leaf.path, leaf.space) for leaf in self.leaves]
        parts += [((ACTION_MASK,), self.mask_space)] if self.mask_source == "observation" and self.mask_space else []
        rows = set()
        for path, space in parts:
            try:
                given, expected = np.shape(_part(obs, path)), tuple(space.shape or ())
            except (KeyError, IndexError, TypeError, ValueError) as error:
                there = isinstance(obs, Mapping) and len(path) == 1
                missing = f": observation[{path[0]!r}] is missing" if there and path[0] not in obs else ""
                raise ValueError(f"expected an observation of {self.space}, got {in_words(obs)}{missing}") from error
            if given != expected and given[1:] != expected:
                many = str(("n", *expected)).replace("'", "")
                raise ValueError(f"expected observations of shape {expected} or {many}, got {given}")
            rows.add(None if given == expected else given[0])
        if len(rows) > 1:
            raise ValueError(f"expected one observation of {self.space}, or n of every part of it, got {in_words(obs)}")
        single = rows == {None}
        return (expand(obs, self.space) if single else obs), single

    def tree(self, features: Tensor, space: spaces.Space | None = None, path: tuple[Key, ...] = ()) -> Any:
        """Features (B, D) as the Dict or Tuple of tensors that a body sees; a Box in it has its shape."""
        space = self.space if space is None else space
        if isinstance(space, spaces.Dict):
            return {
                k: self.tree(features, s, (*path, k)) for k, s in space.spaces.items() if (*path, k) != (ACTION_MASK,)
            }
        if isinstance(space, spaces.Tuple):
            return tuple(self.tree(features, s, (*path, i)) for i, s in enumerate(space.spaces))
        leaf = next(leaf for leaf in self.leaves if leaf.path == path)
        x = features[:, leaf.start : leaf.start + leaf.width]
        return x.reshape(-1, *space.shape) if isinstance(space, spaces.Box | spaces.MultiBinary) else x


def flat_mask(mask: Any, whose: str = "") -> np.ndarray:
    """An action mask as one row of booleans: from an array, or from one array per dimension of a MultiDiscrete.

    whose: how the message of an ActionMaskError begins, see `truths`.
    """
    parts = mask if isinstance(mask, list | tuple) else [mask]
    return truths(np.concatenate([np.asarray(part).reshape(-1) for part in parts]), whose)


def truths(mask: np.ndarray, whose: str = "") -> np.ndarray:
    """An action mask of booleans. Raises ActionMaskError where an entry is neither 0 nor 1, such as 0.5, NaN or "0"."""
    if mask.dtype == bool:
        return mask
    legal = mask.astype(bool) if mask.dtype.kind in "iuf" else np.zeros(mask.shape, bool)
    wrong = mask != legal if mask.dtype.kind in "iuf" else ~legal
    if wrong.any():
        raise ActionMaskError(f"{whose}expected 0 or 1 in an action mask, got {mask[wrong].tolist()[0]!r:.60}")
    return legal


def in_words(obs: Any) -> str:
    """An observation in a few words."""
    if isinstance(obs, Mapping):
        return f"a dict with {', '.join(map(repr, obs)) or 'nothing in it'}"
    if isinstance(obs, np.ndarray) and obs.ndim:
        return f"an array of {obs.dtype} of shape {obs.shape}"
    words = " ".join(repr(obs).split())
    return words if len(words) <= 100 else f"{words[:100]}…"


def expand(obs: Any, space: spaces.Space) -> Any:
    """A single observation as a batch of one. A Box's may be a tuple of numbers, hence the space is asked, not the type."""
    if isinstance(space, spaces.Dict):
        return {key: expand(part, space[key]) for key, part in obs.items() if key in space.spaces}
    if isinstance(space, spaces.Tuple):
        return tuple(expand(part, inner) for part, inner in zip(obs, space.spaces, strict=True))
    return np.asarray(obs)[None]
