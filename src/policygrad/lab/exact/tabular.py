"""J, V, Q, A, ∇J, the Fisher matrix and the visited states of a policy on a finite MDP, computed exactly, without samples.

Everything is float64. Tables are time-dependent, first axis t, where the horizon is finite; without a horizon everything is
stationary and that axis is 1, so that one formula serves both: J = Σ_t Σ_s occupancy_t(s) Σ_a π(a|s) r(s,a).
A policy is a table π(a|s), (S, A), or (H, S, A) where it depends on time, or a `Policy` over discrete actions, which is shown
states as one-hot observations; tables of policies and of trajectories are made in policies.py and trajectories.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from policygrad.data import Batch, Rollout, Values
from policygrad.lab.exact.mdp import MDP as MDP
from policygrad.lab.exact.mdp import bandit as bandit
from policygrad.lab.exact.mdp import chain as chain
from policygrad.lab.exact.mdp import from_gymnasium as from_gymnasium
from policygrad.lab.exact.mdp import random_mdp as random_mdp
from policygrad.lab.exact.policies import check_policy
from policygrad.lab.exact.policies import greedy as greedy
from policygrad.lab.exact.policies import log_policy as log_policy
from policygrad.lab.exact.policies import policy_matrix as policy_matrix
from policygrad.lab.exact.policies import tabular_policy as tabular_policy
from policygrad.lab.exact.trajectories import enumerate_batches as enumerate_batches
from policygrad.lab.exact.trajectories import enumerate_trajectories as enumerate_trajectories
from policygrad.models.critic import NoCritic
from policygrad.models.policy import Policy

MAX_CONDITION = 1e12  # of linear equations: their solution has four digits then


# --- values --------------------------------------------------------------------------------------------------------


def solve(mdp: MDP, pi: Tensor) -> tuple[Tensor, Tensor]:
    """V and Q of π: (H+1, S) and (H, S, A); without a horizon (2, S), twice the same, and (1, S, A). Differentiable in π.

        Q_t(s,a) = r(s,a) + γ Σ_s' P(s'|s,a) V_{t+1}(s'),    V_t(s) = Σ_a π(a|s) Q_t(s,a),    V_H = 0; terminal states have 0.

    Backwards in time, or by the linear equations V = r_π + γ P_π V. Raises ValueError where those have no solution: γ = 1 and
    an episode that need not end.
    """
    if mdp.horizon is None:
        pi = _stationary(mdp, pi)
        V = torch.linalg.solve(_system(mdp, pi, mdp.gamma), mdp.live * (pi * mdp.reward).sum(1))
        Q = mdp.live[:, None] * (mdp.reward + mdp.gamma * (mdp.transition @ V))
        return V.expand(2, -1), Q.unsqueeze(0)
    pi = each_step(mdp, pi)
    V, Q = [torch.zeros_like(mdp.start)], []
    for t in reversed(range(mdp.horizon)):
        Q.append(mdp.live[:, None] * (mdp.reward + mdp.gamma * (mdp.transition @ V[-1])))
        V.append((pi[t] * Q[-1]).sum(1))
    return torch.stack(V[::-1]), torch.stack(Q[::-1])


def objective(mdp: MDP, pi: Tensor) -> Tensor:
    """J = Σ_s P(s_0 = s) V_0(s), a scalar; differentiable in π."""
    return mdp.start @ solve(mdp, pi)[0][0]


def advantage(mdp: MDP, pi: Tensor) -> Tensor:
    """A_t(s,a) = Q_t(s,a) − V_t(s), (H | 1, S, A)."""
    V, Q = solve(mdp, pi)
    return Q - V[:-1].unsqueeze(-1)


# --- states visited ------------------------------------------------------------------------------------------------


def visits(mdp: MDP, pi: Tensor, limit: int | None = None) -> Tensor:
    """d_t(s) = P(s_t = s and the episode is running), (H, S); without a horizon the number of visits Σ_t d_t(s), (1, S).

    limit: of the first so many steps, (limit, S). Without it and a horizon, ValueError where episodes need not end.
    """
    return _reached(mdp, pi, 1.0, limit)


def occupancy(mdp: MDP, pi: Tensor, limit: int | None = None) -> Tensor:
    """γᵗ d_t(s), (H, S); without a horizon Σ_t γᵗ d_t(s), (1, S). limit: of the first so many steps, (limit, S)."""
    return _reached(mdp, pi, mdp.gamma, limit)


def _reached(mdp: MDP, pi: Tensor, gamma: float, limit: int | None) -> Tensor:
    steps = mdp.horizon if limit is None else min(limit, mdp.horizon or limit)
    if steps is None:
        return torch.linalg.solve(_system(mdp, _stationary(mdp, pi), gamma).T, mdp.start).unsqueeze(0)
    pi, d, P = each_step(mdp, pi, steps), [mdp.start], mdp.transition.flatten(0, 1)
    for t in range(steps - 1):
        d.append(gamma * mdp.live * ((d[-1][:, None] * pi[t]).flatten() @ P))
    return torch.stack(d)


def exact_trajectory_kl(mdp: MDP, pi: Tensor, other: Tensor, limit: int | None = None) -> Tensor:
    """KL(P_π ‖ P_other) of the distributions of whole trajectories, a scalar: Σ_t Σ_s d_t(s) KL(π_t(·|s) ‖ other_t(·|s)).

    The dynamics cancel, so the expected divergences of the visited states add up, without a discount. ∞ where π takes an action
    that the other policy never takes. limit: of the first so many steps. From samples: `policygrad.trajectory_kl`. Raises
    ValueError as `visits` does.
    """
    d = visits(mdp, pi, limit)
    p, q = (each_step(mdp, x, len(d)) for x in (pi, other))
    divergence = (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)
    return torch.where(d > 0.0, d * divergence, 0.0).sum()


def discounts(mdp: MDP) -> Tensor:
    """γᵗ, (H, 1, 1): multiplies a table (H, S, A). Raises ValueError without a horizon, where `occupancy` has γᵗ in it."""
    if mdp.horizon is None:
        raise ValueError("without a horizon there is no table over t: take `occupancy`")
    return mdp.gamma ** torch.arange(mdp.horizon, dtype=torch.float64).view(-1, 1, 1)


def each_step(mdp: MDP, pi: Tensor, steps: int | None = None) -> Tensor:
    """π as a table for every step, (H, S, A). Raises ValueError for other shapes."""
    H, shape = steps or mdp.horizon or 1, (mdp.states, mdp.actions)
    if pi.shape[-2:] != shape or pi.ndim > 3 or (pi.ndim == 3 and pi.shape[0] != 1 and pi.shape[0] < H):
        raise ValueError(f"pi must be (S, A) = {shape}, or that for each of {H} steps, got {tuple(pi.shape)}")
    return pi.expand(H, *shape) if pi.ndim == 2 or len(pi) == 1 else pi


def _stationary(mdp: MDP, pi: Tensor) -> Tensor:
    if pi.shape[-2:] != (mdp.states, mdp.actions) or pi.numel() != mdp.states * mdp.actions:
        raise ValueError(f"without a horizon pi must be (S, A) = {(mdp.states, mdp.actions)}, got {tuple(pi.shape)}")
    return pi.view(mdp.states, mdp.actions)


def _system(mdp: MDP, pi: Tensor, gamma: float) -> Tensor:
    """I − γ P_π of the states where an episode goes on, (S, S): V = (I − γ P_π)⁻¹ r_π, and transposed the occupancy."""
    if gamma == 1.0:  # singular where no end can be reached; rounding would hide it
        ends = sum((new for new, _ in _towards_an_end(mdp, pi.detach())), mdp.over)
        if not ends.all():
            s = int((~ends).nonzero()[0])
            raise ValueError(f"with this policy an undiscounted episode need not end: state {s} leads to no end")
    P = torch.einsum("sa,sap->sp", pi, mdp.transition)
    system = torch.eye(mdp.states, dtype=pi.dtype) - gamma * mdp.live[:, None] * P * mdp.live
    if gamma == 1.0 and (condition := float(torch.linalg.cond(system.detach(), 1))) > MAX_CONDITION:
        raise ValueError(
            f"with this policy episodes last so long that float64 cannot tell how long (condition {condition:.0e}): take "
            "gamma below 1 or a horizon"
        )
    return system


def _towards_an_end(mdp: MDP, pi: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The states 1, 2, … steps from a terminal one, (S,) bool, and how likely π's actions are to lead nearer, (S, A)."""
    near = mdp.over
    while True:
        leads = (mdp.transition @ near.to(pi.dtype)) * (pi > 0)
        new = (leads > 0).any(-1) & ~near
        if not new.any():
            return
        yield new, leads
        near = near | new


# --- the optimum ---------------------------------------------------------------------------------------------------


def policy_iteration(mdp: MDP, pi: Tensor | None = None) -> list[Tensor]:
    """Howard's policy iteration from π, [uniform]: every policy on the way, (H | 1, S, A), the last one optimal.

    π_{k+1} is greedy in Q of π_k, at every step t of a finite horizon; an action changes only for a better one, so it ends.
    Policies may tell all states apart, whatever the MDP's groups. With γ = 1 and no horizon it is the best of those whose
    episodes end, as π's must: ValueError else.
    """
    if pi is None:
        pi = torch.full((mdp.states, mdp.actions), 1.0 / mdp.actions, dtype=torch.float64)
    path = [each_step(mdp, pi)]
    while True:
        Q = solve(mdp, path[-1])[1]
        old = (path[-1] * Q).sum(-1)
        better = Q.amax(-1) > old + 1e-12 * (1.0 + old.abs())
        if not better.any():
            certain = path[-1].amax(-1) == 1.0
            return path if certain.all() else [*path, _certain(mdp, path[-1], Q, certain)]
        path.append(torch.where(better.unsqueeze(-1), greedy(Q), path[-1]))


def _certain(mdp: MDP, pi: Tensor, Q: Tensor, certain: Tensor) -> Tensor:
    """An optimal π with one action in every state: the first of the best. Without a horizon the one of those that leads
    nearer to an end, if one can: where γ = 1, going in circles between equal values is worth nothing.
    """
    best = torch.where(certain.unsqueeze(-1), pi, greedy(Q))
    if mdp.horizon is None:
        for new, leads in _towards_an_end(mdp, pi[0]):
            best[0, new] = greedy(leads[new])
    return best


def optimal_policy(mdp: MDP) -> Tensor:
    """A deterministic optimal policy, (H | 1, S, A): it may depend on time where there is a horizon."""
    return policy_iteration(mdp)[-1]


def optimum(mdp: MDP) -> float:
    """J* = max_π J, over all policies, time-dependent ones too; those that tell all states apart, whatever the groups."""
    if mdp.horizon is None:
        return float(objective(mdp, optimal_policy(mdp)))
    V = torch.zeros_like(mdp.start)
    for _ in range(mdp.horizon):  # Bellman, backwards
        V = (mdp.live[:, None] * (mdp.reward + mdp.gamma * (mdp.transition @ V))).amax(1)
    return float(mdp.start @ V)


# --- gradients -----------------------------------------------------------------------------------------------------


def exact_gradient(mdp: MDP, policy: Policy) -> Tensor:
    """∇J, (P,): autograd through the dynamic programme, or through the linear solve.

    Raises TypeError for what is no MDP or no policy.
    """
    check_policy(mdp, policy)
    return policy.gradient(objective(mdp, policy_matrix(mdp, policy)))


def credited_gradient(mdp: MDP, policy: Policy, credit: Tensor, reached: Tensor | None = None) -> Tensor:
    """Σ_t Σ_s d_t(s) Σ_a π(a|s) credit_t(s,a) ∇log π(a|s), (P,): the mean of Σ_t adv_t ∇log π for any adv whose mean, given
    (t, s, a), is credit (H, S, A) up to a term without a. γᵗ Q_t gives ∇J; Q_t without γᵗ is what deep RL computes.

    reached: other weights than d, [`visits`].
    """
    logp = log_policy(mdp, policy)
    pi = logp.detach().exp()
    d = visits(mdp, pi) if reached is None else reached
    weight = (d.unsqueeze(-1) * pi * credit).sum(0)
    return policy.gradient((weight * logp).sum())


def gradient_theorem(mdp: MDP, policy: Policy, limit: int | None = None) -> Tensor:
    """∇J = Σ_t γᵗ Σ_s d_t(s) Σ_a π(a|s) Q_t(s,a) ∇log π(a|s), (P,): Sutton et al. 2000, theorem 1.

    limit: the sum over the first so many steps alone, with Q of the whole task: what data can tell that is truncated there.
    """
    pi = policy_matrix(mdp, policy).detach()
    Q, reached = solve(mdp, pi)[1], occupancy(mdp, pi, limit)
    return credited_gradient(mdp, policy, Q[: len(reached)], reached)


def gradient_by_differences(mdp: MDP, policy: Policy, step: float = 1e-5) -> Tensor:
    """∇J by central differences, with an error of O(step²), without any derivative."""
    theta, grad = policy.flat, torch.zeros_like(policy.flat)
    with torch.no_grad():
        for i, centre in enumerate(theta.tolist()):
            theta[i] = centre + step
            above = objective(mdp, policy_matrix(mdp, policy))
            theta[i] = centre - step
            grad[i] = (above - objective(mdp, policy_matrix(mdp, policy))) / (2.0 * step)
            theta[i] = centre
    return grad


def scores(mdp: MDP, policy: Policy) -> Tensor:
    """∇log π(a|s), (S, A, P), by the kernel of the policy, one (s, a) after the other."""
    obs, one = torch.eye(mdp.states, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    rows = [
        policy.evaluate(Batch.of(obs[s : s + 1], torch.tensor([a]))).gradient(one).clone()
        for s, a in itertools.product(range(mdp.states), range(mdp.actions))
    ]
    return torch.stack(rows).view(mdp.states, mdp.actions, -1)


def fisher(mdp: MDP, policy: Policy) -> Tensor:
    """F = Σ_s ρ(s) Σ_a π(a|s) ∇log π ∇log πᵀ, (P, P), ρ the occupancy summed over t, scaled to 1 (Kakade 2001)."""
    pi = policy_matrix(mdp, policy).detach()
    rho, score = occupancy(mdp, pi).sum(0), scores(mdp, policy)
    return torch.einsum("s,sa,sap,saq->pq", rho / rho.sum(), pi, score, score)


def natural_gradient(mdp: MDP, policy: Policy) -> Tensor:
    """F⁺∇J, (P,): of all solutions of F x = ∇J the smallest, for softmax tables have directions that change nothing.

    Such a table's is the advantage, Σ_t γᵗ d_t(s) A_t(s,a) / ρ(s), up to a constant in each state.
    """
    return torch.linalg.pinv(fisher(mdp, policy), hermitian=True, rtol=1e-12) @ exact_gradient(mdp, policy)


class ExactCritic(NoCritic):
    """The exact V^π of the policy it is called with; or any table V as `solve` makes it, e.g. a deliberately wrong one.

    V is (H+1, S), and (2, S) without a horizon. Called like `models.critic.Critic`; it has nothing to learn. `ExactQCritic` is
    the same with Q.
    """

    bootstraps = True

    def __init__(self, mdp: MDP, V: Tensor | None = None) -> None:
        shape = ((mdp.horizon or 1) + 1, mdp.states)
        if V is not None and V.shape != shape:
            raise ValueError(f"V must be (H+1, S) = {shape}, got {tuple(V.shape)}")
        self.mdp, self.V = mdp, V

    def _where(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """t, s_t and s_{t+1} of every row; t = 0 throughout where there is no horizon."""
        time = rollout.time if self.mdp.horizon else torch.zeros_like(rollout.time)
        return time, rollout.obs[:-1].argmax(-1), rollout.next_obs.argmax(-1)

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        V = solve(self.mdp, policy_matrix(self.mdp, policy).detach())[0] if self.V is None else self.V
        time, state, after = self._where(rollout)
        return Values(V[time, state], V[time + 1, after])


class ExactQCritic(ExactCritic):
    """The exact Q^π of the policy it is called with; or any table Q (H+1, S, A), (2, S, A) without a horizon: V = Σ_a π Q."""

    def __init__(self, mdp: MDP, Q: Tensor | None = None) -> None:
        super().__init__(mdp)
        shape = ((mdp.horizon or 1) + 1, mdp.states, mdp.actions)
        if Q is not None and Q.shape != shape:
            raise ValueError(f"Q must be (H+1, S, A) = {shape}, got {tuple(Q.shape)}")
        self.Q = Q

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        pi = policy_matrix(self.mdp, policy).detach()
        Q = self.Q
        if Q is None:
            Q = solve(self.mdp, pi)[1]
            Q = torch.cat([Q, torch.zeros_like(Q[:1]) if self.mdp.horizon else Q])
        V = (pi * Q).sum(-1)
        time, state, after = self._where(rollout)
        return Values(V[time, state], V[time + 1, after], act_val=Q[time, state, rollout.act])
