"""The table of docs/metrics.md is what was measured, and the interval covers where the bootstrap did not."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from policygrad.reports.intervals import bca_interval, mean_interval

ROOT = Path(__file__).parents[2]


def test_the_page_has_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    measured = importlib.import_module("intervals")
    recorded = json.loads(measured.JSON.read_text("utf8"))
    rows = recorded["rows"]
    usual = [row for row in rows if not row["shape"].endswith("wide")]
    assert [(r["episodes"], r["shape"]) for r in usual] == [
        (n, name) for n in measured.EPISODES for name in measured.SHAPES
    ]
    assert all(row["repeats"] >= 2000 for row in usual)
    assert all(row["range"]["coverage"] >= measured.LEAST and row["range"]["points"] == 0.0 for row in rows)
    assert min(row["bca"]["coverage"] for row in usual) < 0.3  # the negative control
    assert recorded["judged"] == measured.judged(rows)
    assert measured.table(rows) in measured.PAGE.read_text("utf8")


@pytest.mark.parametrize("name", ["lander", "cartpole", "successes 98 %", "lognormal"])
def test_what_is_measured_are_the_intervals_of_the_library(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    measured = importlib.import_module("intervals")
    x, ends = measured.samples(name, 10, 3)
    many = {kind: measured.INTERVALS[kind](x, ends) for kind in ("range", "seen", "bca")}
    for k in range(len(x)):
        assert many["range"][k] == pytest.approx(mean_interval(x[k], tuple(ends[k])), abs=1e-9)
        assert many["seen"][k] == pytest.approx(mean_interval(x[k]), abs=1e-9)
        assert many["bca"][k] == pytest.approx(bca_interval(x[k]), abs=1e-9)
