"""Keywords that a user gives and that would have no effect beside the others. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from policygrad.algorithms.keywords import Returns
from policygrad.algorithms.memory_keywords import Recurrence

OF_A_CRITIC = ("critic_lr", "critic_epochs", "critic_minibatches", "critic_hidden")


def without_effect(given: Sequence[str], config: Mapping[str, Any], groups: Sequence[type]) -> str | None:
    """What is wrong with keywords that were given by name; None: nothing. groups: the recipe's, see `recipe.Recipe`.

    A whole configuration, as files and other agents have it, says nothing about what was meant, and is believed.
    """
    if set(given) >= set(config):
        return None
    baseline = config["baseline"] if Returns in groups else "value"  # another recipe may mean something else by it
    memory = config["memory"] if any(issubclass(group, Recurrence) for group in groups) else "gru"
    for name in given:
        said = f"{name} = {config.get(name)}"
        if name == "baseline_value" and Returns in groups and baseline != "constant":
            return f"{said} is for baseline = constant, and the baseline is {baseline}: set that, or leave {name} out"
        if name in OF_A_CRITIC and baseline != "value":
            return (
                f"{said} is for a critic, and baseline = {baseline} has none: set baseline = value, or leave {name} out"
            )
        if name == "memory_size" and memory == "none":
            return f"{said} is for policies with a memory: set memory = gru or lstm, or leave {name} out"
    if (
        Returns in groups
        and "baseline" in given
        and baseline == "constant"
        and "baseline_value" not in given
        and not config["baseline_value"]
    ):
        return (
            "baseline = constant needs its value: set baseline_value; 0, the default, is no baseline, baseline = none"
        )
    return None
