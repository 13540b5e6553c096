"""The learning protocol: the preset, five seeds, the final policy, greedy, 100 episodes; the bar holds on every seed.

Minutes: `pytest -m slow tests/test_learning.py`. Two seeds run at a time, in processes of their own.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import pytest

SEEDS = range(5)
EPISODES = 100

# algorithm: the most steps its preset may take, on CartPole-v1
BUDGETS = {"ppo": 100_000, "a2c": 100_000, "npg": 100_000, "trpo": 100_000, "ppo_kl": 100_000, "reinforce": 200_000}


def train_one(algo: str, env: str, seed: int, **keywords: Any) -> tuple[float, int]:
    """Mean greedy return of the final policy, and the steps it was trained for."""
    from policygrad import Agent

    agent = Agent(algo, env, seed=seed, **keywords)
    assert agent.tuned
    steps = agent.learn().collector.steps_done
    evaluation = agent.evaluate(EPISODES)
    assert len(evaluation.returns) == EPISODES
    return evaluation.mean, steps


def protocol(algo: str, env: str, **keywords: Any) -> tuple[list[float], list[int]]:
    """Returns and steps, seed by seed. keywords: over the preset's."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        scores, steps = zip(*pool.map(partial(train_one, algo, env, **keywords), SEEDS), strict=True)
    return list(scores), list(steps)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("algo", BUDGETS)
def test_cartpole_is_solved_on_every_seed_within_the_budget(algo: str) -> None:
    scores, steps = protocol(algo, "CartPole-v1")
    assert min(scores) >= 475.0, scores
    assert max(steps) <= BUDGETS[algo], steps


# of one network for policy and values; a2c, which takes one step of it per iteration, gets more and shorter iterations
SHARED: dict[str, dict[str, Any]] = {"ppo": {}, "ppo_kl": {}, "a2c": {"steps": 200_000, "num_steps": 16}}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("algo", SHARED)
def test_cartpole_is_solved_on_every_seed_with_one_body_for_policy_and_values(algo: str) -> None:
    scores, _ = protocol(algo, "CartPole-v1", shared_body=True, **SHARED[algo])
    assert min(scores) >= 475.0, scores


# (algorithm, environment): the least return of every seed, and the most steps
BARS = {
    ("actor_critic", "CartPole-v1"): (195.0, 100_000),
    ("ppo", "Acrobot-v1"): (-85.0, 300_000),
    ("ppo", "Pendulum-v1"): (-175.0, 100_000),
    ("ppo", "MountainCarContinuous-v0"): (90.0, 100_000),
    ("ppo", "LunarLanderContinuous-v3"): (240.0, 1_000_000),
    ("trpo", "Pendulum-v1"): (-175.0, 100_000),
    ("trpo", "MountainCarContinuous-v0"): (90.0, 100_000),
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("algo", "env"), BARS)
def test_every_seed_reaches_the_bar_within_the_budget(algo: str, env: str) -> None:
    bar, budget = BARS[algo, env]
    scores, steps = protocol(algo, env)
    assert min(scores) >= bar, scores
    assert max(steps) <= budget, steps


def exact(algo: str, env: str, seed: int) -> float:
    """The exact expected return of the final greedy policy, a table, as a share of the optimum."""
    import gymnasium
    import numpy as np
    import torch

    from policygrad import Agent
    from policygrad.lab.exact.mdp import from_gymnasium
    from policygrad.lab.exact.tabular import greedy, objective, optimum

    agent, made = Agent(algo, env, seed=seed), gymnasium.make(env)
    policy, mdp = agent.learn().policy, from_gymnasium(made)
    assert policy.encoding is not None
    obs = policy.encoding.empty(mdp.states)
    legal = getattr(made.unwrapped, "action_mask", None)
    info = {"action_mask": [legal(s) for s in range(mdp.states)]} if legal else {}
    policy.encoding.encode(np.arange(mdp.states), info, obs)
    return float(objective(mdp, greedy(policy.dist(torch.from_numpy(obs)).double()))) / optimum(mdp)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("env", ["FrozenLake-v1", "Taxi-v4"])
@pytest.mark.parametrize("algo", BUDGETS)
def test_tables_come_within_five_per_cent_of_the_exact_optimum(algo: str, env: str) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        shares = list(pool.map(partial(exact, algo, env), SEEDS))
    assert min(shares) >= 0.95, shares


def test_the_reinforce_preset_has_a_baseline() -> None:
    from policygrad.algorithms.config import resolve

    config, tuned = resolve("reinforce", "CartPole-v1", {})
    assert tuned
    assert config["baseline"] != "none"


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_ppo_lands_on_the_moon_on_every_seed_within_a_million_steps() -> None:
    scores, steps = protocol("ppo", "LunarLander-v3")
    assert min(scores) >= 200.0, scores
    assert sum(scores) / len(scores) >= 250.0, scores
    assert max(steps) <= 1_000_000, steps
