"""Reward shaping by wrappers around single environments: any bonus, and the potentials that keep optimal policies optimal.

    pg.ppo(lambda: PotentialShaping(gym.make("MountainCar-v0"), lambda obs: 10.0 * abs(obs[0] + 0.5), gamma=0.99))

The learner sees the shaped rewards alone. The environment's own stay in sight: `info["unshaped_reward"]` of every step,
`unshaped_return` of the episode, and inside `with unshaped(env):` they are what `step` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np

Bonus = Callable[[Any, Any, Any, bool], float]  # (obs, act, next_obs, terminated) → what is added to the reward
Potential = Callable[[Any], float]  # obs → Φ(obs)
Transition = tuple[Any, float, bool, bool, dict[str, Any]]


class TrainingOnly(gym.Wrapper):
    """A wrapper that changes the task for training. active: whether it does; inside `with unshaped(env):` it does not."""

    active = True


class ShapedReward(TrainingOnly):
    """r + bonus(obs, act, next_obs, terminated).

    Free-form shaping changes the problem: whatever earns most bonus may become the best policy (paying for movement, the
    best is to oscillate). `PotentialShaping` is the form that cannot do this.

    active: whether the bonus is added; unshaped_return: the environment's own rewards of this episode, summed.
    """

    def __init__(self, env: gym.Env, bonus: Bonus) -> None:
        super().__init__(env)
        self.bonus = bonus
        self.active = True
        self.unshaped_return = 0.0
        self._obs: Any = None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        obs, info = self.env.reset(**kwargs)
        self.unshaped_return = 0.0
        self._obs = _kept(obs)
        return obs, info

    def step(self, action: Any) -> Transition:
        """One step; `info["unshaped_reward"]` is the environment's own reward."""
        obs, rew, terminated, truncated, info = self.env.step(action)
        rew = float(rew)
        self.unshaped_return += rew
        bonus = self._bonus(action, obs, terminated, truncated)
        self._obs = _kept(obs)
        return obs, rew + bonus if self.active else rew, terminated, truncated, {**info, "unshaped_reward": rew}

    def _bonus(self, act: Any, next_obs: Any, terminated: bool, truncated: bool) -> float:
        return float(self.bonus(self._obs, act, next_obs, terminated))


class PotentialShaping(ShapedReward):
    """r + γΦ(s′) − Φ(s), where Φ(s′) is 0 if s′ is terminal: Ng, Harada & Russell 1999, theorem 1.

    Along an episode the bonuses telescope to −Φ(s₀), whatever the actions: J moves by −E Φ(s₀), its gradient and the best
    policies stay, and V and Q move by −Φ(s). That holds for the learner's own γ: pass the same one.

    At a truncation Φ(s′) counts, as V(s′) does for a learner that bootstraps. A learner without a critic counts nothing
    after it, so the time limit is the end of its problem, and its best policies stay only if Φ(s′) is 0 there as well
    (Grześ 2017): `truncation_ends=True`.
    """

    def __init__(self, env: gym.Env, potential: Potential, gamma: float, truncation_ends: bool = False) -> None:
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1] and equal the learner's, got {gamma}")
        super().__init__(env, self._difference)
        self.potential, self.gamma, self.truncation_ends = potential, gamma, truncation_ends

    def _bonus(self, act: Any, next_obs: Any, terminated: bool, truncated: bool) -> float:
        return self._difference(self._obs, act, next_obs, terminated or (self.truncation_ends and truncated))

    def _difference(self, obs: Any, act: Any, next_obs: Any, over: bool) -> float:
        """γΦ(s′) − Φ(s)."""
        after = 0.0 if over else float(self.potential(next_obs))
        return self.gamma * after - float(self.potential(obs))


@contextmanager
def unshaped(*envs: gym.Env) -> Iterator[None]:
    """In this context the environments give their own rewards: every TrainingOnly around them is switched off."""
    layers = [layer for env in envs for layer in _shaping(env)]
    before = [layer.active for layer in layers]
    try:
        for layer in layers:
            layer.active = False
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer.active = active


def is_shaped(*envs: gym.Env) -> bool:
    """Whether a TrainingOnly is around one of the environments: then returns in training are of another task."""
    return any(True for env in envs for _ in _shaping(env))


def _shaping(env: gym.Env) -> Iterable[TrainingOnly]:
    """Every TrainingOnly between this wrapper and the bare environment."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TrainingOnly):
            yield env
        env = env.env


def _kept(obs: Any) -> Any:
    """A copy: an environment may write the next observation into the same memory."""
    return obs.copy() if isinstance(obs, np.ndarray) else deepcopy(obs)
