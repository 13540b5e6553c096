"""Tables of values: they converge to the values of the right policy, from expected updates and from samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from policygrad.lab.exact.mdp import bandit, chain, gridworld
from policygrad.lab.exact.policies import greedy
from policygrad.lab.exact.tabular import optimum, solve
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.theory.improvement import shortcut
from policygrad.lab.values import contests
from policygrad.lab.values.tables import (
    Sight,
    epsilon_greedy,
    expected_update,
    expected_values,
    learn,
    performance_of,
    softmax,
    targets,
)

ENDLESS = {"horizon": math.inf, "gamma": 0.5}
MDPS = {
    "small": make_mdp("small"),
    "endless": make_mdp("small", **ENDLESS),
    "gridworld": make_mdp("gridworld"),
    "corridor": make_mdp("corridor"),
}
CHOICES = {"Q-learning": greedy, "expected SARSA": epsilon_greedy(0.2), "softmax": softmax(0.5)}


def bellman(mdp, steps):
    """q* by a loop over states and actions that shares nothing with the code: after `steps` steps to go."""
    v, P, r = [0.0] * mdp.states, mdp.transition.tolist(), mdp.outcome.tolist()
    states, actions = range(mdp.states), range(mdp.actions)
    for _ in range(steps):
        q = [[sum(P[s][a][n] * (r[s][a][n] + mdp.gamma * v[n]) for n in states) for a in actions] for s in states]
        v = [0.0 if s in mdp.terminal else max(q[s]) for s in range(mdp.states)]
    return torch.tensor(q, dtype=torch.float64)


@pytest.mark.parametrize("lr", [1.0, 0.5])
@pytest.mark.parametrize("name", MDPS)
def test_expected_q_learning_finds_the_optimum(name, lr):
    mdp = MDPS[name]
    q = expected_values(mdp, lr=lr)
    assert performance_of(mdp, greedy(q)) == pytest.approx(optimum(mdp), abs=1e-9)


def test_q_is_what_a_plain_loop_over_states_and_actions_gives():
    finite, endless = MDPS["small"], MDPS["endless"]
    torch.testing.assert_close(expected_values(finite)[0], bellman(finite, 4), rtol=0, atol=1e-12)
    torch.testing.assert_close(expected_values(finite)[-1], bellman(finite, 1), rtol=0, atol=1e-12)
    torch.testing.assert_close(expected_values(endless)[0], bellman(endless, 34), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rule", CHOICES)
@pytest.mark.parametrize("name", MDPS)
def test_the_values_are_those_of_the_policy_that_is_learned(name, rule):
    mdp, choose = MDPS[name], CHOICES[rule]
    q = expected_values(mdp, choose)
    live = ~mdp.over
    torch.testing.assert_close(q[:, live], solve(mdp, choose(q))[1][:, live], rtol=0, atol=1e-9)
    if rule != "Q-learning" and name == "small":  # a control: they are not q*
        assert float((q - expected_values(mdp)).abs().max()) > 1e-2


def test_a_target_of_the_last_step_is_the_reward_and_terminal_states_are_worth_nothing():
    mdp = gridworld(["S.G"], horizon=3, step=-0.5)
    q = torch.full((3, mdp.states, 4), 7.0, dtype=torch.float64)
    found = targets(mdp, q, greedy)
    torch.testing.assert_close(found[-1], mdp.live[:, None] * mdp.reward)
    east_to_goal = found[0, 1, 1]
    assert float(east_to_goal) == 0.5  # 1 − 0.5, and nothing of the 7
    assert float(found[0, 0, 1]) == 6.5
    assert not found[:, 2].any()


# --- samples -------------------------------------------------------------------------------------------------------


def test_sampled_q_learning_finds_the_optimum_of_a_deterministic_world_to_a_thousandth():
    mdp = chain(4, None, gamma=0.5)
    found = learn(mdp, torch.Generator().manual_seed(0), acting=epsilon_greedy(1.0), steps=120, actors=100, power=0.6)
    assert float((found.q - expected_values(mdp)[0])[~mdp.over].abs().max()) < 1e-3
    assert (
        float((found.q - expected_values(mdp, epsilon_greedy(1.0))[0])[~mdp.over].abs().max()) > 0.1
    )  # the policy that acts


@pytest.mark.parametrize(
    ("rule", "sample_next"),
    [("Q-learning", False), ("expected SARSA", False), ("expected SARSA", True)],
    ids=["Q-learning", "expected SARSA", "SARSA"],
)
def test_samples_lead_to_the_expected_values_and_to_no_others(rule, sample_next):
    mdp, choose = MDPS["endless"], epsilon_greedy(0.6) if rule != "Q-learning" else greedy
    truth = expected_values(mdp, choose)
    other = expected_values(mdp, greedy if rule != "Q-learning" else epsilon_greedy(0.6))
    keywords = {"learned": choose, "acting": epsilon_greedy(0.6), "actors": 400, "steps": 60, "power": 0.6}
    keywords["sample_next"] = sample_next
    found = learn(mdp, torch.Generator().manual_seed(0), **keywords).q
    assert float((found - truth[0]).abs().max()) < 0.03 < 0.1 < float((found - other[0]).abs().max())


def test_the_first_update_is_the_mean_of_its_targets_and_step_sizes_follow_robbins_and_monro():
    mdp = bandit([1.0, 3.0])
    found = learn(mdp, torch.Generator().manual_seed(0), acting=epsilon_greedy(1.0), steps=1)
    assert found.q.tolist() == [[1.0, 3.0]]
    assert float(found.count.sum()) == 32.0
    noisy = make_mdp("small", horizon=1)  # with power 1, q is the mean of all targets
    outcomes = torch.Generator().manual_seed(1)
    mean = learn(noisy, outcomes, acting=epsilon_greedy(1.0), steps=50, power=1.0)
    torch.testing.assert_close(mean.q, expected_values(noisy)[0] * (mean.count > 0))
    for power in (0.5, 1.5):
        with pytest.raises(ValueError, match="Robbins"):
            learn(mdp, torch.Generator(), power=power)


def test_the_same_seed_gives_the_same_table_and_another_one_does_not():
    mdp = MDPS["small"]
    a, b, c = (learn(mdp, torch.Generator().manual_seed(seed), steps=20).q for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_an_episode_begins_with_an_action_for_the_state_it_begins_in():
    """And not for the terminal state before, whose values are 0: the greedy action there is 0, and 1 at the start."""
    mdp = chain(2, None, gamma=0.9)
    found = learn(mdp, torch.Generator().manual_seed(0), steps=60)
    assert float(found.count[0, 1] / found.count[0].sum()) > 0.8


def test_early_restarts_are_no_ends():
    """γ stays in the target: 2 / (1 − γ) = 4 for the arm that always pays 2, however short the episodes are."""
    mdp = make_mdp("bandit", horizon=math.inf, gamma=0.5)
    found = learn(mdp, torch.Generator().manual_seed(0), steps=60, restart=0.5, acting=epsilon_greedy(1.0), power=0.6)
    assert float(found.q.max()) == pytest.approx(4.0, abs=0.02)


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_what_is_no_probability_and_no_temperature_is_refused(wrong):
    with pytest.raises(ValueError, match="epsilon"):
        epsilon_greedy(wrong)
    with pytest.raises(ValueError, match="temperature"):
        softmax(min(wrong, 0.0))


# --- where states look alike ---------------------------------------------------------------------------------------


def test_rows_of_states_that_look_alike_are_means_over_the_data():
    mdp = shortcut()
    sight = Sight.of_policies(mdp)
    assert sight.rows.tolist() == [[0, 0]]
    q, acting = sight.zeros(mdp), epsilon_greedy(0.2)(sight.zeros(mdp))[sight.rows]
    found = expected_update(mdp, q, greedy, sight, acting=acting)
    road = 1.0 / (1.0 - mdp.gamma) - (
        swamp := 0.1 / (1.0 - mdp.gamma) * mdp.gamma
    )  # occupancy: action 1 is taken with 0.1
    assert found[0].tolist() == pytest.approx([0.0, (road - swamp) / (road + swamp)])


def test_learners_that_tell_the_states_apart_have_no_trouble():
    mdp = make_mdp("corridor")
    assert performance_of(mdp, greedy(expected_values(mdp))) == optimum(mdp) == -3.0
    assert performance_of(mdp, greedy(torch.zeros(4, 2, dtype=torch.float64))) == -math.inf


def test_swings_do_not_settle_and_with_a_table_they_do():
    found = contests.swings(shortcut(), sweeps=100)[-50:]
    assert max(found) - min(found) > 10.0
    apart = contests.swings(replace(shortcut(), groups=None), sweeps=100)[-50:]
    assert max(apart) == min(apart)


def test_a_grid_needs_a_power_of_its_cells_and_they_are_enough():
    assert [contests.grid_cells(D, 0.01) for D in (1, 2, 4)] == [10.0, 15.0**2, 20.0**4]
    for D in (1, 2, 4, 6):
        k = round(contests.grid_cells(D, 0.01) ** (1 / D))
        assert D / k**2 <= 0.01 < D / (k - 1) ** 2  # the farthest corner of a cell of width 2 / k


def test_greedy_policies_near_q_star_lose_no_more_than_singh_and_yee_say_and_far_from_it_more():
    mdp = MDPS["small"]
    q, steps = expected_values(mdp), sum(mdp.gamma**t for t in range(4))
    for delta in (0.1, 1.0):
        assert contests.loss_of_greedy(mdp, q, delta, 50, torch.Generator().manual_seed(0)) <= 2.0 * delta * steps
    assert contests.loss_of_greedy(mdp, -q, 0.1, 5, torch.Generator().manual_seed(0)) > 0.2 * steps
