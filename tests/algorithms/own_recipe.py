"""A recipe from outside the package, with an estimator, a critic and an update rule of its own; and an environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

import policygrad as pg
from policygrad.envs.probes import MatchObservation
from policygrad.gradient import returns
from policygrad.updates.first_order import FirstOrder


class HalfClipped(FirstOrder):
    """Clips the ratio upwards only."""

    def __init__(self, lr: float, clip: float, epochs: int) -> None:
        super().__init__(lr, epochs=epochs, minibatches=2)
        self.clip = clip

    def score_weights(self, logp: Tensor, batch: pg.Batch) -> Tensor:
        ratio = (logp - batch.logp).exp()
        return torch.where(ratio > 1.0 + self.clip, 0.0, ratio * batch.adv * batch.weight)


@dataclass(frozen=True)
class Lookahead:
    """r_t + γ V(s_{t+1}), written once more."""

    gamma: float
    needs_critic = True

    def needs_episodes(self, bootstraps: bool) -> bool:
        return False

    def __call__(self, rollout: pg.Rollout, values: pg.Values) -> pg.Estimate:
        ret = returns.rewards(rollout) + self.gamma * returns.bootstrap(rollout, values.next_val)
        return pg.Estimate(ret, ret)

    def wrap(self, adv: Tensor, rollout: pg.Rollout) -> Tensor:
        return adv


class MeanCritic:
    """One number for all states: the mean of all targets so far."""

    bootstraps = True

    def __init__(self) -> None:
        self.mean, self.seen = 0.0, 0

    def __call__(self, rollout: pg.Rollout, policy: pg.Policy) -> pg.Values:
        return pg.Values(torch.full_like(rollout.rew, self.mean), torch.full_like(rollout.rew, self.mean))

    def fit(self, rollout: pg.Rollout, target: Tensor, policy: pg.Policy, progress: float = 0.0) -> dict[str, float]:
        self.seen += rollout.steps
        self.mean += (float(rollout.valid(target).mean()) - self.mean) * rollout.steps / self.seen
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.seen = state["mean"], state["seen"]


def mine(
    task: pg.Task,
    *,
    num_steps: int = 32,
    gamma: float = 0.9,
    lr: float = 3e-3,
    clip: float = 0.2,
    epochs: int = 2,
    heat: Annotated[int, pg.Option("how hot it is", low=1, high=5)] = 3,
    flavour: Literal["plain", "spicy"] = "plain",
) -> pg.Plan:
    """Half-clipped policy gradient.

    A second paragraph that --help leaves out.
    """
    learner = pg.Learner(task.policy(), Lookahead(gamma), HalfClipped(lr, clip, epochs), critic=MeanCritic())  # type: ignore
    return pg.Plan(learner, num_steps=num_steps)


class Match(MatchObservation):
    """An environment that no registry knows."""
