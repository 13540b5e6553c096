"""The launcher of ranks: who is asked to end, who is killed, what is said; and whole commands, as slow tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_ranks import listening

from policygrad.cli import main
from policygrad.errors import Interrupted
from policygrad.stored.directory import RunDirectory
from policygrad.training import launching
from policygrad.training.launching import Rank, launch
from policygrad.training.ranks import STORE


class Process(Rank):
    """A rank without a process. ends: the second with which it ends, and the code; heeds: whether it ends when it is asked."""

    now = 0.0

    def __init__(
        self, rank: int, ends: float = 10**9, code: int = 0, heeds: bool = True, folder: Path = Path()
    ) -> None:
        self.rank, self.ends, self.ended, self.heeds, self.errors = rank, ends, code, heeds, None
        self.lost = folder / f"lost-{rank}"
        self.got: list[tuple[float, int]] = []

    @property
    def code(self) -> int | None:
        return self.ended if Process.now >= self.ends else None

    def signal(self, number: int) -> None:
        if self.code is not None:
            return
        self.got.append((round(Process.now, 1), int(number)))
        if number == signal.SIGKILL or (self.heeds and number == signal.SIGTERM):
            self.ends, self.ended = min(self.ends, Process.now + 0.5), -9 if number == signal.SIGKILL else 128 + number

    def said(self) -> str:
        return f"I am {self.rank}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    Process.now = 0.0
    monkeypatch.setattr(launching.time, "monotonic", lambda: Process.now)
    monkeypatch.setattr(launching.time, "sleep", lambda seconds: setattr(Process, "now", Process.now + seconds))


@pytest.mark.usefixtures("clock")
def test_where_one_fails_the_others_are_asked_and_then_killed() -> None:
    ranks = [Process(0, heeds=False), Process(1, ends=1.0, code=-9), Process(2)]
    failed = launching._watch(ranks, [])
    assert failed == [ranks[1]]
    assert [(round(at), number) for at, number in ranks[0].got[:3]] == [(5, 15), (7, 15), (9, 9)]
    assert Process.now < 1.0 + 10.0
    assert ranks[2].code == 143
    assert launching._reasons(ranks, failed) == ["rank 1 was ended by SIGKILL (out of memory?)"]


@pytest.mark.usefixtures("clock")
def test_where_one_is_interrupted_all_are_and_may_take_their_time() -> None:
    ranks = [Process(0, ends=60.0, code=143, heeds=False), Process(1, ends=1.0, code=143)]
    assert launching._watch(ranks, []) == []
    assert [number for _, number in ranks[0].got] == [signal.SIGTERM]
    assert Process.now >= 60.0
    assert launching._reasons(ranks, []) == []


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_before_rank_0_can_say_so_says_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = iter([Process(0, ends=1.0, code=-number), Process(1), Process(2, ends=2.0, code=-15)])
    monkeypatch.setattr(launching, "Rank", lambda *_: next(ranks))
    monkeypatch.setattr(Process, "close", lambda self: None)
    monkeypatch.setattr(Process, "process", property(lambda self: SimpleNamespace(returncode=self.code)), raising=False)
    with pytest.raises(Interrupted) as said:
        launch(["train"], 3)
    assert said.value.code == 128 + number


@pytest.mark.usefixtures("clock")
def test_where_a_rank_fails_before_all_have_started_its_code_is_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = iter([Process(0), Process(1, ends=1.0, code=3)])  # rank 0 waits for rank 1, and ends when it is asked
    monkeypatch.setattr(launching, "Rank", lambda *_: next(ranks))
    monkeypatch.setattr(Process, "close", lambda self: None)
    monkeypatch.setattr(Process, "process", property(lambda self: SimpleNamespace(returncode=self.code)), raising=False)
    assert launch(["train"], 2) == 3


def test_a_rank_that_waits_for_others_ends_at_once_when_it_is_asked(tmp_path: Path) -> None:
    store = tmp_path / "store"
    env = {STORE: str(store), "RANK": "0", "WORLD_SIZE": "2"}  # the other one never comes
    process = command("train", "ppo", "CartPole-v1", "--run-dir", str(tmp_path / "run"), **env)
    while not (store.exists() and store.stat().st_size):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)  # it waits now, in torch
    process.terminate()
    since = time.monotonic()
    process.communicate(timeout=60)
    assert time.monotonic() - since < 5.0
    assert process.returncode == -signal.SIGTERM
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("clock")
def test_signals_are_handed_on_once_and_a_follower_may_end_before_rank_0() -> None:
    ranks = [Process(0, ends=30.0), Process(1, ends=2.0)]
    assert launching._watch(ranks, [signal.SIGINT]) == []
    assert [[number for _, number in rank.got] for rank in ranks] == [[signal.SIGINT]] * 2
    assert Process.now >= 30.0


@pytest.mark.usefixtures("clock")
def test_a_follower_that_does_not_end_after_rank_0_is_ended() -> None:
    ranks = [Process(0, ends=5.0), Process(1, heeds=False)]
    assert launching._watch(ranks, []) == []
    assert ranks[1].code == -9
    assert Process.now < 5.0 + 10.0


@pytest.mark.usefixtures("clock")
def test_only_the_reason_is_said(tmp_path: Path) -> None:
    ranks = [
        Process(0, 1.0, 2, folder=tmp_path),
        Process(1, 1.0, 2, folder=tmp_path),
        Process(2, 1.0, 2, folder=tmp_path),
    ]
    Process.now = 2.0
    assert launching._reasons(ranks, ranks) == []  # rank 0 has said what they all would
    for lost in (0, 2):  # these have ended because rank 1 had
        ranks[lost].lost.touch()
    assert launching._reasons(ranks, ranks) == ["rank 1: I am 1"]


def test_several_seeds_and_several_processes_are_two_things(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ppo", "CartPole-v1", "--nproc", "2", "--seed", "0", "1"]) == 2
    assert "give one seed, or --jobs in place of --nproc" in capsys.readouterr().err


def command(*words: str, **env: str) -> subprocess.Popen[str]:
    start = "import sys; from policygrad.cli import main; sys.exit(main())"
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", start, *words], env=os.environ | env, **pipes)


def ranks_of(run: Path) -> dict[int, int]:
    """The processes of a run that are ranks, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            env = dict(x.partition("=")[::2] for x in (folder / "environ").read_text().split("\0"))
        except (OSError, ValueError):
            continue
        if str(run) in words and STORE in env:
            found[int(env["RANK"])] = int(folder.name)
    return found


