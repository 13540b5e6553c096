"""Which of two sides is better, by how much and how surely: a test that keeps its level for any scores and any few seeds.

**The test** is a stratified permutation test of P(improvement), the probability that a run of one side scores above a run of
the other, averaged over environments. For one environment it is the exact Wilcoxon–Mann–Whitney test. If both sides are the
same, every way of dealing the runs of an environment to the two sides is equally likely, so the share of ways that are at
least as far from 1/2 as the one seen is a p-value that is valid for every distribution of scores and every number of runs,
also where failures are rare and spreads are zero. Where there are more than `WAYS` ways, that many are drawn, the actual one
among them, which keeps the test valid (Phipson and Smyth 2010). A bootstrap of 3 or 5 seeds is not valid: its intervals are
too short, and of 3 seeds it calls equal sides different in every fifth comparison (`benchmarks/calibration.py`). A permutation
test of the interquartile mean itself is valid, but blind: of 5 runs it ignores the best and the worst, so that even two sides
without any overlap have p = 0.2.

**3 seeds.** Two sides of 3 runs can be dealt in 20 ways, so no p-value is below 0.1. There, and only for a single comparison
in one environment, the test is Welch's t of the means, which are the interquartile means of 3 runs. Its weak point is scores
of two tight clusters: both sides fall into different ones with probability 2·2⁻⁶ = 0.031 at most, which is below a level of
0.05. For several comparisons, or for 2 runs, it would not be: no verdict is possible there, and the text names the seeds that
one would need.

**The interval** of the difference of interquartile means holds the shifts that the test does not refuse: one side, shifted by
so much, would not differ from the other (for one environment, the interval of Hodges and Lehmann 1963). Where there is a
verdict it excludes 0, or ends there if scores of both sides are equal. Several comparisons share the level equally
(Bonferroni), so that the probability of any false verdict among them is at most 1 − level.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product

import numpy as np
from scipy import stats

from policygrad.reports.aggregates import Scores, improvement, interval, iqm

WAYS = 5000  # of dealing runs to sides, at most
POWER = 0.8  # with which the number of seeds that is named would find the difference that is seen
MOST_SEEDS = 1000  # that are named


@dataclass(frozen=True)
class Difference:
    """One side minus another: interquartile means, in the unit of the scores.

    low, high: the ends of the interval; infinite where so few runs cannot bound it. p: of the one comparison; p_adjusted:
    min(1, p · comparisons). method: "permutation" or "welch". improvement: P(improvement) of one over the other, with its
    bootstrap interval. more_seeds: per side, until the test would probably find the difference that is seen; 0 with a
    verdict, None for more than 1,000 or where no difference is seen.
    """

    estimate: float
    low: float
    high: float
    p: float
    p_adjusted: float
    level: float
    comparisons: int
    method: str
    improvement: float
    improvement_interval: tuple[float, float]
    more_seeds: int | None

    @property
    def verdict(self) -> int:
        """1 if the first side is better, −1 if the second is, 0 if the runs cannot tell.

        A side is better if the test refuses that both are the same, and both P(improvement) and the difference are in favour
        of that side.
        """
        agree = self.estimate * (self.improvement - 0.5) > 0
        return int(np.sign(self.estimate)) if agree and self.p_adjusted <= 1 - self.level + 1e-12 else 0


def compare_scores(
    one: Scores, other: Scores, *, level: float = 0.95, comparisons: int = 1, ways: int = WAYS
) -> Difference:
    """Compare two sides. one, other: per environment (runs,), in one order of environments.

    level: 1 − the probability of a false verdict among all `comparisons`, of which this is one.
    Raises ValueError for sides without runs or of different environments, and for numbers that are not finite.
    """
    one, other = [np.asarray(x, float) for x in one], [np.asarray(x, float) for x in other]
    _check(one, other)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level = {level} must be between 0 and 1, e.g. 0.95")
    share = (1 - level) / comparisons
    by_welch = _uses_welch(one, other, share)
    p = welch_p(one, other) if by_welch else permutation_p(one, other, ways)
    low, high = welch_interval(one, other, share) if by_welch else inverted(one, other, share, ways)
    estimate = float(iqm(one) - iqm(other))
    method = "welch" if by_welch else "permutation"
    chances = float(improvement(one, other)), interval(improvement, one, other, level=level)
    adjusted = min(1.0, p * comparisons)
    found = Difference(estimate, low, high, p, adjusted, level, comparisons, method, *chances, more_seeds=0)
    if found.verdict > 0:
        return replace(found, low=max(0.0, min(low, estimate)), high=max(high, estimate))
    if found.verdict < 0:
        return replace(found, low=min(low, estimate), high=min(0.0, max(high, estimate)))
    ends = {"low": min(low, estimate, 0.0), "high": max(high, estimate, 0.0)}
    return replace(found, **ends, more_seeds=more_seeds(one, other, share))


def is_better(one: Scores, other: Scores, *, level: float = 0.95, ways: int = WAYS) -> bool:
    """Whether `compare_scores` calls the first side better, without its intervals, which take most of its time."""
    one, other = [np.asarray(x, float) for x in one], [np.asarray(x, float) for x in other]
    _check(one, other)
    if not (iqm(one) > iqm(other) and improvement(one, other) > 0.5):
        return False
    p = welch_p(one, other) if _uses_welch(one, other, 1 - level) else permutation_p(one, other, ways)
    return p <= 1 - level + 1e-12


def _check(one: Scores, other: Scores) -> None:
    if not one or len(one) != len(other):
        raise ValueError(f"both sides need scores of the same environments, got {len(one)} and {len(other)} of them")
    for x in (*one, *other):
        if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
            raise ValueError(f"scores of an environment must be one finite number per run, got {x}")


def permutation_p(one: Scores, other: Scores, ways: int = WAYS) -> float:
    """The two-sided p-value: the share of ways of dealing runs whose P(improvement) is at least as far from 1/2 as seen."""
    chances = np.zeros(1)
    dealt = arrangements(tuple((len(a), len(b)) for a, b in zip(one, other, strict=True)), ways)
    for a, b, order in zip(one, other, dealt, strict=True):
        ranks = stats.rankdata(np.concatenate([a, b]))  # of the pooled runs; equal scores share their mean rank
        sums = ranks[order[:, : len(a)]].sum(1)
        chances = chances + (sums - len(a) * (len(a) + 1) / 2) / (len(a) * len(b))  # U / (a·b) = P(improvement)
    far = np.abs(chances / len(one) - 0.5)
    return float((far >= far[0] - 1e-9).mean())  # the first way is the actual one


@cache
def arrangements(sizes: tuple[tuple[int, int], ...], ways: int) -> list[np.ndarray]:
    """Per environment (K, a + b): ways of ordering its runs, of which the first a are one side; the actual way comes first.

    All of them if there are `ways` or fewer; otherwise that many, drawn independently per environment by a fixed seed.
    """
    if math.prod(math.comb(a + b, a) for a, b in sizes) <= ways:
        each = [
            [(*left, *sorted({*range(a + b)} - {*left})) for left in combinations(range(a + b), a)] for a, b in sizes
        ]
        return [np.array(orders) for orders in zip(*product(*each), strict=True)]
    rng = np.random.default_rng(0)
    drawn = [rng.permuted(np.tile(np.arange(a + b), (ways, 1)), axis=1) for a, b in sizes]
    for order in drawn:
        order[0] = np.arange(order.shape[1])
    return drawn


def least_p(one: Scores, other: Scores) -> float:
    """The smallest p-value that so many runs allow: both dealings that separate the sides, of all."""
    ways = math.prod(math.comb(len(a) + len(b), len(a)) for a, b in zip(one, other, strict=True))
    equal = all(len(a) == len(b) for a, b in zip(one, other, strict=True))
    return (2 if equal else 1) / ways


def _uses_welch(one: Scores, other: Scores, share: float) -> bool:
    """Whether the permutation test can never find anything and Welch's t is still valid; see the head of this file."""
    few = len(one) == 1 and min(len(one[0]), len(other[0])) >= 2 and max(len(one[0]), len(other[0])) <= 3
    return few and least_p(one, other) > share >= 2 * 0.5 ** (len(one[0]) + len(other[0]))


