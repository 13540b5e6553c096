"""Scores of distributions in compiled code, from a network's outputs. The equations are those of `models.heads` and
`models.continuous`; a row is one step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from policygrad.compiled.cache import part
from policygrad.compiled.elementary import tanh
from policygrad.compiled.networks import fill

CHOICES, NORMAL = range(2)  # softmaxes, one for every entry of the action; normals, squashed or not
PLAIN, RATIO, CLIPPED = range(3)  # what multiplies weight · adv: nothing, π/π_old, or that where it is not clipped


class HeadData(NamedTuple):
    """What compiled code knows of a head."""

    kind: int
    sizes: np.ndarray  # (K,)  the choices of every entry
    dims: int  # D, of a normal
    own_log_std: bool  # the first D parameters are log σ; otherwise the last D outputs are
    low: float  # of log σ
    high: float
    rho: float  # autocorrelation of the noise
    squashed: bool
    constant: float  # of the log density
    nodes: np.ndarray  # (Q,)  of the quadrature of a squashed normal's entropy
    node_weights: np.ndarray  # (Q,)
    others: int  # outputs of the network after the head's own: of the last of them Aim.value_coef makes a value


class Steps(NamedTuple):
    """B steps, see `data.Batch`; an array that the head or the rule does not read is empty."""

    features: np.ndarray  # (B · F,)
    context: np.ndarray  # (B · C,)  action masks as 0 or a penalty on the logit, or the noise of the step before
    choice: np.ndarray  # (B · K,)  int64, where actions are choices
    act: np.ndarray  # (B · D,)  where they are numbers
    logp: np.ndarray  # (B,)
    adv: np.ndarray  # (B,)
    weight: np.ndarray  # (B,)
    dist: np.ndarray  # (B · P,)  the distribution that KL is taken from
    target: np.ndarray  # (B,)  of the value, scaled


class Aim(NamedTuple):
    """What is ascended: Σ_b w_b log π(a_b|s_b) + weight_b (ent_coef · entropy_b − kl_coef · KL(dist_b ‖ π_b) − value_coef ·
    ½ (target_b − value_b)²).
    """

    kind: int
    clip: float
    ent_coef: float
    kl_coef: float
    value_coef: float


@part
def score_weight(aim: Aim, logp: float, old: float, adv: float, weight: float) -> float:
    """The weight w of ∇log π, as the rules' `score_weights` have it."""
    if aim.kind == PLAIN:
        return weight * adv
    ratio = math.exp(logp - old)
    one, sign = type(adv)(1.0), np.sign(adv)
    if aim.kind == CLIPPED and (ratio - one) * sign > type(adv)(aim.clip):
        return type(adv)(0.0)
    return ratio * adv * weight


@part
def score_choices(
    head: HeadData, steps: Steps, aim: Aim, order: np.ndarray, scale: float, out: np.ndarray, up: np.ndarray
) -> None:
    """Write the derivative of the aim by the logits (B, P) into up, for the steps `order`. The logits become log π, and up
    is p meanwhile.

    ∂log π/∂logit_j = 1[j = a] − p_j;  ∂entropy/∂logit_j = −p_j (log p_j + entropy);  ∂KL/∂logit_j = p_j − p_old,j.
    Rows of out and up have `head.others` numbers more, which are left alone.
    """
    number, entries, rows = out.dtype.type, len(head.sizes), len(order)
    width, zero = head.sizes.sum(), number(0.0)
    apart = width + head.others
    masked, bonus, bound = len(steps.context) > 0, number(aim.ent_coef), number(aim.kl_coef)
    for r in range(rows):
        i, at, logp = order[r], r * apart, zero
        for k in range(entries):
            most, total = number(-np.inf), zero
            for j in range(at, at + head.sizes[k]):
                if masked:
                    out[j] += steps.context[i * width + j - r * apart]
                most = max(most, out[j])
            for j in range(at, at + head.sizes[k]):
                up[j] = math.exp(out[j] - most)
                total += up[j]
            shift = most + math.log(total)
            for j in range(at, at + head.sizes[k]):
                out[j] -= shift
                up[j] /= total
            logp += out[at + steps.choice[i * entries + k]]
            at += head.sizes[k]
        share = steps.weight[i] * number(scale)
        w, at = score_weight(aim, logp, steps.logp[i], steps.adv[i], share), r * apart
        for k in range(entries):
            entropy = zero
            if bonus != zero:
                for j in range(at, at + head.sizes[k]):
                    entropy -= up[j] * out[j]
            for j in range(at, at + head.sizes[k]):
                p = up[j]
                up[j] = -p * (w + bonus * share * (out[j] + entropy))
                if bound != zero:
                    up[j] -= bound * share * (p - math.exp(steps.dist[i * width + j - r * apart]))
            up[at + steps.choice[i * entries + k]] += w
            at += head.sizes[k]


