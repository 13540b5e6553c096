"""The performance difference lemma: the difference in J of two policies, from the advantages of one of them.

    J(π') − J(π) = Σ_t Σ_s γᵗ P(s_t = s | π') Σ_a π'(a|s) A^π_t(s, a)

(Kakade & Langford 2002, lemma 6.1.) The states are those that the *new* policy visits; the advantages are those of the *old*
policy. The lemma holds with and without a horizon, for stationary policies and for policies that depend on time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import MDP, advantage, objective, occupancy, policy_matrix, tabular_policy
from policygrad.lab.results import Result

TAIL, LONGEST = 1e-6, 1000


@dataclass(frozen=True)
class Lemma(Result):
    """Both sides of the lemma, and the contribution of each state to the right side."""

    before: float  # J(π)
    after: float  # J(π')
    expected_advantage: float  # the right side
    by_state: tuple[float, ...]  # (S,), its parts

    @property
    def difference(self) -> float:
        """J(π') − J(π), the left side."""
        return self.after - self.before

    @property
    def gap(self) -> float:
        """|left − right|, 0 up to rounding."""
        return abs(self.difference - self.expected_advantage)

    def table(self) -> str:
        """Both sides, and the states that contribute most."""
        top = sorted(range(len(self.by_state)), key=lambda s: -abs(self.by_state[s]))[:5]
        parts = ", ".join(f"{self.by_state[s]:+.4f} in state {s}" for s in top)
        return (
            f"J(π') − J(π) = {self.after:.6f} − {self.before:.6f} = {self.difference:+.6f}\n"
            f"Σ occupancy(π') · π' · A(π) = {self.expected_advantage:+.6f}, gap {self.gap:.1e}\n"
            f"largest parts of this: {parts}" + (", …" if len(self.by_state) > 5 else "")
        )


def expected_advantage(mdp: MDP, pi: Tensor, pi_new: Tensor) -> Tensor:
    """Ā_t(s) = Σ_a π'(a|s) A^π_t(s,a), one dot product per state: (H, S), or (1, S) without a horizon."""
    return (pi_new * advantage(mdp, pi)).sum(-1)


def lemma(mdp: MDP, pi: Tensor, pi_new: Tensor) -> Lemma:
    """Both sides of the lemma, computed exactly. Policies are tables, (S, A) or (H, S, A)."""
    by_state = (occupancy(mdp, pi_new) * expected_advantage(mdp, pi, pi_new)).sum(0)
    before, after = float(objective(mdp, pi)), float(objective(mdp, pi_new))
    return Lemma(before, after, float(by_state.sum()), tuple(by_state.tolist()))


@dataclass(frozen=True)
class SampledLemma(Result):
    """Two estimates of the right side from episodes of the new policy, and its exact value.

    One estimate uses the advantages of the actions taken, the other one uses the dot product Ā(s) in the visited states. Both
    have the same mean; the second mostly has less variance, because no action is sampled.
    """

    exact: float
    episodes: int
    actions: float
    actions_error: float  # standard error
    states: float
    states_error: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the estimate with the actions taken, by the normal distribution."""
        return self.actions - 1.96 * self.actions_error, self.actions + 1.96 * self.actions_error

    def table(self) -> str:
        """The estimates and the exact number."""
        pairs = (self.actions, self.actions_error), (self.states, self.states_error)
        by_action, by_state = (f"{mean:+.4f} ± {1.96 * error:.4f}" for mean, error in pairs)
        return (
            f"from {self.episodes:,} episodes of π': {by_action} with the actions taken, {by_state} with dot products in the "
            f"visited states; exact {self.exact:+.4f}"
        )


def episode_limit(mdp: MDP) -> int | None:
    """The step after which episodes are truncated without a horizon: where γᵗ falls to 1e-6, at most 1,000; None with one."""
    if mdp.horizon is not None:
        return None
    if mdp.gamma in (0.0, 1.0):
        return 1 if mdp.gamma == 0.0 else LONGEST
    return min(LONGEST, math.ceil(math.log(TAIL) / math.log(mdp.gamma)))


def sampled_lemma(
    mdp: MDP, pi: Tensor, pi_new: Tensor, episodes: int, generator: torch.Generator, limit: int | None = None
) -> SampledLemma:
    """Unbiased estimates of the lemma's right side, from episodes of π' and the exact A^π.

    limit: the largest number of steps per episode, [`episode_limit`]; `exact` is the sum over as many steps. Raises ValueError
    for fewer than 2 episodes.
    """
    if episodes < 2:
        raise ValueError(f"an estimate with its error needs at least 2 episodes, got {episodes}")
    limit = episode_limit(mdp) if limit is None else limit
    A, expected = advantage(mdp, pi), expected_advantage(mdp, pi, pi_new)
    rollout = sample(mdp, pi_new, episodes, generator, limit)
    state, time = rollout.obs[:-1].argmax(-1), rollout.time
    weight = torch.where(rollout.mask, mdp.gamma ** time.double(), 0.0)
    t = time if len(A) > 1 else torch.zeros_like(time)
    by_action, by_state = (weight * A[t, state, rollout.act]).sum(0), (weight * expected[t, state]).sum(0)
    exact = float((occupancy(mdp, pi_new, limit) * expected).sum())
    numbers = [float(x) for y in (by_action, by_state) for x in (y.mean(), y.std() / math.sqrt(episodes))]
    return SampledLemma(exact, episodes, *numbers)


@dataclass(frozen=True)
class LemmaCheck(Result):
    """The lemma for many pairs of random policies; for the first pair with details and sampled estimates."""

    differences: tuple[float, ...]  # J(π') − J(π)
    expected: tuple[float, ...]  # the right side
    first: Lemma
    sampled: SampledLemma

    @property
    def gap(self) -> float:
        """The largest |left − right|."""
        return max(abs(a - b) for a, b in zip(self.differences, self.expected, strict=True))

    def table(self) -> str:
        """The first pair, sampled and exact, and the largest gap of all pairs."""
        many = f"{len(self.differences)} pairs of random policies: the sides differ by {self.gap:.1e} at most"
        return f"{self.first}\n{self.sampled}\n{many}"


def check_lemma(mdp: MDP, pairs: int = 100, episodes: int = 5000, seed: int = 0) -> LemmaCheck:
    """Check the lemma exactly for pairs of policies with logits N(0, 1), and from episodes for the first pair."""
    generator = torch.Generator().manual_seed(seed)
    tables = [policy_matrix(mdp, tabular_policy(mdp, generator)).detach() for _ in range(2 * pairs)]
    found = [lemma(mdp, *pair) for pair in zip(tables[::2], tables[1::2], strict=True)]
    sampled = sampled_lemma(mdp, tables[0], tables[1], episodes, generator)
    sides = tuple(x.difference for x in found), tuple(x.expected_advantage for x in found)
    return LemmaCheck(*sides, found[0], sampled)
