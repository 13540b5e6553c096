"""Tabular policies against the exact optimum: the expected return of the final policies, computed, not sampled.

    policygrad train ppo FrozenLake-v1 --seed 0-4
    python benchmarks/tabular.py runs/FrozenLake-v1/ppo/seed*

The optimum is over all policies, time-dependent ones too, so no stationary policy can exceed it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

import policygrad as pg
from policygrad.lab.exact.mdp import MDP, from_gymnasium
from policygrad.lab.exact.tabular import greedy, objective, optimum


def returns(mdp: MDP, agent: pg.Agent, env: gym.Env) -> tuple[float, float]:
    """Exact expected returns of an agent's greedy and sampled policy."""
    policy = agent.policy
    assert policy.encoding is not None
    obs = policy.encoding.empty(mdp.states)
    legal = getattr(env.unwrapped, "action_mask", None)
    info = {"action_mask": [legal(s) for s in range(mdp.states)]} if legal else {}
    policy.encoding.encode(np.arange(mdp.states), info, obs)
    pi = policy.dist(torch.from_numpy(obs)).double().softmax(-1)
    return float(objective(mdp, greedy(pi))), float(objective(mdp, pi))


def main() -> None:
    """Print a line a run, and a line an environment and algorithm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    results: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in parser.parse_args().runs:
        agent = pg.load(path / "policy.safetensors")
        env = gym.make(agent.env_name)
        mdp = from_gymnasium(env)
        at_greedy, sampled = returns(mdp, agent, env)
        print(f"{path}: greedy {at_greedy:.4f}, sampled {sampled:.4f}, optimum {optimum(mdp):.4f}")
        results[agent.env_name, agent.algo].append(at_greedy / optimum(mdp))
    for (env_id, algo), ratios in results.items():
        listed = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{algo} on {env_id}: greedy / optimum {listed}; lowest {min(ratios):.3f}")


if __name__ == "__main__":
    main()
