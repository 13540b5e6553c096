"""Shaping: potential-based leaves gradients, advantages and best policies as they are; free-form need not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes
from gymnasium import spaces
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from torch import Tensor

from policygrad.data import Rollout
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.shaping import PotentialShaping, ShapedReward, unshaped
from policygrad.lab.exact.tabular import (
    MDP,
    chain,
    enumerate_trajectories,
    exact_gradient,
    objective,
    policy_matrix,
    random_mdp,
    solve,
    tabular_policy,
)
from policygrad.models.policy import Policy, make_policy

WORLDS = {
    "random, γ=1": random_mdp(3, 2, 3, np.random.default_rng(0), gamma=1.0, terminal=(2,)),
    "random, γ=0.8": random_mdp(3, 2, 3, np.random.default_rng(1), gamma=0.8, terminal=(2,)),
    "chain, γ=0.9": chain(4, horizon=5, gamma=0.9, slip=0.2),
}
worlds = pytest.mark.parametrize("mdp", WORLDS.values(), ids=WORLDS.keys())
POTENTIAL = (
    2.0 * np.random.default_rng(7).standard_normal(4)
).tolist()  # not 0 in terminal states, which must not matter

Shape = Callable[[gym.Env], gym.Env]


class Replay(gym.Env):
    """Plays a recorded trajectory; the observation is the state's number."""

    def __init__(self, states: list[int], rewards: list[float], truncates: bool) -> None:
        self.states, self.rewards, self.truncates = states, rewards, truncates
        self.observation_space, self.action_space = spaces.Discrete(10), spaces.Discrete(10)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.time = 0
        return self.states[0], {}

    def step(self, action: Any) -> Any:
        rew, self.time = self.rewards[self.time], self.time + 1
        end = self.time == len(self.rewards)
        return self.states[self.time], rew, end and not self.truncates, end and self.truncates, {}


def shaped(mdp: MDP, rollout: Rollout, shape: Shape, truncates: bool = False) -> Tensor:
    """The rewards (T, N) of every trajectory as the wrapper gives them. truncates: the horizon is a time limit."""
    rew, state = rollout.rew.clone(), rollout.obs.argmax(-1)
    for n, length in enumerate(rollout.mask.sum(0).tolist()):
        limit = truncates and not mdp.over[state[length, n]]
        env = shape(Replay(state[: length + 1, n].tolist(), rollout.rew[:length, n].tolist(), bool(limit)))
        env.reset()
        for t in range(length):
            rew[t, n] = float(env.step(int(rollout.act[t, n]))[1])
    return rew


def expected_gradient(mdp: MDP, policy: Policy, rollout: Rollout, probability: Tensor, rew: Tensor) -> Tensor:
    """E[ Σ_t γᵗ G_t ∇log π(a_t|s_t) ] over all trajectories, with these rewards: (P,)."""
    logp = policy.logp(rollout.obs[:-1].flatten(0, 1), rollout.act.flatten()).view(rew.shape)
    discounted = torch.where(rollout.mask, rew * mdp.gamma ** rollout.time.double(), 0.0)
    to_go = discounted.flip(0).cumsum(0).flip(0)
    return policy.gradient((probability * to_go * torch.where(rollout.mask, logp, 0.0)).sum())


def everything(mdp: MDP) -> tuple[Policy, Rollout, Tensor]:
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    return policy, *enumerate_trajectories(mdp, policy)


def by_potential(gamma: float, **kwargs: Any) -> Shape:
    return lambda env: PotentialShaping(env, lambda s: POTENTIAL[s], gamma, **kwargs)


@worlds
def test_potential_shaping_leaves_the_policy_gradient_and_moves_j_by_the_first_potential(mdp: MDP) -> None:
    policy, rollout, probability = everything(mdp)
    rew = shaped(mdp, rollout, by_potential(mdp.gamma))
    assert float((rew - rollout.rew).abs().max()) > 0.5
    gradient = expected_gradient(mdp, policy, rollout, probability, rew)
    torch.testing.assert_close(gradient, exact_gradient(mdp, policy), rtol=0.0, atol=1e-12)

    discounted = torch.where(rollout.mask, rew * mdp.gamma ** rollout.time.double(), 0.0).sum(0)
    J = objective(mdp, policy_matrix(mdp, policy)).detach()
    first = mdp.start @ torch.tensor(POTENTIAL[: mdp.states], dtype=torch.float64)
    torch.testing.assert_close(probability @ discounted, J - first, rtol=0.0, atol=1e-12)


