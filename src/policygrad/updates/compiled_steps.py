"""The rules for transitions as compiled steps: their arrays, and the memory that the steps work in."""

from __future__ import annotations

import math
from typing import Any

import torch

from policygrad.compiled.cache import patience
from policygrad.compiled.pathwise import Minibatch, Nets, Now, Numbers, Optimizers, Paths, StepMemory, pathwise_step
from policygrad.compiled.q_learning import q_step
from policygrad.models.arrays import adam_state, check_widths, largest_norm, net, vector, work_memory
from policygrad.models.continuous import LOG_STD_MAX, LOG_STD_MIN
from policygrad.models.exploring import ActionValues, Deterministic, ExploringPolicy, Squashed
from policygrad.models.heads import MASK_PENALTY
from policygrad.models.kernels import DenseKernel
from policygrad.models.optim import Adam
from policygrad.models.schedules import at
from policygrad.models.stacked import StackedKernel
from policygrad.models.workspace import Workspace
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


class _Step(Workspace):
    """What both steps have."""

    def __call__(self, rule: Any, policy: ExploringPolicy, batch: Transitions, progress: float) -> None:
        with patience():
            self.step(rule, policy, batch, progress)

    def step(self, rule: Any, policy: ExploringPolicy, batch: Transitions, progress: float) -> None:
        """Move the networks as the rule does."""
        raise NotImplementedError


class PathwiseStep(_Step):
    """`Pathwise` on one minibatch."""

    heads = (Squashed, Deterministic)

    def step(self, rule: Any, policy: ExploringPolicy, batch: Transitions, progress: float) -> None:
        critic, copy, heat = rule.critic, rule.copy, _learned(rule)
        features, following = policy.features(batch.obs), policy.features(batch.next_obs)
        rows, improves = len(features), (rule.count + 1) % rule.delay == 0
        moving = [(critic.optimizer, critic.network.flat), (rule.optimizer, policy.flat)]
        moving += [] if heat is None else [(heat.optimizer, heat.log_alpha)]
        tensors = [
            policy.flat,
            critic.copy.flat,
            None if copy is None else copy.flat,
            *(params for _, params in moving),
        ]
        tensors += [optimizer.moments(params)[0] for optimizer, params in moving]
        nets, mini, optimizers, log_alpha, memory = self.arrays(_pathwise_arrays, rows, tensors, rule, policy)
        mini.features[:] = features.reshape(-1).numpy()
        mini.following[:] = following.reshape(-1).numpy()
        mini.act[:], mini.ret[:], mini.discount[:] = (
            batch.act.reshape(-1).numpy(),
            batch.ret.numpy(),
            batch.discount.numpy(),
        )
        if copy is None or rule.smoothing is not None:
            mini.next_noise[:] = rule.noise(rows, policy.head.dims).reshape(-1).numpy()
        if improves:
            mini.noise[:] = rule.noise(rows, policy.head.dims).reshape(-1).numpy()
        numbers, now = _numbers(rule), _now(rule, progress, improves)
        critic_norm, actor_norm = pathwise_step(nets, mini, numbers, now, optimizers, log_alpha, memory)
        critic.check(critic_norm)
        critic.optimizer.t += 1
        rule.count += 1
        critic.last = (
            torch.from_numpy(memory.q).view(rows, -1),
            torch.from_numpy(memory.target).unsqueeze(-1),
            critic_norm,
        )
        if improves:
            rule.check(actor_norm)
            rule.optimizer.t += 1
            if heat is not None:
                heat.optimizer.t += 1
            rule.last = (torch.from_numpy(memory.paths.logp) if copy is None else None), actor_norm


def _learned(rule: Any) -> Any:
    """The temperature, if it is learned."""
    return None if rule.temperature is None or rule.temperature.target is None else rule.temperature


def _numbers(rule: Any) -> Numbers:
    smoothing, heat = rule.smoothing, _learned(rule)
    return Numbers(
        stochastic=rule.copy is None,
        log_std_least=LOG_STD_MIN,
        log_std_most=LOG_STD_MAX,
        sigma=0.0 if smoothing is None else smoothing.sigma,
        limit=0.0 if smoothing is None else smoothing.limit,
        critic_most=largest_norm(rule.critic.max_grad_norm),
        actor_most=largest_norm(rule.max_grad_norm),
        tau=rule.critic.tau,
        entropy=math.nan if heat is None else heat.target,
        log_alpha_most=0.0 if heat is None else heat.most,
    )


