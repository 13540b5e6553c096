"""The exact solution of the problem that NPG, TRPO and PPO's penalty approximate; for tables it has a closed form.

    max_π  Σ_s d(s) Σ_a π(a|s) A(s,a)     subject to     Σ_s d(s) KL(old(·|s) ‖ π(·|s)) ≤ δ

(Schulman et al. 2015, arXiv 1502.05477, eq. 12, with the policy itself as the variable.) Where the Lagrangian's derivative,
A(s,a) + β old(a|s) / π(a|s) − ν_s, is 0,

    π(a|s) = β old(a|s) / (ν_s − A(s,a)),     ν_s > max_a A(s,a) from Σ_a π(a|s) = 1,     β from KL = δ.

d weighs both sides, so that one β holds in all states. The *penalised* problem, max Σ d (Σ π A − β KL), has the same solution
with β given instead of δ: a penalty is a soft trust region. KL(old ‖ π) grows without bound as an action loses its
probability, so the bound is active at every δ, and only in the limit δ → ∞ (β → 0) is the policy greedy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.models.heads import Categorical
from policygrad.models.networks import TabularNetwork
from policygrad.models.policy import Policy

MIN_KL = 1e-12  # nats: ratios differ from 1 by 1e-6 then, and KL is right to ten digits
MAX_KL = 100.0  # long before, the policy is greedy but for rounding
NEWTON_STEPS = 100  # six do; a bound in case of numbers that are none


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best policy for a bound on KL, or for a penalty; in states where d is 0 it is the old policy.

    residual: the largest violation of the Karush-Kuhn-Tucker conditions, see `kkt_residual`.
    """

    pi: Tensor  # (S, A)
    beta: float  # the bound's multiplier: what one more nat is worth, in units of A
    kl: float  # Σ d KL(old ‖ π), nats
    gain: float  # Σ d Σ_a (π − old) A
    residual: float


def constrained(old: Tensor, adv: Tensor, d: Tensor, max_kl: float) -> Optimum:
    """The best policy (S, A) with Σ d KL(old ‖ π) ≤ max_kl, for advantages (S, A) and a distribution d (S,), in float64.

    KL falls with β, so that β is one root. Where no action is better than another there is nothing to gain: the old policy,
    β = 0. Raises ValueError for tables that do not fit, or max_kl outside [1e-12, 100].
    """
    old, adv, d = _checked(old, adv, d)
    if not MIN_KL <= max_kl <= MAX_KL:
        why = f"smaller KLs are mostly rounding error, and at {MAX_KL:g} nats the policy is greedy"
        raise ValueError(f"max_kl = {max_kl:g} must be in [{MIN_KL:g}, {MAX_KL:g}]: {why}")
    centred = adv - (old * adv).sum(-1, keepdim=True)
    variance = float((d * (old * centred.square()).sum(-1)).sum())
    if variance <= 1e-24 * float(adv.square().amax()):
        return Optimum(old, 0.0, 0.0, 0.0, 0.0)

    def excess(log_beta: float) -> float:
        return math.log(_kl(old, _ratio(old, adv, math.exp(log_beta)), d) / max_kl)

    low = high = 0.5 * math.log(variance / (2.0 * max_kl))  # KL ≈ Var(A) / 2β²
    while excess(low) <= 0.0:
        low -= 1.0
    while excess(high) >= 0.0:
        high += 1.0
    return _optimum(old, adv, d, math.exp(root(excess, low, high)), max_kl)


def root(function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-15) -> float:
    """The zero of a function between two arguments with different signs, by `scipy.optimize.brentq`."""
    from scipy.optimize import brentq

    found = brentq(function, low, high, xtol=tolerance)
    assert isinstance(found, float)
    return found


def penalised(old: Tensor, adv: Tensor, d: Tensor, beta: float) -> Optimum:
    """The best policy (S, A) for Σ d (Σ_a π A − β KL(old ‖ π)): that of `constrained` with max_kl = the KL it ends at."""
    old, adv, d = _checked(old, adv, d)
    if not 0.0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}")
    return _optimum(old, adv, d, beta, None)


def kkt_residual(old: Tensor, pi: Tensor, adv: Tensor, d: Tensor, beta: float, max_kl: float | None = None) -> float:
    """How far π and β are from the conditions of an optimum, the largest of three relative errors:

    stationarity, A + β old/π being the same for all actions of a state; Σ_a π = 1; and, with a bound, KL = max_kl.
    """
    seen = (d > 0).unsqueeze(-1) & (old > 0)
    dual = torch.where(seen, adv + beta * old / pi, math.nan)  # ν_s, from every action
    high, low = dual.nan_to_num(-math.inf).amax(-1), dual.nan_to_num(math.inf).amin(-1)
    scale = beta + torch.where(seen, adv.abs(), 0.0).amax(-1)
    stationarity = float(torch.where(d > 0, (high - low) / scale, 0.0).amax())
    normalised = float((pi.sum(-1) - 1.0).abs().amax())
    active = 0.0 if max_kl is None else abs(_kl(old, torch.where(old > 0, pi / old, 1.0), d) / max_kl - 1.0)
    return max(stationarity, normalised, active)


