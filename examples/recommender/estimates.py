"""The value of a policy from the log of another one, with an interval: off-policy evaluation of contextual bandits.

The rows of a log are (user x, item a, its probability μ(a|x), reward r), and w = π(a|x) / μ(a|x). All rows are independent, and
π and the click model q̂ were made without them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A value, and the interval that is meant to cover the truth with the probability asked for."""

    value: float
    low: float
    high: float

    def covers(self, truth: float) -> bool:
        return self.low <= truth <= self.high


def student(x: np.ndarray, level: float = 0.95) -> Estimate:
    """The mean of x (N,) with Student's interval, right for large N; too short where a few large x are rare."""
    half = float(stats.t.ppf(0.5 + level / 2, len(x) - 1)) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def ips(w: np.ndarray, r: np.ndarray) -> Estimate:
    """Inverse propensity scores: the mean of w r (Horvitz & Thompson 1952). Unbiased."""
    return student(w * r)


def clipped_ips(w: np.ndarray, r: np.ndarray, most: float) -> Estimate:
    """The mean of min(w, most) r. Biased by E[(min(w, most) − w) r], which is not above 0 for rewards of at least 0."""
    return student(np.minimum(w, most) * r)


def self_normalised(w: np.ndarray, r: np.ndarray) -> Estimate:
    """Σ w r / Σ w (Swaminathan & Joachims 2015), a ratio: biased by O(1/N). The interval is that of its linearisation."""
    value = float((w * r).sum() / w.sum())
    around = student(w * (r - value) / w.mean())
    return Estimate(value, value + around.low - around.value, value + around.high - around.value)


def doubly_robust(w: np.ndarray, r: np.ndarray, q: np.ndarray, v: np.ndarray) -> Estimate:
    """The mean of v + w (r − q), q = q̂(x, a) of the item shown, v = Σ π(k|x) q̂(x, k) (Dudík, Langford & Li 2011).

    Unbiased for any q̂ made without these rows, and the better q̂, the smaller the variance.
    """
    return student(v + w * (r - q))


def empirical_bernstein(w: np.ndarray, r: np.ndarray, largest: float, level: float = 0.95) -> Estimate:
    """The mean of w r, with the interval of Maurer & Pontil 2009, theorem 4, for both sides.

    √(2 s² ln(4/δ) / N) + 7 M ln(4/δ) / (3 (N − 1)), δ = 1 − level, for x in [0, M], M = largest, the greatest weight possible.
    It covers with at least the level for every N, and is wide.
    """
    x, n, log = w * r, len(w), math.log(4.0 / (1.0 - level))
    half = math.sqrt(2.0 * float(x.var(ddof=1)) * log / n) + 7.0 * largest * log / (3.0 * (n - 1))
    return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)
