"""Who reads may leave, and what an environment's own code does may fail: training keeps what it has, and says where."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from policygrad.cli import main
from policygrad.envs.probes import TimeLimit
from policygrad.interop.sb3 import MonitorFile
from policygrad.stored.directory import RunDirectory
from policygrad.training.progress import Bar, Lines, SafeStream

TINY = ["--steps", "400", "--num-envs", "2", "--num-steps", "20", "--eval-episodes", "2"]
WRITTEN = {"config.json", "metrics.jsonl", "monitor.csv", "policy.safetensors", "evaluation.json", "learning_curve.png"}


class Fails(TimeLimit):
    """Its 400th step raises, with a message of several lines."""

    steps = 0
    error: BaseException = ConnectionError("the simulator is gone\nand will not come back\nor perhaps")

    def step(self, action):
        Fails.steps += 1
        if Fails.steps == 400:
            raise Fails.error
        return super().step(action)


class NoLicence(TimeLimit):
    """Cannot be made."""

    def __init__(self):
        raise RuntimeError("no licence")


for entry in (Fails, NoLicence):
    if f"{entry.__name__}-v0" not in gym.registry:
        gym.register(f"{entry.__name__}-v0", entry, order_enforce=False, disable_env_checker=True)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Fails.steps = 0


SHELL = {
    "a reader that leaves": "{command} | head -1",
    "a dead tee": "{command} | (sleep 0.1; exit 0)",
    "no standard output": "{command} >&-",
    "no streams at all": "{command} >&- 2>&- <&-",
    "a full disk behind it": "{command} > /dev/full",
}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
@pytest.mark.parametrize("name", list(SHELL))
def test_training_goes_on_when_nobody_reads_its_output_in_a_shell(name, tmp_path):
    words = ["train", "a2c", "CartPole-v1", *TINY, "--run-dir", str(tmp_path / "run")]
    line = SHELL[name].format(command=f"{sys.executable} -m policygrad {' '.join(words)}")
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "run").iterdir()} >= WRITTEN


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
def test_a_command_whose_output_is_all_says_when_it_is_lost_but_for_readers_that_leave():
    command = f"set -o pipefail; {sys.executable} -m policygrad list"
    left, full = (
        subprocess.run(["bash", "-c", command + rest], capture_output=True, text=True)
        for rest in (" | head -1", " > /dev/full")
    )
    assert (left.returncode, left.stderr, len(left.stdout.splitlines())) == (0, "", 1)
    assert full.returncode == 2
    assert "standard output: No space left" in full.stderr


class Dead(io.StringIO):
    """Its reader has left."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def closed() -> io.StringIO:
    """A stream that this process has closed."""
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, Dead(), closed()])
def test_training_goes_on_when_nobody_reads_its_output(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["train", "a2c", "CartPole-v1", *TINY, "--run-dir", "run"]) == 0
    assert {path.name for path in Path("run").iterdir()} >= WRITTEN
    assert sys.stdout is stream


@pytest.mark.parametrize("stream", [None, Dead(), closed()])
def test_displays_outlive_their_streams(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    for display in (Lines(), Bar()):
        display.start(100)
        display.update(50, 10.0, 1.0)
        display.stop()


def test_a_stream_is_lost_once_and_what_cannot_be_encoded_is_no_loss():
    text = io.StringIO()
    alive, dead = SafeStream(text), SafeStream(Dead())
    print("one", file=alive, flush=True)
    print("two", file=dead, flush=True)
    assert (text.getvalue(), alive.lost) == ("one\n", None)
    assert isinstance(dead.lost, BrokenPipeError)
    assert not dead.isatty()
    ascii_only = SafeStream(io.TextIOWrapper(io.BytesIO(), "ascii"))
    with pytest.raises(UnicodeEncodeError):
        ascii_only.write("γ")
    assert ascii_only.lost is None


@pytest.mark.parametrize(
    "error", [ConnectionError("the simulator is gone\nand more"), SystemExit("the simulator is gone")]
)
def test_an_environment_that_fails_is_one_sentence_with_the_traceback_in_the_run(error, monkeypatch, capsys):
    monkeypatch.setattr(Fails, "error", error)
    assert main(["train", "a2c", "Fails-v0", *TINY[2:], "--steps", "2000", "--run-dir", "run", "-q"]) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert "the simulator is gone" in first
    assert "traceback.txt" in first
    assert any("checkpoints/step-" in line for line in rest)
    assert len(rest) <= 2
    text = Path("run/traceback.txt").read_text()
    assert type(error).__name__ in text
    assert "raise Fails.error" in text


@pytest.mark.parametrize("words", [["train", "a2c", "NoLicence-v0"], ["eval", "run", "--env", "NoLicence-v0"]])
def test_an_environment_that_cannot_be_made_is_one_sentence(words, capsys):
    assert main(["train", "a2c", "CartPole-v1", *TINY, "--run-dir", "run", "-q"]) == 0
    before = sorted(Path().rglob("*"))
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "RuntimeError: no licence" in err
    assert len(err.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("command", ["eval", "collect"])
def test_an_environment_that_fails_while_it_is_played_is_one_sentence(command, capsys):
    assert main(["train", "a2c", "Fails-v0", *TINY[2:], "--steps", "100", "--run-dir", "run", "-q"]) == 0
    Fails.steps = 390
    capsys.readouterr()
    assert main([command, "run", "--episodes", "20"]) == 2
    err = capsys.readouterr().err
    assert "the simulator is gone" in err
    assert len(err.splitlines()) == 1


def test_training_on_a_full_disk_is_one_sentence_that_names_the_file(monkeypatch, capsys):
    def full(self, row):
        raise OSError(28, "No space left on device", str(self.metrics_file))

    monkeypatch.setattr(RunDirectory, "append_metrics", full)
    assert main(["train", "a2c", "CartPole-v1", *TINY, "--run-dir", "run", "-q"]) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert "run/metrics.jsonl: No space left on device" in first
    assert rest[0].startswith("run holds ")
    assert len(rest) <= 2
    assert not Path("run/traceback.txt").exists()


def test_a_clock_that_is_set_back_makes_no_time_negative(tmp_path, monkeypatch):
    clock = [1e9]
    monkeypatch.setattr("policygrad.interop.sb3.time.time", lambda: clock[0])
    file = MonitorFile(tmp_path / "monitor.csv", "X")
    clock[0] -= 3600
    file.write([(1.0, 1), (2.0, 1)])
    again = MonitorFile(tmp_path / "monitor.csv", "X")
    again.write([(3.0, 1)])
    times = [float(line.split(",")[2]) for line in (tmp_path / "monitor.csv").read_text().splitlines()[2:]]
    assert 0.0 <= times[0] <= times[1] <= times[2] < 60.0
    clock[0] += 3600 + 500  # a run that goes on later has spent the time between
    MonitorFile(tmp_path / "monitor.csv", "X").write([(4.0, 1)])
    assert float((tmp_path / "monitor.csv").read_text().splitlines()[-1].split(",")[2]) >= 500.0
