"""Claims about TRPO's constraint, PPO's penalty, and their objectives made of samples."""

from __future__ import annotations

import itertools
from statistics import mean

import torch
from torch import Tensor

from policygrad.data import Batch
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, study
from policygrad.lab.exact.tabular import MDP, exact_gradient, log_policy, objective, policy_matrix, tabular_policy
from policygrad.lab.exact.worlds import sampled_batch
from policygrad.lab.steps.constrained import ExactTrustRegion
from policygrad.lab.steps.relations import angle, apply, matching_beta, penalty, trust_path
from policygrad.lab.theory.derivatives import automatic
from policygrad.lab.theory.functions import probabilities
from policygrad.lab.theory.surrogate import surrogate
from policygrad.models.ascent import mean_kl
from policygrad.models.policy import Policy
from policygrad.updates import PenalizedSurrogate, TrustRegion


@claim(
    "TRPO's problem may be intractable; where gain and KL are smooth, Taylor expansions are enough for a small step.",
    "exact",
)
def taylor_is_enough_for_trpo() -> Outcome:
    """The gains of NPG's direction, of TRPO's step and of the exact solution, at three bounds."""
    _, policy, batch = study()
    deltas = (1e-4, 1e-2, 1.0)
    path = trust_path(policy, batch, deltas)
    solution = ExactTrustRegion(deltas[1]).solve(policy, batch)
    lost, trpo = [p.gap for p in path], [p.trpo_gap for p in path]
    rules = (TrustRegion(deltas[1], damping=0.0, solver=solver) for solver in ("cg", "dense"))
    cg, dense = (apply(rule, policy, batch)[0]["gain"] for rule in rules)
    return Outcome(
        decide(solution.residual <= 1e-8 and lost[1] < 0.05 and abs(cg / dense - 1.0) < 0.02),
        f"For a table of logits, unlike a network, the problem has an exact solution (KKT residual {solution.residual:.0e}). "
        f"At δ = {deltas[0]:g}, {deltas[1]:g} and {deltas[2]:g}, the direction of the expansions, followed to KL = δ, loses "
        f"{lost[0]:.2%}, {lost[1]:.1%} and {lost[2]:.0%} of the exact solution's gain; TRPO's own step, shortened by its line "
        f"search, loses {trpo[0]:.1%}, {trpo[1]:.1%} and {trpo[2]:.0%}. So the expansions are enough where δ is small. "
        f"Conjugate gradients reach {cg / dense:.1%} of the gain with the dense F.",
        {
            "KKT residual of the exact solution": solution.residual,
            **{f"share lost by the direction, δ = {d:g}": x for d, x in zip(deltas, lost, strict=True)},
            **{f"share lost by TRPO, δ = {d:g}": x for d, x in zip(deltas, trpo, strict=True)},
            "gain of conjugate gradients, share of the dense F's": cg / dense,
        },
    )


@claim("PPO's penalty is a soft relaxation of TRPO's constraint.", "exact")
def penalty_is_a_soft_constraint() -> Outcome:
    """The constraint's multiplier as β of PPO's penalty, and the KL that other β lead to."""
    mdp, policy, batch = study()
    delta = 0.01
    hard = ExactTrustRegion(delta).solve(policy, batch)
    factors = (0.25, 0.5, 1.0, 2.0, 4.0)
    soft = [ExactTrustRegion(beta=hard.beta * k).solve(policy, batch) for k in factors]
    falling = all(a.kl > b.kl and a.gain > b.gain for a, b in itertools.pairwise(soft))
    climbed = apply(penalty(hard.beta, lr=0.02, epochs=1000), policy, batch)[1]
    gap = float((policy_matrix(mdp, climbed).detach() - hard.pi).abs().amax())
    trpo, trusted = apply(TrustRegion(delta, damping=0.0, solver="dense"), policy, batch)
    match = matching_beta(policy, batch, trpo["kl"])
    ppo, penalised = apply(penalty(match.beta, lr=0.02), policy, batch)
    apart = mean_kl(penalised, trusted.dist(batch.obs).clone(), batch)
    return Outcome(
        decide(gap <= 1e-6 and falling and abs(ppo["kl"] / trpo["kl"] - 1.0) < 0.05),
        "To every β belongs a bound. The multiplier of the constraint "
        f"KL ≤ {delta:g} is {hard.beta:.3f}; with this β, 1000 epochs of PPO's penalty end at the solution of the constrained "
        f"problem (π differs by {gap:.0e}). KL falls from {soft[0].kl:.3f} to {soft[-1].kl:.4f} as β rises from ¼ to 4 times "
        f"this value. With the β that gives the KL of TRPO's step, {trpo['kl']:.4f}, 100 epochs end at a KL of {ppo['kl']:.4f} "
        f"with {ppo['gain'] / trpo['gain']:.1%} of TRPO's gain; the KL between the two policies is {apart:.4f}.",
        {
            "β of the constraint": hard.beta,
            "largest difference of π, hard and soft": gap,
            **{f"KL at {k:g} β": x.kl for k, x in zip(factors, soft, strict=True)},
            "KL of TRPO": trpo["kl"],
            "KL of PPO with the matching β": ppo["kl"],
            "KL between the two": apart,
            "gain of PPO, share of TRPO's": ppo["gain"] / trpo["gain"],
        },
    )


