"""Recorded learning runs, which `benchmarks/claims.py` measured: reading them, and the statistics that claims need.

    runs = load("stability")
    interval(runs.final("ppo, lr 0.003"))                        # mean return of the last fifth of training, 95 %
    probability_of_improvement(runs.speed("a2c, lr 0.003"), runs.speed("reinforce, lr 0.003"))
    runs.falls("a2c, lr 0.03", level=400)                        # which seeds reached the level and later fell below half of it

A file names the command that made it, the versions, the settings and the seeds, and holds the results of every seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from policygrad.algorithms.recipe import current_keywords
from policygrad.errors import FileError
from policygrad.lab.claims import Outcome
from policygrad.reports.intervals import bca_interval

FOLDER = files("policygrad.lab.claims") / "recorded"
RESAMPLES = 2_000  # of a bootstrap
FINAL_SHARE = 0.2  # of the training, over which `final` is the mean


class RecordError(FileError, ValueError):
    """Recorded runs do not exist, or their file is damaged."""


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; a point if it is the mean of numbers that are all equal, of which it says so."""

    mean: float
    low: float
    high: float

    def above(self, x: float) -> bool | None:
        """Whether it is above x: None where the interval holds x, and so cannot tell."""
        return True if self.low > x else False if self.high < x else None

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.mean:.4g} (all equal)"
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

    def seconds_to(self, arm: str, threshold: float) -> np.ndarray:
        """The processor's seconds until then, (seeds,), those of the whole run if the threshold is not reached."""
        when = np.minimum(self.steps_to(arm, threshold), self.steps)
        k = np.rint(when * self.points / self.steps).astype(int) - 1
        return self.curves(arm, "seconds")[np.arange(len(k)), k]

    def falls(self, arm: str, level: float, share: float = 0.5, measure: str = "return") -> np.ndarray:
        """Whether the curve reached the level and was below share · level at some later point, (seeds,) bool."""
        curves = self.curves(arm, measure)
        reached = np.logical_or.accumulate(curves >= level, axis=1)
        return np.any(reached & (curves < share * level), axis=1)


def interval(x: Sequence[float] | np.ndarray) -> Interval:
    """The mean of independent numbers (n,) with its 95 % BCa bootstrap interval (Efron 1987); a point if all are equal.

    Raises ValueError if there are none, or one is not finite.
    """
    x = _sample(x)
    return Interval(float(np.mean(x)), *bca_interval(x))


def difference(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, several: int = 1) -> Interval:
    """mean(x) − mean(y) of two independent samples, with a 95 % percentile bootstrap interval.

    several: how many such intervals a claim chooses from; each is made wider, so that all hold together (Bonferroni).
    """
    return _two_samples(x, y, lambda x, y, axis=-1: x.mean(axis) - y.mean(axis), several)


def iqm(x: Sequence[float] | np.ndarray, axis: int = -1) -> Any:
    """The interquartile mean: that of the middle half of the runs (Agarwal et al. 2021, arXiv 2108.13264)."""
    from scipy.stats import trim_mean

    return trim_mean(np.asarray(x, float), 0.25, axis)


def iqm_ratio(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> Interval:
    """iqm(x) / iqm(y) of two independent samples of positive numbers, with a 95 % percentile bootstrap interval."""
    return _two_samples(x, y, lambda x, y, axis=-1: iqm(x, axis) / iqm(y, axis))


def probability_of_improvement(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> Interval:
    """P(X > Y) + ½ P(X = Y) for a run of each (Agarwal et al. 2021, arXiv 2108.13264), with a 95 % score interval.

    The interval is method 5 of Newcombe (2006, doi 10.1002/sim.2324), which no result makes a point: where all of ten runs are
    above all of ten others it is [0.80, 1]. A bootstrap would give [1, 1].
    """
    x, y = _sample(x), _sample(y)
    found = float(0.5 + 0.5 * np.sign(x[:, None] - y).mean())
    extra, pairs = 0.5 * (len(x) + len(y)) - 1.0, len(x) * len(y)

    def excess(p: float) -> float:
        """Whether p is further from what was found than 1.96 standard errors, as they are where p is true: then positive."""
        variance = p * (1.0 - p) * (1.0 + extra * ((1.0 - p) / (2.0 - p) + p / (1.0 + p))) / pairs
        return (p - found) ** 2 - 1.959964**2 * variance

    from scipy.optimize import root_scalar

    low = 0.0 if found == 0.0 else root_scalar(excess, bracket=(0.0, found - 1e-9)).root
    high = 1.0 if found == 1.0 else root_scalar(excess, bracket=(found + 1e-9, 1.0)).root
    return Interval(found, float(low), float(high))


def share(count: int, of: int) -> Interval:
    """The share count / of, with the 95 % interval of Clopper and Pearson (1934): never a point, not at 0 or 1 either."""
    from scipy.stats import binomtest

    found = binomtest(int(count), int(of)).proportion_ci(0.95, "exact")
    return Interval(count / of, float(found.low), float(found.high))


def share_difference(count: int, of: int, other: int, of_others: int, several: int = 1) -> Interval:
    """One share minus another, with the 95 % interval of Newcombe (1998, method 10). several: as in `difference`."""
    from scipy.stats import binomtest

    p, q = count / of, other / of_others
    first, second = (
        binomtest(int(k), int(n)).proportion_ci(1.0 - 0.05 / several, "wilson")
        for k, n in ((count, of), (other, of_others))
    )
    down, up = math.hypot(p - first.low, second.high - q), math.hypot(first.high - p, q - second.low)
    return Interval(p - q, p - q - down, p - q + up)


def rank_correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> Interval:
    """Spearman's rank correlation of paired numbers, with the 95 % interval of Bonett and Wright (2000, eq. 5)."""
    from scipy.stats import rankdata

    found = float(np.corrcoef(rankdata(_sample(x)), rankdata(_sample(y)))[0, 1])
    width = 1.959964 * math.sqrt((1.0 + 0.5 * found**2) / (len(x) - 3))
    z = math.atanh(max(-1.0 + 1e-12, min(1.0 - 1e-12, found)))
    return Interval(found, math.tanh(z - width), math.tanh(z + width))


def _two_samples(x: Any, y: Any, statistic: Any, several: int = 1) -> Interval:
    x, y = _sample(x), _sample(y)
    from scipy.stats import bootstrap

    rng = np.random.default_rng(0)
    keywords = {"n_resamples": RESAMPLES, "method": "percentile", "rng": rng, "confidence_level": 1.0 - 0.05 / several}
    found = bootstrap((x, y), statistic, **keywords).confidence_interval
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


def is_recorded(name: str) -> bool:
    """Whether the runs are there: a claim on runs that are not is pending."""
    return (FOLDER / f"{name}.json").is_file()


def not_recorded(name: str, what: str) -> Outcome:
    """The outcome of a claim that waits for recorded runs. what: what they compare."""
    return Outcome(
        "pending", f"It needs runs that are not recorded yet, {what}: `python benchmarks/claims.py {name}`.", {}
    )


@cache
def load_recorded(name: str) -> Recorded:
    """A recorded experiment by its name. Raises RecordError if it does not exist or its file is damaged."""
    file = FOLDER / f"{name}.json"
    if not is_recorded(name):
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
