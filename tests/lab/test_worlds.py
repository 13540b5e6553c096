"""The zoo: every trap does what its docstring says, and Gymnasium's environments are the MDPs that they are taken for."""

from __future__ import annotations

import itertools
import json
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

import policygrad as pg
from policygrad.gradient.baselines import CriticValue, NoBaseline
from policygrad.gradient.estimators import RewardToGo, advantages
from policygrad.lab import claims
from policygrad.lab.exact import worlds
from policygrad.lab.exact.mdp import (
    MDP,
    bandit,
    chain,
    delayed,
    from_gymnasium,
    gridworld,
    rock_paper_scissors,
    switched_corridor,
)
from policygrad.lab.exact.tabular import (
    ExactCritic,
    enumerate_trajectories,
    exact_gradient,
    greedy,
    objective,
    optimal_policy,
    optimum,
    policy_matrix,
    solve,
    tabular_policy,
)


def table(mdp: MDP, rows: Tensor) -> Tensor:
    """π (S, A) from one row a group."""
    assert mdp.groups is not None
    return rows.double()[list(mdp.groups)]


def deterministic(mdp: MDP) -> list[Tensor]:
    """Every deterministic policy that shows the same action where states look alike."""
    assert mdp.groups is not None
    choices = itertools.product(range(mdp.actions), repeat=max(mdp.groups) + 1)
    return [table(mdp, torch.nn.functional.one_hot(torch.tensor(c), mdp.actions)) for c in choices]


def variance(mdp: MDP, pi: Tensor) -> float:
    """Of the return from the start, exact: E[R²] by the recursion M = E[r² + 2 γ r V' + γ² M']."""
    assert mdp.horizon is not None
    V, M, P, g = solve(mdp, pi)[0], torch.zeros_like(mdp.start), mdp.transition, mdp.gamma
    paid, squared = P * mdp.outcome, (P * mdp.outcome.square()).sum(-1)
    for t in reversed(range(mdp.horizon)):
        M = mdp.live * (pi * (squared + 2.0 * g * (paid @ V[t + 1]) + g**2 * (P @ M))).sum(-1)
    return float(mdp.start @ M - (mdp.start @ V[0]) ** 2)


# --- aliasing -----------------------------------------------------------------------------------------------------------


def test_in_the_switched_corridor_the_best_policy_is_random_as_in_the_book():
    """Sutton & Barto 2018, example 13.1: J(p) = −2 (2 − p) / (p (1 − p)), at most −11.66, at p = 2 − √2 = 0.59."""
    mdp, best = switched_corridor(), 2.0 - math.sqrt(2.0)

    def J(p: float) -> float:
        return float(objective(mdp, torch.tensor([[1.0 - p, p]], dtype=torch.float64).expand(4, 2)))

    for p in (0.05, 0.3, 0.5, best, 0.95):
        assert J(p) == pytest.approx(-2.0 * (2.0 - p) / (p * (1.0 - p)), rel=1e-12)
    assert J(best) == pytest.approx(-(6.0 + 4.0 * math.sqrt(2.0)), abs=1e-12) == pytest.approx(-11.66, abs=0.005)
    policy = tabular_policy(mdp)
    assert policy.flat.shape == (2,)
    policy.flat.copy_(torch.tensor([math.log(1.0 - best), math.log(best)], dtype=torch.float64))
    assert exact_gradient(mdp, policy).abs().max() < 1e-12
    policy.flat.copy_(torch.tensor([0.0, 0.0]))
    assert float(exact_gradient(mdp, policy)[1]) > 0.1
    for pi in deterministic(mdp):
        with pytest.raises(ValueError, match="an undiscounted episode need not end"):
            objective(mdp, pi)
    assert optimum(mdp) == -3.0  # states told apart


