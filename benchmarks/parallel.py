"""One learner in 1 and 2 processes: steps per second, where environments are slow and where they are fast.

    python benchmarks/parallel.py [--ranks 1 2] [--seconds 20]

Strong: the same number of environments in all. Weak: the same number for each process. Each row is a training of its own, which
is timed after its first fifth, by the column `seconds` of metrics.jsonl. To be run with nothing else running.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from policygrad.stored.directory import RunDirectory
from policygrad.training.launching import launch

# environments whose steps take long, and some whose steps take nothing: algorithm, environment, steps per second of one process
TASKS = (("ppo", "LunarLander-v3", 10_000), ("ppo", "CartPole-v1", 60_000))
ENVS = 8  # of one process


def speed(algo: str, env: str, ranks: int, num_envs: int, steps: int) -> float:
    """Steps per second of a training, without its first fifth."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [
            "train",
            algo,
            env,
            "--num-envs",
            str(num_envs),
            "--steps",
            str(steps),
            "--eval-episodes",
            "1",
            "--quiet",
        ]
        words += [
            "--num-steps",
            "64",
            "--backend",
            "gymnasium",
            "--run-dir",
            str(run),
            *(["--nproc", str(ranks)] if ranks > 1 else []),
        ]
        if code := launch(words, ranks):
            sys.exit(code)
        rows = [(float(row["steps"] or 0), float(row["seconds"] or 0)) for row in RunDirectory(run).metrics()]
        first, last = next(row for row in rows if row[0] >= 0.2 * steps), rows[-1]
        return (last[0] - first[0]) / (last[1] - first[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="of a training, about")
    given = parser.parse_args()
    print("| task | scaling | processes | environments | steps/s | against the first row |\n|---|---|---|---|---|---|")
    for algo, env, rate in TASKS:
        for scaling in ("strong", "weak"):
            base = None
            for ranks in given.ranks:
                num_envs = ENVS * ranks if scaling == "weak" else ENVS * max(given.ranks)
                found = speed(algo, env, ranks, num_envs, int(given.seconds * rate))
                base = base or found
                print(
                    f"| {algo} {env} | {scaling} | {ranks} | {num_envs} | {found:,.0f} | {found / base:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
