"""Warnings about defaults that cannot work well, from the spaces and wrappers of environments. Each is a sentence, or None.

Of rewards, nothing can be told: no space has them. They may be of any size, because advantages are standardised and critics
follow the scale of their targets.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper

from policygrad.envs.checks import singles
from policygrad.envs.lent import layers
from policygrad.errors import AdviceWarning
from policygrad.models.continuous import Gaussian
from policygrad.models.observations import leaves
from policygrad.models.pictures import has_pictures

FAR, NEAR = 20.0, 0.05  # bounds in units of the noise's standard deviation: beyond, and below, exploring is of no use


def far_bounds(action_space: spaces.Space, std: float = 1.0) -> str | None:
    """A Gaussian begins at 0 ± std: it never reaches bounds that are far away, and is always clipped between narrow bounds."""
    if not isinstance(action_space, spaces.Box):
        return None
    bounds = np.maximum(np.abs(action_space.low), np.abs(action_space.high)).astype(np.float64)
    bounds = bounds[np.isfinite(bounds)]
    if not bounds.size or (bounds.max() <= FAR * std and bounds.min() >= NEAR * std):
        return None
    bound = bounds.max() if bounds.max() > FAR * std else bounds.min()
    return (
        f"the action space has a bound at {bound:g}, and a Gaussian policy begins at 0 ± {std:g}: choose head = beta or "
        "head = squashed, or wrap the environment in gymnasium.wrappers.RescaleAction"
    )


def unscaled_pictures(observation_space: spaces.Space) -> str | None:
    """Bytes from 0 to 255 saturate a network that expects numbers of about 1."""
    for path, part in leaves(observation_space):
        if isinstance(part, spaces.Box) and part.dtype == np.uint8 and math.prod(part.shape) and part.high.max() > 100:
            where = "".join(f"[{key!r}]" for key in path)
            return (
                f"the observations{where} are bytes up to {part.high.max()}, which nobody scales: choose normalize_obs, or "
                "network = cnn if they are a picture, or encode them otherwise if they are names"
            )
    return None


def unasked_masks(policy: Any, envs: VectorEnv) -> str | None:
    """sb3-contrib asks an environment's method `action_masks()`; nobody does here."""
    encoding = getattr(policy, "encoding", None)
    if getattr(encoding, "mask_source", "none") != "none" or isinstance(envs.single_action_space, spaces.Box):
        return None
    if not any(callable(getattr(env.unwrapped, "action_masks", None)) for env in singles(envs)):
        return None
    return (
        "the environment has a method action_masks(), which is not called: have reset and step put its result into "
        "info['action_mask'], and give mask_source='info'"
    )


def normalized(envs: VectorEnv) -> str | None:
    """Gymnasium's wrappers that standardise keep moments of their own, which no file holds, and scale what is scored."""
    first = next(iter(singles(envs)), None)
    layer: Any = envs
    names = [type(each).__name__ for each in layers(first)] if isinstance(first, gym.Env) else []
    while isinstance(layer, VectorWrapper):
        names.append(type(layer).__name__)
        layer = layer.env
    if "NormalizeReward" in names:
        return (
            "NormalizeReward scales the rewards that evaluations count, too: leave it out, critics follow the scale of their "
            "targets by themselves"
        )
    if "NormalizeObservation" in names:
        return (
            "NormalizeObservation keeps moments that a model file does not hold, and begins anew in evaluations: take "
            "normalize_obs=True instead"
        )
    return None


def advise(policy: Any, envs: VectorEnv, log_std: float, own_body: bool) -> None:
    """Warn of likely problems with the environments and this policy."""
    found = [unasked_masks(policy, envs), normalized(envs)]
    if type(getattr(policy, "head", None)) is Gaussian:
        found.append(far_bounds(envs.single_action_space, math.exp(log_std)))
    own_body = own_body or has_pictures(getattr(policy, "network", None))
    if not own_body and getattr(policy, "normalizer", policy) is None:
        found.append(unscaled_pictures(envs.single_observation_space))
    for text in found:
        if text is not None:
            warnings.warn(text, AdviceWarning, stacklevel=3)
