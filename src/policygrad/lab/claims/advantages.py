"""Claims about advantages: their mean, their sign, and their values for an optimal policy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, Case, case, small
from policygrad.lab.exact.tabular import advantage, objective, occupancy, optimal_policy

WORLDS = ("gridworld", "two-states", "chain", "random")


def worlds() -> Sequence[Case]:
    """The cases: small random MDPs, four named ones, and these four without a horizon, with γ = 0.9."""
    endless = [case(name, horizon=math.inf, gamma=0.9) for name in WORLDS]
    return (*small(), *(case(name) for name in WORLDS), *endless)


@claim("The expected advantage is 0 in every state: Σ_a π(a|s) A(s, a) = 0.", "exact")
def advantage_has_mean_zero() -> Outcome:
    """Σ_a π A on MDPs with and without a horizon."""
    mean, size = 0.0, math.inf
    for c in worlds():
        A = advantage(c.mdp, c.pi)
        mean = max(mean, float((c.pi * A).sum(-1).abs().max()))
        size = min(size, float(A.abs().max()))
    return Outcome(
        decide(mean <= EXACT and size > 0.01),
        f"On {len(worlds())} MDPs, with and without a horizon, it is 0 to {mean:.0e}. The largest single advantage is at "
        f"least {size:.2g} in each MDP.",
        {"largest |Σ_a π A|": mean, "largest |A|, at least": size},
    )


@claim("For an optimal policy no advantage is positive.", "exact")
def no_advantage_at_the_optimum() -> Outcome:
    """The largest advantage under the optimal policy, and under a random one."""
    best, other = -math.inf, math.inf
    for c in worlds():
        best = max(best, float(advantage(c.mdp, optimal_policy(c.mdp)).max()))
        other = min(other, float(advantage(c.mdp, c.pi).max()))
    return Outcome(
        decide(best <= 1e-10 and other > 1e-3),
        f"On {len(worlds())} MDPs the largest advantage under the optimal policy, found by policy iteration, is {best:.0e}. "
        f"Under a random policy it is at least {other:.2g} in each MDP.",
        {"largest advantage, optimal policy": best, "largest advantage, random policy, at least": other},
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
