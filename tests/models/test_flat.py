"""Flat parameters: one vector, of which the Parameters stay views whatever is done to the module."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.algorithms.learner import Learner
from policygrad.data import Batch, Rollout
from policygrad.gradient.estimators import GAE
from policygrad.models.critic import make_critic
from policygrad.models.flat import FlatModule
from policygrad.models.policy import Policy, make_policy
from policygrad.updates import ClippedSurrogate

OBS = spaces.Box(-1.0, 1.0, (4,))
ACTIONS = [spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))]


def body(space: spaces.Space) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh())


def policies() -> list[Policy]:
    keywords: list[dict[str, Any]] = [{}, {"kernel": "autograd"}, {"body": body}]
    return [make_policy(OBS, act, hidden=(5,), normalize_obs=True, **k) for act in ACTIONS for k in keywords]


def assert_views(module: FlatModule) -> None:
    """Every parameter of the network is its piece of flat, in memory and in order, and the kernel is on the same memory."""
    address, size = module.flat.data_ptr(), module.flat.element_size()
    start = 0
    for p in module.network.parameters():
        assert isinstance(p, nn.Parameter)
        if not p.requires_grad:
            continue
        assert p.data_ptr() == address + start * size
        assert p.dtype == module.flat.dtype
        start += p.numel()
    assert start == module.flat.numel()
    obs = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).to(module.flat.dtype)
    for _ in range(2):  # before and after the vector has moved
        torch.testing.assert_close(module.kernel.forward(obs), module.network(obs).detach(), rtol=1e-5, atol=1e-6)
        before = module.kernel.forward(obs).clone()
        module.flat += 0.1 * torch.randn(start, generator=torch.Generator().manual_seed(2)).to(module.flat.dtype)
        assert not torch.allclose(module.kernel.forward(obs), before, atol=1e-3)


def to_file_and_back(module: FlatModule) -> FlatModule:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def loaded(module: FlatModule) -> FlatModule:
    twin = deepcopy(module)
    twin.flat.zero_()
    twin.load_state_dict(module.state_dict())
    return twin


def assigned(module: FlatModule) -> FlatModule:
    """assign=True puts the tensors of the state in the parameters' place."""
    twin = deepcopy(module)
    twin.flat.zero_()
    twin.load_state_dict(deepcopy(module.state_dict()), assign=True)
    return twin


def in_a_container(module: FlatModule) -> FlatModule:
    inside = deepcopy(nn.ModuleDict({"policy": module})).double().float()["policy"]
    assert isinstance(inside, FlatModule)
    return inside


OPERATIONS: dict[str, Callable[[FlatModule], FlatModule]] = {
    "nothing": lambda m: m,
    "deepcopy": deepcopy,
    "deepcopy twice": lambda m: deepcopy(deepcopy(m)),
    "float64": lambda m: m.to(torch.float64),
    "there and back": lambda m: m.double().float(),
    "cpu": lambda m: m.to("cpu"),
    "load_state_dict": loaded,
    "load_state_dict(assign=True)": assigned,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": to_file_and_back,
    "in a container": in_a_container,
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_views_survive(operation: str) -> None:
    for module in (*policies(), make_critic(OBS, hidden=(5,))):
        before = module.flat.clone()
        kind = type(module.kernel)
        changed = OPERATIONS[operation](module)
        assert isinstance(changed, FlatModule)
        assert torch.equal(changed.flat.float(), before)
        assert type(changed.kernel) is kind
        assert_views(changed)


@pytest.mark.parametrize(
    "operation", ["deepcopy", "pickle", "torch.save", "load_state_dict", "load_state_dict(assign=True)"]
)
def test_a_copy_shares_no_memory(operation: str) -> None:
    for module in (*policies(), make_critic(OBS, hidden=(5,))):
        before = deepcopy(module.state_dict())
        copy = OPERATIONS[operation](module)
        assert {t.data_ptr() for t in tensors(module)}.isdisjoint(t.data_ptr() for t in tensors(copy))
        for t in tensors(copy):
            t += 1.0
        after = module.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before if isinstance(before[k], Tensor))


def tensors(module: FlatModule) -> list[Tensor]:
    return [module.flat, *(b for b in module.buffers() if b.numel())]


def test_loading_writes_into_the_vector() -> None:
    source, target = policies()[0], make_policy(OBS, ACTIONS[0], hidden=(5,), normalize_obs=True, seed=9)
    address = target.flat.data_ptr()
    assert not torch.equal(source.flat, target.flat)
    target.load_state_dict(source.state_dict())
    assert target.flat.data_ptr() == address
    assert torch.equal(source.flat, target.flat)


@pytest.mark.parametrize("which", range(6))
def test_a_step_on_the_vector_moves_every_path(which: int) -> None:
    policy = policies()[which]
    obs = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    before = policy(obs).detach()
    policy.flat += 0.1 * torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(2))
    autograd = policy(obs).detach()
    assert not torch.allclose(autograd, before, atol=1e-3)
    torch.testing.assert_close(policy.dist(obs), autograd, rtol=0, atol=1e-6)
    outputs = policy.head.canonical(torch.from_numpy(policy.outputs(obs.numpy())))
    torch.testing.assert_close(outputs, autograd, rtol=0, atol=1e-6)


def test_an_optimiser_of_torchs_moves_the_vector_too() -> None:
    policy = policies()[0]
    policy(torch.ones(2, 4)).sum().backward()
    with torch.no_grad():
        for p in policy.parameters():
            assert p.grad is not None
            p -= 0.1 * p.grad
    expected = torch.cat([p.detach().reshape(-1) for p in policy.parameters()])
    assert torch.equal(policy.flat, expected)
    torch.testing.assert_close(policy.dist(torch.ones(2, 4)), policy(torch.ones(2, 4)).detach(), rtol=0, atol=1e-6)


