"""The pathwise gradient against differences; targets of critics by hand; who moves, when, and towards which entropy."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import randn
from gymnasium import spaces
from torch import Tensor

import policygrad as pg
from policygrad.errors import NotFiniteError
from policygrad.forms import form_of
from policygrad.models.action_values import ActionCritic
from policygrad.models.exploring import Deterministic, ExploringPolicy, Squashed
from policygrad.models.optim import SGD
from policygrad.models.policy import make_policy
from policygrad.models.stacked import StackedMLP
from policygrad.replay import Transitions
from policygrad.updates.pathwise import Pathwise, Smoothing, Temperature

OBS, BOX = spaces.Box(-1.0, 1.0, (3,)), spaces.Box(np.array([-1.0, 0.0]), np.array([3.0, 1.0]), dtype=np.float64)
ROWS = 7


def policy_of(kind: type, hidden: tuple[int, ...] = (5,)) -> ExploringPolicy:
    head: Any = kind(BOX.shape, BOX.low, BOX.high)
    words: dict[str, Any] = {"hidden": hidden, "kind": ExploringPolicy, "std": "network"}
    policy = make_policy(OBS, BOX, head=lambda masked: head, **words)
    policy.flat += 0.5 * randn(len(policy.flat)).float()
    return policy


def critic_of(count: int, hidden: tuple[int, ...] = (6,), **keywords: Any) -> ActionCritic:
    """Of networks that are not their copies."""
    critic = ActionCritic(StackedMLP(count, 3 + 2, hidden, "tanh", torch.Generator().manual_seed(1)), **keywords)
    critic.network.flat += 0.3 * randn(len(critic.network.flat), seed=5).float()
    critic.optimizer = SGD()  # pyright: ignore[reportAttributeAccessIssue]
    return critic


def rule_of(kind: type, count: int = 2, **keywords: Any) -> tuple[ExploringPolicy, ActionCritic, Pathwise]:
    policy, critic = policy_of(kind), critic_of(count, tau=0.25)
    keywords = {"temperature": Temperature(0.6)} | keywords if kind is Squashed else keywords
    return policy, critic, Pathwise(policy, critic, optimizer="sgd", lr=0.1, critic_lr=0.1, **keywords)


def batch(ret: Tensor | None = None, discount: float = 0.9) -> Transitions:
    ret = randn(ROWS, seed=3).float() if ret is None else ret
    act = 0.5 * randn(ROWS, 2, seed=4).float()
    obs, following = randn(ROWS, 3, seed=6).float(), randn(ROWS, 3, seed=7).float()
    return Transitions(obs, act, ret, torch.full((ROWS,), discount), following)


def noise_of(seed: int, rows: int = ROWS) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, 2), dtype=np.float32))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", [Deterministic, Squashed])
def test_the_gradient_is_that_of_differences_over_fixed_noise(kind: type, count: int) -> None:
    policy, critic, rule = rule_of(kind, count)
    policy.double()
    critic.network.double()
    features, noise = randn(ROWS, 3, seed=6), noise_of(8).double()

    def gain() -> float:
        out = policy.network(features)
        x, logp = policy.head.path(out, noise)
        q = critic.network.network(torch.cat([features, x], -1))
        # the smallest of the twins for SAC, the first for TD3
        value = q.amin(-1) if kind is Squashed else q[:, 0]
        return float((value if logp is None else value - 0.6 * logp).mean().detach())

    rule.rng = np.random.default_rng(8)
    before = policy.flat.clone(), critic.network.flat.clone(), critic.copy.flat.clone()
    grad = rule.gradient(policy, features)[0].clone()
    assert torch.equal(policy.flat, before[0])
    differences, h = torch.zeros_like(grad), 1e-5
    for i in range(len(grad)):
        ends = []
        for step in (h, -2.0 * h):
            policy.flat[i] += step
            ends.append(gain())
        policy.flat[i] += h
        differences[i] = (ends[0] - ends[1]) / (2.0 * h)
    torch.testing.assert_close(grad, differences, rtol=0, atol=1e-8)
    assert float(grad.abs().max()) > 0.01
    assert torch.equal(critic.network.flat, before[1])
    assert torch.equal(critic.copy.flat, before[2])


@pytest.mark.parametrize("count", [1, 2])
def test_the_soft_target_is_the_smallest_copy_at_a_sampled_action_minus_alpha_log_pi(count: int) -> None:
    policy, critic, rule = rule_of(Squashed, count)
    step = batch()
    rule.rng = np.random.default_rng(8)
    value = rule.next_value(policy, step.next_obs)
    out = policy.network(step.next_obs).detach()
    mean, log_std = out.split(2, -1)
    u = mean + log_std.exp() * noise_of(8)
    x = torch.tanh(u)
    logp = torch.distributions.Normal(mean, log_std.exp()).log_prob(u).sum(-1) - (1.0 - x.square()).log().sum(-1)
    q = critic.copy.network(torch.cat([step.next_obs, x], -1)).detach()
    assert q.shape == (ROWS, count)
    torch.testing.assert_close(value, q.min(-1).values - 0.6 * logp, rtol=1e-5, atol=1e-4)
    assert count == 1 or float((q[:, 0] - q[:, 1]).abs().min()) > 1e-3


@pytest.mark.parametrize(("sigma", "limit"), [(0.2, 0.5), (3.0, 0.1), (0.0, 0.5)])
def test_the_target_of_td3_is_at_the_copied_policys_action_with_clipped_noise(sigma: float, limit: float) -> None:
    policy, critic, rule = rule_of(Deterministic, smoothing=Smoothing(sigma, limit) if sigma else None)
    assert rule.copy is not None
    before = rule.copy.flat.clone()
    policy.flat += 1.0  # the copy stays behind
    assert torch.equal(rule.copy.flat, before)
    step = batch()
    rule.rng = np.random.default_rng(8)
    value = rule.next_value(policy, step.next_obs)
    around = torch.tanh(rule.copy.network(step.next_obs).detach())
    noise = (sigma * noise_of(8)).clamp(-limit, limit)
    q = critic.copy.network(torch.cat([step.next_obs, (around + noise).clamp(-1.0, 1.0)], -1)).detach()
    torch.testing.assert_close(value, q.min(-1).values, rtol=0, atol=1e-6)
    assert float(((around + noise).abs() > 1.0).float().mean()) < 1.0


@pytest.mark.parametrize("kind", [Deterministic, Squashed])
def test_a_step_of_the_critic_is_towards_ret_plus_what_is_left_of_the_next_value(kind: type) -> None:
    policy, critic, rule = rule_of(kind, delay=1000)
    step, before = batch(), policy.flat.clone()
    rule.rng = np.random.default_rng(8)
    target = step.ret + 0.9 * rule.next_value(policy, step.next_obs)
    network = critic.network.network
    x = step.act if kind is Deterministic else torch.tanh(step.act)
    q = network(torch.cat([step.obs, x], -1))
    gain = -0.5 * (target.unsqueeze(-1) - q).square().mean(0).sum()
    grads = torch.autograd.grad(gain, list(network.parameters()))
    expected = critic.network.flat + 0.1 * torch.cat([g.reshape(-1) for g in grads])
    rule.rng = np.random.default_rng(8)
    rule(policy, step)
    torch.testing.assert_close(critic.network.flat, expected, rtol=0, atol=1e-6)
    assert torch.equal(policy.flat, before)  # the critic's step is no step of the policy
    # and after an end nothing counts: no value, no entropy
    last = batch(torch.ones(ROWS), discount=0.0)
    fitted: list[Tensor] = []
    critic.fit = lambda features, x, target, lr: fitted.append(target)  # pyright: ignore
    rule(policy, last)
    assert torch.equal(fitted[0], torch.ones(ROWS))


@pytest.mark.parametrize("delay", [1, 2, 3])
@pytest.mark.parametrize("kind", [Deterministic, Squashed])
def test_the_policy_moves_every_so_many_steps_and_the_copies_follow_with_tau(kind: type, delay: int) -> None:
    policy, critic, rule = rule_of(kind, delay=delay)
    for i in range(1, 8):
        before, copy = policy.flat.clone(), critic.copy.flat.clone()
        actor_copy = None if rule.copy is None else rule.copy.flat.clone()
        rule(policy, batch())
        due = i % delay == 0
        assert torch.equal(policy.flat, before) is not due
        follows = due or kind is Squashed
        expected = 0.75 * copy + 0.25 * critic.network.flat if follows else copy
        torch.testing.assert_close(critic.copy.flat, expected, rtol=0, atol=1e-6)
        assert torch.equal(critic.copy.flat, copy) is not follows
        if rule.copy is not None and actor_copy is not None:
            expected = 0.75 * actor_copy + 0.25 * policy.flat if due else actor_copy
            torch.testing.assert_close(rule.copy.flat, expected, rtol=0, atol=1e-6)


def test_a_step_of_the_policy_moves_the_policy_alone_and_uphill() -> None:
    for kind in (Deterministic, Squashed):
        policy, critic, rule = rule_of(kind)
        features, before, own = batch().obs, critic.network.flat.clone(), policy.flat.clone()
        rule.rng = np.random.default_rng(8)
        grad = rule.gradient(policy, features)[0].clone()
        rule.rng = np.random.default_rng(8)
        rule.improve(policy, features, 0.0)
        torch.testing.assert_close(policy.flat, own + 0.1 * grad, rtol=0, atol=1e-7)
        assert torch.equal(critic.network.flat, before)


def test_gradients_that_are_not_finite_move_nothing() -> None:
    policy, critic, rule = rule_of(Squashed)
    with pytest.raises(NotFiniteError, match="critic"):
        critic.fit(batch().obs, batch().act, torch.full((ROWS,), math.inf), 0.1)
    before = critic.network.flat.clone()
    critic.network.flat.fill_(math.nan)
    with pytest.raises(NotFiniteError, match="policy"):
        rule.improve(policy, batch().obs, 0.0)
    assert policy.flat.isfinite().all()
    assert before.isfinite().all()


def test_the_temperature_rises_where_the_policy_has_less_entropy_than_the_target() -> None:
    for logp, up in ((2.0, True), (0.5, False)):  # entropies −2 and −0.5, target −1
        temperature = Temperature(0.2, target=-1.0, lr=0.01)
        before = temperature.alpha
        temperature.step(torch.full((4,), logp), 0.0)
        assert (temperature.alpha > before) is up
    constant = Temperature(0.2)
    constant.step(torch.ones(4), 0.0)
    assert constant.alpha == 0.2
    with pytest.raises(ValueError, match="above 0"):
        Temperature(0.0, target=-1.0)


def test_a_temperature_that_is_moved_one_way_for_ever_stays_a_number_that_can_be_saved() -> None:
    for logp in (30.0, -30.0):
        temperature = Temperature(1.0, target=-1.0, lr=1.0)
        for _ in range(900):
            temperature.step(torch.full((4,), logp), 0.0)
        assert 0.0 < temperature.alpha < 1e9
        form_of(temperature)("temperature", temperature.state_dict())


class Slope:
    """q(s, x) = 3 x₁ − 2 x₂, known."""

    tau = 0.1

    def action_gradient(self, features: Tensor, x: Tensor, smallest: bool = True) -> tuple[Tensor, Tensor]:
        slope = torch.tensor([3.0, -2.0]).expand_as(x).clone()
        return (slope * x).sum(-1), slope

    def report(self) -> dict[str, float]:
        return {}


def test_with_a_known_value_the_entropy_becomes_the_target_and_alpha_stays() -> None:
    policy, target = policy_of(Squashed, hidden=()), 0.3
    critic: Any = Slope()
    temperature = Temperature(1.0, target, lr=linear_from(0.03))
    rule = Pathwise(policy, critic, lr=linear_from(0.05), temperature=temperature)
    features = torch.zeros(200, 3)
    for i in range(800):
        rule.improve(policy, features, i / 800)
    entropy = float(policy.head.entropy(policy.dist(features[:1]))) - float(np.log(0.5 * (BOX.high - BOX.low)).sum())
    assert entropy == pytest.approx(target, abs=0.05)
    assert 0.5 < temperature.alpha < 50.0
    alpha = temperature.alpha
    for _ in range(100):
        rule.improve(policy, features, 0.95)
    assert temperature.alpha == pytest.approx(alpha, rel=0.1)


def linear_from(start: float) -> Any:
    return lambda progress: start * (1.0 - progress)


class OneStep(gym.Env):
    """Pays 1, whatever one does, and is over."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (1,)), spaces.Box(-2.0, 2.0, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros(1, np.float32), 1.0, True, False, {}


def test_the_value_of_the_last_step_has_no_entropy_in_it_whatever_alpha_is() -> None:
    words: dict[str, Any] = {"hidden": (), "warmup": 32, "batch_size": 32, "lr_schedule": "linear", "tau": 0.5}
    agent = pg.sac(OneStep(), alpha=5.0, learn_alpha=False, lr=0.1, num_steps=4, gradient_steps=4, **words)
    agent.learn(160)
    x = torch.linspace(-1.0, 1.0, 9).unsqueeze(1)
    value = agent.learner.rule.critic.target_value(torch.zeros(9, 1), x)
    torch.testing.assert_close(value, torch.ones(9), rtol=0, atol=1e-2)
    assert agent.learner.rule.report()["alpha"] == 5.0


@pytest.mark.parametrize("target", [math.log(2.0), 7.0])
def test_an_entropy_that_no_policy_can_have_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="cannot be reached"):
        pg.sac(OneStep(), target_entropy=target)
    pg.sac(OneStep(), target_entropy=target, learn_alpha=False)
