"""Same batch, five rules: what is compared is what theory says of it, and nothing that was given changes."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import policygrad as pg
from policygrad.data import Batch, Record, TooFewError
from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import RewardToGo, StateDiscounted, advantages
from policygrad.lab.exact import tabular, worlds
from policygrad.lab.exact.tabular import (
    ExactCritic,
    enumerate_trajectories,
    exact_gradient,
    objective,
    optimum,
    policy_matrix,
    random_mdp,
    solve,
    tabular_policy,
    visits,
)
from policygrad.lab.steps import plane, relations
from policygrad.lab.steps.constrained import constrained, tables
from policygrad.lab.steps.rules import compare, decimals, five_rules, sampled_objective, training_batch
from policygrad.models.heads import Categorical
from policygrad.models.networks import MLP
from policygrad.models.policy import Policy
from policygrad.updates import ClippedSurrogate, FirstOrder, NaturalGradient, PenalizedSurrogate, TrustRegion
from policygrad.updates.diagnostics import UpdateDiagnostics

MDP = random_mdp(4, 3, 4, np.random.default_rng(1), gamma=0.9, terminal=(2,))
POLICY = tabular_policy(MDP, torch.Generator().manual_seed(1))
BATCH = worlds.exact_batch(MDP, POLICY)
LAKE = worlds.make_mdp("FrozenLake-v1")
TWO = worlds.two_states()


def share(batch: Batch) -> Tensor:
    return batch.weight / batch.weight.sum()


def J(mdp: tabular.MDP, policy: Policy) -> float:
    return float(objective(mdp, policy_matrix(mdp, policy).detach()))


def network() -> Policy:
    """An MLP on the same states."""
    return Policy(MLP(4, (8,), 3, output_gain=0.5, generator=torch.Generator().manual_seed(0)), Categorical(3)).double()


def test_the_exact_batch_is_every_trajectory_weighed_by_its_probability():
    """ĝ, surrogate, KL and Fisher products of S · A rows are those of all steps of all trajectories; and ĝ is ∇J."""
    rollout, p = enumerate_trajectories(MDP, POLICY)
    values = ExactCritic(MDP)(rollout, POLICY)
    adv, _ = advantages(rollout, values, StateDiscounted(RewardToGo(MDP.gamma)), CriticValue())
    all_steps = rollout.flatten(adv, "trajectory")
    # γᵗ in the weights instead of the advantages, so that means over states are discounted as well
    gamma = rollout.valid(MDP.gamma ** rollout.time.double())
    weight = rollout.valid(p.expand_as(adv)) * gamma
    every = replace(all_steps, adv=all_steps.adv / gamma, weight=weight)
    other = tabular_policy(MDP, torch.Generator().manual_seed(5))
    v = torch.randn(12, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    found = []
    for batch in (every, BATCH):
        evaluation = POLICY.evaluate(batch)
        gradient = evaluation.gradient(batch.weight * batch.adv).clone()
        product = evaluation.fisher_product(v, share(batch))
        old, new = POLICY.dist(batch.obs).clone(), other.evaluate(batch)
        kl = (share(batch) * POLICY.head.kl(old, new.dist)).sum()
        surrogate = (batch.weight * (new.logp - batch.logp).exp() * batch.adv).sum()
        found.append((gradient, product, kl, surrogate, batch.weight.sum()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
    torch.testing.assert_close(found[1][0], exact_gradient(MDP, POLICY), rtol=0, atol=1e-14)


def test_sampled_batches_are_unbiased_and_their_episodes_those_of_the_mdp():
    rollout = worlds.sample_episodes(MDP, POLICY, 4000, seed=3)
    assert rollout.whole_episodes
    assert rollout.trajectories == 4000
    d = visits(MDP, policy_matrix(MDP, POLICY).detach())
    seen = (rollout.obs[:-1] * rollout.mask.unsqueeze(-1)).sum(1) / 4000
    assert ((seen - d).abs() <= 4.0 * (d * (1.0 - d) / 4000).sqrt() + 1e-12).all()
    gradients = []
    for seed in range(100):
        batch = worlds.sampled_batch(MDP, POLICY, 20, seed)
        gradients.append(POLICY.evaluate(batch).gradient(batch.weight * batch.adv).clone())
    mean, error = torch.stack(gradients).mean(0), torch.stack(gradients).std(0) / 10.0
    assert ((mean - exact_gradient(MDP, POLICY)).abs() <= 4.0 * error + 1e-12).all()
    assert torch.equal(worlds.sampled_batch(MDP, POLICY, 3, 1).act, worlds.sampled_batch(MDP, POLICY, 3, 1).act)
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        worlds.sample_episodes(MDP, POLICY, 0)


def test_the_natural_step_is_the_best_on_the_ellipse_and_lies_on_its_boundary():
    """Row 131: max gᵀs subject to ½ sᵀFs ≤ δ. Conditions: g = λ F s, λ > 0, and the constraint is active."""
    s = relations.natural_step(POLICY, BATCH, 0.03)
    evaluation = POLICY.evaluate(BATCH)
    g = evaluation.gradient(BATCH.weight * BATCH.adv).clone()
    Fs = evaluation.fisher_product(s, share(BATCH))
    assert 0.5 * float(s @ Fs) == pytest.approx(0.03, rel=1e-10)
    multiplier = float(g @ s) / float(s @ Fs)
    assert multiplier > 0.0
    assert float((g - multiplier * Fs).norm() / g.norm()) <= 1e-10
    generator = torch.Generator().manual_seed(0)
    for k in range(200):
        other = torch.randn(len(s), generator=generator, dtype=torch.float64) + (k % 2) * 20.0 * s / s.norm()
        other *= math.sqrt(0.06 / evaluation.fisher_norm(other, share(BATCH)))
        assert float(g @ other) < float(g @ s)


def test_rules_start_from_the_same_parameters_and_nothing_that_was_given_changes():
    theta, logp = POLICY.flat.clone(), BATCH.logp.clone()
    clip, penalty = ClippedSurrogate(0.02, epochs=3, minibatches=2), PenalizedSurrogate(0.02, epochs=3, minibatches=1)
    states = [deepcopy(rule.state_dict()) for rule in (clip, penalty)]
    rules = {"a": clip, "b": penalty, "a again": clip}
    first, second = (compare(POLICY, BATCH, rules, objective=worlds.exact_objective(MDP)) for _ in range(2))
    assert torch.equal(POLICY.flat, theta)
    assert torch.equal(BATCH.logp, logp)
    assert [str(rule.state_dict()) for rule in (clip, penalty)] == [str(state) for state in states]
    assert str(first) == str(second)
    assert torch.equal(first["a"].step, first["a again"].step)
    by_hand = deepcopy(POLICY)
    deepcopy(clip)(by_hand, BATCH)
    assert torch.equal(by_hand.flat - theta, first["a"].step)


def test_the_numbers_are_the_cards_and_the_real_gain_is_that_of_dynamic_programming():
    found = compare(POLICY, BATCH, objective=worlds.exact_objective(MDP), lr=0.02, epochs=20)
    assert [s.rule for s in found.steps] == ["PG", "NPG", "TRPO", "PPO-clip", "PPO-penalty", "TRPO, exact"]
    assert found.before == pytest.approx(J(MDP, POLICY))
    for step in found.steps:
        moved = deepcopy(POLICY)
        diagnostics = UpdateDiagnostics(moved, BATCH)
        moved.flat.add_(step.step)
        measured, _ = diagnostics.compute(moved, BATCH)
        assert (step.kl, step.kl_quadratic) == pytest.approx((measured["kl"], measured["kl_quadratic"]), abs=1e-15)
        assert (step.gain, step.predicted_gain) == pytest.approx((measured["gain"], measured["predicted_gain"]))
        assert step.step_norm == pytest.approx(float(step.step.norm()))
        after = J(MDP, moved)
        assert step.real_gain == pytest.approx(after - found.before, abs=1e-13)
        assert step.interval is None


def test_pg_and_npg_end_on_the_same_ellipse_and_their_angle_there_is_the_ratio_of_their_predictions():
    found = compare(POLICY, BATCH, max_kl=0.02, lr=0.02)
    pg_, npg, exact = found["PG"], found["NPG"], found["TRPO, exact"]
    for step in (pg_, npg):
        assert step.kl_quadratic == pytest.approx(0.02, rel=1e-10)
    assert pg_.angle_pg == pytest.approx(0.0, abs=1e-10)
    assert npg.angle_npg == pytest.approx(0.0, abs=1e-10)
    assert pg_.angle_npg == pytest.approx(npg.angle_pg) == pytest.approx(relations.angle(pg_.step, npg.step))
    evaluation = POLICY.evaluate(BATCH)
    inner = float(pg_.step @ evaluation.fisher_product(npg.step, share(BATCH)))
    assert pg_.predicted_gain / npg.predicted_gain == pytest.approx(inner / 0.04)  # the cosine in the metric F
    assert exact.kl == pytest.approx(0.02, rel=1e-10)
    assert exact.gain > found["TRPO"].gain > 0.0
    assert found["TRPO"].kl <= 0.02


def test_with_damping_pg_has_the_quadratic_kl_of_npgs_own_step_which_is_less_than_max_kl():
    policy = network()
    batch = worlds.exact_batch(MDP, policy)
    batch = replace(batch, logp=batch.logp + 0.3 * torch.sin(torch.arange(len(batch)).double()))  # ratios are not 1
    for damping in (0.1, 3.0):
        found = compare(
            policy, batch, five_rules(policy, batch, max_kl=0.02, beta=1.0, damping=damping), damping=damping
        )
        assert found["PG"].kl_quadratic == pytest.approx(found["NPG"].kl_quadratic, rel=1e-9)
        assert 0.0 < found["NPG"].kl_quadratic < 0.019


def test_angles_and_predictions_are_to_the_cards_gradient_which_has_the_ratio():
    batch = replace(BATCH, logp=BATCH.logp + 0.5 * torch.sin(torch.arange(len(BATCH)).double()))
    g = UpdateDiagnostics(deepcopy(POLICY), batch).gradient

    def along(policy: Policy, batch: Batch) -> None:
        policy.flat.add_(g, alpha=0.1)

    found = compare(POLICY, batch, {"along": along, "PG": five_rules(POLICY, batch, beta=1.0)["PG"]})
    assert found["along"].angle_pg == pytest.approx(0.0, abs=1e-6)
    assert found["PG"].angle_pg > 1.0  # VanillaGradient has no ratio


def test_a_policy_that_is_certain_to_rounding_is_refused_with_the_reason():
    certain = tabular_policy(worlds.make_mdp("bandit"), torch.Generator().manual_seed(0), 100.0)
    batch = worlds.exact_batch(worlds.make_mdp("bandit"), certain)
    for call in (compare, five_rules, lambda *a: relations.quadratic_beta(*a, kl=0.01)):
        with pytest.raises(ValueError, match="so certain on this batch that its Fisher matrix is 0 to rounding"):
            call(certain, batch)


def test_real_gains_over_episodes_are_paired_and_have_an_interval():
    returns = {0: np.arange(10.0), 1: np.arange(10.0) + np.tile([1.0, 2.0], 5)}
    found = compare(
        POLICY,
        BATCH,
        {"NPG": NaturalGradient(0.01, damping=0.01)},
        objective=lambda policy: returns[int(not torch.equal(policy.flat, POLICY.flat))].tolist(),
    )
    step = found["NPG"]
    assert found.before == 4.5
    assert step.real_gain == 1.5
    assert step.interval is not None
    assert 1.0 < step.interval[0] < 1.5 < step.interval[1] < 2.0  # of the differences: the returns spread over 10


def test_npg_is_trpo_to_first_order():
    """Row 129, 134: against the exact solution the angle falls as √δ and the gain lost at equal KL as δ."""
    lake = tabular_policy(LAKE, torch.Generator().manual_seed(0))
    for policy, batch in ((POLICY, BATCH), (lake, worlds.exact_batch(LAKE, lake))):
        points = relations.trust_path(policy, batch, [1e-6, 1e-5, 1e-4])
        for a, b in pairwise(points):
            assert math.log10(b.angle / a.angle) == pytest.approx(0.5, abs=0.03)
            assert math.log10(b.gap / a.gap) == pytest.approx(1.0, abs=0.08)
        assert points[0].angle < 0.5
        assert 0.0 < points[0].gap < 1e-4
        assert points[0].npg_kl == pytest.approx(1e-6, rel=2e-3)
        assert all(point.trpo_gap > point.gap for point in points)


def test_trpo_loses_a_fifth_where_kl_exceeds_its_quadratic_model_by_however_little():
    overshoots = tabular_policy(MDP, torch.Generator().manual_seed(1))
    overshoots.flat.neg_()
    batch = worlds.exact_batch(MDP, overshoots)
    (point,) = relations.trust_path(overshoots, batch, [1e-6])
    shrunk = point.npg_kl > 1e-6
    assert point.trpo_gap == pytest.approx(0.2 if shrunk else 0.0, abs=0.01)
    other = relations.trust_path(POLICY, BATCH, [1e-6])[0]
    assert shrunk != (other.npg_kl > 1e-6)
    assert other.trpo_gap == pytest.approx(0.2 if other.npg_kl > 1e-6 else 0.0, abs=0.01)


def test_the_matching_penalty_is_the_multiplier_and_the_production_rule_climbs_to_its_policy():
    """Row 135: PPO's penalty with β*, given time, makes the step of the constrained problem."""
    trpo = relations.apply(TrustRegion(0.01, damping=0.0, solver="dense"), POLICY, BATCH)[0]
    match = relations.matching_beta(POLICY, BATCH, trpo["kl"])
    best = constrained(*tables(POLICY, BATCH), trpo["kl"])
    assert match.beta == best.beta
    assert match.kl == pytest.approx(trpo["kl"], rel=1e-9)
    assert match.gain == pytest.approx(float(BATCH.weight.sum()) * best.gain, rel=1e-9)
    assert match.gain >= trpo["gain"]
    stats, moved = relations.apply(relations.penalty(match.beta, 0.003, 1500), POLICY, BATCH)
    assert stats["kl"] == pytest.approx(trpo["kl"], rel=2e-3)
    torch.testing.assert_close(policy_matrix(MDP, moved).detach(), best.pi, rtol=0, atol=1e-4)