def test_the_normaliser_is_no_parameter_but_part_of_the_state() -> None:
    policy = policies()[0]
    assert policy.flat.numel() == sum(p.numel() for p in policy.parameters())
    assert {"normalizer.mean", "normalizer.var", "normalizer.count"} <= set(policy.state_dict())


def half_frozen(space: spaces.Space) -> nn.Module:
    """A pretrained encoder that stays as it is, and a layer after it that learns."""
    encoder = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh()).requires_grad_(False)
    return nn.Sequential(encoder, nn.Linear(6, 5), nn.Dropout(0.5), nn.Tanh())


def frozen_policies() -> list[Policy]:
    return [make_policy(OBS, act, body=half_frozen, normalize_obs=True) for act in ACTIONS]


@pytest.mark.filterwarnings("ignore:Dropout drops nothing", "ignore:BatchNorm1d in the body")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_frozen_parameters_stay_outside_the_vector(operation: str) -> None:
    for module in (*frozen_policies(), make_critic(OBS, body=half_frozen)):
        changed = OPERATIONS[operation](module)
        sizes = [p.numel() for p in changed.network.parameters() if p.requires_grad]
        assert len(changed.flat) == sum(sizes) < sum(p.numel() for p in changed.network.parameters())
        assert_views(changed)
        assert not any(part.training for part in changed.network.modules())


@pytest.mark.parametrize(
    "keywords", [{"hidden": (5,)}, {"hidden": (5,), "kernel": "autograd"}], ids=["mlp", "autograd"]
)
@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
def test_a_layer_frozen_later_on_leaves_the_vector_when_it_is_made_again(
    action_space: spaces.Space, keywords: dict[str, Any]
) -> None:
    policy = make_policy(OBS, action_space, **keywords)
    whole = len(policy.flat)
    first = next(m for m in policy.network.modules() if isinstance(m, nn.Linear))
    first.requires_grad_(False)
    policy.flatten()
    assert len(policy.flat) == whole - 25
    assert_views(policy)


@pytest.mark.filterwarnings("ignore:Dropout drops nothing", "ignore:BatchNorm1d in the body")
def test_frozen_weights_do_not_move_and_the_others_do() -> None:
    obs = torch.randn(7, 6, 4, generator=torch.Generator().manual_seed(1))
    rew, no = torch.randn(6, 6, generator=torch.Generator().manual_seed(2)), torch.zeros(6, 6, dtype=torch.bool)
    for policy in frozen_policies():
        critic = make_critic(OBS, body=half_frozen, lr=0.01)
        act = torch.zeros(6, 6, *policy.head.mode(policy.outputs(obs[0].numpy())).shape[1:])
        act = act.long() if policy.head.size == 3 else act
        logp = policy.evaluate(Batch.of(obs[:-1].flatten(0, 1), act.flatten(0, 1))).logp.view(6, 6)
        cut = no.clone()
        cut[-1] = True
        rollout = Rollout(obs, obs[1:], act, rew, logp, no, no, cut, ~no, torch.zeros(6, 6, dtype=torch.int64))
        learner = Learner(policy, GAE(), ClippedSurrogate(0.01, epochs=2, minibatches=2), critic=critic)
        pairs = [(m, dict(deepcopy(m.network.state_dict()))) for m in (policy, critic)]
        learner.step(rollout)
        learner.step(rollout)
        for module, before in pairs:
            frozen = {k for k, p in module.network.named_parameters() if not p.requires_grad}
            frozen |= {k for k, _ in module.network.named_buffers()}
            assert len(frozen) == 7
            for name, value in module.network.state_dict().items():
                assert torch.equal(value, before[name]) == (name in frozen), name


@pytest.mark.filterwarnings("ignore:Dropout drops nothing", "ignore:BatchNorm1d in the body")
def test_the_same_observation_gives_the_same_distribution_through_dropout_and_batch_norm() -> None:
    obs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    for policy in frozen_policies():
        dist = policy.dist(obs)
        assert torch.equal(policy.dist(obs), dist)
        torch.testing.assert_close(policy(obs).detach(), dist, rtol=0, atol=1e-6)
        torch.testing.assert_close(policy.dist(obs[:1]), dist[:1], rtol=0, atol=1e-6)  # its neighbours do not matter


def passes(policy: Policy) -> list[Callable[[], Any]]:
    """Everything that runs the kernel forward."""
    obs = torch.ones(3, 4)
    act = torch.zeros(3, dtype=torch.int64) if policy.head.size == 3 else torch.zeros(3, 2)
    return [lambda: policy.evaluate(Batch.of(obs, act)), lambda: policy.dist(obs), lambda: policy.outputs(obs.numpy())]


@pytest.mark.parametrize("which", range(6))
def test_an_evaluation_that_is_out_of_date_refuses_its_gradient(which: int) -> None:
    policy = policies()[which]
    obs = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    act = torch.ones(6, dtype=torch.int64) if policy.head.size == 3 else torch.ones(6, 2)
    weight = torch.linspace(-1.0, 1.0, 6)
    for another_pass in passes(policy):
        evaluation = policy.evaluate(Batch.of(obs, act))
        first = evaluation.gradient(weight).clone()
        assert torch.equal(evaluation.gradient(weight), first)  # as often as one likes, until the next pass
        another_pass()
        with pytest.raises(RuntimeError, match="another forward pass since: evaluate again"):
            evaluation.gradient(weight)
        assert torch.equal(policy.evaluate(Batch.of(obs, act)).gradient(weight), first)
    evaluation = policy.evaluate(Batch.of(obs, act))
    policy(obs)  # the autograd path is apart
    evaluation.gradient(weight)
