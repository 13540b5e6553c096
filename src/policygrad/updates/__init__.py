"""Update rules: how the parameters move. One file a rule; none of them can see time, rewards or γ.

A rule is called `update(policy, batch, progress) -> Stats`, has `report(logp, batch) -> Stats` for numbers of its own, and
`state_dict` / `load_state_dict`.
"""

from policygrad.updates.clipped import ClippedSurrogate
from policygrad.updates.first_order import FirstOrder
from policygrad.updates.vanilla import VanillaGradient

__all__ = ["ClippedSurrogate", "FirstOrder", "VanillaGradient"]
