"""The claims about baselines and advantages: their verdicts, and that a broken ingredient changes them."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from policygrad.gradient import baselines as production
from policygrad.lab.claims import CLAIMS, Outcome, baselines
from policygrad.lab.claims.tools import with_pi

VERDICTS = {
    88: "holds",
    89: "holds with caveat",
    90: "fails as stated",
    91: "holds with caveat",
    92: "holds with caveat",
    93: "holds with caveat",
    94: "holds",
    95: "holds",
    96: "holds",
    97: "holds",
}
WITH_COUNTEREXAMPLE = (89, 90, 91, 92)


@cache
def found(number: int) -> Outcome:
    return CLAIMS[number].experiment()


def verdict(number: int) -> str:
    return CLAIMS[number].experiment().verdict


@pytest.mark.parametrize(("number", "expected"), VERDICTS.items())
def test_the_verdict_is_what_theory_says_and_every_number_is_one(number, expected):
    finding = found(number)
    assert finding.verdict == expected, finding
    assert finding.numbers
    assert all(math.isfinite(x) for x in finding.numbers.values()), finding.numbers
    assert "nan" not in finding.because
    assert (finding.counterexample is not None) == (number in WITH_COUNTEREXAMPLE)


def test_subtracting_v_raises_the_variance_on_the_tables_of_the_counterexample():
    example = found(91).counterexample
    assert example is not None
    c = with_pi(example.mdp, torch.tensor(example.pi, dtype=torch.float64))
    with_v = c.variance(baselines.to_go(c, production.CriticValue()))
    assert with_v > 10.0 * c.variance(baselines.to_go(c))


def test_own_data_cost_one_nth_of_the_gradient():
    numbers = found(94).numbers
    for n in (2, 3, 4):
        assert numbers[f"relative bias, own data, N = {n}"] == pytest.approx(-1.0 / n, abs=1e-12)


# --- a broken ingredient changes the verdict -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [88, 93])
def test_a_baseline_that_looks_ahead_changes_the_verdict(monkeypatch, number):
    monkeypatch.setattr(production.CriticValue, "__call__", lambda self, rollout, ret, values: values.next_val)
    assert verdict(number) == "fails as stated"


def test_without_the_defects_there_is_no_caveat(monkeypatch):
    monkeypatch.setattr(baselines, "NextValue", production.NoBaseline)
    monkeypatch.setattr(baselines, "ActionValue", production.NoBaseline)
    monkeypatch.setattr(baselines, "SameBatchFit", lambda inner: production.LeaveOneOut())
    assert verdict(93) == "holds"
    assert verdict(94) == "fails as stated"


def test_a_constant_that_is_not_subtracted_changes_the_verdict(monkeypatch):
    monkeypatch.setattr(baselines, "by_constant", lambda c, b: 1.0 + abs(b))
    assert verdict(89) == "fails as stated"


def test_a_variance_that_is_proportional_would_be_seen(monkeypatch):
    def proportional(c, b):
        ret = baselines.TotalReturn(c.mdp.gamma)(c.rollout, baselines.Values.zeros(c.rollout)).ret[0]
        return 3.0 * float(c.mean((ret - b).square()))

    monkeypatch.setattr(baselines, "by_constant", proportional)
    assert verdict(90) == "holds"


@pytest.mark.parametrize(("number", "baseline"), [(91, production.CriticValue), (92, production.TimeAverage)])
def test_a_baseline_of_the_wrong_sign_raises_the_variance(monkeypatch, number, baseline):
    right = baseline.__call__
    monkeypatch.setattr(baseline, "__call__", lambda self, *given: -right(self, *given))
    assert verdict(number) == "fails as stated"


def test_cross_fitting_that_fits_on_everything_changes_the_verdict(monkeypatch):
    monkeypatch.setattr(baselines, "CrossFit", lambda inner, folds: baselines.SameBatchFit(inner))
    assert verdict(94) == "fails as stated"


@pytest.mark.parametrize("number", [95, 96, 97])
def test_wrong_advantages_change_the_verdict(monkeypatch, number):
    right = baselines.advantage
    monkeypatch.setattr(baselines, "advantage", lambda mdp, pi: right(mdp, pi) + 0.1)
    assert verdict(number) == "fails as stated"


def test_a_policy_that_is_not_optimal_has_a_positive_advantage(monkeypatch):
    def uniform(mdp):
        return torch.full((mdp.states, mdp.actions), 1.0 / mdp.actions, dtype=torch.float64)

    monkeypatch.setattr(baselines, "optimal_policy", uniform)
    assert verdict(96) == "fails as stated"
