"""The bias and variance of gradients from data of a policy k updates ago.

Data of an earlier policy μ, used for π without a correction, gives E_μ[ Σ_t γᵗ A^μ_t ∇log π(a_t|s_t) ], which is not ∇J(π).
There are two corrections:

- the ratio of the action's probabilities, ρ_t = π/μ, on each step. This is the gradient of the surrogate L_μ at π, as in PPO
  and TRPO. The states and the advantages are still those of μ;
- the weight of the trajectory, w = Π_t ρ_t. This removes the bias, but the variance grows with E_μ[w²], without bound.

All numbers are exact: without weights and with ratios by dynamic programming, with weights by listing every trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policygrad.data import Values
from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import Estimator, RewardToGo, StateDiscounted, advantages
from policygrad.gradient.importance import ImportanceWeighted
from policygrad.lab.auditing.cells import Chunk
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import log_policy, policy_matrix
from policygrad.lab.exact.tabular import (
    ExactCritic,
    advantage,
    credited_gradient,
    exact_gradient,
    occupancy,
    scores,
    solve,
)
from policygrad.lab.exact.trajectories import enumerate_trajectories, seen_by, trajectory_count
from policygrad.lab.exact.worlds import exact_batch
from policygrad.lab.results import Result, align
from policygrad.lab.steps.relations import Rule, apply, solver
from policygrad.models.policy import Policy
from policygrad.updates import NaturalGradient

AGES = (0, 1, 2, 4, 8, 12, 16, 20)
MAX_LISTED = 50_000  # trajectories
UPDATE_KL = 1e-3  # nats per update
MIN_GRADIENT_RATIO = 1e-3  # the updates end before ‖∇J‖ falls below this share of the first one
ROUNDING = 1e-12  # a gradient below this share of Σ_t γᵗ E|Q_t| counts as 0


@dataclass(frozen=True)
class Bias:
    """The difference of the expected estimate and ∇J."""

    cosine: float
    error: float  # ‖E ĝ − ∇J‖ / ‖∇J‖


@dataclass(frozen=True)
class Weighted:
    """Exact means and variances of estimates from one trajectory of the old policy."""

    error: float  # ‖E ĝ − ∇J‖ / ‖∇J‖ with the trajectory's weight: 0 up to rounding
    variance: float  # tr Cov ĝ with it
    unweighted: float  # tr Cov ĝ without
    fresh: float  # tr Cov ĝ with data of the policy itself

    @property
    def relative(self) -> float:
        """The variance divided by that with data of the policy itself; NaN if that is 0."""
        return self.variance / self.fresh if self.fresh > 0.0 else math.nan


@dataclass(frozen=True)
class Stale:
    """The results for data that is `age` updates old."""

    age: int
    kl: float  # mean KL(old ‖ now), over the states the old policy visits
    plain: Bias
    ratio: Bias  # with the action's ratio
    weighted: Weighted | None  # with the trajectory's weight; None if there are too many trajectories to list
    ess: float  # 1 / E[w²]: the effective sample size, as a share of the trajectories


@dataclass(frozen=True)
class Staleness(Result):
    """Gradients for one policy from data of earlier policies. vanished: it ended early, because ∇J became too small."""

    rows: tuple[Stale, ...]
    updates: int  # made
    vanished: bool

    def table(self) -> str:
        """One row per age."""
        lines = []
        for row in self.rows:
            cells = [str(row.age), f"{row.kl:.4f}"]
            cells += [f"{x:.3f}" for bias in (row.plain, row.ratio) for x in (bias.cosine, bias.error)]
            weighted = row.weighted
            cells += ["–", "–"] if weighted is None else [f"{weighted.error:.0e}", f"{weighted.relative:.3g}"]
            lines.append([*cells, f"{100.0 * row.ess:.1f} %"])
        header = ("age", "KL", "cos, plain", "bias, plain", "cos, ratio", "bias, ratio")
        header = (*header, "bias, trajectory", "its variance", "its ESS")
        note = "bias: ‖E ĝ − ∇J‖ / ‖∇J‖. variance: of ĝ from one trajectory, divided by that with new data"
        if self.vanished:
            note += f"\nIt ended after {self.updates} updates: after one more, ‖∇J‖ is below "
            note += f"{MIN_GRADIENT_RATIO:g} of its first value."
        return f"{align(header, lines)}\n{note}"


def staleness(mdp: MDP, policy: Policy, *, ages: Sequence[int] = AGES, rule: Rule | None = None) -> Staleness:
    """Update the policy max(ages) times on exact batches, and estimate ∇J at the end from the data of `age` updates before.

    It ends before ‖∇J‖ falls to a thousandth of its first value, because errors are relative to ‖∇J‖; larger ages are left out:
    on `deceptive` those above 15, on `delayed` those above 8.
    rule: [NaturalGradient without damping, 0.001 nats per update]. Weights of trajectories are left out if there are more than
    50,000 trajectories. Raises ValueError without a horizon, if ∇J is 0 at first, and if no age is left.
    """
    if mdp.horizon is None:
        raise ValueError("weights of whole trajectories need a horizon: this MDP has none")
    if not ages or min(ages) < 0:
        raise ValueError(f"ages must be numbers of updates, 0 or more, got {tuple(ages)}")
    rule = NaturalGradient(UPDATE_KL, **solver(policy, 0.0)) if rule is None else rule
    path, vanished = _path(mdp, policy, rule, max(ages))
    now, updates = path[-1], len(path) - 1
    kept = [age for age in ages if age <= updates]
    if not kept:
        raise ValueError(f"ages must be at most {updates}, where ∇J has all but vanished, got {tuple(ages)}")
    exact = exact_gradient(mdp, now)
    fresh = _moments(mdp, now, now)[1] if trajectory_count(mdp) <= MAX_LISTED else math.nan
    rows = tuple(_stale(mdp, path[-1 - age], now, age, exact, fresh) for age in kept)
    return Staleness(rows, updates, vanished)


def _path(mdp: MDP, policy: Policy, rule: Rule, updates: int) -> tuple[list[Policy], bool]:
    """The policies after each of the updates, or of those before ∇J vanishes, and whether it vanishes."""
    first, pi = float(exact_gradient(mdp, policy).norm()), policy_matrix(mdp, policy).detach()
    if first <= ROUNDING * float((occupancy(mdp, pi).unsqueeze(-1) * pi * solve(mdp, pi)[1].abs()).sum()):
        raise ValueError("∇J is 0 at this policy: no estimate has a direction to be compared with")
    path = [policy]
    while len(path) <= updates:
        new = apply(rule, path[-1], exact_batch(mdp, path[-1]))[1]
        if float(exact_gradient(mdp, new).norm()) < MIN_GRADIENT_RATIO * first:
            return path, True
        path.append(new)
    return path, False


def _stale(mdp: MDP, old: Policy, now: Policy, age: int, exact: Tensor, fresh: float) -> Stale:
    mu, pi = (policy_matrix(mdp, p).detach() for p in (old, now))
    kl = occupancy(mdp, mu).sum(0) @ (mu * (mu / pi).log()).sum(-1) / occupancy(mdp, mu).sum()
    weighted = None
    if not math.isnan(fresh):
        mean, variance = _moments(mdp, old, now)
        weighted = Weighted(_bias(mean, exact).error, variance, _moments(mdp, old, now, weigh=False)[1], fresh)
    plain, ratio = (_bias(stale_gradient(mdp, old, now, ratio), exact) for ratio in (False, True))
    return Stale(age, float(kl), plain, ratio, weighted, 1.0 / second_moment(mdp, mu, pi))


def _bias(mean: Tensor, exact: Tensor) -> Bias:
    return Bias(float(mean @ exact / (mean.norm() * exact.norm())), float((mean - exact).norm() / exact.norm()))


def stale_gradient(mdp: MDP, old: Policy, now: Policy, ratio: bool = False) -> Tensor:
    """Σ_t Σ_s γᵗ P(s_t = s | μ) Σ_a μ(a|s) A^μ_t(s,a) ∇log π(a|s), (P,), exact; with ratios π replaces μ(a|s)."""
    mu, pi = (policy_matrix(mdp, p).detach() for p in (old, now))
    credit = advantage(mdp, mu) * (1.0 if ratio else mu / pi)  # credited_gradient has π in front of it
    return credited_gradient(mdp, now, credit, occupancy(mdp, mu))


def second_moment(mdp: MDP, mu: Tensor, pi: Tensor) -> float:
    """E_μ[w²], w the trajectory's weight Π_t π/μ, by dynamic programming: M_t(s) = Σ_a π²/μ Σ_s' P(s'|s,a) M_{t+1}(s')."""
    M, squares = torch.ones_like(mdp.start), torch.where(mu > 0.0, pi.square() / mu, 0.0)
    for _ in range(mdp.horizon or 0):
        M = torch.where(mdp.over, 1.0, (squares * (mdp.transition @ M)).sum(-1))
    return float(mdp.start @ M)


def _moments(mdp: MDP, old: Policy, now: Policy, weigh: bool = True) -> tuple[Tensor, float]:
    """The mean (P,) and the trace of the covariance of the estimate from one trajectory, over all trajectories."""
    rollout, p = enumerate_trajectories(mdp, old)
    rollout = seen_by(rollout, log_policy(mdp, now).detach())
    estimator: Estimator = StateDiscounted(RewardToGo(mdp.gamma))
    if weigh:
        estimator = ImportanceWeighted(estimator)
    adv, _ = advantages(rollout, ExactCritic(mdp)(rollout, old), estimator, CriticValue())
    each = Chunk(rollout, Values.zeros(rollout), 1, mdp.actions).sums(adv) @ scores(mdp, now).flatten(0, 1)
    mean = p @ each
    return mean, float(p @ each.square().sum(-1) - mean.square().sum())
