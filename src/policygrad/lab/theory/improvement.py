"""Policy iteration with fitted values compared with small steps: one greedy step can lower J by much.

Exact policy iteration never lowers J, because the greedy policy for Q^π has no negative advantage in any state. With fitted
values it may choose actions with negative advantages. Then the performance difference lemma only says that

    J(π') − J(π)  ≥  Σ_t γᵗ · min_{t,s} Σ_a π'(a|s) A^π_t(s, a),       H times the worst where γ = 1

and on the MDP `shortcut` the loss is of that order: the fit is right on average in the states of the old policy, and the new
policy visits other states. A short gradient step changes the visited states little, and there the fit is right to first order:
Σ d^π π Â ∇log π is the exact gradient if Â is wrong only between states that the policy cannot tell apart either (compatible
function approximation, Sutton et al. 2000, theorem 2). A trust region limits the change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from policygrad.data import Batch
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import greedy, policy_matrix, tabular_policy
from policygrad.lab.exact.tabular import objective, occupancy, optimum, solve
from policygrad.lab.exact.worlds import exact_batch
from policygrad.lab.results import Result, align
from policygrad.lab.steps.relations import apply
from policygrad.lab.steps.rules import five_rules
from policygrad.lab.theory.lemma import expected_advantage
from policygrad.models.policy import Policy

HORIZONS = (5, 10, 20, 40, 80, 160)
GRADIENT_RULES = ("PG", "NPG", "TRPO")


def shortcut(horizon: int | None = None, gamma: float = 0.95) -> MDP:
    """An MDP with two states, a road and a swamp, that look alike to the policy.

    Action 0 leads to the road, or stays there, and pays 0. Action 1 is a short cut: on the road it pays 1 and leads into the
    swamp; in the swamp it pays −1 and stays there. If it is taken rarely it pays, because the agent is mostly on the road; if
    it is taken always it costs 1 per step. Without a discount the best policy that treats both states alike takes it with
    probability 1/4 and gets 1/8 per step.
    """
    transition = torch.zeros(2, 2, 2)
    transition[:, 0, 0] = transition[:, 1, 1] = 1.0
    reward = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    return MDP(transition, reward, torch.tensor([1.0, 0.0]), horizon, gamma, groups=(0, 0))


def cautious(mdp: MDP, probability: float = 0.05) -> Policy:
    """A policy that takes each action except the first with this probability, in every state."""
    others = mdp.actions - 1
    if not 0.0 < probability * others < 1.0:
        raise ValueError(f"probability must be in (0, {1 / max(others, 1):g}), got {probability}")
    policy = tabular_policy(mdp, scale=0.0)
    logits = torch.full((mdp.actions,), math.log(probability), dtype=torch.float64)
    logits[0] = math.log(1.0 - probability * others)
    policy.flat.copy_(logits.repeat(len(policy.flat) // mdp.actions))
    return policy


def fitted_values(mdp: MDP, pi: Tensor, features: Tensor | None = None) -> Tensor:
    """Q̂ (S, A): a least-squares fit of Q^π, averaged over time, on features of states (S, K), weighted by the visited states.

    features: [one per group of states that look alike]. Regression on data of π converges to this fit. Where no two states look
    alike it is exact.
    """
    if features is None:
        groups = torch.arange(mdp.states) if mdp.groups is None else torch.tensor(mdp.groups)
        features = torch.nn.functional.one_hot(groups).double()
    reached, Q = occupancy(mdp, pi).unsqueeze(-1), solve(mdp, pi)[1]
    w = reached.sum(0)
    mean = torch.where(w > 0.0, (reached * Q).sum(0) / w, 0.0)
    root = w.sqrt()
    return features @ (torch.linalg.pinv(root * features) @ (root * mean))


def fitted_batch(mdp: MDP, policy: Policy, features: Tensor | None = None) -> Batch:
    """`exact_batch` with Â = Q̂ − Σ_a π Q̂ in place of the advantages."""
    batch, pi = exact_batch(mdp, policy), policy_matrix(mdp, policy).detach()
    Q = fitted_values(mdp, pi, features)
    return replace(batch, adv=(Q - (pi * Q).sum(-1, keepdim=True))[batch.obs.argmax(-1), batch.act])


@dataclass(frozen=True)
class Change:
    """The effect of one step from π to π'."""

    rise: float  # J(π') − J(π)
    worst: float  # min over t and s of Σ_a π'(a|s) A^π_t(s,a), 0 at most
    bound: float  # Σ_t γᵗ · worst: the rise is at least this
    policy_tv: float  # max_s TV(π, π')
    tv: float  # TV(d, d') of the distributions of visited states
    kl: float  # KL(d ‖ d'), nats; ∞ if π' never visits a state that π visits

    @property
    def share(self) -> float:
        """The share of the bound that is attained; 0 if J does not fall."""
        return self.rise / self.bound if self.rise < 0.0 else 0.0


def change(mdp: MDP, pi: Tensor, pi_new: Tensor) -> Change:
    """The effect of a step from π to π' on J and on the visited states. Policies are tables, (S, A) or (H, S, A)."""
    worst = min(float((expected_advantage(mdp, pi, pi_new) * mdp.live).amin()), 0.0)
    d, after = (_visited(mdp, p) for p in (pi, pi_new))
    seen = d > 0.0
    kl = float((d[seen] * (d[seen] / after[seen]).log()).sum())
    policy_tv = 0.5 * float(((pi_new - pi).abs().sum(-1) * mdp.live).amax())
    rise = float(objective(mdp, pi_new) - objective(mdp, pi))
    bound = worst * _total(mdp) if worst else 0.0
    return Change(rise, worst, bound, policy_tv, 0.5 * float((d - after).abs().sum()), max(kl, 0.0))


