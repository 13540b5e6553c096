"""Conversions between an actor and environments: of actions, observations and the states of actors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from policygrad.envs.envpool import EnvPoolVectorEnv
from policygrad.models.contracts import Actor
from policygrad.models.observations import Encoding
from policygrad.tree import Tree, tree_map


def begun(where: np.ndarray, fresh: Tree, state: Tree) -> Tree:
    """The fresh state in the rows (N,) where an episode begins, the other one elsewhere."""
    return tree_map(lambda new, old: np.where(where.reshape(-1, *[1] * (new.ndim - 1)), new, old), fresh, state)


def noise_of(actor: Actor, rng: np.random.Generator, shape: tuple[int, ...], place: tuple[int, int]) -> np.ndarray:
    """The noise of `shape` steps, (…, N), N environments. place: the number of the first among all environments, and how many
    those are, of which all noise is drawn, so that an environment has the same noise however they are shared out.
    """
    (*steps, count), (first, whole) = shape, place
    if count == whole:
        return actor.noise(rng, shape)
    rows = (slice(None),) * len(steps)
    return np.ascontiguousarray(actor.noise(rng, (*steps, whole))[(*rows, slice(first, first + count))])


def encoding_of(actor: Actor, space: spaces.Space) -> Encoding:
    """The encoding of observations: the actor's own, or that of the space if the actor has none."""
    return Encoding(space) if actor.encoding is None else actor.encoding


def is_known(actor: Actor) -> bool:
    """Whether compiled functions may act in the actor's place: its own class says so.

    One derived from such a class may act otherwise, and so may one that hands on to such an actor what it has not itself.
    """
    return vars(type(actor)).get("known", False) and "act" not in vars(actor)


def acting(actor: Actor, rows: int) -> Callable[..., Any]:
    """`act` for the steps of one record, of so many environments."""
    return actor.acting(rows) if is_known(actor) else actor.act  # pyright: ignore[reportAttributeAccessIssue]


def rolled(envs: Any, actor: Actor, obs: Any, noise: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """Act in compiled environments, or EnvPool's, for as many steps as there is noise (T, N, …), and write what they show into
    obs (T + 1, N, *), whose first row is what they show now. Returns actions (T, N, *), rewards, terminated and truncated
    (T, N).

    None, and nothing is done, where the actor is to be asked step by step: where its inputs are not the observations, or its
    actions not those of the space, but for clipping.
    """
    if not is_known(actor):
        return None
    if type(envs) is EnvPoolVectorEnv and not envs.paused.any():
        to_env = action_adapter(envs.single_action_space, actor)
        return envs.roll([acting(actor, rows) for rows in envs.parts], to_env, obs, noise)
    if not actor.rolls:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    from policygrad.envs.rolling import roll

    return roll(envs, actor, obs, noise)


def action_adapter(space: spaces.Space, actor: Actor) -> Callable[[np.ndarray], Any]:
    """Conversion of the actor's actions to the environment's: discrete ones count from `start`, Box is clipped to bounds."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        start, dtype = space.start, space.dtype
        if not np.any(start) and dtype == np.int64:  # rows that an environment could write into would be the record's
            return (lambda act: act.copy()) if space.shape else lambda act: act
        return lambda act: (act + start).astype(dtype)
    if isinstance(space, spaces.MultiBinary):
        return lambda act: act.astype(space.dtype)
    assert isinstance(space, spaces.Box)
    low, high, dtype, to_scale = space.low, space.high, space.dtype, actor.to_env
    if not space.shape:  # a row of these is a number, which is no member of the space
        return lambda act: [np.asarray(a, dtype) for a in np.clip(to_scale(act), low, high)]
    return lambda act: np.clip(to_scale(act), low, high).astype(dtype, copy=False)


def to_tensors(state: Any) -> Any:
    """A state with tensors in place of its arrays, for files. They are copies, because the arrays go on changing."""
    return _replaced(state, np.ndarray, lambda x: torch.from_numpy(x.copy()) if x.size else torch.zeros(x.shape))


def to_arrays(state: Any) -> Any:
    """The inverse of `to_tensors`."""
    return _replaced(state, torch.Tensor, lambda x: x.numpy())


def _replaced(state: Any, kind: type, by: Callable[[Any], Any]) -> Any:
    if isinstance(state, dict):
        return {key: _replaced(part, kind, by) for key, part in state.items()}
    if isinstance(state, list):
        return [_replaced(part, kind, by) for part in state]
    return by(state) if isinstance(state, kind) else state
