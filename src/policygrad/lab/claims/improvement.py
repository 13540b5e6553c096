"""Claims: policy iteration against small steps, the surrogate, natural gradients, trust regions and PPO's penalty."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from copy import deepcopy
from statistics import mean

import numpy as np
import torch
from torch import Tensor, nn

from policygrad.data import Batch
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, Z_LIMIT
from policygrad.lab.exact.tabular import (
    MDP,
    advantage,
    exact_gradient,
    fisher,
    greedy,
    log_policy,
    natural_gradient,
    objective,
    occupancy,
    policy_iteration,
    policy_matrix,
    random_mdp,
    scores,
    solve,
    tabular_policy,
)
from policygrad.lab.exact.worlds import exact_batch, make_mdp, sampled_batch, two_logit_policy, two_states
from policygrad.lab.results import slope
from policygrad.lab.steps.constrained import ExactTrustRegion, tables
from policygrad.lab.steps.plane import fisher as fisher_of_two
from policygrad.lab.steps.plane import most_kl
from policygrad.lab.steps.relations import angle, apply, dense_against_cg, matching_beta, penalty, trust_path
from policygrad.lab.theory.derivatives import automatic
from policygrad.lab.theory.functions import probabilities
from policygrad.lab.theory.improvement import attained, change, fitted_values, improvement
from policygrad.lab.theory.lemma import check_lemma, expected_advantage, lemma, sampled_lemma
from policygrad.lab.theory.surrogate import surrogate, surrogate_order
from policygrad.models.ascent import mean_kl
from policygrad.models.heads import Categorical
from policygrad.models.policy import Policy
from policygrad.training.threads import single_thread
from policygrad.updates import NaturalGradient, PenalizedSurrogate, TrustRegion, VanillaGradient

TOPIC = "Policy improvement, natural gradients, trust regions"


WORLDS = ("random", "chain", "gridworld", "two-states")


def study(world: str = "random") -> tuple[MDP, Policy, Batch]:
    """An MDP, [8 random states, 4 actions, 10 steps], a random table of logits, and all trajectories as a batch."""
    mdp = make_mdp(world)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    return mdp, policy, exact_batch(mdp, policy)


def table(mdp: MDP, seed: int) -> Tensor:
    """A random policy, (S, A)."""
    return policy_matrix(mdp, tabular_policy(mdp, torch.Generator().manual_seed(seed))).detach()


# --- policy iteration and the lemma --------------------------------------------------------------------------------


@claim(
    124,
    "How much better one policy is than another is its expectation of the other's advantages (performance "
    "difference lemma).",
    TOPIC,
    "exact",
)
def performance_difference() -> Outcome:
    """Both sides of the lemma for 100 pairs of policies, and one side from sampled episodes."""
    finite = check_lemma(make_mdp("random"), pairs=50)
    endless = check_lemma(make_mdp("random", horizon=math.inf, gamma=0.9), pairs=50)
    gap = max(finite.gap, endless.gap)
    size = mean(abs(x) for x in (*finite.differences, *endless.differences))
    sampled = [found.sampled for found in (finite, endless)]
    z = max(abs(x.actions - x.exact) / x.actions_error for x in sampled)
    mdp, policy, _ = study()
    pi, new = policy_matrix(mdp, policy).detach(), table(mdp, 1)
    wrong = abs(float((occupancy(mdp, pi) * expected_advantage(mdp, pi, new)).sum()) - lemma(mdp, pi, new).difference)
    return Outcome(
        decide(gap <= 1e-10 and z <= Z_LIMIT),
        f"100 pairs of policies, half of them without a horizon: the two sides differ by {gap:.0e} at most, where "
        f"policies differ by {size:.2f} in the mean. From 5000 episodes of the new policy {sampled[0].actions:.3f} "
        f"± {1.96 * sampled[0].actions_error:.3f}, exact {sampled[0].exact:.3f}. States of the old policy would not "
        f"do: for one pair they are wrong by {wrong:.2f}.",
        {
            "largest gap of 100 pairs": gap,
            "mean difference of 100 pairs": size,
            "largest |z| of the sampled sides": z,
            "gap with the old policy's states": wrong,
        },
    )


@claim(
    125,
    "A step of policy iteration with fitted values can make the policy worse, by up to the horizon times the most "
    "negative advantage.",
    TOPIC,
    "exact",
)
def fitted_policy_iteration() -> Outcome:
    """Steps that are greedy in a fitted Q and in Q itself, where states look alike and on 60 random MDPs; the bound."""
    found, far = improvement(iterations=1), attained(160)
    fitted, exact, trpo = (found.steps[rule] for rule in ("PI, fitted Q", "PI, exact Q", "TRPO"))
    rng, changes, rises = np.random.default_rng(0), [], []
    for _ in range(60):
        mdp = random_mdp(4, 2, 4, rng)
        pi = table(mdp, 0)
        clusters = nn.functional.one_hot(torch.arange(4) % 2).double()  # states 0 and 2, 1 and 3 share their values
        changes.append(change(mdp, pi, greedy(fitted_values(mdp, pi, clusters))))
        rises.append(change(mdp, pi, greedy(solve(mdp, pi)[1])).rise)
    lost = [c for c in changes if c.rise < -1e-9]
    within = all(c.rise >= c.bound - 1e-10 for c in (*changes, *found.steps.values(), far))
    never = min(exact.rise, *rises)
    return Outcome(
        decide(fitted.rise < 0.0 and len(lost) > 0 and within and far.share > 0.9 and never >= -1e-10),
        f"Where a road and a swamp look alike, greedy in the fitted Q changes J by {fitted.rise:+.1f}, "
        f"{fitted.share:.0%} of the bound min A / (1 − γ); with 160 steps and γ = 1 it is {far.share:.0%} of H · "
        f"min A. A TRPO step with the same values: {trpo.rise:+.2f}. On 60 random MDPs whose states share values in "
        f"pairs {len(lost)} steps lose, none more than the bound; with exact values none loses, the least change is "
        f"{never:+.2f}.",
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
    126,
    "Policy iteration does not keep the states visited close to those before; a policy-gradient step does so "
    "implicitly.",
    TOPIC,
    "exact",
)
def visitation_shift() -> Outcome:
    """How far the states visited move in one step of policy iteration, of gradients of four lengths, of TRPO."""
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
        f"Total variation of the states visited, mean of {len(WORLDS)} MDPs: {tv['policy iteration']:.2f} after a "
        "step of policy iteration, which has no length; "
        + ", ".join(f"{x:.2g}" for x in small)
        + " after a gradient step with α = "
        + ", ".join(f"{lr:g}" for lr in rates)
        + f": proportional to α at first (α^{power:.2f}), so that it is a short step that keeps them close, and a long one "
        f"that does not. TRPO, which bounds the KL, is at {tv[f'TRPO, δ = {bound:g}']:.2g} with δ = {bound:g}.",
        {**{f"TV of the states visited, {name}": x for name, x in tv.items()}, "power of α": power},
    )


# --- the surrogate -------------------------------------------------------------------------------------------------


@claim(
    127,
    "With the states of the old policy instead of the new one's, the lemma's right side still matches to first order.",
    TOPIC,
    "exact",
)
def first_order_match() -> Outcome:
    """J minus the surrogate over five decades of step lengths, and with advantages that are wrong."""
    mdp, policy, _ = study()
    found = surrogate_order(mdp, policy)
    power, wrong = found.slopes["error"], found.slopes["wrong_advantages"]
    far = max(found.error)
    return Outcome(
        decide(abs(power - 2.0) < 0.05 and found.holds),
        f"|J − L| grows as ‖Δθ‖^{power:.2f}, from {found.error[0]:.0e} at ‖Δθ‖ = {found.lengths[0]:g} to {far:.2f} "
        f"at {found.lengths[-1]:g}, within the bounds of TRPO's theorem throughout; with advantages of another "
        f"policy as ‖Δθ‖^{wrong:.2f}: no first-order match.",
        {
            "power of ‖Δθ‖": power,
            "power of ‖Δθ‖ with wrong advantages": wrong,
            "error at the longest step": found.error[-1],
            "bounds that are broken": float(not found.holds),
        },
    )


@claim(
    128,
    "With discrete actions the expected advantage of a policy in a state is a dot product; no action need be sampled.",
    TOPIC,
    "exact",
)
def dot_product() -> Outcome:
    """Dot products against sampled actions, in each state and summed over the states visited."""
    mdp, policy, batch = study()
    pi, new = policy_matrix(mdp, policy).detach(), table(mdp, 1)
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
        f"Σ_a π'(a|s) A(s,a) against the mean of 20,000 sampled actions in each of {mdp.states} states: largest |z| "
        f"{z:.1f}, where one action has a standard deviation of {spread:.2f} and the dot product none. Summed over "
        f"states it is the surrogate of actions taken, ratio · A, to {gap:.0e}. Of the variance of the lemma's "
        f"estimate from episodes it leaves {less:.0%}.",
        {
            "largest |z| of 8 states": z,
            "standard deviation of one sampled action": spread,
            "gap to the surrogate of actions taken": gap,
            "variance left of the lemma's estimate, share": less,
        },
    )


# --- natural gradients ---------------------------------------------------------------------------------------------


@claim(129, "The natural policy gradient is a first-order approximation of TRPO.", TOPIC, "exact")
def npg_and_trpo() -> Outcome:
    """NPG's step against the exact solution of TRPO's problem, at four bounds."""
    _, policy, batch = study()
    deltas = (1e-6, 1e-4, 1e-2, 1.0)
    path = trust_path(policy, batch, deltas)
    angles, gaps = [p.angle for p in path], [p.gap for p in path]
    powers = slope(deltas[:3], angles[:3]), slope(deltas[:3], gaps[:3])
    return Outcome(
        decide(powers[0] > 0.4 and powers[1] > 0.8 and angles[0] < 1.0 and gaps[0] < 1e-4),
        "Against the exact solution of the constrained problem, δ = "
        + ", ".join(f"{d:g}" for d in deltas)
        + ": NPG's step is off by "
        + ", ".join(f"{a:.2g}" for a in angles)
        + "°, and its direction, followed to KL = δ, loses "
        + ", ".join(f"{100 * g:.2g}" for g in gaps)
        + f" % of the gain. Both vanish with δ, as δ^{powers[0]:.2f} and δ^{powers[1]:.2f}.",
        {
            **{f"degrees to the exact step, δ = {d:g}": a for d, a in zip(deltas, angles, strict=True)},
            **{f"share of the gain that is lost, δ = {d:g}": g for d, g in zip(deltas, gaps, strict=True)},
            "power of δ, angle": powers[0],
            "power of δ, gain": powers[1],
        },
    )


@claim(
    130,
    "To second order the KL divergence is ½ ΔθᵀF Δθ: its Hessian is the Fisher matrix E[∇log π ∇log πᵀ].",
    TOPIC,
    "exact",
)
def kl_and_fisher() -> Outcome:
    """The Hessian of KL by automatic differentiation against the Fisher matrix, twice; what the quadratic leaves out."""
    mdp, policy, batch = study()
    pi, theta = policy_matrix(mdp, policy).detach(), policy.flat.clone()
    rho = occupancy(mdp, pi).sum(0)
    rho, outputs = rho / rho.sum(), probabilities(mdp, policy)

    def kl(theta: Tensor) -> Tensor:  # Σ ρ(s) KL(π(·|s) ‖ π_θ(·|s))
        return (rho.unsqueeze(-1) * pi * (pi.log() - outputs(theta).log())).sum()

    H = torch.autograd.functional.hessian(kl, theta)
    assert isinstance(H, Tensor)
    F, scale = fisher(mdp, policy), float(H.abs().amax())
    evaluation = policy.evaluate(batch)
    products = torch.stack(
        [evaluation.fisher_product(e, batch.normalized_weight) for e in torch.eye(len(theta), dtype=F.dtype)]
    )
    gaps = [float((H - x).abs().amax()) / scale for x in (F, products)]
    u = torch.randn(len(theta), generator=torch.Generator().manual_seed(0), dtype=F.dtype)
    u /= u.norm()
    lengths = (0.01, 0.03, 0.1, 0.3)
    errors = [abs(float(kl(theta + h * u)) - 0.5 * h * h * float(u @ F @ u)) for h in lengths]
    power = slope(lengths, errors)
    return Outcome(
        decide(max(gaps) <= EXACT and abs(power - 3.0) < 0.2),
        f"The Hessian of KL by automatic differentiation is E[∇log π ∇log πᵀ] to {gaps[0]:.0e} of its largest "
        f"entry, and the matrix whose products NPG and TRPO use to {gaps[1]:.0e}. What ½ ΔθᵀFΔθ leaves out grows as "
        f"‖Δθ‖^{power:.2f}: it is {errors[-1] / float(kl(theta + lengths[-1] * u)):.1%} of KL at ‖Δθ‖ = "
        f"{lengths[-1]:g}.",
        {
            "relative gap, Hessian to E[∇log π ∇log πᵀ]": gaps[0],
            "relative gap, Hessian to the products in use": gaps[1],
            "power of ‖Δθ‖ of the error": power,
        },
    )


@claim(
    131,
    "NPG solves the problem with linear gain and quadratic constraint in closed form; the optimum is on the ellipse.",
    TOPIC,
    "exact",
)
def closed_form() -> Outcome:
    """The Karush-Kuhn-Tucker conditions at the production step, and other points of the boundary."""
    delta = 0.01
    mdp, policy, batch = study()
    F, g = fisher(mdp, policy), exact_gradient(mdp, policy)
    s = apply(NaturalGradient(delta, damping=0.0, solver="dense"), policy, batch)[1].flat - policy.flat
    Fs = F @ s
    multiplier = float(g @ s) / float(s @ Fs)  # g = λ F s
    residual = float((g - multiplier * Fs).norm() / g.norm())
    active = abs(0.5 * float(s @ Fs) / delta - 1.0)
    u = torch.randn(1000, len(s), generator=torch.Generator().manual_seed(0), dtype=s.dtype)
    u *= (2.0 * delta / torch.einsum("np,pq,nq->n", u, F, u)).sqrt().unsqueeze(-1)
    best = float((u @ g).amax()) / float(g @ s)
    plain = g * (2.0 * delta / float(g @ F @ g)) ** 0.5
    gain = float(g @ plain) / float(g @ s)
    return Outcome(
        decide(residual <= 1e-9 and active <= 1e-9 and multiplier > 0.0 and max(best, gain) < 1.0),
        f"The production step fulfils ∇J = λ F Δθ with λ = {multiplier:.2f} > 0 to {residual:.0e} and lies on ½ "
        f"ΔθᵀFΔθ = δ to {active:.0e}: for a linear function on an ellipsoid that is the maximum. The best of 1000 "
        f"random points there gains {best:.0%} as much, the plain gradient {gain:.0%}.",
        {
            "KKT residual": residual,
            "relative distance from the boundary": active,
            "multiplier λ": multiplier,
            "best of 1000 points on the boundary, share of the gain": best,
            "plain gradient to the boundary, share of the gain": gain,
        },
    )


class Warped(nn.Module):
    """The same table in other parameters φ: logits = M sinh(φ), M invertible; (B, S) one-hot → (B, A)."""

    M: Tensor

    def __init__(self, M: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("M", M)
        self.phi = nn.Parameter(torch.zeros(len(M), dtype=M.dtype))
        self.shape = shape

    def forward(self, obs: Tensor) -> Tensor:
        return obs @ (self.M.to(obs.dtype) @ self.phi.sinh()).view(self.shape)


def warped(mdp: MDP, policy: Policy, seed: int = 0) -> Policy:
    """A policy that is the table's at the moment, in the parameters of `Warped`, M = I + 0.3 · a random matrix."""
    P = len(policy.flat)
    M = torch.eye(P).double() + 0.3 * torch.randn(P, P, generator=torch.Generator().manual_seed(seed)).double()
    made = Policy(Warped(M, (mdp.states, mdp.actions)), Categorical(mdp.actions)).double()
    made.flat.copy_(torch.linalg.solve(M, policy.flat).asinh())
    return made


