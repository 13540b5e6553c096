"""Recorded learning runs, which `benchmarks/claims.py` measured: reading them, and the statistics that claims need.

    runs = load("stability")
    interval(runs.final("ppo, lr 0.003"))                        # mean return of the last fifth of training, 95 %
    probability_of_improvement(runs.speed("a2c, lr 0.003"), runs.speed("reinforce, lr 0.003"))
    runs.falls("a2c, lr 0.03", level=400)                        # which seeds reached the level and later fell below half of it

A file names the command that made it, the versions, the settings and the seeds, and holds the results of every seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from policygrad.algorithms.recipe import current_keywords
from policygrad.errors import FileError
from policygrad.training.evaluate import Evaluation

FOLDER = files("policygrad.lab.claims") / "recorded"
RESAMPLES = 2_000  # of a bootstrap
FINAL_SHARE = 0.2  # of the training, over which `final` is the mean


class RecordError(FileError, ValueError):
    """Recorded runs do not exist, or their file is damaged."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False)
class Arm:
    """The runs of one setting. given: the keywords that differ from the shared ones; config: all keywords.

    measures: (seeds, points), NaN where an interval of steps has no value; or (seeds,), for the final policy.
    """

    algo: str
    given: dict[str, Any]
    config: dict[str, Any]
    measures: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Recorded:
    """An experiment. Its arms are the settings that are compared; a curve divides the steps into `points` equal intervals."""

    name: str
    about: str
    task: str
    curve: str  # what "return" is
    command: str
    versions: dict[str, str]
    steps: int  # of a run: environment steps, or updates
    points: int
    seeds: tuple[int, ...]
    arms: dict[str, Arm]

    def arm(self, name: str) -> Arm:
        """An arm by its name. Raises ValueError for an unknown name."""
        if name not in self.arms:
            raise ValueError(f"{self.name} has no arm {name!r}: there are {', '.join(map(repr, self.arms))}")
        return self.arms[name]

    def curves(self, arm: str, measure: str = "return") -> np.ndarray:
        """The curves of a measure, (seeds, points); an empty interval has the value before it, at the start the first value."""
        found = self.arm(arm).measures
        if measure not in found:
            raise ValueError(f"{self.name} has no {measure!r} of {arm!r}: there are {', '.join(found)}")
        values = found[measure]
        if values.ndim < 2:
            raise ValueError(f"{measure!r} of {self.name} is one number per run, no curve")
        return np.array([_filled(row) for row in values])

    def at(self) -> np.ndarray:
        """The steps at which the intervals of the curves end, (points,)."""
        return np.arange(1, self.points + 1) * self.steps / self.points

    def final(self, arm: str, measure: str = "return") -> np.ndarray:
        """The mean over the last fifth of training, (seeds,); a measure of the final policy is returned unchanged."""
        values = self.arm(arm).measures.get(measure)
        if values is not None and values.ndim == 1:
            return values
        return self.curves(arm, measure)[:, -max(1, round(FINAL_SHARE * self.points)) :].mean(1)

    def speed(self, arm: str, measure: str = "return") -> np.ndarray:
        """The mean over the whole training, (seeds,): the area under the curve, which is larger if learning is faster."""
        return self.curves(arm, measure).mean(1)

    def best(self, names: Iterable[str]) -> str:
        """The name with the highest mean speed."""
        return max(names, key=lambda name: float(self.speed(name).mean()))

    def steps_to(self, arm: str, threshold: float, measure: str = "return") -> np.ndarray:
        """The steps until the end of the first interval whose mean is at least the threshold, (seeds,); ∞ if there is none."""
        there = self.curves(arm, measure) >= threshold
        return np.where(there.any(1), self.at()[there.argmax(1)], np.inf)

    def falls(self, arm: str, level: float, share: float = 0.5, measure: str = "return") -> np.ndarray:
        """Whether the curve reached the level and was below share · level at some later point, (seeds,) bool."""
        curves = self.curves(arm, measure)
        reached = np.logical_or.accumulate(curves >= level, axis=1)
        return np.any(reached & (curves < share * level), axis=1)


