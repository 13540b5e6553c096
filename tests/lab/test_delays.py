"""Delayed gradients: against the recursion by hand, without curvature, and the claim that is made of them."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch

from policygrad.lab.claims import asynchronous
from policygrad.lab.exact.tabular import gradient_theorem, tabular_policy
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.theory.delays import delayed_ascent

MDP = make_mdp("small", horizon=3)


def policy():
    return tabular_policy(MDP, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k", [0, 1, 3])
def test_the_bias_is_the_distance_of_two_gradients_on_the_path_that_they_make(k):
    found = delayed_ascent(MDP, policy(), delays=(k, 3), rates=(0.3,), updates=7).find(k, 0.3)
    theta, moving, seen = [], policy(), []
    for t in range(7):
        theta.append(deepcopy(moving))
        fresh, old = (gradient_theorem(MDP, theta[i]) for i in (t, max(t - k, 0)))
        seen.append(float((old - fresh).norm() / fresh.norm()))
        moving.flat.add_(0.3 * old)
    assert found.bias == pytest.approx(sum(seen[3:]) / 4, rel=1e-9, abs=1e-12)
    assert (found.bias <= 1e-12) is (k == 0)
    assert len(found.J) == 8


def test_the_bias_is_of_first_order_in_the_delay_and_in_the_step():
    found = delayed_ascent(MDP, policy(), delays=(0, 1, 2, 4), rates=(1e-3, 2e-3), updates=6)
    assert found.delay_order == pytest.approx(1.0, abs=0.05)
    assert found.rate_order == pytest.approx(1.0, abs=0.05)
    assert "delay^1.0" in str(found)
    with pytest.raises(KeyError):
        found.find(3, 1e-3)


def test_there_are_no_numbers_where_there_is_no_gradient_any_more():
    found = delayed_ascent(MDP, policy(), delays=(1,), rates=(1e4,), updates=4)
    assert math.isnan(found.paths[0].bias)
    assert math.isnan(found.rate_order)


@pytest.mark.parametrize("wrong", [(), (-1,), (5,)])
def test_delays_that_the_updates_do_not_have_are_refused(wrong):
    with pytest.raises(ValueError, match="below the 5 updates"):
        delayed_ascent(MDP, policy(), delays=wrong, updates=5)


def test_a_policy_whose_gradient_is_0_is_refused():
    mdp = make_mdp("bandit")
    level = tabular_policy(mdp, scale=0.0)
    level.flat.copy_(torch.tensor([-800.0, -800.0, 800.0, -800.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="∇J is 0"):
        delayed_ascent(mdp, level)


def test_staleness_biases_the_gradient():
    found = asynchronous.staleness_biases_the_gradient.experiment()
    assert found.verdict == "holds", found
    assert found.because.count(". ") + 1 <= 4
    assert found.numbers["bias, delay 8, step size 0.1, median"] > 0.1
