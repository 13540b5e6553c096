"""Claims about data from another policy: old data, importance sampling, replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from policygrad.gradient.estimators import Estimator, TotalReturn
from policygrad.gradient.importance import ImportanceWeighted, PerDecision
from policygrad.lab.claims import Outcome, claim, decide, every
from policygrad.lab.claims.recorded import Recorded, iqm, iqm_ratio, is_recorded, load_recorded, not_recorded
from policygrad.lab.claims.tools import EXACT, Case, small
from policygrad.lab.exact.tabular import log_policy, tabular_policy
from policygrad.lab.exact.trajectories import seen_by
from policygrad.lab.theory.staleness import Stale, staleness

THRESHOLD = 195.0  # mean return of CartPole in an interval of training, at most 500
ON_POLICY = ("reinforce", "a2c", "ppo", "trpo")


def needed(runs: Recorded, arms: Iterable[str]) -> tuple[str, np.ndarray, np.ndarray]:
    """The step size with which an algorithm gets to the threshold first (IQM), its steps (seeds,) and seconds (seeds,).

    A run that never gets there counts as one that does at its end, so that it needs more than is said.
    """
    steps = {arm: np.minimum(runs.steps_to(arm, THRESHOLD), runs.steps) for arm in arms}
    best = min(steps, key=lambda arm: float(iqm(steps[arm])))
    return best, steps[best], runs.seconds_to(best, THRESHOLD)


def until(runs: Recorded, algo: str, numbers: dict[str, float]) -> tuple[str, np.ndarray, np.ndarray]:
    """A sentence about the steps and seconds of an algorithm, with these; the numbers are added."""
    arm, steps, seconds = needed(
        runs, [arm for arm in runs.arms if arm.startswith(f"{algo}, lr ") or arm.startswith(f"{algo}, max_kl ")]
    )
    got = int((runs.steps_to(arm, THRESHOLD) <= runs.steps).sum())
    numbers |= {f"{algo}: steps, IQM": float(iqm(steps)), f"{algo}: seconds, IQM": float(iqm(seconds))}
    numbers[f"{algo}: seeds that get there"] = float(got)
    said = f"{arm} {iqm(steps):,.0f} steps and {iqm(seconds):.2g} s ({got} of {len(steps)} seeds get there)"
    return said, steps, seconds


@claim("On-policy methods need many rollouts: their sample complexity is high.", "recorded")
def on_policy_needs_many_rollouts() -> Outcome:
    """Steps and seconds until CartPole's mean return is 195: DQN with replay against four on-policy methods.

    Rule: each of REINFORCE with V, A2C, PPO and TRPO must need more steps than DQN: the interval of the ratio of the
    interquartile means is above 1, each at its best step size. A caveat, if one of them needs fewer seconds of the processor.
    """
    if not is_recorded("off-policy"):
        return not_recorded(
            "off-policy", "the steps until CartPole's mean return is 195, of DQN and of four on-policy methods"
        )
    runs, numbers = load_recorded("off-policy"), {}
    first, steps, seconds = until(runs, "dqn", numbers)
    more, quicker, said = [], [], [first]
    for algo in ON_POLICY:
        sentence, others, their_seconds = until(runs, algo, numbers)
        ratio, time = iqm_ratio(others, steps), iqm_ratio(their_seconds, seconds)
        more.append(ratio.above(1.0))
        quicker.append(time.high < 1.0)
        numbers |= {f"{algo}: steps / DQN's": ratio.mean, f"{algo}: seconds / DQN's": time.mean}
        said.append(f"{sentence}, {ratio} times the steps and {time} times the seconds of DQN")
    return Outcome(
        decide(every(more), caveat=any(quicker)),
        f"Until the mean return on CartPole is {THRESHOLD:g}, in the interquartile mean of {len(runs.seeds)} seeds, each "
        f"at its best step size (chosen on these seeds): {'; '.join(said)}. A run that never gets there counts with its "
        f"{runs.steps:,} steps. It is one task, and an easy one.",
        numbers,
    )


@claim("Experience replay gives sample efficiency.", "recorded")
def replay_is_sample_efficient() -> Outcome:
    """Steps and seconds until CartPole's mean return is 195: DQN with replay, and DQN that learns from the last step only.

    Rule: without replay it must need more steps: the interval of the ratio of the interquartile means is above 1, each at its
    best learning rate. A caveat, if replay needs more seconds of the processor.
    """
    if not is_recorded("off-policy"):
        return not_recorded(
            "off-policy", "the steps until CartPole's mean return is 195, of DQN with and without replay"
        )
    runs, numbers = load_recorded("off-policy"), {}
    (first, steps, seconds), (second, more, longer) = (until(runs, a, numbers) for a in ("dqn", "dqn, no replay"))
    ratio, time = iqm_ratio(more, steps), iqm_ratio(longer, seconds)
    numbers |= {"steps without replay / with": ratio.mean, "seconds without replay / with": time.mean}
    return Outcome(
        decide(ratio.above(1.0), caveat=time.high < 1.0),
        f"Until the mean return on CartPole is {THRESHOLD:g}, in the interquartile mean of {len(runs.seeds)} seeds, each "
        f"at its best learning rate (chosen on these seeds): {first}; {second}. Without replay DQN takes {ratio} times "
        f"the steps and {time} times the seconds. A run that never gets there counts with its {runs.steps:,} steps. It is "
        "one task.",
        numbers,
    )


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
        "The updates are natural gradient steps of 0.001 nats; the numbers are medians of 5 random MDPs. With new data the "
        f"expected gradient is right to {error[0]:.0e}. With data from 1 update ago its error is {error[1]:.0%} of ‖∇J‖, with "
        f"4 updates {error[4]:.0%}, with 16 updates {error[16]:.0%} (cosine {agreement[16]:.2f}). At 16 updates, ratios "
        f"of action probabilities, as in PPO, lower the error to {ratio:.0%}. Importance weights of whole trajectories "
        f"remove it (to {corrected:.0e}), but lower the effective sample size to {share:.0%}.",
        {f"relative error, data {age} updates old, median": x for age, x in error.items()}
        | {f"cosine with ∇J, data {age} updates old, median": x for age, x in agreement.items()}
        | {
            "relative error with ratios of actions, 16 updates old, median": ratio,
            "largest relative error with weights of trajectories": corrected,
            "effective share of the trajectories, 16 updates old, median": share,
        },
    )


def off_policy(c: Case, behavior: Case, estimator: Estimator) -> Tensor:
    """Estimates of ∇J of the policy of c from all trajectories of another policy, (N, P).

    Their mean and variance are `behavior.mean` and `behavior.variance`.
    """
    return c.estimates(estimator, rollout=seen_by(behavior.rollout, log_policy(c.mdp, c.policy).detach()))


def weighted(c: Case) -> tuple[Estimator, ...]:
    """The weighted estimators: weights of whole trajectories with both returns, and weights per decision."""
    return ImportanceWeighted(TotalReturn(c.mdp.gamma)), ImportanceWeighted(c.to_go), PerDecision(c.to_go)


@claim("Importance sampling is unbiased if the sampler takes every action that the policy may take.", "exact")
def importance_sampling_is_unbiased() -> Outcome:
    """All trajectories of another policy, with weights; a policy that never takes one of the actions."""
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
        f"On 20 random MDPs, with data of another random policy, the expected estimate is ∇J to {gap:.0e}, with weights of "
        f"whole trajectories and per decision. Without weights its error is {np.median(unweighted):.0%} of ‖∇J‖ (median). If "
        f"the sampler never takes one action in one state, the error of the weighted gradient is {missing:.0%}, and no "
        "sample shows it.",
        {
            "largest |E ĝ − ∇J|": gap,
            "relative bias without weights, median": float(np.median(unweighted)),
            "relative bias without full support": missing,
        },
    )


@claim("The variance of importance sampling can blow up where the policy puts mass and the sampler little.", "exact")
def importance_sampling_variance() -> Outcome:
    """Exact variances for samplers that take one of the actions more and more rarely."""
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
        "For 3 steps the policy takes both actions with probability ½, and the sampler takes one of them with probability "
        f"ε. From ε = {rare[0]} to {rare[-1]} the expected estimate stays ∇J (to {gap:.0e}), while its variance grows from "
        f"{whole[0]:.2g} to {whole[-1]:.2g}, with weights per decision to {per_decision[-1]:.2g}. The effective sample size "
        f"falls to {share[-1]:.1e} of the number of trajectories.",
        {f"variance at ε = {e}": x for e, x in zip(rare, whole, strict=True)}
        | {f"variance per decision at ε = {e}": x for e, x in zip(rare, per_decision, strict=True)}
        | {f"effective share of the sample at ε = {e}": x for e, x in zip(rare, share, strict=True)}
        | {"largest |E ĝ − ∇J|": gap},
    )


@claim("REINFORCE is importance sampling whose sampler is the policy itself.", "exact")
def reinforce_is_importance_sampling() -> Outcome:
    """Weighted estimates from trajectories that the policy itself sampled."""
    gap, ratio = 0.0, 0.0
    for c in small():
        r = seen_by(c.rollout, log_policy(c.mdp, c.policy).detach())
        ratio = max(ratio, float((r.logp - r.behavior).abs().max()))
        for plain, estimator in zip((TotalReturn(c.mdp.gamma), c.to_go, c.to_go), weighted(c), strict=True):
            gap = max(gap, float((off_policy(c, c, estimator) - c.estimates(plain)).abs().max()))
    return Outcome(
        decide(gap <= EXACT and ratio == 0.0),
        "This is an identity: all ratios are 1 in this case. For every trajectory of 20 random MDPs the weighted estimate "
        f"equals that of REINFORCE (largest difference {gap:.0e}).",
        {"largest difference in one trajectory": gap, "largest |log ratio|": ratio},
    )
