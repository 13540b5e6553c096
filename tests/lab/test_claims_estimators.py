"""The claims about the gradient and its estimators: their verdicts. What changes them is in tests/sabotages/."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from policygrad.gradient import estimators
from policygrad.lab.claims import load_claims, tools
from policygrad.lab.claims.tools import Case, cosine, simple, small, z_score
from policygrad.lab.exact.tabular import ExactQCritic
from policygrad.lab.exact.worlds import two_logit_policy, two_states

CLAIMS = load_claims()
VERDICTS = {
    "score-times-return": "holds",
    "error-falls-with-trajectories": "holds",
    "log-derivative-trick": "holds",
    "dynamics-drop-out": "holds",
    "reinforce-is-unbiased": "holds",
    "past-rewards-do-not-matter": "holds",
    "reward-to-go-lowers-variance": "holds with caveat",
    "q-for-reward-to-go": "holds",
    "reinforce-has-high-variance": "holds",
    "small-changes-of-returns": "holds with caveat",
    "bootstrapping-lowers-variance": "holds with caveat",
    "actor-critic-updates-every-step": "holds",
    "log-probabilities-are-easier": "holds",
    "loss-is-not-performance": "holds",
    "data-must-be-fresh": "holds",
    "loss-gradient-is-policy-gradient": "holds with caveat",
    "good-trajectories-become-likely": "holds with caveat",
    "importance-sampling-is-unbiased": "holds",
    "importance-sampling-variance": "holds",
    "reinforce-is-importance-sampling": "holds",
    "mse-is-bias-and-variance": "holds",
    "credit-assignment-is-hard": "holds",
    "reinforce-waits-for-the-end": "holds",
}
WITH_COUNTEREXAMPLE = (
    "reward-to-go-lowers-variance",
    "bootstrapping-lowers-variance",
    "loss-gradient-is-policy-gradient",
)


@pytest.mark.parametrize(("slug", "expected"), VERDICTS.items())
def test_the_verdict_is_what_theory_says_and_every_number_is_one(slug, expected):
    finding = CLAIMS[slug].experiment()
    assert finding.verdict == expected, finding
    assert all(math.isfinite(x) for x in finding.numbers.values()), finding.numbers
    assert finding.numbers
    assert "nan" not in finding.because
    assert (finding.counterexample is not None) == (slug in WITH_COUNTEREXAMPLE)


def test_a_counterexample_is_one_when_its_tables_are_typed_in():
    found = CLAIMS["reward-to-go-lowers-variance"].experiment().counterexample
    assert found is not None
    c = tools.with_pi(found.mdp, torch.tensor(found.pi, dtype=torch.float64))
    assert c.variance(c.estimates(c.to_go)) > c.variance(c.estimates(estimators.TotalReturn()))


def test_standardised_returns_are_free_of_scale_and_biased():
    c, few = small()[0], Case(two_states(2), two_logit_policy((0.5, -1.0)))
    r, whole = c.sample(16), estimators.Standardized(c.to_go)
    once, scaled = (c.estimates(whole, rollout=replace(r, rew=k * r.rew)).mean(0) for k in (1.0, 1000.0))
    assert (scaled - once).norm() <= 1e-6 * once.norm()
    assert cosine(few.batch_mean(2, estimators.Standardized(few.to_go)), few.gradient) < 1.0 - 1e-6
    within = [
        cosine(c.mean(c.estimates(estimators.Standardized(c.to_go, over="episode"))), c.gradient) for c in simple(200)
    ]
    assert min(within) < 0.0  # following it lowers J


# --- the tools -----------------------------------------------------------------------------------------------------------


def test_the_contraction_with_scores_is_the_production_gradient():
    for c in (small()[0], simple(3, ends=True)[0]):
        adv = torch.randn(c.rollout.rew.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        batch = c.rollout.flatten(adv, "trajectory")
        made = c.policy.evaluate(batch).gradient(batch.weight * batch.adv).clone()
        torch.testing.assert_close(c.contract(c.rollout, adv).mean(0), made, rtol=0, atol=1e-12)


def test_a_wrong_q_is_seen_as_a_bias():
    c = small()[0]
    Q = torch.cat([c.Q, torch.zeros_like(c.Q[:1])])
    right, wrong = (c.estimates(c.to_go, None, ExactQCritic(c.mdp, table)) for table in (Q, Q + 1.0))
    torch.testing.assert_close(right, wrong)  # reward-to-go of whole episodes looks at no critic
    shifted = torch.stack([Q[..., 0] + 1.0, Q[..., 1]], -1)
    q = estimators.StateDiscounted(estimators.QValue(c.mdp.gamma))
    assert c.gap(c.estimates(q, None, ExactQCritic(c.mdp, Q))) <= 1e-12
    assert c.bias(c.estimates(q, None, ExactQCritic(c.mdp, shifted))) > 0.01


def test_z_scores_count_standard_errors_and_a_wrong_constant_is_infinitely_wrong():
    x = torch.randn(10_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert z_score(x, torch.zeros(3, dtype=torch.float64)) < 4.5
    assert z_score(x, torch.full((3,), 0.1, dtype=torch.float64)) == pytest.approx(10.0, abs=3.0)
    constant = torch.ones(10, 1, dtype=torch.float64)
    assert z_score(constant, torch.ones(1, dtype=torch.float64)) == 0.0
    assert z_score(constant, torch.zeros(1, dtype=torch.float64)) == math.inf
    assert cosine(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])) == pytest.approx(0.5**0.5)
