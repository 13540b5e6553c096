"""Natural gradients: steps measured in policy space instead of parameter space.

    F = E[ ∇log π ∇log πᵀ ],     KL(π_θ ‖ π_θ+s) = ½ sᵀFs + O(‖s‖³)
    max_s gᵀs  subject to  ½ sᵀFs ≤ δ      ⇒      s = √(2δ / gᵀF⁻¹g) · F⁻¹g

(Amari 1998; Kakade 2001; Schulman et al. 2015, arXiv 1502.05477, appendix C). A matrix is given by its products with vectors,
so that F, P × P, is never written down; `dense` writes it down for small policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from policygrad.errors import NotFiniteError, TrainingError

Product = Callable[[Tensor], Tensor]  # v (P,) → A v (P,), A symmetric

MAX_DENSE = 1_500  # parameters: F takes as many products, some seconds at 2,048 rows


class CurvatureError(TrainingError, FloatingPointError):
    """A matrix that should be positive definite curves downwards along some direction."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The solution x of A x ≈ b, and its accuracy.

    residual: ‖b − Ax‖ / ‖b‖, of conjugate gradients as their recurrence has it: in float32 the true one stays above 1e-7.
    curvature: the least pᵀAp / pᵀp met on the way, at least A's lowest eigenvalue; NaN if none was.
    """

    x: Tensor  # (P,)
    quadratic_form: float  # xᵀAx
    iterations: int
    residual: float
    curvature: float


def conjugate_gradient(product: Product, b: Tensor, iterations: int = 10, tolerance: float = 1e-10) -> Solution:
    """Solve A x = b for a symmetric positive definite A, from products with A only (Nocedal & Wright, algorithm 5.2).

    Stops at ‖b − Ax‖ ≤ tolerance · ‖b‖ or after `iterations` products. b = 0: x = 0 without any. Raises CurvatureError where
    pᵀAp < 0 by more than rounding and there is something left to solve, NotFiniteError where b or a product is not finite.
    """
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rr = bb = float(r @ r)
    if not math.isfinite(bb):
        raise NotFiniteError(f"the right-hand side has squared norm {bb}: nothing can be solved for")
    curvature, steepest, k, eps = math.inf, 0.0, 0, torch.finfo(b.dtype).eps
    while k < iterations and rr > tolerance**2 * bb:
        Ap = product(p)
        pAp, pp, length = float(p @ Ap), float(p @ p), float(torch.linalg.vector_norm(Ap))
        if not math.isfinite(pAp):
            raise NotFiniteError(f"a product in conjugate gradients is not finite: pᵀAp = {pAp}")
        steepest = max(steepest, length / math.sqrt(pp))  # at most A's largest eigenvalue
        if abs(pAp) <= eps * max(math.sqrt(pp) * length, math.sqrt(len(b)) * steepest * pp) or (
            pAp < 0.0 and rr <= eps * bb  # as solved as the numbers' type allows: p is what rounding left
        ):
            break  # A says nothing about this direction beyond rounding
        curvature, k = min(curvature, pAp / pp), k + 1
        if pAp < 0.0:
            raise CurvatureError(
                f"negative curvature in conjugate gradients: pᵀAp / pᵀp = {pAp / pp:.3g} in iteration {k}, so A is not "
                "positive definite. A Fisher matrix always is, but for rounding: raise damping."
            )
        x.add_(p, alpha=rr / pAp)
        r.sub_(Ap, alpha=rr / pAp)
        before, rr = rr, float(r @ r)
        p = torch.add(r, p, alpha=rr / before)
    residual = math.sqrt(rr / bb) if bb > 0.0 else 0.0
    return Solution(x, float(x @ (b - r)), k, residual, curvature if k else math.nan)


def check_dense(parameters: int) -> None:
    """Raises ValueError where a dense matrix would be too large."""
    if parameters > MAX_DENSE:
        raise ValueError(
            f"solver = dense is for at most {MAX_DENSE:,} parameters, this policy has {parameters:,}: use cg"
        )


def dense(product: Product, like: Tensor) -> Tensor:
    """The matrix A (P, P) of a product, column by column. Raises ValueError if P is more than MAX_DENSE."""
    check_dense(len(like))
    return torch.stack([product(e).clone() for e in torch.eye(len(like), dtype=like.dtype, device=like.device)], dim=1)


def dense_solve(product: Product, b: Tensor) -> Solution:
    """A⁺b by the eigenvalues of the dense A, in float64: the solution of least norm where A is singular.

    Eigenvalues below P · eps · the largest, and below eps², count as 0: A is then 0 to rounding, as F is where a policy has
    become deterministic. Raises CurvatureError where one is below minus that, NotFiniteError where A or b is not finite.
    """
    A = dense(product, b).double()
    if not math.isfinite(float(A.sum() + b.sum())):
        raise NotFiniteError("the matrix or the right-hand side is not finite: nothing can be solved for")
    values, vectors = torch.linalg.eigh(0.5 * (A + A.T))
    eps = torch.finfo(b.dtype).eps
    least = max(float(values[-1]) * len(b) * eps, eps**2)
    if float(values[0]) < -least:
        raise CurvatureError(f"the matrix has the negative eigenvalue {float(values[0]):.3g}: raise damping")
    inverse = torch.where(values > least, 1.0 / values, 0.0)
    x = vectors @ (inverse * (vectors.T @ b.double()))
    Ax, norm = A @ x, float(torch.linalg.vector_norm(b.double()))
    residual = float(torch.linalg.vector_norm(b - Ax)) / norm if norm > 0.0 else 0.0
    return Solution(x.to(b.dtype), float(x @ Ax), 0, residual, float(values[0]))


def damped(product: Product, damping: float) -> Product:
    """The product of A + damping · I."""
    return (lambda v: product(v).add(v, alpha=damping)) if damping else product


def scale_to_kl(solution: Solution, max_kl: float) -> Tensor:
    """The multiple s of x = A⁻¹g with ½ sᵀAs = max_kl; 0 if x is 0."""
    if solution.quadratic_form <= 0.0:
        return torch.zeros_like(solution.x)
    return solution.x * math.sqrt(2.0 * max_kl / solution.quadratic_form)
