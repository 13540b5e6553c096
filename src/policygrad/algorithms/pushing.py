"""Workers of an asynchronous learner: each learns at a copy of the newest parameters, and its gradient moves the newest.

A worker is a learner like any other, but for where its gradients go: the optimiser of its policy, and that of its critic,
is a `Push`. It moves the newest parameters, with the statistics that all workers share, and hands the worker a copy. The
scale of the critic's targets and the moments of observations are shared in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any

from torch import Tensor

from policygrad.algorithms.learner import Iteration, Learner, Measured
from policygrad.data import Rollout, Stats, Values
from policygrad.forms import Form, form_of, table
from policygrad.models.critic import Critic
from policygrad.models.flat import FlatModule
from policygrad.models.optim import Optimizer
from policygrad.models.policy import Policy
from policygrad.total import moments


class Turn:
    """`with turn: …` is a worker's turn to move the newest parameters. In one process nobody else can.

    pushes: how often the policy has been moved, by all workers together.
    """

    def __init__(self) -> None:
        self.pushes = 0

    def __enter__(self) -> None:
        """Nobody else moves the newest parameters from here on."""

    def __exit__(self, *_: object) -> None:
        """The next worker may."""


class Push:
    """An optimiser that moves the newest parameters in place of the worker's own, which are then copied from the newest."""

    def __init__(self, newest: FlatModule, optimizer: Optimizer, turn: Turn, pull: Callable[[], None]) -> None:
        self.newest, self.optimizer, self.turn, self.pull = newest, optimizer, turn, pull

    def step(self, params: Tensor, grad: Tensor, lr: float) -> None:
        """Move the newest parameters by the worker's gradient (P,)."""
        with self.turn:
            self.optimizer.step(self.newest.flat, grad, lr)
            self.pull()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the statistics are with the newest parameters."""
        return {}

    def state_form(self, params: Tensor) -> Form:
        """Of `state_dict`."""
        return table({})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


class PushedCritic:
    """A worker's copy of the critic."""

    bootstraps = True

    def __init__(self, newest: Critic, turn: Turn) -> None:
        self.newest, self.turn, self.copy = newest, turn, deepcopy(newest)
        self.copy.optimizer = Push(newest, newest.optimizer, turn, self.pull)  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        """The values of the copy."""
        return self.copy(rollout, policy)

    def fit(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> Stats:
        """As `Critic.fit`: the newest critic follows the scale of these targets, and the copy takes it over."""
        with self.turn:
            self.newest.follow(*moments(rollout.valid(target)))
            if self.copy.seen > 0:
                self.copy.rescale(self.newest.mean, self.newest.std)
            self._take_scale()
        self.copy.regress(rollout, target, policy, progress)
        return {}

    def pull(self) -> None:
        """Copy the newest critic."""
        self.copy.flat.copy_(self.newest.flat)
        self._take_scale()

    def _take_scale(self) -> None:
        for name in ("seen", "mean", "std", "var"):
            setattr(self.copy, name, getattr(self.newest, name))

    def state_dict(self) -> dict[str, Any]:
        return self.copy.state_dict()

    def state_form(self) -> Form:
        """Of `state_dict`."""
        return form_of(self.copy)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.copy.load_state_dict(state)


class AsyncWorker(Learner):
    """A learner at a copy of the newest parameters, which it moves in its turn. newest: the learner that has them.

    number: of the worker, so that no two shuffle alike. Of each step it says the `delay`: how often other workers moved the
    policy between this worker's copy and its push.
    """

    critic: PushedCritic

    def __init__(self, newest: Learner, turn: Turn, number: int = 0) -> None:
        assert isinstance(newest.critic, Critic)
        self.newest, self.turn, self.at, self.delay = newest.policy, turn, turn.pushes, 0
        critic, update, policy = PushedCritic(newest.critic, turn), copy(newest.update), deepcopy(newest.policy)
        if number:
            seeded = critic.copy.generator
            seeded.manual_seed(seeded.initial_seed() + number)
        update.optimizer = Push(newest.policy, newest.update.optimizer, turn, self._pull)  # pyright: ignore
        parts: dict[str, Any] = {"critic": critic, "baseline": deepcopy(newest.baseline)}
        super().__init__(policy, newest.estimator, update, reduction=newest.reduction, **parts)

    def _pull(self) -> None:
        """Count a push of the policy, and copy the newest one, but for its normaliser: see `merge`."""
        self.delay, self.turn.pushes = self.turn.pushes - self.at, self.turn.pushes + 1
        self.at = self.turn.pushes
        self.policy.flat.copy_(self.newest.flat)

    def improve(self, iteration: Iteration, progress: float, measured: Measured = lambda move: move) -> Stats:
        """As `Learner.improve`."""
        return super().improve(iteration, progress, measured) | {"delay": float(self.delay)}

    def merge(self, rollout: Rollout) -> None:
        """Show the newest policy's normaliser what was acted on, and copy it. It is the last thing that an iteration does, so
        that the whole of it sees the same one.
        """
        own, newest = self.policy.normalizer, self.newest.normalizer
        assert own is not None
        assert newest is not None
        with self.turn:
            newest.merge(self.policy.raw_features(rollout.valid_obs))
            own.take(newest)

    def renew(self) -> None:
        """Copy everything that is newest, as a worker that has just begun."""
        self.at = self.turn.pushes
        self.policy.flat.copy_(self.newest.flat)
        self.critic.pull()
        own, newest = self.policy.normalizer, self.newest.normalizer
        if own is not None and newest is not None:
            own.take(newest)
