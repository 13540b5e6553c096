"""Trained policies that come with the package, with their recorded evaluations: `load_policy("pretrained:ppo-CartPole-v1")`.

`benchmarks/pretrained.py` trains and evaluates them, and writes `src/policygrad/pretrained/`.
"""

from __future__ import annotations

import difflib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from policygrad.errors import UserError

PRETRAINED = "pretrained:"


class UnknownPolicyError(UserError, ValueError):
    """No policy of this name comes with the package."""


FOLDER = Path(str(files("policygrad") / "pretrained"))


def policies() -> dict[str, dict[str, Any]]:
    """The policies by name: `algo`, `env`, `seed`, `steps`, `overrides` of the preset, and the evaluations `greedy` and
    `sampled`: mean, std, 95 % interval and number of episodes.
    """
    return json.loads((FOLDER / "policies.json").read_text("utf8"))


def pretrained_file(name: str) -> Path:
    """The model file of a policy that comes with the package. Raises UnknownPolicyError."""
    known = policies()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
        raise UnknownPolicyError(f"no policy {name!r} comes with policygrad. {hint}")
    return FOLDER / f"{name}.safetensors"


def folder_of(model: Path) -> Path:
    """The folder of a model file, where others are written beside it; never the package's own, but the working directory."""
    return Path() if model.parent == FOLDER else model.parent
