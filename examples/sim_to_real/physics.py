"""Physics that a simulator draws anew for every episode, and the two realities of the experiment."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym

FIXED = {"g": 10.0, "m": 1.0, "l": 1.0}  # Pendulum-v1 as it is registered: gravity in m/s², mass in kg, length in m
RANDOMISED = {"g": (8.0, 12.0), "m": (0.5, 1.5), "l": (0.5, 1.5)}
REALITIES = {"light": {"g": 11.0, "m": 0.4, "l": 0.4}, "heavy": {"g": 9.0, "m": 1.6, "l": 1.4}}


class Physics(gym.Wrapper):
    """Sets attributes of the environment inside at every reset: `Physics(env, m=(0.5, 1.5), g=9.8)`.

    A pair is drawn uniformly, by the environment's own generator, so `reset(seed=…)` decides on it too. A number is set as it
    is. They are set after the reset, so the environment's first state must not depend on them. `info["physics"]` has them.
    Raises ValueError for an attribute that the environment does not have as a number, and for a range that is empty or not
    finite.
    """

    def __init__(self, env: gym.Env, **physics: float | tuple[float, float]) -> None:
        super().__init__(env)
        self.ranges = {name: x if isinstance(x, tuple) else (x, x) for name, x in physics.items()}
        for name, (low, high) in self.ranges.items():
            if not isinstance(getattr(env.unwrapped, name, None), int | float):
                raise ValueError(f"{env} has no number {name!r} to set: name attributes of the environment inside")
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"{name} needs a finite range (low, high) with low ≤ high, got {(low, high)}")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        drawn = {name: float(self.np_random.uniform(low, high)) for name, (low, high) in self.ranges.items()}
        for name, x in drawn.items():
            setattr(self.unwrapped, name, x)
        return obs, info | {"physics": drawn}


def randomised(env: gym.Env) -> gym.Env:
    """The wrapper of the randomised simulation; `policygrad train … --wrapper` takes it by its name."""
    return Physics(env, **RANDOMISED)


SIMULATIONS: dict[str, tuple[Callable[[gym.Env], gym.Env], ...]] = {
    "fixed": (),
    "randomised": (randomised,),
}  # wrappers


def reality(name: str) -> gym.Env:
    """A pendulum with the physics of a reality."""
    return Physics(gym.make("Pendulum-v1", disable_env_checker=True), **REALITIES[name])