def test_rock_paper_scissors_is_lost_by_whoever_can_be_foreseen():
    mdp = rock_paper_scissors(6)
    assert [float(objective(mdp, pi)) for pi in deterministic(mdp)] == pytest.approx([-5.0] * 3)
    uniform = tabular_policy(mdp, scale=0.0)
    assert float(objective(mdp, policy_matrix(mdp, uniform).detach())) == pytest.approx(0.0, abs=1e-15)
    assert exact_gradient(mdp, uniform).abs().max() < 1e-15
    for seed in range(20):
        policy = tabular_policy(mdp, torch.Generator().manual_seed(seed))
        p = policy_matrix(mdp, policy).detach()[0]
        J = 5.0 * float(p @ p.roll(1) - p @ p)  # what beats the last throw's conqueror, less the last throw
        assert float(objective(mdp, policy_matrix(mdp, policy).detach())) == pytest.approx(J, abs=1e-13)
        assert J < 0.0
    assert optimum(mdp) == 6.0


def test_in_the_aliased_gridworld_a_coin_beats_every_certain_policy():
    mdp = worlds.make_mdp("aliased")
    assert mdp.groups is not None
    grey = [s for s in range(5) if mdp.groups.count(mdp.groups[s]) > 1]
    assert grey == [1, 3]
    best = max(float(objective(mdp, pi)) for pi in deterministic(mdp))
    north, east, south, west = torch.eye(4)
    rows = torch.stack([north] * (max(mdp.groups) + 1))
    for s, action in enumerate([east, 0.5 * (east + west), south, 0.5 * (east + west), west]):
        rows[mdp.groups[s]] = action
    coin = float(objective(mdp, table(mdp, rows)))
    assert coin > best + 0.1
    assert optimum(mdp) > coin + 0.1


def test_groups_give_a_policy_one_row_for_all_that_look_alike():
    mdp = worlds.make_mdp("aliased")
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    pi = policy_matrix(mdp, policy)
    assert torch.equal(pi[1], pi[3])
    assert not torch.equal(pi[0], pi[1])
    plain = gridworld(worlds.ALIASED, 20, gamma=0.9)
    assert plain.groups is None
    assert torch.equal(plain.transition, mdp.transition)
    assert len(tabular_policy(plain).flat) == 4 * mdp.states > len(policy.flat)


# --- other traps --------------------------------------------------------------------------------------------------------


def test_on_the_deceptive_bandit_the_value_as_baseline_makes_the_variance_larger():
    mdp = worlds.make_mdp("deceptive")
    policy = worlds.starting_policy("deceptive", mdp, seed=5, scale=3.0)
    pi = policy_matrix(mdp, policy).detach()
    assert pi[0].tolist() == pytest.approx([0.9, 0.1])
    rollout, p = enumerate_trajectories(mdp, policy)
    exact = exact_gradient(mdp, policy)

    def trace(baseline) -> float:
        adv, _ = advantages(rollout, ExactCritic(mdp)(rollout, policy), RewardToGo(), baseline)
        score = torch.eye(2, dtype=torch.float64)[rollout.act[0]] - pi
        g = adv[0].unsqueeze(-1) * score
        torch.testing.assert_close(p @ g, exact, rtol=0, atol=1e-14)
        return float(p @ (g - exact).square().sum(-1))

    assert trace(NoBaseline()) == pytest.approx(0.0018, rel=1e-12)  # 2 · 0.9 · 0.1² − 2 · 0.09²
    assert trace(CriticValue()) == pytest.approx(0.1152, rel=1e-12)
    other = worlds.starting_policy("bandit", worlds.make_mdp("bandit"), seed=5, scale=3.0)
    assert other.flat.abs().max() > 1.0


