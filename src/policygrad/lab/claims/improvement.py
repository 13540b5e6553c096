"""Claims about policy iteration and small steps, the performance difference lemma, and the surrogate."""

from __future__ import annotations

import math
from statistics import mean

import numpy as np
import torch
from torch import nn

from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import Z_LIMIT, random_table, study
from policygrad.lab.exact.mdp import random_mdp
from policygrad.lab.exact.policies import greedy, policy_matrix, tabular_policy
from policygrad.lab.exact.tabular import advantage, occupancy, policy_iteration, solve
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.results import slope
from policygrad.lab.steps.constrained import tables
from policygrad.lab.steps.relations import apply
from policygrad.lab.theory.improvement import attained, change, fitted_values, improvement
from policygrad.lab.theory.lemma import check_lemma, expected_advantage, lemma, sampled_lemma
from policygrad.lab.theory.surrogate import surrogate_order
from policygrad.updates import TrustRegion, VanillaGradient

WORLDS = ("random", "chain", "gridworld", "two-states")


@claim(
    "The difference in J between a new and an old policy is the sum of the old policy's advantages, expected under the new "
    "policy (performance difference lemma).",
    "exact",
)
def performance_difference_lemma() -> Outcome:
    """Both sides of the lemma for 100 pairs of policies, and one side from sampled episodes."""
    finite = check_lemma(make_mdp("random"), pairs=50)
    endless = check_lemma(make_mdp("random", horizon=math.inf, gamma=0.9), pairs=50)
    gap = max(finite.gap, endless.gap)
    size = mean(abs(x) for x in (*finite.differences, *endless.differences))
    sampled = [found.sampled for found in (finite, endless)]
    z = max(abs(x.actions - x.exact) / x.actions_error for x in sampled)
    mdp, policy, _ = study()
    pi, new = policy_matrix(mdp, policy).detach(), random_table(mdp, 1)
    wrong = abs(float((occupancy(mdp, pi) * expected_advantage(mdp, pi, new)).sum()) - lemma(mdp, pi, new).difference)
    return Outcome(
        decide(gap <= 1e-10 and z <= Z_LIMIT),
        f"For 100 pairs of policies, half of them without a horizon, the two sides differ by {gap:.0e} at most, while J "
        f"differs by {size:.2f} on average. For one pair, 5000 episodes of the new policy estimate {sampled[0].actions:.3f} ± "
        f"{1.96 * sampled[0].actions_error:.3f}; the exact value is {sampled[0].exact:.3f}. With the states of the old policy "
        f"the result would be wrong, for one pair by {wrong:.2f}.",
        {
            "largest gap of 100 pairs": gap,
            "mean difference of 100 pairs": size,
            "largest |z| of the sampled sides": z,
            "gap with the old policy's states": wrong,
        },
    )


@claim(
    "A step of policy iteration with fitted values can make the policy worse, by up to the horizon times "
    "the most negative advantage.",
    "exact",
)
def fitted_policy_iteration_can_lose() -> Outcome:
    """Greedy steps with a fitted and with the exact Q, on an MDP whose states look alike and on 60 random MDPs; the bound."""
    found, far = improvement(iterations=1), attained(160)
    fitted, exact, trpo = (found.steps[rule] for rule in ("PI, fitted Q", "PI, exact Q", "TRPO"))
    rng, changes, rises = np.random.default_rng(0), [], []
    for _ in range(60):
        mdp = random_mdp(4, 2, 4, rng)
        pi = random_table(mdp, 0)
        clusters = nn.functional.one_hot(torch.arange(4) % 2).double()  # states 0 and 2, 1 and 3 share their values
        changes.append(change(mdp, pi, greedy(fitted_values(mdp, pi, clusters))))
        rises.append(change(mdp, pi, greedy(solve(mdp, pi)[1])).rise)
    lost = [c for c in changes if c.rise < -1e-9]
    within = all(c.rise >= c.bound - 1e-10 for c in (*changes, *found.steps.values(), far))
    never = min(exact.rise, *rises)
    return Outcome(
        decide(fitted.rise < 0.0 and len(lost) > 0 and within and far.share > 0.9 and never >= -1e-10),
        "On an MDP where a road and a swamp look alike, the policy that is greedy for the fitted Q changes J by "
        f"{fitted.rise:+.1f}, {fitted.share:.0%} of the bound min A / (1 − γ); with 160 steps and γ = 1 it is "
        f"{far.share:.0%} of the bound H · min A. A TRPO step with the same values changes J by {trpo.rise:+.2f}. On 60 random "
        f"MDPs whose states share values in pairs, {len(lost)} steps lower J, none by more than the bound. With exact values "
        f"no step lowers J; the least change is {never:+.2f}.",
        {
            "change of J, fitted": fitted.rise,
            "share of the bound": fitted.share,
            "share of the bound, 160 steps": far.share,
            "change of J, TRPO with the same values": trpo.rise,
            "random MDPs of 60 on which the fitted step loses": float(len(lost)),
            "least change of J with exact values": never,
        },
    )


