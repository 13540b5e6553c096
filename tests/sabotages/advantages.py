"""Sabotages of claims about advantages."""

from __future__ import annotations

import torch

from policygrad.lab.claims import advantages as claims
from policygrad.lab.exact import tabular
from sabotages import Sabotage, replaced, wrapped


def noisy(solve):
    """Q is noise, and V = Σ_a π Q: advantages have the mean 0, and policy iteration ends where none is positive."""

    def wrong(mdp, pi):
        V, Q = solve(mdp, pi)
        Q = torch.randn(Q.shape, generator=torch.Generator().manual_seed(0), dtype=Q.dtype)
        own = (tabular.each_step(mdp, pi) * Q).sum(-1)
        return torch.cat([own, own if mdp.horizon is None else V[-1:]]), Q

    return wrong


def uniform(mdp):
    return torch.full((mdp.states, mdp.actions), 1.0 / mdp.actions, dtype=torch.float64)


WRONG = wrapped(claims, "advantage", lambda of: lambda mdp, pi: of(mdp, pi) + 0.1)

SABOTAGES = [
    Sabotage("advantage-has-mean-zero", wrapped(tabular, "solve", noisy)),
    Sabotage("advantage-has-mean-zero", WRONG),
    Sabotage("no-advantage-at-the-optimum", wrapped(tabular, "solve", noisy)),
    Sabotage("no-advantage-at-the-optimum", replaced(claims, "optimal_policy", uniform)),
    Sabotage("sign-of-the-advantage", WRONG),
]
