"""Planted faults, and the rule that must find each: written, with the thresholds, before any rule was.

An `EnvFault` wraps a healthy environment. `benchmarks/doctor.py` measures how many of them the doctor finds, and how often it
warns of a healthy environment. The faults of trainings are in `run_faults.py`.

What changed after the rules were set on CartPole: which number `progress` uses, which rules count for a learning rate of 0.1
and entropy lost at once, that `horizon` ignores stalls, that `critic` is silent on solved tasks, and how long faulty trainings
are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

# The thresholds, as the rules are to have them. With *: a proposal of ours; otherwise from the source that is named.
THRESHOLDS = {
    "bounds": 0.01,  # * share of observations outside of their space
    "constant observations": 0.0,  # standard deviation
    "observation scale": (5.0, 0.01, 10.0),  # * |mean|, and least and largest standard deviation
    "reward scale": (1e-3, 1e3),  # * root mean square of the rewards that are not 0
    "reward outlier": 0.5,  # * share of Σ|r| in one step, of at least 100 rewards that are not 0
    "actions": 0.01,  # level of the permutation test; where the environment can be repeated the comparison is exact
    "reachable reward": 0.01,  # share of random episodes above the commonest return (Schulman)
    "horizon": 0.01,  # * weight γᵗ of the earliest informative reward
    "memory": (0.2, 0.5),  # * unexplained share without the past, and what the past leaves of it
    "time limit as an end": 5,  # * episodes, all terminated after the same number of steps
    "entropy stays": 0.98,  # * of its first value, after 30 % of the run (Jones)
    "entropy collapse": (0.05, 0.2),  # * of its first value, before this share of the run (Jones, Schulman)
    "KL": 0.05,  # nats per update, the report's
    "clip": 0.3,  # share of the steps, the report's
    "critic": 0.0,  # explained variance in the last fifth (Schulman)
    "no gradient": 1e-8,  # * norm
    "batch": 128,  # * steps per update
    "short run": 0.3,  # * of the steps of the tuned preset
    "settings": 30.0,  # * times the learning rate of the tuned preset, or a thirtieth of it
    "improvement": 2.0,  # standard errors between the first and the last fifth of the returns
}


class Altered(gym.Wrapper):
    """A wrapper whose answers are changed by a function (self, obs, rew, terminated, truncated, act) → the same five."""

    def __init__(self, env: gym.Env, change: Callable[..., tuple[Any, ...]], space: spaces.Space | None = None) -> None:
        super().__init__(env)
        self.change, self.time, self.episode, self.memory = change, 0, 0, None
        self.noise = np.random.default_rng(0)
        if space is not None:
            self.observation_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self.noise = np.random.default_rng(seed)
        self.time, self.memory, self.episode = 0, None, self.episode + 1
        return self.change(self, obs, 0.0, False, False, None)[0], info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.time += 1
        obs, rew, terminated, truncated, info = self.env.step(action)
        obs, rew, terminated, truncated = self.change(self, obs, rew, terminated, truncated, action)[:4]
        return obs, rew, terminated, truncated, info


def altered(change: Callable[..., tuple[Any, ...]], space: Callable[[spaces.Box], spaces.Space] | None = None):
    """The wrapper of a change; space: the observation space it has, from the old one."""

    def wrap(env: gym.Env) -> gym.Env:
        return Altered(env, change, None if space is None else space(env.observation_space))  # pyright: ignore

    return wrap


def scaled(factor: float):
    """Observations times a factor, in a space that allows it."""
    wide = lambda space: spaces.Box(-np.inf, np.inf, space.shape, np.float32)  # noqa: E731
    return altered(lambda self, obs, *rest: (np.float32(factor) * obs, *rest), wide)


def with_reward(reward: Callable[..., float]):
    """Another reward: a function (self, obs, rew, over) → reward."""
    return altered(lambda self, obs, rew, term, trunc, act: (obs, reward(self, obs, rew, term or trunc), term, trunc))


class Unseeded(gym.Wrapper):
    """reset(seed=…) draws the first state from the time of day."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(seed=int(np.random.default_rng().integers(2**31)), options=options)


