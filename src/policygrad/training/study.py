"""The trials of a search in a directory: Optuna's journal, and who works on which trial.

Every trial is some process's as long as that process lives: it holds a lock on `trials/<number>/lock`, which the system gives
back however the process ends. A trial that is running but whose lock is free was left by a process that died, and is given to
whoever asks next, before any new one. Optuna's sampler is made anew for every trial, seeded by the study's seed and the trial's
number, so that what it proposes depends on these and on the trials that have ended, and not on how often a process was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from policygrad.files import appending, opened, read_bytes
from policygrad.reports.tuning import TrialRow
from policygrad.training.pruning import Rule
from policygrad.training.space import Choice, Range, Space

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = "tune"  # of the study in its journal
PLAIN = (bool, int, float, str)
DIGITS = 4  # significant ones of a number from a range: nobody needs more, and presets are read by people
MAX_JOURNAL = 2**28  # bytes
STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class Lock:
    """A lock on a file, which the system gives back however the process ends. On Windows nothing is locked."""

    def __init__(self, path: Path) -> None:
        self.path, self.held = path, ExitStack()

    def take(self, wait: bool = False) -> bool:
        """Take the lock; False if another has it. wait: until it is free."""
        if fcntl is None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with appending(self.path):  # made, if it is not there
            pass
        with ExitStack() as stack:
            file = stack.enter_context(opened(self.path))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return False
            except OSError:  # no locks on this disk
                pass
            self.held = stack.pop_all()
        return True

    def acquire(self) -> bool:
        """As Optuna's journal asks for it."""
        return self.take(wait=True)

    def release(self) -> None:
        """Give it back."""
        self.held.close()

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """In this context, no other process has it."""
        self.take(wait=True)
        try:
            yield
        finally:
            self.release()


class SeededByNumber(BaseSampler):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), made anew and seeded for every trial."""

    def __init__(self, seed: int) -> None:
        self.seed, self.inner = seed, TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        word = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0]
        self.inner = TPESampler(seed=int(word))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)


@dataclass
class Candidate:
    """A trial that is this process's."""

    number: int
    params: dict[str, Any]
    folder: Path
    trial: Trial = field(repr=False)
    lock: Lock = field(repr=False)


