"""The laboratory: exact computations on small MDPs, and experiments with estimators.

    import policygrad as pg
    mdp = pg.lab.make_mdp("small")
    print(pg.lab.audit(mdp, estimators=["to-go", "gae:0.9"], baselines=["none", "value"]))

`pg.lab.claims` has the claims of textbooks; everything else is in the modules of this package.
"""

from importlib import import_module
from typing import Any

from policygrad.lab.auditing.audit import Audit, audit
from policygrad.lab.auditing.optimal_baselines import baseline_curve
from policygrad.lab.exact.mdp import MDP, bandit, chain, from_gymnasium, gridworld, random_mdp
from policygrad.lab.exact.policies import policy_matrix, tabular_policy
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import (
    ExactCritic,
    ExactQCritic,
    advantage,
    exact_gradient,
    exact_trajectory_kl,
    fisher,
    gradient_by_differences,
    gradient_theorem,
    natural_gradient,
    objective,
    occupancy,
    optimal_policy,
    optimum,
    policy_iteration,
    scores,
    solve,
)
from policygrad.lab.exact.trajectories import enumerate_trajectories
from policygrad.lab.exact.worlds import make_mdp, starting_policy
from policygrad.lab.theory.pathwise import pathwise

_ROOMS = ("auditing", "claims", "exact", "steps", "theory", "values")  # imported on first use

__all__ = [
    "MDP",
    "Audit",
    "ExactCritic",
    "ExactQCritic",
    "advantage",
    "audit",
    "bandit",
    "baseline_curve",
    "chain",
    "enumerate_trajectories",
    "exact_gradient",
    "exact_trajectory_kl",
    "fisher",
    "from_gymnasium",
    "gradient_by_differences",
    "gradient_theorem",
    "gridworld",
    "make_mdp",
    "natural_gradient",
    "objective",
    "occupancy",
    "optimal_policy",
    "optimum",
    "pathwise",
    "policy_iteration",
    "policy_matrix",
    "random_mdp",
    "sample",
    "scores",
    "solve",
    "starting_policy",
    "tabular_policy",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"policygrad.lab has no {name!r}; its other names are in {', '.join(_ROOMS)}", name=name)
