"""The table of `policygrad runs`: which runs are in it, in which order, and what stands in its cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from policygrad.algorithms.checked import ConfigError
from policygrad.spelling import nearest
from policygrad.stored.directory import ROOT
from policygrad.stored.overview import Overview
from policygrad.stored.standing import STATES, RunSummary

DEAD = ("lost", "broken", "failed", "diverged")  # what needs somebody most, first
MINUTE, HOUR, DAY = 60, 3600, 86400
Words = str | Iterable[str] | None

# column: what it is sorted by
KEYS: Mapping[str, Callable[[RunSummary], Any]] = {
    "run": lambda run: run.name,
    "algo": lambda run: run.algo,
    "env": lambda run: run.env,
    "seed": lambda run: run.seed,
    "state": lambda run: list(STATES).index(run.state),
    "steps": lambda run: run.steps,
    "of": lambda run: run.total,
    "percent": lambda run: run.percent,
    "speed": lambda run: run.speed,
    "return": lambda run: run.mean_return,
    "checkpoint": lambda run: run.checkpoint_age,
    "age": lambda run: run.age,
    "machine": lambda run: run.machine,
}
# column: its head, the text of its cells, and the characters of the longest
CELLS: Mapping[str, tuple[str, Callable[[RunSummary], str], int]] = {
    "run": ("run", lambda run: run.name, 200),
    "algo": ("algorithm", lambda run: run.algo or "", 24),
    "env": ("environment", lambda run: run.env or "", 30),
    "seed": ("seed", lambda run: whole(run.seed, ""), 10),
    "state": ("state", lambda run: run.state, 8),
    "steps": ("steps", lambda run: whole(run.steps), 20),
    "of": ("of", lambda run: whole(run.total), 20),
    "percent": ("%", lambda run: "–" if run.percent is None else str(math.floor(run.percent)), 6),
    "speed": ("steps/s", lambda run: "–" if run.speed is None else f"{run.speed:,.0f}", 12),
    "return": ("return", lambda run: "–" if run.mean_return is None else f"{run.mean_return:,.1f}", 16),
    "checkpoint": (
        "checkpoint",
        lambda run: "–" if run.checkpoint_age is None else f"{ago(run.checkpoint_age)} ago",
        14,
    ),
    "machine": ("machine", lambda run: run.machine or "–", 20),
}
RIGHT = ("seed", "steps", "of", "percent", "speed", "return", "checkpoint")
LEFT_OUT = (
    "seed",
    "algo",
    "env",
    "of",
    "steps",
    "checkpoint",
    "machine",
    "speed",
)  # in this order, where there is no room
SHORTEST = 32  # characters of a run's name


def runs(
    root: str | Path = ROOT,
    *,
    state: Words = None,
    algo: Words = None,
    env: Words = None,
    machine: Words = None,
    match: str | None = None,
    sort: str = "age",
    limit: int | None = None,
) -> list[RunSummary]:
    """The runs under a directory, and how they stand: the same as `policygrad runs`, as records.

    Only small files and the ends of large ones are read, nothing is written into a run, and no link is followed. A run that
    cannot be read is in the list, too, in the state "broken".
    state, algo, env, machine: one word or several, of which one must fit; all but states may have * and ?. match: a text in
    the path. sort: run, algo, env, seed, state, steps, of, percent, speed, return, checkpoint (its age), age (since anything
    was written) or machine, with a minus in front for the reverse; runs without a value come last. limit: at most so many,
    the first ones. Raises RunError if there is no such directory, and ConfigError for other words.
    """
    check(state=state, sort=sort, limit=limit)
    chosen = selected(Overview(root).look(), state=state, algo=algo, env=env, machine=machine, match=match)
    return ordered(chosen, sort)[:limit]


def check(state: Words = None, sort: str = "age", limit: int | None = None) -> None:
    """Raise ConfigError for states and columns that do not exist, and for a limit below 1."""
    for word in words(state):
        refuse_unknown("state", word, tuple(STATES))
    refuse_unknown("sort", sort.removeprefix("-"), KEYS)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit = {limit} must be at least 1, or None for all runs")


def refuse_unknown(name: str, word: str, known: Iterable[str]) -> None:
    """Raise ConfigError for a word that is not among those known."""
    if word not in known:
        near = nearest(word, known)
        hint = f". Did you mean {near!r}?" if near else ""
        raise ConfigError(f"{name} = {word!r} is not one of: {', '.join(known)}{hint}")


def words(given: Words) -> list[str]:
    """One word or several, as a list."""
    return [] if given is None else [given] if isinstance(given, str) else list(given)


def selected(
    found: Iterable[RunSummary],
    *,
    state: Words = None,
    algo: Words = None,
    env: Words = None,
    machine: Words = None,
    match: str | None = None,
) -> list[RunSummary]:
    """The runs that fit, see `runs`."""
    patterns = [("algo", [word.replace("-", "_") for word in words(algo)]), ("env", words(env))]
    patterns += [("machine", words(machine)), ("state", words(state))]
    return [
        run
        for run in found
        if (match is None or match in str(run.path))
        and all(not several or fits(getattr(run, name), several) for name, several in patterns)
    ]


def fits(value: str | None, patterns: Iterable[str]) -> bool:
    """Whether a text is one of the patterns, or like one: * is any text, and ? any character."""
    return value is not None and any(value == pattern or fnmatchcase(value, pattern) for pattern in patterns)


def ordered(found: Iterable[RunSummary], sort: str) -> list[RunSummary]:
    """The runs by a column, those without a value last; runs that are equal in it by their names."""
    key = KEYS[sort.removeprefix("-")]
    several = sorted(found, key=lambda run: run.name)
    known = [run for run in several if key(run) is not None]
    known.sort(key=key, reverse=sort.startswith("-"))
    return known + [run for run in several if key(run) is None]


def counts(found: Iterable[RunSummary]) -> dict[str, int]:
    """How many runs are in each state; states without a run are left out."""
    states = [run.state for run in found]
    return {state: states.count(state) for state in STATES if state in states}


def head(found: Sequence[RunSummary], of: int, root: str | Path) -> str:
    """The line above the table. of: as many runs there are with those that are not asked for."""
    some = f"{len(found):,} of {of:,} runs" if len(found) < of else f"{of:,} run{'s' * (of != 1)}"
    states = ", ".join(f"{count:,} {state}" for state, count in counts(found).items())
    return f"{some} under {root}{f': {states}' if states else ''}"


def table(found: Sequence[RunSummary], width: float = math.inf) -> tuple[list[str], list[list[str]], list[int]]:
    """Head, rows, and the columns that are set to the right. In a narrow table names are cut, and columns are left out: first
    those that say the same of every run.
    """
    columns = list(CELLS)
    cells = {name: [cut(cell(run), most) for run in found] for name, (_, cell, most) in CELLS.items()}
    wide = {name: max(map(len, [CELLS[name][0], *cells[name]])) for name in columns}

    def room() -> float:
        return width - sum(wide[name] + 2 for name in columns[1:])

    for name in sorted(LEFT_OUT, key=lambda name: len(set(cells[name])) > 1):
        if room() < min(wide["run"], SHORTEST):
            columns.remove(name)
    if room() < wide["run"]:
        cells["run"] = [cut(text, max(int(room()), SHORTEST)) for text in cells["run"]]
    rows = [list(row) for row in zip(*(cells[name] for name in columns), strict=True)]
    return [CELLS[name][0] for name in columns], rows, [columns.index(name) for name in RIGHT if name in columns]


def cut(text: str, most: int) -> str:
    """The text in at most so many characters: of a longer one a bit of its beginning, and its end, which tells runs apart."""
    begin = most // 4
    return text if len(text) <= most else f"{text[:begin]}…{text[len(text) - most + begin + 1 :]}"


def notes(found: Sequence[RunSummary], most: int = 5) -> list[str]:
    """What is wrong with runs, and what to do, for the first ones."""
    wrong = sorted((run for run in found if run.state in DEAD), key=lambda run: DEAD.index(run.state))
    said = [f"{run.state}: {cut(run.name, 60)}: {run.reason}" if run.reason else f"lost: {run.hint}" for run in wrong]
    more = len(said) - most
    return said[:most] + ([f"and {more:,} more, see --state {','.join(DEAD)}"] if more > 0 else [])


def document(found: Sequence[RunSummary], overview: Overview, limit: int | None = None) -> dict[str, Any]:
    """What --json prints: the first runs, at most `limit`, and the counts of all of them."""
    return {
        "directory": str(overview.root),
        "hostname": overview.host,
        "clock": overview.clock,
        "counts": counts(found),
        "runs": [run.to_json() for run in found[:limit]],
    }


def whole(value: int | None, missing: str = "–") -> str:
    """A whole number, or what stands in its place."""
    return missing if value is None else f"{value:,}"


def ago(seconds: float) -> str:
    """A time in its largest unit, from seconds to days."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.0f} s"
