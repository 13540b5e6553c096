"""The registry of all named algorithms, after the modules that register them have been imported, in the order of lists."""

from __future__ import annotations

from policygrad.algorithms import asynchronous, off_policy, on_policy
from policygrad.algorithms.registry import RECIPES

__all__ = ["RECIPES", "asynchronous", "off_policy", "on_policy"]
