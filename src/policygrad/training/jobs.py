"""What runs in processes of their own, as plain values: jobs, their states, the queue they wait in, and who shows them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["waiting", "starting", "training", "evaluating", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Job:
    """The run of one seed, as plain values that can be sent to another process."""

    algo: str
    env: str
    seed: int
    keywords: dict[str, Any]  # of the Agent
    run_dir: str | None
    root: str
    episodes: int  # of the final evaluations
    command: list[str] = field(default_factory=list)
    save_trajectories: bool = False
    resume: bool = False  # whether run_dir is a run to go on with
    trackers: dict[str, str] = field(default_factory=dict)  # see `policygrad.training.trackers`
    side: str = ""  # of a comparison
    until: int | None = None  # steps at which training pauses, to be resumed by another job


@dataclass
class State:
    """The known state of a seed's run."""

    seed: int
    phase: Phase = "waiting"
    path: str | None = None
    total: int = 1
    steps: int = 0
    speed: float = 0.0
    mean: float | None = None
    note: str = ""
    evaluations: dict[str, Any] = field(default_factory=dict)  # entries of evaluation.json, greedy and sampled
    message: str = ""
    signal: int = 0  # that stopped it
    died: bool = False  # its process ended without a last word
    side: str = ""  # of a comparison

    @property
    def name(self) -> str:
        """What lines about it begin with."""
        return f"{self.side}, seed {self.seed}" if self.side else f"seed {self.seed}"

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.phase in ("done", "stopped", "failed")


class SilentBoard:
    """A display of the runs that only passes on what they print. `interval`: seconds between a run's reports."""

    interval = float("inf")

    def __init__(self) -> None:
        self.warned: set[str] = set()

    def show(self, states: Sequence[State]) -> None:
        """The runs as they are now; called ten times a second, and whenever something has happened."""

    def say(self, name: str, text: str, warning: bool) -> None:
        """Print a line of a run. A warning of every seed is printed once."""
        if not warning:
            print(f"{name}: {text}", flush=True)
        elif text not in self.warned:
            self.warned.add(text)
            print(f"policygrad: {text}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """End the display."""


class Queue:
    """The jobs that wait for a process, in order. `policygrad.training.shards` has one that several machines share."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.states = [State(job.seed, side=job.side) for job in jobs]
        self._waiting = list(zip(jobs, self.states, strict=True))

    @property
    def over(self) -> bool:
        """Whether no job waits."""
        return not self._waiting

    def take(self) -> tuple[Job, State] | None:
        """The next job, and its state; None while there is none."""
        return self._waiting.pop(0) if self._waiting else None

    def is_lost(self, state: State) -> bool:
        """Whether a job that runs is another one's by now, and must stop."""
        return False

    def ended(self, state: State) -> None:
        """A job has ended as its state says."""
