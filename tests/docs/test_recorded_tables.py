"""The tables that scripts make of recorded measurements are in the pages as the scripts write them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("script", ["asynchronous", "comparisons", "defects", "figures", "power"])
def test_the_pages_have_the_tables_of_the_record(script, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    made = importlib.import_module(script)
    for page in made.PAGES:
        assert page.read_text("utf8") == made.written(page)
