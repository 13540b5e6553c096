"""The picture of a search: the trials in their order, and what their hyperparameters matter."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from policygrad.reports.comparison_plots import LINE_HEIGHT, wrapped, write_caption
from policygrad.reports.style_plots import COLORS, WIDTHS, Chart, chart, round_ticks
from policygrad.reports.tuning import Tuning

WIDTH, HISTORY, BAR = WIDTHS["column"], 1.9, 0.2  # inches
FINISHED, PRUNED = COLORS[0], COLORS[1]


def figure(found: Tuning) -> Chart:
    """The value of every trial with the best so far, below it the importances, and the verdict."""
    lines = wrapped(caption(found), WIDTH)
    bars = BAR * len(found.importances) + 0.55 if found.importances else 0.0
    foot = LINE_HEIGHT * len(lines) + 0.12
    height = 0.32 + HISTORY + 0.45 + bars + foot
    with chart("column", height) as made:

        def axis(left: float, top: float, tall: float) -> Axes:
            return made.add_axes(
                (left / WIDTH, (height - top - tall) / height, (WIDTH - left - 0.15) / WIDTH, tall / height)
            )

        draw_history(axis(0.62, 0.32, HISTORY), found)
        if found.importances:
            draw_importances(axis(1.1, 0.32 + HISTORY + 0.5, bars - 0.45), found)
        write_caption(made, lines)
    return made


def caption(found: Tuning) -> str:
    """What the picture shows, and what was found."""
    shown = "Dots: mean score of a trial's seeds. Line: the best so far."
    if any(row.state == "pruned" for row in found.trials):
        shown += " Crosses: return in training where a trial was given up."
    if found.importances:
        shown += " Bars: share in what separates the best trials from the others (PED-ANOVA); rough for few trials."
    return f"{found.verdict} {shown}"


def draw_history(axis: Axes, found: Tuning) -> None:
    """Values in the order of the trials, and the best so far."""
    name = f"{found.request['algo']} on {found.request['env']}"
    axis.set_title(name)
    finished = [(row.number, row.value) for row in found.trials if row.value is not None]
    if finished:
        numbers, values = np.array(finished, float).T
        ends, tops = [*numbers, float(len(found.trials) - 1)], [*np.maximum.accumulate(values), values.max()]
        axis.step(ends, tops, where="post", color=FINISHED, alpha=0.7)
        axis.plot(numbers, values, ls="none", marker="o", ms=3.2, color=FINISHED, mew=0, clip_on=False)
    last = {row.number: [x for x in row.curve if x is not None] for row in found.trials if row.state == "pruned"}
    given_up = [(number, values[-1]) for number, values in last.items() if values]
    if given_up:
        numbers, values = np.array(given_up, float).T
        axis.plot(numbers, values, ls="none", marker="x", ms=3.5, color=PRUNED, clip_on=False)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    round_ticks(axis.yaxis, 4)
    axis.set_xlabel("trial")
    axis.set_ylabel("return")


def draw_importances(axis: Axes, found: Tuning) -> None:
    """A bar per hyperparameter, the largest on top."""
    names, shares = list(found.importances), list(found.importances.values())
    places = -np.arange(len(names))
    axis.barh(places, shares, height=0.6, color=FINISHED, alpha=0.7)
    axis.set_yticks(places, names)
    axis.set_ylim(-len(names) + 0.5, 0.5)
    axis.set_xlim(0, max(shares) * 1.05)
    round_ticks(axis.xaxis, 4)
    axis.set_xlabel("importance")
