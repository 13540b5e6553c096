"""What a run needs besides its agent: to be the only one, and to leave nothing behind it that comes again."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import policygrad as pg
from policygrad.envs.probes import Target
from policygrad.errors import Interrupted
from policygrad.stored.directory import RunDirectory, RunError
from policygrad.training.recorder import cut
from policygrad.training.resume import prepare
from policygrad.training.train import learn, start

SMALL: dict[str, Any] = {"hidden": (4,), "num_envs": 2, "seed": 1}


def test_a_run_is_locked_while_it_is_trained_and_not_afterwards(tmp_path: Path) -> None:
    asked = []

    def ask(agent: pg.Agent, row: Any) -> None:
        with pytest.raises(RunError, match="another process"), RunDirectory(tmp_path / "run").lock():
            pass
        asked.append(agent.collector.steps_done)

    agent = pg.a2c(Target, **SMALL)
    run = start(agent, tmp_path / "run", steps=64)
    learn(agent, run, callback=ask)
    assert asked
    with run.lock():
        pass


def test_files_that_grow_are_cut_to_what_they_were_and_one_that_is_shorter_stays(tmp_path: Path) -> None:
    names = ("metrics.jsonl", "monitor.csv", "events.out.tfevents.1", "events.out.tfevents.2", "config.json")
    for name in names:
        (tmp_path / name).write_text("0123456789")
    cut(RunDirectory(tmp_path), {"metrics.jsonl": 4, "monitor.csv": 7, "events.out.tfevents.1": 99})
    found = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert found == {"metrics.jsonl": 4, "monitor.csv": 7, "events.out.tfevents.1": 10, "config.json": 10}


def seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def test_a_run_that_goes_on_draws_on_from_everybodys_generators(tmp_path: Path) -> None:
    def drawn_in(name: str, stop: int | None) -> list[Any]:
        drawn: list[Any] = []

        def draw(agent: pg.Agent, row: Any) -> None:
            drawn.append((random.random(), np.random.random(), float(torch.rand(()))))  # noqa: NPY002
            if len(drawn) == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        seed_generators(0)
        agent = pg.a2c(Target, **SMALL)
        run = start(agent, tmp_path / name, steps=160)
        if stop is None:
            learn(agent, run, callback=draw)
            return drawn
        with pytest.raises(Interrupted):
            learn(agent, run, callback=draw)
        seed_generators(1)
        agent, kept = prepare(run, env=Target)
        learn(agent, run, callback=draw, resumed=kept)
        return drawn

    assert drawn_in("stopped", 2) == drawn_in("whole", None)
