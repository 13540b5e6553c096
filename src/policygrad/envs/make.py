"""Vector environments from whatever a user has: an id, a callable, an environment, a vector environment."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from policygrad.locate import locate
from policygrad.models.observations import LEGAL

EnvLike = str | gym.Env | VectorEnv | Callable[[], gym.Env]

BACKENDS = ("auto", "gymnasium", "async", "envpool")

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
            hint = f" Did you mean {near!r}?" if near else " `policygrad list envs` shows what there is."
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
        raise ValueError(f"unknown environment {env_id!r}: {made!r} is no class or function that makes one")
    return made  # pyright: ignore[reportReturnType]  make_one checks what it makes


def nearest(word: str, known: Any) -> str | None:
    """The known name most like word, ignoring case, or None."""
    names = {str(name).lower(): str(name) for name in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.7)
    return names[close[0]] if close else None


def make_one(env: EnvLike) -> gym.Env:
    """One environment without a render mode: drawing costs time, and LunarLander's particles slow its physics."""
    if isinstance(env, str) and ":" in env:
        env = own_maker(env) or env
    if isinstance(env, str):
        try:
            return gym.make(check_env_id(env), disable_env_checker=True)
        except gym.error.DependencyNotInstalled as error:
            reason = str(error).replace("gymnasium[mujoco]", "policygrad[mujoco]")  # with an engine that was tested
            raise ValueError(f"{env} needs a package that is not installed: {reason}") from error
    if isinstance(env, VectorEnv):
        raise TypeError("expected an environment id, an environment or a callable, got a vector environment")
    made = env if isinstance(env, gym.Env) else env()
    if not isinstance(made, gym.Env):
        raise TypeError(f"the environment callable must return a gymnasium.Env, got {type(made).__name__}")
    return made


def resolve_backend(env: EnvLike, backend: str = "auto") -> str:
    """Who steps the environments. "auto": EnvPool where it is installed, faster, and compared with Gymnasium's environment."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if isinstance(env, VectorEnv) and backend != "auto":
        raise ValueError(f"a vector environment steps itself: backend = {backend} says nothing")
    if isinstance(env, gym.Env) and backend not in ("auto", "gymnasium"):
        raise ValueError(
            f"backend = {backend} makes its environments itself: pass an id or a callable, not an environment"
        )
    if backend == "envpool" or (backend == "auto" and isinstance(env, str)):
        from policygrad.envs.envpool import FASTER, check_tested, installed

        if not isinstance(env, str):
            raise ValueError("EnvPool plays environments of its own: pass an id")
        if backend == "envpool":
            check_tested(env)
            return backend
        return "envpool" if env in FASTER and installed() else "gymnasium"
    return "gymnasium" if backend == "auto" else backend


def make_envs(env: EnvLike, num_envs: int = 1, backend: str = "auto") -> VectorEnv:
    """A vector environment: NEXT_STEP autoreset, no render mode. A vector environment passes through as it is.

    An environment instance is a single one: num_envs must be 1, or pass a callable. backend: "gymnasium" steps one after
    another in this process, "async" each in a process of its own (for environments that take milliseconds a step),
    "envpool" in threads of C++; "auto" see `resolve_backend`.
    """
    if isinstance(env, VectorEnv):
        return env
    backend = resolve_backend(env, backend)
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    if isinstance(env, gym.Env) and num_envs > 1:
        raise ValueError(f"one environment instance cannot be {num_envs}: pass a callable, e.g. lambda: MyEnv()")
    if isinstance(env, str):
        check_env_id(env)
    if backend == "envpool":
        from policygrad.envs.envpool import EnvPoolVectorEnv

        assert isinstance(env, str)
        return EnvPoolVectorEnv(env, num_envs)
    makers = [lambda: make_one(env)] * num_envs
    if backend == "async":
        return AsyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
    return SerialVectorEnv(makers)


class SerialVectorEnv(SyncVectorEnv):
    """Gymnasium's SyncVectorEnv in NEXT_STEP mode, without what training does not read: infos, and copies of observations.

    report_legal: whether `info` shows the legal actions, all that is kept of the environments' own infos.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]) -> None:
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._checked = False
        self.paused = np.zeros(self.num_envs, bool)  # who sits the steps out, until the next reset
        self.report_legal = False

    def reset(self, **kwargs: Any) -> Any:
        """Reset every environment, paused ones included."""
        self.paused[:] = False
        return super().reset(**kwargs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended in the last step. The arrays are the next step's too."""
        obs: Any = self._observations
        rew, terminated, truncated = self._rewards, self._terminations, self._truncations
        resetting, paused = self._autoreset_envs.tolist(), self.paused.tolist()
        legal: list[Any] = []
        for i, (env, act) in enumerate(zip(self.envs, actions, strict=True)):
            info: dict[str, Any] = {}
            if paused[i]:
                rew[i], terminated[i], truncated[i] = 0.0, False, False
            elif resetting[i]:
                now, info = env.reset()
                write(obs, i, now)
                rew[i], terminated[i], truncated[i] = 0.0, False, False
            else:
                now, rew[i], terminated[i], truncated[i], info = env.step(act)
                if not self._checked:
                    check_shape(env, obs, i, now)
                write(obs, i, now)
            if self.report_legal:
                legal.append(info.get(LEGAL))
        self._autoreset_envs, self._checked = terminated | truncated, True
        return obs, rew, terminated, truncated, legal_info(legal) if legal else {}


def write(batch: Any, i: int, obs: Any) -> None:
    """batch[i] = obs, part by part where a space has parts."""
    if isinstance(batch, np.ndarray):
        batch[i] = obs
    else:
        for key in batch if isinstance(batch, dict) else range(len(batch)):
            write(batch[key], i, obs[key])


def check_shape(env: gym.Env, batch: Any, i: int, obs: Any) -> None:
    """Refuse an observation of another shape than its space says: numpy would broadcast it."""
    if isinstance(batch, np.ndarray):
        if np.shape(obs) != batch[i].shape:
            raise ValueError(f"{env} gave an observation of shape {np.shape(obs)}, its space says {batch[i].shape}")
    else:
        for key in batch if isinstance(batch, dict) else range(len(batch)):
            check_shape(env, batch[key], i, obs[key])


def legal_info(legal: list[Any]) -> dict[str, Any]:
    """Legal actions of every environment, as a vector environment's info has them; None for those that did not say."""
    return {LEGAL: legal, f"_{LEGAL}": np.array([mask is not None for mask in legal])}


def env_name(env: EnvLike) -> str:
    """A name for run directories and tables."""
    if isinstance(env, str):
        return env
    spec = getattr(env, "spec", None)
    if spec is not None:
        return spec.id
    return getattr(env, "__name__", type(env).__name__).strip("<>")
