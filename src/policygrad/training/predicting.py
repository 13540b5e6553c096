"""Actions for any observations, which are checked like those of training."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from policygrad.envs.adapters import action_adapter, encoding_of
from policygrad.envs.serial import mask_info
from policygrad.errors import ObservationError
from policygrad.models.observations import Encoding
from policygrad.tree import Tree, rows


def predict(
    actor: Any,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    obs: Any,
    rng: np.random.Generator,
    deterministic: bool,
    action_masks: Any = None,
) -> np.ndarray:
    """The action for one observation, or the actions for a batch, in the environment's format. An actor's state starts anew.

    actor: an `Actor`; of masked actions, one with `has_legal_action`. rng: what samples are drawn from. deterministic: the most
    likely actions, which draw nothing. Raises what `encoded` does.
    """
    x, single = encoded(actor, observation_space, obs, action_masks)
    count = rows(x)
    if deterministic:
        begun = actor.begin(actor.noise(np.random.default_rng(0), (count,))) if actor.stateful else None
        act = actor.mode(x, begun)[0]
    else:
        begun = actor.begin(actor.noise(rng, (count,))) if actor.stateful else None
        act = actor.act(x, begun, actor.noise(rng, (count,)))[0]
    act = action_adapter(action_space, actor)(act)
    return act[0] if single else np.asarray(act)


def encoded(actor: Any, space: spaces.Space, obs: Any, action_masks: Any = None) -> tuple[Tree, bool]:
    """One observation or a batch as the actor gets it, (B, *), and whether it was one.

    Raises ObservationError, ContractError or another ValueError for what is no observation of the space, NotFiniteError
    for NaN.
    """
    if _is_pair(obs, space):
        raise ObservationError(
            "expected an observation, got the pair (observation, info) that env.reset() returns: give its first part"
        )
    encoding = encoding_of(actor, space)
    obs, single = encoding.batch(obs)
    count = len(encoding.leaves[0].of(obs))
    x = encoding.empty(count)
    encoding.encode(obs, _mask_info(encoding, action_masks, count, single), x)
    encoding.check(x, obs)
    if encoding.mask_source != "none" and not actor.has_legal_action(x).all():
        raise ObservationError("there is no legal action to predict")
    return x, single


def _is_pair(obs: Any, space: spaces.Space) -> bool:
    """Whether this is the pair that `env.reset()` returns instead of an observation."""
    pair = isinstance(obs, tuple) and len(obs) == 2 and isinstance(obs[1], dict)
    return pair and not (isinstance(space, spaces.Tuple) and isinstance(space.spaces[-1], spaces.Dict))


def _mask_info(encoding: Encoding, action_masks: Any, count: int, single: bool) -> dict[str, Any]:
    """The action masks of so many observations, as a vector environment's info has them."""
    if encoding.mask_source != "info":
        if action_masks is not None:
            source = encoding.mask_source
            raise ObservationError(
                f"action_masks are for agents with mask_source = info, this one has mask_source = {source}"
            )
        return {}
    if action_masks is None:
        raise ObservationError("this agent gets its action masks from info: pass action_masks=info['action_mask']")
    masks = [action_masks] if single else list(action_masks)
    if len(masks) != count:
        raise ObservationError(f"expected action_masks of {count} observations, got {len(masks)}")
    return mask_info(masks)
