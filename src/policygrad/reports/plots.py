"""Learning curves, in files and notebooks: matplotlib's Figure objects, no pyplot."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from policygrad.html import decimals, interval_text
from policygrad.reports.columns import title
from policygrad.reports.curves import (
    RETURN,
    WINDOW,
    Curve,
    differences,
    labels,
    last,
    marks_text,
    noun,
    points,
    read_curves,
    return_label,
    seeds_label,
)
from policygrad.reports.style_plots import (
    COLORS,
    DASHED,
    HEAD,
    INK,
    LINE,
    PALE,
    SIGNS,
    TEXT,
    THIN,
    Chart,
    chart,
    look,
    marker,
    readable,
    round_ticks,
)
from policygrad.stored.directory import RunDirectory, RunError, find_run, named, runs_at

__all__ = ["COLORS", "INK", "PALE", "Chart", "Curve", "labels", "marks_text", "points", "read_curves", "seeds_label"]

HEAD_INCHES = 1.05  # title, subtitle and the steps axis
LINE_POINTS, LINE_LETTERS = 9.5, 95  # of the text below the title


def plot(
    runs: RunDirectory | str | Path | Sequence[RunDirectory | str | Path] = "latest",
    by: str = "config",
    metric: str = RETURN,
    smooth: int = 1,
    path: str | Path | None = None,
) -> Chart:
    """Draw the learning curves of runs, one panel per environment, as a Figure: `plot("latest")` in a notebook shows it.

    runs: what `train` returned, directories of runs, or their names as on the command line. by="config": runs that differ
    in the seed alone are one curve, their mean and a band from the lowest to the highest; "algo": runs of one algorithm; or
    the names of hyperparameters, such as "lr" or "lr,clip". metric: a column of metrics.jsonl. smooth: rows of a moving
    average. path: a file in which the figure is also written, png, pdf or svg. A warning says in what runs of one curve differ.
    Raises RunError for a hyperparameter or a column that no run has.
    """
    several = list(runs) if isinstance(runs, Iterable) and not isinstance(runs, str) else [runs]
    chosen: dict[Path, RunDirectory] = {}
    for run in several:
        place = run.path if isinstance(run, RunDirectory) else find_run(named(run))
        chosen |= {one.path.resolve(): one for one in runs_at(place)}
    return curves_figure(_read(chosen.values(), by, metric, smooth), metric, smooth).written(path)


def plot_runs(
    runs: Sequence[RunDirectory], out: Path, by: str = "config", metric: str = RETURN, smooth: int = 1
) -> Path:
    """Draw the learning curves of runs, as `plot` does, into a file. Raises RunError for unreadable runs."""
    return curves_figure(_read(runs, by, metric, smooth), metric, smooth).write(out)


def _read(runs: Iterable[RunDirectory], by: str, metric: str, smooth: int) -> dict[str, list[Curve]]:
    """The curves by environment, with a warning where runs of one curve differ in more than was asked for."""
    panels = read_curves(runs, by, metric, smooth)
    for env, curves in panels.items():
        if text := differences(curves):
            warnings.warn(f"{env}: {text}", stacklevel=3)
    return panels


def curves_figure(panels: dict[str, list[Curve]], metric: str = RETURN, smooth: int = 1) -> Chart:
    """The figure, high enough for the labels of the panel with the most curves. Raises RunError if there is nothing to draw."""
    if not panels:
        raise RunError("there are no runs to draw")
    height = max([2.5, *(sum(map(label_inches, labels(curves))) for curves in panels.values())])
    what, most = what_is_drawn(metric, smooth), 1
    with chart("page", height) as figure:
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axis, (env, curves) in zip(axes, panels.items(), strict=True):
            draw_environment(axis, curves, height, what)
            lines = fitted_lines(marks_text(curves, beyond=any(is_beyond(axis, curve) for curve in curves)))
            write_head(axis, env, curves, [f"{what} · {seeds_label(curves)}", *lines])
            most = max(most, len(lines))
        figure.set_figheight(len(panels) * (height + HEAD_INCHES + LINE_POINTS / 72 * (most - 1)))
        figure.tight_layout(h_pad=2.0)
    return figure


def what_is_drawn(metric: str, smooth: int) -> str:
    """The text about the metric."""
    average = f", moving average of {smooth} rows" if smooth > 1 else ""
    return (WINDOW if metric == RETURN else metric) + average


def write_head(axis: Axes, env: str, curves: list[Curve], lines: list[str]) -> None:
    """Write the title and the lines below it."""
    algos = {curve.algo for curve in curves}
    name = f"{title(curves[0].algo)} on {env}" if len(algos) == 1 else env
    axis.set_title(name, fontsize=HEAD, pad=9 + LINE_POINTS * len(lines))
    small: dict[str, Any] = {"textcoords": "offset points", "color": PALE, "va": "bottom"}
    for k, text in enumerate(reversed(lines)):
        axis.annotate(text, (0, 1), (0, 7 + LINE_POINTS * k), xycoords="axes fraction", **small)


def draw_environment(axis: Axes, curves: list[Curve], height: float, what: str = WINDOW) -> None:
    """Draw one environment into an axis of this height in inches."""
    style(axis)
    axis.set_xlabel("environment steps")
    end = max(1.0, *(curve.end() for curve in curves))
    names = labels(curves)
    for k, curve in enumerate(curves):
        curve_line(axis, curve, k)
    if not axis.lines:
        axis.text(0.5, 0.5, "no episode has ended yet", transform=axis.transAxes, ha="center", color=PALE)
    axis.set_xlim(0, end)
    fit_heights(axis, curves)
    if what.startswith(WINDOW):
        threshold(axis, curves)
    finals(axis, curves, names, end, height)


def is_beyond(axis: Axes, curve: Curve) -> bool:
    """Whether a final policy of a curve is outside the axis, where `dot` draws a triangle."""
    low, high = axis.get_ylim()
    finals = [curve.final(greedy) for greedy in (True, False)]
    return any(final is not None and not low <= final[0] <= high for final in finals)


def fitted_lines(text: str) -> list[str]:
    """A text of parts, in lines that fit over the axis; one at least."""
    lines = [""]
    for part in text.split(" · "):
        whole = f"{lines[-1]} · {part}" if lines[-1] else part
        lines = [*lines[:-1], whole] if len(whole) <= LINE_LETTERS else [*lines, part]
    return lines


def curve_line(axis: Axes, curve: Curve, k: int) -> None:
    """A curve, or the mean of several with a band from the lowest to the highest; thin lines where not all have numbers."""
    color = COLORS[k % len(COLORS)]
    for x, y in curve.alone():
        axis.plot(x, y, lw=THIN, marker="x" if len(x) == 1 else None, **look(k))
    if not curve.drawn():
        return
    steps, returns = curve.band()
    if not len(steps):  # there are no steps that all have reached
        return
    mean = returns.mean(0)
    if curve.is_point:
        axis.vlines(steps, returns.min(0), returns.max(0), color=color, alpha=0.3)
    if curve.shows_survivors and (late := steps > curve.early).any() and not late.all():
        first = max(int(late.argmax()) - 1, 0)
        axis.plot(steps[: first + 2], mean[: first + 2], color=color, ls=(0, (1, 2)), lw=1.0, alpha=0.7)
        steps, returns, mean = steps[first + 1 :], returns[:, first + 1 :], mean[first + 1 :]
    if len(returns) > 1:
        axis.fill_between(steps, returns.min(0), returns.max(0), color=color, alpha=0.15, linewidth=0)
    point: dict[str, Any] = {"marker": "x", "ms": 6, "mew": LINE, "clip_on": False} if curve.is_point else {}
    axis.plot(steps, mean, **look(k), **point)


def fit_heights(axis: Axes, curves: list[Curve]) -> None:
    """Limit the axis to curves and to final policies with sampled actions, which it compares.

    A greedy policy often does far better than the policy that learns, and would press the curves together: it is inside where
    that costs a third of the height at most.
    """
    low, high = axis.get_ylim() if axis.lines else (np.inf, -np.inf)
    points = [x for curve in curves for x in curve.final(greedy=False) or () if np.isfinite(x)]
    low, high = min([low, *points]), max([high, *points])
    greedy = [x for curve in curves for x in curve.final() or () if np.isfinite(x)]
    wide = min([low, *greedy]), max([high, *greedy])
    if not axis.lines or wide[1] - wide[0] <= 1.5 * (high - low):
        low, high = wide
    if np.isfinite([low, high]).all():
        room = 0.03 * (high - low) or 1.0
        axis.set_ylim(low - room, high + room)


def finals(axis: Axes, curves: list[Curve], names: list[str], end: float, height: float) -> None:
    """Draw the final evaluations with their intervals, and the names of the curves, to the right of the curves."""
    drawn = [k for k, curve in enumerate(curves) if curve.final() is not None]
    apiece = min(0.02, 0.16 / len(curves))
    for place, k in enumerate(drawn):
        x = end * (1.025 + apiece * place)
        sampled = curves[k].final(greedy=False)
        dot(axis, x, curves[k].final(), k, ring=sampled is not None)
        dot(axis, x, sampled, k, ring=False)
    x = end * (1.03 + apiece * len(drawn))
    if len(curves) == 1:
        final_text(axis, curves[0], x, height)
        return
    ends = [_end(curve) for curve in curves]
    heights = apart(ends, axis.get_ylim(), [label_inches(name) / height for name in names])
    small = {"textcoords": "offset points", "color": PALE, "va": "top", "annotation_clip": False}
    for k, (y, name, curve) in enumerate(zip(heights, names, curves, strict=True)):
        algo, _, settings = name.partition("\n")
        algo = f"{SIGNS[k % len(SIGNS)]} {algo}" if len(curves) > len(COLORS) else algo
        greedy, sampled = curve.final(), curve.final(greedy=False)
        text = algo if greedy is None else f"{algo}  {return_label((sampled or greedy)[0])}"
        text += f" ({return_label(greedy[0])} greedy)" if greedy is not None and sampled is not None else ""
        bold = {"fontsize": TEXT + 0.5, "fontweight": "bold", "va": "center", "clip_on": False}
        axis.text(x, y, text, color=readable(COLORS[k % len(COLORS)]), **bold)
        axis.annotate(settings, (x, y), (0, -5), **small)


def _end(curve: Curve) -> float:
    """The height of a curve's label: that of the final policy, as it is compared with the curve."""
    final = curve.final(greedy=False) or curve.final()
    return last(curve) if final is None else final[0]


