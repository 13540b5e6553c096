"""Training on pictures: by every recipe, in bytes until a minibatch needs floats, saved, loaded and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from interrupted import files
from torch import Tensor

import policygrad as pg
from policygrad.algorithms.recipes import RECIPES
from policygrad.data import Rollout
from policygrad.envs import processes
from policygrad.envs.advice import AdviceWarning
from policygrad.models.networks import MLP
from policygrad.models.pictures import PictureError, has_pictures
from policygrad.models.policy import Policy
from policygrad.stored.directory import RunDirectory
from policygrad.stored.storage import load_state, save_state
from policygrad.training import threads
from policygrad.training.resume import resume
from policygrad.training.threads import threads_for
from policygrad.training.train import train


class Lamp(gym.Env):
    """A picture of noise with a bright half, left or right; the reward is for pointing at it."""

    observation_space: spaces.Space = spaces.Box(0, 255, (16, 18, 3), np.uint8)
    action_space: spaces.Space = spaces.Discrete(2)

    def _show(self) -> np.ndarray:
        self.side = int(self.np_random.integers(2))
        shown = self.np_random.integers(0, 120, (16, 18, 3), np.uint8)
        shown[:, 9 * self.side : 9 * self.side + 9] += 130
        return shown

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float((np.ravel(action)[0] > 0.5) == self.side)
        self.time += 1
        return self._show(), reward, self.time == 8, False, {}


class Dimmer(Lamp):
    """The same with a continuous action."""

    action_space = spaces.Box(0.0, 1.0, (1,))


gym.register("Lamp-v0", Lamp)
FEW: dict[str, Any] = {"num_steps": 8, "num_envs": 2, "hidden": (4,), "episodes": 3, "minibatches": 2, "epochs": 2}
FEW |= {
    "critic_minibatches": 2,
    "critic_epochs": 2,
    "cg_iterations": 3,
    "warmup": 8,
    "batch_size": 8,
    "buffer_size": 64,
}
FEW |= {"gradient_steps": 1, "min_ess": 0.0, "clone_epochs": 1}


def small(algo: str) -> dict[str, Any]:
    keywords = {name: value for name, value in FEW.items() if name in RECIPES[algo].keywords}
    return keywords | ({} if "episodes" not in RECIPES[algo].keywords else {"num_envs": 3})


@pytest.mark.parametrize("algo", [algo for algo in RECIPES if algo != "a3c"])
def test_every_recipe_takes_steps_on_pictures(algo: str) -> None:
    agent = pg.Agent(algo, Dimmer if RECIPES[algo].spec.gradient == "pathwise" else Lamp, **small(algo))
    assert has_pictures(agent.policy.network)
    before = agent.policy.flat.clone()
    agent.learn(48)
    assert torch.isfinite(agent.policy.flat).all()
    moved = (agent.policy.flat != before).float()
    first = agent.policy.network.get_parameter("body.parts.0.convolutions.0.weight") if algo == "ppo" else None
    assert moved.mean() > 0.3
    assert first is None or moved[: first.numel()].mean() > 0.3


def test_it_learns_what_the_picture_shows() -> None:
    agent = pg.ppo(Lamp, seed=1, num_envs=4, num_steps=32, epochs=4, minibatches=4, lr=1e-3, hidden=())
    agent.learn(1500)
    assert agent.evaluate(10).mean == 8.0
    blind = pg.ppo(Lamp, seed=1, num_envs=4, num_steps=32, epochs=4, minibatches=4, lr=0.0, hidden=())
    assert blind.evaluate(10).mean < 7.0  # the negative control


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_pictures_stay_bytes_until_a_minibatch_needs_them(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = pg.Agent(
        algo, Lamp, **small(algo) | {"minibatches": 4, "critic_minibatches": 4} if algo == "ppo" else small(algo)
    )
    with_graph: list[int] = []
    features = Policy.features

    def seen(self: Policy, obs: Tensor) -> Tensor:
        assert obs.dtype == torch.uint8
        with_graph.append(len(obs))
        return features(self, obs)

    monkeypatch.setattr(Policy, "features", seen)
    records: list[Any] = []
    agent.collector.observers.append(records.append)
    agent.learn(32)
    assert {record.obs.dtype for record in records} == {np.dtype(np.uint8)}
    if algo == "dqn":
        assert agent.learner.replay.store["obs"].dtype == np.uint8
        return
    rollout = Rollout.of(records[0], agent.policy)
    assert rollout.obs.dtype == torch.uint8
    with_graph.clear()
    agent.learner.critic.fit(rollout, torch.zeros(rollout.rew.shape), agent.policy)
    assert with_graph == [4] * 8  # two epochs of four minibatches: never all sixteen rows


def test_an_agent_of_pictures_is_saved_loaded_and_predicts(tmp_path: Path) -> None:
    agent = pg.ppo(Lamp, **small("ppo"), network="cnn").learn(32)
    again = pg.load(agent.save(tmp_path / "lamp"), env=Lamp)
    assert again.config["network"] == "cnn"
    obs = np.stack([Lamp().reset(seed=k)[0] for k in range(6)])
    assert torch.equal(agent.policy.dist(torch.from_numpy(obs)), again.policy.dist(torch.from_numpy(obs)))
    assert np.array_equal(agent.predict(obs, deterministic=True)[0], again.predict(obs, deterministic=True)[0])
    assert agent.predict(obs[0])[0] in (0, 1)
    assert torch.equal(agent.learn(32).policy.flat, again.learn(32).policy.flat)


def test_a_file_from_before_the_choice_has_an_mlp(tmp_path: Path) -> None:
    with pytest.warns(AdviceWarning, match="network = cnn"):
        agent = pg.ppo(Lamp, **small("ppo"), network="mlp")
    path = agent.save(tmp_path / "old")
    state, meta = load_state(path)
    del meta["config"]["network"]
    save_state(path, state, meta)
    again = pg.load(path, env=Lamp)
    assert isinstance(again.policy.network, MLP)
    assert torch.equal(again.policy.flat, agent.policy.flat)


def interrupted(agent: Any, row: Any) -> None:
    if agent.collector.steps_done >= 40:
        raise KeyboardInterrupt


def test_what_was_guessed_stands_in_the_run_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    def begin(where: str) -> Any:
        return pg.ppo("Lamp-v0", seed=2, **small("ppo") | {"steps": 96}), tmp_path / where

    agent, path = begin("whole")
    train(agent, path, episodes=2, callback=lambda agent, row: None)
    config = json.loads((path / "config.json").read_text())
    assert config["config"]["network"] == "auto"
    assert config["threads"] == threads_for(agent.policy)
    assert "16 × 18 pixels, 3 channels, channels last" in config["pictures"][0]
    agent, path = begin("half")
    with pytest.raises(KeyboardInterrupt):
        train(agent, path, episodes=2, callback=interrupted)
    assert not (path / "evaluation.json").exists()
    resume(path, callback=lambda agent, row: None)
    assert files(RunDirectory(path)) == files(RunDirectory(tmp_path / "whole"))


def test_an_mlp_on_raw_pixels_is_refused_where_the_agent_is_made() -> None:
    class Flattened(Lamp):
        observation_space = spaces.Box(0, 255, (864,), np.uint8)

        def _show(self) -> np.ndarray:
            return super()._show().reshape(-1)

    with pytest.raises(PictureError, match="network = mlp"):
        pg.ppo(Flattened, **small("ppo"))
    with pytest.warns(AdviceWarning, match="bytes up to 255"):
        pg.ppo(Flattened, **small("ppo"), network="mlp").learn(16)


def test_a_stack_of_frames_is_one_picture() -> None:
    agent = pg.ppo(lambda: gym.wrappers.FrameStackObservation(Lamp(), 3), **small("ppo"))
    assert "3 frames of 16 × 18 pixels" in repr(agent.policy)
    agent.learn(16)


def test_threads_follow_the_network_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    seeing, plain = pg.ppo(Lamp, **small("ppo")), pg.ppo("CartPole-v1", **small("ppo"))
    monkeypatch.setattr(threads, "AVAILABLE", 6)
    monkeypatch.setattr(processes, "usable_cores", lambda: 4)
    assert (threads_for(seeing.policy), threads_for(plain.policy)) == (4, 1)
    monkeypatch.setattr(processes, "most_cores", 1)  # several seeds side by side
    assert threads_for(seeing.policy) == 1
    monkeypatch.setattr(processes, "most_cores", None)
    monkeypatch.setattr(threads, "AVAILABLE", 1)  # OMP_NUM_THREADS = 1
    assert threads_for(seeing.policy) == 1
    used: list[int] = []
    monkeypatch.setattr(threads, "AVAILABLE", 3)
    before = torch.get_num_threads()
    seeing.learn(16, lambda agent, row: used.append(torch.get_num_threads()))
    assert set(used) == {3}
    assert torch.get_num_threads() == before
