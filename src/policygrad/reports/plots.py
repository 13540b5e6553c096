"""Learning curves, in files and notebooks: matplotlib's Figure objects and the Agg backend, no pyplot, no global state."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from policygrad.algorithms.config import show
from policygrad.files import write_atomically
from policygrad.reports.columns import as_number, steps_text, title
from policygrad.stored.directory import RunDirectory, RunError, environment, find_run, runs_at

if TYPE_CHECKING:
    from policygrad.data import Row

By = Literal["config", "algo"]

HEAD_INCHES = 1.5  # title, subtitle and the steps axis
COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#ca8a04", "#475569")
# one a round through the colours
LINES, MARKERS, SIGNS = ("-", (0, (4, 2)), (0, (1, 1.2))), ("o", "s", "D"), ("●", "■", "◆")
INK, PALE, GRID = "#1e293b", "#64748b", "#e2e8f0"
WINDOW = "mean return of the last 100 episodes"


@dataclass
class Curve:
    """Runs of one configuration: their curves, one per seed, and the greedy evaluations of their final policies.

    By algorithm: runs of one algorithm, whatever its settings; config is then what they have in common. Runs that did not
    get as far as an evaluation are a Curve of their own: they would cut the others' short.
    """

    algo: str
    config: dict[str, Any]
    seeds: list[int]
    curves: list[tuple[np.ndarray, np.ndarray]]  # steps, mean return
    evaluations: list[dict[str, Any]]
    threshold: float | None
    mixed: bool = False  # whether they differ in more than the seed

    def band(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps (K,) that all seeds have reached, and every seed's mean return there (seeds, K)."""
        drawn = [(x, y) for x, y in self.curves if len(x)]
        first, last = max(x[0] for x, _ in drawn), min(x[-1] for x, _ in drawn)
        steps = np.unique(np.concatenate([x[(x >= first) & (x <= last)] for x, _ in drawn]))
        return steps, np.array([np.interp(steps, x, y) for x, y in drawn])

    @property
    def finished(self) -> bool:
        """Whether the final policies were evaluated."""
        return bool(self.evaluations)

    def end(self) -> float:
        """The end of the steps axis: the planned steps, or those reached if they are far fewer."""
        last, asked = (
            max((float(x[-1]) for x, _ in self.curves if len(x)), default=1.0),
            as_number(self.config.get("steps")),
        )
        return float(asked) if 0.9 * asked <= last <= asked else last

    def final(self) -> tuple[float, float, float] | None:
        """The final greedy evaluation and its 95 % interval; of several seeds, their mean and the lowest and highest."""
        if not self.evaluations:
            return None
        means = [float(e["mean"]) for e in self.evaluations]
        low, high = self.evaluations[0]["ci95"] if len(means) == 1 else (min(means), max(means))
        return float(np.mean(means)), float(low), float(high)


class Chart(Figure):
    """A figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def write(self, out: Path) -> Path:
        """Write it as png, pdf or svg, whole or not at all, in a directory that is made if it is not there."""
        buffer = io.BytesIO()
        self.savefig(buffer, format=out.suffix[1:] or None)
        write_atomically(out, buffer.getvalue())
        return out


def plot(runs: RunDirectory | str | Path | Sequence[RunDirectory | str | Path] = "latest", by: By = "config") -> Chart:
    """Draw the learning curves of runs, one panel per environment, as a Figure: `plot("latest")` in a notebook shows it.

    runs: what `train` returned, directories of runs, or their names as on the command line. by="config": runs that differ
    in the seed alone are one curve, their mean and a band from the lowest to the highest; "algo": runs of one algorithm.
    """
    several = [runs] if isinstance(runs, RunDirectory | str | Path) else list(runs)
    chosen: dict[Path, RunDirectory] = {}
    for run in several:
        path = run.path if isinstance(run, RunDirectory) else find_run(str(run))
        chosen |= {one.path.resolve(): one for one in runs_at(path)}
    return curves_figure(read_curves(chosen.values(), by))


def plot_runs(runs: Sequence[RunDirectory], out: Path, by: By = "config") -> Path:
    """Draw the learning curves of runs, one panel per environment, into a file. Raises RunError for unreadable runs."""
    return curves_figure(read_curves(runs, by)).write(out)


def curves_figure(panels: dict[str, list[Curve]]) -> Chart:
    """The figure, high enough for the labels of the panel with the most curves. Raises RunError if there is nothing to draw."""
    if not panels:
        raise RunError("there are no runs to draw")
    rows = max(sum(map(label_inches, labels(curves))) for curves in panels.values())
    height = max(4.6, rows + HEAD_INCHES)
    figure = Chart(figsize=(1.5 + 6.5 * len(panels), height), dpi=160, facecolor="white")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (env, curves) in zip(axes, panels.items(), strict=True):
        draw_environment(axis, env, curves, height - HEAD_INCHES)
    figure.tight_layout(w_pad=3.0)
    return figure


def read_curves(runs: Iterable[RunDirectory], by: By = "config") -> dict[str, list[Curve]]:
    """Curves by environment; runs whose configurations, or whose algorithms, are equal share one."""
    if by not in ("config", "algo"):
        raise ValueError(f"by must be 'config' or 'algo', got {by!r}")
    panels: dict[str, dict[str, Curve]] = {}
    for run in runs:
        config = run.config()
        evaluation = run.evaluation()
        settings = config["config"] if by == "config" else None
        key = json.dumps([config["algo"], settings, evaluation is None], sort_keys=True)
        group = panels.setdefault(environment(config), {})
        new = Curve(config["algo"], config["config"], [], [], [], config.get("reward_threshold"))
        curve = group.setdefault(key, new)
        if config["config"] != curve.config:
            curve.mixed = True
            curve.config = {k: v for k, v in curve.config.items() if k in config["config"] and config["config"][k] == v}
        curve.seeds.append(config["seed"])
        curve.curves.append(points(run.metrics()))
        if evaluation is not None:
            curve.evaluations.append({k: evaluation["greedy"][k] for k in ("mean", "ci95")})
    return {env: list(group.values()) for env, group in panels.items()}


def points(rows: Iterable[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and mean returns (K,), from the first finished episode on."""
    drawn = np.array([(row["steps"], as_number(row.get("return_mean"))) for row in rows], float).reshape(-1, 2)
    steps, returns = drawn[np.isfinite(drawn[:, 1])].T
    return steps, returns


