"""The files that a run writes while it trains: metrics, episodes, trajectories, and checkpoints to resume from."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from policygrad.data import Record, Rollout, Row
from policygrad.files import appending
from policygrad.forms import anything, each, maybe, number, table, text, whole
from policygrad.interop.events import EventFile
from policygrad.interop.sb3 import MonitorFile, scalars, split
from policygrad.reports.findings import metered, snr_words
from policygrad.stored.blocks import BLOCKS, ReplayBlocks
from policygrad.stored.directory import RunDirectory, RunError
from policygrad.stored.storage import save_state
from policygrad.stored.trajectories import TrajectoryWriter
from policygrad.training.agent import Agent, Callback
from policygrad.training.following import decided
from policygrad.training.generators import GENERATORS, global_generators, set_global_generators
from policygrad.training.progress import Progress
from policygrad.training.whole import blocks_of, whole_state

MOST_RANKS = 10_000  # of a data-parallel run
CHECKPOINTS = 10  # of a run, evenly spaced in steps
CHECKPOINT_SECONDS = 30.0  # between checkpoints at most
CHECKPOINT_SHARE = 0.02  # of the time at most goes into them
RECENT_MEASUREMENTS = 10  # measurements of the gradient's SNR that the display speaks of
LOGS = ("metrics.jsonl", "monitor.csv", "events.out.tfevents.*")  # files that grow

RUN = table(  # of `Recorder.state_dict`; a callback's state is its own business
    {
        "first": whole(),
        "seconds": number(0.0),
        "next_shard": whole(),
        "files": table({}, others=whole()),
        "callbacks": each(table({"kind": text(), "state": anything}), 1000),
        "measured": each(table({}, others=maybe(number())), RECENT_MEASUREMENTS),
        "trajectories": table({}, others=anything),
        "generators": GENERATORS,
    },
    # ranks: the generators of the other processes of a data-parallel run
    optional={"replay": BLOCKS, "ranks": each(GENERATORS, MOST_RANKS)},
)


class Recorder:
    """The last callback of every iteration. In most iterations it has nothing to do, which takes a microsecond.

    others: the user's callbacks, whose state is kept as well, where they have a `state_dict`. resumed: what an earlier
    recorder of this run kept in its last checkpoint, for a run that goes on.
    """

    def __init__(
        self,
        run: RunDirectory,
        agent: Agent,
        steps: int,
        progress: Progress,
        pressed: Sequence[int] = (),
        writer: TrajectoryWriter | None = None,
        others: Sequence[Callback] = (),
        resumed: dict[str, Any] | None = None,
    ) -> None:
        self.run, self.agent, self.progress, self.pressed, self.others = run, agent, progress, pressed, others
        self.resumed = resumed
        self.first = self.from_steps = agent.collector.steps_done
        if resumed is not None:
            cut(run, resumed["files"])
            self.first = int(resumed["first"])
        self.blocks = blocks_of(agent, run.path, [] if resumed is None else resumed.get("replay", []))
        self.every = max(1, steps // CHECKPOINTS)
        self.monitor = MonitorFile(run.monitor_file, agent.env_name)
        self.events = EventFile(run.path)
        self.measured: deque[Mapping[str, Any]] = deque(maxlen=RECENT_MEASUREMENTS)
        self.writer = writer
        self.finished: list[tuple[float, int]] = []  # return and length of the episodes not yet written
        agent.collector.observers.append(self.see)
        if writer is not None:
            agent.learner.observers.append(self.see_rollout)
        self.started = self.saved = time.perf_counter()
        self.saved_steps = agent.collector.steps_done
        self.torn = False  # whether the other ranks do not save with this one any more
        self.spent = self.cost = 0.0  # seconds in all checkpoints, and in the last
        self.next_checkpoint = self.next_shard = self.saved_steps + self.every
        self.next_draw = self.started + progress.interval

    def start(self, agent: Agent) -> None:
        """Training begins: the other callbacks have started, and now get their states."""
        if self.resumed is None:
            self.save()
        else:
            try:
                self._load(self.resumed)
            except (KeyError, TypeError, AttributeError, IndexError) as error:
                raise RunError(
                    f"the last checkpoint of {self.run.path} does not hold what a run needs: {error!r}"
                ) from error
            self.run.write_state("running", self.saved_steps)

    def _load(self, state: dict[str, Any]) -> None:
        load_callbacks(self.others, state["callbacks"])
        self.measured.extend(state["measured"])
        self.next_shard, self.agent.trainer.seconds = state["next_shard"], state["seconds"]
        if self.writer is not None:
            self.writer.load_state_dict(state["trajectories"])
        self.agent.collector.restore()
        set_global_generators(state["generators"])  # last: environments that were played again may have drawn from them

    def state_dict(self) -> dict[str, Any]:
        """The state of the run that a checkpoint keeps besides the agent."""
        files = [path for pattern in LOGS for path in sorted(self.run.path.glob(pattern))]
        return {
            "first": self.first,
            "seconds": self.agent.trainer.seconds,
            "next_shard": self.next_shard,
            "files": {path.name: path.stat().st_size for path in files},
            "callbacks": callback_states(self.others),
            "measured": [dict(row) for row in self.measured],
            "trajectories": {} if self.writer is None else self.writer.state_dict(),
            "generators": global_generators(),
        } | ({} if self.blocks is None else {"replay": self.blocks.blocks})

    def save(self) -> None:
        """Write a checkpoint, from which the run can be resumed."""
        started = time.perf_counter()
        self.keep_episodes()  # as many as the checkpoint has counted
        agent, steps = self.agent, self.agent.collector.steps_done
        with nullcontext() if self.blocks is None else self.blocks.apart(agent.learner.replay):
            state, others = whole_state(agent, {})
            more = self.state_dict() | ({"ranks": [each["generators"] for each in others[1:]]} if agent.ranks else {})
            self.run.save_checkpoint(lambda path: save_agent(agent, path, state | {"run": more}), steps)
        if self.blocks is not None:
            self.blocks.forget(steps)
        self.saved_steps, self.next_checkpoint, self.saved = steps, steps + self.every, time.perf_counter()
        self.cost = self.saved - started
        self.spent += self.cost
        self.run.write_state("running", steps)

    def __call__(self, agent: Agent, row: Row | None) -> None:
        if row is not None:
            self.keep(agent, row)
        if agent.collector.steps_done >= self.next_shard:
            self.flush()
        if self.blocks is not None and agent.learner.replay.added > self.blocks.due:
            self.keep_rows(self.blocks)
        now = time.perf_counter()
        if decided(agent.ranks, self.due(now)):
            self.save()
        if now >= self.next_draw:
            self.draw(agent)
        if self.pressed:
            agent.trainer.leave = True

    def due(self, now: float) -> bool:
        """Whether it is time for a checkpoint: after a tenth of the steps where all of them, with this one and the one at the
        end, take no more than their share of the time; and where the last is too long ago.
        """
        tenth = self.agent.collector.steps_done >= self.next_checkpoint
        if tenth and self.spent + 2 * self.cost <= CHECKPOINT_SHARE * (now - self.started):
            return True
        return now - self.saved >= max(CHECKPOINT_SECONDS, self.cost / CHECKPOINT_SHARE)

    def keep(self, agent: Agent, row: Row) -> None:
        """Write a row of metrics, for us and for TensorBoard, and the episodes that ended since the last one."""
        self.run.append_metrics(row)
        self.measured.extend(metered([row]))
        training, evaluation = split(scalars(row))
        if evaluation:
            self.events.write(int(row["eval_steps"] or 0), evaluation)
        self.events.write(int(row["steps"] or 0), training)
        self.keep_episodes()

    def see(self, record: Record) -> None:
        """An observer of the source: note the episodes that ended."""
        self.finished.extend(record.finished)

    def see_rollout(self, rollout: Rollout) -> None:
        """An observer of the learner: note the rollout, and how many steps its policy was trained for."""
        assert self.writer is not None
        self.writer.add(rollout, self.agent.collector.steps_done - rollout.steps)

    def keep_rows(self, blocks: ReplayBlocks) -> None:
        """Write the rows of the replay buffer that make whole blocks; the time counts as that of a checkpoint."""
        started = time.perf_counter()
        blocks.write(self.agent.learner.replay)
        self.spent += time.perf_counter() - started

    def keep_episodes(self) -> None:
        """Write the finished episodes to monitor.csv."""
        if self.finished:
            self.monitor.write(self.finished)
            self.finished.clear()

    def flush(self) -> None:
        """Write the trajectories that have ended, at steps that do not depend on time."""
        steps = self.agent.collector.steps_done
        self.next_shard = steps + self.every
        if self.writer is not None:
            self.writer.flush(steps)

    def close(self) -> None:
        """Training is over, or has failed."""
        self.agent.collector.observers.remove(self.see)
        if self.writer is not None:
            self.agent.learner.observers.remove(self.see_rollout)

    def draw(self, agent: Agent) -> None:
        """Tell the progress display where training is."""
        now = time.perf_counter()
        self.next_draw = now + self.progress.interval
        steps, returns = agent.collector.steps_done, agent.collector.returns
        mean = float(np.mean(returns)) if returns else None
        speed = (steps - self.from_steps) / (now - self.started)
        self.progress.update(steps - self.first, speed, mean, snr_words(self.measured))


def save_agent(agent: Agent, path: Any, state: dict[str, Any]) -> Any:
    """An agent's file, as `Agent.save` writes it, of a state that holds that of its run, too."""
    save_state(path, state, agent.metadata())
    return path


