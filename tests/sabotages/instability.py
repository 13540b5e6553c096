"""Sabotages of claims about the stability of values that are learned, and of policy gradients."""

from __future__ import annotations

import torch

from policygrad.lab.claims import instability as claims
from policygrad.lab.theory.ascent import fixed
from policygrad.lab.values import triad
from sabotages import Break, Sabotage, replaced, together, wrapped


def with_a_table(of):
    """Q-learning whatever the features are."""
    table = torch.eye(14, dtype=torch.float64).view(7, 2, 14)
    return lambda mdp, x, w, steps, lr: of(mdp, table, torch.zeros(14, dtype=torch.float64), steps, lr)


def without(part: str) -> Break:
    """The updates lack one of the three parts of the triad, always."""

    def wrapping(of):
        def semigradient(mdp, pi, features, data, bootstrap=True):
            features = torch.eye(mdp.states, dtype=features.dtype) if part == "features" else features
            data = pi if part == "off-policy" else data
            return of(mdp, pi, features, data, bootstrap and part != "bootstrapping")

        return semigradient

    breaks = [wrapped(module, "semigradient", wrapping) for module in (triad, claims)]
    if part == "features":
        breaks += [replaced(triad, "START", (1.0,) * 7)]
        breaks += [replaced(triad, "baird_features", lambda: torch.eye(7, dtype=torch.float64))]
    return together(*breaks)


TOO_LONG = wrapped(claims, "ascend", lambda of: lambda f, theta, steps, rule=None: of(f, theta, steps, fixed(5.0)))
CLOSED = wrapped(triad, "spiral", lambda of: lambda table=False: of(outward=-0.1, table=table))

SABOTAGES = [
    Sabotage("values-can-be-unstable", wrapped(claims, "q_learning", with_a_table), slow=True),
    Sabotage("values-can-be-unstable", TOO_LONG, slow=True),
    *(Sabotage("deadly-triad", without(part)) for part in triad.PARTS),
    Sabotage("deadly-triad", CLOSED, "holds"),
]
