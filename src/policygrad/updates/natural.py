"""The natural policy gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.errors import NotFiniteError
from policygrad.gradient.natural import Solution, conjugate_gradient, damped, dense_solve, to_boundary
from policygrad.models.policy import Evaluation, Policy
from policygrad.models.schedules import Schedule, at

SOLVERS = ("cg", "dense")


class NaturalGradient:
    """θ ← θ + s with s along (F + damping · I)⁻¹ ∇L, the steepest ascent in policy space: Kakade 2001.

    L = Σ weight · ratio · adv + ent_coef · Σ weight · entropy, whose gradient is the policy gradient where the data is the
    policy's own; F the Fisher matrix over the batch's states and all actions. The length is such that ½ sᵀ(F + damping · I)s =
    max_kl, a budget in nats, or with `lr` a fixed rate, s = lr · (F + damping · I)⁻¹ ∇L. Nothing checks what the step did: for
    that there is `TrustRegion`.

    solver: "cg", cg_iterations of conjugate gradients, or "dense", the pseudo-inverse of the P × P matrix, for small policies.
    """

    def __init__(
        self,
        max_kl: Schedule = 0.01,
        *,
        lr: Schedule | None = None,
        damping: float = 0.1,
        cg_iterations: int = 10,
        cg_tolerance: float = 1e-10,
        solver: str = "cg",
        ent_coef: Schedule = 0.0,
    ) -> None:
        if not (callable(max_kl) or max_kl > 0.0):
            raise ValueError(f"max_kl must be positive, got {max_kl}")
        if not (callable(lr) or lr is None or lr > 0.0):
            raise ValueError(f"lr must be positive, or None for a step from max_kl, got {lr}")
        if not damping >= 0.0:
            raise ValueError(f"damping must be at least 0, got {damping}")
        if cg_iterations < 1:
            raise ValueError(f"cg_iterations must be at least 1, got {cg_iterations}")
        if solver not in SOLVERS:
            raise ValueError(f"solver must be one of {SOLVERS}, got {solver!r}")
        self.max_kl, self.lr, self.damping, self.ent_coef = max_kl, lr, damping, ent_coef
        self.cg_iterations, self.cg_tolerance, self.solver = cg_iterations, cg_tolerance, solver

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> Stats:
        step, stats = self.propose(policy.evaluate(batch.obs, batch.act), batch, progress)
        policy.flat.add_(step)
        return stats

    def propose(self, evaluation: Evaluation, batch: Batch, progress: float) -> tuple[Tensor, Stats]:
        """The step (P,) from where the evaluation was made, and how it was found. Nothing moves.

        Raises NotFiniteError where gradient or step is not finite, CurvatureError where F + damping · I is not positive.
        """
        ent_coef = at(self.ent_coef, progress)
        weight = batch.weight * batch.adv * (evaluation.logp - batch.logp).exp()
        gradient = evaluation.gradient(weight, batch.weight * ent_coef if ent_coef else None).clone()
        norm = float(torch.linalg.vector_norm(gradient))
        if not math.isfinite(norm):
            raise NotFiniteError(f"the policy's gradient has norm {norm}. Nothing was updated.")
        solution = self.solve(evaluation, batch, gradient)
        step = (
            to_boundary(solution, at(self.max_kl, progress)) if self.lr is None else at(self.lr, progress) * solution.x
        )
        if not math.isfinite(float(step.sum()) + solution.energy):
            raise NotFiniteError("the natural step is not finite: raise damping. Nothing was updated.")
        return step, {
            "grad_norm": norm,
            "cg_iterations": solution.iterations,
            "cg_residual": solution.residual,
            "cg_curvature": solution.curvature,
        }

    def solve(self, evaluation: Evaluation, batch: Batch, b: Tensor) -> Solution:
        """(F + damping · I)⁻¹ b."""
        product = damped(lambda v: evaluation.fisher_product(v, batch.share), self.damping)
        if self.solver == "dense":
            return dense_solve(product, b)
        return conjugate_gradient(product, b, self.cg_iterations, self.cg_tolerance)

    def report(self, logp: Tensor, batch: Batch) -> Stats:
        """Nothing more: what there is to say is said at every update."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep: every step is made anew."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
