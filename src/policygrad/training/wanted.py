"""A run that is wanted: the job of a new one, what tells it from others, and which one of the runs that are there it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from policygrad.stored.directory import RunDirectory, RunError, folder_of
from policygrad.training.jobs import Job, State
from policygrad.training.sides import Existing, current_versions, divergence


@dataclass(frozen=True)
class Wanted:
    """One run that somebody asked for.

    job: of a new run. config: its complete configuration. words: what it has besides, see `sides.same_run`. diverged: whether a
    run whose numbers became infinite or NaN is a result.
    """

    job: Job
    config: Mapping[str, Any]
    words: Mapping[str, Any] = field(default_factory=dict)
    diverged: bool = False

    @cached_property
    def key(self) -> str:
        """The same 32 digits wherever the same run is wanted, on every machine."""
        job = self.job
        said = [job.algo, job.env, job.seed, job.episodes, dict(self.config), dict(self.words), current_versions()]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        """The directory that its new run is made in."""
        return folder_of(self.job.root, str(self.words.get("name") or self.job.env), self.job.algo)

    def run_among(self, existing: Existing) -> RunDirectory | None:
        """The run that is finished, or farthest, of those that are there."""
        job = self.job
        return existing.best(job.algo, job.env, job.seed, self.config, job.episodes, self.words, self.diverged)

    def is_settled(self, run: RunDirectory | None) -> bool:
        """Whether nothing is left to do: the run is finished, or would diverge again."""
        if run is None:
            return False
        finished = run.state()["status"] == "finished" and run.evaluation() is not None
        return finished or (self.diverged and divergence(run) is not None)

    def has_settled(self, state: State) -> bool:
        """Whether a run that has ended is settled."""
        return state.phase == "done" or (state.path is not None and self.is_settled(RunDirectory(Path(state.path))))

    def job_of(self, run: RunDirectory | None) -> Job:
        """The job that goes on with this run, or begins a new one."""
        return self.job if run is None else replace(self.job, run_dir=str(run.path), resume=True)

    def state_of(self, run: RunDirectory) -> State:
        """The state of a settled run that is there."""
        state = State(self.job.seed, side=self.job.side)
        set_settled(state, run)
        return state


def set_settled(state: State, run: RunDirectory) -> None:
    """Say what is known of a run that is settled."""
    evaluation = run.evaluation()
    finished = run.state()["status"] == "finished" and evaluation is not None
    state.phase, state.path = "done" if finished else "failed", str(run.path)
    if evaluation is not None:
        state.evaluations = {name: evaluation[name] for name in ("greedy", "sampled") if name in evaluation}


def is_free(run: RunDirectory) -> bool:
    """Whether no process of this machine, or of one whose locks are seen here, trains it."""
    try:
        with run.lock():
            return True
    except RunError:
        return False