class Deaf(gym.Wrapper):
    """An environment that ignores its actions: the wiring between agent and simulator is broken."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.own = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.own = np.random.default_rng(seed)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        space = self.env.action_space
        if isinstance(space, spaces.Discrete):
            return self.env.step(int(self.own.integers(space.n)))
        assert isinstance(space, spaces.Box)
        return self.env.step(self.own.uniform(space.low, space.high).astype(space.dtype))


class DeafUnseeded(Deaf):
    """The same, and not repeatable, so that only a statistical test can tell."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=int(np.random.default_rng().integers(2**31)), options=options)


class ExtraAction(gym.Wrapper):
    """A second action that nobody reads, beside that of the environment."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        space = env.action_space
        if isinstance(space, spaces.Discrete):
            self.action_space = spaces.MultiDiscrete([space.n, 3])
        else:
            assert isinstance(space, spaces.Box)
            self.action_space = spaces.Box(np.append(space.low, -1.0), np.append(space.high, 1.0), dtype=np.float32)

    def step(self, action: Any) -> Any:
        space = self.env.action_space
        return self.env.step(int(action[0]) if isinstance(space, spaces.Discrete) else action[:-1])


class Endless(gym.Wrapper):
    """Nothing ever ends."""

    def step(self, action: Any) -> Any:
        obs, rew, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            obs, info = self.env.reset()
        return obs, rew, False, False, info


class Limited(gym.Wrapper):
    """Every episode is `terminated` after some steps, which no observation shows."""

    def __init__(self, env: gym.Env, limit: int = 5) -> None:
        super().__init__(env)
        self.limit, self.time = limit, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.time += 1
        obs, rew, _, _, info = self.env.step(action)
        return obs, rew, self.time >= self.limit, False, info


class Latched(gym.Env):
    """1,000 steps whose only reward, at the end, is whether the first action was 1; the observation shows time and action."""

    def __init__(self, env: gym.Env | None = None, length: int = 1000) -> None:
        self.length, self.time, self.first = length, 0, 0
        self.observation_space, self.action_space = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2)

    def observe(self) -> np.ndarray:
        return np.array([self.time / self.length, self.first], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.first = 0, 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.first = int(action) if self.time == 0 else self.first
        self.time += 1
        over = self.time == self.length
        return self.observe(), float(over and self.first), over, False, {}


def hidden(indices: tuple[int, ...]):
    """Observations without the components of these numbers."""

    def wrap(env: gym.Env) -> gym.Env:
        space = env.observation_space
        assert isinstance(space, spaces.Box)
        keep = [i for i in range(space.shape[0]) if i not in indices]
        box = spaces.Box(space.low[keep], space.high[keep], dtype=np.float32)
        return Altered(env, lambda self, obs, *rest: (np.asarray(obs)[keep], *rest), box)

    return wrap


def now_and_then_nan(self: Altered, obs: Any, rew: Any, *rest: Any) -> tuple[Any, ...]:
    obs = np.array(obs, np.float32)
    if self.time and self.noise.random() < 0.005:
        obs[0] = np.nan
    return (obs, rew, *rest)


def nan_reward(self: Altered, obs: Any, rew: Any, over: bool) -> float:
    return float("nan") if self.noise.random() < 0.005 else float(rew)


def not_deterministic(self: Altered, obs: Any, *rest: Any) -> tuple[Any, ...]:
    return (np.asarray(obs) + np.random.default_rng().normal(0.0, 0.01, obs.shape).astype(np.float32), *rest)


BOX = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "LunarLander-v3")
ALL = (*BOX, "Taxi-v4")
VELOCITIES = {"CartPole-v1": (1, 3), "Pendulum-v1": (2,), "Acrobot-v1": (4, 5), "LunarLander-v3": (2, 3, 5)}


@dataclass(frozen=True)
class EnvFault:
    """A fault of an environment. rules: any of them counts as found. wrap: what is put around the healthy environment."""

    name: str
    rules: tuple[str, ...]
    wrap: Callable[[gym.Env], gym.Env]
    envs: tuple[str, ...] = BOX


def no_velocities(env: gym.Env) -> gym.Env:
    """Positions without velocities."""
    spec = env.unwrapped.spec
    assert spec is not None
    return hidden(VELOCITIES[spec.id])(env)


ENV_FAULTS = [
    EnvFault("observations × 1e4", ("observation scale",), scaled(1e4)),
    EnvFault("observations × 1e-4", ("observation scale",), scaled(1e-4)),
    EnvFault(
        "observations + 1000",
        ("observation scale",),
        altered(
            lambda self, obs, *rest: (np.float32(1000.0) + obs, *rest),
            lambda space: spaces.Box(-np.inf, np.inf, space.shape, np.float32),
        ),
    ),
    EnvFault("constant observations", ("constant observations",), scaled(0.0)),
    EnvFault(
        "observations outside of their space",
        ("bounds",),
        altered(lambda self, obs, *rest: (obs, *rest), lambda space: spaces.Box(-1e-3, 1e-3, space.shape, np.float32)),
    ),
    EnvFault("NaN now and then in observations", ("contract",), altered(now_and_then_nan)),
    EnvFault("NaN now and then in rewards", ("contract",), with_reward(nan_reward), ALL),
    EnvFault(
        "observations of another shape",
        ("contract",),
        altered(lambda self, obs, *rest: (np.append(obs, 0.0).astype(np.float32), *rest)),
    ),
    EnvFault(
        "floats in a space of whole numbers",
        ("contract",),
        altered(
            lambda self, obs, *rest: (0.5 + np.floor(obs), *rest),
            lambda space: spaces.Box(-100, 100, space.shape, np.int32),
        ),
    ),
    EnvFault("a reward that is an array", ("contract",), with_reward(lambda self, obs, rew, over: np.ones(2)), ALL),  # pyright: ignore
    EnvFault("seeds ignored", ("seeds",), Unseeded, ALL),
    EnvFault("noise without a seed", ("determinism", "seeds"), altered(not_deterministic)),
    EnvFault("actions without an effect", ("actions",), Deaf, ALL),
    EnvFault("actions without an effect, not repeatable", ("actions",), DeafUnseeded, ALL),
    EnvFault("one component of the action without an effect", ("actions",), ExtraAction),  # Taxi's mask would not fit
    EnvFault("rewards × 1e5", ("reward scale",), with_reward(lambda self, obs, rew, over: 1e5 * float(rew)), ALL),
    EnvFault("rewards × 1e-6", ("reward scale",), with_reward(lambda self, obs, rew, over: 1e-6 * float(rew)), ALL),
    EnvFault("rewards of 0", ("reachable reward",), with_reward(lambda self, obs, rew, over: 0.0), ALL),
    EnvFault(
        "a reward that random play never reaches",
        ("reachable reward",),
        with_reward(lambda self, obs, rew, over: float(self.time > 100_000)),
        ALL,
    ),
    EnvFault(
        "one reward outweighs all others",
        ("reward outlier",),
        with_reward(lambda self, obs, rew, over: 1e5 if self.episode == 4 and self.time == 3 else 1.0),
        ALL,
    ),
    EnvFault("a limit that is said to be an end", ("time limit as an end",), Limited, ALL),
    EnvFault("no end and no limit", ("no end",), Endless, ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")),
    EnvFault("a reward beyond the horizon", ("horizon",), Latched, ("CartPole-v1",)),
    EnvFault("velocities hidden", ("memory",), no_velocities),
]
