"""Making vector environments from an id, a callable, an environment, or a vector environment."""

from __future__ import annotations

import multiprocessing
import sys
from functools import partial

import gymnasium as gym
from gymnasium.vector import VectorEnv

from policygrad.envs.checks import check_vector
from policygrad.envs.games import is_known
from policygrad.envs.processes import cores_for
from policygrad.envs.serial import SerialVectorEnv
from policygrad.envs.single import EnvLike, check_env_id, env_name, make_one

LONG = 50_000  # steps of a training for which code is compiled, or loaded, which takes most of a second
STEPPED = {  # by each backend, how environments are stepped, and for which that is; docs/environments.md lists them
    "gymnasium": ("one after another, in this process", "microseconds per step"),
    "compiled": ("in one compiled call", "classic control and toy text, but Blackjack"),
    "split": ("here, and by a process per further core", "eight or more, from 20 µs per step"),
    "async": ("by worker processes, one per core", "what hangs, crashes or takes milliseconds"),
    "envpool": ("by EnvPool's threads (extra `envpool`)", "ids compared with Gymnasium's"),
    "torch": ("as [tensors](#environments-of-tensors)", "thousands of CartPoles or Pendulums"),
}
BACKENDS = ("auto", *STEPPED)
# whose steps take long enough for a second process
PHYSICS = ("gymnasium.envs.box2d", "gymnasium.envs.mujoco", "ale_py", "minigrid")
MANY = 8  # environments, from which it pays


def resolve_backend(env: EnvLike, backend: str = "auto", steps: int = LONG, num_envs: int = 1) -> str:
    """The backend that steps the environments. "auto", in trainings of 50,000 steps or more: compiled code, where it does the
    same as Gymnasium, to the last bit; or else EnvPool if it is installed, faster, and tested for this environment; or else
    "split", where 8 or more environments have Gymnasium's physics and there is a core for them.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if isinstance(env, VectorEnv) and backend != "auto":
        raise ValueError(f"backend = {backend} has no effect on a vector environment: omit it")
    if isinstance(env, gym.Env) and backend not in ("auto", "gymnasium"):
        raise ValueError(
            f"backend = {backend} makes the environments itself: pass an id or a callable instead of an environment"
        )
    if backend == "compiled" and (why := why_not_compiled(env)) is not None:
        raise ValueError(f"{env_name(env)} cannot be compiled: {why}. Take backend='gymnasium'")
    if backend == "torch":
        from policygrad.envs.torch_envs import why_not_torch

        if (why := why_not_torch(env)) is not None:
            raise ValueError(f"{env_name(env)} cannot be stepped as tensors: {why}. Take backend='gymnasium'")
    if backend == "envpool":
        from policygrad.envs.envpool import check_tested

        if not isinstance(env, str):
            raise ValueError("EnvPool has its own environments: pass an id")
        check_tested(env)
    return backend if backend != "auto" else _fastest(env, steps, num_envs)


def _fastest(env: EnvLike, steps: int, num_envs: int) -> str:
    if isinstance(env, str):
        from policygrad.envs.envpool import FASTER, installed

        if steps >= LONG and why_not_compiled(env) is None:
            return "compiled"
        if env in FASTER and installed():
            return "envpool"
        if steps >= LONG and num_envs >= MANY and _can_split(env):
            return "split"
    return "gymnasium"


def _can_split(env_id: str) -> bool:
    """Whether this process may have another one, on a core of its own, which starts fast, for environments with physics."""
    spec = gym.registry.get(env_id)
    free = sys.platform == "linux" and not multiprocessing.current_process().daemon and cores_for(2) > 1
    return free and spec is not None and str(spec.entry_point).startswith(PHYSICS)


def why_not_compiled(env: EnvLike) -> str | None:
    """The reason why an environment cannot be stepped by compiled code, or None where it can."""
    if not isinstance(env, str):
        return "it is not an id without keywords and wrappers"
    if not is_known(env):
        return (
            "only Gymnasium's own classic control and toy text are, without Blackjack and as Gymnasium registers them"
        )
    try:
        from policygrad.envs.agreement import why_not
    except (ImportError, OSError):  # numba is missing, or is none for this NumPy
        return "numba is not installed"
    return why_not(env)


def make_envs(env: EnvLike, num_envs: int = 1, backend: str = "auto") -> VectorEnv:
    """A vector environment: NEXT_STEP autoreset, no render mode. A vector environment passes through as it is.

    An environment instance is a single one: num_envs must be 1, or pass a callable. backend: how they are stepped, as
    `policygrad.envs.make.STEPPED` says, by all but "envpool" and "torch" with the same numbers ("async": see `WorkerVectorEnv`,
    which has more to choose from; "torch": on the agent's device); "auto", which never takes "torch": see `resolve_backend`.
    Raises ContractError for a callable that makes one and the same object again, and for a vector environment that lacks a
    space, its number, or how it resets.
    """
    if isinstance(env, VectorEnv):
        return check_vector(env)
    backend = resolve_backend(env, backend)
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    if isinstance(env, gym.Env) and num_envs > 1:
        raise ValueError(
            f"one environment instance cannot make {num_envs} environments: pass a callable, e.g. lambda: MyEnv()"
        )
    if isinstance(env, str):
        check_env_id(env)
    if backend == "envpool":
        from policygrad.envs.envpool import EnvPoolVectorEnv

        assert isinstance(env, str)
        return EnvPoolVectorEnv(env, num_envs)
    if backend == "compiled":
        from policygrad.envs.batched import CompiledVectorEnv

        assert isinstance(env, str)
        return CompiledVectorEnv(env, num_envs)
    if backend == "torch":
        from policygrad.envs.torch_envs import TorchVectorEnv

        assert isinstance(env, str)
        return TorchVectorEnv(env, num_envs)
    makers = [partial(make_one, env)] * num_envs
    if backend == "async" or (backend == "split" and cores_for(num_envs) > 1):
        from policygrad.envs.workers import WorkerVectorEnv

        return WorkerVectorEnv(makers, join=backend == "split")
    return SerialVectorEnv(makers)
