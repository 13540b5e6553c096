"""Many threads that ask one agent for actions, as a server does: none may be given another thread's.

    python benchmarks/survival/threads.py            10⁶ calls of `predict` from 16 threads, for every kind of agent
    python benchmarks/survival/threads.py 20000      fewer

A call is wrong if its action is not the one that the same observation gets in one thread, or if it raises.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from torch import nn

import policygrad as pg

THREADS = 16
OBSERVATIONS = 256  # different ones


class Choices(gym.Env):
    """Observations of two parts, and an action mask; nobody plays it."""

    observation_space = spaces.Dict(
        x=spaces.Box(-1.0, 1.0, (3,)), k=spaces.Discrete(4), action_mask=spaces.MultiBinary(5)
    )
    action_space = spaces.Discrete(5)


AGENTS: dict[str, Callable[[], Any]] = {
    "closed form, Discrete": lambda: pg.ppo("CartPole-v1", hidden=(64, 64)),
    "closed form, Box": lambda: pg.ppo("Pendulum-v1", hidden=(64, 64)),
    "normalised observations": lambda: pg.ppo("CartPole-v1", hidden=(64, 64), normalize_obs=True),
    "Dict and action mask": lambda: pg.ppo(Choices, hidden=(32,)),
    "a table": lambda: pg.ppo("FrozenLake-v1", hidden=()),
    "a body of one's own": lambda: pg.ppo("CartPole-v1", body=nn.Sequential(nn.Linear(4, 32), nn.Tanh())),
}


def wrong_actions(calls: int, agent: Any = None, threads: int = THREADS) -> int:
    """How many of so many calls of `predict` give an action that is not the one of their observation, or an error."""
    agent = AGENTS["closed form, Discrete"]() if agent is None else agent
    space = agent.envs.single_observation_space
    space.seed(0)
    observations = [space.sample() for _ in range(OBSERVATIONS)]
    if isinstance(space, spaces.Dict):
        for obs in observations:
            obs["action_mask"][0] = 1  # one action at least
    elif isinstance(space, spaces.Box):
        rng = np.random.default_rng(0)
        observations = [rng.normal(size=space.shape or ()).astype(np.float32) for _ in range(OBSERVATIONS)]
    expected = [agent.predict(obs, deterministic=True)[0] for obs in observations]

    def ask(thread: int) -> int:
        wrong = 0
        for call in range(calls // threads):
            k = (call * 7 + thread * 31) % OBSERVATIONS
            try:
                wrong += not np.array_equal(agent.predict(observations[k], deterministic=True)[0], expected[k])
            except Exception:
                wrong += 1
        return wrong

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(ask, range(threads)))


def campaign(calls: int = 1_000_000) -> list[tuple[str, str]]:
    """Every kind of agent, and how many of its actions were wrong."""
    rows = []
    for name, make in AGENTS.items():
        started = time.perf_counter()
        wrong = wrong_actions(calls, make())
        rows.append((name, f"{wrong} of {calls:,} wrong"))
        print(f"{name:<28}{rows[-1][1]}, {time.perf_counter() - started:.1f} s", flush=True)
    return rows


if __name__ == "__main__":
    found = campaign(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    sys.exit(any(not outcome.startswith("0 ") for _, outcome in found))
