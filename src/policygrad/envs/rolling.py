"""Rollouts of a policy in compiled environments, all steps in one compiled call: its arrays. Importing this imports numba."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from policygrad.compiled.cache import patience
from policygrad.compiled.heads import CHOICES
from policygrad.compiled.rollouts import Scaling, roller
from policygrad.envs.batched import CompiledVectorEnv
from policygrad.errors import ContractError
from policygrad.models.acting import parts_of
from policygrad.models.heads import Head
from policygrad.models.normalizer import Normalizer

Rolled = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def roll(envs: Any, policy: Any, obs: Any, noise: np.ndarray) -> Rolled | None:
    """See `adapters.rolled`."""
    if type(envs) is not CompiledVectorEnv:
        return None
    T, N = noise.shape[:2]
    parts = parts_of(policy.workspace, policy, N)
    if not (policy.normalizer is None or type(policy.normalizer) is Normalizer):
        return None
    if parts is None or type(policy.head).to_env is not Head.to_env or parts[0].theta.dtype != np.float32:
        return None
    network, head, work = parts
    shape = (T, N, *getattr(policy.head, "shape", ()))
    kind = np.int64 if head.kind == CHOICES else np.float32
    acts = np.empty((T, math.prod(shape[1:])), kind)
    rew, terminated, truncated = np.empty((T, N), np.float32), np.empty((T, N), bool), np.empty((T, N), bool)
    low, high = _bounds(envs.single_action_space, N)
    row = envs.row if envs.row + T <= len(envs.history) else envs.make_room(T)
    play, given = roller(type(envs.game.rules)), (network, head, work, _scaling(policy, N), low, high, noise, obs, acts)
    with patience("the environments"):
        wrong = play(*envs.arrays, row, *given, rew, terminated, truncated)
    if wrong >= 0:
        raise ContractError(f"environment {wrong} got an action that is none of {envs.single_action_space}")
    envs.row = row + T
    return acts.reshape(shape), rew, terminated, truncated


def _scaling(policy: Any, count: int) -> Scaling:
    """The policy's normaliser, for so many environments."""
    nothing = np.empty(0, np.float32)
    if policy.normalizer is None:
        return Scaling(nothing, nothing, 0.0, nothing)
    mean, inv_std = (x.reshape(-1).numpy() for x in policy.normalizer.cast(policy.flat.dtype))
    return Scaling(mean, inv_std, float(policy.normalizer.clip), np.empty(count * len(mean), np.float32))


def _bounds(space: Any, count: int) -> np.ndarray:
    """The bounds of the actions of so many environments, (2, N · D); of choices there are none."""
    if not isinstance(space, spaces.Box):
        return np.zeros((2, 0), np.float32)
    return np.tile(np.stack([space.low.reshape(-1), space.high.reshape(-1)]), (1, count))
