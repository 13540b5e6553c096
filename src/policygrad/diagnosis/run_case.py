"""What the rules about runs look at: the files of a run, read. Neither torch nor environments."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policygrad.algorithms.config import ConfigError, resolve
from policygrad.algorithms.recipe import RecipeSpec
from policygrad.algorithms.recipes import RECIPES
from policygrad.diagnosis.symptoms import CannotTell
from policygrad.reports.columns import Updates, as_number
from policygrad.stored.directory import RunDirectory, RunError, environment

SCHULMAN = "Schulman 2016, Nuts and bolts of deep RL"
JONES = "Jones 2019, Debugging RL"
HENDERSON = "Henderson et al. 2018"
REPORT = "policygrad report"

MANY = 20  # returns, below which nothing is said of them
MOST_BESIDE = 200  # runs of the same folder that are read
ERRORS = 2.0  # standard errors by which the last fifth of the returns must be above the first


@dataclass
class RunCase:
    """What is known of a run.

    rows: all rows of metrics; updates: the measured ones; preset: the preset's configuration. returns, lengths: of the training
    episodes (E,). solved: the return at which Gymnasium calls the task solved, −∞ where it does not say. sides: of the
    finished runs beside this one, of the same algorithm and environment, the mean returns of their final greedy policies, one
    list per setting; that of this run's setting is the first.
    """

    name: str
    env: str
    config: Mapping[str, Any]
    state: Mapping[str, Any]
    rows: list[Any]
    updates: Updates
    returns: np.ndarray
    lengths: np.ndarray
    evaluation: Mapping[str, Any]
    preset: Mapping[str, Any] | None
    solved: float
    sides: list[list[float]] = field(default_factory=list)

    @property
    def algo(self) -> str:
        """The name of the algorithm."""
        return self.updates.algo

    def change(self) -> tuple[float, float]:
        """Mean return of the last fifth of the episodes minus that of the first, and its standard error (Welch)."""
        if len(self.returns) < MANY:
            raise CannotTell(f"fewer than {MANY} episodes ended")
        fifth = len(self.returns) // 5
        first, last = self.returns[:fifth], self.returns[-fifth:]
        return float(last.mean() - first.mean()), math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / fifth)

    def stalls(self) -> bool:
        """Whether the return has not risen by two standard errors, or no more since the middle of the run, below the return
        at which Gymnasium calls the task solved. With too few episodes, it has not risen.
        """
        try:
            rise, error = self.change()
        except CannotTell:
            return True
        fifth = len(self.returns) // 5
        middle, last = self.returns[2 * fifth : 3 * fifth], self.returns[-fifth:]
        late = math.sqrt((middle.var(ddof=1) + last.var(ddof=1)) / fifth)
        flat = last.mean() - middle.mean() <= ERRORS * late and last.mean() < self.solved
        return bool(rise <= ERRORS * error or flat)

    def solves(self) -> bool:
        """Whether the last fifth of the returns has the mean at which Gymnasium calls the task solved."""
        fifth = len(self.returns) // 5
        return bool(fifth and math.isfinite(self.solved) and self.returns[-fifth:].mean() >= self.solved)

    def only_stalled(self) -> None:
        """Raise CannotTell where the return rises."""
        if not self.stalls():
            raise CannotTell("the return rises")

    def column(self, name: str) -> np.ndarray:
        """Numbers of the measured updates (R,). Raises CannotTell where there are none."""
        if not len(self.updates) or not self.updates.has(name):
            raise CannotTell(f"no row of metrics has {name}")
        return self.updates[name]

    def train(self, flags: str) -> str:
        """The command that trains with these flags, or the one that lists the flags, where the algorithm lacks one of them."""
        known = all(name.replace("-", "_") in self.config for name in re.findall(r"--([\w-]+)", flags))
        return f"policygrad train {self.algo} {self.env} {flags if known else '--help'}"

    def look(self) -> str:
        """The command that looks at the environment."""
        return f"policygrad doctor {self.env} {self.algo}"

    def lr(self, factor: float) -> str:
        """The command that trains with another learning rate, or with another limit of the KL where there is no rate."""
        name = "lr" if "lr" in self.config else "max_kl"
        value = self.updates.setting(name)
        return self.train(f"--{name.replace('_', '-')} {0.001 if value is None else float(f'{value * factor:.2g}'):g}")


def read_case(run: RunDirectory) -> RunCase:
    """What the files of a run hold. Raises RunError for what is no run, naming the file."""
    if not run.config_file.exists():
        raise RunError(f"{run.path} is not a run directory: it has no config.json")
    told = run.config()
    try:
        spec = RecipeSpec.from_json(told["recipe"]) if "recipe" in told else None
    except ValueError as error:
        raise RunError(f"{run.config_file} is not a run's configuration: recipe, {error}") from error
    algo, env = str(told["algo"]), environment(told)
    episodes = np.array([each for each in run.episodes() if math.isfinite(as_number(each[0]))], float).reshape(-1, 2)
    rows = run.metrics() if run.metrics_file.exists() else []
    threshold = as_number(told.get("reward_threshold"))
    return RunCase(
        name=str(run.path),
        env=env,
        config=told["config"],
        state=run.state(),
        rows=rows,
        updates=Updates(algo, told["config"], rows, spec),
        returns=episodes[:, 0],
        lengths=episodes[:, 1],
        evaluation=run.evaluation() or {},
        preset=tuned(algo, env),
        solved=threshold if math.isfinite(threshold) else -math.inf,
        sides=sides_of(run, told),
    )


def sides_of(run: RunDirectory, told: Mapping[str, Any]) -> list[list[float]]:
    """See `RunCase.sides`. Of folders with more runs the first `MOST_BESIDE` are read; what cannot be read is left out."""
    setting = {**told["config"]}
    found: list[tuple[Any, list[float]]] = [(setting, [])]
    for path in sorted(run.path.parent.glob("*/config.json"))[:MOST_BESIDE]:
        other = RunDirectory(path.parent)
        try:
            config, evaluation = other.config(), other.evaluation()
        except RunError:
            continue
        same_task = (config["algo"], environment(config)) == (told["algo"], environment(told))
        if evaluation is None or not same_task or config.get("custom") != told.get("custom"):
            continue
        side = next((scores for known, scores in found if known == config["config"]), None)
        if side is None:
            side = []
            found.append((config["config"], side))
        side.append(float(evaluation["greedy"]["mean"]))
    return [scores for _, scores in found]


def tuned(algo: str, env: str) -> dict[str, Any] | None:
    """The configuration of the tuned preset; None where there is none."""
    if algo not in RECIPES:
        return None
    try:
        config, found = resolve(algo, env, {})
    except ConfigError:
        return None
    return config if found else None
