"""The step of `updates.pathwise.Pathwise` as one compiled function."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from policygrad.compiled.cache import compiled, part
from policygrad.compiled.networks import (
    AdamState,
    Net,
    Work,
    adam,
    clip_by_norm,
    copy_to,
    follow,
    forward,
    pull_back,
    pull_back_inputs,
)

CONSTANT = 0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0)


class Nets(NamedTuple):
    """The networks of a rule."""

    actor: Net
    critic: Net
    critic_copy: Net
    actor_copy: Net  # what chooses the next action: a copy of a deterministic policy; a stochastic policy itself
    judge: Net  # the critics whose smallest value the policy ascends: all of the stack, or the first alone


class Paths(NamedTuple):
    """Actions along the noise, of B rows."""

    x: np.ndarray  # (B · D,)  in [−1, 1]
    moved: np.ndarray  # (B · D,)  σ ε
    logp: np.ndarray  # (B,)
    joint: np.ndarray  # (B · (F + D),)  features and x side by side


class StepMemory(NamedTuple):
    """What a step works in and leaves behind."""

    work: Work
    actor_work: Work
    paths: Paths
    target: np.ndarray  # (B,)
    q: np.ndarray  # (B · K,)  before the step
    slope: np.ndarray  # (B · D,)  ∂q/∂x
    critic_grad: np.ndarray
    actor_grad: np.ndarray
    alpha_grad: np.ndarray  # (1,)


class Numbers(NamedTuple):
    """The constants of a rule."""

    stochastic: bool  # a squashed normal with an entropy bonus, or a deterministic policy
    log_std_least: float
    log_std_most: float
    sigma: float  # of the noise on next actions
    limit: float
    critic_most: float  # largest gradient norms
    actor_most: float
    tau: float
    entropy: float  # that α steers towards; NaN: α is constant
    log_alpha_most: float


class Now(NamedTuple):
    """What changes from step to step: the number of each optimiser's step, and its length."""

    alpha: float
    critic_t: int
    critic_lr: float
    actor_t: int
    actor_lr: float
    alpha_t: int
    alpha_lr: float
    improves: bool  # whether the policy moves, too
    follows: bool  # whether the copies do


class Optimizers(NamedTuple):
    """Adam's moments, of each that moves."""

    critic: AdamState
    actor: AdamState
    alpha: AdamState


class Minibatch(NamedTuple):
    """B transitions, see `replay.Transitions`, and normal noise."""

    features: np.ndarray  # (B · F,)
    following: np.ndarray  # (B · F,)
    act: np.ndarray  # (B · D,)  as it is stored
    ret: np.ndarray
    discount: np.ndarray
    next_noise: np.ndarray  # (B · D,)
    noise: np.ndarray  # (B · D,)


@part
def squash(out: np.ndarray, noise: np.ndarray, rows: int, dims: int, numbers: Numbers, paths: Paths) -> None:
    """Sample x = tanh(μ + σ ε) with its log density, for outputs (B, 2D): `Squashed.walk`."""
    number = out.dtype.type
    half, two, constant = number(0.5), number(2.0), number(dims * CONSTANT)
    low, high = number(numbers.log_std_least), number(numbers.log_std_most)
    for r in range(rows):
        total = -constant
        for d in range(dims):
            i = r * dims + d
            log_std = min(max(out[r * 2 * dims + dims + d], low), high)
            eps = noise[i]
            paths.moved[i] = math.exp(log_std) * eps
            u = out[r * 2 * dims + d] + paths.moved[i]
            size = abs(u)
            paths.x[i] = math.tanh(u)
            total += two * (size + math.log1p(math.exp(-two * size))) - log_std - half * eps * eps
        paths.logp[r] = total


@part
def join(features: np.ndarray, x: np.ndarray, rows: int, dims: int, joint: np.ndarray) -> None:
    """(B, F) and (B, D) → (B, F + D)."""
    width = len(features) // rows
    for r in range(rows):
        start = r * (width + dims)
        copy_to(joint, start, features, r * width, width)
        copy_to(joint, start + width, x, r * dims, dims)


@part
def find_targets(nets: Nets, batch: Minibatch, numbers: Numbers, alpha: float, memory: StepMemory) -> None:
    """The targets ret + discount · (the smallest q̄_k(s', a') − α log π(a'|s')): `Pathwise.next_value`."""
    work, paths, target = memory.work, memory.paths, memory.target
    rows, number = len(target), target.dtype.type
    dims = len(paths.x) // rows
    out = work.h[forward(nets.actor_copy, batch.following, rows, work) :]
    if numbers.stochastic:
        squash(out, batch.next_noise, rows, dims, numbers, paths)
    else:
        sigma, limit, one = number(numbers.sigma), number(numbers.limit), number(1.0)
        for i in range(rows * dims):
            shift = min(max(sigma * batch.next_noise[i], -limit), limit)
            paths.x[i] = min(max(math.tanh(out[i]) + shift, -one), one)
    join(batch.following, paths.x, rows, dims, paths.joint)
    copy = nets.critic_copy
    q = work.h[forward(copy, paths.joint, rows, work) :]
    for r in range(rows):
        least = q[r]
        for k in range(1, copy.stack):
            least = min(least, q[k * rows + r])
        if numbers.stochastic:
            least -= number(alpha) * paths.logp[r]
        target[r] = batch.ret[r] + batch.discount[r] * least


