"""Families of environments, known by their ids: the package that has them, and how they are prepared before they are played.

    pg.ppo("ALE/Pong-v5")      pg.ppo("CarRacing-v3")      pg.ppo("MiniGrid-DoorKey-6x6-v0")

Wherever such an id is made, in training, evaluations, videos and worker processes, it is prepared alike. `env_kwargs` change or
switch off the preparation: they travel with runs and model files. Nothing heavy is imported here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium as gym


@dataclass(frozen=True)
class Family:
    """name: also that of a preset for all of its environments. module: of whose import they are registered. install: what pip
    installs for it. maker: module and function (env_id, **kwargs) → environment.
    """

    name: str
    ids: re.Pattern[str]
    module: str
    install: str
    maker: tuple[str, str]
    prepared: str  # what the preparation is, for people
    switch: str  # the keyword that is False where there is none

    def make(self, env_id: str, **kwargs: Any) -> gym.Env:
        """An environment, prepared as the keywords say; the others are its own."""
        module, name = self.maker
        return getattr(import_module(module), name)(env_id, **kwargs)


FAMILIES = (
    Family(
        "Atari",
        re.compile(r"ALE/\w+-v5|\w+NoFrameskip-v4"),
        "ale_py",
        "policygrad[atari]",
        ("policygrad.envs.atari", "make_atari"),
        "grey 84 × 84 pixels, every fourth frame, the last four; in training a lost life ends an episode and rewards are "
        "signs, returns are scores of games",
        "preprocess",
    ),
    Family(
        "CarRacing",
        re.compile(r"CarRacing-v\d+"),
        "Box2D",
        "gymnasium[box2d]",
        ("policygrad.envs.racing", "make_racing"),
        "grey 84 × 84 pixels of the road, an action for four frames, the last four pictures",
        "preprocess",
    ),
    Family(
        "MiniGrid",
        re.compile(r"MiniGrid-.+"),
        "minigrid",
        "policygrad[minigrid]",
        ("policygrad.envs.grids", "make_minigrid"),
        "objects, colours and states of the cells in view as one-hot numbers",
        "one_hot",
    ),
)


def family_of(env_id: Any) -> Family | None:
    """The family of an environment's id; None for all others."""
    return next((f for f in FAMILIES if isinstance(env_id, str) and f.ids.fullmatch(env_id)), None)


def register(env_id: str) -> Family | None:
    """The family of an id, its package imported, so that Gymnasium knows the id. Raises ValueError without the package."""
    family = family_of(env_id)
    if family is not None:
        try:
            import_module(family.module)
        except ImportError as error:
            raise ValueError(
                f'{env_id} needs the package {family.module.replace("_", "-")}: pip install "{family.install}"'
            ) from error
    return family


def known() -> None:
    """Import the package of every family that is installed, so that Gymnasium knows all of their ids."""
    for family in FAMILIES:
        with suppress(ImportError):
            import_module(family.module)


def packages() -> tuple[str, ...]:
    """The packages of families that this process has imported: another process imports them, too, and knows their ids."""
    return tuple(family.module for family in FAMILIES if family.module in sys.modules)


def make_known(registered: Iterable[Any]) -> None:
    """Register what another process had registered: specs, and `packages`."""
    import gymnasium as gym

    for spec in registered:
        if spec in [family.module for family in FAMILIES]:
            import_module(spec)
        else:
            gym.registry.setdefault(spec.id, spec)


def preparation(env_id: str, kwargs: Mapping[str, object] | None = None) -> str | None:
    """What is done to an environment before it is played, and how to leave it out; None where nothing is."""
    family = family_of(env_id)
    if family is None or not (kwargs or {}).get(family.switch, True):
        return None
    return f"{family.name}: {family.prepared} (env_kwargs {family.switch}=false: none of it)"
