"""Sabotages of claims about the policies that can be learned."""

from __future__ import annotations

import numpy as np

from policygrad.lab.claims import Outcome
from policygrad.lab.claims import policies as claims
from policygrad.lab.theory.ascent import ascend, fixed
from sabotages import Break, Sabotage, falsified, invent, invented, recorded, replaced, together, wrapped

EXACT = replaced(
    claims, "stochastic_optima", lambda: Outcome("holds", "", {})
)  # it takes long, and has tests of its own


def values(J: dict[str, float], spread: float = 0.001) -> Break:
    """What DQN's greedy policies are worth."""
    curve = np.zeros((10, 20))
    made = {world: {"return": curve, "exact": x + spread * np.linspace(-1, 1, 10)} for world, x in J.items()}
    return invented(invent(claims.VALUES, 10_000, made))


BAD = {"rock-paper-scissors": -5.0, "aliased": 0.5, "corridor": -100.0}
LEARNED = "stochastic-policies"
TOO_LONG = replaced(claims, "ascend", lambda f, theta, steps: ascend(f, theta, steps, fixed(100.0)))
NO_BETTER = [
    recorded("continuous-pendulum", falsified("", lambda x: np.full_like(x, -1200.0), "greedy")),
    recorded("continuous-car", falsified("", lambda x: np.full_like(x, -10.0), "greedy")),
]

SABOTAGES = [
    Sabotage("convergence-guarantees", TOO_LONG, slow=True),
    Sabotage(
        "convergence-guarantees", wrapped(claims, "sharing", lambda of: lambda mdp, p: of(mdp, 0.5)), "holds", slow=True
    ),
    Sabotage(LEARNED, together(EXACT, values(BAD)), "holds"),
    Sabotage(LEARNED, together(EXACT, values(BAD | {"aliased": 0.76}, 0.2)), "undecided", slow=True),
    Sabotage(LEARNED, together(EXACT, values(BAD | {"aliased": 0.9})), slow=True),
    Sabotage(
        LEARNED, together(EXACT, values(BAD), recorded("stochastic", falsified("", lambda x: x - 200.0))), slow=True
    ),
    Sabotage("continuous-actions", together(*NO_BETTER)),
    Sabotage("policy-simpler-than-values", recorded("simple-policy", falsified("", lambda x: x - 1.0, "greedy"))),
]
