"""The state of a data-parallel run as one: what a file holds is what one process with all environments would have written, so
that any number of processes can go on with it.

Parameters, optimisers, schedules and generators are equal in all ranks. What belongs to an environment is in its rank: where it
is, its rows of the replay buffer, and the memory of a recurrent critic. It lies along one axis of an array, or in a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from policygrad.envs.collector import WHERE
from policygrad.replay import ReplayBuffer
from policygrad.stored.blocks import ReplayBlocks
from policygrad.stored.storage import from_bytes, to_bytes
from policygrad.training.ranks import Ranks
from policygrad.training.shares import place, sharing
from policygrad.tree import Tree

LISTS = ("env_seeds", "envs")  # one entry per environment


def whole_state(agent: Any, more: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """`agent.state_dict()` of all environments, and `more` of every rank; of other ranks than 0 nothing that counts. All ranks
    must call it.
    """
    with sharing(agent.ranks):
        state = agent.state_dict()
    if agent.ranks is None:
        return state, [more]
    own = {"/".join(path): _at(state, path) for path, _ in _parts(state)}
    told = [from_bytes(data) for data in agent.ranks.gathered(to_bytes({"own": own, "more": dict(more)}))]
    for path, axis in _parts(state) if told else ():
        _put(state, path, _joined([each["own"]["/".join(path)] for each in told], axis))
    return state, [each["more"] for each in told]


def part_of(state: dict[str, Any], ranks: Ranks | None, num_envs: int) -> dict[str, Any]:
    """What this rank has of the state of all environments: the inverse of `whole_state`."""
    if ranks is None:
        return state
    rows = slice(*place(ranks, num_envs))
    for path, axis in _parts(state):
        _put(state, path, _cut(_at(state, path), rows, axis, num_envs))
    return state


def _parts(state: dict[str, Any]) -> list[tuple[tuple[str, ...], int]]:
    """Where in a state there is something for every environment, and along which axis."""
    found = [(("collector", name), 0) for name in (*WHERE, *LISTS)]
    found += [(("learner", "replay", "rows"), 1), (("learner", "replay", "shown"), 0)]
    found += [(("learner", "critic", "_extra_state", "reached"), 0)]
    return [(path, axis) for path, axis in found if _holds(state, path)]


def _holds(state: Any, path: Sequence[str]) -> bool:
    for name in path:
        if not isinstance(state, dict) or name not in state:
            return False
        state = state[name]
    return True


def _at(state: Any, path: Sequence[str]) -> Any:
    for name in path:
        state = state[name]
    return state


def _put(state: Any, path: Sequence[str], value: Any) -> None:
    _at(state, path[:-1])[path[-1]] = value


def _joined(parts: list[Any], axis: int) -> Any:
    if any(part is None for part in parts):
        return None
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts], axis) for name in parts[0]}
    if isinstance(parts[0], list):
        return [each for part in parts for each in part]
    return torch.cat(parts, axis)


def _cut(whole: Any, rows: slice, axis: int, num_envs: int) -> Any:
    if isinstance(whole, dict):
        return {name: _cut(part, rows, axis, num_envs) for name, part in whole.items()}
    if isinstance(whole, list):
        return whole[rows]
    if whole is None or whole.shape[axis] != num_envs:  # nothing is remembered, or it is of other environments
        return whole
    return whole[(slice(None),) * axis + (rows,)].clone()


class SharedBlocks(ReplayBlocks):
    """The blocks of the replay buffer of all environments: each rank hands rank 0 its columns, and rank 0 writes them."""

    def __init__(self, agent: Any, run: Path, known: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(run, known)
        self.ranks, self.num_envs = agent.ranks, agent.config["num_envs"]

    def _bytes(self, buffer: ReplayBuffer) -> int:
        return buffer.nbytes // buffer.num_envs * self.num_envs

    def _save(self, first: int, stop: int, columns: Tree) -> str:
        told = [from_bytes(data) for data in self.ranks.gathered(to_bytes({"columns": columns}))]
        return super()._save(first, stop, _joined([each["columns"] for each in told], 1)) if told else ""

    def forget(self, steps: int) -> None:
        """As `ReplayBlocks` does, in rank 0."""
        if self.ranks.rank == 0:
            super().forget(steps)


def blocks_of(agent: Any, run: Path, known: Sequence[dict[str, Any]]) -> ReplayBlocks | None:
    """The blocks of a learner that has a replay buffer. known: those that a checkpoint needs."""
    if not isinstance(getattr(agent.learner, "replay", None), ReplayBuffer):
        return None
    return ReplayBlocks(run, known) if agent.ranks is None else SharedBlocks(agent, run, known)
