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
from policygrad.models.critic import Critic, NoCritic, QCritic, make_critic, make_q_critic
from policygrad.models.networks import output_layer
from policygrad.models.policy import Policy, make_policy
from policygrad.total import moments

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


def test_targets_that_are_alike_but_for_rounding_are_not_spread() -> None:
    critic, actor, rollout = make_critic(OBS, hidden=(16,)), policy(), rollout_of()
    critic.fit(rollout, 3.0 + 1e-6 * targets(rollout), actor)
    assert critic.std == 0.01  # what they are divided by, at least


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
    twin.follow(*moments(target[rollout.mask]))
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
        actor.normalizer.merge(rollout_of(seed=1).valid_obs)
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
    actor.normalizer.merge(10.0 * rollout.valid_obs + 3.0)
    assert not torch.allclose(critic(rollout, actor).val, before, atol=1e-3)
    features = actor.normalizer(rollout.obs[:-1]).flatten(0, 1)
    torch.testing.assert_close(critic(rollout, actor).val.flatten(), critic.value(features), rtol=0, atol=1e-6)


def test_fitting_sees_them_through_it_too() -> None:
    actor, plain, rollout = policy(normalize_obs=True), policy(), rollout_of()
    assert actor.normalizer is not None
    shown = replace(rollout, obs=4.0 * rollout.obs + 3.0, next_obs=4.0 * rollout.next_obs + 3.0)
    actor.normalizer.merge(shown.valid_obs)
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


def discrete(actions: int = 3) -> Policy:
    """Far from uniform."""
    made = make_policy(OBS, spaces.Discrete(actions), hidden=(4,), seed=2)
    made.flat.mul_(4.0)
    return made


def with_actions(rollout: Rollout, actions: int = 3) -> Rollout:
    act = torch.randint(actions, rollout.rew.shape, generator=torch.Generator().manual_seed(1))
    return replace(rollout, act=act)


def q_critic(name: str = "mlp", **keywords: Any) -> QCritic:
    return make_q_critic(OBS, spaces.Discrete(3), **BODIES[name] | keywords)


def q_targets(rollout: Rollout) -> Tensor:
    """A function of the observation and the action."""
    return targets(rollout) * (1.0 - rollout.act)


@pytest.mark.parametrize("name", BODIES)
def test_a_q_critic_learns_a_function_of_observation_and_action(name: str) -> None:
    critic, actor = q_critic(name, lr=0.02, epochs=10, minibatches=2, max_grad_norm=None), discrete()
    for i in range(50):
        rollout = with_actions(rollout_of(seed=i))
        critic.fit(rollout, q_targets(rollout), actor)
    test = with_actions(rollout_of(seed=99, masked=False))
    act_val = critic(test, actor).act_val
    assert act_val is not None
    error = act_val - q_targets(test)
    assert float(error.square().mean().sqrt()) <= 0.15 * float(q_targets(test).std())


@pytest.mark.parametrize("shared", [True, False])
def test_v_is_the_policys_mean_of_q_at_both_ends_of_a_step(shared: bool) -> None:
    critic, actor, rollout = q_critic(), discrete(), with_actions(rollout_of())
    critic.fit(rollout, q_targets(rollout), actor)
    if not shared:
        rollout = replace(rollout, next_obs=rollout.next_obs.flip(0))
    values = critic(rollout, actor)
    assert values.act_val is not None
    assert values.bootstraps
    for t, n in ((0, 0), (7, 2), (19, 3)):
        for obs, found in ((rollout.obs[t, n], values.val), (rollout.next_obs[t, n], values.next_val)):
            q = critic.network(obs[None])[0] * critic.std + critic.mean
            v = actor.dist(obs[None]).exp()[0] @ q
            assert float(found[t, n]) == pytest.approx(float(v.detach()), abs=1e-5)
        q = critic.network(rollout.obs[t, n][None])[0] * critic.std + critic.mean
        assert float(values.act_val[t, n]) == pytest.approx(float(q[rollout.act[t, n]].detach()), abs=1e-5)


