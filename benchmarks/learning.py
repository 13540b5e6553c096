"""Learning figures: the tuned preset, several seeds, the final policy, greedy, 100 episodes on fixed seeds; all seeds listed.

    python benchmarks/learning.py ppo CartPole-v1 --seeds 0 1 2 3 4 --json benchmarks/results/cartpole-1-ppo.json
    python benchmarks/learning.py reinforce CartPole-v1 --set returns=total baseline=none
    python benchmarks/learning.py ppo LunarLander-v3 --runs runs/envpool --json lander.json

One process a run, as many at a time as there are cores. Runs of the same configuration, seed and version under --runs-root are
read, unfinished ones are resumed, and the others are trained, so an interrupted recording goes on where it was. With `--runs`
nothing is trained, and the finished runs in that directory are recorded.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from policygrad.reports.aggregates import interval, iqm
from policygrad.stored.directory import RunDirectory, runs_at
from policygrad.training.compare import Request, trained
from policygrad.training.jobs import SilentBoard
from policygrad.training.sides import read_side

EPISODES = 100


def run_all(args: argparse.Namespace) -> list[RunDirectory]:
    """The finished runs of all seeds."""
    side = read_side(f"{args.algo}:{','.join(args.set)}" if args.set else args.algo, args.algo)
    request = Request([side], [args.env], args.seeds, None, EPISODES, args.runs_root, greedy=True)
    found = trained(request, args.processes, SilentBoard())[args.algo][args.env]
    return [RunDirectory(Path(run.place)) for run in found]


def recorded(run: RunDirectory) -> dict[str, Any]:
    """How the final policy of a run does."""
    evaluation = run.evaluation() or {}
    figures = {way: round(evaluation[way]["mean"], 3) for way in ("greedy", "sampled")}
    ci95 = [None if x is None else round(x, 3) for x in evaluation["greedy"]["ci95"]]
    return {"seed": run.config()["seed"], "steps": run.state()["steps"], **figures, "greedy_ci95": ci95}


def main() -> None:
    """Train what is missing, print one line a seed and the summary, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algo")
    parser.add_argument("env")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyperparameters over the preset")
    parser.add_argument("--processes", type=int, help="runs at a time [the number of cores]")
    parser.add_argument("--runs-root", type=Path, default=Path("runs"))
    parser.add_argument("--runs", type=Path, metavar="DIR", help="record the finished runs in DIR and train nothing")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    runs = runs_at(args.runs) if args.runs else run_all(args)
    seeds = sorted((recorded(run) for run in runs), key=lambda one: one["seed"])
    for s in seeds:
        print(
            f"seed {s['seed']}: greedy {s['greedy']} {s['greedy_ci95']}, sampled {s['sampled']}, {s['steps']:,} steps"
        )
    scores = [np.array([s["greedy"] for s in seeds])]
    low, high = interval(iqm, scores)
    print(
        f"{args.algo} {args.env} {args.set}: IQM {iqm(scores):.1f} [{low:.1f}, {high:.1f}], mean {np.mean(scores):.1f}, "
        f"lowest {np.min(scores)}"
    )
    if args.json:
        said = runs[0].config()
        args.json.parent.mkdir(parents=True, exist_ok=True)
        given = {"algo": args.algo, "env": args.env, "backend": said["backend"], "set": args.set}
        data = given | {"versions": said["versions"], "config": said["config"], "seeds": seeds}
        args.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
