"""Evaluation: which episodes count, and what they return, depends on the seed and on nothing else."""

from __future__ import annotations

import copy
import html
import json
import pickle

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


@pytest.mark.parametrize(
    ("returns", "known", "says"),
    [
        ((500.0,) * 100, None, "all 100 are equal, and with 95 % confidence at most 3.0 % of episodes differ"),
        ((1.0,) * 10, None, "at most 25.9 % of episodes differ"),
        ((1.0,), None, "it is one"),
        ((1.0, 2.0), None, "if new episodes have returns of 1.00 to 2.00, as these have"),
        ((500.0,) * 10, (8.0, 500.0), "if new episodes have returns of 8.0 to 500.0"),
        ((), None, None),
    ],
)
def test_a_result_says_what_its_interval_is_one_of_or_why_there_is_none(returns, known, says):
    found = Evaluation(returns, (1,) * len(returns), known)
    assert (says in found.note) if says else found.note == ""
    if returns:
        assert found.note in str(found)
        assert html.escape(found.note) in found._repr_html_()
        assert ("this policy's mean return" in str(found)) == np.isfinite(found.ci95).all() == ("[" in str(found))


def test_equal_returns_have_an_interval_where_others_are_known_to_be_possible():
    found = Evaluation((500.0,) * 10, (500,) * 10, (8.0, 500.0))
    assert found.ci95 == (pytest.approx(8.0 + 492.0 * 0.025**0.1), 500.0)
    assert str(found).startswith("500.0  [348.2, 500.0]  (95 % interval of this policy's mean return, if")
    assert str(Evaluation((1.0,) * 100, (), (0.0, 1.0))).startswith("1.000  [0.964, 1.000]")


def test_the_interval_of_skewed_returns_leans_to_the_longer_tail():
    x = np.random.default_rng(0).exponential(1.0, 40)
    low, high = Evaluation(tuple(x), (1,) * len(x)).ci95
    lower, upper = np.quantile(np.random.default_rng(0).choice(x, (2000, 40)).mean(1), [0.025, 0.975])
    assert high > upper  # of the plain percentiles, which cover a mean with a long tail above it less often
    assert high - x.mean() > x.mean() - low
    assert high - upper > abs(low - lower)


def test_the_entry_of_evaluation_json_has_all_of_it():
    entry = Evaluation((1.0, 2.0, 6.0), (1, 2, 3), (0.0, 7.0)).to_json()
    assert entry["mean"] == 3.0
    assert entry["std"] == pytest.approx(np.std([1.0, 2.0, 6.0]))
    assert entry["returns"] == [1.0, 2.0, 6.0]
    assert entry["return_range"] == [0.0, 7.0]
    assert 0.0 < entry["ci95"][0] <= 3.0 <= entry["ci95"][1] < 7.0
    equal = Evaluation((1.0, 1.0), (1, 1)).to_json()
    assert (equal["ci95"], equal["return_range"]) == ([None, None], None)
    assert json.loads(json.dumps(equal, allow_nan=False)) == equal


@pytest.fixture(scope="module")
def trained():
    """An agent that has seen episodes end, and the returns of all of them."""
    agent, seen = pg.a2c("CartPole-v1", seed=2, num_envs=2, num_steps=20), []
    agent.learn(400, lambda agent, row: seen.extend(ret for ret, _ in agent.trainer.ended))
    return agent, (min(seen), max(seen))


def test_the_range_is_that_of_all_episodes_of_training(trained):
    agent, seen = trained
    assert agent.return_range == seen
    assert seen[0] < seen[1]
    found = agent.evaluate(3)
    assert found.return_range == seen == evaluate(agent, "CartPole-v1", 3).return_range
    assert found.ci95 == Evaluation(found.returns, (), seen).ci95
    assert agent.evaluate(3, return_range=(0, 500)).return_range == (0.0, 500.0)
    assert evaluate(agent.policy, "CartPole-v1", 3).return_range is None  # which knows no training
    assert pg.a2c("CartPole-v1").evaluate(2).return_range is None


def test_files_and_copies_keep_the_range_and_training_goes_on_from_it(trained, tmp_path):
    agent, seen = trained
    whole, policy = agent.save(tmp_path / "whole"), agent.save_policy(tmp_path / "policy")
    for other in (pg.load(whole), pg.load(policy), copy.deepcopy(agent), pickle.loads(pickle.dumps(agent))):
        assert other.return_range == seen
    assert pg.load_policy(policy).return_range == seen
    assert evaluate(pg.load_policy(policy), "CartPole-v1", 2).return_range == seen
    more = pg.load(whole)
    more.learn(600)
    assert more.return_range[0] <= seen[0] < seen[1] <= more.return_range[1]
    assert pg.a2c("CartPole-v1").save_policy(tmp_path / "new").stat().st_size > 0
    assert pg.load(tmp_path / "new.safetensors").return_range is None
    assert pg.load_policy(tmp_path / "new.safetensors").return_range is None


def test_the_range_of_shaped_rewards_is_not_one_of_the_task():
    agent = pg.a2c(lambda: ShapedReward(Seeded(), lambda *_: 1e12), num_envs=1, num_steps=20).learn(60)
    assert agent.return_range is not None
    assert agent.evaluate(3).return_range is None
    assert agent.evaluate(3, return_range=(0, 1)).return_range == (0.0, 1.0)


def test_of_stored_episodes_the_range_is_theirs(trained):
    episodes = trained[0].collect(5)
    agent = pg.Agent("off_policy_pg", "CartPole-v1", dataset=episodes)
    assert agent.return_range == (float(episodes.returns.min()), float(episodes.returns.max()))


@pytest.mark.parametrize("wrong", [(1,), (2.0, 1.0), (0.0, float("inf")), "ab", 500, (float("nan"), 1.0)])
def test_a_range_that_is_none_is_refused_before_an_episode_is_played(cartpole, wrong):
    with pytest.raises(ValueError, match="return_range must be two finite numbers, the lowest and the highest"):
        evaluate(cartpole, "CartPole-v1", 10**7, return_range=wrong)
