"""How fast the exact world is simulated: transitions a second on one core, by world.

    python benchmarks/simulation.py
    python benchmarks/simulation.py Taxi-v4 --steps 5_000_000

A transition is a step of an episode that runs: its action drawn, its successor drawn, both recorded. Shown is the best of
three. Building the rollout (one-hot observations, rewards, log-probabilities) is not in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.sampling import simulate
from policygrad.lab.exact.worlds import TRUNCATED_AFTER, WORLDS, make_mdp

REPEATS = 3


def throughput(mdp: MDP, steps: int) -> float:
    """Transitions a second, of about so many steps with the uniform policy."""
    pi = torch.full((mdp.states, mdp.actions), 1.0 / mdp.actions, dtype=torch.float64)
    generator, limit = torch.Generator().manual_seed(0), None if mdp.horizon else TRUNCATED_AFTER
    mean = float(simulate(mdp, pi, 100, generator, limit)[2].double().mean())
    best = 0.0
    for _ in range(REPEATS):
        began = time.perf_counter()
        done = int(simulate(mdp, pi, max(int(steps / mean), 1), generator, limit)[2].sum())
        best = max(best, done / (time.perf_counter() - began))
    return best


def main(words: Sequence[str] | None = None) -> None:
    """Print a line a world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worlds", nargs="*", default=[*WORLDS], metavar="WORLD", help="their names [all]")
    parser.add_argument("--steps", type=int, default=1_000_000, help="simulated for a line [1,000,000]")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    print(f"{'world':24}{'states':>8}{'horizon':>9}{'transitions/s':>15}")
    for name in given.worlds:
        mdp = make_mdp(name)
        print(f"{name:24}{mdp.states:8}{mdp.horizon or 'none':>9}{throughput(mdp, given.steps):15,.0f}", flush=True)


if __name__ == "__main__":
    main()
