"""Sabotages of claims about estimators, and wrappers of an estimator's call that others use, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from policygrad.data import Estimate
from policygrad.gradient import estimators
from policygrad.lab.claims import tools
from policygrad.lab.claims.tools import Case
from sabotages import Sabotage, times, wrapped


def returns_times(factor: float) -> Callable:
    """An estimator's call, its returns multiplied."""

    def wrapping(original: Callable) -> Callable:
        def call(self, rollout, values):
            found: Estimate = original(self, rollout, values)
            return replace(found, ret=factor * found.ret)

        return call

    return wrapping


def late(original: Callable) -> Callable:
    """Reward-to-go without the reward of the step itself."""

    def call(self, rollout, values):
        found: Estimate = original(self, rollout, values)
        return replace(found, ret=found.ret - torch.where(rollout.mask, rollout.rew, 0.0))

    return call


def from_the_start(original: Callable) -> Callable:
    """Reward-to-go that credits the past as well."""
    return lambda self, rollout, values: estimators.TotalReturn(self.gamma)(rollout, values)


def one_lambda(original: Callable) -> Callable:
    """GAE that ignores λ."""
    return lambda self, rollout, values: original(replace(self, lam=1.0), rollout, values)


LATE = wrapped(estimators.RewardToGo, "__call__", late)
WRONG_SCORE = wrapped(tools, "scores", times(1.01))

SABOTAGES = [
    Sabotage("score-times-return", wrapped(estimators.TotalReturn, "__call__", returns_times(1.01))),
    Sabotage("error-falls-with-trajectories", wrapped(estimators.TotalReturn, "__call__", returns_times(1.5))),
    Sabotage("log-derivative-trick", WRONG_SCORE),
    Sabotage("dynamics-drop-out", WRONG_SCORE),
    Sabotage("reinforce-is-unbiased", LATE),
    Sabotage("past-rewards-do-not-matter", LATE),
    Sabotage("reward-to-go-lowers-variance", wrapped(estimators.RewardToGo, "__call__", from_the_start), slow=True),
    Sabotage("q-for-reward-to-go", wrapped(estimators.QValue, "__call__", returns_times(1.01))),
    Sabotage("mse-is-bias-and-variance", wrapped(Case, "variance", times(1.01))),
]
