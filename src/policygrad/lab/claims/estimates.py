"""Claims about the policy gradient and its estimators: the score, unbiasedness, variance, weights, data, loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Batch, Rollout, Values
from policygrad.gradient.baselines import Baseline, CriticValue, LeaveOneOut, NoBaseline
from policygrad.gradient.estimators import (
    GAE,
    Estimator,
    QValue,
    RewardToGo,
    Standardized,
    StateDiscounted,
    TotalReturn,
    advantages,
)
from policygrad.gradient.importance import ImportanceWeighted, PerDecision
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, MAX_SEARCHED, Z_LIMIT, Case, Critic, case, cosine, simple, small, z_score
from policygrad.lab.exact.mdp import delayed, random_mdp
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import (
    MDP,
    ExactCritic,
    ExactQCritic,
    enumerate_trajectories,
    exact_gradient,
    log_policy,
    seen_by,
    tabular_policy,
)
from policygrad.lab.exact.worlds import exact_batch, two_logit_policy, two_states
from policygrad.lab.results import slope
from policygrad.lab.theory.functions import probabilities
from policygrad.lab.theory.losses import losses
from policygrad.lab.theory.staleness import Stale, staleness
from policygrad.models.critic import NoCritic
from policygrad.updates import VanillaGradient

TOPIC = "The gradient and its estimators"

# --- the identity ----------------------------------------------------------------------------------------------------


@claim(80, "The gradient of the expected return is the expectation of the score times the return.", TOPIC, "exact")
def score_times_return() -> Outcome:
    """All trajectories of 20 random MDPs, and a sample of one of them."""
    gap = max(c.gap(c.estimates(TotalReturn(c.mdp.gamma))) for c in small())
    c, episodes = small()[0], 50_000
    z = z_score(c.estimates(TotalReturn(c.mdp.gamma), rollout=c.sample(episodes)), c.gradient)
    return Outcome(
        decide(gap <= EXACT and z <= Z_LIMIT),
        f"On 20 random MDPs, Σ P(τ) R(τ) ∇log P(τ) over all trajectories is ∇J by autograd to {gap:.0e}. The mean of "
        f"{episodes:,} sampled episodes is within {z:.1f} standard errors of it in every parameter.",
        {"largest |E ĝ − ∇J|": gap, "largest |z| of a sampled mean": z},
    )


@claim(81, "The mean over N trajectories estimates the gradient, with an error that falls as 1/√N.", TOPIC, "simulated")
def error_over_trajectories() -> Outcome:
    """Squared errors of means of 1 to 1,024 trajectories against the exact variance."""
    c = small()[0]
    x = c.estimates(TotalReturn(c.mdp.gamma), rollout=c.sample(2**16))
    one = c.variance(c.estimates(TotalReturn(c.mdp.gamma)))
    sizes, errors, z = [4**k for k in range(6)], [], 0.0
    for n in sizes:
        squared = (x.view(-1, n, x.shape[1]).mean(1) - c.gradient).square().sum(-1)
        errors.append(float(squared.mean().sqrt()))
        z = max(z, z_score(squared.unsqueeze(-1), x.new_tensor([one / n])))
    power = slope(sizes, errors)
    return Outcome(
        decide(abs(power + 0.5) <= 0.05 and z <= Z_LIMIT),
        f"The error of the mean of 1 trajectory is {errors[0]:.3g}, of {sizes[-1]:,} it is {errors[-1]:.3g}: ∝ "
        f"N^{power:.3f}. Its square is the exact variance divided by N to within {z:.1f} standard errors at every N.",
        {
            "power of N": power,
            "error of 1 trajectory": errors[0],
            "error of the mean of 1,024": errors[-1],
            "largest |z|": z,
        },
    )


@claim(82, "The log-derivative trick: ∇P(τ) = P(τ) ∇log P(τ).", TOPIC, "exact")
def log_derivative() -> Outcome:
    """The Jacobian of the product of probabilities, by autograd, against P(τ) times the scores."""
    mdp = random_mdp(2, 2, 3, np.random.default_rng(0))
    c = Case(mdp, tabular_policy(mdp, torch.Generator().manual_seed(0)))
    r, pi = c.rollout, probabilities(c.mdp, c.policy)

    def probability(theta: Tensor) -> Tensor:
        """P(τ) of every trajectory, the product of what the policy and the dynamics choose: no logarithm in it."""
        s, after = r.obs[:-1].argmax(-1), r.next_obs.argmax(-1)
        dynamics = mdp.start[s[0]] * mdp.transition[s, r.act, after].prod(0)
        return dynamics * pi(theta)[s, r.act].prod(0)

    jacobian = torch.autograd.functional.jacobian(probability, c.policy.flat.clone())
    assert isinstance(jacobian, Tensor)
    trick = c.probability.unsqueeze(-1) * c.contract(r, torch.ones_like(r.rew))
    gap, mean = float((jacobian - trick).abs().max()), float(trick.sum(0).abs().max())
    return Outcome(
        decide(gap <= EXACT and mean <= EXACT),
        f"For each of {len(trick)} trajectories autograd of the product of probabilities and P(τ) times the sum of "
        f"scores agree to {gap:.0e}. Summed over all trajectories that is 0, to {mean:.0e}: the expected score.",
        {"largest difference": gap, "largest |expected score|": mean},
    )


@claim(83, "Only the policy's part of log P(τ) depends on θ: the dynamics drop out of the gradient.", TOPIC, "exact")
def dynamics_drop_out() -> Outcome:
    """∇log P(τ) of the same trajectories under two dynamics."""
    first, second = (random_mdp(2, 2, 3, np.random.default_rng(seed)) for seed in (0, 1))
    policy = tabular_policy(first, torch.Generator().manual_seed(0))
    r, pi = enumerate_trajectories(first, policy)[0], probabilities(first, policy)
    s, after = r.obs[:-1].argmax(-1), r.next_obs.argmax(-1)

    def log_probability(mdp: MDP, theta: Tensor) -> Tensor:
        steps = (mdp.transition * pi(theta).unsqueeze(-1))[s, r.act, after]
        return mdp.start[s[0]].log() + steps.log().sum(0)

    theta = policy.flat.clone()
    there, here = (log_probability(mdp, theta) for mdp in (first, second))
    scores = [
        torch.autograd.functional.jacobian(lambda theta, mdp=mdp: log_probability(mdp, theta), theta)
        for mdp in (first, second)
    ]
    a, b = (x for x in scores if isinstance(x, Tensor))
    summed = Case(first, policy).contract(r, torch.ones_like(r.rew))
    gap = max(float((a - b).abs().max()), float((a - summed).abs().max()))
    ratio = float((there - here).abs().max().exp())
    return Outcome(
        decide(gap <= EXACT and ratio > 2.0),
        f"Under two random dynamics the probabilities of the same {len(a)} trajectories differ by factors of up to "
        f"{ratio:.3g}, and their ∇log P(τ) are the same, the sum of the policy's scores, to {gap:.0e}.",
        {"largest difference of ∇log P(τ)": gap, "largest ratio of P(τ)": ratio},
    )


@claim(84, "REINFORCE is unbiased.", TOPIC, "exact")
def reinforce_is_unbiased() -> Outcome:
    """All trajectories, and batches as in training; another policy's data, and γᵗ left out, for comparison."""
    gap = max(c.gap(c.estimates(e)) for c in small() for e in (TotalReturn(c.mdp.gamma), c.to_go))
    c, batches, size = small()[0], 400, 10
    r, made = c.sample(batches * size), []
    adv = advantages(r, Values.zeros(r), c.to_go, NoBaseline())[0]
    for k in range(batches):  # as in training: a batch, its weights, one gradient
        columns = torch.arange(k * size, (k + 1) * size)
        batch = r.columns(columns).flatten(adv[:, columns], "trajectory")
        made.append(c.policy.evaluate(batch).gradient(batch.weight * batch.adv).clone())
    z = z_score(torch.stack(made), c.gradient)
    other = c.estimates(
        c.to_go, rollout=sample(c.mdp, torch.full_like(c.pi, 0.5), 1000, torch.Generator().manual_seed(0))
    )
    wrong = z_score(other, c.gradient)
    dropped = float(np.median([c.bias(c.estimates(RewardToGo(c.mdp.gamma))) for c in small()]))
    return Outcome(
        decide(gap <= EXACT and z <= Z_LIMIT < wrong),
        f"On 20 random MDPs the expectation is ∇J to {gap:.0e}, with total return and with reward-to-go. The mean of "
        f"{batches:,} batches of {size} episodes is within {z:.1f} standard errors. It holds for the policy's own "
        f"data, {wrong:.0f} standard errors away with a thousand episodes of another policy, and with γᵗ: left out, "
        f"the bias is {dropped:.0%} of ‖∇J‖ (median, γ = 0.9).",
        {
            "largest |E ĝ − ∇J|": gap,
            "largest |z| on own data": z,
            "largest |z| on another policy's data": wrong,
            "relative bias without γᵗ, median": dropped,
        },
    )


