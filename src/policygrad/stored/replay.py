"""Learning from stored trajectories: who draws them, and who starts as the policy that sampled them."""

from __future__ import annotations

import math
from collections import deque
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Batch, Rollout
from policygrad.models.ascent import minibatch_ascent
from policygrad.models.networks import TabularNetwork
from policygrad.models.optim import Adam
from policygrad.models.policy import Policy
from policygrad.stored.trajectories import Trajectories, TrajectoryError

CLONE_RATE = 3e-3  # of maximum likelihood, falling to 0
TABLE_RATE = 0.1  # the same where every state has numbers of its own
CLONE_ROWS = 256  # a minibatch


class Replay:
    """A collector that plays nothing: it draws whole episodes from a database. In the place of `Collector`, for its `episodes`.

    steps_done, episodes_done: drawn so far, those that were learned from. There are no returns of its own: `returns` is empty.
    Where the database has no log-probabilities, the policy that acted is estimated first: a copy of `policy`, cloned.
    """

    def __init__(self, trajectories: Trajectories, policy: Policy, seed: int = 0, clone_epochs: int = 20) -> None:
        self.seed, self.clone_epochs = seed, clone_epochs
        if trajectories.logp is None:
            if clone_epochs < 1:
                raise TrajectoryError("clone_epochs = 0, but the trajectories have no log-probabilities: raise it")
            acted = deepcopy(policy)
            clone(acted, trajectories, clone_epochs, seed)
            trajectories = trajectories.under(acted)
        self.trajectories = trajectories
        self.rng = np.random.default_rng([seed, 2])
        self.steps_done = self.episodes_done = 0
        self.returns: deque[float] = deque(maxlen=100)
        self.lengths: deque[int] = deque(maxlen=100)
        self.finished: list[tuple[float, int]] | None = None
        self.begun = False

    def begin(self, policy: Policy) -> None:
        """Before the first rollout: let the policy start as the one that acted, or close to it. Later it changes nothing."""
        if not self.begun and self.clone_epochs:
            clone(policy, self.trajectories, self.clone_epochs, self.seed)
        self.begun = True

    def steps(self, policy: Policy, T: int) -> Rollout:
        """Refused: weights are of whole episodes."""
        raise TrajectoryError("stored trajectories are whole episodes: draw them with .episodes")

    def episodes(self, policy: Policy, n: int) -> Rollout:
        """N different episodes, each with the same chance, a column each; all of them, in order, where there are no more."""
        E = len(self.trajectories)
        index = np.arange(E) if n >= E else self.rng.choice(E, n, replace=False)
        rollout = self.trajectories.rollout(policy, torch.from_numpy(index))
        self.steps_done += rollout.steps
        self.episodes_done += len(index)
        return rollout

    def state_dict(self) -> dict[str, Any]:
        """The generator and the counters; the trajectories stay where they are."""
        return {
            "rng": self.rng.bit_generator.state,
            "steps_done": self.steps_done,
            "episodes_done": self.episodes_done,
            "begun": self.begun,
            "returns": [],  # what a Collector has, for an agent that is loaded without its dataset
            "lengths": [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rng.bit_generator.state = state["rng"]
        self.steps_done, self.episodes_done = state["steps_done"], state["episodes_done"]
        self.begun = state.get("begun", True)


def clone(policy: Policy, trajectories: Trajectories, epochs: int, seed: int = 0) -> float:
    """Maximum likelihood, max Σ log π(a|s) over the stored steps: the policy becomes the one that acted, as far as they show.

    Of several that acted, their average. A normaliser is set to the stored observations first. Returns the mean log π(a|s).
    """
    obs, act = trajectories.states, trajectories.act
    ones = torch.ones(trajectories.steps, dtype=policy.flat.dtype)
    if policy.normalizer is not None:
        policy.normalizer.merge(obs)
    batch = Batch(obs, act, torch.zeros_like(ones), ones, ones / trajectories.steps, len(trajectories))
    optimizer, generator = Adam(), torch.Generator().manual_seed(seed)
    rate = TABLE_RATE if isinstance(policy.network, TabularNetwork) else CLONE_RATE
    pieces = math.ceil(trajectories.steps / CLONE_ROWS)

    def likelihood(logp: Tensor, batch: Batch) -> Tensor:
        return batch.weight

    for epoch in range(epochs):
        lr = rate * (1.0 - epoch / epochs)
        minibatch_ascent(policy, batch, likelihood, optimizer=optimizer, lr=lr, generator=generator, minibatches=pieces)
    return float(policy.evaluate(obs, act).logp.mean())
