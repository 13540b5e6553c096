"""How one run stands: what it is called, how far it is, how fast, and what its small files say of all that.

Of each file only the fields that are needed here are looked at, and of metrics.jsonl only the end is read.
"""

from __future__ import annotations

import math
import re
import shlex
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from policygrad.files import printable, read_json, read_part
from policygrad.forms import LARGEST, Form, maybe, number, table, text, whole
from policygrad.stored.directory import MAX_LINE, STATUSES, RunError, environment, parse_row

LAST_ROWS = 10  # of metrics, over which the speed is measured

Standing = Literal["training", "trained", "finished", "stopped", "failed", "diverged", "lost", "broken"]
STATES: Mapping[Standing, str] = {
    "training": "a process trains it, or it has just begun",
    "trained": "its training is over; its evaluation is being made, or is missing: `policygrad resume RUN` makes it",
    "finished": "trained and evaluated",
    "stopped": "by a signal, such as Ctrl-C; `policygrad resume RUN` goes on",
    "failed": "by an error, which stands below the table",
    "diverged": "by numbers that are not finite, or of no use",
    "lost": "it says that it trains, but nobody does that any more; `policygrad resume RUN` goes on from its last checkpoint",
    "broken": "a file of it cannot be read",
}
DESCRIBED: Mapping[str, str] = {  # of `RunSummary`; None: not known, or not there yet
    "path": "the directory of the run",
    "name": "the same below the directory that was asked for",
    "state": "how it stands",
    "algo": "what is trained",
    "env": "the name of its environment, with keywords and wrappers",
    "seed": "its seed",
    "steps": "environment steps that are done",
    "total": "those that are planned",
    "speed": f"steps per second, over the last {LAST_ROWS} rows of metrics",
    "train_return": "mean return of 100 training episodes, in the last row",
    "evaluation": "mean return of the greedy policy, once the run is finished",
    "checkpoint": "steps at the last checkpoint",
    "checkpoint_age": "seconds since it was written",
    "age": "seconds since anything was written",
    "machine": "the host that trained the run last",
    "reason": "why it ended, or what is wrong with it",
    "percent": "the share of the steps that are done, in percent",
    "mean_return": "`evaluation`, or `train_return` before it",
    "hint": "what to do with a lost run",
}
DIVERGED = ("NotFiniteError", "CurvatureError", "CollapsedError", "TooFewError")  # the kinds of TrainingError
ASKED = {"", "paused", *signal.Signals.__members__}  # reasons that are no errors

TAIL = 2**14  # bytes that these have, nearly always
LONGEST = 200  # characters of a text from a file


def within(names: Mapping[str, Form], optional: Mapping[str, Form] = {}) -> Form:
    """A table of which these fields alone are looked at."""
    known, form = (*names, *optional), table(names, optional)

    def check(name: str, value: Any) -> None:
        form(name, {key: value[key] for key in known if key in value} if isinstance(value, dict) else value)

    return check


ABOUT = within(
    {"algo": text(1000), "env": text(1000), "seed": whole(0, 2**63 - 1), "config": within({}, {"steps": whole()})},
    {"name": text(1000), "machine": within({}, {"hostname": text(1000)})},
)
STATE = within({"status": text(choices=STATUSES), "steps": whole()}, {"reason": text(1000), "hostname": text(1000)})
EVALUATED = within({"greedy": within({"mean": number(-LARGEST, LARGEST)})})
GREEDY = re.compile(rb'\{\s*"greedy": \{\s*"mean": (-?\d{1,25}(?:\.\d{1,25})?(?:e[-+]?\d{1,2})?),')
GREEDY_BYTES = 200
RETURN = maybe(number(-LARGEST, LARGEST))


