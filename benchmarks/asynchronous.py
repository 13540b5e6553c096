"""A3C against A2C: the return of the final policy, and the wall clock, for the same number of environment steps.

    python benchmarks/asynchronous.py [--env LunarLander-v3] [--seeds 5] [--sides a2c processes] [--workers 2]
    python benchmarks/asynchronous.py --delays 1 2 4 8 16 [--env CartPole-v1]
    python benchmarks/asynchronous.py --docs        # the table of docs/asynchronous.md, from asynchrony/lunarlander.json

Sides: a2c; processes, A3C with a process per worker; simulated, A3C with its workers in one process. Each side has its own
tuned preset for the environment, with all of its environments. Every training is a process of its own; the sides alternate,
and the side that goes first alternates, too. Use a machine with nothing else running.

--delays: what staleness costs. Simulated workers, so many of them, with four environments each and otherwise the preset of
A3C: every gradient has the same number of steps, and is W − 1 updates old on average. One worker is A2C with four
environments. The steps are the same for all, and so is the number of updates.

The file is written after every training, and what it holds already is kept: run the command again to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from policygrad.marks import markdown_table, with_tables

RESULTS = Path(__file__).parent / "asynchrony"
PAGE, SOURCE = RESULTS.parents[1] / "docs" / "asynchronous.md", "benchmarks/asynchronous.py"
PAGES = (PAGE,)
SHOWN = {"a2c": "A2C, one process", "processes": "A3C, two processes"}
SIDES = ("a2c", "processes", "simulated")
ENVS_PER_WORKER = 4


def keywords_of(side: str, workers: int) -> tuple[str, dict[str, Any]]:
    """The recipe of a side, and its keywords."""
    if side == "a2c":
        return side, {}
    if side == "delay":
        return "a3c", {"workers": workers, "num_envs": ENVS_PER_WORKER * workers}
    return "a3c", {"workers": workers, "asynchrony": side}


def measure(side: str, env: str, seed: int, workers: int, steps: int | None, episodes: int) -> dict[str, Any]:
    """In the child: train, and evaluate the final policy both ways."""
    import policygrad as pg

    algo, keywords = keywords_of(side, workers)
    rows = []
    with pg.Agent(algo, env, seed=seed, **keywords) as agent:
        first: list[float] = []  # when the first iteration was over: the processes have started

        def watch(agent: pg.Agent, row: Any) -> None:
            if not first:
                first.append(time.perf_counter())
            rows.extend([row] if row else [])

        started = time.perf_counter()
        agent.learn(steps, watch)
        seconds = time.perf_counter() - started
        pushes = getattr(agent.collector, "pushes", None)
        done, config = agent.collector.steps_done, dict(agent.config)
        evaluations = {
            name: agent.evaluate(episodes, greedy) for name, greedy in (("greedy", True), ("sampled", False))
        }
    delays = [row["delay"] for row in rows if row.get("delay") is not None]
    return {
        "side": side,
        "seed": seed,
        "workers": workers if algo == "a3c" else 1,
        "steps": done,
        "seconds": round(seconds, 2),
        "seconds_to_start": round(first[0] - started, 2),
        "delay": round(statistics.mean(delays), 3) if delays else 0.0,
        "pushes": pushes,
        "curve": [[row["steps"], row["return_mean"]] for row in rows],
        "config": {name: list(x) if isinstance(x, tuple) else x for name, x in config.items()},
    } | {name: {"mean": e.mean, "ci95": e.to_json()["ci95"]} for name, e in evaluations.items()}


def run_child(*given: Any) -> dict[str, Any]:
    """One training in a fresh process."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--child", json.dumps(given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | one_thread)
    return json.loads(done.stdout.splitlines()[-1])


def plan(args: argparse.Namespace) -> list[tuple[str, int, int]]:
    """What is trained, in order: side, seed, workers."""
    if args.delays:
        return [("delay", seed, workers) for seed in range(args.seeds) for workers in args.delays]
    sides = [args.sides if seed % 2 == 0 else args.sides[::-1] for seed in range(args.seeds)]
    return [(side, seed, 1 if side == "a2c" else args.workers) for seed in range(args.seeds) for side in sides[seed]]


def summary(runs: list[dict[str, Any]]) -> str:
    """A line per side and number of workers."""
    columns = ("greedy", "worst", "sampled", "seconds", "steps/s", "delay")
    lines = [f"{'side':<12} {'workers':>7} " + " ".join(f"{name:>9}" for name in columns)]
    for side, workers in dict.fromkeys((run["side"], run["workers"]) for run in runs):
        own = [run for run in runs if (run["side"], run["workers"]) == (side, workers)]
        greedy = [run["greedy"]["mean"] for run in own]
        numbers = [
            statistics.mean(greedy),
            min(greedy),
            statistics.mean(run["sampled"]["mean"] for run in own),
            statistics.median(run["seconds"] for run in own),
            statistics.median(run["steps"] / run["seconds"] for run in own),
            statistics.mean(run["delay"] for run in own),
        ]
        lines.append(f"{side:<12} {workers:>7} " + " ".join(f"{x:>9.1f}" for x in numbers))
    return "\n".join(lines)


def table(runs: list[dict[str, Any]]) -> str:
    """What the sides returned and took, every seed listed."""
    rows = []
    for side, name in SHOWN.items():
        own = [run for run in runs if run["side"] == side]
        greedy, sampled = ([run[way]["mean"] for run in own] for way in ("greedy", "sampled"))
        means = [f"{statistics.mean(x):.1f}" for x in (greedy, sampled, [run["seconds"] for run in own])]
        rows.append([name, means[0], ", ".join(f"{x:.1f}" for x in greedy), *means[1:]])
    return markdown_table(["", "greedy, mean", "each seed", "sampled, mean", "seconds, mean"], rows)


def written(page: Path) -> str:
    """The page with the table as it was recorded."""
    runs = json.loads((RESULTS / "lunarlander.json").read_text("utf8"))["runs"]
    return with_tables(page.read_text("utf8"), {"LunarLander": table(runs)}, SOURCE)


def main() -> None:
    """Train what is missing, write the file, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="LunarLander-v3")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, …")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["a2c", "processes"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--delays", type=int, nargs="+", default=[], metavar="WORKERS")
    parser.add_argument("--steps", type=int, help="not the preset's")
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation")
    parser.add_argument("--json", type=Path, help="the file [asynchrony/ENV.json, or staleness-ENV.json]")
    parser.add_argument("--docs", action="store_true", help="write the page, train nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.docs:
        PAGE.write_text(written(PAGE), "utf8")
        return
    if args.child:
        print(json.dumps(measure(*json.loads(args.child))))
        return
    name = f"{'staleness-' if args.delays else ''}{args.env.partition('-')[0].lower()}.json"
    file = args.json or RESULTS / name
    runs: list[dict[str, Any]] = json.loads(file.read_text())["runs"] if file.exists() else []
    for side, seed, workers in plan(args):
        if any((run["side"], run["seed"], run["workers"]) == (side, seed, workers) for run in runs):
            continue
        runs.append(run_child(side, args.env, seed, workers, args.steps, args.episodes))
        print(f"  {side}, {workers} workers, seed {seed}: {runs[-1]['greedy']['mean']:.1f}", file=sys.stderr)
        file.write_text(json.dumps({"env": args.env, "cores": os.cpu_count(), "runs": runs}, indent=1))
    print(summary(runs))


if __name__ == "__main__":
    main()
