"""Claims about whose data it is: old data, importance sampling, replay."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from policygrad.gradient.estimators import Estimator, TotalReturn
from policygrad.gradient.importance import ImportanceWeighted, PerDecision
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, Case, small
from policygrad.lab.exact.tabular import log_policy, tabular_policy
from policygrad.lab.exact.trajectories import seen_by
from policygrad.lab.theory.staleness import Stale, staleness


@claim("On-policy methods need many rollouts: their sample complexity is high.", "recorded")
def on_policy_needs_many_rollouts() -> Outcome:
    """To be compared with an off-policy method."""
    because = (
        "It needs an off-policy method to compare with: environment steps to a threshold, on the same tasks with the "
        "same seeds, of DQN and of the on-policy methods."
    )
    return Outcome("pending", because, {})


@claim("Experience replay gives sample efficiency.", "recorded")
def replay_is_sample_efficient() -> Outcome:
    """To be compared without replay."""
    because = (
        "It needs a method with replay: environment steps to a threshold of DQN with its buffer, and of DQN that "
        "learns from the last step alone."
    )
    return Outcome("pending", because, {})


@claim("The data must come from the most recent policy.", "exact")
def data_must_be_fresh() -> Outcome:
    """Exact expectations from data of earlier policies, without and with two corrections."""
    ages = (0, 1, 4, 16)
    found = [staleness(c.mdp, c.policy, ages=ages).rows for c in small()[:5]]

    def median(of: Callable[[Stale], float]) -> list[float]:
        return [float(np.median([of(rows[i]) for rows in found])) for i in range(len(ages))]

    error = dict(zip(ages, median(lambda x: x.plain.error), strict=True))
    agreement = dict(zip(ages, median(lambda x: x.plain.cosine), strict=True))
    ratio, share = median(lambda x: x.ratio.error)[-1], median(lambda x: x.ess)[-1]
    corrected = max(row.weighted.error for rows in found for row in rows if row.weighted is not None)
    grows = all(b > a for a, b in pairwise(error.values()))
    return Outcome(
        decide(error[0] <= EXACT and grows and error[16] > 0.5 and corrected <= 1e-10),
        "After natural updates of 0.001 nats, medians of 5 random MDPs: from data 1 update old the expected "
        f"gradient is wrong by {error[1]:.0%} of ‖∇J‖, 4 old by {error[4]:.0%}, 16 old by {error[16]:.0%} (cosine "
        f"{agreement[16]:.2f}); from new data it is right, to {error[0]:.0e}. With the actions' ratios, as in PPO, 16 "
        f"updates cost {ratio:.0%}; with the weights of whole trajectories nothing (to {corrected:.0e}), but these "
        f"are worth {share:.0%} of their number.",
        {f"relative error, {age} updates old, median": x for age, x in error.items()}
        | {f"cosine with ∇J, {age} updates old, median": x for age, x in agreement.items()}
        | {
            "relative error with the actions' ratios, 16 updates old, median": ratio,
            "largest relative error with trajectories' weights": corrected,
            "effective share of the trajectories, 16 updates old, median": share,
        },
    )


def off_policy(c: Case, behavior: Case, estimator: Estimator) -> Tensor:
    """Estimates of ∇J of c's policy from all trajectories of another, (N, P); mean and variance are those of `behavior`."""
    return c.estimates(estimator, rollout=seen_by(behavior.rollout, log_policy(c.mdp, c.policy).detach()))


def weighted(c: Case) -> tuple[Estimator, ...]:
    """Trajectory-wise, of both returns, and per decision."""
    return ImportanceWeighted(TotalReturn(c.mdp.gamma)), ImportanceWeighted(c.to_go), PerDecision(c.to_go)


