"""Runs as learning curves: which runs share a curve, what it is called, and what is said about it. Nothing is drawn here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from policygrad.algorithms.config import aliases, show
from policygrad.algorithms.foreign import COLUMNS
from policygrad.algorithms.recipes import RECIPES
from policygrad.reports.columns import as_number, title
from policygrad.spelling import nearest
from policygrad.stored.directory import RunDirectory, RunError, environment

if TYPE_CHECKING:
    from policygrad.data import Row

RETURN = "return_mean"
WINDOW = "mean return of the last 100 episodes"
FEW = 4  # settings that are named
SHORT = 0.1  # of the axis: ends of single runs that are shorter are left out


@dataclass
class Curve:
    """Runs of one configuration: their curves, one per seed, and the greedy evaluations of their final policies.

    By algorithm: runs of one algorithm, whatever its settings; config is then what they have in common. Runs that did not
    get as far as an evaluation are a Curve of their own: they would cut the others' short.
    """

    algo: str
    config: dict[str, Any]
    seeds: list[int]
    curves: list[tuple[np.ndarray, np.ndarray]]  # steps, mean return or another metric
    evaluations: list[dict[str, Any]]
    threshold: float | None
    mixed: bool = False  # whether they differ in more than the seed
    sampled: list[dict[str, Any]] = field(
        default_factory=list
    )  # the evaluations with sampled actions, as training plays
    early: float = 0.0  # steps up to which the mean is one of survivors, see `survivors`
    name: str = ""  # of a curve by a hyperparameter
    ended: bool = False  # whether the runs got as far as an evaluation, or have ended, where none is drawn
    differ: list[str] = field(default_factory=list)  # the settings in which its runs differ

    def drawn(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The curves of the runs that have numbers."""
        return [(x, y) for x, y in self.curves if len(x)]

    def band(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps (K,) that all seeds have reached, and every seed's mean return there (seeds, K)."""
        drawn = self.drawn()
        first, last = max(x[0] for x, _ in drawn), min(x[-1] for x, _ in drawn)
        steps = np.unique(np.concatenate([x[(x >= first) & (x <= last)] for x, _ in drawn]))
        return steps, np.array([np.interp(steps, x, y) for x, y in drawn])

    def alone(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The parts of single runs at steps that not all have reached, where they are a tenth of the axis or more."""
        drawn = self.drawn()
        steps = self.band()[0] if drawn else np.empty(0)
        if not len(steps):
            return drawn
        first, last, room = steps[0], steps[-1], SHORT * self.end()
        parts = []
        for x, y in drawn:
            if x[0] < first - room:
                parts.append((np.append(x[x < first], first), np.append(y[x < first], np.interp(first, x, y))))
            if x[-1] > last + room:
                parts.append((np.append(last, x[x > last]), np.append(np.interp(last, x, y), y[x > last])))
        return parts

    @property
    def is_point(self) -> bool:
        """Whether there is one row at most that all of its runs share, where no line can be seen."""
        return bool(self.drawn()) and len(self.band()[0]) == 1

    @property
    def finished(self) -> bool:
        """Whether the final policies were evaluated."""
        return bool(self.evaluations) or self.ended

    def end(self) -> float:
        """The end of the steps axis: the planned steps, or those reached if they are far fewer."""
        last, asked = (
            max((float(x[-1]) for x, _ in self.curves if len(x)), default=1.0),
            as_number(self.config.get("steps")),
        )
        return float(asked) if 0.9 * asked <= last <= asked else last

    def final(self, greedy: bool = True) -> tuple[float, float, float] | None:
        """The final evaluation and its 95 % interval, infinite where it is not bounded; of several seeds, their mean and the
        lowest and highest.
        """
        evaluations = self.evaluations if greedy else self.sampled
        if not evaluations:
            return None
        means = [float(e["mean"]) for e in evaluations]
        low, high = evaluations[0]["ci95"] if len(means) == 1 else (min(means), max(means))
        low, high = (-np.inf if low is None else low), (np.inf if high is None else high)
        return float(np.mean(means)), float(low), float(high)

    @property
    def shows_survivors(self) -> bool:
        """Whether a part of the curve that can be seen is a mean of survivors."""
        return self.early > 0.03 * self.end()

    def equals(self, other: Curve) -> bool:
        """Whether both are the same numbers, to the last bit."""
        pairs = list(zip(self.curves, other.curves, strict=False))
        same = all(np.array_equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True))
        return same and len(self.curves) == len(other.curves) and any(len(x) for x, _ in self.curves)


def read_curves(
    runs: Iterable[RunDirectory], by: str = "config", metric: str = RETURN, smooth: int = 1
) -> dict[str, list[Curve]]:
    """Curves by environment. by: "config": runs whose configurations are equal share a curve; "algo": those of one algorithm;
    or the names of hyperparameters, or seed, with commas between them: those with the same algorithm and values.

    metric: a column of metrics.jsonl. smooth: rows of a moving average. Raises RunError for a hyperparameter or a column that
    no run has, ValueError for fewer than one row.
    """
    if smooth < 1:
        raise ValueError(f"smooth = {smooth} must be at least 1 row")
    keys = [] if by in ("config", "algo") else [key.strip().replace("-", "_") for key in by.split(",")]
    panels: dict[str, dict[str, Curve]] = {}
    columns: set[str] = set()
    known: set[str] = set()
    for run in runs:
        config, rows, evaluation = run.config(), list(run.metrics()), run.evaluation()
        columns |= {name for row in rows for name, value in row.items() if np.isfinite(as_number(value))}
        own = config["config"] | {"seed": config["seed"]}
        known |= set(own)
        settings = config["config"] if by == "config" else [own.get(key) for key in keys]
        group = panels.setdefault(environment(config), {})
        key = json.dumps([config["algo"], settings, evaluation is None], sort_keys=True)
        new = Curve(config["algo"], config["config"], [], [], [], config.get("reward_threshold"))
        curve = group.setdefault(key, new)
        curve.name = ", ".join(f"{key} {show(own.get(key))}" for key in keys)
        _add(curve, config, points(rows, metric, smooth), evaluation if metric == RETURN else None)
        curve.ended = evaluation is not None
        envs = as_number(own.get("num_envs"))
        curve.early = max(curve.early, survivors(rows, envs) if metric == RETURN else 0.0)
    _check_names(panels, keys, known, metric, columns)
    return {env: list(group.values()) for env, group in panels.items()}


def _add(curve: Curve, config: dict[str, Any], drawn: tuple[np.ndarray, np.ndarray], evaluation: Any) -> None:
    """A run more in a curve."""
    own = config["config"]
    if own != curve.config:
        curve.mixed = True
        same = {k: v for k, v in curve.config.items() if k in own and own[k] == v}
        curve.differ += [k for k in {**curve.config, **own} if k not in same and k not in curve.differ]
        curve.config = same
    curve.seeds.append(config["seed"])
    curve.curves.append(drawn)
    if evaluation is not None:
        curve.evaluations.append({k: evaluation["greedy"][k] for k in ("mean", "ci95")})
        if "sampled" in evaluation:
            curve.sampled.append({k: evaluation["sampled"][k] for k in ("mean", "ci95")})


def _check_names(panels: Any, keys: list[str], known: set[str], metric: str, columns: set[str]) -> None:
    """Refuse hyperparameters and columns that no run has."""
    missing = [key for key in keys if key not in known]
    if panels and missing:
        theirs = {alias: name for algo in RECIPES for alias, name in aliases(algo).items()}
        near = nearest(missing[0], sorted(known), theirs)
        there = f"there are: config, algo, {', '.join(sorted(known))}"
        raise RunError(
            f"no run has a hyperparameter {missing[0]!r}; {there if near is None else f'did you mean {near}?'}"
        )
    if panels and metric not in columns | {RETURN}:
        near = nearest(metric, sorted(columns | {RETURN}), COLUMNS)
        there = f"there are: {', '.join(sorted(columns))}"
        raise RunError(f"no run has a column {metric!r}; {there if near is None else f'did you mean {near}?'}")


def points(rows: Iterable[Row], metric: str = RETURN, smooth: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Steps and a metric (K,), from the first row that has it; smooth: a moving average of so many rows, fewer at first."""
    drawn = np.array([(row["steps"], as_number(row.get(metric))) for row in rows], float).reshape(-1, 2)
    steps, values = drawn[np.isfinite(drawn[:, 1])].T
    if smooth > 1 and len(values):
        sums = np.concatenate([[0.0], np.cumsum(values)])
        first = np.maximum(np.arange(1, len(values) + 1) - smooth, 0)
        values = (sums[1:] - sums[first]) / np.minimum(np.arange(1, len(values) + 1), smooth)
    return steps, values


def survivors(rows: Iterable[Row], num_envs: float) -> float:
    """The steps up to which open episodes were longer, on average, than those that had ended, and had a third of all steps.

    The mean return is that of episodes that have ended. Where the short ones are the good ones, as in tasks that end at a
    goal, it is too high until the long ones have ended, too. Of the first 100 episodes, a row says how many steps they had.
    """
    until = 0.0
    for row in rows:
        episodes, length, steps = (as_number(row.get(name)) for name in ("episodes", "length_mean", "steps"))
        left = steps - episodes * length  # in open episodes, of which every environment has one
        if episodes <= 100 and left / num_envs > length and left > steps / 3:
            until = steps
    return until


def last(curve: Curve) -> float:
    """The end of a curve, for its label."""
    if not curve.drawn():
        return 0.0
    steps, returns = curve.band()
    return float(returns.mean(0)[-1]) if len(steps) else float(max((x[-1], y[-1]) for x, y in curve.drawn())[1])


def return_label(value: float, digits: int = 1) -> str:
    """A return: separators for thousands and a real minus."""
    return f"{value:,.{digits}f}".replace("-", "−")


def noun(curves: list[Curve]) -> str:
    """The noun for the members of a curve."""
    return "runs" if any(curve.mixed for curve in curves) else "seeds"


def seeds_label(curves: list[Curve]) -> str:
    """The number of seeds, or the seed."""
    what = noun(curves)
    counts = sorted({len(curve.seeds) for curve in curves})
    if len(curves) == 1:
        left_off = "" if curves[0].finished else ", unfinished"
        return (f"seed {curves[0].seeds[0]}" if counts == [1] else f"{counts[0]} {what}") + left_off
    each = f"{counts[0]} {what if counts[0] > 1 else what[:-1]} each"
    return each if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {what} each"


def differences(curves: Iterable[Curve]) -> str:
    """The settings in which runs of one curve differ, as text, the number of steps first; empty where there are none."""
    names = list(dict.fromkeys(name for curve in curves for name in curve.differ))
    names.sort(key=lambda name: name != "steps")
    more = f" and {len(names) - FEW + 1} settings more" if len(names) > FEW else ""
    named = ", ".join(names[: FEW - 1] if more else names)
    return f"runs of one curve differ in {named}{more}" if names else ""


def picture_name(several: bool, by: str, metric: str, smooth: int) -> str:
    """The file of a picture whose file is not given. Only the default picture has the name of a run's learning curve."""
    usual = "learning_curves" if several else "learning_curve"
    parts = [usual if metric == RETURN else metric]
    parts += [f"by-{by}"] * (by != "config") + [f"smooth{smooth}"] * (smooth != 1)
    return re.sub(r"[^\w.-]+", "-", "-".join(parts)) + ".png"


def marks_text(curves: list[Curve], beyond: bool = False) -> str:
    """The text that explains lines, bands, dots and bars. beyond: whether a final policy is beyond the axis."""
    several, dots = any(len(c.seeds) > 1 for c in curves), any(c.evaluations for c in curves)
    many, one = any(len(c.evaluations) > 1 for c in curves), any(len(c.evaluations) == 1 for c in curves)
    what = noun(curves)
    parts = [f"line: mean of {what}, band: their range"] if several else []
    sampled = any(c.sampled for c in curves)
    parts += [
        "dot: final policy, sampled as in training; ring: greedy" if sampled else "dot: final policy, greedy"
    ] * dots
    parts += ["triangle: final policy beyond the axis"] * beyond
    bars = [f"range of {what}"] * many + [f"95 % interval{f' (of one {what[:-1]})' * many}"] * one
    parts += [f"bar: {' or '.join(bars)}"] if bars else []
    parts += (
        ["dotted: open episodes were longer than those that had ended"]
        if any(c.shows_survivors for c in curves)
        else []
    )
    parts += ["thin: single runs, where not all have numbers"] * any(c.alone() for c in curves)
    parts += ["cross: one row of metrics"] * any(c.is_point for c in curves)
    parts += [differences(curves)] * any(c.differ for c in curves)
    return " · ".join(parts)


def labels(curves: list[Curve]) -> list[str]:
    """The labels of curves: the algorithm, and on a second line at most two settings that differ.

    Curves of an algorithm whatever its settings have no second line.
    """
    names: list[str] = []
    for curve in curves:
        same = [c.config for c in curves if c.algo == curve.algo and not any(c.mixed for c in curves)]
        differs = [k for k in curve.config if any(c.get(k) != curve.config[k] for c in same)]
        differs.sort(key=lambda k: NAMED_LAST.index(k) if k in NAMED_LAST else -1)
        settings = ", ".join(f"{k} {show(curve.config[k])}" for k in differs[:2])
        more = ", …" if len(differs) > 2 else ""
        settings = curve.name or settings
        name = title(curve.algo) + ("" if curve.finished else ", unfinished")
        twin = next((j for j, other in enumerate(curves[: len(names)]) if curve.equals(other)), None)
        settings += more if not curve.name else ""
        if twin is not None:
            algo, _, theirs = names[twin].partition("\n")
            as_what = algo if curve.algo != curves[twin].algo else theirs.rpartition(": ")[2] or algo
            settings = f"the same numbers as {as_what}" + (f": {settings}" if settings else "")
        names.append(name + (f"\n{settings}" if settings else ""))
    return names


NAMED_LAST = ("num_envs", "steps")  # what says least about a run
