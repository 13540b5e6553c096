"""Claims about natural gradients, the Fisher matrix, and steps of the parameters and of the policy."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from policygrad.data import Batch
from policygrad.gradient.natural import conjugate_gradient
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, study
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import policy_matrix, tabular_policy
from policygrad.lab.exact.tabular import advantage, exact_gradient, fisher, natural_gradient, occupancy, scores
from policygrad.lab.exact.worlds import exact_batch, make_mdp, two_logit_policy, two_states
from policygrad.lab.results import slope
from policygrad.lab.steps.plane import most_kl
from policygrad.lab.steps.plane import plane_fisher as fisher_of_two
from policygrad.lab.steps.relations import angle, apply, dense_against_cg, trust_path
from policygrad.lab.theory.functions import probabilities
from policygrad.models.ascent import mean_kl
from policygrad.models.heads import Categorical
from policygrad.models.networks import MLP
from policygrad.models.policy import Policy
from policygrad.updates import NaturalGradient


@claim("The natural policy gradient is a first-order approximation of TRPO.", "exact")
def npg_approximates_trpo() -> Outcome:
    """The step of NPG and the exact solution of TRPO's problem, at four bounds."""
    _, policy, batch = study()
    deltas = (1e-6, 1e-4, 1e-2, 1.0)
    path = trust_path(policy, batch, deltas)
    angles, gaps = [p.angle for p in path], [p.gap for p in path]
    powers = slope(deltas[:3], angles[:3]), slope(deltas[:3], gaps[:3])
    return Outcome(
        decide(powers[0] > 0.4 and powers[1] > 0.8 and angles[0] < 1.0 and gaps[0] < 1e-4),
        "NPG is compared with the exact solution of the constrained problem, at δ = "
        + ", ".join(f"{d:g}" for d in deltas)
        + ". The angle between the two steps is "
        + ", ".join(f"{a:.2g}" for a in angles)
        + "°. NPG's direction, followed until KL = δ, loses "
        + ", ".join(f"{100 * g:.2g}" for g in gaps)
        + f" % of the gain. Both go to 0 with δ, as δ^{powers[0]:.2f} and δ^{powers[1]:.2f}.",
        {
            **{f"degrees to the exact step, δ = {d:g}": a for d, a in zip(deltas, angles, strict=True)},
            **{f"share of the gain that is lost, δ = {d:g}": g for d, g in zip(deltas, gaps, strict=True)},
            "power of δ, angle": powers[0],
            "power of δ, gain": powers[1],
        },
    )


@claim("To second order the KL divergence is ½ ΔθᵀF Δθ: its Hessian is the Fisher matrix E[∇log π ∇log πᵀ].", "exact")
def fisher_is_the_hessian_of_kl() -> Outcome:
    """The Hessian of KL by automatic differentiation, two Fisher matrices, and the error of the quadratic model."""
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
        f"The Hessian of KL, by automatic differentiation, equals E[∇log π ∇log πᵀ] to {gaps[0]:.0e} of its largest entry. "
        f"It equals the matrix in the Fisher-vector products of NPG and TRPO to {gaps[1]:.0e}. The difference between KL and "
        f"½ ΔθᵀFΔθ grows as ‖Δθ‖^{power:.2f}: at ‖Δθ‖ = {lengths[-1]:g} it is "
        f"{errors[-1] / float(kl(theta + lengths[-1] * u)):.1%} of KL.",
        {
            "relative gap, Hessian to E[∇log π ∇log πᵀ]": gaps[0],
            "relative gap, Hessian to the products in use": gaps[1],
            "power of ‖Δθ‖ of the error": power,
        },
    )


@claim(
    "NPG solves the problem with linear gain and quadratic constraint in closed form; the optimum is on the ellipse.",
    "exact",
)
def npg_in_closed_form() -> Outcome:
    """The Karush-Kuhn-Tucker conditions at the step that training takes, and other points of the boundary."""
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
        f"The step that training takes satisfies ∇J = λ F Δθ with λ = {multiplier:.2f} > 0, to {residual:.0e}, and lies on "
        f"the ellipsoid ½ ΔθᵀFΔθ = δ, to {active:.0e}: these are the conditions for a maximum of a linear function. The "
        f"best of 1000 random points on the ellipsoid has {best:.0%} of its gain, the plain gradient {gain:.0%}.",
        {
            "KKT residual": residual,
            "relative distance from the boundary": active,
            "multiplier λ": multiplier,
            "best of 1000 points on the boundary, share of the gain": best,
            "plain gradient to the boundary, share of the gain": gain,
        },
    )


class Warped(nn.Module):
    """A table of logits in other parameters φ: logits = M sinh(φ), M invertible; (B, S) one-hot → (B, A)."""

    M: Tensor

    def __init__(self, M: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("M", M)
        self.phi = nn.Parameter(torch.zeros(len(M), dtype=M.dtype))
        self.shape = shape

    def forward(self, obs: Tensor) -> Tensor:
        return obs @ (self.M.to(obs.dtype) @ self.phi.sinh()).view(self.shape)


def warped(mdp: MDP, policy: Policy, seed: int = 0) -> Policy:
    """The same policy in the parameters of `Warped`, with M = I + 0.3 · a random matrix."""
    P = len(policy.flat)
    M = torch.eye(P).double() + 0.3 * torch.randn(P, P, generator=torch.Generator().manual_seed(seed)).double()
    made = Policy(Warped(M, (mdp.states, mdp.actions)), Categorical(mdp.actions)).double()
    made.flat.copy_(torch.linalg.solve(M, policy.flat).asinh())
    return made


@claim(
    "The natural gradient is the gradient preconditioned by F⁻¹: it steps in the space of policies, "
    "whatever the parameters.",
    "exact",
)
def natural_gradient_is_invariant() -> Outcome:
    """One policy in two sets of parameters: the changes of log π by the plain and by the natural gradient."""
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
        "The same policy is written in two sets of parameters: a table of logits, and φ with logits = M sinh(φ). The natural "
        f"gradient changes log π in the same way in both, to {gap:.0e}; between the changes by the plain gradient there are "
        f"{turned:.0f}°. The natural gradient changes log π in proportion to the advantage, Δ log π ∝ A, to {adv_gap:.0e}.",
        {
            "relative gap of the change of log π, natural gradient": gap,
            "degrees between the changes of log π, plain gradient": turned,
            "gap to the advantage": adv_gap,
        },
    )


