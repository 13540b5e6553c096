"""Epochs as compiled functions, where they are wanted and there are any. numba is imported here, when it is to be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from policygrad.data import Batch
from policygrad.models.workspace import AscentPlan, Epochs, Workspace


def policy_epochs(space: Workspace, policy: Any, batch: Batch, terms: Sequence[Any], how: AscentPlan) -> Epochs | None:
    """Passes of ascent on the sum of the terms; None where the reference is to run."""
    if not getattr(policy, "compiles", False):
        return None
    from policygrad.models.epochs import policy_epochs

    return policy_epochs(space, policy, batch, terms, how)


def acting(space: Workspace, policy: Any, rows: int) -> Callable[..., Any] | None:
    """`policy.act` for so many environments; None where the policy is to do it."""
    if not getattr(policy, "compiles", False):
        return None
    from policygrad.models.acting import acting

    return acting(space, policy, rows)


def fisher(space: Workspace, policy: Any, batch: Batch, dist: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`PolicyEvaluation.fisher_product` of a batch at distributions (B, P), (v, weights) → F v; None for the reference's.

    Valid until the parameters move, or others are asked for in the same space.
    """
    if not getattr(policy, "compiles", False):
        return None
    from policygrad.models.fisher import fisher

    return fisher(space, policy, batch, dist)


def value_epochs(
    space: Workspace, policy: Any, critic: Any, features: Tensor, target: Tensor, act: Tensor | None, how: AscentPlan
) -> Epochs | None:
    """Passes of a critic's regression on targets (B,), of the values of the actions act (B,) where there are any."""
    if not getattr(policy, "compiles", False):
        return None
    from policygrad.models.epochs import value_epochs

    return value_epochs(space, critic, features, target, act, how)
