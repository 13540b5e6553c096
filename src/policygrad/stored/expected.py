"""The form of a file of trajectories: columns whose types and shapes follow from its description of the task."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from policygrad.forms import MANY, Form, FormError, anything, array, maybe, table, text
from policygrad.models.action_spaces import MASK_SOURCES, make_head
from policygrad.models.observations import Encoding
from policygrad.stored.storage import space_from_json
from policygrad.tree import Tree

ABOUT = table(
    {
        "trajectories": table(
            {
                "env": text(1000),
                "observation_space": anything,
                "action_space": anything,
                "legal": text(choices=[source for source in MASK_SOURCES if source != "auto"]),
                "head": text(1000),
            }
        )
    }
)


def form_of_columns(about: dict[str, Any], numbers: int) -> Form:
    """Of the columns of a file, by its own description. numbers: how many the file has. Raises FormError for odd ones."""
    observation, action = (space_from_json(about[f"{name}_space"], numbers) for name in ("observation", "action"))
    try:
        context = make_head(action, masked=about["legal"] != "none").context
        room = Encoding(observation, context, about["legal"]).empty(0)
    except (TypeError, ValueError) as error:
        raise FormError(f"its description makes no task: {error}") from error
    most = {spaces.Discrete: "n", spaces.MultiDiscrete: "nvec"}.get(type(action))
    high = 1 if most is None else int(np.max(getattr(action, most))) - 1
    shape = (None, *(action.shape or ()))
    columns = {
        "obs": _column(room),
        "act": array(shape, "float32") if isinstance(action, spaces.Box) else array(shape, "int64", 0, high),
        "rew": array((None,), "float32|float64"),
        "logp": maybe(array((None,), "float32|float64")),
        "policy": array((None,), "int64", 0, MANY),
        "length": array((None,), "int64", 1, MANY),
        "terminated": array((None,), "bool", None),
    }
    return table(columns)


def _column(room: Tree) -> Form:
    """Of observations, by room for none of them: floats are finite, and integers may be any."""
    if isinstance(room, dict):
        return table({name: _column(part) for name, part in room.items()})
    shape, dtype = (None, *room.shape[1:]), str(room.dtype)
    return array(shape, dtype) if room.dtype.kind == "f" else array(shape, dtype, None)
