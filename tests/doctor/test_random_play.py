"""Random play is recorded as it was, and the statistics on it keep their level and find what is planted."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from policygrad.diagnosis.environment import LeftOpen, maker
from policygrad.diagnosis.play import RandomPlay, another, play, uniform
from policygrad.diagnosis.statistics import (
    action_effect,
    few_above,
    past_helps,
    shows_time,
    shuffled,
    squared_errors,
    standardised,
    unexplained,
)
from policygrad.envs.probes import Chain, Counting, TMaze
from policygrad.envs.single import make_one


def random_walk(steps: int, effect: float, seed: int) -> RandomPlay:
    """Noise whose mean is `effect` times the action, as recorded play of one long episode."""
    rng = np.random.default_rng(seed)
    act = rng.integers(2, size=steps)
    obs = np.concatenate([[0.0], np.cumsum(rng.normal(size=steps) + effect * act)])[:, None].astype(np.float32)
    never, empty = np.zeros(steps, bool), ["" for _ in range(steps + 1)]
    one_hot = np.eye(2)[act]
    return RandomPlay(
        obs,
        np.arange(steps),
        one_hot,
        np.zeros(steps),
        never,
        never,
        np.arange(steps),
        np.zeros(1, bool),
        0,
        empty,
        np.zeros(steps, int),
    )


@pytest.mark.parametrize("truncates", [False, True])
def test_every_step_is_recorded_beside_what_it_acted_on_and_what_followed(truncates):
    played = play(lambda: Counting(5, truncates), 23, 0)
    episode, step = np.arange(23) // 5, np.arange(23) % 5
    act = played.act.argmax(1)
    np.testing.assert_array_equal(played.obs[played.at, :2], np.column_stack([episode, step]))
    np.testing.assert_array_equal(played.obs[played.at + 1], np.column_stack([episode, step + 1, act]))
    np.testing.assert_array_equal(played.rew, 100.0 * episode + 10.0 * step + act)
    np.testing.assert_array_equal(played.time, step)
    np.testing.assert_array_equal(played.over, step == 4)
    assert played.truncated.any() == truncates
    np.testing.assert_array_equal(played.lengths, [5, 5, 5, 5])
    np.testing.assert_array_equal(played.returns, played.rew[:20].reshape(4, 5).sum(1))
    assert len(set(act.tolist())) == 4


def test_play_ends_after_the_episodes_that_were_asked_for():
    played = play(lambda: Counting(5), 1000, 0, episodes=3)
    assert (played.steps, len(played.lengths)) == (15, 3)


def test_equal_seeds_show_the_same_and_others_do_not():
    make = partial(make_one, "CartPole-v1")
    first, again, other = play(make, 100, 0), play(make, 100, 0), play(make, 100, 1)
    assert first.same(again)
    assert not first.same(other)
    assert not first.same(replace(again, rew=again.rew + 1.0))


def test_another_changes_one_component_alone():
    space = spaces.MultiDiscrete([50, 50, 50])
    same, other = uniform(space, 3), another(space, 3, 1)
    pairs = [(same(t, None), other(t, None)) for t in range(40)]
    np.testing.assert_array_equal([a[[0, 2]] for a, _ in pairs], [b[[0, 2]] for _, b in pairs])
    assert sum(a[1] != b[1] for a, b in pairs) > 30


class Masked(gym.Env):
    """One action of five is legal, another one in every step; others raise."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(5, start=2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {"action_mask": self.mask()}

    def mask(self):
        return np.arange(5) == self.time % 5

    def step(self, action):
        assert action == 2 + self.time % 5
        self.time += 1
        return np.zeros(1, np.float32), 1.0, self.time == 7, False, {"action_mask": self.mask()}


def test_only_legal_actions_are_played():
    played = play(Masked, 50, 0)
    assert (played.error, played.steps) == (None, 50)
    same = played.time[:, None] % 5 == played.time % 5
    np.testing.assert_array_equal(played.legal[:, None] == played.legal, same)


def test_actions_change_places_within_their_group_alone_and_all_such_orders_are_equally_likely():
    groups, rng, draws = np.array([1, 0, 1, 1, 0]), np.random.default_rng(0), 4800
    orders = [tuple(shuffled(groups, rng)) for _ in range(draws)]
    assert all((groups[list(order)] == groups).all() for order in set(orders))
    counts = np.array(list(Counter(orders).values()))
    assert len(counts) == 12  # 3! · 2!
    share = 1 / 12
    assert np.abs(counts - draws * share).max() <= 4.0 * math.sqrt(draws * share * (1 - share))


