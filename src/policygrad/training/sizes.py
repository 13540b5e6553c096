"""Numbers that do not fit: what is too large for this machine's memory, which is refused before anything is allocated, or for
a training, which is said; and how many environments there are.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from policygrad.algorithms.config import ConfigError, Preset, presets
from policygrad.algorithms.recipe import Recipe
from policygrad.algorithms.replay_learner import ReplayLearner
from policygrad.envs.advice import AdviceWarning
from policygrad.envs.checks import check_vector
from policygrad.envs.families import family_of
from policygrad.envs.naming import UNPREPARED, Identity
from policygrad.envs.single import EnvLike
from policygrad.models.observations import Encoding

COPIES_OF_NETWORKS = 8  # parameters, gradient and two moments of Adam, of policy and critic
REST = 7  # bytes of a step in a replay buffer besides observation and action: a reward and three flags
COPIES_OF_ROWS = 2  # the record, and the batch that is made of it


def check_sizes(config: Mapping[str, Any], envs: VectorEnv, own_body: bool) -> None:
    """Raises ConfigError if the networks, the observations of an iteration, or the replay buffer alone are larger than the
    machine's memory.
    """
    memory = machine_memory()
    try:
        encoding = Encoding(envs.single_observation_space)
    except TypeError:  # a recipe of one's own may know what to do with such observations
        return
    for name in () if own_body else ("hidden", "critic_hidden"):
        hidden = config.get(name) or ()
        parameters = sum(a * b for a, b in pairwise((encoding.width, *hidden)))
        _compare(f"networks with {name} = {hidden}", 4 * parameters * COPIES_OF_NETWORKS, memory, f"lower {name}")
    rows = config["num_envs"] * config.get("num_steps", 1)
    row = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in encoding.leaves)
    observations = f"num_envs × num_steps = {rows:,} observations"
    _compare(observations, rows * row * COPIES_OF_ROWS, memory, "lower num_steps or num_envs")
    if isinstance(steps := config.get("buffer_size"), int) and config.get("replay", True):
        space = envs.single_action_space
        act = math.prod(space.shape or ()) * (space.dtype or np.dtype(np.int64)).itemsize
        _compare(
            f"a replay buffer of buffer_size = {steps:,} steps", steps * (row + act + REST), memory, "lower buffer_size"
        )


def with_num_envs(env: EnvLike, overrides: dict[str, Any]) -> dict[str, Any]:
    """The keywords with the number of environments: an environment is one, and a vector environment brings its number.

    Raises ConfigError where another number is given.
    """
    given = {name for name in ("num_envs", "n_envs") if name in overrides}
    if isinstance(env, VectorEnv):
        check_vector(env)
        if any(overrides[name] != env.num_envs for name in given):
            raise ConfigError(f"num_envs = {overrides[given.pop()]}, but the vector environment has {env.num_envs}")
        return overrides if given else overrides | {"num_envs": env.num_envs}
    return overrides | {"num_envs": 1} if isinstance(env, gym.Env) and not given else overrides


def advise_preset(
    recipe: Recipe, config: Mapping[str, Any], given: Mapping[str, Any], known: Identity, preset: Preset | None
) -> None:
    """Warn where an environment has a tuned preset, but is wrapped, so that the recipe's defaults are taken instead."""
    if preset is None and UNPREPARED in known.wrapped:
        family = family_of(known.id)
        done = "" if family is None else f" ({family.prepared})"
        text = f"{known.id} is given as an object, and lacks what its id alone would have{done}"
        warnings.warn(f"{text}: pass the id, or preset={{}} if that is wanted", AdviceWarning, stacklevel=5)
        return
    tuned = presets(recipe).get(known.id or "") if preset is None and known.wrapped else None
    if tuned and not config.keys() <= given.keys() | {"steps"}:
        around = ", ".join(dict.fromkeys(known.wrapped))
        text = f"{known.id} has a tuned preset, which was not taken, because {around} may change the task"
        warnings.warn(f"{text}: preset={known.id!r} takes it, preset={{}} does not", AdviceWarning, stacklevel=5)


def advise_steps(learner: Any, steps: int, iteration: int) -> None:
    """Warn of a training that is over when its learner begins to learn. iteration: the steps of one; 0: nobody knows."""
    if not isinstance(learner, ReplayLearner):
        return
    steps = max(steps // iteration, 1) * iteration if iteration else steps
    if learner.waits >= steps > 0:
        has = f"{steps:,}{' in whole iterations' if iteration else ''}"
        text = f"warmup = {learner.warmup:,} steps are played before anything is learned, and this training has {has}"
        warnings.warn(f"{text}: lower warmup, or train for more steps", AdviceWarning, stacklevel=3)


def expected_steps(agent: Any, steps: int) -> int:
    """The steps of the whole iterations that fit into so many, at least one; steps themselves where iterations are episodes.

    A step in which an environment is only reset is counted here, though not by the collector.
    """
    rows = (agent.plan.wants.num_steps or 0) * agent.config["num_envs"]
    return max(steps // rows, 1) * rows if rows else steps


def machine_memory() -> float:
    """Bytes of this machine's memory; ∞ if the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _compare(what: str, size: float, memory: float, remedy: str) -> None:
    if size > memory:
        needed, there = (f"{x / 2**30:,.0f} GiB" for x in (size, memory))
        raise ConfigError(f"{what} would take {needed}, more than the {there} of this machine: {remedy}")
