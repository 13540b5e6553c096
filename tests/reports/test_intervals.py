"""Intervals for a mean return: exact for two values, valid where outcomes are rare, and no point where something is unknown."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from policygrad.html import decimals, interval_text
from policygrad.reports.intervals import DRAWS, bca_interval, mean_interval

SAMPLE = np.array([3.0, 1.0, 7.5, 4.0, 4.5])
RANGE = (-2.0, 9.0)


def successes(n: int, k: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [k, n - k])


def exact_coverage(intervals: list[tuple[float, float]], rate: float) -> float:
    """The probability that the interval of so many successes has their rate in it, summed over all numbers of successes."""
    n = len(intervals) - 1
    chances = stats.binom.pmf(np.arange(n + 1), n, rate)
    return float(sum(p for p, (low, high) in zip(chances, intervals, strict=True) if low <= rate <= high))


@pytest.mark.parametrize("n", [1, 10, 30, 100])
def test_of_two_values_it_is_the_interval_of_clopper_and_pearson_and_covers_at_every_rate(n):
    found = [mean_interval(successes(n, k), (0.0, 1.0)) for k in range(n + 1)]
    for k, ends in enumerate(found):
        assert ends == pytest.approx(tuple(stats.binomtest(k, n).proportion_ci(0.95, "exact")), abs=1e-12)
    assert min(exact_coverage(found, rate) for rate in np.arange(1, 1000) / 1000) >= 0.95


def test_the_bootstrap_does_not_cover_rare_failures():
    """The negative control: what is tested above does fail for the interval that was used before."""
    found = [bca_interval(successes(10, k)) for k in range(11)]
    assert exact_coverage(found, 0.98) < 0.25
    assert exact_coverage(found, 0.66) > 0.9


@pytest.mark.parametrize(("x", "known"), [(500.0, (8.0, 500.0)), (0.0, (-1.0, 3.0)), (-4.0, (-4.0, -1.0))])
def test_of_equal_returns_it_leaves_the_probability_that_an_unseen_outcome_can_have(x, known):
    found = [mean_interval([x] * n, known) for n in range(1, 101)]
    for n, (low, high) in enumerate(found, 1):
        unseen = 1.0 - 0.025 ** (
            1.0 / n
        )  # at this probability of another outcome, all n are equal in 2.5 % of the cases
        assert low == pytest.approx(x - unseen * (x - known[0]), abs=1e-9)
        assert high == pytest.approx(x + unseen * (known[1] - x), abs=1e-9)
        assert low < high
    for (low, high), (lower, higher) in pairwise(found):  # more episodes never make it wider
        assert low <= lower
        assert higher <= high


def distribution(t: float, points: np.ndarray) -> float:
    """P(Σ wᵢ yᵢ ≤ t), w uniform on the weights that sum to 1, of distinct points (m,): the integral of a B-spline."""
    m = len(points)
    terms = [(t - y) ** (m - 1) / np.prod([z - y for z in points if z != y]) for y in points if y < t]
    return float(np.sum(terms))


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_its_ends_are_quantiles_of_the_mean_with_random_weights_and_one_return_more(level):
    low, high = mean_interval(SAMPLE, RANGE, level)
    share = (1.0 - level) / 2.0
    error = 4.0 * math.sqrt(share * (1.0 - share) / DRAWS)
    assert distribution(low, np.array([*SAMPLE, RANGE[0]])) == pytest.approx(share, abs=error)
    assert distribution(high, np.array([*SAMPLE, RANGE[1]])) == pytest.approx(1.0 - share, abs=error)


def test_it_moves_and_stretches_with_the_returns_and_does_not_know_their_order():
    low, high = mean_interval(SAMPLE, RANGE)
    moved = mean_interval(100.0 + 1e-3 * SAMPLE, (100.0 + 1e-3 * RANGE[0], 100.0 + 1e-3 * RANGE[1]))
    assert moved == pytest.approx((100.0 + 1e-3 * low, 100.0 + 1e-3 * high), abs=1e-12)
    assert mean_interval(-SAMPLE, (-RANGE[1], -RANGE[0])) == pytest.approx((-high, -low), abs=1e-12)
    assert mean_interval(SAMPLE[::-1], RANGE) == (low, high)


def test_a_wider_range_never_makes_it_narrower_and_returns_outside_widen_the_range():
    ends = [mean_interval(SAMPLE, known) for known in (None, (0.0, 8.0), RANGE, (-100.0, 100.0))]
    for (low, high), (lower, higher) in pairwise(ends):
        assert lower <= low < high <= higher
    assert mean_interval(SAMPLE, (2.0, 3.0)) == mean_interval(SAMPLE)
    assert mean_interval(SAMPLE, (1.0, 7.5)) == mean_interval(SAMPLE)


@pytest.mark.parametrize("x", [[], [3.0], [500.0] * 100, [1.0, math.nan], [1.0, math.inf]])
def test_where_no_other_return_is_known_to_be_possible_it_has_no_ends(x):
    assert mean_interval(x) == (-math.inf, math.inf)


def test_a_range_that_is_a_point_is_no_range():
    assert mean_interval([5.0, 5.0], (5.0, 5.0)) == (-math.inf, math.inf)


def landings(rng: np.random.Generator, n: int) -> np.ndarray:
    """Nine of ten episodes land, one crashes."""
    return np.where(rng.random(n) < 0.1, rng.normal(0.0, 80.0, n), rng.normal(265.0, 20.0, n))


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.lognormal(size=n)


def covered(kind, shape, mean: float, repeats: int) -> int:
    """How often the interval of ten returns has the mean in it; the range is that of 1,000 training episodes."""
    rng, count = np.random.default_rng(1), 0
    for _ in range(repeats):
        x, training = shape(rng, 10), shape(rng, 1000)
        low, high = kind(x, (training.min(), training.max()))
        count += low <= mean <= high
    return count


@pytest.mark.parametrize(("shape", "mean"), [(landings, 238.5), (skewed, math.exp(0.5))])
def test_it_covers_mixtures_and_skewed_returns_at_its_rate(shape, mean):
    assert covered(mean_interval, shape, mean, 250) >= stats.binom.ppf(0.001, 250, 0.95)
    assert covered(lambda x, _: bca_interval(x), shape, mean, 80) < stats.binom.ppf(0.001, 80, 0.95)


def test_many_returns_of_a_narrow_range_give_the_interval_of_the_normal_distribution():
    x = np.random.default_rng(0).uniform(size=500)
    low, high = mean_interval(x, (0.0, 1.0))
    half = (high - low) / 2 / (np.std(x) / np.sqrt(len(x)))
    added = 0.5 / np.std(x) / np.sqrt(len(x))  # one return more, at an end
    assert half == pytest.approx(1.96 + added, abs=0.06)  # three standard errors of the quantiles of so many draws


def test_an_interval_is_never_printed_as_a_point():
    assert interval_text((348.2, 500.0)) == "[348.2, 500.0]"
    assert interval_text((1348.25, 1500.0)) == "[1,348.2, 1,500.0]"
    assert interval_text((0.964, 1.0)) == "[0.964, 1.000]"
    assert interval_text((500.0, 500.0)) == "all equal"
    assert interval_text((-math.inf, math.inf)) == interval_text([None, None]) == "not bounded"
    for width in 10.0 ** np.arange(-5, 4):
        low, high = interval_text((1.0, 1.0 + width))[1:-1].replace(",", "").split()
        assert float(low) < float(high)
        assert decimals(1.0, 1.0 + width) <= 6
