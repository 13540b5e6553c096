"""The exact world against independent calculations: lists of paths, linear programmes, Hessians, brute force."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from policygrad.data import Batch, Rollout
from policygrad.gradient.baselines import CriticValue, NoBaseline
from policygrad.gradient.estimators import GAE, QValue, RewardToGo, StateDiscounted, TDError, advantages
from policygrad.lab.exact import worlds
from policygrad.lab.exact.mdp import MDP, chain, random_mdp, switched_corridor
from policygrad.lab.exact.tabular import (
    ExactCritic,
    ExactQCritic,
    advantage,
    credited_gradient,
    discounts,
    enumerate_trajectories,
    exact_gradient,
    fisher,
    gradient_by_differences,
    gradient_theorem,
    greedy,
    natural_gradient,
    objective,
    occupancy,
    optimal_policy,
    optimum,
    policy_iteration,
    policy_matrix,
    scores,
    solve,
    tabular_policy,
    visits,
)
from policygrad.models.heads import Categorical
from policygrad.models.networks import MLP
from policygrad.models.policy import Policy

LONG = 400  # steps: 0.9⁴⁰⁰ = 5e-19


def make(seed: int, horizon: int | None) -> MDP:
    """One of many: 3 or 4 states, with and without an end, with and without aliasing, reward of (s, a) or (s, a, s')."""
    S, A, ends, gamma = 3 + seed % 2, 2, seed % 4 >= 2, (0.9, 0.6, 1.0)[seed % 3]
    rng = np.random.default_rng(seed)
    mdp = random_mdp(S, A, horizon or 1, rng, gamma, terminal=(S - 1,) if ends else ())
    if horizon is None and not ends and gamma == 1.0:
        gamma = 0.8
    reward = rng.standard_normal((S, A, S)) if seed % 5 == 0 else mdp.reward
    groups = tuple(min(s, 1) for s in range(S)) if seed % 7 == 0 else None
    return dataclasses.replace(mdp, reward=torch.as_tensor(reward), horizon=horizon, gamma=gamma, groups=groups)


def policy_for(mdp: MDP, seed: int = 0) -> Policy:
    return tabular_policy(mdp, torch.Generator().manual_seed(100 + seed))


def pi_for(mdp: MDP, seed: int = 0, steps: int | None = None) -> Tensor:
    """Random probabilities, (S, A) or (steps, S, A)."""
    shape = (mdp.states, mdp.actions) if steps is None else (steps, mdp.states, mdp.actions)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(-1)


mdps = st.builds(make, st.integers(0, 2**16), st.one_of(st.none(), st.integers(1, 6)))
seeds = st.integers(0, 2**16)


def paths(mdp: MDP, pi: Tensor) -> Iterator[tuple[float, list[tuple[int, int, int]]]]:
    """Every path of a finite horizon and its probability, by definition: π is (H, S, A)."""
    states, actions = range(mdp.states), range(mdp.actions)

    def go(s: int, p: float, path: list[tuple[int, int, int]]) -> Iterator[tuple[float, list[tuple[int, int, int]]]]:
        if len(path) == mdp.horizon or s in mdp.terminal:
            yield p, path
            return
        for a, after in itertools.product(actions, states):
            q = p * float(pi[len(path), s, a]) * float(mdp.transition[s, a, after])
            if q > 0.0:
                yield from go(after, q, [*path, (s, a, after)])

    for s in states:
        if mdp.start[s] > 0:
            yield from go(s, float(mdp.start[s]), [])


def paid(mdp: MDP, path: list[tuple[int, int, int]]) -> float:
    return sum(mdp.gamma**t * float(mdp.outcome[step]) for t, step in enumerate(path))


def unrolled(mdp: MDP) -> MDP:
    """The same task without a horizon: a state for every (t, s), and one more for the end."""
    assert mdp.horizon is not None
    H, S, A = mdp.horizon, mdp.states, mdp.actions
    P, r = torch.zeros(H * S + 1, A, H * S + 1, dtype=torch.float64), torch.zeros(H * S + 1, A, dtype=torch.float64)
    for t, s in itertools.product(range(H), range(S)):
        if s in mdp.terminal:
            P[t * S + s, :, -1] = 1.0
            continue
        r[t * S + s] = mdp.reward[s]
        for after in range(S):
            to = -1 if t == H - 1 or after in mdp.terminal else (t + 1) * S + after
            P[t * S + s, :, to] += mdp.transition[s, :, after]
    P[-1, :, -1] = 1.0
    start = torch.cat([mdp.start, torch.zeros((H - 1) * S + 1, dtype=torch.float64)])
    return MDP(P, r, start, None, mdp.gamma, (H * S,))


def close(a: Tensor, b: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


# --- the gradient -------------------------------------------------------------------------------------------------------


def softmax_scores(mdp: MDP, policy: Policy) -> Tensor:
    """∇log π(a|s) = e_a − π(·|s) in the row of the state, or of its group, (S, A, P): by hand."""
    rows = mdp.groups or tuple(range(mdp.states))
    pi = policy.flat.view(-1, mdp.actions).softmax(-1)
    table = torch.zeros(mdp.states, mdp.actions, max(rows) + 1, mdp.actions, dtype=torch.float64)
    for s, row in enumerate(rows):
        table[s, :, row] = torch.eye(mdp.actions, dtype=torch.float64) - pi[row]
    return table.flatten(2)


def by_definition(mdp: MDP, policy: Policy) -> Tensor:
    """∇J = Σ_τ P(τ) R(τ) Σ_t ∇log π(a_t|s_t)."""
    rollout, p = enumerate_trajectories(mdp, policy)
    score = softmax_scores(mdp, policy)[rollout.obs[:-1].argmax(-1), rollout.act] * rollout.mask.unsqueeze(-1)
    R = (mdp.gamma ** rollout.time.double() * rollout.rew).sum(0)
    return torch.einsum("n,tnp->p", p * R, score)


@pytest.mark.parametrize("seed", range(20))
def test_finite_horizon_the_gradient_is_the_same_four_ways(seed):
    mdp = make(seed, 3 + seed % 2)
    policy = policy_for(mdp, seed)
    exact = by_definition(mdp, policy)
    assert exact.abs().max() > 1e-3
    close(exact_gradient(mdp, policy), exact)
    close(gradient_theorem(mdp, policy), exact)
    close(gradient_by_differences(mdp, policy), exact, 1e-7 * float(exact.abs().max()))


@pytest.mark.parametrize("seed", range(20))
def test_without_a_horizon_the_linear_solve_has_the_theorems_gradient_and_that_of_a_very_long_one(seed):
    mdp = make(seed, None)
    policy, long = policy_for(mdp, seed), dataclasses.replace(mdp, reward=mdp.outcome, horizon=LONG)
    exact = exact_gradient(mdp, policy)
    assert exact.abs().max() > 1e-3
    close(gradient_theorem(mdp, policy), exact)
    close(gradient_by_differences(mdp, policy), exact, 1e-7 * max(float(exact.abs().max()), 0.1))
    close(exact_gradient(long, policy), exact, 1e-11)
    pi = policy_matrix(mdp, policy).detach()
    close(objective(long, pi), objective(mdp, pi), 1e-11)
    close(solve(long, pi)[1][0], solve(mdp, pi)[1][0], 1e-11)
    close(occupancy(long, pi).sum(0), occupancy(mdp, pi)[0], 1e-11)
    for limit in (1, 7, LONG):
        close(occupancy(mdp, pi, limit), occupancy(long, pi)[:limit])
        close(visits(mdp, pi, limit), visits(long, pi)[:limit])
    close(gradient_theorem(mdp, policy, limit=LONG), exact, 1e-11)
    assert (gradient_theorem(mdp, policy, limit=1) - exact).abs().max() > 1e-4  # a limit leaves something out


def test_the_score_is_the_textbooks_also_where_states_look_alike():
    for seed in (1, 7):
        mdp = make(seed, 3)
        policy = policy_for(mdp)
        close(scores(mdp, policy), softmax_scores(mdp, policy), 1e-14)


# --- values and visits --------------------------------------------------------------------------------------------------


@given(mdps, seeds, st.booleans())
@settings(max_examples=60)
def test_values_solve_the_bellman_equations_and_occupancies_the_flow_equations(mdp, seed, timed):
    pi = pi_for(mdp, seed, mdp.horizon if timed else None)
    (V, Q), d = solve(mdp, pi), occupancy(mdp, pi)
    H = mdp.horizon or 1
    assert V.shape == (H + 1, mdp.states)
    assert Q.shape == advantage(mdp, pi).shape == (H, mdp.states, mdp.actions)
    assert d.shape == (H, mdp.states)
    at = pi if pi.ndim == 3 else pi.expand(H, -1, -1)
    for t, s in itertools.product(range(H), range(mdp.states)):
        for a in range(mdp.actions):
            after = [(float(mdp.transition[s, a, k]), float(mdp.outcome[s, a, k]), k) for k in range(mdp.states)]
            backup = sum(p * (r + mdp.gamma * float(V[t + 1, k]) * (k not in mdp.terminal)) for p, r, k in after)
            assert float(Q[t, s, a]) == pytest.approx(0.0 if s in mdp.terminal else backup, abs=1e-11)
        assert float(V[t, s]) == pytest.approx(float(at[t, s] @ Q[t, s]), abs=1e-11)
    if mdp.horizon:
        assert (V[-1] == 0).all()
    close(advantage(mdp, pi), Q - V[:-1].unsqueeze(-1), 1e-15)
    close((at * advantage(mdp, pi)).sum(-1), torch.zeros_like(V[:-1]), 1e-11)
    # what flows into a state at t + 1, or ever, came from those before
    inflow = mdp.gamma * mdp.live * torch.einsum("ts,tsa,sap->tp", d, at, mdp.transition)
    close(d, torch.cat([mdp.start[None], inflow[:-1]]) if mdp.horizon else mdp.start + inflow, 1e-11)
    close(objective(mdp, pi), (d.unsqueeze(-1) * at * mdp.reward).sum(), 1e-10)
    if mdp.horizon:
        close(d, discounts(mdp).squeeze(-1) * visits(mdp, pi))
    if not mdp.terminal:
        steps = sum(mdp.gamma**t for t in range(mdp.horizon)) if mdp.horizon else 1.0 / (1.0 - mdp.gamma)
        assert float(d.sum()) == pytest.approx(steps, rel=1e-12)


@given(st.builds(make, seeds, st.integers(1, 4)), seeds)
@settings(max_examples=25)
def test_a_horizon_is_a_clock_in_the_state_and_policies_that_depend_on_time_see_it(mdp, seed):
    """The recursion backwards in time and the linear equations are one thing: the unrolled MDP has no horizon."""
    pi, flat = pi_for(mdp, seed, mdp.horizon), unrolled(mdp)
    table = torch.cat([pi.flatten(0, 1), torch.full((1, mdp.actions), 1.0 / mdp.actions, dtype=torch.float64)])
    close(objective(flat, table), objective(mdp, pi))
    close(solve(flat, table)[1][0, :-1].view_as(pi), solve(mdp, pi)[1])
    close(occupancy(flat, table)[0, :-1].view(pi.shape[:2]), occupancy(mdp, pi))
    assert optimum(flat) == pytest.approx(optimum(mdp), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 2, 5, 7])
def test_return_has_the_mean_and_the_variance_of_the_paths(seed):
    mdp = make(seed, 3)
    pi = pi_for(mdp, seed, 3)
    listed = [(p, paid(mdp, path)) for p, path in paths(mdp, pi)]
    assert sum(p for p, _ in listed) == pytest.approx(1.0, abs=1e-14)
    J = sum(p * R for p, R in listed)
    assert float(objective(mdp, pi)) == pytest.approx(J, abs=1e-13)
    assert abs(float(objective(mdp, pi) - objective(mdp, pi[:1]))) > 1e-4  # the later tables matter
    policy = policy_for(mdp)
    rollout, p = enumerate_trajectories(mdp, policy)
    R = (mdp.gamma ** rollout.time.double() * rollout.rew).sum(0)
    pi = policy_matrix(mdp, policy).detach().expand(3, -1, -1)
    J = float(objective(mdp, pi))
    variance = sum(q * (paid(mdp, path) - J) ** 2 for q, path in paths(mdp, pi))
    assert float(p @ R) == pytest.approx(J, abs=1e-13)
    assert float(p @ (R - J).square()) == pytest.approx(variance, abs=1e-12)


def test_rewards_of_the_next_state_keep_their_variance_though_only_their_mean_matters_to_J():
    P, start = torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]]), torch.tensor([1.0, 0.0])
    coin = torch.tensor([[[3.0, -1.0]], [[0.0, 0.0]]])
    mdp, mean = MDP(P, coin, start, 1), MDP(P, torch.tensor([[1.0], [0.0]]), start, 1)
    assert torch.equal(mdp.reward, mean.reward)
    for world, variance in ((mdp, 4.0), (mean, 0.0)):
        rollout, p = enumerate_trajectories(world, tabular_policy(world))
        R = rollout.rew.sum(0)
        assert (float(p @ R), float(p @ (R - 1.0).square())) == (1.0, variance)


