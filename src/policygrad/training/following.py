"""What the other ranks of a data-parallel run do while rank 0 writes its directory: the same steps, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from policygrad.algorithms.config import ConfigError
from policygrad.errors import Interrupted
from policygrad.stored.directory import RunDirectory
from policygrad.total import agreed, greatest
from policygrad.training.callbacks import CheckpointCallback
from policygrad.training.generators import global_generators, set_global_generators
from policygrad.training.interrupts import interrupts
from policygrad.training.ranks import Ranks
from policygrad.training.shares import sharing
from policygrad.training.trainer import rows_every
from policygrad.training.whole import blocks_of, whole_state

MIN_ROWS = 50  # of metrics a run, at least


class Follower:
    """In rank 1, 2, … what a `Recorder` is in rank 0. It writes nothing."""

    def __init__(self, agent: Any, run: RunDirectory, pressed: Sequence[int], resumed: dict[str, Any] | None) -> None:
        self.agent, self.pressed, self.resumed = agent, pressed, resumed
        self.blocks = blocks_of(agent, run.path, [] if resumed is None else resumed.get("replay", []))

    def start(self, agent: Any) -> None:
        """Training begins."""
        if self.resumed is None:
            self.save()
            return
        agent.collector.restore()
        others = self.resumed.get("ranks", [])
        if len(others) == agent.ranks.size - 1:
            set_global_generators(others[agent.ranks.rank - 1])

    def __call__(self, agent: Any, row: Any) -> None:
        if self.blocks is not None and agent.learner.replay.added > self.blocks.due:
            self.blocks.write(agent.learner.replay)
        if decided(agent.ranks, False):
            self.save()
        if self.pressed:
            agent.trainer.leave = True

    def save(self) -> None:
        """This rank's part of a checkpoint."""
        with nullcontext() if self.blocks is None else self.blocks.apart(self.agent.learner.replay):
            whole_state(self.agent, {"generators": global_generators()})


def follow(agent: Any, run: RunDirectory, resumed: dict[str, Any] | None) -> None:
    """Train as rank 0 does, see `policygrad.training.train.learn`. Raises Interrupted where any rank was interrupted."""
    steps = greatest_of(agent.ranks, 0)
    log_every = row_every(steps)
    with interrupts(most=1) as pressed:
        follower = Follower(agent, run, pressed, resumed)
        if resumed is None:
            agent.learn(steps, follower, log_every)
        else:
            agent.go_on(follower, log_every)
        number = signal_of(agent.ranks, pressed)
        follower.save()
    if number:
        raise Interrupted(number=number)


def row_every(steps: int) -> int:
    """How many steps of a run lie between its rows of metrics: short runs have more."""
    return min(rows_every(steps), max(1, steps // MIN_ROWS))


def decided(ranks: Ranks | None, flag: bool) -> bool:
    """Whether any rank says so."""
    with sharing(ranks):
        return agreed(flag)[0]


def greatest_of(ranks: Ranks | None, number: int) -> int:
    """The largest of the ranks' numbers."""
    with sharing(ranks):
        return greatest(number)


def signal_of(ranks: Ranks | None, pressed: Sequence[int]) -> int:
    """The signal that one of the ranks got; 0 where none did."""
    return greatest_of(ranks, pressed[0] if pressed else 0)


def begun(ranks: Ranks | None, make: Callable[[], RunDirectory]) -> RunDirectory:
    """The run directory that rank 0 makes."""
    if ranks is None:
        return make()
    made = make() if ranks.rank == 0 else None
    path = ranks.said(b"" if made is None else str(made.path.absolute()).encode("utf8", "surrogateescape"))
    return made or RunDirectory(Path(path.decode("utf8", "surrogateescape")))


def refuse_callbacks(ranks: Ranks | None, callbacks: Sequence[Any]) -> None:
    """Raises ConfigError for a callback that needs all ranks, and is called in one."""
    if ranks is not None and any(isinstance(each, CheckpointCallback) for each in callbacks):
        raise ConfigError(
            "CheckpointCallback saves the agent of one process, which has a part of the environments: leave it out, as the "
            "run's own checkpoints are of all of them"
        )
