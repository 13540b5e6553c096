"""CarRacing as it is prepared, against Gymnasium's own environment frame by frame."""

from __future__ import annotations

import numpy as np
import pytest

from policygrad.algorithms.config import resolve
from policygrad.envs.families import preparation
from policygrad.envs.single import make_one

RACE = "CarRacing-v3"


def test_an_action_is_held_for_four_frames_and_four_roads_are_shown() -> None:
    env, bare = make_one(RACE), make_one(RACE, preprocess=False)
    obs, frame = env.reset(seed=5)[0], bare.reset(seed=5)[0]
    assert env.observation_space.contains(obs)
    assert obs.shape == (4, 84, 84)
    roads = [grey(frame)] * 4
    for action in ([0.0, 1.0, 0.0], [-1.0, 0.5, 0.0], [1.0, 0.0, 0.9]):
        held = np.array(action, np.float32)
        shown, rewards = [], 0.0
        for _ in range(4):
            frame, rew, *_ = bare.step(held)
            shown.append(frame)
            rewards += float(rew)
        obs, rew, terminated, truncated, _ = env.step(held)
        roads = [*roads[1:], grey(np.maximum(*shown[2:]))]
        assert rew == pytest.approx(rewards, abs=1e-9)
        assert not terminated
        assert not truncated
        assert np.abs(obs.astype(int) - np.stack(roads)).max() <= 1  # of the rounding of grey
    assert (obs[0] != obs[3]).any()


def grey(frame: np.ndarray) -> np.ndarray:
    return (frame[:84, 6:90].astype(np.float64) @ [0.2125, 0.7154, 0.0721]).astype(int)


def test_the_keywords_leave_parts_of_it_out() -> None:
    spaces = {
        (4, 96, 96): {"crop": False},
        (84, 84, 3): {"grayscale": False, "frame_stack": 1},
        (2, 84, 84): {"frame_stack": 2, "frame_skip": 1, "continuous": False},
        (96, 96, 3): {"preprocess": False},
    }
    for shape, keywords in spaces.items():
        env = make_one(RACE, **keywords)
        assert env.observation_space.shape == shape
        env.close()
    with pytest.raises(ValueError, match="frame_skip must be at least 1"):
        make_one(RACE, frame_skip=0)


def test_the_preset_is_that_of_the_family_and_the_preparation_is_said() -> None:
    config, tuned = resolve("ppo", RACE, {})
    assert tuned
    assert config["head"] == "beta"
    assert "grey 84 × 84 pixels of the road" in (preparation(RACE) or "")
    assert preparation(RACE, {"preprocess": False}) is None
