"""The table of docs/compare.md is what was measured, and no share of false verdicts is above what chance allows."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_has_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    calibration = importlib.import_module("calibration")
    rows = json.loads(calibration.JSON.read_text("utf8"))["rows"]
    assert len(rows) == len(calibration.SHAPES) * len(calibration.SEEDS)
    assert all(row["comparisons"] >= 1000 and row["false"] <= row["most"] for row in rows)
    assert calibration.table(rows) in calibration.PAGE.read_text("utf8")


def test_the_power_rises_with_the_difference_and_no_difference_is_found_at_the_level_only():
    rows = json.loads((ROOT / "benchmarks" / "power.json").read_text("utf8"))["rows"]
    false = [row["false"] for row in rows]
    assert max(false) <= 0.05 + 3 * (0.05 * 0.95 / 500) ** 0.5
    curves = [row["found"] for row in rows]
    assert all(curve == sorted(curve) for curve in curves)
