"""Evaluation: which episodes count, and what they return, depends on the seed and on nothing else."""

from __future__ import annotations

from statistics import NormalDist

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import policygrad as pg
from policygrad.envs.shaping import ShapedReward
from policygrad.training.evaluate import EVALUATION_SEED, Evaluation, evaluate


class Seeded(gym.Env):
    """An episode of (seed mod 7) + 1 steps, each rewarded by the seed: its return says which episode it was."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Discrete(2)
    seeds: list[int | None] = []  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Seeded.seeds.append(seed)
        self.seed, self.left = seed or 0, (seed or 0) % 7 + 1
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(2, np.float32), float(self.seed), False, self.left == 0, {}


def expected(seed: int, episodes: int) -> list[float]:
    return [float(k * (k % 7 + 1)) for k in range(seed, seed + episodes)]


@pytest.fixture(scope="module")
def cartpole():
    return pg.ppo("CartPole-v1", seed=1, num_envs=2, num_steps=100, epochs=4, minibatches=2, lr=3e-3).learn(2000).policy


@pytest.fixture(scope="module")
def pendulum():
    return pg.a2c("Pendulum-v1", seed=1, num_envs=2, hidden=(8,)).policy


@pytest.mark.parametrize("num_envs", [1, 2, 3, 10, 64])
@pytest.mark.parametrize("greedy", [True, False])
def test_the_episodes_are_those_of_the_seeds_in_their_order_whatever_their_lengths(num_envs, greedy):
    policy = pg.a2c(Seeded, num_envs=1).policy
    result = evaluate(policy, Seeded, 17, greedy, seed=100, num_envs=num_envs)
    assert list(result.returns) == expected(100, 17)
    assert list(result.lengths) == [k % 7 + 1 for k in range(100, 117)]


@pytest.mark.parametrize("kind", [lambda make: make, lambda make: make(), lambda make: SyncVectorEnv([make] * 3)])
def test_what_is_scored_is_the_task_whatever_its_rewards_are_shaped_to(kind):
    def shaped():
        return ShapedReward(Seeded(), lambda *_: 1e12)

    policy = pg.a2c(Seeded, num_envs=1).policy
    assert evaluate(policy, kind(shaped), 3) == evaluate(policy, kind(Seeded), 3)


def test_every_reset_is_seeded():
    Seeded.seeds.clear()
    evaluate(pg.a2c(Seeded, num_envs=1).policy, Seeded, 9, num_envs=4)
    assert None not in Seeded.seeds
    assert set(range(EVALUATION_SEED, EVALUATION_SEED + 9)) <= set(Seeded.seeds)


@pytest.mark.parametrize("greedy", [True, False])
def test_returns_do_not_depend_on_how_many_environments_play(greedy, cartpole):
    returns = [evaluate(cartpole, "CartPole-v1", 12, greedy, num_envs=n).returns for n in (1, 3, 5, 12)]
    assert all(r == returns[0] for r in returns)
    assert len(set(returns[0])) > 1  # else the test could not fail


def test_returns_are_those_of_a_plain_loop(cartpole):
    env, returns = gym.make("CartPole-v1"), []
    for k in range(5):
        obs, _ = env.reset(seed=EVALUATION_SEED + k)
        total, over = 0.0, False
        while not over:
            action = int(cartpole.head.mode(cartpole.outputs(obs[None].astype(np.float32)))[0])
            obs, rew, terminated, truncated, _ = env.step(action)
            total, over = total + float(rew), terminated or truncated
        returns.append(total)
    assert evaluate(cartpole, "CartPole-v1", 5).returns == tuple(returns)


def test_evaluation_repeats_itself_and_differs_between_seeds_and_between_greedy_and_sampled(pendulum):
    first = evaluate(pendulum, "Pendulum-v1", 4)
    assert evaluate(pendulum, "Pendulum-v1", 4) == first
    assert evaluate(pendulum, "Pendulum-v1", 4, seed=1).returns != first.returns
    assert evaluate(pendulum, "Pendulum-v1", 4, greedy=False).returns != first.returns
    # fewer rows in a matrix product may round differently, so continuous actions agree to rounding only
    assert evaluate(pendulum, "Pendulum-v1", 2).returns == pytest.approx(first.returns[:2], rel=1e-5)


def test_evaluation_draws_nothing_from_the_agents_own_generators():
    def sampled(evaluates: bool) -> np.ndarray:
        agent = pg.a2c("CartPole-v1", seed=2, num_envs=2)
        if evaluates:
            agent.evaluate(3, greedy=False)
        agent.learn(200)
        return agent.policy.flat.numpy().copy()

    assert np.array_equal(sampled(True), sampled(False))


def test_at_least_one_episode_is_needed(cartpole):
    with pytest.raises(ValueError, match="at least 1"):
        evaluate(cartpole, "CartPole-v1", 0)


@pytest.mark.parametrize("returns", [(500.0,) * 100, (1.0,), (-3.5, -3.5)])
def test_the_interval_of_equal_returns_is_a_point(returns):
    assert Evaluation(returns, (1,) * len(returns)).ci95 == (returns[0], returns[0])


@pytest.mark.parametrize(
    ("returns", "says"),
    [((500.0,) * 100, "3.0 %"), ((1.0,) * 10, "25.9 %"), ((1.0,), "no interval"), ((1.0, 2.0), None), ((), None)],
)
def test_a_result_says_what_equal_returns_leave_open(returns, says):
    """With at most this share of other episodes, all n are equal in 5 % of evaluations."""
    found = Evaluation(returns, (1,) * len(returns))
    assert (says in found.note) if says else found.note == ""
    assert not returns or (says is None) == ("(" not in str(found))


def test_the_interval_is_that_of_95_per_cent():
    # of many normal numbers it is that of the normal distribution, ± 1.960 standard errors; of 90 % it would be ± 1.645
    x = NormalDist(3.0, 2.0).samples(1000, seed=0)
    low, high = Evaluation(tuple(x), (1,) * len(x)).ci95
    half = (high - low) / 2 / (np.std(x) / np.sqrt(len(x)))
    assert half == pytest.approx(1.96, abs=0.17)  # 4 standard errors of the quantiles of 2,000 resamples


def test_the_interval_of_skewed_returns_leans_to_the_longer_tail():
    x = np.random.default_rng(0).exponential(1.0, 40)
    low, high = Evaluation(tuple(x), (1,) * len(x)).ci95
    lower, upper = np.quantile(np.random.default_rng(0).choice(x, (2000, 40)).mean(1), [0.025, 0.975])
    assert low > lower  # of the plain percentiles, which cover a mean with a long tail above it less often
    assert high > upper


def test_the_entry_of_evaluation_json_has_all_of_it():
    entry = Evaluation((1.0, 2.0, 6.0), (1, 2, 3)).to_json()
    assert entry["mean"] == 3.0
    assert entry["std"] == pytest.approx(np.std([1.0, 2.0, 6.0]))
    assert entry["returns"] == [1.0, 2.0, 6.0]
    assert 1.0 <= entry["ci95"][0] <= 3.0 <= entry["ci95"][1] <= 6.0
