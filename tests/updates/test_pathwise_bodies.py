"""Pathwise rules whose policy and critic see pictures with bodies of their own: they train, and their gradients are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import randn
from gymnasium import spaces
from torch import Tensor, nn

import policygrad as pg
from policygrad.models.optim import SGD

PICTURE = spaces.Box(0, 255, (6, 6, 2), np.uint8)
PARTS = spaces.Dict({"picture": PICTURE, "speed": spaces.Box(-1.0, 1.0, (2,), np.float32)})
ROWS, DIMS = 5, 2


class Eye(nn.Module):
    """A small convolution over a picture (B, 6, 6, 2) of bytes, and what else is seen beside it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, channels, 3, stride=2)
        with torch.no_grad():
            for i, weight in enumerate(self.conv.parameters()):
                weight.copy_(randn(*weight.shape, seed=40 + i))

    def forward(self, obs: Any) -> Tensor:
        picture = obs["picture"] if isinstance(obs, dict) else obs
        seen = torch.tanh(self.conv(picture.permute(0, 3, 1, 2) / 255.0)).flatten(1)
        return torch.cat([seen, obs["speed"]], -1) if isinstance(obs, dict) else seen


class Camera(gym.Env):
    """Shows a bright column, which the first action is to point at; an episode has four steps."""

    action_space = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))

    def __init__(self, parts: bool = False) -> None:
        self.observation_space = PARTS if parts else PICTURE

    def seen(self) -> Any:
        self.column = int(self.np_random.integers(6))
        picture = np.zeros(PICTURE.shape, np.uint8)
        picture[:, self.column] = 250, 40
        return (
            {"picture": picture, "speed": np.full(2, 0.5, np.float32)} if self.observation_space is PARTS else picture
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.seen(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        reward, self.time = -float((action[0] - 0.5 * self.column + 1.0) ** 2), self.time + 1
        return self.seen(), reward, self.time == 4, False, {}


class Camera2(Camera):
    """The same in two parts."""

    def __init__(self) -> None:
        super().__init__(parts=True)


BODIES: dict[str, Any] = {"body": lambda space: Eye(3), "critic_body": lambda space: Eye(4)}


def made(algo: str, env: type[Camera] = Camera, **keywords: Any) -> pg.Agent:
    few: dict[str, Any] = {"hidden": (8,), "warmup": 16, "batch_size": 8, "buffer_size": 50, "num_steps": 4, "lr": 0.01}
    return pg.Agent(algo, env, seed=3, num_envs=2, **BODIES, **few | keywords)


def eyes(agent: pg.Agent) -> list[Tensor]:
    """The weights of the convolutions of the policy and of the critic."""
    networks = agent.policy.network, agent.learner.rule.critic.network.network
    found = [[m for m in net.modules() if isinstance(m, nn.Conv2d)] for net in networks]
    assert [len(convs) for convs in found] == [1, 1]
    return [convs[0].weight.detach().clone() for convs in found]


@pytest.mark.parametrize("env", [Camera, Camera2])
@pytest.mark.parametrize("algo", ["ddpg", "sac"])
def test_it_trains_is_saved_and_goes_on_and_acts_as_before(algo: str, env: type[Camera], tmp_path: Path) -> None:
    agent = made(algo, env)
    before = eyes(agent)
    agent.learn(48)
    for old, new in zip(before, eyes(agent), strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)  # the gradient reaches both
    held = agent.learner.replay.store["obs"]
    assert (held["picture"] if env is Camera2 else held).dtype == np.uint8
    loaded = pg.load(agent.save(tmp_path / "agent"), env=env, **BODIES, num_envs=2)
    obs = [env().reset(seed=i)[0] for i in range(3)]
    assert all(agent.predict(x, True)[0].tobytes() == loaded.predict(x, True)[0].tobytes() for x in obs)
    assert len({agent.predict(x, True)[0].tobytes() for x in obs}) > 1  # it looks at the picture
    assert loaded.evaluate(3).returns == agent.evaluate(3).returns
    saved = agent.policy.flat.clone()
    assert torch.equal(loaded.learn(16).policy.flat, agent.learn(16).policy.flat)
    assert not torch.equal(agent.policy.flat, saved)


def parts(algo: str, env: type[Camera]) -> tuple[Any, Any, Any, Tensor]:
    """Policy, critic and rule in double precision, moved from where they begin, and features (B, *) of some pictures."""
    agent = made(algo, env)
    policy, rule = agent.policy, agent.learner.rule
    policy.double()
    rule.critic.network.double()
    for seed, net in enumerate((policy, rule.critic.network)):
        net.flat += 0.2 * randn(len(net.flat), seed=seed)
    rng, obs = np.random.default_rng(0), agent.policy.encoding.empty(ROWS)
    for _, x in agent.policy.encoding.arrays(obs):
        x[...] = rng.integers(0, 256, x.shape) if x.dtype == np.uint8 else rng.uniform(-1.0, 1.0, x.shape)
    return policy, rule.critic, rule, torch.from_numpy(np.asarray(agent.policy.encoding.features(obs))).double()


@pytest.mark.parametrize("env", [Camera, Camera2])
@pytest.mark.parametrize("algo", ["ddpg", "td3", "sac"])
def test_the_gradient_is_that_of_the_composed_function(algo: str, env: type[Camera]) -> None:
    policy, critic, rule, features = parts(algo, env)
    noise = torch.from_numpy(np.random.default_rng(8).standard_normal((ROWS, DIMS), dtype=np.float32)).double()
    alpha = 0.0 if rule.temperature is None else rule.temperature.alpha

    def gain() -> Tensor:
        x, logp = policy.head.path(policy.network(features), noise)
        q = critic.network.network(torch.cat([features.flatten(1), x], -1))
        assert q.shape == (ROWS, 1 if algo == "ddpg" else 2)
        value = q.amin(-1) if algo == "sac" else q[:, 0]
        return (value if logp is None else value - alpha * logp).mean()

    rule.rng = np.random.default_rng(8)
    grad = rule.gradient(policy, features)[0].clone()
    parameters = list(policy.network.parameters())
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(gain(), parameters)])
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-10)
    start = policy.flat.clone()
    for seed in range(4):  # and of differences, which know of no graph
        direction, h, ends = randn(len(grad), seed=seed), 1e-6, []
        for step in (h, -h):
            policy.flat.copy_(start + step * direction)
            ends.append(float(gain().detach()))
        policy.flat.copy_(start)
        assert (ends[0] - ends[1]) / (2.0 * h) == pytest.approx(float(grad @ direction), rel=1e-5, abs=1e-7)
    assert float(grad[: parameters[0].numel()].abs().max()) > 1e-4  # the convolution's


