"""Claims about gradient ascent and derivatives: their verdicts, and that these change where what they rest on is broken."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from policygrad.lab.claims import optimisation
from policygrad.lab.theory import derivatives

pytestmark = pytest.mark.xdist_group("claims about ascent")  # one set of landscapes for all
LANDSCAPES = cache(optimisation.landscapes)
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


@pytest.fixture(autouse=True)
def landscapes_once(monkeypatch):
    """What is broken here leaves them as they are."""
    monkeypatch.setattr(optimisation, "landscapes", LANDSCAPES)


def test_steepest_fails_where_the_gradient_is_another(monkeypatch):
    exact = optimisation.exact_gradient
    monkeypatch.setattr(optimisation, "exact_gradient", lambda mdp, policy: exact(mdp, policy) * torch.arange(1.0, 7.0))
    assert optimisation.steepest_ascent.experiment().verdict == "fails as stated"


def test_convexity_holds_of_concave_functions(monkeypatch):
    bowl = optimisation.bowl
    monkeypatch.setattr(optimisation, "bowl", lambda sign: bowl(-1.0))
    assert optimisation.convex_ascent_finds_the_maximum.experiment().verdict == "holds"


def test_automatic_differentiation_fails_where_the_closed_form_is_another(monkeypatch):
    exact = optimisation.gradient_theorem
    monkeypatch.setattr(optimisation, "gradient_theorem", lambda mdp, policy: exact(mdp, policy) * (1.0 + 1e-9))
    assert optimisation.automatic_differentiation.experiment().verdict == "fails as stated"


def test_numerical_differentiation_fails_where_a_central_difference_is_one_sided(monkeypatch):
    monkeypatch.setitem(derivatives.DIFFERENCES, "central", lambda f, theta, h: derivatives.complex_step(f, theta, h))
    assert optimisation.numerical_differentiation.experiment().verdict == "fails as stated"


def test_stochastic_ascent_fails_where_the_estimates_point_down(monkeypatch):
    from policygrad.lab.theory import stochastic

    sgd = stochastic.sgd
    monkeypatch.setattr(stochastic, "sgd", lambda *args: sgd(*args, maximize=False))
    assert optimisation.stochastic_ascent.experiment().verdict == "fails as stated"
