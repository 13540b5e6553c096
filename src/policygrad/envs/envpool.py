"""EnvPool's C++ environments behind Gymnasium's interface: `pip install policygrad[envpool]`.

| where EnvPool differs from what is expected    | here                                                             |
|------------------------------------------------|------------------------------------------------------------------|
| seeds are fixed when it is made, and 42 if not | a seeded `reset` makes it anew; without a seed they are drawn    |
| the first step after its making is a reset     | nothing is stepped before a `reset`                              |
| ends by time and by the task are not told      | its own limit is out of reach; Gymnasium's is kept here, so that |
| apart in an episode's last allowed step        | both flags may be set, as in Gymnasium                           |
| its spaces are LunarLander's in shape only     | the spaces are Gymnasium's                                       |
| the public `step` rebuilds its config each time| `_send` and `_recv`, if they do the same in a self-test          |

Episodes restart as in Gymnasium's NEXT_STEP mode. An environment's episodes depend on its seed and its actions alone, not on
the number of threads; so a pool that is made again and asked the same is where it was (`snapshot`, `restore`).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from policygrad.envs.blame import brief
from policygrad.envs.calls import NOTHING, RESET, STEP, Calls, together
from policygrad.envs.journal import digest
from policygrad.envs.processes import cores_for
from policygrad.envs.single import make_one

# Played side by side with Gymnasium's from the same random numbers, these are the same to rounding; but LunarLander's ground,
# the mean of three heights, lies 1 % higher (a third in EnvPool, a factor of 0.33 in Gymnasium): 0.005 in the observation.
TESTED = (
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Acrobot-v1",
    "LunarLander-v3",
    "LunarLanderContinuous-v3",
)
# Where a step costs more than handing it to another thread and back. Acrobot's does, too, but Gymnasium's is compiled.
FASTER = ("LunarLander-v3", "LunarLanderContinuous-v3")
DIFFERENT = {"Pendulum-v1": "EnvPool moves the pendulum before it limits its speed, Gymnasium after"}

CLASSIC_CONTROL = ("CartPole", "MountainCar", "Acrobot", "Pendulum")
NO_LIMIT = 2**30  # of EnvPool's own
INT31 = 2**31 - 1  # its seeds

Played = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # obs (k, *), reward, done, steps into the episode (k,)


def installed() -> bool:
    """Whether the package is there; does not import it, which takes half a second."""
    return importlib.util.find_spec("envpool") is not None


def check_tested(env_id: str) -> None:
    """Raises ValueError for an environment that is not on the tested list."""
    if env_id in TESTED:
        return
    why = DIFFERENT.get(env_id, "it has not been compared with Gymnasium's")
    raise ValueError(
        f"EnvPool's {env_id} is not used in place of Gymnasium's: {why}. Take backend='gymnasium', or pass "
        f"EnvPoolVectorEnv({env_id!r}, num_envs) as the environment if you want it all the same"
    )


class EnvPoolVectorEnv(VectorEnv):
    """`num_envs` environments in `num_threads` threads of C++: a Gymnasium vector environment in NEXT_STEP mode.

    num_threads: None is one for classic control, whose steps are cheaper than waking a thread, and up to one per core for
    others. `paused` (N,) bool: who sits the steps out, until the next reset.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012, as in the base class

    def __init__(self, env_id: str, num_envs: int, num_threads: int | None = None) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if not installed():
            raise ModuleNotFoundError(
                f"EnvPool, which should step {env_id}, is not installed: pip install policygrad[envpool]"
            )
        example = make_one(env_id)
        example.close()
        self.num_envs, self.spec = num_envs, example.spec
        self.num_threads = default_threads(env_id, num_envs) if num_threads is None else num_threads
        self.limit = (self.spec.max_episode_steps if self.spec else None) or NO_LIMIT
        self.single_observation_space, self.single_action_space = example.observation_space, example.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.env_id, self.dtype = env_id, action_dtype(self.single_action_space)
        check_interface(env_id, self.single_observation_space, self.single_action_space)
        self.raw = raw_path_works(env_id)
        self._pool: Raw | Public | None = None
        self._calls = Calls([], self.single_action_space)  # of this pool
        self._marked = self._calls, 0, np.zeros(0), np.zeros(0)
        self._ids = np.arange(num_envs, dtype=np.int32)
        self._obs = np.zeros((num_envs, *(self.single_observation_space.shape or ())), np.float32)
        self._late = np.zeros(num_envs, bool)  # truncated here, which EnvPool does not know: the next step resets them
        self._any_late = self._interrupted = False
        self.paused = np.zeros(num_envs, bool)

    def reset(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode everywhere. seed: environment i gets seed + i, or its own of a list."""
        if options:
            raise ValueError(f"EnvPool has no reset options, got {options}")
        if seed is not None or self._pool is None or self._interrupted:
            seeds = self._seeds(seed)
            pool = make_pool(self.env_id, seeds, self.num_threads)
            self._pool, self._calls = Raw(pool) if self.raw else Public(pool), Calls(seeds, self.single_action_space)
        self.paused, self._late, self._any_late = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool), False
        self._calls.note(0, RESET)
        self._interrupted = True
        self._obs = self._pool.reset(self._ids)
        self._interrupted = False
        return self._obs, {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended in the last step."""
        if self._pool is None or self._interrupted:
            raise RuntimeError("reset the environments first: no episode has begun, or a step was interrupted")
        act = np.ascontiguousarray(actions, self.dtype)
        self._interrupted = True  # by a signal between sending actions and receiving what they did, until the end
        if self._any_late or self.paused.any():
            self._calls.note(act, np.where(self.paused, NOTHING, np.where(self._late, RESET, STEP)))
            obs, rew, done, time = self._step_some(self._pool, act)
        else:
            self._calls.note(act)
            obs, rew, done, time = self._pool.step(act, self._ids)
        self._interrupted = False
        truncated = time >= self.limit
        if truncated.any():
            self._late |= truncated
            self._any_late = True
        self._obs = obs
        return obs, rew, done, truncated, {}

    def _step_some(self, pool: Raw | Public, act: np.ndarray) -> Played:
        """Neither step nor reset the paused ones, and reset the late ones, which EnvPool would step on."""
        obs = self._obs.copy()
        rew, done, time = (
            np.zeros(self.num_envs, np.float32),
            np.zeros(self.num_envs, bool),
            np.zeros(self.num_envs, int),
        )
        stepping = self._ids[~self.paused & ~self._late]
        if len(stepping):
            obs[stepping], rew[stepping], done[stepping], time[stepping] = pool.step(act[stepping], stepping)
        late = self._ids[~self.paused & self._late]
        if len(late):
            obs[late] = pool.reset(late)
            self._late[late] = False
        self._any_late = False  # but for paused ones, which wait for a reset of all
        return obs, rew, done, time

    def _seeds(self, seed: int | Sequence[int] | None) -> list[int]:
        if seed is None:
            seeds = np.random.SeedSequence().generate_state(self.num_envs).tolist()
        elif isinstance(seed, Sequence):
            seeds = list(seed)
        else:
            seeds = [int(seed) + i for i in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} seeds, one per environment, got {len(seeds)}")
        return [int(s) & INT31 for s in seeds]

    @property
    def worn(self) -> bool:
        """Whether so much was asked of this pool that asking it again would take long: it is time for a seeded reset."""
        return self._calls.many

    def mark(self) -> None:
        """As `SerialVectorEnv.mark`."""
        self._marked = self._calls, self._calls.rows, self._obs, self._late.copy()

    def snapshot(self, marked: bool = False) -> list[dict[str, Any] | None]:
        """As `SerialVectorEnv.snapshot`: all that was asked since the pool was made."""
        calls, rows, obs, late = self._marked if marked else (self._calls, self._calls.rows, self._obs, self._late)
        return [*calls.snapshot(rows, obs, late)] if rows else [None] * self.num_envs

    def restore(self, snapshots: Sequence[dict[str, Any] | None]) -> list[str | None]:
        """As `SerialVectorEnv.restore`, all environments at once: the pool is made again, and asked the same."""
        try:
            seeds, actions, asked = together(snapshots, self.single_action_space)
            self._pool = None
            for act, what in zip(actions, asked, strict=True):
                if self._pool is None or (what == RESET).all():
                    self.reset(seed=seeds if self._pool is None else None)
                    continue
                self.paused = what == NOTHING
                self.step(act)
        except Exception as error:
            return [f"playing it again raised {brief(error)}"] * self.num_envs
        there = [
            snapshot is not None and digest(x) == snapshot["shown"]
            for x, snapshot in zip(self._obs, snapshots, strict=True)
        ]
        return [None if same else "the same actions lead to another observation" for same in there]

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads."""
        self._pool = None


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

    def step(self, act: np.ndarray, ids: np.ndarray) -> Played:
        """One step of these environments."""
        self.pool._send([ids, ids, act])
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

    def step(self, act: np.ndarray, ids: np.ndarray) -> Played:
        """One step of these environments."""
        obs, rew, terminated, _, info = self.pool.step(act, ids)  # with NO_LIMIT it truncates nothing
        return obs, rew, terminated, info["elapsed_step"]


def make_pool(env_id: str, seeds: Sequence[int], num_threads: int) -> Any:
    """EnvPool's own object, environment i seeded with seeds[i]."""
    envpool: Any = import_module("envpool")
    if env_id not in envpool.list_all_envs():
        raise ValueError(f"EnvPool has no {env_id}: take backend='gymnasium'")
    n = len(seeds)
    return envpool.make(
        env_id, "gymnasium", num_envs=n, num_threads=num_threads, seed=list(seeds), max_episode_steps=NO_LIMIT
    )


def default_threads(env_id: str, num_envs: int) -> int:
    """One where a step is cheaper than waking a thread, else as many as there are cores and environments."""
    if env_id.startswith(CLASSIC_CONTROL):
        return 1
    return cores_for(num_envs)


def action_dtype(space: spaces.Space) -> type:
    """What EnvPool wants actions in."""
    return np.int32 if isinstance(space, spaces.Discrete) else np.float32


@cache
def _first_observation(env_id: str) -> np.ndarray:
    return Public(make_pool(env_id, [0], 1)).reset(np.zeros(1, np.int32))


def check_interface(env_id: str, observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raises TypeError unless EnvPool's observations are of Gymnasium's shape and type, and its actions ones we can send."""
    known = isinstance(action_space, spaces.Box) or (
        isinstance(action_space, spaces.Discrete) and action_space.start == 0
    )
    if not isinstance(observation_space, spaces.Box) or not known:
        raise TypeError(f"EnvPool's {env_id} is not supported: expected a Box to observe, and Discrete or Box actions")
    obs = _first_observation(env_id)
    if obs.shape[1:] != observation_space.shape or obs.dtype != observation_space.dtype:
        raise TypeError(
            f"EnvPool's {env_id} shows {obs.dtype} {obs.shape[1:]}, Gymnasium's {observation_space.dtype} "
            f"{observation_space.shape}: take backend='gymnasium'"
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
            same &= all(np.array_equal(a, b) for a, b in zip(raw.step(act, ids), public.step(act, ids), strict=True))
    except Exception:
        return False  # another version of EnvPool: whatever it was, the public path is there
    return bool(same)


def random_actions(space: spaces.Space, n: int, rng: np.random.Generator) -> np.ndarray:
    """Actions (n, *) as EnvPool wants them, uniform."""
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.n, size=n).astype(np.int32)
    assert isinstance(space, spaces.Box)
    return rng.uniform(-1.0, 1.0, (n, *space.shape)).astype(np.float32)
