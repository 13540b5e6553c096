"""The memory of long training runs: does it grow?

    python benchmarks/survival/memory.py [MILLIONS]      # of steps, 5 where nothing is said: about eight minutes

A run trains in a process of its own, with run directory, monitor file and checkpoints, and 200 times on its way writes down its
resident set, after a garbage collection and after unused memory was given back to the system.

The first tenth of the run is warm-up and is left out. The other samples are cut into ten pieces in order, a line is fitted to
the ten means, and its slope has a 95 % interval by Student's t with eight degrees of freedom. Neighbouring samples may be alike
then, as those of memory are: of noise whose neighbours correlate by 0, 0.5, 0.8 and 0.9, the intervals hold the slope in 95,
95, 92 and 85 of 100 cases, where a block bootstrap of as long blocks does in 91, 88, 87 and 77. The correlation is printed.
A run is right if the interval has 0 in it and is no wider than 1 MiB per million steps.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.stats import linregress
from scipy.stats import t as student

ALGORITHMS: dict[str, dict[str, Any]] = {"ppo": {"num_steps": 256}, "a2c": {"num_steps": 5}}  # 8 environments each
CASES = {"ppo, CartPole, 8 × 256": "ppo", "a2c, CartPole, 8 × 5": "a2c"}
SAMPLES, PIECES, WARM_UP, WIDTH = 200, 10, 0.1, 1.0


def resident() -> float:
    """Resident memory of this process in MiB, without what nobody uses any more."""
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def child(algo: str, millions: float, directory: str) -> None:
    """In a process of its own: train, and print (millions of steps, MiB) of every sample as JSON."""
    import policygrad as pg
    from policygrad.training.callbacks import Every
    from policygrad.training.train import train

    steps = round(millions * 1_000_000)
    samples = np.zeros((2 * SAMPLES, 2))  # its memory is taken now
    samples.fill(np.nan)

    def look(agent: Any, row: Any) -> None:
        where = np.flatnonzero(np.isnan(samples[:, 0]))[0]
        samples[where] = agent.collector.steps_done / 1e6, resident()

    agent = pg.Agent(algo, "CartPole-v1", seed=0, num_envs=8, **ALGORITHMS[algo])
    train(agent, directory, steps=steps, episodes=2, callback=Every(steps // SAMPLES, look))
    print(json.dumps(samples[~np.isnan(samples[:, 0])].tolist()))


def slope(samples: np.ndarray) -> tuple[float, float, float, float]:
    """MiB per million steps, its 95 % interval, and the correlation of neighbouring samples about the line.

    samples: (n, 2) of millions of steps and MiB, in order.
    """
    kept = samples[samples[:, 0] > WARM_UP * samples[-1, 0]]
    x, y = np.array([piece.mean(0) for piece in np.array_split(kept, PIECES)]).T
    found: Any = linregress(x, y)
    half = float(student.ppf(0.975, PIECES - 2)) * found.stderr
    rest = kept[:, 1] - found.slope * kept[:, 0]
    alike = float(np.corrcoef(rest[1:], rest[:-1])[0, 1])
    return found.slope, found.slope - half, found.slope + half, alike


def run(algo: str, millions: float, directory: Path) -> np.ndarray:
    """The samples of one run. Raises RuntimeError with what it said, where it failed."""
    words = [sys.executable, __file__, "child", algo, str(millions), str(directory)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return np.array(json.loads(done.stdout))


def campaign(millions: float, folder: Path) -> list[tuple[str, str]]:
    """Every run, and whether the rule holds."""
    rows = []
    for name, algo in CASES.items():
        started = time.perf_counter()
        samples = run(algo, millions, folder / algo)
        mean, low, high, alike = slope(samples)
        words = f"{mean:+.3f} MiB per million steps, 95 % interval [{low:+.3f}, {high:+.3f}]"
        rows.append((name, "right" if low <= 0.0 <= high and high - low <= WIDTH else words))
        seconds = time.perf_counter() - started
        print(f"{name}: {words}, correlation {alike:.2f}, {samples[-1, 1]:.1f} MiB, {seconds:.0f} s", flush=True)
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], float(sys.argv[3]), sys.argv[4])
    else:
        with TemporaryDirectory() as place:
            outcomes = campaign(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0, Path(place))
        sys.exit(any(outcome != "right" for _, outcome in outcomes))
