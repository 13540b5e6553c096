"""A sweep: settings of one algorithm's hyperparameters with the scores of several seeds each, and the best ones once more.

The score of a run is the mean return of its final policy. **The winner's curse**: of many settings that are equally good, the
one with the best scores was lucky, so its scores are above what it reaches on average. It is therefore trained again on fresh
seeds. Their scores have no part in the choice, so they are unbiased, and the verdict is a test of them alone.

A run that diverged counts as the lowest score of any run that did not. Nothing is trained or drawn here:
`policygrad.training.sweep` trains, `sweep_words` says it, and `sweep_plots` draws it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from policygrad.reports.aggregates import interval, iqm
from policygrad.reports.differences import Difference, compare_scores, is_better
from policygrad.reports.sensitivity import Effect, Width, brief, effect, width
from policygrad.stored.directory import RunError


@dataclass(frozen=True)
class SweptRun:
    """One run. score: the final policy's mean return, None for a run that diverged. seconds: of training, if they are known."""

    seed: int
    score: float | None
    place: str
    seconds: float | None = None
    reason: str = ""  # why it diverged


@dataclass(frozen=True)
class Setting:
    """Hyperparameters, of those that differ in the sweep, and a run per seed."""

    values: dict[str, Any]
    runs: list[SweptRun]

    @property
    def diverged(self) -> int:
        """How many of the runs diverged."""
        return sum(run.score is None for run in self.runs)


@dataclass(frozen=True)
class Design:
    """What was asked for. space: as texts; names: of its hyperparameters; logs: those in logarithms.

    baseline: what the setting is called that the best one is compared with.
    """

    algo: str
    env: str
    space: list[str]
    names: list[str]
    logs: list[str]
    random: bool
    seeds: list[int]
    fresh_seeds: list[int]
    episodes: int = 100
    greedy: bool = True
    level: float = 0.95
    fixed: dict[str, Any] = field(default_factory=dict)
    baseline: str = "the preset"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def lowest(settings: Sequence[Setting]) -> float:
    """The lowest score of all runs that did not diverge. Raises RunError where there is none."""
    scores = [run.score for setting in settings for run in setting.runs if run.score is not None]
    if not scores:
        reason = next((run.reason for setting in settings for run in setting.runs), "")
        raise RunError(f"every run diverged, so there is nothing to compare: {reason}")
    return min(scores)


def scores(setting: Setting, floor: float) -> np.ndarray:
    """(runs,) the scores; of a run that diverged, `floor`."""
    return np.array([floor if run.score is None else run.score for run in setting.runs], float)


def ranked(settings: Sequence[Setting]) -> list[int]:
    """The settings from the best to the worst: by IQM, where it is equal by mean, by the worst run, and in their order."""
    floor = lowest(settings)
    each = [scores(setting, floor) for setting in settings]
    keys = [(-float(iqm([x])), -float(x.mean()), -float(x.min()), k) for k, x in enumerate(each)]
    return [k for *_, k in sorted(keys)]


def fresh_settings(design: Design, settings: Sequence[Setting]) -> list[Setting]:
    """The settings that are trained once more: the best and the second best."""
    return [settings[k] for k in ranked(settings)[:2]]


def setting_text(values: Mapping[str, Any]) -> str:
    """A setting as one word: lr=0.001,ent_coef=0."""
    return ",".join(f"{name}={brief(value)}".replace(" ", ",") for name, value in values.items())


