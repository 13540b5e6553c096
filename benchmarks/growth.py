"""How training grows with its size, and which share of what the machine can do it reaches: the curves of docs/performance.md.

    python benchmarks/growth.py [--curve NAME…] [--points N…] [--quick] [--json FILE]     # about eight minutes for all
    python benchmarks/growth.py --docs                 # tables and picture of docs/performance.md, from growth.json

Every point is a process of its own, with one thread and without diagnostics, which warms up, trains for some seconds, and
measures matrix products and copies between its chunks: see growth_bounds.py for what is counted. Curves are written into
growth.json as they are measured, beside what is there already. Needs a machine with nothing else running, and for the seeds
Linux, where a process can be kept on one core.

A curve is linear where its slope on logarithmic axes, from one point to the next, is 0.8 to 1.25 times the ideal one; `linear`
is the longest such range.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

GROWTH = Path(__file__).parent / "growth.json"
BAND = 0.8  # of the ideal slope, and its inverse: what counts as linear
EPOCHS, PRODUCTS = 4, 10  # of PPO, and of a natural step
INPUTS, CHOICES = 4, 2  # of CartPole
SECONDS, CHUNKS = 0.8, 3  # under the clock
SEED_STEPS, SEED_ROUNDS, WARM, BAR = 600_000, 3, 5_000, 0.95
QUICK = {"seconds": 0.02, "chunks": 1, "steps": 100_000, "rounds": 1}
WHOLE = {"seconds": SECONDS, "chunks": CHUNKS, "steps": SEED_STEPS, "rounds": SEED_ROUNDS}
Numbers = dict[str, float]


@dataclass(frozen=True)
class Task:
    """What is trained at a point, on CartPole: `rows` steps an iteration, networks of `width` × `width` units."""

    recipe: str = "ppo"
    num_envs: int = 8
    rows: int = 2048
    width: int = 64
    minibatch: int = 512
    backend: str = "compiled"


@dataclass(frozen=True)
class Curve:
    """A curve: its points, what is trained at each, and the two measured numbers that are compared, y over x.

    Linear is y ∝ x: a speed that grows with the number of environments, or a time that grows with the work.
    """

    task: Callable[[int], Task]
    points: tuple[int, ...]
    x: str
    y: str


def shared_rows(num_envs: int) -> int:
    """Of an iteration: 2,048, or eight of every environment."""
    return max(2048, 8 * num_envs)


NUMBERS_OF_ENVS = (1, 4, 16, 64, 256, 1024, 4096)
CURVES = {
    "environments": Curve(
        lambda n: Task(num_envs=n, rows=shared_rows(n), backend="gymnasium"), NUMBERS_OF_ENVS, "point", "steps_per_second"
    ),
    "environments-compiled": Curve(
        lambda n: Task(num_envs=n, rows=shared_rows(n)), NUMBERS_OF_ENVS, "point", "steps_per_second"
    ),
    "width": Curve(lambda w: Task(width=w), (16, 32, 64, 128, 256, 512, 1024), "gflop", "seconds"),
    "batch": Curve(lambda b: Task(minibatch=b), (32, 64, 128, 256, 512, 1024, 2048), "point", "minibatch_seconds"),
    "parameters": Curve(lambda w: Task("npg", width=w), (16, 32, 64, 128, 256, 512), "parameters", "update_seconds"),
}  # fmt: skip
SEEDS, PEAKS = "seeds", ("gemm_large_one", "gemm_large_all", "copy_large_one", "copy_large_all")


def linear(x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """The slopes of y over x on logarithmic axes, from point to point, and the longest range of points where they are near 1:
    its first and last index, or None where there is none. Of ranges of one length it is the first.
    """
    slopes = [math.log(d / b) / math.log(c / a) for (a, c), (b, d) in zip(pairwise(x), pairwise(y), strict=True)]
    best, start = (0, 0), 0
    for k, slope in enumerate(slopes):
        if not BAND <= slope <= 1.0 / BAND:
            start = k + 1
        elif k + 1 - start > best[1] - best[0]:
            best = start, k + 1
    return {"slopes": slopes, "range": list(best) if best[1] > best[0] else None}


def make_agent(task: Task) -> Any:
    """An agent as it comes, but for the settings of the task and those of throughput.py; no tuned preset."""
    import policygrad

    size = {"num_envs": task.num_envs, "num_steps": task.rows // task.num_envs, "hidden": (task.width,) * 2}
    words = {"backend": task.backend, "kernel": "compiled", "preset": {}, "gamma": 0.99, "lam": 0.95}
    minibatches = max(1, task.rows // task.minibatch)
    if task.recipe == "npg":  # a critic's fit that is too short for a thread of its own, which would disturb the clock
        return policygrad.npg("CartPole-v1", seed=0, cg_iterations=PRODUCTS, critic_epochs=1, **size, **words)
    own = {"epochs": EPOCHS, "minibatches": minibatches, "lr": 3e-4, "clip": 0.2, "max_grad_norm": 0.5}
    return policygrad.ppo("CartPole-v1", seed=0, **own, **size, **words)


def watch_updates(agent: Any) -> list[tuple[float, int, int]]:
    """A list that every update adds its seconds, valid rows and threads to; of PPO the critic's fit is a part of it."""
    from policygrad.algorithms.learner import Learner

    done: list[tuple[float, int, int]] = []
    natural = not hasattr(agent.learner.update, "epochs")
    owner, name = (type(agent.learner.update), "__call__") if natural else (Learner, "improve")
    original = getattr(owner, name)

    def timed(self: Any, *given: Any, **named: Any) -> Any:
        rows, threads = (len(given[1]), 1) if natural else (given[0].fresh.steps, 1 + self._in_two(given[0].fresh))
        start = time.perf_counter()
        found = original(self, *given, **named)
        done.append((time.perf_counter() - start, rows, threads))
        return found

    setattr(owner, name, timed)
    return done


