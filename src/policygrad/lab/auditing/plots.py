"""The plots of an audit: the parts of each row's error, bias and variance, and the variance by constant baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from policygrad.lab.auditing.optimal_baselines import BaselineCurve
from policygrad.lab.auditing.table import cell_name
from policygrad.lab.steps.plots import head, logarithmic_axes, name_axes, power_of_ten
from policygrad.reports.plots import COLORS, GRID, INK, PALE, Chart

if TYPE_CHECKING:
    from policygrad.lab.auditing.audit import Audit, Row

BLUE, ORANGE = COLORS[:2]
MARKS = "osD^vP*X"
PANEL = 5.2  # inches wide


def audit_figure(audit: Audit, curve: BaselineCurve | None = None) -> Chart:
    """The figure with its panels beside each other."""
    longest = max([10, *(len(cell_name(row)) for row in audit.rows)])
    left, legend = 0.076 * longest + 0.35, 0.076 * max([8, *(len(other(row)) for row in audit.rows)]) + 1.3  # inches
    gaps = (0.85, legend, 0.75)[: 2 + (curve is not None)]  # to the right of each panel
    width, inches = left + sum(PANEL + gap for gap in gaps), max(5.6, 0.29 * len(audit.rows) + 2.4)
    figure = Chart(figsize=(width, inches), dpi=92, facecolor="white")
    place, boxes = left, []
    for gap in gaps:
        boxes.append(figure.add_axes((place / width, 0.62 / inches, PANEL / width, 1 - 2.37 / inches)))
        place += PANEL + gap
    draw_errors(boxes[0], audit)
    draw_trade(boxes[1], audit)
    if curve is not None:
        draw_curve(boxes[2], curve)
    top = {"ha": "left", "va": "top", "x": 0.3 / width}
    bold = {"fontsize": 16, "fontweight": "bold", "color": INK}
    figure.suptitle("Gradient estimators, audited", y=1 - 0.2 / inches, **bold, **top)
    about = f"{audit.about} · {audit.repeats:,} batches of {audit.batch} episodes · critic: {audit.critic}"
    figure.text(y=1 - 0.55 / inches, s=about, fontsize=10.5, color=PALE, parse_math=False, **top)
    return figure


def draw_errors(axis: Axes, audit: Audit) -> None:
    """Bias² and variance of every row, on one logarithmic axis; the larger one is the mean squared error, nearly."""
    unit = "‖g‖²" if audit.norm > 0.0 else "units of the gradient"
    head(axis, "What the error of one batch is made of", f"Blue: variance. Orange: bias², if there is one. In {unit}")
    for y, row in enumerate(audit.rows):
        variance, bias = row.known("variance"), row.seen_bias
        seen = [x for x in (variance, bias**2 if bias is not None else 0.0) if x > 0.0]
        if len(seen) == 2:
            axis.plot(seen, [y, y], color=GRID, lw=3.0, solid_capstyle="round", zorder=1)
        if variance > 0.0:
            axis.plot(variance, y, "o", color=BLUE, ms=7.5, zorder=3)
        if bias is not None:
            if row.bias_exact is None:
                low, high = (max(x, bias / 10.0) ** 2 for x in row.bias_interval)
                axis.plot([low, high], [y, y], color=ORANGE, lw=1.6, zorder=2)
            axis.plot(bias**2, y, "D", color=ORANGE, ms=7.0, zorder=3)
    axis.set_xscale("log")
    logarithmic_x(axis)
    axis.set_ylim(len(audit.rows) - 0.4, -0.6)
    axis.set_yticks(range(len(audit.rows)), [cell_name(row) for row in audit.rows])
    for label, row in zip(axis.get_yticklabels(), audit.rows, strict=True):
        label.set_color(ORANGE if row.verdict == "biased" else INK)
    axis.grid(axis="y", visible=False)
    axis.annotate("1 = ‖g‖²", (1.0, 1.0), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                  fontsize=9, color=PALE, ha="center")  # fmt: skip
    axis.axvline(1.0, color=PALE, lw=0.8)
    name_axes(axis, f"variance or bias² of one batch, in {unit}")


def logarithmic_x(axis: Axes) -> None:
    """Ticks at powers of ten; between them, too, where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_xlim()
    subs = (1.0,) if high > 50.0 * low else (1.0, 2.0, 5.0)
    axis.xaxis.set_major_locator(LogLocator(subs=subs, numticks=7))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: power_of_ten(x)))


