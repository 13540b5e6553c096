"""Claims about the policy gradient: the score, the estimators that are unbiased, and what may multiply the score."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Values
from policygrad.gradient.baselines import Baseline, CriticValue, NoBaseline
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
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import (
    EXACT,
    MAX_SEARCHED,
    Z_LIMIT,
    Case,
    Critic,
    compare_variances,
    simple,
    small,
    z_score,
)
from policygrad.lab.exact.mdp import random_mdp
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import MDP, ExactCritic, ExactQCritic, tabular_policy
from policygrad.lab.exact.trajectories import enumerate_trajectories
from policygrad.lab.results import slope
from policygrad.lab.theory.functions import probabilities
from policygrad.models.critic import NoCritic


@claim("The gradient of the expected return is the expectation of the score times the return.", "exact")
def score_times_return() -> Outcome:
    """All trajectories of 20 random MDPs, and a sample from one of these MDPs."""
    gap = max(c.gap(c.estimates(TotalReturn(c.mdp.gamma))) for c in small())
    c, episodes = small()[0], 50_000
    z = z_score(c.estimates(TotalReturn(c.mdp.gamma), rollout=c.sample(episodes)), c.gradient)
    return Outcome(
        decide(gap <= EXACT and z <= Z_LIMIT),
        f"On 20 random MDPs, Σ P(τ) R(τ) ∇log P(τ) over all trajectories equals ∇J, computed by autograd, to {gap:.0e}. "
        f"The mean of {episodes:,} sampled episodes is within {z:.1f} standard errors of ∇J in every parameter.",
        {"largest |E ĝ − ∇J|": gap, "largest |z| of a sampled mean": z},
    )


@claim("The mean over N trajectories estimates the gradient, with an error that falls as 1/√N.", "simulated")
def error_falls_with_trajectories() -> Outcome:
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
        f"The error of the mean falls from {errors[0]:.3g} with 1 trajectory to {errors[-1]:.3g} with {sizes[-1]:,}, in "
        f"proportion to N^{power:.3f}. At every N its square is within {z:.1f} standard errors of the exact variance "
        "divided by N.",
        {
            "power of N": power,
            "error of 1 trajectory": errors[0],
            "error of the mean of 1,024": errors[-1],
            "largest |z|": z,
        },
    )


@claim("The log-derivative trick: ∇P(τ) = P(τ) ∇log P(τ).", "exact")
def log_derivative_trick() -> Outcome:
    """The Jacobian of the product of probabilities, by autograd, against P(τ) times the scores."""
    mdp = random_mdp(2, 2, 3, np.random.default_rng(0))
    c = Case(mdp, tabular_policy(mdp, torch.Generator().manual_seed(0)))
    r, pi = c.rollout, probabilities(c.mdp, c.policy)

    def probability(theta: Tensor) -> Tensor:
        """P(τ) of every trajectory, the product of the probabilities of its actions and states, without a logarithm."""
        s, after = r.obs[:-1].argmax(-1), r.next_obs.argmax(-1)
        dynamics = mdp.start[s[0]] * mdp.transition[s, r.act, after].prod(0)
        return dynamics * pi(theta)[s, r.act].prod(0)

    jacobian = torch.autograd.functional.jacobian(probability, c.policy.flat.clone())
    assert isinstance(jacobian, Tensor)
    trick = c.probability.unsqueeze(-1) * c.contract(r, torch.ones_like(r.rew))
    gap, mean = float((jacobian - trick).abs().max()), float(trick.sum(0).abs().max())
    return Outcome(
        decide(gap <= EXACT and mean <= EXACT),
        f"For each of {len(trick)} trajectories, the gradient of the product of its probabilities, by autograd, equals "
        f"P(τ) times the sum of its scores, to {gap:.0e}. The sum over all trajectories is the expected score, and it is 0 "
        f"to {mean:.0e}.",
        {"largest difference": gap, "largest |expected score|": mean},
    )


@claim("Only the policy's part of log P(τ) depends on θ: the dynamics drop out of the gradient.", "exact")
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
        f"{ratio:.3g}. Their ∇log P(τ) are equal to {gap:.0e}: the sum of the policy's scores.",
        {"largest difference of ∇log P(τ)": gap, "largest ratio of P(τ)": ratio},
    )


@claim("REINFORCE is unbiased.", "exact")
def reinforce_is_unbiased() -> Outcome:
    """All trajectories, and batches as in training; for comparison the data of another policy, and no γᵗ."""
    gap = max(c.gap(c.estimates(e)) for c in small() for e in (TotalReturn(c.mdp.gamma), c.to_go))
    c, batches, size = small()[0], 400, 10
    r, made = c.sample(batches * size), []
    adv = advantages(r, Values.zeros(r), c.to_go, NoBaseline())[0]
    for k in range(batches):  # as in training: a batch, its weights, one gradient
        columns = torch.arange(k * size, (k + 1) * size)
        batch = r.columns(columns).flatten(adv[:, columns], "trajectory")
        made.append(c.policy.evaluate(batch).gradient(batch.weight * batch.adv).clone())
    z = z_score(torch.stack(made), c.gradient)
    uniform = sample(c.mdp, torch.full_like(c.pi, 0.5), 1000, torch.Generator().manual_seed(0))
    other = c.estimates(c.to_go, rollout=uniform)
    wrong = z_score(other, c.gradient)
    dropped = float(np.median([c.bias(c.estimates(RewardToGo(c.mdp.gamma))) for c in small()]))
    return Outcome(
        decide(gap <= EXACT and z <= Z_LIMIT < wrong),
        f"On 20 random MDPs the expected estimate is ∇J to {gap:.0e}, with the total return and with reward-to-go. The "
        f"mean of {batches:,} batches of {size} episodes is within {z:.1f} standard errors of ∇J. Two conditions are "
        "needed. The data must come from the policy itself: a thousand episodes of another policy are "
        f"{wrong:.0f} standard errors off. The factor γᵗ must not be left out: without it the bias is {dropped:.0%} of ‖∇J‖ "
        "(median, γ = 0.9).",
        {
            "largest |E ĝ − ∇J|": gap,
            "largest |z| on own data": z,
            "largest |z| on another policy's data": wrong,
            "relative bias without γᵗ, median": dropped,
        },
    )


@claim("Rewards of the past do not matter: reward-to-go has the expectation of the total return.", "exact")
def past_rewards_do_not_matter() -> Outcome:
    """Total return minus reward-to-go, over all trajectories."""
    gap, moved = 0.0, math.inf
    for c in small():
        past = c.estimates(TotalReturn(c.mdp.gamma)) - c.estimates(c.to_go)
        gap = max(gap, float(c.mean(past).abs().max()))
        moved = min(moved, float(past.abs().max()))
    return Outcome(
        decide(gap <= EXACT and moved > 0.1),
        f"On 20 random MDPs past rewards contribute 0 to the expected estimate, to {gap:.0e}. In single trajectories "
        f"they do contribute: the largest contribution is at least {moved:.2g} in each MDP.",
        {"largest |E of the past's share|": gap, "largest share in one trajectory, at least": moved},
    )


@claim("Reward-to-go lowers the variance.", "exact")
def reward_to_go_lowers_variance() -> Outcome:
    """Exact variances on random MDPs, and the MDP on which the claim fails most."""
    cases = simple(MAX_SEARCHED)
    pairs = ((c.variance(c.estimates(c.to_go)), c.variance(c.estimates(TotalReturn()))) for c in cases)
    to_go, total = zip(*pairs, strict=True)
    ratio, lower, worst = compare_variances(to_go, total)
    what = f"the variance is {to_go[worst]:.3g} with reward-to-go and {total[worst]:.3g} with the total return"
    return Outcome(
        decide(lower > 0.9, caveat=ratio[worst] > 1.0),
        f"It does in {lower:.1%} of {len(cases)} random MDPs; the median is {np.median(ratio):.2f} of the total return's "
        "variance. It is not a theorem: where past and future rewards cancel, leaving out the past makes the variance "
        f"{ratio[worst]:.2f} times as large.",
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


@claim("Q(s, a) may replace the reward-to-go.", "exact")
def q_for_reward_to_go() -> Outcome:
    """Bias and variance with the exact Q, and the bias with a wrong one."""
    gap = max(c.gap(with_q(c)) for c in small())
    cases = simple(MAX_SEARCHED)
    q, to_go = zip(*((c.variance(with_q(c)), c.variance(c.estimates(c.to_go))) for c in cases), strict=True)
    ratio, lower, worst = compare_variances(q, to_go)
    biases = []
    for seed, c in enumerate(small()):
        Q = torch.cat([c.Q, torch.zeros_like(c.Q[:1])])
        noise = torch.randn(Q.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        biases.append(c.bias(c.estimates(StateDiscounted(QValue(c.mdp.gamma)), critic=ExactQCritic(c.mdp, Q + noise))))
    bias = float(np.median(biases))
    return Outcome(
        decide(gap <= EXACT),
        f"With the exact Q the expected estimate is ∇J, to {gap:.0e} on 20 random MDPs. The variance is lower in "
        f"{lower:.1%} of {len(cases)} MDPs: the median is {np.median(ratio):.2f} of that with reward-to-go, the worst "
        f"{ratio[worst]:.2f}. If noise of standard deviation 1 is added to Q, the bias is {bias:.0%} of ‖∇J‖ (median).",
        {
            "largest |E ĝ − ∇J|": gap,
            "share of MDPs where the variance is lower": lower,
            "variance ratio, median": float(np.median(ratio)),
            "variance ratio, largest": ratio[worst],
            "relative bias of a wrong Q, median": bias,
        },
    )


def choices(c: Case) -> tuple[tuple[Estimator, Baseline, Critic], ...]:
    """Estimators with a large and with a small variance, some of them biased; with their baselines and critics."""
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


@claim("The mean squared error is the squared bias plus the variance.", "exact")
def mse_is_bias_and_variance() -> Outcome:
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
        "This is an identity. For 8 estimators on 5 random MDPs, summed over all trajectories, the two sides agree to a "
        f"relative {gap:.0e}. The squared bias is up to {biased:.0%} of the mean squared error.",
        {"largest relative difference": gap, "largest share of the bias": biased},
    )
