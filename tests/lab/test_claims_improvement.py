"""Claims about policy improvement, natural gradients and trust regions: their verdicts, and what makes these change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policygrad.lab.claims import improvement, load_claims, natural, tools, trust_regions
from policygrad.lab.exact.tabular import solve
from policygrad.lab.steps import relations
from policygrad.lab.steps.constrained import ExactTrustRegion
from policygrad.lab.theory import lemma, surrogate
from policygrad.models.heads import Categorical
from policygrad.updates import NaturalGradient, PenalizedSurrogate

CLAIMS = {
    slug: claim
    for slug, claim in load_claims().items()
    if claim.topic.startswith("Policy improvement") and slug != "inverting-fisher-is-costly"  # measures time
}


@pytest.mark.parametrize("slug", CLAIMS)
def test_verdicts(slug):
    claim = CLAIMS[slug]
    found = claim.experiment()
    assert found.verdict == ("holds with caveat" if slug == "gradient-steps-keep-states-close" else "holds"), found
    assert found.numbers


@pytest.mark.slow
def test_the_cube_of_the_inverse():
    """It measures time."""
    assert natural.inverting_fisher_is_costly.experiment().verdict == "holds"


def scaled(function, factor=1.1):
    return lambda *args, **keywords: factor * function(*args, **keywords)


def broken(monkeypatch, slug):
    """What the claim rests on, made wrong."""
    patch = monkeypatch.setattr
    match slug:
        case "performance-difference-lemma":
            patch(lemma, "advantage", scaled(lemma.advantage, 1.0 + 1e-9))
        case "fitted-policy-iteration-can-lose":
            patch(improvement, "fitted_values", lambda mdp, pi, features=None: solve(mdp, pi)[1])
        case "gradient-steps-keep-states-close":
            patch(improvement, "VanillaGradient", lambda *args, **keywords: ExactTrustRegion(50.0))
        case "surrogate-matches-to-first-order":
            patch(surrogate, "advantage", scaled(surrogate.advantage))
        case "expected-advantage-is-a-dot-product":
            patch(improvement, "expected_advantage", scaled(improvement.expected_advantage))
        case "npg-approximates-trpo" | "taylor-is-enough-for-trpo":
            plain = natural.exact_gradient(*natural.study()[:2])
            patch(relations, "natural_step", lambda policy, batch, max_kl: plain * max_kl**0.5)
        case "fisher-is-the-hessian-of-kl":
            patch(natural, "fisher", scaled(natural.fisher, 1.0 + 1e-9))
        case "npg-in-closed-form":
            patch(natural, "NaturalGradient", lambda max_kl, **keywords: NaturalGradient(max_kl))  # damped
        case "natural-gradient-is-invariant":
            patch(natural, "natural_gradient", natural.exact_gradient)
        case "penalty-is-a-soft-constraint":
            patch(trust_regions, "penalty", lambda beta, lr, epochs=100: relations.penalty(1.1 * beta, lr, epochs))
        case "constant-of-kl-can-be-dropped":
            patch(Categorical, "kl_gradient", scaled(Categorical.kl_gradient))
        case "action-ratios-reweigh-data":
            batch = tools.exact_batch
            patch(tools, "exact_batch", lambda mdp, pi: replace(b := batch(mdp, pi), adv=b.adv.square()))
        case "ppo-climbs-a-sampled-objective":
            keywords = {"target_kl": None, "minibatches": 1}
            patch(
                trust_regions,
                "epochs_of",
                lambda beta, epochs: PenalizedSurrogate(0.3, beta=beta, epochs=epochs, **keywords),
            )
        case "small-step-big-policy-step":
            patch(natural, "mean_kl", lambda *args: 0.01)


@pytest.mark.parametrize("slug", CLAIMS)
def test_a_verdict_changes_where_what_it_rests_on_is_broken(monkeypatch, slug):
    broken(monkeypatch, slug)
    assert CLAIMS[slug].experiment().verdict == "fails as stated"
