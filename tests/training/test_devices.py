"""Training on another device: everything that learns is there, and the numbers are those of the CPU, to the last bit.

No machine that runs these tests needs an accelerator: `elsewhere` is a second device, computed on the CPU, which refuses what a
GPU refuses. An accelerator sums in another order, so there the last bits differ.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from elsewhere import DEVICE, Elsewhere, WrongDeviceError, a_second_device
from gymnasium import spaces
from torch import nn

import policygrad as pg
from policygrad import pieces
from policygrad.algorithms.config import ConfigError
from policygrad.algorithms.devices import device_for, find_device
from policygrad.algorithms.recipes import RECIPES
from policygrad.data import Batch, Rollout, Wants
from policygrad.errors import NotFiniteError
from policygrad.models import optim
from policygrad.stored.trajectories import read_trajectories


class Numbers(gym.Env):
    """Observations and actions of any spaces, episodes of six steps, and a reward that depends on the action."""

    def __init__(self, observation: spaces.Space, action: spaces.Space, masked: bool = False) -> None:
        self.observation_space, self.action_space, self.masked, self.steps = observation, action, masked, 0

    def observe(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        obs = self.observation_space.sample()
        if self.masked:
            obs["action_mask"][:] = 1
            obs["action_mask"][..., self.steps % 2] = 0
        return obs

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observe(), float(np.sum(action)) + 0.1 * self.steps, self.steps == 6, False, {}


def unit(*shape: int) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, shape)


PIXELS = spaces.Box(0, 255, (1, 6, 6), np.uint8)
PICTURES = spaces.Dict({"a": spaces.Box(0, 255, (18, 16, 3), np.uint8), "b": unit(2)})
MASKED = spaces.Dict({"x": unit(2), "action_mask": spaces.MultiBinary(5)})
PARTS = spaces.Dict({"a": spaces.Discrete(3), "b": unit(2, 2), "c": spaces.MultiBinary(2)})


def images(space: spaces.Space) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten())


def numbers(observation: spaces.Space, action: spaces.Space, masked: bool = False) -> Any:
    return lambda: Numbers(observation, action, masked)


BRIEF = {"num_envs": 3, "hidden": (8,)}
CRITIC = {"critic_epochs": 2, "critic_minibatches": 2}
STEPS = BRIEF | CRITIC | {"num_steps": 16}
PPO = STEPS | {"epochs": 2, "minibatches": 3}
EPISODES = BRIEF | {"episodes": 6}
SMALL = {"hidden": (8,), "num_envs": 3}
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "ppo": ("ppo", "CartPole-v1", PPO | {"normalize_obs": True, "target_kl": 0.01, "ent_coef": 0.01}),
    "measured": ("ppo", "CartPole-v1", PPO | {"gradient_meter": True, "fisher_eigenvalues": 2}),
    "ppo-kl": ("ppo_kl", "Pendulum-v1", PPO | {"std": "network"}),
    "a2c": ("a2c", "CartPole-v1", STEPS | {"standardize": "running"}),
    "npg": ("npg", "Pendulum-v1", STEPS | {"ent_coef": 0.01}),
    "npg dense": ("npg", "CartPole-v1", STEPS | {"solver": "dense", "lr": 0.1, "hidden": ()}),
    "trpo": ("trpo", "CartPole-v1", STEPS | {"standardize": "episode"}),
    "one step": ("actor_critic", "CartPole-v1", {"hidden": (8,)}),
    "one step, q": ("actor_critic", "CartPole-v1", SMALL | {"critic": "q", "state_discount": True}),
    "to go": ("reinforce", "CartPole-v1", EPISODES | CRITIC),
    "total": ("reinforce", "CartPole-v1", EPISODES | {"returns": "total", "baseline": "leave-one-out"}),
    "time average": ("reinforce", "CartPole-v1", EPISODES | {"baseline": "time-average"}),
    "linear": ("reinforce", "CartPole-v1", EPISODES | {"baseline": "linear"}),
    "cross-fit": ("reinforce", "CartPole-v1", EPISODES | {"baseline": "linear", "cross_fit": 2}),
    "running mean": ("reinforce", "CartPole-v1", EPISODES | {"baseline": "running-mean", "optimizer": "sgd"}),
    "no baseline": ("reinforce", "FrozenLake-v1", EPISODES | {"baseline": "none", "hidden": ()}),
    "weighed": ("off_policy_pg", numbers(unit(2), spaces.Discrete(2)), EPISODES | {"replay_episodes": 9}),
    "squashed": ("ppo", "Pendulum-v1", PPO | {"head": "squashed", "ent_coef": 0.01, "noise_autocorrelation": 0.5}),
    "beta": ("trpo", "Pendulum-v1", STEPS | {"head": "beta", "ent_coef": 0.01}),
    "choices": ("trpo", numbers(MASKED, spaces.MultiDiscrete([3, 2]), True), STEPS | {"ent_coef": 0.01}),
    "masks": ("ppo", numbers(MASKED, spaces.Discrete(5), True), PPO),
    "parts": ("ppo", numbers(PARTS, spaces.MultiBinary(3)), PPO | {"normalize_obs": True}),
    "pictures": ("ppo", numbers(PICTURES, spaces.Discrete(3)), PPO),
    "images": ("ppo", numbers(PIXELS, spaces.Discrete(3)), PPO | {"body": images}),
}
CASES |= {
    "tensors": ("ppo", "CartPole-v1", PPO | {"backend": "torch"}),
    "tensors, npg": ("npg", "Pendulum-v1", STEPS | {"backend": "torch", "normalize_obs": True}),
}
PERMUTATION = pieces.permutation


@pytest.fixture(autouse=True)
def one_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on both devices: torch's fused Adam is the CPU's alone, and a device shuffles by numbers of its own."""

    def shuffled(count: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
        return torch.randperm(count, generator=generator).to(device)

    monkeypatch.setattr(optim, "fused_is_right", lambda: False)
    monkeypatch.setattr(pieces, "permutation", shuffled)


@pytest.fixture
def device() -> Iterator[str]:
    with a_second_device() as device:
        yield device


def trained(case: str, device: str) -> tuple[pg.Agent, list[Any]]:
    """The agent of a case after two iterations, of which one is measured, and its rows of metrics."""
    algo, env, keywords = CASES[case]
    agent, rows = pg.Agent(algo, env, kernel="autograd", device=device, **keywords), []
    agent.learn(1, callback=lambda _, row: rows.append(row))
    agent.learner.step(agent.collector.collect(agent.policy, agent.plan.wants), 0.5)
    agent.close()
    return agent, [row | {"seconds": 0, "steps_per_second": 0, "meter_seconds": 0} for row in rows]


SLOW = ("ppo-kl", "a2c", "npg", "to go", "total", "linear", "running mean", "no baseline", "masks", "tensors, npg")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]
)
def test_every_recipe_trains_on_a_device_as_on_the_cpu(case: str, device: str) -> None:
    there, here = trained(case, device), trained(case, "cpu")
    assert there[0].policy.device.type == device
    assert isinstance(there[0].policy.flat, Elsewhere)
    assert torch.equal(there[0].policy.flat.cpu(), here[0].policy.flat)
    if isinstance(there[0].learner.critic, nn.Module):
        assert torch.equal(there[0].learner.critic.flat.cpu(), here[0].learner.critic.flat)
    np.testing.assert_equal(there[1], here[1])


