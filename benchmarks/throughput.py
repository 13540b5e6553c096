"""Training throughput, policygrad against other libraries: alternating, each measurement in a process of its own.

    python benchmarks/throughput.py [--config NAME…] [--pairs 5] [--steps N] [--json FILE]        # Stable-Baselines3
    python benchmarks/throughput.py --config ppo-cartpole --against sb3 sbx torchrl --python sbx=PYTHON torchrl=PYTHON
    python benchmarks/performance.py                                   # the tables of docs/performance.md, from the JSON

What is measured is written into speed.json, beside what is there already of other configurations, with the versions of each.

Needs `pip install policygrad[compare]` and a machine with nothing else running. What is compared, how to install the other
libraries, and what still differs between the sides: README.md beside this file.

A pair is one measurement of each side with the same seed; all libraries of a run share policygrad's. Sides alternate, as does
who goes first. Printed are each side's median, and the median, the smallest and the largest ratio of the pairs. The training
clock covers whole iterations (collect and update) after a warm-up, without imports and construction; the process clock covers
everything from Python's start to its end, steps of the warm-up included. LunarLander's rollouts change speed with the policy,
so all sides run the same few iterations from scratch.

Reusing the memory of rollouts gains nothing: with an allocator that keeps it (MALLOC_TRIM_THRESHOLD_ and
MALLOC_MMAP_THRESHOLD_ of 2·10⁹) five trainings had medians of 53,213 steps/s instead of 55,695 on LunarLander with EnvPool, and
of 207,066 instead of 214,204 on compiled CartPole.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from configurations import CONFIGS
from peers import MAKERS, SCRIPTS

SPEED, CHILD = Path(__file__).parent / "speed.json", Path(__file__).parent / "peers.py"
CLOCKS = ("training", "process")
Round = dict[str, dict[str, Any]]  # one measurement of each side, by name


@dataclass(frozen=True)
class Places:
    """Which Python has a library [this one], and where the checkouts are of those that are run from one."""

    pythons: dict[str, str] = field(default_factory=dict)
    checkouts: dict[str, Path] = field(default_factory=dict)


def run_child(side: str, name: str, iterations: int, seed: int, places: Places) -> dict[str, Any]:
    """One measurement in a fresh process: steps/s in training, and steps/s by the clock of the whole process."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [places.pythons.get(side, sys.executable), str(CHILD), side, name, str(iterations), str(seed)]
    command.append(str(places.checkouts.get(side, "")))
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | one_thread)
    process_seconds = time.perf_counter() - start
    m = json.loads(done.stdout.splitlines()[-1])
    return m | {"training": m["steps"] / m["seconds"], "process": (m["warmup"] + m["steps"]) / process_seconds}


def compare(name: str, sides: Sequence[str], iterations: int, pairs: int, places: Places) -> list[Round]:
    """Rounds of measurements; who goes first changes, so that a drift of the machine favours nobody."""
    results, everybody = [], ["policygrad", *sides]
    for k in range(pairs):
        first = (k + 1) % len(everybody)
        order = everybody[first:] + everybody[:first]
        measured = {side: run_child(side, name, iterations, k, places) for side in order}
        results.append({side: measured[side] for side in everybody})
        speeds = ", ".join(f"{side} {results[-1][side]['training']:,.0f}" for side in everybody)
        print(f"  {name} pair {k + 1}/{pairs}: {speeds} steps/s", file=sys.stderr)
    return results


def summary(results: Sequence[Round], side: str, clock: str) -> dict[str, float]:
    """Medians of this side and of ours, and of the pairs' ratios with the smallest and the largest."""
    ratios = [pair["policygrad"][clock] / pair[side][clock] for pair in results]
    theirs, ours = (statistics.median(pair[one][clock] for pair in results) for one in (side, "policygrad"))
    spread = {"min": min(ratios), "max": max(ratios)}
    return {"theirs": theirs, "ours": ours, "ratio": statistics.median(ratios)} | spread


def split_versions(results: Sequence[Round]) -> dict[str, dict[str, str]]:
    """The versions of every side, taken out of the measurements, and the machine."""
    found = {"machine": {"processor": platform.machine(), "cores": str(os.cpu_count())}}
    for measured in results:
        found |= {side: one.pop("versions") for side, one in measured.items()}
    return found


