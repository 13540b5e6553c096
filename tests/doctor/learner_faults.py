"""Algorithms with a planted fault, and the probe that must find each first: written before they were run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import policygrad as pg


class Blind(nn.Module):
    """Features that do not depend on the observation."""

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(space.shape[0], 16)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(0.0 * obs))


class Descent(pg.VanillaGradient):
    """The gradient with the wrong sign."""

    def score_weights(self, logp: torch.Tensor, batch: pg.Batch) -> torch.Tensor:
        return -super().score_weights(logp, batch)


def composed(
    task: pg.Task, critic_task: pg.Task, update: Any = None, gamma: float = 0.99, num_steps: int = 32
) -> pg.Plan:
    """An advantage actor-critic."""
    critic = critic_task.critic(5e-3, epochs=4, minibatches=1)
    rule = update or pg.VanillaGradient(1e-2, seed=task.seed)
    return pg.Plan(pg.Learner(task.policy(), pg.GAE(gamma, 0.95), rule, critic=critic), num_steps=num_steps)


def healthy(task: pg.Task, *, num_steps: int = 32, gamma: float = 0.99) -> pg.Plan:
    """Without a fault."""
    return composed(task, task, gamma=gamma, num_steps=num_steps)


def unfitted(task: pg.Task, *, num_steps: int = 32, gamma: float = 0.99) -> pg.Plan:
    """The critic is never fitted."""
    plan = composed(task, task, gamma=gamma, num_steps=num_steps)
    plan.learner.critic.fit = lambda *_: {}
    return plan


def blind_critic(task: pg.Task, *, num_steps: int = 32, gamma: float = 0.99) -> pg.Plan:
    """The critic sees no observation."""
    return composed(task, replace(task, critic_body=Blind), gamma=gamma, num_steps=num_steps)


def undiscounted(task: pg.Task, *, num_steps: int = 32, gamma: float = 0.99) -> pg.Plan:
    """γ is 0, whatever is asked for."""
    return composed(task, task, gamma=0.0, num_steps=num_steps)


def descent(task: pg.Task, *, num_steps: int = 32, gamma: float = 0.99) -> pg.Plan:
    """The policy gradient has the wrong sign."""
    return composed(task, task, Descent(1e-2, seed=task.seed), gamma, num_steps)


def blind_policy(task: pg.Task, *, num_steps: int = 32, gamma: float = 0.99) -> pg.Plan:
    """The policy sees no observation."""
    return composed(replace(task, body=Blind), task, gamma=gamma, num_steps=num_steps)


@dataclass(frozen=True)
class LearnerFault:
    """A fault of an algorithm. rule: the first probe that must fail."""

    name: str
    rule: str
    recipe: Any


LEARNER_FAULTS = [
    LearnerFault("a critic that is never fitted", "probe of value", unfitted),
    LearnerFault("a critic that sees no observation", "probe of observation", blind_critic),
    LearnerFault("a discount of 0", "probe of discount", undiscounted),
    LearnerFault("a gradient with the wrong sign", "probe of action", descent),
    LearnerFault("a policy that sees no observation", "probe of both", blind_policy),
]
