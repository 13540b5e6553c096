"""Asynchronous workers, simulated in one process: the same stale gradients, in an order that the seed decides.

In every round each worker plays at its own copy of the parameters, all at once, in its own environments. Then they push, one
after another in a random order, and each takes a new copy right after its push. So a gradient is as many updates old as other
workers have pushed since its worker's last push: with W workers 0 to 2 (W − 1), and W − 1 on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.algorithms.learner import Iteration, Learner, Measured
from policygrad.algorithms.pushing import AsyncWorker, Turn
from policygrad.data import Record, Rollout, Stats
from policygrad.forms import PCG64, Form, each, form_of, table, whole
from policygrad.models.policy import Policy
from policygrad.streams import stream
from policygrad.tree import Tree, concatenate, take

MOST_WORKERS = 4096


class BlockActor:
    """An actor of several policies: each acts in a block of neighbouring environments. What they share is the first's."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = list(policies)

    def __getattr__(self, name: str) -> Any:
        if name == "policies" or name.startswith("__"):  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.policies[0], name)

    def blocks(self, columns: int) -> list[slice]:
        """The environments of each policy; empty where there are fewer of them than policies."""
        W = len(self.policies)
        return [slice(w * columns // W, (w + 1) * columns // W) for w in range(W)]

    def act(self, obs: Tree, state: Tree, noise: np.ndarray) -> tuple[np.ndarray, Tree, Mapping[str, Tree]]:
        """As `Actor.act`, each policy in its own rows."""
        if len(self.policies) == 1:
            return self.policies[0].act(obs, state, noise)
        acted = [
            policy.act(take(obs, rows), None if state is None else take(state, rows), noise[rows])
            for policy, rows in zip(self.policies, self.blocks(len(noise)), strict=True)
            if rows.start < rows.stop
        ]
        acts, states, extras = zip(*acted, strict=True)
        return concatenate(acts), None if state is None else concatenate(states), concatenate(extras)

    def log_probs(self, obs: Tree, act: Tensor, extra: Mapping[str, Tree]) -> Tensor:
        """As `Policy.log_probs`, each policy in its own columns."""
        parts = [
            policy.log_probs(take(obs, (slice(None), rows)), act[:, rows], take(dict(extra), (slice(None), rows)))
            for policy, rows in zip(self.policies, self.blocks(act.shape[1]), strict=True)
            if rows.start < rows.stop
        ]
        return torch.cat(parts, 1)


class SimulatedLearner(Learner):
    """The newest parameters, and the workers that move them: an iteration is a push of each worker. Keywords as `Learner`.

    `policy` and `critic` are the newest; `actor` plays at the workers' copies. With one worker it is `Learner`, bit for bit.
    """

    any_device = False

    def __init__(self, *parts: Any, workers: int, seed: int = 0, **keywords: Any) -> None:
        super().__init__(*parts, **keywords)
        self.turn = Turn()
        self.workers = [AsyncWorker(self, self.turn, number) for number in range(workers)]
        self.actor = BlockActor([worker.policy for worker in self.workers])
        self.order = np.random.default_rng(stream(seed, "order"))

    def step(self, record: Record | Rollout, progress: float = 0.0) -> Stats:
        """A push of each worker, from its part of the record."""
        rollout = Rollout.of(record, self.actor if self.observers else None)
        for observer in self.observers:
            observer(rollout)
        return self.round(rollout, progress)

    def round(self, rollout: Rollout, progress: float) -> Stats:
        """A push of each worker, in a random order; the means of what they say."""
        blocks, said = self.actor.blocks(rollout.mask.shape[1]), []
        for w in self.order.permutation(len(self.workers)):
            part = rollout if len(self.workers) == 1 else rollout.columns(blocks[w])
            if part.steps:
                said.append(self.workers[w].step(part, progress))
        return mean_stats(said)

    def prepare(self, rollout: Rollout) -> Iteration | None:
        """As `Learner.prepare`, at the newest parameters; observers are told what those who acted thought."""
        observers, self.observers = self.observers, []
        try:
            if observers:
                logp = self.actor.log_probs(take(rollout.obs, slice(-1)), rollout.act, rollout.extra)
                acted = replace(rollout, logp=logp)
                for observer in observers:
                    observer(acted)
            return super().prepare(rollout)
        finally:
            self.observers = observers

    def improve(self, iteration: Iteration, progress: float, measured: Measured = lambda move: move) -> Stats:
        """The round as one move of the newest policy, to be measured."""
        move = measured(lambda policy, batch, progress: self.round(iteration.rollout, progress))
        return move(self.policy, iteration.batch, progress)

    def state_dict(self) -> dict[str, Any]:
        """The newest parameters, the workers' copies and their ages, and the order to come."""
        workers = {"copies": [worker.state_dict() for worker in self.workers], "at": [w.at for w in self.workers]}
        order = {"pushes": self.turn.pushes, "order": self.order.bit_generator.state}
        return super().state_dict() | {"workers": workers | order}

    def state_form(self) -> Form:
        """Of `state_dict`; the number of workers may have been another."""
        form, copies = super().state_form(), each(form_of(self.workers[0]), MOST_WORKERS)
        workers = {"copies": copies, "at": each(whole(), MOST_WORKERS), "pushes": whole(), "order": PCG64}
        own = table({}, optional={"workers": table(workers)})

        def check(name: str, value: Any) -> None:
            parts = value if isinstance(value, dict) else {}
            form(name, {key: x for key, x in parts.items() if key != "workers"})
            own(name, {key: x for key, x in parts.items() if key == "workers"})

        return check

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Workers begin at the newest parameters where the state has another number of them."""
        super().load_state_dict(state)
        kept = state.get("workers", {"copies": [], "at": [], "pushes": 0})
        self.turn.pushes = kept["pushes"]
        if "order" in kept:
            self.order.bit_generator.state = kept["order"]
        known = len(kept["copies"]) == len(kept["at"]) == len(self.workers)
        for number, worker in enumerate(self.workers):
            if known:
                worker.load_state_dict(kept["copies"][number])
                worker.at = kept["at"][number]
            else:
                worker.renew()


def mean_stats(said: Sequence[Stats]) -> Stats:
    """The mean of every number, over those who said it."""
    names = dict.fromkeys(name for stats in said for name in stats)
    return {name: float(np.mean([stats[name] for stats in said if name in stats])) for name in names}
