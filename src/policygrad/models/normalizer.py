"""The observation normaliser: part of the policy, so it is saved, loaded and exported with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from policygrad.forms import LARGEST, MANY, Form, array
from policygrad.total import moments


class Normalizer(nn.Module):
    """(obs − mean) / std of all observations seen so far, clipped to ±clip. Changed by `merge` only, never by use.

    Moments are float64 and merged batch by batch (Chan, Golub & LeVeque 1979); masked rows enter nothing.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...], clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self._cast: dict[torch.dtype, tuple[Tensor, Tensor]] = {}  # see `cast`

    def forward(self, obs: Tensor) -> Tensor:
        if not obs.is_floating_point():
            obs = obs.to(torch.get_default_dtype())
        mean, inv_std = self.cast(obs.dtype)
        return (obs - mean).mul_(inv_std).clamp_(-self.clip, self.clip)

    def cast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and 1/std in the observations' type."""
        if dtype not in self._cast:
            self._cast[dtype] = (self.mean.to(dtype), (self.var + 1e-8).rsqrt().to(dtype))
        return self._cast[dtype]

    def merge(self, x: Tensor) -> None:
        """Include raw features (B, *) that were acted on in the moments."""
        n, mean, var = moments(x.double())
        total = self.count + n
        delta = mean - self.mean
        self.var.copy_((self.var * self.count + var * n + delta.square() * self.count * n / total) / total)
        self.mean.add_(delta * n / total)
        self.count.copy_(total)
        self._cast.clear()

    def take(self, other: Normalizer) -> None:
        """Take over the moments of another one."""
        for own, its in zip(self.buffers(), other.buffers(), strict=True):
            own.copy_(its)
        self.refresh()

    def refresh(self) -> None:
        """After somebody else wrote into the moments."""
        self._cast.clear()

    def forms(self) -> dict[str, Form]:
        """Of its buffers: finite moments, var and count at least 0."""
        shape = tuple(self.mean.shape)
        mean, var = array(shape, "float64"), array(shape, "float64", 0.0, LARGEST**2)
        return {"mean": mean, "var": var, "count": array((), "float64", 0.0, MANY)}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Normalizer:
        """To another device; the moments stay float64 whatever the networks become."""
        moments = {name: buffer.clone() for name, buffer in self.named_buffers()}
        super()._apply(fn, recurse)
        for name, buffer in moments.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        self._cast.clear()
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._cast.clear()
