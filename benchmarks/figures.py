"""The pictures and the table of docs/results.md, from the recorded results of learning.py.

    python benchmarks/figures.py benchmarks/results/*.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

DOCS = Path(__file__).parents[1] / "docs"
START, END = "<!-- learning: from benchmarks/figures.py -->", "<!-- end -->"


def label(result: dict[str, Any]) -> str:
    """The algorithm, and what was set over its preset."""
    return " ".join([result["algo"], *(f"--{item.replace('=', ' ')}" for item in result["set"])])


def table(results: list[dict[str, Any]]) -> str:
    """One row a result, every seed listed."""
    rows = ["| environment | recipe | steps | greedy, seed by seed | mean | lowest |", "|---|---|---|---|---|---|"]
    for r in results:
        scores = [s["greedy"] for s in r["seeds"]]
        steps = max(s["steps"] for s in r["seeds"])
        listed = ", ".join(f"{x:.1f}" for x in scores)
        mean = f"**{np.mean(scores):.1f}**"
        rows.append(f"| {r['env']} | `{label(r)}` | {steps:,} | {listed} | {mean} | {min(scores):.1f} |")
    return "\n".join(rows)


def curves(results: list[dict[str, Any]], path: Path) -> None:
    """Mean over seeds of the training return against steps, one line a recipe, with the range of the seeds."""
    figure = Figure(figsize=(8, 4.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    for r in results:
        last = min(s["curve"][-1][0] for s in r["seeds"])
        steps = np.linspace(max(s["curve"][0][0] for s in r["seeds"]), last, 200)
        ys = np.array([np.interp(steps, *zip(*s["curve"], strict=True)) for s in r["seeds"]])
        (line,) = axes.plot(steps, ys.mean(0), linewidth=2, label=label(r))
        axes.fill_between(steps, ys.min(0), ys.max(0), color=line.get_color(), alpha=0.15, linewidth=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return, last 100 episodes")
    seeds = len(results[0]["seeds"])
    axes.set_title(f"{results[0]['env']}: mean and range of {seeds} seeds", loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def main() -> None:
    """Draw one picture an environment and write the table into docs/results.md."""
    results = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    for env in sorted({r["env"] for r in results}):
        name = f"{env.split('-')[0].lower()}.png"
        curves([r for r in results if r["env"] == env], DOCS / "images" / name)
    page = DOCS / "results.md"
    text = page.read_text("utf8")
    before, after = text.split(START)[0], text.split(END)[1]
    page.write_text(f"{before}{START}\n\n{table(results)}\n\n{END}{after}", "utf8")


if __name__ == "__main__":
    main()
