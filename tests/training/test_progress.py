"""Progress displays: what they say, in how much room, and how often."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from policygrad.training.progress import BAR, Bar, Lines, Silent, fields, fit, make_progress

PARTS = fields(57_344, 100_000, 20_480.0, 187.34)


def a_bar(width: int) -> tuple[Bar, io.StringIO]:
    stream = io.StringIO()
    return Bar(Console(file=stream, width=width, force_terminal=True, color_system=None)), stream


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (200, [BAR, " 57 %", "57,344 of 100,000 steps", "20,480 steps/s", "0:02 left", "return 187.3"]),
        (100, [" 57 %", "57,344 of 100,000 steps", "20,480 steps/s", "0:02 left", "return 187.3"]),
        (60, [" 57 %", "57,344 of 100,000 steps", "0:02 left", "return 187.3"]),
        (50, [" 57 %", "57,344 steps", "0:02 left", "return 187.3"]),
        (40, [" 57 %", "0:02 left", "return 187.3"]),
        (25, [" 57 %", "return 187.3"]),
        (10, [" 57 %"]),
    ],
)
def test_fields_that_do_not_fit_are_dropped_what_matters_least_first(width, said):
    assert fit(PARTS, width) == said
    assert len("  ".join(said)) <= width


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_the_bar_is_one_line_without_an_ellipsis_in_every_width(width):
    bar, stream = a_bar(width)
    bar.start(100_000)
    bar.update(57_344, 20_480.0, 187.34)
    bar.stop()
    lines = [line for line in stream.getvalue().replace("\r", "\n").splitlines() if "%" in line]
    assert lines
    assert "…" not in stream.getvalue()
    assert "187.3" in lines[-1]
    assert "  return" in lines[-1]


def test_the_bar_grows_with_the_steps():
    lengths = []
    bar, _ = a_bar(120)
    bar.start(100_000)
    for steps in (0, 50_000, 100_000, 120_000):
        spans = bar.line(steps, 1.0, None).spans
        lengths.append(sum(span.end - span.start for span in spans if span.style == "blue"))
    bar.stop()
    assert lengths == [0, 14, 28, 28]


def test_bar_and_lines_say_the_same_per_cent():
    bar, stream = a_bar(120)
    bar.start(1000)
    bar.update(999, 1.0, None)
    bar.stop()
    lines = Lines(other := io.StringIO())
    lines.start(1000)
    lines.update(999, 1.0, None)
    assert " 99 %" in stream.getvalue()
    assert other.getvalue().startswith(" 99 %")


def test_the_last_line_is_not_said_twice():
    lines = Lines(stream := io.StringIO())
    lines.start(100)
    for steps in (50, 100, 100):
        lines.update(steps, 1.0, 2.0)
    assert len(stream.getvalue().splitlines()) == 2


def test_an_iteration_longer_than_all_of_training_is_not_a_part_of_it():
    assert fields(979, 10, 100.0, None)[:2] == ["100 %", "979 steps"]
    assert fields(10, 10, 100.0, None)[1] == "10 of 10 steps"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8", "UTF-8"])
def test_before_the_first_episode_ends_nothing_is_said_that_cannot_be_written(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    lines = Lines(stream)
    lines.start(100)
    lines.update(50, 1.0, None)
    stream.seek(0)
    assert stream.read().endswith("return –\n" if encoding.lower() == "utf-8" else "return -\n")
    stream = io.TextIOWrapper(io.BytesIO(), encoding, newline="")
    bar = Bar(Console(file=stream, width=100, force_terminal=True, color_system=None))
    bar.start(100)
    bar.update(50, 1.0, None)
    bar.stop()
    stream.seek(0)
    assert ("return –" if encoding.lower() == "utf-8" else "return -") in stream.read()


@pytest.mark.parametrize(("term", "kind"), [("xterm-256color", Bar), ("dumb", Lines), ("unknown", Lines), (None, Bar)])
def test_a_terminal_that_cannot_draw_a_line_anew_gets_lines(term, kind, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    assert isinstance(make_progress(), kind)
    assert isinstance(make_progress(quiet=True), Silent)


def test_quiet_is_not_a_word(capsys):
    silent = make_progress(quiet=True)
    silent.start(10)
    silent.update(5, 1.0, 2.0)
    silent.stop()
    assert capsys.readouterr() == ("", "")
    assert silent.interval == float("inf")  # it is not even asked for


def test_forty_columns_are_enough_for_share_time_and_return_at_every_length_of_numbers():
    for steps in (1, 999_999, 2_000_000):
        for mean in (None, 0.0, -1234.5):
            said = fit(fields(steps, 2_000_000, 123_456.0, mean), 40)
            assert len(said) >= 3
            assert len("  ".join(said)) <= 40
