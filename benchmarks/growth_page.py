"""The tables and the picture of docs/performance.md, from what growth.py has measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from policygrad.lab.theory.line_plots import DOTS
from policygrad.reports.style_plots import (
    BLUE,
    DASHED,
    GREEN,
    ORANGE,
    PALE,
    SKY,
    THIN,
    Chart,
    head,
    panels_figure,
    say,
    tick_text,
)

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "performance.md", DOCS / "images" / "growth.png"
Report = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table: a number of every point of a curve, times `times`, as text."""

    title: str
    curve: str
    key: str
    text: str = ",.0f"
    times: float = 1.0


def arithmetic(curve: str) -> list[Column]:
    """What is reached of the machine's arithmetic: of matrices of a minibatch's shape, and of large ones."""
    same, large = "of the GEMM peak, same shape", "of the GEMM peak, large"
    speed = Column("GFLOP/s", curve, "gflops", ",.0f")
    return [speed, Column(same, curve, "arithmetic", ".0%"), Column(large, curve, "arithmetic_large", ".0%")]


def memory(curve: str) -> list[Column]:
    """The same of copies."""
    same, large = "of the copying speed, same shape", "of the copying speed, large"
    speed = Column("GB/s", curve, "gigabytes_per_second", ",.1f")
    return [speed, Column(same, curve, "memory", ".0%"), Column(large, curve, "memory_large", ".0%")]


TABLES = {  # the first column, then the others
    "environments": (
        "environments",
        [
            Column("steps/s, Gymnasium's", "environments", "steps_per_second"),
            Column("steps/s, compiled", "environments-compiled", "steps_per_second"),
            Column("ms an iteration, Gymnasium's", "environments", "seconds", ",.1f", 1e3),
            Column("of which the update", "environments", "update_seconds", ",.1f", 1e3),
            Column("ms an iteration, compiled", "environments-compiled", "seconds", ",.1f", 1e3),
            Column("of which the update", "environments-compiled", "update_seconds", ",.1f", 1e3),
        ],
    ),
    "width": (
        "width",
        [
            Column("steps/s", "width", "steps_per_second"),
            Column("ms an iteration", "width", "seconds", ",.1f", 1e3),
            Column("GFLOP an iteration", "width", "gflop", ",.2f"),
            *arithmetic("width"),
            *memory("width"),
        ],
    ),
    "batch": (
        "minibatch",
        [
            Column("steps/s", "batch", "steps_per_second"),
            Column("rows/s of updates", "batch", "update_rows_per_second"),
            Column("µs a minibatch", "batch", "minibatch_seconds", ",.0f", 1e6),
            Column("MB a minibatch", "batch", "minibatch_megabytes", ",.1f"),
            *arithmetic("batch"),
            *memory("batch"),
        ],
    ),
    "parameters": (
        "width",
        [
            Column("parameters", "parameters", "parameters"),
            Column("ms an update", "parameters", "update_seconds", ",.2f", 1e3),
            Column("GFLOP an update", "parameters", "gflop", ",.2f"),
            *arithmetic("parameters"),
        ],
    ),
}


def table(report: Report, first: str, columns: Sequence[Column]) -> list[str]:
    """The lines of a table: a row for every point that one of its curves has."""
    points = {
        name: {p["point"]: p for p in report.get(name, {}).get("points", [])} for name in {c.curve for c in columns}
    }

    def cell(column: Column, x: int) -> str:
        point = points[column.curve].get(x)
        return "–" if point is None else format(column.times * point[column.key], column.text).replace("%", " %")

    rows = [f"| {' | '.join([first, *(c.title for c in columns)])} |", "|---" * (1 + len(columns)) + "|"]
    for x in sorted({x for found in points.values() for x in found}):
        rows.append(f"| {' | '.join([f'{x:,}', *(cell(c, x) for c in columns)])} |")
    return rows


def linear_sentence(curve: Report, name: str) -> str:
    """Where a curve is linear."""
    points, ends = [p["point"] for p in curve["points"]], curve["linear"]
    if ends is None:
        return f"{name} is nowhere linear, from {points[0]:,} to {points[-1]:,}."
    low, high = ends
    beyond = ", the last point" if high == points[-1] else f", and leaves it at {high:,}"
    return f"{name} is linear from {low:,}{', the first point,' if low == points[0] else ''} to {high:,}{beyond}."


NAMES = {
    "environments": "The speed with Gymnasium's environments",
    "environments-compiled": "The speed with compiled environments",
    "width": "The time of an iteration over its operations",
    "batch": "The time of a minibatch over its rows",
    "parameters": "The time of a natural step over the parameters",
}


