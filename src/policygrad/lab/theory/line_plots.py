"""Lines, and the labels at their ends, in the plots of `policygrad lab theory`."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from policygrad.reports.style_plots import TEXT, say

DOTS = {"mec": "white", "mew": 0.5}


def label_ends(axis: Axes, ends: Mapping[str, tuple[float, str]], x: float, fontsize: float = TEXT) -> None:
    """Labels to the right of lines that end at x, from the top and without overlaps: text → (y, colour)."""
    low, high = axis.get_ylim()
    last = float("inf")
    for text, (y, color) in sorted(ends.items(), key=lambda item: -item[1][0]):
        last = min(y, last - 0.055 * (high - low))
        say(axis, text, (x, last), (4, 0), color, fontsize=fontsize, annotation_clip=False)


def leave_room(axis: Axes, end: float, share: float) -> None:
    """Leave room for labels to the right of lines that end at `end`; the axis, its ticks and its grid end there, too."""
    axis.set_xticks(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]).tick_values(0, end))
    axis.set_xticks([x for x in axis.get_xticks() if 0 <= x <= end])
    axis.set_xlim(0, share * end)
    axis.spines["bottom"].set_bounds(0, end)
