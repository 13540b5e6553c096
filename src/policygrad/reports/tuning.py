"""What a search for hyperparameters found, as users get it: trials, the check of the best one on fresh seeds, and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from policygrad.algorithms.config import show
from policygrad.reports.curves import return_label

HEADER = ("trial", "value", "best", "state", "hyperparameters")
SHOWN = 10  # trials in the table


@dataclass(frozen=True)
class TrialRow:
    """What is known of a trial.

    state: finished, pruned, failed or running. value: the mean of the scores, None unless finished. params: the hyperparameters
    that were proposed. scores: per seed, the mean return of the final policy. curve: the value at each rung, None where no
    episode had ended (see `policygrad.training.pruning`). reason: of a failure.
    """

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    scores: list[float]
    curve: list[float | None]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: value for name, value in vars(self).items() if value not in (None, "", [])}


@dataclass(frozen=True)
class Check:
    """The best trial's hyperparameters against the standing ones, on fresh seeds.

    tuned, standing: scores of their runs, in the order of the seeds. better: 1 if the tuned ones are better, −1 if the standing
    ones are, 0 if the runs cannot tell. sentence: the verdict of `policygrad.compare`. difference: its numbers. failed: why
    there are no numbers.
    """

    seeds: list[int]
    tuned: list[float] = field(default_factory=list)
    standing: list[float] = field(default_factory=list)
    better: int = 0
    sentence: str = ""
    difference: dict[str, Any] = field(default_factory=dict)
    failed: str = ""


@dataclass(frozen=True)
class Tuning:
    """What `policygrad.tune` returns. `print(found)` shows the best trials and the verdict.

    request: what was searched for. trials: all of them, in order. standing: the hyperparameters that stand without the search.
    importances: per hyperparameter, its share in what separates the best trials from the others; empty for few trials. check:
    None if there was none. place: the directory, with tune.json, tune.png and best.toml. running: numbers of trials that
    another process works on.
    """

    request: Mapping[str, Any]
    trials: Sequence[TrialRow]
    standing: Mapping[str, Any]
    place: Path
    importances: Mapping[str, float] = field(default_factory=dict)
    check: Check | None = None
    running: Sequence[int] = ()
    version: str = ""

    def __str__(self) -> str:
        lines = ["  ".join(row) for row in [HEADER, *self.table()]]
        return "\n".join([*lines, "", self.verdict])

    @cached_property
    def best(self) -> TrialRow | None:
        """The finished trial of the highest value, the first of equal ones; None if none has finished."""
        finished = [row for row in self.trials if row.value is not None]
        return max(finished, key=lambda row: (row.value, -row.number)) if finished else None

    @property
    def params(self) -> dict[str, Any]:
        """The hyperparameters of the best trial. Raises ValueError if no trial has finished."""
        if self.best is None:
            raise ValueError("no trial has finished, so there are no best hyperparameters")
        return dict(self.best.params)

    @property
    def preset(self) -> Path:
        """The preset file of the best trial, for `policygrad train --preset FILE` and `preset=FILE`."""
        return self.place / "best.toml"

    @property
    def is_standing(self) -> bool:
        """Whether the best trial has the hyperparameters that stood before."""
        return self.best is not None and all(self.standing.get(k) == value for k, value in self.best.params.items())

    @property
    def shrinkage(self) -> float | None:
        """The value of the best trial in the search minus its mean on fresh seeds; None without a check.

        The best of many trials is partly the luckiest one, so that it is usually positive.
        """
        if self.best is None or self.best.value is None or self.check is None or not self.check.tuned:
            return None
        return self.best.value - float(np.mean(self.check.tuned))

    @property
    def verdict(self) -> str:
        """What is known after the search, in a few sentences."""
        return verdict(self)

    def table(self, most: int = SHOWN) -> list[list[str]]:
        """The best finished trials, best first, as rows of `HEADER`."""
        finished = sorted((row for row in self.trials if row.value is not None), key=lambda row: -(row.value or 0.0))
        return [trial_cells(row, self.best) for row in finished[:most]]

    def counts(self) -> str:
        """How the trials ended, such as "12 finished, 3 pruned, 1 failed"."""
        states = [row.state for row in self.trials]
        return ", ".join(f"{states.count(x)} {x}" for x in ("finished", "pruned", "failed", "running") if x in states)

    def to_json(self) -> dict[str, Any]:
        """Every number."""
        return {
            "request": dict(self.request),
            "version": self.version,
            "trials": [row.to_json() for row in self.trials],
            "standing": {name: list(x) if isinstance(x, tuple) else x for name, x in self.standing.items()},
            "best": None if self.best is None else self.best.number,
            "importances": dict(self.importances),
            "check": None if self.check is None else vars(self.check),
            "shrinkage": self.shrinkage,
            "verdict": self.verdict,
        }


def value_text(value: float) -> str:
    """A return, with more digits where it is small."""
    return return_label(value, 1 if abs(value) >= 10 else 3)


def settings_text(params: Mapping[str, Any]) -> str:
    """Hyperparameters in one line: lr=0.001 gamma=0.99."""
    return " ".join(f"{name}={show(value).replace(' ', ',')}" for name, value in params.items())


def trial_cells(row: TrialRow, best: TrialRow | None) -> list[str]:
    """A trial as a row of `HEADER`; of one that was given up, the value at its last rung stands in brackets."""
    last = next((x for x in reversed(row.curve) if x is not None), None)
    value = "" if last is None else f"({value_text(last)})"
    value = value if row.value is None else value_text(row.value)
    top = "" if best is None or best.value is None else f"{value_text(best.value)} (trial {best.number})"
    said = f"{row.reason}; {settings_text(row.params)}" if row.reason else settings_text(row.params)
    return [str(row.number), value, top, row.state, said]


def verdict(found: Tuning) -> str:
    """What is known after a search, in a few sentences. Only the check on fresh seeds can call something better."""
    if found.running:
        return f"Another process still works on trial {found.running[0]}, and will write the result when it ends."
    best = found.best
    if best is None or best.value is None:
        reason = next((row.reason for row in found.trials if row.reason), "")
        return "No trial has finished, so nothing was found." + (f" The first failure: {reason}" if reason else "")
    named = f"trial {best.number} of {len(found.trials)}"
    if found.is_standing:
        return f"The standing hyperparameters scored best ({named}), so there is nothing to put in their place."
    if found.check is None:
        return (
            f"The best is {named}, with {value_text(best.value)}. It was not checked on fresh seeds, so it is not known "
            "whether it is better than what stands: the best of many trials is partly the luckiest."
        )
    if found.check.failed:
        return f"The best is {named}, but it cannot be checked: {found.check.failed}"
    fresh, lost = float(np.mean(found.check.tuned)), found.shrinkage or 0.0
    change = f"{value_text(abs(lost))} {'less' if lost > 0 else 'more'}" if not math.isclose(lost, 0.0) else "the same"
    return (
        f"{found.check.sentence} The best is {named}: in the search it had {value_text(best.value)}, on "
        f"{len(found.check.tuned)} fresh seeds {value_text(fresh)}, which is {change}."
    )
