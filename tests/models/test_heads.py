"""Heads against sums, quadrature, sampling, torch.distributions and autograd."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import special, stats
from torch import Tensor, nn
from torch.distributions import AffineTransform, Independent, Normal, TanhTransform, TransformedDistribution

from policygrad.data import Batch
from policygrad.models.action_spaces import make_head
from policygrad.models.continuous import LOG_STD_MAX, LOG_STD_MIN, Beta, Gaussian, SquashedGaussian
from policygrad.models.heads import Categorical, Head, MultiCategorical
from policygrad.models.observations import Encoding
from policygrad.models.policy import Policy, make_policy

LOW, HIGH = np.array([-1.0, 2.0]), np.array([3.0, 2.5])
HEADS: list[Head] = [
    Categorical(2),
    Categorical(5),
    Categorical(5, masked=True),
    MultiCategorical((3,)),
    MultiCategorical((2, 3, 4, 2), (2, 2)),
    MultiCategorical((2, 2, 2)),  # MultiBinary(3)
    MultiCategorical((3, 2), masked=True),
    Gaussian(()),
    Gaussian((1,)),
    Gaussian((2, 3)),
    Gaussian((2,), noise_autocorrelation=0.8),
    SquashedGaussian((), LOW[0], HIGH[0]),
    SquashedGaussian((2,), LOW, HIGH),
    SquashedGaussian((2,), LOW, HIGH, noise_autocorrelation=0.8),
    Beta((), LOW[0], HIGH[0]),
    Beta((2, 1), LOW[:, None], HIGH[:, None]),
]
DISCRETE = [head for head in HEADS if isinstance(head, Categorical | MultiCategorical)]
CONTINUOUS = [head for head in HEADS if head not in DISCRETE]
CONDITIONED = [head for head in HEADS if head.context]
BOUNDED = [head for head in HEADS if isinstance(head, SquashedGaussian | Beta)]
MASKS = {2: (1, 1), 5: (1, 0, 1, 1, 0), 3: (0, 1, 1)}  # of as many choices
B = 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def context(head: Head, rows: int = B) -> Tensor:
    """The same for every row: what KL and the means over samples compare has one support."""
    if isinstance(head, Gaussian):
        return randn(1, head.context, seed=9).expand(rows, -1)
    return torch.tensor([c for n in sizes(head) for c in MASKS[n]], dtype=torch.float64).expand(rows, -1)


def sizes(head: Head) -> tuple[int, ...]:
    return head.sizes if isinstance(head, MultiCategorical) else (head.size,)


def outputs(head: Head, rows: int = B, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Of the network, given the context where there is one."""
    out = scale * randn(rows, head.size, seed=seed)
    return head.apply_context(out, context(head, rows)) if head.context else out


def actions(head: Head, rows: int = B, seed: int = 1) -> Tensor:
    """As they are stored; legal ones where there are others."""
    if isinstance(head, Beta):
        return torch.sigmoid(randn(rows, *head.shape, seed=seed))
    if isinstance(head, Gaussian):
        return randn(rows, *head.shape, seed=seed)
    uniform = (
        head.apply_context(torch.zeros(rows, head.size), context(head, rows)) if head.context else torch.zeros(rows, 1)
    )
    noise = head.noise(np.random.default_rng(seed), (rows,))
    return torch.from_numpy(head.sample(uniform.numpy().astype(np.float64) + np.zeros((rows, head.size)), noise))


def every_action(head: Head) -> Tensor:
    """All actions of a discrete head, one a row."""
    if isinstance(head, Categorical):
        return torch.arange(head.size)
    assert isinstance(head, MultiCategorical)
    return torch.tensor(list(itertools.product(*map(range, head.sizes)))).reshape(-1, *head.shape)


class Joint:
    """Independent distributions, one an entry of the action: what MultiCategorical is, as torch has it."""

    def __init__(self, parts: list[torch.distributions.Categorical]) -> None:
        self.parts = parts

    def log_prob(self, act: Tensor) -> Tensor:
        entries = act.reshape(len(act), -1).unbind(-1)
        return sum((p.log_prob(a) for p, a in zip(self.parts, entries, strict=True)), torch.zeros(()))

    def entropy(self) -> Tensor:
        return sum((p.entropy() for p in self.parts), torch.zeros(()))


class OnBounds:
    """A distribution that is moved to the bounds, as torch has it: what is stored goes to the environment's scale first."""

    def __init__(self, head: SquashedGaussian | Beta, base: torch.distributions.Distribution) -> None:
        low, scale = torch.as_tensor(head.low), torch.as_tensor(head.scale)
        affine = AffineTransform(low, scale)
        self.head, self.base, self.log_scale = head, base, float(scale.log().sum())
        if isinstance(head, SquashedGaussian):
            affine = [TanhTransform(), AffineTransform(low + 0.5 * scale, 0.5 * scale)]
        self.moved = Independent(TransformedDistribution(base, affine), len(head.shape))

    def log_prob(self, act: Tensor) -> Tensor:
        return self.moved.log_prob(torch.as_tensor(self.head.to_env(act.numpy())))

    def entropy(self) -> Tensor:
        assert isinstance(self.head, Beta)
        return Independent(self.base, len(self.head.shape)).entropy() + self.log_scale


