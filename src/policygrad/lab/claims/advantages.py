"""Claims about advantages: their mean, their sign, and their values for an optimal policy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, Case, case, small
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.tabular import advantage, each_step, objective, occupancy, optimal_policy

WORLDS = ("gridworld", "two-states", "chain", "random")


def worlds() -> Sequence[Case]:
    """The cases: small random MDPs, four named ones, and these four without a horizon, with γ = 0.9."""
    endless = [case(name, horizon=math.inf, gamma=0.9) for name in WORLDS]
    return (*small(), *(case(name) for name in WORLDS), *endless)


ENDLESS = 400  # steps that stand for all, where γ = 0.9 and there is no horizon: what is left out is below 1e-17


def by_sums(mdp: MDP, pi: Tensor) -> tuple[Tensor, Tensor]:
    """V (H+1, S) and Q (H, S, A) of π by another way than `solve`, or (2, S) and (1, S, A) without a horizon.

    V_t is the sum of the rewards that are expected 0, 1, 2, … steps later, where `solve` goes backwards or solves equations.
    """
    pi = each_step(mdp, pi, mdp.horizon or ENDLESS)
    rewards = mdp.live * (pi * mdp.reward).sum(-1)  # (H, S)
    moves = mdp.gamma * mdp.live[:, None] * torch.einsum("tsa,sap->tsp", pi, mdp.transition)

    def value(t: int) -> Tensor:
        total, reached = torch.zeros_like(mdp.start), torch.eye(mdp.states, dtype=torch.float64)
        for k in range(t, len(pi)):
            total, reached = total + reached @ rewards[k], reached @ moves[k]
        return total

    V = torch.stack([value(0)] * 2 if mdp.horizon is None else [value(t) for t in range(mdp.horizon + 1)])
    return V, mdp.live[:, None] * (mdp.reward + mdp.gamma * torch.einsum("sap,tp->tsa", mdp.transition, V[1:]))


def best_return(mdp: MDP) -> float:
    """J* by Bellman's equation, V(s) = max_a …, iterated backwards in time, or until it no longer changes."""
    V = torch.zeros_like(mdp.start)
    for _ in range(ENDLESS if mdp.horizon is None else mdp.horizon):
        V = (mdp.live[:, None] * (mdp.reward + mdp.gamma * (mdp.transition @ V))).amax(1)
    return float(mdp.start @ V)


@claim("The expected advantage is 0 in every state: Σ_a π(a|s) A(s, a) = 0.", "exact")
def advantage_has_mean_zero() -> Outcome:
    """Σ_a π A on MDPs with and without a horizon, where V is the sum of the rewards expected at each step.

    Rule: the mean must be 0 for the library's advantages, and for those of Q and V from `by_sums`, which must be the same.
    """
    mean, gap, size = 0.0, 0.0, math.inf
    for c in worlds():
        A, (V, Q) = advantage(c.mdp, c.pi), by_sums(c.mdp, c.pi)
        other = Q - V[:-1].unsqueeze(-1)
        gap = max(gap, float((A - other).abs().max()))
        mean = max(mean, *(float((c.pi * x).sum(-1).abs().max()) for x in (A, other)))
        size = min(size, float(A.abs().max()))
    return Outcome(
        decide(mean <= EXACT and gap <= EXACT and size > 0.01),
        f"This is an identity: V = Σ_a π Q. On {len(worlds())} MDPs, with and without a horizon, it is 0 to {mean:.0e}, where "
        f"V is the sum of the rewards expected at each later step, and Q the reward and the V of the next state; Q − V by "
        f"dynamic programming is the same, to {gap:.0e}. The largest single advantage is at least {size:.2g} in each MDP.",
        {"largest |Σ_a π A|": mean, "largest difference of two computations of A": gap, "largest |A|, at least": size},
    )


@claim("For an optimal policy no advantage is positive.", "exact")
def no_advantage_at_the_optimum() -> Outcome:
    """The largest advantage under the optimal policy, and under a random one.

    Rule: the policy must be optimal by a criterion that knows no advantages, J = J* of Bellman's equation; and its advantages,
    from `by_sums`, must not be positive.
    """
    best, other, short = -math.inf, math.inf, 0.0
    for c in worlds():
        pi = optimal_policy(c.mdp)
        V, Q = by_sums(c.mdp, pi)
        best = max(best, float((Q - V[:-1].unsqueeze(-1)).max()))
        short = max(short, abs(best_return(c.mdp) - float(objective(c.mdp, pi))))
        other = min(other, float(advantage(c.mdp, c.pi).max()))
    return Outcome(
        decide(best <= 1e-10 and short <= 1e-10 and other > 1e-3),
        f"On {len(worlds())} MDPs the policy that policy iteration finds has the J* of Bellman's equation, to {short:.0e}, and "
        f"its largest advantage is {best:.0e}. Under a random policy it is at least {other:.2g} in each MDP.",
        {
            "largest advantage, optimal policy": best,
            "largest |J* − J| of the optimal policy": short,
            "largest advantage, random policy, at least": other,
        },
    )


@claim("An advantage is positive where the action is better than the policy's average.", "exact")
def sign_of_the_advantage() -> Outcome:
    """The change of J when one action is taken a little more often, at one time in one state."""
    epsilon, gap, signs, checked = 1e-2, 0.0, 0, 0
    for c in small():
        A, reached, J = advantage(c.mdp, c.pi), occupancy(c.mdp, c.pi), float(objective(c.mdp, c.pi))
        whole = c.pi.expand(len(A), *c.pi.shape)
        for t, s, a in itertools.product(*map(range, A.shape)):
            changed = whole.clone()
            changed[t, s] *= 1.0 - epsilon
            changed[t, s, a] += epsilon  # at time t in state s the action is taken a little more often
            gain = (float(objective(c.mdp, changed)) - J) / (epsilon * float(reached[t, s]))
            gap = max(gap, abs(gain - float(A[t, s, a])))
            signs += (gain > 0.0) == (float(A[t, s, a]) > 0.0)
            checked += 1
    return Outcome(
        decide(gap <= 1e-10 and signs == checked),
        "If an action is taken a little more often, at one time in one state, J changes by its advantage times the "
        f"probability that is moved to it. On 20 random MDPs this is right to {gap:.0e}, and the sign is right for {signs} of "
        f"{checked} actions.",
        {"largest |ΔJ / (ε P(s_t = s) γᵗ) − A|": gap, "signs that agree": signs, "actions": checked},
    )
