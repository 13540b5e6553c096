"""Claims about the variance of estimates: horizons, offsets, bootstrapping, credit; and when an update can be made."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Rollout, Values
from policygrad.gradient.baselines import Baseline, CriticValue, LeaveOneOut
from policygrad.gradient.estimators import GAE, QValue, RewardToGo, StateDiscounted, TotalReturn
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, MAX_SEARCHED, Z_LIMIT, Case, case, compare_variances, simple, small
from policygrad.lab.exact.mdp import delayed
from policygrad.lab.exact.tabular import ExactCritic, ExactQCritic, tabular_policy


@claim("REINFORCE has high variance: it learns from whole episodes.", "simulated")
def reinforce_has_high_variance() -> Outcome:
    """The noise of one episode divided by the signal, at four horizons of one random MDP."""
    horizons, needed, low, with_v = (1, 4, 16, 64), [], [], []
    for H in horizons:
        c = case("random", horizon=H)
        r = c.sample(4000)
        signal = float(c.gradient.square().sum())
        noise = (c.estimates(TotalReturn(), rollout=r) - c.gradient).square().sum(-1) / signal
        needed.append(float(noise.mean()))
        low.append(float(noise.mean() - Z_LIMIT * noise.std() / len(noise) ** 0.5))
        x = c.estimates(c.to_go, CriticValue(), ExactCritic(c.mdp), r)
        with_v.append(float((x - c.gradient).square().sum(-1).mean()) / signal)
    return Outcome(
        decide(low[-1] > 3.0 * needed[0] and all(b > a for a, b in pairwise(needed))),
        "The number of episodes until the signal equals the noise is tr Σ / ‖∇J‖². In a random MDP with 8 states it grows "
        f"from {needed[0]:.0f} with episodes of 1 step to {needed[-1]:.0f} with {horizons[-1]} steps. With reward-to-go minus "
        f"V it is {with_v[-1]:.0f} at {horizons[-1]} steps.",
        {f"episodes needed, horizon {H}": n for H, n in zip(horizons, needed, strict=True)}
        | {f"episodes needed, horizon {H}, with V": n for H, n in zip(horizons, with_v, strict=True)},
    )


@claim("Small changes in the returns can lead to big changes of the update.", "simulated")
def small_changes_of_returns() -> Outcome:
    """One number added to all returns: the change of the gradient, of the update, and of an update with a baseline.

    Rule: a standard deviation added to all returns must change the update from one episode by more than ‖∇J‖, and ∇J not at
    all. The estimate is linear in the returns, so that a caveat says what a tenth of it does: less than ‖∇J‖.
    """
    c, batches, size = small()[0], 1000, 16
    total = TotalReturn(c.mdp.gamma)
    spread = c.variance(total(c.rollout, Values.zeros(c.rollout)).ret[0].unsqueeze(-1)) ** 0.5

    def updates(rollout: Rollout, by: float, baseline: Baseline | None = None) -> Tensor:
        """The updates where every return is larger by this number, so that no difference between two returns changes."""
        return c.estimates(total, baseline, rollout=replace(rollout, rew=rollout.rew + by * (rollout.time == 0)))

    little = c.variance(updates(c.rollout, 0.1 * spread) - updates(c.rollout, 0.0)) ** 0.5 / float(c.gradient.norm())
    moved = updates(c.rollout, spread) - updates(c.rollout, 0.0)
    change, gap = c.variance(moved) ** 0.5 / float(c.gradient.norm()), float(c.mean(moved).abs().max())
    r = c.sample(batches * size)
    few = r.columns(range(size))
    relative = float((updates(few, spread, LeaveOneOut()) - updates(few, 0.0, LeaveOneOut())).abs().max())

    def agreement(by: float) -> float:
        x = updates(r, by).view(batches, size, -1).mean(1)
        return float(torch.cosine_similarity(x, c.gradient.expand_as(x)).mean())

    cosines = {n: agreement(n * spread) for n in (0, 1, 10)}
    return Outcome(
        decide(change > 1.0 and gap <= EXACT and relative <= EXACT and cosines[10] < 0.5 * cosines[0], little < 1.0),
        f"Adding one standard deviation of the returns to every return does not change ∇J (to {gap:.0e}), but it changes "
        f"the update from one episode by {change:.1f} ‖∇J‖. That is no small change: the estimate is linear in the "
        f"returns, and a tenth of it changes the update by a tenth, {little:.2f} ‖∇J‖. With {size} episodes the mean "
        f"cosine of the update and ∇J falls from {cosines[0]:.2f} to {cosines[1]:.2f}, and to {cosines[10]:.2f} if ten "
        f"standard deviations are added. A leave-one-out baseline removes the effect completely (to {relative:.0e}), "
        "because it moves with the returns.",
        {
            "change of the update from one episode, in ‖∇J‖": change,
            "change for a tenth of σ, in ‖∇J‖": little,
            "change of the expected update": gap,
            "change with leave-one-out": relative,
        }
        | {f"cosine with ∇J at an offset of {n} σ": x for n, x in cosines.items()},
    )


LAMBDAS = (0.0, 0.5, 0.9, 1.0)


@claim("Bootstrapping reduces the variance.", "exact")
def bootstrapping_lowers_variance() -> Outcome:
    """GAE over λ with the exact V and with a wrong one."""

    def estimates(c: Case, lam: float, V: Tensor | None = None) -> Tensor:
        return c.estimates(StateDiscounted(GAE(c.mdp.gamma, lam)), CriticValue(), ExactCritic(c.mdp, V))

    gap = max(c.gap(estimates(c, lam)) for c in small()[:5] for lam in LAMBDAS)
    variances = {lam: float(np.mean([c.variance(estimates(c, lam)) for c in small()])) for lam in LAMBDAS}
    cases = simple(MAX_SEARCHED)
    pairs = ((c.variance(estimates(c, 0.0)), c.variance(estimates(c, 1.0))) for c in cases)
    ratio, lower, worst = compare_variances(*zip(*pairs, strict=True))
    generator, biases = torch.Generator().manual_seed(0), {lam: [] for lam in LAMBDAS}
    for c in small():
        wrong = c.V + torch.randn(c.V.shape, generator=generator, dtype=torch.float64)
        for lam in LAMBDAS:
            biases[lam].append(c.bias(estimates(c, lam, wrong)))
    bias = {lam: float(np.median(x)) for lam, x in biases.items()}
    falls = all(variances[a] < variances[b] for a, b in pairwise(LAMBDAS))
    what = f"the TD error has {ratio[worst]:.3f} times the variance of reward-to-go minus V, with the exact V in both"
    return Outcome(
        decide(gap <= EXACT and falls and lower > 0.9, caveat=bias[0.0] > 1e-3 or ratio[worst] > 1.0),
        f"With the exact V, GAE is unbiased for every λ (to {gap:.0e}). Its mean variance on 20 random MDPs rises from "
        f"{variances[0.0]:.2f} at λ = 0 to {variances[1.0]:.2f} at λ = 1; on {len(cases)} smaller MDPs it is lower at λ = 0 in "
        f"{lower:.1%}. If noise of standard deviation 1 is added to V, the bias (median) is {bias[0.0]:.0%} of ‖∇J‖ at λ = 0, "
        f"{bias[0.9]:.0%} at λ = 0.9 and 0 at λ = 1.",
        {f"variance at λ = {lam:g}": x for lam, x in variances.items()}
        | {f"relative bias with a wrong V at λ = {lam:g}": x for lam, x in bias.items()}
        | {
            "largest |E ĝ − ∇J| with the exact V": gap,
            "share of MDPs where it is lower": lower,
            "variance ratio, largest": ratio[worst],
        },
        cases[worst].counterexample("found among random MDPs", what) if ratio[worst] > 1.0 else None,
    )


@claim("Credit assignment is hard with whole-episode returns.", "exact")
def credit_assignment_is_hard() -> Outcome:
    """Noise divided by signal, as a function of the number of steps between an action and its reward."""
    delays, noise, oracle = (1, 2, 3, 4, 5), [], []
    for d in delays:
        mdp = delayed(d)
        c = Case(mdp, tabular_policy(mdp, torch.Generator().manual_seed(0)))  # the same logits of the first action
        signal = float(c.gradient.square().sum())  # of the first action alone: the others change nothing
        noise.append(c.variance(c.estimates(TotalReturn())) / signal)
        oracle.append(c.variance(c.estimates(QValue(1.0), CriticValue(), ExactQCritic(mdp))) / signal)
    return Outcome(
        decide(all(b > a for a, b in pairwise(noise)) and noise[-1] > 5.0 * noise[0]),
        "One action decides the reward d steps later; in between, coin flips pay ±1. With the total return, the number of "
        f"episodes until the signal equals the noise grows from {noise[0]:.0f} at d = 1 to {noise[-1]:.0f} at d = "
        f"{delays[-1]}. With the exact Q − V it is {oracle[0]:.2g} and {oracle[-1]:.2g}: the noise comes from not knowing "
        "which action earned the reward.",
        {f"episodes needed at delay {d}": n for d, n in zip(delays, noise, strict=True)}
        | {f"episodes needed with Q − V at delay {d}": n for d, n in zip(delays, oracle, strict=True)},
    )


@cache
def first_updates(algo: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Environment steps between the first twenty changes of the parameters in training on CartPole, and episode lengths."""
    from policygrad.data import Row
    from policygrad.training.agent import Agent

    settings: dict[str, Any] = {"episodes": 1} if algo == "reinforce" else {}
    agent = Agent(algo, "CartPole-v1", seed=0, num_envs=1, **settings)
    before, changed, lengths = agent.policy.flat.clone(), [0], []

    def look(agent: Agent, row: Row | None) -> bool:
        nonlocal before
        if not torch.equal(agent.policy.flat, before):
            changed.append(agent.collector.steps_done)
            before = agent.policy.flat.clone()
        lengths[:] = list(agent.collector.lengths)
        return len(changed) <= 20

    agent.learn(10_000, look, log_every=10_000)
    agent.envs.close()
    return tuple(int(n) for n in np.diff(changed)), tuple(int(n) for n in lengths)


