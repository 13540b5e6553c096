"""Sabotages of the claim about asynchronous workers."""

from __future__ import annotations

from dataclasses import replace

from policygrad.lab.claims import asynchronous as claims
from policygrad.lab.claims.tools import small
from policygrad.lab.exact.tabular import exact_gradient
from policygrad.lab.theory import delays
from sabotages import Sabotage, replaced, together, wrapped

ONE_MDP = replaced(claims, "small", lambda: small()[:1])


def waiting(of):
    """Workers wait for each other, so that no gradient is old."""
    return lambda mdp, policy, delay, *rest: replace(of(mdp, policy, 0, *rest), delay=delay)


# ∇J of a linear function is right however old it is.
LINEAR = replaced(delays, "exact_gradient", lambda mdp, policy: exact_gradient(mdp, small()[0].policy))

SABOTAGES = [
    Sabotage("staleness-biases-the-gradient", together(ONE_MDP, LINEAR)),
    Sabotage("staleness-biases-the-gradient", together(ONE_MDP, wrapped(delays, "_path", waiting)), slow=True),
]
