"""One environment from whatever a user has: an id, a callable, an environment; and what it is called."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from policygrad.envs.blame import brief, raise_foreign
from policygrad.envs.wrappers import NewWorld
from policygrad.errors import ContractError
from policygrad.locate import locate

EnvLike = str | gym.Env | VectorEnv | Callable[[], gym.Env]

RENAMED = {
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
}


def check_env_id(env_id: str) -> str:
    """The id, if Gymnasium can make it. Raises ValueError with the nearest match, or the new name, otherwise."""
    if env_id in RENAMED:
        raise ValueError(f"{env_id} is {RENAMED[env_id]} now: Gymnasium 1.x no longer has the old version")
    if ":" in env_id:
        own_maker(env_id)
        return env_id
    if env_id not in gym.registry:
        try:
            gym.spec(env_id)
        except gym.error.Error as error:
            near = nearest(env_id, gym.registry)
            hint = f" Did you mean {near!r}?" if near else " `policygrad list envs` lists the environments."
            raise ValueError(f"unknown environment {env_id!r}.{hint}") from error
    return env_id


def own_maker(env_id: str) -> Callable[[], gym.Env] | None:
    """What makes the environment of `module:Class` or `file.py:Class`; None for `module:Env-v0`, which its module registers.

    Raises ValueError where there is neither.
    """
    module, _, name = env_id.rpartition(":")
    try:
        if not module.endswith(".py"):
            found = import_module(module)
            if not hasattr(found, name):
                gym.spec(name)
                return None
        made: Any = locate(env_id)
    except (ImportError, TypeError, ValueError, gym.error.Error) as error:
        raise ValueError(f"unknown environment {env_id!r}: {error}") from error
    if not callable(made):
        raise ValueError(
            f"unknown environment {env_id!r}: {made!r} is not a class or function that makes an environment"
        )
    return made  # pyright: ignore[reportReturnType]  make_one checks what it makes


def nearest(word: str, known: Any) -> str | None:
    """The known name most like word, ignoring case, or None."""
    names = {str(name).lower(): str(name) for name in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.7)
    return names[close[0]] if close else None


def make_one(env: EnvLike) -> gym.Env:
    """One environment without a render mode: drawing costs time, and LunarLander's particles slow its physics.

    Raises ForeignCodeError for what the environment's own code raises, ContractError where it lacks a space.
    """
    if isinstance(env, str) and ":" in env:
        env = own_maker(env) or env
    if isinstance(env, str):
        check_env_id(env)
    elif isinstance(env, VectorEnv):
        raise TypeError("expected an environment id, an environment or a callable, got a vector environment")
    try:
        made = _by_id(env) if isinstance(env, str) else _made(env)
    except gym.error.DependencyNotInstalled as error:
        reason = str(error).replace("gymnasium[mujoco]", "policygrad[mujoco]")  # with an engine that was tested
        raise ValueError(f"{env} needs a package that is not installed: {reason}") from error
    except (Exception, SystemExit) as error:
        raise_foreign(error, f"making the environment {env_name(env)} raised")
    if not isinstance(made, gym.Env):
        raise TypeError(f"the environment callable must return a gymnasium.Env, got {type(made).__name__}")
    for name in ("observation_space", "action_space"):
        check_space(made, name)
    return made


def _by_id(env_id: str) -> gym.Env:
    made = gym.make(env_id, disable_env_checker=True)
    return NewWorld(made) if type(made.unwrapped).__module__ == "gymnasium.envs.box2d.bipedal_walker" else made


def _made(env: gym.Env | Callable[[], gym.Env]) -> gym.Env:
    return env if isinstance(env, gym.Env) else env()


def check_space(env: Any, name: str) -> None:
    """Refuse an environment whose attribute of this name is no space."""
    space = getattr(env, name, None)
    if not isinstance(space, spaces.Space):
        raise ContractError(f"{type(env).__name__}.{name} must be a space of gymnasium.spaces, got {brief(space)}")


def env_name(env: EnvLike) -> str:
    """A name for run directories and tables."""
    if isinstance(env, str):
        return env
    spec = getattr(env, "spec", None)
    if spec is not None:
        return spec.id
    return getattr(env, "__name__", type(env).__name__).strip("<>")
