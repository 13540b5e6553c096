"""What `load` takes of a run: the whole agent where it can be had; and what it says where a file holds the policy alone."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import same_state
from gymnasium import spaces

import policygrad as pg
from policygrad.algorithms.foreign import LOADING, ForeignWordError
from policygrad.stored.directory import RunDirectory, RunError
from policygrad.stored.pretrained import UnknownPolicyError
from policygrad.stored.storage import ModelFileError, load_state, save_state
from policygrad.training.train import train
from policygrad.training.values import NoValueError

PPO: dict[str, Any] = {"num_envs": 2, "num_steps": 16, "hidden": (4,), "minibatches": 1, "epochs": 1}
REPLAY: dict[str, Any] = {"hidden": (4,), "warmup": 8, "batch_size": 4, "num_envs": 1}
RUNS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "ppo": ("ppo", "CartPole-v1", PPO, 96),
    "shared": ("ppo", "CartPole-v1", PPO | {"shared_body": True, "normalize_obs": True}, 96),
    "dqn": ("dqn", "CartPole-v1", REPLAY, 40),  # whose policy has a plain value, ε, beside its weights
    "sac": ("sac", "Pendulum-v1", REPLAY, 40),
    "trpo": ("trpo", "Pendulum-v1", {"num_envs": 2, "num_steps": 16, "hidden": (4,)}, 96),
}
ANEW = "file of the policy alone, so critic, optimisers and counters begin anew"
UNTRAINED = "file of the policy alone, so its critic is untrained"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[pg.Agent, RunDirectory]]:
    """Agents and their runs, each trained once."""

    @cache
    def make(name: str) -> tuple[pg.Agent, RunDirectory]:
        algo, env, words, steps = RUNS[name]
        agent = pg.Agent(algo, env, seed=2, **words)
        return agent, train(agent, tmp_path_factory.mktemp(name) / "run", steps=steps, episodes=1)

    return make


@pytest.fixture
def trained(runs: Any, tmp_path: Path) -> Callable[..., tuple[pg.Agent, RunDirectory, np.ndarray]]:
    """The agent, which stays as it is, a copy of its run, and observations."""

    def copied(name: str, folder: Path = tmp_path) -> tuple[pg.Agent, RunDirectory, np.ndarray]:
        agent, run = runs(name)
        obs = agent.observation_space
        obs.seed(0)
        path = shutil.copytree(run.path, folder / "run")
        return agent, RunDirectory(path), np.clip([obs.sample() for _ in range(3)], -2, 2).astype(np.float32)

    return copied


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_loaded_with_all_that_training_needs(name: str, trained: Any) -> None:
    agent, run, obs = trained(name)
    loaded = pg.load(run.path)
    checkpoint, policy = load_state(run.checkpoints()[-1])[0], load_state(run.policy_file)[0]
    assert same_state(checkpoint["learner"]["policy"], policy["learner"]["policy"])  # to the bit
    assert same_state(loaded.learner.state_dict(), agent.learner.state_dict())
    assert loaded.num_timesteps == agent.num_timesteps > 0
    assert np.array_equal(loaded.value(obs), agent.value(obs))
    assert np.array_equal(loaded.predict(obs)[0], pg.load_policy(run.path).predict(obs)[0])
    assert loaded.learn(32).num_timesteps > agent.num_timesteps  # without a warning: they are errors here


@pytest.mark.parametrize("name", RUNS)
def test_a_file_of_the_policy_alone_has_no_values_and_says_once_what_begins_anew(
    name: str, trained: Any, tmp_path: Path
) -> None:
    agent, run, obs = trained(name)
    loaded = pg.load(run.policy_file)
    assert np.array_equal(loaded.predict(obs, True)[0], agent.predict(obs, True)[0])
    if name == "dqn":  # whose values are the policy
        assert np.array_equal(loaded.value(obs), agent.value(obs))
    else:
        with pytest.raises(NoValueError, match=UNTRAINED):
            loaded.value(obs)
    with pytest.warns(UserWarning, match=ANEW) as told:
        loaded.learn(40)
    assert len(told) == 1
    assert Path(told[0].filename) == Path(__file__)
    assert np.isfinite(loaded.value(obs)).all()
    loaded.learn(40)
    again = pg.load(loaded.save(tmp_path / "whole"))
    assert np.array_equal(again.value(obs), loaded.value(obs))


def test_an_agent_without_a_critic_says_that_and_not_that_it_is_untrained(tmp_path: Path) -> None:
    agent = pg.reinforce("CartPole-v1", baseline="none", hidden=(4,))
    with pytest.raises(NoValueError, match="learns no values"):
        pg.load(agent.save_policy(tmp_path / "policy")).value(np.zeros(4))


def test_a_checkpoint_of_another_step_than_the_policy_is_not_taken(trained: Any) -> None:
    agent, run, obs = trained("ppo")
    first = agent.predict(obs, True)[0]
    agent = pg.load(run.path).learn(64)
    run.save_checkpoint(agent.save, 10_000)  # as of a resumed run that was killed
    loaded = pg.load(run.path)
    assert same_state(loaded.policy.state_dict(), load_state(run.policy_file)[0]["learner"]["policy"])
    assert np.array_equal(loaded.predict(obs, True)[0], first)
    with pytest.raises(NoValueError, match=UNTRAINED):
        loaded.value(obs)
    run.policy_file.unlink()
    assert np.array_equal(pg.load(run.path).value(obs), agent.value(obs))


def test_one_number_that_differs_is_another_policy(trained: Any, tmp_path: Path) -> None:
    for name, change in (("ppo", "weight"), ("dqn", "epsilon")):
        _, run, _ = trained(name, tmp_path / name)
        state, meta = load_state(run.policy_file)
        policy = state["learner"]["policy"]
        if change == "weight":
            x = next(x for x in policy.values() if isinstance(x, torch.Tensor)).view(-1)
            x[0] = torch.nextafter(x[0], x[0] + 1)
        else:
            policy["_extra_state"]["epsilon"] /= 2
        save_state(run.policy_file, state, meta)
        assert not pg.load(run.path).num_timesteps


def test_a_checkpoint_that_cannot_be_read_gives_way_to_the_policy(trained: Any) -> None:
    _, run, obs = trained("ppo")
    path = run.checkpoints()[-1]
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b"nothing"):
        path.write_bytes(data)
        with pytest.warns(UserWarning, match="the policy alone is loaded"):
            loaded = pg.load(run.path)
        with pytest.raises(NoValueError, match=UNTRAINED):
            loaded.value(obs)


# ---- words for a run


def test_load_takes_what_load_policy_takes(trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    agent, _, obs = trained("ppo", Path("runs/CartPole-v1/ppo"))
    for words in ("latest", "run", "CartPole-v1/ppo/run", "runs/CartPole-v1/ppo/run"):
        assert np.array_equal(pg.load(words).value(obs), agent.value(obs))
    Path("runs").rename("others")
    assert np.array_equal(pg.load("latest", runs_root="others").value(obs), agent.value(obs))
    with pytest.raises(RunError, match="there is no run 'latest'"):
        pg.load("latest")
    small = {"num_envs": 2, "num_steps": 8, "minibatches": 1, "epochs": 1}
    tuned = pg.load("pretrained:ppo-CartPole-v1", **small)
    assert np.array_equal(
        tuned.predict(obs, True)[0], pg.load_policy("pretrained:ppo-CartPole-v1").predict(obs, True)[0]
    )
    before = tuned.policy.flat.clone()
    with pytest.warns(UserWarning, match=ANEW):
        tuned.learn(16)
    assert not torch.equal(tuned.policy.flat, before)
    with pytest.raises(UnknownPolicyError, match="Did you mean 'ppo-CartPole-v1'"):
        pg.load("pretrained:ppo-CartPole")


@pytest.mark.parametrize("word", LOADING)
def test_keywords_of_theirs_are_answered(word: str, tmp_path: Path) -> None:
    path = pg.ppo("CartPole-v1", **PPO).save(tmp_path / "agent")
    with pytest.raises(ForeignWordError, match=f"load has no keyword '{word}': {re.escape(LOADING[word])}"):
        pg.load(path, **{word: True})
    with pytest.raises(ForeignWordError, match=r"ppo has no load: use policygrad\.load\(path\)"):
        pg.ppo.load(path)  # pyright: ignore[reportFunctionMemberAccess]


def test_a_zip_is_not_written(tmp_path: Path) -> None:
    agent = pg.ppo("CartPole-v1", **PPO)
    for save in (agent.save, agent.save_policy):
        with pytest.raises(ModelFileError, match=r"no \.zip: save\('m'\) writes m\.safetensors"):
            save(tmp_path / "m.zip")
    assert list(tmp_path.iterdir()) == []
    assert agent.save(tmp_path / "v1.5").name == "v1.5.safetensors"


# ---- an environment of other spaces


class Blank(gym.Env):
    action_space = spaces.Discrete(2)

    def __init__(self, **parts: spaces.Space) -> None:
        self.observation_space = spaces.Dict(parts)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, True, {}


LINE = spaces.Box(-1.0, 1.0, (3,))


def test_the_part_of_another_environment_that_differs_is_named(tmp_path: Path) -> None:
    agent = pg.ppo(lambda: Blank(a=LINE, b=spaces.Discrete(3)), **PPO)
    path = agent.save(tmp_path / "agent")
    number, text = spaces.Discrete(3), "was trained with another observation_space: "
    others: dict[str, Any] = {
        "the n of observation_space['b'] was 3, and the environment's is 4": Blank(a=LINE, b=spaces.Discrete(4)),
        "the low of observation_space['a'] was -1.0": Blank(a=spaces.Box(0.0, 1.0, (3,)), b=number),
        "the type of observation_space['b'] was Discrete, and the environment's is Box": Blank(a=LINE, b=LINE),
        "observation_space['b'] was Discrete, and the environment's is missing": Blank(a=LINE),
        "observation_space['c'] was missing, and the environment's is Discrete": Blank(a=LINE, b=number, c=number),
        "the type of observation_space was Dict, and the environment's is Box": gym.make("CartPole-v1"),
    }
    for words, env in others.items():
        with pytest.raises(ValueError, match=re.escape(text + words)):
            pg.load(path, env=env)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pg.load(path, env=lambda: Blank(a=LINE, b=spaces.Discrete(3)))
