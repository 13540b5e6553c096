"""Claims about where policy gradients come to rest and about shaped rewards: verdicts, and what makes these change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from policygrad.lab.claims import exploration, policies
from policygrad.lab.exact.tabular import objective
from policygrad.lab.theory.functions import performance


def test_convergence_has_a_caveat_and_its_counterexample_is_one():
    claim, found = policies.convergence_guarantees, policies.convergence_guarantees.experiment()
    assert (claim.slug, found.verdict) == ("convergence-guarantees", "holds with caveat"), found
    example = found.counterexample
    assert example is not None
    p = example.pi[0][1]
    J = [float(objective(example.mdp, torch.tensor([[1.0 - q, q]]).expand(4, 2).double())) for q in (0.0, p, 1.0)]
    assert pytest.approx([1.0, 1.0 - p + 10.0 * p**3, 10.0], abs=1e-6) == J
    assert J[1] < J[0]
    slope = -1.0 + 30.0 * p**2
    assert slope < 0.0  # away from the better end


def test_convergence_has_no_caveat_where_every_start_leads_to_the_better_optimum(monkeypatch):
    sharing = policies.sharing
    monkeypatch.setattr(policies, "sharing", lambda mdp, p: sharing(mdp, 0.5))
    found = policies.convergence_guarantees.experiment()
    assert (found.verdict, found.counterexample) == ("holds", None)


def test_one_parameter_is_shared_by_all_states():
    mdp = policies.detour(3)
    J = performance(mdp, policies.sharing(mdp, 0.3))(policies.sharing(mdp, 0.3).flat)
    assert float(J) == pytest.approx(0.7 + 10.0 * 0.3**3)


def test_shaping_has_a_caveat():
    found = exploration.shaping()
    assert found.verdict == "holds with caveat", found
    assert found.numbers["J of the best policy for 0.1 per cell"] == 0.0
    assert found.numbers["J of the best policy"] == pytest.approx(0.99**5)


def test_a_bonus_for_movement_changes_the_best_policy_where_walking_for_ever_pays_more():
    """C γ⁶ / (1 − γ) > γ⁵: from c = 0.0101 on."""
    env, mdp = exploration.lake()
    for c, changed in ((0.0100, False), (0.0102, True)):
        wrapper = exploration.ShapedReward(env, lambda s, a, after, over, c=c: c * exploration.cells(s, after))
        J = float(objective(mdp, exploration.optimal_policy(exploration.shaped(mdp, wrapper))))
        assert (J < 0.5) == changed


def test_shaping_fails_where_the_potential_counts_at_the_end(monkeypatch):
    """Φ of a terminal state must be 0: a goal that pays less than it costs to get there."""
    potential = exploration.PotentialShaping

    def counted(env, phi, gamma):
        made = potential(env, lambda s: -5.0 * phi(s), gamma)
        made.bonus = lambda s, a, after, over: gamma * made.potential(after) - made.potential(s)
        return made

    monkeypatch.setattr(exploration, "PotentialShaping", counted)
    assert exploration.shaping().verdict == "fails as stated"


def test_where_policies_must_be_stochastic_the_known_optima_are_found():
    found = policies.stochastic_optima()
    assert found.verdict == "holds", found
    assert found.numbers["rock-paper-scissors: J deterministic, best"] == pytest.approx(-5.0)
    assert found.numbers["corridor: J where ascent ends"] == pytest.approx(-6.0 - 4.0 * 2.0**0.5, abs=1e-6)
    assert found.numbers["corridor: J deterministic, best"] == -float("inf")
    assert found.numbers["corridor: J ε-greedy, ε = 0.1, best"] == pytest.approx(-44.2, abs=0.1)  # Sutton & Barto, 13.1


def test_it_fails_where_states_can_be_told_apart(monkeypatch):
    make = policies.make_mdp
    monkeypatch.setattr(policies, "make_mdp", lambda world: replace(make(world, horizon=20), groups=None))
    monkeypatch.setattr(policies, "STOCHASTIC", ("corridor",))
    assert policies.stochastic_optima().verdict == "fails as stated"


def test_exploring_helps_and_has_a_caveat():
    assert exploration.exploring().verdict == "holds with caveat"


def test_exploring_has_no_caveat_without_the_shared_parameter(monkeypatch):
    monkeypatch.setattr(
        exploration, "sharing", lambda mdp, p: exploration.tabular_policy(replace(mdp, groups=None), scale=0.0)
    )
    assert exploration.exploring().verdict == "holds"
