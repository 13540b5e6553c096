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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policygrad.errors import UserError

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


class WandbCallback:
    """Write rows of metrics to Weights & Biases. project, name and further keywords: those of `wandb.init`.

    `WANDB_MODE=offline` needs no network. A wandb run that is open already is used, and left open. Raises TrackerError where
    wandb is not installed.
    """

    def __init__(self, project: str | None = None, name: str | None = None, **keywords: Any) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _missing("wandb") from error
        self.wandb: Any = wandb
        self.keywords = {"project": project or "policygrad", "name": name} | keywords
        self.run: Any = None
        self.own = False

    def start(self, agent: Agent) -> None:
        """Open a run, unless one is open."""
        self.run, self.own = self.wandb.run, self.wandb.run is None
        if self.own:
            name = self.keywords["name"] or f"{agent.algo}-{agent.env_name}-seed{agent.seed}"
            self.run = self.wandb.init(**self.keywords | {"name": name, "config": _about(agent)})

    def __call__(self, agent: Agent, row: Row | None) -> None:
        if row is not None:
            self.run.log(_numbers(row), step=int(row["steps"] or 0))

    def finish(self) -> None:
        """Close the run, if it was opened here."""
        if self.own and self.run is not None:
            self.run.finish()
        self.run = None


class MLflowCallback:
    """Write rows of metrics to MLflow, under its tracking URI. experiment, name: of the experiment, and of the run in it.

    An MLflow run that is active already is used, and left active. Raises TrackerError where MLflow is not installed.
    """

    def __init__(self, experiment: str | None = None, name: str | None = None) -> None:
        try:
            import mlflow  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _missing("mlflow") from error
        self.mlflow: Any = mlflow
        self.experiment, self.name = experiment or "policygrad", name
        self.own = self.active = False

    def start(self, agent: Agent) -> None:
        """Begin a run, unless one is active."""
        self.active, self.own = True, self.mlflow.active_run() is None
        if self.own:
            self.mlflow.set_experiment(self.experiment)
            self.mlflow.start_run(run_name=self.name or f"{agent.algo}-{agent.env_name}-seed{agent.seed}")
        self.mlflow.log_params(_about(agent))

    def __call__(self, agent: Agent, row: Row | None) -> None:
        if row is not None:
            self.mlflow.log_metrics(_numbers(row), step=int(row["steps"] or 0))

    def finish(self) -> None:
        """End the run, if it was begun here."""
        if self.own and self.active:
            self.mlflow.end_run()
        self.active = False


class LiveCurve:
    """Redraw the learning curve in a notebook while the agent learns: `agent.learn(50_000, pg.LiveCurve())`.

    seconds: between two pictures, at least. It draws at rows of metrics, see `log_every`. Without IPython nothing is shown.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        from policygrad.training.callbacks import History

        self.seconds, self.history = seconds, History()
        self.shown: Any = None
        self.drawn = -math.inf

    def start(self, agent: Agent) -> None:
        """A new picture."""
        self.history.start(agent)
        self.shown, self.drawn = None, -math.inf

    def __call__(self, agent: Agent, row: Row | None) -> None:
        self.history(agent, row)
        if row is not None and time.monotonic() - self.drawn >= self.seconds:
            self.draw()

    def draw(self) -> None:
        """Show the curve so far, in place of the last picture."""
        self.drawn = time.monotonic()
        try:
            from IPython.display import display  # pyright: ignore[reportMissingImports]
        except ImportError:
            return
        if self.shown is None:
            self.shown = display(self.history.plot(), display_id=True)
        else:
            self.shown.update(self.history.plot())

    def finish(self) -> None:
        """The last picture has all rows."""
        if self.history.rows:
            self.draw()


def trackers(asked: Mapping[str, str]) -> list[Any]:
    """The callbacks of trackers by name: wandb and the project, mlflow and the experiment."""
    made = {"wandb": WandbCallback, "mlflow": MLflowCallback}
    return [made[name](about) for name, about in asked.items()]
