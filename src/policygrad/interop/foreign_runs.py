"""Finished runs of Stable-Baselines3 and its zoo: directories with evaluations.npz or monitor.csv, read as learning curves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policygrad.files import BadFileError, parse_json, read_text
from policygrad.interop.sb3 import MAX_ROWS, EvaluationTable

WINDOW = 100  # episodes of a moving average
ROWS = 500  # of a learning curve, at most
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # steps, returns, episodes, seconds


@dataclass(frozen=True)
class ForeignRun:
    """One run. env: None where its files do not say.

    score: the mean return of the last evaluation; without evaluations, of the last 100 training episodes. steps, returns,
    episodes, seconds (K,): its learning curve, as in `policygrad.reports.comparison.ScoredRun`.
    """

    env: str | None
    seed: int
    score: float
    steps: np.ndarray
    returns: np.ndarray
    episodes: np.ndarray
    seconds: np.ndarray
    place: Path


def foreign_runs(folder: Path) -> list[ForeignRun]:
    """The runs under a directory, one per directory with such files. Raises BadFileError, naming the file.

    A run's seed is the last number in the name of its directory where these numbers differ, and else its place in the list.
    """
    places = sorted({path.parent for name in ("evaluations.npz", "*monitor.csv") for path in folder.rglob(name)})
    numbers = [re.findall(r"\d+", str(place.relative_to(folder))) for place in places]
    last = [int(found[-1]) if found else None for found in numbers]
    known = None not in last and len(set(last)) == len(last)
    return [read(place, int(last[k] or 0) if known else k) for k, place in enumerate(places)]


def read(place: Path, seed: int) -> ForeignRun:
    """The run in a directory."""
    monitors = sorted(place.glob("*monitor.csv"))
    table = EvaluationTable(place / "evaluations.npz").read()
    env, curve = monitored(monitors)
    if table.steps:
        means = np.array([float(np.mean(row)) for row in table.returns])
        score = float(means[-1])
        if not monitors:
            steps = np.array(table.steps, float)
            curve = (steps, means, np.full(len(steps), float(WINDOW)), np.full(len(steps), np.nan))
    elif len(curve[0]):
        score = float(curve[1][-1])
    else:
        raise BadFileError(f"{place} has no evaluation and no finished episode")
    if not np.isfinite(score) or not np.isfinite(curve[1]).all():
        raise BadFileError(f"{place} has a return that is not finite")
    return ForeignRun(env, seed, score, *curve, place)


def monitored(files: list[Path]) -> tuple[str | None, Columns]:
    """The environment, and the curve of the episodes in one run's files: steps, returns, episodes, seconds."""
    env, episodes = None, []
    for file in files:
        head, *lines = read_text(file, MAX_ROWS).splitlines() or [""]
        try:
            said = parse_json(head.removeprefix("#"))
        except ValueError as error:
            raise BadFileError(f"{file} is not a monitor file: {error}") from error
        named = said.get("env_id") if isinstance(said, dict) else None
        env = env or (named if isinstance(named, str) and named != "None" else None)  # VecMonitor's word for none
        episodes += list(rows_of(file, lines))
    found = np.array(sorted(episodes, key=lambda row: row[2]), float).reshape(-1, 3)
    sums = np.concatenate([[0.0], np.cumsum(found[:, 0])])
    count = np.arange(1, len(found) + 1)
    first = np.maximum(count - WINDOW, 0)
    means = (sums[count] - sums[first]) / (count - first)
    kept = (
        np.unique(np.linspace(0, len(found) - 1, min(len(found), ROWS)).round().astype(int))
        if len(found)
        else count - 1
    )
    curve = np.cumsum(found[:, 1])[kept], means[kept], count[kept].astype(float), found[kept, 2]
    return env if isinstance(env, str) else None, curve


def rows_of(file: Path, lines: list[str]) -> Iterator[tuple[float, float, float]]:
    """Return, length and seconds of every episode: the columns r, l and t, wherever they stand."""
    names = lines[0].split(",") if lines else ["r", "l", "t"]
    if not {"r", "l", "t"} <= set(names):
        raise BadFileError(f"{file} is not a monitor file: it has no columns r, l and t")
    at = [names.index(name) for name in ("r", "l", "t")]
    for number, line in enumerate(lines[1:], 3):
        cells = line.split(",")
        try:
            ret, length, seconds = (float(cells[k]) for k in at)
        except (ValueError, IndexError):
            if number == len(lines) + 1:  # a killed run left it half written
                return
            raise BadFileError(f"{file}, line {number} is not an episode: {line[:60]!r}") from None
        yield ret, length, seconds
