"""Callbacks, called once per iteration. `agent.learn(steps, callback)` and `train` take one or a list.

Any function will do: `callback(agent, row)` gets the agent after every iteration, a row of metrics every `log_every` steps and
None between; what it adds to the row is kept with it, and returning False stops the training. A callback may have more:

    start(agent)                     training begins
    finish()                         training has ended, however it ended
    evaluated(agent, means)          after that, the means of the final evaluation, from `train` and `resume`
    state_dict(), load_state_dict    plain values and tensors, with which it goes on where it was with a run that was
                                     interrupted; `start` is called before
    directory                        where files go: a run's own directory, where there is one and no other was given

Those that are here:

    EvalCallback          play the greedy policy every N steps, keep the best one, stop when it is good enough
    CheckpointCallback    keep the whole agent every N steps
    StopOnReward          stop when the last 100 training episodes are good enough
    StopAfter             stop after so many seconds
    Every                 a function of your own, or a printed line, every N steps or episodes
    History               rows of metrics, the return of every episode, and a plot in notebooks
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from policygrad.algorithms.foreign import refuse_keyword
from policygrad.errors import PartError, check_part
from policygrad.interop.sb3 import EvaluationTable
from policygrad.training.evaluate import SELECTION_SEED, Evaluation

if TYPE_CHECKING:
    from policygrad.data import Row
    from policygrad.envs.single import EnvLike
    from policygrad.reports.plots import Chart
    from policygrad.training.agent import Agent, Callback

NEWS = ("eval_steps", "eval_return_mean", "eval_length_mean")  # of an evaluation, in the order of a row of metrics


def as_list(callback: Any) -> list[Callback]:
    """None, one or several callbacks, as a list. Raises PartError for what cannot be called with (agent, row)."""
    many = isinstance(callback, Iterable) and not isinstance(callback, str) and not callable(callback)
    several: list[Any] = [] if callback is None else [*callback] if many else [callback]
    for each in several:
        _check(each)
    return several


def _check(callback: Any) -> None:
    check_part(
        "a callback", callback, ("__call__",), "a function of (agent, row), or one of policygrad such as History()"
    )
    try:
        takes = signature(callback)
    except (ValueError, TypeError):  # of some built-in functions nobody knows it
        return
    try:
        takes.bind(None, None)
    except TypeError:
        name = getattr(callback, "__name__", type(callback).__name__)
        raise PartError(f"a callback is called with (agent, row), but {name} takes {takes}") from None


def tell(callbacks: Sequence[Callback], what: str, *given: Any) -> None:
    """Call the method of that name, `finish` or `evaluated`, of those that have it."""
    for each in callbacks:
        method = getattr(each, what, None)
        if callable(method):
            method(*given)


def combine(callback: Callback | Sequence[Callback] | None, agent: Agent) -> Callback | None:
    """One callback that calls one or several, in order; training stops if one of them returns False."""
    several = as_list(callback)
    for each in several:
        start = getattr(each, "start", None)
        if start is not None:
            start(agent)

    def call(agent: Agent, row: Row | None) -> bool | None:
        stop = False
        for each in several:
            answer = each(agent, row)
            stop |= answer is False or (isinstance(answer, np.bool_) and not answer)  # as comparisons of arrays give
        return False if stop else None

    return call if several else None


def set_directory(callbacks: Sequence[Callback], directory: Path) -> None:
    """Give a run's directory to callbacks that write files and have no directory: one callback of each kind."""
    # those with a folder write files, and have been `given` a directory, or None
    undirected: list[Any] = [c for c in callbacks if hasattr(c, "folder") and getattr(c, "given", c) is None]
    if len({callback.folder for callback in undirected}) < len(undirected):
        raise ValueError(f"two callbacks would write the same files in {directory}: give one of them directory=")
    for callback in undirected:
        callback.directory = directory / callback.folder


def print_returns(agent: Agent, row: Row | None = None) -> None:
    """Print how many episodes have ended, and the mean return of the last 100 of them."""
    returns = agent.collector.returns
    if returns:
        count = f"{agent.collector.episodes_done:,} episodes"
        print(f"{count}, mean return of the last {len(returns)}: {float(np.mean(returns)):.2f}", flush=True)


class Every:
    """Call function(agent, row) every `steps` steps or `episodes` episodes, at the end of the iteration that reaches them.

    False stops training. Without a function a line is printed: `Every(episodes=100)`.
    """

    def __init__(
        self, steps: int | None = None, function: Callback | None = None, *, episodes: int | None = None
    ) -> None:
        if (steps is None) == (episodes is None):
            raise ValueError(f"Every needs either steps or episodes, got steps = {steps} and episodes = {episodes}")
        self.unit = "steps" if episodes is None else "episodes"
        self.number = _positive(self.unit, steps if episodes is None else episodes)
        self.function, self.next = function or print_returns, 0

    def _done(self, agent: Agent) -> int:
        return agent.collector.steps_done if self.unit == "steps" else agent.collector.episodes_done

    def start(self, agent: Agent) -> None:
        self.next = self._done(agent) + self.number

    def __call__(self, agent: Agent, row: Row | None) -> bool | None:
        done = self._done(agent)
        if done < self.next:
            return None
        self.next = done + self.number
        return self.function(agent, row)

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["next"]


