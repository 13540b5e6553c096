"""The replay buffer against a walk through its rows, one by one: n-step returns, ends, resets, and the way round its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policygrad.data import Record
from policygrad.replay import ReplayBuffer, ReplayError

N, GAMMA = 3, 0.9


def records(rows: list[int], separate: bool, seed: int = 0) -> list[Record]:
    """So many rows each, one after another, of environments whose observations are the numbers of their rows; episodes last a
    few steps. separate: the other layout, in which a new episode begins in the row after an end.
    """
    rng, at, over, made = np.random.default_rng(seed), 0, np.zeros(N, bool), []
    for T in rows:
        obs = np.arange(at * N, (at + T + 1) * N, dtype=np.float32).reshape(T + 1, N, 1)
        terminated, truncated, mask = rng.random((T, N)) < 0.15, rng.random((T, N)) < 0.15, np.ones((T, N), bool)
        for t in range(T):
            mask[t] = separate | ~over
            over = mask[t] & (terminated[t] | truncated[t])
        terminated, truncated = terminated & mask, truncated & mask & ~terminated
        next_obs = obs[1:] + 0.5 if separate else obs[1:]  # what is shown after an end is another observation
        numbers = {"act": rng.integers(4, size=(T, N)), "rew": rng.random((T, N), dtype=np.float32)}
        time = np.ones((T, N), int)
        ends = {
            "terminated": terminated,
            "truncated": truncated,
            "cut": np.zeros_like(mask),
            "mask": mask,
            "time": time,
        }
        made.append(Record(obs=obs, next_obs=next_obs, **numbers, **ends))
        at += T
    return made


def walked(record: Record, t: int, n: int, n_step: int) -> tuple[float, float, float]:
    """The return, the discount and the next observation of the step (t, n) of a whole record."""
    ret, weight = 0.0, 1.0
    for _ in range(n_step):
        ret, weight = ret + weight * float(record.rew[t, n]), weight * GAMMA
        if record.end[t, n] or t + 1 == len(record.rew):
            break
        t += 1
    else:
        t -= 1
    return ret, 0.0 if record.terminated[t, n] else weight, float(record.next_obs[t, n, 0])


@pytest.mark.parametrize("separate", [False, True], ids=["NEXT_STEP", "SAME_STEP"])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("rows", [[5], [4, 9, 1, 6], [7] * 9, [40, 3]])
def test_every_transition_is_the_one_that_was_played(rows: list[int], n_step: int, separate: bool) -> None:
    played = records(rows, separate)
    (whole,) = records([sum(rows)], separate)
    for name in ("rew", "act", "terminated", "truncated", "mask"):  # the same steps, in one record
        getattr(whole, name)[...] = np.concatenate([getattr(record, name) for record in played])
    buffer = ReplayBuffer(50, whole.obs[0], whole.act[0])
    for record in played:
        buffer.add(record)
    batch = buffer.sample(600, GAMMA, n_step)
    drawn = set()  # all of them in the end, and nothing else
    for b in range(600):
        t, n = divmod(int(batch.obs[b, 0]), N)
        assert whole.mask[t, n]
        drawn.add((t, n))
        expected = walked(whole, t, n, n_step)
        assert (float(batch.ret[b]), float(batch.discount[b])) == pytest.approx(expected[:2], abs=1e-6)
        assert float(batch.next_obs[b, 0]) == expected[2]
        assert int(batch.act[b]) == whole.act[t, n]
    first = sum(rows) - buffer.size
    assert drawn == {(t, n) for t, n in zip(*whole.mask.nonzero(), strict=True) if t >= first}


def test_nothing_to_draw_and_too_many_environments_are_refused() -> None:
    (record,) = records([4], False)
    buffer = ReplayBuffer(50, record.obs[0], record.act[0])
    with pytest.raises(ReplayError, match="nothing is stored"):
        buffer.sample(1, GAMMA)
    other: Any = ReplayBuffer(50, record.obs[0, :2], record.act[0, :2])
    with pytest.raises(ReplayError, match="2 environments, and this record is of 3"):
        other.add(record)
