"""Policies of every kind, for every space: what the tests of this directory serve and export."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

import policygrad as pg
from policygrad.envs.advice import AdviceWarning


class Blank(gym.Env):
    """An environment of any spaces where nothing happens; its info has action masks, if `legal` says how many there are."""

    def __init__(self, observed: spaces.Space, acted: spaces.Space, legal: int = 0) -> None:
        self.observation_space, self.action_space, self.legal = observed, acted, legal

    def _shown(self) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {"action_mask": np.ones(self.legal, np.int8)} if self.legal else {}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._shown()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, info = self._shown()
        return obs, 0.0, False, True, info


@dataclass(frozen=True)
class Kind:
    """A recipe with its keywords, and spaces; masks: entries of the action mask that comes with info. scale: of the weights."""

    algo: str
    observed: spaces.Space
    acted: spaces.Space
    keywords: dict[str, Any] = field(default_factory=dict)
    masks: int = 0
    scale: float = 0.7

    def env(self) -> Any:
        return partial(Blank, self.observed, self.acted, self.masks)

    def agent(self) -> pg.Agent:
        """An agent with weights that make its actions differ, and a normaliser that moves observations."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AdviceWarning)
            agent = pg.Agent(self.algo, self.env(), seed=3, num_envs=2, **{"hidden": (7,)} | self.keywords)
        policy, generator = agent.policy, torch.Generator().manual_seed(0)
        policy.flat.copy_(torch.randn(policy.flat.shape, generator=generator) * self.scale)
        if policy.normalizer is not None:
            shape = (50, *policy.normalizer.mean.shape)
            policy.normalizer.merge(torch.randn(shape, generator=generator) * 3.0 + 1.0)
        if hasattr(policy, "epsilon"):
            policy.epsilon = 0.3
        return agent

    def saved(self, folder: Path) -> tuple[pg.Agent, Path]:
        agent = self.agent()
        return agent, agent.save_policy(folder / "policy")


VECTOR = spaces.Box(-2.0, np.array([2.0, np.inf, 0.5], np.float32), (3,))
TREE = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (2, 3), np.uint8),
        "speed": spaces.Box(-1.0, 1.0, (), np.float64),
        "where": spaces.Tuple([spaces.Discrete(3, start=-1), spaces.MultiBinary((2, 2))]),
    }
)
MASKED = spaces.Dict({"action_mask": spaces.MultiBinary(4), "x": spaces.Box(-1, 1, (2,), np.float32)})
ARM = spaces.Box(np.array([[-2.0], [0.5]]), np.array([[3.0], [0.75]]), (2, 1), np.float64)
WHEEL = spaces.Box(-1.0, 2.0, (2,), np.float32)

KINDS = {
    "choices that begin at 2": Kind("ppo", VECTOR, spaces.Discrete(3, start=2)),
    "several choices of pictures": Kind(
        "ppo", spaces.Box(0, 255, (2, 3), np.uint8), spaces.MultiDiscrete([2, 4], start=[1, -1]), {"activation": "relu"}
    ),
    "bits of bits": Kind("a2c", spaces.MultiBinary(4), spaces.MultiBinary((2, 1)), {"hidden": ()}),
    "a table": Kind("ppo", spaces.Discrete(5, start=-2), spaces.Discrete(3), {"hidden": ()}),
    "a linear map": Kind("ppo", VECTOR, spaces.Discrete(3), {"hidden": ()}),
    "normal, of several choices": Kind(
        "trpo", spaces.MultiDiscrete([[2, 3], [4, 2]]), WHEEL, {"normalize_obs": True, "activation": "silu"}
    ),
    "squashed, of parts": Kind("ppo", TREE, ARM, {"head": "squashed", "hidden": (7, 5)}),
    "normalised parts": Kind("ppo", TREE, WHEEL, {"normalize_obs": True, "std": "network"}),
    "masks in the observation": Kind("ppo", MASKED, spaces.Discrete(4)),
    "masks in info": Kind("ppo", VECTOR, spaces.MultiDiscrete([3, 2]), {"mask_source": "info"}, masks=5),
    "beta": Kind("ppo", VECTOR, ARM, {"head": "beta", "normalize_obs": True}),
    "correlated normal": Kind("ppo", VECTOR, WHEEL, {"noise_autocorrelation": 0.9}),
    "correlated, squashed": Kind("ppo", VECTOR, WHEEL, {"noise_autocorrelation": 0.9, "head": "squashed"}),
    "numbers alone": Kind("ppo", spaces.Box(-1.0, 1.0, ()), spaces.Box(-0.5, 0.5, ())),
    "action values": Kind("dqn", VECTOR, spaces.Discrete(3, start=1)),
    "action values with masks": Kind("pqn", MASKED, spaces.Discrete(4)),
    "soft actor-critic": Kind("sac", VECTOR, ARM, {"noise_autocorrelation": 0.5}),
    "deterministic": Kind("td3", VECTOR, WHEEL, {"noise_autocorrelation": 0.5, "noise": 0.3}),
}


def observations(kind: Kind, count: int, seed: int = 0) -> tuple[list[Any], list[Any] | None]:
    """Observations as the space itself samples them, far out where it has no bounds; and masks, if they come with info."""
    kind.observed.seed(seed)
    rng, found = np.random.default_rng(seed), []
    for i in range(count):
        obs = kind.observed.sample()
        if isinstance(kind.observed, spaces.Dict) and "action_mask" in kind.observed.spaces:
            obs["action_mask"] = legal(rng, [4]).astype(np.int8)
        if kind.observed is VECTOR and i % 3 == 0:
            obs = np.clip(obs * 1e3, kind.observed.low, kind.observed.high).astype(np.float32)
        found.append(obs)
    masks = [legal(rng, [3, 2]) for _ in range(count)] if kind.masks else None
    return found, masks


def legal(rng: np.random.Generator, sizes: list[int]) -> np.ndarray:
    """An action mask that leaves an action of every entry."""
    parts = []
    for size in sizes:
        part = rng.random(size) < 0.4
        part[rng.integers(size)] = True
        parts.append(part)
    return np.concatenate(parts)


def batch(rows: list[Any]) -> Any:
    """Observations as one batch."""
    if isinstance(rows[0], dict):
        return {key: batch([row[key] for row in rows]) for key in rows[0]}
    if isinstance(rows[0], tuple):
        return tuple(batch([row[i] for row in rows]) for i in range(len(rows[0])))
    return np.array(rows)
