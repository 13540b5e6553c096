"""Claims about gradient ascent and derivatives: their verdicts. What changes them is in tests/sabotages/."""

from __future__ import annotations

import pytest

from policygrad.lab.claims import optimisation

CLAIMS = {
    "steepest-ascent": (optimisation.steepest_ascent, "holds"),
    "convex-ascent-finds-the-maximum": (optimisation.convex_ascent_finds_the_maximum, "fails as stated"),
    "automatic-differentiation": (optimisation.automatic_differentiation, "holds"),
    "numerical-differentiation": (optimisation.numerical_differentiation, "holds"),
    "stochastic-ascent": (optimisation.stochastic_ascent, "holds"),
}


@pytest.mark.parametrize("slug", CLAIMS)
def test_verdicts(slug):
    claim, expected = CLAIMS[slug]
    found = claim.experiment()
    assert claim.slug == slug
    assert found.verdict == expected, found
    assert found.numbers
    assert 1 <= found.because.count(". ") + 1 <= 4