@pytest.mark.parametrize("delay", [1, 2, 4])
def test_delayed_pays_for_the_first_action_at_the_end_and_noise_on_the_way(delay):
    mdp = delayed(delay, noise=2.0)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(1))
    rollout, p = enumerate_trajectories(mdp, policy)
    assert mdp.horizon == len(rollout.rew) == delay + 1
    assert (rollout.rew[:-1].abs() == 2.0).all()
    assert torch.equal(rollout.rew[-1], rollout.act[0].double())
    R, first = rollout.rew.sum(0), rollout.act[0]
    for action in (0, 1):
        q = p * (first == action) / p[first == action].sum()
        assert float(q @ R) == pytest.approx(float(action), abs=1e-12)
        assert float(q @ (R - action).square()) == pytest.approx(4.0 * delay, abs=1e-12)
    assert optimum(mdp) == 1.0
    gradient = exact_gradient(mdp, policy).view(mdp.states, 2)
    assert gradient[0].abs().min() > 1e-2
    assert gradient[1:].abs().max() < 1e-12  # what is done on the way changes nothing
    adv = solve(mdp, policy_matrix(mdp, policy).detach())[1]
    assert float(adv[0, 0, 1] - adv[0, 0, 0]) == pytest.approx(1.0, abs=1e-12)


def test_the_gridworld_has_the_utilities_of_the_book():
    """Russell & Norvig, 17.1: step −0.04, the move as meant with 0.8."""
    mdp = gridworld(worlds.GRID, None, slip=0.2, step=-0.04)
    V = solve(mdp, optimal_policy(mdp))[0][0]
    book = [0.812, 0.868, 0.918, 0.0, 0.762, 0.660, 0.0, 0.705, 0.655, 0.611, 0.388]
    assert V.tolist() == pytest.approx(book, abs=6e-4)
    assert optimum(mdp) == pytest.approx(0.705, abs=6e-4)


def test_in_two_states_a_policy_that_mostly_goes_left_is_led_away_from_the_better_state():
    mdp = worlds.two_states()
    assert float(objective(mdp, torch.tensor([[0.0, 1.0]] * 2).double())) == optimum(mdp) == pytest.approx(14.4)
    policy = worlds.two_logit_policy((0.0, -3.0))
    assert float(exact_gradient(mdp, policy)[0]) < 0.0  # θ of going right in the left state
    assert float(exact_gradient(mdp, worlds.two_logit_policy((0.0, 1.0)))[0]) > 0.0


def test_worlds_are_made_by_name_with_another_horizon_or_discount():
    assert worlds.make_mdp("chain").horizon == 12
    changed = worlds.make_mdp("chain", horizon=5, gamma=0.5)
    assert (changed.horizon, changed.gamma) == (5, 0.5)
    assert worlds.make_mdp("chain", horizon=math.inf).horizon is None
    lake = worlds.make_mdp("FrozenLake-v1")
    assert torch.equal(worlds.make_mdp("FrozenLake-v1", horizon=7).outcome, lake.outcome)
    one, other = (worlds.make_mdp("random", seed) for seed in (0, 1))
    assert not torch.equal(one.reward, other.reward)
    for wrong, hint in (("Chain", "did you mean 'chain'?"), ("xyzzy", "bandit, two-states")):
        with pytest.raises(ValueError, match=f"there is no MDP '{wrong}'") as raised:
            worlds.make_mdp(wrong)
        assert hint in str(raised.value)


def test_episodes_without_a_horizon_are_truncated_late():
    mdp = worlds.make_mdp("chain", horizon=math.inf, gamma=0.9)
    policy = tabular_policy(mdp, scale=0.0)
    rollout = worlds.sample_episodes(mdp, policy, 50)
    assert rollout.terminated.any(0).all()
    policy.flat.view(-1, 2)[:, 0] = 20.0  # hardly ever there
    rollout = worlds.sample_episodes(mdp, policy, 2)
    assert len(rollout.rew) == worlds.TRUNCATED_AFTER
    assert rollout.truncated[-1].all()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: chain(1, 3), "a chain needs at least 2 states, got 1"),
        (lambda: delayed(0), "delay must be at least 1, got 0"),
        (lambda: gridworld(["..G"], 3), "a plan is of S, G, X, # and ., with an S in it"),
        (lambda: gridworld(["S?G"], 3), "a plan is of S, G, X, # and ., with an S in it"),
        (lambda: gridworld(["S.G", ".#"], 3), "the rows of a plan must be equally long, got \\['S.G', '.#'\\]"),
        (
            lambda: from_gymnasium(gym.make("CartPole-v1")),
            "has no transition table, initial_state_distrib and time limit",
        ),
        (lambda: from_gymnasium(gym.make("CliffWalking-v1")), "and time limit: write its MDP yourself"),
    ],
)
def test_what_is_no_world_is_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()


