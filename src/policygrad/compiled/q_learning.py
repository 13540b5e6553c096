"""The step of `updates.q_learning.QLearning` as one compiled function."""

from __future__ import annotations

import math

import numpy as np

from policygrad.compiled.cache import compiled
from policygrad.compiled.networks import AdamState, Net, Work, adam, clip_by_norm, copy_to, fill, forward, pull_back


@compiled
def q_step(
    net: Net, copy: Net, double: bool, huber: bool, features: np.ndarray, following: np.ndarray, illegal: np.ndarray,
    act: np.ndarray, ret: np.ndarray, discount: np.ndarray, most: float, state: AdamState, t: int, lr: float, work: Work,
    q: np.ndarray, error: np.ndarray, grad: np.ndarray,
) -> float:  # fmt: skip
    """A step of Adam towards ret + discount · max_a q̄(s', a). Returns the gradient's norm; moves if it is finite.

    Returns −1, and does nothing, where an action is none.

    illegal: (B · A,), 0 or the penalty of an action that cannot be taken in s', or empty. q (B · A,) and error (B,) are those
    before the step.
    """
    rows, number = len(ret), features.dtype.type
    actions = len(q) // rows
    for r in range(rows):
        if not 0 <= act[r] < actions:
            return -1.0
    masked, zero, one, share = len(illegal) > 0, number(0.0), number(1.0), number(1.0 / rows)
    chosen = np.zeros(rows, np.int64)
    out = work.h[forward(net if double else copy, following, rows, work) :]
    for r in range(rows):
        for a in range(actions):
            if masked:
                out[r * actions + a] += illegal[r * actions + a]
            if out[r * actions + a] > out[r * actions + chosen[r]]:
                chosen[r] = a
    if double:
        out = work.h[forward(copy, following, rows, work) :]
    for r in range(rows):
        value, legal = out[r * actions + chosen[r]], not masked
        for a in range(actions if masked else 0):
            legal = legal or illegal[r * actions + a] == zero
        error[r] = ret[r] + discount[r] * (value if legal else zero)
    out = work.h[forward(net, features, rows, work) :]
    copy_to(q, 0, out, 0, rows * actions)
    fill(work.up, rows * actions, zero)
    for r in range(rows):
        i = r * actions + act[r]
        error[r] -= q[i]
        work.up[i] = (min(max(error[r], -one), one) if huber else error[r]) * share
    pull_back(net, features, rows, work, grad)
    norm = clip_by_norm(grad, most)
    if math.isfinite(norm):
        adam(net.theta, grad, state, t, lr)
    return norm