# --- Fisher matrix and natural gradient ---------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [3, None])
@pytest.mark.parametrize("seed", [1, 2, 7, 9])
def test_fisher_is_the_mean_outer_product_of_scores_the_production_product_and_the_hessian_of_the_kl(seed, horizon):
    mdp = make(seed, horizon)
    policy = policy_for(mdp, seed)
    F, batch = fisher(mdp, policy), worlds.exact_batch(mdp, policy)
    pi, score = policy_matrix(mdp, policy).detach(), softmax_scores(mdp, policy)
    rho = occupancy(mdp, pi).sum(0)
    rho = rho / rho.sum()
    close(F, torch.einsum("s,sa,sap,saq->pq", rho, pi, score, score), 1e-14)
    evaluation = policy.evaluate(batch)
    columns = [evaluation.fisher_product(e, batch.normalized_weight).clone() for e in torch.eye(len(F), dtype=F.dtype)]
    close(torch.stack(columns, 1), F, 1e-14)
    rows = torch.tensor(mdp.groups or tuple(range(mdp.states)))

    def kl(theta: Tensor) -> Tensor:
        logp = theta.view(-1, mdp.actions).log_softmax(-1)[rows]
        return (rho[:, None] * pi * (pi.log() - logp)).sum()

    close(torch.autograd.functional.hessian(kl, policy.flat.clone()), F, 1e-14)  # pyright: ignore


