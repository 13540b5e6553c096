"""The setting of an audit: an MDP, a policy and a critic, with batches of episodes and all trajectories.

What is *not* here: which estimators (cells.py), what is said of them (audit.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from policygrad.data import Rollout, Values
from policygrad.lab.auditing.cells import Cell, Chunk
from policygrad.lab.auditing.verdicts import ROUNDING
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import MDP, ExactQCritic, gradient_theorem, log_policy, occupancy, scores, solve
from policygrad.lab.exact.trajectories import enumerate_trajectories, seen_by, steps_seen, trajectory_count
from policygrad.models.critic import NoCritic
from policygrad.models.policy import Policy

CRITICS = ("exact", "wrong", "zero", "none")

Weighed = tuple[Chunk, Tensor]  # trajectories, batches of one, and their weights (N,), whose sum is 1

MAX_LISTED = 20_000  # trajectories whose exact moments are taken
MAX_BATCHES = 2_000  # the same for batches, where the estimates of a batch's episodes depend on each other
MAX_NUMBERS = 10_000_000  # of observations at a time: 80 MB
MAX_BATCH = 500_000_000  # of one batch's observations: 4 GB
MAX_AT_ONCE = 2_000  # batches: where they are coupled each is a rollout of its own
MAX_SPARSE_SHARE = 0.05  # scores of which fewer are not 0 are kept as a sparse matrix, too: those of a large table


@dataclass(frozen=True)
class Moments:
    """Exact mean and variances of one estimate, (P,) each."""

    mean: Tensor
    variances: Tensor


class Bench:
    """An MDP, a policy and a critic, with batches of their episodes and the exact moments of estimates.

    behavior: a policy that samples in its stead. limit: steps after which episodes are truncated.
    """

    def __init__(
        self,
        mdp: MDP,
        policy: Policy,
        critic: Any = "exact",
        batch: int = 16,
        limit: int | None = None,
        behavior: Policy | None = None,
        seed: int = 0,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.mdp, self.policy, self.batch, self.limit, self.behavior = mdp, policy, batch, limit, behavior
        self.steps = steps_seen(mdp, limit)
        if batch * self.steps * mdp.states > MAX_BATCH:
            raise ValueError(
                f"a batch of {batch:,} episodes of up to {self.steps:,} steps and {mdp.states} states takes more than "
                f"{MAX_BATCH:,} numbers: take fewer episodes, or a smaller limit"
            )
        for one in (policy, behavior):
            _check_policy(one, mdp)
        self.log_pi = log_policy(mdp, policy).detach()
        self.pi = self.log_pi.exp()
        self.acts = self.pi if behavior is None else log_policy(mdp, behavior).detach().exp()
        self.critic = named_critic(critic, mdp, self.pi, seed) if isinstance(critic, str) else critic
        self.scores = scores(mdp, policy).flatten(0, 1)  # (S·A, P)
        self.reference = gradient_theorem(mdp, policy, limit).clone()
        if float(self.reference.norm()) <= max(self.rounding, ROUNDING * float(mdp.reward.abs().max())):
            self.reference.zero_()  # no unit to measure in: what is left is rounding

    @cached_property
    def rounding(self) -> float:
        """What rounding leaves of sums as large as those that g is: 1e-13 of Σ d π |Q| ‖∇log π‖."""
        reached, Q = occupancy(self.mdp, self.pi, self.limit), solve(self.mdp, self.pi)[1].abs().amax(0).flatten()
        visited = (reached.sum(0).unsqueeze(-1) * self.pi).flatten()
        return 1e-13 * float((visited * Q * self.scores.norm(dim=1)).sum())

    @cached_property
    def sparse(self) -> Tensor | None:
        """The scores transposed, where few are not 0."""
        few = int((self.scores != 0).sum()) < MAX_SPARSE_SHARE * self.scores.numel()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "sparse CSR is in beta"
            return self.scores.T.to_sparse_csr() if few else None

    @cached_property
    def trajectories(self) -> int:
        """The number of trajectories, without those of probability 0; terminal states count as different."""
        return int(min(trajectory_count(self.mdp, self.acts, self.limit), 1e18))

    @cached_property
    def listed(self) -> tuple[Chunk, Tensor] | None:
        """Every trajectory, as a batch of one, with its probability; None if there are too many."""
        sizes = (self.mdp.states * self.steps, *self.scores.shape)
        if self.trajectories > min(MAX_LISTED, MAX_NUMBERS // max(sizes)):
            return None
        rollout, p = enumerate_trajectories(self.mdp, self.behavior or self.policy, self.limit)
        return self.chunk(rollout, 1), p

    @cached_property
    def listed_batches(self) -> tuple[Chunk, Tensor] | None:
        """Every batch with its probability; None if there are too many."""
        if self.trajectories**self.batch > MAX_BATCHES or self.listed is None:
            return None
        chunk, p = self.listed
        index = torch.cartesian_prod(*[torch.arange(len(p))] * self.batch).view(-1, self.batch)
        return self.chunk(chunk.rollout.columns(index.flatten()), self.batch), p[index].prod(1)

    def chunk(self, rollout: Rollout, batch: int) -> Chunk:
        """A rollout as batches, with its values; of another policy's episodes, with the log-probabilities of ours."""
        if self.behavior is not None:
            rollout = seen_by(rollout, self.log_pi)
        return Chunk(rollout, self.critic(rollout, self.policy), batch, self.mdp.actions)

    def sample(self, batches: int, generator: torch.Generator, batch: int | None = None) -> Iterator[Chunk]:
        """Sampled batches, some at a time."""
        batch = batch or self.batch
        most = min(MAX_AT_ONCE, max(1, MAX_NUMBERS // (self.steps * self.mdp.states * batch)))
        for first in range(0, batches, most):
            n = min(most, batches - first)
            yield self.chunk(sample(self.mdp, self.acts, n * batch, generator, self.limit), batch)

    def weighed(self, episodes: int, generator: torch.Generator) -> Iterator[Weighed]:
        """Every trajectory with its probability; where they are too many, a sample of so many, each with the same weight."""
        if self.listed is not None:
            yield self.listed
            return
        for chunk in self.sample(episodes, generator, batch=1):
            yield chunk, torch.full((chunk.batches,), 1.0 / episodes, dtype=torch.float64)

    def gradient(self, sums: Tensor) -> Tensor:
        """Sums (N, S·A) times ∇log π: (N, P)."""
        return sums @ self.scores if self.sparse is None else (self.sparse @ sums.T).T

    def estimates(self, cell: Cell, chunk: Chunk, coupled: bool) -> Tensor:
        """ĝ of every batch of a chunk, (N, P)."""
        found = self.gradient(chunk.sums(chunk.adv(cell, coupled), cell.reduction))
        if cell.per_parameter is not None:
            found -= cell.per_parameter * self.gradient(chunk.sums(cell.credit_weight(chunk.rollout), cell.reduction))
        return found

    def couples(self, cell: Cell, chunk: Chunk) -> bool:
        """Whether adv of an episode depends on the rest of its batch.

        Rewards and values get noise, so that no two episodes are alike.
        """
        rollout, values = _noisy(chunk.rollout, chunk.values)
        together = cell.adv(rollout, values)
        for n in range(min(together.shape[1], 8)):
            valid = rollout.mask[:, n]
            try:
                alone = cell.adv(rollout.columns([n, n]), values.columns([n, n]))
            except ValueError:
                return True
            if not torch.allclose(alone[valid, 0], together[valid, n], rtol=1e-9, atol=1e-12):
                return True
        return False

    def exact(self, cell: Cell, coupled: bool) -> Moments | None:
        """Mean and variance of one batch's estimate: sums over all trajectories, or all batches where they are coupled."""
        by_batch = coupled or cell.reduction == "step"
        listed = self.listed_batches if by_batch else self.listed
        if listed is None:
            return None
        chunk, p = listed
        found = self.estimates(cell, chunk, coupled)
        mean = p @ found
        variances = p @ (found - mean).square()
        return Moments(mean, variances if by_batch else variances / self.batch)

    def allowed(self, cell: Cell) -> None:
        """Raises ValueError if the critic does not give the values that a cell needs."""
        needy = [part for part in (cell.estimator, cell.baseline) if getattr(part, "needs_critic", False)]
        if needy and not self.critic.bootstraps:
            raise ValueError("needs a critic, but there is none")


def _check_policy(policy: Policy | None, mdp: MDP) -> None:
    if policy is None:
        return
    if policy.flat.dtype != torch.float64:
        raise ValueError("the policy must be float64, as exact values need it: call policy.double()")
    try:
        log_policy(mdp, policy)
    except RuntimeError as error:
        raise ValueError(
            f"the policy must take one-hot observations of {mdp.states} states and give {mdp.actions} actions: {error}"
        ) from error


def _noisy(rollout: Rollout, values: Values) -> tuple[Rollout, Values]:
    generator = torch.Generator().manual_seed(0)

    def noisy(x: Tensor) -> Tensor:
        return torch.where(rollout.mask, x + torch.randn(x.shape, generator=generator, dtype=x.dtype), 0.0)

    act_val = None if values.act_val is None else noisy(values.act_val)
    val, next_val = noisy(values.val), noisy(values.next_val)
    return replace(rollout, rew=noisy(rollout.rew)), replace(values, val=val, next_val=next_val, act_val=act_val)


def named_critic(name: str, mdp: MDP, pi: Tensor, seed: int = 0) -> Any:
    """Critics of q and V = Σ_a π q by name: exact; wrong, with noise as large as Q on every entry; zero; or none.

    Raises ValueError for another name.
    """
    if name not in CRITICS:
        raise ValueError(f"critic must be one of {', '.join(CRITICS)}, got {name!r}")
    if name == "none":
        return NoCritic()
    Q = solve(mdp, pi)[1]
    if name == "wrong":
        noise = torch.randn(Q.shape, generator=torch.Generator().manual_seed(seed), dtype=Q.dtype)
        Q = Q + Q.square().mean().sqrt() * noise
    if name == "zero":
        Q = torch.zeros_like(Q)
    return ExactQCritic(mdp, torch.cat([Q, torch.zeros_like(Q[:1]) if mdp.horizon else Q]))
