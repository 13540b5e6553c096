"""Signal and noise of a gradient from its parts: unbiased by enumeration, and intervals that cover as often as they say."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from policygrad.gradient.baselines import CriticValue, NoBaseline
from policygrad.gradient.estimators import GAE, RewardToGo, TotalReturn, advantages
from policygrad.gradient.noise import DRAWS, MIN_PARTS, chi_square, halves, measure_noise, standard_draws
from policygrad.lab.exact.tabular import ExactCritic, bandit, chain, enumerate_trajectories, random_mdp, tabular_policy
from policygrad.lab.exact.worlds import two_states


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


WORLDS = {  # mdp, seed and scale of the logits, estimator, baseline
    "two states": (two_states(5), 1, 1.0, TotalReturn(1.0), NoBaseline()),
    "two states, V": (two_states(5), 1, 1.0, RewardToGo(1.0), CriticValue()),
    "random": (random_mdp(3, 2, 4, np.random.default_rng(3)), 2, 1.0, RewardToGo(1.0), NoBaseline()),
    "random, V": (random_mdp(3, 2, 4, np.random.default_rng(3)), 2, 1.0, GAE(1.0, 0.9), CriticValue()),
    "chain": (chain(4, 6, slip=0.1), 3, 0.3, RewardToGo(1.0), NoBaseline()),
    "chain, V": (chain(4, 6, slip=0.1), 3, 0.3, RewardToGo(1.0), CriticValue()),
    "no signal": (bandit([1.0, 1.0, 1.0, 1.0]), 0, 0.0, RewardToGo(1.0), NoBaseline()),
    "rare": (bandit([1.0, 0.0, 2.0, 0.5]), 0, 1.0, RewardToGo(1.0), NoBaseline()),
}


@cache
def trajectories(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of every trajectory the gradient Σ_t adv_t ∇log π (N, S·A), from the softmax's formula; its probability; its length."""
    mdp, seed, scale, estimator, baseline = WORLDS[name]
    policy = tabular_policy(mdp, seeded(seed), scale)
    rollout, p = enumerate_trajectories(mdp, policy)
    adv, _ = advantages(rollout, ExactCritic(mdp)(rollout, policy), estimator, baseline)
    pi = torch.softmax(policy.flat.view(mdp.states, mdp.actions), -1)
    score = torch.eye(mdp.actions, dtype=torch.float64)[rollout.act] - pi[rollout.obs[:-1].argmax(-1)]
    g = torch.einsum("tn,tns,tna->nsa", torch.where(rollout.mask, adv, 0.0), rollout.obs[:-1], score).flatten(1)
    return g, p, rollout.mask.sum(0).double()


def exact(name: str, by_length: bool = False) -> tuple[float, float]:
    """‖E g‖² and tr Cov(g) of one trajectory; by_length: the linear model of Σ g / Σ length."""
    g, p, length = trajectories(name)
    if by_length:
        mean = (p @ g) / (p @ length)
        spread = (g - length.unsqueeze(1) * mean) / (p @ length)
        return float(mean @ mean), float(p @ spread.square().sum(1))
    mean = p @ g
    return float(mean @ mean), float(p @ (g - mean).square().sum(1))