@claim(
    "Policy iteration does not keep the distribution of visited states close to the old one; a policy-gradient step does so "
    "implicitly.",
    "exact",
)
def gradient_steps_keep_states_close() -> Outcome:
    """The change of the states visited, after one step of policy iteration, of four gradient steps, and of TRPO."""
    rates, bound = (0.01, 0.1, 1.0, 10.0), 0.01
    rules = {
        **{f"gradient step, α = {lr:g}": VanillaGradient(lr, optimizer="sgd", max_grad_norm=None) for lr in rates},
        f"TRPO, δ = {bound:g}": TrustRegion(bound, damping=0.0, solver="dense"),
    }
    moved: dict[str, list[float]] = {name: [] for name in ("policy iteration", *rules)}
    for world in WORLDS:
        mdp, policy, batch = study(world)
        pi = policy_matrix(mdp, policy).detach()
        moved["policy iteration"].append(change(mdp, pi, policy_iteration(mdp, pi)[1]).tv)
        for name, rule in rules.items():
            new = policy_matrix(mdp, apply(rule, policy, batch)[1]).detach()
            moved[name].append(change(mdp, pi, new).tv)
    tv = {name: mean(found) for name, found in moved.items()}
    small = [tv[f"gradient step, α = {lr:g}"] for lr in rates]
    power = slope(rates[:2], small[:2])
    return Outcome(
        decide(
            tv["policy iteration"] > 5.0 * small[1] and abs(power - 1.0) < 0.1,
            caveat=small[-1] > 0.5 * tv["policy iteration"],
        ),
        "The total variation distance between the distributions of visited states before and after a step, mean of "
        f"{len(WORLDS)} MDPs, is {tv['policy iteration']:.2f} for policy iteration, which has no step size, and "
        + ", ".join(f"{x:.2g}" for x in small)
        + " for gradient steps with α = "
        + ", ".join(f"{lr:g}" for lr in rates)
        + f". At first it is proportional to α (α^{power:.2f}): a short step keeps the states close, a long step does not. "
        f"For TRPO, which bounds the KL by δ = {bound:g}, it is {tv[f'TRPO, δ = {bound:g}']:.2g}.",
        {**{f"TV of the states visited, {name}": x for name, x in tv.items()}, "power of α": power},
    )


@claim(
    "If the states of the new policy are replaced by those of the old one, the lemma still holds to first order.",
    "exact",
)
def surrogate_matches_to_first_order() -> Outcome:
    """J minus the surrogate L, for step lengths over five decades, and with wrong advantages."""
    mdp, policy, _ = study()
    found = surrogate_order(mdp, policy)
    power, wrong = found.slopes["error"], found.slopes["wrong_advantages"]
    far = max(found.error)
    return Outcome(
        decide(abs(power - 2.0) < 0.05 and found.holds),
        f"The error |J − L| of the surrogate L grows as ‖Δθ‖^{power:.2f}, from {found.error[0]:.0e} at ‖Δθ‖ = "
        f"{found.lengths[0]:g} to {far:.2f} at ‖Δθ‖ = {found.lengths[-1]:g}, and stays within the bounds of TRPO's theorem. "
        f"With the advantages of another policy it grows as ‖Δθ‖^{wrong:.2f}, so that L does not match to first order.",
        {
            "power of ‖Δθ‖": power,
            "power of ‖Δθ‖ with wrong advantages": wrong,
            "error at the longest step": found.error[-1],
            "bounds that are broken": float(not found.holds),
        },
    )


@claim(
    "With discrete actions the expected advantage of a policy in a state is a dot product; no action must be sampled.",
    "exact",
)
def expected_advantage_is_a_dot_product() -> Outcome:
    """Dot products compared with sampled actions, in each state and summed over the visited states."""
    mdp, policy, batch = study()
    pi, new = policy_matrix(mdp, policy).detach(), random_table(mdp, 1)
    A, exact = advantage(mdp, pi)[0], expected_advantage(mdp, pi, new)[0]
    act = torch.multinomial(new, 20_000, replacement=True, generator=torch.Generator().manual_seed(0))  # (S, n)
    drawn = A.gather(1, act)
    error = drawn.std(-1) / act.shape[1] ** 0.5
    z = float(((drawn.mean(-1) - exact) / error).abs().amax())
    spread = float(drawn.std(-1).mean())
    moved = tabular_policy(mdp, torch.Generator().manual_seed(1))
    ratio = (moved.evaluate(batch).logp - batch.logp).exp()
    d, (_, adv, share) = batch.weight.sum(), tables(policy, batch)
    gap = abs(float((batch.weight * ratio * batch.adv).sum() - d * (share @ (new * adv).sum(-1))))
    sampled = sampled_lemma(mdp, pi, new, 2000, torch.Generator().manual_seed(0))
    less = (sampled.states_error / sampled.actions_error) ** 2
    return Outcome(
        decide(z <= Z_LIMIT and gap <= 1e-10),
        f"In each of {mdp.states} states Σ_a π'(a|s) A(s,a) is within {z:.1f} standard errors of the mean advantage of 20,000 "
        f"sampled actions. The advantage of one sampled action has a standard deviation of {spread:.2f}, the dot product has "
        f"none. Summed over states, the dot products equal the surrogate Σ ratio · A of the actions taken, to {gap:.0e}. They "
        f"lower the variance of the lemma's estimate from episodes to {less:.0%}.",
        {
            "largest |z| of 8 states": z,
            "standard deviation of one sampled action": spread,
            "gap to the surrogate of actions taken": gap,
            "variance left of the lemma's estimate, share": less,
        },
    )