# --- what multiplies the score -----------------------------------------------------------------------------------------


@claim(85, "Rewards of the past do not matter: reward-to-go has the expectation of the total return.", TOPIC, "exact")
def past_rewards() -> Outcome:
    """Total return minus reward-to-go, over all trajectories."""
    gap, moved = 0.0, math.inf
    for c in small():
        past = c.estimates(TotalReturn(c.mdp.gamma)) - c.estimates(c.to_go)
        gap = max(gap, float(c.mean(past).abs().max()))
        moved = min(moved, float(past.abs().max()))
    return Outcome(
        decide(gap <= EXACT and moved > 0.1),
        f"On 20 random MDPs the past rewards' share of the expectation is 0, to {gap:.0e}; in single trajectories it "
        f"is as large as {moved:.2g} at least.",
        {"largest |E of the past's share|": gap, "largest share in one trajectory, at least": moved},
    )


def compare(new: Sequence[float], old: Sequence[float]) -> tuple[np.ndarray, float, int]:
    """Variances relative to others: the ratios, the share that is lower, and which one is the largest."""
    ratio = np.array(new) / np.array(old)
    return ratio, float((ratio < 1.0).mean()), int(ratio.argmax())


@claim(86, "Reward-to-go lowers the variance.", TOPIC, "exact")
def to_go_lowers_variance() -> Outcome:
    """Exact variances on random MDPs, and the one where it fails most."""
    cases = simple(MAX_SEARCHED)
    to_go, total = zip(
        *((c.variance(c.estimates(c.to_go)), c.variance(c.estimates(TotalReturn()))) for c in cases), strict=True
    )
    ratio, lower, worst = compare(to_go, total)
    what = f"the variance is {to_go[worst]:.3g} with reward-to-go and {total[worst]:.3g} with the total return"
    return Outcome(
        decide(lower > 0.9, caveat=ratio[worst] > 1.0),
        f"In {lower:.1%} of {len(cases)} random MDPs it does, to {np.median(ratio):.2f} of the total return's "
        "variance in the median. It is no theorem: where what was earned and what will be cancel, leaving out the "
        f"past makes it {ratio[worst]:.2f} times as large.",
        {
            "share of MDPs where it is lower": lower,
            "variance ratio, median": float(np.median(ratio)),
            "variance ratio, largest": ratio[worst],
        },
        cases[worst].counterexample("found among random MDPs", what) if ratio[worst] > 1.0 else None,
    )


