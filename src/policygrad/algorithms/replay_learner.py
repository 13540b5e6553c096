"""The learner that keeps what it saw: records go into a replay buffer, and minibatches drawn from it move the networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from policygrad.data import Record, Rollout, Stats
from policygrad.forms import Form, form_of, number, table, whole
from policygrad.models.exploring import ExploringPolicy
from policygrad.models.schedules import Schedule, at
from policygrad.replay import ReplayBuffer, Transitions
from policygrad.streams import stream
from policygrad.total import share, total
from policygrad.tree import take, to_torch, tree_map


class TransitionRule(Protocol):
    """How networks move on a minibatch of transitions. `QLearning` and `Pathwise` are such rules."""

    def __call__(self, policy: ExploringPolicy, batch: Transitions, progress: float = 0.0) -> None:
        """Move the networks."""
        ...

    def synchronise(self, policy: ExploringPolicy, before: int, now: int) -> None:
        """Told before the minibatches of a record: the environment steps before it and with it."""
        ...

    def report(self) -> Stats:
        """Numbers about the last minibatch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


class ReplayLearner:
    """A policy, a rule for transitions, and the replay buffer: `ReplayLearner(policy, QLearning(policy), …)` is DQN.

    num_envs: environments in a record. buffer_size: steps kept. batch_size: transitions in a minibatch. gradient_steps:
    minibatches for every record; None: as many as the record has steps. warmup: steps that are played with uniformly random
    actions before anything is learned. epsilon: the probability of a random action after that, as a schedule. noise: a schedule
    of the noise σ of a deterministic head; None: it stays what it is. n_step: rewards
    summed before a value is bootstrapped from. gamma: the discount.
    """

    def __init__(
        self,
        policy: ExploringPolicy,
        rule: TransitionRule,
        *,
        num_envs: int,
        gamma: float = 0.99,
        n_step: int = 1,
        buffer_size: int = 100_000,
        batch_size: int = 64,
        gradient_steps: int | None = None,
        warmup: int = 1_000,
        epsilon: Schedule = 0.0,
        noise: Schedule | None = None,
        seed: int = 0,
    ) -> None:
        self.policy, self.rule = policy, rule
        self.gamma, self.n_step, self.batch_size = gamma, n_step, batch_size
        self.gradient_steps, self.warmup, self.epsilon, self.noise = gradient_steps, warmup, epsilon, noise
        self.observers: list[Callable[[Rollout], None]] = []  # shown every record, before anything is learned from it
        self.steps = 0  # of the environments, in all records
        self.loaded: Stats = {}  # what the rule said of its last minibatch before a checkpoint, until it says something newer
        self.num_envs, (first, stop) = num_envs, share(num_envs)  # of all shards, and of this one
        self.rows = batch_size * stop // num_envs - batch_size * first // num_envs  # of a minibatch, in this shard
        if stop - first < num_envs:  # as many rows as the buffer of all environments has
            buffer_size = -(-buffer_size // num_envs) * (stop - first)
        example, choices = _example(policy, stop - first), policy.head.actions
        self.replay = ReplayBuffer(buffer_size, *example, stream(seed, "replay"), choices=choices)
        policy.epsilon = 1.0 if warmup else at(epsilon, 0.0)

    @property
    def waits(self) -> int:
        """Steps to be played before anything is learned. A buffer that began empty once more is filled as at first, with the
        actions of the policy as it is.
        """
        rows = self.replay.added * self.num_envs  # the steps, and the resets between them
        return max(0, self.warmup - min(self.steps, rows))

    def step(self, record: Record, progress: float = 0.0) -> Stats:
        """Keep a record and learn from what is kept. progress in [0, 1] drives schedules."""
        for observer in self.observers:
            observer(Rollout.of(record, self.policy))
        self.replay.add(record)
        steps = total(record.steps)
        before, self.steps = self.steps, self.steps + steps
        policy = self.policy
        if policy.normalizer is not None and steps:
            policy.normalizer.merge(policy.raw_features(_valid(record)))
        self.rule.synchronise(policy, before, self.steps)
        if self.noise is not None:
            policy.head.sigma = at(self.noise, progress)
        if self.waits or not steps:  # resets alone teach nothing
            return {}
        policy.epsilon = at(self.epsilon, progress)
        for _ in range(steps if self.gradient_steps is None else self.gradient_steps):
            self.rule(policy, self.replay.sample(self.rows, self.gamma, self.n_step), progress)
        return {}

    def report(self) -> Stats:
        """What the rule says of its last minibatch, epsilon, and the steps that the buffer holds."""
        held = self.replay.size * self.num_envs
        return self._said() | {"epsilon": self.policy.epsilon, "replay_steps": held}

    def _said(self) -> Stats:
        return dict(sorted((self.loaded | self.rule.report()).items()))  # in the order that files have

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, but for the environments."""
        parts = {"policy": self.policy, "rule": self.rule, "replay": self.replay}
        own = {"steps": self.steps, "report": self._said()} | self._sigma()
        return {name: dict(part.state_dict()) for name, part in parts.items()} | own

    def state_form(self) -> Form:
        """Of `state_dict`."""
        forms = {"policy": form_of(self.policy), "rule": form_of(self.rule, self.policy.flat)}
        own = {"steps": whole(), "report": table({}, others=number())}
        own |= dict.fromkeys(self._sigma(), number(0.0))
        return table(forms | {"replay": form_of(self.replay)} | own)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in ("policy", "rule", "replay"):
            getattr(self, name).load_state_dict(state[name])
        self.steps, self.loaded = state["steps"], dict(state["report"])
        if self.noise is not None:
            self.policy.head.sigma = state["noise"]

    def _sigma(self) -> dict[str, float]:
        """The noise of now, if it has a schedule."""
        return {} if self.noise is None else {"noise": self.policy.head.sigma}


def _valid(record: Record) -> Any:
    """The observations that were acted on, (B, *)."""
    return to_torch(tree_map(lambda x: x[record.mask], take(record.obs, slice(-1))))


def _example(policy: ExploringPolicy, num_envs: int) -> tuple[Any, Any]:
    """An observation and an action of so many environments, as records have them."""
    assert policy.encoding is not None
    obs = policy.encoding.empty(num_envs)
    noise = policy.noise(np.random.default_rng(0), (num_envs,))
    before, policy.epsilon = policy.epsilon, 0.0
    act = policy.act(obs, policy.begin(noise) if policy.stateful else None, noise)[0]
    policy.epsilon = before
    return obs, act
