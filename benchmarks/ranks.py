"""How data-parallel learning grows: iterations measured with one rank and several, over networks of given latency and
bandwidth, and a model of computation against communication that is fitted to some of them and tested on the others.

    python benchmarks/ranks.py measure    # Linux, root; nothing else should run; writes benchmarks/ranks.json
    python benchmarks/ranks.py speed      # one rank against two, in pairs, on one machine; adds to the file
    python benchmarks/ranks.py page       # writes docs/data-parallel.md's tables

    seconds of an iteration = c + r · rows / n + k · (a + m · (n − 1) · latency) + 2 (n − 1) / n · bits / bandwidth

rows: steps of the whole batch; n: ranks; k: all-reduces per iteration and bits: what they add, both counted while measuring;
c, r, a and m: fitted by least squares. c is what every rank does again; m would be 2 if messages around the ring of ranks
needed no answers. With m = 2 errors were up to 35 %; after m was fitted, four more held-out points were measured, the last
four.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from link import INTERFACE, network
from torch import Tensor

from policygrad.marks import between, markdown_table
from policygrad.training.ranks import STORE

FILE, PAGE = Path("benchmarks/ranks.json"), Path("docs/data-parallel.md")
ITERATIONS, WARM = 10, 2
STEPS = 128  # of each environment, per iteration
MINIBATCHES = 4
ENV = "LunarLander-v3"  # stepped by Gymnasium, which takes most of the time
PAIRS = 5  # of runs with one rank and with two
PORT = 29611
FAST = 1e10  # bits per second of a network that costs next to nothing
WEAK = "LunarLander-v3, 4 epochs, weak: 2,048 steps a rank"  # one rank's time is doubled, for as many steps
TASKS: dict[str, dict[str, Any]] = {  # of `speed`; all with 4,096 steps per iteration of two ranks
    "HalfCheetah-v5, 1 epoch: the environment is most of it": {"env": "HalfCheetah-v5", "epochs": 1},
    "HalfCheetah-v5, 4 epochs": {"env": "HalfCheetah-v5"},
    "LunarLander-v3, 4 epochs": {},
    WEAK: {},
    "CartPole-v1, 4 epochs: the update is most of it": {"env": "CartPole-v1"},
}
NETWORK = 5e-5, 1e10  # seconds and bits per second, of an Ethernet in a data centre


@dataclass(frozen=True)
class Point:
    """What is measured. envs: of all ranks together. latency: seconds one way. bandwidth: bits per second."""

    ranks: int
    envs: int
    latency: float = 0.0
    bandwidth: float = FAST
    hidden: int = 64
    env: str = ENV
    epochs: int = 4
    held_out: bool = False
    as_ranks: bool = False

    @property
    def rows(self) -> int:
        """Steps of the whole batch."""
        return self.envs * STEPS


FITTED = [
    *(Point(1, envs, as_ranks=True) for envs in (8, 16, 32)),
    *(Point(2, envs) for envs in (16, 32)),
    Point(2, 16, 1e-3, 1e9),
    Point(2, 16, 1e-3, 1e8),
    Point(2, 32, 3e-3, 1e9),
]
HELD_OUT = [
    Point(1, 24, as_ranks=True, held_out=True),
    Point(2, 24, 2e-3, 5e8, held_out=True),
    Point(2, 48, 5e-3, 2e8, held_out=True),
    Point(2, 40, 5e-4, 1e9, held_out=True),
    Point(2, 16, 1e-2, 1e9, held_out=True),
    Point(2, 24, 1e-3, 5e7, hidden=128, held_out=True),
    Point(3, 24, 2e-3, 1e9, held_out=True),
    # chosen and measured after the model had got m
    Point(2, 20, 4e-3, 3e8, held_out=True),
    Point(2, 56, 1.5e-3, 2e9, held_out=True),
    Point(3, 18, 1e-3, 5e8, held_out=True),
    Point(4, 32, 5e-4, 1e9, held_out=True),
]


def work(point: Point) -> None:
    """A rank: train, and print what was measured."""
    import policygrad as pg
    from policygrad.training import ranks as module

    module.data_parallel()
    seen = {"calls": 0, "bits": 0, "waited": 0.0}
    reduce = module.Ranks._all

    def counted(self: Any, x: Any, *how: Any) -> Any:
        began = time.perf_counter()
        y = reduce(self, x, *how)
        seen["waited"] += time.perf_counter() - began
        seen["calls"] += 1
        seen["bits"] += 8 * x.numel() * x.element_size()
        return y

    module.Ranks._all = counted  # pyright: ignore[reportAttributeAccessIssue]
    at: list[dict[str, float]] = []

    def tick(agent: Any, row: Any) -> None:
        at.append({"at": time.perf_counter(), **seen})

    hidden = (point.hidden, point.hidden)
    words: dict[str, Any] = {
        "num_envs": point.envs,
        "num_steps": STEPS,
        "epochs": point.epochs,
        "minibatches": MINIBATCHES,
    }
    steps = point.rows * (ITERATIONS + WARM)
    agent = pg.Agent("ppo", point.env, preset={}, backend="gymnasium", hidden=hidden, steps=steps, seed=0, **words)
    with alone_as_ranks() if point.as_ranks else nullcontext():
        agent.learn(callback=tick)
    each = [{name: b[name] - a[name] for name in a} for a, b in zip(at[WARM - 1 :], at[WARM:], strict=False)]
    found = {name: statistics.median(one[name] for one in each) for name in each[0]}
    print(json.dumps({"seconds": found.pop("at"), **found}), flush=True)


@contextmanager
def alone_as_ranks() -> Iterator[None]:
    """Let one process compute as ranks do, without the compiled updates that cannot sum over ranks."""
    from policygrad.total import reducing

    with reducing(Tensor.clone, Tensor.clone, 0, 1):
        yield


def measure(point: Point) -> dict[str, Any]:
    """The seconds of an iteration, with what was counted in it, over a network where there are several ranks."""
    plain = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if point.ranks == 1:
        return started(point, [plain], [[]])
    with network(point.ranks, point.latency, point.bandwidth) as machines:
        shared = plain | {"MASTER_ADDR": machines[0].address, "MASTER_PORT": str(PORT), "GLOO_SOCKET_IFNAME": INTERFACE}
        shared |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        return started(point, [shared] * point.ranks, [machine.prefix for machine in machines])


def terms(point: Point, found: dict[str, Any]) -> tuple[np.ndarray, float]:
    """What c, r, a and m are multiplied with, and the part that needs no fit."""
    n = point.ranks
    calls = found["calls"] if n > 1 else 0.0
    # more ranks than cores compute one after the other
    share = max(1.0, n / (os.cpu_count() or 1)) / n
    carried = 2 * (n - 1) / n * found["bits"] / point.bandwidth
    return np.array([1.0, point.rows * share, calls, calls * (n - 1) * point.latency]), carried


def fit(rows: list[dict[str, Any]]) -> np.ndarray:
    """c, r, a and m by least squares of relative errors on the points that are not held out."""
    used = [row for row in rows if not row["point"]["held_out"]]
    pairs = [(terms(Point(**row["point"]), row), row["seconds"]) for row in used]
    left = np.stack([x / seconds for (x, _), seconds in pairs])
    right = np.array([1.0 - known / seconds for (_, known), seconds in pairs])
    return np.linalg.lstsq(left, right, rcond=None)[0]


def predicted(coefficients: np.ndarray, row: dict[str, Any]) -> float:
    """The model's seconds."""
    x, known = terms(Point(**row["point"]), row)
    return float(x @ coefficients + known)


