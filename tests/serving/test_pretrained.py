"""The policies that come with the package: small, as good as recorded, and the same with every way to act."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import policygrad as pg
from policygrad.cli import main
from policygrad.serving.served import ServedPolicy
from policygrad.stored.pretrained import FOLDER, UnknownPolicyError, policies, pretrained_file
from policygrad.training.evaluate import EVALUATION_SEED

POLICIES = policies()
LEAST = {  # what the interval of the greedy mean must reach: Gymnasium's threshold, or about what docs/results.md has
    "Acrobot-v1": -100.0,
    "CartPole-v1": 475.0,
    "FrozenLake-v1": 0.7,
    "LunarLander-v3": 200.0,
    "LunarLanderContinuous-v3": 200.0,
    "MountainCar-v0": -110.0,
    "MountainCarContinuous-v0": 90.0,
    "Pendulum-v1": -200.0,
    "Taxi-v4": 7.0,
}


def play(policy: Any, env_id: str, seed: int) -> float:
    """The return of a greedy episode, with nothing of policygrad but `predict`."""
    env = gym.make(env_id)
    obs, info = env.reset(seed=seed)
    total, over = 0.0, False
    masked = policy.description["mask"] == "info"
    while not over:
        mask = info["action_mask"] if masked else None
        obs, reward, terminated, truncated, info = env.step(policy.predict(obs, True, mask)[0])
        total, over = total + float(reward), terminated or truncated
    env.close()
    return total


def test_there_are_ten_or_more_and_each_environment_is_known():
    assert len(POLICIES) >= 10
    assert {p["env"] for p in POLICIES.values()} == set(LEAST)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_small_loads_without_torch_and_plays_the_recorded_episode(name):
    record = POLICIES[name]
    assert pretrained_file(name).stat().st_size <= 60_000
    assert record["greedy"]["episodes"] == record["sampled"]["episodes"] == 100
    low, high = record["greedy"]["ci95"]
    assert low <= record["greedy"]["mean"] <= high
    assert high >= LEAST[record["env"]]
    policy = pg.load_policy(f"pretrained:{name}")
    assert isinstance(policy, ServedPolicy)
    assert (policy.meta["algo"], policy.meta["env"]) == (record["algo"], record["env"])
    assert play(policy, record["env"], EVALUATION_SEED) == pytest.approx(
        record["greedy_returns"][0], rel=1e-3, abs=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_the_evaluation_is_the_recorded_one(name):
    record = POLICIES[name]
    agent = pg.load(pretrained_file(name))
    for greedy in (True, False):
        found = agent.evaluate(100, greedy)
        recorded = record["greedy" if greedy else "sampled"]
        assert found.mean == pytest.approx(recorded["mean"], abs=max(1e-6, 3.0 * recorded["std"] / 10.0))
        if greedy:
            assert list(found.returns[:5]) == pytest.approx(record["greedy_returns"], rel=1e-2)


def test_a_name_that_is_none_is_answered_with_the_nearest_one():
    with pytest.raises(UnknownPolicyError, match="Did you mean 'ppo-CartPole-v1'"):
        pg.load_policy("pretrained:ppo-CartPole")
    with pytest.raises(UnknownPolicyError, match="There are ppo-CartPole-v1, "):
        pg.load_policy("pretrained:../../../etc/passwd")


def test_commands_play_them_and_write_nothing_into_the_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(FOLDER.iterdir())
    name = "pretrained:ppo-FrozenLake-v1"
    assert main(["eval", name, "--episodes", "2"]) == 0
    assert main(["collect", name, "--episodes", "2"]) == 0
    assert main(["export", name, "--format", "torchscript"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.pt", "trajectories.safetensors"]
    assert sorted(FOLDER.iterdir()) == before
    assert main(["eval", "pretrained:ppo-FrozenLake"]) == 2
    assert "Did you mean 'ppo-FrozenLake-v1'" in capsys.readouterr().err


def test_the_command_lists_them_with_their_returns(capsys):
    assert main(["list", "policies"]) == 0
    out = capsys.readouterr().out
    for name, record in POLICIES.items():
        (line,) = [line for line in out.splitlines() if f"pretrained:{name} " in line]
        assert f"{record['greedy']['mean']:,.2f}" in line
    assert np.all([len(line) <= 100 for line in out.splitlines()])
