"""The example of docs/tune.md is what was recorded, and its verdict is what the scores give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from policygrad.reports.differences import compare_scores

ROOT = Path(__file__).parents[2]


def said(value, digits=1):
    return f"{value:,.{digits}f}".replace("-", "−")


def test_the_example_is_what_was_recorded():
    page = (ROOT / "docs" / "tune.md").read_text("utf8")
    kept = json.loads((ROOT / "benchmarks" / "tuning.json").read_text("utf8"))
    trials, check, late = kept["trials"], kept["check"], kept["pruned_trained_to_their_end"]
    values = [trial["value"] for trial in trials if trial["state"] == "finished"]
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    found = compare_scores([np.array(check["tuned"])], [np.array(check["standing"])])
    assert (len(trials), len(values), len(pruned)) == (20, 11, 9)
    assert found.verdict == 0
    assert sorted(late) == sorted(str(trial["number"]) for trial in pruned)
    ends = [np.mean(scores) for scores in late.values()]
    rungs = kept["request"]["rule"]["rungs"]
    saved = sum(rungs - len(trial["curve"]) for trial in pruned) / (rungs * len(trials))
    sentences = [
        f"finished {len(values)} of {len(trials)} trials",
        f"In the search the best one had {said(max(values))} and the preset {said(trials[0]['value'])}; ",
        f"on ten fresh seeds they had {said(np.mean(check['tuned']))} and {said(np.mean(check['standing']))}.",
        f"difference {said(found.low)} to {said(found.high)})",
        f"the best of these has {said(max(ends))}, and the median of the finished is {said(np.median(values))}.",
        f"saved {saved:.0%}".replace("%", " %"),
    ]
    assert [sentence for sentence in sentences if sentence not in page] == []
    assert max(ends) < np.median(values)
