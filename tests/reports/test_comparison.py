"""A comparison of runs that are made up: numbers by definition, words, picture, page, and the same bytes in any order."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from policygrad.reports import aggregates
from policygrad.reports.comparison import OVERALL, ComparedRuns, ScoredRun
from policygrad.reports.comparison_page import page
from policygrad.reports.comparison_plots import common, figure
from policygrad.reports.comparison_result import RunComparison
from policygrad.reports.comparison_words import caption, overall, sentence, text, verdicts
from policygrad.reports.differences import compare_scores
from policygrad.reports.style_plots import look
from policygrad.stored.directory import RunError

GOAL = 100.0


def made(env, seed, score, curve=(10, 50, 120), threshold=GOAL, seconds=1.0):
    steps = np.arange(1.0, len(curve) + 1) * 100
    more = steps, np.array(curve, float), steps, steps * seconds
    return ScoredRun(env, seed, score, *more, f"runs/{env}/{seed}", threshold, {"algo": "made", "config": {"lr": 1.0}})


def sides(count=6, envs=("Left-v0", "Right-v0"), **more):
    """One side is far better in both environments; their scales differ."""
    sizes = dict(zip(envs, (1.0, 1000.0), strict=False))
    return {
        side: {env: [made(env, k, size * (level + k), **more) for k in range(count)] for env, size in sizes.items()}
        for side, level in {"good": 100.0, "bad": 10.0}.items()
    }


def test_statistics_are_those_of_the_scores():
    found = ComparedRuns(sides())
    scores = [found.scores("good", "Left-v0")]
    assert scores[0].tolist() == [100, 101, 102, 103, 104, 105]
    said = found.summary("good", "Left-v0")
    assert said["iqm"]["value"] == aggregates.iqm(scores) == 102.5
    assert said["iqm"]["interval"] == list(aggregates.interval(aggregates.iqm, scores))
    assert said["median"]["value"] == 102.5
    assert (said["worst"], said["collapsed"]) == (100.0, 0.0)
    skewed = sides()
    skewed["good"]["Left-v0"][0] = made("Left-v0", 0, 40.0)
    said = ComparedRuns(skewed).summary("good", "Left-v0")
    assert said["median"]["value"] != said["mean"]["value"]  # of one environment: of its runs


def test_scores_of_environments_are_brought_to_one_scale():
    found = ComparedRuns(sides())
    assert found.scale("Left-v0") == (10.0, 105.0)
    left, right = found.normalized("good")
    assert left == pytest.approx((np.arange(100, 106) - 10) / 95)
    assert right == pytest.approx((1000 * np.arange(100, 106) - 10) / (105_000 - 10))
    pooled = found.summary("bad", OVERALL)["iqm"]["value"]
    assert pooled == pytest.approx(float(aggregates.iqm(found.normalized("bad"))))


def test_the_scale_does_not_depend_on_which_side_a_run_is_of():
    runs = sides()
    swapped = {"good": runs["bad"], "bad": runs["good"]}
    assert ComparedRuns(runs).scale("Left-v0") == ComparedRuns(swapped).scale("Left-v0")
    equal = {side: {"A-v0": [made("A-v0", k, 7.0, curve=(7, 7)) for k in range(3)]} for side in "ab"}
    assert ComparedRuns(equal).scale("A-v0") == (6.0, 7.0)  # never a division by 0


def test_runs_that_never_reach_the_threshold_are_censored():
    runs = sides(count=2, envs=("Left-v0",))
    runs["good"]["Left-v0"] = [
        made("Left-v0", 0, 1.0),
        made("Left-v0", 1, 1.0, curve=(10, 20)),
        made("Left-v0", 2, 1.0),
    ]
    said = ComparedRuns(runs).summary("good", "Left-v0")["to_threshold"]
    assert said["steps"] == [300, None, 300]
    assert said["reached"] == pytest.approx(2 / 3)
    assert said["median_steps"] == 300
    assert said["survival"] == {"steps": [300.0], "not_yet": [0.0]}  # the third was censored at 200, before
    runs["good"]["Left-v0"] = [made("Left-v0", k, 1.0, curve=(10, 20)) for k in range(2)]
    assert ComparedRuns(runs).summary("good", "Left-v0")["to_threshold"]["median_steps"] is None
    assert "not reached" in text(ComparedRuns(runs))


def test_a_threshold_needs_a_hundred_episodes():
    lucky = made("Left-v0", 0, 1.0, curve=(500, 500, 500))
    lucky = replace(lucky, episodes=np.array([1.0, 99.0, 100.0]))
    assert lucky.reached(GOAL) == 2
    given = ComparedRuns(sides(), thresholds={"Left-v0": 45.0}).thresholds
    assert given == {"Left-v0": 45.0, "Right-v0": GOAL}


def test_json_has_the_same_bytes_in_any_order_and_no_clocks():
    runs = sides()
    expected = json.dumps(RunComparison(runs).to_json(), allow_nan=False)
    mixed = {side: {env: list(reversed(runs[side][env])) for env in reversed(runs[side])} for side in runs}
    assert json.dumps(RunComparison(mixed).to_json(), allow_nan=False) == expected
    slow = {s: {e: [replace(r, seconds=r.seconds * 2, place="there") for r in each] for e, each in envs.items()}
            for s, envs in runs.items()}  # fmt: skip
    assert json.dumps(RunComparison(slow).to_json(), allow_nan=False) == expected
    assert RunComparison(slow).clocks() != RunComparison(runs).clocks()
    assert RunComparison(runs).clocks()["good"]["Left-v0"]["0"]["seconds_to_threshold"] == 300.0
    said = RunComparison(runs).to_json()["environments"]
    assert said["Left-v0"]["pairs"][0]["verdict"] == "good"
    assert said[OVERALL]["profile"]["good"][0] == 1.0
    assert "not_yet" in json.dumps(said)


def test_verdicts_are_sentences():
    found = RunComparison(sides())
    assert verdicts(found, "Left-v0") == [
        "Left-v0: good is better than bad by 90.0 (95 % interval 87.0 to 93.0; a run of good beats a run of bad with "
        "probability 1)."
    ]
    assert found.verdict == "Overall, good is better than the other side over all environments."
    turned = dict(reversed(sides().items()))
    assert verdicts(RunComparison(turned), "Left-v0") == verdicts(found, "Left-v0")  # the better side is named first
    assert found.verdict in str(found)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ([1.0, 5.0, 3.0, 4.0], [2.0, 3.0, 4.5, 1.5], "cannot tell a from b yet: the difference is 1.0 (95 % interval"),
        ([100.0, 101.0, 102.0], [1.0, 2.0, 3.0], "a is better than b by 99.0"),
        (
            [2.0, 3.0, 4.5, 1.5],
            [1.0, 5.0, 3.0, 4.0],
            "cannot tell b from a yet: the difference is 1.0 (95 % interval −3.5 to 3.5)",
        ),
        ([7.0] * 5, [7.0] * 5, "the runs show no difference that more seeds could confirm."),
        ([7.0] * 3, [1.0] * 3, "the difference is 6.0, and so few seeds cannot bound it; about 3 more seeds per side"),
    ],
)
def test_what_cannot_be_told_is_said(one, other, words):
    found = compare_scores([np.array(one)], [np.array(other)])
    assert words in sentence("E", ("a", "b"), found)


def test_several_sides_have_an_overall_verdict():
    runs = sides(count=8, envs=("Left-v0",))
    runs["best"] = {"Left-v0": [made("Left-v0", k, 500.0 + k) for k in range(8)]}
    assert overall(ComparedRuns(runs)) == "Overall, best is better than each of the others on Left-v0."
    runs["best"] = runs["good"]
    assert (
        overall(ComparedRuns(runs))
        == "Overall, no side is better than all others on Left-v0; bad is worse than another one."
    )
    every = [one for pairs in ComparedRuns(runs).differences.values() for one in pairs.values()]
    assert [one.comparisons for one in every] == [3, 3, 3]
    assert every[0].p_adjusted == pytest.approx(3 * every[0].p)
    equal = {side: {"A-v0": [made("A-v0", k, 7.0 * k) for k in range(5)]} for side in "ab"}
    assert overall(ComparedRuns(equal)) == "Overall, these runs cannot tell the sides apart on A-v0."
    assert "adjusted by Bonferroni" in text(ComparedRuns(runs))
    assert "Bonferroni" not in text(ComparedRuns(equal))


def test_sides_need_runs_in_the_same_environments():
    runs = sides()
    del runs["bad"]["Right-v0"]
    with pytest.raises(RunError, match="bad has no runs in Right-v0"):
        ComparedRuns(runs)
    with pytest.raises(RunError, match="at least two sides"):
        ComparedRuns({"good": runs["good"]})


def test_the_picture_has_every_side_and_its_numbers(tmp_path):
    runs = sides()
    runs["ppo:clip=0.1,epochs=5"] = runs["bad"]
    found = ComparedRuns(runs)
    chart = figure(found)
    assert len(chart.axes) == 2 * 2
    curves, scores = chart.axes[:2]
    assert [line.get_label() for line in curves.lines][:3] == found.sides
    assert len({str(look(k)["ls"]) for k in range(4)}) == 4  # readable without colours
    assert scores.lines[0].get_xdata().tolist() == found.scores("good", "Left-v0").tolist()
    assert "good 102.5 [101" in caption(found)
    assert chart.get_size_inches()[0] == 3.5
    assert figure(found).write(tmp_path / "x.pdf").stat().st_size > 1000


def test_runs_without_curves_are_drawn():
    bare = {s: {"A-v0": [made("A-v0", k, 1.0 * k, curve=(), threshold=None) for k in range(3)]} for s in "ab"}
    found = ComparedRuns(bare)
    assert len(figure(found).axes) == 2
    assert len(common(found.runs["a"]["A-v0"])[0]) == 0
    assert math.isnan(found.scores("a", "A-v0").sum()) is False
    assert "solved" not in text(found)


def test_the_page_holds_everything_and_escapes_names():
    runs = {"<b>": sides()["good"], "bad": sides()["bad"]}
    made_page = page(ComparedRuns(runs), b"picture")
    assert "<b>:" not in made_page
    assert "&lt;b&gt; is better than bad" in made_page
    assert "src='data:image/png;base64,cGljdHVyZQ=='" in made_page
    assert "http" not in made_page.replace("http-equiv", "")
    assert "102,000.0" in made_page  # every run's score
