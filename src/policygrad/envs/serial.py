"""A vector environment of our own: environments stepped one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from policygrad.models.observations import ACTION_MASK


class SerialVectorEnv(SyncVectorEnv):
    """Gymnasium's SyncVectorEnv in NEXT_STEP mode, without what training does not read: infos, and copies of observations.

    report_masks: whether `info` shows the action masks, all that is kept of the environments' own infos.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]) -> None:
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._checked = False
        self.paused = np.zeros(self.num_envs, bool)  # who sits the steps out, until the next reset
        self.report_masks = False

    def reset(self, **kwargs: Any) -> Any:
        """Reset every environment, paused ones included."""
        self.paused[:] = False
        return super().reset(**kwargs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended in the last step. The arrays are the next step's too."""
        obs: Any = self._observations
        rew, terminated, truncated = self._rewards, self._terminations, self._truncations
        resetting, paused = self._autoreset_envs.tolist(), self.paused.tolist()
        masks: list[Any] = []
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
            if self.report_masks:
                masks.append(info.get(ACTION_MASK))
        self._autoreset_envs, self._checked = terminated | truncated, True
        return obs, rew, terminated, truncated, mask_info(masks) if masks else {}


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
            raise ValueError(f"{env} gave an observation of shape {np.shape(obs)}, but its space has {batch[i].shape}")
    else:
        for key in batch if isinstance(batch, dict) else range(len(batch)):
            check_shape(env, batch[key], i, obs[key])


def mask_info(masks: list[Any]) -> dict[str, Any]:
    """Legal actions of every environment, as a vector environment's info has them; None for those that did not say."""
    return {ACTION_MASK: masks, f"_{ACTION_MASK}": np.array([mask is not None for mask in masks])}