@pytest.mark.parametrize(
    ("mdp", "text"),
    [
        (worlds.make_mdp("small"), "MDP(3 states, 2 actions, horizon 4, γ = 0.9)"),
        (bandit([1.0]), "MDP(1 state, 1 action, horizon 1, γ = 1)"),
        (
            switched_corridor(),
            "MDP(4 states, 2 actions, no horizon, γ = 1, terminal 3, aliased: 1 group)",
        ),
        (worlds.make_mdp("CliffWalking-v1"), "MDP(48 states, 4 actions, horizon 100, γ = 1, terminal 47)"),
        (chain(3, 5), "MDP(3 states, 2 actions, horizon 5, γ = 1, terminal 2)"),
    ],
)
def test_an_mdp_is_printed_in_a_line(mdp, text):
    assert str(mdp) == repr(mdp) == text


def test_many_terminal_states_are_counted():
    mdp = worlds.make_mdp("FrozenLake8x8-v1")
    assert len(mdp.terminal) > 8
    assert f", {len(mdp.terminal)} terminal)" in repr(mdp)


def test_an_environments_name_is_no_environment():
    with pytest.raises(TypeError, match=r"got 'FrozenLake-v1': pass gym.make\('FrozenLake-v1'\)"):
        from_gymnasium("FrozenLake-v1")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"must be a Gymnasium environment, got 3$"):
        from_gymnasium(3)  # pyright: ignore[reportArgumentType]


# --- Gymnasium ----------------------------------------------------------------------------------------------------------

REAL = {
    "FrozenLake-v1": 600,
    "FrozenLake8x8-v1": 150,
    "CliffWalking-v1": 60,
    "CliffWalkingSlippery-v1": 60,
    "Taxi-v4": 30,
}


@pytest.mark.parametrize("env_id", REAL)
def test_a_gymnasium_environment_does_what_its_mdp_says(env_id):
    """Thousands of steps: every one is possible, pays and ends as the tables say; the mean return is J within 4 SE."""
    mdp = worlds.make_mdp(env_id)
    env = gym.make(env_id, max_episode_steps=mdp.horizon)
    pi = torch.randn(mdp.states, mdp.actions, generator=torch.Generator().manual_seed(0)).double().softmax(-1)
    chosen, rng, returns, steps = pi.cumsum(-1).numpy(), np.random.default_rng(0), [], 0
    for episode in range(REAL[env_id]):
        s, _ = env.reset(seed=0 if episode == 0 else None)
        assert mdp.start[s] > 0
        total, over = 0.0, False
        for t in itertools.count(1):
            a = int((chosen[s, :-1] <= rng.random()).sum())
            after, r, terminated, truncated, _ = env.step(a)
            assert mdp.transition[s, a, after] > 0
            mixed = env_id == "CliffWalkingSlippery-v1" and after == 36  # one falls to the start, or stays there
            assert r in (-1, -100) if mixed else mdp.outcome[s, a, after] == r
            assert mdp.over[after] == terminated
            assert truncated == (t == mdp.horizon)
            total, s, over, steps = total + float(r), after, terminated or truncated, steps + 1
            if over:
                break
        returns.append(total)
    assert steps >= 3_000
    error = math.sqrt(max(variance(mdp, pi), np.var(returns)) / len(returns))
    assert abs(np.mean(returns) - float(objective(mdp, pi))) <= 4.0 * error