def reference(head: Head, out: Tensor):
    """The same distribution in torch.distributions, from the network's outputs."""
    if isinstance(head, MultiCategorical):
        return Joint([torch.distributions.Categorical(logits=x) for x in out.split(head.sizes, -1)])
    if isinstance(head, Categorical):
        return torch.distributions.Categorical(logits=out)
    assert isinstance(head, Gaussian | Beta)
    one, two = (x.reshape(-1, *head.shape) for x in out.chunk(2, -1))
    if isinstance(head, Beta):
        return OnBounds(head, torch.distributions.Beta(1 + one.exp().log1p(), 1 + two.exp().log1p()))
    normal = Normal(one, two.exp())
    return OnBounds(head, normal) if isinstance(head, SquashedGaussian) else Independent(normal, len(head.shape))


def reference_kl(head: Head, old: Tensor, new: Tensor) -> Tensor:
    """KL does not change when both distributions are moved by the same one-to-one map."""
    p, q = reference(head, old), reference(head, new)
    if isinstance(p, Joint):
        pairs = zip(p.parts, q.parts, strict=True)
        return sum((torch.distributions.kl_divergence(a, b) for a, b in pairs), torch.zeros(()))
    if isinstance(p, OnBounds):
        dims = len(p.head.shape)
        return torch.distributions.kl_divergence(Independent(p.base, dims), Independent(q.base, dims))
    return torch.distributions.kl_divergence(p, q)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_logp_entropy_and_kl_are_those_of_torch_distributions(head: Head) -> None:
    old, new, act = outputs(head), outputs(head, seed=5), actions(head)
    dist, other = head.canonical(old), head.canonical(new)
    torch.testing.assert_close(head.logp(dist, act), reference(head, old).log_prob(act), rtol=0, atol=1e-11)
    if not isinstance(head, SquashedGaussian):  # torch has none
        torch.testing.assert_close(head.entropy(dist), reference(head, old).entropy(), rtol=0, atol=1e-12)
    torch.testing.assert_close(head.kl(dist, other), reference_kl(head, old, new), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(head.kl(dist, other), head.kl(other, dist))  # so the direction is the right one


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_kl_of_a_distribution_to_itself_is_zero_and_to_any_other_positive(head: Head) -> None:
    dist = head.canonical(outputs(head))
    assert float(head.kl(dist, dist).abs().max()) <= 1e-15
    assert float(head.kl(dist, head.canonical(outputs(head, seed=5))).min()) > 0.0


@pytest.mark.parametrize("head", DISCRETE, ids=repr)
def test_probabilities_sum_to_one(head: Head) -> None:
    dist = head.canonical(outputs(head, scale=5.0))
    logp = torch.stack([head.logp(dist, act.expand(B, *act.shape)) for act in every_action(head)], -1)
    p = logp.exp()
    torch.testing.assert_close(p.sum(-1), torch.ones(B, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(head.canonical(dist), dist, rtol=0, atol=1e-14)
    torch.testing.assert_close(head.entropy(dist), -(p * logp).sum(-1), rtol=0, atol=1e-13)
    new = head.canonical(outputs(head, seed=5))
    logq = torch.stack([head.logp(new, act.expand(B, *act.shape)) for act in every_action(head)], -1)
    torch.testing.assert_close(head.kl(dist, new), (p * (logp - logq)).sum(-1), rtol=0, atol=1e-12)


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


def stored(head: SquashedGaussian | Beta, env_action: np.ndarray) -> np.ndarray:
    """The inverse of `to_env`."""
    x = (env_action - head.low) / head.scale
    return x if isinstance(head, Beta) else np.arctanh(2.0 * x - 1.0)


def double_exponential(nodes: int = 401) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on (0, 1), exact to rounding whatever the density does at the ends: x = σ(π sinh t), trapezium in t."""
    t = np.linspace(-2.9, 2.9, nodes)
    x = 1.0 / (1.0 + np.exp(-np.pi * np.sinh(t)))
    return x, x * (1.0 - x) * np.pi * np.cosh(t) * 5.8 / (nodes - 1)


# the density is a function of the environment's action, so over that it must integrate to one
@pytest.mark.parametrize("out", [(0.0, -1.0), (0.6, -0.4), (-0.5, 0.3), (2.0, 2.5)], ids=str)
@pytest.mark.parametrize("kind", [SquashedGaussian, Beta])
def test_a_bounded_density_integrates_to_one_between_the_bounds_and_so_do_entropy_and_kl(kind, out) -> None:
    head = kind((), LOW[0], HIGH[0])
    x, weight = double_exponential()
    a = LOW[0] + (HIGH[0] - LOW[0]) * x
    if kind is SquashedGaussian:
        out = (
            0.3 * out[0],
            out[1] if out[1] < 2 else -2.0,
        )  # wider, and the mass is nearer to the bounds than any node
    act, weight = torch.from_numpy(stored(head, a)), torch.from_numpy((HIGH[0] - LOW[0]) * weight)
    np.testing.assert_allclose(head.to_env(act.numpy()), a, rtol=0, atol=1e-14)
    old = torch.tensor([out], dtype=torch.float64)
    new = old + torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    p, q = (head.canonical(x).expand(len(act), 2) for x in (old, new))
    logp, logq = head.logp(p, act), head.logp(q, act)
    mass = logp.exp() * weight
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-9)
    assert float(-(mass * logp).sum()) == pytest.approx(float(head.entropy(p[:1])), abs=1e-8)
    assert float((mass * (logp - logq)).sum()) == pytest.approx(float(head.kl(p[:1], q[:1])), abs=1e-8)
    half = LOW[0] + (0.5 - LOW[0]) * x  # and from the lower bound to 0.5 what the distribution function says
    act = torch.from_numpy(stored(head, half))
    mass = head.logp(p, act).exp() * weight * (0.5 - LOW[0]) / (HIGH[0] - LOW[0])
    expected = cdf(head, old, stored(head, np.array([[0.5]])))[0, 0]
    assert float(mass.sum()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", [SquashedGaussian, Beta])
def test_a_bounded_density_in_two_dimensions_integrates_to_one(kind) -> None:
    head = kind((2,), LOW, HIGH)
    node, weight = np.polynomial.legendre.leggauss(120)
    grid = np.stack(np.meshgrid(node, node), -1).reshape(-1, 2)
    act = torch.from_numpy(stored(head, LOW + (HIGH - LOW) * 0.5 * (grid + 1.0)))
    area = np.outer(weight, weight).reshape(-1) * ((HIGH - LOW) / 2).prod()
    dist = head.canonical(torch.tensor([[0.3, -0.2, -0.7, -0.4]], dtype=torch.float64)).expand(len(act), 4)
    assert float(head.logp(dist, act).exp() @ torch.from_numpy(area)) == pytest.approx(1.0, abs=1e-5)


def fine_entropy(mu: float, sigma: float) -> float:
    """Of tanh of a normal: E[log(1 − tanh² u)] with 400 times as many nodes as the head has, from ±12 σ."""
    z = np.linspace(-12.0, 12.0, 96_001)
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi) * 24.0 / 96_000
    u = np.abs(mu + sigma * z)
    jacobian = 2.0 * (math.log(2.0) - u - np.log1p(np.exp(-2.0 * u)))
    return 0.5 * math.log(2.0 * math.pi * math.e) + math.log(sigma) + float(density @ jacobian)


@pytest.mark.parametrize(("sigmas", "accuracy"), [((1e-4, 0.1, 1.0, 3.0), 1e-11), ((5.0,), 1e-9), ((10.0,), 1e-5)])
def test_the_entropy_of_a_squashed_gaussian_is_as_accurate_as_stated(
    sigmas: tuple[float, ...], accuracy: float
) -> None:
    """To rounding for σ ≤ 3: the uniform distribution has about σ = 0.9. Beyond, −2|u| has its kink between two nodes."""
    head = SquashedGaussian((), np.array(-1.0), np.array(1.0))
    for sigma, mu in itertools.product(sigmas, (0.0, 0.03, 0.5, 1.0, 3.0, -8.0)):
        dist = torch.tensor([[mu, math.log(sigma)]], dtype=torch.float64)
        assert abs(float(head.entropy(dist)) - fine_entropy(mu, sigma)) <= accuracy, (mu, sigma)
    wide = torch.tensor([[0.3, math.log(1e4)]], dtype=torch.float64)
    assert float(head.entropy(wide)) == pytest.approx(fine_entropy(0.3, 1e4), rel=1e-3)


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


@pytest.mark.parametrize("head", DISCRETE, ids=repr)
def test_discrete_samples_have_their_probabilities(head: Head) -> None:
    n = 40_000
    out = outputs(head, rows=1, scale=1.5)
    every = every_action(head)
    p = head.logp(head.canonical(out).expand(len(every), -1), every).exp().numpy()
    x = draws(head, out, n, seed=3)
    assert x.shape == (n, *every.shape[1:])
    count = np.array([(x == act).reshape(n, -1).all(-1).sum() for act in every.numpy()])
    assert count.sum() == n
    assert (np.abs(count / n - p) <= 4 * np.sqrt(p * (1 - p) / n)).all()
    if head.context:
        assert (p == 0.0).any()
        assert (count[p == 0.0] == 0).all()


def cdf(head: Head, out: Tensor, act: np.ndarray) -> np.ndarray:
    """The distribution function of every entry of the actions, (n, D), from the network's outputs (1, P)."""
    one, two = out.chunk(2, -1)
    x = act.reshape(len(act), -1)
    if isinstance(head, Beta):
        return stats.beta.cdf(x, 1 + np.logaddexp(one.numpy(), 0), 1 + np.logaddexp(two.numpy(), 0))
    return stats.norm.cdf(x, one.numpy(), two.exp().numpy())


@pytest.mark.parametrize("head", CONTINUOUS, ids=repr)
def test_continuous_samples_have_their_density_entry_by_entry_and_independently(head: Head) -> None:
    n, out = 40_000, outputs(head, rows=1)
    assert isinstance(head, Gaussian | Beta)
    x = draws(head, out, n, seed=3)
    assert x.shape == (n, *head.shape)
    uniform = cdf(head, out, x)  # so it is if the density is right
    for column in uniform.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4  # of 2n numbers in all: 4 standard errors
    correlation = np.corrcoef(uniform.T) - np.eye(head.dims)
    assert np.abs(correlation).max() <= 4.5 / math.sqrt(n)  # of 15 pairs


def test_gaussian_samples_have_their_moments() -> None:
    head, n = Gaussian((2, 3)), 40_000
    out = outputs(head, rows=1)
    x = draws(head, out, n, seed=3)
    mean, std = out[0, :6].reshape(2, 3).numpy(), out[0, 6:].exp().reshape(2, 3).numpy()
    assert (np.abs(x.mean(0) - mean) <= 4 * std / math.sqrt(n)).all()
    assert (np.abs(x.var(0) - std**2) <= 4 * std**2 * math.sqrt(2 / n)).all()


@pytest.mark.parametrize("head", [h for h in BOUNDED if not h.context], ids=repr)
def test_bounded_actions_are_between_their_bounds_and_reach_all_of_the_room(head: Head) -> None:
    assert isinstance(head, SquashedGaussian | Beta)
    x = head.to_env(draws(head, torch.zeros(1, head.size), 20_000, seed=0))
    low, high = head.low, head.low + head.scale
    assert ((low < x) & (x < high)).all()
    assert (x.min(0) < low + 0.02 * head.scale).all()
    assert (x.max(0) > high - 0.02 * head.scale).all()


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_noise_comes_for_a_whole_rollout_and_differs_between_rows(head: Head) -> None:
    noise = head.noise(np.random.default_rng(0), (4, 3))
    assert noise.shape[:2] == (4, 3)
    assert len(np.unique(noise)) == noise.size
    assert noise.dtype == (np.float64 if isinstance(head, Beta) else np.float32)


def test_noise_is_finite_whatever_is_drawn() -> None:
    class Zeros:
        def standard_exponential(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            return np.zeros(shape, dtype)

    for head in (Categorical(3), MultiCategorical((2, 2))):
        assert np.isfinite(head.noise(Zeros(), (2,))).all()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("head", [h for h in HEADS if not isinstance(h, SquashedGaussian)], ids=repr)
def test_the_mode_is_the_most_likely_action(head: Head) -> None:
    out = outputs(head)
    dist = head.canonical(out)
    mode = torch.from_numpy(head.mode(out.numpy()))
    assert mode.shape == actions(head).shape
    others = [actions(head, seed=s) for s in range(20)]
    assert all((head.logp(dist, mode) >= head.logp(dist, act)).all() for act in others)


@pytest.mark.parametrize("head", [h for h in HEADS if isinstance(h, SquashedGaussian)], ids=repr)
def test_the_mode_of_a_squashed_gaussian_is_the_median(head: SquashedGaussian) -> None:
    """The density may have two peaks, at the bounds; half of the mass is on either side of tanh μ always."""
    n, out = 40_000, outputs(head, rows=1)
    below = draws(head, out, n, seed=3) < head.mode(out.numpy())
    assert (np.abs(below.mean(0) - 0.5) <= 4 * 0.5 / math.sqrt(n)).all()


def test_a_flat_beta_has_its_middle_as_the_mode() -> None:
    head = Beta((1,), np.array([-1.0]), np.array([3.0]))
    assert head.to_env(head.mode(np.full((1, 2), -1e4))).tolist() == [[1.0]]


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_the_closed_form_gradient_is_autograds(head: Head, with_entropy: bool) -> None:
    out, act = outputs(head), actions(head)
    weight, ent_weight = (randn(B, seed=s) for s in (3, 4))
    dist = head.canonical(out)
    ours = head.gradient(dist, act, weight, ent_weight if with_entropy else None)
    autograd = Head.gradient(head, dist, act, weight, ent_weight if with_entropy else None)
    torch.testing.assert_close(ours, autograd, rtol=0, atol=1e-12)

    leaf = out.clone().requires_grad_()  # and that of the distribution as torch has it
    gain = (weight * reference(head, leaf).log_prob(act)).sum()
    if with_entropy:
        if isinstance(head, SquashedGaussian):
            return
        gain = gain + (ent_weight * reference(head, leaf).entropy()).sum()
    torch.testing.assert_close(ours, torch.autograd.grad(gain, leaf)[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_the_closed_form_gradient_of_kl_is_autograds_and_zero_at_home(head: Head) -> None:
    old, out, weight = head.canonical(outputs(head)), outputs(head, seed=5), randn(B, seed=3)
    ours = head.kl_gradient(old, head.canonical(out), weight)
    torch.testing.assert_close(ours, Head.kl_gradient(head, old, head.canonical(out), weight), rtol=0, atol=1e-12)
    assert float(head.kl_gradient(old, old, weight).abs().max()) <= 1e-14
    leaf = out.clone().requires_grad_()  # and that of the distribution as torch has it
    reference_gradient = torch.autograd.grad((weight * reference_kl(head, outputs(head), leaf)).sum(), leaf)[0]
    torch.testing.assert_close(ours, reference_gradient, rtol=1e-11, atol=1e-11)
    assert float(ours.abs().max()) > 1e-2


def expectation_over_actions(head: Head, dist: Tensor, of) -> Tensor:
    """E_{a∼dist} of a function of (dist, actions), for one distribution (1, P): a sum, or a quadrature."""
    assert len(dist) == 1
    if isinstance(head, Beta):
        x, length = (torch.from_numpy(x) for x in double_exponential(81))
        act = torch.cartesian_prod(*[x] * head.dims).reshape(-1, *head.shape)
        weight = torch.cartesian_prod(*[length] * head.dims).reshape(len(act), -1).prod(-1) * float(head.scale.prod())
        weight = weight * head.logp(dist.expand(len(act), -1), act).exp()
    elif isinstance(head, Gaussian):  # exact for polynomials of degree 7 in every entry
        node, w = np.polynomial.hermite.hermgauss(4)
        z = torch.tensor(list(itertools.product(math.sqrt(2.0) * node, repeat=head.dims)))
        weight = torch.tensor(list(itertools.product(w / math.sqrt(math.pi), repeat=head.dims))).prod(-1)
        mean, std = dist[:, : head.dims], dist[:, head.dims :].exp()
        act = (mean + std * z).reshape(-1, *head.shape)
    else:
        act = every_action(head)
        weight = head.logp(dist.expand(len(act), -1), act).exp()
    return torch.einsum("n,n...->...", weight, of(dist.expand(len(act), -1), act))


SMALL_HEADS = [head for head in HEADS if getattr(head, "dims", 1) <= 2]


@pytest.mark.parametrize("head", SMALL_HEADS, ids=repr)
def test_the_fisher_matrix_is_the_mean_square_of_the_score_and_autograds_hessian_of_kl(head: Head) -> None:
    dist, tangent = head.canonical(outputs(head)), randn(B, head.size, seed=6)
    ours = head.fisher(dist, tangent)
    torch.testing.assert_close(ours, Head.fisher(head, dist, tangent), rtol=1e-12, atol=1e-12)
    for row in range(B):

        def squared(p: Tensor, act: Tensor, u: Tensor = tangent[row]) -> Tensor:
            score = head.gradient(p, act, torch.ones(len(act), dtype=torch.float64))
            return score * (score @ u)[:, None]

        expected = expectation_over_actions(head, dist[row : row + 1], squared)
        # a Beta's nodes end at 2⁻²⁴, and so does its log x
        torch.testing.assert_close(ours[row], expected, rtol=0, atol=1e-7 if isinstance(head, Beta) else 1e-11)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_the_fisher_matrix_is_symmetric_and_never_negative(head: Head) -> None:
    """For 200 pairs of directions, a pair a row."""
    dist, (u, v) = head.canonical(outputs(head, rows=200)), randn(2, 200, head.size, seed=6)
    left, right = (u * head.fisher(dist, v)).sum(-1), (v * head.fisher(dist, u)).sum(-1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    assert float((u * head.fisher(dist, u)).sum(-1).min()) >= -1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("head", [Categorical(3), MultiCategorical((3, 3))], ids=repr)
def test_the_fisher_matrix_of_a_nearly_certain_choice_keeps_its_digits(head: Head, dtype: torch.dtype) -> None:
    """Its entries are p(1 − p), as small as 1 − p is, however large the directions; and it is positive, not nearly so."""
    for certain in (3.0, 10.0, 20.0, 40.0):
        out = torch.tensor([[certain, 0.0, 0.5] * (head.size // 3)], dtype=dtype)
        tangent = torch.tensor([[700.0, -300.0, 100.0] * (head.size // 3)], dtype=dtype)
        p = torch.softmax(out.double().view(-1, 3), -1)
        u = tangent.double().view(-1, 3)
        pairs = [(i, j) for i in range(3) for j in range(i)]  # uᵀMu = Σ_{i<j} p_i p_j (u_i − u_j)²
        exact = float(sum(p[:, i] * p[:, j] * (u[:, i] - u[:, j]) ** 2 for i, j in pairs).sum())
        found = float((tangent * head.fisher(head.canonical(out), tangent)).double().sum())
        assert found == pytest.approx(exact, rel=1e3 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("head", [h for h in HEADS if isinstance(h, Beta)], ids=repr)
def test_a_betas_fisher_matrix_is_made_of_trigammas(head: Beta) -> None:
    """In (α, β) it is [[ψ'(α) − ψ'(α+β), −ψ'(α+β)], [−ψ'(α+β), ψ'(β) − ψ'(α+β)]]; the outputs are a softplus away."""
    out, tangent = outputs(head), randn(B, head.size, seed=6)
    (a, b), (da, db) = (1.0 + out.exp().log1p()).split(head.dims, -1), torch.sigmoid(out).split(head.dims, -1)
    ta, tb, both = (torch.from_numpy(special.polygamma(1, x.numpy())) for x in (a, b, a + b))
    u, v = tangent.split(head.dims, -1)
    expected = torch.cat(
        [da * ((ta - both) * da * u - both * db * v), db * ((tb - both) * db * v - both * da * u)], dim=-1
    )
    # torch's trigamma has nine digits, scipy's all
    torch.testing.assert_close(head.fisher(head.canonical(out), tangent), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("head", SMALL_HEADS, ids=repr)
def test_the_gradient_of_kl_is_minus_the_old_policys_mean_of_the_new_ones_score(head: Head) -> None:
    """KL(old ‖ π) = const − E_old[log π]: the constant drops out, so the actions taken would do, had one all of them."""
    old, new = head.canonical(outputs(head, rows=1)), head.canonical(outputs(head, rows=1, seed=5))
    one = torch.ones(1, dtype=torch.float64)

    def score(p: Tensor, act: Tensor) -> Tensor:
        return head.gradient(new.expand(len(act), -1), act, torch.ones(len(act), dtype=torch.float64))

    exact = head.kl_gradient(old, new, one)[0]
    atol = 1e-7 if isinstance(head, Beta) else 1e-11
    torch.testing.assert_close(-expectation_over_actions(head, old, score), exact, rtol=0, atol=atol)
    backwards = head.kl_gradient(new, old, one)[0]  # the other direction is another gradient
    assert float((exact - backwards).abs().max()) > 1e-2


class Scaled(Categorical):
    """A head of a user's own: logits multiplied by the context. It says how gradients flow back, and no more."""

    def apply_context(self, out: Any, context: Any) -> Any:
        return out * context

    def context_vjp(self, grad: Tensor, dist: Tensor, context: Tensor) -> Tensor:
        return grad * context


def test_a_head_of_ones_own_needs_only_chain_for_its_fisher_products() -> None:
    head = Scaled(3, masked=True)
    tangent, context = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(head.context_jvp(tangent, tangent, context), tangent * context, rtol=0, atol=1e-15)


@pytest.mark.parametrize("head", CONDITIONED, ids=repr)
def test_along_is_how_the_conditioned_outputs_move_and_the_transpose_of_chain(head: Head) -> None:
    out, tangent, grad = (randn(B, head.size, seed=s) for s in (0, 6, 7))
    given = randn(B, head.context, seed=8) if isinstance(head, Gaussian) else context(head)
    conditioned, moved = torch.autograd.functional.jvp(lambda x: head.apply_context(x, given), out, tangent)
    dist = head.canonical(conditioned)
    along = head.context_jvp(tangent, dist, given)
    torch.testing.assert_close(along, moved, rtol=0, atol=1e-12)
    chained = head.context_vjp(grad, dist, given)
    torch.testing.assert_close((grad * along).sum(-1), (chained * tangent).sum(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_autograd_agrees_with_differences(head: Head) -> None:
    """torch.autograd.gradcheck of log-probability, entropy and KL, from the network's outputs through the context."""
    out, act = randn(3, head.size).requires_grad_(), actions(head, 3)
    other = head.canonical(outputs(head, 3, seed=5))

    def dist(x: Tensor) -> Tensor:
        return head.canonical(head.apply_context(x, context(head, 3)) if head.context else x)

    assert torch.autograd.gradcheck(lambda x: head.logp(dist(x), act), out)
    assert torch.autograd.gradcheck(lambda x: head.entropy(dist(x)), out)
    assert torch.autograd.gradcheck(lambda x: head.kl(other, dist(x)), out)
    assert torch.autograd.gradcheck(lambda x: head.kl(dist(x), other), out)


@pytest.mark.parametrize("head", CONDITIONED, ids=repr)
def test_the_gradient_goes_back_through_the_context(head: Head) -> None:
    """`context_vjp` after `gradient` is autograd from the network's outputs, with a context of its own in every row."""
    out, act = randn(B, head.size).requires_grad_(), actions(head)
    given = randn(B, head.context, seed=8) if isinstance(head, Gaussian) else context(head)
    weight, ent_weight = (randn(B, seed=s) for s in (3, 4))
    dist = head.canonical(head.apply_context(out, given))
    gain = (weight * head.logp(dist, act) + ent_weight * head.entropy(dist)).sum()
    dist = dist.detach()
    ours = head.context_vjp(head.gradient(dist, act, weight, ent_weight), dist, given)
    torch.testing.assert_close(ours, torch.autograd.grad(gain, out)[0], rtol=0, atol=1e-11)
    acting = head.apply_context(out.detach().numpy(), given.numpy())  # sees the same
    np.testing.assert_allclose(acting, head.apply_context(out.detach(), given).numpy(), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("head", [h for h in HEADS if getattr(h, "dims", 1) == 1], ids=repr)
def test_the_expected_score_is_zero(head: Head) -> None:
    """E[∇log π] = 0: a sum over the actions, or a Gauss quadrature that is exact for a normal's score."""
    out = outputs(head, rows=1)
    dist = head.canonical(out)
    if isinstance(head, Gaussian):
        mean, std = dist[0, 0], dist[0, 1].exp()
        act, weight = torch.stack([mean - std, mean + std]).reshape(2, *head.shape), torch.full((2,), 0.5).double()
    elif isinstance(head, Beta):
        act, length = (torch.from_numpy(x) for x in double_exponential())
        weight = head.logp(dist.expand(len(act), -1), act).exp() * float(head.scale) * length
    else:
        act = every_action(head)
        weight = head.logp(dist.expand(len(act), -1), act).exp()
    score = head.gradient(dist.expand(len(act), -1), act, weight).sum(0)
    assert float(score.abs().max()) <= (1e-9 if isinstance(head, Beta) else 1e-14)  # a Beta's nodes end at 2⁻²⁴


def extremes(head: Head) -> list[list[float]]:
    """Outputs as no training should have them."""
    n = head.size
    if isinstance(head, Gaussian):
        d = head.dims
        return [[m] * d + [s] * d for m in (0.0, 1e4, -1e4) for s in (-100.0, -20.0, 0.0, 10.0, 100.0)]
    if isinstance(head, Beta):
        return [[a] * head.dims + [b] * head.dims for a in (-1e4, 0.0, 1e4, 1e8) for b in (-1e4, 0.0, 1e4, 1e8)]
    return [[1e4 if i == j else -1e4 for i in range(n)] for j in range(n)] + [[1e4] * n, [-1e4] * n, [0.0] * n]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_extremes_stay_finite(head: Head, dtype: torch.dtype) -> None:
    out = torch.tensor(extremes(head), dtype=dtype)
    rows, weight = len(out), torch.ones(len(out), dtype=dtype)
    given = torch.zeros(rows, 0, dtype=dtype)
    if head.context:
        given = context(head, rows).to(dtype) * (3.0 if isinstance(head, Gaussian) else 1.0)
        out = head.apply_context(out, given)
    dist = head.canonical(out)
    act = torch.from_numpy(head.sample(out.numpy(), head.noise(np.random.default_rng(0), (rows,))))
    mode = torch.from_numpy(head.mode(out.numpy()))
    values = [head.logp(dist, mode), head.entropy(dist), *(head.kl(dist, dist.roll(k, 0)) for k in range(rows))]
    for a in (act, mode):
        assert np.isfinite(head.to_env(a.numpy())).all()
        grad = head.gradient(dist, a, weight, weight)
        values += [head.logp(dist, a), grad, Head.gradient(head, dist, a, weight, weight)]
        values += [head.context_vjp(grad, dist, given), head.context_jvp(grad, dist, given)] if head.context else []
    values += [head.kl_gradient(dist, dist.roll(k, 0), weight) for k in range(rows)]
    values += [head.fisher(dist, torch.ones_like(dist))]
    for value in values:
        assert value.dtype == dtype
        assert torch.isfinite(value).all()
    assert all((head.kl(dist, dist.roll(k, 0)) >= -1e-3).all() for k in range(rows))


def test_a_beta_is_finite_on_the_bounds_too() -> None:
    """Padded rows hold 0, and actions of somebody else's may be the bounds themselves."""
    head = Beta((), LOW[0], HIGH[0])
    dist, weight = torch.tensor([[0.0, 0.0], [-1e4, 1e4]]).repeat(2, 1), torch.ones(4)
    act = torch.tensor([0.0, 0.0, 1.0, 1.0])
    for value in (head.logp(dist, act), head.gradient(dist, act, weight, weight)):
        assert torch.isfinite(value).all()
    assert float(head.logp(dist, act).min()) < -10.0


def test_samples_of_certain_choices_are_these() -> None:
    for head, expected in ((Categorical(3), [0, 1, 2]), (MultiCategorical((3, 1)), [[0, 0], [1, 0], [2, 0]])):
        out = np.array(extremes(head)[:3], np.float32)
        assert head.sample(out, head.noise(np.random.default_rng(0), (3,))).tolist() == expected


def test_a_log_std_beyond_its_limits_is_at_them_and_finds_back() -> None:
    head, act, weight = Gaussian((1,)), torch.zeros(2, 1), torch.ones(2)
    dist = head.canonical(torch.tensor([[0.0, -100.0], [0.0, 100.0]]))
    assert dist[:, 1].tolist() == [LOG_STD_MIN, LOG_STD_MAX]
    grad = head.gradient(dist, torch.tensor([[1.0], [0.0]]), weight)
    assert grad[0, 1] > 0.0 > grad[1, 1]
    out = np.array([[0.0, 100.0]], np.float32)
    assert head.sample(out, np.ones((1, 1), np.float32))[0, 0] == pytest.approx(math.exp(LOG_STD_MAX))
    assert torch.isfinite(head.logp(dist, act)).all()


@pytest.mark.parametrize("head", [h for h in DISCRETE if h.context], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_illegal_choices_have_probability_and_gradient_zero_exactly(head: Head, dtype: torch.dtype) -> None:
    mask = context(head).to(dtype)
    out = 100.0 * randn(B, head.size).to(dtype)
    dist = head.canonical(head.apply_context(out, mask))
    assert (dist.exp()[mask == 0] == 0.0).all()
    assert torch.isfinite(dist).all()
    act, weight = actions(head), randn(B, seed=3).to(dtype)
    for grad in (head.gradient(dist, act, weight, weight), Head.gradient(head, dist, act, weight, weight)):
        assert (head.context_vjp(grad, dist, mask)[mask == 0] == 0.0).all()
        assert torch.isfinite(grad).all()


def test_what_is_left_is_the_distribution_over_the_legal_choices_renormalised() -> None:
    whole, small = Categorical(5, masked=True), Categorical(3)
    left = [0, 2, 3]
    out, other, mask = randn(B, 5), randn(B, 5, seed=5), context(whole)
    (p, q), (a, b) = (
        [whole.canonical(whole.apply_context(x, mask)) for x in (out, other)],
        [small.canonical(x[:, left]) for x in (out, other)],
    )
    torch.testing.assert_close(p[:, left], a, rtol=0, atol=1e-14)
    torch.testing.assert_close(whole.entropy(p), small.entropy(a), rtol=0, atol=1e-14)
    torch.testing.assert_close(whole.kl(p, q), small.kl(a, b), rtol=0, atol=1e-14)
    act, weight = torch.randint(3, (B,), generator=generator()), randn(B, seed=3)
    grad = whole.gradient(p, torch.tensor(left)[act], weight, weight)
    torch.testing.assert_close(grad[:, left], small.gradient(a, act, weight, weight), rtol=0, atol=1e-14)


def test_with_one_legal_choice_nothing_is_left_to_decide() -> None:
    head = MultiCategorical((2, 3), masked=True)
    mask = torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0]])
    out = torch.tensor([[1e4, -1e4, 1e4, 1e4, -1e4]])
    dist = head.canonical(head.apply_context(out, mask))
    act, weight = torch.tensor([[1, 2]]), torch.ones(1)
    assert head.mode(head.apply_context(out.numpy(), mask.numpy())).tolist() == [[1, 2]]
    assert (float(head.logp(dist, act)), float(head.entropy(dist))) == (0.0, 0.0)
    assert (head.gradient(dist, act, weight, weight) == 0.0).all()


def test_a_context_that_leaves_nothing_in_some_entry_is_impossible() -> None:
    one, two = Categorical(3, masked=True), MultiCategorical((2, 3), masked=True)
    assert one.has_legal_action(np.array([[0, 0, 1], [0, 0, 0]])).tolist() == [True, False]
    given = np.array([[0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]])
    assert two.has_legal_action(given).tolist() == [True, False, False]


@pytest.mark.parametrize("head", [h for h in CONDITIONED if isinstance(h, Gaussian)], ids=repr)
def test_given_standard_normal_noise_before_an_action_alone_is_the_uncorrelated_one(head: Gaussian) -> None:
    """∫ N(a; μ + σρε, σ²(1 − ρ²)) N(ε) dε = N(a; μ, σ²), by the trapezium rule."""
    bounds = (LOW[0], HIGH[0]) if isinstance(head, SquashedGaussian) else ()
    eps = torch.linspace(-9.0, 9.0, 601, dtype=torch.float64)
    weight = torch.exp(-0.5 * eps.square())
    weight = weight / weight.sum()
    mean, log_std, a = 0.4, -0.7, torch.tensor([1.1], dtype=torch.float64)
    out = torch.tensor([[mean, log_std]], dtype=torch.float64)
    one = type(head)((), *bounds, noise_autocorrelation=head.rho)
    given = one.canonical(one.apply_context(out.expand(601, -1), eps[:, None]))
    marginal = one.logp(given, a.expand(601)).exp() @ weight
    plain = type(head)((), *bounds)
    torch.testing.assert_close(marginal, plain.logp(plain.canonical(out), a).exp()[0], rtol=1e-12, atol=0)


def test_the_memory_of_the_noise_is_what_makes_the_action() -> None:
    """a_t = μ + σ ε_t: sampling with the context ε_{t−1} and remembering ε_t are one recursion, and an episode begins anew."""
    head = Gaussian((2,), noise_autocorrelation=0.8)
    rng = np.random.default_rng(0)
    before, noise = rng.standard_normal((2, 2)), head.noise(rng, (2,)).astype(np.float64)
    out = np.tile([0.5, -1.0, 0.3, -0.7], (2, 1))
    act = head.sample(head.apply_context(out, before), noise)
    after, first = head.next_noise(before, noise), head.first_noise(noise)
    np.testing.assert_allclose(after, (act - out[:, :2]) / np.exp(out[:, 2:]), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(first, noise[:, 2:])
    other = np.concatenate([noise[:, :2], noise[:, 2:] + 1.0], -1)  # numbers that the action has not seen
    np.testing.assert_array_equal(head.sample(head.apply_context(out, before), other), act)
    np.testing.assert_array_equal(head.next_noise(before, other), after)
    assert (head.first_noise(other) != first).all()
    assert (np.abs(head.next_noise(before + 1.0, noise) - after) > 0.5).all()


@pytest.mark.parametrize("rho", [-0.1, 1.0, 2.0])
def test_a_correlation_must_be_below_one(rho: float) -> None:
    with pytest.raises(ValueError, match=rf"noise_autocorrelation must be in \[0, 1\), got {rho}"):
        Gaussian((1,), noise_autocorrelation=rho)


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
    ours = policy.evaluate(Batch.of(obs, act)).gradient(weight, ent_weight)
    gain = (weight * policy.logp(obs, act) + ent_weight * policy.head.entropy(policy(obs))).sum()
    torch.testing.assert_close(ours, policy.gradient(gain), rtol=0, atol=1e-12)


def test_a_head_with_a_context_needs_an_encoding_that_has_it() -> None:
    space = spaces.Box(-1.0, 1.0, (3,))
    with pytest.raises(ValueError, match=r"Categorical\(2, masked=True\) needs action masks of 2 entries"):
        Policy(nn.Linear(3, 2), Categorical(2, masked=True))
    with pytest.raises(ValueError, match="give an Encoding with this context"):
        Policy(nn.Linear(3, 2), Categorical(2, masked=True), encoding=Encoding(space))
    Policy(nn.Linear(3, 2), Categorical(2, masked=True), encoding=Encoding(space, 2))
    Policy(nn.Linear(3, 2), Gaussian((1,), 0.5))  # whose context is a memory of its own


BOX = spaces.Box(LOW.astype(np.float32), HIGH.astype(np.float32))


@pytest.mark.parametrize(
    ("space", "keywords", "expected"),
    [
        (spaces.Discrete(4, start=2), {}, "Categorical(4)"),
        (spaces.Discrete(4), {"masked": True}, "Categorical(4, masked=True)"),
        (spaces.MultiDiscrete([2, 3]), {}, "MultiCategorical((2, 3))"),
        (spaces.MultiDiscrete([[2, 3], [4, 2]]), {}, "MultiCategorical((2, 3, 4, 2))"),
        (spaces.MultiBinary((2, 2)), {"masked": True}, "MultiCategorical((2, 2, 2, 2), masked=True)"),
        (spaces.Box(-1.0, 1.0, (2, 3)), {}, "Gaussian((2, 3))"),
        (BOX, {"noise_autocorrelation": 0.5}, "Gaussian((2,), noise_autocorrelation=0.5)"),
        (BOX, {"head": "squashed", "noise_autocorrelation": 0.5}, "SquashedGaussian((2,), noise_autocorrelation=0.5)"),
        (BOX, {"head": "beta"}, "Beta((2,))"),
        (spaces.Discrete(4), {"head": "beta"}, "Categorical(4)"),
    ],
)
def test_spaces_have_their_heads(space: spaces.Space, keywords: dict, expected: str) -> None:
    head = make_head(space, **keywords)
    assert repr(head) == expected
    assert getattr(head, "shape", space.shape) == space.shape


@pytest.mark.parametrize("head", ["squashed", "beta"])
def test_heads_with_bounds_need_them(head: str) -> None:
    for space in (
        spaces.Box(-1.0, np.inf, (2,)),
        spaces.Box(-np.inf, np.inf, ()),
        spaces.Box(np.array([0, 1], np.float32), np.array([1, 1], np.float32)),
    ):
        with pytest.raises(
            TypeError, match=rf"head = {head} needs bounds on every action, the space is .*gaussian"
        ) as error:
            make_head(space, head=head)
        assert str(space) in str(error.value)


@pytest.mark.parametrize("kind", [SquashedGaussian, Beta])
@pytest.mark.parametrize("most", [1e308, np.inf, 0.0])
def test_bounds_without_a_finite_distance_are_refused(kind, most: float) -> None:
    with pytest.raises(ValueError, match=r"bounds and their distance must be finite, low below high"):
        kind((1,), np.array([-most]), np.array([most]))


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="noise_autocorrelation is for head = gaussian and head = squashed"):
        make_head(BOX, head="beta", noise_autocorrelation=0.5)
    with pytest.raises(TypeError, match=r"action masks are for discrete actions; the action space is Box"):
        make_head(BOX, masked=True)
    with pytest.raises(ValueError, match=r"head must be one of .* got 'normal'"):
        make_head(BOX, head="normal")
    with pytest.raises(ValueError, match=r"std must be one of .* got 'state'"):
        make_policy(BOX, BOX, std="state")
    with pytest.raises(ValueError, match=r"mask_source must be one of .* got 'yes'"):
        make_policy(BOX, spaces.Discrete(2), mask_source="yes")