def test_fisher_of_a_network_is_the_production_product_too():
    mdp = make(1, 4)
    network = MLP(mdp.states, (3,), mdp.actions, generator=torch.Generator().manual_seed(0))
    policy = Policy(network, Categorical(mdp.actions)).double()
    batch, F = worlds.exact_batch(mdp, policy), fisher(mdp, policy)
    evaluation = policy.evaluate(batch)
    columns = [evaluation.fisher_product(e, batch.normalized_weight).clone() for e in torch.eye(len(F), dtype=F.dtype)]
    close(torch.stack(columns, 1), F, 1e-14)
    x = natural_gradient(mdp, policy)
    close(F @ x, exact_gradient(mdp, policy), 1e-9)


@pytest.mark.parametrize("horizon", [4, None])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_natural_gradient_of_a_table_is_the_advantage_up_to_a_constant_a_state(seed, horizon):
    mdp = make(seed, horizon)
    policy = policy_for(mdp, seed)
    pi = policy_matrix(mdp, policy).detach()
    d = occupancy(mdp, pi)
    rho = d.sum(0) / d.sum()
    seen = rho > 0
    expected = (d.unsqueeze(-1) * advantage(mdp, pi)).sum(0)[seen] / rho[seen, None]
    natural = natural_gradient(mdp, policy).view(mdp.states, -1)[seen]
    close(natural - natural.mean(-1, keepdim=True), expected - expected.mean(-1, keepdim=True), 1e-10)
    assert (natural - natural.mean(-1, keepdim=True)).abs().max() > 1e-2


