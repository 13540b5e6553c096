"""The exact constrained problem: its conditions, its optimality against everything else, its limits, its two readings."""

from __future__ import annotations

import math
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import NonlinearConstraint, minimize
from torch import Tensor

from policygrad.lab.exact import worlds
from policygrad.lab.exact.mdp import MDP, random_mdp
from policygrad.lab.exact.tabular import tabular_policy
from policygrad.lab.steps.constrained import (
    MAX_KL,
    ExactTrustRegion,
    constrained,
    is_table,
    kkt_residual,
    penalised,
    tables,
)
from policygrad.models.heads import Categorical, MultiCategorical
from policygrad.models.networks import MLP, TabularNetwork
from policygrad.models.policy import Policy
from policygrad.updates import NaturalGradient

BOUNDS = (1e-8, 1e-4, 0.01, 1.0, 20.0)
bounds = pytest.mark.parametrize("max_kl", BOUNDS)


def problem(seed: int = 0, S: int = 7, A: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """A policy, advantages and a distribution of states, two of which are never visited."""
    g = torch.Generator().manual_seed(seed)
    old = torch.softmax(2.0 * torch.randn(S, A, generator=g, dtype=torch.float64), -1)
    adv = torch.randn(S, A, generator=g, dtype=torch.float64)
    d = torch.rand(S, generator=g, dtype=torch.float64)
    d[[1, 4]] = 0.0
    return old, adv, d / d.sum()


def mean_kl(old: Tensor, pi: Tensor, d: Tensor) -> float:
    return float((d * (old * (old / pi).log()).sum(-1)).sum())


def gain(old: Tensor, pi: Tensor, adv: Tensor, d: Tensor) -> float:
    return float((d.unsqueeze(-1) * (pi - old) * adv).sum())


@bounds
@pytest.mark.parametrize("seed", range(4))
def test_the_conditions_of_an_optimum_hold_and_the_bound_is_active(max_kl, seed):
    old, adv, d = problem(seed)
    best = constrained(old, adv, d, max_kl)
    assert best.residual <= 1e-10
    assert kkt_residual(old, best.pi, adv, d, best.beta, max_kl) <= 1e-10
    assert best.beta > 0.0
    assert best.kl == pytest.approx(max_kl, rel=1e-10)
    assert best.gain == pytest.approx(gain(old, best.pi, adv, d), abs=1e-12)
    if max_kl >= 1e-4:  # the textbook formula loses the digits of smaller ones
        assert mean_kl(old, best.pi, d) == pytest.approx(max_kl, rel=1e-9)
    torch.testing.assert_close(best.pi.sum(-1), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(best.pi[d == 0], old[d == 0], rtol=1e-15, atol=0)


def test_what_is_no_optimum_is_noticed():
    old, adv, d = problem()
    best = constrained(old, adv, d, 0.01)
    step = torch.softmax(old.log() + adv / best.beta, -1)  # NPG's first-order solution
    assert kkt_residual(old, step, adv, d, best.beta) > 1e-3
    assert kkt_residual(old, best.pi, adv, d, 1.1 * best.beta) > 1e-3
    assert kkt_residual(old, best.pi, adv, d, best.beta, 0.011) > 1e-3
    assert kkt_residual(old, 1.001 * best.pi, adv, d, best.beta) > 5e-4


@pytest.mark.parametrize("max_kl", [1e-3, 0.1, 2.0])
def test_no_other_policy_gains_as_much_at_the_same_kl(max_kl):
    old, adv, d = problem()
    best, rng = constrained(old, adv, d, max_kl), np.random.default_rng(0)
    for k in range(100):
        # half of them close to the optimum, where a wrong one would be found out
        way = torch.from_numpy(rng.standard_normal(old.shape)) * (d > 0).unsqueeze(-1)
        if k % 2:
            way = (best.pi / old).log() + 0.05 * way * float((best.pi / old).log().abs().max())
        low, high = 0.0, 1.0
        while mean_kl(old, torch.softmax(old.log() + high * way, -1), d) < max_kl:
            high *= 2.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            inside = mean_kl(old, torch.softmax(old.log() + middle * way, -1), d) < max_kl
            low, high = (middle, high) if inside else (low, middle)
        assert gain(old, torch.softmax(old.log() + low * way, -1), adv, d) < best.gain


def test_a_general_solver_finds_the_same():
    old, adv, d = problem(S=5, A=3)
    best = constrained(old, adv, d, 0.05)

    def policy(x: np.ndarray) -> Tensor:
        return torch.softmax(torch.from_numpy(x).view(5, 3), -1)

    found = minimize(
        lambda x: -gain(old, policy(x), adv, d),
        old.log().flatten().numpy(),
        method="SLSQP",
        constraints=NonlinearConstraint(lambda x: mean_kl(old, policy(x), d), -np.inf, 0.05),
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert -found.fun == pytest.approx(best.gain, abs=1e-8)
    seen = d > 0
    torch.testing.assert_close(policy(found.x)[seen], best.pi[seen], rtol=0, atol=1e-4)


@bounds
def test_a_penalty_is_a_soft_trust_region_with_the_multiplier_as_its_weight(max_kl):
    """The optimum with beta given is that with the bound given, and beta is what one more nat is worth (row 135)."""
    old, adv, d = problem()
    best = constrained(old, adv, d, max_kl)
    soft = penalised(old, adv, d, best.beta)
    assert torch.equal(soft.pi, best.pi)
    assert soft.kl == best.kl
    assert soft.residual <= 1e-10
    more, less = (constrained(old, adv, d, max_kl * factor).gain for factor in (1.001, 0.999))
    assert (more - less) / (0.002 * max_kl) == pytest.approx(best.beta, rel=1e-4)


def test_kl_and_gain_fall_as_beta_grows():
    old, adv, d = problem()
    found = [penalised(old, adv, d, beta) for beta in np.geomspace(1e-3, 1e3, 25)]
    for one, next_one in pairwise(found):
        assert one.kl > next_one.kl > 0.0
        assert one.gain > next_one.gain > 0.0


def test_a_loose_bound_is_still_active_and_the_policy_nearly_greedy():
    old, adv, d = problem()
    best = constrained(old, adv, d, MAX_KL)
    greedy = float((d * (adv.amax(-1) - (old * adv).sum(-1))).sum())
    assert best.kl == pytest.approx(MAX_KL, rel=1e-10)
    assert best.gain == pytest.approx(greedy, rel=1e-14)
    assert best.residual <= 1e-10
    assert 0.0 < best.beta < 1e-30


def test_a_tight_bound_gives_the_linear_step_of_the_natural_gradient():
    """As β → ∞: π = old (1 + (A − mean A) / β) and the gain is √(2 δ Var A), what NPG predicts."""
    old, adv, d = problem()
    centred = adv - (old * adv).sum(-1, keepdim=True)
    variance = float((d * (old * centred.square()).sum(-1)).sum())
    for max_kl in (1e-6, 1e-8):
        best = constrained(old, adv, d, max_kl)
        linear = torch.where((d > 0).unsqueeze(-1), old * (1.0 + centred / best.beta), old)
        torch.testing.assert_close(best.pi, linear, rtol=0, atol=50.0 * max_kl)
        assert best.gain / math.sqrt(2.0 * max_kl * variance) == pytest.approx(1.0, abs=5.0 * math.sqrt(max_kl))


def test_ties_impossible_actions_and_certain_ones_are_no_special_cases():
    old = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1e-12, 0.3, 0.7 - 1e-12]])
    adv = torch.tensor([[1.0, 1.0, 9.0], [3.0, 8.0, 1.0], [5.0, 0.0, 0.0]])
    best = constrained(old, adv, torch.tensor([0.2, 0.3, 0.5]), 0.1)
    assert best.residual <= 1e-10
    assert best.kl == pytest.approx(0.1, rel=1e-10)
    torch.testing.assert_close(best.pi[:2], old[:2].double(), rtol=0, atol=1e-15)  # there is nothing to prefer
    assert float(best.pi[2, 0]) > 1e-3


