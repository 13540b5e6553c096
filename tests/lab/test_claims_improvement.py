"""Claims about policy improvement, natural gradients and trust regions: their verdicts, and what makes these change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policygrad.lab.claims import improvement as claims
from policygrad.lab.exact.tabular import solve
from policygrad.lab.steps import relations
from policygrad.lab.steps.constrained import ExactTrustRegion
from policygrad.lab.theory import lemma, surrogate
from policygrad.models.heads import Categorical
from policygrad.updates import NaturalGradient, PenalizedSurrogate

CLAIMS = {
    124: claims.performance_difference,
    125: claims.fitted_policy_iteration,
    126: claims.visitation_shift,
    127: claims.first_order_match,
    128: claims.dot_product,
    129: claims.npg_and_trpo,
    130: claims.kl_and_fisher,
    131: claims.closed_form,
    132: claims.invariance,
    134: claims.taylor_is_enough,
    135: claims.soft_constraint,
    136: claims.constant_term,
    137: claims.action_ratios,
    138: claims.sample_objective,
    139: claims.small_step_big_step,
}


@pytest.mark.parametrize("number", CLAIMS)
def test_verdicts(number):
    claim = CLAIMS[number]
    found = claim.experiment()
    assert claim.number == number
    assert found.verdict == ("holds with caveat" if number == 126 else "holds"), found  # 126: of short steps alone
    assert found.numbers


@pytest.mark.slow
def test_the_cube_of_the_inverse():
    """It measures time."""
    assert claims.inverse_fisher.experiment().verdict == "holds"


def scaled(function, factor=1.1):
    return lambda *args, **keywords: factor * function(*args, **keywords)


def broken(monkeypatch, number):
    """What the claim rests on, made wrong."""
    patch = monkeypatch.setattr
    match number:
        case 124:
            patch(lemma, "advantage", scaled(lemma.advantage, 1.0 + 1e-9))
        case 125:
            patch(claims, "fitted_values", lambda mdp, pi, features=None: solve(mdp, pi)[1])
        case 126:
            patch(claims, "VanillaGradient", lambda *args, **keywords: ExactTrustRegion(50.0))
        case 127:
            patch(surrogate, "advantage", scaled(surrogate.advantage))
        case 128:
            patch(claims, "expected_advantage", scaled(claims.expected_advantage))
        case 129 | 134:
            plain = claims.exact_gradient(*claims.study()[:2])
            patch(relations, "natural_step", lambda policy, batch, max_kl: plain * max_kl**0.5)
        case 130:
            patch(claims, "fisher", scaled(claims.fisher, 1.0 + 1e-9))
        case 131:
            patch(claims, "NaturalGradient", lambda max_kl, **keywords: NaturalGradient(max_kl))  # damped
        case 132:
            patch(claims, "natural_gradient", claims.exact_gradient)
        case 135:
            patch(claims, "penalty", lambda beta, lr, epochs=100: relations.penalty(1.1 * beta, lr, epochs))
        case 136:
            patch(Categorical, "kl_gradient", scaled(Categorical.kl_gradient))
        case 137:
            batch = claims.exact_batch
            patch(claims, "exact_batch", lambda mdp, pi: replace(b := batch(mdp, pi), adv=b.adv.square()))
        case 138:
            keywords = {"target_kl": None, "minibatches": 1}
            patch(
                claims, "epochs_of", lambda beta, epochs: PenalizedSurrogate(0.3, beta=beta, epochs=epochs, **keywords)
            )
        case 139:
            patch(claims, "mean_kl", lambda *args: 0.01)


@pytest.mark.parametrize("number", CLAIMS)
def test_a_verdict_changes_where_what_it_rests_on_is_broken(monkeypatch, number):
    broken(monkeypatch, number)
    assert CLAIMS[number].experiment().verdict == "fails as stated"
