"""Progress displays: what they say, in how much room, and how often."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from policygrad.runs.progress import BAR, Bar, Lines, fields, fit

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