@claim("In the penalty on KL(old ‖ new) the term without the new policy is constant, and can be dropped.", "exact")
def constant_of_kl_can_be_dropped() -> Outcome:
    """The gradient of the penalty, and autodiff without the constant term; the same for KL(new ‖ old)."""
    mdp, policy, batch = study()
    moved, share = tabular_policy(mdp, torch.Generator().manual_seed(1)), batch.normalized_weight
    old = policy.dist(batch.obs).clone()
    evaluation = moved.evaluate(batch)
    production = evaluation.gradient(torch.zeros_like(share), kl_weight=share, old=old).clone()
    states = batch.obs.argmax(-1)

    def gradient_of(dropped: bool, reverse: bool) -> Tensor:
        logp, log_old = log_policy(mdp, moved)[states], log_policy(mdp, policy).detach()[states]
        if reverse:  # KL(new ‖ old): Σ new log new − Σ new log old
            per_row = (logp.exp() * ((0.0 if dropped else logp) - log_old)).sum(-1)
        else:
            per_row = (log_old.exp() * ((0.0 if dropped else log_old) - logp)).sum(-1)
        return moved.gradient((share * per_row).sum()).clone()

    forward = float((gradient_of(True, False) - production).norm() / production.norm())
    full = gradient_of(False, True)
    backward = float((gradient_of(True, True) - full).norm() / full.norm())
    return Outcome(
        decide(forward <= EXACT),
        "The gradient of −Σ old log new equals that of the whole KL(old ‖ new), which PPO's penalty and TRPO use, to "
        f"{forward:.0e}. In KL(new ‖ old) no term can be dropped: without its entropy term the gradient would be wrong by "
        f"{backward:.0%} of its length.",
        {
            "relative gap without the constant": forward,
            "relative gap without the entropy term of KL(new ‖ old)": backward,
        },
    )


@claim(
    "Weighted by the ratio of action probabilities, data of the old policy gives the new policy's "
    "expected advantage and, at the old policy, its gradient.",
    "exact",
)
def action_ratios_reweigh_data() -> Outcome:
    """The expectation and the gradient of the weighted advantages, at the old policy and at another policy."""
    mdp, policy, batch = study()
    pi = policy_matrix(mdp, policy).detach()
    at_old = policy.evaluate(batch).gradient(batch.weight * batch.adv).clone()
    exact = exact_gradient(mdp, policy)
    here = float((at_old - exact).norm() / exact.norm())
    moved = tabular_policy(mdp, torch.Generator().manual_seed(1))
    new = policy_matrix(mdp, moved).detach()
    evaluation = moved.evaluate(batch)
    ratio = (evaluation.logp - batch.logp).exp()
    weighted, plain = (float((batch.weight * w * batch.adv).sum()) for w in (ratio, torch.ones_like(ratio)))
    expected = float(surrogate(mdp, pi, new) - objective(mdp, pi))
    gap, without = abs(weighted - expected), abs(plain - expected)
    away = evaluation.gradient(batch.weight * ratio * batch.adv).clone()
    there = exact_gradient(mdp, moved)
    return Outcome(
        decide(here <= EXACT and gap <= 1e-10),
        f"At the old policy the gradient of Σ ratio · A is ∇J to {here:.0e}. For another policy π', Σ ratio · A over old data "
        f"equals Σ π' A in the states of the old policy, {expected:.3f}, to {gap:.0e}; without ratios it would be wrong by "
        f"{without:.2f}. The ratios do not correct the states: at the other policy the gradient is "
        f"{angle(away, there):.0f}° away from ∇J.",
        {
            "relative gap to ∇J at the old policy": here,
            "gap of the expectation": gap,
            "gap of the expectation without ratios": without,
            "degrees from ∇J at another policy": angle(away, there),
        },
    )