@claim("Actor-critic methods can update after every step.", "simulated")
def actor_critic_updates_every_step() -> Outcome:
    """The steps of a training run after which the parameters change."""
    waits, _ = first_updates("actor_critic")
    others, _ = first_updates("reinforce")
    return Outcome(
        decide(len(waits) == 20 and max(waits) == 1 < min(others)),
        f"In training on CartPole, one-step actor-critic changed its parameters after each of the first {len(waits)} "
        f"steps. REINFORCE with one episode per update changed them for the first time after {others[0]} steps.",
        {"largest number of steps between updates": max(waits), "steps before REINFORCE's first update": others[0]},
    )


@claim("REINFORCE must wait for the end of the episode.", "simulated")
def reinforce_waits_for_the_end() -> Outcome:
    """The steps of a training run after which the parameters change; estimators that refuse unfinished episodes."""
    waits, lengths = first_updates("reinforce")
    c = small()[0]
    r = c.sample(4)
    unfinished = replace(r, terminated=torch.zeros_like(r.terminated), cut=r.terminated)
    refused = 0
    for estimator in (TotalReturn(), RewardToGo()):
        try:
            estimator(unfinished, Values.zeros(unfinished))
        except ValueError:
            refused += 1
    return Outcome(
        decide(waits == lengths[: len(waits)] and refused == 2),
        f"In training on CartPole with one episode per update, the parameters changed {len(waits)} times, each time at the "
        f"end of an episode (of {min(waits)} to {max(waits)} steps). Without a critic, the total return and reward-to-go "
        "refuse unfinished episodes, because their returns are not known yet.",
        {
            "steps before the first update": waits[0],
            "length of the first episode": lengths[0],
            "estimators that refuse a cut": refused,
        },
    )
