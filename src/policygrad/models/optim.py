"""Optimisers on one flat vector. They ascend: `step(params, grad, lr)` moves params towards grad.

torch.optim is for users' own modules: constructing one of its optimisers imports torch._dynamo (a second), and its loop over
parameter tensors costs more than the gradients of a small network.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor


class Optimizer(Protocol):
    """The contract."""

    def step(self, params: Tensor, grad: Tensor, lr: float) -> None:
        """Move params (P,) in place."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        ...


class SGD:
    """θ ← θ + lr · g."""

    def step(self, params: Tensor, grad: Tensor, lr: float) -> None:
        params.add_(grad, alpha=lr)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Adam:
    """θ ← θ + lr · m̂ / (√v̂ + eps): Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1, ascending.

    eps = 1e-5 rather than 1e-8, as policy-gradient libraries have it.
    """

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-5) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.t = 0
        self.m: Tensor | None = None
        self.v: Tensor | None = None

    def step(self, params: Tensor, grad: Tensor, lr: float) -> None:
        if self.m is None or self.v is None:
            self.m, self.v = torch.zeros_like(grad), torch.zeros_like(grad)
        self.t += 1
        self.m.lerp_(grad, 1.0 - self.beta1)
        self.v.mul_(self.beta2).addcmul_(grad, grad, value=1.0 - self.beta2)
        root = self.v.sqrt().mul_(1.0 / math.sqrt(1.0 - self.beta2**self.t)).add_(self.eps)
        params.addcdiv_(self.m, root, value=lr / (1.0 - self.beta1**self.t))

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t} if self.m is None else {"t": self.t, "m": self.m, "v": self.v}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.t = state["t"]
        self.m = state["m"].clone() if "m" in state else None
        self.v = state["v"].clone() if "v" in state else None


OPTIMIZERS: dict[str, type[Adam] | type[SGD]] = {"adam": Adam, "sgd": SGD}


def make_optimizer(name: str) -> Optimizer:
    """An optimiser by its name."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {sorted(OPTIMIZERS)}, got {name!r}")
    return OPTIMIZERS[name]()


def clip_by_norm(grad: Tensor, max_norm: float | None) -> Tensor:
    """Scale grad in place to at most max_norm (ℓ₂); None leaves it. Returns the norm before, a scalar tensor."""
    norm = torch.linalg.vector_norm(grad)
    if max_norm is not None:
        grad.mul_((max_norm / (norm + 1e-6)).clamp_(max=1.0))
    return norm
