"""How runs stand: real ones that ended in every way, what locks and clocks tell, damaged and malicious files, thousands."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest

import policygrad as pg
from policygrad.errors import Interrupted, NotFiniteError
from policygrad.files import disk_time, read_part
from policygrad.stored import locks, overview, standing
from policygrad.stored.directory import RunDirectory, RunError
from policygrad.stored.overview import LOST_SECONDS, Overview, Signs
from policygrad.stored.standing import RunSummary, Standing

HERE = platform.node()
SMALL = {"steps": 128, "num_envs": 2, "num_steps": 16, "preset": {}}
KILLED = """
import sys, time
import policygrad as pg

agent = pg.a2c("CartPole-v1", steps=20_000, num_envs=2, num_steps=16, preset={})
pg.train(agent, sys.argv[1], callback=lambda agent, row: time.sleep(0.02))
"""


def synthetic(path: Path, state: dict[str, Any] | None = None, **config: Any) -> RunDirectory:
    """A run as its files would be, without training."""
    path.mkdir(parents=True)
    run = RunDirectory(path)
    run.write_config({"algo": "ppo", "env": "CartPole-v1", "seed": 0, "config": {"steps": 1000}} | config)
    for steps in range(100, 1001, 100):
        run.append_metrics({"steps": steps, "seconds": steps / 50, "steps_per_second": 50.0, "return_mean": 20.0})
    (path / "checkpoints").mkdir()
    for steps in (900, 1000):
        (path / f"checkpoints/step-{steps}.safetensors").write_bytes(b"")
    if state is not None:
        (path / "state.json").write_text(json.dumps(state))
    return run


def finished(path: Path) -> RunDirectory:
    run = synthetic(path, {"status": "finished", "steps": 1000, "hostname": HERE})
    run.write_evaluation({name: {"mean": 321.5, "ci95": [1.0, 2.0]} for name in ("greedy", "sampled")})
    return run


def aged(run: RunDirectory, seconds: float) -> RunDirectory:
    """The run, as if nothing had been written for so long."""
    then = time.time() - seconds
    for path in run.path.rglob("*"):
        os.utime(path, (then, then))
    return run


def at(found: list[RunSummary], name: str) -> RunSummary:
    (run,) = (run for run in found if run.name == name)
    return run


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """All that tells if something was written."""
    about = {path: path.lstat() for path in [root, *root.rglob("*")]}
    return {str(path): (x.st_mtime_ns, x.st_ctime_ns, x.st_size, x.st_ino) for path, x in about.items()}


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """Runs that were trained: to the end, until Ctrl-C, until their numbers were useless, and until an error."""
    root = tmp_path_factory.mktemp("real")

    def press(agent: pg.Agent, row: Any) -> None:
        if agent.collector.steps_done >= 64:
            os.kill(os.getpid(), signal.SIGINT)

    def fail(agent: pg.Agent, row: Any) -> None:
        raise OSError("no space\x1b[31m left")

    pg.train(pg.a2c("CartPole-v1", seed=3, **SMALL), root / "whole", episodes=2)
    with pytest.raises(Interrupted):
        pg.train(pg.a2c("CartPole-v1", **SMALL), root / "pressed", callback=press)
    with pytest.raises(NotFiniteError):
        pg.train(pg.a2c("CartPole-v1", lr=100, **SMALL | {"steps": 1000}), root / "useless")
    with pytest.raises(OSError, match="no space"):
        pg.train(pg.a2c("CartPole-v1", **SMALL), root / "failing", callback=fail)
    return root


def test_runs_that_were_trained_say_how_they_ended(real):
    before = tree(real)
    found = pg.runs(real, sort="run")
    assert {run.name: run.state for run in found} == {
        "whole": "finished",
        "pressed": "stopped",
        "useless": "diverged",
        "failing": "failed",
    }
    assert tree(real) == before  # nothing is written
    assert at(found, "pressed").reason == "SIGINT"
    assert at(found, "useless").reason.startswith("NotFiniteError: ")
    assert at(found, "failing").reason == "OSError: no space\\x1b[31m left"
    run, whole = RunDirectory(real / "whole"), at(found, "whole")
    evaluation, last = run.evaluation(), run.metrics()[-1]
    assert evaluation is not None
    assert (whole.algo, whole.env, whole.seed) == ("a2c", "CartPole-v1", 3)
    assert (whole.steps, whole.total) == (run.state()["steps"], 128)
    assert whole.percent == 100.0 * whole.steps / 128
    assert whole.mean_return == whole.evaluation == evaluation["greedy"]["mean"]
    assert whole.train_return == last["return_mean"]
    assert whole.checkpoint == whole.steps
    assert whole.machine == HERE
    assert 0.0 <= (whole.age or -1.0) <= (whole.checkpoint_age or -1.0) < 300.0
    assert at(found, "pressed").mean_return == at(found, "pressed").train_return
    assert all(run.hint == "" for run in found)


def test_a_run_trains_until_it_is_killed_and_then_is_lost(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "a run" / "seed0"
    watched = Overview(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)])
    try:
        deadline = time.monotonic() + 120
        while not (found := watched.look()) or found[0].speed is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert found[0].state == "training"
        assert 0 < found[0].steps < 20_000
        assert found[0].machine == HERE
    finally:
        process.kill()
        process.wait()
    (lost,) = watched.look()
    assert lost.state == "lost"
    assert lost.hint == f"policygrad resume '{path}'"
    assert RunDirectory(path).state()["status"] == "running"  # which is all that it says itself
    with RunDirectory(path).lock():  # somebody resumes it
        assert watched.look()[0].state == "training"


NOW, LATER = 0.0, LOST_SECONDS + 1.0


@pytest.mark.parametrize(
    ("status", "taken", "here", "age", "state"),
    [
        ("running", True, True, LATER, "training"),  # an iteration may take long
        ("running", True, False, LATER, "training"),  # a disk whose locks reach other machines
        ("running", False, True, NOW, "lost"),
        ("running", False, False, NOW, "training"),  # another machine's lock is not seen here
        ("running", False, False, LOST_SECONDS - 1.0, "training"),
        ("running", False, False, LATER, "lost"),
        ("running", None, True, NOW, "training"),  # no locks
        ("running", None, True, LATER, "lost"),
        (None, True, True, LATER, "training"),
        (None, False, True, NOW, "training"),  # its directory is there, and training is about to begin
        (None, False, True, LATER, "lost"),
        ("trained", False, True, LATER, "trained"),
        ("finished", None, False, LATER, "finished"),
        ("stopped", False, True, LATER, "stopped"),
    ],
)
def test_who_is_lost(status, taken, here, age, state):
    assert Signs(status, taken, here).standing("", age) == state


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("SIGTERM", "stopped"),
        ("paused", "stopped"),
        ("", "stopped"),
        ("CurvatureError: F is indefinite", "diverged"),
        ("ValueError: NotFiniteError", "failed"),
        ("SIGTERM: no", "failed"),
    ],
)
def test_why_a_run_was_stopped(reason, state):
    assert Signs("stopped").standing(reason, 0.0) == state


@pytest.mark.parametrize(("ahead", "state"), [(0.0, "training"), (LATER, "lost"), (None, "training")])
def test_the_age_of_another_machines_run_is_by_the_clock_of_the_disk(tmp_path, monkeypatch, ahead, state):
    synthetic(tmp_path / "r", {"status": "running", "steps": 100, "hostname": "elsewhere"})
    monkeypatch.setattr(overview, "disk_time", lambda folder: None if ahead is None else time.time() + ahead)
    whole = Overview(tmp_path)
    (run,) = whole.look()
    assert run.state == state
    assert run.machine == "elsewhere"
    assert whole.clock == ("machine" if ahead is None else "disk")
    assert abs((run.age or 0.0) - (ahead or 0.0)) < 60.0


def test_a_run_that_is_the_directory_itself_is_not_written_into(tmp_path):
    run = synthetic(tmp_path / "r", {"status": "running", "steps": 100, "hostname": "elsewhere"})
    before = tree(run.path)
    whole = Overview(run.path)
    (found,) = whole.look()
    assert (found.name, found.state) == ("r", "training")
    assert tree(run.path) == before
    assert whole.clock == "machine"  # a file without a name would leave no trace


def test_the_clock_of_a_disk_leaves_no_file(tmp_path):
    there = disk_time(tmp_path)
    assert there is not None
    assert abs(there - time.time()) < 10.0
    assert list(tmp_path.iterdir()) == []
    assert disk_time(tmp_path / "missing") is None


def test_who_asks_for_a_lock_stops_nobody_from_training(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    run = synthetic(tmp_path / "r")
    assert locks.is_taken(run.config_file) is False
    with run.lock():
        assert locks.is_taken(run.config_file) is True
    with run.config_file.open("rb") as file:  # somebody else asks
        fcntl.flock(file, fcntl.LOCK_SH)
        assert locks.is_taken(run.config_file) is False
        threading.Timer(0.005, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with run.lock():
            assert locks.is_taken(run.config_file) is True
        monkeypatch.setattr(locks, "PAUSES", (0.0,))
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(RunError, match="another process"), run.lock():
            pass


@pytest.mark.parametrize("refused", ["LOCK_EX", "LOCK_SH"])
def test_a_disk_without_locks_tells_nothing(tmp_path, monkeypatch, refused):
    fcntl = pytest.importorskip("fcntl")
    run, whole = synthetic(tmp_path / "r"), fcntl.flock

    def none(file: Any, kind: int) -> None:
        if kind & getattr(fcntl, refused):
            raise OSError(errno.EBADF, "not on this disk")
        whole(file, kind)

    monkeypatch.setattr(fcntl, "flock", none)
    assert locks.is_taken(run.config_file) is None
    monkeypatch.setattr(locks, "fcntl", None)  # Windows
    assert locks.is_taken(run.config_file) is None


def test_a_run_that_goes_on_after_its_evaluation_shows_its_training(tmp_path):
    run = finished(tmp_path / "r")
    assert pg.runs(tmp_path)[0].mean_return == 321.5
    run.write_state("running", 1000)
    assert pg.runs(tmp_path)[0].mean_return == 20.0


def test_runs_of_older_versions_have_no_state_and_no_machine(tmp_path):
    finished(tmp_path / "done").state_file.unlink()
    aged(synthetic(tmp_path / "half"), 1e6)
    (tmp_path / "half/policy.safetensors").write_bytes(b"")
    found = pg.runs(tmp_path, sort="run")
    assert [run.state for run in found] == ["finished", "stopped"]
    assert [run.machine for run in found] == [None, None]


def test_speed_is_that_of_the_last_ten_rows(tmp_path):
    run = RunDirectory(tmp_path)
    for steps in range(1, 101):
        run.append_metrics(
            {"steps": 10 * steps, "seconds": steps if steps <= 90 else 90 + 2 * (steps - 90), "x": "y" * 900}
        )
    assert standing.read_progress(str(run.metrics_file))["speed"] == 10 * 9 / (2 * 9)
    with run.metrics_file.open("ab") as file:
        file.write(b'{"steps": 999999, "sec')  # being written
    assert standing.read_progress(str(run.metrics_file))["steps"] == 1000
    run.metrics_file.write_text('{"steps": 10, "steps_per_second": 7.0, "return_mean": null}\n')
    assert standing.read_progress(str(run.metrics_file)) == {"steps": 10, "speed": 7.0, "train_return": None}
    run.metrics_file.write_text("")
    assert standing.read_progress(str(run.metrics_file)) == {}
    long = json.dumps({"steps": 5, "seconds": 1.0, "steps_per_second": 5.0, "text": "y" * 60_000})
    run.metrics_file.write_text(f"{long}\n" * 3)  # longer than the end that is read at first
    assert standing.read_progress(str(run.metrics_file))["steps"] == 5


def test_an_evaluation_is_read_as_a_whole_where_it_begins_otherwise(tmp_path):
    file = tmp_path / "evaluation.json"
    for mean in (0.0, -3.25, 1e-7, 1.5e17, 12345.678901234567):
        RunDirectory(tmp_path).write_evaluation({"greedy": {"mean": mean, "returns": [1.0] * 1000}})
        assert standing.GREEDY.match(file.read_bytes())
        assert standing.read_evaluation(str(file)) == {"evaluation": mean}
    file.write_text('{"sampled": {"mean": 1}, "greedy": {"std": 2, "mean": 7}}')
    assert standing.read_evaluation(str(file)) == {"evaluation": 7.0}
    for text in (
        '{"greedy": {"mean": 1e99, "std": 1}}',
        '{"greedy": {"mean": 1e999, "std": 1}}',
        '{"greedy": {"mean": true}}',
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"finite|number"):
            standing.read_evaluation(str(file))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    (path.parent.parent.parent / "outside.json").write_text("{}")
    path.symlink_to(path.parent.parent.parent / "outside.json")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**34)  # 16 GiB of zeros that take no place


def text(content: str | bytes, path: Path) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf8", "surrogatepass"))


GOOD = '{"algo": "ppo", "env": "E", "seed": 0, "config": {}'
HOSTILE = {
    "config.json": {
        "empty": (partial(text, ""), "cannot read"),
        "half": (partial(text, GOOD), "cannot read"),
        "binary": (partial(text, bytes(range(256))), "it is not text"),
        "a list": (partial(text, "[]"), "must be a table"),
        "no seed": (partial(text, '{"algo": "ppo", "env": "E", "config": {}}'), "has no seed"),
        "colours": (partial(text, GOOD.replace("ppo", "\\u001b[31m") + "}"), "printable"),
        "right to left": (partial(text, GOOD.replace("ppo", "\u202eoop") + "}"), "printable"),
        "half a character": (partial(text, GOOD.replace("ppo", "\\ud800") + "}"), "printable"),
        "a long name": (partial(text, GOOD.replace("ppo", "x" * 1001) + "}"), "at most 1,000"),
        "many steps": (partial(text, GOOD[:-1] + '"steps": 99999999999999999999}}'), "too large"),
        "no steps": (partial(text, GOOD[:-1] + '"steps": null}}'), "must be a whole number"),
        "deep": (partial(text, GOOD + ', "env_kwargs": ' + "[" * 5000 + "]" * 5000 + "}"), "deep"),
        "many entries": (partial(text, "[" + "[]," * 200_000 + "1]"), "too many entries"),
        "a host of colours": (partial(text, GOOD + ', "machine": {"hostname": "\\u001b[31m"}}'), "printable"),
    },
    "state.json": {
        "unknown": (partial(text, '{"status": "asleep", "steps": 0}'), "one of running, stopped"),
        "a number": (partial(text, "7"), "must be a table"),
        "colours": (partial(text, '{"status": "stopped", "steps": 0, "reason": "\\u001b[2J"}'), "printable"),
    },
    "metrics.jsonl": {
        "binary": (partial(text, bytes(range(256)) * 99), "not a row of metrics"),
        "no number": (partial(text, '{"steps": 1, "return_mean": "much"}\n'), "a finite number"),
        "not finite": (partial(text, '{"steps": 1, "return_mean": NaN}\n'), "not a row"),
        "a list": (partial(text, "[1]\n"), "not a row"),
    },
    "evaluation.json": {
        "empty": (partial(text, ""), "cannot read"),
        "no mean": (partial(text, '{"greedy": {}}'), "no mean"),
    },
}
for name, several in HOSTILE.items():
    several |= {"a link": (link, "is a link"), "a directory": (Path.mkdir, f"{name} must be a file")}
    several |= {"a pipe": (fifo, f"{name} must be a file")} if hasattr(os, "mkfifo") else {}
    several |= {"huge": (huge, "17,179,869,184 bytes")} if name != "metrics.jsonl" else {}


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, several in HOSTILE.items() for what in several])
def test_a_damaged_file_breaks_its_run_alone(tmp_path, name, what):
    damage, said = HOSTILE[name][what]
    finished(tmp_path / "runs/good")
    bad = finished(tmp_path / "runs/bad").path / name
    bad.unlink()
    damage(bad)
    (found, good) = pg.runs(tmp_path / "runs", sort="run")
    assert (good.state, good.mean_return) == ("finished", 321.5)
    assert found.state == "broken"
    assert said in found.reason
    assert name in found.reason
    assert str(tmp_path) not in found.reason  # where it is stands beside it
    assert len(found.reason) <= 200
    assert json.dumps(found.to_json(), allow_nan=False).isprintable()


def test_huge_metrics_without_rows_are_read_at_their_end_alone(tmp_path):
    run = finished(tmp_path / "r")
    run.metrics_file.unlink()
    huge(run.metrics_file)
    started = time.process_time()
    (found,) = pg.runs(tmp_path)
    assert time.process_time() - started < 1.0
    assert (found.state, found.train_return) == ("finished", None)
    assert read_part(run.metrics_file, 7, last=True) == bytes(7)


def test_links_are_not_followed(tmp_path):
    finished(tmp_path / "elsewhere/secret")
    root = tmp_path / "runs"
    finished(root / "a/good")
    (root / "a/loop").symlink_to(root, target_is_directory=True)
    (root / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "nowhere").symlink_to(tmp_path / "missing")
    (root / "round").symlink_to(root / "round")
    assert [run.name for run in pg.runs(root)] == ["a/good"]
    (tmp_path / "door").symlink_to(root, target_is_directory=True)
    assert [run.name for run in pg.runs(tmp_path / "door")] == ["a/good"]  # the user's own link is


def test_environments_with_strange_words_are_escaped_and_cut(tmp_path):
    words = {"env_kwargs": {"a\x1b[31m": "\u202e"}, "wrappers": ["\x1b[2J", "x" * 500]}
    synthetic(tmp_path / "r", **words)
    (run,) = pg.runs(tmp_path)
    assert run.env is not None
    assert run.env.isprintable()
    assert run.env.startswith('CartPole-v1 (a\\x1b[31m="\\u202e", \\x1b[2J, xxx')
    assert len(run.env) == 200


def test_names_that_are_no_text_are_escaped(tmp_path):
    finished(tmp_path / "\x1b[31mred\n")
    finished(tmp_path / os.fsdecode(b"caf\xe9"))
    found = pg.runs(tmp_path, sort="run")
    assert [run.name for run in found] == ["\\x1b[31mred\\n", "caf\\udce9"]
    assert all(run.path.is_dir() for run in found)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_may_not_be_read_is_a_row(tmp_path):
    finished(tmp_path / "good")
    (tmp_path / "closed").mkdir(mode=0)
    (closed, good) = pg.runs(tmp_path, sort="run")
    assert (closed.state, good.state) == ("broken", "finished")
    assert "Permission denied" in closed.reason


def test_an_error_of_the_disk_is_a_row(tmp_path, monkeypatch):
    finished(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    whole = os.scandir

    def failing(path: str) -> Any:
        if path.endswith("bad"):
            raise OSError(errno.EIO, "Input/output error")
        return whole(path)

    monkeypatch.setattr(os, "scandir", failing)
    assert {run.name: run.reason for run in pg.runs(tmp_path)} == {
        "good": "",
        "bad": "cannot read the directory: Input/output error",
    }


def test_a_run_that_is_removed_meanwhile_is_none(tmp_path, monkeypatch):
    run = finished(tmp_path / "gone")

    def remove(path: str) -> Any:
        for file in sorted(run.path.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        raise RunError("no such file")

    monkeypatch.setattr(overview, "read_about", remove)
    assert pg.runs(tmp_path) == []
    with pytest.raises(RunError, match="no directory"):
        pg.runs(tmp_path / "missing")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened from here on."""
    opened: list[str] = []
    whole = os.open

    def counting(path: Any, *args: Any, **keywords: Any) -> int:
        opened.append(str(path))
        return whole(path, *args, **keywords)

    monkeypatch.setattr(os, "open", counting)
    return opened


