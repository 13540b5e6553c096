"""The recipe for SLURM, with submitit's executor for one machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from policygrad.stored.directory import RunDirectory, runs

submitit = pytest.importorskip("submitit")
FILE = Path(__file__).parents[2] / "examples" / "cluster" / "with_submitit.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("with_submitit", FILE)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["with_submitit"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["with_submitit"]


def test_a_preempted_job_is_queued_again_as_it_was(recipe):
    shard = recipe.Shard(("train", "ppo", "CartPole-v1"), 1, 4)
    again = shard.checkpoint()
    assert again.function == shard
    assert (again.args, again.kwargs) == ((), {})


def test_a_job_that_fails_says_so(recipe, capfd):
    with pytest.raises(RuntimeError, match="exit code 2"):
        recipe.Shard(("train", "no_such_algorithm", "CartPole-v1"), 0, 1)()
    assert "no_such_algorithm" in capfd.readouterr().err


@pytest.mark.slow
def test_jobs_that_are_preempted_end_with_every_run_trained_once(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FILE.parent), prepend=":")  # jobs import the recipe
    words = ["train", "a2c", "CartPole-v1", "--seed", "0-3", "--steps", "40000", "--eval-episodes", "2", "--runs-root"]
    jobs = recipe.submit([*words, str(tmp_path / "runs")], 2, tmp_path / "logs", "local", timeout_min=5)
    until = time.monotonic() + 120.0
    log = jobs[0].paths.stdout
    while not (log.exists() and "seed 0: " in log.read_text()):  # it trains
        assert time.monotonic() < until
        time.sleep(0.1)
    controller = jobs[0].job_id  # of whose children SLURM would be the parent
    task = int(Path(f"/proc/{controller}/task/{controller}/children").read_text().split()[0])
    os.kill(task, signal.SIGUSR2)  # as before a preemption
    for job in jobs:
        job.result()
        job._process.wait()
    assert "Requeued" in jobs[0].paths.stderr.read_text() + log.read_text()
    ended = [RunDirectory(run).config()["seed"] for run in runs(tmp_path / "runs") if RunDirectory(run).evaluation()]
    assert sorted(ended) == [0, 1, 2, 3]
