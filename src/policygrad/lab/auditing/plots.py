"""The plots of an audit: the parts of each row's error, bias and variance, and the variance by constant baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from policygrad.lab.auditing.optimal_baselines import BaselineCurve
from policygrad.lab.auditing.table import cell_name
from policygrad.reports.style_plots import (
    BLUE,
    COLORS,
    GRID,
    INK,
    ORANGE,
    PALE,
    SMALL,
    THIN,
    Chart,
    chart,
    head,
    logarithmic,
    logarithmic_axes,
    readable,
    title_of,
)

if TYPE_CHECKING:
    from policygrad.lab.auditing.audit import Audit, Row

MARKS = "osD^vP*X"


def audit_figure(audit: Audit, curve: BaselineCurve | None = None) -> Chart:
    """The figure: the errors of all rows over the whole width, and the other panels below them."""
    upper, lower, above = 0.16 * len(audit.rows) + 1.1, 3.2, 0.55  # inches of both rows, and of the title
    inches = above + upper + lower
    longest, others = (max([8, *map(len, names)]) for names in (map(cell_name, audit.rows), map(other, audit.rows)))
    left, legend = 0.056 * longest + 0.2, 0.056 * others + 0.35  # inches
    about = f"{audit.about} · {audit.repeats:,} batches of {audit.batch} episodes · critic: {audit.critic}"
    with chart("page", inches) as figure:

        def axis(x: float, y: float, wide: float, tall: float) -> Axes:
            return figure.add_axes((x / 7.0, y / inches, wide / 7.0, tall / inches))

        draw_errors(axis(left, lower + 0.4, 6.85 - left, upper - 0.95), audit)
        right = 0.1 if curve is None else 2.4
        draw_trade(axis(0.6, 0.4, 6.4 - legend - right, lower - 1.0), audit)
        if curve is not None:
            draw_curve(axis(7.0 - 1.9, 0.4, 1.8, lower - 1.0), curve)
        title_of(figure, "Gradient estimators, audited", about)
    return figure


def draw_errors(axis: Axes, audit: Audit) -> None:
    """Bias² and variance of every row, on one logarithmic axis; the larger one is the mean squared error, nearly."""
    unit = "‖g‖²" if audit.norm > 0.0 else "units of the gradient"
    head(axis, "What the error of one batch is made of", f"Blue: variance. Orange: bias², if there is one. In {unit}")
    for y, row in enumerate(audit.rows):
        variance, bias = row.known("variance"), row.seen_bias
        seen = [x for x in (variance, bias**2 if bias is not None else 0.0) if x > 0.0]
        if len(seen) == 2:
            axis.plot(seen, [y, y], color=GRID, lw=2, zorder=1)
        if variance > 0.0:
            axis.plot(variance, y, "o", color=BLUE, ms=4.9, zorder=3)
        if bias is not None:
            if row.bias_exact is None:
                low, high = (max(x, bias / 10.0) ** 2 for x in row.bias_interval)
                axis.plot([low, high], [y, y], color=ORANGE, lw=1, zorder=2)
            axis.plot(bias**2, y, "D", color=ORANGE, ms=4.5, zorder=3)
    axis.set_xscale("log")
    logarithmic_x(axis)
    axis.set_ylim(len(audit.rows) - 0.4, -0.6)
    axis.set_yticks(range(len(audit.rows)), [cell_name(row) for row in audit.rows])
    for label, row in zip(axis.get_yticklabels(), audit.rows, strict=True):
        label.set_color(readable(ORANGE) if row.verdict == "biased" else INK)
    axis.grid(axis="y", visible=False)
    axis.annotate("1 = ‖g‖²", (1.0, 1.0), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                  color=PALE, ha="center")  # fmt: skip
    axis.axvline(1.0, color=PALE, lw=THIN)
    axis.set_xlabel(f"variance or bias² of one batch, in {unit}")


def logarithmic_x(axis: Axes) -> None:
    """Ticks at powers of ten; between them, too, where there are few."""
    low, high = axis.get_xlim()
    logarithmic(axis.xaxis, 7, (1.0,) if high > 50.0 * low else (1.0, 2.0, 5.0))


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
        axis.contour(x, y, x + y, levels, colors=GRID, linewidths=0.7)
        axis.axhspan(floor, bottom, color=GRID, alpha=0.3, zorder=0)
        axis.axhline(bottom, color=GRID, lw=0.7)
    names = list(dict.fromkeys(row.estimator for row in audit.rows))
    others = list(dict.fromkeys(other(row) for row in audit.rows))
    for row in rows:
        bias = row.seen_bias
        axis.plot(row.known("variance"), bias**2 if bias else strip, MARKS[others.index(other(row)) % len(MARKS)],
                  color=COLORS[names.index(row.estimator) % len(COLORS)], ms=5.5, alpha=0.9, mec="white", mew=0.5)  # fmt: skip
    logarithmic_axes(axis)
    axis.set(xlim=(low, high), ylim=(floor, top))
    logarithmic_x(axis)
    axis.set_yticks([t for t in axis.get_yticks() if bottom <= t <= top])
    legend = [Line2D([], [], marker="o", ls="", color=COLORS[i % len(COLORS)], label=n) for i, n in enumerate(names)]
    legend += [Line2D([], [], marker=MARKS[i % len(MARKS)], ls="", color=PALE, label=n) for i, n in enumerate(others)]
    axis.legend(handles=legend, loc="upper left", bbox_to_anchor=(1.0, 1.12), fontsize=SMALL, labelspacing=0.25)
    axis.set(xlabel="variance of one batch, in ‖g‖²", ylabel="bias², in ‖g‖²")


def other(row: Row) -> str:
    """The baseline and wrapper of a row."""
    return " · ".join(x for x in (row.baseline, row.wrapper) if x not in ("none", "plain")) or "none"


def draw_curve(axis: Axes, curve: BaselineCurve) -> None:
    """The parabola, with b = 0, the mean return, and b*."""
    how = "exact" if curve.exact else "from a sample"
    head(axis, "Variance over a constant", f"One trajectory's estimate, {how}.\nNo constant makes it biased")
    axis.plot(curve.constants, curve.variances, color=BLUE)
    low, high = curve.constants[0], curve.constants[-1]
    for n, (name, b, variance) in enumerate(curve.marks):  # the later ones are smaller: equal points are rings
        if low <= b <= high:
            color, size = (PALE, INK, ORANGE)[n], 8 - 2 * n
            axis.plot(b, variance, "o", color=color, ms=size, mec="white", mew=0.5, zorder=3 + n, label=name)
    axis.legend(frameon=False, labelcolor="linecolor", loc="upper center")
    top = max(curve.variances)
    axis.set_ylim(curve.least - 0.12 * (top - curve.least) if math.isfinite(top) else None, None)
    axis.set(xlabel="b", ylabel="trace of the covariance")
