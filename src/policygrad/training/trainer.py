"""The training loop: experience from a source, one step of the learner on each record, a row of metrics now and then."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from policygrad.data import Record, Row, Stats, Wants
from policygrad.forms import Form, flag, maybe, table, whole
from policygrad.total import agreed, total

COUNTERS = ("first", "total", "until", "last", "logged", "rows", "stopped")  # the state of a Trainer, the clock aside
METER_EVERY = 2  # rows between measurements of the gradient's noise, which cost as much as the diagnostics


# steps between rows of metrics, and rows of a long training: so that the diagnostics cost a few per cent
LOG_EVERY, MOST_ROWS = 2_000, 100


def rows_every(steps: int) -> int:
    """How many steps lie between the rows of metrics in a training of so many steps."""
    return max(LOG_EVERY, steps // MOST_ROWS)


class ExperienceSource(Protocol):
    """Where records come from: environments, stored trajectories.

    Laws: `collect` returns what is new, and nothing twice; a record obeys its own laws. steps_done counts the valid steps of
    all records so far, episodes_done the episodes that ended in them; returns and lengths are of the last 100 of these.
    observers are shown every record before `collect` returns it. `load_state_dict(state_dict())` leaves nothing to change.
    """

    steps_done: int
    episodes_done: int
    returns: deque[float]
    lengths: deque[int]
    observers: list[Callable[[Record], None]]
    begun: bool  # whether `begin` has been called, or need not be
    progress: float  # of the training, in [0, 1]; set before every record

    def begin(self, actor: Any) -> None:
        """Before the first record: an actor may have to be made ready for the source."""

    def collect(self, actor: Any, wants: Wants) -> Record:
        """New experience of an actor, as much as is wanted."""
        ...

    def restore(self) -> None:
        """After `load_state_dict`: bring what records come from to where it is to be, if that is not left to `collect`."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


class Trainer:
    """The loop of one `learn`: its counters are all its state.

    step(record, progress, diagnose, meter) → Stats is the learner's step, and what is measured around it: diagnostics where
    a row is due, and in every second row the gradient's noise. `wants()` says how much the learner wants to see next, and is
    asked in every iteration.
    """

    def __init__(
        self,
        source: ExperienceSource,
        actor: Any,
        wants: Callable[[], Wants],
        step: Callable[[Record, float, bool, bool], Stats],
    ) -> None:
        self.source, self.actor, self.wants, self.step = source, actor, wants, step
        self.first = self.total = 0  # steps done when this training began, and how many its schedules run for
        self.until = 0  # how many of them it is to take
        self.last = 0  # what the last iteration took, which says whether another one fits
        self.logged: int | None = None  # steps of this training at the last row of metrics
        self.rows = 0
        self.seconds = 0.0  # until the last row of metrics, or the end
        self.ended: list[tuple[float, int]] = []  # return and length of the episodes that ended in the last iteration
        self.stopped = False  # whether a callback has ended this training
        self.leave = False  # whether to break off after this iteration, to go on another time
        # whether the learner's step has begun and the callbacks are not done: no iteration is whole
        self.learning = False

    def begin(self, steps: int, horizon: int | None = None, more: bool = False) -> None:
        """A new training of so many steps; more: so many more of the last one, whose schedules then end later.

        horizon: how many its schedules run for, where more are to follow: the same horizon again goes on with the training that
        has it, until that is reached.
        """
        if horizon is not None and horizon == self.total and 0 < self.done < horizon:
            self.until = self.done + steps
            return
        if more:
            self.total = self.until = self.done + steps
            self.last, self.stopped = 0, False
            return
        self.first, self.total, self.until = self.source.steps_done, horizon or steps, steps
        self.last, self.logged, self.rows, self.seconds, self.stopped = 0, None, 0, 0.0, False

    @property
    def done(self) -> int:
        """Steps of this training so far."""
        return self.source.steps_done - self.first

    @property
    def over(self) -> bool:
        """Whether this training has come to its end: a callback has ended it, or no other iteration fits into its steps."""
        return self.stopped or not (self.last == 0 or self.done + self.last <= self.until)

    def run(self, log_every: int | None, call: Callable[[Row | None], bool | None] | None = None) -> None:
        """Whole iterations, as many as fit into the steps, of a new training at least one; `call` is called after each, and
        False stops. log_every: see `rows_every` for None.
        """
        log_every = log_every or rows_every(self.total)
        started = time.perf_counter() - self.seconds
        if not self.source.begun:
            self.source.begin(self.actor)
        self.leave = False
        while not (self.leave or self.over):
            row = self.iterate(log_every, started)
            stopped = call is not None and call(row) is False
            self.stopped, self.leave = agreed(stopped, self.leave)
            self.learning = False
        self.seconds = time.perf_counter() - started

    def iterate(self, log_every: int, started: float) -> Row | None:
        """One iteration; a row of metrics where one is due."""
        self.learning = False
        wants, before = self.wants(), self.done
        progress = self.source.progress = min(before / self.total, 1.0)
        record = self.source.collect(self.actor, wants)
        self.ended = record.finished
        self.last = self.done - before if wants.episodes is not None else total(math.prod(record.mask.shape))
        diagnose = self.logged is None or self.done - self.logged >= log_every
        meter = diagnose and self.rows % METER_EVERY == 0
        self.learning = True
        stats = self.step(record, progress, diagnose, meter)
        if not diagnose:
            return None
        self.logged, self.rows, self.seconds = self.done, self.rows + 1, time.perf_counter() - started
        return self.row(stats)

    def row(self, stats: Stats) -> Row:
        """A row of metrics.jsonl; numbers that do not exist yet are None."""
        source = self.source
        row: Row = {
            "steps": source.steps_done,
            "episodes": source.episodes_done,
            "return_mean": float(np.mean(source.returns)) if source.returns else None,
            "length_mean": float(np.mean(source.lengths)) if source.lengths else None,
            "seconds": round(self.seconds, 3),
            "steps_per_second": round(self.done / self.seconds, 1),
        }
        return row | {k: v if np.isfinite(v) else None for k, v in stats.items()}

    def state_dict(self) -> dict[str, Any]:
        """The counters, without the clock: the source and the learner keep their own state."""
        return {name: getattr(self, name) for name in COUNTERS}

    def state_form(self) -> Form:
        """Of `state_dict`."""
        return table(dict.fromkeys(COUNTERS, whole()) | {"logged": maybe(whole()), "stopped": flag})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`; nothing else is read from it."""
        for name in COUNTERS:
            setattr(self, name, state[name])


def actor_of(learner: Any) -> Any:
    """Who plays: the learner's own actor, where that is another than its policy."""
    return getattr(learner, "actor", learner.policy)
