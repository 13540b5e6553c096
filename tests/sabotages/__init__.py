"""What must change a claim's verdict: for every claim an ingredient that is broken, or recorded numbers that are falsified.

Each module of claims has a file here, with its name and a list SABOTAGES. A new claim adds one line to the list, a new module
of claims its own file:

    SABOTAGES = [
        Sabotage("q-for-reward-to-go", wrapped(estimators.QValue, "__call__", returns_times(1.01))),
        Sabotage("trust-regions-are-stable", recorded("stability", swapped("ppo, lr", "ppo, no clip, lr"))),
        Sabotage("variance-follows-squared-error", replaced(claims, "by_constant", proportional), "holds"),
    ]

The third argument is the verdict that must come out instead of the true one. slow=True: it takes more than 0.3 s. What
`tools.small()` and `tools.simple()` keep (trajectories, ∇J, V, Q, scores) is computed before anything is broken, and stays
right. An identity can fail only by an error in the code: there the sabotage is the error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from policygrad.lab.claims import TOPIC_OF, Verdict
from policygrad.lab.claims.recorded import Arm, Recorded

Break = Callable[[pytest.MonkeyPatch], None]
Change = Callable[[Recorded], Recorded]


@dataclass(frozen=True)
class Sabotage:
    """breaks(monkeypatch) breaks what the claim rests on; then its verdict is `verdict`."""

    slug: str
    breaks: Break
    verdict: Verdict = "fails as stated"
    slow: bool = False


def replaced(owner: Any, name: str, new: Any) -> Break:
    """owner.name is something else."""
    return lambda patch: patch.setattr(owner, name, new)


def wrapped(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Break:
    """owner.name is wrap(what it was)."""
    return lambda patch: patch.setattr(owner, name, wrap(getattr(owner, name)))


def times(factor: float) -> Callable[[Any], Any]:
    """For `wrapped`: the function returns so many times what it did."""
    return lambda function: lambda *given, **keywords: factor * function(*given, **keywords)


def together(*breaks: Break) -> Break:
    """Several at once."""

    def all_of_them(patch: pytest.MonkeyPatch) -> None:
        for each in breaks:
            each(patch)

    return all_of_them


# --- recorded numbers ----------------------------------------------------------------------------------------------


def recorded(name: str, *changes: Change) -> Break:
    """The runs of this name are falsified, for all claims."""

    def put(patch: pytest.MonkeyPatch) -> None:
        for module in _readers():
            read = module.load_recorded
            patch.setattr(
                module, "load_recorded", lambda asked, read=read: _changed(read(asked), asked == name, changes)
            )

    return put


def _changed(runs: Recorded, wanted: bool, changes: Sequence[Change]) -> Recorded:
    for change in changes if wanted else ():
        runs = change(runs)
    return runs


def invented(runs: Recorded) -> Break:
    """Runs that nobody made are there, under their name."""

    def put(patch: pytest.MonkeyPatch) -> None:
        for module in _readers():
            read = module.load_recorded
            patch.setattr(module, "load_recorded", lambda asked, read=read: runs if asked == runs.name else read(asked))
            if hasattr(module, "is_recorded"):
                patch.setattr(module, "is_recorded", lambda asked: asked == runs.name)

    return put


def _readers() -> list[Any]:
    modules = [sys.modules[name] for name in TOPIC_OF if name in sys.modules]
    return [module for module in modules if hasattr(module, "load_recorded")]


def swapped(one: str, other: str) -> Change:
    """Arms whose names begin with `one` change places with those that begin with `other` instead."""

    def change(runs: Recorded) -> Recorded:
        arms = dict(runs.arms)
        for arm in runs.arms:
            if arm.startswith(one) and (rival := arm.replace(one, other, 1)) in runs.arms:
                arms[arm], arms[rival] = runs.arms[rival], runs.arms[arm]
        return replace(runs, arms=arms)

    return change


def falsified(of: str, function: Callable[[np.ndarray], np.ndarray], measure: str = "return") -> Change:
    """A measure of the arms in whose names this stands."""

    def changed(arm: Arm) -> Arm:
        return replace(arm, measures=arm.measures | {measure: function(arm.measures[measure])})

    return lambda runs: replace(runs, arms={a: changed(x) if of in a else x for a, x in runs.arms.items()})


def invent(name: str, steps: int, arms: dict[str, dict[str, Any]]) -> Recorded:
    """Runs with these measures: (seeds, points), or (seeds,)."""
    made = {arm: Arm("dqn", {}, {}, {k: np.asarray(x, float) for k, x in found.items()}) for arm, found in arms.items()}
    seeds, points = next(x for x in next(iter(made.values())).measures.values() if x.ndim == 2).shape
    return Recorded(name, "", "", "", "", {}, steps, points, tuple(range(seeds)), made)


def all_sabotages() -> list[Sabotage]:
    """Those of all files; a module of claims without one has none."""
    found: list[Sabotage] = []
    for module in TOPIC_OF:
        name = f"{__name__}.{module.rsplit('.', 1)[-1]}"
        try:
            found += import_module(name).SABOTAGES
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    return found
