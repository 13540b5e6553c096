"""Q-learning, SARSA and expected SARSA with a table of values, by expected updates or from sampled transitions.

They differ in the value v(s') that they give to the next state, and all of them move q(s, a) towards r + γ v(s'):

    Q-learning        max_a q(s', a)                  the values of the greedy policy, whatever policy acts
    expected SARSA    Σ_a π(a|s') q(s', a)            the values of π, the policy that acts
    SARSA             q(s', a'), a' ~ π               the same with the noise of one action

So a learner is two functions from values to a policy, one whose values are learned and one that acts. `greedy` of
exact/policies.py is one, and `epsilon_greedy` and `softmax` make others.

A table has one row of A values for each step and state, or, if the learner sees no more than a policy of the lab does, one row
for each group of states that look alike, whatever the step. `Sight` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import greedy
from policygrad.lab.exact.tabular import objective, occupancy

Choose = Callable[[Tensor], Tensor]  # values (…, A) → π(a|s), (…, A)


def epsilon_greedy(epsilon: float) -> Choose:
    """The greedy policy, but a uniformly random action with probability ε."""
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon must be in [0, 1], got {epsilon}")
    return lambda q: (1.0 - epsilon) * greedy(q) + epsilon / q.shape[-1]


def softmax(temperature: float) -> Choose:
    """Boltzmann's policy, π ∝ exp(q / temperature)."""
    if not temperature > 0.0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    return lambda q: torch.softmax(q / temperature, -1)


@dataclass(frozen=True, eq=False)
class Sight:
    """What a learner tells apart: the row of its table for each step and state, (H | 1, S)."""

    rows: Tensor

    @classmethod
    def full(cls, mdp: MDP) -> Sight:
        """Every step and every state: then q* is a table, and q converges to it."""
        return cls(torch.arange((mdp.horizon or 1) * mdp.states).view(-1, mdp.states))

    @classmethod
    def of_policies(cls, mdp: MDP) -> Sight:
        """The groups of states that look alike and no time, as the table of logits of `tabular_policy`."""
        groups = torch.arange(mdp.states) if mdp.groups is None else torch.tensor(mdp.groups)
        return cls(groups.expand(mdp.horizon or 1, -1))

    @property
    def size(self) -> int:
        """The number of rows."""
        return int(self.rows.max()) + 1

    def zeros(self, mdp: MDP) -> Tensor:
        """A table of zeros, (rows, A)."""
        return torch.zeros(self.size, mdp.actions, dtype=torch.float64)


def performance_of(mdp: MDP, pi: Tensor) -> float:
    """J of a table π; −∞ where an undiscounted episode need not end, at a cost for every step."""
    try:
        return float(objective(mdp, pi))
    except ValueError:
        return -torch.inf


# --- expected updates ----------------------------------------------------------------------------------------------


def targets(mdp: MDP, q: Tensor, learned: Choose) -> Tensor:
    """r(s,a) + γ Σ_s' P(s'|s,a) v_{t+1}(s') with v = Σ_a π(a|s) q(s,a), π = learned(q): (H | 1, S, A) → the same shape.

    v is 0 in terminal states and after the last step. This is the mean of the learners' targets over transitions.
    """
    v = mdp.live * (learned(q) * q).sum(-1)
    after = v if mdp.horizon is None else torch.cat([v[1:], torch.zeros_like(v[:1])])
    return mdp.live[:, None] * (mdp.reward + mdp.gamma * torch.einsum("sap,tp->tsa", mdp.transition, after))


def expected_update(
    mdp: MDP, q: Tensor, learned: Choose, sight: Sight, lr: float = 1.0, acting: Tensor | None = None
) -> Tensor:
    """One sweep of expected updates of all rows and actions: q + lr (E[target] − q), (rows, A).

    With full sight, Q-learning and lr = 1 this is value iteration. acting: the policy (S, A) or (H, S, A) that collects the
    data; where a row stands for several states it says how often each is meant. [All of them are equally often.]
    """
    error = targets(mdp, q[sight.rows], learned) - q[sight.rows]
    weight = torch.ones(sight.rows.shape, dtype=q.dtype) if acting is None else occupancy(mdp, acting)
    flat, weight = sight.rows.flatten(), (mdp.live * weight).flatten()
    total = torch.zeros(sight.size, dtype=q.dtype).index_add_(0, flat, weight)
    summed = torch.zeros_like(q).index_add_(0, flat, weight[:, None] * error.flatten(0, 1))
    return q + lr * torch.where(total[:, None] > 0.0, summed / total[:, None], 0.0)