# --- the optimum --------------------------------------------------------------------------------------------------------


def linear_programme(mdp: MDP) -> float:
    """J* = min Σ P(s_0 = s) V(s) subject to V(s) ≥ r(s,a) + γ Σ P(s'|s,a) V(s'): no recursion, no policy."""
    S, A = mdp.states, mdp.actions
    live = mdp.live.numpy()
    rows = np.eye(S).repeat(A, 0) - mdp.gamma * mdp.transition.numpy().reshape(S * A, S) * live
    keep = (live > 0).repeat(A)
    bounds = [(None, None) if alive else (0.0, 0.0) for alive in live]
    found = linprog(mdp.start.numpy(), -rows[keep], -mdp.reward.numpy().reshape(-1)[keep], bounds=bounds)
    assert found.success
    return float(found.fun)


@given(mdps, seeds)
@settings(max_examples=40)
def test_policy_iteration_never_falls_ends_and_finds_the_linear_programmes_optimum(mdp, seed):
    path = policy_iteration(mdp, pi_for(mdp, seed))
    values = torch.stack([solve(mdp, pi)[0] for pi in path])
    assert (values.diff(dim=0) >= -1e-11).all()
    last = path[-1]
    assert ((last == 0) | (last == 1)).all()
    Q = solve(mdp, last)[1]
    close((last * Q).sum(-1), Q.amax(-1), 1e-11)  # greedy in its own Q
    J = float(objective(mdp, last))
    assert optimum(mdp) == pytest.approx(J, abs=1e-11)
    assert linear_programme(unrolled(mdp) if mdp.horizon else mdp) == pytest.approx(J, abs=1e-8)
    assert float(objective(mdp, optimal_policy(mdp))) == pytest.approx(J, abs=1e-11)


