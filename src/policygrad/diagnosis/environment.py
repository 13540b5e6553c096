"""The preflight of an environment: a few thousand random steps, and what the rules say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from policygrad.algorithms.config import resolve
from policygrad.algorithms.recipes import USUAL
from policygrad.diagnosis.play import another, play, uniform
from policygrad.diagnosis.preflight import RULES, SHORT, EnvironmentCase
from policygrad.diagnosis.symptoms import Diagnosis, examine
from policygrad.envs.single import EnvLike, Wrapper, env_name, make_one, with_words

EPISODES = 300  # after which the long play ends: enough to tell that fewer than 1 in 100 have a larger return
COMPONENTS = 16  # of an action that are tried one by one


def examine_environment(
    env: EnvLike,
    algo: str | None = None,
    steps: int = 20_000,
    seed: int = 0,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
) -> Diagnosis:
    """What random play of an environment shows. algo: whose γ and normalisation hold, with its preset; ppo's unless given."""
    case = play_all(with_words(env, env_kwargs, wrappers), algo, steps, seed)
    settings = f"the settings of {algo}" if algo else f"γ and normalisation of {USUAL}"
    subject = f"{case.name}: {case.long.steps:,} steps and {len(case.long.lengths)} episodes of random play, {settings}"
    return examine(subject, RULES, case)


def play_all(env: EnvLike, algo: str | None, steps: int, seed: int) -> EnvironmentCase:
    """Everything that the rules look at."""
    make = maker(env)
    short = min(SHORT, steps)
    first, again = (play(make, short, seed) for _ in range(2))
    other = play(make, short, seed, lambda space: uniform(space, seed + 1))
    count = 0 if first.error is not None else components(make)
    parts = [play(make, short, seed, partial(another, seed=seed, component=i)) for i in range(count)]
    name = env_name(env)
    config, _ = resolve(algo or USUAL, name, {})
    return EnvironmentCase(
        name, make, first, again, other, parts, play(make, steps, seed + 1, episodes=EPISODES), algo, config
    )


def maker(env: EnvLike) -> Callable[[], gym.Env]:
    """What makes the environment; one that is made already is played again and again, and not closed."""
    if not isinstance(env, gym.Env):
        return partial(make_one, env)
    make_one(env)
    return lambda: LeftOpen(env)


class LeftOpen(gym.Wrapper):
    """An environment of the user's, which stays open."""

    def close(self) -> None:
        """Leave it open."""


def components(make: Callable[[], gym.Env]) -> int:
    """The number of components of an action; 0 where there is one alone, or too many."""
    env = make()
    space: Any = env.action_space
    env.close()
    size = int(np.prod(space.shape)) if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary) else 1
    return size if 1 < size <= COMPONENTS else 0
