"""Signal and noise of a gradient estimate, computed only from the inner products of its independent parts.

The estimate is a sum over independent parts (trajectories, or groups of them), ĝ = Σ_k A_k, of which part k has the share f_k
of the whole, Σ f_k = 1. With D_k = A_k − f_k ĝ, what part k has over or under its share,

    tr Cov(ĝ)  ≈  V = Σ_k ‖D_k‖² / (1 − Σ f_k²)          for equal shares  n · Σ ‖A_k − mean A‖² / (n − 1)
    ‖E ĝ‖²     ≈  ‖ĝ‖² − V
    SNR        =  ‖E ĝ‖² / tr Cov(ĝ)

For shares that are known beforehand both are unbiased; for shares that are drawn with the parts (lengths of episodes) ĝ is a
ratio of means, and V is the variance of its linear model. All of it depends on A (m, P) through A Aᵀ alone, so P may be large.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

LEVEL = 0.95  # of the interval
MIN_PARTS = 8  # parts for an interval: with fewer, it would cover the truth less often than it says
DRAWS = 1000
SPLITS = 100


@dataclass(frozen=True)
class Noise:
    """Signal and noise of an estimate. Numbers that do not exist are NaN.

    signal: ‖E ĝ‖², unbiased, so it may be negative; noise: tr Cov(ĝ); snr: their ratio. low, high: the interval of the SNR,
    low = 0 where it cannot be told from 0; where there is no signal, it can by chance, in 5 % or less. cosine: between the sums
    over two halves of the parts, the mean of 100 ways to halve them; about SNR / (SNR + 2) where there is signal.
    """

    signal: float
    noise: float
    snr: float
    low: float
    high: float
    cosine: float


def deviations(share: Tensor) -> Tensor:
    """(m, m), the matrix that takes A to D: D_k = A_k − f_k Σ_j A_j. share: f (m,)."""
    return torch.eye(len(share), dtype=share.dtype, device=share.device) - share.unsqueeze(1)


def measure_noise(gram: Tensor, share: Tensor, sampled: float = 1.0) -> Noise:
    """The noise of ĝ = Σ A_k. gram: A Aᵀ (m, m); share: f (m,), sum 1; both float64.

    sampled: the fraction of the whole that the parts are, where they are a sample of it, scaled up: noise and SNR are then the
    whole's.
    """
    m, nan = len(share), float("nan")
    if m < 2:
        return Noise(nan, nan, nan, nan, nan, nan)
    minus = deviations(share)
    spread = minus @ gram @ minus.T  # D Dᵀ
    freedom = 1.0 - share.square().sum()
    square, noise = gram.sum(), spread.trace() / freedom
    low = high = torch.tensor(nan)
    if m >= MIN_PARTS and noise > 0.0:
        drawn = plausible(square / noise, minus @ gram.sum(1) / (square * noise).sqrt(), spread / noise, share)
        low, high = torch.quantile(drawn, torch.tensor([0.5 - LEVEL / 2, 0.5 + LEVEL / 2], dtype=drawn.dtype))
    signal = square - noise
    snr = signal / noise if noise > 0.0 else torch.tensor(nan)
    numbers = (signal, noise * sampled, snr / sampled, low / sampled, high / sampled, half_cosine(gram))
    return Noise(*map(float, numbers))


def plausible(square: Tensor, along: Tensor, spread: Tensor, share: Tensor) -> Tensor:
    """SNRs that are plausible for this estimate, (1000,); their quantiles are the ends of an interval.

    In units in which V = 1. square: ‖ĝ‖²; along: ĝ · D_k / ‖ĝ‖ (m,); spread: D Dᵀ (m, m). An error ε = Σ ξ_k D_k / √(1 − Σ f²),
    ξ normal, has the covariance that the parts show; V itself is off by a factor χ²_ν / ν. With E ĝ taken to point where ĝ
    points, the SNR is what solves

        ‖ĝ‖² χ²_ν / ν = SNR + 2 √SNR ε·ĝ/‖ĝ‖ + ‖ε‖²,         0 where the error alone is longer than ĝ.

    ν = 2 / Var(V): the variance that is seen in the ‖D_k‖², or that of normal parts, 2 tr Σ² / (m − 1), whichever is larger.
    """
    xi, z = standard_draws(len(share))
    freedom = 1.0 - share.square().sum()
    b, c = xi @ along / freedom.sqrt(), ((xi @ spread) * xi).sum(1) / freedom
    lengths = spread.diagonal() - share * spread.trace()
    seen = lengths.square().sum() / freedom**3
    normal = 2.0 * (spread.square().sum() - spread.diagonal().square().sum()) / freedom**2 / (len(share) - 1)
    chi = chi_square(z, 2.0 / torch.maximum(seen, normal))
    root = b.square() + square * chi - c
    return torch.where(root >= 0.0, (root.clamp(min=0.0).sqrt() - b).clamp(min=0.0), 0.0).square()


def chi_square(z: Tensor, nu: Tensor) -> Tensor:
    """χ²_ν / ν of normal numbers z, by their cube (Wilson & Hilferty 1931)."""
    spread = 2.0 / (9.0 * nu)
    return (1.0 - spread + z * spread.sqrt()).clamp(min=0.0) ** 3


@cache
def standard_draws(m: int) -> tuple[Tensor, Tensor]:
    """Fixed standard normal numbers (1000, m) and (1000,)."""
    draws = torch.randn(DRAWS, m + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return draws[:, :m], draws[:, m]


def half_cosine(gram: Tensor) -> Tensor:
    """The mean cosine of the angle between two halves' sums, from A Aᵀ (m, m), m at least 2."""
    first, second = halves(len(gram))
    dot = ((first @ gram) * second).sum(1)
    norms = ((first @ gram) * first).sum(1) * ((second @ gram) * second).sum(1)
    there = norms > 0.0
    return (dot[there] / norms[there].sqrt()).mean()


@cache
def halves(m: int) -> tuple[Tensor, Tensor]:
    """Fixed indicators of the first and of the second half, 1 or 0, (100, m) each. If m is odd, one part is in neither half."""
    generator = torch.Generator().manual_seed(0)
    rank = torch.rand(SPLITS, m, generator=generator).argsort(1)
    return (rank < m // 2).double(), ((rank >= m // 2) & (rank < 2 * (m // 2))).double()
