"""What is taken for a picture, and the convolutions that it goes through, against torch's own modules and each other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import policygrad as pg
from policygrad.data import Batch
from policygrad.models import pictures
from policygrad.models.action_values import make_action_critic
from policygrad.models.critic import make_critic
from policygrad.models.kernels import AutogradKernel
from policygrad.models.networks import MLP, BodyNetwork
from policygrad.models.observations import Encoding
from policygrad.models.pictures import Convolutions, Layout, PictureBody, PictureError, described, layout_of, picture
from policygrad.models.policy import Policy, make_policy


def pixels(*shape: int, low: Any = 0, high: Any = 255, dtype: Any = np.uint8) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


UNEVEN = spaces.Box(
    np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 255, np.uint8) - np.eye(20, dtype=np.uint8)[..., None]
)
TABLE: list[tuple[spaces.Space, tuple[int, int, int, int, bool] | None]] = [
    (pixels(84, 84), (1, 1, 84, 84, True)),
    (pixels(84, 84, 1), (1, 1, 84, 84, False)),
    (pixels(210, 160, 3), (1, 3, 210, 160, False)),
    (pixels(4, 84, 84), (1, 4, 84, 84, True)),
    (pixels(96, 96, 12), (1, 12, 96, 96, False)),
    (pixels(16, 16, 3), (1, 3, 16, 16, False)),
    (pixels(3, 20, 40), (1, 3, 20, 40, True)),
    (pixels(4, 96, 96, 3), (4, 3, 96, 96, False)),  # FrameStackObservation of colours
    (pixels(4, 3, 64, 64), (4, 3, 64, 64, True)),
    (pixels(4, 84, 84, 1), (4, 1, 84, 84, False)),
    (pixels(7, 7, 3), None),  # MiniGrid's cells
    (pixels(8, 8, 3), None),
    (pixels(15, 40, 3), None),
    (pixels(84, 3, 84), None),
    (pixels(128), None),  # the memory of an Atari machine
    (pixels(84, 84, 40), None),
    (pixels(12, 84, 84, 3), None),  # 36 channels
    (pixels(2, 2, 20, 20, 3), None),
    (pixels(84, 84, 3, high=1), None),
    (pixels(84, 84, 3, high=10), None),
    (UNEVEN, None),
    (pixels(84, 84, 3, dtype=np.float32), None),
    (pixels(84, 84, 3, high=1.0, dtype=np.float32), None),
    (pixels(84, 84, 3, dtype=np.int32), None),
    (spaces.Discrete(400), None),
    (spaces.MultiBinary((20, 20)), None),
    (spaces.Dict(a=pixels(84, 84)), None),  # its part is one
]


@pytest.mark.parametrize(("space", "expected"), TABLE, ids=lambda x: str(getattr(x, "shape", "")) if x else "none")
def test_what_is_a_picture(space: spaces.Space, expected: tuple[int, int, int, int, bool] | None) -> None:
    assert picture(space) == (None if expected is None else Layout(*expected))


def policy_of(space: spaces.Space, **keywords: Any) -> Policy:
    return make_policy(space, spaces.Discrete(3), **keywords)


def body_of(policy: Policy) -> PictureBody:
    assert isinstance(policy.network, BodyNetwork)
    assert isinstance(policy.network.body, PictureBody)
    return policy.network.body


def parts_of(policy: Policy) -> list[Convolutions]:
    return [part for part in body_of(policy).parts if isinstance(part, Convolutions)]


def shown(space: spaces.Box, rows: int = 5, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (rows, *space.shape)).astype(np.uint8))


def by_hand(policy: Policy, x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """A lone picture (B, C, H, W) through torch's modules with the policy's weights."""
    convs, linear = parts_of(policy)[0].convolutions, parts_of(policy)[0].linear
    h = x.to(policy.flat.dtype) / 255.0
    for layer, stride in zip(convs, strides, strict=True):
        h = nn.functional.relu(nn.functional.conv2d(h, layer.weight, layer.bias, stride))  # pyright: ignore
    h = nn.functional.relu(nn.functional.linear(h.flatten(1), linear.weight, linear.bias))
    return policy.network.output(h)  # pyright: ignore


@pytest.mark.parametrize(
    ("space", "strides", "left"),
    [(pixels(4, 84, 84), (4, 2, 1), 3136), (pixels(3, 36, 40), (4, 2, 1), 64), (pixels(3, 20, 16), (2, 2, 1), 128)],
    ids=["84", "36", "20"],
)
def test_the_network_is_that_of_the_paper(space: spaces.Box, strides: tuple[int, ...], left: int) -> None:
    policy, x = policy_of(space, hidden=()).double(), shown(space)
    with torch.no_grad():
        for p in policy.network.parameters():  # biases are 0 at first
            p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype))
        expected = by_hand(policy, x, strides)
    assert parts_of(policy)[0].linear.in_features == left
    torch.testing.assert_close(policy.kernel.forward(policy.features(x)), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        policy.head.logp(policy(x), torch.zeros(5, dtype=torch.int64)), expected.log_softmax(-1)[:, 0]
    )
    assert len(policy.flat) == sum(p.numel() for p in policy.network.parameters())
    assert not torch.allclose(by_hand(policy, x.flip(1), strides), expected)  # the negative control


def test_weights_begin_orthogonal_with_gain_and_by_the_seed() -> None:
    space = pixels(4, 84, 84)
    convolutions = parts_of(policy_of(space, seed=3))[0]
    for layer in (*convolutions.convolutions, convolutions.linear):
        w = layer.weight.detach().flatten(1)  # pyright: ignore
        w = w if w.shape[0] <= w.shape[1] else w.T
        torch.testing.assert_close(w @ w.T, 2.0 * torch.eye(len(w)), atol=2e-4, rtol=0)
        assert not layer.bias.any()  # pyright: ignore
    same, other = policy_of(space, seed=3), policy_of(space, seed=4)
    assert torch.equal(same.flat, policy_of(space, seed=3).flat)
    assert not torch.equal(same.flat, other.flat)


@pytest.mark.parametrize(
    ("first", "last", "order"),
    [
        ((3, 20, 24), (20, 24, 3), (1, 2, 0)),
        ((2, 3, 20, 24), (2, 20, 24, 3), (0, 2, 3, 1)),
        ((1, 20, 24), (20, 24, 1), (1, 2, 0)),
    ],
)
def test_the_order_of_channels_makes_no_difference(first: Any, last: Any, order: tuple[int, ...]) -> None:
    one, other = policy_of(pixels(*first)), policy_of(pixels(*last))
    assert torch.equal(one.flat, other.flat)
    x = shown(pixels(*first))
    y = x.permute(0, *(1 + axis for axis in order)).contiguous()
    assert y.shape[1:] == last
    torch.testing.assert_close(one.dist(x), other.dist(y))
    assert not torch.allclose(one.dist(x), one.dist(x.flip(-1)))


def test_frames_become_channels_the_oldest_first() -> None:
    layout = layout_of((2, 4, 5, 3))
    assert layout is not None
    x = torch.arange(2 * 4 * 5 * 3.0).view(1, 2, 4, 5, 3)
    images = layout.images(x)
    assert images.shape == (1, 6, 4, 5)
    assert torch.equal(images[0, 4], x[0, 1, :, :, 1])


@pytest.mark.parametrize(("high", "divisor"), [(255, 255.0), (1.0, 1.0), (10.0, 10.0), (np.inf, 1.0)])
def test_the_largest_number_of_the_space_is_what_pictures_are_divided_by(high: float, divisor: float) -> None:
    space = pixels(5, 6, 2, high=high, dtype=np.uint8 if high == 255 else np.float32)
    assert parts_of(policy_of(space, network="cnn"))[0].largest == divisor


def test_pictures_and_numbers_side_by_side() -> None:
    space = spaces.Dict(
        above=pixels(20, 20, 3), below=pixels(1, 18, 16), goal=spaces.Discrete(3), speed=spaces.Box(-1.0, 1.0, (2, 2))
    )
    policy = policy_of(space, hidden=(7,), activation="relu")
    assert [part.linear.out_features for part in parts_of(policy)] == [256, 256]
    above, below = shown(space["above"]), shown(space["below"], seed=1)  # pyright: ignore
    goal, speed = torch.eye(3)[[0, 1, 2, 1, 0]], torch.randn(5, 2, 2, generator=torch.Generator().manual_seed(0))
    obs = {"above": above, "below": below, "goal": goal, "speed": speed}
    first, second = parts_of(policy)
    x = torch.cat([first(above.float()), second(below.float()), goal, speed.flatten(1)], -1)
    layer = body_of(policy).hidden[0]
    expected = policy.network.output(torch.relu(layer(x)))  # pyright: ignore
    torch.testing.assert_close(policy.kernel.forward(policy.features(obs), grad=False), expected)
    swapped = obs | {"goal": goal.roll(1, 0)}
    assert not torch.allclose(policy.kernel.forward(policy.features(swapped), grad=False), expected)


@pytest.mark.parametrize(
    ("space", "network", "words"),
    [
        (pixels(84 * 84 * 4), "auto", "look like pixels.*network = mlp"),
        (pixels(84, 84, 40), "auto", "network = cnn"),
        (spaces.Dict(eye=pixels(10, 30), x=spaces.Discrete(2)), "auto", r"\['eye'\]"),
        (pixels(2, 2, 20, 20, 3), "auto", "raw pixels"),
        (pixels(128), "cnn", "height × width"),
        (pixels(3, 3, 3), "cnn", "sides of at least 4"),
        (spaces.Discrete(5), "cnn", "network = cnn needs a Box"),
    ],
)
def test_a_network_that_does_not_suit_is_refused_by_name(space: spaces.Space, network: str, words: str) -> None:
    for make in (policy_of, make_critic, lambda space, **k: make_action_critic(space, 1, **k)):
        with pytest.raises(PictureError, match=words):
            make(space, network=network)


@pytest.mark.parametrize("space", [pixels(16 * 16 * 4), pixels(16, 16, 40), pixels(20, 20, 3)])
def test_an_mlp_on_pixels_has_to_be_asked_for(space: spaces.Box) -> None:
    assert isinstance(policy_of(space, network="mlp").network, MLP)


def test_what_is_left_to_an_mlp() -> None:
    for space in (pixels(7, 7, 3), pixels(128), pixels(20, 20, high=1), pixels(20, 20, 3, dtype=np.float32)):
        assert isinstance(policy_of(space).network, MLP)


class Noise(gym.Env):
    """Pictures that say nothing."""

    def __init__(self, observed: spaces.Space, acted: spaces.Space) -> None:
        self.observation_space, self.action_space = observed, acted

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        return self._seen(), float(self.np_random.random()), bool(self.np_random.random() < 0.1), False, {}

    def _seen(self) -> np.ndarray:
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)


def test_the_network_must_be_one_that_there_is() -> None:
    with pytest.raises(ValueError, match="network must be one of"):
        policy_of(pixels(20, 20, 3), network="vit")


def test_standardised_pixels_are_not_divided_by_255() -> None:
    policy, plain = policy_of(pixels(20, 20, 3), normalize_obs=True), policy_of(pixels(20, 20, 3))
    seen = torch.randint(0, 256, (50, 20, 20, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seen[:, 0, 0] = 17  # a pixel that never changes
    policy.normalizer.merge(policy.raw_features(seen))  # pyright: ignore[reportOptionalMemberAccess]
    x = seen[:8].double()
    mean, std = seen.double().mean(0), seen.double().std(0, correction=0)
    standard = ((x - mean) / (std**2 + 1e-8).sqrt()).clamp(-10, 10)
    assert (standard[:, 0, 0] == 0).all()
    with torch.no_grad():
        out, expected = policy.network(policy.features(seen[:8])), plain.network(255.0 * standard.float())
    np.testing.assert_allclose(out, expected, rtol=2e-4, atol=2e-6)  # the same weights, and one divides by 255
    assert "standardised" in described(policy.network, policy.encoding)[0]  # pyright: ignore[reportArgumentType]
    assert "over 255" in described(plain.network, plain.encoding)[0]  # pyright: ignore[reportArgumentType]


def convolutions_in(thing: Any, seen: set[int]) -> Iterator[Convolutions]:
    """All that an object of policygrad holds."""
    if id(thing) in seen or not type(thing).__module__.startswith("policygrad"):
        return
    seen.add(id(thing))
    inside = [*vars(thing).values()] if hasattr(thing, "__dict__") else []
    for module in thing.modules() if isinstance(thing, nn.Module) else []:
        if isinstance(module, Convolutions) and id(module) not in seen - {id(thing)}:
            seen.add(id(module))
            yield module
    for part in inside:
        yield from convolutions_in(part, seen)


@pytest.mark.parametrize(
    ("algo", "keywords"),
    [
        ("ppo", {}),
        ("ppo", {"shared_body": True}),
        ("a2c", {"memory": "gru"}),
        ("dqn", {"warmup": 20}),
        ("sac", {"warmup": 20}),
    ],
)
def test_agents_standardise_pixels(algo: str, keywords: dict[str, Any], tmp_path: Path) -> None:
    acts = spaces.Box(-1.0, 1.0, (1,)) if algo == "sac" else spaces.Discrete(3)
    env = partial(Noise, pixels(16, 16, 3), acts)
    words = {"num_envs": 2, **({} if algo in ("dqn", "sac") else {"num_steps": 8})} | keywords
    agent = pg.Agent(algo, env, normalize_obs=True, preset={}, hidden=(), seed=1, **words).learn(64)
    found = list(convolutions_in(agent.learner, set()))
    assert len(found) >= {"ppo": 1 if keywords else 2, "a2c": 2, "dqn": 2, "sac": 3}[algo], "with the copies of targets"
    assert all(part.standardized and part.largest == 1.0 for part in found)
    assert agent.policy.normalizer.count > 0
    again = pg.load(agent.save(tmp_path / "agent"), env)
    obs = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(again.predict(obs, deterministic=True)[0], agent.predict(obs, deterministic=True)[0])


def test_the_guess_is_said() -> None:
    space = spaces.Dict(eye=pixels(4, 84, 84), x=spaces.Discrete(2))
    policy = policy_of(space)
    (said,) = described(policy.network, Encoding(space))
    for word in ("['eye']", "84 × 84", "4 channels, channels first", "255", "Mnih et al. (2015)", "network = mlp"):
        assert word in said
    assert said.split("pictures of ")[1].split(" (network")[0] in repr(policy)
    assert described(policy_of(pixels(7, 7, 3)).network, Encoding(pixels(7, 7, 3))) == []


def test_passes_without_a_graph_in_pieces_agree_with_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    space = pixels(3, 16, 16)
    policy, x = policy_of(space), shown(space, 11)
    whole, rows = policy.dist(x), []
    forward = Convolutions._forward
    monkeypatch.setattr(Convolutions, "_forward", lambda self, obs: (rows.append(len(obs)), forward(self, obs))[1])
    monkeypatch.setattr(pictures, "PASS", 4)
    torch.testing.assert_close(policy.dist(x), whole, atol=1e-6, rtol=0)
    assert rows == [4, 4, 3]
    policy.evaluate(Batch.of(x, torch.zeros(11, dtype=torch.int64)))
    assert rows[3:] == [11]  # a graph is one pass


def test_derivatives_are_those_of_autograd_and_of_differences() -> None:
    """∇log π and, twice differentiated, ∇log π · v, which natural steps need."""
    space = pixels(16, 16, 2)
    policy, x = policy_of(space, hidden=(4,)).double(), shown(space, 3)
    act = torch.tensor([0, 2, 1])
    assert isinstance(policy.kernel, AutogradKernel)
    evaluation = policy.evaluate(Batch.of(x, act))
    weight = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    expected = policy.gradient((weight * policy.logp(x, act)).sum())
    torch.testing.assert_close(evaluation.gradient(weight), expected)
    v = torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    evaluation = policy.evaluate(Batch.of(x, act))
    along, eps = evaluation.score_jvp(v), 1e-6
    with torch.no_grad():
        policy.flat.add_(eps * v)
        up = policy.logp(x, act)
        policy.flat.sub_(2 * eps * v)
        down = policy.logp(x, act)
    torch.testing.assert_close(along, (up - down) / (2 * eps), rtol=1e-5, atol=1e-6)
    assert math.isclose(float(expected @ v), float((weight * along).sum()), rel_tol=1e-9)
