"""The claims about baselines and advantages: their verdicts, and that a broken ingredient changes them."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from policygrad.gradient import baselines as production
from policygrad.lab.claims import Outcome, advantages, baselines, load_claims
from policygrad.lab.claims.tools import with_pi

CLAIMS = load_claims()
VERDICTS = {
    "baseline-adds-no-bias": "holds",
    "constant-baseline-lowers-variance": "holds with caveat",
    "variance-follows-squared-error": "fails as stated",
    "value-is-the-best-baseline": "holds with caveat",
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


def verdict(slug: str) -> str:
    return CLAIMS[slug].experiment().verdict


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


# --- a broken ingredient changes the verdict -----------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["baseline-adds-no-bias", "unbiased-with-any-baseline"])
def test_a_baseline_that_looks_ahead_changes_the_verdict(monkeypatch, slug):
    monkeypatch.setattr(production.CriticValue, "__call__", lambda self, rollout, ret, values: values.next_val)
    assert verdict(slug) == "fails as stated"


def test_without_the_defects_there_is_no_caveat(monkeypatch):
    monkeypatch.setattr(baselines, "NextValue", production.NoBaseline)
    monkeypatch.setattr(baselines, "ActionValue", production.NoBaseline)
    monkeypatch.setattr(baselines, "SameBatchFit", lambda inner: production.LeaveOneOut())
    assert verdict("unbiased-with-any-baseline") == "holds"
    assert verdict("fit-baseline-on-other-data") == "fails as stated"


def test_a_constant_that_is_not_subtracted_changes_the_verdict(monkeypatch):
    monkeypatch.setattr(baselines, "by_constant", lambda c, b: 1.0 + abs(b))
    assert verdict("constant-baseline-lowers-variance") == "fails as stated"


def test_a_variance_that_is_proportional_would_be_seen(monkeypatch):
    def proportional(c, b):
        ret = baselines.TotalReturn(c.mdp.gamma)(c.rollout, baselines.Values.zeros(c.rollout)).ret[0]
        return 3.0 * float(c.mean((ret - b).square()))

    monkeypatch.setattr(baselines, "by_constant", proportional)
    assert verdict("variance-follows-squared-error") == "holds"


@pytest.mark.parametrize(
    ("slug", "baseline"),
    [
        ("value-is-the-best-baseline", production.CriticValue),
        ("average-reward-to-go-as-baseline", production.TimeAverage),
    ],
)
def test_a_baseline_of_the_wrong_sign_raises_the_variance(monkeypatch, slug, baseline):
    right = baseline.__call__
    monkeypatch.setattr(baseline, "__call__", lambda self, *given: -right(self, *given))
    assert verdict(slug) == "fails as stated"


def test_cross_fitting_that_fits_on_everything_changes_the_verdict(monkeypatch):
    monkeypatch.setattr(baselines, "CrossFit", lambda inner, folds: baselines.SameBatchFit(inner))
    assert verdict("fit-baseline-on-other-data") == "fails as stated"


@pytest.mark.parametrize("slug", ["advantage-has-mean-zero", "no-advantage-at-the-optimum", "sign-of-the-advantage"])
def test_wrong_advantages_change_the_verdict(monkeypatch, slug):
    right = advantages.advantage
    monkeypatch.setattr(advantages, "advantage", lambda mdp, pi: right(mdp, pi) + 0.1)
    assert verdict(slug) == "fails as stated"


def test_a_policy_that_is_not_optimal_has_a_positive_advantage(monkeypatch):
    def uniform(mdp):
        return torch.full((mdp.states, mdp.actions), 1.0 / mdp.actions, dtype=torch.float64)

    monkeypatch.setattr(advantages, "optimal_policy", uniform)
    assert verdict("no-advantage-at-the-optimum") == "fails as stated"
