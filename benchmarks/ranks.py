"""How data-parallel learning grows: iterations measured with one rank and several, over networks of given latency and
bandwidth, and a model of computation against communication that is fitted to some of them and tested on the others.

    python benchmarks/ranks.py measure --out benchmarks/ranks.json    # Linux, root; nothing else should run
    python benchmarks/ranks.py model benchmarks/ranks.json

    seconds of an iteration = c + r · rows / n + k · (a + 2 (n − 1) · latency) + 2 (n − 1) / n · bits / bandwidth

rows: steps of the whole batch; n: ranks; k: all-reduces per iteration and bits: what they add, both counted while measuring;
2 (n − 1): the messages one after the other of a ring; c, r and a: fitted. c is what every rank does again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from link import INTERFACE, network

ITERATIONS, WARM = 12, 2
STEPS = 128  # of each environment, per iteration
EPOCHS, MINIBATCHES = 4, 4
ENV = "CartPole-v1"  # Gymnasium's, in Python: what is stepped takes most of the time
PORT = 29611
FAST = 1e10  # bits per second of a network that costs next to nothing


@dataclass(frozen=True)
class Point:
    """What is measured. envs: of all ranks together. latency: seconds one way. bandwidth: bits per second."""

    ranks: int
    envs: int
    latency: float = 0.0
    bandwidth: float = FAST
    hidden: int = 64
    held_out: bool = False


FITTED = [
    *(Point(1, envs) for envs in (4, 8, 16)),
    *(Point(2, envs) for envs in (8, 16)),
    Point(2, 8, 1e-3, 1e9),
    Point(2, 8, 1e-3, 1e8),
    Point(2, 16, 3e-3, 1e9),
]
HELD_OUT = [
    Point(1, 12, held_out=True),
    Point(2, 12, 2e-3, 5e8, held_out=True),
    Point(2, 32, 5e-3, 2e8, held_out=True),
    Point(2, 24, 5e-4, 1e9, held_out=True),
    Point(2, 8, 1e-2, 1e9, held_out=True),
    Point(2, 12, 1e-3, 5e7, hidden=128, held_out=True),
    Point(3, 12, 2e-3, 1e9, held_out=True),
]


def work(point: Point) -> None:
    """A rank: train, and print what was measured."""
    import policygrad as pg
    from policygrad.training import ranks as module

    module.data_parallel()
    seen = {"calls": 0, "bits": 0, "waited": 0.0}
    reduce = module.Ranks._all

    def counted(self: Any, x: Any, op: str) -> Any:
        began = time.perf_counter()
        y = reduce(self, x, op)
        seen["waited"] += time.perf_counter() - began
        seen["calls"] += 1
        seen["bits"] += 8 * x.numel() * x.element_size()
        return y

    module.Ranks._all = counted
    at: list[dict[str, float]] = []

    def tick(agent: Any, row: Any) -> None:
        at.append({"at": time.perf_counter(), **seen})

    hidden = (point.hidden, point.hidden)
    words: dict[str, Any] = {"num_envs": point.envs, "num_steps": STEPS, "epochs": EPOCHS, "minibatches": MINIBATCHES}
    steps = point.envs * STEPS * (ITERATIONS + WARM)
    agent = pg.Agent("ppo", ENV, preset={}, backend="gymnasium", hidden=hidden, steps=steps, seed=0, **words)
    agent.learn(callback=tick)
    each = [{name: b[name] - a[name] for name in a} for a, b in zip(at[WARM - 1 :], at[WARM:], strict=False)]
    found = {name: statistics.median(one[name] for one in each) for name in each[0]}
    print(json.dumps({"seconds": found.pop("at"), **found}), flush=True)


def measure(point: Point) -> dict[str, Any]:
    """The seconds of an iteration, with what was counted in it."""
    words = [sys.executable, __file__, "work", json.dumps(asdict(point))]
    plain = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if point.ranks == 1:
        told = subprocess.run(words, env=os.environ | plain, check=True, capture_output=True, text=True).stdout
        return json.loads(told.splitlines()[-1])
    with network(point.ranks, point.latency, point.bandwidth) as machines:
        shared = plain | {"WORLD_SIZE": str(point.ranks), "MASTER_ADDR": machines[0].address, "MASTER_PORT": str(PORT)}
        shared |= {"GLOO_SOCKET_IFNAME": INTERFACE, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        ranks = [
            subprocess.Popen(
                [*machine.prefix, *words], env=os.environ | shared | {"RANK": str(k)}, stdout=subprocess.PIPE, text=True
            )
            for k, machine in enumerate(machines)
        ]
        told = [rank.communicate(timeout=600)[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            raise SystemExit(f"{point} failed")
    return json.loads(told[0].splitlines()[-1])


def terms(point: Point, found: dict[str, Any]) -> tuple[np.ndarray, float]:
    """What c, r and a are multiplied with, and the part that needs no fit."""
    n = point.ranks
    several = n > 1
    ring = found["calls"] * 2 * (n - 1) * point.latency + 2 * (n - 1) / n * found["bits"] / point.bandwidth
    # more ranks than cores compute one after the other
    share = max(1.0, n / (os.cpu_count() or 1)) / n
    return np.array([1.0, point.envs * STEPS * share, found["calls"] * several]), ring * several


def fit(rows: list[dict[str, Any]]) -> np.ndarray:
    """c, r and a by least squares of relative errors on the points that are not held out."""
    used = [row for row in rows if not row["point"]["held_out"]]
    pairs = [(terms(Point(**row["point"]), row), row["seconds"]) for row in used]
    left = np.stack([x / seconds for (x, _), seconds in pairs])
    right = np.array([1.0 - known / seconds for (_, known), seconds in pairs])
    return np.linalg.lstsq(left, right, rcond=None)[0]


def predicted(coefficients: np.ndarray, row: dict[str, Any]) -> float:
    """The model's seconds."""
    x, known = terms(Point(**row["point"]), row)
    return float(x @ coefficients + known)


def show(rows: list[dict[str, Any]]) -> None:
    """The measurements, the model, and its errors."""
    coefficients = fit(rows)
    print("c = {:.4f} s, r = {:.3e} s per step, a = {:.3e} s per all-reduce".format(*coefficients))
    for row in rows:
        point, model = Point(**row["point"]), predicted(coefficients, row)
        print(
            f"{'held out' if point.held_out else 'fitted':8} ranks {point.ranks} envs {point.envs:3} hidden {point.hidden:3} "
            f"latency {1e3 * point.latency:5.1f} ms bandwidth {point.bandwidth / 1e6:8.0f} Mbit/s  {row['calls']:.0f} calls "
            f"{row['bits'] / 8e3:8.1f} kB  measured {row['seconds']:.4f} s  model {model:.4f} s  {model / row['seconds'] - 1:+.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "model", "work"))
    parser.add_argument("given", nargs="?", help="of model: the file")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/ranks.json"))
    given = parser.parse_args()
    if given.what == "work":
        work(Point(**json.loads(given.given)))
        return
    if given.what == "model":
        show(json.loads(Path(given.given).read_text())["rows"])
        return
    rows = []
    for point in [*FITTED, *HELD_OUT]:
        rows.append(measure(point) | {"point": asdict(point)})
        print(json.dumps(rows[-1]), flush=True)
    given.out.write_text(json.dumps({"env": ENV, "cores": os.cpu_count(), "rows": rows}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
