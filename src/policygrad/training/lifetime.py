"""An agent between its trainings: copied, pickled, asked by several threads, closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, Self

import gymnasium as gym
from gymnasium.vector import VectorEnv

from policygrad.algorithms.config import find_recipe
from policygrad.algorithms.foreign import ATTRIBUTES
from policygrad.envs.make import make_envs
from policygrad.stored.replay import Replay
from policygrad.training.threads import BusyError, Turns, single_thread
from policygrad.training.trainer import Trainer


class Lifetime:
    """What an `Agent` is besides its learning; it says there what users should know."""

    asked: Any  # the recipe, as it was asked for
    recipe: Any
    env: Any
    envs: VectorEnv
    config: dict[str, Any]
    backend: str
    plan: Any
    learner: Any
    policy: Any
    collector: Any
    _collector: Any
    _step: Any

    def _begin(self) -> None:
        """What no copy shares with the agent that it is of."""
        self.trainer = Trainer(self.collector, self.policy, lambda: self.plan.wants, self._step)
        self.closed, self._turns = False, Turns()

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all but the environments, which a copy makes anew, and whoever looks on."""
        own = ("envs", "recipe", "trainer", "_turns", "closed")
        state = {k: v for k, v in self.__dict__.items() if k not in own}
        learner = _unobserved(self.learner)
        collector = _unobserved(self.collector) if isinstance(self.collector, Replay) else self.collector.state_dict()
        state |= {"learner": learner, "plan": replace(self.plan, learner=learner), "collector": collector}
        return state | {"counters": self.trainer.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        counters, collector = state.pop("counters"), state["collector"]
        self.__dict__.update(state)
        self.recipe = find_recipe(self.asked)
        self.envs = make_envs(self.env, self.config["num_envs"], self.backend)
        if not isinstance(collector, Replay):
            self.collector = self._collector()
            self.collector.load_state_dict(collector)
        self._begin()
        self.trainer.load_state_dict(counters)

    def __getattr__(self, name: str) -> Any:
        instead = ATTRIBUTES.get(name)
        text = f"an Agent has no {name!r}" + (f": {instead}" if instead else "")
        raise AttributeError(text, name=name, obj=self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the environments that the agent made; one that was lent stays open. The agent predicts and evaluates on, but
        cannot learn any more.
        """
        before, self.closed = self.closed, True
        if not before and not isinstance(self.env, gym.Env | VectorEnv):
            self.envs.close()

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """While this thread learns, others are refused. Raises BusyError for an agent that is closed."""
        if self.closed:
            raise BusyError("this agent is closed and its environments are gone: make or load another one to learn on")
        with self._turns.learning(), single_thread():
            yield


def _unobserved(part: Any) -> Any:
    """The same part with nobody looking on."""
    part = copy(part)
    if hasattr(part, "observers"):
        part.observers = []
    return part