def measured_table(rows: list[dict[str, Any]], coefficients: np.ndarray) -> str:
    """Every point, measured and as the model has it."""
    header = [
        "",
        "ranks",
        "environments",
        "network",
        "latency",
        "bandwidth",
        "sums",
        "kB",
        "measured",
        "model",
        "error",
    ]
    lines = []
    for row in rows:
        point, model = Point(**row["point"]), predicted(coefficients, row)
        several = point.ranks > 1
        lines.append([
            "held out" if point.held_out else "fitted",
            str(point.ranks),
            str(point.envs),
            f"{point.hidden} × {point.hidden}",
            f"{1e3 * point.latency:g} ms" if several else "–",
            f"{point.bandwidth / 1e6:,.0f} Mbit/s" if several else "–",
            f"{row['calls']:.0f}" if several else "–",
            f"{row['bits'] / 8e3:,.0f}" if several else "–",
            f"{1e3 * row['seconds']:.0f} ms",
            f"{1e3 * model:.0f} ms",
            f"{100 * (model / row['seconds'] - 1):+.0f} %",
        ])  # fmt: skip
    return markdown_table(header, lines)


def grown(
    coefficients: np.ndarray, row: dict[str, Any], ranks: int, rows: int, latency: float, bandwidth: float
) -> float:
    """The model's seconds of an iteration with many ranks, a core each. row: where sums and bits were counted."""
    c, r, a, m = coefficients
    waits = row["calls"] * (a + m * (ranks - 1) * latency) if ranks > 1 else 0.0
    return c + r * rows / ranks + waits + 2 * (ranks - 1) / ranks * row["bits"] / bandwidth


def growth_table(rows: list[dict[str, Any]], coefficients: np.ndarray) -> str:
    """Up to a thousand ranks in a data centre: a batch that grows with them, and one that does not."""
    counted = next(row for row in rows if row["point"]["ranks"] == 2)
    latency, bandwidth = NETWORK
    header = [
        "ranks",
        "4,096 steps a rank",
        "of them talking",
        "efficiency",
        "10⁹ steps",
        "65,536 steps in all",
        "10⁹ steps",
    ]
    lines, lone = [], grown(coefficients, counted, 1, 4096, latency, bandwidth)
    for n in (1, 2, 4, 16, 64, 256, 1000):
        weak = grown(coefficients, counted, n, 4096 * n, latency, bandwidth)
        strong = grown(coefficients, counted, n, 65_536, latency, bandwidth)
        alone = coefficients[0] + coefficients[1] * 4096
        hours = [1e9 / (4096 * n) * weak / 3600, 1e9 / 65_536 * strong / 3600]
        talk = f"{100 * (weak - alone) / weak:.0f} %"
        lines.append([f"{n:,}", f"{weak:.2f} s", talk, f"{100 * lone / weak:.0f} %", spent(hours[0]), f"{strong:.2f} s",
                      spent(hours[1])])  # fmt: skip
    return markdown_table(header, lines)