def measure(task: Task, seconds: float, chunks: int) -> Numbers:
    """In the child: the medians over the chunks of what `chunk_numbers` computes, and the machine's peaks."""
    import torch
    from growth_bounds import parameters, peaks
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
    agent = make_agent(task)
    updates = watch_updates(agent)

    def learn(iterations: int) -> Numbers:
        del updates[:]
        before, start, processor = agent.collector.steps_done, time.perf_counter(), time.process_time()
        agent.learn(iterations * task.rows, log_every=iterations * task.rows)
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        return {"steps": agent.collector.steps_done - before, "seconds": seconds, "processor": processor}

    learn(2)
    iterations = max(1, round(seconds / learn(1)["seconds"]))
    found: list[Numbers] = []
    machine: Numbers = {}
    for _ in range(chunks):
        done = learn(iterations)
        machine = machine or peaks(min(task.minibatch, task.rows), task.width, updates[0][2])
        found.append(chunk_numbers(task, done, updates, machine))
    low, high = (pick(one["steps_per_second"] for one in found) for pick in (min, max))
    medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
    return medians | machine | {"low": low, "high": high, "parameters": parameters(networks(task)[0])}


def networks(task: Task) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The units of the layers of policy and critic."""
    return (INPUTS, task.width, task.width, CHOICES), (INPUTS, task.width, task.width, 1)


def chunk_numbers(task: Task, done: Numbers, updates: Sequence[tuple[float, int, int]], machine: Numbers) -> Numbers:
    """Speeds, and shares of what the machine can do, of some iterations of training.

    Seconds are of an iteration, an update or a minibatch. `arithmetic`: the seconds that the operations alone would take, those
    of two threads at the rate of two, over the measured ones; `memory`: the same of the bytes of the minibatches. They are
    measured against matrices and copies of a minibatch's shape; `…_large` against large ones.
    """
    from growth_bounds import minibatch_bytes, natural_flops, ppo_flops

    count, threads = len(updates), updates[0][2]
    update = sum(seconds for seconds, _, _ in updates) / count
    valid = round(sum(rows for _, rows, _ in updates) / count)
    whole = done["seconds"] / count
    policy, critic = networks(task)
    numbers = {
        "steps_per_second": done["steps"] / done["seconds"],
        "seconds": whole,
        "cores": done["processor"] / done["seconds"],
        "update_seconds": update,
        "threads": threads,
    }
    if task.recipe == "npg":
        flops, clock = (0.0, natural_flops(policy, valid, PRODUCTS)), update
    else:
        flops, clock = ppo_flops(policy, critic, task.rows, valid, EPOCHS), whole
        minibatches = EPOCHS * max(1, task.rows // task.minibatch)
        moved = sum(minibatch_bytes(sizes, valid * EPOCHS // minibatches) for sizes in (policy, critic)) / 1e9
        numbers |= {"minibatch_seconds": update / minibatches, "minibatch_megabytes": 1e3 * moved}
        numbers |= {
            "update_rows_per_second": valid * EPOCHS / update,
            "gigabytes_per_second": moved * minibatches / update,
        }
        for kind in ("", "_large"):
            numbers["memory" + kind] = moved * minibatches / machine[f"copy{kind}_all"] / update
    alone, beside = (x / 1e9 for x in flops)
    numbers |= {"gflop": alone + beside, "gflops": (alone + beside) / clock}
    for kind in ("", "_large"):
        least = alone / machine[f"gemm{kind}_one"] + beside / machine[f"gemm{kind}_all"]
        numbers["arithmetic" + kind] = least / clock
    return numbers


def plain_loop(start: float, seconds: float) -> float:
    """In the child: rounds a second of a loop of plain Python that begins at this time."""
    time.sleep(max(0.0, start - time.time()))
    begin, rounds, x = time.perf_counter(), 0, 1
    while time.perf_counter() - begin < seconds:
        for _ in range(10_000):
            x = (x * 1103515245 + 12345) & 0x7FFFFFFF
        rounds += 10_000
    return rounds / (time.perf_counter() - begin)


def train_seeds(count: int, cores: int, steps: int) -> float:
    """In the child: steps/s, while all train, of so many seeds together, as `policygrad train --seed 0 1` has them."""
    from policygrad.training.jobs import Job, SilentBoard
    from policygrad.training.seeds import run_seeds

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    seen: list[tuple[float, int]] = []

    class Meter(SilentBoard):
        interval = 0.02  # seconds between a run's reports

        def show(self, states: Any) -> None:
            if all(state.phase == "training" and state.steps > WARM for state in states):
                seen.append((time.perf_counter(), sum(state.steps for state in states)))

    words = {"num_envs": 8, "num_steps": 256, "epochs": EPOCHS, "minibatches": 4, "preset": {}, "steps": steps}
    words |= {"backend": "compiled", "kernel": "compiled"}
    with tempfile.TemporaryDirectory() as root:
        jobs = [Job("ppo", "CartPole-v1", seed, words, None, root, 1) for seed in range(count)]
        states = run_seeds(jobs, count, Meter())
    if any(state.phase != "done" for state in states):
        raise SystemExit("; ".join(state.message for state in states))
    if len(seen) < 2:
        raise SystemExit("the seeds did not train at the same time: give them more steps")
    (start, before), (end, after) = seen[0], seen[-1]
    return (after - before) / (end - start)


def start_child(*words: object) -> subprocess.Popen[str]:
    """A fresh process of this file, with one thread for every library."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--child", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | one_thread)


