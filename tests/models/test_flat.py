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

from policygrad.models.critic import make_critic
from policygrad.models.flat import FlatModule
from policygrad.models.policy import Policy, make_policy

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


@pytest.mark.parametrize("operation", ["deepcopy", "pickle", "torch.save", "load_state_dict"])
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
