"""Claims about asynchronous workers, which push gradients of older parameters."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, small
from policygrad.lab.theory.delays import delayed_ascent

DELAYS, RATES = (0, 1, 2, 4, 8), (0.01, 0.03, 0.1)


@claim(
    "Asynchronous updates: staleness biases the gradient, the more so the longer the delay and the larger the step.",
    "exact",
)
def staleness_biases_the_gradient() -> Outcome:
    """Exact ascents with gradients of k updates ago; the mean relative error of these gradients."""
    found = [delayed_ascent(c.mdp, c.policy, delays=DELAYS, rates=RATES, updates=16) for c in small()[:5]]
    bias = np.array([[[f.find(k, rate).bias for k in DELAYS] for rate in RATES] for f in found])  # (MDP, rate, delay)
    fresh = float(bias[:, :, 0].max())
    longer = all((b > a).all() for a, b in pairwise(np.moveaxis(bias, 2, 0)))
    larger = all((b > a).all() for a, b in pairwise(np.moveaxis(bias[:, :, 1:], 1, 0)))
    by_delay, by_rate = (float(np.median([getattr(f, x) for f in found])) for x in ("delay_order", "rate_order"))
    first_order = abs(by_delay - 1.0) < 0.2 and abs(by_rate - 1.0) < 0.2
    median, lower = np.median(bias, 0), sum(f.find(8, 0.1).J[-1] < f.find(0, 0.1).J[-1] for f in found)
    return Outcome(
        decide(fresh <= EXACT and longer and larger and first_order),
        f"On {len(found)} random MDPs the bias grows with every delay and with every step size, as delay^{by_delay:.2f} and "
        f"step^{by_rate:.2f} (medians). With steps of {RATES[-1]} · ∇J a gradient of 1 update ago is wrong by "
        f"{median[-1, 1]:.1%} of ‖∇J‖, one of 8 updates ago by {median[-1, -1]:.0%}; with steps of {RATES[0]} by "
        f"{median[0, 1]:.1%} and {median[0, -1]:.1%}. It need not cost return: with the delay of 8, J after 16 updates is "
        f"lower on {lower} of the {len(found)} MDPs and higher on the others.",
        {"largest bias without a delay": fresh, "order in the delay, median": by_delay}
        | {"order in the step size, median": by_rate, "MDPs of 5 on which J is lower with a delay of 8": float(lower)}
        | {f"bias, delay {k}, step size {RATES[-1]}, median": float(x) for k, x in zip(DELAYS, median[-1], strict=True)}
        | {f"bias, delay {k}, step size {RATES[0]}, median": float(x) for k, x in zip(DELAYS, median[0], strict=True)},
    )