def epochs_of(beta: float, epochs: int) -> PenalizedSurrogate:
    """PPO's penalty with plain gradient steps on the whole batch."""
    return PenalizedSurrogate(
        0.3, beta=beta, target_kl=None, epochs=epochs, minibatches=1, max_grad_norm=None, optimizer="sgd"
    )


@claim("An iteration of PPO is gradient ascent on an objective made of samples.", "simulated")
def ppo_climbs_a_sampled_objective() -> Outcome:
    """The steps of PPO's epochs and the gradient of its objective by autodiff; the surrogate and J over 256 epochs."""
    mdp, policy, _ = study("gridworld")
    batches = [sampled_batch(mdp, policy, 20, seed) for seed in range(5)]
    off, values = climbed_by(mdp, policy, batches[0], beta=1.0, epochs=20)
    rising = all(a < b for a, b in itertools.pairwise(values))
    tried = (1, 16, 64, 256)
    before = float(objective(mdp, policy_matrix(mdp, policy).detach()))

    def after(beta: float, epochs: int) -> tuple[float, float]:  # the surrogate's gain and J's
        gains, rises = [], []
        for batch in batches:
            diagnostics, moved = apply(epochs_of(beta, epochs), policy, batch)
            gains.append(diagnostics["gain"])
            rises.append(float(objective(mdp, policy_matrix(mdp, moved).detach())) - before)
        return mean(gains), mean(rises)

    free, held = ([after(beta, epochs) for epochs in tried] for beta in (1e-9, 1.0))
    top = max(range(len(tried)), key=lambda i: free[i][1])
    return Outcome(
        decide(off <= 1e-9 and rising),
        "With plain steps on whole batches, each epoch of PPO's penalty moves θ by α times the gradient of "
        f"Σ ratio · A − β KL over the batch, to {off:.0e}, and each of 20 epochs raises this objective. J rises by less than "
        "the surrogate Σ ratio · A (means of 5 batches of 20 episodes). Without a penalty J rises by "
        f"{free[0][1]:.3f} and the surrogate by {free[0][0]:.3f} after one epoch, by {free[top][1]:.2f} and {free[top][0]:.2f} "
        f"after {tried[top]}, where J is highest, and by {free[-1][1]:.2f} and {free[-1][0]:.2f} after {tried[-1]}. With β = 1 "
        f"they rise by {held[-1][1]:.2f} and {held[-1][0]:.2f} after {tried[-1]} epochs.",
        {
            "largest relative gap of an epoch's step to α ∇": off,
            "epochs of 20 that raise the objective": float(sum(a < b for a, b in itertools.pairwise(values))),
            "epochs after which J stops rising": float(tried[top]),
            **{f"gain of the surrogate after {k} epochs": x for k, (x, _) in zip(tried, free, strict=True)},
            **{f"gain of J after {k} epochs": x for k, (_, x) in zip(tried, free, strict=True)},
            f"gain of J after {tried[-1]} epochs, β = 1": held[-1][1],
        },
    )


def climbed_by(mdp: MDP, policy: Policy, batch: Batch, beta: float, epochs: int) -> tuple[float, list[float]]:
    """The largest relative gap between a step of PPO's epochs and α ∇ of its sampled objective, and the objective's values.

    The objective is Σ weight (ratio · adv − β KL), its gradient by autodiff.
    """
    pi, states, outputs = policy_matrix(mdp, policy).detach(), batch.obs.argmax(-1), probabilities(mdp, policy)

    def sampled(theta: Tensor) -> Tensor:
        new = outputs(theta)[states]
        ratio = new.gather(-1, batch.act.unsqueeze(-1)).squeeze(-1) / batch.logp.exp()
        kl = (pi[states] * (pi[states] / new).log()).sum(-1)
        return (batch.weight * (ratio * batch.adv - beta * kl)).sum()

    path = [policy.flat, *(apply(epochs_of(beta, k), policy, batch)[1].flat for k in range(1, epochs + 1))]
    off = []
    for theta, after in itertools.pairwise(path):
        step = 0.3 * automatic(sampled, theta)
        off.append(float((after - theta - step).norm() / step.norm()))
    return max(off), [float(sampled(theta)) for theta in path]