def test_one_q_step_is_adams_on_the_squared_error_of_the_actions_taken() -> None:
    critic, actor, rollout = q_critic(lr=0.01, max_grad_norm=None).double(), discrete(), with_actions(rollout_of())
    critic.fit(rollout, q_targets(rollout).double(), actor)
    target = torch.randn(20, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    twin = deepcopy(critic)
    twin.follow(*moments(target[rollout.mask]))
    x, act = rollout.obs[:-1][rollout.mask].double(), rollout.act[rollout.mask]
    chosen = twin.network(x).gather(1, act[:, None]).squeeze(1)
    loss = 0.5 * (chosen - (target[rollout.mask] - twin.mean) / twin.std).square().mean()
    grads = torch.autograd.grad(-loss, list(twin.network.parameters()))
    twin.optimizer.step(twin.flat, torch.cat([g.reshape(-1) for g in grads]), 0.01)
    critic.fit(rollout, target, actor)
    torch.testing.assert_close(critic.flat, twin.flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BODIES)
def test_rescaling_leaves_every_q_as_it_was(name: str) -> None:
    critic, actor, rollout = q_critic(name, lr=0.0).double(), discrete().double(), with_actions(rollout_of())
    goal, obs = q_targets(rollout).double(), rollout.obs.flatten(0, 1).double()
    critic.fit(rollout, 3.0 + goal, actor)  # the first fit sets mean and std
    for offset, scale in ((100.0, 1.0), (-50.0, 30.0), (0.0, 1e-3)):
        before, std = critic.action_values(obs), critic.std
        critic.fit(rollout, offset + scale * goal, actor)
        assert critic.std != std
        torch.testing.assert_close(critic.action_values(obs), before, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", BODIES)
def test_a_loaded_q_critic_goes_on_bit_for_bit(name: str) -> None:
    actor, rollout = discrete(), with_actions(rollout_of())
    critic, twin = (q_critic(name, lr=0.01, epochs=2, minibatches=3, seed=seed) for seed in (0, 7))
    critic.fit(rollout, q_targets(rollout), actor)
    twin.load_state_dict(critic.state_dict())
    for c in (critic, twin):
        c.fit(rollout, 10.0 + q_targets(rollout), actor)
    assert torch.equal(critic.flat, twin.flat)
    assert torch.equal(critic(rollout, actor).val, twin(rollout, actor).val)


def test_masked_rows_and_their_actions_teach_a_q_critic_nothing() -> None:
    critic, actor, rollout = q_critic(epochs=2, minibatches=3), discrete(), with_actions(rollout_of())
    twin, off = deepcopy(critic), ~rollout.mask
    critic.fit(rollout, q_targets(rollout), actor)
    other = replace(rollout, act=torch.where(off, 2 - rollout.act, rollout.act))
    twin.fit(other, torch.where(off, torch.nan, q_targets(rollout)), actor)
    assert torch.equal(critic.flat, twin.flat)


def test_a_scale_that_follows_slowly_is_that_of_the_targets_one_by_one() -> None:
    """One target a fit, as one-step actor-critics have it: the mean and std of all of them while they are few."""
    actor, rollout = policy(), rollout_of(masked=False)
    critic = make_critic(OBS, hidden=(4,), scale_rate=1e-3)
    goal = 5.0 + targets(rollout).flatten()
    obs = rollout.obs[:-1].flatten(0, 1)
    no, yes = torch.zeros(1, 1, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)
    for x, y in zip(obs, goal, strict=True):
        x = x.expand(2, 1, 2)
        y = y.view(1, 1)
        critic.fit(Rollout(x, x[1:], y.long(), y, y, no, no, yes, yes, y.long()), y, actor)
    assert critic.mean == pytest.approx(float(goal.mean()), rel=1e-5)
    assert critic.std == pytest.approx(float(goal.std(correction=0)), rel=1e-4)


def test_a_q_critic_is_for_discrete_actions() -> None:
    box = spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(TypeError, match=r"a critic of q\(s, a\) needs Discrete actions, the space is Box.*critic of V"):
        make_q_critic(OBS, box)
    with pytest.raises(
        TypeError, match="a QCritic has a value for every Discrete action, and the policy's head is Gauss"
    ):
        q_critic()(rollout_of(), make_policy(OBS, box))
