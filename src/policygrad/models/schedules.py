"""Schedules: a hyperparameter as a function of progress, the fraction of training done, in [0, 1]. They hold no state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Schedule = float | Callable[[float], float]

SCHEDULES = ("constant", "linear")


def at(schedule: Schedule, progress: float) -> float:
    """The value of a schedule, or a number, at this progress."""
    return schedule(progress) if callable(schedule) else schedule


@dataclass(frozen=True)
class _Linear:
    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


def linear(start: float, end: float = 0.0) -> Callable[[float], float]:
    """A schedule that is linear from `start` at progress 0 to `end` at progress 1."""
    return _Linear(start, end)


@dataclass(frozen=True)
class _Falling:
    start: float
    end: float
    share: float

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * min(progress / self.share, 1.0) if self.share else self.end


def falling(start: float, end: float, share: float) -> Callable[[float], float]:
    """A schedule that is linear from `start` at progress 0 to `end` at progress `share`, and `end` from there on."""
    return _Falling(start, end, share)


def make_schedule(kind: str, start: float) -> Schedule:
    """A schedule by its name: "constant" or "linear" (down to 0)."""
    if kind not in SCHEDULES:
        raise ValueError(f"a schedule must be one of {SCHEDULES}, got {kind!r}")
    return linear(start) if kind == "linear" else start