@claim(
    132,
    "The natural gradient is the gradient preconditioned by F⁻¹: it steps in the space of policies, whatever the "
    "parameters.",
    TOPIC,
    "exact",
)
def invariance() -> Outcome:
    """One policy in two sets of parameters: what plain and natural gradient do to log π."""
    mdp = make_mdp("small")
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    other = warped(mdp, policy)
    pi = policy_matrix(mdp, policy).detach()
    same = float((pi - policy_matrix(mdp, other).detach()).abs().amax())

    def change(policy: Policy, step: Tensor) -> Tensor:  # of log π, to first order
        return (scores(mdp, policy) @ step).flatten()

    natural = [change(p, natural_gradient(mdp, p)) for p in (policy, other)]
    plain = [change(p, exact_gradient(mdp, p)) for p in (policy, other)]
    gap = float((natural[0] - natural[1]).norm() / natural[0].norm())
    turned = angle(*plain)
    reached = occupancy(mdp, pi)
    adv = torch.einsum("ts,tsa->sa", reached, advantage(mdp, pi)) / reached.sum(0).unsqueeze(-1)
    adv_gap = float((natural[0] / natural[0].norm() - adv.flatten() / adv.norm()).norm())
    return Outcome(
        decide(same <= 1e-9 and gap <= 1e-7 and turned > 5.0),
        "The same policy in two sets of parameters, logits = M sinh(φ): the natural gradient changes log π alike, "
        f"to {gap:.0e}, the plain gradient by {turned:.0f}° differently. In the space of policies it is the "
        f"advantage, Δ log π ∝ A, to {adv_gap:.0e}.",
        {
            "relative gap of the change of log π, natural gradient": gap,
            "degrees between the changes of log π, plain gradient": turned,
            "gap to the advantage": adv_gap,
        },
    )


