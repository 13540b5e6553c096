"""Heads of off-policy learners: paths of actions against autograd and the densities; how policies explore, and act legally."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from explicit import randn
from gymnasium import spaces
from scipy.stats import chisquare
from torch import Tensor

from policygrad.models.continuous import LOG_STD_MAX
from policygrad.models.exploring import ActionValues, Deterministic, ExploringPolicy, PathwiseHead, Squashed
from policygrad.models.observations import ACTION_MASK
from policygrad.models.policy import make_policy

LOW, HIGH = np.array([[-1.0, 2.0, 0.0]]), np.array([[3.0, 2.5, 1.0]])
OBS = spaces.Box(-1.0, 1.0, (4,))
HEADS: list[Any] = [Deterministic((1, 3), LOW, HIGH), Squashed((1, 3), LOW, HIGH)]


@pytest.mark.parametrize("head", HEADS, ids=["deterministic", "squashed"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_a_walk_is_the_path_and_its_pull_back_that_of_autograd(head: Any, scale: float) -> None:
    out, noise, by_x = scale * randn(9, head.size), randn(9, 3, seed=1), randn(9, 3, seed=2)
    mine, reference = head.walk(out, noise), PathwiseHead.walk(head, out, noise)
    torch.testing.assert_close(mine.x, reference.x, rtol=0, atol=1e-14)
    assert not mine.x.requires_grad
    if mine.logp is None:
        assert reference.logp is None
    else:
        torch.testing.assert_close(mine.logp, reference.logp, rtol=0, atol=1e-11)
    for by_logp in (0.0, -0.7):
        pulled = mine.pull_back(by_x, by_logp)
        assert float(pulled.abs().max()) > 0.0
        torch.testing.assert_close(pulled, reference.pull_back(by_x, by_logp), rtol=1e-11, atol=1e-12)


def test_the_density_of_a_squashed_action_is_that_of_x_and_integrates_to_one() -> None:
    head = Squashed((1,), np.array([-2.0]), np.array([6.0]))
    out = torch.tensor([[0.4, -0.3]], dtype=torch.float64)
    noise = torch.linspace(-9.0, 9.0, 4001, dtype=torch.float64).unsqueeze(1)
    path = head.walk(out.expand(len(noise), -1), noise)
    assert path.logp is not None
    x = path.x[:, 0]
    assert float(torch.trapezoid(path.logp.exp(), x)) == pytest.approx(1.0, abs=1e-6)
    # of x and not of the action, which has the density divided by half the width
    act = torch.from_numpy(np.arctanh(x[1500:2500].numpy())).unsqueeze(1)
    of_action = head.logp(head.canonical(out).expand(len(act), -1), act)
    torch.testing.assert_close(path.logp[1500:2500], of_action + math.log(4.0), rtol=0, atol=1e-9)
    # the negative mean is the entropy, whose quadrature stands elsewhere
    weights = torch.exp(-0.5 * noise[:, 0].square())
    entropy = -float((path.logp * weights).sum() / weights.sum())
    assert entropy == pytest.approx(float(head.entropy(head.canonical(out))) - math.log(4.0), abs=1e-6)


def test_far_out_the_density_is_finite_and_a_log_std_beyond_its_limits_finds_back() -> None:
    head = Squashed((1,), np.array([-1.0]), np.array([1.0]))
    out = torch.tensor([[60.0, 0.0], [-60.0, 0.0], [0.0, LOG_STD_MAX + 5.0], [0.0, -40.0]])
    path = head.walk(out, torch.ones(4, 1))
    assert path.logp is not None
    assert path.logp.isfinite().all()
    pulled = path.pull_back(torch.zeros(4, 1), -1.0)  # ∇ of the entropy
    assert pulled.isfinite().all()
    assert pulled[2, 1] < 0.0  # too wide a normal piles up at the bounds
    assert pulled[3, 1] == pytest.approx(1.0)  # too narrow: the log std rises


@pytest.mark.parametrize("head", HEADS, ids=["deterministic", "squashed"])
def test_actions_as_stored_as_x_and_as_the_environment_takes_them_are_one(head: Any) -> None:
    out = randn(50, head.size).numpy()
    act = head.sample(out, np.random.default_rng(0).standard_normal((50, 3)))
    assert act.shape == (50, 1, 3)
    x = head.to_unit(torch.from_numpy(act))
    assert float(x.abs().max()) <= 1.0
    sent = LOW + (HIGH - LOW) * 0.5 * (x.numpy().reshape(-1, 1, 3) + 1.0)
    np.testing.assert_allclose(head.to_env(act), sent, rtol=0, atol=1e-12)
    uniform = head.uniform(np.random.default_rng(1).random((4000, 3), dtype=np.float32), None)
    assert uniform.dtype == np.float32
    sent = (head.to_env(uniform) - LOW) / (HIGH - LOW)  # uniform in [0, 1]
    assert 0.0 <= sent.min() <= sent.max() <= 1.0
    for share in sent.reshape(-1, 3).T:
        assert chisquare(np.histogram(share, 10, (0.0, 1.0))[0]).pvalue > 1e-3
    for extreme in (0.0, np.float32(1.0 - 2.0**-24)):
        assert np.isfinite(head.uniform(np.full((1, 3), extreme, np.float32), None)).all()


def policy_of(head: Any, actions: spaces.Space, obs: spaces.Space = OBS, **keywords: Any) -> ExploringPolicy:
    made: Any = head if callable(head) else lambda masked: head
    return make_policy(obs, actions, head=made, kind=ExploringPolicy, hidden=(8,), std="network", **keywords)


def acted(policy: ExploringPolicy, obs: Any, seed: int, state: Any = None) -> np.ndarray:
    count = len(obs["obs"] if isinstance(obs, dict) else obs)
    return policy.act(obs, state, policy.noise(np.random.default_rng(seed), (count,)))[0]


def test_with_probability_epsilon_the_action_is_uniform_and_otherwise_greedy() -> None:
    policy = policy_of(partial(ActionValues, 5), spaces.Discrete(5))
    obs = randn(20_000, 4).float().numpy()
    greedy = policy.outputs(obs).argmax(-1)
    for epsilon in (0.0, 0.3, 1.0):
        policy.epsilon = epsilon
        act = acted(policy, obs, 1)
        other = act != greedy
        expected = 0.8 * epsilon  # one in five is the greedy one by chance
        assert other.mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20_000) + 1e-12)
        if epsilon:
            assert chisquare(np.bincount((act - greedy)[other] % 5, minlength=5)[1:]).pvalue > 1e-3
    assert np.array_equal(policy.mode(obs)[0], greedy)


def masked(legal: Tensor) -> tuple[ExploringPolicy, dict[str, Any]]:
    policy = policy_of(partial(ActionValues, 4), spaces.Discrete(4), mask_source="info")
    return policy, {"obs": randn(len(legal), 4).float().numpy(), ACTION_MASK: legal.numpy()}


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_illegal_actions_are_neither_chosen_nor_explored(epsilon: float) -> None:
    legal = torch.rand(6000, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    legal[:, 2] |= ~legal.any(1)
    policy, obs = masked(legal)
    policy.epsilon = epsilon
    act = acted(policy, obs, 2)
    assert legal.numpy()[np.arange(6000), act].all()
    assert legal.numpy()[np.arange(6000), policy.mode(obs)[0]].all()
    if epsilon == 1.0:  # uniform over the legal ones
        pair = (legal == torch.tensor([True, False, True, False])).all(1).numpy()
        assert set(act[pair]) == {0, 2}
        assert chisquare(np.bincount(act[pair])[[0, 2]]).pvalue > 1e-3


def test_action_values_have_no_score_function() -> None:
    head = ActionValues(3)
    dist = head.canonical(torch.tensor([[1.0, 3.0, 2.0]]))
    assert dist.tolist() == [[-math.inf, 0.0, -math.inf]]
    assert head.entropy(dist).tolist() == [0.0]


@pytest.mark.parametrize("kind", [Deterministic, Squashed])
def test_correlated_noise_is_standard_normal_at_every_step_and_correlated_along_an_episode(kind: Any) -> None:
    space, rho = spaces.Box(-1.0, 1.0, (1,)), 0.8
    words: dict[str, Any] = {"noise": 1e-3} if kind is Deterministic else {}
    policy = policy_of(kind((1,), space.low, space.high, noise_autocorrelation=rho, **words), space)
    policy.epsilon, rng = 0.0, np.random.default_rng(0)
    obs = np.zeros((4000, 4), np.float32)
    state = policy.begin(policy.noise(rng, (4000,)))
    seen = []
    for _ in range(4):
        out = policy.outputs(obs)
        act, state, _ = policy.act(obs, state, policy.noise(rng, (4000,)))
        if kind is Deterministic:
            seen.append((act[:, 0] - np.tanh(out[:, 0])) / 1e-3)
        else:
            seen.append((act[:, 0] - out[:, 0]) / np.exp(out[:, 1]))
    noise = np.array(seen)
    np.testing.assert_allclose(noise.std(1), 1.0, atol=0.05)
    for lag in (1, 2, 3):
        assert np.mean(noise[lag] * noise[0]) == pytest.approx(rho**lag, abs=0.06)


def test_epsilon_is_kept_with_the_policy() -> None:
    policy, other = (policy_of(partial(ActionValues, 3), spaces.Discrete(3)) for _ in range(2))
    policy.epsilon = 0.25
    other.load_state_dict(policy.state_dict())
    assert other.epsilon == 0.25
