"""Random play, recorded: the evidence of the rules about environments.

Actions are drawn uniformly and independently from the action space, or from a normal distribution where a box has no bounds.
Where the environment says which actions are legal, they are drawn among those. Every answer is looked at by `SerialVectorEnv`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from policygrad.envs.journal import digest
from policygrad.envs.serial import SerialVectorEnv
from policygrad.errors import ContractError, NotFiniteError, PolicygradError
from policygrad.models.observations import ACTION_MASK, Encoding, flat_mask

WIDEST = 512  # features of an observation that are kept; of wider ones, such as pictures, evenly spaced ones are


@dataclass
class RandomPlay:
    """Steps of random play, in order. N steps, D features of an observation, A features of an action.

    obs (M, D): every observation, the last of an episode included. at (N,): the row of the observation that step n acts on;
    what follows is in the next row. choices (D,) bool: features that are choices and not numbers. outside: the share of
    observations that are not in their space. legal (N,): steps with equal numbers had the same legal actions; all 0 where the
    environment does not say which are. digests: of every observation. error: what ended it, or None.
    """

    obs: np.ndarray
    at: np.ndarray
    act: np.ndarray
    rew: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    time: np.ndarray
    choices: np.ndarray
    outside: float
    digests: list[str]
    legal: np.ndarray
    error: PolicygradError | None = None

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.rew)

    @property
    def over(self) -> np.ndarray:
        """Whether step n ended its episode (N,)."""
        return self.terminated | self.truncated

    @property
    def lengths(self) -> np.ndarray:
        """The number of steps of every finished episode."""
        return self.time[self.over] + 1

    @property
    def episodes(self) -> list[np.ndarray]:
        """The rewards of every finished episode."""
        return np.split(self.rew, np.flatnonzero(self.over) + 1)[:-1]

    @property
    def returns(self) -> np.ndarray:
        """The sum of the rewards of every finished episode."""
        return np.array([float(rewards.sum()) for rewards in self.episodes])

    def same(self, other: RandomPlay) -> bool:
        """Whether both show the same observations, rewards and ends, to the last bit."""
        ours = (self.rew, self.terminated, self.truncated)
        theirs = (other.rew, other.terminated, other.truncated)
        return self.digests == other.digests and all(map(np.array_equal, ours, theirs))


@dataclass
class Tape:
    """What is written while playing."""

    obs: list[np.ndarray] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    act: list[np.ndarray] = field(default_factory=list)
    rew: list[float] = field(default_factory=list)
    ends: list[tuple[bool, bool]] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    outside: int = 0
    legal: list[bytes] = field(default_factory=list)


Chooser = Callable[[int, Any], Any]  # (step, mask or None) → action


def uniform(space: spaces.Space, seed: int) -> Chooser:
    """Independent, uniformly random actions, among the legal ones of Discrete and MultiDiscrete spaces."""
    rng = np.random.default_rng(seed)
    sizes = {spaces.Discrete: lambda: [space.n], spaces.MultiBinary: lambda: [2] * int(np.prod(space.shape))}  # pyright: ignore
    sizes[spaces.MultiDiscrete] = lambda: space.nvec.reshape(-1).tolist()  # pyright: ignore

    def choose(step: int, mask: Any) -> Any:
        if isinstance(space, spaces.Box):
            return boxed(space, rng)
        if type(space) not in sizes:
            raise ContractError(f"no policy has actions of {space}")
        counts = sizes[type(space)]()
        legal = np.ones(sum(counts), bool) if mask is None else flat_mask(mask).astype(bool)
        if legal.size != sum(counts):
            raise ContractError(
                f"{ACTION_MASK} has {legal.size} entries, and the actions of {space} need {sum(counts)}"
            )
        parts = [np.flatnonzero(part) for part in np.split(legal, np.cumsum(counts)[:-1])]
        if not all(map(len, parts)):
            raise ContractError(f"{ACTION_MASK} leaves no legal action")
        drawn = np.array([part[rng.integers(len(part))] for part in parts], space.dtype) + getattr(space, "start", 0)
        return space.dtype.type(drawn[0]) if isinstance(space, spaces.Discrete) else drawn.reshape(space.shape)  # pyright: ignore

    return choose


def boxed(space: spaces.Box, rng: np.random.Generator) -> np.ndarray:
    """Uniform between the bounds; without bounds normal, clipped."""
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    low, high = np.where(bounded, space.low, 0.0), np.where(bounded, space.high, 0.0)
    drawn = np.where(bounded, rng.uniform(low, high), np.clip(rng.normal(size=space.shape), space.low, space.high))
    return drawn.astype(space.dtype)


def another(space: spaces.Space, seed: int, component: int) -> Chooser:
    """The actions of `uniform`, with one component drawn anew: they differ from those in this component alone."""
    same, other = uniform(space, seed), uniform(space, seed + 1)

    def choose(step: int, mask: Any) -> Any:
        act, changed = np.array(same(step, mask)), other(step, mask)
        act.reshape(-1)[component] = np.asarray(changed).reshape(-1)[component]
        return act

    return choose


def features_of(space: spaces.Space, act: Any) -> np.ndarray:
    """An action as numbers: choices as one-hot."""
    return np.asarray(spaces.flatten(space, act), np.float64).reshape(-1)


def play(
    make: Callable[[], gym.Env],
    steps: int,
    seed: int,
    choose: Callable[[spaces.Space], Chooser] | None = None,
    episodes: int = 10**9,
) -> RandomPlay:
    """Play so many steps, or so many whole episodes if they are over earlier, in one environment, reset with this seed.

    choose: what chooses the actions, made of the action space; random ones unless given. An error of the environment ends the
    play, and is kept.
    """
    tape, error = Tape(), None
    envs = SerialVectorEnv([make])
    encoding = Encoding(envs.single_observation_space)
    try:
        chosen = uniform(envs.single_action_space, seed) if choose is None else choose(envs.single_action_space)
        _roll(envs, encoding, tape, steps, seed, chosen, episodes)
    except PolicygradError as raised:
        error = raised
    finally:
        envs.close()
    return _played(tape, encoding, error)


def _roll(
    envs: SerialVectorEnv, encoding: Encoding, tape: Tape, steps: int, seed: int, choose: Chooser, episodes: int
) -> None:
    envs.report_masks = True
    space, tree = envs.single_action_space, encoding.empty(1)
    obs, info = envs.reset(seed=seed)
    _note(envs, encoding, tape, obs, tree)
    time = done = 0
    for step in range(steps):
        given = info.get(ACTION_MASK, [None])[0]
        if given is None and encoding.mask_space is not None:
            given = obs[ACTION_MASK][0]
        tape.legal.append(b"" if given is None else flat_mask(given).astype(bool).tobytes())
        act = choose(step, given)
        tape.at.append(len(tape.obs) - 1)
        tape.act.append(features_of(space, act))
        obs, rew, terminated, truncated, info = envs.step(np.asarray(act)[None] if _array(space) else [act])
        if not math.isfinite(rew[0]):
            raise NotFiniteError(f"the reward is {rew[0]} at step {time} of episode {done + 1}")
        tape.rew.append(float(rew[0]))
        tape.ends.append((bool(terminated[0]), bool(truncated[0])))
        tape.time.append(time)
        _note(envs, encoding, tape, obs, tree)
        time += 1
        if terminated[0] or truncated[0]:
            time, done = 0, done + 1
            if done == episodes:
                return
            obs, _, _, _, info = envs.step(np.asarray(act)[None] if _array(space) else [act])  # resets
            _note(envs, encoding, tape, obs, tree)


def _array(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Discrete)


def _note(envs: SerialVectorEnv, encoding: Encoding, tape: Tape, obs: Any, tree: Any) -> None:
    """Write an observation down. Raises NotFiniteError for one that no policy can read."""
    encoding.encode(obs, {}, tree)
    encoding.check(tree, whose=lambda n: "expected")
    features = np.asarray(encoding.features(tree), np.float32).reshape(-1)
    tape.digests.append(digest(features))
    tape.obs.append(features[:: stride(features.size)].copy())
    tape.outside += not all(
        within(leaf.space, x[0]) for leaf, x in encoding.arrays(tree) if isinstance(leaf.space, spaces.Box)
    )


def within(space: spaces.Box, x: np.ndarray) -> bool:
    """Whether an observation is in its box, up to a thousandth of its width for rounding."""
    room = 1e-3 * np.maximum(
        1.0, np.where(np.isfinite(space.high) & np.isfinite(space.low), space.high - space.low, 1.0)
    )
    return bool(((x >= space.low - room) & (x <= space.high + room)).all())


def stride(width: int) -> int:
    """Every how many features one is kept."""
    return -(-width // WIDEST)


def _played(tape: Tape, encoding: Encoding, error: PolicygradError | None) -> RandomPlay:
    count = sum(at + 1 < len(tape.obs) for at in tape.at[: len(tape.rew)])  # the last answer may have been refused
    choices = np.concatenate([np.full(leaf.width, leaf.one_hot or leaf.limited) for leaf in encoding.leaves])
    ends = np.array(tape.ends[:count], bool).reshape(count, 2)
    return RandomPlay(
        obs=np.array(tape.obs, np.float32).reshape(len(tape.obs), len(choices[:: stride(len(choices))])),
        at=np.array(tape.at[:count], int),
        act=np.array(tape.act[:count]).reshape(count, -1) if count else np.empty((0, 0)),
        rew=np.array(tape.rew[:count], float),
        terminated=ends[:, 0],
        truncated=ends[:, 1],
        time=np.array(tape.time[:count], int),
        choices=choices[:: stride(len(choices))],
        outside=tape.outside / max(len(tape.obs), 1),
        digests=tape.digests,
        legal=np.unique(np.array(tape.legal[:count], object), return_inverse=True)[1].astype(int)
        if count
        else np.empty(0, int),
        error=error,
    )
