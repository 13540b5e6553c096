"""A vector environment of our own: environments stepped one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from policygrad.envs.journal import Journal, digest, generator_state, set_generator_state
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
        self.journal = Journal(list(self.envs))
        self._views = self.single_action_space.shape != ()  # whose entries an environment could write into

    def reset(self, *, seed: int | list[int] | None = None, **kwargs: Any) -> Any:
        """Reset every environment, paused ones included."""
        self.paused[:] = False
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        for i in range(self.num_envs):
            self.journal.reset(i, None if seeds is None else seeds[i])
        return super().reset(seed=seeds, **kwargs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended in the last step. The arrays are the next step's too."""
        obs: Any = self._observations
        rew, terminated, truncated = self._rewards, self._terminations, self._truncations
        resetting, paused = self._autoreset_envs.tolist(), self.paused.tolist()
        masks: list[Any] = []
        self.journal.actions.append(np.array(actions) if self._views else actions)
        for i, (env, act) in enumerate(zip(self.envs, actions, strict=True)):
            info: dict[str, Any] = {}
            if paused[i]:
                self.journal.pause(i)
                rew[i], terminated[i], truncated[i] = 0.0, False, False
            elif resetting[i]:
                self.journal.reset(i)
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

    def mark(self) -> None:
        """Remember this moment, for `snapshot(marked=True)`, until the next call."""
        self.journal.mark()
        self._marked = deepcopy(self._observations), self._autoreset_envs.copy()

    def snapshot(self, marked: bool = False) -> list[dict[str, Any] | None]:
        """What `restore` needs to bring every environment to where it is, or was at the last `mark`: plain values and tensors.
        None for one of which that is not known.
        """
        obs, over = self._marked if marked else (self._observations, self._autoreset_envs)
        found: list[dict[str, Any] | None] = []
        for i, env in enumerate(self.envs):
            played = self.journal.since_reset(i, marked)
            generator = None if marked else digest(generator_state(env))  # of the past it is not known
            evidence = {"over": bool(over[i]), "shown": digest(_one(obs, i)), "generator": generator}
            found.append(None if played is None else played | evidence)
        return found

    def restore(self, snapshots: list[dict[str, Any] | None]) -> list[str | None]:
        """Play every environment to where its snapshot was taken. What went wrong, of every environment, or None: then it shows
        the same observation, and its generator is in the same state, to the last bit.
        """
        self._checked = True
        return [self._replay(i, snapshot) for i, snapshot in enumerate(snapshots)]

    def _replay(self, i: int, snapshot: dict[str, Any] | None) -> str | None:
        if snapshot is None:
            return "how it was reset is not known, or too long ago"
        env, over = self.envs[i], False
        if snapshot["state"] is not None:
            set_generator_state(env, snapshot["state"])
        obs, _ = env.reset(seed=snapshot["seed"])
        actions = list(snapshot["actions"].numpy())
        for t, action in enumerate(actions):
            if over:
                return f"its episode ended after {t} steps instead of {len(actions)}"
            obs, _, terminated, truncated, _ = env.step(action)
            over = bool(terminated or truncated)
        write(self._observations, i, obs)
        self._autoreset_envs[i] = snapshot["over"]  # of one that was paused afterwards it is False
        self.journal.replayed(i, snapshot, actions)
        if snapshot["over"] and not over:
            return "its episode did not end where it had ended"
        if digest(_one(self._observations, i)) != snapshot["shown"]:
            return "the same actions lead to another observation"
        if snapshot["generator"] not in (None, digest(generator_state(env))):
            return "its random numbers are not the same"
        return None


def _one(batch: Any, i: int) -> Any:
    """batch[i], part by part where a space has parts."""
    if isinstance(batch, dict):
        return {key: _one(part, i) for key, part in batch.items()}
    return tuple(_one(part, i) for part in batch) if isinstance(batch, tuple) else batch[i]


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
