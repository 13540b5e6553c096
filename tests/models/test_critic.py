"""The critic: what it says of a rollout, how it learns it, and that rescaling changes nothing it says."""

from __future__ import annotations

import io
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.data import Rollout
from policygrad.models.critic import Critic, NoCritic, make_critic, output_layer
from policygrad.models.policy import Policy, make_policy

OBS = spaces.Box(-3.0, 3.0, (2,))
BODIES: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (16,)},
    "autograd": {"hidden": (16,), "kernel": "autograd"},
    "body": {"body": lambda space: nn.Sequential(nn.Linear(2, 16), nn.Tanh())},
}


def policy(normalize_obs: bool = False) -> Policy:
    return make_policy(OBS, spaces.Discrete(2), hidden=(4,), normalize_obs=normalize_obs)


def rollout_of(T: int = 20, N: int = 4, seed: int = 0, masked: bool = True) -> Rollout:
    obs = torch.randn(T + 1, N, 2, generator=torch.Generator().manual_seed(seed))
    zeros, no = torch.zeros(T, N), torch.zeros(T, N, dtype=torch.bool)
    mask = ~no
    if masked:
        mask[3, 0] = mask[0, 1] = mask[-1, 2] = False
    cut = mask & torch.cat([~mask[1:], torch.ones(1, N, dtype=torch.bool)])
    return Rollout(obs, obs[1:], zeros.long(), zeros, zeros, no, no, cut, mask, zeros.long())


def targets(rollout: Rollout) -> Tensor:
    """A function of the observation."""
    x = rollout.obs[:-1]
    return 2.0 * x[..., 0] - torch.tanh(2.0 * x[..., 1])


@pytest.mark.parametrize("name", BODIES)
def test_the_critic_learns_a_function(name: str) -> None:
    critic, actor = make_critic(OBS, **BODIES[name], lr=0.02, epochs=10, minibatches=2, max_grad_norm=None), policy()
    for i in range(25):
        rollout = rollout_of(seed=i)
        critic.fit(rollout, targets(rollout), actor)
    test = rollout_of(seed=99, masked=False)
    error = critic(test, actor).val - targets(test)
    assert float(error.square().mean().sqrt()) <= 0.15 <= 0.1 * float(targets(test).std())


@pytest.mark.parametrize(("offset", "scale"), [(-300.0, 100.0), (5.0, 0.05), (0.0, -1.0)])
def test_the_offset_and_scale_of_the_targets_make_no_difference(offset: float, scale: float) -> None:
    actor, test = policy(), rollout_of(seed=99)
    values = []
    for b, a in ((0.0, 1.0), (offset, scale)):
        critic = make_critic(OBS, hidden=(16,), lr=0.02, epochs=3).double()
        if a < 0:
            output_layer(critic.network).weight.data.neg_()
        for i in range(5):
            rollout = rollout_of(seed=i)
            critic.fit(rollout, b + a * targets(rollout).double(), actor)
        values.append((critic(test, actor).val - b) / a)
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-9)


def test_a_large_offset_does_not_swallow_the_scale_of_the_targets() -> None:
    critic, actor = make_critic(OBS, hidden=(16,)), policy()
    for i in range(20):
        rollout = rollout_of(seed=i)
        critic.fit(rollout, 1e4 + targets(rollout), actor)
    spread = float(targets(rollout_of(T=2000)).std())
    assert float(critic.std) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BODIES)
def test_rescaling_leaves_the_value_as_it_was(name: str, dtype: torch.dtype) -> None:
    critic, actor = make_critic(OBS, **BODIES[name], lr=0.0).to(dtype), policy().to(dtype)
    rollout = rollout_of()
    goal = targets(rollout).to(dtype)
    critic.fit(rollout, 3.0 + goal, actor)  # the first fit sets mean and std
    for offset, scale in ((100.0, 1.0), (-50.0, 30.0), (0.0, 1e-3)):
        before, mean, std = critic(rollout, actor).val, float(critic.mean), float(critic.std)
        critic.fit(rollout, offset + scale * goal, actor)
        assert abs(float(critic.mean) - mean) > 0.5
        assert float(critic.std) != std
        # relative to the numbers that cancel: V = mean + std · network
        size = max(abs(mean), abs(float(critic.mean)), std, float(critic.std), float(before.abs().max()))
        tolerance = (1e-6 if dtype == torch.float32 else 1e-13) * size
        torch.testing.assert_close(critic(rollout, actor).val, before, rtol=0, atol=tolerance)


def test_a_fit_moves_the_value_towards_the_targets() -> None:
    critic, actor = make_critic(OBS, hidden=(16,), lr=1e-3), policy()
    rollout = rollout_of()
    critic.fit(rollout, targets(rollout), actor)

    def error() -> float:
        return float((critic(rollout, actor).val - targets(rollout)).square().mean())

    before = error()
    critic.fit(rollout, targets(rollout), actor)
    assert error() < before


