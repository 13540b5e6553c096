"""How a score depends on a hyperparameter: its main effect, and how far it can be moved.

**Main effect.** In a grid the seeds are the independent units, because all settings share them: for each value and seed, the
scores of all settings that have this value are averaged, and the interval is Student's t over the seeds. The means of many
runs are close to normal, so that it holds for few seeds, too. In a random sweep the settings are the units: each value, or
each of a few equally full bins of a range, has the mean of its settings, with Student's t over them.

The best and the worst value differ where the interval of their difference excludes 0. It is wider than that of one pair,
because they are the most different of all pairs (Bonferroni).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from policygrad.algorithms.config import show

BINS = 4  # of a range in a random sweep, at most
BIN_SETTINGS = 3  # in each of them, at least
FEW = 5  # different values that are no bins
NARROW = 3.0  # a hyperparameter that can be moved by less than this factor is delicate


@dataclass(frozen=True)
class Effect:
    """The main effect of a hyperparameter.

    values: as text, in order; centers: as numbers, NaN where they are none; means, lows, highs: of the score, averaged over
    the other hyperparameters, with the interval, NaN where one unit has none. best, worst: places in `values`; difference,
    low, high: best minus worst, with its interval.
    """

    name: str
    values: list[str]
    centers: list[float]
    means: list[float]
    lows: list[float]
    highs: list[float]
    best: int
    worst: int
    difference: float
    low: float
    high: float

    @property
    def matters(self) -> bool:
        """Whether the best and the worst value surely differ."""
        return self.low > 0


@dataclass(frozen=True)
class Width:
    """How far a number can be moved, the others as in the best setting, and the score stays within the best one's interval.

    values: tried, from low to high; low, high: the values around the best that are good without a gap; below, above: the next
    ones tried, which are not good; None where the good values reach the end of what was tried. factor: high / low, None
    where the values do not span a factor of 3 above 0, so that factors mean nothing.
    """

    name: str
    values: list[float]
    low: float
    high: float
    below: float | None
    above: float | None
    factor: float | None

    @property
    def narrow(self) -> bool:
        """Whether it can be moved by less than a factor of 3, and both sides were tried."""
        return self.factor is not None and self.factor < NARROW and None not in (self.below, self.above)


def effect(name: str, tried: Sequence[Any], scores: np.ndarray, random: bool, level: float) -> Effect:
    """The main effect. tried (settings,): the value of each setting; scores (settings, seeds)."""
    groups = binned(tried) if random else by_value(tried)
    units = [scores[k].mean(1) if random else scores[k].mean(0) for k in (members for _, _, members in groups)]
    means = [float(x.mean()) for x in units]
    rooms = [t_room(x, 1 - level) for x in units]
    best, worst = int(np.argmax(means)), int(np.argmin(means))
    share = (1 - level) / max(1, math.comb(len(groups), 2))
    low, high = contrast(units[best], units[worst], share, paired=not random)
    return Effect(
        name,
        [text for text, _, _ in groups],
        [center for _, center, _ in groups],
        means,
        [m - room for m, room in zip(means, rooms, strict=True)],
        [m + room for m, room in zip(means, rooms, strict=True)],
        best,
        worst,
        means[best] - means[worst],
        low,
        high,
    )


def by_value(tried: Sequence[Any]) -> list[tuple[str, float, list[int]]]:
    """The settings of each value: its text, its number, and the places of its settings. Numbers from low to high."""
    found: dict[str, list[int]] = {}
    for k, value in enumerate(tried):
        found.setdefault(json.dumps(value), []).append(k)
    groups = [(brief(tried[members[0]]), as_number(tried[members[0]]), members) for members in found.values()]
    return sorted(groups, key=lambda group: group[1]) if all(math.isfinite(g[1]) for g in groups) else groups


def binned(tried: Sequence[Any]) -> list[tuple[str, float, list[int]]]:
    """The settings of each value, or, where there are many, of a few bins that are equally full."""
    groups = by_value(tried)
    count = min(BINS, len(tried) // BIN_SETTINGS)
    if len(groups) <= FEW or not all(math.isfinite(center) for _, center, _ in groups):
        return groups
    numbers = np.array([as_number(value) for value in tried])
    made = []
    for members in np.array_split(np.argsort(numbers, kind="stable"), max(count, 2)):
        inside = numbers[members]
        text = f"{brief(float(inside[0]))}–{brief(float(inside[-1]))}"
        made.append((text, float(np.median(inside)), [int(k) for k in members]))
    return made


def brief(value: Any) -> str:
    """A value as text, a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else show(value)


def as_number(value: Any) -> float:
    """A value as a number, NaN for others."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def t_room(units: np.ndarray, share: float) -> float:
    """Half the width of Student's t interval of a mean, which misses it with probability `share`; NaN for one unit."""
    if len(units) < 2:
        return math.nan
    return float(stats.t.isf(share / 2, len(units) - 1) * units.std(ddof=1) / math.sqrt(len(units)))


def contrast(one: np.ndarray, other: np.ndarray, share: float, paired: bool) -> tuple[float, float]:
    """The interval of the difference of two means: Student's t over pairs, or Welch's."""
    gap = float(one.mean() - other.mean())
    if paired:
        room = t_room(one - other, share)
        return gap - room, gap + room
    if min(len(one), len(other)) < 2:
        return math.nan, math.nan
    a, b = one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)
    if a + b == 0:
        return gap, gap
    freedom = (a + b) ** 2 / (a**2 / (len(one) - 1) + b**2 / (len(other) - 1))
    room = float(stats.t.isf(share / 2, freedom)) * math.sqrt(a + b)
    return gap - room, gap + room


def width(name: str, good: Mapping[float, bool], best: float, log: bool) -> Width:
    """How far a number can be moved. good: of each value that was tried, whether its score is good; best: where one begins."""
    values = sorted(good)
    low = high = values.index(best)
    while low > 0 and good[values[low - 1]]:
        low -= 1
    while high < len(values) - 1 and good[values[high + 1]]:
        high += 1
    factors = values[0] > 0 and (log or values[-1] / values[0] >= NARROW)
    return Width(
        name,
        values,
        values[low],
        values[high],
        values[low - 1] if low > 0 else None,
        values[high + 1] if high < len(values) - 1 else None,
        values[high] / values[low] if factors else None,
    )
