"""MiniGrid's cells as one-hot numbers, and the words of its missions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import policygrad as pg
from policygrad.envs.single import make_one
from policygrad.models.networks import MLP

pytest.importorskip("minigrid")
DOOR = "MiniGrid-DoorKey-6x6-v0"


def test_every_cell_is_three_ones() -> None:
    env, bare = make_one(DOOR), make_one(DOOR, one_hot=False)
    assert env.observation_space == gym.spaces.Box(0, 1, (7, 7, 20), np.uint8)
    rng, differ = np.random.default_rng(0), 0
    for seed in range(5):
        obs, (told, _) = env.reset(seed=seed)[0], bare.reset(seed=seed)
        for _ in range(30):
            assert env.observation_space.contains(obs)
            cells = np.stack([obs[..., :11].argmax(-1), obs[..., 11:17].argmax(-1), obs[..., 17:].argmax(-1)], -1)
            assert np.array_equal(cells, told["image"])
            assert (obs.sum(-1) == 3).all()
            action = int(rng.integers(7))
            obs, told = env.step(action)[0], bare.step(action)[0]
            differ += not np.array_equal(obs, 0 * obs)
    assert differ == 150


def test_missions_that_differ_are_words_beside_the_view() -> None:
    env = make_one("MiniGrid-GoToDoor-5x5-v0")
    assert isinstance(env.observation_space, gym.spaces.Dict)
    assert list(env.observation_space) == ["image", "mission"]
    seen = set()
    for seed in range(12):
        obs, _ = env.reset(seed=seed)
        assert env.observation_space.contains(obs)
        bare: Any = env.unwrapped
        words = bare.mission.split()
        assert obs["mission"].sum() == len(set(words))
        seen.add((bare.mission, tuple(obs["mission"])))
    assert len({mission for mission, _ in seen}) == len({said for _, said in seen}) >= 3


def test_an_mlp_learns_from_cells_and_from_missions() -> None:
    for name in (DOOR, "MiniGrid-GoToDoor-5x5-v0"):
        agent = pg.ppo(name, num_envs=2, num_steps=16, minibatches=2, epochs=2, hidden=(8,))
        before = agent.policy.flat.clone()
        agent.learn(32)
        assert isinstance(agent.policy.network, MLP)
        assert not np.array_equal(before.numpy(), agent.policy.flat.numpy())


def test_the_bare_environment_is_refused_with_its_mission() -> None:
    with pytest.raises(TypeError, match="Mission"):
        pg.ppo(DOOR, env_kwargs={"one_hot": False})


def test_pictures_of_it_are_pictures() -> None:
    from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper

    agent = pg.ppo(
        DOOR, num_envs=1, num_steps=8, minibatches=1, epochs=1, env_kwargs={"one_hot": False},
        wrappers=[RGBImgPartialObsWrapper, ImgObsWrapper],
    )  # fmt: skip
    assert "56 × 56 pixels, 3 channels" in repr(agent.policy)
