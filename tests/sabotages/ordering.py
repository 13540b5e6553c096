"""Sabotages of the claim about the chain of estimators."""

from __future__ import annotations

import pytest
import torch

from policygrad.lab.claims import ordering as claims
from policygrad.lab.exact.tabular import ExactQCritic
from sabotages import Sabotage, replaced, together


def of_other_values(mdp):
    """The advantage of random values."""
    noise = torch.randn(mdp.horizon + 1, mdp.states, mdp.actions, generator=torch.Generator().manual_seed(0))
    return ExactQCritic(mdp, noise.double())


def where_each_is_below(patch: pytest.MonkeyPatch) -> None:
    """Only those of ten MDPs where each link has less variance than the one before."""
    listed = [(c, [c.variance(x) for x in claims.estimates(c)]) for c in claims.small()[:10]]
    chosen = tuple(c for c, found in listed if found == sorted(found, reverse=True))
    patch.setattr(claims, "small", lambda: chosen)
    patch.setattr(claims, "simple", lambda count: ())


WRONG = together(replaced(claims, "SEARCHED", 5), replaced(claims, "ExactQCritic", of_other_values))

SABOTAGES = [
    Sabotage("advantage-ends-the-chain", WRONG, slow=True),
    Sabotage("advantage-ends-the-chain", where_each_is_below, "holds", slow=True),
]