def test_where_no_action_is_better_nothing_moves():
    old, _, d = problem()
    best = constrained(old, torch.arange(7.0).unsqueeze(1).expand(7, 4), d, 0.01)
    torch.testing.assert_close(best.pi, old, rtol=1e-15, atol=0)
    assert (best.beta, best.kl, best.gain) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_kl": 0.0}, r"max_kl = 0 must be in \[1e-12, 100\]"),
        ({"max_kl": 101.0}, r"max_kl = 101 must be in \[1e-12, 100\]"),
        ({"max_kl": 1e-30}, "max_kl = 1e-30 must be in .*rounding"),
        ({"max_kl": math.nan}, "max_kl = nan must be"),
        ({"adv": torch.zeros(7, 3)}, r"expected a policy \(S, A\).*got \(7, 4\), \(7, 3\), \(7,\)"),
        ({"adv": torch.full((7, 4), math.inf)}, "advantages must be finite"),
        ({"old": torch.full((7, 4), 0.3)}, "every row of the policy must be a probability distribution"),
        ({"d": torch.zeros(7)}, "d must be a probability distribution"),
    ],
)
def test_problems_that_are_none_are_refused(changes, message):
    old, adv, d = problem()
    fields = {"old": old, "adv": adv, "d": d, "max_kl": 0.01}
    with pytest.raises(ValueError, match=message):
        constrained(**fields | changes)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_a_penalty_must_be_positive_and_finite(beta):
    with pytest.raises(ValueError, match="beta must be positive and finite"):
        penalised(*problem(), beta)


