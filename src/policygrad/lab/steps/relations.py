"""The relations between the update rules, in numbers.

- A penalty β is a soft trust region: what each β allows (`penalty_path`), which one takes a TRPO step's KL (`matching_beta`).
- NPG is TRPO to first order: its step and gain against those of the exact problem as δ → 0 (`trust_path`).
- F⁻¹ĝ needs no F: conjugate gradients against the dense matrix as parameters grow (`dense_against_cg`).

Every step is the production rule's, made on a copy of the policy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.gradient.natural import conjugate_gradient, damped, dense_solve
from policygrad.lab.exact.policies import Grouped
from policygrad.lab.results import least_seconds
from policygrad.lab.steps.constrained import ExactTrustRegion, is_table, root
from policygrad.models.ascent import mean_kl
from policygrad.models.heads import Categorical
from policygrad.models.networks import MLP, TabularNetwork
from policygrad.models.policy import Policy
from policygrad.training.threads import single_thread
from policygrad.updates import NaturalGradient, PenalizedSurrogate, TrustRegion
from policygrad.updates.diagnostics import UpdateDiagnostics

MAX_DENSE_INVERSE = 600  # parameters up to which F is written down and inverted, at once
EPOCHS = 100  # of PPO, each the whole batch
STUCK = (
    "the policy is so certain on this batch that its Fisher matrix is 0 to rounding: no step has a KL to be compared. "
    "Take a less certain one, e.g. logits of a smaller scale"
)

Rule = Callable[[Policy, Batch], Any]  # an update rule: it moves the policy


def angle(u: Tensor, v: Tensor) -> float:
    """The angle between two vectors in degrees, exact also where it is tiny (Kahan); NaN where one of them is 0."""
    u, v = (x.double() / torch.linalg.vector_norm(x.double()) for x in (u, v))
    return math.degrees(2.0 * math.atan2(float((u - v).norm()), float((u + v).norm())))


def apply(rule: Rule, policy: Policy, batch: Batch) -> tuple[Stats, Policy]:
    """The diagnostics of a rule, and a copy of the policy after its step. The given policy and rule do not change."""
    moved = deepcopy(policy)
    diagnostics = UpdateDiagnostics(moved, batch)
    deepcopy(rule)(moved, batch)
    return diagnostics.compute(moved, batch)[0], moved


def default_damping(policy: Policy) -> float:
    """Of the Fisher matrix: none for a table of logits, that the library uses for networks."""
    return 0.0 if _has_table(policy) else 0.1


def default_lr(policy: Policy) -> float:
    """Of PPO's Adam: a table takes longer steps than a network, each logit has its own states."""
    return 0.02 if _has_table(policy) else 3e-4


def _has_table(policy: Policy) -> bool:
    """Whether the parameters are a table of logits, one row a state or a group of them."""
    network = policy.network
    return isinstance(network.network if isinstance(network, Grouped) else network, TabularNetwork)


def solver(policy: Policy, damping: float | None = None) -> dict[str, Any]:
    """Keywords of NaturalGradient and TrustRegion: the dense F where that is cheap, conjugate gradients elsewhere."""
    damping = default_damping(policy) if damping is None else damping
    return {"damping": damping, "solver": "dense" if len(policy.flat) <= MAX_DENSE_INVERSE else "cg"}


def natural_step(policy: Policy, batch: Batch, max_kl: float, damping: float | None = None) -> Tensor:
    """NPG's step s (P,), ½ sᵀ(F + damping · I)s = max_kl. Raises ValueError where the batch's gradient is 0, or the step."""
    rule = NaturalGradient(max_kl, **solver(policy, damping))
    step, stats = rule.propose(policy.evaluate(batch), batch, 0.0)
    if stats["grad_norm"] == 0.0:
        raise ValueError("the batch's gradient is 0, so no update rule changes the policy")
    if not step.any():
        raise ValueError(STUCK)
    return step


def penalty(beta: float, lr: float, epochs: int = EPOCHS) -> PenalizedSurrogate:
    """PPO's penalty with a fixed β, Adam on the whole batch."""
    return PenalizedSurrogate(lr, beta=beta, target_kl=None, epochs=epochs, minibatches=1, max_grad_norm=None)