@pytest.mark.parametrize("env", [Camera, Camera2])
@pytest.mark.parametrize("algo", ["ddpg", "sac"])
def test_the_slope_by_the_action_and_the_step_of_the_critic_are_right(algo: str, env: type[Camera]) -> None:
    _, critic, _, features = parts(algo, env)
    network, smallest = critic.network.network, algo == "sac"
    x = 0.5 * randn(ROWS, DIMS, seed=2)

    def value(x: Tensor) -> Tensor:
        q = network(torch.cat([features.flatten(1), x], -1)).detach()
        return q.amin(-1) if smallest else q[:, 0]

    found, slope = critic.action_gradient(features, x, smallest=smallest)
    torch.testing.assert_close(found, value(x), rtol=0, atol=1e-12)
    assert slope.shape == (ROWS, DIMS)
    h = 1e-6
    for i in range(DIMS):
        step = h * torch.eye(DIMS, dtype=torch.float64)[i]
        torch.testing.assert_close(slope[:, i], (value(x + step) - value(x - step)) / (2.0 * h), rtol=0, atol=1e-7)
    assert float(slope.abs().min()) > 1e-6

    target, before, critic.optimizer = randn(ROWS, seed=3), critic.network.flat.clone(), SGD()
    q = network(torch.cat([features.flatten(1), x], -1))
    loss = 0.5 * (target.unsqueeze(-1) - q).square().mean(0).sum()
    grads = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(network.parameters()))])
    critic.fit(features, x, target, 0.1)
    torch.testing.assert_close(critic.network.flat, before - 0.1 * grads, rtol=0, atol=1e-10)
