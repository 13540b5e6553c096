"""Policies of any body for the spaces there are, and a clear no for the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.data import Batch
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.lab.exact.mdp import MDP, random_mdp
from policygrad.lab.exact.tabular import exact_gradient, tabular_policy
from policygrad.models.continuous import Gaussian
from policygrad.models.kernels import TableKernel
from policygrad.models.networks import MLP, TabularNetwork, WithLogStd
from policygrad.models.policy import Policy, make_policy
from policygrad.models.schedules import at, linear, make_schedule

OBS = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0.0, 1.0, (8, 8, 1))
ACTIONS = [
    spaces.Discrete(4),
    spaces.MultiDiscrete([[2, 3], [4, 2]]),
    spaces.MultiBinary(3),
    spaces.Box(-1.0, 1.0, ()),
    spaces.Box(-1.0, 1.0, (2, 3)),
]


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
    "std from the network": lambda: (OBS, {"hidden": (6,), "std": "network"}),
    "squashed": lambda: (OBS, {"hidden": (6,), "head": "squashed"}),
    "squashed, std from the network": lambda: (OBS, {"hidden": (6,), "head": "squashed", "std": "network"}),
}


def batch(space: spaces.Box, action_space: spaces.Space, rows: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(rows, *space.shape, generator=generator, dtype=torch.float64)
    if isinstance(action_space, spaces.Discrete):
        return obs, torch.randint(int(action_space.n), (rows,), generator=generator)
    if not isinstance(action_space, spaces.Box):
        return obs, torch.randint(2, (rows, *(action_space.shape or ())), generator=generator)
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
    evaluation = policy.evaluate(Batch.of(obs, act))
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
    with pytest.raises(ValueError, match=r"made \(2, 8, 8, 1\) of float32 .*: end it with nn\.Flatten"):
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


@pytest.mark.filterwarnings("ignore:BatchNorm1d in the body")
def test_making_a_policy_leaves_the_statistics_of_an_encoder_alone() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(int(np.prod(IMAGE.shape))))
    before = deepcopy(encoder.state_dict())
    make_policy(IMAGE, spaces.Discrete(2), body=encoder)
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize("head", ["gaussian", "squashed"])
@pytest.mark.parametrize("hidden", [(4,), ()])
@pytest.mark.parametrize("obs", [OBS, spaces.Discrete(3)], ids=str)
def test_a_std_of_the_networks_own_begins_at_log_std_and_depends_on_the_state(
    obs: spaces.Space, hidden: tuple[int, ...], head: str
) -> None:
    policy = make_policy(obs, spaces.Box(-1.0, 1.0, (2,)), hidden=hidden, std="network", log_std=-0.7, head=head)
    assert isinstance(policy.head, Gaussian)
    assert not isinstance(policy.network, WithLogStd)
    x = torch.eye(3)
    torch.testing.assert_close(policy.dist(x)[:, 2:], torch.full((3, 2), -0.7), rtol=0, atol=0.02)
    policy.flat += torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(0))
    assert float(policy.dist(x)[:, 2:].std(0).min()) > 0.01


# Tables: hidden = () on Discrete observations


def tabular(mdp: MDP, seed: int = 0, start: int = 3) -> Policy:
    """A policy for an environment that shows the states as Discrete, with the logits of the lab's own tabular policy."""
    spaced = make_policy(spaces.Discrete(mdp.states, start=start), spaces.Discrete(mdp.actions, start=-1), hidden=())
    assert torch.equal(spaced.flat, torch.zeros_like(spaced.flat))  # uniform
    policy = spaced.double()
    policy.flat.copy_(tabular_policy(mdp, torch.Generator().manual_seed(seed)).flat)
    return policy


