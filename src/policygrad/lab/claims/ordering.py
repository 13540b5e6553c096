"""A claim about the chain of estimators, from the total return to the advantage; exact."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from torch import Tensor

from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import QValue, StateDiscounted, TotalReturn
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, Case, simple, small
from policygrad.lab.exact.tabular import ExactCritic, ExactQCritic

SEARCHED = 60  # small random MDPs
CHAIN = ("total return", "reward-to-go", "reward-to-go − V", "advantage Q − V")


def estimates(c: Case) -> tuple[Tensor, ...]:
    """The estimates of each trajectory alone, (N, P), for each link of the chain."""
    q = StateDiscounted(QValue(c.mdp.gamma))
    return (
        c.estimates(TotalReturn(c.mdp.gamma)),
        c.estimates(c.to_go),
        c.estimates(c.to_go, CriticValue(), ExactCritic(c.mdp)),
        c.estimates(q, CriticValue(), ExactQCritic(c.mdp)),
    )


@claim(
    "The estimators of the gradient get better one after the other, culminating in the one with the advantage.", "exact"
)
def advantage_ends_the_chain() -> Outcome:
    """The variances of four unbiased estimators, on random MDPs, and in how many of these each is below the one before."""
    cases = (*small(), *simple(SEARCHED))
    listed = [estimates(c) for c in cases]
    gap = max(c.gap(x) for c, links in zip(cases, listed, strict=True) for x in links)
    table = np.array([[c.variance(x) for x in links] for c, links in zip(cases, listed, strict=True)])
    mean, lower = table[: len(small())].mean(0), table[:, 1:] <= table[:, :-1] * (1.0 + 1e-9)
    share, every = lower.mean(0), lower.all(1).mean()
    last = (table[:, -1] <= table.min(1) * (1.0 + 1e-9)).mean()
    worst = int((table[:, -1] / table[:, 0]).argmax())
    ratio = float(table[worst, -1] / table[worst, 0])
    what = f"the variance with the exact Q − V is {ratio:.3f} times that with the total return"
    falls = all(b < a for a, b in pairwise(mean))
    return Outcome(
        decide(gap <= EXACT and falls and last > 0.5, caveat=every < 1.0),
        f"All of them are unbiased (to {gap:.0e}). On {len(small())} random MDPs the mean variance of one episode falls from "
        f"{mean[0]:.2f} ({CHAIN[0]}) to {mean[1]:.2f} ({CHAIN[1]}), {mean[2]:.2f} ({CHAIN[2]}) and {mean[3]:.2f} ({CHAIN[3]}). "
        f"With {len(cases) - len(small())} smaller ones, the three steps lower it on {share[0]:.0%}, {share[1]:.0%} and "
        f"{share[2]:.0%} of the MDPs, and all three on {every:.0%}; the advantage has the least variance of the four on "
        f"{last:.0%}. The exact Q and V are for free here.",
        {f"mean variance, {name}": float(x) for name, x in zip(CHAIN, mean, strict=True)}
        | {
            "largest |E ĝ − ∇J|": gap,
            "share of MDPs where each step lowers it": float(every),
            "share of MDPs where the advantage has the least": float(last),
            "variance with the advantage / with the total return, largest": ratio,
        },
        cases[worst].counterexample("found among random MDPs", what) if ratio > 1.0 else None,
    )
