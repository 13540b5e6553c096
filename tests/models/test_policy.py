"""Policies of any body for the spaces there are, and a clear no for the others."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.models.networks import MLP, WithLogStd
from policygrad.models.policy import make_policy
from policygrad.models.schedules import at, linear, make_schedule

OBS = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0.0, 1.0, (8, 8, 1))
ACTIONS = [spaces.Discrete(4), spaces.Box(-1.0, 1.0, ()), spaces.Box(-1.0, 1.0, (2, 3))]


class Cnn(nn.Module):
    """Channels last, as Gymnasium has them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Flatten())

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs.movedim(-1, 1))


class Recurrence(nn.Module):
    """Parameters shared within the body, and a list of modules of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Linear(3, 3)] * 2)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, obs: Tensor) -> Tensor:
        for step in self.steps:
            obs = torch.tanh(step(obs)) * self.scale
        return obs


# made anew for every test: a module belongs to one policy
CASES: dict[str, Callable[[], tuple[spaces.Box, dict[str, Any]]]] = {
    "mlp": lambda: (OBS, {"hidden": (6, 5)}),
    "no hidden layer": lambda: (OBS, {"hidden": ()}),
    "mlp by autograd": lambda: (OBS, {"hidden": (6,), "kernel": "autograd"}),
    "mlp of an image": lambda: (IMAGE, {"hidden": (6,)}),
    "cnn": lambda: (IMAGE, {"body": Cnn()}),
    "cnn from a function": lambda: (IMAGE, {"body": lambda space: Cnn()}),
    "shared parameters": lambda: (OBS, {"body": Recurrence()}),
    "one number": lambda: (spaces.Box(-1.0, 1.0, ()), {"hidden": (4,)}),
    "normalised": lambda: (OBS, {"hidden": (6,), "normalize_obs": True}),
}


def batch(space: spaces.Box, action_space: spaces.Space, rows: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(rows, *space.shape, generator=generator, dtype=torch.float64)
    if isinstance(action_space, spaces.Discrete):
        return obs, torch.randint(int(action_space.n), (rows,), generator=generator)
    return obs, torch.randn(rows, *(action_space.shape or ()), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_the_fast_gradient_is_autograds(case: str, action_space: spaces.Space) -> None:
    space, keywords = CASES[case]()
    policy = make_policy(space, action_space, **keywords).double()
    policy.flat += 0.3 * torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    obs, act = batch(space, action_space)
    weight, ent_weight = (
        torch.randn(9, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2)
    )
    evaluation = policy.evaluate(obs, act)
    torch.testing.assert_close(evaluation.dist, policy(obs).detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(evaluation.logp, policy.logp(obs, act).detach(), rtol=0, atol=1e-12)
    gain = (weight * policy.logp(obs, act)).sum()
    torch.testing.assert_close(evaluation.gradient(weight), policy.gradient(gain), rtol=1e-12, atol=1e-12)
    gain = (weight * policy.logp(obs, act) + ent_weight * policy.head.entropy(policy(obs))).sum()
    torch.testing.assert_close(evaluation.gradient(weight, ent_weight), policy.gradient(gain), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_acting_in_numpy_sees_what_training_sees(case: str) -> None:
    for action_space in ACTIONS:
        space, keywords = CASES[case]()
        policy = make_policy(space, action_space, **keywords)
        obs = batch(space, action_space)[0].float()
        out = policy.outputs(obs.numpy())
        assert isinstance(out, np.ndarray)
        torch.testing.assert_close(
            policy.head.canonical(torch.from_numpy(out)), policy(obs).detach(), rtol=0, atol=1e-6
        )
        assert policy.head.sample(out, policy.head.noise(np.random.default_rng(0), (9,))).shape == (
            9,
            *action_space.shape,
        )


def test_integer_observations_are_taken_as_numbers() -> None:
    policy = make_policy(spaces.Box(0, 255, (4,), np.uint8), spaces.Discrete(2), hidden=(4,))
    obs = np.array([[0, 128, 255, 3]], np.uint8)
    np.testing.assert_array_equal(policy.outputs(obs), policy.outputs(obs.astype(np.float32)))


UNSUPPORTED_ACTIONS = [
    spaces.Box(0, 5, (2,), np.int64),
    spaces.Dict({"a": spaces.Discrete(2)}),
    spaces.Tuple([spaces.Discrete(2)]),
    spaces.Text(5),
]


@pytest.mark.parametrize("space", UNSUPPORTED_ACTIONS, ids=str)
def test_other_action_spaces_are_refused_by_name(space: spaces.Space) -> None:
    with pytest.raises(
        TypeError,
        match=r"unsupported action space .*: expected Discrete, MultiDiscrete, MultiBinary or a floating-point Box",
    ) as error:
        make_policy(OBS, space)
    assert str(space) in str(error.value)


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Dict({"a": spaces.Text(5)}), spaces.Sequence(OBS)], ids=str)
def test_other_observation_spaces_are_refused_by_name(space: spaces.Space) -> None:
    with pytest.raises(TypeError, match=r"unsupported observation space .*: expected Box") as error:
        make_policy(space, spaces.Discrete(2))
    assert "Text" in str(error.value) or str(space) in str(error.value)


def test_a_body_that_keeps_its_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"features \(B, F\), got \(2, 8, 8, 1\): end it with nn.Flatten"):
        make_policy(IMAGE, spaces.Discrete(2), body=nn.Identity())


def test_unknown_activations_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of .* got 'gelu'"):
        make_policy(OBS, spaces.Discrete(2), activation="gelu")
    with pytest.raises(ValueError, match=r"hidden sizes must be positive, got \(4, 0\)"):
        make_policy(OBS, spaces.Discrete(2), hidden=(4, 0))


def test_the_seed_makes_the_network_and_nothing_else_does() -> None:
    def flat(seed: int) -> Tensor:
        torch.manual_seed(torch.randint(10**6, ()).item())
        return make_policy(OBS, spaces.Discrete(2), seed=seed).flat

    assert torch.equal(flat(0), flat(0))
    assert not torch.equal(flat(0), flat(1))


@pytest.mark.parametrize("log_std", [-0.5, 0.0])
def test_a_fresh_policy_is_nearly_uniform_or_centred(log_std: float) -> None:
    obs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    p = make_policy(OBS, spaces.Discrete(4)).dist(obs).exp()
    torch.testing.assert_close(p, torch.full_like(p, 0.25), rtol=0, atol=0.01)
    dist = make_policy(OBS, spaces.Box(-1.0, 1.0, (2,)), log_std=log_std).dist(obs)
    assert float(dist[:, :2].abs().max()) <= 0.05
    assert torch.equal(dist[:, 2:], torch.full((50, 2), log_std))


def test_hidden_layers_are_orthogonal_with_gain_root_two() -> None:
    network = MLP(3, (8, 8), 2, output_gain=0.01, generator=torch.Generator().manual_seed(0))
    layers = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    first, second, last = (layer.weight.detach() for layer in layers)
    torch.testing.assert_close(first.T @ first, 2.0 * torch.eye(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(second @ second.T, 2.0 * torch.eye(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(last @ last.T, 1e-4 * torch.eye(2), rtol=0, atol=1e-8)
    assert all(torch.equal(layer.bias, torch.zeros_like(layer.bias)) for layer in layers)


def test_the_log_std_does_not_depend_on_the_state() -> None:
    network = WithLogStd(nn.Linear(3, 2), 2, -1.0)
    out = network(torch.randn(5, 3))
    assert torch.equal(out[:, 2:], torch.full((5, 2), -1.0))


def test_schedules() -> None:
    assert [at(linear(2.0), p) for p in (0.0, 0.25, 1.0)] == [2.0, 1.5, 0.0]
    assert [at(linear(1.0, 3.0), p) for p in (0.0, 0.5, 1.0)] == [1.0, 2.0, 3.0]
    assert [at(make_schedule("constant", 0.3), p) for p in (0.0, 1.0)] == [0.3, 0.3]
    assert [at(make_schedule("linear", 0.4), p) for p in (0.0, 0.5, 1.0)] == [0.4, 0.2, 0.0]
    with pytest.raises(ValueError, match=r"a schedule must be one of .* got 'cosine'"):
        make_schedule("cosine", 1.0)


def test_a_module_is_the_body_of_one_network_only() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(IMAGE.shape)), 4), nn.Tanh())
    policy = make_policy(IMAGE, spaces.Discrete(2), body=body)
    with pytest.raises(ValueError, match=r"another network already: pass copy\.deepcopy"):
        make_policy(IMAGE, spaces.Discrete(2), body=body)
    make_policy(IMAGE, spaces.Discrete(2), body=deepcopy(body))
    assert next(body.parameters()).data_ptr() == policy.flat.data_ptr()


def test_making_a_policy_leaves_the_statistics_of_an_encoder_alone() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(int(np.prod(IMAGE.shape))))
    before = deepcopy(encoder.state_dict())
    make_policy(IMAGE, spaces.Discrete(2), body=encoder)
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
