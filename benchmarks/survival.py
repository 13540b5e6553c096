"""What a run survives: kills, signals, damaged and hostile files, misbehaving environments. The table of docs/reliability.md.

python benchmarks/survival.py                  # everything, about an hour on two cores
python benchmarks/survival.py kills --trials 20
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from survival import kills

Row = tuple[str, str]
PARTS: dict[str, tuple[str, int, Callable[[int, Path], Sequence[Row]]]] = {
    "kills": ("kill −9 at a random moment, resumed: every file equal", 100, kills.kills),
    "signals": ("SIGINT, SIGTERM, SIGHUP: saved in 5 s, resumed: every file equal", 60, kills.signals),
}


def main() -> None:
    """Run the parts that are named, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="[all]")
    parser.add_argument("--trials", type=int, help="of each part [as the table of docs/reliability.md has them]")
    given = parser.parse_args()
    lines = []
    for name in given.parts or PARTS:
        what, trials, run = PARTS[name]
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows = run(given.trials or trials, Path(folder))
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