@dataclass(frozen=True, eq=False)
class Match:
    """The penalty β whose step has a given KL, and that step."""

    beta: float  # in units of `adv` a nat
    beta_quadratic: float  # see `quadratic_beta`
    kl: float
    gain: float  # Σ weight · (ratio − 1) · adv
    step: Tensor  # (P,)


def quadratic_beta(policy: Policy, batch: Batch, kl: float, damping: float | None = None) -> float:
    """The β whose step has this KL if the gain were linear and KL quadratic: √(ĝᵀF⁻¹ĝ / 2 KL) / Σ weight.

    It is NPG's predicted gain for each nat, halved: with s its step, ĝᵀs = √(2 KL · ĝᵀF⁻¹ĝ).
    """
    diagnostics, s = UpdateDiagnostics(deepcopy(policy), batch), natural_step(policy, batch, kl, damping)
    return float(diagnostics.gradient @ s) / (2.0 * kl * float(batch.weight.sum()))


def matching_beta(
    policy: Policy,
    batch: Batch,
    kl: float,
    *,
    lr: float | None = None,
    epochs: int = EPOCHS,
    damping: float | None = None,
) -> Match:
    """β* with mean KL(old ‖ new) = kl, e.g. a TRPO step's.

    For a table of logits it is the penalty's maximiser that has it, and β* is the multiplier of the constrained problem; for
    other policies, what `PenalizedSurrogate` does in so many epochs. Raises ValueError for a KL out of reach.
    """
    if not kl > 0.0:
        raise ValueError(f"a penalty can be matched to a step with KL > 0, got {kl}")
    quadratic = quadratic_beta(policy, batch, kl, damping)
    if is_table(policy):
        beta = ExactTrustRegion(kl).solve(policy, batch).beta
        rule: Rule = ExactTrustRegion(beta=beta)
    else:
        rate = default_lr(policy) if lr is None else lr
        beta = _falling_to(lambda beta: apply(penalty(beta, rate, epochs), policy, batch)[0]["kl"], kl, quadratic)
        rule = penalty(beta, rate, epochs)
    stats, moved = apply(rule, policy, batch)
    return Match(beta, quadratic, stats["kl"], stats["gain"], moved.flat - policy.flat)


def _falling_to(kl_of: Callable[[float], float], kl: float, guess: float) -> float:
    """β with kl_of(β) = kl to 0.1 %, for a kl_of that falls."""

    def excess(log_beta: float) -> float:
        return math.log(max(kl_of(math.exp(log_beta)), 1e-30) / kl)

    low = high = middle = math.log(guess)
    while excess(low) < 0.0:
        low -= 1.0
        if low < middle - 8.0:
            raise ValueError(f"the penalty's steps stay short of KL = {kl:.2g} however small beta: raise epochs or lr")
    while excess(high) > 0.0:
        high += 1.0
        if high > middle + 8.0:
            raise ValueError(f"the penalty's steps go beyond KL = {kl:.2g} however large beta: lower lr")
    return math.exp(root(excess, low, high, 5e-4))


@dataclass(frozen=True)
class PenaltyPoint:
    """A penalty β and what a step with it does."""

    beta: float
    kl: float  # of the production rule after its epochs
    gain: float
    limit: float | None  # KL of the penalty's maximiser, for a table


def penalty_path(
    policy: Policy, batch: Batch, betas: Sequence[float], *, lr: float | None = None, epochs: int = EPOCHS
) -> list[PenaltyPoint]:
    """The KL and the gain for every β: PPO's penalty after some epochs and, for a table, in the limit."""
    points, rate = [], default_lr(policy) if lr is None else lr
    for beta in betas:
        stats, _ = apply(penalty(beta, rate, epochs), policy, batch)
        limit = ExactTrustRegion(beta=beta).solve(policy, batch).kl if is_table(policy) else None
        points.append(PenaltyPoint(beta, stats["kl"], stats["gain"], limit))
    return points


@dataclass(frozen=True)
class TrustPoint:
    """NPG and TRPO compared with the exact solution, at one bound δ.

    gap: the share of the exact solution's gain that NPG's direction loses when it is followed to exact KL = δ. As δ → 0, angle
    and gap fall as √δ and δ, or faster. trpo_gap: what TRPO loses; it does not vanish where KL exceeds its quadratic model, be
    it by little, for then the line search takes 20 % of the step away.
    """

    max_kl: float
    angle: float  # degrees, NPG's step to the exact one
    gap: float
    npg_kl: float  # exact KL of NPG's step, whose quadratic KL is δ
    trpo_gap: float