def draw_environment(axis: Axes, env: str, curves: list[Curve], height: float) -> None:
    """Draw one environment into an axis of this height in inches."""
    style(axis)
    algos = {curve.algo for curve in curves}
    name = f"{title(curves[0].algo)} on {env}" if len(algos) == 1 else env
    axis.set_title(name, loc="left", fontsize=14, fontweight="bold", color=INK, pad=38, parse_math=False)
    small = {"textcoords": "offset points", "fontsize": 9.5, "color": PALE, "va": "bottom"}
    axis.annotate(f"{WINDOW} · {seeds_label(curves)}", (0, 1), (0, 22), xycoords="axes fraction", **small)
    axis.annotate(marks_text(curves), (0, 1), (0, 9), xycoords="axes fraction", **small)
    axis.set_xlabel("environment steps", fontsize=9.5, color=PALE)
    end = max(1.0, *(curve.end() for curve in curves))
    names = labels(curves)
    for k, curve in enumerate(curves):
        curve_line(axis, curve, COLORS[k % len(COLORS)], LINES[k // len(COLORS) % len(LINES)])
    if not axis.lines:
        axis.text(0.5, 0.5, "no episode has ended yet", transform=axis.transAxes, ha="center", color=PALE)
    axis.set_xlim(0, end)
    finals(axis, curves, names, end, height)
    threshold(axis, curves)


def curve_line(axis: Axes, curve: Curve, color: str, dashes: Any) -> None:
    """A curve, or the mean of several with a band from the lowest to the highest."""
    if not any(len(x) for x, _ in curve.curves):
        return
    steps, returns = curve.band()
    if not len(steps):  # there are no steps that all have reached
        for x, y in curve.curves:
            axis.plot(x, y, color=color, ls=dashes, lw=1.2)
        return
    mean = returns.mean(0)
    if len(returns) > 1:
        axis.fill_between(steps, returns.min(0), returns.max(0), color=color, alpha=0.15, linewidth=0)
    axis.plot(steps, mean, color=color, ls=dashes, lw=2.2, solid_capstyle="round", solid_joinstyle="round")


def finals(axis: Axes, curves: list[Curve], names: list[str], end: float, height: float) -> None:
    """Draw the final greedy evaluations with their intervals, and the names of the curves, to the right of the curves."""
    dots = [(k, final) for k, curve in enumerate(curves) if (final := curve.final()) is not None]
    apiece = min(0.02, 0.16 / len(curves))
    for place, (k, (mean, low, high)) in enumerate(dots):
        axis.errorbar(
            end * (1.025 + apiece * place),
            mean,
            yerr=[[max(mean - low, 0.0)], [max(high - mean, 0.0)]],
            fmt=MARKERS[k // len(COLORS) % len(MARKERS)],
            color=COLORS[k % len(COLORS)],
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=1.0,
            elinewidth=1.8,
            capsize=3,
            clip_on=False,
            zorder=5,
        )
    x = end * (1.03 + apiece * len(dots))
    small = {"textcoords": "offset points", "fontsize": 8.5, "color": PALE, "va": "top", "annotation_clip": False}
    if len(curves) == 1:
        for _, (mean, low, high) in dots:
            what = "95 % interval" if len(curves[0].evaluations) == 1 else f"range of {noun(curves)}"
            big = {"fontsize": 13, "fontweight": "bold", "va": "center", "annotation_clip": False}
            axis.annotate(return_label(mean), (x, mean), color=COLORS[0], **big)
            axis.annotate(f"{return_label(low)} to {return_label(high)}", (x, mean), (0, -11), **small)
            axis.annotate(f"{what}\nfinal policy, greedy", (x, mean), (0, -23), **small)
        return
    ends = [final[0] if (final := curve.final()) is not None else last(curve) for curve in curves]
    heights = apart(ends, axis.get_ylim(), [label_inches(name) / height for name in names])
    for k, (y, name, curve) in enumerate(zip(heights, names, curves, strict=True)):
        algo, _, settings = name.partition("\n")
        final = curve.final()
        algo = f"{SIGNS[k // len(COLORS) % len(SIGNS)]} {algo}" if len(curves) > len(COLORS) else algo
        text = algo if final is None else f"{algo}  {return_label(final[0])}"
        bold = {"fontsize": 9.5, "fontweight": "bold", "va": "center", "clip_on": False, "parse_math": False}
        axis.text(x, y, text, color=COLORS[k % len(COLORS)], **bold)
        axis.annotate(settings, (x, y), (0, -7), parse_math=False, **small)


def last(curve: Curve) -> float:
    """The end of a curve, for its label."""
    drawn = [(x[-1], y[-1]) for x, y in curve.curves if len(x)]
    if not drawn:
        return 0.0
    steps, returns = curve.band()
    return float(returns.mean(0)[-1]) if len(steps) else float(max(drawn)[1])


def label_inches(name: str) -> float:
    """The height that a label of one or of two lines needs."""
    return 0.42 if "\n" in name else 0.24


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
    if value is None or not low - 0.3 * (high - low) <= value <= high + 0.3 * (high - low):
        return
    axis.axhline(value, color=PALE, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    axis.annotate(
        f"solved: {return_label(value, 0)}",
        (0, value),
        (6, 0),
        textcoords="offset points",
        fontsize=8.5,
        color=PALE,
        va="center",
        zorder=1.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def style(axis: Axes) -> None:
    """Light grid, no box, ticks in k and M."""
    light_axis(axis, "y")
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: steps_text(x)))
    axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}".replace("-", "−")))


def light_axis(axis: Axes, grid: Literal["both", "y"]) -> None:
    """Light grid, no box, pale numbers."""
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(GRID)
    axis.grid(axis=grid, color=GRID, linewidth=0.9)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, labelsize=9.5, labelcolor=PALE, pad=6)


def return_label(value: float, digits: int = 1) -> str:
    """A return: separators for thousands and a real minus."""
    return f"{value:,.{digits}f}".replace("-", "−")


def noun(curves: list[Curve]) -> str:
    """The noun for the members of a curve."""
    return "runs" if any(curve.mixed for curve in curves) else "seeds"


def seeds_label(curves: list[Curve]) -> str:
    """The number of seeds, or the seed."""
    what = noun(curves)
    counts = sorted({len(curve.seeds) for curve in curves})
    if len(curves) == 1:
        left_off = "" if curves[0].finished else ", unfinished"
        return (f"seed {curves[0].seeds[0]}" if counts == [1] else f"{counts[0]} {what}") + left_off
    each = f"{counts[0]} {what if counts[0] > 1 else what[:-1]} each"
    return each if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {what} each"


def marks_text(curves: list[Curve]) -> str:
    """The text that explains lines, bands, dots and bars."""
    several, dots = any(len(c.seeds) > 1 for c in curves), any(c.finished for c in curves)
    many, one = any(len(c.evaluations) > 1 for c in curves), any(len(c.evaluations) == 1 for c in curves)
    what = noun(curves)
    parts = [f"line: mean of {what}, band: their range"] if several else []
    parts += ["dot: final policy, greedy"] if dots else []
    bars = [f"range of {what}"] * many + [f"95 % interval{f' (of one {what[:-1]})' * many}"] * one
    parts += [f"bar: {' or '.join(bars)}"] if bars else []
    return " · ".join(parts)


def labels(curves: list[Curve]) -> list[str]:
    """The labels of curves: the algorithm, and on a second line at most two settings that differ.

    Curves of an algorithm whatever its settings have no second line.
    """
    names = []
    for curve in curves:
        same = [c.config for c in curves if c.algo == curve.algo and not any(c.mixed for c in curves)]
        differs = [k for k in curve.config if any(c.get(k) != curve.config[k] for c in same)]
        differs.sort(key=lambda k: NAMED_LAST.index(k) if k in NAMED_LAST else -1)
        settings = ", ".join(f"{k} {show(curve.config[k])}" for k in differs[:2])
        more = ", …" if len(differs) > 2 else ""
        name = title(curve.algo) + ("" if curve.finished else ", unfinished")
        names.append(name + (f"\n{settings}{more}" if settings else ""))
    return names


NAMED_LAST = ("num_envs", "steps")  # what says least about a run