@part
def log_jacobian(u: float) -> float:
    """log(1 − tanh² u), finite however large u is."""
    two, size = type(u)(2.0), abs(u)
    return two * (type(u)(math.log(2.0)) - size - math.log1p(math.exp(-two * size)))


@part
def entropy_slopes(head: HeadData, mean: float, std: float) -> tuple[float, float]:
    """∂/∂μ and ∂/∂log σ of E[log(1 − tanh² u)], u = μ + σ z: E[−2 tanh u] and E[−2 tanh u · σ z]."""
    by_mean = by_log_std = type(mean)(0.0)
    for q in range(len(head.nodes)):
        moved = std * head.nodes[q]
        slope = type(mean)(-2.0) * tanh(mean + moved) * head.node_weights[q]
        by_mean += slope
        by_log_std += slope * moved
    return by_mean, by_log_std


@part
def normals(
    head: HeadData,
    steps: Steps,
    i: int,
    own: np.ndarray,
    out: np.ndarray,
    mean: np.ndarray,
    log_std: np.ndarray,
    z: np.ndarray,
) -> float:
    """Log π of step i, from the outputs of one row. Writes μ, log σ and z = (a − μ)/σ, each (D,).

    Given the noise ε before, μ is moved by σ ρ ε, and log σ by ½ log(1 − ρ²).
    """
    number, dims = out.dtype.type, head.dims
    rho, less, half = number(head.rho), number(0.5 * math.log1p(-(head.rho**2))), number(0.5)
    logp = number(head.constant)
    for d in range(dims):
        given = own[d] if head.own_log_std else out[dims + d]
        log_std[d], mean[d] = min(max(given, number(head.low)), number(head.high)), out[d]
        if head.rho > 0.0:
            mean[d] += math.exp(log_std[d]) * (rho * steps.context[i * dims + d])
            log_std[d] += less
        act = steps.act[i * dims + d]
        z[d] = (act - mean[d]) * math.exp(-log_std[d])
        logp -= half * z[d] * z[d] + log_std[d]
        if head.squashed:
            logp -= log_jacobian(act)
    return logp


