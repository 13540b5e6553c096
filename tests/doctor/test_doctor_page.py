"""The tables of docs/doctor.md are those of the recorded lines."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # behind tests, which have a zoo of their own
from doctor_page import PAGE, environments, runs, written  # pyright: ignore[reportMissingImports]


def test_the_page_has_the_tables_of_the_recorded_lines():
    text = PAGE.read_text("utf8")
    assert text == written(text)


def line(**what):
    """A line of a matrix."""
    return {
        "fault": "a fault",
        "env": "Acrobot-v1",
        "algo": "ppo",
        "seed": 0,
        "harm": True,
        "found": True,
        "spoke": [],
    } | what


def test_only_harm_counts_and_what_did_none_is_listed():
    lines = [
        line(),
        line(found=False),
        line(harm=False, found=False),
        line(harm=None),
        line(env="CartPole-v1", harm=None),
    ]
    assert runs(lines).splitlines()[2] == "| a fault | 1 of 1 | 1 of 2 | – | – | 1 |"


def test_false_alarms_are_what_speaks_of_a_healthy_environment():
    lines = [line(), line(fault="healthy", found=False), line(fault="healthy", found=False, spoke=["memory"])]
    assert environments(lines).splitlines()[-1] == "| **false alarms** | 1 of 2 | – | – |"