def result(child: subprocess.Popen[str]) -> Any:
    """What a child printed in the end."""
    out, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"a measurement ended with {child.returncode}")
    return json.loads(out.splitlines()[-1])


def measure_seeds(sizes: dict[str, Any]) -> dict[str, Any]:
    """One and two of a plain loop, and of a seed, by turns. A seed alone has one core, as each of two has, or both."""
    rounds = []
    for k in range(sizes["rounds"]):
        one: Numbers = {}
        for count in (1, 2) if k % 2 == 0 else (2, 1):
            start, seconds = time.time() + 0.5, max(0.2, 2 * sizes["seconds"])
            loops = [start_child("loop", start, seconds) for _ in range(count)]
            one[f"loops_{count}"] = sum(result(loop) for loop in loops)
            one[f"seeds_{count}"] = result(start_child("seeds", count, count, sizes["steps"]))
        one["seed_on_two_cores"] = result(start_child("seeds", 1, 2, sizes["steps"]))
        rounds.append(one)
        print(f"  seeds: round {k + 1}, {one}", file=sys.stderr)
    ratios = [(one["seeds_2"] / one["seeds_1"]) / (one["loops_2"] / one["loops_1"]) for one in rounds]
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    gain = {"ratio": statistics.median(ratios), "ratios": ratios, "bar": BAR}
    return medians | gain | {"quick": sizes is QUICK, "rounds": rounds}