def test_masks_that_show_the_state_are_no_effect_of_actions():
    """Legal actions and what follows both depend on the state: actions correlate with outcomes, and have no effect."""
    rng = np.random.default_rng(1)
    played = random_walk(2000, 0.0, 1)
    state = rng.integers(2, size=2000)  # in state 1 action 1 alone is legal
    act = np.where(state == 1, 1, rng.integers(2, size=2000))
    blind = replace(played, act=np.eye(2)[act], rew=state.astype(float))
    assert action_effect(blind) <= 0.01  # as if there were no masks
    assert action_effect(replace(blind, legal=state)) > 0.01
    felt = replace(blind, legal=state, rew=state + np.where(state == 0, act, 0.0))
    assert action_effect(felt) <= 0.01


@pytest.mark.parametrize(("mask", "text"), [(np.ones(4), "has 4 entries, and"), (np.zeros(5), "no legal action")])
def test_a_mask_that_does_not_fit_is_an_error_of_the_environment(mask, text):
    class Wrong(Masked):
        def mask(self):
            return mask.astype(np.int8)

    assert text in str(play(Wrong, 50, 0).error)


@pytest.mark.parametrize("low", [-np.inf, -1.0])
def test_actions_are_in_their_box(low):
    space = spaces.Box(low, 3.0, (4,))
    drawn = np.array([uniform(space, seed)(0, None) for seed in range(200)])
    assert all(map(space.contains, drawn))
    assert drawn.std() > 0.5


def test_an_environment_that_is_given_is_left_open():
    env = gym.make("CartPole-v1")
    kept = maker(env)()
    assert isinstance(kept, LeftOpen)
    kept.close()
    env.reset(seed=0)


def test_the_permutation_test_keeps_its_level_and_finds_an_effect():
    level, count = 0.05, 100
    p = [action_effect(random_walk(100, 0.0, seed)) for seed in range(count)]
    below = np.mean([x <= level for x in p if x is not None])
    assert below <= level + 4.0 * math.sqrt(level * (1 - level) / count)
    assert min(action_effect(random_walk(400, 1.0, seed)) or 1.0 for seed in range(3)) <= 0.01


def test_few_above_is_the_exact_binomial_tail():
    assert 0.99**299 < 0.05 < 0.99**298
    assert few_above(0, 299, 0.01)
    assert not few_above(0, 298, 0.01)
    assert not few_above(3, 300, 0.01)
    assert few_above(0, 3, 0.7)
    assert not few_above(1, 3, 0.7)


def test_kernels_explain_a_smooth_function_and_no_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    y = np.column_stack([np.sin(2.0 * x[:, 0]) * x[:, 1], rng.normal(size=600), np.ones(600)])
    smooth, noise, constant = unexplained(squared_errors(x, y), y)
    assert smooth < 0.1
    assert 0.8 < noise <= 1.0
    assert constant == 0.0


def test_standardised_leaves_constants_out():
    x = standardised(np.array([[1.0, 7.0], [3.0, 7.0]]))
    np.testing.assert_allclose(x, [[-1.0], [1.0]])


def test_the_past_helps_where_a_cue_was_shown_at_the_beginning_alone():
    without, with_past, what = past_helps(play(lambda: TMaze(3), 3000, 0))
    assert what == "reward"
    assert with_past < 0.5 * without


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "CliffWalking-v1"])
def test_the_past_does_not_help_where_the_state_is_seen(env):
    assert past_helps(play(partial(make_one, env), 3000, 0))[2] is None


def test_the_time_is_seen_where_the_observation_counts():
    assert shows_time(play(lambda: Counting(9), 300, 0))
    assert shows_time(play(lambda: Chain([0.0] * 9, terminate_after=9), 300, 0))
    assert not shows_time(play(partial(make_one, "CartPole-v1"), 300, 0))


def test_one_rare_event_is_no_memory():
    """A reward that came twice, both times after the same strange observation: the past explains it, and proves nothing."""
    played = random_walk(1700, 0.0, 0)
    rng = np.random.default_rng(0)
    obs, rew = rng.normal(size=(1701, 1)).astype(np.float32), np.zeros(1700)
    for row in (100, 1000):
        obs[row - 1], rew[row] = 50.0, 1.0
    assert past_helps(replace(played, obs=obs, rew=rew))[2] is None
    often = rew.copy()
    for row in range(5, 1700, 20):
        obs[row - 1], often[row] = 50.0, 1.0
    assert past_helps(replace(played, obs=obs, rew=often))[2] == "reward"