class SweptSettings:
    """The numbers of a sweep.

    settings: each with a run per seed. fresh: the best and the second best with runs of fresh seeds, in this order. own: the
    values of the preset, or the recipe's own, with runs of the same fresh seeds. Raises RunError if every run diverged.
    """

    def __init__(self, design: Design, settings: Sequence[Setting], fresh: Sequence[Setting], own: Setting) -> None:
        self.design, self.settings, self.fresh, self.own = design, list(settings), list(fresh), own
        self.floor = lowest(settings)
        self.fresh_floor = lowest([*settings, *fresh, own])
        self.order = ranked(settings)

    @property
    def winner(self) -> Setting:
        """The best setting, with the sweep's runs."""
        return self.settings[self.order[0]]

    def scores(self, k: int) -> np.ndarray:
        """(runs,) of a setting, by seed."""
        return scores(self.settings[k], self.floor)

    def fresh_scores(self, setting: Setting) -> np.ndarray:
        """(runs,) of a setting that was trained on fresh seeds."""
        return scores(setting, self.fresh_floor)

    def summary(self, values: np.ndarray) -> dict[str, Any]:
        """IQM with its bootstrap interval, mean and worst of scores (runs,)."""
        low, high = interval(iqm, [values], level=self.design.level)
        mean, worst = float(values.mean()), float(values.min())
        return {"iqm": {"value": float(iqm([values])), "interval": [low, high]}, "mean": mean, "worst": worst}

    @cached_property
    def summaries(self) -> list[dict[str, Any]]:
        """Of each setting on the sweep's seeds."""
        return [self.summary(self.scores(k)) for k in range(len(self.settings))]

    @cached_property
    def fresh_summaries(self) -> list[dict[str, Any]]:
        """Of the best, the second best, and the preset's own setting, on the fresh seeds."""
        return [self.summary(self.fresh_scores(setting)) for setting in [*self.fresh, self.own]]

    @property
    def shrinkage(self) -> list[float]:
        """Of the best and of the second best: the IQM on the sweep's seeds minus that on fresh seeds."""
        pairs = zip(self.order, self.fresh_summaries[:-1], strict=False)
        return [self.summaries[k]["iqm"]["value"] - found["iqm"]["value"] for k, found in pairs]

    @property
    def own_is_best(self) -> bool:
        """Whether the best setting is the preset's own, so that both have the same runs."""
        return [run.place for run in self.fresh[0].runs] == [run.place for run in self.own.runs]

    @cached_property
    def difference(self) -> Difference | None:
        """The best setting minus the preset's own, on the fresh seeds; None where they are the same."""
        if self.own_is_best:
            return None
        sides = self.fresh_scores(self.fresh[0]), self.fresh_scores(self.own)
        return compare_scores([sides[0]], [sides[1]], level=self.design.level)

    @cached_property
    def like_best(self) -> list[bool]:
        """Of each setting: whether its runs cannot be told from the fresh runs of the best one, each tested by itself."""
        best, level = self.fresh_scores(self.fresh[0]), self.design.level
        found = [not is_better([best], [self.scores(k)], level=level) for k in range(len(self.settings))]
        found[self.order[0]] = True
        return found

    @cached_property
    def effects(self) -> list[Effect]:
        """The main effect of each hyperparameter that has two values or more."""
        values = np.array([self.scores(k) for k in range(len(self.settings))])
        tried = {name: [setting.values[name] for setting in self.settings] for name in self.design.names}
        made = [effect(name, tried[name], values, self.design.random, self.design.level) for name in self.design.names]
        return [one for one in made if len(one.values) > 1]

    def line(self, name: str) -> dict[Any, int]:
        """The settings that differ from the best one in this hyperparameter alone, by its value; none in a random sweep."""
        others = {key: value for key, value in self.winner.values.items() if key != name}
        return {
            setting.values[name]: k
            for k, setting in enumerate(self.settings)
            if others == {key: value for key, value in setting.values.items() if key != name}
        }

    @cached_property
    def widths(self) -> list[Width]:
        """How far each number can be moved from the best setting before the score leaves the best one's interval.

        The interval is that of the best setting on fresh seeds, because on the sweep's it is too high.
        """
        low = self.fresh_summaries[0]["iqm"]["interval"][0]
        found = []
        for name in self.design.names if not self.design.random else []:
            line = {value: self.summaries[k]["iqm"]["value"] >= low for value, k in self.line(name).items()}
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in line)
            if numbers and len(line) > 1:
                found.append(width(name, line, self.winner.values[name], name in self.design.logs))
        return found

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of hyperparameters with two values or more."""
        return list(combinations([one.name for one in self.effects], 2))

    def map_of(self, pair: tuple[str, str]) -> tuple[list[Any], list[Any], list[list[int]]]:
        """Values of both, and per value of the first and the second the setting that has the best one's other values."""
        first, second = (ordered([setting.values[name] for setting in self.settings]) for name in pair)
        place = {_key(setting.values): k for k, setting in enumerate(self.settings)}
        best = self.winner.values
        return first, second, [[place[_key(best | {pair[0]: a, pair[1]: b})] for b in second] for a in first]

    def to_json(self) -> dict[str, Any]:
        """Everything that is computed from the runs; the same runs give the same bytes, whenever and in whatever order."""
        best, *others = self.fresh_summaries
        fresh = [_plain_setting(x) | found for x, found in zip([*self.fresh, self.own], [best, *others], strict=True)]
        for one, shrinkage in zip(fresh[:-1], self.shrinkage, strict=True):
            one["shrinkage"] = shrinkage
        verdict = {None: None, 1: "best", -1: "own", 0: "cannot tell"}[self.difference and self.difference.verdict]
        return {
            "design": self.design.to_json(),
            "score_of_diverged_runs": {"sweep": self.floor, "fresh": self.fresh_floor},
            "order": self.order,
            "settings": [
                _plain_setting(setting) | found | {"like_best": like}
                for setting, found, like in zip(self.settings, self.summaries, self.like_best, strict=True)
            ],
            "effects": [_finite(asdict(one)) for one in self.effects],
            "widths": [_finite(asdict(one)) for one in self.widths],
            "fresh": {"best": fresh[0], "second": fresh[1], "own": fresh[2]},
            "own_is_best": self.own_is_best,
            "difference": None if self.difference is None else _finite(asdict(self.difference)),
            "verdict": verdict,
        }

    def clocks(self) -> dict[str, Any]:
        """What differs between two machines: where runs are, and their seconds."""
        groups = {"sweep": self.settings, "fresh": [*self.fresh, self.own]}
        return {
            name: [
                {str(run.seed): {"run": run.place, "seconds": run.seconds} for run in setting.runs} for setting in each
            ]
            for name, each in groups.items()
        }


def ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers from low to high, others in the order that they have."""
    once = list({_key(value): value for value in values}.values())
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in once)
    return sorted(once) if numbers else once


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _plain_setting(setting: Setting) -> dict[str, Any]:
    runs = [
        {"seed": run.seed, "score": run.score} | ({"diverged": run.reason} if run.score is None else {})
        for run in setting.runs
    ]
    return {"values": setting.values, "runs": runs, "diverged": setting.diverged}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: a number that is not bounded or not known is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [plain(x) for x in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: plain(value) for name, value in values.items()}
