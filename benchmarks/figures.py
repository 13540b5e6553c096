"""Write the table of docs/results.md from the recorded results of learning.py.

python benchmarks/figures.py benchmarks/results/*.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from policygrad.marks import between
from policygrad.reports.aggregates import interval, iqm

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
UNSAID = "0.2.0"  # of results that do not say which version they are of
START, END = "<!-- learning: from benchmarks/figures.py -->", "<!-- end -->"


def table(results: list[dict[str, Any]]) -> str:
    """One row a result, every seed listed."""
    rows = [
        "| environment | recipe | steps | greedy, seed by seed | IQM | 95 % interval | mean | lowest | version |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        backend = ["--backend envpool"] if r.get("backend") == "envpool" else []  # other ones give the same environment
        recipe = " ".join([r["algo"], *(f"--{item.replace('=', ' ')}" for item in r["set"]), *backend])
        scores = [s["greedy"] for s in r["seeds"]]
        middle, ends = float(iqm([np.array(scores)])), interval(iqm, [np.array(scores)])
        steps = max(s["steps"] for s in r["seeds"])
        digits = 1 if max(map(abs, scores)) >= 10 else 2
        listed, center, span, average, lowest = (
            ", ".join(f"{x:.{digits}f}" for x in numbers)
            for numbers in (scores, [middle], ends, [mean(scores)], [min(scores)])
        )
        version = r.get("versions", {}).get("policygrad", UNSAID)
        cells = [
            r["env"],
            f"`{recipe}`",
            f"{steps:,}",
            listed,
            f"**{center}**",
            f"[{span}]" if ends[0] < ends[1] else "–",
            average,
            lowest,
            version,
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Replace what stands between the two marks."""
    results = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    text = PAGE.read_text("utf8")
    PAGE.write_text(between(text, START, END, table(results)), "utf8")


if __name__ == "__main__":
    main()
