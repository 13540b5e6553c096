"""Baselines: what is subtracted from the return estimate. A baseline that ignores the action taken adds no bias:

    E[ b(s) · ∇log π(a|s) ] = b(s) · ∇ Σ_a π(a|s) = 0

A baseline is called before the update, `baseline(rollout, ret, values) -> (T, N)`, and fitted after it, `fit(rollout,
ret)`, so that adv saw the old one. The critic's own V is the default wherever there is a critic.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from policygrad.data import Rollout, TooFewError, Values


class Baseline(Protocol):
    """The contract; subclassing nothing is needed."""

    needs_critic: bool
    needs_episodes: bool

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        """b_t, (T, N)."""
        ...

    def fit(self, rollout: Rollout, ret: Tensor) -> None:
        """Learn from this rollout, after the update."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        ...


class _Stateless:
    needs_critic = False
    needs_episodes = False

    def fit(self, rollout: Rollout, ret: Tensor) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class NoBaseline(_Stateless):
    """b = 0."""

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return torch.zeros_like(ret)


class Constant(_Stateless):
    """b = value on every step. Unbiased for any value; the variance is U-shaped in it, so a bad value raises it."""

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return torch.full_like(ret, self.value)


class CriticValue(_Stateless):
    """b_t = V(s_t), the critic's: the default wherever there is a critic. Near the best state baseline, not the best."""

    needs_critic = True

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return values.val


class RunningMean(_Stateless):
    """b = exponentially weighted mean of the returns of *earlier* batches: b ← decay · b + (1 − decay) · mean(ret).

    Independent of the batch it is subtracted from, hence unbiased; 0 until the first fit, which sets it outright.
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.mean: float | None = None

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return torch.full_like(ret, self.mean or 0.0)

    def fit(self, rollout: Rollout, ret: Tensor) -> None:
        new = float(torch.where(rollout.mask, ret, 0.0).sum() / rollout.steps)
        self.mean = new if self.mean is None else self.decay * self.mean + (1.0 - self.decay) * new

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean = state["mean"]


class LeaveOneOut(_Stateless):
    """b_t of a trajectory = mean of ret_t over the *other* trajectories; finished ones count with what they have left, 0.

    (Σ_j ret_t^j − ret_t^i) / (N − 1): independent of the trajectory it is subtracted from, hence unbiased, where the plain
    batch mean shrinks the gradient by 1 − 1/N. Kool, van Hoof & Welling 2019. Needs whole episodes, one a column.
    """

    needs_episodes = True

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        n = ret.shape[1]
        if n < 2:
            raise TooFewError(f"LeaveOneOut needs at least 2 trajectories, got {n}: collect more or use RunningMean")
        if not rollout.whole_episodes:
            raise ValueError("LeaveOneOut needs whole episodes, one a column: collect with .episodes")
        return (ret.sum(1, keepdim=True) - ret) / (n - 1)
