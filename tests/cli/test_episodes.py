"""What is said while an evaluation is waited for."""

from __future__ import annotations

import io

import pytest

from policygrad.cli import episodes
from policygrad.cli.episodes import Episodes


class Terminal(io.StringIO):
    """A stream that somebody sees."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(episodes.time, "perf_counter", lambda: now[0])
    monkeypatch.setenv("TERM", "xterm")
    return now


def test_on_a_terminal_one_line_is_drawn_anew_and_taken_away(clock: list[float]) -> None:
    stream = Terminal()
    told = Episodes(stream)
    for done in range(1, 11):
        clock[0] += 0.1
        told(done, 10)
    shown = stream.getvalue().split("\r")
    assert shown[0] == ""
    assert [text.removesuffix("\x1b[K") for text in shown[1:-1]] == [
        f"evaluating: {done} of 10 episodes" for done in (3, 6, 9)
    ]
    assert shown[-1] == "\x1b[K"


def test_elsewhere_a_line_comes_every_ten_seconds_and_a_short_evaluation_says_nothing(clock: list[float]) -> None:
    stream = io.StringIO()
    told = Episodes(stream)
    for done in range(1, 31):
        clock[0] += 0.7
        told(done, 30)
    assert stream.getvalue() == "evaluating: 15 of 30 episodes\n"
    stream = io.StringIO()
    for done in range(1, 4):
        Episodes(stream)(done, 3)
    assert stream.getvalue() == ""


def test_a_reader_that_is_gone_ends_nothing(clock: list[float]) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    told = Episodes(Gone())
    for done in range(1, 9):
        clock[0] += 100.0
        told(done, 9)
