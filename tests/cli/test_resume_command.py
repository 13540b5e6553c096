"""`policygrad resume` and `train --resume`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policygrad.cli import main
from policygrad.stored.directory import RunDirectory

TINY = "train a2c CartPole-v1 --steps 600 --eval-episodes 2 --hidden 8 --num-envs 2 -q --run-dir"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stopped(words: str, at: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGTERM) -> int:
    """A command that a signal ends once training has taken so many steps; its exit code."""
    from policygrad.training.recorder import Recorder

    before = Recorder.__call__

    def send(self: Recorder, agent: object, row: object) -> None:
        before(self, agent, row)  # pyright: ignore[reportArgumentType]
        if self.agent.collector.steps_done >= at and not self.pressed:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "__call__", send)
        return main(words.split())


def test_a_run_that_a_signal_stopped_goes_on_to_the_same_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY.split(), "whole"]) == 0
    assert stopped(f"{TINY} run", 200, monkeypatch) == 143
    said = capsys.readouterr().err
    assert "interrupted: run holds policy.safetensors and checkpoints/step-" in said
    assert "next: policygrad resume run" in said
    assert main(["resume", "run"]) == 0
    out = capsys.readouterr().out
    assert "resumed at " in out
    assert "greedy" in out
    for name in ("policy.safetensors", "evaluation.json", "state.json"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()
    assert main(["resume", "run"]) == 0
    assert "run is finished: nothing is left to do" in capsys.readouterr().out


def test_train_with_resume_begins_and_goes_on_and_refuses_another_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY.split(), "whole"]) == 0
    assert stopped(f"{TINY} run --resume", 200, monkeypatch, signal.SIGINT) == 130
    capsys.readouterr()
    assert main([*TINY.split(), "run", "--resume", "--lr", "0.5"]) == 2
    assert "lr: 0.003 in the run, 0.5 now" in capsys.readouterr().err
    assert main([*TINY.split(), "run", "--resume"]) == 0
    assert Path("run/policy.safetensors").read_bytes() == Path("whole/policy.safetensors").read_bytes()
    assert main([*TINY.split(), "run", "--resume"]) == 0  # finished
    assert main([*TINY.removesuffix(" --run-dir").split(), "--resume"]) == 2
    assert "--resume needs --run-dir" in capsys.readouterr().err


def test_mistakes_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "nothing"]) == 2
    assert "there is no run 'nothing'" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["resume", "empty"]) == 2
    assert "config.json" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True])
def test_several_seeds_save_what_they_have_and_go_on(group: bool) -> None:
    words = TINY.replace("600", "200000").split()
    process = subprocess.Popen(
        [sys.executable, "-m", "policygrad", *words, "runs", "--seed", "0", "1", "--resume"], start_new_session=True
    )
    paths = [Path("runs", f"seed{k}") for k in (0, 1)]
    while not all(any(path.glob("checkpoints/step-[1-9]*")) for path in paths):
        time.sleep(0.05)
    sent = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert time.monotonic() - sent < 5
    for path in paths:
        assert RunDirectory(path).state()["status"] == "stopped"
