"""Sabotages of claims about baselines."""

from __future__ import annotations

from policygrad.gradient import baselines as production
from policygrad.lab.claims import baselines as claims
from sabotages import Sabotage, replaced, together, wrapped


def looks_ahead(self, rollout, ret, values):
    return values.next_val


def proportional(c, b):
    """A variance that is 3 E[(G − b)²]."""
    ret = claims.TotalReturn(c.mdp.gamma)(c.rollout, claims.Values.zeros(c.rollout)).ret[0]
    return 3.0 * float(c.mean((ret - b).square()))


def with_v(c, kind):
    """No baseline has a lower variance than V."""
    return c.variance(claims.to_go(c, production.CriticValue()))


def negative(of):
    return lambda self, *given: -of(self, *given)


AHEAD = replaced(production.CriticValue, "__call__", looks_ahead)
NO_DEFECTS = together(
    replaced(claims, "NextValue", production.NoBaseline),
    replaced(claims, "ActionValue", production.NoBaseline),
    replaced(claims, "SameBatchFit", lambda inner: production.LeaveOneOut()),
)
FITS_ON_ALL = replaced(claims, "CrossFit", lambda inner, folds: claims.SameBatchFit(inner))

SABOTAGES = [
    Sabotage("baseline-adds-no-bias", AHEAD),
    Sabotage("unbiased-with-any-baseline", AHEAD, slow=True),
    Sabotage("unbiased-with-any-baseline", NO_DEFECTS, "holds", slow=True),
    Sabotage("fit-baseline-on-other-data", FITS_ON_ALL),
    Sabotage("fit-baseline-on-other-data", NO_DEFECTS),
    Sabotage("constant-baseline-lowers-variance", replaced(claims, "by_constant", lambda c, b: 1.0 + abs(b))),
    Sabotage("variance-follows-squared-error", replaced(claims, "by_constant", proportional), "holds"),
    Sabotage("value-is-the-best-baseline", replaced(claims, "least_variance", with_v), "holds with caveat"),
    Sabotage("average-reward-to-go-as-baseline", wrapped(production.TimeAverage, "__call__", negative), slow=True),
]