def _visited(mdp: MDP, pi: Tensor) -> Tensor:
    """The discounted distribution of the visited states, (S,)."""
    d = occupancy(mdp, pi).sum(0)
    return d / d.sum()


def _total(mdp: MDP) -> float:
    """Σ_t γᵗ."""
    if mdp.horizon is None:
        return 1.0 / (1.0 - mdp.gamma) if mdp.gamma < 1.0 else math.inf
    return float((mdp.gamma ** torch.arange(mdp.horizon, dtype=torch.float64)).sum())


@dataclass(frozen=True)
class Improvement(Result):
    """The first step and the path of every rule from the same policy, and the bound as a function of the horizon."""

    steps: dict[str, Change]  # the first step
    paths: dict[str, tuple[float, ...]]  # J, (K+1,)
    shifts: dict[str, tuple[float, ...]]  # TV of the visited states between each policy and the next, (K,)
    best: float  # J of the best policy, among all that tell the states apart
    horizons: tuple[tuple[int, Change], ...]  # one fitted step of policy iteration on `shortcut`, γ = 1

    def table(self) -> str:
        """Three tables: the first steps, J along the paths, and the bound by horizon."""
        first = [
            [rule, *(f"{x:+.3f}" for x in (c.rise, c.worst, c.bound)), *(f"{x:.3f}" for x in (c.policy_tv, c.tv, c.kl))]
            for rule, c in self.steps.items()
        ]
        header = ("one step", "ΔJ", "min Ā", "bound on ΔJ", "TV policy", "TV states", "KL states")
        steps = len(next(iter(self.paths.values()))) - 1
        marks = sorted({k for k in (0, 1, 2, 3, steps // 2, steps - 1, steps) if 0 <= k <= steps})
        rows = [[rule, *(f"{J[k]:.3f}" for k in marks), f"{min(J):.3f}"] for rule, J in self.paths.items()]
        path = align((f"J ({self.best:.3f} is best) after step", *map(str, marks), "lowest"), rows)
        bound = [[str(H), *(f"{x:.2f}" for x in (c.rise, c.bound, c.share))] for H, c in self.horizons]
        note = "min Ā: the worst Σ_a π'(a|s) A(s,a); TV policy: the largest over states; TV, KL states: of the visited states"
        last = align(("H", "ΔJ, fitted PI", "bound, H · min Ā", "share"), bound)
        return "\n\n".join([f"{align(header, first)}\n{note}", path, last])


def improvement(
    mdp: MDP | None = None,
    policy: Policy | None = None,
    *,
    iterations: int = 60,
    max_kl: float = 0.01,
    horizons: Sequence[int] = HORIZONS,
) -> Improvement:
    """Policy iteration with exact and with fitted values, and PG, NPG and TRPO with the same fitted values, from one policy.

    PG, NPG and TRPO are the rules that training uses, without damping. PG's rate gives it the same quadratic KL as NPG, max_kl.
    mdp: [`shortcut()`]; policy: [`cautious`].
    """
    mdp = shortcut() if mdp is None else mdp
    policy = cautious(mdp) if policy is None else policy
    pi = policy_matrix(mdp, policy).detach()
    paths = {
        "PI, exact Q": _iterate(mdp, pi, lambda pi: greedy(solve(mdp, pi)[1]), iterations),
        "PI, fitted Q": _iterate(mdp, pi, lambda pi: greedy(fitted_values(mdp, pi)), iterations),
    }
    paths |= {rule: _climb(mdp, policy, rule, iterations, max_kl) for rule in GRADIENT_RULES}
    steps = {rule: change(mdp, path[0], path[1]) for rule, path in paths.items()}
    values = {rule: tuple(float(objective(mdp, p)) for p in path) for rule, path in paths.items()}
    shifts = {rule: tuple(change(mdp, p, q).tv for p, q in pairwise(path)) for rule, path in paths.items()}
    return Improvement(steps, values, shifts, optimum(mdp), tuple((H, attained(H)) for H in horizons))


def attained(horizon: int) -> Change:
    """One step of fitted policy iteration from `cautious`, on `shortcut` with a horizon and without a discount."""
    mdp = shortcut(horizon, gamma=1.0)
    pi = policy_matrix(mdp, cautious(mdp)).detach()
    return change(mdp, pi, greedy(fitted_values(mdp, pi)))


def _iterate(mdp: MDP, pi: Tensor, step: Callable[[Tensor], Tensor], iterations: int) -> list[Tensor]:
    path = [pi]
    for _ in range(iterations):
        path.append(step(path[-1]))
    return path


def _climb(mdp: MDP, policy: Policy, name: str, iterations: int, max_kl: float) -> list[Tensor]:
    """The policies along the path of a gradient rule with fitted advantages, tables (S, A)."""
    path = [policy_matrix(mdp, policy).detach()]
    for _ in range(iterations):
        batch = fitted_batch(mdp, policy)
        try:
            rules = five_rules(policy, batch, max_kl=max_kl, beta=1.0, damping=0.0)
        except ValueError:  # the gradient is 0, or the policy certain: it has arrived
            return path + path[-1:] * (iterations + 1 - len(path))
        policy = apply(rules[name], policy, batch)[1]
        path.append(policy_matrix(mdp, policy).detach())
    return path