def begun(run: Path) -> None:
    """Wait until it has rows of metrics."""
    for _ in range(1200):
        if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") > 1:
            return
        time.sleep(0.1)
    raise AssertionError(f"{run} does not begin")


TRAIN = ("--nproc", "2", "train", "a2c", "CartPole-v1", "--num-envs", "4", "--eval-episodes", "2", "--quiet")


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_run_within_ten_seconds_and_it_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = command(*TRAIN[2:], *TRAIN[:2], "--steps", "40000", "--run-dir", str(run))
    begun(run)
    ranks = ranks_of(run)
    assert {*ranks} == {0, 1}
    addresses = [address for pid in [process.pid, *ranks.values()] for address in listening(pid)]
    assert {*addresses} == {"0100007F"}
    os.kill(ranks[1], signal.SIGKILL)
    since = time.monotonic()
    said = process.communicate(timeout=60)
    assert time.monotonic() - since < 10.0
    assert process.returncode == 2
    assert "another process of this run has ended" in said[1]
    assert f"next: policygrad resume {run}" in said[1]
    assert "rank 1 was ended by SIGKILL" in said[1]
    assert ranks_of(run) == {}
    assert launch(["resume", str(run), "--nproc", "2", "--quiet"], 2) == 0  # as `--nproc 2` does
    assert RunDirectory(run).state()["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_saves_and_goes_on(number: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = command(*TRAIN[2:], *TRAIN[:2], "--steps", "40000", "--run-dir", str(run))
    begun(run)
    process.send_signal(number)
    said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said[1].count("policygrad:") == 1
    assert "interrupted:" in said[1]
    state = RunDirectory(run).state()
    assert state["status"] == "stopped"
    assert (run / "checkpoints" / f"step-{state['steps']}.safetensors").exists()
    process = command("resume", str(run))
    said = process.communicate(timeout=120)
    assert process.returncode == 0, said[1]
    assert "the run goes on in one process in place of 2 processes" in said[1]


@pytest.mark.slow
def test_torchrun_starts_the_same_command(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*TRAIN[2:], "--steps", "2000", "--run-dir", str(run)]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "policygrad"]
    done = subprocess.run([*start, *words], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert RunDirectory(run).state()["status"] == "finished"
    assert RunDirectory(run).config()["ranks"] == 2


@pytest.mark.slow
def test_the_ranks_end_when_whoever_has_started_them_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = command(*TRAIN[2:], *TRAIN[:2], "--steps", "40000", "--run-dir", str(run))
    begun(run)
    process.kill()
    process.communicate(timeout=60)
    for _ in range(200):
        if not ranks_of(run):
            break
        time.sleep(0.1)
    assert ranks_of(run) == {}
    state = RunDirectory(run).state()
    assert (state["status"], state["reason"]) == ("stopped", "SIGTERM")


def test_more_processes_than_environments_are_refused_before_any_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launching, "Rank", None)
    run, steps = str(tmp_path / "run"), ["--num-steps", "4", "--steps", "32", "--eval-episodes", "1", "--quiet"]
    train = ["train", "ppo", "CartPole-v1", "--num-envs", "4", "--run-dir", run, *steps]
    assert main(train) == 0
    for words in ([*train, "--nproc", "64"], ["resume", run, "--steps", "64", "--nproc", "64"]):
        assert main(words) == 2
        assert "--nproc 64 needs as many environments, and num_envs = 4" in " ".join(capsys.readouterr().err.split())
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"num_envs": 4', '"num_envs": null', 1))
    assert main(["resume", run]) == 0  # the checkpoint says how many
