"""The natural policy gradient."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.errors import NotFiniteError
from policygrad.forms import Form, table
from policygrad.gradient.natural import Solution, conjugate_gradient, damped, dense_solve, scale_to_kl
from policygrad.models.compiling import fisher
from policygrad.models.policy import Policy, PolicyEvaluation
from policygrad.models.schedules import Schedule, at
from policygrad.models.workspace import Workspace
from policygrad.total import is_shared, total

SOLVERS = ("cg", "dense")


@dataclass(eq=False)
class NaturalGradient:
    """θ ← θ + s with s along (F + damping · I)⁻¹ ∇L, the steepest ascent in policy space: Kakade 2001.

    L = Σ weight · ratio · adv + ent_coef · Σ weight · entropy, whose gradient is the policy gradient where the data is the
    policy's own; F the Fisher matrix over the batch's states and all actions. The length is such that ½ sᵀ(F + damping · I)s =
    max_kl, a budget in nats, or with `lr` a fixed rate, s = lr · (F + damping · I)⁻¹ ∇L. Nothing checks what the step did: for
    that there is `TrustRegion`.

    max_kl: the budget in nats, above 0, a number or a schedule of progress.
    lr: a fixed rate in the budget's place, above 0; None: the budget.
    damping: what is added to F's diagonal, at least 0.
    cg_iterations: how many conjugate gradients are taken at most, at least 1.
    cg_tolerance: the relative residual they stop at.
    solver: "cg", or "dense", the pseudo-inverse of the P × P matrix, for small policies.
    ent_coef: weight of the mean entropy, a number or a schedule.

    Raises ValueError for numbers out of range.
    """

    max_kl: Schedule = 0.01
    _: KW_ONLY
    lr: Schedule | None = None
    damping: float = 0.1
    cg_iterations: int = 10
    cg_tolerance: float = 1e-10
    solver: str = "cg"
    ent_coef: Schedule = 0.0

    def __post_init__(self) -> None:
        if not (callable(self.max_kl) or self.max_kl > 0.0):
            raise ValueError(f"max_kl must be positive, got {self.max_kl}")
        if not (callable(self.lr) or self.lr is None or self.lr > 0.0):
            raise ValueError(f"lr must be positive, or None for a step from max_kl, got {self.lr}")
        if not self.damping >= 0.0:
            raise ValueError(f"damping must be at least 0, got {self.damping}")
        if self.cg_iterations < 1:
            raise ValueError(f"cg_iterations must be at least 1, got {self.cg_iterations}")
        if self.solver not in SOLVERS:
            raise ValueError(f"solver must be one of {SOLVERS}, got {self.solver!r}")
        self.workspace = Workspace()

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> Stats:
        step, stats = self.propose(self.evaluate(policy, batch), batch, progress)
        policy.flat.add_(step)
        return stats

    def evaluate(self, policy: Policy, batch: Batch) -> PolicyEvaluation:
        """The policy's evaluation, with compiled products with the Fisher matrix where there are any."""
        evaluation = policy.evaluate(batch)
        if is_shared() or batch.segment != 1:
            return evaluation
        product = fisher(self.workspace, policy, batch, evaluation.dist)
        return evaluation if product is None else replace(evaluation, product=product)

    def propose(self, evaluation: PolicyEvaluation, batch: Batch, progress: float) -> tuple[Tensor, Stats]:
        """The step (P,) from the parameters of the evaluation, and its solution. The policy is not changed.

        Raises NotFiniteError where gradient or step is not finite, CurvatureError where F + damping · I is not positive.
        """
        ent_coef = at(self.ent_coef, progress)
        weight = batch.weight * batch.adv * (evaluation.logp - batch.logp).exp()
        gradient = total(evaluation.gradient(weight, batch.weight * ent_coef if ent_coef else None).clone())
        norm = float(torch.linalg.vector_norm(gradient))
        if not math.isfinite(norm):
            raise NotFiniteError(f"the policy's gradient has norm {norm}. Nothing was updated.")
        solution = self.solve(evaluation, batch, gradient)
        step = (
            scale_to_kl(solution, at(self.max_kl, progress)) if self.lr is None else at(self.lr, progress) * solution.x
        )
        if not math.isfinite(float(step.sum()) + solution.quadratic_form):
            raise NotFiniteError("the natural step is not finite: raise damping. Nothing was updated.")
        return step, {
            "grad_norm": norm,
            "cg_iterations": solution.iterations,
            "cg_residual": solution.residual,
            "cg_curvature": solution.curvature,
        }

    def solve(self, evaluation: PolicyEvaluation, batch: Batch, b: Tensor) -> Solution:
        """(F + damping · I)⁻¹ b."""
        weight = batch.normalized_weight
        product = damped(lambda v: total(evaluation.fisher_product(v, weight)), self.damping)
        if self.solver == "dense":
            return dense_solve(product, b)
        return conjugate_gradient(product, b, self.cg_iterations, self.cg_tolerance)

    def report(self, logp: Tensor, batch: Batch) -> Stats:
        """No numbers: they are returned by every update."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing is kept between steps."""
        return {}

    def state_form(self, params: Tensor) -> Form:
        """Nothing is kept."""
        return table({})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
