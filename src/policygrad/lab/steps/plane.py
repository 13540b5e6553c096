"""A policy with two parameters, small enough to draw: J, and the KL of steps of the parameters.

The MDP is `worlds.two_states`, the policy `worlds.two_logit_policy`; gradient and Fisher matrix are the production ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policygrad.lab.exact.tabular import objective, policy_matrix
from policygrad.lab.exact.worlds import exact_batch, two_logit_policy, two_states
from policygrad.lab.steps.relations import natural_step
from policygrad.models.ascent import mean_kl
from policygrad.training.threads import single_thread


@dataclass(frozen=True, eq=False)
class Plane:
    """The grids around a point θ, indexed [θ₂, θ₁]."""

    theta: tuple[float, float]
    max_kl: float
    x: np.ndarray  # (K,)  values of θ₁
    y: np.ndarray  # (K,)  values of θ₂
    J: np.ndarray  # (K, K)
    kl: np.ndarray  # (K, K)  exact mean KL(π_θ ‖ ·), over the states that π_θ visits
    ellipse: np.ndarray  # (N, 2)  ½ sᵀFs = max_kl
    gradient: np.ndarray  # (2,)  PG's step, to the ellipse
    natural: np.ndarray  # (2,)  NPG's


def plane_fisher(theta: tuple[float, float]) -> Tensor:
    """F (2, 2) of the policy of two parameters, mean over the states that it visits."""
    policy = two_logit_policy(theta)
    batch = exact_batch(two_states(), policy)
    evaluation, share = policy.evaluate(batch), batch.normalized_weight
    return torch.stack([evaluation.fisher_product(e, share) for e in torch.eye(2, dtype=torch.float64)])


def ellipse(theta: tuple[float, float], max_kl: float, points: int = 121) -> np.ndarray:
    """The points θ + s with ½ sᵀFs = max_kl, (points, 2): s = √(2 max_kl) F^(−1/2) u for unit vectors u."""
    values, vectors = torch.linalg.eigh(plane_fisher(theta))
    turn = torch.linspace(0.0, 2.0 * torch.pi, points, dtype=torch.float64)
    circle = torch.stack([turn.cos(), turn.sin()], -1)
    half = vectors @ torch.diag((2.0 * max_kl / values).sqrt()) @ vectors.T
    return np.asarray(theta) + (circle @ half).numpy()


@single_thread()  # tiny matrices: with more, threads wait for each other most of the time
def look(theta: tuple[float, float], max_kl: float, reach: float = 1.7, size: int = 41) -> Plane:
    """The plane within `reach` of θ, and the steps of PG and NPG from there with quadratic KL = max_kl."""
    mdp, policy = two_states(), two_logit_policy(theta)
    batch = exact_batch(mdp, policy)
    evaluation, share = policy.evaluate(batch), batch.normalized_weight
    gradient = evaluation.gradient(batch.weight * batch.adv).clone()
    gradient *= (2.0 * max_kl / evaluation.fisher_norm(gradient, share)) ** 0.5
    natural = natural_step(policy, batch, max_kl, damping=0.0)
    old, moved = policy.dist(batch.obs, batch.extra).clone(), two_logit_policy(theta)
    x, y = (np.linspace(centre - reach, centre + reach, size) for centre in theta)
    J, kl = np.zeros((size, size)), np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        moved.flat.copy_(torch.tensor([x[j], y[i]]))
        J[i, j] = objective(mdp, policy_matrix(mdp, moved).detach())
        kl[i, j] = mean_kl(moved, old, batch)
    return Plane(theta, max_kl, x, y, J, kl, ellipse(theta, max_kl), gradient.numpy(), natural.numpy())


@single_thread()
def most_kl(values: np.ndarray) -> np.ndarray:
    """The KL of a parameter step of length 1 in the direction where it is largest, ½ λ_max(F): a map over θ₁ × θ₂."""
    found = [[float(torch.linalg.eigvalsh(plane_fisher((a, b)))[-1]) / 2.0 for a in values] for b in values]
    return np.array(found)
