"""Groups of trajectories that belong together: answers to one prompt, episodes that began in the same context of a bandit.

A key says which trajectories share a group. It is the name of an array of `Rollout.extra`, (T, N, *), whose first row holds
the keys, or a function of the rollout that gives them, (N, *): one number or one row of numbers per trajectory. Equal keys
mean the same group. So `by="group"` reads `extra["group"]`, and `by=lambda rollout: rollout.obs[0]` groups trajectories by
their first observation. A key must be known before the first action: one that depends on actions would bias the gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from policygrad.data import Rollout, TooFewError
from policygrad.tree import tree_leaves

Key = str | Callable[[Rollout], Tensor]


def groups_of(rollout: Rollout, by: Key) -> Tensor:
    """The number of each trajectory's group, 0, 1, …: (N,) int64. Trajectories are columns.

    Raises ValueError for a name that is not in `extra`, for keys of another shape, and for keys that are not finite.
    """
    columns = rollout.rew.shape[1]
    if callable(by):
        key = torch.as_tensor(by(rollout), device=rollout.rew.device)
    elif by in rollout.extra:
        key = torch.cat([x[0].reshape(columns, -1) for x in tree_leaves(rollout.extra[by])], -1)
    else:
        known = ", ".join(map(repr, rollout.extra)) or "empty"
        raise ValueError(
            f"groups are read from rollout.extra[{by!r}], which is not there (extra is {known}): give by= the name of an "
            "array of the rollout, or a function of the rollout such as lambda rollout: rollout.obs[0]"
        )
    if not key.ndim or len(key) != columns:
        raise ValueError(f"by must give one key per trajectory, ({columns}, …), got {tuple(key.shape)}")
    wrong = ~torch.isfinite(key.reshape(columns, -1)).all(1)
    if wrong.any():
        raise ValueError(
            f"the key of trajectory {int(wrong.nonzero()[0])} is not finite: give every trajectory a number"
        )
    return torch.unique(key, dim=0, return_inverse=True)[1].view(columns)


def sums_of(x: Tensor, group: Tensor) -> Tensor:
    """The sum of x (…, N) over each trajectory's group, its own included: (…, N)."""
    sums = x.new_zeros(*x.shape[:-1], int(group.max()) + 1)
    return sums.index_add_(-1, group, x)[..., group]


def mean_of_others(ret: Tensor, group: Tensor, alone: float | None = None) -> Tensor:
    """The mean of ret (T, N) over the other trajectories of the same group, (T, N); `alone` where there are none.

    Raises TooFewError for a group of one where alone is None.
    """
    size = sums_of(ret.new_ones(len(group)), group)
    if alone is None and bool((size < 2).any()):
        raise TooFewError(
            f"trajectory {int((size < 2).nonzero()[0])} is the only one of its group, so there are no others to take the mean "
            "of: collect at least 2 trajectories of every group, or set alone=0.0, which leaves such a trajectory without a "
            "baseline"
        )
    others = (sums_of(ret, group) - ret) / (size - 1.0).clamp(min=1.0)
    return others if alone is None else torch.where(size > 1, others, alone)
