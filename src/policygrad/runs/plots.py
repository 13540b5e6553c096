"""Learning curves, as files: matplotlib's Figure objects and the Agg backend, no pyplot, no global state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from policygrad.runs.directory import RunDirectory, RunError

FORMATS = (".png", ".pdf", ".svg")
COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#ca8a04", "#475569")
INK, PALE, GRID = "#1e293b", "#64748b", "#e2e8f0"
WINDOW = "mean return of the last 100 episodes"


@dataclass
class Curve:
    """Runs of one configuration: their curves, one a seed, and the greedy evaluations of their final policies."""

    algo: str
    config: dict[str, Any]
    seeds: list[int]
    curves: list[tuple[np.ndarray, np.ndarray]]  # steps, mean return
    evaluations: list[dict[str, Any]]
    threshold: float | None

    def band(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps (K,) that all seeds have reached, and every seed's mean return there (seeds, K)."""
        drawn = [(x, y) for x, y in self.curves if len(x)]
        first, last = max(x[0] for x, _ in drawn), min(x[-1] for x, _ in drawn)
        steps = np.unique(np.concatenate([x[(x >= first) & (x <= last)] for x, _ in drawn]))
        return steps, np.array([np.interp(steps, x, y) for x, y in drawn])

    def end(self) -> float:
        """Where the steps axis ends: at the steps asked for, or where training got to if that is far from it."""
        last, asked = max((float(x[-1]) for x, _ in self.curves if len(x)), default=1.0), self.config.get("steps") or 1
        return float(asked) if 0.9 * asked <= last <= asked else last

    def final(self) -> tuple[float, float, float] | None:
        """The final greedy evaluation and its 95 % interval; of several seeds, their mean and the lowest and highest."""
        if not self.evaluations:
            return None
        means = [float(e["mean"]) for e in self.evaluations]
        low, high = self.evaluations[0]["ci95"] if len(means) == 1 else (min(means), max(means))
        return float(np.mean(means)), float(low), float(high)


def plot_runs(runs: Sequence[RunDirectory], out: Path) -> Path:
    """Draw the runs' learning curves, a panel an environment, and write the figure. Raises RunError for unreadable runs."""
    panels = read(runs)
    figure = Figure(figsize=(1.5 + 6.5 * len(panels), 4.6), dpi=160, facecolor="white")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (env, curves) in zip(axes, panels.items(), strict=True):
        draw(axis, env, curves)
    figure.tight_layout(w_pad=3.0)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def read(runs: Iterable[RunDirectory]) -> dict[str, list[Curve]]:
    """Curves by environment; runs whose configurations are equal share one."""
    panels: dict[str, dict[str, Curve]] = {}
    for run in runs:
        config = run.config()
        key = json.dumps([config["algo"], config["config"]], sort_keys=True)
        group = panels.setdefault(str(config["env"]), {})
        curve = group.setdefault(
            key, Curve(config["algo"], config["config"], [], [], [], config.get("reward_threshold"))
        )
        points = [(row["steps"], row["return_mean"]) for row in run.metrics() if row.get("return_mean") is not None]
        curve.seeds.append(config["seed"])
        curve.curves.append(tuple(np.array(points, float).reshape(-1, 2).T))  # pyright: ignore[reportArgumentType]
        evaluation = run.evaluation()
        if evaluation is not None:
            try:
                curve.evaluations.append({k: evaluation["greedy"][k] for k in ("mean", "ci95")})
            except (KeyError, TypeError) as error:
                raise RunError(f"{run.evaluation_file} is not an evaluation: it needs greedy, mean and ci95") from error
    return {env: list(group.values()) for env, group in panels.items()}


def draw(axis: Axes, env: str, curves: list[Curve]) -> None:
    """One environment."""
    style(axis)
    algos, alone = {curve.algo for curve in curves}, len(curves) == 1
    axis.set_title(
        f"{algo_title(curves[0].algo)} on {env}" if len(algos) == 1 else env,
        loc="left",
        fontsize=14,
        fontweight="bold",
        color=INK,
        pad=24,
    )
    subtitle = f"{WINDOW} · {seeds_text(curves[0].seeds)}" if alone else f"{WINDOW} · dots: final policy, greedy"
    axis.text(0, 1.03, subtitle, transform=axis.transAxes, fontsize=9.5, color=PALE, va="bottom")
    axis.set_xlabel("environment steps", fontsize=9.5, color=PALE)
    end = max(curve.end() for curve in curves)
    names = labels(curves)
    for curve, name, color in zip(curves, names, cycle(COLORS), strict=False):
        line(axis, curve, "" if alone or curve.evaluations else name, color)
    if not axis.lines:
        axis.text(0.5, 0.5, "no episode has ended yet", transform=axis.transAxes, ha="center", color=PALE)
    axis.set_xlim(0, end)
    finals(axis, curves, names, end)
    threshold(axis, curves)


