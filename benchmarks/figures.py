"""Write the table of docs/results.md from the recorded results of learning.py.

python benchmarks/figures.py benchmarks/results/*.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
UNSAID = "0.2.0"  # of results that do not say which version they are of
START, END = "<!-- learning: from benchmarks/figures.py -->", "<!-- end -->"


def table(results: list[dict[str, Any]]) -> str:
    """One row a result, every seed listed."""
    rows = [
        "| environment | recipe | steps | greedy, seed by seed | mean | lowest | version |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        backend = [] if r.get("backend", "gymnasium") == "gymnasium" else [f"--backend {r['backend']}"]
        recipe = " ".join([r["algo"], *(f"--{item.replace('=', ' ')}" for item in r["set"]), *backend])
        scores = [s["greedy"] for s in r["seeds"]]
        steps = max(s["steps"] for s in r["seeds"])
        digits = 1 if max(map(abs, scores)) >= 10 else 2
        listed, average, lowest = (
            ", ".join(f"{x:.{digits}f}" for x in numbers) for numbers in (scores, [mean(scores)], [min(scores)])
        )
        version = r.get("versions", {}).get("policygrad", UNSAID)
        rows.append(f"| {r['env']} | `{recipe}` | {steps:,} | {listed} | **{average}** | {lowest} | {version} |")
    return "\n".join(rows)


def main() -> None:
    """Replace what stands between the two marks."""
    results = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    text = PAGE.read_text("utf8")
    before, after = text.split(START)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{START}\n\n{table(results)}\n\n{END}{after}", "utf8")


if __name__ == "__main__":
    main()
