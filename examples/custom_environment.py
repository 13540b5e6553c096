"""An environment of your own: keep a room warm with a heater that is on or off. `python examples/custom_environment.py`"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np

import policygrad as pg


class Room(gym.Env):
    """Observation: temperature and the outside's, scaled to about ±1; action: heater off or on; reward: comfort − cost."""

    observation_space = gym.spaces.Box(-5.0, 5.0, (2,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)  # gives self.np_random
        self.room, self.outside = self.np_random.uniform((10.0, -5.0), (25.0, 15.0))
        return self.observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.room += 0.1 * (self.outside - self.room) + 3.0 * int(action) + self.np_random.normal(0.0, 0.2)
        reward = -abs(self.room - 20.0) / 10.0 - 0.05 * int(action)
        frozen = bool(self.room < 0.0)  # the task is over: terminated. TimeLimit below says truncated: not the same
        return self.observe(), reward - 10.0 * frozen, frozen, False, {}

    def observe(self) -> np.ndarray:
        return np.array([(self.room - 20.0) / 10.0, (self.outside - 5.0) / 10.0], np.float32)


if __name__ == "__main__":
    agent = pg.ppo(lambda: gym.wrappers.TimeLimit(Room(), 100), num_steps=128, lr=1e-3)
    before = agent.evaluate(episodes=20)
    agent.learn(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
    print(f"mean return before {before}, after {agent.evaluate(episodes=20)}")
