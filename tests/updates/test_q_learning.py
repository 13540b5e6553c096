"""Q-learning: targets and steps by hand on a table, copies now and then, and q* of small MDPs through the real learner."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

import policygrad as pg
from policygrad.algorithms.replay_learner import ReplayLearner
from policygrad.data import Record
from policygrad.errors import NotFiniteError
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.tabular import optimal_policy, optimum, solve
from policygrad.models.exploring import ActionValues, ExploringPolicy
from policygrad.models.observations import ACTION_MASK
from policygrad.models.policy import make_policy
from policygrad.models.schedules import linear
from policygrad.replay import Transitions
from policygrad.updates.q_learning import QLearning

Q = torch.tensor([[1.0, 2.0], [5.0, -1.0], [0.5, 4.0]])
COPIED = torch.tensor([[7.0, 3.0], [2.0, 6.0], [-3.0, -2.0]])


def table(states: int = 3, actions: int = 2, q: Tensor | None = None, **keywords: Any) -> ExploringPolicy:
    """q(s, a) as a table, (S, A)."""
    words: dict[str, Any] = {"head": partial(ActionValues, actions), "kind": ExploringPolicy, "hidden": ()}
    policy = make_policy(spaces.Discrete(states), spaces.Discrete(actions), **words, **keywords)
    if q is not None:
        policy.flat.copy_(q.reshape(-1))
    return policy


def values(policy: Any) -> Tensor:
    return policy.flat.reshape(-1, 2).clone()


def one_hot(*states: int) -> Tensor:
    return torch.eye(3)[list(states)]


def transitions(obs: Any, act: list[int], ret: list[float], discount: list[float], following: Any) -> Transitions:
    return Transitions(obs, torch.tensor(act), torch.tensor(ret), torch.tensor(discount), following)


def rule_of(policy: ExploringPolicy, copied: Tensor | None = COPIED, **keywords: Any) -> QLearning:
    rule = QLearning(policy, optimizer="sgd", lr=1.0, max_grad_norm=None, **keywords)
    if copied is not None and rule.copy is not None:
        rule.copy.flat.copy_(copied.reshape(-1))
    return rule


@pytest.mark.parametrize(
    ("keywords", "bootstrapped"),
    [
        ({"double": False}, 6.0),  # max of the copy
        ({"double": True}, 2.0),  # the copy's value of the action that the network prefers
        ({"double": True, "target_every": None}, 5.0),  # the network itself
        ({"double": False, "target_every": None}, 5.0),
    ],
)
def test_the_target_is_what_is_left_of_the_value_of_the_next_state(keywords: Any, bootstrapped: float) -> None:
    policy = table(q=Q)
    rule = rule_of(policy, loss="squared", **keywords)
    assert rule.next_value(policy, one_hot(1, 1)).tolist() == [bootstrapped] * 2
    # A → B → (+1, terminal): of A the target is γ V(B), of B it is 1
    rule(policy, transitions(one_hot(0, 1), [1, 0], [0.0, 1.0], [0.9, 0.0], one_hot(1, 2)))
    expected = Q.clone()
    expected[0, 1] += (0.9 * bootstrapped - 2.0) / 2  # the mean of two rows
    expected[1, 0] += (1.0 - 5.0) / 2
    torch.testing.assert_close(values(policy), expected, rtol=0, atol=1e-6)
    assert rule.copy is None or torch.equal(values(rule.copy), COPIED)  # which follows when it is told


def test_hubers_derivative_is_the_error_clipped() -> None:
    policy = table(q=Q)
    rule_of(policy)(policy, transitions(one_hot(0, 1, 2), [1, 0, 0], [9.0, -9.0, 0.75], [0.0] * 3, one_hot(0, 0, 0)))
    expected = Q.clone()
    expected[0, 1] += 1.0 / 3
    expected[1, 0] -= 1.0 / 3
    expected[2, 0] += 0.25 / 3
    torch.testing.assert_close(values(policy), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("target_every", [10, None])
def test_illegal_actions_are_not_bootstrapped_from_and_no_legal_action_is_worth_nothing(
    double: bool, target_every: int | None
) -> None:
    policy = table(q=Q, mask_source="info")
    rule = rule_of(policy, double=double, target_every=target_every)
    legal = torch.tensor([[True, False], [False, True], [False, False], [True, True]])
    obs = {"obs": one_hot(0, 1, 1, 2), ACTION_MASK: legal}
    seen = COPIED if target_every else Q
    best = seen[2, 1] if target_every is None or double else seen[2].max()
    assert rule.next_value(policy, obs).tolist() == [seen[0, 0], seen[1, 1], 0.0, best]


def test_the_copy_is_made_at_every_multiple_and_however_the_steps_come() -> None:
    for record in (1, 10, 7, 40):
        policy = table(q=Q)
        rule = rule_of(policy, target_every=15)
        assert rule.copy is not None
        reached = 0
        for now in range(record, 300, record):
            policy.flat += 1.0
            before = values(rule.copy)
            rule.synchronise(policy, now - record, now)
            copied = not torch.equal(values(rule.copy), before)
            assert copied is (now // 15 > reached)
            reached = now // 15
            if copied:
                assert torch.equal(values(rule.copy), values(policy))


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    words: dict[str, Any] = {"head": partial(ActionValues, 2), "kind": ExploringPolicy, "hidden": (4,)}
    policy = make_policy(spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2), **words)
    rule, before = QLearning(policy, loss="squared"), policy.flat.clone()
    with pytest.raises(NotFiniteError, match="action values"):
        rule(policy, transitions(one_hot(0), [0], [float("inf")], [0.9], one_hot(1)))
    assert torch.equal(policy.flat, before)
    assert rule.report() == {}


MOVES = torch.tensor([[1, 3], [2, 0], [0, 2], [3, 3]])  # the next state; 3 is terminal
REWARD = torch.tensor([[0.3, -1.0], [0.2, 0.9], [-0.7, 0.4], [0.0, 0.0]], dtype=torch.float64)


def certain_world() -> MDP:
    """Four states without chance, γ = 0.8, without a horizon. The best actions are 0, 1 and 1, so 1 and 0 follow each other."""
    return MDP(
        torch.eye(4).double()[MOVES],
        REWARD,
        torch.tensor([0.5, 0.25, 0.25, 0.0]).double(),
        None,
        gamma=0.8,
        terminal=(3,),
    )


def optimal_values() -> Tensor:
    """q* of `certain_world`, (S, A), with 0 in the terminal state."""
    mdp = certain_world()
    best = solve(mdp, optimal_policy(mdp))[1]
    best = best[0] if best.ndim == 3 else best
    assert float(mdp.start @ best.max(-1).values) == pytest.approx(optimum(mdp), abs=1e-9)
    fixed_point = REWARD + 0.8 * torch.where(MOVES == 3, 0.0, best.max(-1).values[MOVES])
    torch.testing.assert_close(best[:3], fixed_point[:3], rtol=0, atol=1e-9)
    return best


def every_action_then_the_best(steps: int) -> Record:
    """From every state every action, and then the best ones, as episodes of up to so many steps."""
    best = optimal_values().argmax(-1).tolist()
    rows: list[tuple[int, int, bool, bool, int]] = []  # state, action, terminated, truncated, time
    for s, a in itertools.product(range(3), range(2)):
        for time in range(steps):
            over = MOVES[s, a] == 3
            rows.append((s, a, bool(over), time == steps - 1 and not over, time))
            s = int(MOVES[s, a])
            if over:
                break
            a = best[s]
    s, a, terminated, truncated, time = (np.array(column).reshape(-1, 1) for column in zip(*rows, strict=True))
    eye = np.eye(4, dtype=np.float32)
    flags = {"terminated": terminated, "truncated": truncated, "cut": np.zeros_like(terminated)}
    return Record(
        obs=eye[np.concatenate([s, s[:1]])],
        next_obs=eye[MOVES.numpy()[s, a]],
        act=a,
        rew=REWARD.float().numpy()[s, a],
        mask=np.ones_like(terminated),
        time=time,
        **flags,
    )


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("double", [True, False])
def test_the_learner_finds_the_optimal_values_of_a_small_world(double: bool, n_step: int) -> None:
    policy, record = table(4), every_action_then_the_best(n_step)
    words: dict[str, Any] = {"loss": "squared", "optimizer": "sgd", "max_grad_norm": None, "target_every": record.steps}
    rule = QLearning(policy, lr=linear(6.0), double=double, **words)
    words = {"buffer_size": record.steps, "gradient_steps": 16, "warmup": 0, "batch_size": 64}
    learner = ReplayLearner(policy, rule, num_envs=1, gamma=0.8, n_step=n_step, **words)
    for i in range(40):
        learner.step(record, i / 40)
    torch.testing.assert_close(values(policy)[:3].double(), optimal_values()[:3], rtol=0, atol=1e-3)


class World(gym.Env):
    """`certain_world`, cut off after four steps."""

    observation_space, action_space = spaces.Discrete(4), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.state, self.time = int(self.np_random.integers(3)), 0
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        reward, self.state = float(REWARD[self.state, action]), int(MOVES[self.state, action])
        self.time += 1
        return self.state, reward, self.state == 3, self.state != 3 and self.time == 4, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_dqn_finds_them_by_random_play_whatever_the_environment_does_at_an_end(mode: AutoresetMode) -> None:
    envs = SyncVectorEnv([World] * 2, autoreset_mode=mode)
    words: dict[str, Any] = {
        "hidden": (),
        "gamma": 0.8,
        "epsilon": 1.0,
        "warmup": 64,
        "num_steps": 8,
        "loss": "squared",
    }
    agent = pg.dqn(envs, lr=0.1, lr_schedule="linear", target_every=16, gradient_steps=10, **words)
    agent.learn(900)
    torch.testing.assert_close(values(agent.policy)[:3].double(), optimal_values()[:3], rtol=0, atol=1e-3)
    assert (
        agent.predict(np.array([0, 1, 2]), deterministic=True)[0].tolist() == optimal_values()[:3].argmax(-1).tolist()
    )