class Study:
    """The trials of a search. `begin` gives out one after the other, and `finish`, `prune` and `fail` say how one ended."""

    def __init__(
        self, folder: Path, space: Space, seed: int, rule: Rule, steps: int, first: Mapping[str, Any] | None = None
    ) -> None:
        """folder: where journal.log and trials/ are, or will be. first: the parameters of trial 0, if they are in the space."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.space, self.rule, self.steps = folder.absolute(), space, rule, steps
        journal, writing = self.folder / "journal.log", Lock(self.folder / "journal.lock")
        self.beginning, self.concluding = Lock(self.folder / "trials.lock"), Lock(self.folder / "result.lock")
        with self.beginning.waited_for():
            with writing.waited_for():
                mend(journal)
            backend = JournalFileBackend(str(journal), lock_obj=writing)  # pyright: ignore[reportArgumentType]
            self.storage = JournalStorage(backend)
            words = {"study_name": NAME, "direction": "maximize", "load_if_exists": True}
            pruner = optuna.pruners.NopPruner()  # the rule is ours, see `policygrad.training.pruning`
            self.study = optuna.create_study(storage=self.storage, sampler=SeededByNumber(seed), pruner=pruner, **words)
            self.study_id = self.storage.get_study_id_from_name(NAME)
            if first is not None and self.holds(first) and not self.study.get_trials(deepcopy=False):
                self.study.enqueue_trial({name: self._coded(name, first[name]) for name in space})

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether these parameters are in the space, each name with a value that may be proposed."""
        return all(name in params and _contains(each, params[name]) for name, each in self.space.items())

    def begin(self, most: int) -> Candidate | None:
        """A trial to work on: one that a process which died has left, or a new one; None if there are `most` already."""
        with self.beginning.waited_for():
            trials = self.study.get_trials(deepcopy=False)
            for left in trials:
                if left.state == TrialState.RUNNING and (lock := self._lock(left.number)).take():
                    number = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, left.number)
                    return self._candidate(Trial(self.study, number), lock)
            if sum(trial.state != TrialState.WAITING for trial in trials) >= most:
                return None
            trial = self.study.ask()
            lock = self._lock(trial.number)
            lock.take()
            return self._candidate(trial, lock)

    def _lock(self, number: int) -> Lock:
        return Lock(self.folder / "trials" / f"{number:04d}" / "lock")

    def _candidate(self, trial: Trial, lock: Lock) -> Candidate:
        params = {name: self._suggested(trial, name) for name in self.space}
        return Candidate(trial.number, params, lock.path.parent, trial, lock)

    def _suggested(self, trial: Trial, name: str) -> Any:
        """The value of a parameter that Optuna proposes, or has proposed for this trial before."""
        each = self.space[name]
        if isinstance(each, Choice):
            return self._decoded(name, trial.suggest_categorical(name, [_text(value) for value in each.values]))
        suggest = trial.suggest_int if each.integer else trial.suggest_float
        return self._decoded(name, suggest(name, each.low, each.high, log=each.log))  # pyright: ignore[reportArgumentType]

    def _coded(self, name: str, value: Any) -> Any:
        """A value as Optuna keeps it: numbers and words as they are, lists as text."""
        listed = isinstance(self.space[name], Choice)
        return _text(value) if listed else value

    def _decoded(self, name: str, value: Any) -> Any:
        """The inverse of `_coded`, with a number of a range rounded."""
        each = self.space[name]
        if isinstance(each, Choice):
            return next(x for x in each.values if _text(x) == value)
        rounded = int(value) if each.integer else float(f"{value:.{DIGITS}g}")
        return min(max(rounded, each.low), each.high)

    def report(self, candidate: Candidate, curve: list[float | None]) -> None:
        """Keep the values at the rungs so far; those that are kept already stay."""
        known = self._frozen(candidate).intermediate_values
        for rung, value in enumerate(curve, 1):
            step = self.rule.steps_at(rung, self.steps)
            if value is not None and step not in known:
                candidate.trial.report(value, step)

    def _frozen(self, candidate: Candidate) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[candidate.number]

    def finish(self, candidate: Candidate, scores: Mapping[int, float]) -> None:
        """A trial has finished. scores: per seed."""
        candidate.trial.set_user_attr("scores", {str(seed): score for seed, score in scores.items()})
        self.study.tell(candidate.trial, float(np.mean(list(scores.values()))))
        candidate.lock.release()

    def prune(self, candidate: Candidate) -> None:
        """A trial is given up."""
        self.study.tell(candidate.trial, state=TrialState.PRUNED)
        candidate.lock.release()

    def fail(self, candidate: Candidate, reason: str) -> None:
        """A trial has failed."""
        candidate.trial.set_user_attr("reason", reason)
        self.study.tell(candidate.trial, state=TrialState.FAIL)
        candidate.lock.release()

    def rows(self) -> list[TrialRow]:
        """All trials that were begun, in order."""
        trials = self.study.get_trials(deepcopy=False)
        return [self._row(trial) for trial in trials if trial.state != TrialState.WAITING]

    def _row(self, trial: FrozenTrial) -> TrialRow:
        steps = [self.rule.steps_at(rung, self.steps) for rung in range(1, self.rule.rungs + 1)]
        kept = trial.intermediate_values
        reached = (
            self.rule.rungs
            if trial.state == TrialState.COMPLETE
            else sum(step <= max(kept, default=0) for step in steps)
        )
        params = {name: self._decoded(name, trial.params[name]) for name in self.space if name in trial.params}
        return TrialRow(
            trial.number,
            STATES[trial.state],
            trial.value if trial.state == TrialState.COMPLETE else None,
            params,
            list(trial.user_attrs.get("scores", {}).values()),
            [kept.get(step) for step in steps[:reached]],
            trial.user_attrs.get("reason", ""),
        )

    def busy(self) -> list[int]:
        """The numbers of the trials that living processes work on."""
        locks = {row.number: self._lock(row.number) for row in self.rows() if row.state == "running"}
        taken = [number for number, lock in locks.items() if not lock.take()]
        for lock in locks.values():
            lock.release()
        return taken

    def curves(self) -> list[list[float | None]]:
        """Those of the trials that have finished or were given up, as `pruning.gives_up` takes them."""
        return [row.curve for row in self.rows() if row.state in ("finished", "pruned")]

    def importances(self) -> dict[str, float]:
        """The share of each hyperparameter in what separates the best trials from the others, largest first.

        By PED-ANOVA (Watanabe et al. 2023), from the finished trials; empty for fewer than ten, or for one hyperparameter.
        """
        finished = [row for row in self.rows() if row.state == "finished"]
        if len(finished) < 10 or len(self.space) < 2 or len({row.value for row in finished}) < 2:
            return {}
        share = max(0.1, 5 / len(finished))  # which Optuna asks for: five trials or more among the best
        judge = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        return optuna.importance.get_param_importances(self.study, evaluator=judge)


def mend(journal: Path) -> None:
    """Cut off a last line that was only half written, which would spoil the next one."""
    if not journal.exists():
        return
    text = read_bytes(journal, MAX_JOURNAL)
    if text and not text.endswith(b"\n"):
        with appending(journal) as file:
            file.truncate(text.rfind(b"\n") + 1)


def _text(value: Any) -> Any:
    """A value of a list as Optuna can keep it: None, numbers and words as they are, tuples as text."""
    return value if value is None or isinstance(value, PLAIN) else str(Choice((value,)))


def _contains(each: Choice | Range, value: Any) -> bool:
    if isinstance(each, Choice):
        return any(type(x) is type(value) and x == value for x in each.values)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and each.low <= value <= each.high and (not each.integer or value == int(value))
