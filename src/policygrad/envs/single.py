"""Making one environment from an id, a callable or an environment, with keywords and wrappers; and its name."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from policygrad.envs.blame import brief, raise_foreign
from policygrad.envs.families import family_of, known, register
from policygrad.envs.wrappers import NewWorld
from policygrad.errors import ContractError, PolicygradError
from policygrad.files import parse_json
from policygrad.locate import callables_in, choice, locate, module_of
from policygrad.spelling import nearest

EnvLike = str | gym.Env | VectorEnv | Callable[[], gym.Env]
Wrapper = str | Callable[[gym.Env], gym.Env]  # module:name or file.py:name, or what it names

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
    register(env_id)
    if env_id not in gym.registry:
        try:
            gym.spec(env_id)
        except gym.error.Error as error:
            raise ValueError(f"unknown environment {env_id!r}. {_instead(env_id)}") from error
    return env_id


def _instead(env_id: str) -> str:
    """The sentence about what may be meant by an id that nobody has registered."""
    if env_id.endswith(".py"):
        found = callables_in(env_id)
        envs = [name for name, made in found.items() if isinstance(made, type) and issubclass(made, gym.Env)]
        return choice(env_id, envs or list(found)) + "."
    known()
    near = nearest_id(env_id)
    lists = "`policygrad list envs` lists the environments; name the module of one that a package registers: "
    return f"Did you mean {near!r}?" if near else f"{lists}module:{env_id}."


def nearest_id(env_id: str) -> str | None:
    """The registered id that is most like one: the newest of those that differ in version, namespace and letters' case only,
    or one that is spelt nearly so.
    """
    alike = [spec for spec in gym.registry.values() if _bare(spec.id) == _bare(env_id)]
    if alike:
        return max(alike, key=lambda spec: (spec.version or 0, spec.namespace is None)).id
    return nearest(env_id, gym.registry)


def _bare(env_id: str) -> str:
    """An id without namespace and version: pong of ALE/Pong-v5."""
    return re.sub(r"-v\d+$", "", env_id.rpartition("/")[2]).lower()


def own_maker(env_id: str) -> Callable[[], gym.Env] | None:
    """The class or function named by `module:Class` or `file.py:Class`; None for `module:Env-v0`, which its module registers.

    Raises ValueError where there is neither.
    """
    place, _, name = env_id.rpartition(":")
    try:
        if place and name and not place.endswith(".py") and not hasattr(module_of(place), name):
            gym.spec(name)
            return None
        made: Any = locate(env_id)
    except (ValueError, gym.error.Error) as error:
        raise ValueError(f"unknown environment {env_id!r}: {error}") from error
    if not callable(made):
        raise ValueError(
            f"unknown environment {env_id!r}: {made!r} is not a class or function that makes an environment"
        )
    return made  # pyright: ignore[reportReturnType]  make_one checks what it makes


def make_one(env: EnvLike, **kwargs: Any) -> gym.Env:
    """One environment without a render mode: drawing costs time, and LunarLander's particles slow its physics.

    kwargs: what an id or a callable is made with. Raises ForeignCodeError for what the environment's own code raises,
    ContractError where it lacks a space.
    """
    if isinstance(env, str) and ":" in env:
        env = own_maker(env) or env
    if isinstance(env, str):
        check_env_id(env)
    elif isinstance(env, VectorEnv):
        raise TypeError("expected an environment id, an environment or a callable, got a vector environment")
    try:
        made = _by_id(env, **kwargs) if isinstance(env, str) else _made(env, **kwargs)
    except gym.error.DependencyNotInstalled as error:
        reason = str(error).replace("gymnasium[mujoco]", "policygrad[mujoco]")  # with an engine that was tested
        raise ValueError(f"{env} needs a package that is not installed: {reason}") from error
    except PolicygradError:
        raise
    except (Exception, SystemExit) as error:
        raise_foreign(error, f"making the environment {env_name(env)} raised")
    if not isinstance(made, gym.Env):
        raise TypeError(f"the environment callable must return a gymnasium.Env, got {type(made).__name__}")
    for name in ("observation_space", "action_space"):
        check_space(made, name)
    mode, modes = kwargs.get("render_mode"), (made.metadata or {}).get("render_modes")
    if mode is not None and modes and mode not in modes:
        made.close()
        raise ContractError(
            f"{env_name(env)} has no render_mode {mode!r}: expected one of {', '.join(map(str, modes))}"
        )
    return made


def _by_id(env_id: str, **kwargs: Any) -> gym.Env:
    if (family := family_of(env_id)) is not None:
        return family.make(env_id, **kwargs)
    drawn = "render_mode" in kwargs
    with warnings.catch_warnings() if drawn else nullcontext():
        if drawn:  # of a mode that there is not, Gymnasium only warns
            warnings.filterwarnings("ignore", message=".*render_mode")
        made = gym.make(env_id, disable_env_checker=True, **kwargs)
    return NewWorld(made) if type(made.unwrapped).__module__ == "gymnasium.envs.box2d.bipedal_walker" else made


def _made(env: gym.Env | Callable[..., gym.Env], **kwargs: Any) -> gym.Env:
    return env if isinstance(env, gym.Env) else env(**kwargs)


def check_space(env: Any, name: str) -> None:
    """Refuse an environment whose attribute of this name is not a space."""
    space = getattr(env, name, None)
    if not isinstance(space, spaces.Space):
        raise ContractError(f"{type(env).__name__}.{name} must be a space of gymnasium.spaces, got {brief(space)}")


@dataclass(frozen=True)
class EnvMaker:
    """The maker of an environment: an id or a callable, its keywords, and wrappers, the innermost first.

    A wrapper is any function environment → environment, or its name, `module:name` or `file.py:name`. Calling it makes the
    environment, wherever one is needed: in training, evaluation and videos.
    """

    base: str | Callable[..., gym.Env]
    kwargs: Mapping[str, object]
    wrappers: tuple[Wrapper, ...]

    @property
    def __name__(self) -> str:
        return env_name(self.base)

    def __call__(self, render_mode: str | None = None) -> gym.Env:
        drawn = {} if render_mode is None else {"render_mode": render_mode}
        env = make_one(self.base, **{**self.kwargs, **drawn})
        for wrapper in self.wrappers:
            made = (locate(wrapper) if isinstance(wrapper, str) else wrapper)(env)
            if not isinstance(made, gym.Env):
                raise TypeError(
                    f"the wrapper {wrapper_name(wrapper)} must return a gymnasium.Env, got {type(made).__name__}"
                )
            env = made
        return env

    def words(self) -> dict[str, Any]:
        """Its keywords and the names of its wrappers, for files. env_kwargs is None if JSON cannot hold them."""
        try:
            kwargs = parse_json(json.dumps(dict(self.kwargs), allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            kwargs = None
        return {"env_kwargs": kwargs, "wrappers": [wrapper_name(wrapper) for wrapper in self.wrappers]}


def with_words(
    env: EnvLike, kwargs: Mapping[str, object] | None = None, wrappers: Sequence[Wrapper] | None = None
) -> EnvLike:
    """A maker of the environment with these keywords and wrappers; without any of them, the environment as given.

    Raises ValueError for an environment that is made already, LocateError and TypeError for what is no wrapper.
    """
    if not kwargs and not wrappers:
        return env
    if isinstance(env, gym.Env | VectorEnv):
        raise ValueError("env_kwargs and wrappers are for an id or a callable; this environment is made already")
    wrappers = [wrappers] if isinstance(wrappers, str) or callable(wrappers) else list(wrappers or ())
    for wrapper in wrappers:
        found = locate(wrapper) if isinstance(wrapper, str) else wrapper
        if not callable(found):
            raise TypeError(f"a wrapper is a function environment → environment, or its name, got {wrapper!r}")
    return EnvMaker(env, dict(kwargs or {}), tuple(wrappers))


def wrapper_name(wrapper: Any) -> str:
    """The name `module:name` of a wrapper, which may be given as a name already."""
    if isinstance(wrapper, str):
        return wrapper
    return f"{getattr(wrapper, '__module__', '')}:{getattr(wrapper, '__qualname__', type(wrapper).__name__)}"


def env_name(env: EnvLike) -> str:
    """A name for run directories and tables."""
    if isinstance(env, str):
        return env
    spec = getattr(env, "spec", None)
    if spec is not None:
        return spec.id
    return getattr(env, "__name__", type(env).__name__).strip("<>")
