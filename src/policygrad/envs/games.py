"""What `CompiledVectorEnv` knows of an environment: its compiled step, and how it appears to Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator

from policygrad.envs.single import make_one

CLASSIC, TOY = "gymnasium.envs.classic_control", "gymnasium.envs.toy_text"
# entry point: the class in compiled/classic.py or acrobot.py, or Tables
KNOWN = {
    f"{CLASSIC}.cartpole:CartPoleEnv": "Cart",
    f"{CLASSIC}.mountain_car:MountainCarEnv": "Car",
    f"{CLASSIC}.continuous_mountain_car:Continuous_MountainCarEnv": "PoweredCar",
    f"{CLASSIC}.pendulum:PendulumEnv": "Pendulum",
    f"{CLASSIC}.acrobot:AcrobotEnv": "Acrobot",
    f"{TOY}.frozen_lake:FrozenLakeEnv": "Tables",
    f"{TOY}.cliffwalking:CliffWalkingEnv": "Tables",
    f"{TOY}.taxi:TaxiEnv": "Tables",
}


@dataclass(frozen=True, eq=False)
class Game:
    """An environment that is compiled.

    rules: what compiled/environments.py chooses its functions by. width, dtype: of a state. masks (S, A): the legal actions in
    every state, if its infos tell them. settings: attributes of Gymnasium's environment that are compiled in.
    """

    spec: EnvSpec
    observation_space: spaces.Space
    action_space: spaces.Space
    rules: Any
    width: int
    dtype: type
    masks: np.ndarray | None
    settings: Mapping[str, Any]

    @property
    def choices(self) -> int:
        """Actions from 0 on that there are; 0 for real numbers."""
        return int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else 0

    def state_in(self, env: gym.Env) -> Any:
        """The state of Gymnasium's environment."""
        bare: Any = env.unwrapped
        return np.array(bare.state, np.float64) if self.settings else bare.s

    def __reduce__(self) -> tuple[Any, ...]:
        return game_of, (self.spec.id,)


def is_known(env_id: str) -> bool:
    """Whether the id is registered as Gymnasium registers it: its own class, as it is, without wrappers."""
    spec = gym.registry.get(env_id)
    return spec is not None and spec.entry_point in KNOWN and not spec.additional_wrappers


def identity(env_id: str) -> tuple[Any, ...]:
    """What a known id stands for: its registration, and what its class does, which somebody may have changed."""
    spec = gym.registry[env_id]
    cls: Any = load_env_creator(str(spec.entry_point))
    return repr(spec), cls.__init__, cls.reset, cls.step


def game_of(env_id: str) -> Game:
    """The compiled environment of a known id. Raises ImportError without numba."""
    return _game(env_id, *identity(env_id))


@cache
def _game(env_id: str, *_: Any) -> Game:
    env = make_one(env_id)
    bare, name = env.unwrapped, KNOWN[str(gym.registry[env_id].entry_point)]
    env.close()
    assert env.spec is not None
    if name == "Tables":
        from policygrad.compiled.tables import tables_of

        says = hasattr(bare, "action_mask")
        masks = np.stack([bare.action_mask(s) for s in range(len(bare.P))]) if says else None  # pyright: ignore
        known: tuple[Any, ...] = tables_of(bare), 1, np.int64, masks, {}
    else:
        from policygrad.compiled import acrobot, classic

        kind = getattr(acrobot if name == "Acrobot" else classic, name)
        settings, width = (classic.SETTINGS | acrobot.SETTINGS)[kind], 4 if name in ("Cart", "Acrobot") else 2
        known = kind(classic.NUMBERS), width, np.float64, None, settings
    return Game(env.spec, env.observation_space, env.action_space, *known)
