"""Heads against sums, quadrature, sampling, torch.distributions and autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.models.heads import Categorical, Gaussian, Head
from policygrad.models.policy import Policy, make_head

HEADS: list[Head] = [Categorical(2), Categorical(5), Gaussian(()), Gaussian((1,)), Gaussian((2, 3))]
B = 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def outputs(head: Head, rows: int = B, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, head.size, generator=generator(seed), dtype=torch.float64)


def actions(head: Head, rows: int = B, seed: int = 1) -> Tensor:
    if isinstance(head, Gaussian):
        return torch.randn(rows, *head.shape, generator=generator(seed), dtype=torch.float64)
    return torch.randint(head.size, (rows,), generator=generator(seed))


def reference(head: Head, out: Tensor) -> torch.distributions.Distribution:
    """The same distribution in torch.distributions, from the network's outputs."""
    if isinstance(head, Gaussian):
        mean, log_std = (x.reshape(-1, *head.shape) for x in out.chunk(2, -1))
        return torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), len(head.shape))
    return torch.distributions.Categorical(logits=out)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_logp_entropy_and_kl_are_those_of_torch_distributions(head: Head) -> None:
    old, new, act = outputs(head), outputs(head, seed=5), actions(head)
    a, b = reference(head, old), reference(head, new)
    dist, other = head.canonical(old), head.canonical(new)
    torch.testing.assert_close(head.logp(dist, act), a.log_prob(act), rtol=0, atol=1e-12)
    torch.testing.assert_close(head.entropy(dist), a.entropy(), rtol=0, atol=1e-12)
    torch.testing.assert_close(head.kl(dist, other), torch.distributions.kl_divergence(a, b), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(head.kl(dist, other), head.kl(other, dist))  # so the direction is the right one


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_kl_of_a_distribution_to_itself_is_zero_and_to_any_other_positive(head: Head) -> None:
    dist = head.canonical(outputs(head))
    assert float(head.kl(dist, dist).abs().max()) <= 1e-15
    assert float(head.kl(dist, head.canonical(outputs(head, seed=5))).min()) > 0.0


def test_probabilities_sum_to_one() -> None:
    head = Categorical(5)
    dist = head.canonical(outputs(head, scale=10.0))
    every = torch.stack([head.logp(dist, torch.full((B,), a)) for a in range(5)], -1)
    torch.testing.assert_close(every.exp().sum(-1), torch.ones(B, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(head.canonical(dist), dist, rtol=0, atol=1e-14)


@pytest.mark.parametrize("log_std", [-3.0, 0.0, 2.0])
def test_a_gaussian_integrates_to_one_and_its_entropy_and_kl_are_the_integrals(log_std: float) -> None:
    head = Gaussian(())
    sigma = math.exp(log_std)
    x = torch.linspace(0.3 - 12 * sigma, 0.3 + 12 * sigma, 4001, dtype=torch.float64)
    dx = float(x[1] - x[0])  # the trapezium rule, spectrally accurate here: the ends are e⁻⁷²
    old = torch.tensor([[0.3, log_std]], dtype=torch.float64)
    new = torch.tensor([[0.3 + 0.7 * sigma, log_std + 0.4]], dtype=torch.float64)
    logp, logq = head.logp(old.expand(len(x), 2), x), head.logp(new.expand(len(x), 2), x)
    p = logp.exp()
    assert float(p.sum() * dx) == pytest.approx(1.0, abs=1e-12)
    assert float(-(p * logp).sum() * dx) == pytest.approx(float(head.entropy(old)), abs=1e-12)
    assert float((p * (logp - logq)).sum() * dx) == pytest.approx(float(head.kl(old, new)), abs=1e-12)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_entropy_and_kl_are_the_means_over_samples(head: Head) -> None:
    n = 20_000
    out, other = outputs(head, rows=1), outputs(head, rows=1, seed=5)
    dist, new = head.canonical(out).expand(n, -1), head.canonical(other).expand(n, -1)
    act = torch.from_numpy(draws(head, out, n, seed=2))
    logp = head.logp(dist, act)
    for sample, expected in ((-logp, head.entropy(dist)), (logp - head.logp(new, act), head.kl(dist, new))):
        error = float(sample.std()) / math.sqrt(n)
        assert abs(float(sample.mean() - expected[0])) <= 4 * error


def draws(head: Head, out: Tensor, n: int, seed: int) -> np.ndarray:
    noise = head.noise(np.random.default_rng(seed), (n,))
    return head.sample(np.repeat(out.numpy(), n, 0), noise)


def test_categorical_samples_have_their_probabilities() -> None:
    head, n = Categorical(5), 40_000
    out = outputs(head, rows=1, scale=1.5)
    p = out.softmax(-1)[0].numpy()
    share = np.bincount(draws(head, out, n, seed=3), minlength=5) / n
    assert (np.abs(share - p) <= 4 * np.sqrt(p * (1 - p) / n)).all()


def test_gaussian_samples_have_their_moments() -> None:
    head, n = Gaussian((2, 3)), 40_000
    out = outputs(head, rows=1)
    x = draws(head, out, n, seed=3)
    assert x.shape == (n, 2, 3)
    mean, std = out[0, :6].reshape(2, 3).numpy(), out[0, 6:].exp().reshape(2, 3).numpy()
    assert (np.abs(x.mean(0) - mean) <= 4 * std / math.sqrt(n)).all()
    assert (np.abs(x.var(0) - std**2) <= 4 * std**2 * math.sqrt(2 / n)).all()
    correlation = np.corrcoef(x.reshape(n, 6).T) - np.eye(6)
    assert np.abs(correlation).max() <= 4.5 / math.sqrt(n)  # of 15 pairs


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_noise_comes_for_a_whole_rollout_and_differs_between_rows(head: Head) -> None:
    noise = head.noise(np.random.default_rng(0), (4, 3))
    assert noise.shape[:2] == (4, 3)
    assert noise.dtype == np.float32
    assert len(np.unique(noise)) == noise.size


def test_noise_is_finite_whatever_is_drawn() -> None:
    class Zeros:
        def standard_exponential(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            return np.zeros(shape, dtype)

    assert np.isfinite(Categorical(3).noise(Zeros(), (2,))).all()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_the_mode_is_the_most_likely_action(head: Head) -> None:
    out = outputs(head)
    dist = head.canonical(out)
    mode = torch.from_numpy(head.mode(out.numpy()))
    assert mode.shape == actions(head).shape
    others = [actions(head, seed=s) for s in range(20)]
    assert all((head.logp(dist, mode) >= head.logp(dist, act)).all() for act in others)


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_the_closed_form_gradient_is_autograds(head: Head, with_entropy: bool) -> None:
    out, act = outputs(head), actions(head)
    weight, ent_weight = (torch.randn(B, generator=generator(s), dtype=torch.float64) for s in (3, 4))
    dist = head.canonical(out)
    ours = head.gradient(dist, act, weight, ent_weight if with_entropy else None)
    autograd = Head.gradient(head, dist, act, weight, ent_weight if with_entropy else None)
    torch.testing.assert_close(ours, autograd, rtol=0, atol=1e-12)

    leaf = out.clone().requires_grad_()  # and that of the distribution as torch has it
    gain = (weight * reference(head, leaf).log_prob(act)).sum()
    if with_entropy:
        gain = gain + (ent_weight * reference(head, leaf).entropy()).sum()
    torch.testing.assert_close(ours, torch.autograd.grad(gain, leaf)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_the_expected_score_is_zero(head: Head) -> None:
    """E[∇log π] = 0: exactly for a finite number of actions, at the mean of a Gaussian's z = ±1 for its first moment."""
    out = outputs(head, rows=1)
    dist = head.canonical(out)
    if isinstance(head, Gaussian):
        mean, std = dist[:, : head.dims], dist[:, head.dims :].exp()
        act = torch.cat([mean - std, mean + std]).reshape(2, *head.shape)
        weight = torch.full((2,), 0.5, dtype=torch.float64)
    else:
        act, weight = torch.arange(head.size), dist[0].exp()
    score = head.gradient(dist.expand(len(act), -1), act, weight).sum(0)
    assert float(score.abs().max()) <= 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(dtype: torch.dtype) -> None:
    head = Categorical(3)
    out = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4]], dtype=dtype)
    dist, new = head.canonical(out), head.canonical(out.roll(1, 0))
    weight = torch.ones(3, dtype=dtype)
    for act in torch.arange(3)[:, None].expand(3, 3):
        for value in (
            head.logp(dist, act),
            head.entropy(dist),
            head.kl(dist, new),
            head.gradient(dist, act, weight, weight),
            Head.gradient(head, dist, act, weight, weight),
        ):
            assert torch.isfinite(value).all()
    assert head.sample(out.numpy(), head.noise(np.random.default_rng(0), (3,)))[:2].tolist() == [0, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_std", [-20.0, 2.0])
def test_extreme_log_stds_stay_finite(dtype: torch.dtype, log_std: float) -> None:
    head = Gaussian((2,))
    dist = torch.tensor([[0.0, 1e4, log_std, log_std]], dtype=dtype)
    new = torch.tensor([[1.0, -1e4, -18.0 - log_std, 2.0]], dtype=dtype)
    act, weight = torch.tensor([[1.0, -1e4]], dtype=dtype), torch.ones(1, dtype=dtype)
    for value in (head.logp(dist, act), head.entropy(dist), head.kl(dist, new), head.kl(new, dist)):
        assert torch.isfinite(value).all()
    assert torch.isfinite(head.gradient(dist, act, weight, weight)).all()
    assert np.isfinite(head.sample(dist.numpy(), head.noise(np.random.default_rng(0), (1,)))).all()


class Bernoulli(Head):
    """A head of somebody's own, with log-probabilities and entropy alone."""

    size = 1

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        return -nn.functional.binary_cross_entropy_with_logits(dist.squeeze(-1), act, reduction="none")

    def entropy(self, dist: Tensor) -> Tensor:
        return torch.distributions.Bernoulli(logits=dist.squeeze(-1)).entropy()


def test_a_head_of_ones_own_gets_its_gradient_for_free() -> None:
    policy = Policy(nn.Linear(3, 1), Bernoulli()).double()
    obs = torch.randn(B, 3, generator=generator(), dtype=torch.float64)
    act = torch.randint(2, (B,), generator=generator()).double()
    weight, ent_weight = (torch.randn(B, generator=generator(s), dtype=torch.float64) for s in (3, 4))
    ours = policy.evaluate(obs, act).gradient(weight, ent_weight)
    gain = (weight * policy.logp(obs, act) + ent_weight * policy.head.entropy(policy(obs))).sum()
    torch.testing.assert_close(ours, policy.gradient(gain), rtol=0, atol=1e-12)


def test_spaces_have_their_heads() -> None:
    assert repr(make_head(spaces.Discrete(4, start=2))) == "Categorical(4)"
    assert repr(make_head(spaces.Box(-1.0, 1.0, (2, 3)))) == "Gaussian((2, 3))"
