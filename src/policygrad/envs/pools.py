"""EnvPool's own calls, and the environments of one pool, which its threads step.

Importing this does not import EnvPool, which takes half a second.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from gymnasium import spaces

from policygrad.envs.calls import NOTHING, RESET, STEP
from policygrad.envs.single import make_one

NO_LIMIT = 2**30  # of EnvPool's own

Played = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # obs (k, *), reward, done, steps into the episode (k,)


class Raw:
    """EnvPool's private calls: about a tenth cheaper than the public ones."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        keys = list(pool._state_keys)
        self.obs, self.rew, self.done, self.time = (keys.index(k) for k in ("obs", "reward", "done", "elapsed_step"))
        if list(pool._action_keys) != ["env_id", "players.env_id", "action"]:
            raise ValueError(f"unknown actions {pool._action_keys}")

    def reset(self, ids: np.ndarray) -> np.ndarray:
        """Begin episodes in these environments; their observations."""
        self.pool._reset(ids)
        return self.pool._recv()[self.obs]

    def send(self, act: np.ndarray, ids: np.ndarray) -> None:
        """Have these environments step, in the pool's threads."""
        self.pool._send([ids, ids, act])

    def recv(self) -> Played:
        """Wait for all that were sent."""
        state = self.pool._recv()
        return state[self.obs], state[self.rew], state[self.done], state[self.time]


class Public:
    """EnvPool's documented calls."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its bounds are float64, and the space says so once
            _ = pool.observation_space

    def reset(self, ids: np.ndarray) -> np.ndarray:
        """Begin episodes in these environments; their observations."""
        return self.pool.reset(ids)[0]

    def send(self, act: np.ndarray, ids: np.ndarray) -> None:
        """Have these environments step, in the pool's threads."""
        self.pool.send(act, ids)

    def recv(self) -> Played:
        """Wait for all that were sent."""
        obs, rew, terminated, _, info = self.pool.recv()  # with NO_LIMIT it truncates nothing
        return obs, rew, terminated, info["elapsed_step"]


class PoolPart:
    """The environments `rows` of all, in a pool of their own: `begin` has them step, and `finish` waits for what they did.

    limit: steps of an episode, after which it is truncated here. EnvPool does not know of it, so such a `late` environment is
    reset in the next step. obs: what the environments show now, never written into.
    """

    def __init__(self, pool: Raw | Public, rows: slice, limit: int) -> None:
        self.pool: Any = pool  # None once it is closed
        self.rows, self.limit = rows, limit
        self.ids = np.arange(rows.stop - rows.start, dtype=np.int32)
        self.late, self.any_late = np.zeros(len(self.ids), bool), False
        self.obs = np.zeros(0, np.float32)
        self._done_at_once: Played | None = None

    def reset(self) -> None:
        """Begin an episode in each."""
        self.obs, self.late, self.any_late = self.pool.reset(self.ids), np.zeros(len(self.ids), bool), False

    def asked(self, paused: np.ndarray | None = None) -> np.ndarray | int:
        """What the next step does to each environment: STEP, RESET or NOTHING."""
        if paused is None:
            return np.where(self.late, RESET, STEP) if self.any_late else STEP
        return np.where(paused, NOTHING, np.where(self.late, RESET, STEP))

    def begin(self, act: np.ndarray, asked: np.ndarray | int = STEP) -> None:
        """Send the actions (n, *); where not all are to step, wait for those that are."""
        if isinstance(asked, np.ndarray):
            self._done_at_once = self._some(act, asked)
        else:
            self.pool.send(act, self.ids)

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Observations, rewards, terminated and truncated (n,)."""
        played, self._done_at_once = self._done_at_once or self.pool.recv(), None
        self.obs, rew, done, time = played
        truncated = time >= self.limit
        if truncated.any():
            self.late, self.any_late = self.late | truncated, True
        return self.obs, rew, done, truncated

    def _some(self, act: np.ndarray, asked: np.ndarray) -> Played:
        """Neither step nor reset the paused ones, and reset the late ones, which EnvPool would step on."""
        n, obs = len(self.ids), self.obs.copy()
        rew, done, time = np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n, int)
        stepping, late = self.ids[asked == STEP], self.ids[asked == RESET]
        if len(stepping):
            self.pool.send(act[stepping], stepping)
            obs[stepping], rew[stepping], done[stepping], time[stepping] = self.pool.recv()
        if len(late):
            obs[late] = self.pool.reset(late)
            self.late = self.late & (asked != RESET)
        self.any_late = False  # but for paused ones, which wait for a reset of all
        return obs, rew, done, time


def make_pool(env_id: str, seeds: Sequence[int], num_threads: int) -> Any:
    """EnvPool's own object, environment i seeded with seeds[i]."""
    envpool: Any = import_module("envpool")
    if env_id not in envpool.list_all_envs():
        raise ValueError(f"EnvPool has no {env_id}: take backend='gymnasium'")
    n = len(seeds)
    return envpool.make(
        env_id, "gymnasium", num_envs=n, num_threads=num_threads, seed=list(seeds), max_episode_steps=NO_LIMIT
    )


@cache
def raw_path_works(env_id: str, steps: int = 40) -> bool:
    """Whether the private calls do, bit for bit, what the public ones do: all environments, some of them, resets of some."""
    n = 3
    everyone, some = np.arange(n, dtype=np.int32), np.array([0, 2], np.int32)
    space = make_one(env_id).action_space
    rng = np.random.default_rng(0)
    try:
        raw, public = (kind(make_pool(env_id, [1, 2, 3], 1)) for kind in (Raw, Public))
        same = np.array_equal(raw.reset(everyone), public.reset(everyone))
        for step in range(steps):
            if step == steps // 2:
                same &= np.array_equal(raw.reset(some), public.reset(some))
            ids = some if step % 5 == 4 else everyone
            act = random_actions(space, len(ids), rng)
            same &= all(
                np.array_equal(a, b) for a, b in zip(_step(raw, act, ids), _step(public, act, ids), strict=True)
            )
    except Exception:
        return False  # another version of EnvPool: whatever it was, the public path is there
    return bool(same)


def _step(calls: Raw | Public, act: np.ndarray, ids: np.ndarray) -> Played:
    calls.send(act, ids)
    return calls.recv()


def random_actions(space: spaces.Space, n: int, rng: np.random.Generator) -> np.ndarray:
    """Actions (n, *) as EnvPool wants them, uniform."""
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.n, size=n).astype(np.int32)
    assert isinstance(space, spaces.Box)
    return rng.uniform(-1.0, 1.0, (n, *space.shape)).astype(np.float32)
