"""What a run survives: kills, signals, damaged and hostile files, misbehaving environments. The table of docs/reliability.md.

python benchmarks/survival.py                  # everything, about an hour on two cores
python benchmarks/survival.py kills --trials 20
python benchmarks/survival.py kills signals disk damage --only dqn sac
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from survival import disk, environments, files, kills, memory, threads, workers

Row = tuple[str, str]


def verdict(outcome: str) -> str:
    """right, or what was found."""
    good = outcome.startswith(("refused", "shown", "named", "right", "0 of "))
    return "right" if good else outcome


def damage(trials: int, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """Random damage to policies, checkpoints, data sets and blocks of a replay buffer."""
    return [("damaged files", verdict(found)) for _, found in files.corruptions(trials, show=False, only=only)]


def forgeries(trials: int, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """Files forged by hand, and malformed JSON through the commands."""
    forged = [("forged files", verdict(found)) for _, found in files.forged(show=False)]
    return forged + [("malformed JSON", verdict(found)) for _, found in files.malformed(show=False)]


def misbehaviours(trials: int, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """Environments that break their contract, in this process and in worker processes."""
    here = [("in this process", verdict(found)) for _, found, _ in environments.rows()]
    there = [("in worker processes", "right" if right else said) for _, right, _, said in workers.campaign()]
    return here + there


def predictions(trials: int, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """Calls of `predict` from 16 threads."""
    return [(name, verdict(found)) for name, found in threads.campaign(trials)]


def growth(trials: int, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """The memory of runs of so many million steps."""
    return memory.campaign(trials, folder)


PARTS: dict[str, tuple[str, int, Callable[[int, Path, Sequence[str]], Sequence[Row]]]] = {
    "kills": ("kill −9 at a random moment, resumed: every file equal", 100, kills.kills),
    "signals": ("SIGINT, SIGTERM, SIGHUP: saved in 5 s, resumed: every file equal", 60, kills.signals),
    "disk": (
        "a full disk, and kill −9, at each call that writes a checkpoint or a block: resumed to the same end",
        100,
        disk.campaign,
    ),
    "damage": ("random damage to files: refused by name", 10_000, damage),
    "forgeries": ("forged files and malformed JSON: refused by name, or harmless", 1, forgeries),
    "environments": ("misbehaving environments: named, or right", 1, misbehaviours),
    "threads": ("wrong actions of `predict` from 16 threads: none", 1_000_000, predictions),
    "memory": ("memory of runs of millions of steps: its slope is not told from 0", 5, growth),
}


def main() -> None:
    """Run the parts that are named, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="[all]")
    parser.add_argument("--trials", type=int, help="of each part [as the table of docs/reliability.md has them]")
    words = "configurations whose names contain one of these, of kills, signals, disk and damage [all]"
    parser.add_argument("--only", nargs="+", default=(), metavar="WORD", help=words)
    given = parser.parse_args()
    lines = []
    for name in given.parts or PARTS:
        what, trials, run = PARTS[name]
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows = run(given.trials or trials, Path(folder), given.only)
        wrong = [f"{case}: {found}" for case, found in rows if found != "right"]
        print("\n".join(wrong))
        lines.append(f"| {what} | {len(rows)} | {len(rows) - len(wrong)} | {time.perf_counter() - started:.0f} s |")
        lines += [
            f"|  · {case} | {n} | {n - sum(c == case and f != 'right' for c, f in rows)} | |"
            for case, n in Counter(case for case, _ in rows).items()
        ]
    print("\n| attack | tried | right | time |\n|---|---|---|---|\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
