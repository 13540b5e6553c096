"""Whether an exported policy acts as `predict` does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from policygrad.envs.serial import mask_info
from policygrad.errors import UserError
from policygrad.models.exploring import ActionValues
from policygrad.models.heads import MultiCategorical
from policygrad.models.memory import FIRST, MEMORY
from policygrad.models.policy import Policy
from policygrad.models.recurrent import RecurrentPolicy
from policygrad.serving.graphs import draw
from policygrad.serving.probes import Probes
from policygrad.training.predicting import predict

BATCHES = (1, 5, 64)  # observations in a call, besides all of them
TOLERANCE = (
    1e-5  # of actions, absolute below 1 and relative above; and of what the chosen action is worse than the best
)


# actions (n, *), and the memory (n, M) after them, of a policy that has one
Acted = tuple[np.ndarray, np.ndarray | None]


class MismatchError(UserError, ValueError):
    """What was exported does not act as the policy does."""


@dataclass(frozen=True)
class Restored:
    """A policy in torch, and what its file says of it."""

    policy: Policy
    observation_space: spaces.Space
    action_space: spaces.Space
    meta: Mapping[str, Any]

    def predict(self, given: Probes, rows: slice, seed: int | None) -> Acted:
        """The actions (n, *) of `predict` for some of the observations, and the memory after them. seed: of samples; None: the
        most likely actions.
        """
        obs, masks = given.given(rows)
        rng, spaces_ = np.random.default_rng(seed), (self.observation_space, self.action_space)
        state = self.state(given, rows, seed)
        act, after = predict(self.policy, *spaces_, obs, rng, seed is None, masks, state)
        return np.asarray(act), None if state is None else after[MEMORY]

    def state(self, given: Probes, rows: slice, seed: int | None) -> Any:
        """What the policy remembers before these observations."""
        if given.memory is None:
            return None
        policy, memory = self.policy, given.memory[rows]
        begun = policy.begin(policy.noise(np.random.default_rng(0 if seed is None else seed), (len(memory),)))
        return begun | {MEMORY: memory, FIRST: np.zeros(len(memory), bool)}

    def scores(self, given: Probes, rows: slice, seed: int | None) -> np.ndarray:
        """What the chosen discrete action is the largest of, (n, A)."""
        (obs, masks), encoding = given.given(rows), self.policy.encoding
        assert encoding is not None
        n = len(given.inputs(rows)[0])
        x = encoding.empty(n)
        encoding.encode(obs, {} if masks is None else mask_info(masks), x)
        if isinstance(self.policy, RecurrentPolicy):
            out = self.policy.advanced(x, self.state(given, rows, seed))[0]
            out = self.policy.conditioned(out, x, None)
        else:
            out = self.policy.outputs(x)
        if seed is None or isinstance(self.policy.head, ActionValues):
            return out
        return out + draw(self.policy, np.random.default_rng(seed), n)


def compare(
    restored: Restored, given: Probes, count: int, act: Callable[[slice], Acted], seed: int | None
) -> tuple[float, int]:
    """The largest difference between act(rows) and `predict`, and how many choices differ because two are equally good.

    Batches of 1, 5, 64 and of all `count` observations are compared, and what a policy remembers after each. Raises
    MismatchError for more than TOLERANCE, and for actions of another type or shape.
    """
    difference, ties = 0.0, 0
    for size in (*BATCHES, count):
        rows = slice(0, size * (count // size), count // size)
        (expected, memory), (got, remembered) = restored.predict(given, rows, seed), act(rows)
        if got.shape != expected.shape or got.dtype != expected.dtype:
            raise MismatchError(
                f"predict gives actions {expected.dtype} {expected.shape}, what was exported {got.dtype} {got.shape}: "
                "nothing was written"
            )
        if isinstance(restored.action_space, spaces.Box):
            worst = _apart(got, expected)
            difference = max(difference, worst)
        else:
            worst, equal = _worse(restored, given, rows, got, expected, seed)
            ties += equal
        if memory is not None:
            worst = max(worst, math.inf if remembered is None else _apart(remembered, memory))
        if not worst <= TOLERANCE:
            raise MismatchError(
                f"what was exported acts otherwise than predict, by {worst:.3g} in a batch of {size:,} observations, more than "
                f"the {TOLERANCE:g} that rounding explains: nothing was written"
            )
    return difference, ties


def _apart(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, absolute below 1 and relative above."""
    wide = np.maximum(1.0, np.abs(expected.astype(np.float64)))
    return float((np.abs(got - expected.astype(np.float64)) / wide).max())


def _worse(
    restored: Restored, given: Probes, rows: slice, got: np.ndarray, expected: np.ndarray, seed: int | None
) -> tuple[float, int]:
    """How much better than the chosen action another one would have been, relative to the scores; and how many differ."""
    differs = (got != expected).reshape(len(got), -1)
    if not differs.any():
        return 0.0, 0
    scores, head = restored.scores(given, rows, seed), restored.policy.head
    sizes = head.sizes if isinstance(head, MultiCategorical) else (scores.shape[1],)
    start = np.asarray(getattr(restored.action_space, "start", 0))
    chosen, first, worst = (got - start).reshape(len(got), -1), 0, 0.0
    for k, size in enumerate(sizes):
        own = scores[:, first : first + size].astype(np.float64)
        best = own.max(-1)
        gap = (best - own[np.arange(len(own)), chosen[:, k]]) / np.maximum(1.0, np.abs(best))
        worst, first = max(worst, float(gap[differs[:, k]].max(initial=0.0))), first + size
    return worst, int(differs.sum())
