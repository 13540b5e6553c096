"""Sabotages of claims about losses and log-probabilities."""

from __future__ import annotations

from policygrad.data import Rollout
from policygrad.lab.claims import loss as claims
from sabotages import Break, Sabotage, wrapped


def always(reduction: str) -> Break:
    """One reduction is taken for the other."""
    return wrapped(Rollout, "flatten", lambda of: lambda self, adv, asked: of(self, adv, reduction))


NO_SHIFT = wrapped(claims, "losses", lambda of: lambda mdp, policy, **given: of(mdp, policy, **given, shift=1e-3))

SABOTAGES = [
    Sabotage(
        "log-probabilities-are-easier", wrapped(claims, "case", lambda of: lambda name, horizon: of(name, horizon=20))
    ),
    Sabotage("loss-is-not-performance", NO_SHIFT),
    Sabotage("loss-gradient-is-policy-gradient", always("trajectory"), slow=True),
    Sabotage("loss-gradient-is-policy-gradient", always("step"), slow=True),
    Sabotage(
        "good-trajectories-become-likely",
        wrapped(claims, "VanillaGradient", lambda of: lambda lr, **given: of(-lr, **given)),
    ),
]
