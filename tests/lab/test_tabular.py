"""The exact world against itself: dynamic programming, enumeration, autograd, the theorem and differences must agree."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from zoo import MDPS, shorter

from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import GAE, TDError, advantages
from policygrad.lab.exact import trajectories
from policygrad.lab.exact.tabular import (
    MDP,
    ExactCritic,
    ExactQCritic,
    bandit,
    chain,
    credited_gradient,
    discounts,
    exact_gradient,
    gradient_by_differences,
    gradient_theorem,
    objective,
    policy_matrix,
    random_mdp,
    solve,
    tabular_policy,
    visits,
)
from policygrad.lab.exact.trajectories import enumerate_batches, enumerate_trajectories
from policygrad.models.heads import Categorical
from policygrad.models.networks import MLP
from policygrad.models.policy import Policy

worlds = pytest.mark.parametrize("world", MDPS, ids=lambda w: w.name)


def tables(**changes):
    """A valid MDP's fields, with changes."""
    fields = {
        "transition": torch.full((2, 2, 2), 0.5),
        "reward": torch.zeros(2, 2),
        "start": torch.tensor([1.0, 0.0]),
        "horizon": 2,
    }
    return fields | changes


@worlds
def test_the_gradient_is_the_same_by_autograd_by_the_theorem_and_by_differences(world):
    policy = world.policy()
    exact = exact_gradient(world.mdp, policy)
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(gradient_theorem(world.mdp, policy), exact, rtol=0, atol=1e-13)
    theta = policy.flat.clone()
    torch.testing.assert_close(gradient_by_differences(world.mdp, policy), exact, rtol=0, atol=1e-9)
    assert torch.equal(policy.flat, theta)


@pytest.mark.parametrize("kernel", ["autograd", "closed_form"])
def test_any_policy_over_one_hot_observations_will_do(kernel):
    mdp = MDPS[1].mdp
    network = MLP(mdp.states, (4,), mdp.actions, generator=torch.Generator().manual_seed(0))
    policy = Policy(network, Categorical(mdp.actions), kernel=kernel).double()
    exact = exact_gradient(mdp, policy)
    torch.testing.assert_close(gradient_theorem(mdp, policy), exact, rtol=0, atol=1e-13)
    torch.testing.assert_close(gradient_by_differences(mdp, policy), exact, rtol=0, atol=1e-9)


@worlds
def test_enumeration_lists_every_trajectory_once_and_agrees_with_dynamic_programming(world):
    mdp, policy = world.mdp, world.policy()
    rollout, p = enumerate_trajectories(mdp, policy)
    pi = policy_matrix(mdp, policy).detach()
    V, Q = solve(mdp, pi)
    state = rollout.obs.argmax(-1)
    keys = torch.cat([state.T, rollout.act.T, rollout.mask.T.long()], 1)
    assert len(keys.unique(dim=0)) == len(p)
    assert (p > 0).all()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-14)
    assert rollout.whole_episodes
    assert not rollout.truncated.any()
    # J, d, V and Q, each as an expectation over trajectories
    weight = p * rollout.mask
    discount = mdp.gamma ** rollout.time.double()
    assert float((weight * discount * rollout.rew).sum()) == pytest.approx(float(objective(mdp, pi)), abs=1e-13)
    d, to_go, credit = torch.zeros_like(V[:-1]), torch.zeros_like(V[:-1]), torch.zeros_like(Q)
    for n in range(len(p)):
        rest = 0.0
        for t in reversed(range(int(rollout.mask[:, n].sum()))):
            s, a = int(state[t, n]), int(rollout.act[t, n])
            rest = float(rollout.rew[t, n]) + mdp.gamma * rest
            d[t, s] += p[n]
            to_go[t, s] += p[n] * rest
            credit[t, s, a] += p[n] * rest
    torch.testing.assert_close(d, visits(mdp, pi), rtol=0, atol=1e-14)
    torch.testing.assert_close(to_go, d * V[:-1], rtol=0, atol=1e-13)
    torch.testing.assert_close(credit, d[..., None] * pi * Q, rtol=0, atol=1e-13)


