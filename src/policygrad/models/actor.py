"""The contract of whoever acts: a stochastic policy, a deterministic one with noise, ε-greedy values, a recurrent one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from policygrad.models.observations import Encoding
from policygrad.tree import Tree


class Actor(Protocol):
    """Acts for N environments at a time, in NumPy.

    Laws. `noise` holds all the randomness of acting: with the same observations, state and noise, `act` does the same. An
    actor with a state is handed `begin(noise)` where an episode begins, and elsewhere what `act` returned; without one
    (`stateful` is False) it is None. A state is a tree of arrays (N, *), which rows of one environment never leave. Acting
    changes no parameter. Where the row after an end is a reset row (NEXT_STEP), the state begins anew before it, and again
    after it, unless `begins_once`: for a state that may as well go on from there, such as stationary noise.
    """

    begins_once: bool

    @property
    def stateful(self) -> bool:
        """Whether acting has a state."""
        ...

    @property
    def encoding(self) -> Encoding | None:
        """How observations become arrays; None: as the space says."""
        ...

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """The randomness of `shape` steps, drawn at once: shape + (…)."""
        ...

    def begin(self, noise: np.ndarray) -> Tree:
        """The state at the beginning of an episode, (N, *), from the noise (N, …) of a step."""
        ...

    def act(self, obs: Tree, state: Tree, noise: np.ndarray) -> tuple[np.ndarray, Tree, Mapping[str, Tree]]:
        """Actions (N, *) of a training step, the next state, and named arrays (N, *) that a learner needs: `Record.extra`."""
        ...

    def mode(self, obs: Tree, state: Tree) -> tuple[np.ndarray, Tree]:
        """Actions (N, *) without noise, and the next state: the greedy policy."""
        ...

    def to_env(self, act: np.ndarray) -> np.ndarray:
        """From actions as they are stored to the scale of the action space."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """The inverse of `state_dict`."""
        ...
