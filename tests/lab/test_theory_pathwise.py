"""Score function against path: exact moments against differences of J and simulation; where the path is worse, and biased."""

from __future__ import annotations

import math

import numpy as np
import pytest

import policygrad as pg
from policygrad.lab.theory import pathwise as lab
from policygrad.lab.theory.pathwise import NAMES, ScoreOrPath, each_sample, hill, quadrature


@pytest.fixture(scope="module")
def result() -> ScoreOrPath:
    return pg.lab.pathwise()


def J(q: lab.Landscape, mean: float, log_std: float) -> float:
    """E q(tanh(μ + σ ε)), by the quadrature, with an edge at the jump."""
    width = math.exp(log_std)
    nodes, weights = quadrature([(math.atanh(x) - mean) / width for x in q.jumps])
    return float(weights @ q.value(np.tanh(mean + width * nodes)))


@pytest.mark.parametrize("q", [hill(0.5), hill(0.5, 0.3, 20.0), hill(0.5, jump=0.5)], ids=["hill", "ripples", "cliff"])
def test_the_gradient_is_that_of_differences_of_j(q: lab.Landscape) -> None:
    for mean, width in ((0.0, 0.5), (-0.7, 0.2)):
        theta, h = (mean, math.log(width)), 1e-5
        by_mean = (J(q, theta[0] + h, theta[1]) - J(q, theta[0] - h, theta[1])) / (2 * h)
        by_log_std = (J(q, theta[0], theta[1] + h) - J(q, theta[0], theta[1] - h)) / (2 * h)
        found = lab._compared("", q, mean, width, np.zeros(2))
        assert found.gradient == pytest.approx((by_mean, by_log_std), abs=1e-7)
        assert found["score function, q − E q"].bias < 1e-9  # a baseline without the action
        assert (found["pathwise"].bias < 1e-9) is (not q.jumps)


def test_of_a_cliff_the_path_misses_the_jump_and_nothing_else(result: ScoreOrPath) -> None:
    # ∂/∂(μ, log σ) of jump · P(x > c): the density of u at its place, which no slope shows
    edge, width = math.atanh(0.5), 0.5
    density = math.exp(-0.5 * (edge / width) ** 2) / (width * math.sqrt(2.0 * math.pi))
    missed = 0.5 * density * np.array([1.0, edge])
    found = result.cliff
    np.testing.assert_allclose(np.subtract(found.gradient, found["pathwise"].mean), missed, rtol=0, atol=1e-9)
    assert found["pathwise"].bias == pytest.approx(float(np.linalg.norm(missed)))
    assert found["score function"].bias == 0.0


def test_simulated_means_and_variances_are_the_exact_ones(result: ScoreOrPath) -> None:
    rows = [*result.widths, *result.ripples, result.cliff]
    estimates = [x for row in rows for x in row.estimates]
    assert {x.name for x in estimates} == set(NAMES)
    assert max(x.off for x in estimates) < 4.0
    for x in estimates:
        assert x.variance == pytest.approx(result.samples * (x.errors[0] ** 2 + x.errors[1] ** 2), rel=0.1)
    # the intervals are narrow enough to see a bias: the pathwise one of the cliff is many standard errors from ∇J
    cliff = result.cliff
    far = np.abs(np.subtract(cliff["pathwise"].simulated, cliff.gradient)) / cliff["pathwise"].errors
    assert far.min() > 10.0


def test_the_path_has_less_variance_on_a_smooth_q_and_none_as_the_policy_narrows(result: ScoreOrPath) -> None:
    ratios = [row.ratio for row in result.widths]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] < 0.25
    assert ratios[-1] < 0.01
    narrow = result.widths[-1]
    # σ → 0: the path has ∇_a q itself, which is 2 at x = 0; the score function keeps a variance of 2 q'², with a baseline
    assert narrow["pathwise"].mean[0] == pytest.approx(2.0, abs=0.01)
    assert narrow["score function, q − E q"].variance == pytest.approx(2 * 2.0**2, rel=0.05)
    assert narrow["score function"].variance > 10 * narrow["score function, q − E q"].variance


def test_the_path_is_worse_where_ripples_are_fast(result: ScoreOrPath) -> None:
    ratios = dict(zip(result.frequencies, (row.ratio for row in result.ripples), strict=True))
    assert ratios[1.0] < 0.2
    assert ratios[40.0] > 4.0
    assert 10.0 < result.crossover < 20.0
    assert math.isnan(pg.lab.pathwise(frequencies=(1.0, 2.0), samples=10).crossover)
    # its variance grows as ω², that of the score function does not
    assert ratios[40.0] / ratios[20.0] == pytest.approx(4.0, rel=0.2)


def test_the_table_and_the_json_say_so(result: ScoreOrPath) -> None:
    text = str(result)
    assert text.count("hill, σ") == 5
    assert text.count("ripples, ω") == 6
    (cliff,) = (line for line in text.splitlines() if line.startswith("cliff"))
    assert "0.249" in cliff
    written = result.to_json()
    assert written["crossover"] == result.crossover
    assert written["cliff"]["estimates"][2]["name"] == "pathwise"
    assert result.to_json() == pg.lab.pathwise().to_json()
    assert pg.lab.pathwise(seed=1, samples=10).widths[0].gradient == result.widths[0].gradient


def test_each_sample_is_the_packages_own_gradient() -> None:
    noise = np.array([0.7])
    score, _, path = each_sample(hill(0.5), 0.1, 0.5, noise, 0.0)
    u = 0.1 + 0.5 * 0.7
    x = math.tanh(u)
    q, slope = -2.0 * (x - 0.5) ** 2, -4.0 * (x - 0.5)
    np.testing.assert_allclose(score.numpy(), [[q * 0.7 / 0.5, q * (0.7**2 - 1.0)]], rtol=1e-12)
    np.testing.assert_allclose(path.numpy(), [[slope * (1 - x * x), slope * (1 - x * x) * 0.5 * 0.7]], rtol=1e-12)


@pytest.mark.parametrize(
    "keywords", [{"widths": (0.0,)}, {"width": -1.0}, {"frequencies": (0.0,)}, {"center": 1.0}, {"samples": 1}]
)
def test_what_makes_no_sense_is_refused(keywords: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        pg.lab.pathwise(**keywords)  # pyright: ignore[reportArgumentType]
