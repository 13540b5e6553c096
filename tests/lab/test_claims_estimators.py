"""The claims about the gradient and its estimators: their verdicts, and that a broken ingredient changes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from policygrad.data import Estimate, Rollout
from policygrad.gradient import baselines, estimators, importance
from policygrad.lab.claims import load_claims, loss, tools, variance
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
    "small-changes-of-returns": "holds",
    "bootstrapping-lowers-variance": "holds with caveat",
    "actor-critic-updates-every-step": "holds",
    "on-policy-needs-many-rollouts": "pending",
    "replay-is-sample-efficient": "pending",
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


def verdict(slug: str) -> str:
    return CLAIMS[slug].experiment().verdict


@pytest.mark.parametrize(("slug", "expected"), VERDICTS.items())
def test_the_verdict_is_what_theory_says_and_every_number_is_one(slug, expected):
    finding = CLAIMS[slug].experiment()
    assert finding.verdict == expected, finding
    assert all(math.isfinite(x) for x in finding.numbers.values()), finding.numbers
    assert bool(finding.numbers) == (expected != "pending")
    assert "nan" not in finding.because
    assert (finding.counterexample is not None) == (slug in WITH_COUNTEREXAMPLE)


def test_a_counterexample_is_one_when_its_tables_are_typed_in():
    found = CLAIMS["reward-to-go-lowers-variance"].experiment().counterexample
    assert found is not None
    c = tools.with_pi(found.mdp, torch.tensor(found.pi, dtype=torch.float64))
    assert c.variance(c.estimates(c.to_go)) > c.variance(c.estimates(estimators.TotalReturn()))


# --- a broken ingredient changes the verdict -----------------------------------------------------------------------


def scaled(factor: float) -> Callable:
    """An estimator's call, its returns multiplied."""

    def wrapping(original: Callable) -> Callable:
        def call(self, rollout, values):
            found: Estimate = original(self, rollout, values)
            return replace(found, ret=factor * found.ret)

        return call

    return wrapping


def late(original: Callable) -> Callable:
    """Reward-to-go without the reward of the step itself."""

    def call(self, rollout, values):
        found: Estimate = original(self, rollout, values)
        return replace(found, ret=found.ret - torch.where(rollout.mask, rollout.rew, 0.0))

    return call


def from_the_start(original: Callable) -> Callable:
    """Reward-to-go that credits the past as well."""

    def call(self, rollout, values):
        return estimators.TotalReturn(self.gamma)(rollout, values)

    return call


def one_lambda(original: Callable) -> Callable:
    """GAE that ignores λ."""

    def call(self, rollout, values):
        return original(replace(self, lam=1.0) if self.lam != 1.0 else self, rollout, values)

    return call


@pytest.mark.parametrize(
    ("slug", "estimator", "breaking"),
    [
        ("score-times-return", estimators.TotalReturn, scaled(1.01)),
        ("error-falls-with-trajectories", estimators.TotalReturn, scaled(1.5)),
        ("reinforce-is-unbiased", estimators.RewardToGo, late),
        ("past-rewards-do-not-matter", estimators.RewardToGo, late),
        ("reward-to-go-lowers-variance", estimators.RewardToGo, from_the_start),
        ("q-for-reward-to-go", estimators.QValue, scaled(1.01)),
        ("bootstrapping-lowers-variance", estimators.GAE, one_lambda),
        ("data-must-be-fresh", estimators.RewardToGo, late),
        ("importance-sampling-is-unbiased", estimators.RewardToGo, late),
    ],
)
def test_a_broken_estimator_changes_the_verdict(monkeypatch, slug, estimator, breaking):
    monkeypatch.setattr(estimator, "__call__", breaking(estimator.__call__))
    assert verdict(slug) == "fails as stated"


@pytest.mark.parametrize("slug", ["log-derivative-trick", "dynamics-drop-out"])
def test_a_wrong_score_changes_the_verdict(monkeypatch, slug):
    right = tools.scores
    monkeypatch.setattr(tools, "scores", lambda mdp, policy: 1.01 * right(mdp, policy))
    assert verdict(slug) == "fails as stated"


@pytest.mark.parametrize(
    "slug", ["importance-sampling-is-unbiased", "importance-sampling-variance", "reinforce-is-importance-sampling"]
)
def test_wrong_importance_weights_change_the_verdict(monkeypatch, slug):
    right = importance.log_weights
    monkeypatch.setattr(importance, "log_weights", lambda rollout: 0.9 * right(rollout) + 0.01)
    assert verdict(slug) == "fails as stated"


@pytest.mark.parametrize("kept", ["trajectory", "step"])
def test_one_reduction_taken_for_the_other_changes_the_verdict(monkeypatch, kept):
    right = Rollout.flatten
    monkeypatch.setattr(Rollout, "flatten", lambda self, adv, reduction: right(self, adv, kept))
    assert verdict("loss-gradient-is-policy-gradient") == "fails as stated"


def test_a_baseline_that_does_not_move_with_the_returns_changes_the_verdict(monkeypatch):
    monkeypatch.setattr(baselines.LeaveOneOut, "__call__", lambda self, rollout, ret, values: torch.zeros_like(ret))
    assert verdict("small-changes-of-returns") == "fails as stated"


def test_a_step_down_makes_good_trajectories_less_likely(monkeypatch):
    right = loss.VanillaGradient
    monkeypatch.setattr(loss, "VanillaGradient", lambda lr, **rest: right(-lr, **rest))
    assert verdict("good-trajectories-become-likely") == "fails as stated"


def test_episodes_of_one_length_show_no_growth_of_variance(monkeypatch):
    right = variance.case
    monkeypatch.setattr(variance, "case", lambda name, horizon: right(name, horizon=4))
    assert verdict("reinforce-has-high-variance") == "fails as stated"


def test_a_variance_that_is_none_changes_the_verdict(monkeypatch):
    right = Case.variance
    monkeypatch.setattr(Case, "variance", lambda self, x: 1.01 * right(self, x))
    assert verdict("mse-is-bias-and-variance") == "fails as stated"


def test_an_actor_critic_that_waits_changes_the_verdict(monkeypatch):
    right = variance.first_updates
    monkeypatch.setattr(variance, "first_updates", lambda algo: right("reinforce"))
    assert verdict("actor-critic-updates-every-step") == "fails as stated"
    monkeypatch.setattr(variance, "first_updates", lambda algo: right("actor_critic"))
    assert verdict("reinforce-waits-for-the-end") == "fails as stated"


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