def _optimum(old: Tensor, adv: Tensor, d: Tensor, beta: float, max_kl: float | None) -> Optimum:
    ratio = torch.where((d > 0).unsqueeze(-1), _ratio(old, adv, beta), 1.0)
    pi = old * ratio
    gain = float((d.unsqueeze(-1) * (pi - old) * adv).sum())
    return Optimum(pi, beta, _kl(old, ratio, d), gain, kkt_residual(old, pi, adv, d, beta, max_kl))


def _ratio(old: Tensor, adv: Tensor, beta: float) -> Tensor:
    """π/old = 1 / (y + g/β), (S, A), with g = max_a A − A and y = (ν − max_a A) / β the root of Σ_a old / (y + g/β) = 1.

    y is in [old(best), 1]. 1/Σ is concave in y, so Newton's method on 1/Σ = 1 rises to the root from the left end, and fast: it
    is nearly a line where one action dominates (as for the secular equation of trust-region methods).
    """
    possible = old > 0
    best = torch.where(possible, adv, -math.inf).amax(-1, keepdim=True)
    g = (best - adv).clamp(min=0.0) / beta
    y = torch.where(possible & (adv == best), old, 0.0).sum(-1, keepdim=True)
    for _ in range(NEWTON_STEPS):
        first = (old / (y + g)).sum(-1, keepdim=True)
        second = (old / (y + g).square()).sum(-1, keepdim=True)
        step = first * (first - 1.0) / second
        y = y + step
        if float((step / y).abs().amax()) <= 1e-16:
            break
    return 1.0 / (y + g)


def _kl(old: Tensor, ratio: Tensor, d: Tensor) -> float:
    """Σ d Σ_a old (r − 1 − log r), r = π/old: terms that are never negative, exact also where r is nearly 1."""
    e = ratio - 1.0
    terms = old * (e - torch.where(ratio > 0.5, torch.log1p(e), ratio.log()))
    return float((d * terms.sum(-1)).sum())


def _checked(old: Tensor, adv: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    old, adv, d = (torch.as_tensor(x).detach().double() for x in (old, adv, d))
    if old.ndim != 2 or adv.shape != old.shape or d.shape != old.shape[:1]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (old, adv, d))
        raise ValueError(f"expected a policy (S, A), advantages (S, A) and a distribution (S,), got {shapes}")
    for name, p in (("every row of the policy", old), ("d", d)):
        if not ((p >= 0).all() and ((p.sum(-1) - 1.0).abs() <= 1e-6).all()):
            raise ValueError(f"{name} must be a probability distribution: entries ≥ 0, sum 1")
    if not torch.isfinite(adv).all():
        raise ValueError("the advantages must be finite")
    return old / old.sum(-1, keepdim=True), adv, d / d.sum()


def is_table(policy: Policy) -> bool:
    """Whether the policy is a table of logits over all actions with one row per state, as the closed form needs."""
    head = policy.head
    return isinstance(policy.network, TabularNetwork) and isinstance(head, Categorical) and not head.context


def tables(policy: Policy, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What a batch says of a tabular policy, in float64: π (S, A), A (S, A) and d (S,), such that for every π'

        Σ weight · ratio · adv = Σ weight · Σ_s d(s) Σ_a π'(a|s) A(s,a):

    the surrogate of sampled actions is a dot product in each state. A = 0 for actions that are not in the batch.
    Raises TypeError for a policy that is no table.
    """
    network = policy.network
    if not is_table(policy) or not isinstance(network, TabularNetwork):
        raise TypeError(
            f"expected a table of logits over Discrete states and actions (hidden = ()), got {type(network).__name__} with "
            f"{policy.head}"
        )
    logits = network.table.detach().double()
    S, A = logits.shape
    pi, state = torch.softmax(logits, -1), policy.features(batch.obs).argmax(-1)
    share = batch.weight.double() / batch.weight.double().sum()
    d = torch.zeros(S, dtype=torch.float64).index_add_(0, state, share)
    credit = share * batch.adv.double() / batch.logp.double().exp()
    sums = torch.zeros(S * A, dtype=torch.float64).index_add_(0, state * A + batch.act, credit).view(S, A)
    return pi, torch.where(d.unsqueeze(-1) > 0, sums / d.unsqueeze(-1), 0.0), d


class ExactTrustRegion:
    """The update rule that TRPO approximates, for tables of logits: θ becomes the optimum for the batch.

    With `max_kl` that of `constrained`; with `beta` instead that of `penalised`, where PPO's penalty would end. Of all logits
    with that policy it takes the nearest: a state's logits move by numbers whose sum is 0, as natural steps do.
    """

    def __init__(self, max_kl: float = 0.01, *, beta: float | None = None) -> None:
        self.max_kl, self.beta = max_kl, beta

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> Stats:
        """Move the policy. Raises TypeError where it is no table."""
        optimum, old = self.solve(policy, batch), tables(policy, batch)[0]
        change = torch.where(old > 0, (optimum.pi / old).log(), 0.0)
        change -= change.mean(-1, keepdim=True)
        policy.flat.add_(change.reshape(-1).to(policy.flat.dtype))
        return {"beta": optimum.beta, "kkt_residual": optimum.residual}

    def solve(self, policy: Policy, batch: Batch) -> Optimum:
        """The optimum; nothing moves."""
        problem = tables(policy, batch)
        return constrained(*problem, self.max_kl) if self.beta is None else penalised(*problem, self.beta)