@pytest.mark.parametrize("horizon", [2, None])
def test_the_optimum_is_the_best_of_all_deterministic_policies(horizon):
    mdp = make(3, horizon)
    shape = (horizon or 1, mdp.states)
    tables = itertools.product(range(mdp.actions), repeat=math.prod(shape))
    best = max(
        float(objective(mdp, torch.nn.functional.one_hot(torch.tensor(table).view(shape), mdp.actions).double()))
        for table in tables
    )
    assert optimum(mdp) == pytest.approx(best, abs=1e-12)
    assert float(objective(mdp, pi_for(mdp))) < best - 1e-3


@pytest.mark.parametrize("name", ["chain", "gridworld", "corridor", "delayed", "FrozenLake-v1", "CliffWalking-v1"])
def test_without_horizon_and_discount_the_optimal_policy_ends_its_episodes(name):
    mdp = worlds.make_mdp(name, horizon=math.inf, gamma=1.0)
    pi = optimal_policy(mdp)
    assert float(objective(mdp, pi)) == pytest.approx(linear_programme(mdp), abs=1e-7)
    assert torch.isfinite(visits(mdp, pi)).all()


def test_without_a_horizon_visits_are_the_steps_until_the_end():
    mdp = make(2, None)
    pi = pi_for(mdp)
    steps = torch.zeros(mdp.states, dtype=torch.float64)
    for _ in range(LONG):  # 1 + Σ P(s'|s) steps(s')
        steps = mdp.live * (1.0 + torch.einsum("sa,sap,p->s", pi, mdp.transition, steps))
    assert float(visits(mdp, pi).sum()) == pytest.approx(float(mdp.start @ steps), rel=1e-12)
    with pytest.raises(ValueError, match="an undiscounted episode need not end: state 0"):
        visits(make(1, None), pi_for(make(1, None)))


