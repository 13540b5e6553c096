"""Diagnostics of an update: what its step predicted and what it did, the same numbers for every rule."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.models.ascent import mean_kl
from policygrad.models.kernels import SecondDerivativeError
from policygrad.models.policy import Policy, PolicyEvaluation
from policygrad.total import moments, total
from policygrad.tree import to_numpy


class UpdateDiagnostics:
    """Diagnostics of an update, created before it and computed after it.

    With s = θ_new − θ_old, ĝ = Σ weight · ratio · adv · ∇log π and F the batch's mean Fisher matrix, both at θ_old, and means
    with the batch's weights:

    | gain            | what the surrogate Σ weight · ratio · adv rose by                                         |
    | predicted_gain  | ĝᵀs, what its linear model said                                                           |
    | kl              | mean KL(old ‖ new), exact                                                                 |
    | kl_quadratic    | ½ sᵀFs, what its quadratic model says                                                     |
    | kl_k1, k2, k3   | sampled: means of −log r, ½ (log r)², r − 1 − log r, r = π_new/π_old of the actions taken |
    | step_norm       | ‖s‖₂, the step in parameter space                                                         |
    | policy_step     | √(2 kl), the same step's length in policy space                                           |
    | grad_norm       | ‖ĝ‖₂                                                                                      |
    | entropy         | of the new policy                                                                         |
    | adv_std         | standard deviation of the advantages, as the update gets them                             |
    | ratio_error     | mean of |log π_old − batch.logp|: 0, unless the network differs from the one that acted   |

    k1 and k3 are unbiased for KL(old ‖ new), k2 is biased (Schulman 2020, "Approximating KL divergence"); k1 may be negative.
    Unbiased on fresh actions: here the step was made from these very ones, and k3 usually comes out above the exact KL.
    eigenvalues: how many of F's largest are found as well, `fisher_1` ≥ `fisher_2` ≥ …
    """

    def __init__(self, policy: Policy, batch: Batch, eigenvalues: int = 0) -> None:
        self.theta = policy.flat.clone()
        evaluation = policy.evaluate(batch)
        self.dist, self.logp = evaluation.dist, evaluation.logp
        log_ratio = evaluation.logp - batch.logp
        self.ratio = log_ratio.exp()
        self.before = {
            "adv_std": float(moments(batch.adv.double())[2].sqrt()),
            "ratio_error": float(total((batch.normalized_weight * log_ratio.abs()).sum())),
        }
        self.gradient = total(evaluation.gradient(batch.weight * batch.adv * self.ratio).clone())
        top = top_eigenvalues(policy, evaluation, batch.normalized_weight, eigenvalues) if eigenvalues else []
        self.spectrum = {f"fisher_{i}": value for i, value in enumerate(top, 1)}

    def compute(self, policy: Policy, batch: Batch) -> tuple[Stats, Tensor]:
        """The numbers, and log π (B,) of the current policy."""
        step = policy.flat - self.theta
        quadratic = self._quadratic(policy, batch, step)
        after = policy.evaluate(batch)
        kl = mean_kl(policy, self.dist, batch, after.dist)
        log_ratio, weight = after.logp - self.logp, batch.normalized_weight

        def mean(x: Tensor) -> float:
            return float(total((weight * x).sum()))

        risen = (after.logp - batch.logp).exp() - self.ratio
        return {
            "gain": float(total((batch.weight * batch.adv * risen).sum())),
            "predicted_gain": float(self.gradient @ step),
            "kl": kl,
            "kl_quadratic": quadratic,
            "kl_k1": mean(-log_ratio),
            "kl_k2": mean(0.5 * log_ratio.square()),
            "kl_k3": mean(log_ratio.expm1() - log_ratio),
            "step_norm": float(torch.linalg.vector_norm(step)),
            "policy_step": math.sqrt(2.0 * max(kl, 0.0)),
            "grad_norm": float(torch.linalg.vector_norm(self.gradient)),
            "entropy": mean(policy.head.entropy(after.dist)),
        } | self.before | self.spectrum, after.logp

    def _quadratic(self, policy: Policy, batch: Batch, step: Tensor) -> float:
        """½ sᵀFs, back at θ_old for a moment: the product needs the network as it was. NaN without a second derivative."""
        now = policy.flat.clone()
        policy.flat.copy_(self.theta)
        try:
            return 0.5 * total(policy.evaluate(batch).fisher_norm(step, batch.normalized_weight))
        except SecondDerivativeError:
            return math.nan
        finally:
            policy.flat.copy_(now)


def top_eigenvalues(policy: Policy, evaluation: PolicyEvaluation, share: Tensor, count: int) -> list[float]:
    """The `count` largest eigenvalues of the mean Fisher matrix, falling: Lanczos iterations on its products (ARPACK)."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    size = len(policy.flat)

    def product(v: np.ndarray) -> np.ndarray:
        along = torch.from_numpy(v).to(policy.flat).view(-1)
        return to_numpy(total(evaluation.fisher_product(along, share)).double())

    count = min(count, size - 1)
    if count < 1:
        raise ValueError(f"eigenvalues need a policy of at least 2 parameters, this one has {size}")
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    start = np.random.default_rng(0).standard_normal(size)
    if not product(start).any():  # a policy that is deterministic on the batch: ARPACK refuses F = 0
        return [0.0] * count
    found = eigsh(operator, count, which="LA", v0=start, tol=1e-6, return_eigenvectors=False)  # pyright: ignore[reportArgumentType]
    return sorted(map(float, found), reverse=True)