def with_q(c: Case) -> Tensor:
    """γᵗ Q(s_t, a_t), (N, P)."""
    return c.estimates(StateDiscounted(QValue(c.mdp.gamma)), critic=ExactQCritic(c.mdp))


@claim(87, "Q(s, a) may replace the reward-to-go.", TOPIC, "exact")
def q_for_to_go() -> Outcome:
    """The exact Q: bias and variance; a wrong one: bias."""
    gap = max(c.gap(with_q(c)) for c in small())
    cases = simple(MAX_SEARCHED)
    q, to_go = zip(*((c.variance(with_q(c)), c.variance(c.estimates(c.to_go))) for c in cases), strict=True)
    ratio, lower, worst = compare(q, to_go)
    biases = []
    for seed, c in enumerate(small()):
        Q = torch.cat([c.Q, torch.zeros_like(c.Q[:1])])
        noise = torch.randn(Q.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        biases.append(c.bias(c.estimates(StateDiscounted(QValue(c.mdp.gamma)), critic=ExactQCritic(c.mdp, Q + noise))))
    bias = float(np.median(biases))
    return Outcome(
        decide(gap <= EXACT),
        f"With the exact Q the expectation is ∇J, to {gap:.0e} on 20 random MDPs. The variance is lower in "
        f"{lower:.1%} of {len(cases)}, {np.median(ratio):.2f} of it in the median ({ratio[worst]:.2f} at worst). A Q "
        f"that is wrong by noise of standard deviation 1 has a bias of {bias:.0%} of ‖∇J‖ (median).",
        {
            "largest |E ĝ − ∇J|": gap,
            "share of MDPs where the variance is lower": lower,
            "variance ratio, median": float(np.median(ratio)),
            "variance ratio, largest": ratio[worst],
            "relative bias of a wrong Q, median": bias,
        },
    )


# --- variance --------------------------------------------------------------------------------------------------------


@claim(98, "REINFORCE has high variance: it learns from whole episodes.", TOPIC, "simulated")
def variance_over_horizon() -> Outcome:
    """Noise over signal of one episode at four horizons of one random MDP."""
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
        f"The episodes needed until the signal equals the noise, tr Σ / ‖∇J‖², grow from {needed[0]:.0f} at 1 step to "
        f"{needed[-1]:.0f} at {horizons[-1]} steps in a random MDP with 8 states; with reward-to-go and V subtracted "
        f"it is {with_v[-1]:.0f} there.",
        {f"episodes needed at {H} steps": n for H, n in zip(horizons, needed, strict=True)}
        | {f"episodes needed at {H} steps, with V": n for H, n in zip(horizons, with_v, strict=True)},
    )


