"""Returns: one recursion, y_t = x_t + decay_t · y_{t+1}, and what is built on it.

Every function takes a `Rollout` (T, N) and gives (T, N). Decay is 0 at ends, so nothing flows from one trajectory into
another; masked rows have x = 0 and decay = 0, set by `where`: whatever stands there is not even multiplied by 0. A
number that is not finite on a valid row does spread, and the learner refuses it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policygrad.data import Rollout


def discounted_cumsum(x: Tensor, decay: Tensor) -> Tensor:
    """y_t = x_t + decay_t · y_{t+1}, with y_T = 0, along the first axis. x, decay: (T, …).

    Computed by doubling: before a round with stride k, y_t holds its first k terms and d_t the product of k decays, so
    log₂ T rounds of vector operations replace T small ones. Special cases: decay = 1 is the reversed cumulative sum;
    decay = 0 is x itself.
    """
    y, d, T = x.clone(), decay, len(x)
    k = 1
    while k < T:
        y[:-k].add_(d[: T - k] * y[k:])
        d = d[:-k] * d[k:]
        k *= 2
    return y


def rewards(rollout: Rollout) -> Tensor:
    """r_t on valid rows, 0 elsewhere: (T, N)."""
    return torch.where(rollout.mask, rollout.rew, 0.0)


def bootstrap(rollout: Rollout, next_val: Tensor) -> Tensor:
    """V(s_{t+1}), which is 0 after a termination and on masked rows: (T, N)."""
    return torch.where(rollout.mask & ~rollout.terminated, next_val, 0.0)


def _decay(rollout: Rollout, factor: float) -> Tensor:
    return (rollout.mask & ~rollout.end).to(rollout.rew.dtype) * factor


def total_return(rollout: Rollout, gamma: float) -> Tensor:
    """R(τ) = Σ_t γᵗ r_t, discounted from the first step, on every row of its column: (T, N), padding included."""
    discount = gamma ** rollout.time.to(rollout.rew.dtype)
    return (discount * rewards(rollout)).sum(0).expand_as(rollout.rew)


def reward_to_go(rollout: Rollout, next_val: Tensor, gamma: float, weight_ratio: Tensor | None = None) -> Tensor:
    """G_t = Σ_{k≥t} γ^{k−t} r_k, plus γ^{…} V(s) where a trajectory was truncated or cut.

    weight_ratio (T, N): what else the return from t + 1 on is multiplied by at t, G_t = r_t + γ weight_ratio_t G_{t+1}.
    """
    rest = torch.where(rollout.end, bootstrap(rollout, next_val), 0.0)
    decay = _decay(rollout, gamma) if weight_ratio is None else _decay(rollout, gamma) * weight_ratio
    return discounted_cumsum(rewards(rollout) + gamma * rest, decay)


def n_step(rollout: Rollout, next_val: Tensor, gamma: float, n: int) -> Tensor:
    """Gₜ⁽ⁿ⁾ = r_t + γ r_{t+1} + … + γⁿ V(s_{t+n}), fewer steps where the trajectory ends before.

    n backups y_t ← r_t + γ y_{t+1} of y = V. Special cases: n = 1 is the TD target; n ≥ T is `reward_to_go`.
    """
    rew, after = rewards(rollout), bootstrap(rollout, next_val)
    inside = rollout.mask & ~rollout.end
    y = rew + gamma * after
    for _ in range(min(n, len(rew)) - 1):
        following = torch.cat([y[1:], torch.zeros_like(y[:1])])
        y = rew + gamma * torch.where(inside, following, after)
    return y


def td_error(rollout: Rollout, val: Tensor, next_val: Tensor, gamma: float) -> Tensor:
    """δ_t = r_t + γ V(s_{t+1}) − V(s_t); 0 on masked rows."""
    return rewards(rollout) + gamma * bootstrap(rollout, next_val) - torch.where(rollout.mask, val, 0.0)


def gae(rollout: Rollout, val: Tensor, next_val: Tensor, gamma: float, lam: float) -> Tensor:
    """Â_t = Σ_k (γλ)ᵏ δ_{t+k}.

    Schulman et al. 2016 (arXiv 1506.02438), eq. 16. Special cases: λ = 0 is the TD error; λ = 1 is reward-to-go − V.
    """
    return discounted_cumsum(td_error(rollout, val, next_val, gamma), _decay(rollout, gamma * lam))
