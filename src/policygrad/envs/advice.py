"""Warnings that follow from the spaces alone, about defaults that cannot work well. Each is a sentence, or None.

Of rewards, nothing can be told: no space has them. They may be of any size, because advantages are standardised and critics
follow the scale of their targets.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

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


def advise(policy: Any, envs: VectorEnv, log_std: float, own_body: bool) -> None:
    """Warn of likely problems with the environments' spaces and this policy."""
    found = []
    if type(getattr(policy, "head", None)) is Gaussian:
        found.append(far_bounds(envs.single_action_space, math.exp(log_std)))
    own_body = own_body or has_pictures(getattr(policy, "network", None))
    if not own_body and getattr(policy, "normalizer", policy) is None:
        found.append(unscaled_pictures(envs.single_observation_space))
    for text in found:
        if text is not None:
            warnings.warn(text, AdviceWarning, stacklevel=3)
