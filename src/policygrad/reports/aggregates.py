"""Statistics of scores of runs: aggregates, their intervals, probability of improvement, profiles, survival, collapse.

Scores are a sequence of arrays, one per environment, with one number per run. The arrays may have any leading axes, so
that a statistic of many resampled data sets is one call. Definitions are those of Agarwal et al. 2021, "Deep Reinforcement
Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264), and of its library, rliable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

DRAWS = 2000  # of a bootstrap
Scores = Sequence[np.ndarray]  # per environment: (…, runs)


def trimmed_mean(scores: np.ndarray, share: float = 0.25) -> np.ndarray:
    """The mean over the last axis without the ⌊share·n⌋ smallest and as many largest of its n numbers."""
    cut = int(share * scores.shape[-1])
    return np.sort(scores, -1)[..., cut : scores.shape[-1] - cut].mean(-1)


def iqm(scores: Scores) -> np.ndarray:
    """The interquartile mean: the mean of the middle half of all runs of all environments.

    Of fewer than four runs it is the mean of all.
    """
    return trimmed_mean(np.concatenate(scores, -1))


def mean(scores: Scores) -> np.ndarray:
    """The mean of the environments' means."""
    return np.mean([x.mean(-1) for x in scores], 0)


def median(scores: Scores) -> np.ndarray:
    """The median of the environments' means, as rliable defines it; of one environment it is the mean."""
    return np.median([x.mean(-1) for x in scores], 0)


def optimality_gap(scores: Scores, goal: float = 1.0) -> np.ndarray:
    """How far scores are below a goal: the mean of max(0, goal − score) over all runs of all environments, as in rliable."""
    return np.maximum(goal - np.concatenate(scores, -1), 0.0).mean(-1)


def improvement(one: Scores, other: Scores) -> np.ndarray:
    """P(improvement): P(X > Y) + ½ P(X = Y) for a run X of one side and Y of the other, averaged over environments."""
    pairs = [(x[..., :, None], y[..., None, :]) for x, y in zip(one, other, strict=True)]
    return np.mean([((x > y) + 0.5 * (x == y)).mean((-2, -1)) for x, y in pairs], 0)


def profile(scores: Scores, levels: np.ndarray) -> np.ndarray:
    """The performance profile (K,): the share of all runs whose score is above each of K levels."""
    return (np.concatenate(scores, -1)[:, None] > levels).mean(0)


def resampled(scores: Scores, draws: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Per environment (draws, runs): runs drawn with replacement within their environment, the stratum."""
    return [x[rng.integers(len(x), size=(draws, len(x)))] for x in scores]


def interval(
    statistic: Callable[..., np.ndarray], *sides: Scores, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of a statistic of one or more sides, by the stratified bootstrap (strata: environments).

    It is what papers print beside an IQM. Of few runs it is too short: of 3 or 5 seeds it misses the truth more often than
    1 − level says, so verdicts come from `policygrad.reports.differences`, not from two such intervals.
    """
    rng = np.random.default_rng(seed)
    values = statistic(*(resampled(side, draws, rng) for side in sides))
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def collapsed(curve: np.ndarray) -> bool:
    """Whether a run has collapsed: its learning curve ends below the middle between its first and its highest value.

    curve (K,): the run's mean return, measured in the same way from the first to the last row. A run that never rose above
    its first value has collapsed if it ends below that value. A curve of less than two rows has not collapsed.
    """
    if len(curve) < 2:
        return False
    first, best, last = curve[0], curve.max(), curve[-1]
    return bool(last < first + (best - first) / 2)


def survival(times: np.ndarray, reached: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Kaplan–Meier estimate of the share of runs that have not yet reached a goal: times (K,) and shares (K,).

    times (N,): when each run reached the goal, or when it ended without; reached (N,) bool: which of the two. A run that
    ended without is censored: it counts as at risk until then. S(t) = Π_{t_i ≤ t} (1 − d_i / n_i), d_i runs that reach the
    goal at t_i of n_i at risk (Kaplan and Meier 1958). The times are those at which a run reached it.
    """
    at = np.unique(times[reached])
    risk = (times[:, None] >= at).sum(0)
    events = ((times[:, None] == at) & reached[:, None]).sum(0)
    return at, np.cumprod(1 - events / risk)


def median_time(times: np.ndarray, reached: np.ndarray) -> float | None:
    """The time by which half of the runs have reached the goal, by `survival`; None if they have not."""
    at, share = survival(times, reached)
    below = at[share <= 0.5 + 1e-12]
    return float(below[0]) if len(below) else None
