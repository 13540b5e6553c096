"""Wrappers that Gymnasium does not have. Its own wrappers can be used unchanged, in a callable.

    def make():
        env = gym.make("LunarLander-v3")
        env = ActionRepeat(env, 2)
        return gym.wrappers.FrameStackObservation(env, 4)

    pg.ppo(make)

| wanted                               | `gymnasium.wrappers`            | good to know                                      |
|--------------------------------------|---------------------------------|---------------------------------------------------|
| a time limit, or another one         | `TimeLimit(env, n)`             | truncates; counts the calls it sees               |
| a limit that the policy can act upon | `TimeAwareObservation(env)`     | the time is one number more in the observation    |
| the last k observations              | `FrameStackObservation(env, k)` | a reset repeats the first one, or pads with zeros |
| every action several times, pictures | `MaxAndSkipObservation(env, k)` | shows the maximum of the last two frames          |
| every action several times, else     | `ActionRepeat(env, k)`, here    | shows the last observation                        |
| smaller pictures, without colour     | `ResizeObservation`             | and `GrayscaleObservation`                        |
| a Dict or a picture as a vector      | `FlattenObservation(env)`       |                                                   |
| actions in other bounds              | `RescaleAction(env, low, high)` |                                                   |

Normalise neither observations nor rewards here: policies and critics do it inside, and what they learnt is saved with the
model.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs


class ActionRepeat(gym.Wrapper):
    """Every action `times` times, or until the episode ends: the rewards' sum, the last observation.

    One step of the learner is up to `times` of the environment: γ discounts decisions, a time limit inside counts the
    environment's steps, one outside counts decisions.
    """

    def __init__(self, env: gym.Env, times: int) -> None:
        if times < 1:
            raise ValueError(f"times must be at least 1, got {times}")
        super().__init__(env)
        self.times = times

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Up to `times` steps with the same action."""
        obs, total, terminated, truncated, info = self.env.step(action)
        total = float(total)
        for _ in range(self.times - 1):
            if terminated or truncated:
                break
            obs, rew, terminated, truncated, info = self.env.step(action)
            total += float(rew)
        return obs, total, terminated, truncated, info


class NewWorld(gym.Wrapper, RecordConstructorArgs):
    """BipedalWalker with a new Box2D world at every reset, as LunarLander has one: in a world that is used again an episode
    depends on the ones before it, so that none can be played again.
    """

    def __init__(self, env: gym.Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in a world of its own."""
        from Box2D import b2World

        inner: Any = self.unwrapped
        inner._destroy()
        inner.world = b2World()
        return self.env.reset(**kwargs)
