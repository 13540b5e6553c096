"""The pictures of a comparison: learning curves and final scores in a column of a paper, and how soon runs were good enough."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes

from policygrad.reports.aggregates import trimmed_mean
from policygrad.reports.comparison import ComparedRuns, ScoredRun
from policygrad.reports.comparison_words import caption, clocks_caption
from policygrad.reports.curves import return_label
from policygrad.reports.style_plots import (
    COLORS,
    DASHED,
    PALE,
    SMALL,
    THIN,
    WIDTHS,
    Chart,
    chart,
    look,
    marker,
    readable,
    round_ticks,
)

CURVES, TITLE, GAP, FOOT = (
    1.7,
    0.25,
    0.47,
    0.38,
)  # inches: a panel of curves, and what is above, between and below panels
LEFT, RIGHT = 0.78, 0.14  # inches beside a panel
LINE_HEIGHT = 0.125  # inches: of a line of text
POINTS = 100  # of a learning curve


def figure(comparison: ComparedRuns) -> Chart:
    """Per environment a panel of learning curves and one of final scores, and a caption with the numbers."""
    rows = sum(row_inches(side) for side in comparison.sides) + 0.1
    panel = TITLE + CURVES + GAP + rows + FOOT
    lines = wrapped(caption(comparison), WIDTHS["column"])
    foot = LINE_HEIGHT * len(lines) + 0.08
    height = panel * len(comparison.envs) + foot
    with chart("column", height) as made:
        for k, env in enumerate(comparison.envs):
            top = height - k * panel - TITLE
            draw_curves(place(made, top, CURVES), comparison, env)
            draw_scores(place(made, top - CURVES - GAP, rows), comparison, env)
        write_caption(made, lines)
    return made


def clocks_figure(comparison: ComparedRuns) -> Chart | None:
    """Per environment with a threshold, the share of runs that have not reached it, by steps and by seconds.

    None if no environment has one.
    """
    envs = [env for env in comparison.envs if comparison.thresholds[env] is not None]
    if not envs:
        return None
    lines = wrapped(clocks_caption(comparison), WIDTHS["page"])
    foot = LINE_HEIGHT * len(lines) + 0.08
    panel = TITLE + CURVES + FOOT + 0.1
    height = panel * len(envs) + foot
    with chart("page", height) as made:
        for k, env in enumerate(envs):
            top = height - k * panel - TITLE
            for x, by in ((0.0, "steps"), (WIDTHS["column"], "seconds")):
                draw_survival(place(made, top, CURVES, x), comparison, env, by)
        write_caption(made, lines)
    return made


def place(made: Chart, top: float, tall: float, x: float = 0.0) -> Axes:
    """An axis as wide as a column, `top` inches above the bottom and `x` inches from the left."""
    width, height = (float(size) for size in made.get_size_inches())
    wide = WIDTHS["column"] - LEFT - RIGHT
    return made.add_axes(((x + LEFT) / width, (top - tall) / height, wide / width, tall / height))


def wrapped(text: str, inches: float) -> list[str]:
    """The lines of a caption so wide."""
    return textwrap.wrap(text, int((inches - 0.15) * 72 / (0.525 * SMALL)), break_on_hyphens=False)


def write_caption(made: Chart, lines: list[str]) -> None:
    """The caption, at the bottom."""
    width, height = (float(size) for size in made.get_size_inches())
    for k, line in enumerate(reversed(lines)):
        made.text(0.07 / width, (0.06 + LINE_HEIGHT * k) / height, line, fontsize=SMALL, color=PALE)


def draw_curves(axis: Axes, comparison: ComparedRuns, env: str) -> None:
    """The interquartile mean of the runs' curves, with a band over all of them, per side."""
    axis.set_title(env)
    for k, side in enumerate(comparison.sides):
        steps, returns = common(comparison.runs[side][env])
        if len(steps):
            axis.fill_between(steps, returns.min(0), returns.max(0), color=look(k)["color"], alpha=0.13, linewidth=0)
            axis.plot(steps, trimmed_mean(returns.T), label=side, **look(k))
    axis.set_xlim(left=0)
    round_ticks(axis.xaxis, 4)
    round_ticks(axis.yaxis, 4)
    axis.set(xlabel="environment steps", ylabel="return in training")
    threshold = comparison.thresholds[env]
    low, high = axis.get_ylim()
    if threshold is not None and low <= threshold <= high + 0.15 * (high - low):
        axis.axhline(threshold, color=PALE, lw=THIN, ls=DASHED, zorder=1)