def test_with_a_linear_gain_and_a_quadratic_kl_beta_would_be_npgs_gain_a_nat_halved():
    for kl, tolerance in ((1e-2, 0.1), (1e-6, 1e-3)):
        match = relations.matching_beta(POLICY, BATCH, kl)
        assert match.beta == pytest.approx(match.beta_quadratic, rel=tolerance)
    step, diagnostics = relations.natural_step(POLICY, BATCH, 0.02), UpdateDiagnostics(deepcopy(POLICY), BATCH)
    expected = float(diagnostics.gradient @ step) / (2.0 * 0.02 * float(BATCH.weight.sum()))
    assert relations.quadratic_beta(POLICY, BATCH, 0.02) == pytest.approx(expected)


def test_for_a_network_the_matching_penalty_is_that_of_the_rule_with_its_epochs():
    policy = network()
    batch = worlds.exact_batch(MDP, policy)
    match = relations.matching_beta(policy, batch, 0.005, lr=0.01, epochs=30)
    stats, moved = relations.apply(relations.penalty(match.beta, 0.01, 30), policy, batch)
    assert stats["kl"] == match.kl == pytest.approx(0.005, rel=2e-3)
    assert torch.equal(moved.flat - policy.flat, match.step)
    with pytest.raises(ValueError, match=r"stay short of KL = 0.005 however small beta: raise epochs or lr"):
        relations.matching_beta(policy, batch, 0.005, lr=1e-5, epochs=2)
    with pytest.raises(ValueError, match="go beyond KL = 1e-08 however large beta: lower lr"):
        relations.matching_beta(policy, batch, 1e-8, lr=0.5, epochs=2)
    with pytest.raises(ValueError, match="KL > 0, got 0"):
        relations.matching_beta(policy, batch, 0.0)


