"""Learning from stored trajectories: a source that draws them, and cloning of the policy that sampled them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from policygrad.data import Batch, Record, Wants
from policygrad.forms import RECENT, Form, source_form
from policygrad.models.ascent import epochs_of, minibatch_ascent
from policygrad.models.networks import TabularNetwork
from policygrad.models.optim import Adam
from policygrad.models.policy import Policy
from policygrad.models.workspace import AscentPlan
from policygrad.stored.trajectories import Trajectories, TrajectoryError, refuse_state
from policygrad.streams import stream
from policygrad.tree import to_device

CLONE_RATE = 3e-3  # of maximum likelihood, falling to 0
TABLE_RATE = 0.1  # the same where every state has numbers of its own
CLONE_ROWS = 256  # a minibatch


class Replay:
    """An experience source that draws whole stored episodes from a database instead of playing.

    steps_done, episodes_done: drawn so far, those that were learned from. There are no returns of its own: `returns` is empty.
    Where the database has no log-probabilities, the policy that acted is estimated first: a copy of `policy`, cloned.
    """

    def __init__(self, trajectories: Trajectories, policy: Policy, seed: int = 0, clone_epochs: int = 20) -> None:
        self.seed, self.clone_epochs = seed, clone_epochs
        refuse_state(policy)
        if trajectories.logp is None:
            if clone_epochs < 1:
                raise TrajectoryError(
                    "clone_epochs = 0, but trajectories without log-probabilities need behaviour cloning: set it above 0"
                )
            acted = deepcopy(policy)
            clone(acted, trajectories, clone_epochs, seed)
            trajectories = trajectories.under(acted)
        self.trajectories = trajectories
        self.rng = np.random.default_rng(stream(seed, "stored"))
        self.steps_done = self.episodes_done = 0
        self.returns: deque[float] = deque(maxlen=RECENT)
        self.lengths: deque[int] = deque(maxlen=RECENT)
        self.observers: list[Callable[[Record], None]] = []
        self.begun, self.progress = False, 0.0

    def begin(self, actor: Policy) -> None:
        """Before the first record: let the policy start as the one that acted, or close to it."""
        if self.clone_epochs:
            clone(actor, self.trajectories, self.clone_epochs, self.seed)
        self.begun = True

    def collect(self, actor: Any, wants: Wants) -> Record:
        """So many different episodes, each with the same chance, one per column; all of them, in order, where there are no
        more. Raises TrajectoryError where rows are wanted: importance weights are of whole episodes.
        """
        if wants.episodes is None:
            raise TrajectoryError(
                "stored trajectories are whole episodes: the learner must ask for episodes, not for steps"
            )
        E = len(self.trajectories)
        index = np.arange(E) if wants.episodes >= E else self.rng.choice(E, wants.episodes, replace=False)
        record = self.trajectories.record(torch.from_numpy(index))
        self.steps_done += record.steps
        self.episodes_done += len(index)
        for observer in self.observers:
            observer(record)
        return record

    def restore(self) -> None:
        """There is nothing to do."""

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

    def state_form(self) -> Form:
        """Of `state_dict`."""
        return source_form()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rng.bit_generator.state = state["rng"]
        self.steps_done, self.episodes_done = state["steps_done"], state["episodes_done"]
        self.begun = state.get("begun", True)


def clone(policy: Policy, trajectories: Trajectories, epochs: int, seed: int = 0) -> float:
    """Fit the policy by maximum likelihood, max Σ log π(a|s) over the stored steps, to the policy that acted.

    Of several that acted, their average. A normaliser is set to the stored observations first. Returns the mean log π(a|s).
    """
    rows, generator = trajectories.steps, torch.Generator().manual_seed(int(seed))
    weight = policy.flat.new_full((rows,), 1.0 / rows)
    seen = to_device({"obs": trajectories.states, "act": trajectories.act}, policy.device)
    batch = Batch.of(**seen, weight=weight)
    if policy.normalizer is not None:
        policy.normalizer.merge(policy.raw_features(batch.obs))
    optimizer, pieces = Adam(), math.ceil(rows / CLONE_ROWS)
    rate = TABLE_RATE if isinstance(policy.network, TabularNetwork) else CLONE_RATE
    for epoch in range(epochs):
        how = AscentPlan(optimizer, rate * (1.0 - epoch / epochs), None, pieces, generator)
        likelier = lambda mb: policy.evaluate(mb).gradient(mb.weight)  # noqa: E731
        minibatch_ascent(epochs_of(policy.flat, lambda: batch.minibatches(pieces, generator), likelier, how))
    return float(trajectories.under(policy).logp.mean())  # pyright: ignore[reportOptionalMemberAccess]