@claim(133, "Inverting the Fisher matrix scales badly, with the cube of the number of parameters.", TOPIC, "simulated")
def inverse_fisher() -> Outcome:
    """Seconds of an inverse, of a dense solution and of conjugate gradients, over the number of parameters."""
    sizes, seconds = (375, 750, 1500), []
    with single_thread():
        for size in sizes:
            B = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            F = B @ B.T / size + torch.eye(size, dtype=torch.float64)
            seconds.append(min(timed(lambda F=F: torch.linalg.inv(F)) for _ in range(3)))
    found = dense_against_cg((13, 30, 96, 192, 320), dense_up_to=1500)
    dense = [c for c in found if c.dense_seconds is not None][-1]
    error = max(c.error for c in found if c.error is not None)
    large, last = found[-3:], found[-1]
    cube = slope(sizes, seconds)
    line = slope([c.parameters for c in large], [c.cg_seconds for c in large])
    return Outcome(
        decide(cube > 2.3 and line < cube - 0.7),
        f"Inverting takes {seconds[0]:.2g}, {seconds[1]:.2g} and {seconds[2]:.2g} s for "
        f"{', '.join(map(str, sizes))} parameters, as D^{cube:.1f}. Ten conjugate-gradient iterations need products "
        f"F v alone: {last.cg_seconds:.2g} s with {last.parameters:,}, as D^{line:.1f}. With {dense.parameters} "
        f"parameters, writing F down and solving takes {dense.dense_seconds:.2g} s against {dense.cg_seconds:.1g}, "
        f"and the answers differ by {error:.0e}.",
        {
            "power of D, inverse": cube,
            "power of D, conjugate gradients": line,
            f"seconds, inverse, D = {sizes[-1]}": seconds[-1],
            f"seconds, conjugate gradients, D = {last.parameters}": last.cg_seconds,
            "largest relative difference of the solutions": error,
        },
    )