def test_the_path_of_penalties_realises_less_kl_the_larger_beta_is():
    """Row 76, 135."""
    betas = [0.1, 1.0, 10.0, 100.0]
    points = relations.penalty_path(POLICY, BATCH, betas, lr=0.02, epochs=200)
    assert [p.beta for p in points] == betas
    for a, b in pairwise(points):
        assert a.kl > b.kl > 0.0
        assert a.limit is not None
        assert b.limit is not None
        assert a.limit > b.limit
    assert points[1].kl == pytest.approx(points[1].limit, rel=0.05)
    policy = network()
    assert relations.penalty_path(policy, worlds.exact_batch(MDP, policy), [1.0], epochs=2)[0].limit is None


def test_conjugate_gradients_come_close_to_the_dense_solution():
    """Row 75."""
    costs = relations.dense_against_cg([2, 6, 20], samples=32, dense_up_to=150)
    assert [c.parameters for c in costs] == [36, 124, 684]
    assert all(c.error is not None and c.error < 2e-3 and c.dense_seconds is not None for c in costs[:2])
    assert (costs[2].dense_seconds, costs[2].error) == (None, None)
    assert all(c.cg_seconds > 0.0 for c in costs)
    rough = relations.dense_against_cg([6], samples=32, iterations=1)[0]
    assert rough.error is not None
    assert rough.error > 10.0 * (costs[1].error or 0.0)


