"""Asynchronous workers as processes that race: a source of experience whose workers have learned from it before it is seen.

The processes push on their own. What is here counts and measures: in every round there are as many permits to push as there
are workers, whoever takes them. When all are used up nobody can push, so that callbacks, checkpoints and evaluations see
parameters that stand still, and exactly the steps that made them. Meanwhile the workers play on.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import util
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from policygrad.algorithms import crew_process
from policygrad.algorithms.crew_process import SharedNewest, Shift
from policygrad.algorithms.learner import Iteration, Learner, Measured
from policygrad.algorithms.simulated import mean_stats
from policygrad.data import Record, Rollout, Stats, Wants
from policygrad.envs.block import Failure
from policygrad.envs.processes import exit_text
from policygrad.envs.shared import Memory
from policygrad.envs.single import EnvLike
from policygrad.envs.supervision import Watch, WorkerError, WorkerHandle, end, payloads
from policygrad.envs.workers import START
from policygrad.errors import UserError
from policygrad.forms import RECENT, Form, each, number, table, whole
from policygrad.tree import concatenate, take

DEADLINE = 600.0  # seconds without a push of any worker: a slow environment is not a hung one


class CrewError(UserError, ValueError):
    """Worker processes cannot have the environments that they were given."""


class PulledLearner(Learner):
    """A learner whose parameters were moved by worker processes: its step takes what is newest. Keywords as `Learner`.

    A record that nobody has learned from is learned from as usual.
    """

    any_device = False

    def __init__(self, *parts: Any, **keywords: Any) -> None:
        super().__init__(*parts, **keywords)
        self.pull: Callable[[], Stats] | None = None  # takes the newest parameters; from `collect` to the step

    @property
    def actor(self) -> PulledLearner:
        """Who is handed to the source: its workers need all of the learner."""
        return self

    def step(self, record: Record | Rollout, progress: float = 0.0) -> Stats:
        """Take the newest parameters."""
        if self.pull is None:
            return super().step(record, progress)
        if self.observers:
            rollout = Rollout.of(record, self.policy)
            for observer in self.observers:
                observer(rollout)
        return self._pulled()

    def improve(self, iteration: Iteration, progress: float, measured: Measured = lambda move: move) -> Stats:
        """The same as one move of the policy, to be measured."""
        if self.pull is None:
            return super().improve(iteration, progress, measured)
        return measured(lambda policy, batch, progress: self._pulled())(self.policy, iteration.batch, progress)

    def _pulled(self) -> Stats:
        pull, self.pull = self.pull, None
        assert pull is not None
        return pull()


@dataclass(frozen=True)
class CrewSource:
    """Makes the `Crew` of an agent."""

    workers: int

    def __call__(self, env: EnvLike, num_envs: int, backend: str, seed: int) -> Crew:
        """Raises CrewError for an environment that is one object, which processes cannot share."""
        if isinstance(env, gym.Env | VectorEnv):
            raise CrewError(
                "asynchrony = processes makes the environments in its workers: pass an id or a callable instead of an "
                "environment, or take asynchrony = simulated"
            )
        return Crew(env, num_envs, backend, seed, self.workers)


class Crew:
    """The worker processes: an `ExperienceSource` for a `PulledLearner`, which is what `collect` takes as its actor.

    The processes start with the first record and end with `close`, with an error, with this object, or with this process. A
    record has the columns of as many rollouts as there are workers, and a fast worker may have two of them: a column does not
    go on in the same column of the next record, as it does elsewhere. Raises WorkerError
    where a worker fails or dies; the learner is then at its last whole round, and the next record starts other processes.
    pushes: by each worker since the processes started.
    """

    begun = True
    progress = 0.0

    def __init__(self, env: EnvLike, num_envs: int, backend: str, seed: int, workers: int) -> None:
        self.env, self.num_envs, self.backend, self.seed = env, num_envs, backend, seed
        self.blocks = [range(w * num_envs // workers, (w + 1) * num_envs // workers) for w in range(workers)]
        self.steps_done = self.episodes_done = 0
        self.returns: deque[float] = deque(maxlen=RECENT)
        self.lengths: deque[int] = deque(maxlen=RECENT)
        self.observers: list[Callable[[Record], None]] = []
        self.workers: list[WorkerHandle] = []
        self.pushes = [0] * workers
        self.learner: PulledLearner | None = None
        self._end: Any = None

    def begin(self, actor: Any) -> None:
        """Nothing to do before the first record."""

    def collect(self, actor: PulledLearner, wants: Wants) -> Record:
        """A round of pushes, and what they were made from."""
        assert wants.num_steps is not None
        if actor is not self.learner or not self.workers:
            self._start(actor, wants.num_steps)
        self._shared.write(actor, sum(self.pushes))
        self._shared.values[1] = self.progress
        try:
            for _ in self.workers:
                self._permits.release()
            records, said = zip(*self._round(), strict=True)
            record = joined(records)
            for observer in self.observers:
                observer(record)
        except BaseException:
            self.close()
            raise
        self._count(record)
        actor.pull = lambda: self._pull(actor, said)
        return record

    def _pull(self, actor: PulledLearner, said: Sequence[Stats]) -> Stats:
        self._shared.read(actor)
        return mean_stats(said)

    def _count(self, record: Record) -> None:
        self.steps_done += record.steps
        self.episodes_done += len(record.finished)
        self.returns.extend(ret for ret, _ in record.finished)
        self.lengths.extend(length for _, length in record.finished)

    def _start(self, learner: PulledLearner, num_steps: int) -> None:
        """Other processes, for this learner."""
        self.close()
        self.learner, self.pushes = learner, [0] * len(self.blocks)
        told = plain(learner)
        size = SharedNewest(learner).size
        memory = Memory()
        memory.resize(size)
        self._shared = SharedNewest(learner, memory.map(size))
        self._shared.write(learner, 0)
        context: Any = multiprocessing.get_context(START)
        if START == "forkserver":
            context.set_forkserver_preload([crew_process.__name__])  # if it is not running yet
        self._lock, self._permits = context.Lock(), context.Semaphore(0)
        own = (self.env, self.backend)
        place = (self.num_envs, self.seed, self.steps_done, num_steps)
        shifts = [Shift(told, *own, w, block, *place) for w, block in enumerate(self.blocks)]
        self._end = util.Finalize(self, end_crew, (self.workers, memory, self._permits), exitpriority=100)
        try:
            for w, payload in enumerate(payloads([[shift] for shift in shifts])):  # pyright: ignore[reportArgumentType]
                given = context, memory, payload, w, self.blocks[w]
                self.workers.append(WorkerHandle(*given, crew_process.serve, (self._lock, self._permits)))
        except BaseException:
            self.close()
            raise
        self._watch = Watch(self.workers)

    def _round(self) -> list[tuple[Record, Stats]]:
        """What was pushed in this round, when it is over."""
        heard: list[tuple[Record, Stats]] = []
        while len(heard) < len(self.workers):
            ready = self._watch.ready(DEADLINE)
            if not ready:
                raise WorkerError(
                    f"no worker has pushed a gradient for {DEADLINE:.0f} seconds: their environments hang"
                )
            for worker, by_pipe in ready:
                if by_pipe or worker.pipe.poll():
                    heard += self._heard(worker)
                elif worker.gone():
                    raise WorkerError(f"{self._name(worker)} ended with {exit_text(worker.process.exitcode)}")
                else:
                    self._watch.forget(worker)
        return heard

    def _heard(self, worker: WorkerHandle) -> list[tuple[Record, Stats]]:
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError) as error:
            worker.process.join(1.0)
            code = exit_text(worker.process.exitcode)
            raise WorkerError(f"{self._name(worker)} ended with {code}") from error
        if isinstance(said, Failure):
            kind = said.kind and f" raised {said.kind}"
            error = WorkerError(f"{self._name(worker)}{kind}: {said.message}")
            error.add_note(said.trace)
            raise error
        self.pushes[worker.index] += 1
        return [said]

    def _name(self, worker: WorkerHandle) -> str:
        block = worker.block
        which = f"environment {block[0]}" if len(block) == 1 else f"environments {block[0]} to {block[-1]}"
        return f"worker {worker.index} of {len(self.blocks)} ({which})"

    def close(self) -> None:
        """End the processes. The next record starts others."""
        if self._end is not None:
            self._end()
        self.workers, self.learner, self._end = [], None, None

    def restore(self) -> None:
        """Say that a training that goes on is another one: what the workers were playing is lost with their processes."""
        warnings.warn(
            "asynchrony = processes: the run goes on from its last whole round with new episodes, so it differs from one that "
            "was not stopped; it would differ from that anyway, because the workers race",
            stacklevel=2,
        )

    def state_dict(self) -> dict[str, Any]:
        """The counters: where the workers are is not kept."""
        recent = {"returns": list(self.returns), "lengths": list(self.lengths)}
        return {"steps_done": self.steps_done, "episodes_done": self.episodes_done} | recent

    def state_form(self) -> Form:
        """Of `state_dict`."""
        counters = {"steps_done": whole(), "episodes_done": whole()}
        return table(counters | {"returns": each(number(), RECENT), "lengths": each(whole(), RECENT)})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.close()
        self.steps_done, self.episodes_done = state["steps_done"], state["episodes_done"]
        self.returns, self.lengths = deque(state["returns"], RECENT), deque(state["lengths"], RECENT)


def plain(learner: PulledLearner) -> Learner:
    """The learner as its workers need it: a plain one, that nobody looks at."""
    parts = learner.policy, learner.estimator, learner.update
    return Learner(*parts, critic=learner.critic, baseline=learner.baseline, reduction=learner.reduction)


def joined(records: Sequence[Record]) -> Record:
    """The columns of several records side by side."""
    first, *_ = records
    whole_obs = concatenate([record.obs for record in records], 1)
    lighter = first.next_obs is None
    following = take(whole_obs, slice(1, None)) if lighter else concatenate([r.next_obs for r in records], 1)
    names = ("act", "rew", "terminated", "truncated", "cut", "mask", "time")
    rest = {name: np.concatenate([getattr(record, name) for record in records], 1) for name in names}
    extra = concatenate([dict(record.extra) for record in records], 1)
    finished = [episode for record in records for episode in record.finished]
    return replace(first, obs=whole_obs, next_obs=following, extra=extra, finished=finished, **rest)


def end_crew(workers: list[WorkerHandle], memory: Memory, permits: Any) -> None:
    """Wake the workers that wait for a permit, so that they hear of the end, and end all of them."""
    for worker in workers:
        worker.send(b"end")
    for _ in workers:
        permits.release()
    end(workers, memory)