def timed(call: Callable[[], object]) -> float:
    """Seconds that the processor was busy with one call, whatever else it had to do."""
    started = time.process_time()
    call()
    return time.process_time() - started


# --- trust regions and the penalty ---------------------------------------------------------------------------------


@claim(
    134,
    "TRPO's problem may be intractable; where gain and KL are smooth, Taylor expansions are enough for a small step.",
    TOPIC,
    "exact",
)
def taylor_is_enough() -> Outcome:
    """The gain of NPG's direction and of TRPO's step against the exact solution's, at three bounds."""
    _, policy, batch = study()
    deltas = (1e-4, 1e-2, 1.0)
    path = trust_path(policy, batch, deltas)
    solution = ExactTrustRegion(deltas[1]).solve(policy, batch)
    lost, trpo = [p.gap for p in path], [p.trpo_gap for p in path]
    cg, dense = (
        apply(TrustRegion(deltas[1], damping=0.0, solver=solver), policy, batch)[0]["gain"]
        for solver in ("cg", "dense")
    )
    return Outcome(
        decide(solution.residual <= 1e-8 and lost[1] < 0.05 and abs(cg / dense - 1.0) < 0.02),
        f"A table's problem has an exact solution to compare with (KKT residual {solution.residual:.0e}); a "
        f"network's has not. The direction from the expansions, followed to KL = δ, loses {lost[0]:.2%}, "
        f"{lost[1]:.1%} and {lost[2]:.0%} of its gain at δ = {deltas[0]:g}, {deltas[1]:g} and {deltas[2]:g}; TRPO's "
        f"own step, cut by the line search, {trpo[0]:.1%}, {trpo[1]:.1%} and {trpo[2]:.0%}. Conjugate gradients "
        f"gain {cg / dense:.1%} of what the dense F does. It is enough where δ is small.",
        {
            "KKT residual of the exact solution": solution.residual,
            **{f"share lost by the direction, δ = {d:g}": x for d, x in zip(deltas, lost, strict=True)},
            **{f"share lost by TRPO, δ = {d:g}": x for d, x in zip(deltas, trpo, strict=True)},
            "gain of conjugate gradients, share of the dense F's": cg / dense,
        },
    )


