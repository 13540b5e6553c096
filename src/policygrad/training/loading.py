"""Agents from files: nothing in a file is executed, and a file names no module to import."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from policygrad.algorithms.config import Algo, ConfigError, find_recipe
from policygrad.algorithms.recipe import current_keywords
from policygrad.envs.make import BACKENDS
from policygrad.envs.single import EnvLike, check_env_id
from policygrad.errors import EnvError
from policygrad.forms import FormError, anything, each, flag, setting, table, text, whole
from policygrad.models.kernels import KERNELS
from policygrad.models.policy import Body
from policygrad.stored.storage import Announced, ModelFileError, open_state, with_suffix
from policygrad.stored.trajectories import Trajectories
from policygrad.training.agent import Agent

MAX_ROWS = 2**28  # steps of an iteration that a file may ask for

HIDDEN = table({"hidden": each(whole(1), 100)}, others=anything)
META = table(
    {
        "algo": text(1000),
        "env": text(1000),
        "seed": whole(0, 2**63 - 1),
        "config": table({}, others=setting),
        "custom": flag,
        "kernel": text(choices=KERNELS),
        "observation_space": anything,
        "action_space": anything,
    },
    optional={"backend": text(choices=BACKENDS)},  # files of 0.4 have none
)


def same_recipe(one: str, other: str) -> bool:
    """Whether two names can be of one recipe: a module may have moved, its function keeps its name."""
    return (":" in one) == (":" in other) and one.rpartition(":")[2] == other.rpartition(":")[2]


def load(
    path: str | Path,
    env: EnvLike | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    dataset: Trajectories | str | Path | None = None,
    recipe: Algo | None = None,
) -> Agent:
    """An agent from a file of `Agent.save` or a run's policy.safetensors. Nothing in the file is executed.

    env: needed when the agent was not made from an environment id. recipe: needed when it was made by one from outside the
    package, whose module a file may not import. body, critic_body: needed when it had its own. dataset: to
    learn on from stored trajectories.
    """
    path = with_suffix(path)
    with open_state(path) as file, _as_model_error(path, own_env=env is not None):
        meta = file.meta
        META("description", meta)
        _check_recipe(path, meta, recipe)
        if meta["custom"] and body is None and critic_body is None:
            raise ValueError(
                f"{path} was saved with a custom network: pass body= (and critic_body=) as when it was made"
            )
        env = _environment(path, meta["env"]) if env is None else env
        config = current_keywords(meta["algo"], meta["config"])
        if isinstance(env, gym.Env | VectorEnv):
            config["num_envs"] = getattr(env, "num_envs", 1)
        _check_sizes(path, meta, file.tensors)
        agent = Agent(
            meta["algo"] if recipe is None else recipe,
            env,
            seed=meta["seed"],
            body=body,
            critic_body=critic_body,
            kernel=meta["kernel"],
            backend="auto" if isinstance(env, VectorEnv) or meta.get("backend") == "envpool" else "gymnasium",
            dataset=dataset,
            **config,
        )
        own = agent.metadata()
        for name in ("observation_space", "action_space"):
            if own[name] != meta[name]:
                raise ValueError(f"{path} was trained with {name} {meta[name]}, the environment has {own[name]}")
        agent.load_state_dict(file.state(agent.state_form(policy_only="collector" not in file.tree)))
    return agent


def _check_sizes(path: Path, meta: Mapping[str, Any], tensors: Mapping[str, Announced]) -> None:
    """Refuse a description that asks for networks which the file does not have, or for more steps than memory has."""
    config = meta["config"]
    if not (meta["custom"] or ":" in meta["algo"]):  # one's own network need not have these widths
        HIDDEN("description/config", config)
        widths, shapes = config["hidden"], {x.shape for x in tensors.values()}
        layers = [(b, a) for a, b in pairwise(widths)] + [(a,) for a in widths[:1]]
        if not shapes.issuperset(layers):
            raise ModelFileError(f"{path} says hidden = {widths}, but its weights have other sizes")
    rows = math.prod(x for x in (config.get("num_envs"), config.get("num_steps")) if isinstance(x, int))
    if rows > MAX_ROWS:
        raise ModelFileError(
            f"{path} asks for {rows:,} steps an iteration, more than the {MAX_ROWS:,} a file may ask for"
        )


@contextmanager
def _as_model_error(path: Path, own_env: bool) -> Iterator[None]:
    """Name the file in errors of what it holds; those of the user's own environment stay what they are."""
    try:
        yield
    except EnvError:
        raise
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except FormError as error:
        raise ModelFileError(f"{path} does not hold what it should: {error}") from error
    except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        if isinstance(error, TypeError) and own_env:  # unsupported spaces
            raise
        raise ModelFileError(f"{path} does not hold a policygrad agent ({type(error).__name__}: {error})") from error


def _check_recipe(path: Path, meta: dict, recipe: Algo | None) -> None:
    """Refuse to import a recipe because a file says so, and another recipe than the file's."""
    if recipe is None and ":" in meta["algo"]:
        raise ValueError(
            f"{path} was trained by the recipe {meta['algo']!r}, which loading does not import: pass recipe=, the function"
        )
    if recipe is not None and not same_recipe(find_recipe(recipe).name, meta["algo"]):
        raise ValueError(f"{path} was trained by the recipe {meta['algo']}, not by {find_recipe(recipe).name}")


def _environment(path: Path, name: str) -> str:
    """The id of the environment, if the file alone is enough to make it."""
    try:
        if ":" in name:
            raise ValueError("a file may not name a module to import")
        return check_env_id(name)
    except ValueError as error:
        raise ValueError(
            f"{path} was trained on {name!r}, which cannot be made from the file alone: pass env="
        ) from error
