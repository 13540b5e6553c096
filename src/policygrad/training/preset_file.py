"""A configuration as a preset file, which `policygrad train --preset FILE` and `preset=FILE` read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from policygrad.algorithms.config import Algo, ConfigError, parameters


def preset_text(algo: Algo, env: str, config: Mapping[str, Any], comments: Sequence[str] = ()) -> str:
    """The TOML text: a table for the environment with all that differs from the algorithm's defaults, and the steps.

    Raises ConfigError for a value that TOML does not have.
    """
    check_expressible(algo, config)
    defaults = {name: default for name, (_, default) in parameters(algo).items()}
    own = {name: value for name, value in config.items() if name == "steps" or value != defaults[name]}
    head = [f"# {line}".rstrip() for line in comments] + [""] * bool(comments)
    lines = [*head, f"[{json.dumps(env)}]", *(f"{name} = {_toml(value)}" for name, value in own.items())]
    return "\n".join(lines) + "\n"


def check_expressible(algo: Algo, config: Mapping[str, Any]) -> None:
    """Raise ConfigError for `none` in place of another default: a preset file cannot say it."""
    for name, (_, default) in parameters(algo).items():
        if name in config and config[name] is None and default is not None:
            raise ConfigError(
                f"{name} = none cannot be kept in a preset file, because TOML has no such value: leave it out"
            )


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value) if isinstance(value, str | bool) else repr(value)
