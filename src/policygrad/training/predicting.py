"""Actions for any observations, which are checked like those of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from policygrad.envs.adapters import action_adapter, begun, encoding_of
from policygrad.envs.serial import mask_info
from policygrad.errors import ObservationError, UserError
from policygrad.models.observations import ActionMaskError, Encoding, flat_mask
from policygrad.tree import Tree, rows


class StateError(UserError, ValueError):
    """A state that is none of the agent's, for so many observations."""


def predict(
    actor: Any,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    obs: Any,
    rng: np.random.Generator,
    deterministic: bool,
    action_masks: Any = None,
    state: Any = None,
    episode_start: Any = None,
) -> tuple[np.ndarray, Any]:
    """The action for one observation, or the actions for a batch, in the environment's format; and the state after it.

    actor: an `Actor`; of masked actions, one with `has_legal_action`. rng: what samples are drawn from. deterministic: the most
    likely actions, which draw nothing. state: what the call before returned, for an actor with a memory, or the same as lists,
    as JSON has it; None: episodes begin.
    episode_start (n,) bool: where they begin in any case. Of an actor without a memory the state is None, and these two are not
    looked at. Raises what `encoded` does, and StateError for what is no state of so many observations.
    """
    if isinstance(state, bool | np.bool_):  # `predict(obs, True, masks)`, as it was before there were states
        state, deterministic = None, bool(state)
        episode_start, action_masks = None, episode_start if action_masks is None else action_masks
    if not isinstance(deterministic, bool | np.bool_):
        raise ObservationError(f"expected deterministic = True or False, got {deterministic!r:.60}")
    x, single = encoded(actor, observation_space, obs, action_masks)
    count = rows(x)
    now, remembers = None, actor.stateful and not actor.begins_once
    if actor.stateful:
        now = actor.begin(actor.noise(np.random.default_rng(0) if deterministic else rng, (count,)))
    if remembers:
        now = _state(now, state, episode_start, count)
    if deterministic:
        act, after = actor.mode(x, now)
    else:
        act, after = actor.act(x, now, actor.noise(rng, (count,)))[:2]
    act = action_adapter(action_space, actor)(act)
    return act[0] if single else np.asarray(act), after if remembers else None


def _state(fresh: Tree, state: Any, episode_start: Any, count: int) -> Tree:
    """The state to act in: the fresh one where an episode starts, and the given one elsewhere."""
    if state is None:
        return fresh
    given, state = state, _like(fresh, state)
    if state is None:
        raise StateError(
            f"expected the state of {count} observations that predict returned, or None where all episodes begin, got "
            f"{given!r:.200}"
        )
    if episode_start is None:
        return state
    starts = np.asarray(episode_start)
    if starts.shape not in ((), (count,)) or starts.dtype.kind not in "bif":
        raise StateError(
            f"expected episode_start of {count} observations, true where an episode starts, got {starts!r:.200}"
        )
    return begun(np.broadcast_to(starts.astype(bool), (count,)), fresh, state)


def _like(tree: Tree, other: Any) -> Tree | None:
    """The other, arrays or lists, as a tree of arrays of the types and shapes of this one; None where it cannot be one."""
    if isinstance(tree, dict):
        if not isinstance(other, Mapping) or tree.keys() != other.keys():
            return None
        parts = {key: _like(part, other[key]) for key, part in tree.items()}
        return None if any(part is None for part in parts.values()) else parts
    try:
        x = np.asarray(other)
    except ValueError:  # lists of unequal lengths
        return None
    if x.shape != tree.shape or x.dtype.kind not in "biuf" or not np.isfinite(x).all():
        return None
    return x.astype(tree.dtype, copy=False)


def detached(obs: Any) -> Any:
    """An observation whose tensors are arrays of the CPU, without their graphs."""
    if isinstance(obs, dict):
        return {key: detached(part) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(map(detached, obs))
    return obs.detach().cpu().numpy() if isinstance(obs, torch.Tensor) else obs


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
    obs, single = encoding.batch(detached(obs))
    count = len(encoding.leaves[0].of(obs))
    x = encoding.empty(count)
    try:
        encoding.encode(obs, _mask_info(encoding, action_masks, count, single), x)
    except ActionMaskError as error:  # of the caller, and of no environment
        raise ObservationError(str(error)) from error
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
    entries, expected = [len(flat_mask(mask)) for mask in masks], encoding.context
    if set(entries) - {expected}:
        wrong = next(n for n in entries if n != expected)
        raise ObservationError(f"expected {expected} entries in an action mask, one per action, got {wrong}")
    return mask_info(masks)
