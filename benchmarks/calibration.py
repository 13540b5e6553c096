"""How often `policygrad compare` calls equal sides different, beside what bootstraps would have said.

    python benchmarks/calibration.py [--comparisons 1000] [--json benchmarks/calibration.json]
    python benchmarks/calibration.py --docs                # the table of docs/compare.md from benchmarks/calibration.json

Both sides draw their scores from the same distribution, so every verdict is false. The share of false verdicts must be at most
the level of 5 %, up to the chance of so many comparisons. The shapes are those of real scores: normal; skewed (log-normal);
runs that rarely fail; two tight clusters; scores at the bound of the task; and three environments with scores of different
shapes and scales, brought to a common scale as a comparison does it. The bootstrap is the percentile interval of the difference
of interquartile means, resampled within environments. A last column has the power: how often a shift of two standard deviations
is found.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from policygrad.marks import between
from policygrad.reports.aggregates import Scores, interval, iqm
from policygrad.reports.differences import compare_scores

ROOT = Path(__file__).parents[1]
PAGE, JSON = ROOT / "docs" / "compare.md", ROOT / "benchmarks" / "calibration.json"
BEGIN, END = "<!-- calibration: begin -->", "<!-- calibration: end -->"
LEVEL, SEEDS = 0.95, (3, 5, 10)
Shape = Callable[[np.random.Generator, int], np.ndarray]
SHAPES: dict[str, list[Shape]] = {
    "normal": [lambda rng, n: rng.normal(size=n)],
    "skewed": [lambda rng, n: rng.lognormal(size=n)],
    "rare failures": [lambda rng, n: np.where(rng.random(n) < 0.1, 9.0, 500 + rng.normal(size=n))],
    "two clusters": [lambda rng, n: np.where(rng.random(n) < 0.5, 9.0, 500.0) + 1e-3 * rng.normal(size=n)],
    "at the bound": [lambda rng, n: np.where(rng.random(n) < 0.2, rng.uniform(100, 500, n), 500.0)],
}
SHAPES["three environments"] = [SHAPES[name][0] for name in ("normal", "skewed", "at the bound")]


def draw(shapes: list[Shape], rng: np.random.Generator, seeds: int) -> list[np.ndarray]:
    """The scores of a side, per environment."""
    return [shape(rng, seeds) for shape in shapes]


def scaled(one: Scores, other: Scores) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Both sides on a common scale per environment, 0 to 1, which does not depend on the side that a run belongs to."""
    ends = [
        (min(a.min(), b.min()), max(a.max(), b.max(), min(a.min(), b.min()) + 1e-9))
        for a, b in zip(one, other, strict=True)
    ]
    first, second = (
        [(x - low) / (high - low) for x, (low, high) in zip(side, ends, strict=True)] for side in (one, other)
    )
    return first, second


def bootstrap_differs(one: Scores, other: Scores) -> bool:
    """Whether the percentile interval of the difference excludes 0."""
    low, high = interval(lambda a, b: iqm(a) - iqm(b), one, other, level=LEVEL, draws=500)
    return not low <= 0.0 <= high


def measured(name: str, seeds: int, count: int) -> dict[str, Any]:
    """One row: shares of verdicts."""
    rng = np.random.default_rng([seeds, list(SHAPES).index(name)])
    drawn = [(draw(SHAPES[name], rng, seeds), draw(SHAPES[name], rng, seeds)) for _ in range(count)]
    pairs = [scaled(a, b) for a, b in drawn]
    spread = [float(np.std(shape(rng, 10_000))) for shape in SHAPES[name]]
    found = [compare_scores(a, b, level=LEVEL, ways=1000) for a, b in pairs]
    moved = [scaled([x + 2 * s for x, s in zip(a, spread, strict=True)], b) for a, b in drawn[: count // 4]]
    shifted = [compare_scores(a, b, level=LEVEL, ways=1000) for a, b in moved]
    return {
        "shape": name,
        "seeds": seeds,
        "comparisons": count,
        "false": sum(one.verdict != 0 for one in found),
        "most": int(stats.binom.ppf(0.999, count, 1 - LEVEL)),
        "bootstrap_false": sum(bootstrap_differs(a, b) for a, b in pairs),
        "found": float(np.mean([one.verdict == 1 for one in shifted])),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| scores | seeds per side | false verdicts | of a bootstrap | shift of 2 standard deviations found |",
             "|---|---:|---:|---:|---:|"]  # fmt: skip
    for row in rows:
        shares = [100 * row[name] / row["comparisons"] for name in ("false", "bootstrap_false")]
        lines.append(
            f"| {row['shape']} | {row['seeds']} | {shares[0]:.1f} % | {shares[1]:.1f} % | {100 * row['found']:.0f} % |"
        )
    return "\n".join(lines)


def write_docs(rows: list[dict[str, Any]]) -> None:
    """Put the table into the page."""
    PAGE.write_text(between(PAGE.read_text("utf8"), BEGIN, END, table(rows)), "utf8")


def main() -> int:
    """Measure, print, write; 1 if a share is above what chance allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    if given.docs:
        write_docs(json.loads(JSON.read_text("utf8"))["rows"])
        return 0
    rows = [measured(name, seeds, given.comparisons) for name in SHAPES for seeds in SEEDS]
    print(table(rows))
    if given.json is not None:
        given.json.write_text(json.dumps({"level": LEVEL, "rows": rows}, indent=2) + "\n", "utf8")
    over = [f"{row['shape']}, {row['seeds']} seeds: {row['false']}" for row in rows if row["false"] > row["most"]]
    print("\n".join(["above what chance allows:", *over]) if over else "no share is above what chance allows")
    return int(bool(over))


if __name__ == "__main__":
    raise SystemExit(main())
