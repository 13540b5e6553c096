"""Products with the mean Fisher matrix of a policy as one compiled function: F v = Σ_b weight_b Jᵀ M J v, see
`PolicyEvaluation.fisher_product`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from policygrad.compiled.blas import NO, YES, gemm
from policygrad.compiled.cache import compiled, part
from policygrad.compiled.heads import CHOICES, HeadData
from policygrad.compiled.networks import Net, Work, forward, pull_back, through_activation


class FisherMemory(NamedTuple):
    """What products over B rows work in. `work` holds the outputs of every layer, of the last forward pass."""

    work: Work
    along: np.ndarray  # how a layer's outputs move
    below: np.ndarray  # and those of the layer below it
    more: np.ndarray


@part
def push_forward(net: Net, x: np.ndarray, rows: int, direction: np.ndarray, memory: FisherMemory) -> np.ndarray:
    """∂out/∂θ · v for a direction v (P,), (B, O), at the outputs of the last `forward`: `DenseKernel.jvp`."""
    along, below, more, h = memory.along, memory.below, memory.more, memory.work.h
    start, last = 0, len(net.layers) - 1
    for layer in range(last + 1):
        inputs, outputs, weights, biases = net.layers[layer]
        if layer == 0:
            gemm(YES, NO, outputs, rows, inputs, direction, weights, inputs, x, 0, inputs, along, 0, outputs)
        else:
            under = start - rows * inputs
            gemm(YES, NO, outputs, rows, inputs, direction, weights, inputs, h, under, inputs, along, 0, outputs)
            gemm(YES, NO, outputs, rows, inputs, net.theta, weights, inputs, below, 0, inputs, more, 0, outputs)
        for r in range(rows):
            row, other = along[r * outputs : (r + 1) * outputs], more[r * outputs : (r + 1) * outputs]
            for j in range(outputs):
                row[j] += direction[biases + j] + (other[j] if layer > 0 else row.dtype.type(0.0))
        if layer < last:
            through_activation(net, along[: rows * outputs], memory.work, start, rows * outputs)
        start += rows * outputs
        along, below = below, along
    return below


@part
def fisher_choices(head: HeadData, dist: np.ndarray, weight: np.ndarray, tangent: np.ndarray, up: np.ndarray) -> None:
    """Weight · M u of every row, M = diag(p) − p pᵀ for each entry: `Categorical.fisher`."""
    width, zero = head.sizes.sum(), dist.dtype.type(0.0)
    for r in range(len(weight)):
        at = r * width
        for k in range(len(head.sizes)):
            stop = at + head.sizes[k]
            for _ in range(2):  # centred twice, for where p is nearly 1 the first difference is rounding
                mean = zero
                for j in range(at, stop):
                    mean += math.exp(dist[j]) * tangent[j]
                for j in range(at, stop):
                    tangent[j] -= mean
            for j in range(at, stop):
                up[j] = math.exp(dist[j]) * tangent[j] * weight[r]
            at = stop


@part
def fisher_normals(
    head: HeadData,
    dist: np.ndarray,
    weight: np.ndarray,
    direction: np.ndarray,
    tangent: np.ndarray,
    up: np.ndarray,
    own_grad: np.ndarray,
) -> None:
    """Weight · M u of every row, M = diag(1/σ², 2): `Gaussian.fisher`."""
    number, dims = dist.dtype.type, head.dims
    width, two = dims if head.own_log_std else 2 * dims, number(2.0)
    for d in range(len(own_grad)):
        own_grad[d] = number(0.0)
    for r in range(len(weight)):
        for d in range(dims):
            up[r * width + d] = tangent[r * width + d] * math.exp(-two * dist[r * 2 * dims + dims + d]) * weight[r]
            if head.own_log_std:
                own_grad[d] += two * direction[d] * weight[r]
            else:
                up[r * width + dims + d] = two * tangent[r * width + dims + d] * weight[r]


@compiled
def fisher_product(
    net: Net, head: HeadData, features: np.ndarray, dist: np.ndarray, weight: np.ndarray, direction: np.ndarray,
    fresh: bool, memory: FisherMemory, out: np.ndarray,
) -> None:  # fmt: skip
    """Write F v into out (P,), for a direction v (P,), distributions (B, P) and weights (B,). fresh: no forward pass of these
    features has been made yet in this memory.
    """
    rows, own = len(weight), head.dims if head.own_log_std else 0
    if fresh:
        forward(net, features, rows, memory.work)
    tangent = push_forward(net, features, rows, direction, memory)
    if head.kind == CHOICES:
        fisher_choices(head, dist, weight, tangent, memory.work.up)
    else:
        fisher_normals(head, dist, weight, direction, tangent, memory.work.up, out[:own])
    pull_back(net, features, rows, memory.work, out)
