"""Epochs of a policy's ascent, or of a critic's regression, as one compiled function: all of their minibatches."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from policygrad.compiled.cache import compiled, part
from policygrad.compiled.heads import CHOICES, Aim, HeadData, Steps, score_choices, score_normals, score_value
from policygrad.compiled.networks import AdamState, Net, Work, adam, clip_by_norm, copy_to, fill, forward, pull_back


class AscentData(NamedTuple):
    """How the parameters move: Adam's moments, the number of its first step, its rate, the largest norm of a gradient."""

    state: AdamState
    t: int
    lr: float
    most: float


class EpochMemory(NamedTuple):
    """What an epoch works in, enough for its largest minibatch."""

    features: np.ndarray
    work: Work
    grad: np.ndarray  # (P,)


@part
def gather(features: np.ndarray, order: np.ndarray, into: np.ndarray, width: int) -> None:
    """The rows `order` of (B, F), one after another."""
    for r in range(len(order)):
        copy_to(into, r * width, features, order[r] * width, width)


@part
def ascend(net: Net, how: AscentData, step: int, grad: np.ndarray) -> float:
    """Clip the gradient and take a step of Adam, if it is finite. Returns the norm before."""
    norm = clip_by_norm(grad, how.most)
    if math.isfinite(norm):
        adam(net.theta, grad, how.state, how.t + step, how.lr)
    return norm


@compiled
def policy_epochs(
    net: Net, head: HeadData, steps: Steps, count: int, order: np.ndarray, cuts: np.ndarray, aim: Aim, how: AscentData,
    memory: EpochMemory, norms: np.ndarray,
) -> int:  # fmt: skip
    """Ascend the aim (see `heads.Aim`) on the minibatches order[cuts[m] : cuts[m + 1]], each of them some of `count` rows.

    Writes the norms of the gradients. One that is not finite is the last. Returns how many steps were taken.
    """
    width, own = net.layers[0, 0], head.dims if head.own_log_std else 0
    for m in range(len(cuts) - 1):
        piece = order[cuts[m] : cuts[m + 1]]
        rows, scale = len(piece), count / len(piece)  # so that the sums of a piece estimate the batch's
        gather(steps.features, piece, memory.features, width)
        out = memory.work.h[forward(net, memory.features, rows, memory.work) :]
        if head.kind == CHOICES:
            score_choices(head, steps, aim, piece, scale, out, memory.work.up)
        else:
            score_normals(head, steps, aim, piece, scale, net.theta[:own], out, memory.work.up, memory.grad[:own])
        if head.others > 0:
            score_value(head, steps, aim, piece, scale, net.layers[-1, 1], out, memory.work.up)
        pull_back(net, memory.features, rows, memory.work, memory.grad)
        norms[m] = ascend(net, how, m, memory.grad)
        if not math.isfinite(norms[m]):
            return m
    return len(cuts) - 1


@compiled
def value_epochs(
    net: Net, features: np.ndarray, target: np.ndarray, choice: np.ndarray, order: np.ndarray, cuts: np.ndarray,
    how: AscentData, memory: EpochMemory, norms: np.ndarray,
) -> int:  # fmt: skip
    """Descend ½ mean (target − out)² on the minibatches, out the value, or that of the action where `choice` (B,) has one.

    Writes and returns what `policy_epochs` does.
    """
    width, outputs = net.layers[0, 0], net.layers[-1, 1]
    up = memory.work.up
    for m in range(len(cuts) - 1):
        piece = order[cuts[m] : cuts[m + 1]]
        rows, share = len(piece), target.dtype.type(1.0 / len(piece))
        gather(features, piece, memory.features, width)
        out = memory.work.h[forward(net, memory.features, rows, memory.work) :]
        fill(up, rows * outputs, target.dtype.type(0.0))
        for r in range(rows):
            at = r * outputs + (choice[piece[r]] if len(choice) > 0 else 0)
            up[at] = (target[piece[r]] - out[at]) * share
        pull_back(net, memory.features, rows, memory.work, memory.grad)
        norms[m] = ascend(net, how, m, memory.grad)
        if not math.isfinite(norms[m]):
            return m
    return len(cuts) - 1