def welch(one: Scores, other: Scores) -> tuple[float, float, float]:
    """The difference of the means, its standard error, and the degrees of freedom (Welch 1947)."""
    a, b = (x[0].var(ddof=1) / len(x[0]) for x in (one, other))
    freedom = (a + b) ** 2 / (a**2 / (len(one[0]) - 1) + b**2 / (len(other[0]) - 1)) if a + b > 0 else 1.0
    return float(one[0].mean() - other[0].mean()), math.sqrt(a + b), float(freedom)


def welch_p(one: Scores, other: Scores) -> float:
    """Welch's two-sided p-value; where neither side varies, the permutation test's."""
    gap, error, freedom = welch(one, other)
    return float(2 * stats.t.sf(abs(gap) / error, freedom)) if error > 0 else permutation_p(one, other)


def welch_interval(one: Scores, other: Scores, share: float) -> tuple[float, float]:
    """Welch's interval, which misses the difference with probability `share`; infinite where neither side varies."""
    gap, error, freedom = welch(one, other)
    room = float(stats.t.isf(share / 2, freedom)) * error if error > 0 else math.inf
    return gap - room, gap + room


def inverted(one: Scores, other: Scores, share: float, ways: int = WAYS) -> tuple[float, float]:
    """The smallest and the largest shift of the first side that the permutation test does not refuse.

    The answer changes only where a shift makes two scores of an environment equal, at the gaps between the sides, so it is
    asked for once between neighbouring gaps. P(improvement) falls from 1 to 0 as the shift grows, and the shifts that are not
    refused are a single interval around 1/2.
    """
    gaps = np.unique(np.concatenate([(a[:, None] - b).ravel() for a, b in zip(one, other, strict=True)]))
    width = float(gaps[-1] - gaps[0]) + abs(float(gaps[0])) + 1.0
    shifts = np.concatenate([[gaps[0] - width], (gaps[1:] + gaps[:-1]) / 2, [gaps[-1] + width]])  # one per stretch

    def kept(stretch: int) -> bool:
        return permutation_p([x - shifts[stretch] for x in one], other, ways) > share

    stretches = range(len(shifts))
    above = bisect_left(stretches, True, key=lambda k: bool(improvement([x - shifts[k] for x in one], other) < 0.5))
    middle = [k for k in (above - 1, above) if kept(k)]
    if not middle:  # the sides are equal after one shift, and apart after every other
        return float(gaps[above - 1]), float(gaps[above - 1])
    first = bisect_left(stretches, True, hi=middle[0], key=kept)
    last = bisect_left(stretches, True, lo=middle[-1], key=lambda k: not kept(k)) - 1
    low = float(gaps[first - 1]) if first > 0 else -math.inf
    return low, float(gaps[last]) if last < len(gaps) else math.inf


def more_seeds(one: Scores, other: Scores, share: float) -> int | None:
    """About how many more seeds per side would show the P(improvement) that is seen, with a probability of 80 %.

    n' = (z_{1−share/2} + z_{0.8})² / (6 m (P − 1/2)²) runs per side in each of m environments (Noether 1987), and at least as
    many as the test needs to be able to find anything. None for more than 1,000, or if P is 1/2.
    """
    runs = min(len(x) for x in (*one, *other))
    least = next(n for n in range(1, MOST_SEEDS) if 2 / math.comb(2 * n, n) ** len(one) <= share)
    far = abs(float(improvement(one, other)) - 0.5)
    quantiles = float(stats.norm.isf(share / 2) + stats.norm.ppf(POWER))
    needed = quantiles**2 / (6 * len(one) * far**2) if far > 1e-9 else math.inf
    return max(math.ceil(needed), least, runs + 1) - runs if needed <= MOST_SEEDS else None
