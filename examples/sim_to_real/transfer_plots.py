"""The picture of the experiment: what each side returns after fine-tuning, and the worst episode on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from physics import REALITIES, SIMULATIONS
from tuning import SIDES

from policygrad.reports.aggregates import interval, iqm
from policygrad.reports.style_plots import BLUE, ORANGE, SIGNS, Chart, head, marker, panels_figure, round_ticks

COLORS = {"fixed": BLUE, "randomised": ORANGE}
MEASURES = {
    "after": ("return after fine-tuning", "the greedy policy, in reality"),
    "worst": ("worst episode of fine-tuning", "from the first update on, with sampled actions"),
}
Run = Mapping[str, Any]


def figure(runs: Sequence[Run]) -> Chart:
    """Per reality a row: returns after fine-tuning to the left, worst episodes to the right."""
    panels: list[Callable[[Axes], None]] = [
        partial(draw, runs=runs, world=world, measure=measure) for world in REALITIES for measure in MEASURES
    ]
    about = f"{SIGNS[0]} fixed and {SIGNS[1]} randomised simulation, per seed; lines: interquartile means with 95 % intervals"
    return panels_figure(panels, "A pendulum from simulation to reality", about, margin=1.05, height=2.6)


def draw(axis: Axes, runs: Sequence[Run], world: str, measure: str) -> None:
    """One row per side; both simulations in a row, one above the other."""
    sides = [side for side in SIDES if measure == "after" or side != "untouched"]
    for k, (simulation, color) in enumerate(COLORS.items()):
        assert simulation in SIMULATIONS
        for y, side in enumerate(sides):
            asked = (world, simulation, side)
            found = [run for run in runs if (run["reality"], run["simulation"], run["side"]) == asked]
            x, at = np.array([run[measure] for run in found]), y + 0.4 * k - 0.2
            axis.plot(
                x, np.full(len(x), at + 0.09), ls="none", marker=marker(k), ms=2.6, color=color, alpha=0.55, mew=0
            )
            axis.plot(interval(iqm, [x]), [at - 0.04] * 2, color=color)
            axis.plot([iqm([x])] * 2, [at - 0.12, at + 0.04], color=color, lw=2)
    axis.set_yticks(range(len(sides)), sides)
    axis.set_ylim(len(sides) - 0.5, -0.5)
    axis.set_xlabel("return")
    round_ticks(axis.xaxis, 5)
    title, about = MEASURES[measure]
    head(axis, f"{world.capitalize()} pendulum: {title}", about)
