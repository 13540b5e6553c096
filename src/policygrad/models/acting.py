"""Acting by a compiled function: its arrays. Importing this imports numba."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from policygrad.compiled.acting import act_once
from policygrad.compiled.cache import patience
from policygrad.compiled.heads import CHOICES, HeadData
from policygrad.compiled.networks import Net, Work
from policygrad.models.arrays import head_data, net, others_of, work_memory
from policygrad.models.kernels import DenseKernel, LogStdKernel
from policygrad.models.workspace import Workspace
from policygrad.tree import Tree

Parts = tuple[Net, HeadData, Work]


def parts_of(space: Workspace, policy: Any, rows: int) -> Parts | None:
    """The policy as compiled acting takes it, with memory for so many rows; None where there is none for it."""
    return space.arrays(_parts, rows, [policy.flat, policy.head], policy)


def _parts(policy: Any, rows: int) -> Parts | None:
    own = isinstance(policy.kernel, LogStdKernel)
    known = vars(type(policy)).get("known") and not policy.head.context
    if not known or not isinstance(policy.kernel, DenseKernel | LogStdKernel):
        return None
    head, network = head_data(policy.head, own, policy.flat.numpy().dtype.type, others_of(policy)), net(policy)
    if head is None or head.others < 0:
        return None
    return network, head, work_memory([network], rows, policy.flat.dtype)


def acting(space: Workspace, policy: Any, rows: int) -> Callable[..., Any] | None:
    """`Policy.act` for so many environments; None where the head is to sample itself. Noise comes from `policy.noise`."""
    parts = parts_of(space, policy, rows)
    if parts is None:
        return None
    network, head, work = parts
    dtype, shape = network.theta.dtype, (rows, *getattr(policy.head, "shape", ()))
    kind, size, width = (
        (np.int64 if head.kind == CHOICES else dtype),
        math.prod(shape),
        rows * int(network.layers[0, 0]),
    )

    def act(obs: Tree, state: None, noise: np.ndarray) -> tuple[np.ndarray, None, Mapping[str, Tree]]:
        features, into = policy.inputs(obs), np.empty(size, kind)
        if features.size != width:
            raise ValueError(f"expected {width // rows} features of {rows} environments, got an array {features.shape}")
        act_once(network, head, np.ascontiguousarray(features, dtype).reshape(-1), noise, rows, work, into)
        return into.reshape(shape), None, {}

    if not act_once.overloads:  # to be compiled here, where somebody is told
        drawn = np.zeros((rows, policy.head.size), np.float32)
        with patience():
            act_once(network, head, np.zeros(width, dtype), drawn, 0, work, np.empty(0, kind))
    return act