@claim(135, "PPO's penalty is a soft relaxation of TRPO's constraint.", TOPIC, "exact")
def soft_constraint() -> Outcome:
    """The constraint's multiplier as a penalty, in the production rule; what other penalties allow."""
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
        f"Every penalty is a bound: with β = {hard.beta:.3f}, the multiplier of the constraint KL ≤ {delta:g}, 1000 "
        f"epochs of PPO's penalty end at the constrained problem's solution (π differs by {gap:.0e}). KL falls from "
        f"{soft[0].kl:.3f} to {soft[-1].kl:.4f} as β goes from ¼ to 4 times that. Matched to the KL of TRPO's step, "
        f"{trpo['kl']:.4f}, 100 epochs end at {ppo['kl']:.4f} with {ppo['gain'] / trpo['gain']:.1%} of its gain, a "
        f"KL of {apart:.4f} from its policy.",
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


@claim(
    136,
    "In the penalty on KL(old ‖ new) the term without the new policy is constant, and can be dropped.",
    TOPIC,
    "exact",
)
def constant_term() -> Outcome:
    """The production gradient of the penalty against autodiff without the constant; the same for the other KL."""
    mdp, policy, batch = study()
    moved, share = tabular_policy(mdp, torch.Generator().manual_seed(1)), batch.normalized_weight
    old = policy.dist(batch.obs).clone()
    production = moved.evaluate(batch).gradient(torch.zeros_like(share), kl_weight=share, old=old).clone()
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
        "The gradient of −Σ old log new is that of the whole KL(old ‖ new), which PPO's penalty and TRPO use, to "
        f"{forward:.0e}. Of KL(new ‖ old) no such term can be dropped: there the gradient would be off by "
        f"{backward:.0%} of its length.",
        {
            "relative gap without the constant": forward,
            "relative gap without the entropy term of KL(new ‖ old)": backward,
        },
    )