def test_a_rule_of_your_own_is_compared_in_three_lines():
    class Unclipped(FirstOrder):
        def score_weights(self, logp, batch):
            return batch.weight * batch.adv * (logp - batch.logp).exp()

    rules = five_rules(POLICY, BATCH, lr=0.02) | {"unclipped": Unclipped(0.02, epochs=20)}
    found = compare(POLICY, BATCH, rules)
    assert found["unclipped"].gain > 0.0
    assert "unclipped" in found.table()
    doing_nothing = compare(POLICY, BATCH, {"nothing": lambda policy, batch: None})
    assert math.isnan(doing_nothing["nothing"].angle_pg)
    assert doing_nothing.table().splitlines()[1].split() == ["nothing", "0", "–", "–", "0", "0", "0", "0"]
    assert doing_nothing.to_json()["steps"][0]["angle_pg"] is None


def test_a_batch_that_prefers_nothing_is_refused():
    level = replace(BATCH, adv=torch.zeros_like(BATCH.adv))
    for call in (compare, five_rules):
        with pytest.raises(ValueError, match="the batch's gradient is 0"):
            call(POLICY, level)


def test_columns_have_as_many_decimals_as_their_largest_number_needs_for_three_digits():
    assert decimals([0.0123, -0.0004, None, math.nan]) == ["0.0123", "-0.0004", "", "–"]
    assert decimals([1234.5, 0.3]) == ["1,234", "0"]
    assert decimals([9.96, 60.3]) == ["10.0", "60.3"]
    assert decimals([-0.004, 133.0]) == ["0", "133"]
    assert decimals([0.0, 0.0]) == ["0", "0"]


