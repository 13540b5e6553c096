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


def ageless(mdp, policy, delay, rate, *rest):
    """Every old gradient is equally wrong, however old it is."""
    return delays.DelayedPath(delay, rate, rate if delay else 0.0, 1.0, (0.0, 0.0))


# ∇J of a linear function is right however old it is.
LINEAR = replaced(delays, "exact_gradient", lambda mdp, policy: exact_gradient(mdp, small()[0].policy))

SABOTAGES = [
    Sabotage("staleness-biases-the-gradient", together(ONE_MDP, replaced(delays, "_path", ageless))),
    Sabotage("staleness-biases-the-gradient", together(ONE_MDP, LINEAR), slow=True),
    Sabotage("staleness-biases-the-gradient", together(ONE_MDP, wrapped(delays, "_path", waiting)), slow=True),
]
