"""Whole steps on a minibatch as single compiled functions (numba), for MLPs and Adam on a CPU.

They compute what the rules in `updates` say, from the same random numbers, up to rounding. `updates` is the reference; it runs
where numba is missing, and for every network, head or optimiser that is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Step = Callable[[Any, Any, Any, float], None]  # of (rule, policy, batch, progress)


def compiled_step(name: str, policy: Any, networks: list[Any], optimizers: list[Any]) -> Step | None:
    """The compiled step of a rule by the name of its class in `steps`, or None where the reference is to run.

    networks, optimizers: all that the rule moves, besides the policy. A policy with kernel = "closed_form" asks for the
    reference.
    """
    if policy.kernel_choice != "auto":
        return None
    try:
        from policygrad.compiled.steps import step_of
    except (ImportError, OSError):  # numba is missing, or is none for this NumPy
        return None
    return step_of(name, policy, networks, optimizers)