def draw_trade(axis: Axes, audit: Audit) -> None:
    """Draw bias² by variance: one mark per row, lines of equal error, and a strip for rows without bias."""
    subtitle = "Lines: equal mean squared error. Bottom strip: no bias, or none seen.\nSame colour: same estimator"
    head(axis, "Bias against variance", subtitle)
    rows = [row for row in audit.rows if row.known("variance") > 0.0]
    variances = [row.known("variance") for row in rows]
    squares = [bias**2 for row in rows if (bias := row.seen_bias)]
    if not rows:
        return
    low, high = min(variances) / 1.5, max(variances) * 1.5
    bottom, top = (min(squares) / 3.0, max(squares) * 2.0) if squares else (low, high)
    bottom = min(bottom, top / 30.0)
    strip = bottom / (top / bottom) ** 0.14
    floor = strip / (top / bottom) ** 0.06
    x, y = np.meshgrid(np.geomspace(low, high, 200), np.geomspace(bottom, top, 200))
    if squares:
        levels = np.geomspace(low + bottom, high + top, 9)
        axis.contour(x, y, x + y, levels, colors=GRID, linewidths=1.1)
        axis.axhspan(floor, bottom, color="#f8fafc", zorder=0)
        axis.axhline(bottom, color=GRID, lw=1.0)
    names = list(dict.fromkeys(row.estimator for row in audit.rows))
    others = list(dict.fromkeys(other(row) for row in audit.rows))
    for row in rows:
        bias = row.seen_bias
        axis.plot(row.known("variance"), bias**2 if bias else strip, MARKS[others.index(other(row)) % len(MARKS)],
                  color=COLORS[names.index(row.estimator) % len(COLORS)], ms=8.5, alpha=0.9, mec="white", mew=0.7)  # fmt: skip
    logarithmic_axes(axis)
    axis.set(xlim=(low, high), ylim=(floor, top))
    logarithmic_x(axis)
    axis.set_yticks([t for t in axis.get_yticks() if bottom <= t <= top])
    legend = [Line2D([], [], marker="o", ls="", color=COLORS[i % len(COLORS)], label=n) for i, n in enumerate(names)]
    legend += [Line2D([], [], marker=MARKS[i % len(MARKS)], ls="", color=PALE, label=n) for i, n in enumerate(others)]
    axis.legend(handles=legend, fontsize=9, frameon=False, labelcolor=INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    name_axes(axis, "variance of one batch, in ‖g‖²", "bias², in ‖g‖²")


def other(row: Row) -> str:
    """The baseline and wrapper of a row."""
    return " · ".join(x for x in (row.baseline, row.wrapper) if x not in ("none", "plain")) or "none"


def draw_curve(axis: Axes, curve: BaselineCurve) -> None:
    """The parabola, with b = 0, the mean return, and b*."""
    how = "exact" if curve.exact else "from a sample"
    head(axis, "Variance over a constant baseline", f"One trajectory's estimate, {how}. No constant makes it biased")
    axis.plot(curve.constants, curve.variances, color=BLUE, lw=2.2)
    low, high = curve.constants[0], curve.constants[-1]
    for n, (name, b, variance) in enumerate(curve.marks):  # the later ones are smaller: equal points are rings
        if low <= b <= high:
            color, size = (PALE, INK, ORANGE)[n], 12 - 3 * n
            axis.plot(b, variance, "o", color=color, ms=size, mec="white", zorder=3 + n, label=name)
    axis.legend(fontsize=10, frameon=False, labelcolor="linecolor", loc="upper center")
    top = max(curve.variances)
    axis.set_ylim(curve.least - 0.12 * (top - curve.least) if math.isfinite(top) else None, None)
    name_axes(axis, "b", "trace of the covariance")
