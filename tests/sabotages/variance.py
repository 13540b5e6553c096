"""Sabotages of claims about the variance, and about when an update can be made."""

from __future__ import annotations

import torch

from policygrad.gradient import baselines, estimators
from policygrad.lab.claims import variance as claims
from sabotages import Sabotage, replaced, wrapped
from sabotages.estimators import one_lambda


def no_baseline(self, rollout, ret, values):
    return torch.zeros_like(ret)


SABOTAGES = [
    Sabotage(
        "reinforce-has-high-variance", wrapped(claims, "case", lambda of: lambda name, horizon: of(name, horizon=4))
    ),
    Sabotage("small-changes-of-returns", replaced(baselines.LeaveOneOut, "__call__", no_baseline)),
    Sabotage("bootstrapping-lowers-variance", wrapped(estimators.GAE, "__call__", one_lambda), slow=True),
    Sabotage("credit-assignment-is-hard", wrapped(claims, "delayed", lambda of: lambda d: of(1))),
    Sabotage(
        "actor-critic-updates-every-step", wrapped(claims, "first_updates", lambda of: lambda algo: of("reinforce"))
    ),
    Sabotage(
        "reinforce-waits-for-the-end", wrapped(claims, "first_updates", lambda of: lambda algo: of("actor_critic"))
    ),
]