def measure_curve(
    name: str, points: Sequence[int] | None, sizes: dict[str, Any], known: dict[str, Any]
) -> dict[str, Any]:
    """A curve with its points measured, and others that were known already."""
    curve = CURVES[name]
    found = {point["point"]: point for point in known.get("points", [])}
    for x in points or curve.points:
        numbers = result(start_child("point", name, x, sizes["seconds"], sizes["chunks"]))
        found[x] = {"point": x, "quick": sizes is QUICK, "task": asdict(curve.task(x))} | numbers
        print(f"  {name} {x}: {numbers['steps_per_second']:,.0f} steps/s", file=sys.stderr)
    ordered = [found[x] for x in sorted(found)]
    fit = linear([p[curve.x] for p in ordered], [p[curve.y] for p in ordered])
    ends = fit["range"] and [ordered[k]["point"] for k in fit["range"]]
    peak = {name: max(p[name] for p in ordered) for name in PEAKS}
    return {"x": curve.x, "y": curve.y, "points": ordered, "slopes": fit["slopes"], "linear": ends, "machine": peak}


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    import policygrad

    packages = ("torch", "numba", "gymnasium", "numpy")
    machine = {"python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    return machine | {"policygrad": policygrad.__version__} | {p: importlib.metadata.version(p) for p in packages}


def child(words: Sequence[str]) -> Any:
    """One measurement in this process."""
    kind, *given = words
    if kind == "loop":
        return plain_loop(float(given[0]), float(given[1]))
    if kind == "seeds":
        return train_seeds(int(given[0]), int(given[1]), int(given[2]))
    return measure(CURVES[given[0]].task(int(given[1])), float(given[2]), int(given[3]))


def main() -> int:
    """Measure, and return 1 when the seeds miss their bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*CURVES, SEEDS]
    parser.add_argument("--curve", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--points", nargs="+", type=int, help="only these points of the curves [all]")
    parser.add_argument("--quick", action="store_true", help="for a moment only, to see that it works")
    parser.add_argument("--json", type=Path, default=GROWTH, help="where every measurement goes [growth.json]")
    parser.add_argument("--docs", action="store_true", help="measure nothing: write tables and picture")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child)))
        return 0
    report: dict[str, Any] = json.loads(args.json.read_text()) if args.json.exists() else {}
    if args.docs:
        from growth_page import write

        write(report)
        return 0
    sizes = QUICK if args.quick else WHOLE
    for name in args.curve:
        known = report.get(name, {})
        found = measure_seeds(sizes) if name == SEEDS else measure_curve(name, args.points, sizes, known)
        report[name] = found | {"versions": versions()}
        args.json.write_text(json.dumps(report))
    return int(SEEDS in args.curve and report[SEEDS]["ratio"] < BAR)


if __name__ == "__main__":
    sys.exit(main())
