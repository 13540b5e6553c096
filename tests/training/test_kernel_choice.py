"""Which trainings run compiled functions: the configuration says so, and config.json tells."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import policygrad as pg
from policygrad.training.train import run_config


def kernel_of(algo: str, env: str, steps: int, **words: Any) -> str:
    config = run_config(getattr(pg, algo)(env, **words), steps)
    assert ("numba" in config["versions"]) == (config["kernel"] == "compiled")
    return config["kernel"]


@pytest.mark.parametrize(
    ("algo", "env", "least"),
    [("ppo", "CartPole-v1", 50_000), ("dqn", "CartPole-v1", 4_000), ("sac", "Pendulum-v1", 4_000)],
)
def test_long_trainings_of_mlps_are_compiled(algo: str, env: str, least: int) -> None:
    assert kernel_of(algo, env, least) == "compiled"
    assert kernel_of(algo, env, least - 1) == "closed_form"
    assert kernel_of(algo, env, least - 1, kernel="compiled") == "compiled"
    assert kernel_of(algo, env, least, kernel="closed_form") == "closed_form"


def test_others_never_are() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh())
    assert kernel_of("ppo", "CartPole-v1", 10**6, body=body, preset={}) == "autograd"
    assert kernel_of("a3c", "CartPole-v1", 10**6) == "closed_form"
    assert kernel_of("reinforce", "FrozenLake-v1", 10**6, hidden=(), preset={}) == "closed_form"  # a table


def test_the_agent_follows_the_length_of_each_training() -> None:
    with pg.ppo("CartPole-v1", num_steps=32, num_envs=2, preset={}) as agent:
        agent.learn(64)
        assert not agent.policy.compiles
        seen = []
        agent.learn(64, lambda agent, row: seen.append(agent.policy.compiles), horizon=50_000)
        assert seen == [True]
        agent.change(lr=1e-4)
        assert agent.policy.compiles
        agent.learn(64)
        assert not agent.policy.compiles
