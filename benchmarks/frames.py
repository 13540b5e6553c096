"""An environment that costs next to nothing and shows pictures as Atari games do, to measure the time of networks on."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Frames(gym.Env):
    """Sixteen pictures of noise in turn, four frames of 84 × 84 each, in episodes of 200 steps."""

    observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gym.spaces.Discrete(6)

    def __init__(self) -> None:
        self.frames = np.random.default_rng(0).integers(0, 256, (16, 4, 84, 84), np.uint8)
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.time = 0
        return self.frames[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """The next picture; a reward for its number."""
        self.time += 1
        return self.frames[self.time % 16], float(action == self.time % 6), self.time >= 200, False, {}


gym.register("Frames-v0", f"{__name__}:Frames")
