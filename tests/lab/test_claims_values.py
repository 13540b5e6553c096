"""Claims about values and policies: their verdicts. What changes them is in tests/sabotages/."""

from __future__ import annotations

import math

import pytest
import torch

from policygrad.lab.claims import load_claims, stationary
from policygrad.lab.exact.tabular import objective

CLAIMS = load_claims()
VERDICTS = {
    "what-is-learned": "holds",
    "greedy-policies-jump": "holds with caveat",
    "values-need-a-maximum": "holds with caveat",
    "values-and-random-policies": "holds with caveat",
    "local-optima-of-policies": "holds with caveat",
    "values-can-be-unstable": "holds with caveat",
    "deadly-triad": "holds with caveat",
    "stationary-points-cannot-be-left": "fails as stated",
    "advantage-ends-the-chain": "holds with caveat",
}


@pytest.mark.parametrize(("slug", "expected"), VERDICTS.items())
def test_the_verdict_is_what_theory_says_and_every_number_is_one(slug, expected):
    found = CLAIMS[slug].experiment()
    assert found.verdict == expected, found
    assert all(map(math.isfinite, found.numbers.values())), found.numbers
    assert "nan" not in found.because
    assert (found.counterexample is not None) == (slug in ("local-optima-of-policies", "advantage-ends-the-chain"))


def test_all_claims_of_the_topic_are_here():
    assert {slug for slug, claim in CLAIMS.items() if claim.topic == "Values or policies"} <= set(VERDICTS)


def test_the_counterexample_of_the_local_optima_is_one_when_its_tables_are_typed_in():
    """J = 1 − p + 10 pⁿ with n = 8 falls from p = ½, where ascent starts."""
    found = CLAIMS["local-optima-of-policies"].experiment().counterexample
    assert found is not None
    assert found.pi[0] == (0.5, 0.5)
    J = [float(objective(found.mdp, torch.tensor([[1 - p, p]]).double().expand(9, 2))) for p in (0.5, 0.45, 1.0)]
    assert pytest.approx([1 - p + 10 * p**8 for p in (0.5, 0.45, 1.0)]) == J
    assert J[0] < J[1] < J[2]


def test_the_minimum_of_J_is_where_it_is_said_to_be():
    f, theta = stationary.valley()
    p = 30.0**-0.5
    assert float(f(theta)) == pytest.approx(1.0 - p + 10.0 * p**3)
    assert min(float(f(theta + torch.tensor([0.0, h]))) for h in (-0.2, 0.2)) > float(f(theta))