@claim(99, "Small changes in the returns can lead to big changes of the update.", TOPIC, "simulated")
def offset_of_returns() -> Outcome:
    """The same number added to all returns: what the gradient, the update, and one with a baseline make of it."""
    c, batches, size = small()[0], 1000, 16
    total = TotalReturn(c.mdp.gamma)
    spread = c.variance(total(c.rollout, Values.zeros(c.rollout)).ret[0].unsqueeze(-1)) ** 0.5

    def updates(rollout: Rollout, by: float, baseline: Baseline | None = None) -> Tensor:
        """Every return is larger by so much: no difference between two of them changes."""
        return c.estimates(total, baseline, rollout=replace(rollout, rew=rollout.rew + by * (rollout.time == 0)))

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
        decide(change > 1.0 and gap <= EXACT and relative <= EXACT and cosines[10] < 0.5 * cosines[0]),
        f"An offset of one standard deviation of the returns leaves ∇J as it is (to {gap:.0e}) and moves the update "
        f"from one episode by {change:.1f} ‖∇J‖. With {size} episodes the cosine of update and ∇J, {cosines[0]:.2f} "
        f"on average, falls to {cosines[1]:.2f}, and to {cosines[10]:.2f} at an offset of ten. A baseline that moves "
        f"with the returns undoes all of it (leave-one-out, to {relative:.0e}).",
        {
            "change of the update from one episode, in ‖∇J‖": change,
            "change of the expected update": gap,
            "change with leave-one-out": relative,
        }
        | {f"cosine with ∇J at an offset of {n} σ": x for n, x in cosines.items()},
    )


LAMBDAS = (0.0, 0.5, 0.9, 1.0)


@claim(100, "Bootstrapping reduces the variance.", TOPIC, "exact")
def bootstrapping() -> Outcome:
    """GAE over λ with the exact V and with a wrong one."""

    def estimates(c: Case, lam: float, V: Tensor | None = None) -> Tensor:
        return c.estimates(StateDiscounted(GAE(c.mdp.gamma, lam)), CriticValue(), ExactCritic(c.mdp, V))

    gap = max(c.gap(estimates(c, lam)) for c in small()[:5] for lam in LAMBDAS)
    variances = {lam: float(np.mean([c.variance(estimates(c, lam)) for c in small()])) for lam in LAMBDAS}
    cases = simple(MAX_SEARCHED)
    ratio, lower, worst = compare(
        *zip(*((c.variance(estimates(c, 0.0)), c.variance(estimates(c, 1.0))) for c in cases), strict=True)
    )
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
        f"With the exact V, GAE is unbiased for every λ (to {gap:.0e}), and its variance on 20 random MDPs rises from "
        f"{variances[0.0]:.2f} at λ = 0 to {variances[1.0]:.2f} at λ = 1; it is lower at λ = 0 in {lower:.1%} of "
        f"{len(cases)} small ones. With a V that is wrong by noise of standard deviation 1, λ = 0 has a bias of "
        f"{bias[0.0]:.0%} of ‖∇J‖ (median), λ = 0.9 of {bias[0.9]:.0%}, λ = 1 of none.",
        {f"variance at λ = {lam:g}": x for lam, x in variances.items()}
        | {f"relative bias with a wrong V at λ = {lam:g}": x for lam, x in bias.items()}
        | {
            "largest |E ĝ − ∇J| with the exact V": gap,
            "share of MDPs where it is lower": lower,
            "variance ratio, largest": ratio[worst],
        },
        cases[worst].counterexample("found among random MDPs", what) if ratio[worst] > 1.0 else None,
    )


