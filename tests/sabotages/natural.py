"""Sabotages of claims about natural gradients."""

from __future__ import annotations

from policygrad.lab.claims import natural as claims
from policygrad.lab.steps import relations
from policygrad.updates import NaturalGradient
from sabotages import Sabotage, replaced, times, wrapped


def plain_step(patch):
    """NPG's step is the plain gradient."""
    plain = claims.exact_gradient(*claims.study()[:2])
    patch.setattr(relations, "natural_step", lambda policy, batch, max_kl: plain * max_kl**0.5)


def damped(max_kl, **keywords):
    return NaturalGradient(max_kl)


def more_products(product, g, iterations):
    """Conjugate gradients that take more products the more parameters there are."""
    for _ in range(len(g) // 8):
        product(g)


SABOTAGES = [
    Sabotage("npg-approximates-trpo", plain_step),
    Sabotage("fisher-is-the-hessian-of-kl", wrapped(claims, "fisher", times(1.0 + 1e-9))),
    Sabotage("npg-in-closed-form", replaced(claims, "NaturalGradient", damped)),
    Sabotage("natural-gradient-is-invariant", wrapped(claims, "natural_gradient", lambda of: claims.exact_gradient)),
    Sabotage("inverting-fisher-is-costly", replaced(claims, "conjugate_gradient", more_products), slow=True),
    Sabotage("small-step-big-policy-step", replaced(claims, "mean_kl", lambda *given: 0.01), slow=True),
]
