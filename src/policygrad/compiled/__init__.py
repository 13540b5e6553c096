"""Whole steps on a minibatch as single compiled functions (numba), for MLPs and Adam on a CPU.

They compute what the rules in `updates` say, from the same random numbers, up to rounding. `updates` is the reference; it runs
where numba is missing, and for every network, head or optimiser that is not here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policygrad.updates.pathwise import Pathwise
    from policygrad.updates.q_learning import QLearning

Step = Callable[[Any, Any, Any, float], None]  # of (rule, policy, batch, progress)


def compiled_step(rule: Pathwise | QLearning, policy: Any) -> Step | None:
    """The compiled step of a rule, or None where the reference is to run: a policy with kernel = "closed_form" asks for it."""
    if policy.kernel_choice != "auto" or importlib.util.find_spec("numba") is None:
        return None
    from policygrad.compiled.rules import step_of

    return step_of(rule, policy)
