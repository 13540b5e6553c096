"""Heads: the network's outputs as a distribution over actions.

| head               | action space           | distribution                                              |
|--------------------|------------------------|-----------------------------------------------------------|
| `Categorical`      | Discrete               | softmax                                                   |
| `MultiCategorical` | MultiDiscrete, MultiBinary | a softmax an entry, independent                       |
| `Gaussian`         | Box                    | independent normals; clipped to the bounds on their way   |
| `SquashedGaussian` | bounded Box            | tanh of independent normals, scaled to the bounds         |
| `Beta`             | bounded Box            | independent Beta distributions, scaled to the bounds      |

A head holds no parameters. `out` (B, P) are the network's outputs, `dist` (B, P) their canonical form, on which the rest
works. `gradient` is the closed-form half of every policy gradient; `Head.gradient` is the autograd reference for it, and
what a head of your own gets for free. A head with `context` > 0 is conditioned on as many more numbers, which come with the
observation: its action mask, or the noise of the step before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.tree import flat

MASK_PENALTY = 1e8  # taken from the logit of an illegal action: its probability is 0 exactly, its log finite


class Head:
    """The contract, with `gradient` by autograd as the default."""

    size: int  # P, how many outputs the network must have
    context: int = 0  # how many numbers besides them condition the distribution
    stateful: bool = False  # whether these are a memory of the head's own (`next_noise`), not something observed
    actions: int | None = None  # how many there are, where they can be listed: it then has `probabilities`

    @property
    def family(self) -> str:
        """What stored actions and their log-probabilities are of: those of heads of one family can weigh each other's."""
        return repr(self)

    def apply_context(self, out: Any, context: Any) -> Any:
        """Outputs (B, P) given the context (B, C), as torch tensors or in numpy. Only where there is a context."""
        raise NotImplementedError

    def context_vjp(self, grad: Tensor, dist: Tensor, context: Tensor) -> Tensor:
        """∂/∂out of the network from ∂/∂out after `apply_context`, (B, P). Only where there is a context."""
        return grad

    def context_jvp(self, tangent: Tensor, dist: Tensor, context: Tensor) -> Tensor:
        """How the outputs after `apply_context` move where the network's move by `tangent`, (B, P): the transpose of
        `context_vjp`.
        """
        if type(self).context_vjp is Head.context_vjp:
            return tangent
        with torch.enable_grad():  # context_vjp is linear in its gradient, so its derivative is the transpose
            u = torch.zeros_like(tangent, requires_grad=True)
            return torch.autograd.grad((self.context_vjp(u, dist, context) * tangent).sum(), u)[0]

    def canonical(self, out: Tensor) -> Tensor:
        """The distribution's parameters: (B, P) → (B, P)."""
        return out

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        """Log π(a|s), (B,)."""
        raise NotImplementedError

    def probabilities(self, dist: Tensor) -> Tensor:
        """π(a|s) of every action, (B, actions). Only where they can be listed."""
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

    def kl_gradient(self, old: Tensor, new: Tensor, weight: Tensor) -> Tensor:
        """∂/∂out of Σ_b weight_b · KL(old_b ‖ new_b), out the outputs that gave `new`, (B, P)."""
        with torch.enable_grad():
            out = new.detach().requires_grad_()
            return torch.autograd.grad((weight * self.kl(old, self.canonical(out))).sum(), out)[0]

    def fisher(self, dist: Tensor, tangent: Tensor) -> Tensor:
        """M u, (B, P), for directions u (B, P) of the outputs, with M = E_a[∂log π/∂out ∂log π/∂outᵀ], the Fisher matrix of one
        row: the Hessian of KL(dist ‖ ·) at dist.
        """
        with torch.enable_grad():
            out = dist.detach().requires_grad_()
            kl = self.kl(dist.detach(), self.canonical(out)).sum()
            grad = torch.autograd.grad(kl, out, create_graph=True)[0]
            return torch.autograd.grad(grad, out, tangent)[0]

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """The randomness that `sample` turns into actions, drawn for a whole rollout at once: shape → shape + (…)."""
        raise NotImplementedError

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Actions from outputs (N, P) and noise (N, …), in numpy: this runs at every step."""
        raise NotImplementedError

    def mode(self, out: np.ndarray) -> np.ndarray:
        """The most likely actions: the greedy policy. Of a squashed normal it is the median."""
        raise NotImplementedError

    def to_env(self, act: np.ndarray) -> np.ndarray:
        """From actions as they are stored to the scale of the action space."""
        return act

    def from_env(self, act: np.ndarray) -> np.ndarray:
        """The inverse of `to_env`: the environment's actions (B, *) as they are stored."""
        return act

    def first_noise(self, noise: np.ndarray) -> np.ndarray:
        """The context (N, C) of an episode's first step, from a step's noise (N, …). Only where the head is stateful."""
        raise NotImplementedError

    def next_noise(self, context: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The next step's context (N, C) from this one's and its noise. Only where the head is stateful."""
        raise NotImplementedError

    def has_legal_action(self, context: np.ndarray) -> Any:
        """(N,) bool: whether the context (N, C) leaves any action."""
        return np.ones(len(context), bool)


def gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Gumbel noise, −log E with E exponential: argmax(logits + noise) is a draw from the softmax."""
    exponential = rng.standard_exponential(shape, dtype=np.float32)
    np.maximum(exponential, np.finfo(np.float32).tiny, out=exponential)
    return np.negative(np.log(exponential, out=exponential), out=exponential)


class Categorical(Head):
    """π(a|s) ∝ exp(logit_a). Works on log-probabilities, so a probability of 0 is no special case.

    masked: the context is the action mask, 1 or 0 for each action; an action with 0 has probability 0 (Huang & Ontañón 2020,
    arXiv 2006.14171).
    """

    def __init__(self, actions: int, masked: bool = False) -> None:
        self.size = self.actions = actions
        self.context = actions if masked else 0

    def __repr__(self) -> str:
        return f"Categorical({self.size}{', masked=True' if self.context else ''})"

    def apply_context(self, out: Any, context: Any) -> Any:
        return out + (context - 1.0) * MASK_PENALTY

    def has_legal_action(self, context: np.ndarray) -> Any:
        return (context > 0).any(-1)

    def canonical(self, out: Tensor) -> Tensor:
        return torch.log_softmax(out, dim=-1)

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        return dist.gather(-1, act.unsqueeze(-1)).squeeze(-1)

    def probabilities(self, dist: Tensor) -> Tensor:
        return dist.exp()

    def entropy(self, dist: Tensor) -> Tensor:
        return -(dist.exp() * dist).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return (old.exp() * (old - new)).sum(-1)

    def gradient(self, dist: Tensor, act: Tensor, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        # ∂logp/∂logit_j = 1[j = a] − p_j;  ∂entropy/∂logit_j = −p_j (log p_j + entropy)
        p = dist.exp()
        factor = weight.unsqueeze(-1)
        if ent_weight is not None:
            minus_entropy = (p * dist).sum(-1, keepdim=True)
            factor = factor + ent_weight.unsqueeze(-1) * (dist - minus_entropy)
        return p.mul_(factor).neg_().scatter_add_(-1, act.unsqueeze(-1), weight.unsqueeze(-1))

    def kl_gradient(self, old: Tensor, new: Tensor, weight: Tensor) -> Tensor:
        return (new.exp() - old.exp()).mul_(weight.unsqueeze(-1))  # ∂KL/∂logit = p_new − p_old

    def fisher(self, dist: Tensor, tangent: Tensor) -> Tensor:
        # M u = (diag(p) − p pᵀ) u = p (u − E_p u); centred twice, for where p is nearly 1 the first difference is rounding
        p = dist.exp()
        centred = tangent - (p * tangent).sum(-1, keepdim=True)
        return p * (centred - (p * centred).sum(-1, keepdim=True))

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return gumbel(rng, (*shape, self.size))

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return (out + noise).argmax(-1)

    def mode(self, out: np.ndarray) -> np.ndarray:
        return out.argmax(-1)


class MultiCategorical(Head):
    """Independent softmaxes, one per entry of the action: log π(a|s) = Σ_k log π_k(a_k|s).

    sizes: how many choices each entry has; shape: the action's, (entries,) if not given. Outputs are the entries' logits one
    after another. masked: as for `Categorical`, one number a choice, in the same order.
    """

    def __init__(self, sizes: tuple[int, ...], shape: tuple[int, ...] | None = None, masked: bool = False) -> None:
        self.sizes, self.shape = tuple(sizes), (len(sizes),) if shape is None else shape
        self.size = sum(sizes)
        self.context = self.size if masked else 0
        widest = max(sizes)
        counts = torch.tensor(sizes)
        self.first = counts.cumsum(0) - counts  # (K,) column of every entry's first choice
        self.exists = torch.arange(widest) < counts.unsqueeze(-1)  # (K, widest)
        # the columns as a table (K, widest); where there is no such choice, the column behind the last
        self.table = torch.where(self.exists, self.first.unsqueeze(-1) + torch.arange(widest), self.size)
        self.entry = torch.repeat_interleave(torch.arange(len(sizes)), counts)  # (P,) the entry of every column

    def __repr__(self) -> str:
        return f"MultiCategorical({self.sizes}{', masked=True' if self.context else ''})"

    def apply_context(self, out: Any, context: Any) -> Any:
        return out + (context - 1.0) * MASK_PENALTY

    def has_legal_action(self, context: np.ndarray) -> Any:
        return np.logical_or.reduceat(context > 0, self.first.numpy(), axis=-1).all(-1)

    def canonical(self, out: Tensor) -> Tensor:
        beyond = torch.full_like(out[..., :1], -torch.inf)
        table = torch.cat([out, beyond], -1)[..., self.table.to(out.device)]
        return (table - table.logsumexp(-1, keepdim=True))[..., self.exists.to(out.device)]

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        return dist.gather(-1, self._columns(act)).sum(-1)

    def _columns(self, act: Tensor) -> Tensor:
        return flat(act) + self.first.to(act.device)

    def entropy(self, dist: Tensor) -> Tensor:
        return -(dist.exp() * dist).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return (old.exp() * (old - new)).sum(-1)

    def gradient(self, dist: Tensor, act: Tensor, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        # as Categorical's, entry by entry
        p, entry = dist.exp(), self.entry.to(dist.device)
        factor = weight.unsqueeze(-1)
        if ent_weight is not None:
            minus_entropy = p.new_zeros(len(p), len(self.sizes)).index_add_(-1, entry, p * dist)
            factor = factor + ent_weight.unsqueeze(-1) * (dist - minus_entropy[:, entry])
        chosen = weight.unsqueeze(-1).expand(-1, len(self.sizes))
        return p.mul_(factor).neg_().scatter_add_(-1, self._columns(act), chosen)

    def kl_gradient(self, old: Tensor, new: Tensor, weight: Tensor) -> Tensor:
        return (new.exp() - old.exp()).mul_(weight.unsqueeze(-1))

    def fisher(self, dist: Tensor, tangent: Tensor) -> Tensor:
        # as Categorical's, entry by entry
        p, entry = dist.exp(), self.entry.to(dist.device)
        for _ in range(2):
            means = p.new_zeros(len(p), len(self.sizes)).index_add_(-1, entry, p * tangent)
            tangent = tangent - means[:, entry]
        return p * tangent

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return gumbel(rng, (*shape, self.size))

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return self.mode(out + noise)

    def mode(self, out: np.ndarray) -> np.ndarray:
        beyond = np.full_like(out[..., :1], -np.inf)
        table = np.concatenate([out, beyond], -1)[..., self.table.numpy()]
        return table.argmax(-1).reshape(-1, *self.shape)