@claim("Inverting the Fisher matrix scales badly, with the cube of the number of parameters.", "simulated")
def inverting_fisher_is_costly() -> Outcome:
    """Multiplications of an inverse and of conjugate gradients, by the number of parameters D; the seconds are only shown.

    Rule: the multiplications counted while a matrix is inverted must grow as D³, and those of conjugate gradients as D. The
    clock has no part in it: libraries reach the cube of D only for matrices much larger than these.
    """
    sizes, counted, wrong = (16, 64, 256), [], 0.0
    for size in sizes:
        B = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        F = B @ B.T / size + torch.eye(size, dtype=torch.float64)
        inverse, count = eliminated(F)
        counted.append(count)
        wrong = max(wrong, float((inverse @ F - torch.eye(size, dtype=F.dtype)).abs().amax()))
    products, parameters = zip(*map(products_of_cg, (4, 16, 64)), strict=True)
    found = dense_against_cg((13, 96), dense_up_to=500)
    small, large = found
    cube = slope(sizes, counted)
    line = slope(parameters, [n * P for n, P in zip(products, parameters, strict=True)])
    return Outcome(
        decide(abs(cube - 3.0) < 0.05 and abs(line - 1.0) < 0.05 and wrong <= 1e-10),
        f"Gauss-Jordan elimination, whose inverse is right to {wrong:.0e}, takes {', '.join(f'{n:,}' for n in counted)} "
        f"multiplications for D = {', '.join(map(str, sizes))}: D^{cube:.2f}. Conjugate gradients need only products F v, "
        f"{', '.join(map(str, products))} of them for {', '.join(f'{P:,}' for P in parameters)} parameters, each two passes "
        f"through the network, so that they grow as D^{line:.2f}. These are counts, and cannot fail except by an error in the "
        f"code. On one machine computing and inverting F took {small.dense_seconds:.1g} s with {small.parameters} parameters, "
        f"conjugate gradients {small.cg_seconds:.1g} s, and {large.cg_seconds:.1g} s with {large.parameters:,}; the two "
        f"solutions differ by {small.error:.0e}.",
        {
            "power of D, inverse": cube,
            "power of D, conjugate gradients": line,
            f"multiplications, inverse, D = {sizes[-1]}": float(counted[-1]),
            "products F v, conjugate gradients": float(max(products)),
            "relative difference of the solutions": small.error or 0.0,
        },
    )


def eliminated(F: Tensor) -> tuple[Tensor, int]:
    """F⁻¹ by Gauss-Jordan elimination, of a positive definite F (D, D), and how many numbers were multiplied."""
    A, count = F.clone(), 0
    for k in range(len(A)):
        pivot = 1.0 / A[k, k]
        row, column = A[k] * pivot, A[:, k].clone()
        row[k], column[k] = pivot, 0.0
        A[:, k] = 0.0
        A -= column[:, None] * row
        A[k] = row
        count += len(row) * (len(column) - 1) + len(row)
    return A, count


def products_of_cg(width: int, iterations: int = 10) -> tuple[int, int]:
    """How many products F v conjugate gradients take, as NPG calls them, and the number of parameters of the network."""
    generator = torch.Generator().manual_seed(0)
    policy = Policy(MLP(8, (width, width), 4, output_gain=1.0, generator=generator), Categorical(4))
    obs, act = torch.randn(64, 8, generator=generator), torch.randint(4, (64,), generator=generator)
    evaluation, weight, made = policy.evaluate(Batch.of(obs, act)), torch.full((64,), 1.0 / 64), [0]

    def product(v: Tensor) -> Tensor:
        made[0] += 1
        return evaluation.fisher_product(v, weight) + 0.1 * v

    conjugate_gradient(product, evaluation.gradient(weight).clone(), iterations)
    return made[0], len(policy.flat)


@claim("A small step in the parameters can be a big step of the policy.", "exact")
def small_step_big_policy_step() -> Outcome:
    """KL of steps of equal length, over the plane of a policy with two parameters."""
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
        "For a policy with two logits, a step of length 0.1 in the direction of the largest KL has a KL of "
        f"{exact[0]:.1e} at θ = ({low[0]:.0f}, {low[1]:.0f}) and of {exact[1]:.1e} at ({high[0]:.0f}, {high[1]:.0f}): "
        f"{spread:,.0f} times as much. Over the plane, ½ λ_max(F) is between {float(kl.min()):.1e} and {float(kl.max()):.1e} "
        "nats.",
        {"least KL of a step of 0.1": exact[0], "largest KL of a step of 0.1": exact[1], "ratio": spread},
    )
