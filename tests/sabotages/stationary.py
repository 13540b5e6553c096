"""Sabotages of the claim about stationary points."""

from __future__ import annotations

from policygrad.lab.claims import stationary as claims
from sabotages import Sabotage, wrapped


def only_maxima(of):
    """All of the points are maxima."""
    return lambda: (
        {name: point for name, point in of().items() if name.endswith("maximum")}
        | {name: of()["maximum"] for name in ("saddle", "minimum of J")}
    )


SABOTAGES = [Sabotage("stationary-points-cannot-be-left", wrapped(claims, "stationary_points", only_maxima), "holds")]