def test_of_actions_that_are_worth_the_same_the_one_that_arrives_is_taken():
    mdp = chain(4, horizon=None)  # the goal pays 1 whenever: with γ = 1, V = 1 everywhere under any policy that ends
    assert len(policy_iteration(mdp)) == 2  # nothing is better than uniform
    assert optimal_policy(mdp)[0, :3].argmax(-1).tolist() == [1, 1, 1]
    assert optimum(mdp) == 1.0
    left = greedy(torch.tensor([[1.0, 0.0]] * 4))
    with pytest.raises(ValueError, match="an undiscounted episode need not end: state 0"):
        objective(mdp, left.double())


@pytest.mark.parametrize("name", ["FrozenLake-v1", "gridworld", "corridor"])
def test_a_policy_whose_episodes_need_not_end_has_no_J_and_every_other_one_has(name):
    mdp = worlds.make_mdp(name, horizon=math.inf, gamma=1.0)
    ends = 0
    for seed in range(60):
        pi = pi_for(mdp, seed)
        pi = greedy(pi) if seed % 2 else pi
        near = mdp.over
        for _ in range(mdp.states):
            near = near | ((torch.einsum("sa,sap->sp", pi, mdp.transition) @ near.double()) > 0)
        if near.all():
            ends += 1
            assert torch.isfinite(objective(mdp, pi))
        else:
            with pytest.raises(ValueError, match="an undiscounted episode need not end"):
                solve(mdp, pi)
    assert 30 <= ends < 60


# --- episodes that are cut short ----------------------------------------------------------------------------------------


def expected(rollout: Rollout, p: Tensor, policy: Policy, adv: Tensor) -> Tensor:
    """E[ Σ_t adv_t ∇log π(a_t|s_t) ], (P,)."""
    valid = rollout.valid
    weight = valid(p.expand_as(rollout.rew)) * valid(adv)
    return policy.evaluate(Batch.of(valid(rollout.obs[:-1]), valid(rollout.act))).gradient(weight).clone()


@pytest.mark.parametrize(
    "make_mdp", [lambda: make(1, None), lambda: make(2, None), switched_corridor, lambda: make(2, 9)]
)
@pytest.mark.parametrize("limit", [1, 3])
def test_what_a_limit_cuts_off_the_exact_critic_replaces_and_a_termination_would_not(make_mdp, limit):
    mdp = make_mdp()
    policy = policy_for(mdp)
    rollout, p = enumerate_trajectories(mdp, policy, limit=limit)
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-14)
    assert rollout.truncated.any()
    assert not (rollout.truncated & mdp.over[rollout.next_obs.argmax(-1)]).any()
    exact = gradient_theorem(mdp, policy, limit)
    V, Q = ExactCritic(mdp)(rollout, policy), ExactQCritic(mdp)(rollout, policy)
    cells = [
        (TDError(mdp.gamma), CriticValue(), V),
        (GAE(mdp.gamma, 0.5), CriticValue(), V),
        (RewardToGo(mdp.gamma), NoBaseline(), V),
        (QValue(mdp.gamma), CriticValue(), Q),
    ]
    for estimator, baseline, values in cells:
        adv, _ = advantages(rollout, values, StateDiscounted(estimator), baseline)
        close(expected(rollout, p, policy, adv), exact, 1e-12 * (1.0 + float(exact.abs().max())))
    failed = dataclasses.replace(
        rollout, terminated=rollout.end, truncated=torch.zeros_like(rollout.truncated), extra={}
    )
    adv, _ = advantages(failed, V, StateDiscounted(TDError(mdp.gamma)), CriticValue())
    assert (expected(rollout, p, policy, adv) - exact).abs().max() > 1e-3


