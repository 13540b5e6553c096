"""Environments that other code holds, too: detecting whether it has stepped them between two records.

Nothing is patched: the environments' own attributes tell. Those that have changed while we stepped (the time, the state, the
random generator) must be between two records what we left. A setting that a callback turns does not change in steps, so it
is none of them. An environment that keeps all of its state where Python cannot see it cannot be seen to move; hence
`Agent.learn` begins with a reset of everything that was lent.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np

SMALL = 256  # numbers of an array that is looked at
REALS, SEQUENCES = (float, int, np.number, np.bool_), (tuple, list)
FIRST = 20  # steps that are looked at one by one, to see what they change

Traits = dict[tuple[int, int, str], Any]


class Witness:
    """Remembers the state of environments after our last step, to detect changes by others."""

    def __init__(self, envs: Iterable[gym.Env]) -> None:
        self.layers = [list(layers(env)) for env in envs]
        self.now: Traits = {}
        self.moving: set[tuple[int, int, str]] = set()  # what changes when they are stepped
        self.looks, self.warned = 0, False

    def traits(self) -> Traits:
        """The numbers, small arrays and generators among the attributes of every layer of every environment."""
        return {
            (i, k, name): trait
            for i, chain in enumerate(self.layers)
            for k, layer in enumerate(chain)
            for name, value in vars(layer).items()
            if value is not None and (trait := readable(value)) is not None
        }

    def begin(self) -> None:
        """Note that we have reset the environments."""
        self.now = self.traits()

    def look(self) -> None:
        """Note that we have stepped the environments."""
        before, self.now = self.now, self.traits()
        self.moving |= {key for key, trait in self.now.items() if before.get(key, trait) != trait}

    def watching(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The vector environment's step, with a look after each of the first ones."""
        if self.looks >= FIRST:
            return step

        def stepped(actions: Any) -> Any:
            answer = step(actions)
            if self.looks < FIRST:
                self.looks += 1
                self.look()
            return answer

        return stepped

    def moved(self) -> bool:
        """Whether other code has moved the environments since; warns the first time."""
        left, self.now = self.now, self.traits()
        changed = [key for key in self.moving if self.now.get(key) != left.get(key)]
        if changed and not self.warned:
            self.warned = True
            i, k, name = min(changed)
            warnings.warn(
                f"other code stepped or reset the environment {type(self.layers[i][k]).__name__} in the middle of training "
                f"(its {name} has changed): it was reset, and its open episode is not counted",
                stacklevel=2,
            )
        return bool(changed)


def layers(env: gym.Env) -> Iterable[gym.Env]:
    """The environment and all environments inside it, from the outermost to the bare one."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def readable(value: Any) -> Any:
    """A value that can be compared, for an attribute; None for attributes that are ignored."""
    if isinstance(value, REALS):
        return value if value == value else "nan"  # which is not even itself
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.size <= SMALL and value.dtype.kind in "biuf" else None
    if isinstance(value, SEQUENCES):
        return repr(value) if len(value) <= SMALL and all(isinstance(x, REALS) for x in value) else None
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    return None