def common(runs: list[ScoredRun]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (K,) that all runs have rows for, and their mean returns there (runs, K); empty where there are none."""
    drawn = [run for run in runs if len(run.steps)]
    if not drawn:
        return np.empty(0), np.empty((0, 0))
    first, last = max(run.steps[0] for run in drawn), min(run.steps[-1] for run in drawn)
    steps = np.linspace(first, last, POINTS) if last > first else np.empty(0)
    return steps, np.array([np.interp(steps, run.steps, run.returns) for run in drawn])


def draw_scores(axis: Axes, comparison: ComparedRuns, env: str) -> None:
    """The final scores of all runs as dots, and per side the interquartile mean with its interval, dashed as its curve."""
    sides = comparison.sides
    tall = np.array([row_inches(side) for side in sides])
    middles = np.cumsum(tall) - tall / 2
    for k, (side, y) in enumerate(zip(sides, middles, strict=True)):
        scores, found = comparison.scores(side, env), comparison.summary(side, env)["iqm"]
        color = look(k)["color"]
        axis.plot(scores, np.full(len(scores), y + 0.07), ls="none", marker=marker(k), ms=2.6, color=color,
                  alpha=0.55, mew=0, clip_on=False)  # fmt: skip
        axis.plot(found["interval"], [y - 0.04] * 2, color=color, lw=5, alpha=0.25, solid_capstyle="butt")
        axis.plot(found["interval"], [y - 0.04] * 2, **look(k))
        axis.plot([found["value"]] * 2, [y - 0.09, y + 0.01], color=color, lw=2, solid_capstyle="butt")
    axis.set_ylim(tall.sum(), 0)
    axis.set_yticks(middles, [short(side) for side in sides])
    for k, label in enumerate(axis.get_yticklabels()):
        label.set(color=readable(COLORS[k % len(COLORS)]), fontweight="bold", linespacing=1.0)
    round_ticks(axis.xaxis, 4)
    axis.set_xlabel("score: mean return of the final policy")


def draw_survival(axis: Axes, comparison: ComparedRuns, env: str, by: str) -> None:
    """The share of runs that have not reached the threshold (Kaplan–Meier), per side. by: steps or seconds.

    A bar across a line is a run that ended without reaching it.
    """
    for k, side in enumerate(comparison.sides):
        found = comparison.survival(side, env, by)
        if found is None:
            continue
        times, shares = np.array([0.0, *found.times, found.end]), np.array([1.0, *found.shares, found.last])
        axis.step(times, shares, where="post", label=short(side, 24), **look(k))
        if len(found.censored):
            left = shares[np.searchsorted(times[:-1], found.censored, side="right") - 1]
            axis.plot(found.censored, left, ls="none", marker="|", ms=6, mew=1.0, color=look(k)["color"])
    axis.set_title(f"{env}: not at {return_label(comparison.thresholds[env] or 0.0, 0)} yet")
    axis.set(xlabel={"steps": "environment steps", "seconds": "seconds of training"}[by], ylabel="share of runs")
    axis.set_ylim(-0.03, 1.05)
    axis.set_xlim(left=0)
    round_ticks(axis.xaxis, 4)
    if not axis.lines:
        axis.text(0.5, 0.5, "the runs' files have no clock", transform=axis.transAxes, ha="center", color=PALE)
    elif by == "steps":
        axis.legend(loc="best", labelspacing=0.3, handlelength=2.5)


def row_inches(side: str) -> float:
    """The height that a side needs among the scores: that of its label."""
    return max(0.3, 0.115 * (short(side).count("\n") + 1) + 0.06)


def short(side: str, letters: int = 10) -> str:
    """A label that fits to the left of the axis: a longer one on several lines, four at most."""
    words = side.replace(":", ": ").replace(",", ", ").split(" ")
    broken = " ".join(word if len(word) <= letters else word.replace("=", "= ").replace("_", "_ ") for word in words)
    lines = textwrap.wrap(broken, letters)
    return "\n".join(lines if len(lines) <= 4 else [*lines[:3], lines[3][: letters - 1] + "…"])