class EvalCallback:
    """Evaluate every `steps` steps: whole episodes on fixed seeds, in separate environments, so that training does not change.

    env: where to play (default: an environment like the one trained in). stop_at: a mean return that ends the training. Into
    `directory`, if there is one, go evaluations.npz, as SB3 writes it, and best_policy.safetensors, the policy of the highest
    mean return so far. Episode k is reset with seed + k, other seeds than `agent.evaluate` takes, so that what is chosen on
    these episodes can be scored on others; the mean of the best one here is too high, because it was chosen. The means are
    also put into the next row of metrics: eval_return_mean, eval_length_mean, and eval_steps, where the evaluation was.
    `evaluations`: all of them, by steps.
    """

    folder = ""

    def __init__(
        self,
        every: int = 10_000,
        episodes: int = 10,
        *,
        directory: str | Path | None = None,
        greedy: bool = True,
        seed: int = SELECTION_SEED,
        env: EnvLike | None = None,
        stop_at: float | None = None,
        **others: Any,
    ) -> None:
        if others:
            refuse_keyword("EvalCallback", others)
        self.every, self.episodes = _positive("every", every), _positive("episodes", episodes)
        self.given = self.directory = None if directory is None else Path(os.path.expanduser(directory))
        self.greedy, self.seed, self.env, self.stop_at = greedy, seed, env, stop_at
        self.agent: Agent | None = None
        self.next = 0
        self._forget()

    def _forget(self) -> None:
        self.evaluations: dict[int, Evaluation] = {}
        self.best = float("-inf")
        self.table: EvaluationTable | None = None
        self.news: Row = {}

    def start(self, agent: Agent) -> None:
        if self.env is None:
            agent.evaluation_env()  # refused before training, not in the middle of it
        if agent is not self.agent:
            self._forget()
        self.agent, self.next = agent, agent.collector.steps_done + self.every

    def __call__(self, agent: Agent, row: Row | None) -> bool | None:
        steps = agent.collector.steps_done
        stop = self._evaluate(agent, steps) if steps >= self.next else None
        if row is not None and self.news:
            row |= self.news
            self.news = {}
        return stop

    def state_dict(self) -> dict[str, Any]:
        evaluations = [
            [steps, list(e.returns), list(e.lengths), e.return_range] for steps, e in self.evaluations.items()
        ]
        best = self.best if np.isfinite(self.best) else None
        return {"next": self.next, "best": best, "news": dict(self.news), "evaluations": evaluations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next, self.news = state["next"], {name: state["news"][name] for name in NEWS if name in state["news"]}
        self.best = float("-inf") if state["best"] is None else state["best"]
        self.evaluations = {
            steps: Evaluation(tuple(r), tuple(n), *(ends and tuple(ends) for ends in known))  # 0.4 knew no range
            for steps, r, n, *known in state["evaluations"]
        }

    def _evaluate(self, agent: Agent, steps: int) -> bool | None:
        self.next = steps + self.every
        evaluation = agent.evaluate(self.episodes, self.greedy, self.seed, self.env)
        self.evaluations[steps] = evaluation
        self.news = {
            "eval_steps": steps,
            "eval_return_mean": evaluation.mean if np.isfinite(evaluation.mean) else None,
            "eval_length_mean": float(np.mean(evaluation.lengths)),
        }
        if self.directory is not None:
            self._write(agent, self.directory, steps, evaluation)
        self.best = max(self.best, evaluation.mean)
        return False if self.stop_at is not None and evaluation.mean >= self.stop_at else None

    def _write(self, agent: Agent, directory: Path, steps: int, evaluation: Evaluation) -> None:
        if self.table is None:
            directory.mkdir(parents=True, exist_ok=True)
            self.table = EvaluationTable(directory / "evaluations.npz")
            if self.given is None or len(self.evaluations) > 1:  # elsewhere the file is of another training
                self.table.read(before=steps)
        self.table.write(steps, evaluation.returns, evaluation.lengths)
        if evaluation.mean > self.best:
            agent.save_policy(directory / "best_policy.safetensors")


class CheckpointCallback:
    """Save the whole agent every `steps` steps as step-<N>.safetensors, in `directory` or in a run's `snapshots`.

    keep: how many of the last ones; None for all. `policygrad.load` reads them. A run's own checkpoints are not touched.
    """

    folder = "snapshots"

    def __init__(
        self, every: int = 10_000, *, directory: str | Path | None = None, keep: int | None = None, **others: Any
    ) -> None:
        if others:
            refuse_keyword("CheckpointCallback", others)
        self.every, self.keep = _positive("every", every), None if keep is None else _positive("keep", keep)
        self.given = self.directory = None if directory is None else Path(os.path.expanduser(directory))
        self.saved: list[Path] = []
        self.next = 0

    def start(self, agent: Agent) -> None:
        if self.directory is None:
            raise ValueError("CheckpointCallback needs directory=, the directory of the checkpoints")
        self.next = agent.collector.steps_done + self.every

    def __call__(self, agent: Agent, row: Row | None) -> None:
        steps = agent.collector.steps_done
        if steps < self.next:
            return
        self.next = steps + self.every
        assert self.directory is not None
        self.saved.append(agent.save(self.directory / f"step-{steps}.safetensors"))
        while self.keep is not None and len(self.saved) > self.keep:
            self.saved.pop(0).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next, "saved": [path.name for path in self.saved]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self.directory is not None
        self.next, self.saved = state["next"], [self.directory / Path(name).name for name in state["saved"]]


class StopOnReward:
    """Stop when the mean return of the last training episodes, with sampled actions, reaches the threshold.

    episodes: how many of the last count, 100 at most; before there are so many, training goes on. For the greedy policy's
    return: EvalCallback(stop_at=…).
    """

    def __init__(self, threshold: float, episodes: int = 100) -> None:
        self.threshold, self.episodes = float(threshold), _positive("episodes", episodes)
        if episodes > 100:
            raise ValueError(f"episodes = {episodes}: the collector remembers the last 100")
        self.first = 0

    def start(self, agent: Agent) -> None:
        self.first = agent.collector.episodes_done

    def __call__(self, agent: Agent, row: Row | None) -> bool | None:
        collector = agent.collector
        if collector.episodes_done - self.first < self.episodes:  # those of an earlier training do not count
            return None
        mean = float(np.mean(list(collector.returns)[-self.episodes :]))
        return False if mean >= self.threshold else None

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first = state["first"]


class StopAfter:
    """Stop at the end of the first iteration after this many seconds of training."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, got {seconds}")
        self.seconds, self.end = seconds, float("inf")

    def start(self, agent: Agent) -> None:
        self.end = time.perf_counter() + self.seconds

    def __call__(self, agent: Agent, row: Row | None) -> bool | None:
        return False if time.perf_counter() >= self.end else None

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.end - time.perf_counter()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.end = time.perf_counter() + state["left"]


class History:
    """Keeps all metrics, and return and length of every episode of training (the collector keeps only the last 100).

    For notebooks: `history` as the last line of a cell shows the learning curve and the last row, `history.plot()` the curve.
    returns, lengths: in the order in which the episodes ended; `agent.learn(steps, history := History())` is one line, and
    `history.returns` are all scores.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.agent: Agent | None = None
        self.over = False  # whether the training has come to its end

    def start(self, agent: Agent) -> None:
        self.agent, self.over = agent, False

    def finish(self) -> None:
        self.over = self.agent is not None and self.agent.trainer.over

    def __call__(self, agent: Agent, row: Row | None) -> None:
        if row is not None:
            self.rows.append(row)
        for ret, length in agent.trainer.ended:
            self.returns.append(ret)
            self.lengths.append(length)

    def state_dict(self) -> dict[str, Any]:
        returns = torch.tensor(self.returns, dtype=torch.float64)
        lengths = torch.tensor(self.lengths, dtype=torch.int64)
        return {"rows": [dict(row) for row in self.rows], "returns": returns, "lengths": lengths}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows[:] = state["rows"]
        for name in ("returns", "lengths"):
            getattr(self, name)[:] = state[name].tolist() if name in state else []  # files of 0.4 have none

    def __repr__(self) -> str:
        about = "" if self.agent is None else f"{self.agent.algo} on {self.agent.name or self.agent.env_name}: "
        return f"History({about}{len(self.rows)} rows, {len(self.returns)} episodes)"

    def _repr_html_(self) -> str:
        from policygrad.training.notebooks import history_html

        return history_html(self)

    def plot(self, path: str | Path | None = None) -> Chart:
        """The learning curve so far, a matplotlib Figure; with a path it is also written there, as png, pdf or svg."""
        from policygrad.reports.plots import Curve, curves_figure, points

        agent = self.agent
        if agent is None:
            raise ValueError("there is no history yet: pass this to agent.learn(steps, callback=…) first")
        curve = Curve(agent.algo, agent.config, [agent.seed], [points(self.rows)], [], None, ended=self.over)
        return curves_figure({agent.name or agent.env_name: [curve]}).written(path)


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)
