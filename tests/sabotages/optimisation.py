"""Sabotages of claims about gradient ascent and derivatives."""

from __future__ import annotations

from functools import cache

import torch

from policygrad.lab.claims import optimisation as claims
from policygrad.lab.theory import derivatives, stochastic
from sabotages import Break, Sabotage, replaced, together, wrapped

LANDSCAPES = replaced(claims, "landscapes", cache(claims.landscapes))  # they stay as they are


def with_step(of):
    """Exact gradients with other weights of the parameters."""
    return lambda mdp, policy: of(mdp, policy) * torch.arange(1.0, 7.0)


def one_sided() -> Break:
    return lambda patch: patch.setitem(
        derivatives.DIFFERENCES, "central", lambda f, x, h: derivatives.complex_step(f, x, h)
    )


DOWN = wrapped(stochastic, "sgd", lambda of: lambda *given: of(*given, maximize=False))
WRONG_FORM = wrapped(claims, "gradient_theorem", lambda of: lambda mdp, policy: of(mdp, policy) * (1.0 + 1e-9))

SABOTAGES = [
    Sabotage("steepest-ascent", together(LANDSCAPES, wrapped(claims, "exact_gradient", with_step)), slow=True),
    Sabotage("convex-ascent-finds-the-maximum", wrapped(claims, "bowl", lambda of: lambda sign: of(-1.0)), "holds"),
    Sabotage("automatic-differentiation", WRONG_FORM),
    Sabotage("numerical-differentiation", one_sided(), slow=True),
    Sabotage("stochastic-ascent", DOWN, slow=True),
]