class Played(gym.Env):
    """An MDP, with its states shown from 3 on and its actions counted from −1."""

    def __init__(self, mdp: MDP) -> None:
        self.mdp = mdp
        self.observation_space = spaces.Discrete(mdp.states, start=3)
        self.action_space = spaces.Discrete(mdp.actions, start=-1)

    def draw(self, p: Tensor) -> np.int64:
        self.state = int(self.np_random.choice(len(p), p=p.numpy()))
        return np.int64(self.state + 3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.int64, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.draw(self.mdp.start), {}

    def step(self, action: Any) -> tuple[np.int64, float, bool, bool, dict]:
        rew = float(self.mdp.reward[self.state, action + 1])
        obs = self.draw(self.mdp.transition[self.state, action + 1])
        self.time += 1
        return obs, rew, bool(self.mdp.over[self.state]) or self.time == self.mdp.horizon, False, {}


def test_a_tabular_policy_is_the_labs() -> None:
    mdp = random_mdp(4, 3, 3, np.random.default_rng(0), gamma=0.9, terminal=(2,))
    policy, labs = tabular(mdp), tabular_policy(mdp, torch.Generator().manual_seed(0))
    assert isinstance(policy.network, TabularNetwork)
    assert isinstance(policy.kernel, TableKernel)
    torch.testing.assert_close(exact_gradient(mdp, policy), exact_gradient(mdp, labs), rtol=0, atol=0)
    every = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(policy.dist(every), labs(every).detach(), rtol=0, atol=1e-15)


def test_played_in_an_environment_its_mean_score_is_the_exact_gradient() -> None:
    """Mean of G · Σ ∇log π over sampled episodes, within 4 standard errors entry by entry, and nothing smaller would do."""
    mdp = random_mdp(3, 2, 3, np.random.default_rng(1), terminal=(2,))
    policy, n = tabular(mdp), 3000
    rollout = roll_episodes(Collector(make_envs(lambda: Played(mdp), 30), seed=0), policy, n)
    obs, act = rollout.obs[:-1].double(), rollout.act
    score = torch.nn.functional.one_hot(act, mdp.actions) - policy.dist(obs.flatten(0, 1)).exp().view(*act.shape, -1)
    score = torch.einsum("tns,tna->tnsa", obs, score * rollout.mask.unsqueeze(-1)).sum(0)  # of a table, by hand
    weight = rollout.rew.sum(0)
    each = (weight.view(-1, 1, 1) * score).reshape(n, -1)
    ours = policy.evaluate(Batch.of(rollout.valid(rollout.obs[:-1]), rollout.valid(act))).gradient(
        rollout.valid(weight.expand(act.shape))
    )
    torch.testing.assert_close(ours / n, each.mean(0), rtol=0, atol=1e-12)
    exact, error = exact_gradient(mdp, policy), each.std(0) / math.sqrt(n)
    assert ((each.mean(0) - exact).abs() <= 4 * error + 1e-15).all()
    assert ((each.mean(0) + exact).abs() > 4 * error).any()  # the control: it is not 0 either


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_linear_features_are_a_softmax_of_a_linear_map(hidden: tuple[int, ...]) -> None:
    policy = make_policy(OBS, spaces.Discrete(3), hidden=hidden).double()
    assert isinstance(policy.network, MLP)
    policy.flat += torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_odds = [policy.dist(z) - policy.dist(z)[:, :1] for z in (x, y, 0.5 * (x + y))]
    linear_in_x = torch.allclose(log_odds[2], 0.5 * (log_odds[0] + log_odds[1]), rtol=0, atol=1e-12)
    assert linear_in_x == (hidden == ())
    assert len(policy.flat) == (3 * 3 + 3 if hidden == () else 3 * 5 + 5 + 5 * 3 + 3)


def test_a_table_for_box_actions_has_means_and_stds_by_state() -> None:
    for std, kernel in itertools.product(("parameter", "network"), ("auto", "autograd")):
        policy = make_policy(
            spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,)), hidden=(), std=std, log_std=-1.0, kernel=kernel
        )
        dist = policy.dist(torch.eye(3))
        assert torch.equal(dist, torch.tensor([[0.0, 0.0, -1.0, -1.0]]).expand(3, 4))
