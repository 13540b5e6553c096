"""Learning figures: the tuned preset, several seeds, the final policy, greedy, 100 episodes on fixed seeds; all seeds listed.

    python benchmarks/learning.py ppo CartPole-v1 --seeds 0 1 2 3 4 --json benchmarks/results/ppo-CartPole-v1.json

Every other flag is a hyperparameter over the preset, e.g. `--set returns=total baseline=none`. One process a seed, two at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_origin


def train_one(algo: str, env: str, overrides: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train one seed; its final evaluations and its learning curve."""
    from policygrad.runs.agent import Agent

    agent = Agent(algo, env, seed=seed, **overrides)
    curve: list[tuple[int, float]] = []

    def record(agent: Agent, row: dict[str, Any] | None) -> None:
        if row is not None and row["return_mean"] is not None:
            curve.append((row["steps"], row["return_mean"]))

    agent.learn(callback=record)
    greedy, sampled = agent.evaluate(100), agent.evaluate(100, greedy=False)
    return {
        "seed": seed,
        "steps": agent.collector.steps_done,
        "greedy": round(greedy.mean, 1),
        "greedy_ci95": [round(x, 1) for x in greedy.ci95],
        "sampled": round(sampled.mean, 1),
        "config": agent.config,
        "curve": curve,
    }


def parse(algo: str, text: str) -> tuple[str, Any]:
    """NAME=VALUE, read as JSON unless the hyperparameter is a choice among words."""
    from policygrad.algorithms.config import parameters

    name, value = text.split("=", 1)
    kind, _ = parameters(algo)[name]
    return name, value if get_origin(kind) is Literal else json.loads(value.replace("none", "null"))


def main() -> None:
    """Train, print one line a seed and the summary, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algo")
    parser.add_argument("env")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyperparameters over the preset")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    overrides = dict(parse(args.algo, item) for item in args.set)
    work = partial(train_one, args.algo, args.env, overrides)
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(work, args.seeds))
    for r in results:
        print(f"seed {r['seed']}: greedy {r['greedy']} {r['greedy_ci95']}, sampled {r['sampled']}, {r['steps']:,} steps")
    scores = [r["greedy"] for r in results]
    print(f"{args.algo} {args.env} {args.set}: mean {sum(scores) / len(scores):.1f}, lowest {min(scores)}, seeds {scores}")
    if args.json:
        config = results[0].pop("config")
        for r in results[1:]:
            r.pop("config")
        args.json.parent.mkdir(parents=True, exist_ok=True)
        data = {"algo": args.algo, "env": args.env, "set": args.set, "config": config, "seeds": results}
        args.json.write_text(json.dumps(data, default=list) + "\n")
        print(f"wrote {args.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
