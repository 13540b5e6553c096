"""The plot of a report: panels over the steps, in the style of `policygrad.reports.plots`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from policygrad.reports.columns import Updates, num, title
from policygrad.reports.findings import MIN_MEASUREMENTS, metered, pooled_snr, telling, windows
from policygrad.reports.plots import style
from policygrad.reports.style_plots import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    LINES,
    ORANGE,
    PALE,
    PINK,
    THIN,
    Chart,
    chart,
    readable,
    title_of,
)
from policygrad.reports.tracking import joined

if TYPE_CHECKING:
    from policygrad.reports.report import Report

PANEL, TOP, FOOT = 1.2, 0.72, 0.38  # inches: a panel, what is above all of them, and below
MAX_RAW_ROWS = 120  # rows above which lines are their rows' running means
WINDOWS = 6  # of the gradient's SNR, at most
LOG_SCALE_RATIO = 30.0  # largest over smallest, above which a panel is logarithmic


def report_figure(report: Report) -> Chart:
    """The figure, with the panels for which there are numbers."""
    updates = report.updates
    panels = [draw for needs, draw in PANELS if updates.has(*needs)]
    panels += [random_actions] if (updates["epsilon"] > 0.0).any() else []
    panels += [noise] if len(telling(metered(updates.rows))) >= 2 * MIN_MEASUREMENTS else []
    height = TOP + PANEL * len(panels) + FOOT
    with chart("page", height) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, draw in zip(axes, panels, strict=True):
            style(axis)
            draw(axis, report)
            marks(axis, report)
            axis.tick_params(labelbottom=axis is axes[-1])
        axes[-1].set_xlim(0, updates.steps[-1] * 1.01)
        axes[-1].set_xlabel("environment steps")
        figure.subplots_adjust(0.085, FOOT / height, 0.97, 1 - TOP / height, hspace=0.42)
        heading(figure, report)
    return figure


def heading(figure: Chart, report: Report) -> None:
    """Draw the title and the legend of the marks."""
    text, updates = f"{title(report.updates.algo)} on {report.env}", report.updates
    parts = [f"seed {report.seed}", f"{len(updates)} measured updates"]
    parts += [f"{updates.measured()} is"] if updates.measured() else []
    if (updates["accepted"] == 0.0).any():
        parts.append("vertical line: step rejected")
    if any(segment.broken for segment in report.segments):
        parts.append("shaded: the surrogate predicted a rise, but the return fell")
    title_of(figure, text, " · ".join(parts))


def marks(axis: Axes, report: Report) -> None:
    """Mark where steps were rejected and where the surrogate stopped tracking the return."""
    for segment in joined([segment for segment in report.segments if segment.broken]):
        axis.axvspan(segment.start, segment.end, color=PINK, alpha=0.18, linewidth=0, zorder=0)
    for steps in report.updates.steps[report.updates["accepted"] == 0.0]:
        axis.axvline(steps, color=INK, linewidth=0.6, alpha=0.6, zorder=0.5)


def returns(axis: Axes, report: Report) -> None:
    """Draw the logged mean return, and the means before and after segments."""
    updates = report.updates
    axis.plot(updates.steps, updates["return_mean"], color=BLUE)
    words = [("return", INK), ("mean of the last 100 episodes", BLUE)]
    if report.segments:
        points = {s.start: s.before for s in report.segments} | {s.end: s.after for s in report.segments}
        x, y = list(points), list(points.values())
        axis.plot(x, y, "o-", color=ORANGE, lw=THIN, ms=3.5, mec="white", mew=0.5)
        words.append(("● episodes that ended near this update", ORANGE))
    key(axis, words)


def gains(axis: Axes, report: Report) -> None:
    """Draw the gain of the surrogate and the prediction of its linear model."""
    key(axis, [("surrogate", INK), ("gain", BLUE), ("predicted, ĝᵀs", ORANGE)])
    row_line(axis, report.updates, "predicted_gain", ORANGE, ls=LINES[1])
    row_line(axis, report.updates, "gain", BLUE)
    axis.axhline(0.0, color=PALE, lw=0.6, zorder=1)


def divergences(axis: Axes, report: Report) -> None:
    """Draw KL exact, by the quadratic model and sampled, and its limit."""
    updates, bound = report.updates, report.updates.bound()
    words = [("KL(old ‖ new), nats", INK), ("exact", BLUE), ("½ sᵀFs", ORANGE), ("● sampled, k3", GREEN)]
    axis.plot(updates.steps, positive_values(updates["kl_k3"]), "o", color=GREEN, ms=2, alpha=0.7, mew=0)
    row_line(axis, updates, "kl_quadratic", ORANGE, positive_values, ls=LINES[1])
    row_line(axis, updates, "kl", BLUE, positive_values)
    logarithmic_axis(axis, updates["kl"])
    if bound is not None:
        axis.plot(updates.steps, bound[1], color=PALE, lw=THIN, ls=DASHED, zorder=1)
        words.append((f"{'target' if updates.spec.steers_kl else 'bound'}, {bound[0]} = {num(bound[1][0])}", PALE))
    key(axis, words)


def accepted(axis: Axes, report: Report) -> None:
    """Draw the share of the natural step that the line search accepted."""
    share, steps = report.updates["accepted"], report.updates.steps
    taken = share > 0.0
    axis.vlines(steps[taken], 0.0, share[taken], color=BLUE, lw=1.0)
    axis.plot(steps[taken], share[taken], "o", color=BLUE, ms=2.4)
    axis.plot(steps[~taken], share[~taken], "x", color=INK, ms=4.5, mew=1.3, clip_on=False, zorder=4)
    axis.set_ylim(0.0, 1.08)
    words = [("line search", INK), ("share of the natural step that was taken", BLUE)]
    key(axis, words if taken.all() else [*words, ("× rejected", INK)])


def clipped(axis: Axes, report: Report) -> None:
    """Draw the share of steps whose gradient the clip removes."""
    row_line(axis, report.updates, "clip_fraction", BLUE)
    axis.set_ylim(bottom=0.0)
    key(axis, [("clip", INK), ("share of the batch without gradient after the last epoch", BLUE)])


def values(axis: Axes, report: Report) -> None:
    """Draw the mean action value and the size of the temporal-difference error."""
    row_line(axis, report.updates, "td_error", ORANGE, ls=LINES[1])
    row_line(axis, report.updates, "q_mean", BLUE)
    axis.axhline(0.0, color=PALE, lw=0.6, zorder=1)
    key(axis, [("action values", INK), ("mean q(s, a)", BLUE), ("TD error, root of the mean square", ORANGE)])


def random_actions(axis: Axes, report: Report) -> None:
    """Draw the probability of a random action."""
    row_line(axis, report.updates, "epsilon", BLUE)
    axis.set_ylim(0.0, 1.05)
    key(axis, [("exploration", INK), ("probability of a random action, ε", BLUE)])


def weights(axis: Axes, report: Report) -> None:
    """Draw β over the run."""
    axis.step(report.updates.steps, positive_values(report.updates["beta"]), color=BLUE, where="mid")
    logarithmic_axis(axis, report.updates["beta"], always=True)
    key(axis, [("penalty", INK), ("β", BLUE)])


def on_logarithm(axis: Axes, report: Report, what: str, lines: dict[str, str]) -> None:
    """One line or two on a logarithmic axis; lines: the name of a number and what it is called."""
    colors = (BLUE, ORANGE)[: len(lines)]
    for k, (name, color) in enumerate(zip(lines, colors, strict=True)):
        row_line(axis, report.updates, name, color, positive_values, ls=LINES[k])
    logarithmic_axis(axis, np.concatenate([report.updates[name] for name in lines]), always=True)
    key(axis, [(what, INK), *zip(lines.values(), colors, strict=True)])


SOLVED = {"cg_residual": "residual ‖ĝ − Ax‖ / ‖ĝ‖"}
TEMPERATURE = {"alpha": "weight of the entropy, α"}
LENGTHS = {"step_norm": "in parameters, ‖s‖", "policy_step": "in policy, √(2 KL)"}  # between them: the curvature


def eigenvalues(axis: Axes, report: Report) -> None:
    """Draw the largest eigenvalues of the Fisher matrix, and the damping."""
    updates, damping = report.updates, report.updates.setting("damping")
    found = {name for name in set().union(*updates.rows) if re.fullmatch(r"fisher_[1-9][0-9]{0,2}", name)}
    names = sorted(found, key=lambda name: int(name[7:]))
    for k, name in enumerate(names):
        axis.plot(
            updates.steps, positive_values(updates[name]), color=BLUE, linewidth=1.4 if k == 0 else THIN, alpha=0.9**k
        )
    which = "largest eigenvalue" if len(names) == 1 else f"its {len(names)} largest eigenvalues"
    words = [("Fisher matrix", INK), (which, BLUE)]
    if damping:
        axis.axhline(damping, color=PALE, lw=THIN, ls=DASHED, zorder=1)
        words.append((f"damping = {num(damping)}", PALE))
    logarithmic_axis(axis, updates["fisher_1"], always=True)
    key(axis, words)


def noise(axis: Axes, report: Report) -> None:
    """Draw the SNR of the gradient, pooled in windows of measurements; the axis is linear up to 1 and logarithmic above."""
    parts = windows(telling(metered(report.updates.rows)), WINDOWS)
    found = [pooled_snr(part) for part in parts]
    x = [np.mean([row["steps"] for row in part]) for part in parts]
    axis.errorbar(x, [p.snr for p in found], [2 * p.error for p in found], fmt="o-", color=BLUE, ms=3, lw=1.0)
    axis.set_yscale("symlog", linthresh=1.0)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: num(v)))
    axis.axhline(0.0, color=PALE, lw=0.6, zorder=1)
    axis.axhline(1.0, color=PALE, lw=THIN, ls=DASHED, zorder=1)
    batches = f"{len(parts[0])} measured batches together, ± two standard errors"
    key(axis, [("SNR of the gradient", INK), (batches, BLUE), ("signal equals noise", PALE)])


PANELS: Sequence[tuple[tuple[str, ...], Callable[[Axes, Report], None]]] = (  # what a panel needs
    (("return_mean",), returns),
    (("gain", "predicted_gain"), gains),
    (("q_mean",), values),
    (tuple(TEMPERATURE), partial(on_logarithm, what="temperature", lines=TEMPERATURE)),
    (("kl",), divergences),
    (("accepted",), accepted),
    (("clip_fraction",), clipped),
    (("beta",), weights),
    (tuple(SOLVED), partial(on_logarithm, what="conjugate gradients", lines=SOLVED)),
    (tuple(LENGTHS), partial(on_logarithm, what="length of a step", lines=LENGTHS)),
    (("fisher_1",), eigenvalues),
)


def key(axis: Axes, words: Sequence[tuple[str, str]]) -> None:
    """Write the title of a panel in bold, and the names of its lines in their colours."""
    before: Any = None
    for text, color in words:
        where: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (-36, 5)}
        if before is not None:
            where = {"xy": (1, 0), "xycoords": before, "xytext": (7, 0)}
        bold = "bold" if before is None else "normal"
        style: dict[str, Any] = {
            "textcoords": "offset points",
            "color": readable(color),
            "fontweight": bold,
            "va": "bottom",
        }
        before = axis.annotate(text, **where, **style)


def row_line(
    axis: Axes,
    updates: Updates,
    name: str,
    color: str,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
    **how: Any,
) -> None:
    """Draw a line through the rows, with a dot for a row between gaps; many rows are drawn pale, under their running mean."""
    x, y = updates.steps, updates[name] if change is None else change(updates[name])
    if len(y) > MAX_RAW_ROWS:
        axis.plot(x, y, color=color, lw=0.5, alpha=0.25)
        y = running_mean(y, 2 * (len(y) // MAX_RAW_ROWS) + 3)
    axis.plot(x, y, color=color, lw=1.2, **how)
    gap = np.concatenate([[True], np.isnan(y), [True]])
    alone = ~gap[1:-1] & gap[:-2] & gap[2:]
    axis.plot(x[alone], y[alone], ".", color=color)


def running_mean(y: np.ndarray, window: int) -> np.ndarray:
    """Every row's mean with its neighbours; rows without a number stay without."""
    there = np.isfinite(y)
    ones = np.ones(window)
    sums, counts = np.convolve(np.where(there, y, 0.0), ones, "same"), np.convolve(there.astype(float), ones, "same")
    return np.where(there, sums / np.maximum(counts, 1.0), np.nan)


def positive_values(y: np.ndarray) -> np.ndarray:
    """The positive values; NaN in place of the others."""
    return np.where(y > 0.0, y, np.nan)


def logarithmic_axis(axis: Axes, y: np.ndarray, always: bool = False) -> None:
    """Make an axis logarithmic if the numbers span enough, with readable ticks."""
    y = y[np.isfinite(y) & (y > 0.0)]
    if not len(y) or not (always or np.quantile(y, 0.95) > LOG_SCALE_RATIO * np.quantile(y, 0.05)):
        axis.set_ylim(bottom=0.0)
        return
    axis.set_yscale("log")
    span = y.max() / y.min()
    digits = (1.0, 2.0, 5.0) if span < 10.0 else (1.0, 3.0) if span < 300.0 else (1.0,)
    axis.yaxis.set_major_locator(LogLocator(subs=digits, numticks=6))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: num(v)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="y", which="minor", length=0)