@claim("Importance sampling is unbiased if the sampler takes every action that the policy may take.", "exact")
def importance_sampling_is_unbiased() -> Outcome:
    """All trajectories of another policy, weighed; one that never takes an action."""
    gap, unweighted = 0.0, []
    for seed, c in enumerate(small()):
        behavior = Case(c.mdp, tabular_policy(c.mdp, torch.Generator().manual_seed(100 + seed)))
        for estimator in weighted(c):
            gap = max(gap, float((behavior.mean(off_policy(c, behavior, estimator)) - c.gradient).abs().max()))
        stale = behavior.mean(off_policy(c, behavior, c.to_go))
        unweighted.append(float((stale - c.gradient).norm() / c.gradient.norm()))
    c = small()[0]
    never = tabular_policy(c.mdp, scale=0.0)
    never.flat[0] = -1e9  # the first action in the first state has probability 0
    behavior = Case(c.mdp, never)
    missing = float((behavior.mean(off_policy(c, behavior, weighted(c)[-1])) - c.gradient).norm() / c.gradient.norm())
    return Outcome(
        decide(gap <= EXACT and missing > 0.01),
        f"From data of another random policy, on 20 random MDPs, the expectation is ∇J to {gap:.0e}, trajectory-wise "
        f"and per decision; without weights it is wrong by {np.median(unweighted):.0%} of ‖∇J‖ (median). Of a sampler "
        f"that never takes one action in one state the weighted gradient is wrong by {missing:.0%}, and no sample "
        "shows it.",
        {
            "largest |E ĝ − ∇J|": gap,
            "relative bias without weights, median": float(np.median(unweighted)),
            "relative bias without full support": missing,
        },
    )


@claim("The variance of importance sampling can blow up where the policy puts mass and the sampler little.", "exact")
def importance_sampling_variance() -> Outcome:
    """Exact variances as the sampler takes one action ever more rarely."""
    mdp = small()[0].mdp
    c = Case(mdp, tabular_policy(mdp, scale=0.0))
    rare, whole, per_decision, share, gap = (0.5, 0.2, 0.1, 0.05, 0.02), [], [], [], 0.0
    for epsilon in rare:
        policy = tabular_policy(mdp)
        policy.flat.copy_(torch.tensor([epsilon, 1.0 - epsilon], dtype=torch.float64).log().repeat(mdp.states))
        behavior = Case(mdp, policy)
        trajectory_wise, stepwise = (off_policy(c, behavior, e) for e in weighted(c)[1:])
        gap = max(gap, float((behavior.mean(trajectory_wise) - c.gradient).abs().max()))
        whole.append(behavior.variance(trajectory_wise))
        per_decision.append(behavior.variance(stepwise))
        w = seen_by(behavior.rollout, log_policy(mdp, c.policy).detach())
        share.append(1.0 / float(behavior.mean((w.logp - w.behavior).sum(0).exp().square())))
    return Outcome(
        decide(gap <= 1e-10 and whole[-1] > 100.0 * whole[0]),
        "A policy that takes both actions alike for 3 steps, and a sampler that takes one of them with probability "
        f"ε. From ε = {rare[0]} to {rare[-1]} the expectation stays ∇J (to {gap:.0e}) and the variance goes from "
        f"{whole[0]:.2g} to {whole[-1]:.2g}, per decision to {per_decision[-1]:.2g}. The effective sample size falls "
        f"to {share[-1]:.1e} of the trajectories.",
        {f"variance at ε = {e}": x for e, x in zip(rare, whole, strict=True)}
        | {f"variance per decision at ε = {e}": x for e, x in zip(rare, per_decision, strict=True)}
        | {f"effective share of the sample at ε = {e}": x for e, x in zip(rare, share, strict=True)}
        | {"largest |E ĝ − ∇J|": gap},
    )


@claim("REINFORCE is importance sampling whose sampler is the policy itself.", "exact")
def reinforce_is_importance_sampling() -> Outcome:
    """Weighted estimates where the policy itself has sampled."""
    gap, ratio = 0.0, 0.0
    for c in small():
        r = seen_by(c.rollout, log_policy(c.mdp, c.policy).detach())
        ratio = max(ratio, float((r.logp - r.behavior).abs().max()))
        for plain, estimator in zip((TotalReturn(c.mdp.gamma), c.to_go, c.to_go), weighted(c), strict=True):
            gap = max(gap, float((off_policy(c, c, estimator) - c.estimates(plain)).abs().max()))
    return Outcome(
        decide(gap <= EXACT and ratio == 0.0),
        "All ratios are 1 then, and the weighted estimate of every trajectory of 20 random MDPs is REINFORCE's "
        f"(largest difference {gap:.0e}).",
        {"largest difference in one trajectory": gap, "largest |log ratio|": ratio},
    )
