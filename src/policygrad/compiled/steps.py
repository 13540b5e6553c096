"""The rules for transitions as compiled steps: their arrays, and the memory that the steps work in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.compiled.cache import patience
from policygrad.compiled.networks import CODES, AdamState, Net, Work, follow
from policygrad.compiled.pathwise import Paths, fit, improve, next_values
from policygrad.compiled.q_learning import q_step
from policygrad.models.exploring import ActionValues, Deterministic, ExploringPolicy, Squashed
from policygrad.models.heads import MASK_PENALTY
from policygrad.models.kernels import DenseKernel
from policygrad.models.optim import Adam
from policygrad.models.schedules import at
from policygrad.models.stacked import StackedKernel
from policygrad.replay import Transitions

NOTHING = torch.empty(0)  # no illegal actions


def step_of(name: str, policy: Any, networks: list[Any], optimizers: list[Any]) -> PathwiseStep | QStep | None:
    """The step by its class's name, or None where there is none for this head, these networks or these optimisers."""
    kind = {"PathwiseStep": PathwiseStep, "QStep": QStep}[name]
    known = (
        type(policy) is ExploringPolicy
        and type(policy.head) in kind.heads
        and all(isinstance(network.kernel, DenseKernel | StackedKernel) for network in [policy, *networks])
        and all(type(optimizer) is Adam for optimizer in optimizers)
    )
    return kind() if known else None


def net(module: Any, first: bool = False) -> Net:
    """The network of a `FlatModule`. first: of a stack of networks the first alone."""
    kernel = module.kernel
    if isinstance(kernel, DenseKernel):
        shapes, starts, count = [w.shape for w, _ in kernel.layers], [s[:2] for s in kernel.spans], 1
    else:
        shapes, count = [w.shape[1:] for w in kernel.weights], len(kernel.weights[0])
        starts = [(w.flat[0], b.flat[0]) for w, b in zip(*kernel.spans, strict=True)]
    layers = [[*shape[::-1], *start] for shape, start in zip(shapes, starts, strict=True)]
    return Net(module.flat.numpy(), np.array(layers, np.int64), 1 if first else count, CODES[kernel.activation])


def vector(count: int, dtype: torch.dtype) -> np.ndarray:
    """Memory that begins at a multiple of 64 bytes, as torch's does: the last bit of a product may depend on it."""
    return torch.empty(count, dtype=dtype).numpy()


def memory(nets: Iterable[Net], rows: int, dtype: torch.dtype) -> Work:
    """Enough for a pass of any of these networks over so many rows."""
    whole = max(n.stack * rows * int(n.layers[:, 1].sum()) for n in nets)
    widest = max(n.stack * rows * int(n.layers[:, :2].max()) for n in nets)
    return Work(*(vector(size, dtype) for size in (whole, whole, widest, widest)))


def adam_state(optimizer: Adam, params: Tensor, lr: float) -> AdamState:
    """Adam for its next step; `optimizer.t` counts those that were made."""
    m, v = optimizer.moments(params)
    return AdamState(m.numpy(), v.numpy(), optimizer.t + 1, lr, optimizer.beta1, optimizer.beta2, optimizer.eps)


def _most(max_grad_norm: float | None) -> float:
    return math.inf if max_grad_norm is None else max_grad_norm


class _Step:
    """What both steps have: memory for minibatches, by their size; copies and pickles of a step go without."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}

    def __call__(self, rule: Any, policy: ExploringPolicy, batch: Transitions, progress: float) -> None:
        with nullcontext() if self.made else patience():
            self.step(rule, policy, batch, progress)

    def step(self, rule: Any, policy: ExploringPolicy, batch: Transitions, progress: float) -> None:
        """Move the networks as the rule does."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {"made": {}}


