"""Experience replay: the last steps of N environments, on flat arrays, and minibatches of transitions drawn from them.

A row is one step of all environments, in the order in which they were played. Row t + 1 begins with what row t ended with, so
observations are stored once: where an episode ends, the next row is a reset row (`Record.mask` is False there), and what it
shows is the final observation of the episode. Records with a separate `next_obs` have it stored beside `obs`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Record
from policygrad.errors import UserError
from policygrad.forms import PCG64, Form, FormError, anything, array, table, whole
from policygrad.total import agreed, is_shared, rank
from policygrad.tree import Tree, put, take, to_torch, tree_leaves, tree_map

FLAGS = ("terminated", "end", "mask")  # end: the episode ends here, or what follows was not seen


class ReplayError(UserError, ValueError):
    """A replay buffer that cannot hold what it is given, or has nothing to draw from."""


@dataclass(frozen=True, eq=False)
class Transitions:
    """B transitions of n steps: r_t + γ r_{t+1} + … over m ≤ n rewards, and what is left to be estimated.

    m is smaller than n where the episode, or what is stored of it, ends before. The target of a value is
    ret + discount · V(next_obs).
    """

    obs: Tree  # (B, *)
    act: Tensor  # (B, *)
    ret: Tensor  # (B,)       Σ_{k<m} γᵏ r_{t+k}
    discount: Tensor  # (B,)  γᵐ, and 0 where the episode was terminated
    next_obs: Tree  # (B, *)  s_{t+m}, before any reset


class ReplayBuffer:
    """The last `capacity` steps of all environments together, drawn from uniformly, with replacement.

    obs, act: an observation (N, *) and an action (N, *) of N environments, whose types and shapes are kept. Memory, in bytes:
    capacity · (those of an observation, an action and a reward + 3), and once more an observation if records come whose
    `next_obs` is separate. added: rows written so far. first: the number of the oldest row that was ever here, which is above 0
    after the state of a smaller buffer. apart: how many of the oldest rows a state leaves out, because they are in files of
    their own (`stored.blocks`). choices: of discrete actions, how many there are, or how many for each entry; a state with
    others is refused. Raises ReplayError for records of another number of environments.
    """

    def __init__(
        self,
        capacity: int,
        obs: Tree,
        act: np.ndarray,
        seed: int | np.random.SeedSequence = 0,
        *,
        choices: int | np.ndarray | None = None,
    ) -> None:
        if capacity < 1:
            raise ReplayError(f"a replay buffer must hold at least one step, got capacity = {capacity}")
        self.capacity, self.num_envs, self.choices = capacity, len(act), choices
        self.rows = -(-capacity // self.num_envs) + 1
        self.rng = np.random.default_rng(seed)
        self.added = self.apart = self.first = 0
        flags = dict.fromkeys(FLAGS, np.zeros(self.num_envs, bool))
        one = {"obs": obs, "act": act, "rew": np.zeros(self.num_envs, np.float32), **flags}
        self.store: dict[str, Tree] = tree_map(
            self._empty, one
        )  # (rows, N, *); `obs` of row `added`: what is shown now

    def _empty(self, example: np.ndarray) -> np.ndarray:
        return np.zeros((self.rows, *example.shape), example.dtype)

    @property
    def size(self) -> int:
        """Rows that can be drawn. The place of the oldest one holds what the environments show now."""
        return min(self.added - self.first, self.rows - 1)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(x.nbytes for x in tree_leaves(self.store))

    def add(self, record: Record) -> None:
        """Append a record's rows."""
        T, N = record.rew.shape
        if self.num_envs != N:
            raise ReplayError(f"the buffer holds steps of {self.num_envs} environments, and this record is of {N}")
        if self.apart:
            raise ReplayError(
                f"{self.apart:,} rows of this buffer are in files of its run: load the checkpoint with policygrad.load"
            )
        if not _follows(record) and "next_obs" not in self.store:
            self._separate()
        if self.added and agreed(not self._continues(record))[0]:  # shards keep equally many rows
            self._break()
        terminated, end = record.terminated, record.end
        for start in range(0, T, self.rows - 1):  # a record longer than the buffer leaves its end
            stop = min(start + self.rows - 1, T)
            part = slice(start, stop)
            columns = {
                "act": record.act[part],
                "rew": record.rew[part],
                "terminated": terminated[part],
                "end": end[part],
                "mask": record.mask[part],
                "obs": take(record.obs, slice(start, stop + 1)),
            }
            if "next_obs" in self.store:
                columns["next_obs"] = take(record.next_obs, part)
            self._write(columns)

    def _write(self, columns: dict[str, Tree]) -> None:
        """Rows from the current place on, round the end of the arrays; of `obs` one more than of the others."""
        at = self.added % self.rows
        for name, tree in columns.items():
            count = len(tree_leaves(tree)[0])
            first = min(count, self.rows - at)
            put(self.store[name], slice(at, at + first), take(tree, slice(first)))
            if count > first:
                put(self.store[name], slice(count - first), take(tree, slice(first, count)))
        self.added += len(columns["rew"])

    def _continues(self, record: Record) -> bool:
        """Whether the record goes on from what was shown last; it does not where environments were reset in between."""
        now, last = self.added % self.rows, (self.added - 1) % self.rows
        shown = zip(tree_leaves(take(self.store["obs"], now)), tree_leaves(take(record.obs, 0)), strict=True)
        begins = record.mask[0] & (record.time[0] == 0) & self.store["mask"][last] & ~self.store["end"][last]
        return not begins.any() and all(np.array_equal(a, b) for a, b in shown)

    def _separate(self) -> None:
        """From now on the next observations have a place of their own; so far they are what the next row begins with."""
        self.store["next_obs"] = tree_map(lambda x: np.roll(x, -1, 0), self.store["obs"])

    def _break(self) -> None:
        """The environments were moved: what was shown last stays, as a row that is no step, and nothing follows it."""
        self.store["end"][(self.added - 1) % self.rows] = True
        for name, tree in self.store.items():
            for x in tree_leaves(tree) if name != "obs" else ():
                x[self.added % self.rows] = 0  # what an older row left there would make equal buffers unequal states
        self.added += 1

    def sample(self, count: int, gamma: float, n_step: int = 1) -> Transitions:
        """`count` transitions of up to n steps, each begun at any stored step with the same probability.

        Raises ReplayError where nothing is stored.
        """
        N, cells = self.num_envs, self.rows * self.num_envs
        first = last = self._draw(count)  # cells, of the first and the last reward that is summed
        ret, weight = self._flat("rew").take(first), np.full(count, gamma, np.float32)
        alive, now = np.ones(count, bool), self.added % self.rows * N  # now: the first cell of the row that is shown
        for _ in range(n_step - 1):
            following = (last + N) % cells
            alive &= ~self._flat("end").take(last) & (following // N * N != now)
            last = np.where(alive, following, last)
            ret += np.where(alive, weight * self._flat("rew").take(last), np.float32(0.0))
            weight = np.where(alive, weight * np.float32(gamma), weight)
        weight[self._flat("terminated").take(last)] = 0.0
        if "next_obs" in self.store:
            following = self._take("next_obs", last)
        else:
            following = self._take("obs", (last + N) % cells)
        return Transitions(
            obs=self._take("obs", first),
            act=self._take("act", first),
            ret=torch.from_numpy(ret),
            discount=torch.from_numpy(weight),
            next_obs=following,
        )

    def _take(self, name: str, cells: np.ndarray) -> Tree:
        return tree_map(lambda x: torch.from_numpy(_rows(x).take(cells, 0)), self.store[name])

    def _flat(self, name: str) -> np.ndarray:
        return self.store[name].reshape(-1)

    def _draw(self, count: int) -> np.ndarray:
        """Cells of steps, numbered row by row; those that are no steps are drawn again."""
        size, N, mask = self.size, self.num_envs, self._flat("mask")
        start, cells = (self.added - size) % self.rows * N, self.rows * N
        if not (mask if size > 64 else mask.take(np.arange(start, start + size * N) % cells)).any():
            raise ReplayError("nothing is stored that could be drawn")
        rng = self._generator()
        picked = (start + rng.integers(size * N, size=count)) % cells
        while True:
            good = mask.take(picked)
            if good.all():
                return picked
            wrong = (~good).nonzero()[0]
            picked[wrong] = (start + rng.integers(size * N, size=len(wrong))) % cells

    def _generator(self) -> np.random.Generator:
        """What draws now: of shards each one of its own, while the states of their generators stay equal."""
        return np.random.default_rng([int(self.rng.integers(2**62)), rank()]) if is_shared() else self.rng

    def columns(self, first: int, stop: int) -> dict[str, Tree]:
        """Copies of the rows first … stop − 1, counted from the first ever: everything that is stored of them."""
        index = np.arange(first, stop) % self.rows
        return tree_map(lambda x: x[index], self.store)

    def put_columns(self, first: int, columns: dict[str, Tree]) -> None:
        """The inverse of `columns`."""
        if "next_obs" in columns and "next_obs" not in self.store:
            self._separate()
        index = np.arange(first, first + len(columns["rew"])) % self.rows
        for name, tree in columns.items():
            put(self.store[name], index, tree)

    def state_dict(self) -> dict[str, Any]:
        """Everything stored, in the order in which it was played, what is shown now, and the generator."""
        rows = to_torch(self.columns(self.added - self.size + self.apart, self.added))
        shown = tree_map(lambda x: torch.from_numpy(x[self.added % self.rows].copy()), self.store["obs"])
        counted = {"added": self.added, "apart": self.apart}
        return counted | {"rng": self.rng.bit_generator.state, "shown": shown, "rows": rows}

    def state_form(self) -> Form:
        """Of `state_dict`: rows in the types and shapes of this buffer, whose size and number of environments may be others."""

        def check(name: str, value: Any) -> None:
            counted = {"added": whole(), "apart": whole()}
            table(counted | {"rng": PCG64, "shown": anything, "rows": anything})(name, value)
            rows = value["rows"]
            table({"rew": array((None, None), "float32")}, others=anything)(f"{name}/rows", rows)
            count, num_envs = rows["rew"].shape
            if count + value["apart"] > value["added"]:
                raise FormError(
                    f"{name} holds {count + value['apart']:,} rows, but only {value['added']:,} were written"
                )
            self.columns_form(count, num_envs)(f"{name}/rows", rows)
            _form(self.store["obs"], num_envs)(f"{name}/shown", value["shown"])

        return check

    def columns_form(self, count: int, num_envs: int | None = None) -> Form:
        """Of `count` rows, as `columns` gives them, as tensors. num_envs: of how many environments [those of this buffer]."""
        lead = count, self.num_envs if num_envs is None else num_envs
        forms = {key: _form(tree, *lead) for key, tree in self.store.items() if key != "next_obs"}
        if self.choices is not None:
            forms["act"] = _chosen(self.store["act"], self.choices, *lead)
        return table(forms, {"next_obs": _form(self.store["obs"], *lead)})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Of the rows of a larger buffer the newest are kept. Those of another number of
        environments have no place here: a warning says so, and the buffer is empty then.
        """
        count, num_envs = state["rows"]["rew"].shape
        kept = min(count, self.rows - 1)
        self.added, self.apart = state["added"], min(state["apart"], self.rows - 1 - kept)
        self.first = self.added - kept - self.apart
        self.rng.bit_generator.state = state["rng"]
        self.store.pop("next_obs", None)
        if num_envs != self.num_envs:
            self.added = self.apart = self.first = 0
            if state["added"]:
                told = f"what was saved is of {num_envs} environments, and this one of {self.num_envs}"
                warnings.warn(f"the replay buffer begins empty: {told}", stacklevel=2)
            return
        self.put_columns(self.added - kept, tree_map(lambda x: x[count - kept :].numpy(), state["rows"]))
        put(self.store["obs"], self.added % self.rows, tree_map(lambda x: x.numpy(), state["shown"]))


def _form(tree: Tree, *lead: int) -> Form:
    """Of arrays like these, (rows, N, *), whose first axes have other lengths."""
    if isinstance(tree, dict):
        return table({key: _form(part, *lead) for key, part in tree.items()})
    return array((*lead, *tree.shape[2:]), str(tree.dtype))


def _chosen(act: np.ndarray, choices: int | np.ndarray, *lead: int) -> Form:
    """Of discrete actions like these: an action beyond the last one would be read from beyond the values."""
    form = array((*lead, *act.shape[2:]), str(act.dtype), 0, int(np.max(choices)) - 1)

    def check(name: str, value: Any) -> None:
        form(name, value)
        if np.ndim(choices) and not value.is_meta and (value.numpy() >= choices).any():
            raise FormError(f"{name} must be choices below {np.asarray(choices).tolist()}, it has others")

    return check


def _rows(x: np.ndarray) -> np.ndarray:
    """(rows, N, *) → (rows · N, *)."""
    return x.reshape(-1, *x.shape[2:])


def _follows(record: Record) -> bool:
    """Whether `next_obs` is a view of obs[1:]."""
    obs, following = tree_leaves(record.obs)[0], tree_leaves(record.next_obs)[0]
    return obs[1:].__array_interface__["data"] == following.__array_interface__["data"]
