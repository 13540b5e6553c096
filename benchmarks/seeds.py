"""Several seeds in one command against as many commands one after another: wall-clock, paired, with nothing else running.

python benchmarks/seeds.py [--pairs 5] [--seeds 0 1 2 3] [ppo CartPole-v1 …]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from statistics import median

BAR = 0.6  # on two cores


def seconds(commands: list[list[str]]) -> float:
    """The time that these take, one after another, each in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for words in commands:
            command = [sys.executable, "-m", "policygrad", "train", *words, "--quiet"]
            subprocess.run(command, cwd=folder, check=True)
        return time.perf_counter() - start


def main() -> int:
    """Print every pair and the median ratio; return 1 when it misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="*", default=["ppo", "CartPole-v1"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2", "3"])
    args = parser.parse_args()
    ratios = []
    for k in range(args.pairs):
        serial, together = [[*args.job, "--seed", seed] for seed in args.seeds], [[*args.job, "--seed", *args.seeds]]
        first, second = (serial, together) if k % 2 == 0 else (together, serial)
        a, b = seconds(first), seconds(second)
        one_by_one, at_once = (a, b) if k % 2 == 0 else (b, a)
        ratios.append(at_once / one_by_one)
        print(f"  {one_by_one:.1f} s one by one, {at_once:.1f} s together: {ratios[-1]:.2f}", file=sys.stderr)
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(
        f"{' '.join(args.job)}, seeds {' '.join(args.seeds)}: median ratio {median(ratios):.2f} of {listed}; bar {BAR}"
    )
    return int(median(ratios) > BAR)


if __name__ == "__main__":
    sys.exit(main())