@dataclass(frozen=True)
class RunSummary:
    """How a run stands. None: not known, or not there yet. Texts are printable, those from files cut after 200 characters.

    `STATES` says what each state is, `DESCRIBED` what each field.
    """

    path: Path
    name: str
    state: Standing
    algo: str | None = None
    env: str | None = None
    seed: int | None = None
    steps: int = 0
    total: int | None = None
    speed: float | None = None
    train_return: float | None = None
    evaluation: float | None = None
    checkpoint: int | None = None
    checkpoint_age: float | None = None
    age: float | None = None
    machine: str | None = None
    reason: str = ""

    @property
    def mean_return(self) -> float | None:
        """That of the evaluation; before it, that of training."""
        return self.train_return if self.evaluation is None else self.evaluation

    @property
    def percent(self) -> float | None:
        """The share of the steps that are done, in percent."""
        return 100.0 * self.steps / self.total if self.total else None

    @property
    def hint(self) -> str:
        """What to do with a lost run; empty for all others."""
        if self.state != "lost":
            return ""
        if self.checkpoint is None:
            return "it has no checkpoint: train it again"
        return printable(f"policygrad resume {shlex.quote(str(self.path))}")

    def to_json(self) -> dict[str, Any]:
        """Every field by its name, with `percent`, `mean_return` and `hint`; the path as text."""
        more = {name: getattr(self, name) for name in ("percent", "mean_return", "hint")}
        return asdict(self) | {"path": str(self.path)} | more


def read_about(path: str) -> dict[str, Any]:
    """What config.json says of a run. Raises BadFileError or FormError."""
    config = read_json(path)
    ABOUT("config.json", config)
    told = {"algo": config["algo"], "env": printable(environment(config)), "seed": config["seed"]}
    host = config.get("machine", {}).get("hostname") or None
    cut = {name: x[:LONGEST] if isinstance(x, str) else x for name, x in (told | {"machine": host}).items()}
    return cut | {"total": config["config"].get("steps")}


def read_state(path: str) -> dict[str, Any]:
    """What state.json says: its status, the steps of the last checkpoint, why training stopped, and on which machine."""
    state = read_json(path)
    STATE("state.json", state)
    told = {"status": state["status"], "steps": state["steps"], "reason": state.get("reason", "")[:LONGEST]}
    return told | ({"machine": state["hostname"][:LONGEST]} if state.get("hostname") else {})


def read_evaluation(path: str) -> dict[str, Any]:
    """The mean return in evaluation.json. The file has every return, too, and so is long; it begins with the mean."""
    begin = GREEDY.match(read_part(path, GREEDY_BYTES))
    evaluation = {"greedy": {"mean": float(begin[1])}} if begin else read_json(path)
    EVALUATED("evaluation.json", evaluation)
    return {"evaluation": float(evaluation["greedy"]["mean"])}


def read_progress(path: str) -> dict[str, Any]:
    """Steps, speed and return from the last rows of metrics.jsonl; a row that is still being written is none."""
    lines: list[bytes] = []
    for most in (TAIL, 2 * LAST_ROWS * MAX_LINE):
        tail = read_part(path, most, last=True)
        # what comes before the first line's end may be the end of another line
        lines = tail.split(b"\n")[1 if len(tail) == most else 0 : -1]
        if lines or len(tail) < most:
            break
    if not lines:
        return {}
    row = parse_row(lines[-1].decode("utf8", "replace"))
    if row is None:
        raise RunError("the last line of metrics.jsonl is not a row of metrics")
    before = parse_row(lines[-LAST_ROWS:][0].decode("utf8", "replace")) or {}
    mean = row.get("return_mean")
    RETURN("metrics.jsonl, return_mean", mean)
    return {"steps": row["steps"], "speed": speed(before, row), "train_return": mean}


def speed(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    """Steps per second between two rows of metrics; of all training where they do not tell."""
    steps, seconds = (_number(now, name) - _number(before, name) for name in ("steps", "seconds"))
    if steps > 0.0 and seconds > 0.0:
        return steps / seconds
    overall = _number(now, "steps_per_second")
    return None if math.isnan(overall) else overall


def _number(row: Mapping[str, Any], name: str) -> float:
    """A number of a row; NaN if it has none."""
    x = row.get(name)
    return float(x) if isinstance(x, int | float) else math.nan