def lines_of(name: str, results: Sequence[Round]) -> tuple[list[str], bool]:
    """Lines of the printed table, and whether a bar was missed."""
    config, lines, missed = CONFIGS[name], [], False
    for side in [side for side in results[0] if side != "policygrad"]:
        for clock in CLOCKS:
            s, bar = summary(results, side, clock), config.bars.get(side) if clock == config.clock else None
            missed |= bar is not None and s["ratio"] < bar
            ratio = f"{s['ratio']:6.2f}  [{s['min']:.2f}, {s['max']:.2f}]"
            said = "" if bar is None else f"{bar:.2f}"
            lines.append(f"{name:<31}{side:<12}{clock:<9}{s['theirs']:>11.0f} {s['ours']:>11.0f}{ratio:>24}{said:>7}")
    return lines, missed


def pairs_of(items: Sequence[str]) -> dict[str, str]:
    """NAME=PATH as a dictionary."""
    found = dict(item.split("=", 1) for item in items if "=" in item)
    if len(found) < len(items) or not found.keys() <= MAKERS.keys() | SCRIPTS.keys():
        raise ValueError(
            f"--python takes NAME=PATH with names among {', '.join(MAKERS | SCRIPTS)}, got {' '.join(items)}"
        )
    return found


def parse(words: Sequence[str] | None) -> tuple[argparse.Namespace, Places, dict[str, list[str]]]:
    """Arguments, places, and the sides of each configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sides = [side for side in MAKERS | SCRIPTS if side != "policygrad"]
    parser.add_argument("--config", nargs="+", choices=CONFIGS, help="default: all that the sides know")
    parser.add_argument("--against", nargs="+", choices=sides, default=["sb3", "sb3-workers"], help="default: SB3")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, help="environment steps under the clock, not the configuration's")
    parser.add_argument("--json", type=Path, default=SPEED, help="where every measurement goes [speed.json]")
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH", help="the Python that has a library")
    for side in SCRIPTS:
        parser.add_argument(f"--{side}", type=Path, metavar="PATH", help=f"the checkout that {side} is run from")
    args = parser.parse_args(words)
    chosen = {name: [s for s in CONFIGS[name].sides if s in args.against] for name in args.config or CONFIGS}
    for name, known in chosen.items():
        if args.config and not known:
            parser.error(
                f"{name} is compared with {', '.join(CONFIGS[name].sides)}, not with {', '.join(args.against)}"
            )
    checkouts = {side: path for side in SCRIPTS if (path := getattr(args, side)) is not None}
    absent = {side for known in chosen.values() for side in known if side in SCRIPTS} - checkouts.keys()
    if absent:
        parser.error(f"{', '.join(sorted(absent))} is run from a checkout: give --{min(absent)} PATH")
    try:
        places = Places(pairs_of(args.python), checkouts)
    except ValueError as error:
        parser.error(str(error))
    return args, places, {name: known for name, known in chosen.items() if known}


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return 1 when a ratio misses its bar."""
    args, places, chosen = parse(words)
    report: dict[str, Any] = json.loads(args.json.read_text()) if args.json.exists() else {}
    lines, missed, used = [], False, {}
    for name, sides in chosen.items():
        config = CONFIGS[name]
        iterations = max(1, round(args.steps / config.rows)) if args.steps else config.iterations
        results = compare(name, sides, iterations, args.pairs, places)
        versions = split_versions(results)
        report[name] = {"config": asdict(config), "versions": versions, "pairs": results}
        args.json.write_text(json.dumps(report))
        more, under = lines_of(name, results)
        lines, missed, used = lines + more, missed or under, used | versions
    for side, found in used.items():
        print(f"{side}: " + ", ".join(f"{k} {v}" for k, v in found.items()))
    heads = f"{'theirs':>11} {'policygrad':>11}{'ratio  [min, max]':>24}{'bar':>7}"
    print(f"{'configuration':<31}{'against':<12}{'clock':<9}{heads}")
    print("\n".join(lines))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
