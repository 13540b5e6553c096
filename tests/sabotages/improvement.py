"""Sabotages of claims about policy improvement."""

from __future__ import annotations

from policygrad.lab.claims import improvement as claims
from policygrad.lab.exact.tabular import solve
from policygrad.lab.steps.constrained import ExactTrustRegion
from policygrad.lab.theory import lemma, surrogate
from sabotages import Sabotage, replaced, times, wrapped


def exact_values(mdp, pi, features=None):
    return solve(mdp, pi)[1]


LONG = replaced(claims, "VanillaGradient", lambda *given, **keywords: ExactTrustRegion(50.0))

SABOTAGES = [
    Sabotage("performance-difference-lemma", wrapped(lemma, "advantage", times(1.0 + 1e-9)), slow=True),
    Sabotage("fitted-policy-iteration-can-lose", replaced(claims, "fitted_values", exact_values)),
    Sabotage("gradient-steps-keep-states-close", LONG, slow=True),
    Sabotage("surrogate-matches-to-first-order", wrapped(surrogate, "advantage", times(1.1))),
    Sabotage("expected-advantage-is-a-dot-product", wrapped(claims, "expected_advantage", times(1.1))),
]