@claim(145, "Credit assignment is hard with whole-episode returns.", TOPIC, "exact")
def delayed_reward() -> Outcome:
    """Noise over signal against the steps between an action and its reward."""
    delays, noise, oracle = (1, 2, 3, 4, 5), [], []
    for d in delays:
        mdp = delayed(d)
        c = Case(mdp, tabular_policy(mdp, torch.Generator().manual_seed(0)))  # the same logits of the first action
        signal = float(c.gradient.square().sum())  # of the first action alone: the others change nothing
        noise.append(c.variance(c.estimates(TotalReturn())) / signal)
        oracle.append(c.variance(c.estimates(QValue(1.0), CriticValue(), ExactQCritic(mdp))) / signal)
    return Outcome(
        decide(all(b > a for a, b in pairwise(noise)) and noise[-1] > 5.0 * noise[0]),
        f"One action decides what is paid d steps later, coins pay ±1 between. From d = 1 to {delays[-1]} the "
        f"episodes needed for a signal as large as the noise grow from {noise[0]:.0f} to {noise[-1]:.0f} with the "
        f"total return. Told Q − V of every action, it is {oracle[0]:.2g} and {oracle[-1]:.2g}: the noise is the "
        "credit's.",
        {f"episodes needed at delay {d}": n for d, n in zip(delays, noise, strict=True)}
        | {f"episodes needed with Q − V at delay {d}": n for d, n in zip(delays, oracle, strict=True)},
    )


# --- when, and with what data ------------------------------------------------------------------------------------------


@cache
def first_updates(algo: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Environment steps between the first twenty changes of the parameters in training on CartPole, and episodes' lengths."""
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


@claim(101, "Actor-critic methods can update after every step.", TOPIC, "simulated")
def update_every_step() -> Outcome:
    """Training itself: when the parameters change."""
    waits, _ = first_updates("actor_critic")
    others, _ = first_updates("reinforce")
    return Outcome(
        decide(len(waits) == 20 and max(waits) == 1 < min(others)),
        f"Trained on CartPole, one-step actor-critic changed its parameters after each of the first {len(waits)} "
        f"steps; REINFORCE with one episode an update for the first time after {others[0]} steps.",
        {"largest number of steps between updates": max(waits), "steps before REINFORCE's first update": others[0]},
    )


@claim(146, "REINFORCE must wait for the end of the episode.", TOPIC, "simulated")
def wait_for_the_end() -> Outcome:
    """Training itself: when the parameters change, and what the estimators say to unfinished episodes."""
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
        f"Trained on CartPole with one episode an update, its parameters changed {len(waits)} times, each time when "
        f"an episode of {min(waits)} to {max(waits)} steps had ended. Without a critic, total return and reward-to-go "
        "refuse episodes cut short: their returns are not known yet.",
        {
            "steps before the first update": waits[0],
            "length of the first episode": lengths[0],
            "estimators that refuse a cut": refused,
        },
    )


@claim(105, "On-policy methods need many rollouts: their sample complexity is high.", TOPIC, "recorded")
def sample_complexity() -> Outcome:
    """To be compared with an off-policy method."""
    because = (
        "It needs an off-policy method to compare with: environment steps to a threshold, on the same tasks with the "
        "same seeds, of DQN and of the on-policy methods."
    )
    return Outcome("pending", because, {})


@claim(106, "Experience replay gives sample efficiency.", TOPIC, "recorded")
def experience_replay() -> Outcome:
    """To be compared without replay."""
    because = (
        "It needs a method with replay: environment steps to a threshold of DQN with its buffer, and of DQN that "
        "learns from the last step alone."
    )
    return Outcome("pending", because, {})


