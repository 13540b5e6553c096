"""Which trainings run compiled functions: the configuration says so, and config.json tells."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from torch import nn

import policygrad as pg
from policygrad.training.train import run_config
from policygrad.training.trainer import rows_every


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


@pytest.mark.parametrize(("steps", "expected"), [(100, 2_000), (200_000, 2_000), (500_000, 5_000), (10**7, 10**5)])
def test_long_trainings_have_a_hundred_rows(steps: int, expected: int) -> None:
    assert rows_every(steps) == expected


@pytest.mark.parametrize(
    ("words", "every"), [({}, 2_000), ({"horizon": 400_000}, 4_000), ({"log_every": 1_000}, 1_000)]
)
def test_rows_come_as_often_as_the_horizon_says_or_as_is_asked(words: dict[str, int], every: int) -> None:
    rows, width = pg.History(), 1_000
    with pg.ppo("CartPole-v1", num_steps=width // 4, num_envs=4, epochs=1, kernel="closed_form", preset={}) as agent:
        agent.learn(10_000, rows, **words)
    steps: list[Any] = [row["steps"] for row in rows.rows]
    between = [b - a for a, b in pairwise(steps)]
    assert between
    assert all(every <= gap < every + width for gap in between)