def spent(hours: float) -> str:
    """Hours, or days, for people."""
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def speed_table(pairs: list[dict[str, Any]]) -> str:
    """One rank against two."""
    lines = []
    for pair in pairs:
        ratios = sorted(one / two for one, two in zip(pair["one"], pair["two"], strict=True))
        middle = statistics.median(ratios)
        lines.append([pair["name"], f"{1e3 * statistics.median(pair['one']):.0f} ms",
                      f"{1e3 * statistics.median(pair['two']):.0f} ms", f"**{middle:.2f}**",
                      f"{ratios[0]:.2f} to {ratios[-1]:.2f}"])  # fmt: skip
    return markdown_table(["", "one rank", "two ranks", "times as fast", f"of {PAIRS} pairs"], lines)


def speed(known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Iterations of one rank and of two, in pairs: with the same batch, and with the same batch per rank. known: not again."""
    found = {pair["name"]: pair for pair in known}
    for name, words in TASKS.items():
        if name in found:
            continue
        told: dict[str, list[float]] = {"one": [], "two": []}
        for _ in range(PAIRS):
            lone = (
                here(Point(1, 16, **words))["seconds"] * 2 if name == WEAK else here(Point(1, 32, **words))["seconds"]
            )
            told["one"].append(lone)
            told["two"].append(here(Point(2, 32, **words))["seconds"])
        found[name] = {"name": name, **told}
        print(json.dumps(found[name]), flush=True)
    return [found[name] for name in TASKS]


def here(point: Point) -> dict[str, Any]:
    """The same as `measure`, on one machine: the ranks share memory, as those of --nproc do."""
    with tempfile.TemporaryDirectory() as folder:
        plain = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", STORE: f"{folder}/store"}
        return started(point, [plain] * point.ranks, [[]] * point.ranks)


def started(point: Point, environments: list[dict[str, str]], prefixes: list[list[str]]) -> dict[str, Any]:
    """Start the ranks, wait for them, and return what rank 0 has measured."""
    words = [sys.executable, __file__, "work", json.dumps(asdict(point))]
    ranks = []
    for k, (env, prefix) in enumerate(zip(environments, prefixes, strict=True)):
        env = os.environ | env | {"RANK": str(k), "WORLD_SIZE": str(point.ranks)}
        ranks.append(
            subprocess.Popen([*prefix, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
    told = [rank.communicate(timeout=600)[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit(f"{point} failed")
    return json.loads(told[0].splitlines()[-1])


def page(found: dict[str, Any]) -> None:
    """Write the tables into the page."""
    coefficients = fit(found["rows"])
    c, r, a, m = coefficients
    errors: dict[int, list[float]] = {}
    for row in found["rows"]:
        if row["point"]["held_out"]:
            errors.setdefault(row["point"]["ranks"], []).append(abs(predicted(coefficients, row) / row["seconds"] - 1))
    largest = ", ".join(f"{100 * max(each):.0f} % with {n}" for n, each in sorted(errors.items()))
    said = (
        f"c = {1e3 * c:.0f} ms, r = {1e6 * r:.0f} µs per step, a = {1e3 * a:.2f} ms per sum, m = {m:.1f}.\n"
        f"The largest errors on held-out points, by ranks: {largest}."
    )
    text = PAGE.read_text("utf8")
    for name, table in (
        ("speed", speed_table(found["speed"])),
        ("model", f"{said}\n\n{measured_table(found['rows'], coefficients)}"),
        ("growth", growth_table(found["rows"], coefficients)),
    ):
        text = between(
            text, f"<!-- {name} of ranks: from benchmarks/ranks.py -->", f"<!-- end of {name} of ranks -->", table
        )
    PAGE.write_text(text, "utf8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "speed", "page", "work"))
    parser.add_argument("given", nargs="?", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what == "work":
        work(Point(**json.loads(given.given)))
        return
    found = (
        json.loads(FILE.read_text())
        if FILE.exists()
        else {"env": ENV, "cores": os.cpu_count(), "rows": [], "speed": []}
    )
    if given.what == "measure":
        found["rows"] = []
        for point in [*FITTED, *HELD_OUT]:
            found["rows"].append(measure(point) | {"point": asdict(point)})
            print(json.dumps(found["rows"][-1]), flush=True)
    elif given.what == "speed":
        found["speed"] = speed(found["speed"])
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    if found["rows"] and found["speed"]:
        page(found)


if __name__ == "__main__":
    main()
