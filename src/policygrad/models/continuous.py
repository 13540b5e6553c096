"""Heads for Box actions: normal, squashed normal and Beta; their contract is `heads.Head`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.models.heads import Head
from policygrad.tree import flat

BETA_MARGIN = 2.0**-24  # how near to 0 and 1 a Beta's x may be: 1 − 2⁻²⁴ is the float32 below 1
SQUASHED_EDGE = 1e-6  # how near to ±1 tanh(u) may be, for its inverse
LOG_STD_MIN, LOG_STD_MAX = -20.0, 10.0  # beyond, float32 overflows


class Gaussian(Head):
    """Independent normals for actions of any shape, D numbers in all: out = (mean, log std), each (B, D).

    Clipped to the bounds on its way to the environment, while log π is that of the action before the clip: the gradient is
    right for "environment with a clip in front" (Fujita & Maeda 2018 lower its variance), but mass beyond the bounds is wasted.

    noise_autocorrelation ρ > 0: the noise of an episode is autoregressive, a_t = μ(s_t) + σ ε_t with
    ε_t = ρ ε_{t−1} + √(1 − ρ²) z_t, so that exploration moves in one direction for about 1/(1 − ρ) steps. ε_{t−1} is the
    context, hence log π is exact: that of N(μ + σ ρ ε_{t−1}, σ² (1 − ρ²)), while every action alone is N(μ, σ²)
    (Korenkevych et al. 2019, arXiv 1903.11524).
    """

    def __init__(self, shape: tuple[int, ...], noise_autocorrelation: float = 0.0) -> None:
        if not 0.0 <= noise_autocorrelation < 1.0:
            raise ValueError(f"noise_autocorrelation must be in [0, 1), got {noise_autocorrelation}")
        self.shape, self.rho = shape, noise_autocorrelation
        self.dims = math.prod(shape)
        self.size = 2 * self.dims
        self.stateful = noise_autocorrelation > 0.0
        self.context = self.dims if self.stateful else 0

    def __repr__(self) -> str:
        correlated = f", noise_autocorrelation={self.rho:g}" if self.rho else ""
        return f"{type(self).__name__}({self.shape}{correlated})"

    def apply_context(self, out: Any, context: Any) -> Any:
        numpy = isinstance(out, np.ndarray)
        mean, log_std = out[:, : self.dims], out[:, self.dims :].clip(LOG_STD_MIN, LOG_STD_MAX)
        std = np.exp(log_std) if numpy else log_std.exp()
        given = (mean + std * (self.rho * context), log_std + 0.5 * math.log1p(-(self.rho**2)))
        return np.concatenate(given, axis=-1) if numpy else torch.cat(given, dim=-1)

    def context_vjp(self, grad: Tensor, dist: Tensor, context: Tensor) -> Tensor:
        # the mean moves with log σ, by σ ρ ε
        std = dist[:, self.dims :].exp() / math.sqrt(1.0 - self.rho**2)
        mean, log_std = grad.split(self.dims, dim=-1)
        return torch.cat([mean, log_std + mean * std * (self.rho * context)], dim=-1)

    def context_jvp(self, tangent: Tensor, dist: Tensor, context: Tensor) -> Tensor:
        std = dist[:, self.dims :].exp() / math.sqrt(1.0 - self.rho**2)
        mean, log_std = tangent.split(self.dims, dim=-1)
        return torch.cat([mean + log_std * std * (self.rho * context), log_std], dim=-1)

    def first_noise(self, noise: np.ndarray) -> np.ndarray:
        return noise[:, self.dims :]  # a draw of its own from N(0, 1)

    def next_noise(self, context: np.ndarray, noise: np.ndarray) -> np.ndarray:
        # ε_t from ε_{t−1} and z_t
        return self.rho * context + math.sqrt(1.0 - self.rho**2) * noise[:, : self.dims]

    def canonical(self, out: Tensor) -> Tensor:
        # a log std beyond its limits keeps the gradient that it has at the limit, and so finds back (`gradient`)
        return torch.cat([out[..., : self.dims], out[..., self.dims :].clamp(LOG_STD_MIN, LOG_STD_MAX)], dim=-1)

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        mean, log_std = dist.split(self.dims, dim=-1)
        z = (act.reshape(mean.shape) - mean) * (-log_std).exp()
        return -(0.5 * z.square() + log_std).sum(-1) - 0.5 * self.dims * math.log(2.0 * math.pi)

    def entropy(self, dist: Tensor) -> Tensor:
        return dist[..., self.dims :].sum(-1) + 0.5 * self.dims * math.log(2.0 * math.pi * math.e)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        # log(σ₂/σ₁) + (σ₁² + (μ₁ − μ₂)²) / 2σ₂² − ½
        mean, log_std = old.split(self.dims, dim=-1)
        new_mean, new_log_std = new.split(self.dims, dim=-1)
        ratio = (2.0 * (log_std - new_log_std)).exp() + ((mean - new_mean) * (-new_log_std).exp()).square()
        return (new_log_std - log_std + 0.5 * ratio - 0.5).sum(-1)

    def gradient(self, dist: Tensor, act: Tensor, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        # z = (a − μ)/σ:  ∂logp/∂μ = z/σ,  ∂logp/∂log σ = z² − 1,  ∂entropy/∂log σ = 1
        mean, log_std = dist.split(self.dims, dim=-1)
        inv_std = (-log_std).exp()
        z = (act.reshape(mean.shape) - mean) * inv_std
        grad = torch.cat([z * inv_std, z.square() - 1.0], dim=-1) * weight.unsqueeze(-1)
        if ent_weight is not None:
            grad[..., self.dims :] += ent_weight.unsqueeze(-1)
        return grad

    def kl_gradient(self, old: Tensor, new: Tensor, weight: Tensor) -> Tensor:
        # ∂KL/∂μ₂ = (μ₂ − μ₁)/σ₂²,  ∂KL/∂log σ₂ = 1 − (σ₁² + (μ₁ − μ₂)²)/σ₂²
        (mean, log_std), (new_mean, new_log_std) = old.split(self.dims, dim=-1), new.split(self.dims, dim=-1)
        inv_std = (-new_log_std).exp()
        z = (new_mean - mean) * inv_std
        ratio = (2.0 * (log_std - new_log_std)).exp()
        return torch.cat([z * inv_std, 1.0 - ratio - z.square()], dim=-1) * weight.unsqueeze(-1)

    def fisher(self, dist: Tensor, tangent: Tensor) -> Tensor:
        # M = diag(1/σ², 2)
        mean, log_std = tangent.split(self.dims, dim=-1)
        return torch.cat([mean * (-2.0 * dist[:, self.dims :]).exp(), 2.0 * log_std], dim=-1)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal((*shape, self.dims + self.context), dtype=np.float32)

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        std = np.exp(out[:, self.dims :].clip(LOG_STD_MIN, LOG_STD_MAX))
        return (out[:, : self.dims] + std * noise[:, : self.dims]).reshape(-1, *self.shape)

    def mode(self, out: np.ndarray) -> np.ndarray:
        return out[:, : self.dims].reshape(-1, *self.shape)


class SquashedGaussian(Gaussian):
    """a = low + (high − low)(tanh u + 1)/2 with u normal. What is stored is u, so no inverse is taken.

    log π(a|s) = log N(u) − Σ log(½(high − low)(1 − tanh² u)) (Haarnoja et al. 2018, arXiv 1801.01290, appendix C). The
    Jacobian does not depend on the parameters: ∇log π and KL are the Gaussian's. Entropy has no closed form; it is
    H(N) + E[log of the Jacobian], by the trapezium rule on ±8 σ: to 1e-11 for σ ≤ 3, 1e-9 at 5, 1e-5 at 10.
    """

    def __init__(
        self, shape: tuple[int, ...], low: np.ndarray, high: np.ndarray, noise_autocorrelation: float = 0.0
    ) -> None:
        super().__init__(shape, noise_autocorrelation)
        self.low, self.scale = bounds_of(low, high)
        z = torch.linspace(-8.0, 8.0, 161, dtype=torch.float64)
        self.nodes, weights = z, torch.exp(-0.5 * z.square())
        self.node_weights = weights / weights.sum()

    def _log_jacobian(self, u: Tensor) -> Tensor:
        # log(1 − tanh² u) = 2 (log 2 − |u| − log(1 + e^{−2|u|})): finite however large u is
        return 2.0 * (math.log(2.0) - u.abs() - torch.log1p(torch.exp(-2.0 * u.abs())))

    def _log_scale(self) -> float:
        return float(np.log(0.5 * self.scale).sum())

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        jacobian = self._log_jacobian(flat(act)).sum(-1) + self._log_scale()
        return super().logp(dist, act) - jacobian

    def _quadrature(self, dist: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Nodes z (K,), their weights, and u = μ + σ z with σ, (B, D, K)."""
        mean, log_std = dist.split(self.dims, dim=-1)
        z, weights = self.nodes.to(dist), self.node_weights.to(dist)
        std = log_std.exp().unsqueeze(-1)
        return z, weights, mean.unsqueeze(-1) + std * z, std

    def entropy(self, dist: Tensor) -> Tensor:
        _, weights, u, _ = self._quadrature(dist)
        return super().entropy(dist) + (self._log_jacobian(u) @ weights).sum(-1) + self._log_scale()

    def gradient(self, dist: Tensor, act: Tensor, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        # ∂E[log(1 − tanh² u)]/∂μ = E[−2 tanh u],  /∂log σ = E[−2 tanh u · σ z]
        grad = super().gradient(dist, act, weight, ent_weight)
        if ent_weight is not None:
            z, weights, u, std = self._quadrature(dist)
            slope = -2.0 * torch.tanh(u)
            moments = torch.cat([slope @ weights, (slope * std * z) @ weights], dim=-1)
            grad += ent_weight.unsqueeze(-1) * moments
        return grad

    def to_env(self, act: np.ndarray) -> np.ndarray:
        return self.low + self.scale * (0.5 * (np.tanh(act) + 1.0))

    def from_env(self, act: np.ndarray) -> np.ndarray:
        x = 2.0 * (act - self.low) / self.scale - 1.0
        return np.arctanh(x.clip(SQUASHED_EDGE - 1.0, 1.0 - SQUASHED_EDGE)).astype(np.float32)


class Beta(Head):
    """a = low + (high − low) x with x ~ Beta(α, β) entry by entry, α = 1 + softplus(out₁), β = 1 + softplus(out₂): unimodal.

    No mass beyond the bounds and none piled up on them (Chou, Maturana & Scherer 2017). What is stored is x.
    """

    def __init__(self, shape: tuple[int, ...], low: np.ndarray, high: np.ndarray) -> None:
        self.shape = shape
        self.dims = math.prod(shape)
        self.size = 2 * self.dims
        self.low, self.scale = bounds_of(low, high)

    def __repr__(self) -> str:
        return f"Beta({self.shape})"

    def _concentrations(self, dist: Tensor) -> tuple[Tensor, Tensor]:
        # float64: differences of log Γ lose digits where they are large
        alpha, beta = (1.0 + torch.nn.functional.softplus(dist.double())).split(self.dims, dim=-1)
        return alpha, beta

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        alpha, beta = self._concentrations(dist)
        # padding is 0, and so may a user's actions be
        x = act.reshape(alpha.shape).double().clamp(BETA_MARGIN, 1.0 - BETA_MARGIN)
        log_scale = float(np.log(self.scale).sum())
        logp = (alpha - 1.0) * x.log() + (beta - 1.0) * (-x).log1p() - _log_beta(alpha, beta)
        return (logp.sum(-1) - log_scale).to(dist.dtype)

    def entropy(self, dist: Tensor) -> Tensor:
        # log B(α, β) − (α − 1) ψ(α) − (β − 1) ψ(β) + (α + β − 2) ψ(α + β), and the scale
        alpha, beta = self._concentrations(dist)
        entropy = _log_beta(alpha, beta) - (alpha - 1.0) * alpha.digamma() - (beta - 1.0) * beta.digamma()
        entropy = entropy + (alpha + beta - 2.0) * (alpha + beta).digamma()
        return (entropy.sum(-1) + float(np.log(self.scale).sum())).to(dist.dtype)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        # log B(α₂, β₂)/B(α₁, β₁) + (α₁ − α₂) ψ(α₁) + (β₁ − β₂) ψ(β₁) + (α₂ − α₁ + β₂ − β₁) ψ(α₁ + β₁)
        (a, b), (new_a, new_b) = self._concentrations(old), self._concentrations(new)
        kl = _log_beta(new_a, new_b) - _log_beta(a, b) + (a - new_a) * a.digamma() + (b - new_b) * b.digamma()
        return (kl + (new_a - a + new_b - b) * (a + b).digamma()).sum(-1).to(old.dtype)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.random((*shape, self.dims))

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        from scipy.special import betaincinv  # the inverse of the distribution function

        alpha, beta = self._numpy_concentrations(out)
        return self._inside(betaincinv(alpha, beta, noise))

    def mode(self, out: np.ndarray) -> np.ndarray:
        alpha, beta = self._numpy_concentrations(out)
        rest = alpha + beta - 2.0
        return self._inside(np.where(rest > 1e-6, (alpha - 1.0) / np.maximum(rest, 1e-6), 0.5))

    def _numpy_concentrations(self, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        concentration = 1.0 + np.logaddexp(out.astype(np.float64), 0.0)
        return concentration[:, : self.dims], concentration[:, self.dims :]

    def _inside(self, x: np.ndarray) -> np.ndarray:
        return x.clip(BETA_MARGIN, 1.0 - BETA_MARGIN).astype(np.float32).reshape(-1, *self.shape)

    def to_env(self, act: np.ndarray) -> np.ndarray:
        return self.low + self.scale * act

    def from_env(self, act: np.ndarray) -> np.ndarray:
        return self._inside((act - self.low) / self.scale)


def _log_beta(alpha: Tensor, beta: Tensor) -> Tensor:
    return alpha.lgamma() + beta.lgamma() - (alpha + beta).lgamma()


def bounds_of(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower bound and the width."""
    with np.errstate(over="ignore"):  # of the widest float64: refused below
        scale = np.asarray(high, np.float64) - np.asarray(low, np.float64)
    if not np.isfinite(scale).all() or (scale <= 0.0).any():
        raise ValueError(
            f"bounds and their distance must be finite, low below high, in every entry, got {low} and {high}: use the "
            "Gaussian head"
        )
    return np.asarray(low, np.float64), scale