def section(report: Report, name: str) -> list[str]:
    """What is generated of a section, but for the seeds: its table, and where its curves are linear. Nothing without data."""
    first, columns = TABLES[name]
    curves = [c for c in dict.fromkeys(column.curve for column in columns) if c in report]
    if not curves:
        return []
    return [*table(report, first, columns), "", *(linear_sentence(report[c], NAMES[c]) for c in curves)]


def seeds_section(report: Report) -> list[str]:
    """The table of seeds and loops."""
    if "seeds" not in report:
        return []
    s = report["seeds"]
    rows = ["| | one, on one core | two, on two cores | gain |", "|---|---|---|---|"]
    for name, key in (("a plain Python loop, rounds/s", "loops"), ("PPO CartPole-v1, steps/s", "seeds")):
        one, two = s[f"{key}_1"], s[f"{key}_2"]
        rows.append(f"| {name} | {one:,.0f} | {two:,.0f} | {two / one:.2f} |")
    spread = f"[{min(s['ratios']):.2f}, {max(s['ratios']):.2f}]"
    gain = f"Two seeds gain **{s['ratio']:.2f}** {spread} times what two loops gain in the same round; the bar is {s['bar']}."
    alone = f"One seed that has both cores trains {s['seed_on_two_cores']:,.0f} steps/s."
    return [*rows, "", gain, alone]


def machine_section(report: Report) -> list[str]:
    """The versions, and the peak of the machine."""
    curves = [curve for curve in report.values() if "machine" in curve]
    if not curves:
        return []
    lines = [", ".join(f"{k} {v}" for k, v in found.items()) for found in (c["versions"] for c in curves)]
    best = {name: max(c["machine"][name] for c in curves) for name in curves[0]["machine"]}
    quick = ["Measured for a moment only (`--quick`)."] if any(p["quick"] for c in curves for p in c["points"]) else []
    gemm = (
        f"{best['gemm_large_one']:,.0f} GFLOP/s on one core and {best['gemm_large_all']:,.0f} on those that updates use"
    )
    copying = f"{best['copy_large_one']:,.0f} and {best['copy_large_all']:,.0f} GB/s"
    peak = f"The best of large matrices was {gemm}; of large copies, read and written, {copying}."
    return [*dict.fromkeys(f"Versions: {line}." for line in lines), peak, *quick]


def write(report: Report) -> None:
    """Write what stands between the marks of the page, and the picture."""
    picture = []
    if report:
        figure(report).write(PICTURE)
        picture = ["![How training grows with its size](images/growth.png)"]
    made = {name: section(report, name) for name in TABLES} | {
        "seeds": seeds_section(report), "machine": machine_section(report), "picture": picture
    }  # fmt: skip
    text = PAGE.read_text("utf8")
    for name, lines in made.items():
        text = between(text, name, lines)
    PAGE.write_text(text, "utf8")


def between(text: str, name: str, lines: Sequence[str]) -> str:
    """The text with these lines between the marks of this name."""
    start, end = f"<!-- growth of {name}: from benchmarks/growth.py -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(start)
    after = rest.partition(end)[2]
    return "\n".join([before + found, "", *lines, *([""] if lines else []), end]) + after


def figure(report: Report) -> Chart:
    """Six panels; those without data are empty."""
    panels = (draw_environments, draw_width, draw_shares, draw_batch, draw_parameters, draw_seeds)
    return panels_figure([partial(panel, report=report) for panel in panels], "How training grows with its size")


def draw_curve(
    axis: Axes, report: Report, column: Column, color: str, x: str = "point", band: bool = True
) -> list[float]:
    """A curve, with a band where it is linear. Returns where its points are along x: nowhere without data."""
    points = report.get(column.curve, {}).get("points", [])
    across, up = [p[x] for p in points], [column.times * p[column.key] for p in points]
    axis.plot(across, up, "o-", color=color, label=column.title, **DOTS)
    ends = points and report[column.curve]["linear"]
    if ends and band:
        low, high = ([p["point"] for p in points].index(end) for end in ends)
        axis.plot(across[low : high + 1], up[low : high + 1], color=color, lw=7.8, alpha=0.2)
    return across