@part
def fit_critic(nets: Nets, batch: Minibatch, numbers: Numbers, memory: StepMemory) -> float:
    """The gradient of Σ_k ½ · mean (target − q_k)², downwards, clipped: `ActionCritic.fit`. Returns its norm before."""
    critic, work, paths, target = nets.critic, memory.work, memory.paths, memory.target
    rows, share = len(target), target.dtype.type(1.0 / len(target))
    for i in range(len(paths.x)):
        paths.x[i] = math.tanh(batch.act[i]) if numbers.stochastic else batch.act[i]
    join(batch.features, paths.x, rows, len(paths.x) // rows, paths.joint)
    out = work.h[forward(critic, paths.joint, rows, work) :]
    for r in range(rows):
        for k in range(critic.stack):
            memory.q[r * critic.stack + k] = out[k * rows + r]
            work.up[k * rows + r] = (target[r] - out[k * rows + r]) * share
    pull_back(critic, paths.joint, rows, work, memory.critic_grad)
    return clip_by_norm(memory.critic_grad, numbers.critic_most)


@part
def improve_actor(nets: Nets, batch: Minibatch, numbers: Numbers, alpha: float, memory: StepMemory) -> float:
    """The mean of ∇θ (q(s, a) − α log π(a|s)), clipped: `Pathwise.gradient`. Returns its norm before.

    q is the smallest of the judge's values, in every row of another one.
    """
    work, own, paths, slope = memory.work, memory.actor_work, memory.paths, memory.slope
    rows, number = len(paths.logp), slope.dtype.type
    dims, share, one, two = len(paths.x) // rows, number(1.0 / rows), number(1.0), number(2.0)
    out = own.h[forward(nets.actor, batch.features, rows, own) :]
    if numbers.stochastic:
        squash(out, batch.noise, rows, dims, numbers, paths)
    else:
        for i in range(rows * dims):
            paths.x[i] = math.tanh(out[i])
    join(batch.features, paths.x, rows, dims, paths.joint)
    judge = nets.judge
    q = work.h[forward(judge, paths.joint, rows, work) :]
    for r in range(rows):
        least = 0
        for k in range(1, judge.stack):
            if q[k * rows + r] < q[least * rows + r]:
                least = k
        for k in range(judge.stack):
            work.up[k * rows + r] = share if k == least else number(0.0)
    pull_back_inputs(judge, rows, work, dims, slope)
    weight, g = number(-alpha / rows), own.up
    for r in range(rows):
        for d in range(dims):
            i = r * dims + d
            by_u = slope[i] * (one - paths.x[i] * paths.x[i])
            if numbers.stochastic:
                by_u += two * weight * paths.x[i]
                g[r * 2 * dims + d] = by_u
                g[r * 2 * dims + dims + d] = by_u * paths.moved[i] - weight
            else:
                g[i] = by_u
    pull_back(nets.actor, batch.features, rows, own, memory.actor_grad)
    return clip_by_norm(memory.actor_grad, numbers.actor_most)


@compiled
def pathwise_step(
    nets: Nets,
    batch: Minibatch,
    numbers: Numbers,
    now: Now,
    optimizers: Optimizers,
    log_alpha: np.ndarray,
    memory: StepMemory,
) -> tuple[float, float]:
    """`Pathwise` on one minibatch. Returns the norms of the gradients; the first that is not finite ends the step."""
    find_targets(nets, batch, numbers, now.alpha, memory)
    critic_norm = fit_critic(nets, batch, numbers, memory)
    if not math.isfinite(critic_norm):
        return critic_norm, 0.0
    adam(nets.critic.theta, memory.critic_grad, optimizers.critic, now.critic_t, now.critic_lr)
    actor_norm = 0.0
    if now.improves:
        actor_norm = improve_actor(nets, batch, numbers, now.alpha, memory)
        if not math.isfinite(actor_norm):
            return critic_norm, actor_norm
        adam(nets.actor.theta, memory.actor_grad, optimizers.actor, now.actor_t, now.actor_lr)
        if not math.isnan(numbers.entropy):
            logp, grad, most = memory.paths.logp, memory.alpha_grad, numbers.log_alpha_most
            grad[0] = logp.mean() + numbers.entropy
            adam(log_alpha, grad, optimizers.alpha, now.alpha_t, now.alpha_lr)
            log_alpha[0] = min(max(log_alpha[0], -most), most)
    if now.follows:
        if not numbers.stochastic:
            follow(nets.actor_copy.theta, nets.actor.theta, numbers.tau)
        follow(nets.critic_copy.theta, nets.critic.theta, numbers.tau)
    return critic_norm, actor_norm