@worlds
def test_rows_are_what_an_environment_would_have_recorded(world):
    mdp, policy = world.mdp, world.policy()
    rollout, p = enumerate_trajectories(mdp, policy)
    pi = policy_matrix(mdp, policy).detach()
    state = rollout.obs.argmax(-1)
    for n in range(len(p)):
        chance = mdp.start[state[0, n]]
        for t in range(int(rollout.mask[:, n].sum())):
            s, a, after = int(state[t, n]), int(rollout.act[t, n]), int(state[t + 1, n])
            assert not mdp.over[s]
            assert rollout.obs[t, n].sum() == rollout.obs[t + 1, n].sum() == 1.0
            assert rollout.rew[t, n] == mdp.reward[s, a]
            assert float(rollout.logp[t, n]) == pytest.approx(math.log(pi[s, a]), abs=1e-13)
            assert bool(rollout.terminated[t, n]) == (after in mdp.terminal or t == mdp.horizon - 1)
            chance = chance * pi[s, a] * mdp.transition[s, a, after]
        assert (rollout.obs[t + 2 :, n] == 0).all()
        assert float(chance) == pytest.approx(float(p[n]), rel=1e-12)
    assert (rollout.rew[~rollout.mask] == 0).all()
    assert torch.equal(rollout.next_obs, rollout.obs[1:])
    assert (rollout.time == torch.arange(mdp.horizon)[:, None]).all()


def test_batches_are_all_ordered_tuples_with_product_probabilities():
    world = next(w for w in MDPS if w.name == "crossing, γ=1")
    rollout, p = enumerate_trajectories(world.mdp, world.policy())
    seen = list(enumerate_batches(rollout, p, 2))
    assert len(seen) == len(p) ** 2
    assert float(sum(q for _, q in seen)) == pytest.approx(1.0, abs=1e-14)
    batch, q = seen[1 * len(p) + 3]
    torch.testing.assert_close(q, p[1] * p[3], rtol=0, atol=1e-16)
    for field in (f for f in dataclasses.fields(rollout) if f.name != "extra"):
        assert torch.equal(getattr(batch, field.name), getattr(rollout, field.name)[:, [1, 3]])
    assert rollout.columns([2, 2]).trajectories == 2


def test_too_many_trajectories_are_refused_before_memory_runs_out(monkeypatch):
    monkeypatch.setattr(trajectories, "MAX_TRAJECTORIES", 20)
    with pytest.raises(ValueError, match="more than 20 trajectories by step 1"):
        enumerate_trajectories(MDPS[0].mdp, MDPS[0].policy())


def test_the_bandit_gradient_is_the_textbooks():
    rewards = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    mdp = bandit(rewards.tolist())
    policy = tabular_policy(mdp, torch.Generator().manual_seed(3))
    pi = policy_matrix(mdp, policy).detach()[0]
    J = pi @ rewards
    torch.testing.assert_close(objective(mdp, pi[None]), J)
    torch.testing.assert_close(exact_gradient(mdp, policy), pi * (rewards - J), rtol=0, atol=1e-15)


def test_the_chain_pays_the_discounted_price_of_its_length():
    mdp = chain(4, horizon=5, gamma=0.9)
    right = torch.tensor([[0.0, 1.0]]).repeat(4, 1).double()
    V, Q = solve(mdp, right)
    assert float(objective(mdp, right)) == pytest.approx(0.9**2)
    assert V[-1].eq(0).all()
    assert V[:, 3].eq(0).all()
    assert Q[:, 3].eq(0).all()
    assert V[3].tolist() == pytest.approx([0.0, 0.9, 1.0, 0.0])  # two steps to go
    assert float(objective(chain(4, 2, 0.9), right)) == 0.0  # too short to get there
    slipping = chain(3, horizon=1, slip=0.25)
    assert slipping.reward.tolist() == [[0.0, 0.0], [0.25, 0.75], [0.0, 0.0]]