@claim(
    137,
    "Weighted by the ratio of action probabilities, data of the old policy gives the new policy's expected "
    "advantage and, at the old policy, its gradient.",
    TOPIC,
    "exact",
)
def action_ratios() -> Outcome:
    """Expectation and gradient of the weighted advantages, at the old policy and at another one."""
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
        f"At the old policy the gradient of Σ ratio · A is ∇J to {here:.0e}. For another policy Σ ratio · A over "
        f"old data is Σ π' A in the old policy's states, {expected:.3f}, to {gap:.0e}; without ratios it would be "
        f"wrong by {without:.2f}. States stay the old policy's: at the other policy the gradient is "
        f"{angle(away, there):.0f}° from ∇J there.",
        {
            "relative gap to ∇J at the old policy": here,
            "gap of the expectation": gap,
            "gap of the expectation without ratios": without,
            "degrees from ∇J at another policy": angle(away, there),
        },
    )


def epochs_of(beta: float, epochs: int) -> PenalizedSurrogate:
    """PPO's penalty, plain gradient steps on the whole batch."""
    return PenalizedSurrogate(
        0.3, beta=beta, target_kl=None, epochs=epochs, minibatches=1, max_grad_norm=None, optimizer="sgd"
    )


@claim(138, "An iteration of PPO is gradient ascent on an objective made of samples.", TOPIC, "simulated")
def sample_objective() -> Outcome:
    """Steps of PPO's epochs against the gradient of its objective by autodiff; the surrogate and J over 256 epochs."""
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
        "With plain steps on whole batches each epoch of PPO's penalty moves θ by α times the gradient of "
        f"Σ ratio · A − β KL over the batch, to {off:.0e}, and that "
        "objective rises with all of 20. J rises by less: without a penalty, mean of 5 batches of 20 episodes, by "
        f"{free[0][1]:.3f} after one epoch, where the surrogate says {free[0][0]:.3f}, and no further after "
        f"{tried[top]} epochs ({free[top][1]:.2f} against {free[top][0]:.2f}); after {tried[-1]} it is "
        f"{free[-1][1]:.2f} against {free[-1][0]:.2f}. With β = 1 they end at {held[-1][1]:.2f} and "
        f"{held[-1][0]:.2f}.",
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
    """How far the steps of PPO's epochs are from α ∇ of Σ weight (ratio · adv − β KL), by autodiff, relative; its values."""
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


