"""Aggregates of scores: against rliable, against scipy, by definition, and on cases that can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from policygrad.reports import aggregates

# 5 and 4 runs in 3 environments, and what rliable 1.2.0's metrics say of them
X = np.array([[1.5, 200, -3], [2.5, 180, -1], [0.5, 220, -7], [9.0, 150, -2], [3.5, 199, -2.5]])
Y = np.array([[1.0, 210, -3], [2.5, 230, -4], [4.5, 190, -1], [2.0, 185, -2]])
RLIABLE = {"iqm": 38.22222222222222, "mean": 63.366666666666674, "median": 3.4}
RECORDED = json.loads(Path(__file__).with_name("rliable.json").read_text("utf8"))
LEVELS = np.array([-5.0, -2.0, 2.5, 190.0, 300.0])


def by_env(matrix):
    return list(matrix.T)


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: f"{len(case['one'][0])}x{len(case['one'])}")
def test_recorded_numbers_of_rliable_are_ours(case):
    """All runs of one environment are a row. With the versions in the file: rliable 1.2.0 needs pandas below 3."""
    one, other = ([np.array(scores) for scores in case[name]] for name in ("one", "other"))
    for name in ("iqm", "mean", "median", "optimality_gap"):
        assert float(getattr(aggregates, name)(one)) == pytest.approx(case[name], abs=1e-12), name
    assert float(aggregates.improvement(one, other)) == pytest.approx(case["improvement"], abs=1e-12)
    levels = np.array(RECORDED["levels"])
    assert aggregates.profile(one, levels).tolist() == pytest.approx(case["profile"], abs=1e-12)
    flat = [aggregates.mean([x]) for x in one]  # the profile of environments' means is another one
    averages = [float(np.mean(np.array(flat) > level)) for level in levels]
    assert averages == pytest.approx(case["average_profile"], abs=1e-12)
    assert len(one) == 1 or averages != pytest.approx(case["profile"], abs=1e-3)


@pytest.mark.parametrize(("name", "value"), RLIABLE.items())
def test_aggregates_are_rliables_numbers(name, value):
    assert getattr(aggregates, name)(by_env(X)) == pytest.approx(value, rel=1e-12)


def test_improvement_is_rliables_number():
    assert aggregates.improvement(by_env(X), by_env(Y)) == pytest.approx(0.45, abs=1e-12)
    assert aggregates.improvement(by_env(Y), by_env(X)) == pytest.approx(0.55, abs=1e-12)  # ties count half


def test_aggregates_are_rliables_functions():
    metrics = pytest.importorskip("rliable.metrics")
    rng = np.random.default_rng(0)
    for runs, envs in ((3, 1), (5, 4), (10, 3), (7, 6)):
        one, other = rng.standard_t(3, (runs, envs)), rng.standard_t(3, (runs + 1, envs)).round(1)
        for name in ("iqm", "mean", "median", "optimality_gap"):
            ours = getattr(aggregates, name)(by_env(one))
            assert ours == pytest.approx(getattr(metrics, f"aggregate_{name}")(one), abs=1e-12)
        ours = aggregates.improvement(by_env(one.round(1)), by_env(other))
        assert ours == pytest.approx(metrics.probability_of_improvement(one.round(1), other), abs=1e-12)


def test_a_profile_is_the_share_of_runs_above_each_level():
    assert aggregates.profile(by_env(X), LEVELS) == pytest.approx([np.mean(level < X) for level in LEVELS])
    assert aggregates.profile(by_env(X), np.array([200.0])) == pytest.approx(1 / 15)  # strictly above, as rliable


@pytest.mark.parametrize("runs", [1, 3, 4, 5, 8, 11])
def test_the_trimmed_mean_is_scipys(runs):
    x = np.random.default_rng(runs).normal(size=(6, runs))
    assert aggregates.trimmed_mean(x) == pytest.approx(stats.trim_mean(x, 0.25, axis=1), abs=1e-12)


def test_intervals_resample_within_environments():
    far = [np.array([0.0, 1.0, 2.0]), np.array([1000.0, 1001.0, 1002.0])]
    low, high = aggregates.interval(aggregates.mean, far)
    assert 500 <= low < 501 < high <= 502  # mixing environments would reach from 0 to 1002
    rng = np.random.default_rng(0)
    drawn = aggregates.resampled(far, 4, rng)
    assert drawn[0].max() <= 2
    assert drawn[1].min() >= 1000


def test_a_bootstrap_interval_of_many_runs_is_the_normal_one():
    x = np.random.default_rng(0).normal(size=400)
    low, high = aggregates.interval(aggregates.mean, [x])
    room = 1.96 * x.std() / 20
    assert (low, high) == (pytest.approx(x.mean() - room, abs=0.01), pytest.approx(x.mean() + room, abs=0.01))
    narrow = aggregates.interval(aggregates.mean, [x], level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_seed_decides_an_interval():
    x = [np.arange(7.0)]
    assert aggregates.interval(aggregates.iqm, x) == aggregates.interval(aggregates.iqm, x)
    assert aggregates.interval(aggregates.iqm, x) != aggregates.interval(aggregates.iqm, x, level=0.6)


@pytest.mark.parametrize(
    ("curve", "fell"),
    [
        ([10, 100, 54], True),  # the middle is 55
        ([10, 100, 55], False),
        ([10, 100, 100], False),
        ([-200, -100, -160], True),
        ([50, 40], True),  # never above its first value, and below it at the end
        ([50, 50], False),
        ([50], False),
        ([], False),
    ],
)
def test_a_run_has_collapsed_below_the_middle_of_its_way_up(curve, fell):
    assert aggregates.collapsed(np.array(curve, float)) is fell


def test_survival_of_a_textbook_sample():
    """Kaplan and Meier's own example: deaths at 0.8, 3.1, 5.4, 9.2 months, losses at 1.0, 2.7, 7.0, 12.1 of 8 items."""
    times = np.array([0.8, 1.0, 2.7, 3.1, 5.4, 7.0, 9.2, 12.1])
    died = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    at, share = aggregates.survival(times, died)
    assert at == pytest.approx([0.8, 3.1, 5.4, 9.2])
    assert share == pytest.approx([7 / 8, 7 / 8 * 4 / 5, 7 / 8 * 4 / 5 * 3 / 4, 7 / 8 * 4 / 5 * 3 / 4 * 1 / 2])
    found = stats.ecdf(stats.CensoredData.right_censored(times, ~died)).sf
    assert share == pytest.approx(found.evaluate(at))


def test_censored_runs_are_not_left_out():
    """Of four runs one reached the goal: half of them did not, though all of those that did were fast."""
    times, reached = np.array([10.0, 100.0, 100.0, 100.0]), np.array([True, False, False, False])
    assert aggregates.median_time(times, reached) is None
    assert aggregates.median_time(times[:1], reached[:1]) == 10.0
    assert aggregates.median_time(np.array([10.0, 20.0, 30.0, 40.0]), np.ones(4, bool)) == 20.0
    assert aggregates.median_time(times, ~reached.copy() & False) is None
