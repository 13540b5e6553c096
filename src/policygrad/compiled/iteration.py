"""An iteration of an actor-critic with one step of each as one compiled function: values, advantages, both gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from policygrad.compiled.cache import compiled, part
from policygrad.compiled.epochs import AscentData, EpochMemory, policy_epochs, value_epochs
from policygrad.compiled.heads import Aim, HeadData, Steps
from policygrad.compiled.networks import Net, Work, forward

DONE, NOTHING, NOT_FINITE, ACTOR, CRITIC = range(5)  # what came of it; the last two: a gradient that is not finite
SEEN, MEAN, STD, VAR = range(4)  # of the targets of a critic


class Ends(NamedTuple):
    """What a rollout says besides its steps, each (T, N): see `data.Rollout`."""

    rew: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    cut: np.ndarray
    mask: np.ndarray


class Estimates(NamedTuple):
    """How advantages are made, and memory for them."""

    gamma: float
    lam: float
    standardize: bool
    by_trajectory: bool  # weights 1/trajectories; otherwise 1/steps
    target: np.ndarray  # (T · N,)  what the critic regresses on
    order: np.ndarray  # (T · N,)  the rows that count, one after another


class Scale(NamedTuple):
    """The scale of a critic's targets: see `models.critic`."""

    numbers: np.ndarray  # (4,) float64: how many have been seen, mean, standard deviation, variance
    rate: float
    least_std: float


@part
def generalised_advantages(ends: Ends, val: np.ndarray, how: Estimates, adv: np.ndarray) -> int:
    """Â_t = δ_t + γλ Â_{t+1} and the λ-return Â + V (T · N,), from values (T + 1, N), backwards: see `gradient.returns.gae`.

    Returns how many trajectories there are.
    """
    number, columns, trajectories = val.dtype.type, ends.rew.shape[1], 0
    zero, gamma, decay = number(0.0), number(how.gamma), number(how.gamma * how.lam)
    for n in range(columns):
        after = zero
        for t in range(len(ends.rew) - 1, -1, -1):
            i = t * columns + n
            if not ends.mask[t, n]:
                after = adv[i] = how.target[i] = zero
                continue
            following = zero if ends.terminated[t, n] else val[i + columns]
            delta = ends.rew[t, n] + gamma * following - val[i]
            if ends.terminated[t, n] or ends.truncated[t, n] or ends.cut[t, n]:
                after = zero
                trajectories += 1
            after = delta + decay * after
            adv[i], how.target[i] = after, after + val[i]
    return trajectories


@part
def moments(x: np.ndarray, order: np.ndarray) -> tuple[float, float]:
    """Mean and population variance of the rows `order`."""
    mean = var = 0.0
    for i in order:
        mean += float(x[i])
    mean /= len(order)
    for i in order:
        var += (float(x[i]) - mean) ** 2
    return mean, var / len(order)


@part
def follow(net: Net, scale: Scale, count: int, mean: float, var: float) -> None:
    """Move the scale towards the targets', and keep the values what they were: `Critic.follow`."""
    old, first = scale.numbers, scale.numbers[SEEN] == 0.0
    old[SEEN] += count
    rate, delta = max(count / old[SEEN], scale.rate), mean - old[MEAN]
    old[VAR] = (1.0 - rate) * (old[VAR] + rate * delta**2) + rate * var
    new_mean, new_std = old[MEAN] + rate * delta, max(math.sqrt(old[VAR]), scale.least_std)
    if not first:
        number, theta = net.theta.dtype.type, net.theta
        inputs, outputs, weights, biases = net.layers[-1]
        less, shift = number(old[STD] / new_std), number((old[MEAN] - new_mean) / new_std)
        for i in range(weights, weights + inputs * outputs):
            theta[i] *= less
        for i in range(biases, biases + outputs):
            theta[i] = theta[i] * less + shift
    old[MEAN], old[STD] = new_mean, new_std


@compiled
def iterate(
    actor: Net, head: HeadData, critic: Net, scale: Scale, steps: Steps, ends: Ends, how: Estimates, aim: Aim,
    actor_how: AscentData, critic_how: AscentData, actor_memory: EpochMemory, critic_memory: EpochMemory, val: np.ndarray,
    work: Work, norms: np.ndarray,
) -> int:  # fmt: skip
    """One step of the policy on the generalised advantages, then the critic's scale and one step of it on the λ-returns.

    steps: all T · N of them, with one row more of features; `adv` and `weight` are written. val: memory (T + 1) · N. norms (2,)
    becomes the norms of both gradients. Returns what came of it. Unless that is DONE the critic has not moved, but for its
    scale where it is CRITIC, nor has the policy, unless it is CRITIC.
    """
    rows, number = ends.rew.size, val.dtype.type
    out = work.h[forward(critic, steps.features, len(val), work) :]
    for i in range(len(val)):
        val[i] = out[i] * number(scale.numbers[STD]) + number(scale.numbers[MEAN])
    trajectories, count = generalised_advantages(ends, val, how, steps.adv), 0
    for i in range(rows):
        if ends.mask[i // ends.mask.shape[1], i % ends.mask.shape[1]]:
            how.order[count] = i
            count += 1
    if count == 0:
        return NOTHING
    order, cuts = how.order[:count], np.array([0, count])
    mean, var = moments(steps.adv, order)
    target_mean, target_var = moments(how.target, order)
    if not math.isfinite(var + target_var):  # nor is any sum with a number in it that is not finite
        return NOT_FINITE
    share = number(1.0 / (trajectories if how.by_trajectory else count))
    for i in order:
        steps.weight[i] = share
        if how.standardize:
            steps.adv[i] = (steps.adv[i] - number(mean)) / number(math.sqrt(var) + 1e-8)
    if policy_epochs(actor, head, steps, count, order, cuts, aim, actor_how, actor_memory, norms[:1]) == 0:
        return ACTOR
    follow(critic, scale, count, target_mean, target_var)
    for i in order:
        how.target[i] = (how.target[i] - number(scale.numbers[MEAN])) / number(scale.numbers[STD])
    none = how.order[:0]
    if value_epochs(critic, steps.features, how.target, none, order, cuts, critic_how, critic_memory, norms[1:]) == 0:
        return CRITIC
    return DONE