def line(axis: Axes, curve: Curve, name: str, color: str) -> None:
    """A curve, or the mean of several with a band from the lowest to the highest; its name at its end."""
    if not any(len(x) for x, _ in curve.curves):
        return
    steps, returns = curve.band()
    mean = returns.mean(0)
    if len(returns) > 1:
        axis.fill_between(steps, returns.min(0), returns.max(0), color=color, alpha=0.15, linewidth=0)
    axis.plot(steps, mean, color=color, linewidth=2.2, solid_capstyle="round", solid_joinstyle="round")
    if name:
        at = (float(steps[-1]), float(mean[-1]))
        axis.annotate(name, at, (5, 0), textcoords="offset points", color=color, fontsize=9.5, fontweight="bold")


def finals(axis: Axes, curves: list[Curve], names: list[str], end: float) -> None:
    """The final greedy evaluations, to the right of the curves, each with its interval and its name."""
    rows = []
    for name, curve, color in zip(names, curves, cycle(COLORS), strict=False):
        final = curve.final()
        if final is None:
            continue
        mean, low, high = final
        axis.errorbar(
            end * (1.025 + 0.02 * len(rows)),
            mean,
            yerr=[[max(mean - low, 0.0)], [max(high - mean, 0.0)]],
            fmt="o",
            color=color,
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=1.0,
            elinewidth=1.8,
            capsize=3,
            clip_on=False,
            zorder=5,
        )
        rows.append((mean, name, color))
    x = end * (1.03 + 0.02 * len(rows))
    if len(curves) > 1:
        gap = 0.12 if any("\n" in name for name in names) else 0.065  # of the height: a label of two lines, or of one
        heights = apart([mean for mean, _, _ in rows], axis.get_ylim(), gap)
        for y, (mean, name, color) in zip(heights, rows, strict=True):
            algo, _, settings = name.partition("\n")
            text = f"{algo}  {plain(mean)}"
            axis.text(x, y, text, color=color, fontsize=9.5, fontweight="bold", va="center", clip_on=False)
            small = {"textcoords": "offset points", "fontsize": 8.5, "color": PALE, "annotation_clip": False}
            axis.annotate(settings, (x, y), (0, -7), va="top", **small)
        return
    for mean, _, color in rows:
        _, low, high = curves[0].final() or (0.0, 0.0, 0.0)
        what = ("95 % interval" if len(curves[0].evaluations) == 1 else "range of seeds") + "\nfinal policy, greedy"
        small = {"textcoords": "offset points", "fontsize": 8.5, "color": PALE, "annotation_clip": False}
        axis.annotate(
            plain(mean), (x, mean), color=color, fontsize=13, fontweight="bold", va="center", annotation_clip=False
        )
        axis.annotate(f"{plain(low)} to {plain(high)}", (x, mean), (0, -11), va="top", **small)
        axis.annotate(what, (x, mean), (0, -23), va="top", **small)


def apart(heights: list[float], limits: tuple[float, float], share: float = 0.065) -> list[float]:
    """The heights, moved apart to at least a share of the axis where labels would overlap, in the order they came."""
    low, high = limits
    gap = (high - low) * share
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = dict(enumerate(heights))
    for below, above in pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    top = high
    for i in reversed(order):
        moved[i] = min(moved[i], top)
        top = moved[i] - gap
    return [moved[i] for i in range(len(heights))]


def threshold(axis: Axes, curves: list[Curve]) -> None:
    """The return at which Gymnasium calls the environment solved, where that is in sight."""
    value = curves[0].threshold
    low, high = axis.get_ylim()
    if value is None or not low - 0.3 * (high - low) <= value <= high + 0.3 * (high - low):
        return
    axis.axhline(value, color=PALE, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    axis.annotate(
        f"solved: {plain(value, 0)}",
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
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(GRID)
    axis.grid(axis="y", color=GRID, linewidth=0.9)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, labelsize=9.5, labelcolor=PALE, pad=6)
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}".replace("-", "−")))


def short(steps: float) -> str:
    """Steps as people say them: 500, 20k, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(steps) >= size:
            return f"{steps / size:g}{unit}"
    return f"{steps:g}"


def plain(value: float, digits: int = 1) -> str:
    """A return: separators for thousands and a real minus."""
    return f"{value:,.{digits}f}".replace("-", "−")


def algo_title(algo: str) -> str:
    """PPO, A2C, REINFORCE: as papers write them."""
    return algo.upper().replace("_", "-")


def seeds_text(seeds: list[int]) -> str:
    """Which seeds."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"{len(seeds)} seeds, mean and range"


def labels(curves: list[Curve]) -> list[str]:
    """Algorithms, and on a second line what tells runs of the same algorithm apart."""
    names = []
    for curve in curves:
        same = [c.config for c in curves if c.algo == curve.algo]
        differs = [k for k in curve.config if any(c.get(k) != curve.config[k] for c in same)]
        settings = ", ".join(f"{k} {curve.config[k]}" for k in differs[:2]) + (", …" if len(differs) > 2 else "")
        names.append(algo_title(curve.algo) + (f"\n{settings}" if settings else ""))
    return names
