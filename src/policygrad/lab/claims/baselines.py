"""Claims about baselines: which may be subtracted, which is best, and what variance is left."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Rollout, Values
from policygrad.gradient.baselines import (
    Baseline,
    Constant,
    CriticValue,
    CrossFit,
    LeaveOneOut,
    NoBaseline,
    TimeAverage,
)
from policygrad.gradient.estimators import TotalReturn
from policygrad.lab.auditing.cells import Cell, Chunk, SameBatchFit
from policygrad.lab.auditing.optimal_baselines import Table, optimal_baseline
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, MAX_SEARCHED, Case, case, simple, small
from policygrad.lab.exact.mdp import bandit, chain
from policygrad.lab.exact.tabular import ExactCritic, ExactQCritic, objective, tabular_policy
from policygrad.lab.exact.worlds import two_logit_policy, two_states
from policygrad.lab.results import slope


def deceptive() -> Case:
    """A bandit whose likely action pays 1 and whose other action pays 0: V is near 1, the best baseline near 0."""
    return case("deceptive")


def random_values(c: Case, count: int = 5) -> list[Tensor]:
    """Random numbers for every time and state, (H+1, S)."""
    generator = torch.Generator().manual_seed(0)
    return [3.0 * torch.randn(c.V.shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def to_go(c: Case, baseline: Baseline | None = None, V: Tensor | None = None) -> Tensor:
    """γᵗ (G_t − b), (N, P), where the baseline gets the exact values, or V."""
    return c.estimates(c.to_go, baseline, ExactCritic(c.mdp, V))


class NextValue(NoBaseline):
    """V(s_{t+1}): a function of the state that the action led to, hence of the action."""

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return values.next_val


class ActionValue(NoBaseline):
    """Q(s_t, a_t)."""

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        assert values.act_val is not None
        return values.act_val


@claim("Subtracting a baseline b(s) does not change the expected gradient.", "exact")
def baseline_adds_no_bias() -> Outcome:
    """V, a constant and random tables; for comparison a baseline that looks ahead."""
    gap, moved = 0.0, 0.0
    for c in small():
        for baseline, table in ((CriticValue(), None), (Constant(5.0), None), (CriticValue(), random_values(c)[0])):
            x = to_go(c, baseline, table)
            gap = max(gap, c.gap(x))
            moved = max(moved, float((x - to_go(c)).abs().max()))
    bias = float(np.median([c.bias(to_go(c, NextValue())) for c in small()]))
    return Outcome(
        decide(gap <= EXACT and moved > 1.0 and bias > 0.01),
        "With V, with the constant 5 and with random numbers for every time and state, the expected estimate is ∇J to "
        f"{gap:.0e} on 20 random MDPs, while single estimates change by up to {moved:.0f}. But b must not depend on the "
        f"action: with V(s_{{t+1}}) the bias is {bias:.0%} of ‖∇J‖ (median).",
        {
            "largest |E ĝ − ∇J|": gap,
            "largest move of one estimate": moved,
            "relative bias with V(s_{t+1}), median": bias,
        },
    )


@claim("The gradient is unbiased regardless of the baseline.", "exact")
def unbiased_with_any_baseline() -> Outcome:
    """Random tables; baselines that depend on the action; a baseline that is fitted to its own batch."""
    gap = max(c.gap(to_go(c, CriticValue(), table)) for c in small() for table in random_values(c))
    after = float(np.median([c.bias(to_go(c, NextValue())) for c in small()]))
    own = 0.0  # ‖E ĝ‖ / ‖∇J‖
    for c in small():
        left = c.mean(c.estimates(c.to_go, ActionValue(), ExactQCritic(c.mdp)))
        own = max(own, float(left.norm() / c.gradient.norm()))
    few = few_trajectories()
    same = relative(few.batch_mean(2, few.to_go, SameBatchFit(TimeAverage())), few.gradient)
    return Outcome(
        decide(gap <= EXACT, caveat=after > 0.01 or own <= 1e-9 or abs(same - 1.0) > 0.01),
        f"It is for every b(t, s) that does not depend on the sample: with 100 random tables, to {gap:.0e}. It is not if b "
        f"depends on the action: with V(s_{{t+1}}) the bias is {after:.0%} of ‖∇J‖ (median of 20), and with Q(s, a) the "
        f"expected estimate is 0 (to {own:.0e}). It is not if b was fitted to the same data either: with the mean of the "
        f"batch's own 2 trajectories the expected estimate is {same:.2f} ∇J.",
        {
            "largest |E ĝ − ∇J|, any b(t, s)": gap,
            "relative bias with V(s_{t+1}), median": after,
            "what Q(s, a) leaves of the gradient": own,
            "multiple of ∇J, own mean of 2 trajectories": same,
        },
    )


def few_trajectories() -> Case:
    """Two states, two steps: 8 trajectories of the same length, so that batches can be listed."""
    return Case(two_states(2), two_logit_policy((0.5, -1.0)))


def relative(x: Tensor, gradient: Tensor) -> float:
    """The multiple of ∇J that lies nearest to x."""
    return float(x @ gradient / (gradient @ gradient))


@claim("A baseline must be fitted on other trajectories than those it is subtracted from.", "exact")
def fit_baseline_on_other_data() -> Outcome:
    """Expected estimates with baselines fitted to the same batch, to parts of it, and to an earlier batch."""
    one_step, few = Case(mdp := bandit([1.0, -0.5, 2.0]), tabular_policy(mdp, scale=0.0)), few_trajectories()
    bias, off, fitted = {}, 0.0, 0.0
    for c, k in ((one_step, 4), (one_step, 3), (few, 2)):
        x = c.batch_mean(k, c.to_go, SameBatchFit(TimeAverage()))
        bias[k] = relative(x, c.gradient) - 1.0
        off = max(off, float((x - (1.0 - 1.0 / k) * c.gradient).abs().max()))
        for baseline in (LeaveOneOut(), *([CrossFit(TimeAverage(), 2)] if k < 4 else [])):
            fitted = max(fitted, float((c.batch_mean(k, c.to_go, baseline) - c.gradient).abs().max()))
    uneven = Case(mdp := chain(3, 3), tabular_policy(mdp, torch.Generator().manual_seed(0)))
    shorter = relative(uneven.batch_mean(2, uneven.to_go, SameBatchFit(TimeAverage())), uneven.gradient) - 1.0
    earlier = TimeAverage()
    r = few.sample(8, seed=1)
    earlier.fit(r, few.to_go(r, Values.zeros(r)).ret)
    other = few.gap(few.estimates(few.to_go, earlier))
    power = slope(list(bias), [-x for x in bias.values()])
    return Outcome(
        decide(off <= EXACT and fitted <= EXACT and other <= EXACT and abs(power + 1.0) <= 1e-6),
        "The mean of the batch's own N trajectories as baseline shrinks the expected gradient by exactly 1/N, to "
        f"{off:.0e}, for N = 2 to 4 on two MDPs whose episodes have equal lengths. On a chain with terminal states it shrinks "
        f"by {-shorter:.2f} for N = 2. A baseline fitted on an earlier batch, on the other folds (cross-fit) or on the other "
        f"trajectories (leave-one-out) has no bias (to {max(fitted, other):.0e}).",
        {f"relative bias, own data, N = {k}": x for k, x in bias.items()}
        | {
            "power of N": power,
            "relative bias on a chain with ends, N = 2": shorter,
            "largest |E ĝ − (1 − 1/N) ∇J|, own data": off,
            "largest |E ĝ − ∇J|, cross-fit and leave-one-out": fitted,
            "largest |E ĝ − ∇J|, earlier batch": other,
        },
    )


def by_constant(c: Case, b: float) -> float:
    """Tr Cov of (R − b) Σ ∇log π."""
    return c.variance(c.estimates(TotalReturn(c.mdp.gamma), Constant(b)))


def best_constant(c: Case) -> float:
    """b* = E[‖s‖² R] / E[‖s‖²], s the score of the trajectory."""
    total = TotalReturn(c.mdp.gamma)
    s = c.estimates(total) - c.estimates(total, Constant(1.0))
    ret, squared = total(c.rollout, Values.zeros(c.rollout)).ret[0], s.square().sum(-1)
    return float(c.mean(squared * ret) / c.mean(squared))


@claim("A constant baseline reduces the variance.", "exact")
def constant_baseline_lowers_variance() -> Outcome:
    """The variance as a function of b; its lowest point by a formula and by a parabola."""
    c = chain_case()
    best = best_constant(c)
    multiples = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    curve = {m: by_constant(c, m * best) for m in multiples}
    gap = 0.0
    for other in (c, deceptive(), *small()[:5]):
        low, middle, high = (by_constant(other, b) for b in (-1.0, 0.0, 1.0))
        vertex = 0.5 * (low - high) / (low + high - 2.0 * middle)  # of the parabola through the three
        gap = max(gap, abs(vertex - best_constant(other)))
    d = deceptive()
    mean = float(objective(d.mdp, d.pi))
    none, with_mean = by_constant(d, 0.0), by_constant(d, mean)
    what = f"with the mean return {mean:g} as baseline the variance is {with_mean:.3g}, without one {none:.3g}"
    return Outcome(
        decide(curve[1.0] < curve[0.0] and gap <= 1e-9, caveat=curve[-1.0] > curve[0.0] and curve[3.0] > curve[0.0]),
        "The variance is a parabola in b with its lowest point at b* = E[‖s‖²R] / E[‖s‖²], s the score of the "
        f"trajectory (to {gap:.0e} on 7 MDPs). On a chain with b* = {best:.2f}, every b between 0 and 2b* lowers the "
        f"variance, at best to {curve[1.0] / curve[0.0]:.2f} of that without a baseline. With −b* it is "
        f"{curve[-1.0] / curve[0.0]:.1f} times as large as without a baseline, with 3b* {curve[3.0] / curve[0.0]:.1f} times. "
        f"The mean return can be too large a b: on a bandit it makes the variance {with_mean / none:.1f} times as large.",
        {f"variance at b = {m:g} b*": x for m, x in curve.items()}
        | {
            "b* on the chain": best,
            "largest |vertex − b*|": gap,
            "variance ratio of the mean return on the bandit": with_mean / none,
        },
        d.counterexample("a likely action that pays 1", what) if with_mean > none else None,
    )


def chain_case() -> Case:
    """Four states in a row, rewards at the end only."""
    mdp = chain(4, 5, slip=0.2)
    return Case(mdp, tabular_policy(mdp, torch.Generator().manual_seed(0)))


@claim("The variance of the gradient is proportional to E[(G − b)²].", "exact")
def variance_follows_squared_error() -> Outcome:
    """Both sides of the claim as functions of b."""

    def against(c: Case, b: float) -> tuple[float, float]:
        ret = TotalReturn(c.mdp.gamma)(c.rollout, Values.zeros(c.rollout)).ret[0]
        return by_constant(c, b), float(c.mean((ret - b).square()))

    ratios, correlations = [], []
    for c in (*small(), deceptive()):
        J = float(objective(c.mdp, c.pi))
        pairs = np.array([against(c, J + offset) for offset in (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)])
        ratio = pairs[:, 0] / pairs[:, 1]
        ratios.append(float(ratio.max() / ratio.min()))
        correlations.append(float(np.corrcoef(pairs.T)[0, 1]))
    d = deceptive()
    J = float(objective(d.mdp, d.pi))
    (none, squared), (with_mean, least) = against(d, 0.0), against(d, J)
    what = (
        f"b = E[G] = {J:g} lowers E[(G − b)²] from {squared:.3g} to {least:.3g} and raises the variance from "
        f"{none:.3g} to {with_mean:.3g}"
    )
    return Outcome(
        decide(max(ratios) <= 1.01),
        "While b changes by ±2 around the mean return, the ratio of the two changes by a factor of "
        f"{np.median(ratios):.2f} (median of 21 MDPs) and of {max(ratios):.2f} at most: ‖Σ ∇log π‖² is correlated with G, and "
        "‖∇J‖² is subtracted. As a rule of thumb the claim is good (correlation over b: median "
        f"{np.median(correlations):.3f}, lowest {min(correlations):.2f}), but the b that minimises E[(G − b)²] can raise the "
        "variance.",
        {
            "factor by which the ratio changes, median": float(np.median(ratios)),
            "factor by which the ratio changes, largest": max(ratios),
            "correlation over b, median": float(np.median(correlations)),
            "correlation over b, lowest": min(correlations),
            "variance ratio at b = E[G], deceptive": with_mean / none,
        },
        d.counterexample("a likely action that pays 1", what) if with_mean > none and least < squared else None,
    )


def least_variance(c: Case, kind: str) -> float:
    """Tr Cov with the baseline of least variance: one number ("best"), or one per parameter, state, or state and time."""
    chunk = Chunk(c.rollout, Values.zeros(c.rollout), 1, c.mdp.actions)
    cell = Cell(("to-go", "none", "discount"), c.to_go, NoBaseline())
    b = optimal_baseline(kind, cell, [(chunk, c.probability)], c.score.flatten(0, 1), len(c.rollout.rew))
    if kind == "best-parameter":
        return c.variance(to_go(c) - b * (to_go(c) - to_go(c, Constant(1.0))))
    return c.variance(to_go(c, Table(b)))


@claim("The best baseline is b(s) = V(s).", "exact")
def value_is_the_best_baseline() -> Outcome:
    """Variances with V and with four kinds of baselines of least variance.

    Rule: "the best" means that no b(t, s) has a lower variance. It holds if V is the best in all MDPs, with a caveat if in most
    of them, and fails as stated otherwise.
    """
    kinds = {
        "one number": "best",
        "one number per parameter": "best-parameter",
        "b*(s)": "best-state",
        "b*(t, s)": "best-time-state",
    }
    left: dict[str, list[float]] = {name: [] for name in ("V", *kinds)}
    for c in small():
        none = c.variance(to_go(c))
        left["V"].append(c.variance(to_go(c, CriticValue())) / none)
        for name, kind in kinds.items():
            left[name].append(least_variance(c, kind) / none)
    median = {name: float(np.median(x)) for name, x in left.items()}
    above = np.array(left["V"]) / np.array(left["b*(t, s)"])
    best_in = int((above <= 1.0 + 1e-9).sum())
    d = deceptive()
    none, with_v, best = d.variance(to_go(d)), d.variance(to_go(d, CriticValue())), least_variance(d, "best-state")
    what = (
        f"the variance is {none:.3g} without a baseline, {with_v:.3g} with V and {round(best, 9):g} with the best b(s)"
    )
    return Outcome(
        decide(2 * best_in > len(above), caveat=best_in < len(above) or with_v > none),
        f"V is the best in {best_in} of {len(above)} random MDPs. In the median it leaves {median['V']:.2f} of the variance "
        f"without a baseline, and the best b(t, s) leaves {median['b*(t, s)']:.2f}. The variance with V is "
        f"{above.min():.3f} to {above.max():.2f} times that with the best b(t, s), and it is larger than without a baseline "
        f"in {sum(x > 1.0 for x in left['V'])} of the {len(above)}: a good baseline, which often helps, and not the best one.",
        {f"variance with {name} / without, median": x for name, x in median.items()}
        | {
            "MDPs of 20 in which V is the best": float(best_in),
            "variance with V / with the best b(t, s), lowest": float(above.min()),
            "variance with V / with the best b(t, s), largest": float(above.max()),
            "share of MDPs where V raises the variance": float(np.mean(np.array(left["V"]) > 1.0)),
            "variance with V / without, deceptive": with_v / none,
        },
        d.counterexample("a likely action that pays 1", what) if with_v > none else None,
    )


@claim("The average reward-to-go is a usable baseline, and V is a better one.", "exact")
def average_reward_to_go_as_baseline() -> Outcome:
    """Both baselines on random MDPs."""
    average, value, gap = [], [], 0.0
    cases = simple(MAX_SEARCHED)
    for c in cases:
        baseline, r = TimeAverage(), c.sample(500, seed=1)
        baseline.fit(r, c.to_go(r, Values.zeros(r)).ret)  # other episodes than those it is subtracted from
        x, none = to_go(c, baseline), c.variance(to_go(c))
        gap = max(gap, c.gap(x))
        average.append(c.variance(x) / none)
        value.append(c.variance(to_go(c, CriticValue())) / none)
    a, v = np.array(average), np.array(value)
    usable, better = float(np.mean(a < 1.0)), float(np.mean(v < a))
    worst = int((v / a).argmax())
    c = cases[worst]
    what = f"relative to no baseline the variance is {v[worst]:.2f} with V and {a[worst]:.2f} with the average"
    return Outcome(
        decide(gap <= EXACT and usable > 0.5 and better > 0.5, caveat=min(usable, better) < 1.0),
        f"Fitted on 500 other episodes, the average leaves the gradient unbiased (to {gap:.0e}). It lowers the variance in "
        f"{usable:.0%} of {len(cases)} random MDPs, to {np.median(a):.2f} in the median. V has a lower variance than the "
        f"average in {better:.0%}, {np.median(v):.2f} in the median. But this is not certain: the variance with V is up to "
        f"{v[worst] / a[worst]:.2f} times that with the average.",
        {
            "largest |E ĝ − ∇J|": gap,
            "share of MDPs where the average lowers the variance": usable,
            "share of MDPs where V is better than the average": better,
            "variance with the average / without, median": float(np.median(a)),
            "variance with V / without, median": float(np.median(v)),
            "variance with V / with the average, largest": float(v[worst] / a[worst]),
        },
        c.counterexample("found among random MDPs", what) if v[worst] > a[worst] else None,
    )
