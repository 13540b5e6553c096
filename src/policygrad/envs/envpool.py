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
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from policygrad.envs.blame import brief
from policygrad.envs.calls import NOTHING, RESET, Calls, together
from policygrad.envs.journal import digest
from policygrad.envs.pools import NO_LIMIT, PoolPart, Public, Raw, make_pool, raw_path_works
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
INT31 = 2**31 - 1  # its seeds


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

    Environments whose steps are dear are in two pools, so that a policy can act for one half while the other is stepped
    (`roll`). num_threads: of all pools; None is one for classic control, whose steps are cheaper than waking a thread, and up
    to one per core for others. `paused` (N,) bool: who sits the steps out, until the next reset.
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
        self._parts: list[PoolPart] = []  # none before the first reset
        self._calls = Calls([], self.single_action_space)  # of these pools
        self._marked = self._calls, 0, np.zeros(0), np.zeros(0, bool)
        self._interrupted = False  # closed, or by a signal between sending actions and receiving what they did
        self.paused = np.zeros(num_envs, bool)

    def reset(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode everywhere. seed: environment i gets seed + i, or its own of a list."""
        if options:
            raise ValueError(f"EnvPool has no reset options, got {options}")
        if seed is not None or not self._parts or self._interrupted:
            seeds = self._seeds(seed)
            self._parts = [self._part(rows, seeds[rows]) for rows in halves(self.env_id, self.num_envs)]
            self._calls = Calls(seeds, self.single_action_space)
        self.paused = np.zeros(self.num_envs, bool)
        self._calls.note(0, RESET)
        self._interrupted = True
        for part in self._parts:
            part.reset()
        self._interrupted = False
        return self._obs, {}

    def _part(self, rows: slice, seeds: list[int]) -> PoolPart:
        threads = math.ceil(self.num_threads * len(seeds) / self.num_envs)
        pool = make_pool(self.env_id, seeds, threads)
        return PoolPart(Raw(pool) if self.raw else Public(pool), rows, self.limit)

    @property
    def _obs(self) -> np.ndarray:
        return joined([part.obs for part in self._parts])

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended in the last step."""
        self._check_begun()
        act, asked = np.ascontiguousarray(actions, self.dtype), np.empty(self.num_envs, np.uint8)
        sits_out = self.paused if self.paused.any() else None
        self._interrupted = True
        for part in self._parts:
            wanted = part.asked(None if sits_out is None else sits_out[part.rows])
            asked[part.rows] = wanted
            part.begin(act[part.rows], wanted)
        self._calls.note(act, asked)
        played = [part.finish() for part in self._parts]
        obs, rew, terminated, truncated = (joined(each) for each in zip(*played, strict=True))
        self._interrupted = False
        return obs, rew, terminated, truncated, {}

    def roll(self, choose: Sequence[Any], to_env: Any, obs: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, ...]:
        """A step for every row of noise (T, N, …), as `adapters.rolled`. Each part waits for its own actions only, so that
        one is stepped while the policy acts for the other. choose: the `act` of each of `parts`.
        """
        self._check_begun()
        T, N = noise.shape[:2]
        rew, terminated, truncated = np.empty((T, N), np.float32), np.empty((T, N), bool), np.empty((T, N), bool)
        given, asked, acts = (
            np.empty((N, *(self.single_action_space.shape or ())), self.dtype),
            np.empty(N, np.uint8),
            [],
        )
        self._interrupted = True
        for t in range(T + 1):
            for part, act in zip(self._parts, choose, strict=True):
                n = part.rows
                if t > 0:
                    obs[t, n], rew[t - 1, n], terminated[t - 1, n], truncated[t - 1, n] = part.finish()
                if t < T:
                    acts.append(act(obs[t, n], None, noise[t, n])[0])
                    given[n], wanted = to_env(acts[-1]), part.asked()
                    asked[n] = wanted
                    part.begin(given[n], wanted)
            if t < T:
                self._calls.note(given, asked)
        self._interrupted = False
        return np.concatenate(acts).reshape(T, N, *acts[0].shape[1:]), rew, terminated, truncated

    @property
    def parts(self) -> list[int]:
        """The number of environments in each pool, once they have begun."""
        return [len(part.ids) for part in self._parts]

    def _check_begun(self) -> None:
        if not self._parts or self._interrupted:
            raise RuntimeError("reset the environments first: no episode has begun, or a step was interrupted")

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
        self._marked = self._here()

    def _here(self) -> tuple[Calls, int, np.ndarray, np.ndarray]:
        late = joined([part.late for part in self._parts])
        return self._calls, self._calls.rows, self._obs, late

    def snapshot(self, marked: bool = False) -> list[dict[str, Any] | None]:
        """As `SerialVectorEnv.snapshot`: all that was asked since the pool was made."""
        calls, rows, obs, late = self._marked if marked else self._here()
        return [*calls.snapshot(rows, obs, late)] if rows else [None] * self.num_envs

    def restore(self, snapshots: Sequence[dict[str, Any] | None]) -> list[str | None]:
        """As `SerialVectorEnv.restore`, all environments at once: the pool is made again, and asked the same."""
        try:
            seeds, actions, asked = together(snapshots, self.single_action_space)
            self._parts = []
            for act, what in zip(actions, asked, strict=True):
                if not self._parts or (what == RESET).all():
                    self.reset(seed=None if self._parts else seeds)
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
        for part in self._parts:
            part.pool = None
        self._interrupted = True


def default_threads(env_id: str, num_envs: int) -> int:
    """One where a step is cheaper than waking a thread, else as many as there are cores and environments."""
    if env_id.startswith(CLASSIC_CONTROL):
        return 1
    return cores_for(num_envs)


def halves(env_id: str, num_envs: int) -> list[slice]:
    """The environments of each pool: one for classic control, whose steps are done before a policy has acted, else two.
    Not the number of cores decides, because a batch that is acted for in two parts may have other last bits.
    """
    if env_id.startswith(CLASSIC_CONTROL) or num_envs < 2:
        return [slice(0, num_envs)]
    middle = (num_envs + 1) // 2
    return [slice(0, middle), slice(middle, num_envs)]


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays (n, *) of the parts as one (N, *)."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, np.float32)


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
