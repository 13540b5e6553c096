"""Trials that are given up: hopeless ones are, and slow starters that win in the end are not."""

from __future__ import annotations

import math
from statistics import median

import numpy as np
import pytest

from policygrad.algorithms.checked import ConfigError
from policygrad.training.pruning import Rule, gives_up, is_behind, promised

RULE = Rule()
PARTS = np.arange(1, RULE.rungs + 1) / RULE.rungs


def fast(best):
    """A learner that rises at once: best · (1 − e^(−6t))."""
    return list(best * (1 - np.exp(-6 * PARTS)))


def slow(best, middle=0.65, width=0.08):
    """A learner that rises late: a logistic curve."""
    return list(best / (1 + np.exp(-(PARTS - middle) / width)))


OTHERS = [fast(best) for best in (50.0, 60.0, 65.0, 70.0, 75.0, 80.0)]


def given_up_at(curve, others=OTHERS, rule=RULE):
    """The rung at which a trial is given up, None if it comes to its end."""
    return next((k for k in range(1, rule.rungs + 1) if gives_up(curve[:k], others, rule)), None)


def test_a_slow_starter_that_is_best_in_the_end_survives_and_a_hopeless_one_does_not():
    winner = slow(100.0)
    assert winner[-1] > max(other[-1] for other in OTHERS)
    assert all(winner[k] < min(other[k] for other in OTHERS) for k in range(3))  # the last one for half of the time
    assert given_up_at(winner) is None
    assert given_up_at([1.0] * RULE.rungs) == 3  # as soon as the rule may
    assert given_up_at(fast(25.0)) == 5  # it rises, and then no more


def test_rules_that_compare_values_alone_would_give_the_slow_starter_up():
    winner = slow(100.0)
    assert all(winner[k] < median(other[k] for other in OTHERS) for k in (1, 2))  # the median rule, from rung 2
    half = sorted([winner, *OTHERS], key=lambda curve: curve[2])[len(OTHERS) // 2 :]
    assert winner not in half  # successive halving at the third rung


def test_no_trial_that_ends_above_the_median_is_given_up_if_no_part_rises_more_than_twice_the_rise_before():
    """The theorem of the rule: such a curve ends at its promise or below, so that it is not behind at any rung."""
    rng, kept = np.random.default_rng(2), 0
    for _ in range(2000):
        rises = [rng.exponential(), rng.exponential()]
        while len(rises) < RULE.rungs:
            rises.append(rng.uniform(0, 2) * max(rises[-2:]) * rng.choice([0.5, 1.0]))
        curve = np.cumsum(rises) * rng.uniform(60, 120) / np.sum(rises)
        if curve[-1] >= median(other[-1] for other in OTHERS):
            kept += 1
            assert given_up_at(list(curve)) is None
    assert kept > 500


@pytest.mark.parametrize("width", [0.06, 0.08, 0.12])
@pytest.mark.parametrize("middle", [0.2, 0.35, 0.5, 0.6, 0.65, 0.7])
def test_logistic_learners_that_end_above_the_others_survive(middle, width):
    """But for one which has hardly moved in the first half: 4 of its 120 points."""
    winner = slow(120.0, middle, width)
    assert winner[-1] > max(other[-1] for other in OTHERS)
    assert (given_up_at(winner) is None) == ((middle, width) != (0.7, 0.06))


def test_learners_that_do_not_move_until_late_are_given_up_and_a_later_warmup_keeps_them():
    late = [0.0, 0.0, 0.0, 0.0, 100.0, 100.0]
    assert given_up_at(late) == 3
    assert given_up_at(late, rule=Rule(warmup=0.8)) is None
    assert given_up_at(late, rule=Rule(warmup=1.0)) is None


def test_hopeless_learners_with_noise_are_given_up_and_good_ones_are_not():
    rng, flat, good = np.random.default_rng(0), 0, 0
    others = [[x + rng.normal(0, 1.5) for x in other] for other in OTHERS]
    for _ in range(200):
        flat += given_up_at(list(5 + rng.normal(0, 1.0, RULE.rungs)), others) is not None
        good += given_up_at(list(np.array(fast(85.0)) + rng.normal(0, 3.0, RULE.rungs)), others) is not None
    assert flat >= 180
    assert good == 0


@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.0), (0.01, 5.0), (300.0, -1e4)])
def test_neither_the_unit_nor_the_origin_of_returns_matters(scale, shift):
    def moved(curve):
        return [scale * x + shift for x in curve]

    rng = np.random.default_rng(1)
    for _ in range(300):
        curve = list(np.cumsum(rng.normal(5, 15, RULE.rungs)))
        assert given_up_at(curve) == given_up_at(moved(curve), [moved(other) for other in OTHERS])


def test_nothing_is_given_up_without_enough_finished_trials_before_the_warmup_or_at_the_end():
    flat = [1.0] * RULE.rungs
    assert given_up_at(flat, OTHERS[:4]) is None
    assert given_up_at(flat, OTHERS[:5]) == 3
    pruned = [flat[:3]] * 20  # trials that were given up themselves are no finished ones
    assert given_up_at(flat, OTHERS[:4] + pruned) is None
    assert given_up_at(flat, rule=Rule(warmup=0.5)) == 4
    assert not gives_up(flat, OTHERS, RULE)


def test_trials_that_were_given_up_count_in_the_median_so_that_the_bar_does_not_rise_by_itself():
    low = [[2.0, 2.0, 2.0]] * 10
    curve = [5.0, 5.0, 5.0]
    assert is_behind(curve, OTHERS, RULE)
    assert not is_behind(curve, OTHERS + low, RULE)


def test_patience_asks_for_rungs_in_a_row():
    late = [1.0, 60.0, 1.0, 1.0, 1.0, 1.0]  # at the second rung it was ahead
    assert given_up_at(late) == 5  # the rise to the second rung and the fall after it are forgotten by then
    assert given_up_at(late, rule=Rule(patience=1)) == 4


def test_unknown_values_are_no_evidence():
    assert given_up_at([None] * 6) is None
    assert given_up_at([None, 1.0, 1.0, 1.0, 1.0, 1.0]) == 4  # at rung 2 there was no rise to judge by
    assert given_up_at([1.0] * 6, [[None] * 6] * 9) is None


def test_the_promise_is_the_sum_of_doubled_rises():
    assert promised([0.0, 3.0, 5.0], 3) == 5 + 3 * (2 + 4 + 8)
    assert promised([0.0, 1.0, 5.0], 1) == 5 + 4 * 2
    assert promised([9.0, 5.0, 4.0], 5) == 4.0
    assert promised([4.0], 5) is None


def test_decisions_are_after_the_warmup_and_the_patience():
    assert RULE.decisions == [3, 4, 5]
    assert Rule(warmup=0.0, patience=1).decisions == [1, 2, 3, 4, 5]
    assert Rule(warmup=1.0).decisions == []
    assert [RULE.steps_at(rung, 1000) for rung in (1, 3, 6)] == [166, 500, 1000]
    assert Rule(warmup=1 / 3).decisions == Rule(warmup=math.nextafter(1 / 3, 1)).decisions


@pytest.mark.parametrize(
    "words", [{"warmup": -0.1}, {"warmup": 1.5}, {"warmup": math.nan}, {"patience": 0}, {"rungs": 0}]
)
def test_rules_that_mean_nothing_are_refused(words):
    with pytest.raises(ConfigError, match="must be"):
        Rule(**words)
