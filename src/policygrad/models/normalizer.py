"""The observation normaliser: part of the policy, so it is saved, loaded and exported with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policygrad.data import Rollout


class Normalizer(nn.Module):
    """(obs − mean) / std of all observations seen so far, clipped to ±clip. Changed by `update` only, never by use.

    Moments are float64 and merged batch by batch (Chan, Golub & LeVeque 1979); masked rows enter nothing.
    """

    mean: Tensor
    var: Tensor
    count: Tensor
    shift: Tensor
    inv_std: Tensor

    def __init__(self, shape: tuple[int, ...], clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self._refresh()

    def forward(self, obs: Tensor) -> Tensor:
        return (obs - self.shift.to(obs.dtype)).mul_(self.inv_std.to(obs.dtype)).clamp_(-self.clip, self.clip)

    def update(self, rollout: Rollout) -> None:
        """Merge the valid rows' observations."""
        x = rollout.obs[:-1][rollout.mask].double()
        n, mean, var = len(x), x.mean(0), x.var(0, correction=0)
        total = self.count + n
        delta = mean - self.mean
        self.var.copy_((self.var * self.count + var * n + delta.square() * self.count * n / total) / total)
        self.mean.add_(delta * n / total)
        self.count.copy_(total)
        self._refresh()

    def _refresh(self) -> None:
        """Float32 copies for the hot path."""
        self.shift = self.mean.float()
        self.inv_std = (self.var + 1e-8).rsqrt().float()

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._refresh()