@worlds
def test_shaping_that_is_not_quite_potential_based_changes_the_gradient(mdp: MDP) -> None:
    policy, rollout, probability = everything(mdp)
    exact = exact_gradient(mdp, policy)
    wrong: list[Shape] = [
        by_potential(mdp.gamma - 0.3),  # not the learner's γ
        # the potential of a terminal state is not 0
        lambda env: ShapedReward(env, lambda s, a, after, terminated: mdp.gamma * POTENTIAL[after] - POTENTIAL[s]),
        lambda env: ShapedReward(env, lambda s, a, after, terminated: 0.1 * abs(after - s)),
    ]
    for shape in wrong:
        gradient = expected_gradient(mdp, policy, rollout, probability, shaped(mdp, rollout, shape))
        assert float((gradient - exact).abs().max()) > 1e-3
    plain = expected_gradient(mdp, policy, rollout, probability, rollout.rew)
    torch.testing.assert_close(plain, exact, rtol=0.0, atol=1e-12)


@worlds
def test_a_time_limit_ends_the_problem_of_a_learner_without_a_critic_so_its_potential_must_be_0(mdp: MDP) -> None:
    policy, rollout, probability = everything(mdp)
    exact = exact_gradient(mdp, policy)
    rew = shaped(mdp, rollout, by_potential(mdp.gamma, truncation_ends=True), truncates=True)
    gradient = expected_gradient(mdp, policy, rollout, probability, rew)
    torch.testing.assert_close(gradient, exact, rtol=0.0, atol=1e-12)
    rew = shaped(mdp, rollout, by_potential(mdp.gamma), truncates=True)
    assert float((expected_gradient(mdp, policy, rollout, probability, rew) - exact).abs().max()) > 1e-3


@worlds
def test_td_errors_of_v_minus_the_potential_are_those_of_v_past_truncations_too(mdp: MDP) -> None:
    policy, rollout, _ = everything(mdp)
    rew = shaped(mdp, rollout, by_potential(mdp.gamma), truncates=True)
    # the horizon is a time limit now: V of the states beyond it counts, and any V will do
    V = torch.where(mdp.over, 0.0, solve(mdp, policy_matrix(mdp, policy).detach())[0][0])
    potential = torch.where(mdp.over, 0.0, torch.tensor(POTENTIAL[: mdp.states], dtype=torch.float64))
    state, after = rollout.obs[:-1].argmax(-1), rollout.next_obs.argmax(-1)

    def td(rew: Tensor, V: Tensor) -> Tensor:
        return (rew + mdp.gamma * V[after] - V[state])[rollout.mask]

    torch.testing.assert_close(td(rew, V - potential), td(rollout.rew, V), rtol=0.0, atol=1e-12)
    ended = shaped(mdp, rollout, by_potential(mdp.gamma, truncation_ends=True), truncates=True)
    assert float((td(ended, V - potential) - td(rollout.rew, V)).abs().max()) > 0.1


class Corridor(gym.Env):
    """Positions 0 to 4; left or right costs 0.05, arriving at 4 costs nothing and ends the episode, as 30 steps do."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = spaces.Box(0.0, 4.0, (1,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.position, self.time = 0, 0
        return np.array([0.0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.position = max(self.position + (1 if action == 1 else -1), 0)
        self.time += 1
        arrived = self.position == 4
        return np.array([self.position], np.float32), 0.0 if arrived else -0.05, arrived or self.time == 30, False, {}


def returns_of_all_policies(env: gym.Env, gamma: float = 1.0) -> dict[tuple[int, ...], float]:
    """Every deterministic policy's return: an action for each position, and what it earns."""
    found = {}
    for policy in itertools.product((0, 1), repeat=4):
        obs, _ = env.reset()
        total, discount, over = 0.0, 1.0, False
        while not over:
            obs, rew, terminated, truncated, _ = env.step(policy[int(obs[0])])
            total, discount, over = total + discount * float(rew), discount * gamma, terminated or truncated
        found[policy] = total
    return found


def best(returns: dict[tuple[int, ...], float]) -> set[tuple[int, ...]]:
    top = max(returns.values())
    return {policy for policy, ret in returns.items() if ret > top - 1e-9}


class Watched(Corridor):
    """Says whether a goal bonus "if the episode is over and the reward is positive" is ever paid."""

    paid = False

    def step(self, action: Any) -> Any:
        obs, rew, terminated, *rest = super().step(action)
        self.paid |= terminated and rew > 0
        return obs, rew, terminated, *rest


def test_pay_for_movement_makes_oscillating_the_best_policy_and_its_goal_bonus_is_never_paid() -> None:
    def movement(obs: Any, act: Any, next_obs: Any, terminated: bool) -> float:
        return 0.1 * abs(float(next_obs[0] - obs[0]))

    corridor = Watched()
    assert best(returns_of_all_policies(corridor)) == {(1, 1, 1, 1)}
    assert not corridor.paid
    oscillating = best(returns_of_all_policies(ShapedReward(corridor, movement)))
    assert oscillating
    assert all(0 in policy for policy in oscillating), "none of the best arrives"


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_potential_shaping_keeps_the_best_policies_and_the_order_of_all(gamma: float) -> None:
    potentials: list[Callable[[Any], float]] = [
        lambda obs: 5.0 * obs[0],
        lambda obs: -3.0 * obs[0],
        lambda obs: float(np.sin(9.0 * obs[0])) - 2.0,
    ]
    plain = returns_of_all_policies(Corridor(), gamma)
    for potential in potentials:
        moved = returns_of_all_policies(PotentialShaping(Corridor(), potential, gamma), gamma)
        first = float(potential(np.zeros(1)))
        for policy, ret in plain.items():
            assert moved[policy] == pytest.approx(ret - first, abs=1e-6)
        assert best(moved) == best(plain) == {(1, 1, 1, 1)}