def test_a_state_that_ends_episodes_only_sometimes_is_no_state():
    env = gym.make("FrozenLake-v1")
    P = getattr(env.unwrapped, "P")  # noqa: B009
    P[0] = {a: [(p, s, r, True) for p, s, r, _ in P[0][a]] for a in P[0]}
    with pytest.raises(ValueError, match="ends the episode on some ways into it and not on others"):
        from_gymnasium(env)


def test_the_variance_used_here_is_that_of_the_trajectories():
    mdp = worlds.make_mdp("small", seed=3)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    rollout, p = enumerate_trajectories(mdp, policy)
    R = (mdp.gamma ** rollout.time.double() * rollout.rew).sum(0)
    pi = policy_matrix(mdp, policy).detach()
    assert variance(mdp, pi) == pytest.approx(float(p @ (R - p @ R).square()), rel=1e-11)
    assert variance(mdp, greedy(pi)) != pytest.approx(variance(mdp, pi), rel=1e-3)


def test_a_file_of_tables_is_an_mdp_and_its_policy(tmp_path):
    mdp, pi = worlds.make_mdp("aliased"), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).expand(8, 4)
    tables = {name: getattr(mdp, name) for name in ("horizon", "gamma", "terminal", "groups")}
    tables |= {"transition": mdp.transition.tolist(), "reward": mdp.outcome.tolist(), "start": mdp.start.tolist()}
    path = tmp_path / "own.json"
    for held in (
        tables | {"pi": pi.tolist()},
        [{"number": 1}, {"number": 2, "counterexample": tables | {"pi": pi.tolist()}}],
    ):
        path.write_text(json.dumps(held))
        read = worlds.make_mdp(str(path))
        assert torch.equal(read.outcome, mdp.outcome)
        assert (read.horizon, read.gamma, read.terminal, read.groups) == (20, 0.9, mdp.terminal, mdp.groups)
        torch.testing.assert_close(policy_matrix(read, worlds.starting_policy(str(path), read)).detach(), pi)
    assert worlds.make_mdp(str(path), gamma=0.5, horizon=math.inf).horizon is None


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (None, "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("{}", "holds no MDP: transition, reward, start, horizon missing"),
        ("[{}]", "holds no MDP: transition"),
        ('{"transition": [[[1]]], "reward": [["x"]], "start": [1], "horizon": 1}', "own.json holds no MDP"),
        ('{"transition": [[[1]]], "reward": [[1, 2]], "start": [1], "horizon": 1}', "transition must be"),
    ],
)
def test_a_file_that_holds_no_mdp_is_refused(tmp_path, held, says):
    path = tmp_path / "own.json"
    if held is not None:
        path.write_text(held)
    with pytest.raises(ValueError, match=says):
        worlds.make_mdp(str(path))


def test_arguments_that_are_missing_or_swapped_are_named():
    mdp = worlds.make_mdp("small")
    policy = tabular_policy(mdp)
    for call, says in (
        (lambda: exact_gradient(mdp, None), "expected a policy, got None"),
        (lambda: exact_gradient(policy, mdp), "expected an MDP, then a policy, got a Policy, then an MDP: swap"),
        (
            lambda: exact_gradient("small", policy),
            r"expected an MDP, got 'small': pg.lab.make_mdp\('small'\) makes one",
        ),
        (lambda: policy_matrix(mdp, policy_matrix(mdp, policy)), "expected a policy, got a Tensor"),
        (lambda: tabular_policy("small"), "expected an MDP, got 'small'"),
        (lambda: worlds.starting_policy(mdp, "small"), "expected the name of an MDP, then the MDP, got a MDP first"),
        (lambda: worlds.starting_policy("small", "small"), "expected an MDP"),
    ):
        with pytest.raises(TypeError, match=says):
            call()


def test_the_rooms_of_the_lab_are_its_attributes_and_others_are_named():
    assert pg.lab.claims.check_claim is claims.check_claim
    with pytest.raises(
        AttributeError, match=r"policygrad\.lab has no 'claim'; its other names are in auditing, claims"
    ):
        pg.lab.claim  # noqa: B018
