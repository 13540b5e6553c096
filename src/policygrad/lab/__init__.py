"""The laboratory: exact worlds, and what they say about estimators.

    import policygrad as pg
    mdp = pg.lab.make_mdp("small")
    print(pg.lab.audit(mdp, estimators=["to-go", "gae:0.9"], baselines=["none", "value"]))

Everything is imported on first use; what is not in this list is in the room's modules.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "policygrad.lab.auditing.audit": ("Audit", "audit"),
    "policygrad.lab.exact.mdp": ("MDP", "bandit", "chain", "from_gymnasium", "gridworld", "random_mdp"),
    "policygrad.lab.auditing.optimal_baselines": ("baseline_curve",),
    "policygrad.lab.exact.sampling": ("sample",),
    "policygrad.lab.exact.tabular": (
        "ExactCritic",
        "ExactQCritic",
        "advantage",
        "enumerate_trajectories",
        "exact_gradient",
        "fisher",
        "gradient_by_differences",
        "gradient_theorem",
        "natural_gradient",
        "objective",
        "occupancy",
        "optimal_policy",
        "optimum",
        "policy_iteration",
        "policy_matrix",
        "scores",
        "solve",
        "tabular_policy",
    ),
    "policygrad.lab.exact.worlds": ("make_mdp", "starting_policy"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME)]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from policygrad.lab.auditing.audit import Audit as Audit
    from policygrad.lab.auditing.audit import audit as audit
    from policygrad.lab.auditing.optimal_baselines import baseline_curve as baseline_curve
    from policygrad.lab.exact.mdp import MDP as MDP
    from policygrad.lab.exact.mdp import bandit as bandit
    from policygrad.lab.exact.mdp import chain as chain
    from policygrad.lab.exact.mdp import from_gymnasium as from_gymnasium
    from policygrad.lab.exact.mdp import gridworld as gridworld
    from policygrad.lab.exact.mdp import random_mdp as random_mdp
    from policygrad.lab.exact.sampling import sample as sample
    from policygrad.lab.exact.tabular import ExactCritic as ExactCritic
    from policygrad.lab.exact.tabular import ExactQCritic as ExactQCritic
    from policygrad.lab.exact.tabular import advantage as advantage
    from policygrad.lab.exact.tabular import enumerate_trajectories as enumerate_trajectories
    from policygrad.lab.exact.tabular import exact_gradient as exact_gradient
    from policygrad.lab.exact.tabular import fisher as fisher
    from policygrad.lab.exact.tabular import gradient_by_differences as gradient_by_differences
    from policygrad.lab.exact.tabular import gradient_theorem as gradient_theorem
    from policygrad.lab.exact.tabular import natural_gradient as natural_gradient
    from policygrad.lab.exact.tabular import objective as objective
    from policygrad.lab.exact.tabular import occupancy as occupancy
    from policygrad.lab.exact.tabular import optimal_policy as optimal_policy
    from policygrad.lab.exact.tabular import optimum as optimum
    from policygrad.lab.exact.tabular import policy_iteration as policy_iteration
    from policygrad.lab.exact.tabular import policy_matrix as policy_matrix
    from policygrad.lab.exact.tabular import scores as scores
    from policygrad.lab.exact.tabular import solve as solve
    from policygrad.lab.exact.tabular import tabular_policy as tabular_policy
    from policygrad.lab.exact.worlds import make_mdp as make_mdp
    from policygrad.lab.exact.worlds import starting_policy as starting_policy


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'policygrad.lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
