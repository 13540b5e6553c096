"""Claims about gradient ascent, and about ways to compute derivatives."""

from __future__ import annotations

import torch

from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.exact.tabular import MDP, exact_gradient, gradient_theorem, tabular_policy
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.theory.ascent import Path, ascend, fixed, landscapes, sgd
from policygrad.lab.theory.derivatives import check_gradient, costs, error_by_step
from policygrad.lab.theory.functions import Function, branches_and_loops, performance, quadratic, table_performance
from policygrad.lab.theory.stochastic import decay
from policygrad.models.policy import Policy


def small_study() -> tuple[MDP, Policy]:
    """A random MDP of 3 states and 2 actions, 4 steps, and a random table of logits."""
    mdp = make_mdp("small")
    return mdp, tabular_policy(mdp, torch.Generator().manual_seed(0))


@claim("The gradient is the direction of steepest ascent, and gradient ascent stops at stationary points.", "exact")
def steepest_ascent() -> Outcome:
    """Slopes of J in 500 directions; the points at which ascents on functions of many kinds stop."""
    mdp, policy = small_study()
    J, theta, g, h = performance(mdp, policy), policy.flat.clone(), exact_gradient(mdp, policy), 1e-4
    u = torch.randn(500, len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = torch.cat([g.unsqueeze(0), u])
    u /= u.norm(dim=-1, keepdim=True)
    slopes = torch.stack([(J(theta + h * d) - J(theta - h * d)) / (2.0 * h) for d in u]).detach()
    wrong = float((slopes - u @ g).abs().amax())  # slope = cosine · ‖g‖
    best_other = float(slopes[1:].amax() / slopes[0])
    found = landscapes(400)
    stopped = [case for case in found.cases if case.path.stopped == "stationary"]
    largest = max(case.path.grad_norm[-1] for case in stopped)
    still = max(case.path.grad_norm[-1] for case in found.cases if case.path.stopped == "steps")
    lower = found["two hills, from left"].lost
    holds = wrong <= 1e-6 and best_other < 1.0 and len(stopped) == 4 and largest <= 1e-6
    return Outcome(
        decide(holds),
        f"In none of 500 random directions does J rise as fast as along ∇J, in the steepest of them {best_other:.0%} as fast; "
        f"every slope is ‖∇J‖ times a cosine, to {wrong:.0e}. Of {len(found.cases)} ascents {len(stopped)} stopped, all where "
        f"‖∇f‖ ≤ {largest:.0e}: at a maximum, at a lower local maximum ({lower:.2f} below the best) and at a saddle point. So "
        "the fact that ascent stops does not say how high it is.",
        {
            "error of slope = cosine · ‖∇J‖": wrong,
            "steepest of 500 random directions, in units of ‖∇J‖": best_other,
            "ascents that stopped": float(len(stopped)),
            "largest ‖∇f‖ where one stopped": largest,
            "largest ‖∇f‖ where none stopped": still,
            "lower local maximum, below the best": lower,
        },
    )


def bowl(sign: float) -> Function:
    """½ sign · (θ₁² + 4 θ₂²)."""
    return quadratic(sign * torch.tensor([1.0, 4.0], dtype=torch.float64))


def from_many(function: Function) -> list[Path]:
    """Ascents from ten random starts and from 0."""
    start = torch.randn(10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [ascend(function, theta, 400, fixed(0.2)) for theta in (*start, torch.zeros(2, dtype=torch.float64))]


@claim("If f is convex, the only point where gradient ascent stops is the global maximum.", "exact")
def convex_ascent_finds_the_maximum() -> Outcome:
    """Ascents from eleven starts on a concave and on a convex function."""
    around = torch.randn(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def share_on_top(function: Function) -> float:
        """The share of ascents that stopped at a point that is at least as high as all points around it."""
        tops = [
            path.stopped == "stationary" and all(function(x) <= path.value[-1] + 1e-9 for x in around)
            for path in from_many(function)
        ]
        return sum(tops) / len(tops)

    convex, concave = share_on_top(bowl(1.0)), share_on_top(bowl(-1.0))
    diverged = sum(path.stopped == "diverged" for path in from_many(bowl(1.0)))
    return Outcome(
        decide(convex == 1.0, concave < 1.0),
        f"It is true of *concave* functions: on −½(x² + 4y²), {concave:.0%} of 11 ascents end at the maximum, on the convex "
        f"½(x² + 4y²) {convex:.0%}. There {diverged} diverge, and the one that starts at the stationary point stays at the "
        "minimum. For descent on a loss the word convex is right.",
        {
            "share of ascents that end at the maximum, convex": convex,
            "share of ascents that end at the maximum, concave": concave,
            "ascents of 11 that diverge, convex": float(diverged),
        },
    )


@claim("Automatic differentiation needs no small step, and goes through branches and loops.", "exact")
def automatic_differentiation() -> Outcome:
    """∇J by autodiff and in closed form; a function whose loops and branches depend on θ; a planted error."""
    mdp, policy = small_study()
    theta, exact = policy.flat.clone(), gradient_theorem(mdp, policy)
    errors = error_by_step(table_performance(mdp), theta, exact)
    best = min(errors.best(method)[1] for method in ("forward", "central"))
    starts = 3.0 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right = sum(check_gradient(branches_and_loops, x).verdict == "right" for x in starts)
    planted = exact.clone()
    planted[2] *= 1.001
    caught = check_gradient(table_performance(mdp), theta, planted)
    kink = check_gradient(lambda x: x.abs().sum(), torch.zeros(1, dtype=torch.float64))
    holds = errors.automatic <= 1e-13 and right == 20 and caught.wrong == (2,)
    return Outcome(
        decide(holds),
        f"∇J through a loop over the horizon is right to {errors.automatic:.0e}, and no step must be chosen; finite "
        f"differences at their best step are right to {best:.0e}. For a function whose loops and branches depend on θ, "
        f"{right} of 20 points pass the gradient check, which also finds a component that is wrong by 0.1 %. At x = 0, "
        f"where |x| has no derivative, automatic differentiation still gives a number; the verdict of the check is "
        f'"{kink.verdict}".',
        {
            "relative error, automatic": errors.automatic,
            "relative error, best differences": best,
            "points of 20 right through branches and loops": float(right),
            "components found wrong, of 1 planted": float(len(caught.wrong)),
        },
    )


@claim("Numerical differentiation needs an evaluation for each parameter and suffers from rounding.", "exact")
def numerical_differentiation() -> Outcome:
    """The number of evaluations, and the errors of differences as a function of their step."""
    mdp, policy = small_study()
    errors = error_by_step(table_performance(mdp), policy.flat.clone(), gradient_theorem(mdp, policy))
    bill = {(c.method, c.parameters): c for c in costs((2, 8, 32))}
    sizes = sorted({parameters for _, parameters in bill})
    counts = {m: [bill[m, d].evaluations for d in sizes] for m in ("forward", "central", "automatic")}
    as_said = all(
        (forward, central, automatic) == (d + 1, 2 * d, 1)
        for d, forward, central, automatic in zip(sizes, *counts.values(), strict=True)
    )
    best, (left, right) = errors.best("central"), errors.slopes("central")
    rounding = errors.errors["central"][0]
    holds = as_said and rounding > 100.0 * best[1] > 100.0 * errors.automatic and -1.3 < left < -0.7
    times = {m: bill[m, sizes[-1]].relative_seconds for m in ("central", "automatic")}
    return Outcome(
        decide(holds),
        f"With {sizes[-1]} parameters, J is evaluated {counts['forward'][-1]} times for forward differences, "
        f"{counts['central'][-1]} times for central differences, and once for automatic differentiation; central differences "
        f"take the time of {times['central']:.0f} evaluations, automatic differentiation that of {times['automatic']:.1f}. The "
        f"relative error of central differences is least, {best[1]:.0e}, at h = {best[0]:.0e}; for smaller h rounding makes "
        f"it grow as h^{left:.1f}, to {rounding:.0e} at h = 1e-13. A complex step subtracts nothing, so that its error is "
        f"{errors.errors['complex'][0]:.0e} at that h, but it needs as many evaluations.",
        {
            "evaluations, forward": float(counts["forward"][-1]),
            "evaluations, central": float(counts["central"][-1]),
            "parameters": float(sizes[-1]),
            "least relative error, central": best[1],
            "relative error at h = 1e-13, central": rounding,
            "power of h below the best step": left,
            "power of h above the best step": right,
        },
    )


@claim(
    "For nice functions stochastic gradient ascent gets near a stationary point: the longer it runs, the "
    "flatter it is there.",
    "simulated",
)
def stochastic_ascent() -> Outcome:
    """Runs of five lengths with gradients from sampled episodes, and a function without a bound."""
    found = decay(*small_study(), budgets=(16, 64, 256), runs=2)
    shown = {b.steps: b for b in found.budgets}
    first, last = shown[16], shown[256]
    f = bowl(1.0)
    start = torch.ones(2, dtype=torch.float64)
    steep = sgd(start, lambda theta: theta * torch.tensor([1.0, 4.0], dtype=torch.float64), 50, 0.1)
    steeper = float((steep[-1] * torch.tensor([1.0, 4.0], dtype=torch.float64)).norm() / (17.0**0.5))
    within = all(b.squared_norm <= b.bound for b in found.budgets)
    return Outcome(
        decide(found.slope < -0.25 and within),
        f"On J, with {found.episodes} sampled episodes per step and α ∝ 1/√K, the mean of ‖∇J‖² over a run of K steps falls "
        f"from {first.squared_norm:.3f} with K = 16 to {last.squared_norm:.4f} with K = 256, as K^{found.slope:.2f}; after the "
        f"last step ‖∇J‖² is {last.last:.0e}. The bound for functions of bounded curvature, {first.bound:.2f} and "
        f"{last.bound:.2f}, falls as K^−0.5 and is kept. A function without an upper bound is not nice: on ½(x² + 4y²) ‖∇f‖ "
        f"grows by a factor of {steeper:.0e} in 50 steps, to f = {float(f(steep[-1])):.0e}.",
        {
            **{f"mean ‖∇J‖² of {k} steps": b.squared_norm for k, b in shown.items()},
            **{f"bound on it, {k} steps": b.bound for k, b in shown.items()},
            "power of K": found.slope,
            "‖∇J‖² after 256 steps": last.last,
            "growth of ‖∇f‖ without a bound": steeper,
        },
    )
