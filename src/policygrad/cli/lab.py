"""`policygrad lab`: experiments on gradients and update steps. Each is a module with `parser()` and `run(words)`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from policygrad.cli.tables import paragraph
from policygrad.cli.values import UsageError

EXPERIMENTS = {  # usage, description, module
    "audit": ("audit", "compare gradient estimators with the exact gradient", "lab_audit"),
    "steps": ("steps [RUN]", "compare the steps of all update rules from one policy", "lab_steps"),
    "theory": ("theory [WHICH …]", "measure what theory predicts: lemmas, orders, bounds", "lab_theory"),
    "claims": (
        "claims [WHICH …]",
        "test claims of textbooks, each with a verdict",
        "lab_claims",
    ),
}

HELP = """usage: policygrad lab EXPERIMENT …

Experiments on gradients and update steps, exact on small MDPs or measured on
trained policies.

{experiments}

`policygrad lab EXPERIMENT --help` explains an experiment.

examples:
  policygrad lab audit --mdp chain
  policygrad lab steps latest
"""


def lab_command(words: Sequence[str]) -> None:
    """`policygrad lab`."""
    name, rest = (words[0], words[1:]) if words else ("help", [])
    if name in ("help", "-h", "--help"):
        width = max(len(usage) for usage, _, _ in EXPERIMENTS.values()) + 2
        rows = "\n".join(f"  {usage:<{width}}{what}" for usage, what, _ in EXPERIMENTS.values())
        print(paragraph(HELP.format(experiments=rows), " " * 4), end="")
        return
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Available: {', '.join(EXPERIMENTS)}."
        raise UsageError(f"there is no experiment {name!r}. {hint}")
    module(name).run(rest)


def module(name: str) -> ModuleType:
    """The module of an experiment: `parser()` makes its parser, `run(words)` runs it."""
    return import_module(f"policygrad.cli.{EXPERIMENTS[name][2]}")
