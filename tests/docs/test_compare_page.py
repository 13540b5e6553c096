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


def test_the_page_has_the_power_that_was_measured():
    rows = json.loads((ROOT / "benchmarks" / "power.json").read_text("utf8"))["rows"]
    found = {
        (row["shape"], row["seeds"], shift): x
        for row in rows
        for shift, x in zip(row["shifts"], row["found"], strict=True)
    }
    page = (ROOT / "docs" / "compare.md").read_text("utf8")
    words = page[page.index("images/power.png") : page.index("benchmarks/power.py")]
    for said in (("normal", 20, 1.0), ("normal", 10, 1.5), ("normal", 5, 2.5), ("normal", 3, 3.0), ("rare failures", 3, 0.5),
                 ("rare failures", 10, 0.5)):  # fmt: skip
        assert f"{100 * found[said]:.0f} %" in words
    false = [row["false"] for row in rows]
    assert max(false) <= 0.05 + 3 * (0.05 * 0.95 / 500) ** 0.5
    curves = [row["found"] for row in rows]
    assert all(curve == sorted(curve) for curve in curves)
