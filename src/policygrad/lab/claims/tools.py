"""Tools for claims: MDPs with a list of all trajectories, and the moments of the library's estimates there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Batch, Rollout, Values
from policygrad.gradient.baselines import Baseline, NoBaseline
from policygrad.gradient.estimators import Estimator, RewardToGo, StateDiscounted, advantages
from policygrad.lab.auditing.cells import Chunk
from policygrad.lab.claims import Counterexample
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import exact_gradient, policy_matrix, scores, solve, tabular_policy
from policygrad.lab.exact.trajectories import enumerate_batches, enumerate_trajectories
from policygrad.lab.exact.worlds import exact_batch, make_mdp, starting_policy
from policygrad.models.critic import NoCritic
from policygrad.models.policy import Policy

EXACT = 1e-12  # what rounding leaves of sums that are equal
MAX_SEARCHED = 200  # random MDPs in which a counterexample is searched
Z_LIMIT = 4.5  # of |z|, in standard errors: a false alarm in 150,000

Critic = Callable[[Rollout, Policy], Values]


@dataclass(frozen=True, eq=False)
class Case:
    """An MDP and a policy: ∇J, and all trajectories with their probabilities, so that expectations are finite sums."""

    mdp: MDP
    policy: Policy

    @cached_property
    def _listed(self) -> tuple[Rollout, Tensor]:
        return enumerate_trajectories(self.mdp, self.policy)

    @property
    def rollout(self) -> Rollout:
        """Every trajectory, one per column."""
        return self._listed[0]

    @property
    def probability(self) -> Tensor:
        """The probability of each trajectory, (N,)."""
        return self._listed[1]

    @cached_property
    def gradient(self) -> Tensor:
        """∇J, (P,), by autograd through the dynamic programme."""
        return exact_gradient(self.mdp, self.policy)

    @cached_property
    def score(self) -> Tensor:
        """∇log π(a|s), (S, A, P)."""
        return scores(self.mdp, self.policy)

    @cached_property
    def pi(self) -> Tensor:
        """π(a|s), (S, A)."""
        return policy_matrix(self.mdp, self.policy).detach()

    @cached_property
    def V(self) -> Tensor:
        """(H+1, S)."""
        return solve(self.mdp, self.pi)[0]

    @cached_property
    def Q(self) -> Tensor:
        """(H, S, A)."""
        return solve(self.mdp, self.pi)[1]

    @property
    def to_go(self) -> StateDiscounted:
        """γᵗ G_t."""
        return StateDiscounted(RewardToGo(self.mdp.gamma))

    def contract(self, rollout: Rollout, adv: Tensor) -> Tensor:
        """Σ_t adv_t ∇log π(a_t|s_t) of each column, (N, P). adv: (T, N)."""
        chunk = Chunk(rollout, Values.zeros(rollout), 1, self.mdp.actions)
        return chunk.sums(adv) @ self.score.flatten(0, 1)

    def estimates(
        self,
        estimator: Estimator,
        baseline: Baseline | None = None,
        critic: Critic | None = None,
        rollout: Rollout | None = None,
    ) -> Tensor:
        """The estimate ĝ of each column alone, (N, P). rollout: its columns are the trajectories [all trajectories]."""
        rollout = self.rollout if rollout is None else rollout
        values = (critic or NoCritic())(rollout, self.policy)
        return self.contract(rollout, advantages(rollout, values, estimator, baseline or NoBaseline())[0])

    def mean(self, x: Tensor) -> Tensor:
        """E[x] over trajectories: (N, …) → (…)."""
        return torch.tensordot(self.probability, x, dims=1)

    def variance(self, x: Tensor) -> float:
        """The trace of the covariance of x (N, P)."""
        return float(self.mean((x - self.mean(x)).square().sum(-1)))

    def bias(self, x: Tensor) -> float:
        """‖E[x] − ∇J‖ / ‖∇J‖."""
        return float((self.mean(x) - self.gradient).norm() / self.gradient.norm())

    def gap(self, x: Tensor) -> float:
        """Max |E[x] − ∇J| over parameters: rounding, where x is unbiased."""
        return float((self.mean(x) - self.gradient).abs().max())

    def sample(self, episodes: int, seed: int = 0) -> Rollout:
        """Sampled episodes, one per column."""
        return sample(self.mdp, self.policy, episodes, torch.Generator().manual_seed(seed))

    def batch_mean(
        self,
        k: int,
        estimator: Estimator,
        baseline: Baseline | None = None,
        critic: Critic | None = None,
        reduction: str = "trajectory",
    ) -> Tensor:
        """E[ĝ] over all batches of k trajectories, (P,), by `Rollout.flatten` and one gradient of the policy for all."""
        parts = []
        for rollout, p in enumerate_batches(self.rollout, self.probability, k):
            values = (critic or NoCritic())(rollout, self.policy)
            batch = rollout.flatten(advantages(rollout, values, estimator, baseline or NoBaseline())[0], reduction)
            parts.append((batch.obs, batch.act, p * batch.weight * batch.adv))
        obs, act, weight = (torch.cat(x) for x in zip(*parts, strict=True))
        return self.policy.evaluate(Batch.of(obs, act)).gradient(weight).clone()

    def counterexample(self, name: str, what: str) -> Counterexample:
        """A counterexample with the tables of this case."""
        return Counterexample(name, self.mdp, tuple(tuple(row) for row in self.pi.tolist()), what)


def case(world: str, seed: int = 0, **changes: Any) -> Case:
    """An MDP and a policy of the zoo by name, see `make_mdp`."""
    mdp = make_mdp(world, seed, **changes)
    return Case(mdp, starting_policy(world, mdp, seed))


@cache
def small() -> tuple[Case, ...]:
    """Twenty random MDPs with 3 states, 2 actions, 3 steps, γ = 0.9, and random policies."""
    return tuple(case("small", seed, horizon=3) for seed in range(20))


@cache
def simple(count: int, ends: bool = False) -> tuple[Case, ...]:
    """Random MDPs with short numbers, in which counterexamples are searched: `count`, less those where ∇J is 0.

    They have 2 states, 2 actions and 2 steps, transitions in quarters, rewards in −2 … 2, and policies in tenths.
    ends: with a third state, which is terminal.
    """
    cases = (_simple(np.random.default_rng(seed), ends) for seed in range(count))
    return tuple(c for c in cases if float(c.gradient.norm()) > 1e-3)


def _simple(rng: np.random.Generator, ends: bool) -> Case:
    S = 2 + ends
    start = rng.integers(1, 4) / 4
    transition = rng.multinomial(4, [1 / S] * S, size=(S, 2)) / 4
    reward = rng.integers(-2, 3, size=(S, 2)).astype(float)
    first = torch.from_numpy(rng.integers(1, 10, size=S) / 10)
    mdp = MDP(
        torch.from_numpy(transition),
        torch.from_numpy(reward),
        torch.tensor([start, 1.0 - start, 0.0][:S], dtype=torch.float64),
        horizon=2,
        terminal=(2,) if ends else (),
    )
    return with_pi(mdp, torch.stack([first, 1.0 - first], -1))


def with_pi(mdp: MDP, pi: Tensor) -> Case:
    """A case whose policy is given as a table of positive probabilities, (S, A)."""
    policy = tabular_policy(mdp)
    policy.flat.copy_(pi.log().flatten())
    return Case(mdp, policy)


def z_score(x: Tensor, truth: Tensor) -> float:
    """The largest |mean − truth| over the columns of a sample x (n, P), in standard errors of the mean.

    A column that does not vary counts as 0 if it is right to rounding, and as ∞ otherwise.
    """
    error, se = (x.mean(0) - truth).abs(), x.std(0) / len(x) ** 0.5
    return float(torch.where(error <= EXACT, 0.0, error / se).max())


def cosine(u: Tensor, v: Tensor) -> float:
    """The cosine of the angle between two vectors."""
    return float(u @ v / (u.norm() * v.norm()))


def compare_variances(new: Sequence[float], old: Sequence[float]) -> tuple[np.ndarray, float, int]:
    """The ratios new / old of variances, the share of ratios below 1, and the index of the largest."""
    ratio = np.array(new) / np.array(old)
    return ratio, float((ratio < 1.0).mean()), int(ratio.argmax())


def study(world: str = "random") -> tuple[MDP, Policy, Batch]:
    """An MDP [8 random states, 4 actions, 10 steps], a random table of logits, and all trajectories as a batch."""
    mdp = make_mdp(world)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    return mdp, policy, exact_batch(mdp, policy)


def random_table(mdp: MDP, seed: int) -> Tensor:
    """A random policy, (S, A)."""
    return policy_matrix(mdp, tabular_policy(mdp, torch.Generator().manual_seed(seed))).detach()
