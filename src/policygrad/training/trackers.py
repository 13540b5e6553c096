"""Callbacks that hand rows of metrics to trackers, and one that redraws a learning curve in a notebook.

    pg.train(agent, callback=pg.WandbCallback("cartpole"))
    agent.learn(50_000, pg.MLflowCallback("cartpole"))
    agent.learn(50_000, pg.LiveCurve())

The trackers are packages of their own (`pip install "policygrad[wandb]"`, `policygrad[mlflow]`). What they get is what
metrics.jsonl has: every row, at its number of steps, under the same names. They are finished by `finish()`, which `train` and
`learn` call when training ends, however it ends.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policygrad.errors import UserError
from policygrad.forms import table, text

if TYPE_CHECKING:
    from policygrad.data import Row
    from policygrad.training.agent import Agent


class TrackerError(UserError, ImportError):
    """The package of a tracker is missing."""


def _missing(name: str) -> TrackerError:
    return TrackerError(f"{name} is not installed: pip install 'policygrad[{name}]'")


def _numbers(row: Row) -> dict[str, float]:
    """The numbers of a row, without the steps, and without those that do not exist yet."""
    return {k: float(v) for k, v in row.items() if k != "steps" and isinstance(v, int | float) and math.isfinite(v)}


def _about(agent: Agent) -> dict[str, Any]:
    """What a tracker is told of a training when it begins."""
    return {"algo": agent.algo, "env": agent.env_name, "seed": agent.seed} | dict(agent.config)


class Tracker:
    """What both trackers have in common: the run there is opened with the first row, closed when training ends, and opened once
    more for the final evaluation. Its id is kept in checkpoints, so that a resumed training goes on in the same one.
    """

    def __init__(self, name: str | None) -> None:
        self.name, self.about = name, dict[str, Any]()
        self.id: str | None = None  # of the run in the tracker, where it was opened here
        self.open = self.own = False

    def start(self, agent: Agent) -> None:
        """Training begins, in a run of its own, unless `load_state_dict` says which."""
        self.about, self.id = _about(agent), None

    def state_dict(self) -> dict[str, Any]:
        """The id of the run in the tracker."""
        return {"id": self.id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.id = state["id"]

    def __call__(self, agent: Agent, row: Row | None) -> None:
        if row is not None:
            self._ready()
            self._log(_numbers(row), int(row["steps"] or 0))

    def evaluated(self, agent: Agent, means: Mapping[str, float]) -> None:
        """The final evaluation, after `finish`."""
        self._ready()
        self._conclude(dict(means), agent.collector.steps_done)
        self.finish()

    def finish(self) -> None:
        """Close the run in the tracker, if it was opened here."""
        if self.open and self.own:
            self._close()
        self.open = False

    def _ready(self) -> None:
        if not self.open:
            self._begin(self.name or "{algo}-{env}-seed{seed}".format_map(self.about))
            self.open = True

    def _begin(self, name: str) -> None:
        """Open a run, or go on with that of `id`, unless one is open."""
        raise NotImplementedError

    def _log(self, numbers: dict[str, float], steps: int) -> None:
        raise NotImplementedError

    def _conclude(self, means: dict[str, float], steps: int) -> None:
        self._log(means, steps)

    def _close(self) -> None:
        raise NotImplementedError


class WandbCallback(Tracker):
    """Write rows of metrics, and the final evaluation, to Weights & Biases. project, name and further keywords: `wandb.init`'s.

    `WANDB_MODE=offline` needs no network. A wandb run that is open already is used, and left open. Raises TrackerError where
    wandb is not installed.
    """

    def __init__(self, project: str | None = None, name: str | None = None, **keywords: Any) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _missing("wandb") from error
        super().__init__(name)
        self.wandb: Any = wandb
        self.keywords = {"project": project or "policygrad"} | keywords
        self.run: Any = None

    def _begin(self, name: str) -> None:
        self.run, self.own = self.wandb.run, self.wandb.run is None
        if self.own:
            same = {} if self.id is None else {"id": self.id, "resume": "allow"}
            self.run = self.wandb.init(**{"name": name, "config": self.about} | self.keywords | same)
            self.id = str(self.run.id)

    def _log(self, numbers: dict[str, float], steps: int) -> None:
        self.run.log(numbers, step=steps)

    def _conclude(self, means: dict[str, float], steps: int) -> None:
        self.run.summary.update(means)  # a run that was closed takes no second row at its last step

    def _close(self) -> None:
        self.run.finish()


class MLflowCallback(Tracker):
    """Write rows of metrics, and the final evaluation, to MLflow, under its tracking URI.

    experiment, name: of the experiment, and of the run in it. An MLflow run that is active already is used, and left active.
    Raises TrackerError where MLflow is not installed.
    """

    def __init__(self, experiment: str | None = None, name: str | None = None) -> None:
        try:
            import mlflow  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _missing("mlflow") from error
        super().__init__(name)
        self.mlflow: Any = mlflow
        self.experiment = experiment or "policygrad"

    def _begin(self, name: str) -> None:
        self.own, again = self.mlflow.active_run() is None, self.id is not None
        if self.own:
            self.mlflow.set_experiment(self.experiment)
            run = self.mlflow.start_run(run_id=self.id) if again else self.mlflow.start_run(run_name=name)
            self.id = str(run.info.run_id)
        if not again:  # MLflow refuses other values of a setting that it has
            self.mlflow.log_params(self.about)

    def _log(self, numbers: dict[str, float], steps: int) -> None:
        self.mlflow.log_metrics(numbers, step=steps)

    def _close(self) -> None:
        self.mlflow.end_run()


class LiveCurve:
    """Redraw the learning curve in a notebook while the agent learns: `agent.learn(50_000, pg.LiveCurve())`.

    seconds: between two pictures, 0 or more. It draws at rows of metrics, see `log_every`. Without IPython nothing is shown.
    If a picture cannot be drawn, a warning says why, and the training goes on without pictures.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        from policygrad.training.callbacks import History

        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or more, got {seconds}")
        self.seconds, self.history = seconds, History()
        self.shown: Any = None
        self.drawn, self.draws = -math.inf, True

    def start(self, agent: Agent) -> None:
        """A new picture."""
        self.history.start(agent)
        self.shown, self.drawn, self.draws = None, -math.inf, True

    def __call__(self, agent: Agent, row: Row | None) -> None:
        self.history(agent, row)
        if row is not None and time.monotonic() - self.drawn >= self.seconds:
            self.draw()

    def draw(self) -> None:
        """Show the curve so far, in place of the last picture."""
        try:
            from IPython.display import display  # pyright: ignore[reportMissingImports]
        except ImportError:
            return
        if not self.draws:
            return
        try:
            if self.shown is None:
                self.shown = display(self.history.plot(), display_id=True)
            else:
                self.shown.update(self.history.plot())
            self.draws = self.shown is not None  # outside of notebooks, IPython prints a name and shows nothing
        except Exception as error:  # whatever goes wrong in a picture is no reason to lose a training
            self.draws = False
            why = f"{type(error).__name__}: {error}"
            warnings.warn(f"LiveCurve cannot draw ({why}): training goes on without pictures", stacklevel=2)
        self.drawn = time.monotonic()

    def finish(self) -> None:
        """The last picture has all rows."""
        self.history.finish()
        if self.history.rows:
            self.draw()


TRACKERS = {"wandb": WandbCallback, "mlflow": MLflowCallback}
ASKED = table({}, optional=dict.fromkeys(TRACKERS, text()))  # in config.json


def trackers(asked: Mapping[str, str]) -> list[Any]:
    """The callbacks of trackers by name: wandb and the project, mlflow and the experiment."""
    ASKED("trackers", dict(asked))
    return [TRACKERS[name](about) for name, about in asked.items()]
