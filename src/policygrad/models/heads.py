"""Heads: the network's outputs as a distribution over actions.

A head holds no parameters. `out` (B, P) are the network's outputs, `dist` (B, P) their canonical form, on which the rest
works. `gradient` is the closed-form half of every policy gradient; `Head.gradient` is the autograd reference for it, and
what a head of your own gets for free.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


class Head:
    """The contract, with `gradient` by autograd as the default."""

    size: int  # P, how many outputs the network must have

    def canonical(self, out: Tensor) -> Tensor:
        """The distribution's parameters: (B, P) → (B, P)."""
        return out

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        """Log π(a|s), (B,)."""
        raise NotImplementedError

    def entropy(self, dist: Tensor) -> Tensor:
        """Entropy (differential for densities), (B,), in nats."""
        raise NotImplementedError

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """KL(old ‖ new), exact, (B,), in nats."""
        raise NotImplementedError

    def gradient(self, dist: Tensor, act: Tensor, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        """∂/∂out of Σ_b weight_b · log π(a_b|s_b) + ent_weight_b · entropy_b, (B, P)."""
        with torch.enable_grad():
            out = dist.detach().requires_grad_()
            canonical = self.canonical(out)
            gain = (weight * self.logp(canonical, act)).sum()
            if ent_weight is not None:
                gain = gain + (ent_weight * self.entropy(canonical)).sum()
            return torch.autograd.grad(gain, out)[0]

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """The randomness that `sample` turns into actions, drawn for a whole rollout at once: shape → shape + (…)."""
        raise NotImplementedError

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Actions from outputs (N, P) and noise (N, …), in numpy: this runs at every step."""
        raise NotImplementedError

    def mode(self, out: np.ndarray) -> np.ndarray:
        """The most likely actions: the greedy policy."""
        raise NotImplementedError


class Categorical(Head):
    """π(a|s) ∝ exp(logit_a). Works on log-probabilities, so a probability of 0 is no special case."""

    def __init__(self, actions: int) -> None:
        self.size = actions

    def __repr__(self) -> str:
        return f"Categorical({self.size})"

    def canonical(self, out: Tensor) -> Tensor:
        return torch.log_softmax(out, dim=-1)

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        return dist.gather(-1, act.unsqueeze(-1)).squeeze(-1)

    def entropy(self, dist: Tensor) -> Tensor:
        return -(dist.exp() * dist).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return (old.exp() * (old - new)).sum(-1)

    def gradient(self, dist: Tensor, act: Tensor, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        # ∂logp/∂logit_j = 1[j = a] − p_j;  ∂entropy/∂logit_j = −p_j (log p_j + entropy)
        p, factor = dist.exp(), weight.unsqueeze(-1)
        if ent_weight is not None:
            minus_entropy = (p * dist).sum(-1, keepdim=True)
            factor = factor + ent_weight.unsqueeze(-1) * (dist - minus_entropy)
        return p.mul_(factor).neg_().scatter_add_(-1, act.unsqueeze(-1), weight.unsqueeze(-1))

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        # Gumbel noise, −log E with E exponential: argmax(logits + noise) is a draw from the softmax
        exponential = rng.standard_exponential((*shape, self.size), dtype=np.float32)
        np.maximum(exponential, np.finfo(np.float32).tiny, out=exponential)
        return np.negative(np.log(exponential, out=exponential), out=exponential)

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return (out + noise).argmax(-1)

    def mode(self, out: np.ndarray) -> np.ndarray:
        return out.argmax(-1)


class Gaussian(Head):
    """Independent normals for actions of any shape, D numbers in all: out = (mean, log std), each (B, D)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.dims = math.prod(shape)
        self.size = 2 * self.dims

    def __repr__(self) -> str:
        return f"Gaussian({self.shape})"

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

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal((*shape, self.dims), dtype=np.float32)

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        act = out[:, : self.dims] + np.exp(out[:, self.dims :]) * noise
        return act.reshape(-1, *self.shape)

    def mode(self, out: np.ndarray) -> np.ndarray:
        return out[:, : self.dims].reshape(-1, *self.shape)