def trust_path(policy: Policy, batch: Batch, deltas: Sequence[float]) -> list[TrustPoint]:
    """NPG and TRPO compared with `ExactTrustRegion` for several bounds δ, in float64, because the differences are small.

    Raises TypeError for a policy that is no table of logits.
    """
    policy, points = deepcopy(policy).double(), []
    batch = replace(batch, logp=batch.logp.double(), adv=batch.adv.double(), weight=batch.weight.double())
    for max_kl in deltas:
        exact, at_optimum = apply(ExactTrustRegion(max_kl), policy, batch)
        keywords, step = solver(policy), natural_step(policy, batch, max_kl)
        npg, _ = apply(NaturalGradient(max_kl, **keywords), policy, batch)
        trpo, _ = apply(TrustRegion(max_kl, **keywords), policy, batch)
        along = _gain_at_kl(policy, batch, step, max_kl)
        gap, trpo_gap = (1.0 - gain / exact["gain"] for gain in (along, trpo["gain"]))
        degrees = angle(step, at_optimum.flat - policy.flat)
        points.append(TrustPoint(max_kl, degrees, gap, npg["kl"], trpo_gap))
    return points


def _gain_at_kl(policy: Policy, batch: Batch, step: Tensor, max_kl: float) -> float:
    """The surrogate's gain where the line along `step` has exact KL = max_kl."""
    moved, old = deepcopy(policy), policy.dist(batch.obs, batch.extra).clone()
    diagnostics = UpdateDiagnostics(moved, batch)

    def excess(fraction: float) -> float:
        torch.add(diagnostics.theta, step, alpha=fraction, out=moved.flat)
        return mean_kl(moved, old, batch) / max_kl - 1.0

    high = 1.0
    while excess(high) < 0.0:
        high *= 1.5
    excess(root(excess, 0.0, high))
    return diagnostics.compute(moved, batch)[0]["gain"]


@dataclass(frozen=True)
class SolverCost:
    """The costs of one solution of (F + damping · I) x = ĝ in both ways."""

    parameters: int
    cg_seconds: float
    dense_seconds: float | None  # None: not tried
    error: float | None  # ‖x_cg − x_dense‖ / ‖x_dense‖


def dense_against_cg(
    widths: Sequence[int], *, samples: int = 256, dense_up_to: int = 1000, damping: float = 0.1, iterations: int = 10
) -> list[SolverCost]:
    """Time and error of conjugate gradients, in the library's defaults, and of the dense matrix, for MLPs of two hidden layers.

    8 observations, 4 actions, random states and advantages, float32. A product F v costs two passes over the batch, O(P); the
    dense F costs P of them, its inverse O(P³), its memory P². Seconds are of the processor: other processes do not count.
    """
    generator = torch.Generator().manual_seed(0)
    with single_thread():
        return [_cost(width, samples, dense_up_to, damping, iterations, generator) for width in widths]


def _cost(
    width: int, samples: int, dense_up_to: int, damping: float, iterations: int, generator: torch.Generator
) -> SolverCost:
    policy = Policy(MLP(8, (width, width), 4, output_gain=1.0, generator=generator), Categorical(4))
    obs, act = torch.randn(samples, 8, generator=generator), torch.randint(4, (samples,), generator=generator)
    adv, weight = torch.randn(samples, generator=generator), torch.full((samples,), 1.0 / samples)
    evaluation = policy.evaluate(Batch.of(obs, act))
    g = evaluation.gradient(weight * adv).clone()
    product = damped(lambda v: evaluation.fisher_product(v, weight), damping)
    cg = conjugate_gradient(product, g, iterations)  # buffers are made
    cg_seconds = least_seconds(lambda: conjugate_gradient(product, g, iterations), 5, time.process_time)
    if len(g) > dense_up_to:
        return SolverCost(len(g), cg_seconds, None, None)
    started = time.process_time()
    exact = dense_solve(product, g).x
    seconds = time.process_time() - started
    return SolverCost(len(g), cg_seconds, seconds, float((cg.x - exact).norm() / exact.norm()))
