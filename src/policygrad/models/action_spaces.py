"""The head for an action space, and where action masks come from."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from policygrad.models.continuous import Beta, Gaussian, SquashedGaussian
from policygrad.models.heads import Categorical, Head, MultiCategorical
from policygrad.models.observations import ACTION_MASK, MAX_FEATURES

HEADS = ("gaussian", "squashed", "beta")
MASK_SOURCES = ("auto", "none", "observation", "info")


def make_head(
    action_space: spaces.Space, *, head: str = "gaussian", noise_autocorrelation: float = 0.0, masked: bool = False
) -> Head:
    """The head for an action space: Discrete, MultiDiscrete, MultiBinary → softmax; Box → `head`.

    Raises TypeError, naming the space, for one that is not supported, or not by the head asked for.
    """
    if head not in HEADS:
        raise ValueError(f"head must be one of {HEADS}, got {head!r}")
    check_choices(action_space)
    if isinstance(action_space, spaces.Discrete):
        return Categorical(int(action_space.n), masked)
    if isinstance(action_space, spaces.MultiDiscrete | spaces.MultiBinary) and 0 not in action_space.shape:
        sizes = np.full(action_space.shape, 2) if isinstance(action_space, spaces.MultiBinary) else action_space.nvec
        return MultiCategorical(tuple(map(int, sizes.reshape(-1))), action_space.shape, masked)
    if not (isinstance(action_space, spaces.Box) and np.issubdtype(action_space.dtype, np.floating)):
        raise TypeError(
            f"unsupported action space {action_space}: expected Discrete, MultiDiscrete, MultiBinary or a floating-point Box"
        )
    if 0 in action_space.shape:
        raise TypeError(f"unsupported action space {action_space}: it is empty")
    if masked:
        raise TypeError(f"action masks are for discrete actions; the action space is {action_space}")
    if head == "gaussian":
        return Gaussian(action_space.shape, noise_autocorrelation)
    low, high = action_space.low, action_space.high
    if not action_space.is_bounded() or not (low < high).all():
        raise TypeError(f"head = {head} needs bounds on every action, the space is {action_space}: use head = gaussian")
    if head == "squashed":
        return SquashedGaussian(action_space.shape, low, high, noise_autocorrelation)
    if noise_autocorrelation:
        raise ValueError("noise_autocorrelation is for head = gaussian and head = squashed")
    return Beta(action_space.shape, low, high)


def check_choices(space: spaces.Space) -> None:
    """Refuse more actions than a network should have outputs."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        choices = int(space.n if isinstance(space, spaces.Discrete) else space.nvec.sum(dtype=np.float64))
        if choices > MAX_FEATURES:
            raise TypeError(f"unsupported action space {space}: {choices:,} choices, more than {MAX_FEATURES:,}")


def resolve_mask_source(observation_space: spaces.Space, action_space: spaces.Space, mask_source: str) -> str:
    """Where action masks come from; "auto": a Dict observation's `action_mask`, if the actions are discrete ones."""
    if mask_source not in MASK_SOURCES:
        raise ValueError(f"mask_source must be one of {MASK_SOURCES}, got {mask_source!r}")
    if mask_source != "auto":
        return mask_source
    there = isinstance(observation_space, spaces.Dict) and ACTION_MASK in observation_space.spaces
    return "observation" if there and not isinstance(action_space, spaces.Box) else "none"
