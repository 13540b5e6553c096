"""Whole commands by the clock: the README's training line, with both evaluations and the picture, and `policygrad --help`.

python benchmarks/main_job.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from statistics import median

# and the seconds they may take
COMMANDS = {
    "train ppo LunarLander-v3 --backend gymnasium": 100.0,
    "train ppo LunarLander-v3 --backend envpool": 60.0,
    "--help": 0.5,
}


def seconds(words: str, folder: str) -> float:
    """One run of a command in a fresh process."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "policygrad", *words.split()], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def main() -> int:
    """Time every command, print medians, and return 1 when one takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    slow = False
    for words, bar in COMMANDS.items():
        if "envpool" in words and find_spec("envpool") is None:
            print(f"policygrad {words}: EnvPool is not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            times = [seconds(words, folder) for _ in range(args.repeats)]
        listed = ", ".join(f"{t:.2f}" for t in times)
        print(f"policygrad {words}: median {median(times):.2f} s of {listed}; bar {bar} s")
        slow |= median(times) > bar
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