def test_a_bonus_sees_the_transition_and_is_added() -> None:
    seen = []

    def bonus(obs: Any, act: Any, next_obs: Any, terminated: bool) -> float:
        seen.append((float(obs[0]), act, float(next_obs[0]), terminated))
        return 10.0 * len(seen)

    env = ShapedReward(Corridor(), bonus)
    env.reset()
    rewards = [env.step(act)[1] for act in (1, 0, 1, 1, 1, 1)]
    assert seen == [
        (0, 1, 1, False),
        (1, 0, 0, False),
        (0, 1, 1, False),
        (1, 1, 2, False),
        (2, 1, 3, False),
        (3, 1, 4, True),
    ]
    assert rewards == pytest.approx([9.95, 19.95, 29.95, 39.95, 49.95, 60.0])
    env.reset()
    env.step(1)
    assert seen[-1] == (0, 1, 1, False), "a reset forgets the last episode"


class Reuses(Corridor):
    """Writes every observation into the same memory."""

    buffer = np.zeros(1, np.float32)

    def reset(self, **kwargs: Any) -> Any:
        self.buffer[:], info = super().reset(**kwargs)
        return self.buffer, info

    def step(self, action: Any) -> Any:
        self.buffer[:], *rest = super().step(action)
        return self.buffer, *rest


def test_an_environment_may_reuse_its_memory() -> None:
    env = ShapedReward(Reuses(), lambda obs, act, next_obs, terminated: float(next_obs[0] - obs[0]))
    env.reset()
    assert [env.step(1)[1] for _ in range(3)] == pytest.approx([0.95] * 3)


def test_the_environments_own_rewards_stay_in_sight() -> None:
    env = ShapedReward(RecordEpisodeStatistics(Corridor()), lambda *_: 1.0)
    for _ in range(2):
        env.reset()
        assert env.unshaped_return == 0.0
        total, over, info = 0.0, False, {}
        while not over:
            _, rew, over, _, info = env.step(1)
            assert info["unshaped_reward"] == pytest.approx(float(rew) - 1.0)
            total += info["unshaped_reward"]
        assert env.unshaped_return == total == pytest.approx(info["episode"]["r"]) == pytest.approx(-0.15)


def test_unshaped_environments_give_their_own_rewards_and_the_bonus_comes_back_afterwards() -> None:
    inner = ShapedReward(Corridor(), lambda *_: 1.0)
    env = ShapedReward(TimeLimit(inner, 20), lambda *_: 2.0)
    other = PotentialShaping(Corridor(), lambda obs: obs[0], 1.0)
    for each in (env, other):
        each.reset()
    assert (env.step(1)[1], other.step(1)[1]) == pytest.approx((2.95, 0.95))
    with unshaped(env, other):
        assert (env.step(1)[1], other.step(1)[1]) == pytest.approx((-0.05, -0.05))
    assert (env.step(1)[1], other.step(1)[1]) == pytest.approx((2.95, 0.95))
    inner.active = False
    with pytest.raises(KeyError), unshaped(env, Corridor()):
        raise KeyError
    assert (inner.active, env.active) == (False, True), "as it was before"


def test_collectors_gather_the_shaped_rewards_of_callables() -> None:
    def potential(obs: Any) -> float:
        return float(obs @ np.array([1.0, 0.5, -2.0, 0.25]))

    envs = make_envs(lambda: PotentialShaping(gym.make("CartPole-v1"), potential, 0.99), 2)
    policy = make_policy(envs.single_observation_space, envs.single_action_space, hidden=(8,), seed=0)
    rollout = roll_episodes(Collector(envs, seed=1), policy, 4)
    for n in range(4):
        rows = rollout.mask[:, n].nonzero().squeeze(-1).tolist()
        assert rollout.terminated[rows[-1], n]
        for t in rows:
            after = 0.0 if t == rows[-1] else potential(rollout.next_obs[t, n].numpy())
            expected = 1.0 + 0.99 * after - potential(rollout.obs[t, n].numpy())
            assert float(rollout.rew[t, n]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("gamma", [-0.1, 1.5])
def test_a_gamma_outside_its_range_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\] and equal the learner's, got"):
        PotentialShaping(Corridor(), lambda obs: 0.0, gamma)


def test_shaping_leaves_the_rollouts_ends_alone() -> None:
    mdp = WORLDS["chain, γ=0.9"]
    _, rollout, _ = everything(mdp)
    assert replace(rollout, rew=shaped(mdp, rollout, by_potential(0.9))).whole_episodes