def interval(x: Sequence[float] | np.ndarray) -> Interval:
    """The mean of independent numbers (n,) with its 95 % BCa bootstrap interval (Efron 1987); a point if all are equal.

    Raises ValueError if there are none, or one is not finite.
    """
    sample = Evaluation(tuple(_sample(x).tolist()), ())
    return Interval(sample.mean, *sample.ci95)


def difference(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> Interval:
    """mean(x) − mean(y) of two independent samples, with a 95 % percentile bootstrap interval."""
    return _two_samples(x, y, lambda x, y, axis=-1: x.mean(axis) - y.mean(axis))


def probability_of_improvement(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> Interval:
    """P(X > Y) + ½ P(X = Y) for a run of each (Agarwal et al. 2021, arXiv 2108.13264), 95 % percentile bootstrap interval."""
    return _two_samples(x, y, _better)


def _better(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    sign = np.sign(np.moveaxis(x, axis, -1)[..., :, None] - np.moveaxis(y, axis, -1)[..., None, :])
    return 0.5 + 0.5 * sign.mean((-2, -1))


def _two_samples(x: Any, y: Any, statistic: Any) -> Interval:
    x, y = _sample(x), _sample(y)
    from scipy.stats import bootstrap

    rng = np.random.default_rng(0)
    found = bootstrap((x, y), statistic, n_resamples=RESAMPLES, method="percentile", rng=rng).confidence_interval
    return Interval(float(statistic(x, y)), float(found.low), float(found.high))


def _sample(x: Any) -> np.ndarray:
    x = np.asarray(x, float)
    if x.ndim != 1 or len(x) == 0 or not np.isfinite(x).all():
        raise ValueError(f"expected finite numbers, (n,) with n at least 1, got {x}")
    return x


def _filled(row: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(~np.isnan(row))
    if not len(known):
        return row
    before = np.searchsorted(known, np.arange(len(row)), side="right") - 1
    return row[known[np.maximum(before, 0)]]


def recorded_names() -> list[str]:
    """The recorded experiments."""
    return sorted(file.name.removesuffix(".json") for file in FOLDER.iterdir() if file.name.endswith(".json"))


@cache
def load_recorded(name: str) -> Recorded:
    """A recorded experiment by its name. Raises RecordError if it does not exist or its file is damaged."""
    file = FOLDER / f"{name}.json"
    if not file.is_file():
        raise RecordError(
            f"there are no recorded runs {name!r}: python benchmarks/claims.py {name} makes them; available: "
            f"{', '.join(recorded_names()) or 'none'}"
        )
    return parse(file.read_text(encoding="utf-8"), name)


def parse(text: str, name: str) -> Recorded:
    """The experiment in the text of a file, checked. Raises RecordError for missing values and wrong shapes."""
    try:
        data = json.loads(text)
        arms = {arm: _arm(found) for arm, found in data["arms"].items()}
        names = ("name", "about", "task", "curve", "command", "versions", "steps", "points")
        fields = {key: data[key] for key in names}
        read = Recorded(**fields, seeds=tuple(data["seeds"]), arms=arms)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"the file of {name!r} is no record of runs ({type(error).__name__}: {error})") from error
    for arm, found in read.arms.items():
        for measure, values in found.measures.items():
            if values.shape not in ((len(read.seeds),), (len(read.seeds), read.points)):
                raise RecordError(
                    f"{measure!r} of {arm!r} in {name!r} has shape {values.shape}, expected ({len(read.seeds)},) or "
                    f"({len(read.seeds)}, {read.points})"
                )
    if read.name != name or not read.arms:
        raise RecordError(f"the file of {name!r} says it is {read.name!r}, with {len(read.arms)} arms")
    return read


def _arm(data: Mapping[str, Any]) -> Arm:
    measures = {name: np.array(values, float) for name, values in data["measures"].items()}
    given, config = (current_keywords(data["algo"], data[name]) for name in ("given", "config"))
    return Arm(data["algo"], given, config, measures)
