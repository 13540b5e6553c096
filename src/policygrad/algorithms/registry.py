"""Where the package's own recipes are registered. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from policygrad.algorithms.recipe import Recipe, RecipeSpec, recipe

if TYPE_CHECKING:
    from policygrad.algorithms.task import Plan

RECIPES: dict[str, Recipe] = {}


def packaged(spec: RecipeSpec) -> Callable[[Callable[..., Plan]], Recipe]:
    """Register a recipe of the package under its function's name: command line, presets and tests pick it up from here."""

    def register(function: Callable[..., Plan]) -> Recipe:
        made = RECIPES[function.__name__] = recipe(spec, function.__name__)(function)
        return made

    return register