@worlds
def test_the_performance_difference_lemma_holds_for_the_solution(world):
    """J(π') − J(π) = Σ_t γᵗ Σ_s d'_t(s) Σ_a π'(a|s) (Q_t − V_t)(s, a): Kakade & Langford 2002, lemma 6.1."""
    mdp = world.mdp
    new, old = (
        policy_matrix(mdp, tabular_policy(mdp, torch.Generator().manual_seed(seed))).detach() for seed in (7, 8)
    )
    V, Q = solve(mdp, old)
    gain = (discounts(mdp) * visits(mdp, new)[..., None] * new * (Q - V[:-1, :, None])).sum()
    assert float(gain) == pytest.approx(float(objective(mdp, new) - objective(mdp, old)), abs=1e-13)
    assert abs(float(gain)) > 1e-3


def test_a_credit_without_the_action_adds_nothing():
    world = MDPS[0]
    credit = torch.randn(world.mdp.horizon, world.mdp.states, 1, dtype=torch.float64).expand(-1, -1, world.mdp.actions)
    assert credited_gradient(world.mdp, world.policy(), credit).abs().max() < 1e-14


def test_the_exact_critic_has_no_td_error_where_nothing_is_random():
    """Whatever the end: terminated at the goal, terminated at the horizon, truncated or cut before it."""
    mdp = chain(4, horizon=6, gamma=0.9)
    policy = tabular_policy(mdp)
    policy.flat.view(4, 2).copy_(torch.tensor([-60.0, 60.0]))  # as good as deterministic
    critic = ExactCritic(mdp)
    short, p = enumerate_trajectories(shorter(mdp, 2), policy)
    path = short.columns([int(p.argmax())])
    cut = torch.zeros_like(path.cut)
    cut[-1] = True
    for end in ("truncated", "cut"):
        limited = dataclasses.replace(path, terminated=torch.zeros_like(cut), **{end: cut})
        for estimator in (TDError(mdp.gamma), GAE(mdp.gamma, 0.9)):
            adv, _ = advantages(limited, critic(limited, policy), estimator, CriticValue())
            assert adv.abs().max() < 1e-12
            adv, _ = advantages(path, critic(path, policy), estimator, CriticValue())
            assert adv.abs().max() > 0.5  # taken for a termination
    whole, p = enumerate_trajectories(mdp, policy)
    path = whole.columns([int(p.argmax())])
    adv, _ = advantages(path, critic(path, policy), TDError(mdp.gamma), CriticValue())
    assert adv.abs().max() < 1e-12


def test_the_exact_critic_reads_state_and_time_and_has_nothing_to_learn():
    mdp, policy = MDPS[1].mdp, MDPS[1].policy()
    rollout, _ = enumerate_trajectories(mdp, policy)
    V = solve(mdp, policy_matrix(mdp, policy).detach())[0]
    critic = ExactCritic(mdp)
    values = critic(rollout, policy)
    assert values.bootstraps
    for t, n in rollout.mask.nonzero().tolist():
        assert values.val[t, n] == V[t, int(rollout.obs[t, n].argmax())]
        assert values.next_val[t, n] == V[t + 1, int(rollout.next_obs[t, n].argmax())]
    torch.testing.assert_close(ExactCritic(mdp, V + 1.0)(rollout, policy).val, values.val + 1.0)
    assert critic.fit(rollout, rollout.rew, policy) == critic.state_dict() == {}
    critic.load_state_dict({})
    with pytest.raises(ValueError, match=r"V must be \(H\+1, S\) = \(4, 3\), got \(3, 3\)"):
        ExactCritic(mdp, V[:-1])