@pytest.mark.parametrize("name", list(worlds.WORLDS))
def test_every_world_has_its_exact_gradient_in_its_batch(name):
    mdp = worlds.make_mdp(name)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    batch = worlds.exact_batch(mdp, policy)
    gradient = policy.evaluate(batch).gradient(batch.weight * batch.adv)
    exact = exact_gradient(mdp, policy)
    Q = solve(mdp, policy_matrix(mdp, policy).detach())[1]  # sums of these: what they are rounded to remains
    scale = 1.0 + float(exact.abs().max()) + 0.1 * float(Q.abs().max())
    torch.testing.assert_close(gradient, exact, rtol=0, atol=1e-14 * scale)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("frozenlake", "did you mean 'FrozenLake-v1'"), ("chian", "'chain'"), ("xyz", "available: bandit, ")],
)
def test_a_world_that_is_not_there_is_answered_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=f"there is no MDP '{name}': .*{hint}"):
        worlds.make_mdp(name)


def test_in_two_states_always_right_is_best_and_the_gradient_of_who_goes_left_leads_away():
    assert J(TWO, worlds.two_logit_policy((30.0, 30.0))) == pytest.approx(0.2 * 16.0 + 0.8 * 14.0)
    assert J(TWO, worlds.two_logit_policy((-30.0, -30.0))) == pytest.approx(0.2 * 7.0 + 0.8 * 8.0)
    assert J(TWO, worlds.two_logit_policy((30.0, 30.0))) == pytest.approx(optimum(TWO))
    left, right = exact_gradient(TWO, worlds.two_logit_policy((-1.0, -2.0))).tolist()
    assert left < 0.0 < right