def dot(axis: Axes, x: float, final: tuple[float, float, float] | None, k: int, ring: bool) -> None:
    """Draw a final evaluation with its interval; one beyond the axis is an arrow at its edge."""
    if final is None:
        return
    (mean, down, up), (low, high) = final, axis.get_ylim()
    color, mark = COLORS[k % len(COLORS)], marker(k)
    if not low <= mean <= high:
        beyond = {"marker": "^" if mean > high else "v", "ms": 5, "mfc": "white", "mec": color, "mew": 1.1}
        axis.plot([x], [min(max(mean, low), high)], color=color, clip_on=False, zorder=5, ls="none", **beyond)
        return
    axis.errorbar(
        x,
        mean,
        yerr=[[max(mean - max(down, low), 0.0)], [max(min(up, high) - mean, 0.0)]],
        fmt=mark,
        color=color,
        markersize=5,
        markerfacecolor="white" if ring else color,
        markeredgecolor=color if ring else "white",
        markeredgewidth=1.1 if ring else 0.8,
        elinewidth=1.3,
        clip_on=False,
        zorder=5,
    )


def final_text(axis: Axes, curve: Curve, x: float, height: float) -> None:
    """The numbers beside the dots of a single curve."""
    small = {"textcoords": "offset points", "color": PALE, "va": "top", "annotation_clip": False}
    big = {"fontsize": HEAD, "fontweight": "bold", "va": "center", "annotation_clip": False}
    low, high = axis.get_ylim()
    texts = [(final, how) for how in ("greedy", "sampled") if (final := curve.final(how == "greedy")) is not None]
    places = [min(max(final[0], low), high) for final, _ in texts]
    for y, ((mean, down, up), how) in zip(apart(places, (low, high), [0.58 / height] * len(texts)), texts, strict=True):
        what = "95 % interval" if len(curve.evaluations) == 1 else f"range of {noun([curve])}"
        digits = decimals(down, up)
        ends = f"{return_label(down, digits)} to {return_label(up, digits)}"
        if len(curve.evaluations) == 1 and not -np.inf < down < up < np.inf:
            ends = interval_text((down, up))
        axis.annotate(return_label(mean), (x, y), color=COLORS[0], **big)
        axis.annotate(ends, (x, y), (0, -8), **small)
        axis.annotate(f"{what}\nfinal policy, {how}", (x, y), (0, -17), **small)