class PathwiseStep(_Step):
    """`Pathwise` on one minibatch."""

    heads = (Squashed, Deterministic)

    def step(self, rule: Any, policy: ExploringPolicy, batch: Transitions, progress: float) -> None:
        critic, stochastic = rule.critic, rule.copy is None
        following, features = policy.features(batch.next_obs), policy.features(batch.obs)
        rows, dims = len(features), policy.head.dims
        if (rows, policy.flat.dtype) not in self.made:
            self.made[rows, policy.flat.dtype] = self._memory(rule, policy, rows)
        work, actor_work, paths, inputs, value, q, slope, grads = self.made[rows, policy.flat.dtype]
        actor, net_q, smooth = net(policy), net(critic.network), rule.smoothing
        alpha = rule.temperature.alpha if rule.temperature is not None else 0.0

        inputs[:] = following.reshape(-1).numpy()
        if stochastic or smooth is not None:
            paths.noise[:] = rule.noise(rows, dims).reshape(-1).numpy()
        else:
            paths.noise[:] = 0.0
        smoothing = (0.0, 0.0) if smooth is None else (smooth.sigma, smooth.limit)
        next_values(
            actor if rule.copy is None else net(rule.copy), net(critic.copy), inputs, stochastic, alpha, smoothing, paths,
            work, value,
        )  # fmt: skip
        target = batch.ret.numpy() + batch.discount.numpy() * value

        inputs[:] = features.reshape(-1).numpy()
        x = policy.head.to_unit(batch.act).reshape(-1).to(policy.flat.dtype).numpy()
        step = adam_state(critic.optimizer, critic.network.flat, at(rule.critic_lr, progress))
        norm = fit(net_q, inputs, x, target, _most(critic.max_grad_norm), step, paths, work, q, grads[0])
        critic.check(norm)
        critic.optimizer.t += 1
        critic.last = torch.from_numpy(q).view(rows, -1), torch.from_numpy(target).unsqueeze(-1), norm
        rule.count += 1
        if rule.count % rule.delay == 0:
            paths.noise[:] = rule.noise(rows, dims).reshape(-1).numpy()
            step = adam_state(rule.optimizer, policy.flat, at(rule.lr, progress))
            judged = net_q if stochastic else net(critic.network, first=True)
            norm = improve(
                actor, judged, inputs, stochastic, alpha, _most(rule.max_grad_norm), step, paths, work, actor_work, slope,
                grads[1],
            )  # fmt: skip
            rule.check(norm)
            rule.optimizer.t += 1
            rule.improved(torch.from_numpy(paths.logp) if stochastic else None, norm, progress)
            if rule.copy is not None:
                follow(rule.copy.flat.numpy(), actor.theta, critic.tau)
        if rule.copy is None or rule.count % rule.delay == 0:
            follow(critic.copy.flat.numpy(), net_q.theta, critic.tau)

    def _memory(self, rule: Any, policy: ExploringPolicy, rows: int) -> tuple[Any, ...]:
        actor, critic, dtype = net(policy), net(rule.critic.network), policy.flat.dtype
        features, size = int(actor.layers[0, 0]), rows * policy.head.dims
        paths = Paths(*(vector(n, dtype) for n in (size, size, size, rows, rows * features + size)))
        work, actor_work = memory([actor, critic], rows, dtype), memory([actor], rows, dtype)
        grads = vector(len(critic.theta), dtype), vector(len(actor.theta), dtype)
        others = (vector(n, dtype) for n in (rows * features, rows, rows * critic.stack, size))
        return work, actor_work, paths, *others, grads


class QStep(_Step):
    """`QLearning` on one minibatch."""

    heads = (ActionValues,)

    def step(self, rule: Any, policy: ExploringPolicy, batch: Transitions, progress: float) -> None:
        following, features = policy.features(batch.next_obs), policy.features(batch.obs)
        rows, dtype = len(features), policy.flat.dtype
        values = net(policy)
        if (rows, dtype) not in self.made:
            width, actions = int(values.layers[0, 0]), policy.head.size
            sizes = rows * width, rows * width, rows * actions, rows, len(values.theta)
            self.made[rows, dtype] = memory([values], rows, dtype), *(vector(n, dtype) for n in sizes)
        work, before, after, q, error, grad = self.made[rows, dtype]
        before[:], after[:] = features.reshape(-1).numpy(), following.reshape(-1).numpy()
        legal = policy.context(batch.next_obs, {})
        illegal = NOTHING if legal is None else ((legal - 1.0) * MASK_PENALTY).reshape(-1)
        step = adam_state(rule.optimizer, policy.flat, at(rule.lr, progress))
        norm = q_step(
            values, values if rule.copy is None else net(rule.copy), rule.double and rule.copy is not None,
            rule.loss == "huber", before, after, illegal.to(dtype).numpy(), batch.act.to(torch.int64).numpy(),
            batch.ret.to(dtype).numpy(), batch.discount.to(dtype).numpy(), _most(rule.max_grad_norm), step, work, q,
            error, grad,
        )  # fmt: skip
        rule.check(norm)
        rule.optimizer.t += 1
        rule.last = torch.from_numpy(q).view(rows, -1), torch.from_numpy(error).unsqueeze(-1), norm
