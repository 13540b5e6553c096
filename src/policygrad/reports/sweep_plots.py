"""The picture of a sweep, as wide as a column of a paper: main effects, maps of pairs, and the best setting on fresh seeds."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from policygrad.algorithms.config import show
from policygrad.reports.comparison_plots import LINE_HEIGHT, wrapped, write_caption
from policygrad.reports.curves import return_label
from policygrad.reports.sensitivity import Effect
from policygrad.reports.style_plots import COLORS, INK, SMALL, THIN, WIDTHS, Chart, chart, round_ticks, title_of
from policygrad.reports.sweep_words import shrinkage_sentence, verdict
from policygrad.reports.sweeps import SweptSettings

WIDTH = WIDTHS["column"]
EFFECT, MAP, ROW, TOP = 1.0, 1.35, 0.3, 0.5  # inches
EFFECT_FOOT, MAP_FOOT, FRESH_FOOT = 0.42, 0.47, 0.4  # inches below a panel, for its axis and the title below
PER_ROW, MAPS_PER_ROW = 3, 2
CELL = 6.0  # points: the letters in the cells of a map
SHADES = "cividis"  # for every kind of colour vision, and even in grey


def figure(sweep: SweptSettings) -> Chart:
    """Rows of main effects, rows of maps, the fresh seeds, and a caption with the numbers."""
    effects, pairs = sweep.effects, sweep.pairs()
    lines = caption(sweep)
    rows = math.ceil(len(effects) / PER_ROW), math.ceil(len(pairs) / MAPS_PER_ROW)
    foot, fresh = LINE_HEIGHT * len(lines) + 0.08, 3 * ROW + 0.15
    height = TOP + rows[0] * (EFFECT + EFFECT_FOOT) + rows[1] * (MAP + MAP_FOOT) + fresh + FRESH_FOOT + foot
    with chart("column", height) as made:

        def axis(left: float, top: float, wide: float, tall: float, **keywords: Any) -> Axes:
            where = (left / WIDTH, (height - top - tall) / height, wide / WIDTH, tall / height)
            return made.add_axes(where, **keywords)

        top, first = TOP, None
        for k, one in enumerate(effects):
            column, wide = k % PER_ROW, (WIDTH - 0.6) / PER_ROW
            here = axis(0.5 + column * wide, top, wide - 0.12, EFFECT, sharey=first)
            draw_effect(here, one, one.name in sweep.design.logs, labelled=column == 0)
            first = first or here
            here.set_ylim(*limits(sweep))
            top += (EFFECT + EFFECT_FOOT) * (column == PER_ROW - 1 or k == len(effects) - 1)
        for k, pair in enumerate(pairs):
            column = k % MAPS_PER_ROW
            here = axis(0.5 + 1.52 * column, top, 1.05, MAP)
            shown = (draw_points if sweep.design.random else draw_map)(here, sweep, pair)
            if column == MAPS_PER_ROW - 1 or k == len(pairs) - 1:  # the last one of its row
                draw_scale(here, shown)
                top += MAP + MAP_FOOT
        draw_fresh(axis(0.72, top, WIDTH - 0.85, fresh), sweep)
        title_of(made, f"{sweep.design.algo} on {sweep.design.env}")
        write_caption(made, lines)
    return made


def caption(sweep: SweptSettings) -> list[str]:
    """The numbers of the picture, in lines that fit under it."""
    level = f"{100 * sweep.design.level:g} %"
    maps = (
        "Maps: IQM and half the width of its interval; the other values are those of the best setting (frame); "
        "hatched: cannot be told from the best on fresh seeds."
        if not sweep.design.random
        else "Points: IQM of each setting, the best one framed; ×: worse than the fresh runs of the best one."
    )
    texts = [
        verdict(sweep),
        shrinkage_sentence(sweep),
        f"Above: mean score over all other settings, {level} interval. " + (maps if sweep.pairs() else ""),
        f"Below: {len(sweep.design.fresh_seeds)} fresh seeds, IQM and interval; ◇: IQM on the sweep's seeds.",
    ]
    return [line for text in texts for line in wrapped(text, WIDTH)]


def limits(sweep: SweptSettings) -> tuple[float, float]:
    """The scores of all runs, with some room: intervals of few seeds may reach far beyond them."""
    each = [sweep.scores(k) for k in range(len(sweep.settings))]
    low, high = float(np.min(each)), float(np.max(each))
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room


def draw_effect(axis: Axes, one: Effect, log: bool, labelled: bool) -> None:
    """The mean score at each value of a hyperparameter, with its interval."""
    numbers = log and all(x > 0 for x in one.centers)
    x = np.log10(one.centers) if numbers else np.arange(len(one.values))
    rooms = np.nan_to_num(np.subtract(one.highs, one.means))
    axis.errorbar(x, one.means, rooms, color=COLORS[0], marker="o", ms=3, elinewidth=THIN)
    texts = [short(f"{c:.2g}" if "–" in text else text) for c, text in zip(one.centers, one.values, strict=True)]
    kept = range(0, len(x), math.ceil(len(x) / (2 if max(map(len, texts)) > 5 else 4)))
    axis.set_xticks([x[k] for k in kept], [texts[k] for k in kept], fontsize=SMALL)
    axis.margins(x=0.12)
    axis.set_title(one.name, pad=2)
    round_ticks(axis.yaxis, 4)
    axis.tick_params(labelsize=SMALL, labelleft=labelled)
    if labelled:
        axis.set_ylabel("mean score", labelpad=2)


def short(text: str) -> str:
    """A value that fits under a tick."""
    with contextlib.suppress(ValueError):
        number = float(text)
        small = len(text) > 5 and abs(number) < 1e-3
        text = f"{number:.1e}".replace("e-0", "e-").replace(".0e", "e") if small else f"{number:.3g}"
    return text


def draw_scale(axis: Axes, shown: Any) -> None:
    """The colours beside a map; all maps have the same."""
    bar = axis.figure.colorbar(shown, cax=axis.inset_axes((1.04, 0, 0.06, 1)))
    bar.ax.tick_params(labelsize=CELL, pad=1)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def draw_map(axis: Axes, sweep: SweptSettings, pair: tuple[str, str]) -> Any:
    """The scores of two hyperparameters, the others as in the best setting. Returns what has the colours."""
    first, second, places = sweep.map_of(pair)
    found = [[sweep.summaries[k]["iqm"] for k in row] for row in places]
    values = np.array([[cell["value"] for cell in row] for row in found]).T
    low, high = scale(sweep)
    shown = axis.imshow(values, origin="lower", aspect="auto", cmap=SHADES, vmin=low, vmax=high)
    crowded = max(len(first) / 4, len(second) / 4, 1.0)
    for i, j in np.ndindex(len(first), len(second)):
        k, (lower, upper) = places[i][j], found[i][j]["interval"]
        dark = values[j, i] < low + 0.6 * (high - low)
        said = return_label(float(values[j, i]), 0)
        said += f"\n±{return_label((upper - lower) / 2, 0)}" if upper > lower else ""  # equal scores have no interval
        said += "\nNaN" if sweep.settings[k].diverged else ""
        ink = "white" if dark else "black"
        if crowded <= 1.0:
            axis.text(i, j, said, ha="center", va="center", fontsize=CELL, color=ink, linespacing=0.95)
        hatch = "////" if sweep.like_best[k] else None
        axis.add_patch(rectangle(i, j, hatch, ink, framed=False))
        if k == sweep.order[0]:
            axis.add_patch(rectangle(i, j, None, COLORS[1], framed=True))
    axis.grid(visible=False)
    ticks(axis, pair, first, second)
    return shown


def rectangle(i: int, j: int, hatch: str | None, color: str, framed: bool) -> Any:
    """A cell of a map: hatched, or with a frame."""
    from matplotlib.patches import Rectangle

    keywords: dict[str, Any] = {"lw": 1.6, "zorder": 4} if framed else {"lw": 0, "alpha": 0.35}
    return Rectangle((i - 0.5, j - 0.5), 1, 1, fill=False, hatch=hatch, edgecolor=color, **keywords)


def ticks(axis: Axes, pair: tuple[str, str], first: list[Any], second: list[Any]) -> None:
    """The values of both hyperparameters at the cells."""
    every = math.ceil(len(first) / 4), math.ceil(len(second) / 6)
    axis.set_xticks(range(0, len(first), every[0]), [short(show(x)) for x in first[:: every[0]]])
    axis.set_yticks(range(0, len(second), every[1]), [short(show(x)) for x in second[:: every[1]]])
    name_axes(axis, pair)


def name_axes(axis: Axes, pair: tuple[str, str]) -> None:
    """The names of two hyperparameters at the axes of a map."""
    axis.set_xlabel(pair[0], color=INK, labelpad=1)
    axis.set_ylabel(pair[1], color=INK, labelpad=1)
    axis.yaxis.set_label_coords(-0.3, 0.5)
    axis.tick_params(labelsize=SMALL, pad=1.5)
    axis.spines[:].set_visible(False)


def scale(sweep: SweptSettings) -> tuple[float, float]:
    """The ends of the colours: the lowest and the highest IQM of all settings."""
    values = [found["iqm"]["value"] for found in sweep.summaries]
    return min(values), max(max(values), min(values) + 1e-9)


def draw_points(axis: Axes, sweep: SweptSettings, pair: tuple[str, str]) -> Any:
    """The scores of random settings, at their values of two hyperparameters. Returns what has the colours."""
    low, high = scale(sweep)
    places = [positions(sweep, name) for name in pair]
    values = np.array([found["iqm"]["value"] for found in sweep.summaries])
    x, y = (np.array(where) for where, _ in places)
    like = np.array(sweep.like_best)
    colors: dict[str, Any] = {"cmap": SHADES, "vmin": low, "vmax": high}
    shown = axis.scatter(x[like], y[like], c=values[like], s=14, lw=0, **colors)
    axis.scatter(x[~like], y[~like], c=values[~like], s=9, marker="x", lw=0.9, **colors)
    best = sweep.order[0]
    axis.scatter(x[best], y[best], s=30, facecolors="none", edgecolors=COLORS[1], lw=1.4)
    for set_ticks, (_, (at, texts)) in zip((axis.set_xticks, axis.set_yticks), places, strict=True):
        set_ticks(at, texts)
    name_axes(axis, pair)
    return shown


def positions(sweep: SweptSettings, name: str) -> tuple[list[float], tuple[list[float], list[str]]]:
    """Where the values of a hyperparameter are on an axis, and ticks with their texts."""
    tried = [setting.values[name] for setting in sweep.settings]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in tried):
        texts = list(dict.fromkeys(map(show, tried)))
        return [float(texts.index(show(x))) for x in tried], ([float(k) for k in range(len(texts))], texts)
    log = name in sweep.design.logs
    where = [math.log10(x) if log else float(x) for x in tried]
    at = list(np.linspace(min(where), max(where), 3))
    return where, (at, [short(show(float(10**x if log else x))) for x in at])


def draw_fresh(axis: Axes, sweep: SweptSettings) -> None:
    """The best setting, the second best and the preset's own on the fresh seeds: runs, IQM and interval."""
    names = ["best", "second", sweep.design.baseline.removeprefix("the ")]
    for k, setting in enumerate([*sweep.fresh, sweep.own]):
        values, found, color = sweep.fresh_scores(setting), sweep.fresh_summaries[k]["iqm"], COLORS[(1, 0, 2)[k]]
        axis.plot(values, np.full(len(values), -k - 0.22), ls="none", marker="o", ms=2.6, color=color, alpha=0.55, mew=0,
                  clip_on=False)  # fmt: skip
        axis.plot(found["interval"], [-k + 0.12] * 2, color=color, lw=5, alpha=0.3, solid_capstyle="butt")
        axis.plot([found["value"]] * 2, [-k - 0.02, -k + 0.26], color=color, lw=2)
        if k < len(sweep.fresh):
            before = sweep.summaries[sweep.order[k]]["iqm"]["value"]
            axis.plot(before, -k + 0.12, marker="D", ms=3.5, mfc="none", color=color, mew=1, ls="none", clip_on=False)
    axis.set_ylim(-2.5, 0.5)
    axis.set_yticks(range(0, -3, -1), names)
    round_ticks(axis.xaxis, 4)
    axis.set_xlabel("score: mean return of the final policy", labelpad=1)
