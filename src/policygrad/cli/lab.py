"""`policygrad lab`: experiments on gradients and update steps. Each is a module with `parser()` and `run(words)`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from policygrad.cli.tables import paragraph
from policygrad.cli.values import UsageError

EXPERIMENTS = {  # usage, what it shows, module
    "audit": ("audit", "estimators of the gradient against the exact one: bias, variance, episodes", "lab_audit"),
    "steps": ("steps [RUN]", "one policy, one batch: the step of each update rule, and what it is worth", "lab_steps"),
    "theory": ("theory [WHICH …]", "lemmas, orders, bounds: what theory says, measured", "lab_theory"),
    "claims": (
        "claims [WHICH …]",
        "what textbooks say about policy gradients, each claim with a verdict",
        "lab_claims",
    ),
}

HELP = """usage: policygrad lab EXPERIMENT …

Experiments on gradients and update steps: exact on small MDPs, and on policies that were trained.

{experiments}

Every experiment has --help.
"""


def lab(words: Sequence[str]) -> None:
    """`policygrad lab`."""
    name, rest = (words[0], words[1:]) if words else ("help", [])
    if name in ("help", "-h", "--help"):
        width = max(len(usage) for usage, _, _ in EXPERIMENTS.values()) + 2
        rows = "\n".join(f"  {usage:<{width}}{what}" for usage, what, _ in EXPERIMENTS.values())
        print(paragraph(HELP.format(experiments=rows), " " * 4), end="")
        return
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(EXPERIMENTS)}."
        raise UsageError(f"there is no experiment {name!r}. {hint}")
    module(name).run(rest)


def module(name: str) -> ModuleType:
    """Where an experiment is: `parser()` makes its flags, `run(words)` runs it."""
    return import_module(f"policygrad.cli.{EXPERIMENTS[name][2]}")