@part
def score_normals(
    head: HeadData,
    steps: Steps,
    aim: Aim,
    order: np.ndarray,
    scale: float,
    own: np.ndarray,
    out: np.ndarray,
    up: np.ndarray,
    own_grad: np.ndarray,
) -> None:
    """Write the derivative of the aim by the outputs into up and by log σ of its own (D,) into own_grad. Rows of out and up
    have D or 2D numbers and the other outputs.

    With z = (a − μ)/σ:  ∂log π/∂μ = z/σ,  ∂log π/∂log σ = z² − 1,  ∂entropy/∂log σ = 1.
    """
    number, dims, rows = out.dtype.type, head.dims, len(order)
    zero, one, two = number(0.0), number(1.0), number(2.0)
    width, rho, bonus, bound = dims if head.own_log_std else 2 * dims, number(head.rho), aim.ent_coef, aim.kl_coef
    start = width + head.others
    less = number(0.5 * math.log1p(-(head.rho**2)))
    mean, log_std, z = np.empty(dims, out.dtype), np.empty(dims, out.dtype), np.empty(dims, out.dtype)
    fill(own_grad, len(own_grad), zero)
    for r in range(rows):
        i = order[r]
        logp = normals(head, steps, i, own, out[r * start : r * start + width], mean, log_std, z)
        share = steps.weight[i] * number(scale)
        w = score_weight(aim, logp, steps.logp[i], steps.adv[i], share)
        for d in range(dims):
            inverse = math.exp(-log_std[d])
            by_mean, by_log_std = w * z[d] * inverse, w * (z[d] * z[d] - one)
            if bonus != 0.0:
                by_log_std += share * number(bonus)
                if head.squashed:
                    first, second = entropy_slopes(head, mean[d], math.exp(log_std[d]))
                    by_mean += share * number(bonus) * first
                    by_log_std += share * number(bonus) * second
            if bound != 0.0:  # ∂KL/∂μ = (μ − μ_old)/σ²,  ∂KL/∂log σ = 1 − (σ_old² + (μ − μ_old)²)/σ²
                apart = (mean[d] - steps.dist[i * 2 * dims + d]) * inverse
                ratio = math.exp(two * (steps.dist[i * 2 * dims + dims + d] - log_std[d]))
                by_mean -= share * number(bound) * apart * inverse
                by_log_std -= share * number(bound) * (one - ratio - apart * apart)
            if head.rho > 0.0:  # the mean moves with log σ, by σ ρ ε
                by_log_std += by_mean * math.exp(log_std[d] - less) * (rho * steps.context[i * dims + d])
            up[r * start + d] = by_mean
            if head.own_log_std:
                own_grad[d] += by_log_std
            else:
                up[r * start + dims + d] = by_log_std


@part
def score_value(
    head: HeadData,
    steps: Steps,
    aim: Aim,
    order: np.ndarray,
    scale: float,
    outputs: int,
    out: np.ndarray,
    up: np.ndarray,
) -> None:
    """Write the derivative of the aim by the outputs after the head's own into up: `ValueLoss`. 0 where they are no value."""
    number = out.dtype.type
    coef = number(aim.value_coef)
    for r in range(len(order)):
        i, last = order[r], (r + 1) * outputs - 1
        for j in range(last + 1 - head.others, last + 1):
            up[j] = number(0.0)
        if aim.value_coef != 0.0:
            up[last] = coef * (steps.weight[i] * number(scale)) * (steps.target[i] - out[last])


@part
def choose(head: HeadData, own: np.ndarray, out: np.ndarray, rows: int, noise: np.ndarray, act: np.ndarray) -> None:
    """Sample actions (B, K) or (B, D) from outputs and the noise of a step, (B, P) or (B, D + …): the heads' `sample`."""
    if head.kind == CHOICES:
        width, entries = head.sizes.sum() + head.others, len(head.sizes)
        for r in range(rows):
            at = r * width
            for k in range(entries):
                best, less = at, r * head.others  # noise has no numbers of the other outputs
                for j in range(at + 1, at + head.sizes[k]):
                    if out[j] + noise[j - less] > out[best] + noise[best - less]:
                        best = j
                act[r * entries + k] = best - at
                at += head.sizes[k]
    else:
        number, dims = out.dtype.type, head.dims
        width, drawn = (dims if head.own_log_std else 2 * dims) + head.others, len(noise) // rows
        for r in range(rows):
            for d in range(dims):
                log_std = own[d] if head.own_log_std else out[r * width + dims + d]
                std = math.exp(min(max(log_std, number(head.low)), number(head.high)))
                act[r * dims + d] = out[r * width + d] + std * noise[r * drawn + d]
