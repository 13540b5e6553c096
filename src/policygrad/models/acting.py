"""Acting by a compiled function: its arrays. Importing this imports numba."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from policygrad.compiled.acting import act_once
from policygrad.compiled.cache import patience
from policygrad.compiled.heads import CHOICES, HeadData
from policygrad.compiled.networks import Net, Work
from policygrad.models.arrays import head_data, net, work_memory
from policygrad.models.kernels import DenseKernel, LogStdKernel
from policygrad.models.workspace import Workspace

Parts = tuple[Net, HeadData, Work]


def parts_of(space: Workspace, policy: Any, rows: int) -> Parts | None:
    """The policy as compiled acting takes it, with memory for so many rows; None where there is none for it."""
    return space.arrays(_parts, rows, [policy.flat, policy.head], policy)


def _parts(policy: Any, rows: int) -> Parts | None:
    own = isinstance(policy.kernel, LogStdKernel)
    known = vars(type(policy)).get("known") and not policy.head.context
    if not known or not isinstance(policy.kernel, DenseKernel | LogStdKernel):
        return None
    head = head_data(policy.head, own, policy.flat.numpy().dtype.type)
    network = net(policy)
    outputs = policy.head.size // 2 if own else policy.head.size
    if head is None or int(network.layers[-1, 1]) != outputs:
        return None
    return network, head, work_memory([network], rows, policy.flat.dtype)


def act(space: Workspace, policy: Any, features: np.ndarray, noise: np.ndarray) -> np.ndarray | None:
    """Sampled actions (N, *) for features (N, *) and the noise (N, …) of a step; None where the head is to sample itself."""
    rows = len(features)
    parts = parts_of(space, policy, rows)
    if parts is None:
        return None
    network, head, work = parts
    x, z = (np.ascontiguousarray(part, network.theta.dtype).reshape(-1) for part in (features, noise))
    if len(x) != rows * network.layers[0, 0]:
        return None
    into = np.empty((rows, *act_shape(policy.head)), np.int64 if head.kind == CHOICES else network.theta.dtype)
    with nullcontext() if space.warm else patience():
        act_once(network, head, x, z, rows, work, into.reshape(-1))
    space.warm = True
    return into


def act_shape(head: Any) -> tuple[int, ...]:
    """The shape of one action."""
    return getattr(head, "shape", ())