def test_files_that_have_not_changed_are_not_read_again(tmp_path, monkeypatch):
    for k in range(20):
        finished(tmp_path / f"{k % 3}" / f"seed{k}")
    run = synthetic(tmp_path / "now", {"status": "stopped", "steps": 5, "reason": "SIGINT"})
    whole, opened = Overview(tmp_path), counted(monkeypatch)
    before = whole.look()
    assert len(opened) == 20 * 4 + 3
    opened.clear()
    assert [run.to_json() | {"age": 0, "checkpoint_age": 0} for run in whole.look()] == [
        run.to_json() | {"age": 0, "checkpoint_age": 0} for run in before
    ]
    assert opened == []
    run.append_metrics({"steps": 1100, "seconds": 23.0})
    (tmp_path / "now/state.json").write_text('{"status": "stopped", "steps": 7, "reason": "OSError: "}')
    opened.clear()
    found = at(whole.look(), "now")
    assert (found.state, found.steps) == ("failed", 1100)
    assert sorted(Path(path).name for path in opened) == ["metrics.jsonl", "state.json"]
    opened.clear()
    (tmp_path / "now/state.json").write_text("no more")  # a file that is broken is not read again and again
    assert [at(whole.look(), "now").state for _ in range(3)] == ["broken"] * 3
    assert len(opened) == 1


