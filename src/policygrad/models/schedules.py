"""Schedules: a hyperparameter as a function of progress, the fraction of training done, in [0, 1]. They hold no state.

Those of Stable-Baselines3 are functions of the progress that remains, 1 − progress: `lambda remaining: 1e-3 * remaining` there
is `linear(1e-3)` here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Schedule = float | Callable[[float], float]

SCHEDULES = ("constant", "linear")
NUMBER = r"([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
TEXT = re.compile(rf"(?:lin_{NUMBER}|linear\(\s*{NUMBER}(?:\s*,\s*{NUMBER})?(?:\s*,\s*{NUMBER})?\s*\))", re.ASCII)


def at(schedule: Schedule, progress: float) -> float:
    """The value of a schedule, or a number, at this progress."""
    return schedule(progress) if callable(schedule) else schedule


@dataclass(frozen=True)
class Linear:
    """Linear from `start` at progress 0 to `end` at progress `share`, and `end` from there on. See `linear`."""

    start: float
    end: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"the share of training in which a schedule moves must be in [0, 1], got {self.share}")

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * min(progress / self.share, 1.0) if self.share else self.end

    def __str__(self) -> str:
        """As files and the command line have it; `read_schedule` is the inverse."""
        more = "" if self.share == 1.0 else f", {self.share!r}"
        return f"linear({self.start!r}, {self.end!r}{more})"


def linear(start: float, end: float = 0.0, share: float = 1.0) -> Linear:
    """A schedule that is linear from `start` at progress 0 to `end` at progress `share`, and `end` from there on."""
    return Linear(start, end, share)


def read_schedule(given: Any) -> Linear | None:
    """A schedule from a `Linear`, from the text `linear(1e-3)`, `linear(1e-3, 1e-4)`, `linear(1e-3, 1e-4, 0.5)` or RL Zoo's
    `lin_1e-3`, or from a `LinearSchedule` of Stable-Baselines3. None for everything else.
    """
    if isinstance(given, Linear):
        return given
    if isinstance(given, str):
        found = TEXT.fullmatch(given.strip())
        return None if found is None else Linear(*(float(x) for x in found.groups() if x is not None))
    numbers = [getattr(given, name, None) for name in ("start", "end", "end_fraction")]
    if callable(given) and all(isinstance(x, float | int) and math.isfinite(x) for x in numbers):
        return Linear(*(float(x) for x in numbers))  # pyright: ignore[reportArgumentType]
    return None


def make_schedule(kind: str, start: Schedule) -> Schedule:
    """A schedule by its name, "constant" or "linear" (down to 0); one that is given already stays what it is."""
    if kind not in SCHEDULES:
        raise ValueError(f"a schedule must be one of {SCHEDULES}, got {kind!r}")
    return linear(start) if kind == "linear" and not callable(start) else start
