"""Learning figures: the tuned preset, several seeds, the final policy, greedy, 100 episodes on fixed seeds; all seeds listed.

    python benchmarks/learning.py ppo CartPole-v1 --seeds 0 1 2 3 4 --json benchmarks/results/ppo-CartPole-v1.json
    python benchmarks/learning.py reinforce CartPole-v1 --set returns=total baseline=none

One process a seed, two at a time; every run leaves its directory, so `policygrad plot` draws them.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_origin


def train_one(algo: str, env: str, backend: str, overrides: dict[str, Any], root: Path, seed: int) -> dict[str, Any]:
    """Train one seed and say how its final policy does."""
    from policygrad.training.agent import Agent
    from policygrad.training.train import train

    agent = Agent(algo, env, seed=seed, backend=backend, **overrides)
    run = train(agent, root=root)
    evaluation = run.evaluation() or {}
    figures = {way: round(evaluation[way]["mean"], 3) for way in ("greedy", "sampled")}
    ci95 = [None if x is None else round(x, 3) for x in evaluation["greedy"]["ci95"]]
    measured = {"seed": seed, "steps": agent.collector.steps_done, **figures, "greedy_ci95": ci95}
    return measured | {"config": agent.config, "versions": run.config()["versions"]}


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
    parser.add_argument("--backend", default="gymnasium", help="who steps the training environments [gymnasium]")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs-root", type=Path, default=Path("runs"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    overrides = dict(parse(args.algo, item) for item in args.set)
    work = partial(train_one, args.algo, args.env, args.backend, overrides, args.runs_root)
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        seeds = list(pool.map(work, args.seeds))
    config, versions = ({k: v for seed in seeds for k, v in seed.pop(name).items()} for name in ("config", "versions"))
    for s in seeds:
        print(
            f"seed {s['seed']}: greedy {s['greedy']} {s['greedy_ci95']}, sampled {s['sampled']}, {s['steps']:,} steps"
        )
    scores = [s["greedy"] for s in seeds]
    print(
        f"{args.algo} {args.env} {args.set}: mean {sum(scores) / len(scores):.1f}, lowest {min(scores)}, seeds {scores}"
    )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        given = {"algo": args.algo, "env": args.env, "backend": args.backend, "set": args.set}
        data = given | {"versions": versions, "config": config, "seeds": seeds}
        args.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