@claim(139, "A small step in the parameters can be a big step of the policy.", TOPIC, "exact")
def small_step_big_step() -> Outcome:
    """KL of steps of one length over the plane of a policy of two parameters."""
    values = np.linspace(-6.0, 6.0, 13)
    kl = most_kl(values)
    low, high = (tuple(values[i] for i in reversed(np.unravel_index(f(kl), kl.shape))) for f in (np.argmin, np.argmax))
    mdp = two_states()
    exact = []
    for theta in (low, high):
        policy, batch = two_logit_policy(theta), exact_batch(mdp, two_logit_policy(theta))
        direction = torch.linalg.eigh(fisher_of_two(theta))[1][:, -1]
        moved = deepcopy(policy)
        moved.flat.add_(0.1 * direction)
        exact.append(mean_kl(moved, policy.dist(batch.obs).clone(), batch))
    spread = exact[1] / exact[0]
    return Outcome(
        decide(spread > 100.0),
        f"Of two logits, a step of length 0.1 is a KL of {exact[0]:.1e} at θ = ({low[0]:.0f}, {low[1]:.0f}) and of "
        f"{exact[1]:.1e} at ({high[0]:.0f}, {high[1]:.0f}), in the direction where it is largest: {spread:,.0f} "
        f"times as much. Over the map ½ λ_max(F) spans {float(kl.min()):.1e} to {float(kl.max()):.1e} nats.",
        {"least KL of a step of 0.1": exact[0], "largest KL of a step of 0.1": exact[1], "ratio": spread},
    )
