"""Runs that die in the middle, for tests: what they leave on the disk, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policygrad as pg
from policygrad.stored.blocks import NAME
from policygrad.stored.directory import RunDirectory
from policygrad.stored.storage import load_state
from policygrad.training.callbacks import Every


def files(run: RunDirectory) -> dict[str, Any]:
    """What a run has written, the clocks aside."""
    clocks = ("seconds", "steps_per_second", "meter_seconds")
    rows = [[(k, v) for k, v in row.items() if k not in clocks] for row in run.metrics()]  # their order counts, too
    episodes = [line.rpartition(",")[0] for line in run.monitor_file.read_text().splitlines()[1:]]
    bytes_of = [*run.path.glob("*.safetensors"), run.evaluation_file, *run.path.glob("trajectories/*")]
    last = load_state(run.checkpoints()[-1])[0]["run"]
    bytes_of += [run.path / "replay" / f"rows-{block['first']}.safetensors" for block in last.get("replay", [])]
    with np.load(run.evaluations_file) as table:
        evaluations = {name: table[name].tolist() for name in table.files}
    return {
        "metrics": rows,
        "monitor": episodes,
        "evaluations": evaluations,
        "scalars": scalars(run.path),
        "state": run.state(),
        **{path.name: path.read_bytes() for path in bytes_of},
    }


def scalars(path: Path) -> list[Any]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    events = [event for file in sorted(path.glob("events.*")) for event in EventFileLoader(str(file)).Load()]
    return [
        (
            event.step,
            [value.tag for value in event.summary.value if value.tag not in ("time/fps", "gradient/meter_seconds")],
        )
        for event in events
    ]


class Kill(BaseException):
    """The end of a process, as far as files can tell: nothing is saved any more."""


def killed(run: Path, at: int, monkeypatch: pytest.MonkeyPatch, begin: Callable[[], Any]) -> None:
    """Let a run die at so many steps, with what is on the disk then."""
    from policygrad.training import train as module

    def die(self: Every, agent: pg.Agent, row: Any) -> None:
        if agent.collector.steps_done >= at:
            raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(module, "keep", lambda *_: None)
        patch.setattr(Every, "__call__", die)
        with pytest.raises(Kill):
            begin()
    assert RunDirectory(run).state()["status"] == "running"


def last(run: RunDirectory) -> dict[str, Any]:
    """The last checkpoint, the clocks and the global generators aside, of which nothing here draws."""
    state = load_state(run.checkpoints()[-1])[0]
    return state | {
        "run": {k: v for k, v in state["run"].items() if k not in ("seconds", "files", "measured", "generators")}
    }


def blocks(run: Path) -> list[int]:
    """The first rows of the blocks of its replay buffer."""
    return sorted(int(m[1]) for path in run.glob("replay/*") if (m := NAME.fullmatch(path.name)))