def test_one_step_is_adams_on_the_mean_squared_error() -> None:
    critic, actor = make_critic(OBS, hidden=(5,), lr=0.01, max_grad_norm=None).double(), policy()
    rollout = rollout_of()
    critic.fit(rollout, targets(rollout).double(), actor)
    target = torch.randn(20, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    twin = deepcopy(critic)
    twin._follow(target[rollout.mask])
    x = rollout.obs[:-1][rollout.mask].double()
    loss = 0.5 * (twin.network(x).squeeze(-1) - (target[rollout.mask] - twin.mean) / twin.std).square().mean()
    grads = torch.autograd.grad(-loss, list(twin.network.parameters()))
    twin.optimizer.step(twin.flat, torch.cat([g.reshape(-1) for g in grads]), 0.01)
    critic.fit(rollout, target, actor)
    torch.testing.assert_close(critic.flat, twin.flat, rtol=0, atol=1e-12)


def test_there_is_no_step_on_an_empty_minibatch() -> None:
    actor, rollout = policy(), rollout_of(T=1, N=3, masked=False)
    results = []
    for minibatches in (3, 8):
        critic = make_critic(OBS, hidden=(8,), epochs=2, minibatches=minibatches)
        critic.fit(rollout, targets(rollout), actor)
        results.append(critic.flat.clone())
    assert torch.equal(*results)


def test_masked_rows_teach_nothing() -> None:
    critic, actor = make_critic(OBS, hidden=(8,), epochs=2, minibatches=3), policy()
    twin = deepcopy(critic)
    rollout = rollout_of()
    off = ~rollout.mask
    obs = rollout.obs.clone()
    obs[:-1][off] = 1e9
    critic.fit(rollout, targets(rollout), actor)
    twin.fit(replace(rollout, obs=obs, next_obs=obs[1:]), torch.where(off, torch.nan, targets(rollout)), actor)
    assert torch.equal(critic.flat, twin.flat)
    assert float(critic.mean) == float(twin.mean)


@pytest.mark.parametrize("normalize_obs", [False, True])
def test_one_pass_says_the_same_as_two(normalize_obs: bool) -> None:
    critic, actor = make_critic(OBS, hidden=(16,)), policy(normalize_obs)
    rollout = rollout_of()
    if actor.normalizer is not None:
        actor.normalizer.update(rollout_of(seed=1))
    critic.fit(rollout, targets(rollout), actor)
    passes: list[int] = []
    forward = critic.value
    critic.value = lambda features: (passes.append(len(features)), forward(features))[1]
    one = critic(rollout, actor)
    two = critic(replace(rollout, next_obs=rollout.next_obs.clone()), actor)
    assert passes == [84, 84, 80]
    torch.testing.assert_close(one.val, two.val, rtol=0, atol=1e-6)
    torch.testing.assert_close(one.next_val, two.next_val, rtol=0, atol=1e-6)
    assert torch.equal(one.next_val[:-1], one.val[1:])
    assert one.bootstraps


def test_next_values_come_from_what_was_seen_before_a_reset() -> None:
    critic, actor, rollout = make_critic(OBS, hidden=(16,)), policy(), rollout_of()
    next_obs = rollout.next_obs.clone()
    next_obs[5, 1] = 2.5  # a final observation, where obs[6, 1] is a reset's
    values = critic(replace(rollout, next_obs=next_obs), actor)
    expected = critic.value(torch.full((1, 2), 2.5))
    torch.testing.assert_close(values.next_val[5, 1], expected[0], rtol=0, atol=1e-6)
    assert abs(float(values.next_val[5, 1] - values.val[6, 1])) > 1e-3


def test_the_critic_sees_observations_through_the_policys_normaliser() -> None:
    critic, actor, rollout = make_critic(OBS, hidden=(16,)), policy(normalize_obs=True), rollout_of()
    before = critic(rollout, actor).val
    assert actor.normalizer is not None
    actor.normalizer.update(replace(rollout, obs=10.0 * rollout.obs + 3.0, next_obs=10.0 * rollout.next_obs + 3.0))
    assert not torch.allclose(critic(rollout, actor).val, before, atol=1e-3)
    features = actor.normalizer(rollout.obs[:-1]).flatten(0, 1)
    torch.testing.assert_close(critic(rollout, actor).val.flatten(), critic.value(features), rtol=0, atol=1e-6)


def test_fitting_sees_them_through_it_too() -> None:
    actor, plain, rollout = policy(normalize_obs=True), policy(), rollout_of()
    assert actor.normalizer is not None
    shown = replace(rollout, obs=4.0 * rollout.obs + 3.0, next_obs=4.0 * rollout.next_obs + 3.0)
    actor.normalizer.update(shown)
    seen = actor.normalizer(shown.obs)
    critic = make_critic(OBS, hidden=(8,), lr=0.01, epochs=2)
    twin = deepcopy(critic)
    critic.fit(shown, targets(rollout), actor)
    twin.fit(replace(rollout, obs=seen, next_obs=seen[1:]), targets(rollout), plain)
    assert torch.equal(critic.flat, twin.flat)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("fits_before", [0, 2])
def test_a_loaded_critic_goes_on_bit_for_bit(name: str, fits_before: int) -> None:
    def fresh(seed: int) -> Critic:
        return make_critic(OBS, **BODIES[name], lr=0.01, epochs=2, minibatches=3, seed=seed)

    actor = policy()
    critic, twin = fresh(0), fresh(7)
    for i in range(fits_before):
        critic.fit(rollout_of(seed=i), targets(rollout_of(seed=i)), actor)
    twin.fit(rollout_of(seed=8), targets(rollout_of(seed=8)), actor)
    buffer = io.BytesIO()
    torch.save(critic.state_dict(), buffer)
    buffer.seek(0)
    twin.load_state_dict(torch.load(buffer, weights_only=True))
    for i in (3, 4):
        rollout = rollout_of(seed=i)
        for c in (critic, twin):
            c.fit(rollout, 10.0 + targets(rollout), actor)
        assert torch.equal(critic.flat, twin.flat)
        assert torch.equal(critic(rollout, actor).val, twin(rollout, actor).val)
        assert twin.seen == critic.seen


def test_a_copied_critic_goes_on_the_same_and_apart() -> None:
    critic, actor, rollout = make_critic(OBS, hidden=(8,), epochs=2, minibatches=3), policy(), rollout_of()
    critic.fit(rollout, targets(rollout), actor)
    twin = deepcopy(critic)
    for c in (critic, twin):
        c.fit(rollout, targets(rollout), actor)
    assert torch.equal(critic.flat, twin.flat)
    assert torch.equal(critic.state_dict()["_extra_state"]["generator"], twin.state_dict()["_extra_state"]["generator"])


def test_schedules_drive_the_rate() -> None:
    critic, actor, rollout = (
        make_critic(OBS, hidden=(8,), lr=lambda progress: 0.1 * (1.0 - progress)),
        policy(),
        rollout_of(),
    )
    critic.fit(rollout, targets(rollout), actor)
    value = critic(rollout, actor).val
    critic.fit(rollout, targets(rollout), actor, progress=1.0)
    torch.testing.assert_close(critic(rollout, actor).val, value, rtol=1e-5, atol=1e-5)
    critic.fit(rollout, targets(rollout), actor, progress=0.9)
    assert not torch.allclose(critic(rollout, actor).val, value, atol=1e-3)


def test_output_layers() -> None:
    for keywords in BODIES.values():
        critic = make_critic(OBS, **keywords)
        assert output_layer(critic.network).out_features == 1
        assert critic.flat.data_ptr() < output_layer(critic.network).weight.data_ptr()


def test_no_critic_says_zero_and_does_not_bootstrap() -> None:
    rollout = rollout_of()
    values = NoCritic()(rollout, policy())
    assert not values.bootstraps
    assert torch.equal(values.val, torch.zeros(20, 4))
    assert torch.equal(values.next_val, torch.zeros(20, 4))
    assert NoCritic().fit(rollout, rollout.rew, policy()) == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_a_target_that_is_not_finite_stops_the_fit_before_anything_moves(
    name: str, bad: float, max_grad_norm: float | None
) -> None:
    critic, actor, rollout = make_critic(OBS, **BODIES[name], max_grad_norm=max_grad_norm), policy(), rollout_of()
    critic.fit(rollout, targets(rollout), actor)
    before, goal = deepcopy(critic.state_dict()), targets(rollout)
    goal[4, 1] = bad
    assert rollout.mask[4, 1]
    with pytest.raises(FloatingPointError, match="a target of the critic is not finite: nothing was fitted"):
        critic.fit(rollout, goal, actor)
    after = critic.state_dict()
    assert after["_extra_state"]["scale"] == before["_extra_state"]["scale"]
    assert after["_extra_state"]["optimizer"]["t"] == before["_extra_state"]["optimizer"]["t"]
    assert all(torch.equal(after[k], before[k]) for k in before if isinstance(before[k], Tensor))


def test_a_critic_that_left_the_numbers_stops_the_fit() -> None:
    critic, actor, rollout = make_critic(OBS, hidden=(8,), lr=1e38, epochs=5, minibatches=2), policy(), rollout_of()
    with pytest.raises(FloatingPointError, match="the critic's gradient has norm"):
        critic.fit(rollout, targets(rollout), actor)


@pytest.mark.parametrize("name", BODIES)
def test_a_critic_goes_on_in_another_type(name: str) -> None:
    critic, actor, rollout = make_critic(OBS, **BODIES[name], lr=0.01), policy(), rollout_of()
    critic.fit(rollout, targets(rollout), actor)
    twin = deepcopy(critic)
    critic.fit(rollout, targets(rollout), actor)
    twin.double().fit(rollout, targets(rollout).double(), actor.double())
    assert twin.flat.dtype == torch.float64
    torch.testing.assert_close(twin.flat.float(), critic.flat, rtol=0, atol=1e-4)
