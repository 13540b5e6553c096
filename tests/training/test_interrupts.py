"""A signal ends a command with the signal's code, whatever code in C makes of the exception on its way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import policygrad as pg
from policygrad.cli import main
from policygrad.envs.probes import Target
from policygrad.errors import Interrupted
from policygrad.stored.directory import RunDirectory
from policygrad.training import train as training
from policygrad.training.interrupts import interrupts, terminations
from policygrad.training.resume import resume

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SMALL: dict[str, Any] = {"hidden": (8,), "num_envs": 2, "seed": 1}


@pytest.fixture(autouse=True)
def foreground():
    """SIGINT as a terminal's program has it: started in the background, it would be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def code_in_c(number: int, error: BaseException | None, times: int = 1, seconds: float = 0.01) -> None:
    """Signals come, and what they raise becomes another error, or nothing, as it does while SciPy is imported."""
    try:
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(seconds)
    except KeyboardInterrupt as interrupt:
        if error is not None:
            raise error from interrupt


def evaluation(then: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this happen in the evaluation of a run, before the first episode."""
    evaluate = pg.Agent.evaluate

    def interrupted(self: pg.Agent, *args: Any, **kwargs: Any) -> Any:
        then()
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(pg.Agent, "evaluate", interrupted)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("error", [ImportError("numpy.core failed"), RuntimeError("SWIG"), None], ids=str)
def test_in_the_evaluation(
    number: int, error: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        evaluation(lambda: code_in_c(number, error), patch)
        with pytest.raises(Interrupted) as interrupted:
            training.train(pg.a2c(Target, **SMALL), tmp_path / "run", steps=60, episodes=2)
    assert interrupted.value.code == 128 + number
    run = RunDirectory(tmp_path / "run")
    assert run.state()["status"] == ("finished" if error is None else "trained")
    assert resume(run, env=Target).state()["status"] == "finished"


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation(lambda: code_in_c(signal.SIGTERM, ImportError("numpy.core failed")), monkeypatch)
    words = ["train", "a2c", "CartPole-v1", "--steps", "60", "--hidden", "8", "--run-dir", str(tmp_path / "run")]
    assert main(words) == 143
    err = capsys.readouterr().err
    assert "interrupted" in err
    assert "next: policygrad resume" in err
    assert not (tmp_path / "run" / "traceback.txt").exists()
    monkeypatch.undo()
    monkeypatch.setattr(
        "policygrad.cli.lists.list_command", lambda words: code_in_c(signal.SIGINT, ImportError("torch"))
    )
    assert main(["list"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_in_training_after_the_second_signal_and_after_the_time_to_end_in() -> None:
    with pytest.raises(Interrupted) as interrupted, interrupts(most=1):
        code_in_c(signal.SIGTERM, ImportError("SWIG"), times=2)
    assert interrupted.value.code == 143
    with pytest.raises(Interrupted) as interrupted, interrupts(most=1, grace=0.01):
        code_in_c(signal.SIGHUP, ImportError("SWIG"), seconds=1.0)
    assert interrupted.value.code == 129


def test_an_error_that_no_signal_made_stays_what_it_is() -> None:
    with pytest.raises(ImportError, match="missing"), terminations():
        raise ImportError("missing")
    pressed: list[int] = []

    def collected() -> None:
        with interrupts() as came:
            os.kill(os.getpid(), signal.SIGTERM)
            pressed.extend(came)
            raise ImportError("missing")

    with pytest.raises(ImportError, match="missing"):
        collected()
    assert pressed == [signal.SIGTERM]
