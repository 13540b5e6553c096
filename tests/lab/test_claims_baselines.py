"""The claims about baselines and advantages: their verdicts. What changes them is in tests/sabotages/."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from policygrad.gradient import baselines as production
from policygrad.lab.claims import Outcome, baselines, load_claims
from policygrad.lab.claims.tools import with_pi

CLAIMS = load_claims()
VERDICTS = {
    "baseline-adds-no-bias": "holds",
    "constant-baseline-lowers-variance": "holds with caveat",
    "variance-follows-squared-error": "fails as stated",
    "value-is-the-best-baseline": "fails as stated",
    "average-reward-to-go-as-baseline": "holds with caveat",
    "unbiased-with-any-baseline": "holds with caveat",
    "fit-baseline-on-other-data": "holds",
    "advantage-has-mean-zero": "holds",
    "no-advantage-at-the-optimum": "holds",
    "sign-of-the-advantage": "holds",
}
WITH_COUNTEREXAMPLE = (
    "constant-baseline-lowers-variance",
    "variance-follows-squared-error",
    "value-is-the-best-baseline",
    "average-reward-to-go-as-baseline",
)


@cache
def found(slug: str) -> Outcome:
    return CLAIMS[slug].experiment()


@pytest.mark.parametrize(("slug", "expected"), VERDICTS.items())
def test_the_verdict_is_what_theory_says_and_every_number_is_one(slug, expected):
    finding = found(slug)
    assert finding.verdict == expected, finding
    assert finding.numbers
    assert all(math.isfinite(x) for x in finding.numbers.values()), finding.numbers
    assert "nan" not in finding.because
    assert (finding.counterexample is not None) == (slug in WITH_COUNTEREXAMPLE)


def test_subtracting_v_raises_the_variance_on_the_tables_of_the_counterexample():
    example = found("value-is-the-best-baseline").counterexample
    assert example is not None
    c = with_pi(example.mdp, torch.tensor(example.pi, dtype=torch.float64))
    with_v = c.variance(baselines.to_go(c, production.CriticValue()))
    assert with_v > 10.0 * c.variance(baselines.to_go(c))


def test_own_data_cost_one_nth_of_the_gradient():
    numbers = found("fit-baseline-on-other-data").numbers
    for n in (2, 3, 4):
        assert numbers[f"relative bias, own data, N = {n}"] == pytest.approx(-1.0 / n, abs=1e-12)
