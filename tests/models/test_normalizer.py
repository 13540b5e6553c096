"""The observation normaliser against numpy's moments."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.algorithms.learner import Learner
from policygrad.data import Batch, Rollout
from policygrad.gradient.estimators import RewardToGo
from policygrad.models.normalizer import Normalizer
from policygrad.models.policy import Policy, make_policy
from policygrad.tree import take


def rollout_of(obs: Tensor, mask: Tensor | None = None) -> Rollout:
    """A rollout that shows these observations, (T, N, *), and one more row."""
    T, N = obs.shape[:2]
    zeros, no = torch.zeros(T, N), torch.zeros(T, N, dtype=torch.bool)
    mask = ~no if mask is None else mask
    cut = mask & torch.cat([~mask[1:], torch.ones(1, N, dtype=torch.bool)])
    edge = torch.full_like(obs[:1], 1e6)  # the row past the rollout's edge is seen by the next one
    obs = torch.cat([obs, edge])
    return Rollout(obs, obs[1:], zeros.long(), zeros, zeros, no, no, cut, mask, zeros.long())


def see(normalizer: Normalizer, rollout: Rollout) -> None:
    """As a learner of raw observations does it."""
    normalizer.merge(rollout.valid_obs)


def draw(T: int, N: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(shape, generator=generator, dtype=torch.float64) * 5.0 + 0.1
    return (3.0 * scale + scale * torch.randn(T, N, *shape, generator=generator, dtype=torch.float64)).to(dtype)


def moments(*pieces: Tensor) -> tuple[np.ndarray, np.ndarray]:
    rows = np.concatenate([p.reshape(-1, *p.shape[2:]).numpy().astype(np.float64) for p in pieces])
    return rows.mean(0), rows.var(0)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)], ids=str)
def test_moments_are_those_of_all_observations_seen(shape: tuple[int, ...]) -> None:
    pieces = [draw(T, 3, *shape, seed=T) for T in (1, 7, 50, 2)]
    normalizer = Normalizer(shape)
    for i, piece in enumerate(pieces):
        see(normalizer, rollout_of(piece))
        mean, var = moments(*pieces[: i + 1])
        np.testing.assert_allclose(normalizer.mean.numpy(), mean, rtol=1e-12)
        np.testing.assert_allclose(normalizer.var.numpy(), var, rtol=1e-11)
    assert float(normalizer.count) == 180


def test_the_order_of_merging_does_not_matter() -> None:
    pieces = [draw(T, 2, 4, seed=T) + 10.0 * T for T in (5, 1, 30, 8)]
    results = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        normalizer = Normalizer((4,))
        for i in order:
            see(normalizer, rollout_of(pieces[i]))
        results.append(torch.stack([normalizer.mean, normalizer.var]))
    joined = Normalizer((4,))
    see(joined, rollout_of(torch.cat(pieces)))
    results.append(torch.stack([joined.mean, joined.var]))
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-10, atol=0)


def test_a_large_offset_does_not_swallow_the_variance() -> None:
    normalizer = Normalizer((2,))
    pieces = [1e8 + draw(500, 4, 2, seed=s) for s in range(20)]
    for piece in pieces:
        see(normalizer, rollout_of(piece))
    _, var = moments(*pieces)
    np.testing.assert_allclose(normalizer.var.numpy(), var, rtol=1e-6)


def test_use_changes_nothing_and_updates_do() -> None:
    normalizer = Normalizer((3,))
    see(normalizer, rollout_of(draw(9, 2, 3)))
    before = deepcopy(normalizer.state_dict())
    obs = draw(5, 4, 3, seed=1)
    first = normalizer(obs)
    assert torch.equal(normalizer(obs), first)
    assert all(torch.equal(before[k], v) for k, v in normalizer.state_dict().items())
    see(normalizer, rollout_of(draw(9, 2, 3, seed=2)))
    assert not torch.equal(normalizer(obs), first)


def test_masked_rows_enter_nothing() -> None:
    obs, mask = draw(8, 3, 2), torch.ones(8, 3, dtype=torch.bool)
    mask[2, 0] = mask[5:, 1] = False
    poisoned = torch.where(mask[..., None], obs, torch.nan)
    normalizer = Normalizer((2,))
    see(normalizer, rollout_of(poisoned, mask))
    rows = obs[mask].numpy()
    np.testing.assert_allclose(normalizer.mean.numpy(), rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(normalizer.var.numpy(), rows.var(0), rtol=1e-12)
    assert float(normalizer.count) == mask.sum() == 20


def test_what_it_has_seen_comes_out_standardised_and_clipped() -> None:
    obs = draw(400, 5, 3)
    normalizer = Normalizer((3,), clip=2.0)
    see(normalizer, rollout_of(obs))
    mean, var = moments(obs)
    expected = np.clip((obs.numpy() - mean) / np.sqrt(var + 1e-8), -2.0, 2.0)
    np.testing.assert_allclose(normalizer(obs).numpy(), expected, atol=1e-5)
    assert float(normalizer(obs).abs().max()) == 2.0
    assert normalizer(obs.float()).dtype == torch.float32


def test_before_the_first_update_it_is_the_identity_within_the_clip() -> None:
    obs = torch.tensor([[0.5, -3.0, 50.0]])
    torch.testing.assert_close(Normalizer((3,))(obs), torch.tensor([[0.5, -3.0, 10.0]]))


def test_a_constant_observation_comes_out_as_zero() -> None:
    normalizer = Normalizer((1,))
    constant = torch.full((6, 2, 1), 7.0)
    see(normalizer, rollout_of(constant))
    assert torch.equal(normalizer(constant), torch.zeros(6, 2, 1))


def test_a_loaded_normaliser_is_the_same_and_does_not_count_twice() -> None:
    first, second = Normalizer((3,)), Normalizer((3,))
    see(first, rollout_of(draw(9, 2, 3)))
    see(second, rollout_of(draw(4, 2, 3, seed=5)))
    obs = draw(5, 4, 3, seed=1)
    assert not torch.equal(first(obs), second(obs))  # both have been used, with their own moments
    second.load_state_dict(deepcopy(first.state_dict()))
    assert torch.equal(first(obs), second(obs))
    for normalizer in (first, second):
        see(normalizer, rollout_of(draw(9, 2, 3, seed=2)))
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
    assert torch.equal(first(obs), second(obs))
    assert float(second.count) == 36


CONVERSIONS: dict[str, Callable[[nn.ModuleDict], nn.ModuleDict]] = {
    "float": lambda m: m.float(),
    "double": lambda m: m.double(),
    "half": lambda m: m.half(),
    "to": lambda m: m.to(torch.float32),
    "cpu": lambda m: m.cpu(),
    "there and back": lambda m: m.float().double(),
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_moments_stay_in_float64_whatever_the_network_becomes(conversion: str) -> None:
    normalizer = Normalizer((2,))
    see(normalizer, rollout_of(1e4 + draw(50, 4, 2)))
    before = deepcopy(normalizer.state_dict())
    holder = nn.ModuleDict({"normalizer": normalizer, "network": nn.Linear(2, 2)})
    changed = CONVERSIONS[conversion](holder)["normalizer"]
    assert isinstance(changed, Normalizer)
    after = changed.state_dict()
    assert after.keys() == before.keys()
    assert all(after[k].dtype == torch.float64 and torch.equal(after[k], before[k]) for k in before)
    see(changed, rollout_of(1e4 + draw(50, 4, 2, seed=1)))
    normalizer = Normalizer((2,))
    for seed in (0, 1):
        see(normalizer, rollout_of(1e4 + draw(50, 4, 2, seed=seed)))
    assert torch.equal(changed.mean, normalizer.mean)
    assert torch.equal(changed.var, normalizer.var)


@pytest.mark.parametrize("used_before", [False, True])
def test_a_float64_policy_sees_observations_normalised_in_float64(used_before: bool) -> None:
    policy = make_policy(spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2), hidden=(4,), normalize_obs=True)
    assert policy.normalizer is not None
    obs = 1e3 + draw(50, 4, 2)
    see(policy.normalizer, rollout_of(obs))
    mean, var = moments(obs)
    if used_before:  # nothing of float32 may be kept
        assert policy.features(obs).dtype == torch.float32
    policy.double()
    expected = np.clip((obs.numpy() - mean) / np.sqrt(var + 1e-8), -10.0, 10.0)
    seen = policy.features(obs)
    assert seen.dtype == torch.float64
    np.testing.assert_allclose(seen.numpy(), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(policy.dist(obs[0]), policy(obs[0]).detach(), rtol=0, atol=1e-12)
    assert policy.float().features(obs).dtype == torch.float32


class Still:
    """An update that notes what the normaliser was, and moves nothing."""

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> dict[str, float]:
        assert policy.normalizer is not None
        return {"count": float(policy.normalizer.count)}


@pytest.mark.parametrize("parts", [False, True])
def test_a_learner_shows_it_the_raw_features_of_the_valid_rows_when_it_has_moved(parts: bool) -> None:
    box = spaces.Box(0, 255, (2, 3), np.uint8)
    space = spaces.Dict(a=box, b=spaces.Box(-1.0, 1.0, (2,))) if parts else box
    policy = make_policy(space, spaces.Discrete(2), hidden=(4,), normalize_obs=True)
    normalizer, learner = policy.normalizer, Learner(policy, RewardToGo(), Still())  # pyright: ignore[reportArgumentType]
    assert normalizer is not None
    mask = torch.ones(8, 3, dtype=torch.bool)
    mask[2, 0] = mask[5:, 1] = False
    seen = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        a = torch.randint(0, 256, (9, 3, 2, 3), generator=generator, dtype=torch.uint8)
        b = torch.rand(9, 3, 2, generator=generator)
        obs = {"a": a, "b": b} if parts else a
        cut = (made := rollout_of(b[:-1], mask)).cut
        ends = {"terminated": cut, "cut": made.truncated}
        rollout = replace(made, obs=obs, next_obs=take(obs, slice(1, None)), **ends)
        assert learner.step(rollout)["count"] == 20 * seed  # before it is shown this rollout's
        rows = a[:-1][mask].double()
        seen.append(torch.cat([rows.flatten(1), b[:-1][mask].double()], -1) if parts else rows)
        rows = torch.cat(seen).numpy()
        np.testing.assert_allclose(normalizer.mean.numpy(), rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(normalizer.var.numpy(), rows.var(0), rtol=1e-11)
    assert float(normalizer.count) == 60