def gram_and_share(g: Tensor, mass: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Trajectories dealt into groups, i to i mod groups."""
    member = torch.eye(groups, dtype=torch.float64)[torch.arange(len(g)) % groups].T
    A = member @ g / mass.sum()
    return A @ A.T, member @ mass / mass.sum()


# what is exact


@pytest.mark.parametrize(
    ("name", "n", "groups"), [("two states", 2, 2), ("rare", 3, 3), ("rare", 5, 2), ("rare", 5, 3)]
)
def test_signal_and_noise_are_unbiased_however_trajectories_are_grouped(name: str, n: int, groups: int) -> None:
    g, p, _ = trajectories(name)
    signal, noise = exact(name)
    means = np.zeros(2)
    for index in itertools.product(range(len(p)), repeat=n):
        found = measure_noise(*gram_and_share(g[list(index)], torch.ones(n, dtype=torch.float64), groups))
        means += float(p[list(index)].prod()) * np.array([found.signal, found.noise])
    assert means == pytest.approx([signal, noise / n], rel=1e-10)
    assert abs(signal - (signal + noise / n)) > 0.1 * signal  # what ‖ĝ‖² alone would say is far off


def test_two_parts_of_known_angle_have_that_cosine() -> None:
    for angle in (0.3, 1.2, 2.5):
        A = torch.tensor([[2.0, 0.0], [3.0 * math.cos(angle), 3.0 * math.sin(angle)]], dtype=torch.float64)
        assert measure_noise(A @ A.T, torch.full((2,), 0.5, dtype=torch.float64)).cosine == pytest.approx(
            math.cos(angle)
        )


@pytest.mark.parametrize("m", [2, 5, 16])
def test_halves_are_even_and_disjoint(m: int) -> None:
    first, second = halves(m)
    assert (first.sum(1) == m // 2).all()
    assert (second.sum(1) == m // 2).all()
    assert (first * second == 0).all()
    assert m == 2 or len({tuple(row) for row in first.tolist()}) > 5


def test_the_cosine_is_what_the_ratio_of_signal_and_noise_says_it_is() -> None:
    A = torch.randn(16, 400, generator=seeded(0), dtype=torch.float64) + 0.2
    found = measure_noise(A @ A.T, torch.full((16,), 1 / 16, dtype=torch.float64))
    assert found.snr == pytest.approx(16 * 0.04, rel=0.2)
    assert found.cosine == pytest.approx(found.snr / (found.snr + 2.0), abs=0.03)


def test_numbers_scale_as_they_should() -> None:
    g, _, length = trajectories("chain")
    gram, share = gram_and_share(g[:30], length[:30], 10)
    one, other = measure_noise(gram, share), measure_noise(9.0 * gram, share)
    for name, factor in (("signal", 9.0), ("noise", 9.0), ("snr", 1.0), ("low", 1.0), ("high", 1.0), ("cosine", 1.0)):
        assert getattr(other, name) == pytest.approx(factor * getattr(one, name), rel=1e-9)
    of_more = measure_noise(gram, share, sampled=0.25)  # parts of four times as much
    assert (of_more.signal, of_more.noise) == pytest.approx((one.signal, one.noise / 4))
    assert (of_more.snr, of_more.high) == pytest.approx((4 * one.snr, 4 * one.high))


def test_numbers_that_do_not_exist_are_nan() -> None:
    share = torch.full((MIN_PARTS - 1,), 1 / (MIN_PARTS - 1), dtype=torch.float64)
    gram = torch.eye(MIN_PARTS - 1, dtype=torch.float64) + 1.0
    few = measure_noise(gram, share)
    assert few.snr > 0.0
    assert math.isnan(few.low)
    assert math.isnan(few.high)
    one = measure_noise(gram[:1, :1], torch.ones(1, dtype=torch.float64))
    assert all(math.isnan(x) for x in vars(one).values())
    still = measure_noise(torch.zeros(10, 10, dtype=torch.float64), torch.full((10,), 0.1, dtype=torch.float64))
    assert (still.signal, still.noise) == (0.0, 0.0)
    assert all(math.isnan(x) for x in (still.snr, still.low, still.high, still.cosine))


def test_the_draws_are_what_they_are_said_to_be() -> None:
    xi, z = standard_draws(9)
    assert xi.shape == (DRAWS, 9)
    for x in (xi, z):
        assert float(x.mean()) == pytest.approx(0.0, abs=4 / math.sqrt(x.numel()))
        assert float(x.var()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / x.numel()))
    for nu in (3.0, 8.0, 300.0):
        chi = chi_square(torch.randn(100_000, generator=seeded(1), dtype=torch.float64), torch.tensor(nu))
        assert float(chi.mean()) == pytest.approx(1.0, abs=0.01)
        assert float(chi.var()) == pytest.approx(2.0 / nu, rel=0.05)
    state = torch.random.get_rng_state()
    standard_draws.cache_clear()
    halves.cache_clear()
    again = standard_draws(9)[0]
    halves(9)
    assert torch.equal(again, xi)
    assert torch.equal(torch.random.get_rng_state(), state)


# coverage

REPEATS = 300
ERROR = math.sqrt(0.95 * 0.05 / REPEATS)


def coverage(name: str, n: int, groups: int, by_length: bool = False, scale: float = 1.0) -> tuple[float, float]:
    """How often the interval has the exact SNR of ĝ, times `scale`, in it; and that SNR."""
    g, p, length = trajectories(name)
    signal, noise = exact(name, by_length)
    snr, rng, hits = n * signal / noise, np.random.default_rng(0), 0
    for _ in range(REPEATS):
        index = rng.choice(len(p), n, p=(p / p.sum()).numpy())
        mass = length[index] if by_length else torch.ones(n, dtype=torch.float64)
        found = measure_noise(*gram_and_share(g[index], mass, groups))
        hits += found.low - 1e-12 <= scale * snr <= found.high
    return hits / REPEATS, snr


SLOW = [pytest.param(n, groups, marks=pytest.mark.slow) for n, groups in ((8, 8), (64, 16), (640, 16))]


@pytest.mark.parametrize(("n", "groups"), [(16, 16), *SLOW])
@pytest.mark.parametrize("name", [name for name in WORLDS if name != "rare"])
def test_the_interval_covers_the_exact_ratio_at_its_rate(name: str, n: int, groups: int) -> None:
    assert coverage(name, n, groups)[0] >= 0.95 - 4 * ERROR


@pytest.mark.parametrize("name", ["chain", "chain, V"])
def test_and_where_episodes_count_by_their_length(name: str) -> None:
    assert coverage(name, 64, 16, by_length=True)[0] >= 0.95 - 4 * ERROR


def test_the_worlds_have_signals_from_none_to_strong() -> None:
    ratios = [coverage_snr(name, 16) for name in WORLDS]
    assert min(ratios) == pytest.approx(0.0, abs=1e-12)
    assert sorted(ratios)[2] < 2.0
    assert max(ratios) > 10.0


def coverage_snr(name: str, n: int) -> float:
    signal, noise = exact(name)
    return n * signal / noise


def test_intervals_do_not_cover_what_is_not_true() -> None:
    assert coverage("two states, V", 64, 16, scale=4.0)[0] < 0.5
    assert coverage("random, V", 64, 16, scale=0.1)[0] < 0.1


def test_rare_trajectories_with_most_of_the_variance_are_what_it_cannot_cover() -> None:
    """The limit of the method: 64 trajectories show an action of probability 1.6 % once on average, or not at all."""
    assert 0.6 < coverage("rare", 64, 16)[0] < 0.95 - 4 * ERROR


def test_signal_is_found_where_there_is_enough_and_rarely_where_there_is_none() -> None:
    def found(name: str) -> float:
        g, p, _ = trajectories(name)
        rng, hits = np.random.default_rng(1), 0
        for _ in range(REPEATS):
            index = rng.choice(len(p), 64, p=(p / p.sum()).numpy())
            hits += measure_noise(*gram_and_share(g[index], torch.ones(64, dtype=torch.float64), 16)).low > 0.0
        return hits / REPEATS

    assert found("no signal") < 0.025 + 4 * math.sqrt(0.025 * 0.975 / REPEATS)
    assert found("two states, V") > 0.99


def test_of_one_parameter_signal_is_found_as_students_t_test_finds_it() -> None:
    """8 normal parts without signal: the two-sided test with 7 degrees of freedom, 5 %; a normal's tails would make it 9 %."""
    x = torch.randn(2000, 8, generator=seeded(5), dtype=torch.float64)
    share = torch.full((8,), 1 / 8, dtype=torch.float64)
    found = np.mean([measure_noise(torch.outer(part, part), share).low > 0.0 for part in x])
    error = math.sqrt(0.05 * 0.95) * math.sqrt(1 / 2000 + 1 / DRAWS)
    assert found == pytest.approx(0.05, abs=3.5 * error)


def test_where_noise_has_many_directions_its_length_is_known_and_the_interval_is_short() -> None:
    A = torch.randn(16, 400, generator=seeded(6), dtype=torch.float64)
    share = torch.full((16,), 1 / 16, dtype=torch.float64)
    nothing, something = (measure_noise(x @ x.T, share) for x in (A, A + 0.25))
    assert nothing.low == 0.0
    assert nothing.high < 0.8
    assert 0.0 < something.low < something.snr < something.high < 2.0  # of 16 · 0.25², exactly 1
