"""CarRacing as agents are usually trained on it: fewer decisions, and pictures that show motion.

innermost   Gymnasium's environment, a picture of 96 × 96 a frame
            MaxAndSkipObservation of Gymnasium: an action is held for four frames
            the road: 84 × 84 pixels, without the panel of instruments below and six columns on either side
            GrayscaleObservation of Gymnasium
outermost   FrameStackObservation of Gymnasium: the last four pictures, from which the speed can be seen
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation, GrayscaleObservation, MaxAndSkipObservation, TransformObservation

ROAD = slice(0, 84), slice(6, 90)  # rows and columns: the panel begins in row 84


def make_racing(
    env_id: str,
    *,
    preprocess: bool = True,
    frame_skip: int = 4,
    frame_stack: int = 4,
    crop: bool = True,
    grayscale: bool = True,
    **kwargs: Any,
) -> gym.Env:
    """A CarRacing environment, prepared; with preprocess=False as Gymnasium registers it.

    frame_skip: frames for which an action is held; its reward is their sum. frame_stack: pictures per observation.
    crop: the road alone, 84 × 84. grayscale: without colour. kwargs: Gymnasium's own, as `continuous` and `domain_randomize`.
    Raises ValueError for numbers below 1.
    """
    env = gym.make(env_id, disable_env_checker=True, **kwargs)
    if not preprocess:
        return env
    for name, value in (("frame_skip", frame_skip), ("frame_stack", frame_stack)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    env = MaxAndSkipObservation(env, frame_skip) if frame_skip > 1 else env
    if crop:
        road = gym.spaces.Box(0, 255, (84, 84, 3), np.uint8)
        env = TransformObservation(env, lambda picture: picture[ROAD], road)
    env = GrayscaleObservation(env) if grayscale else env
    return FrameStackObservation(env, frame_stack) if frame_stack > 1 else env