def test_the_cases_are_of_every_recipe_that_can() -> None:
    refused = set()
    for algo in set(RECIPES) - {case[0] for case in CASES.values()}:
        env = "Pendulum-v1" if RECIPES[algo].spec.gradient == "pathwise" else "CartPole-v1"
        with a_second_device() as device, pytest.raises(ConfigError, match=f"{algo} .*CPU only"):
            pg.Agent(algo, env, device=device)
        refused.add(algo)
    assert "sac" in refused
    assert "a3c" in refused


def test_the_device_notices_a_tensor_that_was_left_behind(device: str) -> None:
    x, y = torch.ones(2), torch.ones(2, device=device)
    assert (x.to(device) + y).tolist() == [2.0, 2.0]
    assert (y + torch.tensor(1.0)).tolist() == [2.0, 2.0]
    with pytest.raises(WrongDeviceError, match="aten::add"):
        x + y
    with pytest.raises(RuntimeError, match="numpy"):
        y.numpy()
    with pytest.raises(WrongDeviceError, match="index_select"):
        y.index_select(0, torch.arange(2))


def test_minibatches_are_shuffled_on_the_device_where_the_rows_are(device: str) -> None:
    orders = [PERMUTATION(50, torch.Generator().manual_seed(3), torch.device(device)) for _ in range(2)]
    assert [order.device.type for order in orders] == [device, device]
    assert orders[0].tolist() == orders[1].tolist() != list(range(50))
    assert sorted(orders[0].tolist()) == list(range(50))
    generator = torch.Generator()
    first, second = (PERMUTATION(50, generator, torch.device(device)).tolist() for _ in range(2))
    assert first != second


def test_what_is_made_of_tensors_of_a_device_is_there(device: str) -> None:
    obs, act = torch.ones(4, 2, device=device), torch.ones(4, device=device)
    assert {x.device.type for x in vars(Batch.of(obs, act)).values() if isinstance(x, torch.Tensor)} == {device}
    agent = pg.ppo("CartPole-v1", device=device, **PPO)
    rollout = Rollout.of(agent.collector.collect(agent.policy, Wants(5)), agent.policy)
    assert {x.device.type for x in vars(rollout).values() if isinstance(x, torch.Tensor)} == {device}
    assert rollout.obs[1:].data_ptr() == rollout.next_obs.data_ptr()  # so that critics make one pass


GOING_ON = {
    "ppo": PPO | {"normalize_obs": True, "standardize": "running"},
    "reinforce": EPISODES | {"baseline": "time-average"},
}


