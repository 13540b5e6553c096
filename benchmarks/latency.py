"""How long a policy takes for an observation: policygrad in its forms, and Stable-Baselines3, on the same observations.

    python benchmarks/latency.py [--calls 3000] [--json benchmarks/latency.json]
    python benchmarks/latency.py --docs                  # the table of docs/deploy.md from benchmarks/latency.json

A policy of two hidden layers of 64 for CartPole-v1, tanh, Discrete actions, takes the most likely action. Each row and batch is
measured call by call, after a warm-up, in one process and on one thread; the sides take turns in blocks of 100 calls, so that a
drift of the machine favours nobody. What is measured is the processor time of the thread that calls, which others on the
machine disturb little; p50 and p99 are of all calls. Start-up is what a Python process takes of a processor until its first
action, the median of five processes. On a machine with nothing else to do, both are the time itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import policygrad as pg

ROOT = Path(__file__).parents[1]
PAGE, JSON = ROOT / "docs" / "deploy.md", ROOT / "benchmarks" / "latency.json"
BEGIN, END = "<!-- latency: begin -->", "<!-- latency: end -->"
ENV, BATCHES, BLOCK = "CartPole-v1", (1, 64, 256), 100
STARTS = {  # what a process does until its first action; {path} is the model file or the exported one
    "load_policy": "import policygrad as pg; p = pg.load_policy({path!r})",
    "numpy_policy.py": "import sys; sys.path.insert(0, {folder!r}); from numpy_policy import NumpyPolicy; "
    "p = NumpyPolicy.load({path!r})",
    "pg.load": "import policygrad as pg; p = pg.load({path!r})",
    "Stable-Baselines3": "from stable_baselines3 import PPO; p = PPO.load({path!r}, device='cpu')",
}


def sides(folder: Path) -> tuple[dict[str, Callable[[np.ndarray], Any]], dict[str, Path]]:
    """What is measured: a function of a batch for every row; and the files that start-up is measured with."""
    import onnxruntime
    from stable_baselines3 import PPO

    agent = pg.ppo(ENV, seed=0)
    model = agent.save_policy(folder / "model")
    served = pg.load_policy(model)
    numpy_file = pg.export(model, "numpy", folder / "policy.npz").files[0]
    onnx_file = pg.export(model, "onnx", folder / "policy.onnx").files[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = PPO("MlpPolicy", gym.make(ENV), device="cpu", seed=0)
    other.save(folder / "sb3.zip")
    rows: dict[str, Callable[[np.ndarray], Any]] = {
        "load_policy": lambda obs: served.predict(obs, deterministic=True),
        "Agent.predict": lambda obs: agent.predict(obs, deterministic=True),
        "onnxruntime": lambda obs: session.run(["action"], {"obs": obs if obs.ndim == 2 else obs[None]}),
        "Stable-Baselines3": lambda obs: other.predict(obs, deterministic=True),
    }
    files = {
        "load_policy": model,
        "numpy_policy.py": numpy_file,
        "pg.load": model,
        "Stable-Baselines3": folder / "sb3.zip",
    }
    return rows, files


def latencies(rows: dict[str, Callable[[np.ndarray], Any]], calls: int) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds of a call, by row and batch."""
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in rows}
    for batch in BATCHES:
        obs = rng.normal(size=(BLOCK, batch, 4)).astype(np.float32)
        given = obs[:, 0] if batch == 1 else obs
        times: dict[str, list[int]] = {name: [] for name in rows}
        for block in range(-2, max(1, calls // BLOCK)):
            for name, act in rows.items():
                for x in given:
                    start = time.thread_time_ns()
                    act(x)
                    if block >= 0:
                        times[name].append(time.thread_time_ns() - start)
        for name, taken in times.items():
            p50, p99 = np.percentile(taken, [50, 99]) / 1000.0
            found[name][str(batch)] = {"p50": float(p50), "p99": float(p99)}
    return found


def start_up(files: dict[str, Path]) -> dict[str, float]:
    """Seconds of a processor that a process takes until its first action; the median of five."""
    found = {}
    for name, words in STARTS.items():
        code = words.format(path=str(files[name]), folder=str(files[name].parent))
        code += "; import numpy as np; p.predict(np.zeros(4, np.float32), deterministic=True)"
        taken = []
        for _ in range(6):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        found[name] = statistics.median(taken[1:])  # the first one reads the disk
    return found


def table(record: dict[str, Any]) -> str:
    """The table of the page."""
    sides = record["latency"]
    lines = ["| | " + " | ".join(f"{b} observation{'s' * (b > 1)}" for b in BATCHES) + " | start to first action |"]
    lines += ["|---|" + "---:|" * (len(BATCHES) + 1)]
    names = {
        "load_policy": "`load_policy`",
        "Agent.predict": "`Agent.predict`",
        "onnxruntime": "the exported ONNX file",
    }
    starts = record["start"] | {"Agent.predict": record["start"]["pg.load"]}
    for name, by_batch in sides.items():
        cells = [f"{by_batch[str(b)]['p50']:,.0f} µs ({by_batch[str(b)]['p99']:,.0f})" for b in BATCHES]
        start = f"{starts[name]:.2f} s" if name in starts else "–"
        lines.append(f"| {names.get(name, name)} | " + " | ".join(cells) + f" | {start} |")
    start = record["start"]["numpy_policy.py"]
    lines.append(f"| the exported `numpy_policy.py` | as `load_policy` | | | {start:.2f} s |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--json", type=Path, help="write the measurements here")
    parser.add_argument(
        "--docs", action="store_true", help="write the table of docs/deploy.md from benchmarks/latency.json"
    )
    args = parser.parse_args()
    if args.docs:
        text = PAGE.read_text("utf8")
        head, tail = text.split(BEGIN)[0], text.split(END)[1]
        PAGE.write_text(f"{head}{BEGIN}\n{table(json.loads(JSON.read_text('utf8')))}\n{END}{tail}", "utf8")
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows, files = sides(Path(folder))
        record = {
            "machine": platform.machine(),
            "versions": {"policygrad": pg.__version__, "torch": torch.__version__, "numpy": np.__version__},
            "latency": latencies(rows, args.calls),
            "start": start_up(files),
        }
    print(table(record))
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
