"""A second environment like a given one, for evaluations during training."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from typing import Any

import gymnasium as gym

from policygrad.envs.lent import layers, readable

STEPS = 200  # of random play: what these change is no setting
ABSENT = object()


def twin(env: gym.Env) -> gym.Env:
    """An environment like this one: made from its spec, or, where settings were changed since it was made, a copy.

    Settings are the attributes that hold numbers, words and small arrays, that play does not change, and that two fresh
    environments agree on. Raises ValueError where a second one with the same settings cannot be had.
    """
    made = _from_spec(env)
    different = [] if made is None else changed_settings(env, made)
    if made is not None and not different:
        return made
    try:
        copy = deepcopy(env)
    except Exception as error:
        raise ValueError(f"this environment {_why(different)}: pass env= to evaluate in") from error
    own, copied = traits(env), traits(copy)
    if any(own[key] != copied.get(key) for key in different):
        raise ValueError(f"this environment {_why(different)}: pass env= to evaluate in")
    return copy


def _why(different: list[tuple[int, str]]) -> str:
    names = ", ".join(name for _, name in different)
    return f"was given another {names}, and a copy does not have it" if names else "cannot be made a second time"


def _from_spec(env: gym.Env) -> gym.Env | None:
    """A new environment from its spec; None if that is impossible, as with wrappers that do not record their arguments."""
    with suppress(Exception):
        return None if env.spec is None else gym.make(env.spec)
    return None


def traits(env: gym.Env) -> dict[tuple[int, str], Any]:
    """The attributes of every layer that can be compared, the bare environment's first."""
    return {
        (k, name): value if isinstance(value, str) or value is None else readable(value)
        for k, layer in enumerate(reversed(list(layers(env))))
        for name, value in vars(layer).items()
        if isinstance(value, str) or value is None or readable(value) is not None
    }


def changed_settings(env: gym.Env, made: gym.Env) -> list[tuple[int, str]]:
    """The settings in which the environment differs from the one made anew: not a state, and no number of its own.

    What play changes is a state; what two fresh environments do not agree on is each one's own, such as a connection.
    """
    own, fresh = traits(env), traits(made)
    found = [key for key, value in own.items() if fresh.get(key, ABSENT) != value]
    other = _from_spec(env) if found else None
    if other is None:
        return found
    try:
        unplayed = traits(other)
        play(other)
        played = traits(other)
        return [
            key for key in found if all(now.get(key, ABSENT) == fresh.get(key, ABSENT) for now in (unplayed, played))
        ]
    finally:
        with suppress(Exception):
            other.close()


def play(env: gym.Env) -> None:
    """Play an episode of random actions, or its beginning; errors are ignored here."""
    with suppress(Exception):
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(STEPS):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                break
