"""Functions of a parameter vector, for derivatives and ascents: J of a policy, and simple functions with known answers.

Each takes θ (P,) and returns a scalar (`probabilities` returns a table), computed with torch operations, so that automatic
differentiation works.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from policygrad.lab.exact.tabular import MDP, objective
from policygrad.models.policy import Policy

Function = Callable[[Tensor], Tensor]  # θ (P,) → a scalar, as a rule


def probabilities(mdp: MDP, policy: Policy) -> Function:
    """π(a|s), (S, A), as a function of the policy's parameters θ (P,), ordered as `policy.flat`. The policy is not changed.

    The network may be any whose parameters are all trained; the head must be the softmax over the MDP's actions.
    """
    parameters = dict(policy.network.named_parameters())
    obs = policy.features(torch.eye(mdp.states, dtype=torch.float64))

    def pi(theta: Tensor) -> Tensor:
        parts = theta.split([p.numel() for p in parameters.values()])
        named = {name: part.view_as(p) for (name, p), part in zip(parameters.items(), parts, strict=True)}
        return torch.softmax(functional_call(policy.network, named, (obs,)), -1)

    return pi


def performance(mdp: MDP, policy: Policy) -> Function:
    """J as a function of the policy's parameters, see `probabilities`."""
    pi = probabilities(mdp, policy)
    return lambda theta: objective(mdp, pi(theta))


def table_performance(mdp: MDP) -> Function:
    """J as a function of a table of logits θ (S·A,), by a softmax and a loop over the horizon. θ may be complex.

    V ← Σ_a π(a|s) (r(s,a) + γ Σ_s' P(s'|s,a) V(s')), H times; without a horizon the linear system (I − γ P_π) V = r_π.
    """
    live = (~mdp.over).to(torch.float64).unsqueeze(-1)

    def J(theta: Tensor) -> Tensor:
        z = theta.view(mdp.states, mdp.actions).exp()
        pi = live * z / z.sum(-1, keepdim=True)  # 0 where the episode is over
        P, r, start = (x.to(theta.dtype) for x in (mdp.transition, mdp.reward, mdp.start))
        if mdp.horizon is None:
            walk, paid = torch.einsum("sa,sap->sp", pi, P), (pi * r).sum(-1)
            return start @ torch.linalg.solve(torch.eye(mdp.states, dtype=theta.dtype) - mdp.gamma * walk, paid)
        V = torch.zeros_like(start)
        for _ in range(mdp.horizon):
            V = (pi * (r + mdp.gamma * P @ V)).sum(-1)
        return start @ V

    return J


def branches_and_loops(theta: Tensor) -> Tensor:
    """A function whose loop and branch depend on θ: it halves θ until its ℓ₁ norm is at most 1, then sums squares or sines.

    Its derivative is known: with n halvings it is 2θ/4ⁿ if the first number is positive, and cos(θ/2ⁿ)/2ⁿ otherwise.
    """
    x = theta
    while float(x.detach().abs().sum()) > 1.0:
        x = 0.5 * x
    return x.square().sum() if x[0] > 0 else x.sin().sum()


def quadratic(curvature: Tensor) -> Function:
    """½ Σ c_i θ_i²: convex if all c are positive, concave if all are negative; a saddle at 0 if the signs differ."""
    return lambda theta: 0.5 * (curvature * theta.square()).sum()


def two_hills(theta: Tensor) -> Tensor:
    """A function of two numbers with maxima of 1 at (1.5, 0) and 0.6 at (−1.5, 0), a saddle between them, and flat far away."""
    high, low = (theta - theta.new_tensor([x, 0.0]) for x in (1.5, -1.5))
    return torch.exp(-high.square().sum()) + 0.6 * torch.exp(-low.square().sum())