@claim(109, "The loss of a policy gradient does not measure performance.", TOPIC, "exact")
def loss_is_no_score() -> Outcome:
    """Losses and J along exact ascent, with a constant added to all rewards or taken off."""
    c = small()[1]
    found = losses(c.mdp, c.policy, steps=60, lr=0.25)
    shift = found.shift
    raised, lowered = (found[f"returns, {by:+.3g} a step"] for by in (shift, -shift))
    gap = 0.0
    for by in (shift, -shift):
        shifted = replace(c.mdp, reward=c.mdp.outcome + by)
        gap = max(gap, float((exact_gradient(shifted, c.policy) - c.gradient).abs().max()))
    return Outcome(
        decide(found.J[-1] > found.J[0] and gap <= EXACT and raised.correlation < -0.5 and lowered.correlation > 0.5),
        f"Along {len(found.J) - 1} exact updates J rises from {found.J[0]:.2f} to {found.J[-1]:.2f}. With {shift:.1f} "
        f"added to every reward, which changes no gradient (to {gap:.0e}), the loss falls from {raised.values[0]:.1f} "
        f"to {raised.values[-1]:.1f}; with as much taken off it rises from {lowered.values[0]:.1f} to "
        f"{lowered.values[-1]:.1f}. The policies are the same; the loss improves or worsens, its correlation with J "
        f"is {raised.correlation:.2f} or {lowered.correlation:+.2f}.",
        {
            "correlation of loss and J, rewards raised": raised.correlation,
            "correlation of loss and J, rewards lowered": lowered.correlation,
            "correlation of loss and J, advantages": found["advantages"].correlation,
            "share of steps on which J and the loss rise, rewards lowered": lowered.worse,
            "rise of J": found.J[-1] - found.J[0],
            "largest difference of ∇J": gap,
        },
    )


@claim(110, "The data must come from the most recent policy.", TOPIC, "exact")
def stale_data() -> Outcome:
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


# --- as it is coded ----------------------------------------------------------------------------------------------------


@claim(108, "Log-probabilities are easier than probabilities.", TOPIC, "simulated")
def logarithms() -> Outcome:
    """The product of 2,000 probabilities and the sum of their logarithms, in float32 and float64, and their gradients."""
    c = case("random", horizon=2000)
    r = c.sample(1)
    logp = r.logp[:, 0]
    underflow = {}
    for dtype in (torch.float32, torch.float64):
        product = logp.exp().to(dtype).cumprod(0)
        underflow[dtype] = int((product == 0).nonzero()[0]) + 1 if (product == 0).any() else len(logp) + 1
    error = abs(float(logp.float().sum()) / float(logp.sum()) - 1.0)
    pi = probabilities(c.mdp, c.policy)
    chosen = (r.obs[:-1, 0].argmax(-1), r.act[:, 0])
    theta = c.policy.flat.clone().requires_grad_()
    product = torch.autograd.grad(pi(theta)[chosen].prod(), theta)[0]
    score = torch.autograd.grad(pi(theta)[chosen].log().sum(), theta)[0]
    gap = float((score - c.contract(r, torch.ones_like(r.rew))[0]).abs().max() / score.norm())
    return Outcome(
        decide(max(underflow.values()) <= len(logp) and error < 1e-5 and gap <= EXACT and not product.any()),
        f"The product of the probabilities of a trajectory's actions is 0 from step {underflow[torch.float32]} on in "
        f"float32, from {underflow[torch.float64]} on in float64, and its gradient with it. Their logarithms sum to "
        f"{float(logp.sum()):.0f} at step {len(logp)}, with a relative error of {error:.0e} in float32, and the "
        "gradient of the sum is right.",
        {
            "steps until the product is 0, float32": underflow[torch.float32],
            "steps until the product is 0, float64": underflow[torch.float64],
            "relative error of the sum of logarithms, float32": error,
            "relative error of its gradient": gap,
        },
    )