def finish(axis: Axes, x: str, y: str, ticks: Sequence[float] = ()) -> None:
    """Logarithmic axes with names, and ticks along x at the points, where they are given."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(LogLocator(subs=(1.0,) if one is axis.xaxis else (1.0, 2.0, 5.0), numticks=12))
        one.set_minor_locator(NullLocator())
        one.set_major_formatter(FuncFormatter(tick_text))
    if ticks:
        axis.set_xticks(ticks)
    low, high = axis.get_ylim()
    axis.set_ylim(low / 1.3, 1.3 * high)
    axis.set(xlabel=x, ylabel=y)


def legend(axis: Axes) -> None:
    """What the lines are, above everything else in the panel."""
    axis.legend(loc="upper left")


def draw_environments(axis: Axes, report: Report) -> None:
    """Steps/s by environments."""
    head(
        axis,
        "Environments",
        "Steps/s of PPO on CartPole, 64 × 64. Broad line: linear,\ntwice the environments, twice the speed",
    )
    ticks: set[float] = set()
    for name, label, color in (("environments-compiled", "compiled", BLUE), ("environments", "Gymnasium's", ORANGE)):
        ticks |= {*draw_curve(axis, report, Column(label, name, "steps_per_second"), color)}
    legend(axis)
    finish(axis, "environments", "steps/s", sorted(ticks))


def draw_width(axis: Axes, report: Report) -> None:
    """The time of an iteration by its operations."""
    about = "Time of an iteration of PPO, 8 × 256, from 16 × 16 to 1024 × 1024.\nBroad line: proportional to the work"
    head(axis, "Width", about)
    across = draw_curve(axis, report, Column("measured", "width", "seconds", times=1e3), BLUE, "gflop")
    points = report.get("width", {}).get("points", [])
    for kind, label, color in (
        ("", "at the GEMM peak of this shape", PALE),
        ("_large", "at that of large ones", SKY),
    ):
        least = [1e3 * p["seconds"] * p["arithmetic" + kind] for p in points]
        axis.plot(across, least, ls=DASHED, lw=THIN, color=color, label=label)
    legend(axis)
    finish(axis, "GFLOP an iteration", "ms")


def draw_shares(axis: Axes, report: Report) -> None:
    """The shares of arithmetic and memory by width."""
    head(
        axis,
        "Share of what the machine can do",
        "Operations of an iteration, and bytes of its minibatches,\ncounted from shapes",
    )
    for kind, color in (("arithmetic", BLUE), ("memory", GREEN)):
        across = draw_curve(axis, report, Column(f"{kind}, same shape", "width", kind, times=100), color, band=False)
        large = [100 * p[kind + "_large"] for p in report.get("width", {}).get("points", [])]
        axis.plot(across, large, ls=DASHED, lw=THIN, color=color, label=f"{kind}, large")
        axis.set_xscale("log")
        axis.set_xticks(across, [f"{x:,}" for x in across])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(0, 1.6 * axis.get_ylim()[1])
    legend(axis)
    axis.set(xlabel="width", ylabel="%")


def draw_batch(axis: Axes, report: Report) -> None:
    """The time of a minibatch by its rows."""
    head(axis, "Minibatches", "Time of a minibatch, policy and critic, 64 × 64.\nBroad line: proportional to its rows")
    ticks = draw_curve(axis, report, Column("", "batch", "minibatch_seconds", times=1e6), BLUE)
    finish(axis, "rows", "µs", ticks)


def draw_parameters(axis: Axes, report: Report) -> None:
    """The time of a natural step by parameters."""
    about = (
        "Time of a gradient and ten Fisher-vector products, on 2,048 rows.\nBroad line: proportional to the parameters"
    )
    head(axis, "Natural steps", about)
    draw_curve(axis, report, Column("", "parameters", "update_seconds", times=1e3), BLUE, "parameters")
    finish(axis, "parameters of the policy", "ms")


def draw_seeds(axis: Axes, report: Report) -> None:
    """The gain of two over one, of seeds and of loops."""
    head(axis, "Seeds", "Speed of two together, on two cores, by that of one, on one.\nDots: rounds; bar: their median")
    rounds = report.get("seeds", {}).get("rounds", [])
    for y, (key, text, color) in enumerate((("seeds", "two seeds", BLUE), ("loops", "two plain Python loops", ORANGE))):
        gains = [one[f"{key}_2"] / one[f"{key}_1"] for one in rounds]
        if gains:
            axis.plot([0, np.median(gains)], [y, y], color=color, lw=5.9, alpha=0.35, solid_capstyle="butt")
            axis.plot(gains, [y] * len(gains), "o", color=color, ms=5.2, mec="white", mew=0.5)
            say(axis, text, (0, y), (3, 14), color)
    axis.axvline(2.0, color=PALE, lw=THIN, ls=DASHED)
    axis.set(xlim=(0, 2.15), ylim=(-0.6, 1.8), yticks=[], xticks=[0, 0.5, 1, 1.5, 2])
    axis.set_xlabel("times the speed of one")
