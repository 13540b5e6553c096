"""The claims about the gradient and its estimators: their verdicts, and that a broken ingredient changes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from policygrad.data import Estimate, Rollout
from policygrad.gradient import baselines, estimators, importance
from policygrad.lab.claims import CLAIMS, estimates, tools
from policygrad.lab.claims.tools import Case, cosine, simple, small, z_score
from policygrad.lab.exact.tabular import ExactQCritic

VERDICTS = {
    80: "holds",
    81: "holds",
    82: "holds",
    83: "holds",
    84: "holds",
    85: "holds",
    86: "holds with caveat",
    87: "holds",
    98: "holds",
    99: "holds",
    100: "holds with caveat",
    101: "holds",
    105: "pending",
    106: "pending",
    108: "holds",
    109: "holds",
    110: "holds",
    111: "holds with caveat",
    112: "holds with caveat",
    114: "holds",
    115: "holds",
    116: "holds",
    117: "holds",
    145: "holds",
    146: "holds",
}
WITH_COUNTEREXAMPLE = (86, 100, 111)


def verdict(number: int) -> str:
    return CLAIMS[number].experiment().verdict


@pytest.mark.parametrize(("number", "expected"), VERDICTS.items())
def test_the_verdict_is_what_theory_says_and_every_number_is_one(number, expected):
    finding = CLAIMS[number].experiment()
    assert finding.verdict == expected, finding
    assert all(math.isfinite(x) for x in finding.numbers.values()), finding.numbers
    assert bool(finding.numbers) == (expected != "pending")
    assert "nan" not in finding.because
    assert (finding.counterexample is not None) == (number in WITH_COUNTEREXAMPLE)


def test_normalised_returns_are_free_of_scale_and_biased():
    finding = estimates.normalised_returns()
    assert finding.verdict == "holds with caveat"
    assert finding.counterexample is not None
    assert finding.numbers["cosine with ∇J within episodes of 2 steps, lowest"] < 0.0


def test_a_counterexample_is_one_when_its_tables_are_typed_in():
    found = CLAIMS[86].experiment().counterexample
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
    ("number", "estimator", "breaking"),
    [
        (80, estimators.TotalReturn, scaled(1.01)),
        (81, estimators.TotalReturn, scaled(1.5)),
        (84, estimators.RewardToGo, late),
        (85, estimators.RewardToGo, late),
        (86, estimators.RewardToGo, from_the_start),
        (87, estimators.QValue, scaled(1.01)),
        (100, estimators.GAE, one_lambda),
        (110, estimators.RewardToGo, late),
        (114, estimators.RewardToGo, late),
    ],
)
def test_a_broken_estimator_changes_the_verdict(monkeypatch, number, estimator, breaking):
    monkeypatch.setattr(estimator, "__call__", breaking(estimator.__call__))
    assert verdict(number) == "fails as stated"


@pytest.mark.parametrize("number", [82, 83])
def test_a_wrong_score_changes_the_verdict(monkeypatch, number):
    right = tools.scores
    monkeypatch.setattr(tools, "scores", lambda mdp, policy: 1.01 * right(mdp, policy))
    assert verdict(number) == "fails as stated"


@pytest.mark.parametrize("number", [114, 115, 116])
def test_wrong_importance_weights_change_the_verdict(monkeypatch, number):
    right = importance.log_weights
    monkeypatch.setattr(importance, "log_weights", lambda rollout: 0.9 * right(rollout) + 0.01)
    assert verdict(number) == "fails as stated"


@pytest.mark.parametrize("kept", ["trajectory", "step"])
def test_one_reduction_taken_for_the_other_changes_the_verdict(monkeypatch, kept):
    right = Rollout.flatten
    monkeypatch.setattr(Rollout, "flatten", lambda self, adv, reduction: right(self, adv, kept))
    assert verdict(111) == "fails as stated"


def test_standardising_without_a_division_is_not_free_of_scale(monkeypatch):
    monkeypatch.setattr(estimators.Standardized, "wrap", lambda self, adv, rollout: adv - adv.mean())
    assert estimates.normalised_returns().verdict == "fails as stated"


def test_a_baseline_that_does_not_move_with_the_returns_changes_the_verdict(monkeypatch):
    monkeypatch.setattr(baselines.LeaveOneOut, "__call__", lambda self, rollout, ret, values: torch.zeros_like(ret))
    assert verdict(99) == "fails as stated"


def test_a_step_down_makes_good_trajectories_less_likely(monkeypatch):
    right = estimates.VanillaGradient
    monkeypatch.setattr(estimates, "VanillaGradient", lambda lr, **rest: right(-lr, **rest))
    assert verdict(112) == "fails as stated"


def test_episodes_of_one_length_show_no_growth_of_variance(monkeypatch):
    right = estimates.case
    monkeypatch.setattr(estimates, "case", lambda name, horizon: right(name, horizon=4))
    assert verdict(98) == "fails as stated"


def test_a_variance_that_is_none_changes_the_verdict(monkeypatch):
    right = Case.variance
    monkeypatch.setattr(Case, "variance", lambda self, x: 1.01 * right(self, x))
    assert verdict(117) == "fails as stated"


def test_an_actor_critic_that_waits_changes_the_verdict(monkeypatch):
    right = estimates.first_updates
    monkeypatch.setattr(estimates, "first_updates", lambda algo: right("reinforce"))
    assert verdict(101) == "fails as stated"
    monkeypatch.setattr(estimates, "first_updates", lambda algo: right("actor_critic"))
    assert verdict(146) == "fails as stated"


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
