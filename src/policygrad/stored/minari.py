"""Minari data sets as trajectories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from policygrad.envs.adapters import encoding_of
from policygrad.files import printable
from policygrad.models.continuous import Gaussian
from policygrad.models.policy import Policy
from policygrad.stored.trajectories import Trajectories, TrajectoryError, describe, join, one_episode, read_trajectories
from policygrad.tree import to_torch

MINARI = "minari:"


def open_dataset(dataset: str | Path, policy: Policy) -> Trajectories:
    """The trajectories of a path, see `read`, or of minari:NAME, see `from_minari`."""
    name = str(dataset)
    return from_minari(name.removeprefix(MINARI), policy) if name.startswith(MINARI) else read_trajectories(dataset)


def from_minari(name: str, policy: Policy) -> Trajectories:
    """A Minari data set that is on this machine, its observations and actions as a policy for its spaces sees them.

    It says nothing of the policies that acted: `logp` is None. Raises TrajectoryError without Minari, without the data set, and
    where the policy's actions are no environment's actions (Box with another head than the normal, action masks from info).
    """
    try:
        import minari
    except ImportError as error:
        raise TrajectoryError(f"{MINARI}{name} needs the package minari: pip install policygrad[offline]") from error
    try:
        dataset = minari.load_dataset(name)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise TrajectoryError(f"there is no Minari data set {name!r} here: minari download {name}") from error
    space, actions = dataset.observation_space, dataset.action_space
    encoding = encoding_of(policy, space)
    env = dataset.spec.env_spec
    about = describe(policy, space, actions, printable(name if env is None else env.id))
    if isinstance(actions, spaces.Box) and type(policy.head) is not Gaussian:
        raise TrajectoryError(f"Minari's actions are the environment's; use head = gaussian, not {policy.head}")
    if encoding.mask_source == "info":
        raise TrajectoryError(
            "Minari's data sets do not say which actions were legal: mask_source = info cannot be used"
        )
    to_head = _to_head(actions)

    def read_episode(episode: Any) -> Trajectories:
        T = len(episode.rewards)
        obs = encoding.empty(T + 1)
        encoding.encode(episode.observations, {}, obs)
        act = torch.from_numpy(to_head(np.asarray(episode.actions)))
        rew = torch.from_numpy(np.asarray(episode.rewards, np.float32))
        acted = torch.zeros(T, dtype=torch.int64)
        return one_episode(to_torch(obs), act, rew, None, acted, bool(episode.terminations[-1]), about)

    try:
        parts = [read_episode(episode) for episode in dataset.iterate_episodes()]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError) as error:
        raise TrajectoryError(f"the Minari data set {name!r} is damaged: {error}") from error
    if not parts:
        raise TrajectoryError(f"the Minari data set {name!r} has no episodes")
    return join(parts)


def _to_head(space: spaces.Space) -> Callable[[np.ndarray], np.ndarray]:
    """From the environment's actions to a head's: the inverse of `action_adapter` for heads that keep its scale."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return lambda act: (act - space.start).astype(np.int64)
    return lambda act: act.astype(np.int64 if isinstance(space, spaces.MultiBinary) else np.float32)
