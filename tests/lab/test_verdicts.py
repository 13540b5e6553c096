"""The test of a mean: its level, its power, its interval; negative controls that it must not pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from policygrad.lab.auditing.verdicts import judge, mean_interval, power_sums, variance_interval

SPECTRA = {
    "one direction": [1.0],
    "equal": [1.0] * 5,
    "falling": [2.0**-i for i in range(12)],
    "one large, many small": [1.0] + [0.02] * 30,
    "more parameters than estimates": [1.0 / (1 + i) for i in range(80)],
}
REPEATS, R = 1000, 40


def gaussian(spectrum: list[float], seed: int, n: int = REPEATS * R) -> Tensor:
    noise = torch.randn(n, len(spectrum), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise * torch.tensor(spectrum, dtype=torch.float64).sqrt()


def within(share: float, expected: float, n: int, sigmas: float = 4.0) -> bool:
    return abs(share - expected) <= sigmas * math.sqrt(expected * (1.0 - expected) / n)


@pytest.mark.parametrize("name", SPECTRA)
def test_without_bias_p_values_are_uniform(name):
    samples = gaussian(SPECTRA[name], 0).split(R)
    reference = torch.zeros(len(SPECTRA[name]), dtype=torch.float64)
    p = torch.tensor([judge(sample, reference).p for sample in samples])
    for alpha in (0.01, 0.05, 0.2, 0.5):
        assert within(float((p < alpha).double().mean()), alpha, REPEATS), alpha


def test_a_bias_is_seen_and_the_interval_holds_it():
    spectrum = SPECTRA["falling"]
    shift = torch.full((len(spectrum),), 0.25, dtype=torch.float64)
    samples = (gaussian(spectrum, 1) + shift).split(R)
    judged = [judge(sample, torch.zeros_like(shift), alpha=0.05) for sample in samples]
    assert sum(j.biased for j in judged) >= 0.8 * REPEATS
    covered = [j.interval[0] <= float(shift.norm()) <= j.interval[1] for j in judged]
    assert sum(covered) >= 0.95 * REPEATS  # of a ball around the bias: more often than it must
    assert all(j.biased == (j.interval[0] > 0.0) == (j.p < 0.05) for j in judged)


def test_a_test_that_takes_all_directions_for_equal_would_call_bias_what_is_none():
    """The negative control: with the mean of λ for each of them the level of 1 % becomes many times that."""
    spectrum = SPECTRA["one large, many small"]
    total = sum(spectrum)
    p = []
    for sample in gaussian(spectrum, 0).split(R):
        x = R * sample.mean(0).square().sum() / total * len(spectrum)
        p.append(torch.special.gammaincc(torch.tensor(len(spectrum) / 2.0), x / 2.0))
    assert (torch.stack(p) < 0.01).double().mean() > 0.05


def test_estimates_that_never_vary_refute_nothing():
    reference = torch.tensor([1.0, -2.0], dtype=torch.float64)
    right, off = (judge(reference.expand(10, 2) + by, reference) for by in (0.0, 1e-3))
    assert right.p == off.p == 1.0
    assert right.interval == (0.0, 0.0)
    assert off.interval == (0.0, math.inf)
    assert judge(torch.zeros(10, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)).p == 1.0


def test_rare_estimates_raise_no_more_false_alarms_than_they_should():
    """One estimate in a hundred is 100, the others are 0: of 40 mostly all are 0, and their mean is not 1."""
    seen = torch.rand(REPEATS, R, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64) < 0.01
    alarms = [judge(100.0 * x.double(), torch.ones(1, dtype=torch.float64)).biased for x in seen]
    assert sum((~seen).all(1)) > 0.5 * REPEATS
    assert sum(alarms) <= 0.02 * REPEATS


def test_the_interval_begins_at_0_where_p_is_the_level():
    """The ball and the test are one: at α = p the ball around the difference just reaches to no bias."""
    for spectrum in SPECTRA.values():
        for sample in gaussian(spectrum, 6, 5 * R).split(R):
            reference = torch.full((len(spectrum),), 0.1, dtype=torch.float64)
            p = judge(sample, reference).p
            found = judge(sample, reference, alpha=p)
            assert abs(found.length - found.radius) <= 1e-6 * found.length


def test_a_state_that_was_never_seen_is_no_bias():
    """Its part of the gradient is missing from every estimate, without any variance: dividing by that would refute it."""
    reference = torch.tensor([1.0, 1e-4], dtype=torch.float64)
    sample = gaussian([1.0, 0.0], 3, 100) + torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert judge(sample, reference).p > 0.01


@pytest.mark.parametrize("name", SPECTRA)
def test_power_sums_are_those_of_the_true_eigenvalues_on_average(name):
    spectrum = torch.tensor(SPECTRA[name], dtype=torch.float64)
    found = torch.tensor([power_sums(s - s.mean(0)) for s in gaussian(SPECTRA[name], 2).split(R)])
    for power, column in enumerate(found.T[:2], 1):
        true, error = float((spectrum**power).sum()), float(column.std()) / math.sqrt(REPEATS)
        assert abs(float(column.mean()) - true) <= 4.0 * error + 0.01 * true, power


@pytest.mark.parametrize("interval", [variance_interval, mean_interval])
def test_intervals_cover_as_often_as_they_say(interval):
    samples = gaussian([1.0, 0.5, 0.25], 4, 1000 * 200).split(200)
    true = 1.75 if interval is variance_interval else 0.0
    found = [interval(s if interval is variance_interval else s[:, 0], 0.95) for s in samples]
    assert within(sum(low <= true <= high for _, low, high in found) / 1000, 0.95, 1000, 5.0)


def test_the_variance_is_the_unbiased_one_and_nothing_for_what_does_not_vary():
    sample = gaussian([1.0, 0.5], 3, 4)
    assert variance_interval(sample)[0] == pytest.approx(float(sample.var(0).sum()))
    assert variance_interval(torch.ones(5, 2)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("shape", "reference", "alpha", "says"),
    [
        ((1, 2), (2,), 0.01, "at least 2"),
        ((5, 2), (3,), 0.01, r"\(5, 2\) and \(3,\)"),
        ((5,), (5,), 0.01, r"\(R, P\)"),
        ((5, 2), (2,), 0.0, "alpha"),
    ],
)
def test_wrong_shapes_and_levels_are_refused(shape, reference, alpha, says):
    with pytest.raises(ValueError, match=says):
        judge(torch.zeros(shape), torch.zeros(reference), alpha)