def expected_values(
    mdp: MDP, learned: Choose = greedy, *, sweeps: int = 1000, lr: float = 1.0, tolerance: float = 1e-13
) -> Tensor:
    """The q that sweeps of expected updates with full sight converge to, (H | 1, S, A): q* for Q-learning.

    It stops where a sweep changes q by less than the tolerance. After H sweeps with lr = 1 a finite horizon is exact.
    """
    sight = Sight.full(mdp)
    q = sight.zeros(mdp)
    for _ in range(sweeps):
        new = expected_update(mdp, q, learned, sight, lr)
        moved, q = float((new - q).abs().max()), new
        if moved < tolerance:
            break
    return q[sight.rows]


# --- sampled transitions -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned from transitions: the table q (rows, A), and how often each entry was updated, (rows, A)."""

    mdp: MDP
    sight: Sight
    q: Tensor
    count: Tensor

    def policy(self, choose: Choose = greedy) -> Tensor:
        """The policy that a function makes of the values, (H | 1, S, A)."""
        return choose(self.q)[self.sight.rows]


def learn(
    mdp: MDP,
    generator: torch.Generator,
    *,
    learned: Choose = greedy,
    acting: Choose | None = None,
    sight: Sight | None = None,
    steps: int = 1000,
    actors: int = 32,
    power: float = 0.8,
    sample_next: bool = False,
    restart: float = 0.0,
) -> Learned:
    """Learn values from `steps` transitions of each of several actors, which play episodes after episodes.

    learned: the policy whose values are learned, [greedy: Q-learning]. acting: the policy that plays, [ε-greedy with ε = 0.1].
    With the same function for both this is expected SARSA, and with sample_next=True SARSA. sight: [full].
    The n-th update of an entry has the step size n^−power, and k of them at once that of their share, (k/n)^power: for a power
    in (0.5, 1] these are Robbins and Monro's conditions, Σ α = ∞ and Σ α² < ∞. restart: the probability of ending an episode
    early, after each step; without a horizon and terminal states it must be above 0. The update still counts what follows.
    """
    acting, sight = acting or epsilon_greedy(0.1), sight or Sight.full(mdp)
    if not 0.5 < power <= 1.0:
        raise ValueError(f"power must be in (0.5, 1] for the step sizes of Robbins and Monro, got {power}")
    q, count = sight.zeros(mdp), sight.zeros(mdp)
    chances, arrivals = mdp.start.cumsum(-1).expand(actors, -1), mdp.transition.cumsum(-1)
    s, t = _draw(chances, generator), torch.zeros(actors, dtype=torch.long)
    a = _draw(acting(q[sight.rows[t, s]]).cumsum(-1), generator)
    for _ in range(steps):
        arrived, later = _draw(arrivals[s, a], generator), t + (mdp.horizon is not None)
        over = mdp.over[arrived] | (later == mdp.horizon)
        ahead = q[sight.rows[torch.where(over, 0, later), arrived]]  # (N, A)
        a_next = _draw(acting(ahead).cumsum(-1), generator)
        v = ahead.gather(1, a_next[:, None])[:, 0] if sample_next else (learned(ahead) * ahead).sum(-1)
        target = mdp.outcome[s, a, arrived] + mdp.gamma * torch.where(over, 0.0, v)
        _move(q.view(-1), count.view(-1), sight.rows[t, s] * mdp.actions + a, target, power)
        again = over | (torch.rand(actors, generator=generator) < restart) if restart else over
        s, t, a = arrived, later, a_next
        if again.any():
            s, t = torch.where(again, _draw(chances, generator), s), torch.where(again, 0, t)
            a = torch.where(again, _draw(acting(q[sight.rows[t, s]]).cumsum(-1), generator), a)
    return Learned(mdp, sight, q, count)


def _move(q: Tensor, count: Tensor, entry: Tensor, target: Tensor, power: float) -> None:
    """Move entries of q towards the mean of their targets, each with a step size of its own; q and count are changed."""
    new = torch.bincount(entry, minlength=len(q)).to(q.dtype)
    total = torch.bincount(entry, weights=target - q[entry], minlength=len(q))
    count += new
    q += (new / count.clamp(min=1.0)) ** power * total / new.clamp(min=1.0)


def _draw(cumulative: Tensor, generator: torch.Generator) -> Tensor:
    """An index from each of the distributions that these are the cumulative probabilities of, (N, K), by inversion."""
    u = torch.rand(len(cumulative), 1, generator=generator, dtype=cumulative.dtype)
    return (cumulative[:, :-1] <= u * cumulative[:, -1:]).sum(-1)