@claim(111, "The gradient of the loss −mean(adv · log π) is the policy gradient.", TOPIC, "exact")
def loss_gradient() -> Outcome:
    """Autograd of the loss; batches whose mean is over steps, each and in expectation."""
    c = small()[0]
    batch, estimate = sampled_batch(c, "trajectory")
    loss = -(batch.weight * batch.adv * c.policy.logp(batch.obs, batch.act)).sum()
    gap = float((c.policy.gradient(-loss) - estimate).abs().max())
    cases = simple(MAX_SEARCHED, ends=True)
    scaled = 0.0  # batches of episodes of any length: ĝ times N/ΣT
    for c in cases[:20]:
        batch, estimate = sampled_batch(c, "step")
        step = c.policy.evaluate(batch).gradient(batch.weight * batch.adv)
        scaled = max(scaled, float((step - estimate * batch.trajectories / len(batch)).abs().max()))
    by_length = [c.estimates(c.to_go) / c.rollout.mask.sum(0).unsqueeze(-1) for c in cases]
    agreement = [cosine(c.mean(x), c.gradient) for c, x in zip(cases, by_length, strict=True)]
    c = cases[int(np.argmin(agreement))]
    worst = {k: cosine(c.batch_mean(k, c.to_go, reduction="step"), c.gradient) for k in (1, 2)}
    what = f"the mean over steps has cosine {worst[1]:.2f} with ∇J in batches of one, {worst[2]:.2f} in batches of two"
    return Outcome(
        decide(gap <= EXACT and scaled <= EXACT, caveat=worst[1] < 1.0 - 1e-6),
        f"It is where the mean is over trajectories (autograd agrees to {gap:.0e}). The usual mean over steps gives "
        f"the same times N/ΣT (to {scaled:.0e}): one scale where all episodes are equally long, else a random one "
        f"that goes with the returns. In {len(cases)} random MDPs with ends the median cosine with ∇J is "
        f"{np.median(agreement):.4f}, the lowest {worst[1]:.2f}, for batches of one.",
        {
            "largest difference, mean over trajectories": gap,
            "largest difference from ĝ N/ΣT": scaled,
            "cosine with ∇J, median": float(np.median(agreement)),
            "cosine with ∇J, lowest": worst[1],
            "cosine with ∇J there in batches of 2": worst[2],
        },
        c.counterexample("found among random MDPs", what) if worst[1] < 0.0 else None,
    )


def sampled_batch(c: Case, reduction: str) -> tuple[Batch, Tensor]:
    """A batch of 64 episodes as an update rule gets it, and ĝ, the mean over trajectories of Σ_t adv_t ∇log π."""
    r = c.sample(64)
    adv = advantages(r, Values.zeros(r), c.to_go, NoBaseline())[0]
    return r.flatten(adv, reduction), c.contract(r, adv).mean(0)


@claim(112, "Good trajectories become more likely after an update.", TOPIC, "exact")
def good_trajectories() -> Outcome:
    """Δlog P(τ) of every trajectory after a small step along ∇J."""
    step, slopes, mass = 1e-4, [], []
    for c in small():
        r, policy = c.rollout, deepcopy(c.policy)
        VanillaGradient(step, optimizer="sgd", max_grad_norm=None)(policy, exact_batch(c.mdp, c.policy))
        change = torch.where(r.mask, seen_by(r, log_policy(c.mdp, policy).detach()).logp - r.logp, 0.0).sum(
            0
        )  # of log P(τ)
        ret = TotalReturn(c.mdp.gamma)(r, Values.zeros(r)).ret[0]
        good = ret > c.mean(ret)
        slopes.append(float(c.mean((ret - c.mean(ret)) * change) / step / c.gradient.square().sum()))
        mass.append(float(c.probability[good & (change > 0)].sum() / c.probability[good].sum()))
    gap = max(abs(x - 1.0) for x in slopes)
    return Outcome(
        decide(gap <= 0.01, caveat=min(mass) < 0.99),
        f"On average, yes: after a step of α along ∇J, Cov(R, Δlog P) is α ‖∇J‖², to {gap:.0e} on 20 random MDPs. Not "
        f"each of them: of the trajectories better than average {np.mean(mass):.0%} became more likely, weighed by "
        f"their probability, in the worst MDP {min(mass):.0%}; the others share their actions with bad ones.",
        {
            "largest |Cov(R, Δlog P) / (α ‖∇J‖²) − 1|": gap,
            "share of good trajectories that became more likely, mean": float(np.mean(mass)),
            "share in the worst MDP": min(mass),
        },
    )


