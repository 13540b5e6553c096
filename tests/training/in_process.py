"""The runs of a comparison or a sweep, trained in this process, one after the other, instead of in processes."""

from __future__ import annotations

import math

from policygrad.envs import processes
from policygrad.training import engines
from policygrad.training import seeds as several


class Silent:
    """The channel of a seed's process, without a process."""

    interval = math.inf

    def __init__(self, state):
        self.state = state

    def tell(self, **news):
        for name, value in news.items():
            setattr(self.state, name, value)

    def start(self, total): ...
    def finish(self, steps): ...
    def update(self, *_): ...
    def stop(self): ...


def train_here(monkeypatch, tmp_path):
    """Train in this process and directory from now on; returns the list of jobs that were trained or resumed."""
    done = []

    def run_all(jobs, at_once, board):
        states = []
        for job in jobs:
            done.append(job)
            state, run = several.State(job.seed, side=job.side), []
            try:
                for name, value in several.run_job(job, Silent(state), run).items():
                    setattr(state, name, value)
            except Exception as error:
                state.phase, state.message = "failed", several.failure(error, run[0]) if run else str(error)
            states.append(state)
        return states

    monkeypatch.setattr(engines, "run_seeds", run_all)
    monkeypatch.setattr(processes, "most_cores", None)
    monkeypatch.chdir(tmp_path)
    return done
