"""Acting as one compiled function: from the observations of N environments to sampled actions."""

from __future__ import annotations

import numpy as np

from policygrad.compiled.cache import compiled, part
from policygrad.compiled.heads import HeadData, choose
from policygrad.compiled.networks import Net, Work, forward


@part
def act(
    net: Net, head: HeadData, features: np.ndarray, noise: np.ndarray, rows: int, work: Work, into: np.ndarray
) -> None:
    """Write sampled actions (N, K) or (N, D) for features (N, F) and the noise of a step."""
    own = net.theta[: head.dims if head.own_log_std else 0]
    choose(head, own, work.h[forward(net, features, rows, work) :], rows, noise, into)


@compiled
def act_once(
    net: Net, head: HeadData, features: np.ndarray, noise: np.ndarray, rows: int, work: Work, into: np.ndarray
) -> None:
    """`act`, for Python: noise (N, …)."""
    act(net, head, features, noise.reshape(-1), rows, work, into)
