"""The test behind verdicts: exact values, its level for many shapes of scores, and what bootstraps would have said."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from policygrad.reports.aggregates import improvement, interval, iqm
from policygrad.reports.differences import (
    arrangements,
    compare_scores,
    inverted,
    is_better,
    least_p,
    more_seeds,
    permutation_p,
    welch_p,
)

SHAPES = {  # of scores: (rng, size) → numbers
    "normal": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: rng.lognormal(sigma=1.0, size=size),
    "rare failures": lambda rng, size: np.where(rng.random(size) < 0.1, 9.0, 500.0 + rng.normal(size=size)),
    "two clusters": lambda rng, size: np.where(rng.random(size) < 0.5, 9.0, 500.0) + 1e-3 * rng.normal(size=size),
    "at the bound": lambda rng, size: np.where(rng.random(size) < 0.2, rng.uniform(100, 500, size), 500.0),
}
ALPHA, MANY = 0.05, 1000


def most(level: float = ALPHA, count: int = MANY) -> float:
    """The share of false verdicts that a test of this level exceeds by chance in one of 10,000 simulations."""
    return float(stats.binom.ppf(1 - 1e-4, count, level)) / count


@pytest.mark.parametrize("sizes", [(4, 4), (5, 5), (3, 6), (5, 4)])
def test_one_environment_is_the_exact_rank_test(sizes):
    rng = np.random.default_rng(0)
    for shift in (0.0, 1.0, 3.0):
        a, b = rng.normal(size=sizes[0]) + shift, rng.normal(size=sizes[1])
        expected = stats.mannwhitneyu(a, b, method="exact").pvalue
        assert permutation_p([a], [b]) == pytest.approx(min(expected, 1.0), abs=1e-12)


def test_several_environments_are_dealt_on_their_own():
    """Every way of dealing two environments of 2 + 2 and 2 + 1 runs, counted by a loop."""
    one, other = [np.array([3.0, 1.0]), np.array([5.0, 7.0])], [np.array([0.0, 2.0]), np.array([6.0])]
    pools = [np.concatenate(pair) for pair in zip(one, other, strict=True)]

    def deals(pool, count):
        for left in combinations(range(len(pool)), count):
            yield pool[list(left)], pool[[k for k in range(len(pool)) if k not in left]]

    far = []
    for a, b in deals(pools[0], 2):
        for c, d in deals(pools[1], 2):
            far.append(abs(float(improvement([a, c], [b, d])) - 0.5))
    seen = abs(float(improvement(one, other)) - 0.5)
    assert len(far) == 6 * 3
    assert permutation_p(one, other) == pytest.approx(np.mean(np.array(far) >= seen - 1e-9))


def test_drawn_ways_begin_with_the_actual_one():
    orders = arrangements(((10, 10),), 500)[0]
    assert orders.shape == (500, 20)
    assert (orders[0] == np.arange(20)).all()
    assert (np.sort(orders, 1) == np.arange(20)).all()
    assert permutation_p([np.arange(10.0) + 100], [np.arange(10.0)], ways=500) >= 1 / 500  # never 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_equal_sides_are_called_different_no_more_often_than_the_level_says(shape, seeds):
    rng = np.random.default_rng(seeds)
    test = welch_p if seeds == 3 else lambda a, b: permutation_p(a, b, 400)
    draws = (SHAPES[shape](rng, (2, seeds)) for _ in range(MANY))
    assert np.mean([test([a], [b]) <= ALPHA for a, b in draws]) <= most()


def test_a_bootstrap_of_few_seeds_would_not_keep_the_level():
    """The negative control: intervals of the difference that exclude 0, of equal sides."""
    rng, false = np.random.default_rng(0), 0
    for _ in range(300):
        a, b = [rng.normal(size=3)], [rng.normal(size=3)]
        low, high = interval(lambda x, y: iqm(x) - iqm(y), a, b, draws=300)
        false += not low <= 0 <= high
    assert false / 300 > 2 * ALPHA


def test_several_sides_share_the_level():
    """Four equal sides, six comparisons: any false verdict among them."""
    rng, pairs, false = np.random.default_rng(0), list(combinations(range(4), 2)), 0
    alone = 0
    for _ in range(500):
        sides = rng.lognormal(size=(4, 6))
        ps = [permutation_p([sides[i]], [sides[j]]) for i, j in pairs]
        false += min(ps) * len(pairs) <= ALPHA
        alone += min(ps) <= ALPHA
    assert false / 500 <= most(count=500)
    assert alone / 500 > 2 * ALPHA  # without an adjustment


@pytest.mark.parametrize("shape", ["normal", "at the bound", "two clusters"])
def test_the_interval_excludes_no_difference_exactly_with_a_verdict(shape):
    rng, verdicts = np.random.default_rng(1), set()
    for shift in np.linspace(0, 3, 40):
        a, b = SHAPES[shape](rng, (2, 6))
        found = compare_scores([a + shift], [b])
        assert found.low <= found.estimate <= found.high
        assert found.verdict == 0 or found.p <= ALPHA
        if found.verdict:
            assert found.low >= 0 or found.high <= 0
        else:
            assert found.low <= 0 <= found.high
        if shape != "at the bound":  # where no score of one side is one of the other
            assert found.verdict == int(found.low > 0) - int(found.high < 0)
        assert (found.more_seeds == 0) == (found.verdict != 0)
        verdicts.add(found.verdict)
        mirrored = compare_scores([b], [a + shift])
        assert (mirrored.low, mirrored.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
        assert mirrored.verdict == -found.verdict
    assert 1 in verdicts or shape == "two clusters"


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_the_quick_answer_is_that_of_the_whole_comparison(seeds):
    rng, answers = np.random.default_rng(2), set()
    for shift in np.linspace(-4, 4, 25):
        a, b = rng.normal(size=(2, seeds)).round(1)
        answer = is_better([a + shift], [b])
        assert answer == (compare_scores([a + shift], [b]).verdict > 0)
        answers.add(answer)
    assert answers == ({False} if seeds == 2 else {False, True})


def test_the_interval_covers_the_true_shift():
    rng, missed = np.random.default_rng(0), 0
    for _ in range(400):
        a, b = rng.standard_t(3, (2, 6))
        low, high = inverted([a + 5], [b], ALPHA)
        missed += not low <= 5 <= high
    assert 0 < missed / 400 <= most(count=400)


def test_the_interval_is_the_set_of_shifts_that_are_not_refused():
    rng = np.random.default_rng(3)
    one, other = [rng.normal(size=5), rng.normal(size=4)], [rng.normal(size=5) - 1, rng.normal(size=5)]
    low, high = inverted(one, other, ALPHA)
    for shift in np.linspace(low - 2, high + 2, 101):
        kept = permutation_p([x - shift for x in one], other) > ALPHA
        assert kept == (low <= shift <= high)


def test_an_environment_that_both_sides_solve_does_not_hide_the_other():
    """Every score of the first environment is at its bound, where each shift of one side alone would decide everything."""
    solved, one, other = np.ones(6), np.linspace(0.6, 0.9, 6), np.linspace(0.1, 0.4, 6)
    found = compare_scores([solved, one], [solved, other])
    assert (found.verdict, found.low) == (1, 0.0)
    assert compare_scores([solved, other], [solved, one]).verdict == -1
    assert compare_scores([solved, other], [solved, other]).verdict == 0


def test_a_verdict_needs_both_measures_on_one_side():
    found = compare_scores([np.full(8, 1.0)], [np.full(8, 0.9)])
    assert found.verdict == 1
    opposed = replace(found, estimate=-0.1)
    assert opposed.verdict == 0


def test_sides_without_overlap_are_told_apart_by_five_seeds():
    found = compare_scores([np.full(5, 500.0)], [np.full(5, 9.0)])
    assert (found.verdict, found.estimate, found.low, found.high) == (1, 491.0, 491.0, 491.0)
    assert found.p == pytest.approx(2 / math.comb(10, 5))


def test_equal_scores_are_no_difference():
    found = compare_scores([np.full(5, 500.0)], [np.full(5, 500.0)])
    assert (found.verdict, found.p, found.low, found.high, found.more_seeds) == (0, 1.0, 0.0, 0.0, None)


def test_three_seeds_are_told_apart_by_welch():
    a, b = np.array([490.0, 480.0, 470.0]), np.array([100.0, 150.0, 90.0])
    found = compare_scores([a], [b])
    assert (found.method, found.verdict) == ("welch", 1)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    ends = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(ends.low), pytest.approx(ends.high))


def test_where_no_verdict_is_possible_the_seeds_are_named():
    apart = [np.array([1.0, 2.0, 3.0]) + 100], [np.array([1.0, 2.0, 3.0])]
    found = compare_scores(*apart, comparisons=3)  # two clusters would deceive Welch's t too often
    assert (found.method, found.verdict, found.low, found.high) == ("permutation", 0, -math.inf, math.inf)
    assert least_p(*apart) == pytest.approx(0.1)
    assert found.more_seeds is not None
    enough = 3 + found.more_seeds
    assert compare_scores([np.arange(enough) + 100.0], [np.arange(enough) * 1.0], comparisons=3).verdict == 1
    assert compare_scores([np.full(3, 5.0)], [np.full(3, 1.0)]).verdict == 0  # no spread: 20 ways, p = 0.1


def test_the_number_of_seeds_that_is_named_finds_the_difference():
    """A shift of one standard deviation: P = Φ(1/√2) = 0.760, which Noether's formula gives about 19 seeds for 80 %."""
    rng = np.random.default_rng(0)
    one, other = [rng.normal(size=4000) + 1], [rng.normal(size=4000)]
    chance = float(improvement(one, other))
    expected = math.ceil((1.959964 + 0.841621) ** 2 / (6 * (chance - 0.5) ** 2))
    quantiles = stats.norm.ppf(np.linspace(0.1, 0.9, 5))
    few = [quantiles + 1], [quantiles]
    formula = (1.959964 + 0.841621) ** 2 / (6 * (float(improvement(*few)) - 0.5) ** 2)
    assert more_seeds(*few, ALPHA) == math.ceil(formula) - 5
    assert 17 <= expected <= 21
    found = sum(
        permutation_p([rng.normal(size=expected) + 1], [rng.normal(size=expected)], 400) <= ALPHA for _ in range(200)
    )
    assert 0.7 <= found / 200 <= 0.92


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ([], [], "same environments"),
        ([np.ones(3)], [np.ones(3), np.ones(3)], "same environments"),
        ([np.array([1.0, math.nan])], [np.ones(2)], "finite"),
        ([np.array([])], [np.ones(2)], "finite"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(one, other, words):
    with pytest.raises(ValueError, match=words):
        compare_scores(one, other)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match="level"):
        compare_scores([np.ones(3)], [np.ones(3)], level=level)