def label_inches(name: str) -> float:
    """The height that a label of one or of two lines needs."""
    return 0.33 if "\n" in name else 0.19


def apart(heights: list[float], limits: tuple[float, float], shares: list[float]) -> list[float]:
    """The heights, moved apart where labels would overlap: each gets its share of the axis below it, in the same order."""
    low, high = limits
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = dict(enumerate(heights))
    for below, above in pairwise(order):
        moved[above] = max(moved[above], moved[below] + shares[above] * (high - low))
    top = high
    for i in reversed(order):
        moved[i] = min(moved[i], top)
        top = moved[i] - shares[i] * (high - low)
    return [moved[i] for i in range(len(heights))]


def threshold(axis: Axes, curves: list[Curve]) -> None:
    """Draw the return at which Gymnasium calls the environment solved, if it is within the axis."""
    value = curves[0].threshold
    low, high = axis.get_ylim()
    if value is None or not low <= value <= high + 0.15 * (high - low):
        return
    if value > high:
        axis.set_ylim(low, value + 0.03 * (high - low))
    axis.axhline(value, color=PALE, lw=THIN, ls=DASHED, zorder=1)
    axis.annotate(
        f"solved: {return_label(value, 0)}",
        (0, value),
        (6, 0),
        textcoords="offset points",
        color=PALE,
        va="center",
        zorder=1.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
    )


def style(axis: Axes) -> None:
    """Lines of the grid across only, and round numbers at the ticks, in k and M."""
    axis.grid(visible=False, axis="x")
    round_ticks(axis.xaxis)
    round_ticks(axis.yaxis)