def test_the_plane_shows_the_ellipse_the_circle_and_the_steps_on_them():
    seen = plane.look((-1.0, -2.0), 0.02, reach=0.5, size=5)
    F = plane.plane_fisher((-1.0, -2.0)).numpy()
    for s in [*(seen.ellipse - np.array(seen.theta)), seen.gradient, seen.natural]:
        assert 0.5 * s @ F @ s == pytest.approx(0.02, rel=1e-9)
    policy = worlds.two_logit_policy(seen.theta)
    exact = exact_gradient(TWO, policy).numpy()
    assert exact @ seen.natural > exact @ seen.gradient > 0.0
    assert np.cross([*seen.gradient, 0.0], [*exact, 0.0]) == pytest.approx(0.0, abs=1e-12)
    assert seen.J[2, 2] == pytest.approx(J(TWO, policy))
    assert seen.kl[2, 2] == pytest.approx(0.0, abs=1e-15)
    assert seen.kl[0, 2] > 0.0
    # rows are θ₂: a step up changes J as the second parameter does
    assert (seen.J[3, 2] - seen.J[1, 2]) / 0.5 == pytest.approx(exact[1], rel=0.05)
    most = plane.most_kl(np.array([-1.0, 3.0]))
    assert most.shape == (2, 2)
    assert most[0, 1] == pytest.approx(np.linalg.eigvalsh(plane.plane_fisher((3.0, -1.0)).numpy())[-1] / 2.0)


def test_tiny_angles_are_exact():
    u = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert relations.angle(u, torch.tensor([5.0, 5e-12], dtype=torch.float64)) == pytest.approx(math.degrees(1e-12))
    assert relations.angle(u, torch.tensor([-2.0, 0.0])) == pytest.approx(180.0)


def collected(agent: pg.Agent) -> Record:
    """The agent's next record."""
    return agent.collector.collect(agent.policy, agent.plan.wants)


def test_the_batch_of_an_agent_is_what_its_next_update_is_given():
    settings = {"num_envs": 2, "num_steps": 32, "epochs": 1, "minibatches": 1, "hidden": (8,)}
    agents = [pg.ppo("CartPole-v1", seed=3, **settings).learn(128) for _ in range(2)]
    batch, given = training_batch(agents[0]), []
    agents[1].learner.update = lambda policy, batch, progress: given.append(batch) or {}  # pyright: ignore
    agents[1].learner.step(collected(agents[1]))
    for name in ("obs", "act", "logp", "adv", "weight"):
        assert torch.equal(getattr(batch, name), getattr(given[0], name))
    returns = sampled_objective(agents[0], 3)(agents[0].policy)
    assert returns == agents[0].evaluate(3, greedy=False).returns
    record = collected(agents[0])
    none = {name: np.zeros_like(record.mask) for name in ("mask", "terminated", "truncated", "cut")}
    agents[0].collector.collect = lambda actor, wants: replace(record, **none)  # pyright: ignore
    with pytest.raises(TooFewError, match="the next rollout has no step, only a reset"):
        training_batch(agents[0])