@pytest.mark.parametrize("algo", GOING_ON)
@pytest.mark.parametrize("between", ["cpu", DEVICE])
def test_an_agent_goes_on_from_a_file_on_any_device(between: str, algo: str, device: str, tmp_path: Path) -> None:
    keywords = GOING_ON[algo] | {"kernel": "autograd"}
    whole = pg.Agent(algo, "CartPole-v1", **keywords)
    whole.learn(1), whole.learn(1)
    first = pg.Agent(algo, "CartPole-v1", device=device, **keywords)
    path = first.learn(1).save(tmp_path / "a")
    rest = pg.load(path, device=between)
    assert rest.device == between
    assert torch.equal(rest.policy.flat.cpu(), first.policy.flat.cpu())
    again = pg.load(rest.save(tmp_path / "b"), device=device).learn(1)
    assert torch.equal(again.policy.flat.cpu(), whole.policy.flat)


def test_a_file_of_a_device_that_is_not_here_is_loaded_on_the_cpu(tmp_path: Path) -> None:
    with a_second_device() as device:
        agent = pg.ppo("CartPole-v1", device=device, **PPO)
        path = agent.learn(48).save_policy(tmp_path / "a")
        assert pg.load(path).device == device
        obs = np.zeros((3, 4), np.float32)
        acts = agent.predict(obs, deterministic=True)[0]
    loaded = pg.load(path)
    assert loaded.device == "cpu"
    assert (loaded.predict(obs, deterministic=True)[0] == acts).all()


def test_a_run_resumes_on_its_device_and_says_so_elsewhere(tmp_path: Path) -> None:
    words, stops = PPO | {"steps": 96, "kernel": "autograd"}, [True]

    def stop(agent: pg.Agent, row: Any) -> None:
        if stops:
            stops.pop()
            raise KeyboardInterrupt

    with a_second_device() as device:
        whole = pg.train(pg.ppo("CartPole-v1", device=device, **words), tmp_path / "whole", episodes=1)
        assert whole.config()["device"] == device
        with pytest.raises(KeyboardInterrupt):
            pg.train(pg.ppo("CartPole-v1", device=device, **words), tmp_path / "cut", episodes=1, callback=stop)
        shutil.copytree(tmp_path / "cut", tmp_path / "moved")
        pg.resume(tmp_path / "cut", callback=stop)
    assert (tmp_path / "cut/policy.safetensors").read_bytes() == whole.policy_file.read_bytes()
    with pytest.warns(UserWarning, match="another device.*'cpu'"):
        pg.resume(tmp_path / "moved", callback=stop)


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for word in ("cuda:99", "meta", "gpu", "mps", ""):
        with pytest.raises(ConfigError, match=f"{word}.*cpu|cpu.*'{word}'"):
            find_device(word)
        with pytest.raises(ConfigError):
            device_for(word, "cpu")
        assert device_for(None, word) == "cpu"
    assert find_device("auto") == "cpu"
    assert find_device(torch.device("cpu")) == "cpu"
    with a_second_device() as device, pytest.raises(ConfigError, match=r"kernel = compiled .*CPU only"):
        pg.ppo("CartPole-v1", device=device, kernel="compiled")


def test_stored_trajectories_are_read_and_written_on_a_device(device: str, tmp_path: Path) -> None:
    played = pg.Agent("reinforce", "CartPole-v1", device=device, **EPISODES)
    found = played.collect(6)
    learned = [
        pg.Agent("off_policy_pg", "CartPole-v1", device=name, kernel="autograd", dataset=found, **EPISODES).learn(1)
        for name in (device, "cpu")
    ]
    assert torch.equal(learned[0].policy.flat.cpu(), learned[1].policy.flat)
    run = pg.train(played, tmp_path / "run", episodes=1, save_trajectories=True, steps=1)
    assert len(read_trajectories(run.path)) == 6


def test_agents_on_a_device_can_be_changed_copied_and_asked(device: str) -> None:
    agents = [pg.ppo("CartPole-v1", device=name, kernel="autograd", **PPO) for name in (device, "cpu")]
    for agent in agents:
        agent.learn(48)
        agent.change(lr=1e-4)
    twins = [copy.deepcopy(agent).learn(48) for agent in agents]
    assert twins[0].policy.device.type == device
    assert torch.equal(twins[0].policy.flat.cpu(), twins[1].policy.flat)
    assert not torch.equal(twins[0].policy.flat.cpu(), agents[0].policy.flat.cpu())
    obs = np.ones((5, 4), np.float32)
    assert (twins[0].predict(obs)[0] == twins[1].predict(obs)[0]).all()
    assert twins[0].evaluate(episodes=3).returns == twins[1].evaluate(episodes=3).returns


def test_what_is_wrong_in_a_record_is_found_on_a_device(device: str) -> None:
    agent = pg.ppo("CartPole-v1", device=device, **PPO | {"standardize": "no"})
    record = agent.collector.collect(agent.policy, Wants(16))
    before = agent.policy.flat.clone()
    record.rew[3, 1] = np.nan
    with pytest.raises(NotFiniteError, match="environment 1 at step 3"):
        agent.learner.step(record)
    assert torch.equal(agent.policy.flat, before)
    record.cut[-1, 2] = False
    with pytest.raises(ValueError, match="t=15, n=2"):
        agent.learner.step(record)
