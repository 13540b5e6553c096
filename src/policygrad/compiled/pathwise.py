"""The step of `updates.pathwise.Pathwise` as compiled functions: one for the critic, one for the policy."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from policygrad.compiled.cache import compiled
from policygrad.compiled.networks import AdamState, Net, Work, adam, clip_by_norm, forward, pull_back, pull_back_inputs
from policygrad.models.continuous import LOG_STD_MAX, LOG_STD_MIN

CONSTANT = 0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0)


class Paths(NamedTuple):
    """Actions along the noise, of B rows."""

    noise: np.ndarray  # (B · D,)
    x: np.ndarray  # (B · D,)  in [−1, 1]
    moved: np.ndarray  # (B · D,)  σ ε
    logp: np.ndarray  # (B,)
    joint: np.ndarray  # (B · (F + D),)  features and x side by side


@compiled
def squash(out: np.ndarray, rows: int, dims: int, paths: Paths) -> None:
    """Sample x = tanh(μ + σ ε) with its log density, for outputs (B, 2D): `Squashed.walk`."""
    number = out.dtype.type
    half, two, constant = number(0.5), number(2.0), number(dims * CONSTANT)
    low, high = number(LOG_STD_MIN), number(LOG_STD_MAX)
    for r in range(rows):
        total = -constant
        for d in range(dims):
            i = r * dims + d
            log_std = min(max(out[r * 2 * dims + dims + d], low), high)
            eps = paths.noise[i]
            paths.moved[i] = math.exp(log_std) * eps
            u = out[r * 2 * dims + d] + paths.moved[i]
            size = abs(u)
            paths.x[i] = math.tanh(u)
            total += two * (size + math.log1p(math.exp(-two * size))) - log_std - half * eps * eps
        paths.logp[r] = total


@compiled
def join(features: np.ndarray, x: np.ndarray, rows: int, dims: int, joint: np.ndarray) -> None:
    """(B, F) and (B, D) → (B, F + D)."""
    width = len(features) // rows
    for r in range(rows):
        start = r * (width + dims)
        joint[start : start + width] = features[r * width : (r + 1) * width]
        joint[start + width : start + width + dims] = x[r * dims : (r + 1) * dims]


@compiled
def next_values(
    actor: Net, copy: Net, following: np.ndarray, stochastic: bool, alpha: float, smoothing: tuple[float, float],
    paths: Paths, work: Work, value: np.ndarray,
) -> None:  # fmt: skip
    """Write the smallest q̄_k(s', a') − α log π(a'|s') into value (B,): `Pathwise.next_value`."""
    rows, number = len(value), value.dtype.type
    dims = len(paths.x) // rows
    out = work.h[forward(actor, following, rows, work) :]
    if stochastic:
        squash(out, rows, dims, paths)
    else:
        sigma, limit, one = number(smoothing[0]), number(smoothing[1]), number(1.0)
        for i in range(rows * dims):
            shift = min(max(sigma * paths.noise[i], -limit), limit)
            paths.x[i] = min(max(math.tanh(out[i]) + shift, -one), one)
    join(following, paths.x, rows, dims, paths.joint)
    q = work.h[forward(copy, paths.joint, rows, work) :]
    for r in range(rows):
        least = q[r]
        for k in range(1, copy.stack):
            least = min(least, q[k * rows + r])
        value[r] = least - number(alpha) * paths.logp[r] if stochastic else least


@compiled
def fit(
    critic: Net, features: np.ndarray, x: np.ndarray, target: np.ndarray, most: float, state: AdamState,
    paths: Paths, work: Work, q: np.ndarray, grad: np.ndarray,
) -> float:  # fmt: skip
    """A step of Adam on Σ_k ½ · mean (target − q_k)²: `ActionCritic.fit`. Returns the gradient's norm; moves if it is finite.

    q (B, K) are the values before.
    """
    rows, share = len(target), target.dtype.type(1.0 / len(target))
    join(features, x, rows, len(x) // rows, paths.joint)
    out = work.h[forward(critic, paths.joint, rows, work) :]
    for r in range(rows):
        for k in range(critic.stack):
            q[r * critic.stack + k] = out[k * rows + r]
            work.up[k * rows + r] = (target[r] - out[k * rows + r]) * share
    pull_back(critic, paths.joint, rows, work, grad)
    norm = clip_by_norm(grad, most)
    if math.isfinite(norm):
        adam(critic.theta, grad, state)
    return norm


@compiled
def improve(
    actor: Net, critic: Net, features: np.ndarray, stochastic: bool, alpha: float, most: float, state: AdamState,
    paths: Paths, work: Work, actor_work: Work, slope: np.ndarray, grad: np.ndarray,
) -> float:  # fmt: skip
    """A step of Adam along the mean of ∇θ (q(s, a) − α log π(a|s)): `Pathwise.improve`. Returns the gradient's norm.

    The critic's value is the smallest of its K, in every row of another one. slope: (B · D,), for ∂q/∂x.
    """
    rows, number = len(paths.logp), features.dtype.type
    dims, share, one, two = len(paths.x) // rows, number(1.0 / rows), number(1.0), number(2.0)
    out = actor_work.h[forward(actor, features, rows, actor_work) :]
    if stochastic:
        squash(out, rows, dims, paths)
    else:
        for i in range(rows * dims):
            paths.x[i] = math.tanh(out[i])
    join(features, paths.x, rows, dims, paths.joint)
    q = work.h[forward(critic, paths.joint, rows, work) :]
    for r in range(rows):
        least = 0
        for k in range(1, critic.stack):
            if q[k * rows + r] < q[least * rows + r]:
                least = k
        for k in range(critic.stack):
            work.up[k * rows + r] = share if k == least else number(0.0)
    pull_back_inputs(critic, rows, work, dims, slope)
    weight, g = number(-alpha / rows), actor_work.up
    for r in range(rows):
        for d in range(dims):
            i = r * dims + d
            by_u = slope[i] * (one - paths.x[i] * paths.x[i])
            if stochastic:
                by_u += two * weight * paths.x[i]
                g[r * 2 * dims + d] = by_u
                g[r * 2 * dims + dims + d] = by_u * paths.moved[i] - weight
            else:
                g[i] = by_u
    pull_back(actor, features, rows, actor_work, grad)
    norm = clip_by_norm(grad, most)
    if math.isfinite(norm):
        adam(actor.theta, grad, state)
    return norm
