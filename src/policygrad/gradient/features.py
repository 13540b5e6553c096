"""Features of observation and time that baselines regress on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from policygrad.tree import Tree, tree_leaves

Features = Callable[[Tree, Tensor], Tensor]  # (obs (B, *), time (B,)) → (B, F)


def polynomial_features(obs: Tree, time: Tensor) -> Tensor:
    """(o, o², τ, τ², τ³, 1) with o the flat observation clipped to ±10 and τ = t/100: (B, 2D + 4).

    The linear baseline of Duan et al. 2016 (arXiv 1604.06778), as in their code.
    """
    o = torch.cat([x.reshape(len(time), -1).double() for x in tree_leaves(obs)], dim=-1).clamp(-10.0, 10.0)
    tau = time.double().unsqueeze(-1) / 100.0
    return torch.cat([o, o**2, tau, tau**2, tau**3, torch.ones_like(tau)], dim=-1)


def raw_features(obs: Tree, time: Tensor) -> Tensor:
    """(o, t): the flat observation and the time step, (B, D + 1)."""
    return torch.cat([x.reshape(len(time), -1).double() for x in (*tree_leaves(obs), time)], dim=-1)
