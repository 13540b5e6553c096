"""Optimisers on one flat vector. They ascend: `step(params, grad, lr)` moves params towards grad.

torch.optim is for users' own modules: constructing one of its optimisers imports torch._dynamo (a second), and its loop over
parameter tensors costs more than the gradients of a small network.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from policygrad.errors import NotFiniteError
from policygrad.forms import LARGEST, MANY, Form, FormError, array, form_of, table, whole


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

    def state_form(self, params: Tensor) -> Form:
        """Of the state beside these parameters."""
        return table({})

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
        m, v = self.moments(params)
        if grad.numel() != params.numel():
            raise FormError(f"the gradient has {grad.numel():,} numbers, but is to move {params.numel():,} parameters")
        self.t += 1
        # the private kernel is tried, and used, on the CPU alone
        update = _fused if params.is_cpu and fused_is_right() else _plain
        update(params, grad, m, v, self.t, lr, self.beta1, self.beta2, self.eps)

    def moments(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """The moments of these parameters (P,), 0 before the first step. Raises FormError for those of another number."""
        if self.m is None or self.v is None:
            self.m, self.v = torch.zeros_like(params), torch.zeros_like(params)
        if self.m.dtype != params.dtype or self.m.device != params.device:  # the network was converted, or a file's
            self.m, self.v = self.m.to(params), self.v.to(params)
        if not self.m.numel() == self.v.numel() == params.numel():  # a kernel would write beyond them
            raise FormError(f"Adam has moments of {self.m.numel():,} parameters, but is to move {params.numel():,}")
        return self.m, self.v

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t} if self.t == 0 else {"t": self.t, "m": self.m, "v": self.v}

    def state_form(self, params: Tensor) -> Form:
        """Of the state beside these parameters (P,): moments of their type and shape, v at least 0, or no step yet."""
        shape, dtype = tuple(params.shape), str(params.dtype).rpartition(".")[2]
        moments = table({"t": whole(1, MANY), "m": array(shape, dtype), "v": array(shape, dtype, 0.0, LARGEST**2)})
        fresh = table({"t": whole(0, 0)})
        return lambda name, state: (moments if isinstance(state, dict) and "m" in state else fresh)(name, state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Raises FormError for moments that are none; of whose parameters, `step` will see."""
        m = state.get("m") if isinstance(state, dict) else None
        form_of(self, m if isinstance(m, Tensor) else torch.zeros(0))("state of Adam", state)
        self.t = state["t"]
        self.m = state["m"].clone() if "m" in state else None
        self.v = state["v"].clone() if "v" in state else None


def _plain(
    p: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, beta1: float, beta2: float, eps: float
) -> None:
    """Adam, as the paper has it."""
    m.lerp_(g, 1.0 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1.0 - beta2)
    root = v.sqrt().mul_(1.0 / math.sqrt(1.0 - beta2**t)).add_(eps)
    p.addcdiv_(m, root, value=lr / (1.0 - beta1**t))


def _fused(
    p: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, beta1: float, beta2: float, eps: float
) -> None:
    """The same in one pass of torch's own kernel, a quarter of the time; private, hence `fused_is_right`.

    It descends: −lr rather than `maximize`, which would keep −m in the state.
    """
    step = torch.from_numpy(np.array(t, np.float32))  # a fifth of the time of torch.tensor(t)
    options = {"lr": -lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": 0.0, "amsgrad": False}
    torch._fused_adam_([p], [g], [m], [v], [], [step], maximize=False, **options)  # pyright: ignore


@cache
def fused_is_right() -> bool:
    """Whether this torch's fused kernel does what `_plain` does: three steps of each, compared."""
    start = torch.linspace(-1.0, 1.0, 5)
    plain, fused = ([start.clone(), torch.zeros(5), torch.zeros(5)] for _ in range(2))
    try:
        for t in range(1, 4):
            for step, (p, m, v) in ((_plain, plain), (_fused, fused)):
                step(p, start * t, m, v, t, 0.1, 0.9, 0.999, 1e-5)
    except (AttributeError, TypeError, RuntimeError):
        return False
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(plain, fused, strict=True))


OPTIMIZERS: dict[str, type[Adam] | type[SGD]] = {"adam": Adam, "sgd": SGD}


def make_optimizer(name: str | Optimizer) -> Optimizer:
    """An optimiser by its name; an optimiser is returned unchanged."""
    if not isinstance(name, str):
        return name
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {sorted(OPTIMIZERS)}, got {name!r}")
    return OPTIMIZERS[name]()


def check_norm(norm: float, owner: str, remedy: str) -> None:
    """Raises NotFiniteError where the norm of a gradient is not finite: before it moves anything."""
    if not math.isfinite(norm):
        raise NotFiniteError(f"{owner}'s gradient has norm {norm}: {remedy}")


def clip_by_norm(grad: Tensor, max_norm: float | None) -> float:
    """Scale grad in place to an ℓ₂ norm of at most max_norm (None: do not scale). Returns the norm before."""
    norm = float(torch.linalg.vector_norm(grad))
    if max_norm is not None and norm > max_norm:
        grad.mul_(max_norm / (norm + 1e-6))
    return norm
