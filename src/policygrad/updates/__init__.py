"""Update rules: how the parameters move. There is one file per rule; none of them can see time, rewards or γ.

A rule is called `update(policy, batch, progress) -> Stats`, has `report(logp, batch) -> Stats` for numbers of its own, and
`state_dict` / `load_state_dict`. `diagnostics.py` measures what a rule did, whichever it is.
"""

from policygrad.updates.clipped import ClippedSurrogate
from policygrad.updates.first_order import FirstOrder
from policygrad.updates.natural import NaturalGradient
from policygrad.updates.penalized import PenalizedSurrogate
from policygrad.updates.trust_region import TrustRegion
from policygrad.updates.vanilla import VanillaGradient

__all__ = [
    "ClippedSurrogate",
    "FirstOrder",
    "NaturalGradient",
    "PenalizedSurrogate",
    "TrustRegion",
    "VanillaGradient",
]
