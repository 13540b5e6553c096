"""The contracts of actors and of policies that update rules move. `Policy` keeps both; an object of yours may keep either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from policygrad.models.observations import Encoding
from policygrad.tree import Tree


class Actor(Protocol):
    """An actor: it acts in N environments at a time, in NumPy.

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


class Rows(Protocol):
    """The rows that a policy evaluates: a `Batch`, or any object with these fields."""

    @property
    def obs(self) -> Tree:
        """(B, *)."""
        ...

    @property
    def act(self) -> Tensor:
        """(B, *)."""
        ...

    @property
    def extra(self) -> Mapping[str, Any]:
        """Named arrays (B, *): what else the policy must know of its rows, such as the state a segment begins in."""
        ...


class EvaluationLike(Protocol):
    """One forward pass on a batch. Derivatives are by the network's outputs until `pull_back`.

    That space is its business: a network's outputs, or the log-probabilities themselves where θ is reached by autograd.
    Laws: tensors from `score` and `divergence` may be added; `pull_back` is linear, and
    pull_back(score(w)) = Σ_b w_b ∇log π(a_b|s_b), w held constant, (P,) in the order of `PolicyLike.flat`.
    """

    @property
    def logp(self) -> Tensor:
        """Log π(a|s), (B,), no graph."""
        ...

    def score(self, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        """The derivative of Σ_b weight_b log π(a_b|s_b) + ent_weight_b entropy_b; NotImplementedError without an entropy."""
        ...

    def divergence(self, old: Tensor, weight: Tensor) -> Tensor:
        """The derivative of Σ_b weight_b KL(old_b ‖ π_b), old as in `Batch.dist`; NotImplementedError without such a thing."""
        ...

    def pull_back(self, derivative: Tensor) -> Tensor:
        """∇θ, (P,), in memory that the next call may use again."""
        ...


class PolicyLike(Protocol):
    """A policy as first-order update rules need it. `Policy` is one.

    Laws: `evaluate` draws no random numbers and moves nothing; rows come in the batch's order, whole units of it, so that a
    recurrent policy may read them as segments; after `flat` was written to, the next evaluation is that of the new
    parameters. A distribution (`dist`, `head`) and Fisher products are optional: target_kl, PenalizedSurrogate, natural
    steps and diagnostics need them.
    """

    flat: Tensor  # (P,) the parameters, changed in place

    def evaluate(self, batch: Rows) -> EvaluationLike:
        """Log-probabilities of a batch, ready to be differentiated."""
        ...
