"""A rollout as one compiled function: a policy acts in compiled environments for T steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from policygrad.compiled.acting import act
from policygrad.compiled.cache import compiled, part
from policygrad.compiled.environments import TERMINATED, TRUNCATED, Worlds, advance
from policygrad.compiled.heads import CHOICES, HeadData
from policygrad.compiled.networks import Net, Work, copy_to


class Scaling(NamedTuple):
    """How observations become features: (obs − mean) · inv_std, clipped to ±clip. Without a mean they are as they come."""

    mean: np.ndarray  # (F,), or empty
    inv_std: np.ndarray  # (F,)
    clip: float
    into: np.ndarray  # (N · F,)


@part
def scaled(obs: np.ndarray, scaling: Scaling) -> np.ndarray:
    """The features (N · F,) of observations."""
    width = len(scaling.mean)
    if width == 0:
        return obs
    most = obs.dtype.type(scaling.clip)
    for i in range(len(obs)):
        j = i % width
        scaling.into[i] = min(max((obs[i] - scaling.mean[j]) * scaling.inv_std[j], -most), most)
    return scaling.into


@cache
def roller(rules: type) -> Callable[..., int]:
    """The rollout in environments with rules of this class. Its first arguments are those of `environments.stepper`'s function.

    low, high: of actions that are numbers. noise: (T, N, …). Written are obs (T + 1, N, F), but for the first row, acts
    (T, N · K) or (T, N · D) as they were sampled, rew, terminated and truncated (T, N). Returns −1, or the first environment
    whose action is none, and then all is undefined.
    """

    @compiled
    def roll(
        state: np.ndarray, generators: np.ndarray, origins: np.ndarray, counts: np.ndarray, flags: np.ndarray,
        shown: np.ndarray, reward: np.ndarray, history: np.ndarray, action: np.ndarray, choices: int, numbers: np.ndarray,
        limit: int, row: int, net: Net, head: HeadData, work: Work, scaling: Scaling, low: np.ndarray, high: np.ndarray,
        noise: np.ndarray, obs: np.ndarray, acts: np.ndarray, rew: np.ndarray, terminated: np.ndarray, truncated: np.ndarray,
    ) -> int:  # fmt: skip
        worlds = Worlds(state, generators, origins, counts, flags, shown, reward, history)
        rows, width, features = len(reward), shown.size, obs.reshape(-1)
        for t in range(len(rew)):
            now = features[t * width : (t + 1) * width]
            act(net, head, scaled(now, scaling), noise[t].reshape(-1), rows, work, acts[t])
            for k in range(len(action)):
                if head.kind == CHOICES:
                    action[k] = acts[t, k]
                else:
                    action[k] = min(max(acts[t, k], low[k]), high[k])
            wrong = advance(worlds, action, choices, row + t, limit, rules(numbers))
            if wrong >= 0:
                return wrong
            for n in range(rows):
                rew[t, n] = reward[n]
                terminated[t, n], truncated[t, n] = flags[TERMINATED, n], flags[TRUNCATED, n]
            copy_to(features, (t + 1) * width, shown.reshape(-1), 0, width)
        return -1

    return roll
