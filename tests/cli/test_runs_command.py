"""`policygrad runs`: its table in a pipe and in a terminal, its JSON, its mistakes."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest

from policygrad.cli import main
from policygrad.cli.runs import joined, picture
from policygrad.stored.directory import RunDirectory
from policygrad.stored.overview import Overview
from policygrad.stored.standing import DESCRIBED, STATES, Standing


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A directory with four runs, of which one is no run any more."""
    monkeypatch.chdir(tmp_path)
    for seed, state in enumerate(("finished", "stopped", "stopped")):
        path = Path("runs/CartPole-v1/ppo", f"seed{seed}")
        path.mkdir(parents=True)
        run = RunDirectory(path)
        run.write_config({"algo": "ppo", "env": "CartPole-v1", "seed": seed, "config": {"steps": 1000}})
        run.append_metrics({"steps": 500, "seconds": 2.0, "steps_per_second": 250.0, "return_mean": 10.0 * seed})
        run.write_evaluation({"greedy": {"mean": 499.0}})
        run.write_state(state, 500, ["", "SIGTERM", "NotFiniteError: it is nan"][seed])
    (tmp_path / "runs/bad").mkdir()
    (tmp_path / "runs/bad/config.json").write_text('{"algo": "\\u001b[31mred", "env": "E", "seed": 0, "config": {}}')
    return tmp_path


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["runs", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    return out.splitlines()


def test_a_pipe_gets_one_plain_table(here, capsys):
    first, _, header, *rows = lines(capsys, "--sort", "run")
    assert first == "4 runs under runs: 1 finished, 1 stopped, 1 diverged, 1 broken"
    assert header.split() == [
        *("run", "algorithm", "environment", "seed", "state", "steps", "of"),
        *("%", "steps/s", "return", "checkpoint", "machine"),
    ]
    assert rows[0].split()[:10] == [
        *("CartPole-v1/ppo/seed0", "ppo", "CartPole-v1", "0", "finished", "500", "1,000", "50", "250", "499.0"),
    ]
    assert rows[4] == ""
    assert rows[5].startswith("broken: bad: config.json")
    assert "\\x1b[31m" in rows[5]
    assert rows[6] == "diverged: CartPole-v1/ppo/seed2: NotFiniteError: it is nan"
    assert lines(capsys, "--watch", "--sort", "run")[1:] == ["", header, *rows]  # without a terminal it is drawn once


def test_flags_choose_and_sort(here, capsys):
    assert [row.split()[0][-5:] for row in lines(capsys, "--env", "CartPole-v1", "--sort", "-return")[3:6]] == [
        *("seed0", "seed2", "seed1"),
    ]
    assert lines(capsys, "--sort=-return") == lines(capsys, "--sort", "-return", "runs")
    assert lines(capsys, "--state", "stopped, finished")[0] == "2 of 4 runs under runs: 1 finished, 1 stopped"
    assert lines(capsys, "--match", "nothing") == ["0 of 4 runs under runs"]
    assert "… and 3 more: see --limit" in lines(capsys, "--limit", "1")
    assert joined(["--sort", "-x"]) == ["--sort", "-x"]


def test_json_is_one_document(here, capsys):
    assert main(["runs", "--json", "--sort", "run", "--state", "finished"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == {"directory", "hostname", "clock", "counts", "runs"}
    assert said["counts"] == {"finished": 1}
    assert said["directory"] == "runs"
    assert said["runs"][0].keys() == DESCRIBED.keys()
    assert get_args(Standing) == tuple(STATES)
    (run,) = said["runs"]
    assert run == Overview("runs").look()[0].to_json() | {"age": run["age"]}
    assert main(["runs", "--json", "--limit", "2"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["runs"]) == 2
    assert sum(said["counts"].values()) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--state", "finishd"], "Did you mean 'finished'"),
        (["--sort", "speeds"], "Did you mean 'speed'"),
        (["--watch", "runs"], "a directory stands before it"),
        (["--watch", "0"], "at least 0.1"),
        (["--limit", "0"], "at least 1"),
        (["--sorted", "run"], "Did you mean --sort?"),
        (["missing"], "there is no directory missing"),
        (["runs/bad/config.json"], "there is no directory"),
    ],
)
def test_mistakes_are_answered(here, capsys, words, said):
    assert main(["runs", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) <= 3


def test_an_empty_directory_is_no_mistake(tmp_path, capsys):
    assert lines(capsys, str(tmp_path)) == [f"0 runs under {tmp_path}"]
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == []


def test_words_of_other_tools_lead_here(capsys):
    assert main(["status"]) == 2
    assert "Use `policygrad runs [DIR]`" in capsys.readouterr().err


@pytest.mark.parametrize(("columns", "height"), [(60, 8), (80, 24), (160, 10)])
def test_the_live_table_fits_into_the_terminal(here, columns, height):
    from rich.console import Console

    for k in range(30):
        path = here / "runs/more" / f"a-run-with-a-long-name-{k}"
        path.mkdir(parents=True)
        RunDirectory(path).write_config({"algo": "ppo", "env": "E", "seed": k, "config": {}})
    overview = Overview("runs")
    found = overview.look()
    console = Console(width=columns, height=height, file=io.StringIO())
    text = picture(found, len(found), overview, console, None).plain.splitlines()
    assert len(text) < height
    assert max(map(len, text[2:-3])) <= columns
    assert any(line.startswith("… and ") for line in text)


def test_a_terminal_draws_it_anew_until_ctrl_c(here):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "policygrad", "runs", "--watch", "0.1"]
    settings = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=settings)
    os.close(theirs)
    seen, deadline, asked = b"", time.monotonic() + 60, False
    try:
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):  # the terminal of a process that has just ended
                seen += os.read(ours, 2**16) if select.select([ours], [], [], 0.1)[0] else b""
            if not asked and seen.count(b"diverged: Cart") >= 3:
                asked = True
                process.send_signal(signal.SIGINT)
        assert process.poll() == 0, seen.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert seen.count(b"4 runs under runs") >= 3
    assert b"Traceback" not in seen
    assert b"\x1b[1A" in seen  # in place
