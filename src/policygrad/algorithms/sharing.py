"""The keywords of one network for policy and values, and which of a separate critic's contradict them. Nothing heavy is
imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from policygrad.algorithms.keywords import Option

SEPARATE = ("critic_lr", "critic_epochs", "critic_minibatches", "critic_hidden", "critic")  # of a critic's own network


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The keywords of one network for policy and values."""

    shared_body: Annotated[
        bool, Option("one network for policy and values, with one optimiser and one norm of the gradient of both")
    ] = False
    value_coef: Annotated[
        float,
        Option(
            "with shared_body: weight of the values' loss, ½ (V − target)², beside the policy's gain; usually 0.25 to 1",
            0,
            1000,
            tune=(0.1, 2, "log"),
        ),
    ] = 0.5


def fitting_preset(preset: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A preset without the hyperparameters of a separate critic, where there is to be none."""
    shared = (dict(preset) | dict(overrides)).get("shared_body")
    return {name: value for name, value in preset.items() if not (shared is True and name in SEPARATE)}


def contradiction(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """What is wrong with a configuration that says something of a network that there is not; None: nothing."""
    shared = config.get("shared_body", False)
    names = SEPARATE if shared else ("value_coef",)
    name = next((name for name in names if name in config and config[name] != defaults[name]), None)
    if name is None:
        return None
    if shared:
        return (
            f"{name} = {config[name]} is for a critic with a network of its own, and with shared_body = true the values are an "
            f"output of the policy's: leave {name} out, or set shared_body = false"
        )
    return (
        f"value_coef = {config[name]:g} is the weight of the values' loss in a network that policy and values share: set "
        "shared_body = true. A critic of its own has its own optimiser, see critic_lr"
    )