def _now(rule: Any, progress: float, improves: bool) -> Now:
    critic, heat = rule.critic, _learned(rule)
    return Now(
        alpha=0.0 if rule.temperature is None else rule.temperature.alpha,
        critic_t=critic.optimizer.t + 1,
        critic_lr=at(rule.critic_lr, progress),
        actor_t=rule.optimizer.t + 1,
        actor_lr=at(rule.lr, progress),
        alpha_t=0 if heat is None else heat.optimizer.t + 1,
        alpha_lr=0.0 if heat is None else at(heat.lr, progress),
        improves=improves,
        follows=rule.copy is None or improves,
    )


def _pathwise_arrays(rule: Any, policy: ExploringPolicy, rows: int) -> tuple[Any, ...]:
    critic, heat, dtype = rule.critic, _learned(rule), policy.flat.dtype
    actor, values = net(policy), net(critic.network)
    acting = actor if rule.copy is None else net(rule.copy)
    nets = Nets(
        actor, values, net(critic.copy), acting, values if rule.copy is None else net(critic.network, first=True)
    )
    width, size = rows * int(actor.layers[0, 0]), rows * policy.head.dims
    check_widths(actor, policy.head.size)
    check_widths(values, 1, (width + size) // rows)
    mini = Minibatch(*(vector(n, dtype) for n in (width, width, size, rows, rows, size, size)))
    for noise in (mini.next_noise, mini.noise):
        noise[:] = 0.0
    optimizer, log_alpha = (Adam(), torch.zeros(1)) if heat is None else (heat.optimizer, heat.log_alpha)
    states = (critic.optimizer, critic.network.flat), (rule.optimizer, policy.flat), (optimizer, log_alpha)
    paths = Paths(*(vector(n, dtype) for n in (size, size, rows, width + size)))
    target, q, slope = (vector(n, dtype) for n in (rows, rows * values.stack, size))
    grad, actor_grad = vector(len(values.theta), dtype), vector(len(actor.theta), dtype)
    work, own = work_memory([actor, values], rows, dtype), work_memory([actor], rows, dtype)
    memory = StepMemory(work, own, paths, target, q, slope, grad, actor_grad, vector(1, torch.float32))
    return nets, mini, Optimizers(*(adam_state(*state) for state in states)), log_alpha.numpy(), memory


class QStep(_Step):
    """`QLearning` on one minibatch."""

    heads = (ActionValues,)

    def step(self, rule: Any, policy: ExploringPolicy, batch: Transitions, progress: float) -> None:
        features, following = policy.features(batch.obs), policy.features(batch.next_obs)
        rows, dtype = len(features), policy.flat.dtype
        copy = None if rule.copy is None else rule.copy.flat
        moments = rule.optimizer.moments(policy.flat)[0]
        values, target, state, work, before, after, q, error, grad = self.arrays(
            _q_arrays, rows, [policy.flat, copy, moments], rule, policy
        )
        before[:], after[:] = features.reshape(-1).numpy(), following.reshape(-1).numpy()
        legal = policy.context(batch.next_obs, {})
        illegal = NOTHING if legal is None else ((legal - 1.0) * MASK_PENALTY).reshape(-1)
        norm = q_step(
            values, target, rule.double and copy is not None, rule.loss == "huber", before, after,
            illegal.to(dtype).numpy(), batch.act.to(torch.int64).numpy(), batch.ret.to(dtype).numpy(),
            batch.discount.to(dtype).numpy(), largest_norm(rule.max_grad_norm), state, rule.optimizer.t + 1,
            at(rule.lr, progress), work, q, error, grad,
        )  # fmt: skip
        if norm < 0.0:
            raise IndexError(f"an action of the minibatch is not among 0 … {policy.head.size - 1}")
        rule.check(norm)
        rule.optimizer.t += 1
        rule.last = torch.from_numpy(q).view(rows, -1), torch.from_numpy(error).unsqueeze(-1), norm


def _q_arrays(rule: Any, policy: ExploringPolicy, rows: int) -> tuple[Any, ...]:
    values, dtype = net(policy), policy.flat.dtype
    width, actions = int(values.layers[0, 0]), policy.head.size
    check_widths(values, actions)
    sizes = rows * width, rows * width, rows * actions, rows, len(values.theta)
    target, state = values if rule.copy is None else net(rule.copy), adam_state(rule.optimizer, policy.flat)
    return values, target, state, work_memory([values], rows, dtype), *(vector(n, dtype) for n in sizes)
