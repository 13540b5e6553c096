"""What fits: narrow and wide terminals, logs, no colour; and the display of several runs."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys

import pytest
from rich.console import Console

from policygrad.cli import board as boards
from policygrad.cli.board import LineBoard, LiveBoard, make_board
from policygrad.cli.reports import failures, saved_seeds, seeds_table, seeds_text
from policygrad.cli.tables import paragraph, text_table
from policygrad.cli.values import UsageError, parse_seeds
from policygrad.training.jobs import SilentBoard, State
from policygrad.training.progress import BAR_WIDTH

HEADER = ["environment", "steps", "what it is"]
ROWS = [
    ["CartPole-v1", "500", "a pole on a cart that wants to fall and is not allowed to"],
    ["Acrobot-v1", "", "short"],
]
ENTRY = {"mean": 187.31, "ci95": [180.0, 195.5]}


@pytest.fixture
def terminal(monkeypatch):
    """A function that makes standard output a terminal of so many columns."""

    def make(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)

    return make


def plain(text: str) -> str:
    return re.sub(r"\x1b\[\d*m", "", text)


def words(text: str) -> list[str]:
    return plain(text).split()


@pytest.mark.parametrize("columns", [20, 30, 40, 60, 80, 200])
def test_a_table_fits_the_terminal_and_loses_no_word(columns, terminal):
    terminal(columns)
    text = text_table(HEADER, ROWS, right=(1,))
    assert max(map(len, plain(text).splitlines())) <= columns
    for cell in (cell for row in ROWS for cell in row):
        assert " ".join(words(cell)) in " ".join(words(text))
    assert text.startswith("\x1b[1m")


def test_a_table_changes_its_shape_with_the_width(terminal):
    aligned = text_table(HEADER, ROWS, right=(1,))
    assert aligned.splitlines()[2] == "Acrobot-v1          short"
    terminal(80)
    assert plain(text_table(HEADER, ROWS, right=(1,))) == aligned
    terminal(50)  # the last column wraps
    lines = plain(text_table(HEADER, ROWS, right=(1,))).splitlines()
    assert lines[1:3] == ["CartPole-v1    500  a pole on a cart that wants to", " " * 20 + "fall and is not allowed to"]
    terminal(30)  # the last column goes below
    lines = plain(text_table(HEADER, ROWS, right=(1,))).splitlines()
    assert lines[2:4] == ["CartPole-v1    500", "  a pole on a cart that wants"]
    assert lines[-2:] == ["Acrobot-v1", "  short"]
    terminal(16)  # paragraphs
    assert "steps: 500;" in plain(text_table(HEADER, ROWS, right=(1,)))


def test_logs_get_whole_lines_without_escapes():
    text = text_table(HEADER, ROWS)
    assert "\x1b" not in text
    assert ROWS[0][2] in text
    assert paragraph("word " * 100) == "word " * 100


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_escapes_where_none_are_wanted(variable, terminal, monkeypatch):
    terminal(80)
    monkeypatch.setenv(*variable)
    assert "\x1b" not in text_table(HEADER, ROWS)


def test_paragraphs_break_between_words_and_leave_paths_whole(terminal):
    terminal(40)
    path = "runs/" + "x" * 60
    lines = paragraph(f"a2c on CartPole-v1, seeds 0 to 3, 100,000 steps: {path}\nshort").splitlines()
    assert lines[-1] == "short"
    assert lines[-2] == f"  {path}"
    assert all(len(line) <= 40 for line in lines[:-2])


@pytest.mark.parametrize("columns", [40, 80])
def test_help_fits_the_terminal(columns, terminal, capsys):
    from policygrad.cli import help_text

    terminal(columns)
    assert max(map(len, help_text().splitlines())) <= columns


def states() -> list[State]:
    return [
        State(0, "done", "runs/seed0", 1000, 1000, evaluations={"greedy": ENTRY, "sampled": ENTRY}),
        State(1, "training", "runs/seed1", 100_000, 50_000, 12_345.0, 99.5),
        State(2, "training", "runs/seed2", 100_000),
        State(3, "evaluating", "runs/seed3", 100_000, 99_000, 1.0, 1.0),
        State(4, "failed", "runs/seed4", message="training stopped: reward is nan " + "here " * 50 + "\nand there"),
        State(5, "starting"),
        State(6),
        State(7),
    ]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_live_display_has_a_line_a_seed_that_fits(columns):
    console = Console(width=columns, height=24, file=io.StringIO(), force_terminal=True)
    lines = LiveBoard(console).lines(states()).plain.splitlines()
    assert len(lines) == 7
    assert all(len(line) <= columns for line in lines)
    assert [line[:6] for line in lines[:-1]] == [f"seed {k}" for k in range(6)]
    assert "greedy 187.3" in lines[0]
    assert "return 99.5" in lines[1]
    assert " 50 %" in lines[1]
    assert "final policy" in lines[3]
    assert "failed: training stopped" in lines[4]
    assert lines[6] == "2 more wait"
    assert (BAR_WIDTH * "━" in lines[1]) == (columns == 200)


def test_a_seeds_line_fits_every_width():
    for columns in range(30, 140):
        console = Console(width=columns, height=24, file=io.StringIO(), force_terminal=True)
        assert len(LiveBoard(console).line(states()[1], "seed 1  ").plain) <= columns


def test_on_a_low_terminal_seeds_that_are_over_share_a_line():
    console = Console(width=80, height=5, file=io.StringIO(), force_terminal=True)
    lines = LiveBoard(console).lines(states()).plain.splitlines()
    assert lines[0] == "2 of 8 seeds are finished"
    assert [line[:6] for line in lines[1:-1]] == ["seed 1", "seed 2", "seed 3", "seed 5"]


def test_the_live_display_is_redrawn_a_few_times_a_second_and_at_the_end(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(boards.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    board = LiveBoard(Console(width=80, file=stream, force_terminal=True))
    running, written = [State(0, "training", "x", 100, 1, 1.0, 1.0)], []
    for seconds, steps in ((0.0, 1), (0.1, 2), (0.2, 3), (0.3, 4)):
        now[0] = 100.0 + seconds
        running[0].steps = steps
        board.show(running)
        written.append(len(stream.getvalue()))
    assert written[0] == written[1] == written[2] < written[3]
    running[0].phase = "stopped"
    board.show(running)
    board.stop()
    assert "stopped" in stream.getvalue()


def test_logs_get_a_line_when_a_run_has_moved_on(capsys):
    board = LineBoard()
    runs = states()
    board.show(runs)
    board.show(runs)
    runs[1].steps = 60_000
    board.show(runs)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:7] for line in lines] == ["seed 0:", "seed 1:", "seed 2:", "seed 3:", "seed 4:", "seed 1:"]
    assert lines[2] == "seed 2: runs/seed2"
    assert " 60 %" in lines[-1]


def test_the_display_is_chosen_by_where_it_goes(terminal, monkeypatch):
    assert type(make_board(True)) is SilentBoard
    assert type(make_board(False)) is LineBoard
    terminal(80)
    assert type(make_board(False)) is LiveBoard
    assert type(make_board(True)) is SilentBoard
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_board(False)) is LineBoard


def test_seeds_as_people_say_them_and_type_them():
    assert [seeds_text(s) for s in ([3], [0, 1], [0, 1, 2, 3], [7, 0, 1, 2])] == [
        "seed 3",
        "seeds 0, 1",
        "seeds 0 to 3",
        "seeds 0 to 2, 7",
    ]
    assert parse_seeds(["0", "1", "2"]) == parse_seeds(["0,1,2"]) == parse_seeds(["0-2"]) == (0, 1, 2)
    assert parse_seeds(["5", "1-2,9"]) == (5, 1, 2, 9)
    assert parse_seeds(["4294967295"]) == (2**32 - 1,)
    with pytest.raises(UsageError, match="twice"):
        parse_seeds(["0-3", "3"])


def test_the_table_of_the_seeds_says_which_failed_and_means_what_is_done():
    lines = seeds_table(states()).splitlines()
    assert lines[1].split() == ["0", "187.3", "[180.0,", "195.5]", "187.3", "seed0"]
    assert lines[5].split() == ["4", "failed", "seed4"]
    assert not any(line.startswith("mean") for line in lines)
    equal = {"mean": 500.0, "ci95": [500.0, 500.0]}
    done = State(0, "done", path="seed0", evaluations={"greedy": equal, "sampled": equal})
    assert "[500.0, 500.0]" not in seeds_table([done])  # of a file of before version 0.5
    assert "all equal" in seeds_table([done])
    done.evaluations["greedy"]["ci95"] = [None, None]
    assert "not bounded" in seeds_table([done])
    assert "of that seed's policy" in seeds_table([done])


def test_failures_take_three_lines_at_most():
    same = [State(k, "failed", message="lr = 5 must be small\nreally") for k in range(3)]
    assert failures(same) == "--lr = 5 must be small\nreally"
    assert failures([*same, State(3, "done")]) == "seeds 0 to 2 failed: --lr = 5 must be small"
    many = [State(k, "failed", message=f"reason {k}\nmore") for k in range(5)]
    assert failures(many).splitlines() == ["seed 0 failed: reason 0", "seed 1 failed: reason 1", "and 3 more"]
    assert failures([State(0, "done")]) == ""
    assert saved_seeds([State(0, "stopped")]) == "no run has saved anything yet"


def test_a_narrow_terminal_sees_whole_lines_of_a_real_command():
    pty = pytest.importorskip("pty")
    termios = pytest.importorskip("termios")
    main, shell = pty.openpty()
    termios.tcsetwinsize(shell, (24, 40))
    command = [sys.executable, "-m", "policygrad", "list", "presets"]
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    process = subprocess.Popen(command, stdout=shell, stderr=shell, env=env)
    os.close(shell)
    out = b""
    while True:
        try:
            data = os.read(main, 4096)
        except OSError:  # Linux, when the other end is closed
            break
        if not data:
            break
        out += data
    os.close(main)
    assert process.wait() == 0
    lines = plain(out.decode()).replace("\r", "").splitlines()
    assert "LunarLander-v3" in plain(out.decode())
    assert max(map(len, lines)) <= 40
