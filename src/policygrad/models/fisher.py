"""Products with a policy's Fisher matrix by a compiled function: their arrays. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.compiled.cache import patience
from policygrad.compiled.fisher import FisherMemory, fisher_product
from policygrad.compiled.heads import HeadData
from policygrad.compiled.networks import Net
from policygrad.data import Batch
from policygrad.models.arrays import head_data, net, numbers, vector, work_memory
from policygrad.models.kernels import DenseKernel, LogStdKernel
from policygrad.models.workspace import Workspace


def fisher(space: Workspace, policy: Any, batch: Batch, dist: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
    """See `compiling.fisher`."""
    found = space.arrays(_make, 1 << (len(dist) - 1).bit_length(), [policy.flat, policy.head], policy)
    if found is None:
        return None
    network, head, memory = found
    features, given = numbers(policy.features(batch.obs), policy.flat), numbers(dist, policy.flat)
    fresh = True

    def product(v: Tensor, weight: Tensor) -> Tensor:
        nonlocal fresh
        out, shares = torch.empty_like(v), numbers(weight, policy.flat)
        with patience():
            fisher_product(network, head, features, given, shares, v.numpy(), fresh, memory, out.numpy())
        fresh = False
        return out

    return product


def _make(policy: Any, rows: int) -> tuple[Net, HeadData, FisherMemory] | None:
    own = isinstance(policy.kernel, LogStdKernel)
    known = vars(type(policy)).get("known") and not policy.head.stateful
    if not known or not isinstance(policy.kernel, DenseKernel | LogStdKernel):
        return None
    network, head = net(policy), head_data(policy.head, own, policy.flat.numpy().dtype.type)
    if head is None or int(network.layers[-1, 1]) * (1 + own) != policy.head.size:
        return None
    widest, dtype = rows * int(np.max(network.layers[:, 1])), policy.flat.dtype
    memory = FisherMemory(work_memory([network], rows, dtype), *(vector(widest, dtype) for _ in range(3)))
    return network, head, memory
