"""One trial of a search: its seeds are ordinary runs, trained side by side from rung to rung, so that each can be resumed.

A trial is judged by all of its seeds: they go to a rung together, and what `pruning` sees is their mean. A run that was killed
is resumed from its checkpoint; one that had none yet begins anew.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from policygrad.errors import Interrupted
from policygrad.stored.directory import RunDirectory, RunError
from policygrad.training.jobs import Job, SilentBoard, State
from policygrad.training.pruning import Rule
from policygrad.training.seeds import message_line, run_seeds
from policygrad.training.sides import wait_for
from policygrad.training.space import Space, space_texts


@dataclass(frozen=True)
class Search:
    """What is searched for, and how each trial is trained.

    fixed: hyperparameters that all trials share. seeds: of every trial. episodes: of a run's final evaluation, whose mean
    return, with greedy actions, is its score.
    """

    algo: str
    env: str
    space: Space
    fixed: Mapping[str, Any]
    steps: int
    seeds: tuple[int, ...]
    episodes: int
    rule: Rule

    def to_json(self) -> dict[str, Any]:
        """Plain values, by which a directory knows its search again."""
        fixed = {name: list(x) if isinstance(x, tuple) else x for name, x in self.fixed.items()}
        words = {"algo": self.algo, "env": self.env, "over": space_texts(self.space), "fixed": fixed}
        return words | {
            "steps": self.steps,
            "seeds": list(self.seeds),
            "episodes": self.episodes,
            "rule": dict(vars(self.rule)),
        }


@dataclass(frozen=True)
class Ending:
    """How a trial ended: with a score per seed, given up, or with the reason why it failed."""

    scores: Mapping[int, float] = field(default_factory=dict)
    pruned: bool = False
    reason: str = ""


Judge = Callable[[list[float | None]], bool]  # of the values at the rungs so far: whether the trial is given up


class Player:
    """Trains trials. jobs: runs at the same time. board: shown the runs."""

    def __init__(self, request: Search, jobs: int, board: SilentBoard) -> None:
        self.request, self.jobs, self.board = request, jobs, board

    def play(self, number: int, params: Mapping[str, Any], folder: Path, judge: Judge, stops: bool) -> Ending:
        """Train a trial to its end, or until it is given up. stops: whether it stops at rungs, to ask the judge.

        Raises Interrupted for Ctrl-C; the same call then goes on.
        """
        request = self.request
        runs = {seed: RunDirectory(folder / f"seed{seed}") for seed in request.seeds}
        for rung in [*(request.rule.decisions if stops else ()), request.rule.rungs]:
            until = None if rung == request.rule.rungs else request.rule.steps_at(rung, request.steps)
            reason = self._advance(number, params, runs, until)
            if reason:
                return Ending(reason=reason)
            given_up = judge(curve_of(runs, request.rule, rung, request.steps))
            if until is not None and given_up:
                return Ending(pruned=True)
        return scored(runs)

    def _advance(
        self, number: int, params: Mapping[str, Any], runs: Mapping[int, RunDirectory], until: int | None
    ) -> str:
        """Train all seeds to so many steps, or to the end. Returns the reason of the first one that fails."""
        jobs = [self._job(number, params, seed, run, until) for seed, run in runs.items() if not is_there(run, until)]
        states = run_seeds(jobs, min(self.jobs, len(jobs)), self.board) if jobs else []
        interrupted = next((state.signal for state in states if state.phase == "stopped" and state.signal), None)
        if interrupted is not None:
            raise Interrupted(f"interrupted in trial {number}: the same command goes on", interrupted)
        failed = next((state for state in states if state.phase != "done"), None)
        return "" if failed is None else failure_text(failed)

    def _job(self, number: int, params: Mapping[str, Any], seed: int, run: RunDirectory, until: int | None) -> Job:
        request, resumes = self.request, False
        if run.config_file.exists():
            wait_for(run)  # a killed process's children end by themselves
            resumes = bool(run.checkpoints())
        if not resumes and run.path.exists():
            shutil.rmtree(run.path)  # it was killed before anything was learned
        keywords = {**request.fixed, **params, "steps": request.steps}
        place, side = str(run.path), f"trial {number}"
        return Job(request.algo, request.env, seed, keywords, place, "", request.episodes, resume=resumes, side=side,
                   until=until)  # fmt: skip


def is_there(run: RunDirectory, until: int | None) -> bool:
    """Whether a run has finished, or has paused at so many steps or later."""
    if not run.config_file.exists():
        return False
    state = run.state()
    return state["status"] == "finished" or (
        until is not None and state["status"] == "stopped" and state["steps"] >= until
    )


def curve_of(runs: Mapping[int, RunDirectory], rule: Rule, rungs: int, steps: int) -> list[float | None]:
    """The values at the first rungs: the mean over the seeds of the mean return of the last 100 training episodes.

    Each is read from the last row of metrics at or before the rung, so that it is the same however often a run was stopped.
    """
    tables = [run.metrics() for run in runs.values()]
    curve: list[float | None] = []
    for rung in range(1, rungs + 1):
        until = rule.steps_at(rung, steps)
        rows = [next((row for row in reversed(table) if int(row["steps"] or 0) <= until), {}) for table in tables]
        values = [row.get("return_mean") for row in rows]
        known = [float(x) for x in values if isinstance(x, int | float)]
        curve.append(float(np.mean(known)) if len(known) == len(tables) else None)
    return curve


def scored(runs: Mapping[int, RunDirectory]) -> Ending:
    """The scores of finished runs: the mean return of the final policy with greedy actions."""
    try:
        scores = {seed: float((run.evaluation() or {})["greedy"]["mean"]) for seed, run in runs.items()}
    except (RunError, KeyError) as error:
        return Ending(reason=f"an evaluation cannot be read: {message_line(error)}")
    wrong = next((seed for seed, score in scores.items() if not math.isfinite(score)), None)
    return Ending(scores) if wrong is None else Ending(reason=f"seed {wrong}: its score is not finite")


def failure_text(state: State) -> str:
    """Why a run failed, in one line."""
    return f"seed {state.seed}: {(state.message.splitlines() or ['stopped'])[0]}"[:500]