def world() -> tuple[MDP, Policy]:
    mdp = random_mdp(4, 3, 4, np.random.default_rng(1), gamma=0.9, terminal=(2,))
    return mdp, tabular_policy(mdp, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("episodes", [None, 30])
def test_the_surrogate_of_a_batch_is_a_dot_product_in_every_state(episodes):
    """Row 128: Σ weight · ratio · adv = Σ weight · Σ_s d(s) Σ_a π'(a|s) A(s,a), for any π', whatever was sampled."""
    mdp, policy = world()
    batch = worlds.exact_batch(mdp, policy) if episodes is None else worlds.sampled_batch(mdp, policy, episodes)
    old, adv, d = tables(policy, batch)
    assert float(d.sum()) == pytest.approx(1.0, abs=1e-14)
    assert d[2] == 0.0
    for seed in range(3):
        other = tabular_policy(mdp, torch.Generator().manual_seed(10 + seed))
        ratio = (other.evaluate(batch).logp - batch.logp).exp()
        sampled = float((batch.weight * ratio * batch.adv).sum())
        pi = torch.softmax(other.flat.view(4, 3), -1)
        assert sampled == pytest.approx(float(batch.weight.sum() * (d.unsqueeze(-1) * pi * adv).sum()), abs=1e-12)
    torch.testing.assert_close(old, torch.softmax(policy.flat.view(4, 3), -1))


def test_as_an_update_rule_it_moves_the_policy_to_the_optimum_and_a_states_logits_by_numbers_that_sum_to_0():
    mdp, policy = world()
    batch = worlds.exact_batch(mdp, policy)
    moved = deepcopy(policy)
    stats = ExactTrustRegion(0.02)(moved, batch)
    best = ExactTrustRegion(0.02).solve(policy, batch)
    torch.testing.assert_close(torch.softmax(moved.flat.view(4, 3), -1), best.pi, rtol=0, atol=1e-14)
    assert stats == {"beta": best.beta, "kkt_residual": best.residual}
    step = (moved.flat - policy.flat).view(4, 3)
    torch.testing.assert_close(step.sum(-1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-14)
    assert torch.equal(step[2], torch.zeros(3, dtype=torch.float64))  # terminal: never visited
    soft = deepcopy(policy)
    ExactTrustRegion(beta=best.beta)(soft, batch)
    torch.testing.assert_close(soft.flat, moved.flat, rtol=0, atol=1e-14)


def test_it_gains_more_than_the_natural_step_that_is_as_long():
    mdp, policy = world()
    batch = worlds.exact_batch(mdp, policy)
    old, adv, d = tables(policy, batch)
    moved = deepcopy(policy)
    NaturalGradient(0.05, damping=0.0, solver="dense")(moved, batch)
    pi = torch.softmax(moved.flat.view(4, 3), -1)
    best = constrained(old, adv, d, mean_kl(old, pi, d))
    assert best.gain > gain(old, pi, adv, d) * (1.0 + 1e-4)


def test_policies_that_are_no_table_are_refused():
    mdp, policy = world()
    batch = worlds.exact_batch(mdp, policy)
    network = Policy(MLP(4, (5,), 3), Categorical(3)).double()
    assert not is_table(network)
    assert is_table(policy)
    with pytest.raises(TypeError, match=r"expected a table of logits .* got MLP with Categorical\(3\)"):
        ExactTrustRegion(0.01)(network, batch)
    assert not is_table(Policy(TabularNetwork(4, 6), MultiCategorical((3, 3))).double())
