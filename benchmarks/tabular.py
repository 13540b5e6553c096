"""Tabular policies against the exact optimum: the expected return of the final policies, computed, not sampled.

    python benchmarks/learning.py ppo FrozenLake-v1
    python benchmarks/tabular.py runs/FrozenLake-v1/*/seed* runs/Taxi-v4/*/seed* --json benchmarks/tabular.json
    python benchmarks/figures.py                                          # and into docs/results.md

The optimum is over all policies, time-dependent ones too, so no stationary policy can exceed it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import policygrad as pg
from policygrad.lab.exact.mdp import MDP, from_gymnasium
from policygrad.lab.exact.tabular import greedy, objective, optimum
from policygrad.tree import to_torch


def returns(mdp: MDP, agent: pg.Agent, env: gym.Env) -> tuple[float, float]:
    """Exact expected returns of an agent's greedy and sampled policy."""
    policy = agent.policy
    assert policy.encoding is not None
    obs = policy.encoding.empty(mdp.states)
    legal = getattr(env.unwrapped, "action_mask", None)
    info = {"action_mask": [legal(s) for s in range(mdp.states)]} if legal else {}
    policy.encoding.encode(np.arange(mdp.states), info, obs)
    pi = policy.dist(to_torch(obs)).double().softmax(-1)
    return float(objective(mdp, greedy(pi))), float(objective(mdp, pi))


def main() -> None:
    """Print a line a run, and write what was computed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for path in args.runs:
        agent = pg.load(path / "policy.safetensors")
        env = gym.make(agent.env_name)
        mdp = from_gymnasium(env)
        at_greedy, sampled = returns(mdp, agent, env)
        print(f"{path}: greedy {at_greedy:.4f}, sampled {sampled:.4f}, optimum {optimum(mdp):.4f}")
        kept = found.setdefault(agent.env_name, {"optimum": round(float(optimum(mdp)), 4), "greedy": {}})
        kept["greedy"].setdefault(agent.algo, {})[str(agent.seed)] = round(at_greedy, 4)
    if args.json:
        args.json.write_text(json.dumps({"version": pg.__version__, **found}, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
