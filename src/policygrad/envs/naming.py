"""Which registered environment it is, through callables, wrappers and vector environments: for presets and names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv, VectorWrapper

from policygrad.envs.checks import singles
from policygrad.envs.families import family_of
from policygrad.envs.lent import layers
from policygrad.envs.single import EnvLike, EnvMaker, env_name, make_one
from policygrad.envs.twin import changed_settings

NEUTRAL = frozenset(  # wrappers that change neither observations nor actions nor rewards
    [
        "Autoreset",
        "DictInfoToList",
        "HumanRendering",
        "Monitor",
        "NewWorld",
        "OrderEnforcing",
        "PassiveEnvChecker",
        "RecordEpisodeStatistics",
        "RecordVideo",
        "RenderCollection",
        "TimeLimit",
    ]
)

UNPREPARED = "the missing preparation"  # of an object that its id alone would have


@dataclass(frozen=True)
class Identity:
    """What is known of an environment.

    name: for run directories and model files. id: of the registered environment that it is made of, or None. wrapped: the
    wrappers around that one that may change the task. first: the environment that a callable has made to be looked at.
    """

    name: str
    id: str | None = None
    wrapped: tuple[str, ...] = ()
    first: gym.Env | None = None

    @property
    def preset(self) -> str | None:
        """The id, where the task is that of the id: a preset was tuned for it."""
        return None if self.wrapped else self.id


@dataclass
class HandedOut:
    """A callable whose first environment is made already."""

    make: Any  # a function that makes an environment
    first: gym.Env | None

    @property
    def __name__(self) -> str:
        return env_name(self.make)

    def __call__(self, **kwargs: Any) -> gym.Env:
        first, self.first = self.first, None
        return self.make(**kwargs) if first is None or kwargs else first


def identify(env: EnvLike) -> Identity:
    """What is known of an environment. A callable is called once, and what it makes is the `first` to be trained in."""
    if isinstance(env, str) or (isinstance(env, EnvMaker) and isinstance(env.base, str)):
        return Identity(env_name(env), env_name(env))
    if isinstance(env, VectorEnv):
        return _of_vector(env)
    if isinstance(env, gym.Env):
        return _of_single(env, env_name(env))
    first = make_one(env)
    known = _of_single(first, env_name(env))
    as_registered = known.preset is not None and not _settings(first)
    return Identity(known.id if as_registered and known.id else known.name, known.id, known.wrapped, first)


def _of_single(env: gym.Env, name: str) -> Identity:
    spec = getattr(env.unwrapped, "spec", None)
    around = [type(layer).__name__ for layer in layers(env) if isinstance(layer, gym.Wrapper)]
    changing = _changing(around, spec)
    if spec is not None and family_of(spec.id) is not None:  # its id alone would be another environment
        return Identity(f"{spec.id}, as given", spec.id, (*changing, UNPREPARED))
    return Identity(name, None if spec is None else spec.id, changing)


def _of_vector(envs: VectorEnv) -> Identity:
    around, name = [], env_name(envs)
    unnamed = name == type(envs).__name__  # the class of the vector environment says nothing
    while isinstance(envs, VectorWrapper):
        around.append(type(envs).__name__)
        envs = envs.env
    with _inside(envs, 1) as inner:
        if inner:
            known, whole = _of_single(inner[0], name), not _settings(inner[0])
        else:
            spec = envs.spec if envs.spec is not None else next(iter(_asked(envs)), None)
            wrapped = () if spec is None else _changing(_names(spec), spec)
            known, whole = Identity(name, None if spec is None else spec.id, wrapped), spec is not None
    wrapped = (*_changing(around, None), *known.wrapped)
    return Identity(known.id if unnamed and known.id and whole and not wrapped else name, known.id, wrapped)


def registered_task(envs: VectorEnv) -> str | None:
    """The id of which `gym.make` makes exactly the environments of a vector environment, without a keyword; or None.

    Of environments in other processes it is known what they were made with, not what was changed in them since.
    """
    known = _of_vector(envs)
    if known.preset is None or known.preset not in gym.registry:
        return None
    with _inside(envs) as inner:
        if inner:
            same = [_of_single(env, "").preset == known.preset and not _settings(env) for env in inner]
            return known.preset if all(same) and not _changed(known.preset, inner) else None
    registered = gym.registry[known.preset]
    specs = _asked(envs) or ([] if envs.spec is None else [envs.spec])
    same = [_made_with(spec) == _made_with(registered) and not _changing(_names(spec), spec) for spec in specs]
    return known.preset if specs and all(same) else None


@contextmanager
def _inside(envs: VectorEnv, most: int | None = None) -> Iterator[list[gym.Env]]:
    """The environments inside, or, where those are in other processes, some that are made as they were, `most` at most.

    The processes themselves are not asked: one whose answer cannot be pickled, such as a wrapper's function, would end.
    """
    found, made = singles(envs), list[gym.Env]()
    functions = [] if found else list(dict.fromkeys(getattr(envs.unwrapped, "env_fns", ())))[:most]
    try:
        with suppress(Exception):  # nothing is known of what cannot be made here
            made.extend(function() for function in functions)
        yield found if len(made) < len(functions) else found or made
    finally:
        for env in made:
            with suppress(Exception):
                env.close()


def _changed(env_id: str, envs: Iterable[gym.Env]) -> bool:
    """Whether settings of one of these were changed since it was made."""
    made = gym.make(env_id)
    try:
        return any(changed_settings(env, made) for env in envs)
    finally:
        made.close()


def _made_with(spec: EnvSpec) -> tuple[str, Any, dict[str, Any]]:
    """Its id, time limit and keywords, without the words of vector environments and of drawing."""
    others = ("render_mode", "num_envs", "vectorization_mode", "vector_kwargs", "max_episode_steps")
    limit = spec.kwargs.get("max_episode_steps", spec.max_episode_steps)
    return spec.id, limit, {key: value for key, value in spec.kwargs.items() if key not in others}


def _names(spec: EnvSpec) -> list[str]:
    return [wrapper.name for wrapper in spec.additional_wrappers]


def _asked(envs: VectorEnv) -> list[EnvSpec]:
    """The specs of environments that are not seen otherwise; none where one has none."""
    if hasattr(envs.unwrapped, "env_fns"):  # see `_inside`
        return []
    with suppress(Exception):  # they may have no such method, or be in the middle of a step
        specs = envs.get_attr("spec")  # pyright: ignore[reportAttributeAccessIssue]
        return list(specs) if all(isinstance(spec, EnvSpec) for spec in specs) else []
    return []


def _changing(wrappers: Iterable[str], spec: EnvSpec | None) -> tuple[str, ...]:
    """Those of the wrappers that may change the task, and that the registered environment does not have itself."""
    registered = None if spec is None else gym.registry.get(spec.id)
    own = {w.name for w in registered.additional_wrappers} if registered is not None else set()
    return tuple(name for name in wrappers if name not in NEUTRAL and name not in own)


def _settings(env: gym.Env) -> bool:
    """Whether it was made with other keywords, or another time limit, than its id alone gives."""
    spec = getattr(env.unwrapped, "spec", None)
    registered = None if spec is None else gym.registry.get(spec.id)
    if spec is None or registered is None:
        return True
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    limits = [layer._max_episode_steps for layer in layers(env) if isinstance(layer, gym.wrappers.TimeLimit)]
    return kwargs != dict(registered.kwargs) or any(limit != registered.max_episode_steps for limit in limits)