def test_without_a_horizon_the_exact_critics_know_one_table_for_all_times():
    mdp = make(1, None)
    policy = policy_for(mdp)
    rollout, _ = enumerate_trajectories(mdp, policy, limit=3)
    V, Q = solve(mdp, policy_matrix(mdp, policy).detach())
    s, after = rollout.obs[:-1].argmax(-1), rollout.next_obs.argmax(-1)
    values = ExactCritic(mdp)(rollout, policy)
    close(values.val, V[0, s], 1e-15)
    close(values.next_val, V[0, after], 1e-15)
    close(ExactQCritic(mdp)(rollout, policy).next_val, V[0, after], 1e-13)
    close(ExactCritic(mdp, V + 1.0)(rollout, policy).val, V[0, s] + 1.0, 1e-15)
    act_val = ExactQCritic(mdp, torch.cat([Q, Q]))(rollout, policy).act_val
    assert act_val is not None
    close(act_val, Q[0, s, rollout.act], 1e-15)


# --- mistakes -----------------------------------------------------------------------------------------------------------


def fields(**changes):
    """A valid MDP's, with changes."""
    given = {"transition": torch.full((2, 2, 2), 0.5), "reward": torch.zeros(2, 2), "start": [1.0, 0.0], "horizon": 2}
    return given | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": torch.zeros(0, 2)}, r"reward must be \(S, A\) or \(S, A, S\), got \(0, 2\)"),
        ({"reward": torch.zeros(2, 2, 3)}, r"reward must be \(2, 2, 2\)"),
        ({"reward": torch.full((2, 2, 2), math.inf)}, "reward must be finite"),
        ({"gamma": math.nan}, r"gamma must be in \[0, 1\], got nan"),
        ({"horizon": None}, "without a horizon, gamma must be below 1 or there must be terminal states"),
        ({"groups": (0,)}, "groups must give each of 2 states a number"),
        ({"groups": (0, 2)}, "without gaps"),
        ({"groups": (-1, 0)}, "without gaps"),
    ],
)
def test_more_tables_that_are_no_mdp(changes, message):
    MDP(**fields())
    with pytest.raises(ValueError, match=message):
        MDP(**fields(**changes))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m, e: solve(m, pi_for(m).T), r"pi must be \(S, A\) = \(3, 2\), or that for each of 4 steps"),
        (lambda m, e: solve(m, pi_for(m, 0, 3)), r"got \(3, 3, 2\)"),
        (lambda m, e: occupancy(m, pi_for(m)[None, None]), r"got \(1, 1, 3, 2\)"),
        (lambda m, e: solve(e, pi_for(e, 0, 4)), r"without a horizon pi must be \(S, A\) = \(3, 2\), got \(4, 3, 2\)"),
        (lambda m, e: discounts(e), "without a horizon there is no table over t: take `occupancy`"),
        (lambda m, e: enumerate_trajectories(e, policy_for(e)), "this MDP has no horizon: give a limit"),
        (lambda m, e: enumerate_trajectories(m, policy_for(m), limit=0), "limit must be at least 1, got 0"),
        (lambda m, e: ExactCritic(e, torch.zeros(1, 3)), r"V must be \(H\+1, S\) = \(2, 3\), got \(1, 3\)"),
        (lambda m, e: ExactQCritic(e, torch.zeros(1, 3, 2)), r"Q must be \(H\+1, S, A\) = \(2, 3, 2\)"),
    ],
)
def test_questions_that_have_no_answer_are_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(make(4, 4), make(4, None))


def test_a_credit_needs_no_weights_of_its_own():
    mdp = make(1, 3)
    policy = policy_for(mdp)
    pi = policy_matrix(mdp, policy).detach()
    Q = solve(mdp, pi)[1]
    close(credited_gradient(mdp, policy, discounts(mdp) * Q), gradient_theorem(mdp, policy))
    assert mdp.gamma < 1.0
    assert (credited_gradient(mdp, policy, Q) - gradient_theorem(mdp, policy)).abs().max() > 1e-3