def test_runs_in_runs_are_found_and_their_own_parts_are_not_searched(tmp_path):
    finished(tmp_path / "r")
    finished(tmp_path / "r/again")
    (tmp_path / "r/trajectories").mkdir()
    finished(tmp_path / "r/trajectories/x")
    assert [run.name for run in pg.runs(tmp_path, sort="run")] == ["r", "r/again"]


@pytest.mark.slow
def test_three_thousand_runs_take_a_second(tmp_path):
    for k in range(3000):
        finished(tmp_path / f"Env{k % 7}-v1/ppo/seed{k}")
    whole, started = Overview(tmp_path), time.process_time()
    assert len(whole.look()) == 3000
    first = time.process_time() - started
    assert len(whole.look()) == 3000
    assert first < 1.0
    assert time.process_time() - started - first < 0.5


def test_where_a_run_trains_is_no_difference_between_machines(real, monkeypatch):
    from policygrad.training.resume import differences
    from policygrad.training.sides import Existing

    config = RunDirectory(real / "whole").config()
    assert config["machine"]["hostname"] == RunDirectory(real / "whole").state()["hostname"] == HERE
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    agent = pg.load(real / "whole")
    assert differences(config, agent) == []
    assert differences(config | {"machine": config["machine"] | {"torch": "ALTIVEC"}}, agent) != []
    reused = Existing.under(real).best("a2c", "CartPole-v1", 3, config["config"], config["episodes"])
    assert reused is not None
    assert reused.path == real / "whole"


def test_the_page_has_every_state_and_every_key():
    page = (Path(__file__).parents[2] / "docs/runs.md").read_text("utf8")
    _, states, _, document = page.split("\n## ")
    assert re.findall(r"^\| (\w+) \|", states, re.MULTILINE)[1:] == list(get_args(Standing))
    cells = re.findall(r"^\| (`[^|]*) \|", document, re.MULTILINE)
    keys = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(keys) == sorted(RunSummary(Path("x"), "x", "lost").to_json())
