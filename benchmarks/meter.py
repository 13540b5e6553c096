"""What the gradient meter costs: training with and without it, paired, in one process.

    python benchmarks/meter.py [--algo ppo] [--env CartPole-v1] [--pairs 7] [--steps N] [--kernel autograd] [--json FILE]

Every pair trains the same agent twice, from the same seed, for the steps of its preset: once with `gradient_meter`, once
without; who goes first alternates, so that a drift of the machine favours nobody. The parameters of both must be the same,
bit for bit. Reported are the medians, and the median of the pairs' ratios of time, with the lowest and the highest; beside it
the seconds that the meter says it took, `meter_seconds`, as a share of the time without it. One thread; needs a machine with
nothing else running.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

import policygrad as pg

BAR = 1.10  # the most that the median ratio may be, at default settings on CartPole PPO


def train(
    algo: str, env: str, kernel: str, steps: int | None, seed: int, meter: bool
) -> tuple[float, float, torch.Tensor]:
    """Seconds of a training, those of the meter in it, and the parameters at its end."""
    agent = pg.Agent(algo, env, seed=seed, kernel=kernel, gradient_meter=meter)
    history = pg.History()
    started = time.perf_counter()
    agent.learn(steps, history)
    seconds = time.perf_counter() - started
    return seconds, sum(float(row.get("meter_seconds") or 0.0) for row in history.rows), agent.policy.flat


def main() -> int:
    """Measure, print the table, and return 1 when the ratio misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="ppo")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, help="environment steps, not the preset's")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    args = parser.parse_args()
    train(args.algo, args.env, args.kernel, 5_000, 0, True)  # imports, caches, buffers
    pairs = []
    for k in range(args.pairs):
        done = {}
        for meter in (False, True) if k % 2 == 0 else (True, False):
            done[meter] = train(args.algo, args.env, args.kernel, args.steps, k, meter)
        if not torch.equal(done[True][2], done[False][2]):
            print(f"seed {k}: the meter changed the parameters", file=sys.stderr)
            return 1
        pairs.append({"off": done[False][0], "on": done[True][0], "meter": done[True][1]})
        print(f"  pair {k + 1}/{args.pairs}: {pairs[-1]['off']:.2f} s, {pairs[-1]['on']:.2f} s", file=sys.stderr)
    ratios = sorted(pair["on"] / pair["off"] for pair in pairs)
    ratio = statistics.median(ratios)
    off, on, own = (statistics.median(pair[name] for pair in pairs) for name in ("off", "on", "meter"))
    print(f"{args.algo} on {args.env}, {args.pairs} pairs: {off:.2f} s without the meter, {on:.2f} s with it")
    print(
        f"ratio {ratio:.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}]; the meter's own time {own:.3f} s, {100 * own / off:.1f} %"
    )
    if args.json:
        args.json.write_text(json.dumps({"algo": args.algo, "env": args.env, "pairs": pairs}, indent=2))
    return int(ratio > BAR)


if __name__ == "__main__":
    sys.exit(main())
