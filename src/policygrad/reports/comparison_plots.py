"""The picture of a comparison, as wide as a column of a paper: learning curves above, final scores with intervals below."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from policygrad.html import decimals
from policygrad.reports.aggregates import trimmed_mean
from policygrad.reports.columns import steps_text
from policygrad.reports.comparison import ComparedRuns, ScoredRun
from policygrad.reports.comparison_words import interval_label, overall
from policygrad.reports.curves import return_label
from policygrad.reports.plots import COLORS, INK, LINES, MARKERS, PALE, Chart, light_axis

WIDTH, CURVES, ROW, LETTERS = 3.5, 1.75, 0.3, 66  # inches; letters of a line of the caption
POINTS = 100  # of a learning curve
DASHES, SIGNS = (*LINES, (0, (5, 1.5, 1, 1.5))), (*MARKERS, "^")


def figure(comparison: ComparedRuns) -> Chart:
    """Per environment a panel of learning curves and one of final scores, and a caption with the numbers."""
    lines = caption(comparison)
    rows = ROW * len(comparison.sides) + 0.25
    panel = CURVES + rows + 1.05
    foot = 0.13 * len(lines) + 0.12
    height = panel * len(comparison.envs) + foot
    chart = Chart(figsize=(WIDTH, height), dpi=300, facecolor="white")
    for k, env in enumerate(comparison.envs):
        top = height - k * panel - 0.32

        def axis(upper: float, tall: float) -> Axes:
            return chart.add_axes((0.62 / WIDTH, (upper - tall) / height, (WIDTH - 0.75) / WIDTH, tall / height))

        draw_curves(axis(top, CURVES), comparison, env)
        draw_scores(axis(top - CURVES - 0.45, rows), comparison, env)
    for k, line in enumerate(lines):
        y = (foot - 0.1 - 0.13 * k) / height
        chart.text(0.06 / WIDTH, y, line, fontsize=6.5, color=PALE, va="top", parse_math=False)
    return chart


def caption(comparison: ComparedRuns) -> list[str]:
    """The numbers of the picture, in lines that fit under it."""
    level = f"{100 * comparison.level:g} %"
    texts = [overall(comparison)]
    for env in comparison.envs:
        said = []
        for side in comparison.sides:
            found = comparison.summary(side, env)["iqm"]
            interval = interval_label(found["interval"], max(1, decimals(*found["interval"])))
            runs = len(comparison.runs[side][env])
            said.append(f"{side} {return_label(found['value'])} [{interval}], n = {runs}")
        texts.append(f"{env}: IQM [{level} bootstrap]: " + "; ".join(said) + ".")
    texts.append(
        "Lines: IQM of the runs' mean returns in training, bands: all runs. Bars: IQM and interval, dots: runs."
    )
    return [line for text in texts for line in textwrap.wrap(text, LETTERS, break_on_hyphens=False)]


def style(k: int) -> dict[str, Any]:
    """Colour and dashes of a side: the sides differ in grey, too."""
    return {"color": COLORS[k % len(COLORS)], "ls": DASHES[k % len(DASHES)]}


def draw_curves(axis: Axes, comparison: ComparedRuns, env: str) -> None:
    """The interquartile mean of the runs' curves, with a band over all of them, per side."""
    frame(axis)
    axis.set_title(env, loc="left", fontsize=9, fontweight="bold", color=INK, parse_math=False)
    for k, side in enumerate(comparison.sides):
        steps, returns = common(comparison.runs[side][env])
        if len(steps):
            axis.fill_between(steps, returns.min(0), returns.max(0), color=style(k)["color"], alpha=0.13, linewidth=0)
            axis.plot(steps, trimmed_mean(returns.T), lw=1.5, label=side, **style(k))
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: steps_text(x)))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.set_xlabel("environment steps", fontsize=7, color=PALE, labelpad=1)
    axis.set_ylabel("return in training", fontsize=7, color=PALE, labelpad=2)
    threshold = comparison.thresholds[env]
    low, high = axis.get_ylim()
    if threshold is not None and low <= threshold <= high + 0.15 * (high - low):
        axis.axhline(threshold, color=PALE, lw=0.8, ls=(0, (4, 3)), zorder=1)


def common(runs: list[ScoredRun]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (K,) that all runs have rows for, and their mean returns there (runs, K); empty where there are none."""
    drawn = [run for run in runs if len(run.steps)]
    if not drawn:
        return np.empty(0), np.empty((0, 0))
    first, last = max(run.steps[0] for run in drawn), min(run.steps[-1] for run in drawn)
    steps = np.linspace(first, last, POINTS) if last > first else np.empty(0)
    return steps, np.array([np.interp(steps, run.steps, run.returns) for run in drawn])


def draw_scores(axis: Axes, comparison: ComparedRuns, env: str) -> None:
    """The final scores of all runs as dots, and per side the interquartile mean with its interval."""
    frame(axis)
    for k, side in enumerate(comparison.sides):
        scores, found = comparison.scores(side, env), comparison.summary(side, env)["iqm"]
        y, color = -k, style(k)["color"]
        axis.plot(scores, np.full(len(scores), y - 0.22), ls="none", marker=SIGNS[k % len(SIGNS)], ms=2.6, color=color,
                  alpha=0.55, mew=0, clip_on=False)  # fmt: skip
        axis.plot(found["interval"], [y + 0.12] * 2, color=color, lw=5, alpha=0.3, solid_capstyle="butt")
        axis.plot([found["value"]] * 2, [y - 0.02, y + 0.26], color=color, lw=2)
    axis.set_ylim(0.5 - len(comparison.sides), 0.5)
    axis.set_yticks(range(0, -len(comparison.sides), -1), [short(side) for side in comparison.sides])
    for k, label in enumerate(axis.get_yticklabels()):
        label.set_color(style(k)["color"])
        label.set_fontweight("bold")
        label.set_parse_math(False)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.set_xlabel("score: mean return of the final policy", fontsize=7, color=PALE, labelpad=1)


def short(side: str) -> str:
    """A label that fits to the left of the axis; a longer one on several lines."""
    return "\n".join(textwrap.wrap(side.replace(":", ": ").replace(",", ", "), 10)[:3])


def frame(axis: Axes) -> None:
    """The house style in small letters."""
    light_axis(axis, "both")
    axis.tick_params(labelsize=7, pad=2)
    axis.set_facecolor("white")
