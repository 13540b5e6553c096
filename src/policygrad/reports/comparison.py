"""A comparison of sides (algorithms, variants, runs of others), each with runs of several seeds in one or more environments.

The score of a run is the mean return of its final policy. Nothing is trained or drawn here: `policygrad.training.compare`
trains what is missing, `comparison_words` says it, `comparison_plots` draws it, and `comparison_page` is the HTML page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from policygrad.reports import aggregates
from policygrad.reports.columns import as_number
from policygrad.reports.differences import Difference, compare_scores
from policygrad.stored.directory import RunDirectory, RunError, environment

SOLVED_EPISODES = 100  # whose mean return counts as that of the policy
PROFILE_LEVELS = 21
OVERALL = "all environments"


@dataclass(frozen=True)
class ScoredRun:
    """One run. score: the final policy's mean return. steps, returns (K,): its learning curve.

    episodes (K,): how many had ended. seconds (K,): the clock of each row, NaN where it is not known. place: where it is.
    """

    env: str
    seed: int
    score: float
    steps: np.ndarray
    returns: np.ndarray
    episodes: np.ndarray
    seconds: np.ndarray
    place: str
    threshold: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def reached(self, threshold: float) -> int | None:
        """The first row at which the mean return of 100 episodes is at least the threshold; None if there is none."""
        rows = np.flatnonzero((self.returns >= threshold) & (self.episodes >= SOLVED_EPISODES))
        return int(rows[0]) if len(rows) else None


def read_run(run: RunDirectory, greedy: bool = True) -> ScoredRun:
    """A finished run of this package. greedy: whether the score is that of greedy or of sampled actions.

    Raises RunError for one without an evaluation.
    """
    config, evaluation, way = run.config(), run.evaluation(), "greedy" if greedy else "sampled"
    if evaluation is None or way not in evaluation:
        raise RunError(f"{run.path} is not finished: policygrad resume {run.path}")
    rows = [row for row in run.metrics() if math.isfinite(as_number(row.get("return_mean")))]
    columns = ("steps", "return_mean", "episodes", "seconds")
    steps, returns, episodes, seconds = (np.array([as_number(row.get(name)) for row in rows]) for name in columns)
    settings = {"algo": config["algo"], "config": dict(config["config"])}
    score, threshold = float(evaluation[way]["mean"]), config.get("reward_threshold")
    curve = (steps, returns, episodes, seconds)
    return ScoredRun(environment(config), config["seed"], score, *curve, str(run.path), threshold, settings)


@dataclass(frozen=True)
class Survival:
    """When runs reached a threshold. ends (N,): when each run reached it, or ended; seen (N,) bool: which of the two."""

    ends: np.ndarray
    seen: np.ndarray

    @cached_property
    def times(self) -> np.ndarray:
        """(K,) when a run reached it."""
        return aggregates.survival(self.ends, self.seen)[0]

    @cached_property
    def shares(self) -> np.ndarray:
        """(K,) the share of runs that have not reached it after each of these times."""
        return aggregates.survival(self.ends, self.seen)[1]

    @property
    def last(self) -> float:
        """The share of runs that have not reached it in the end."""
        return float(self.shares[-1]) if len(self.shares) else 1.0

    @property
    def end(self) -> float:
        """When the last run ended or reached it."""
        return float(self.ends.max())

    @property
    def censored(self) -> np.ndarray:
        """When runs ended that had not reached it."""
        return self.ends[~self.seen]

    @property
    def median(self) -> float | None:
        """When half of the runs have reached it; None if they have not."""
        return aggregates.median_time(self.ends, self.seen)

    @property
    def runs(self) -> int:
        return len(self.ends)

    @property
    def reached(self) -> int:
        """How many runs have reached it."""
        return int(self.seen.sum())


class ComparedRuns:
    """Sides compared in environments: the numbers.

    runs: per side, by its label, and environment, the runs. level: 1 − the probability of a false verdict, per environment,
    among all pairs of sides. thresholds: per environment, the return that counts as solved.
    Raises RunError for sides that have not all runs in the same environments.
    """

    def __init__(
        self,
        runs: Mapping[str, Mapping[str, Sequence[ScoredRun]]],
        level: float = 0.95,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.sides, self.level = list(runs), level
        self._summaries: dict[tuple[str, str], dict[str, Any]] = {}
        if len(self.sides) < 2:
            raise RunError(f"a comparison needs at least two sides, got {', '.join(self.sides) or 'none'}")
        self.envs = sorted({env for side in runs.values() for env in side})
        self.runs = {
            side: {env: sorted(runs[side].get(env, []), key=_order) for env in self.envs} for side in self.sides
        }
        for side, env in [(side, env) for side in self.sides for env in self.envs]:
            if not self.runs[side][env]:
                raise RunError(f"{side} has no runs in {env}: every side needs runs in the same environments")
        self.thresholds = {env: self._threshold(env, thresholds or {}) for env in self.envs}

    def _threshold(self, env: str, given: Mapping[str, float]) -> float | None:
        said = [run.threshold for run in self.all_runs(env) if run.threshold is not None]
        return given.get(env, said[0] if said else None)

    def all_runs(self, env: str) -> list[ScoredRun]:
        """The runs of all sides in an environment."""
        return [run for side in self.sides for run in self.runs[side][env]]

    def scores(self, side: str, env: str) -> np.ndarray:
        """(runs,) final mean returns, by seed."""
        return np.array([run.score for run in self.runs[side][env]])

    def normalized(self, side: str) -> list[np.ndarray]:
        """The scores per environment on a common scale, 0 to 1, as `scale` says."""
        return [(self.scores(side, env) - low) / (high - low) for env in self.envs for low, high in [self.scale(env)]]

    def scale(self, env: str) -> tuple[float, float]:
        """What is 0 and 1 on the common scale: the mean of all runs' first recorded returns, and the highest score of any run.

        Both are the same whichever side a run belongs to, so that the permutation test stays valid.
        """
        runs = self.all_runs(env)
        firsts = [float(run.returns[0]) for run in runs if len(run.returns)]
        high = max(run.score for run in runs)
        low = float(np.mean(firsts)) if firsts else min(run.score for run in runs)
        return (low, high) if high > low else (high - 1.0, high)

    @cached_property
    def differences(self) -> dict[str, dict[tuple[str, str], Difference]]:
        """Per environment, and over all of them if there are several, the difference of each pair of sides."""
        pairs = list(combinations(self.sides, 2))
        how = {"level": self.level, "comparisons": len(pairs)}
        found = {
            env: {(a, b): compare_scores([self.scores(a, env)], [self.scores(b, env)], **how) for a, b in pairs}
            for env in self.envs
        }
        if len(self.envs) > 1:
            found[OVERALL] = {(a, b): compare_scores(self.normalized(a), self.normalized(b), **how) for a, b in pairs}
        return found

    def summary(self, side: str, env: str) -> dict[str, Any]:
        """The statistics of a side in an environment, or, normalized, in all of them."""
        if (side, env) not in self._summaries:
            self._summaries[side, env] = self._summary(side, env)
        return self._summaries[side, env]

    def _summary(self, side: str, env: str) -> dict[str, Any]:
        scores = self.normalized(side) if env == OVERALL else [self.scores(side, env)]
        found: dict[str, Any] = {}
        for name in ("iqm", "mean", "median"):
            statistic = getattr(aggregates, name)
            if name == "median" and env != OVERALL:
                statistic = _median_run
            low, high = aggregates.interval(statistic, scores, level=self.level)
            found[name] = {"value": float(statistic(scores)), "interval": [low, high]}
        runs = [run for one in (self.envs if env == OVERALL else [env]) for run in self.runs[side][one]]
        found["worst"] = float(min(x.min() for x in scores))
        found["collapsed"] = float(np.mean([aggregates.collapsed(run.returns) for run in runs]))
        if env != OVERALL:
            found["to_threshold"] = self.reached(side, env)
        else:  # 1 is the highest score of any run here, and a goal that rliable's gap is counted from
            low, high = aggregates.interval(aggregates.optimality_gap, scores, level=self.level)
            gap = float(aggregates.optimality_gap(scores))
            found["optimality_gap"] = {"value": gap, "interval": [low, high]}
        return found

    def survival(self, side: str, env: str, by: str = "steps") -> Survival | None:
        """How many runs have not reached the threshold, by steps or by seconds; None without a threshold or without clocks."""
        threshold = self.thresholds[env]
        if threshold is None:
            return None
        rows = [(run.seconds if by == "seconds" else run.steps, run.reached(threshold)) for run in self.runs[side][env]]
        times = np.array([(float(at[-1 if row is None else row]) if len(at) else 0.0) for at, row in rows])
        if not np.isfinite(times).all():
            return None
        return Survival(times, np.array([row is not None for _, row in rows]))

    def reached(self, side: str, env: str) -> dict[str, Any] | None:
        """Steps until the threshold: per run or None, and the Kaplan–Meier median; None without a threshold."""
        found = self.survival(side, env)
        if found is None:
            return None
        each = zip(found.ends.tolist(), found.seen.tolist(), strict=True)
        return {
            "threshold": self.thresholds[env],
            "steps": [int(end) if seen else None for end, seen in each],
            "reached": float(found.seen.mean()),
            "median_steps": found.median,
            "survival": {"steps": found.times.tolist(), "not_yet": found.shares.tolist()},
        }

    def clocks(self) -> dict[str, Any]:
        """What differs between two machines: where runs are, their seconds, and the seconds to the threshold."""
        found: dict[str, Any] = {}
        for side in self.sides:
            for env in self.envs:
                each = found.setdefault(side, {}).setdefault(env, {})
                for run in self.runs[side][env]:
                    each[str(run.seed)] = self._clock(run, self.thresholds[env])
                if (times := self.survival(side, env, "seconds")) is not None:
                    survival = {"seconds": times.times.tolist(), "not_yet": times.shares.tolist()}
                    each["to_threshold"] = {"median_seconds": times.median, "survival": survival}
        return found

    @staticmethod
    def _clock(run: ScoredRun, threshold: float | None) -> dict[str, Any]:
        row = None if threshold is None else run.reached(threshold)
        has = len(run.seconds) > 0 and math.isfinite(float(run.seconds[-1]))
        return {
            "run": run.place,
            "seconds": float(run.seconds[-1]) if has else None,
            "seconds_to_threshold": float(run.seconds[row]) if has and row is not None else None,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything that is computed from the runs; the same runs give the same bytes, whenever and in whatever order."""
        return {
            "level": self.level,
            "adjustment": "Bonferroni, over the pairs of sides of an environment",
            "sides": {side: _settings(self.runs[side]) for side in self.sides},
            "environments": {env: self._env_json(env) for env in [*self.envs, *[OVERALL] * (len(self.envs) > 1)]},
        }

    def _env_json(self, env: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if env == OVERALL:
            found["scale"] = {one: dict(zip(("zero", "one"), self.scale(one), strict=True)) for one in self.envs}
            levels = np.linspace(0, 1, PROFILE_LEVELS)
            shares = {side: aggregates.profile(self.normalized(side), levels).tolist() for side in self.sides}
            found["profile"] = {"levels": levels.tolist()} | shares
        else:
            found["runs"] = {
                side: [{"seed": run.seed, "score": run.score} for run in self.runs[side][env]] for side in self.sides
            }
        found["summary"] = {side: self.summary(side, env) for side in self.sides}
        pairs = self.differences[env].items()
        found["pairs"] = [{"sides": list(pair), "verdict": _verdict(pair, one)} | _plain(one) for pair, one in pairs]
        return found


def _order(run: ScoredRun) -> tuple[int, float]:
    return run.seed, run.score


def _median_run(scores: aggregates.Scores) -> np.ndarray:
    """The median of the runs of one environment."""
    return np.median(scores[0], -1)


def _settings(runs: Mapping[str, Sequence[ScoredRun]]) -> dict[str, Any]:
    """The settings of a side per environment; those of its first run, which the others share."""
    return {env: dict(each[0].settings) | {"seeds": [run.seed for run in each]} for env, each in runs.items()}


def _verdict(pair: tuple[str, str], found: Difference) -> str | None:
    """The better side; None if the runs cannot tell."""
    return {1: pair[0], -1: pair[1], 0: None}[found.verdict]


def _plain(found: Difference) -> dict[str, Any]:
    """A difference as JSON has it: an end that is not bounded is null."""
    return {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in asdict(found).items()}
