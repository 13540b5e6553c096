"""Whole commands by the clock: the README's training line, with both evaluations and the picture, and `policygrad --help`.

    python benchmarks/main_job.py [--repeats 3] [--json commands.json]
    python benchmarks/main_job.py --against ../policygrad-0.4.0/src         # alternating with another checkout of policygrad

For `--against`, `git worktree add ../policygrad-0.4.0 e309785` makes a checkout of version 0.4.0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

COMMANDS = {  # and the seconds they may take
    "train ppo LunarLander-v3": 100.0,  # where EnvPool is not installed: `auto` would take it
    "train ppo LunarLander-v3 --backend envpool": 60.0,
    "--help": 0.5,
}
FIRST, SPEED_UP = "train ppo LunarLander-v3", 2.0  # and the ratio that it must reach to 0.4.0
VERSION = "import policygrad; print(policygrad.__version__)"


def run(words: Sequence[str], folder: str, source: Path | None) -> str:
    """What Python prints in a fresh process, with the policygrad of that source [the one that this Python finds]."""
    there = {} if source is None else {"PYTHONPATH": str(source.resolve())}
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | there
    ).stdout


def seconds(words: Sequence[str], folder: str, source: Path | None) -> float:
    """The time of a command."""
    start = time.perf_counter()
    run(["-m", "policygrad", *words], folder, source)
    return time.perf_counter() - start


def measure(words: Sequence[str], repeats: int, sources: Sequence[Path | None]) -> dict[str, list[float]]:
    """The times of a command with each source, by version; who goes first alternates."""
    with tempfile.TemporaryDirectory() as folder:
        names = [run(["-c", VERSION], folder, source).strip() for source in sources]
        if len(set(names)) < len(names):
            raise SystemExit(f"--against must be another version than {names[0]}, got {sources[1]}")
        times: dict[str, list[float]] = {name: [] for name in names}
        for k in range(repeats):
            pairs = list(zip(names, sources, strict=True))
            for name, source in pairs if k % 2 == 0 else pairs[::-1]:
                times[name].append(seconds(words, folder, source))
    return times


def report(command: str, times: dict[str, list[float]]) -> bool:
    """Print medians and the ratio; say whether a bar was missed."""
    for version, measured in times.items():
        listed = ", ".join(f"{t:.2f}" for t in measured)
        bar = f"; bar {COMMANDS[command]} s" if version == next(iter(times)) else ""
        print(f"policygrad {command}, {version}: median {median(measured):.2f} s of {listed}{bar}")
    ours, *others = times.values()
    missed = median(ours) > COMMANDS[command]
    for other in others:
        ratio, bar = median(b / a for a, b in zip(ours, other, strict=True)), SPEED_UP if command == FIRST else 0.0
        print(f"  {ratio:.2f} times as fast" + (f"; bar {bar}" if bar else ""))
        missed |= ratio < bar
    return missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Time every command, print medians, and return 1 when one takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", type=Path, metavar="PATH", help="the src directory of another checkout")
    parser.add_argument("--command", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="default: all")
    parser.add_argument("--steps", type=int, help="of the trainings, not the preset's: for a check of this script")
    parser.add_argument("--json", type=Path, help="where every measurement goes")
    args = parser.parse_args(arguments)
    sources, missed = [None] if args.against is None else [None, args.against], False
    found: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "commands": {}}
    for command in args.command:
        if command != "--help" and ("envpool" in command) is not (find_spec("envpool") is not None):
            print(f"policygrad {command}: not measured, because EnvPool is {'not ' * ('envpool' in command)}installed")
            continue
        fewer = ["--steps", str(args.steps)] if args.steps and command.startswith("train") else []
        times = found["commands"][command] = measure([*command.split(), *fewer], args.repeats, sources)
        missed |= report(command, times)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
