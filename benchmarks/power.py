"""How likely `policygrad compare` finds a difference: the chance of a verdict against the true difference, by seeds.

    python benchmarks/power.py [--comparisons 500] [--json benchmarks/power.json]   # two minutes, one process
    python benchmarks/power.py --draw                        # docs/images/power.png, from benchmarks/power.json
    python benchmarks/power.py --docs                        # the table of docs/compare.md, likewise

The scores of one side are those of the other's distribution, shifted by the true difference, in standard deviations of a run's
score. At 0 both sides are the same, and every verdict is false. The distributions are `calibration.py`'s: normal scores, and
scores of which every tenth is that of a failed run.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from calibration import LEVEL, SHAPES
from matplotlib.axes import Axes

from policygrad.marks import markdown_table, with_tables
from policygrad.reports.differences import compare_scores
from policygrad.reports.style_plots import DASHED, PALE, THIN, head, look, marker, panels_figure

ROOT = Path(__file__).parents[1]
JSON, PICTURE = ROOT / "benchmarks" / "power.json", ROOT / "docs" / "images" / "power.png"
PAGE, SOURCE = ROOT / "docs" / "compare.md", "benchmarks/power.py"
PAGES = (PAGE,)
SEEDS, SHIFTS = (3, 5, 10, 20), (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
PANELS = {"normal": "Normal scores", "rare failures": "Every tenth run fails"}

ANY = "any"  # shift but 0
SHOWN = [("normal", 20, 1.0), ("normal", 10, 1.5), ("normal", 5, 2.5), ("normal", 3, 3.0)]
SHOWN += [("rare failures", 3, ANY), ("rare failures", 10, ANY)]


def measured(name: str, seeds: int, count: int) -> dict[str, Any]:
    """The share of verdicts for the shifted side, and for either side, at every shift."""
    shape = SHAPES[name][0]
    rng = np.random.default_rng([seeds, list(SHAPES).index(name), 1])
    spread = float(np.std(shape(rng, 10_000)))
    drawn = [(shape(rng, seeds), shape(rng, seeds)) for _ in range(count)]
    found, false = [], 0
    for shift in SHIFTS:
        verdicts = [compare_scores([a + shift * spread], [b], level=LEVEL, ways=1000).verdict for a, b in drawn]
        found.append(float(np.mean([one == 1 for one in verdicts])))
        false += sum(one != 0 for one in verdicts) if shift == 0.0 else 0
    return {
        "shape": name,
        "seeds": seeds,
        "comparisons": count,
        "shifts": SHIFTS,
        "found": found,
        "false": false / count,
    }


def draw_power(axis: Axes, rows: list[dict[str, Any]], name: str) -> None:
    """A line per number of seeds."""
    count = rows[0]["comparisons"]
    head(axis, PANELS[name], f"Share of {count} comparisons that call the better side better. Dashed: 80 %, and 2.5 %")
    for y in (80.0, 2.5):
        axis.axhline(y, color=PALE, lw=THIN, ls=DASHED, zorder=1)
    for k, row in enumerate(one for one in rows if one["shape"] == name):
        axis.plot(
            row["shifts"], 100 * np.array(row["found"]), marker=marker(k), label=f"{row['seeds']} seeds", **look(k)
        )
    axis.set(xlabel="true difference, in standard deviations of a run's score", ylabel="chance of a verdict, %")
    axis.set_ylim(-3, 103)
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 0.06), title="per side", title_fontsize=7, handlelength=3)


def table(rows: list[dict[str, Any]]) -> str:
    """Some points of the curves."""
    curves = {(row["shape"], row["seeds"]): dict(zip(row["shifts"], row["found"], strict=True)) for row in rows}
    cells = []
    for shape, seeds, shift in SHOWN:
        found = [x for at, x in curves[shape, seeds].items() if at == shift or (shift == ANY and at)]
        low, high = f"{100 * min(found):.0f}", f"{100 * max(found):.0f}"
        said = f"{low} %" if low == high else f"{low} to {high} %"
        cells.append(
            [PANELS[shape].removesuffix(" scores").lower(), str(seeds), f"{shift:g}" if shift != ANY else ANY, said]
        )
    return markdown_table(["scores", "seeds per side", "standard deviations", "found"], cells)


def written(page: Path) -> str:
    """The page with the table as it was recorded."""
    return with_tables(page.read_text("utf8"), {"power": table(json.loads(JSON.read_text("utf8"))["rows"])}, SOURCE)


def main() -> None:
    """Measure and write the numbers, or draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=500)
    parser.add_argument("--json", type=Path, default=JSON)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    if given.docs:
        PAGE.write_text(written(PAGE), "utf8")
        return
    if not given.draw:
        rows = [measured(name, seeds, given.comparisons) for name in PANELS for seeds in SEEDS]
        given.json.write_text(json.dumps({"level": LEVEL, "rows": rows}, indent=1) + "\n", "utf8")
        for row in rows:
            print(
                row["shape"],
                row["seeds"],
                *(f"{100 * x:.0f}" for x in row["found"]),
                f"false {100 * row['false']:.1f} %",
            )
        return
    rows = json.loads(given.json.read_text("utf8"))["rows"]
    panels = [partial(draw_power, rows=rows, name=name) for name in PANELS]
    print(panels_figure(panels, "How large a difference a comparison finds").write(PICTURE))


if __name__ == "__main__":
    main()
