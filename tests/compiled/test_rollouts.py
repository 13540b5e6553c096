"""Whole rollouts as one compiled function: the same records, bit for bit, as step by step in Gymnasium's environments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import policygrad as pg
from policygrad.data import Record, Wants
from policygrad.envs import adapters
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.models.normalizer import Normalizer
from policygrad.models.policy import Policy, make_policy
from policygrad.training.evaluate import Greedy
from policygrad.tree import tree_map

ENVS = ("CartPole-v1", "Pendulum-v1")


def policy_of(env: Any, kernel: str = "compiled", **words: Any) -> Policy:
    space = env.single_observation_space, env.single_action_space
    policy = make_policy(*space, hidden=(16,), kernel=kernel, seed=1, **words)
    policy.flat.mul_(20.0)  # so that actions depend on observations, and some are clipped
    if policy.normalizer is not None:
        policy.normalizer.merge(torch.randn(9, *space[0].shape, generator=torch.Generator().manual_seed(7)))
        policy.normalizer.clip = 0.5
    return policy


def records_of(env_id: str, backend: str, steps: tuple[int, ...], **words: Any) -> tuple[list[Record], Collector]:
    envs = make_envs(env_id, 3, backend)
    collector, policy = Collector(envs, seed=5), policy_of(envs, **words)
    return [collector.collect(policy, Wants(num_steps=count)) for count in steps], collector


def same(a: Record, b: Record) -> None:
    for name in ("obs", "next_obs", "act", "rew", "terminated", "truncated", "cut", "mask", "time"):
        tree_map(np.testing.assert_array_equal, getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype, name
    assert a.finished == b.finished


@pytest.mark.parametrize("words", [{}, {"normalize_obs": True}])
@pytest.mark.parametrize("env_id", ENVS)
def test_a_rollout_is_what_single_steps_give(
    env_id: str, words: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    whole = adapters.rolled

    def noted(*given: Any) -> Any:
        found = whole(*given)
        calls.append(found is not None)
        return found

    monkeypatch.setattr("policygrad.envs.collector.rolled", noted)
    steps = (1, 7, 300, 1200)  # beyond an episode, and beyond what the environments remember at first
    made, collector = records_of(env_id, "compiled", steps, **words)
    assert calls == [True] * 4
    expected, reference = records_of(env_id, "gymnasium", steps, **words)
    assert calls == [True] * 4 + [False] * 4
    for a, b in zip(made, expected, strict=True):
        same(a, b)
    assert list(collector.returns) == list(reference.returns)
    assert len(collector.returns) > 5
    last = collector.state_dict()["envs"], reference.state_dict()["envs"]
    for a, b in zip(*last, strict=True):
        assert (a["shown"], a["generator"], len(a["actions"])) == (b["shown"], b["generator"], len(b["actions"]))


@pytest.mark.parametrize("env_id", ENVS)
def test_training_in_whole_rollouts_is_resumed_bit_for_bit(env_id: str, tmp_path: Any) -> None:
    words: dict[str, Any] = {"seed": 2, "num_envs": 2, "num_steps": 64, "kernel": "compiled", "preset": {}}
    whole = pg.ppo(env_id, **words).learn(1280)
    half = pg.ppo(env_id, **words).learn(640, horizon=1280)
    half.save(tmp_path / "half.pt")
    again = pg.load(tmp_path / "half.pt").learn(640, horizon=1280)
    assert torch.equal(again.policy.flat, whole.policy.flat)
    other = pg.ppo(env_id, backend="gymnasium", **words).learn(1280)
    assert torch.equal(other.policy.flat, whole.policy.flat)


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("CartPole-v1", {"kernel": "closed_form"}),
        ("CartPole-v1", {"kernel": "auto"}),
        ("Pendulum-v1", {"head": "squashed"}),  # whose actions are not those of the space
        ("Pendulum-v1", {"noise_autocorrelation": 0.5}),
        ("Taxi-v4", {}),  # whose observations are numbers of states
    ],
)
def test_step_by_step_where_a_whole_rollout_would_be_another(env_id: str, words: dict[str, Any]) -> None:
    envs = make_envs(env_id, 2, "compiled")
    policy, space = policy_of(envs, **words), envs.single_observation_space
    noise = policy.noise(np.random.default_rng(0), (4, 2))
    obs = np.zeros((5, 2, *space.shape), np.float32) if isinstance(space, spaces.Box) else np.zeros((5, 2), np.int64)
    assert adapters.rolled(envs, policy, obs, noise) is None


class HandsOn:
    """An actor that does something else, and has all the rest from another."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.actor, name)

    def act(self, obs: Any, state: Any, noise: np.ndarray) -> Any:
        return self.actor.mode(obs, state)[0], state, {}


class Derived(Policy):
    def act(self, obs: Any, state: Any, noise: np.ndarray) -> Any:
        return self.mode(obs, state)[0], state, {}


class Halved(Normalizer):
    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return super().forward(obs) / 2


def test_who_acts_otherwise_is_asked_itself() -> None:
    """A wrapper that hands on what it does not have, a class that is derived, an object whose `act` was replaced."""
    envs = make_envs("CartPole-v1", 2, "compiled")
    envs.reset(seed=0)
    policy = policy_of(envs)
    replaced, derived = policy_of(envs), policy_of(envs)
    derived.__class__ = Derived
    replaced.act = derived.act  # pyright: ignore[reportAttributeAccessIssue]
    noise, obs = policy.noise(np.random.default_rng(0), (4, 2)), np.zeros((5, 2, 4), np.float32)
    assert adapters.rolled(envs, policy, obs, noise) is not None
    policy_with_its_own = policy_of(envs, normalize_obs=True)
    assert adapters.rolled(envs, policy_with_its_own, obs, noise) is not None
    assert policy_with_its_own.normalizer is not None
    policy_with_its_own.normalizer.__class__ = Halved
    assert adapters.rolled(envs, policy_with_its_own, obs, noise) is None
    for actor in (HandsOn(policy), Greedy(policy), derived, replaced):
        assert adapters.rolled(envs, actor, obs, noise) is None
        assert adapters.acting(actor, 2) == actor.act
        collector = Collector(make_envs("CartPole-v1", 2, "compiled"), seed=0)
        record = collector.collect(actor, Wants(num_steps=50))
        expected = np.stack([policy.mode(row)[0] for row in record.obs[:-1]])
        np.testing.assert_array_equal(record.act[record.mask], expected[record.mask])


def test_workers_in_turns_act_with_their_copies() -> None:
    with pg.a3c("CartPole-v1", workers=2, num_envs=2, lr=0.1, seed=0, preset={}) as agent:
        agent.learn(200)
        actor, (first, second) = agent.learner.actor, agent.learner.workers
        assert not torch.equal(first.policy.flat, second.policy.flat)
        assert adapters.acting(actor, 2) == actor.act
