"""Flags that several experiments have: MDPs by name, and numbers."""

from __future__ import annotations

from argparse import _ArgumentGroup
from collections.abc import Callable
from typing import Any, TypeVar

from policygrad.cli.parser import Parser
from policygrad.cli.values import UsageError, flag_of, parse_number

T = TypeVar("T")

SMALL = ("bandit", "two-states", "chain", "gridworld", "random", "small", "deceptive", "delayed", "aliased", "corridor")
GYMNASIUM = ("FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1", "Taxi-v4")
MDPS = (*SMALL, "rock-paper-scissors", *GYMNASIUM)


def add_mdp(where: Parser | _ArgumentGroup, what: str, default: str) -> None:
    """Add `--mdp NAME`. default: the text about the default; shell completion uses the names, too."""
    names = f"{', '.join(MDPS)}; or a .json file with the MDP's tables"
    action: Any = where.add_argument("--mdp", metavar="NAME", help=f"{what}: {names} [{default}]")
    action.words = MDPS


def optional(read: Callable[..., T], name: str, text: str | None, *rest: Any, **keywords: Any) -> T | None:
    """The value read from the text after a flag, or None if the flag was not given."""
    return None if text is None else read(name, text, *rest, **keywords)


def positive_number(name: str, text: str, also: str = "", least: float | None = None) -> float:
    """A number above 0, or from `least` up."""
    value = float(parse_number(name, float, text, also))
    if value <= 0.0 if least is None else value < least:
        raise UsageError(f"{flag_of(name)} = {text} must be {'above 0' if least is None else f'at least {least:g}'}.")
    return value
