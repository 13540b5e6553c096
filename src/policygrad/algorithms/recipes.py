"""The registry of all named algorithms, after the modules that register them have been imported, in the order of lists."""

from __future__ import annotations

# isort: off
from policygrad.algorithms import on_policy
from policygrad.algorithms import asynchronous
from policygrad.algorithms import off_policy
from policygrad.algorithms.registry import RECIPES
# isort: on

USUAL = "ppo"  # the one to try first, in advice where none is named

__all__ = ["RECIPES", "USUAL", "asynchronous", "off_policy", "on_policy"]
