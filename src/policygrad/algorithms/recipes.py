"""The registry of all named algorithms, after the modules that register them have been imported, in the order of lists."""

from __future__ import annotations

from policygrad.algorithms import off_policy, on_policy  # in this order in lists
from policygrad.algorithms.registry import RECIPES

__all__ = ["RECIPES", "off_policy", "on_policy"]
