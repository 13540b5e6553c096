"""Rows of several environments as whole episodes, one per column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from policygrad.data import Record
from policygrad.total import gathered, is_shared
from policygrad.tree import concatenate, put, take, tree_map

NEVER = np.iinfo(np.int64).min  # of all rows the one before the first


def one_episode_per_column(chunks: Sequence[Record], quota: np.ndarray) -> Record:
    """Cut the recorded rows into episodes, one per column, padded with masked rows.

    quota (N,): how many of each environment.
    """
    names = ("next_obs", "act", "rew", "terminated", "truncated", "mask", "time", "extra")
    rows = {name: concatenate([getattr(chunk, name) for chunk in chunks]) for name in names}
    rows["obs"] = concatenate([take(chunk.obs, slice(-1)) for chunk in chunks])
    next_obs, mask, rew = rows.pop("next_obs"), rows["mask"], rows["rew"]
    spans = []  # (environment, first row, row after the last) of every episode
    for n, count in enumerate(quota):
        first = 0
        for last in (rows["terminated"][:, n] | rows["truncated"][:, n]).nonzero()[0][:count].tolist():
            spans.append((n, first + int(not mask[first, n]), last + 1))  # without the reset row
            first = last + 1
    T, columns = max(stop - start for _, start, stop in spans), len(spans)
    cut = {
        name: tree_map(lambda x, T=T + (name == "obs"): np.zeros((T, columns, *x.shape[2:]), x.dtype), tree)
        for name, tree in rows.items()
    }
    for column, (n, start, stop) in enumerate(spans):
        length = stop - start
        put(cut, (slice(length), column), take(rows, (slice(start, stop), n)))
        put(cut["obs"], (length, column), take(next_obs, (stop - 1, n)))
    returns = [float(rew[start:stop, n].sum(dtype=np.float64)) for n, start, stop in spans]
    return Record(
        next_obs=take(cut["obs"], slice(1, None)),
        cut=np.zeros((T, columns), bool),
        finished=[(ret, stop - start) for ret, (_, start, stop) in zip(returns, spans, strict=True)],
        **cut,
    )


def quotas(episodes: int, first: int, whole: int, count: int) -> np.ndarray:
    """How many of so many episodes each environment plays, (count,), of those from `first` on, of `whole` in all."""
    quota = np.full(whole, episodes // whole)
    quota[: episodes % whole] += 1
    return quota[first : first + count]


def of_all_shards(episodes: list[tuple[float, int]], when: Sequence[int] | np.ndarray = ()) -> list[tuple[float, int]]:
    """Returns and lengths of the episodes that ended in all shards, in the order in which one process has them: by the row with
    which each ended, where it is known, and by environment.
    """
    if not is_shared():
        return episodes
    numbers = np.zeros((len(episodes), 3))
    for n, episode in enumerate(episodes):
        numbers[n] = (when[n] if len(when) == len(episodes) else 0, *episode)
    found = gathered(torch.from_numpy(numbers))
    return [(ret, int(length)) for _, ret, length in found[found[:, 0].argsort(stable=True)].tolist()]


def finished_episodes(record: Record, ret: np.ndarray) -> tuple[list[tuple[float, int]], np.ndarray]:
    """Return and length of every episode that ends in a record, and the returns so far of those that go on (N,).

    ret (N,): the returns so far before it.
    """
    running = np.cumsum(np.where(record.mask, record.rew, 0.0), axis=0, dtype=np.float64)
    running += ret
    done_before = np.zeros(len(ret))
    finished = []
    for t, n in zip(*record.end.nonzero(), strict=True):
        finished.append((float(running[t, n] - done_before[n]), int(record.time[t, n]) + 1))
        done_before[n] = running[t, n]
    return finished, running[-1] - done_before


def step_times(mask: np.ndarray, end: np.ndarray, began: np.ndarray, next_step: bool) -> tuple[np.ndarray, np.ndarray]:
    """The step index inside the episode of every row (T, N), and of the row that comes next (N,).

    began (N,): the index of the first row. next_step: whether the row after an end is a reset row; otherwise it is a step.
    """
    row = np.arange(len(mask))[:, None]
    starts = np.where(mask, NEVER, row + 1)  # an episode starts at the row after a reset row, or after an end
    if not next_step:
        starts[1:] = np.where(end[:-1], row[1:], NEVER)
    starts[0] = np.where(mask[0], -began, 1)
    time = (row - np.maximum.accumulate(starts)) * mask
    return time, np.where(end[-1] | ~mask[-1], 0, time[-1] + 1)
