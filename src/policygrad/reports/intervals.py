"""Intervals for a mean: of returns, which have a range and may hide rare outcomes, and of differences.

**The mean of returns.** n returns say nothing about outcomes that they do not contain, so an interval that covers needs to
know how low and how high a return can be. For returns x₁ … x_n that cannot be below a, the lower limit is the α-quantile of

    w₀ a + w₁ x₁ + … + w_n x_n,    w uniformly distributed on the weights that sum to 1, Dirichlet(1, …, 1),

and the upper limit the (1 − α)-quantile of the same with the highest return b in the place of a: the bound of Learned-Miller
and Thomas 2019, "A New Confidence Interval for the Mean of a Bounded Random Variable" (arXiv 1905.06208). It is the Bayesian
bootstrap (Rubin 1981) with one return more, the worst one. Three facts make it right for evaluations:

- Of returns with two values, a and b, it is exactly the interval of Clopper and Pearson (1934).
- Of n equal returns x it is [x − (1 − α^{1/n}) (x − a), x + (1 − α^{1/n}) (b − x)]: an outcome that was not seen in n episodes
  has at most the probability 1 − α^{1/n}, with confidence 1 − α. A limit is x itself only where x is that end of the range.
- It moves and stretches with the returns and their range, and does not depend on the order of the returns.

Its authors conjecture that it covers for every distribution in the range; for two values it is proven.
`benchmarks/intervals.py` measures how often it covers six shapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
DRAWS = 10_000  # of weights; with them the probability of each tail is right to ± 0.0016, one standard error
CHUNK = 2**20  # numbers at once


def mean_interval(
    x: Sequence[float] | np.ndarray, plausible: tuple[float, float] | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """The interval for the mean of the distribution that independent numbers (n,) come from.

    plausible: the lowest and highest number that is possible; without it, or where numbers are outside, the lowest and
    highest of x take its place: then the interval leaves out what was not seen. (−∞, ∞) where there is no such range,
    because all numbers are equal, or there is only one. The weights are drawn with a fixed seed.
    """
    x = np.asarray(x, float)
    if not len(x) or not np.isfinite(x).all():
        return -math.inf, math.inf
    low, high = min(x.min(), *(plausible or (math.inf,))), max(x.max(), *(plausible or (-math.inf,)))
    if low == high:
        return -math.inf, math.inf
    share = (1.0 - level) / 2.0
    return _lower(np.sort(x), low, share), -_lower(np.sort(-x), -high, share)


def _lower(x: np.ndarray, lowest: float, share: float) -> float:
    """The lower limit, missed with probability `share`, for the mean of sorted numbers that are not below `lowest`."""
    values = np.unique(x)
    if len(values) == 1 or (len(values) == 2 and values[0] == lowest):  # the quantile of a beta distribution, exactly
        from scipy.special import betaincinv

        top, count = values[-1], np.count_nonzero(x == values[-1])
        return float(lowest + (top - lowest) * betaincinv(count, len(x) + 1 - count, share))
    rng, drawn = np.random.default_rng(0), []
    rows = max(1, CHUNK // (len(x) + 1))
    for start in range(0, DRAWS, rows):
        w = rng.standard_exponential((min(rows, DRAWS - start), len(x) + 1))
        drawn.append((w[:, 1:] @ (x - lowest)) / w.sum(1))
    return float(lowest + np.quantile(np.concatenate(drawn), share))


def bca_interval(x: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of independent numbers (n,): BCa bootstrap (Efron 1987), fixed seed; a point if all are equal.

    For numbers that vary, such as means of runs or differences of returns. It does not know what was not seen: of returns
    that hide rare outcomes it covers far too rarely, see `mean_interval`.
    """
    x = np.asarray(x, float)
    mean = float(np.mean(x))
    if len(x) < 2 or np.ptp(x) == 0.0 or not np.isfinite(x).all():
        return mean, mean
    from scipy.stats import bootstrap

    found = bootstrap((x,), np.mean, n_resamples=2000, rng=np.random.default_rng(0)).confidence_interval
    return float(found.low), float(found.high)