def cut(run: RunDirectory, sizes: Mapping[str, int]) -> None:
    """Cut growing files to their sizes at a checkpoint, because later rows are written again. Shorter files stay."""
    for path in [path for pattern in LOGS for path in run.path.glob(pattern)]:
        size = sizes.get(path.name, 0)
        if size == 0:
            path.unlink()
        elif path.stat().st_size > size:
            with appending(path) as file:
                file.truncate(size)


def callback_states(callbacks: Sequence[Callback]) -> list[dict[str, Any]]:
    """The state of each callback; of one without `state_dict` there is none."""
    return [
        {"kind": type(c).__name__, "state": c.state_dict() if hasattr(c, "state_dict") else {}}  # pyright: ignore
        for c in callbacks
    ]


def load_callbacks(callbacks: Sequence[Callback], states: Sequence[Mapping[str, Any]]) -> None:
    """The inverse of `callback_states`. Raises ValueError if they are not the callbacks of the run."""
    given, wanted = [type(c).__name__ for c in callbacks], [state["kind"] for state in states]
    if given != wanted:
        raise ValueError(
            f"the run began with the callbacks {', '.join(wanted) or 'none'}, but is resumed with "
            f"{', '.join(given) or 'none'}: pass the same ones, in the same order"
        )
    for callback, state in zip(callbacks, states, strict=True):
        if hasattr(callback, "load_state_dict"):
            callback.load_state_dict(state["state"])  # pyright: ignore[reportFunctionMemberAccess]
