"""The shared memory of a pool of worker processes: observations, actions, rewards, flags and progress."""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
import uuid
from multiprocessing import reduction
from typing import Any

import numpy as np
from gymnasium import spaces

ALIGNMENT = 64  # bytes: no two arrays share a line of a processor's cache
# spaces whose members are arrays of one shape
ARRAYS = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


class Memory:
    """Memory for several processes, in a file without a name, so that nothing remains when they end in any way.

    It travels to a process as an argument of its start, when nobody knows yet how large it will be.
    """

    def __init__(self) -> None:
        self.handle: Any
        if sys.platform == "win32":
            self.handle = f"policygrad-{uuid.uuid4()}"  # the tag of a section that ends with its last user
        elif hasattr(os, "memfd_create"):  # Linux; needs no room in /dev/shm, of which containers have little
            self.handle = os.memfd_create("policygrad")
        else:
            self.handle, name = tempfile.mkstemp()
            os.unlink(name)

    def __getstate__(self) -> Any:
        return self.handle if sys.platform == "win32" else reduction.DupFd(self.handle)

    def __setstate__(self, state: Any) -> None:
        self.handle = state if sys.platform == "win32" else state.detach()

    def resize(self, size: int) -> None:
        """Change the size to this number of bytes, all 0. Raises OSError if there is no memory."""
        if sys.platform != "win32":
            os.ftruncate(self.handle, size)
            if hasattr(os, "posix_fallocate"):  # or the first who writes would be killed
                os.posix_fallocate(self.handle, 0, size)

    def map(self, size: int) -> mmap.mmap:
        """The bytes."""
        if sys.platform == "win32":
            return mmap.mmap(-1, size, tagname=self.handle)
        return mmap.mmap(self.handle, size)

    def close(self) -> None:
        """Forget the file; arrays on it stay valid."""
        if isinstance(self.handle, int):
            os.close(self.handle)
            self.handle = ""


class Arrays:
    """Arrays on shared memory; without a buffer only their `size` in bytes is computed.

    obs: a tree as the observation space, every array (N, *). act (N, *), rew (N,), terminated, truncated, paused (N,) bool.
    time (N,): steps since the episodes began. episode (N,): the episodes begun. at (W,): which environment of its block a
    worker is at, or −1.
    """

    def __init__(
        self, obs: spaces.Space, act: spaces.Space, num_envs: int, num_workers: int, buffer: mmap.mmap | None = None
    ) -> None:
        self.buffer, self.size, n = buffer, 0, num_envs
        self.obs = self._tree(obs, n)
        self.act = self._tree(act, n)
        self.rew = self._array((n,), np.float64)
        self.terminated, self.truncated, self.paused = (self._array((n,), np.bool_) for _ in range(3))
        self.time, self.episode = self._array((n,), np.int64), self._array((n,), np.int64)
        self.at = self._array((num_workers,), np.int64)

    def _tree(self, space: spaces.Space, n: int) -> Any:
        """As Gymnasium's `create_empty_array`."""
        if isinstance(space, spaces.Dict):
            return {key: self._tree(part, n) for key, part in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self._tree(part, n) for part in space.spaces)
        return self._array((n, *(space.shape or ())), space.dtype)

    def _array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        start = self.size
        self.size += -(-math.prod(shape) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        return np.empty(0, dtype) if self.buffer is None else np.ndarray(shape, dtype, self.buffer, start)


def sharable(space: spaces.Space) -> bool:
    """Whether the members of a space are arrays of fixed shape, or Dicts and Tuples of those."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return all(sharable(part) for part in parts)
    return isinstance(space, ARRAYS)


def some_rows(tree: Any, block: slice) -> Any:
    """The rows of some environments in every array of a tree, on the same memory."""
    if isinstance(tree, dict):
        return {key: some_rows(part, block) for key, part in tree.items()}
    return tuple(some_rows(part, block) for part in tree) if isinstance(tree, tuple) else tree[block]


def copy(tree: Any) -> Any:
    """A copy of every array of a tree."""
    if isinstance(tree, dict):
        return {key: copy(part) for key, part in tree.items()}
    return tuple(copy(part) for part in tree) if isinstance(tree, tuple) else tree.copy()


def put_rows(tree: Any, values: Any, where: np.ndarray | None = None) -> None:
    """Write the rows of other arrays into the arrays of a tree: all of them, or some."""
    if isinstance(tree, np.ndarray):
        if where is None:
            tree[...] = values
        else:
            tree[where] = values[where]
    else:
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            put_rows(tree[key], values[key], where)