def test_the_exact_q_critic_agrees_with_the_exact_critic_and_takes_any_table():
    mdp, policy = MDPS[1].mdp, MDPS[1].policy()
    rollout, _ = enumerate_trajectories(mdp, policy)
    pi = policy_matrix(mdp, policy).detach()
    Q = solve(mdp, pi)[1]
    values, expected = ExactQCritic(mdp)(rollout, policy), ExactCritic(mdp)(rollout, policy)
    assert values.bootstraps
    mask = rollout.mask
    torch.testing.assert_close(values.val[mask], expected.val[mask], rtol=0, atol=1e-14)
    torch.testing.assert_close(values.next_val[mask], expected.next_val[mask], rtol=0, atol=1e-14)
    for t, n in mask.nonzero().tolist():
        assert values.act_val[t, n] == Q[t, int(rollout.obs[t, n].argmax()), int(rollout.act[t, n])]
    table = torch.randn(mdp.horizon + 1, mdp.states, mdp.actions, dtype=torch.float64)
    other = ExactQCritic(mdp, table)(rollout, policy)
    t, n = 1, int(mask[1].nonzero()[0])
    s = int(rollout.obs[t, n].argmax())
    assert float(other.val[t, n]) == pytest.approx(float(pi[s] @ table[t, s]))
    assert other.act_val[t, n] == table[t, s, int(rollout.act[t, n])]
    with pytest.raises(ValueError, match=r"Q must be \(H\+1, S, A\) = \(4, 3, 2\), got \(3, 3, 2\)"):
        ExactQCritic(mdp, table[:-1])


def test_the_same_seed_gives_the_same_world_and_policy():
    worlds = [random_mdp(3, 2, 4, np.random.default_rng(4), terminal=(1,)) for _ in range(2)]
    assert torch.equal(worlds[0].transition, worlds[1].transition)
    assert worlds[0].start[1] == 0.0
    first, second = (tabular_policy(worlds[0], torch.Generator().manual_seed(1)).flat for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float64
    assert torch.equal(tabular_policy(worlds[0], scale=0.0).flat, torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": torch.zeros(4)}, r"reward must be \(S, A\)"),
        ({"reward": torch.zeros(2, 3)}, r"transition must be \(2, 3, 2\)"),
        ({"start": torch.ones(3) / 3}, r"start must be \(2,\)"),
        ({"reward": torch.tensor([[0.0, math.nan], [0.0, 0.0]])}, "reward must be finite"),
        ({"transition": torch.full((2, 2, 2), 0.4)}, r"transition\[s, a\] must be a probability distribution"),
        ({"transition": torch.full((2, 2, 2), math.nan)}, "probability distribution"),
        ({"start": torch.tensor([1.5, -0.5])}, "start must be a probability distribution"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"gamma": 1.01}, r"gamma must be in \[0, 1\], got 1.01"),
        ({"terminal": (2,)}, r"terminal states must be in 0..1, got \(2,\)"),
        ({"terminal": (0,)}, "start must give terminal states probability 0"),
    ],
)
def test_tables_that_are_no_mdp_are_refused_with_what_was_expected(changes, message):
    MDP(**tables())
    with pytest.raises(ValueError, match=message):
        MDP(**tables(**changes))


def test_a_chain_needs_two_states():
    with pytest.raises(ValueError, match="a chain needs at least 2 states, got 1"):
        chain(1, 3)


def test_episodes_too_long_to_be_told_are_refused():
    stay_or_go = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]] * 2)
    mdp = MDP(stay_or_go, -torch.ones(2, 2), torch.tensor([1.0, 0.0]), None, terminal=(1,))

    def go(p: float) -> float:
        return float(objective(mdp, torch.tensor([[1.0 - p, p]] * 2, dtype=torch.float64)))

    assert [go(p) for p in (0.5, 1e-3, 1e-9)] == pytest.approx([-2.0, -1e3, -1e9], rel=1e-6)
    with pytest.raises(ValueError, match="float64 cannot tell"):
        go(1e-14)
