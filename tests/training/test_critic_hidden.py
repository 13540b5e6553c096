"""A critic of another size than the policy: it alone changes, it is saved and loaded, and no file asks for a huge one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from explicit import same_state

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.stored.storage import ModelFileError, load_state, save_state

SMALL: dict[str, Any] = {"hidden": (8,), "num_envs": 2, "seed": 3}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ppo": ("ppo", "CartPole-v1", {"num_steps": 16}),
    "trpo": ("trpo", "CartPole-v1", {"num_steps": 16}),
    "reinforce": ("reinforce", "CartPole-v1", {"episodes": 2, "baseline": "value"}),
    "td3": ("td3", "Pendulum-v1", {"warmup": 16, "buffer_size": 200}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_alone_changes_and_comes_back_from_a_file(name: str, tmp_path: Path) -> None:
    algo, env, more = CASES[name]
    plain, agent = (pg.Agent(algo, env, **SMALL, **more, **other) for other in ({}, {"critic_hidden": (12, 5)}))
    assert torch.equal(agent.policy.flat, plain.policy.flat)
    agent.learn(64)
    loaded = pg.load(agent.save(tmp_path / "whole"))
    assert loaded.config["critic_hidden"] == (12, 5)
    for one in (agent, loaded):
        one.learn(32)
    assert same_state(agent.learner.state_dict(), loaded.learner.state_dict())
    pg.load(agent.save_policy(tmp_path / "policy"))
    with pytest.raises(ConfigError, match="critic_hidden cannot change in an agent that has learned"):
        agent.change(critic_hidden=(4,))


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_that_asks_for_a_critic_that_it_does_not_hold_is_refused(whole: bool, tmp_path: Path) -> None:
    agent = pg.ppo("CartPole-v1", num_steps=16, critic_hidden=(12, 5), **SMALL)
    path = agent.save(tmp_path / "agent") if whole else agent.save_policy(tmp_path / "agent")
    state, meta = load_state(path)
    save_state(path, state, meta | {"config": meta["config"] | {"critic_hidden": [60_000, 60_000]}})
    with pytest.raises(ModelFileError, match=r"critic_hidden = \[60000, 60000\], but has no such weights"):
        pg.load(path)


def test_a_critic_larger_than_the_machine_is_refused_before_it_is_made() -> None:
    with pytest.raises(ConfigError, match=r"networks with critic_hidden = .*: lower critic_hidden"):
        pg.ppo("CartPole-v1", critic_hidden=(65_536,) * 30)