def normalised_returns() -> Outcome:
    """Of claim 113, what is exact: free of scale, and biased. What it does to learning is in learning.py."""
    c = small()[0]
    r, whole = c.sample(16), Standardized(c.to_go)
    once, scaled = (c.estimates(whole, rollout=replace(r, rew=scale * r.rew)).mean(0) for scale in (1.0, 1000.0))
    invariance = float((scaled - once).norm() / once.norm())
    few = Case(two_states(2), two_logit_policy((0.5, -1.0)))
    batch = {k: cosine(few.batch_mean(k, Standardized(few.to_go)), few.gradient) for k in (2, 3)}

    def within_episodes(c: Case) -> float:
        return cosine(c.mean(c.estimates(Standardized(c.to_go, over="episode"))), c.gradient)

    cases, longer = simple(MAX_SEARCHED), [within_episodes(c) for c in small()]
    shorter = [within_episodes(c) for c in cases]
    worst, share = int(np.argmin(shorter)), float(np.mean(np.array(shorter) < 0.0))
    what = f"the expected gradient has cosine {shorter[worst]:.2f} with ∇J: following it lowers J"
    return Outcome(
        decide(invariance <= 1e-6, caveat=min(*batch.values(), shorter[worst]) < 1.0 - 1e-6),
        f"It makes steps free of scale: rewards 1000 times as large change the update by {invariance:.0e} of it. It "
        f"is biased: over batches of 2 and 3 episodes the expected gradient's cosine with ∇J is {batch[2]:.4f} and "
        f"{batch[3]:.4f}. Within each episode, as tutorials do, larger batches do not help: {min(longer):.2f} to "
        f"{max(longer):.2f} on 20 random MDPs of 3 steps, below 0 in {share:.1%} of {len(cases)} of 2 steps.",
        {
            "relative change when rewards are × 1000": invariance,
            "cosine with ∇J, over batches of 2": batch[2],
            "cosine with ∇J, over batches of 3": batch[3],
            "cosine with ∇J within episodes of 3 steps, lowest": min(longer),
            "cosine with ∇J within episodes of 2 steps, lowest": shorter[worst],
            "share below 0 within episodes of 2 steps": share,
        },
        cases[worst].counterexample("found among random MDPs", what) if shorter[worst] < 0.0 else None,
    )


# --- importance sampling -----------------------------------------------------------------------------------------------


def off_policy(c: Case, behavior: Case, estimator: Estimator) -> Tensor:
    """Estimates of ∇J of c's policy from all trajectories of another, (N, P); mean and variance are those of `behavior`."""
    return c.estimates(estimator, rollout=seen_by(behavior.rollout, log_policy(c.mdp, c.policy).detach()))


def weighted(c: Case) -> tuple[Estimator, ...]:
    """Trajectory-wise, of both returns, and per decision."""
    return ImportanceWeighted(TotalReturn(c.mdp.gamma)), ImportanceWeighted(c.to_go), PerDecision(c.to_go)


@claim(
    114, "Importance sampling is unbiased if the sampler takes every action that the policy may take.", TOPIC, "exact"
)
def importance_unbiased() -> Outcome:
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


@claim(
    115,
    "The variance of importance sampling can blow up where the policy puts mass and the sampler little.",
    TOPIC,
    "exact",
)
def importance_variance() -> Outcome:
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


@claim(116, "REINFORCE is importance sampling whose sampler is the policy itself.", TOPIC, "exact")
def importance_identity() -> Outcome:
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


# --- what makes an estimator good ----------------------------------------------------------------------------------------


def choices(c: Case) -> tuple[tuple[Estimator, Baseline, Critic], ...]:
    """Estimators from noisy to quiet, and biased ones."""
    gamma, none, V = c.mdp.gamma, NoCritic(), ExactCritic(c.mdp)
    noise = torch.randn(c.V.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (
        (TotalReturn(gamma), NoBaseline(), none),
        (c.to_go, NoBaseline(), none),
        (c.to_go, CriticValue(), V),
        (RewardToGo(gamma), CriticValue(), V),
        (Standardized(c.to_go, over="episode"), NoBaseline(), none),
        (StateDiscounted(GAE(gamma, 0.5)), CriticValue(), V),
        (StateDiscounted(GAE(gamma, 0.0)), CriticValue(), ExactCritic(c.mdp, c.V + noise)),
        (StateDiscounted(QValue(gamma)), CriticValue(), ExactQCritic(c.mdp)),
    )


@claim(117, "The mean squared error is the squared bias plus the variance.", TOPIC, "exact")
def mse() -> Outcome:
    """Exact moments of eight estimators."""
    gap, biased = 0.0, 0.0
    for c in small()[:5]:
        for estimator, baseline, critic in choices(c):
            x = c.estimates(estimator, baseline, critic)
            whole = float(c.mean((x - c.gradient).square().sum(-1)))
            squared = float((c.mean(x) - c.gradient).square().sum())
            gap, biased = max(gap, abs(whole - squared - c.variance(x)) / whole), max(biased, squared / whole)
    return Outcome(
        decide(gap <= EXACT and biased > 0.01),
        f"Of 8 estimators on 5 random MDPs, over all trajectories, the two sides agree to {gap:.0e}, relative; the "
        f"bias is up to {biased:.0%} of the whole.",
        {"largest relative difference": gap, "largest share of the bias": biased},
    )
