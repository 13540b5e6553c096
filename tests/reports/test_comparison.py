"""A comparison of runs that are made up: numbers by definition, words, picture, page, and the same bytes in any order."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from policygrad.reports import aggregates
from policygrad.reports.comparison import OVERALL, ComparedRuns, ScoredRun
from policygrad.reports.comparison_page import page
from policygrad.reports.comparison_plots import common, figure
from policygrad.reports.comparison_result import RunComparison
from policygrad.reports.comparison_words import caption, overall, sentence, text, verdicts
from policygrad.reports.curves import return_label
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
        ([7.0] * 5, [7.0] * 5, "these runs do not say how many more seeds would tell."),
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
    runs |= {"worse": runs["bad"], "awful": runs["bad"]}
    assert overall(ComparedRuns(runs)).endswith("bad, worse and awful are each worse than another one.")
    del runs["worse"], runs["awful"]
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


def all_texts(chart):
    """Every text that is seen, with its box in pixels."""
    FigureCanvasAgg(chart).draw()
    found = list(chart.texts)
    for axis in chart.axes:
        legend = axis.get_legend()
        found += [axis.xaxis.label, axis.yaxis.label, *axis.texts, *(legend.get_texts() if legend is not None else [])]
        found += [one for one in axis.get_children() if isinstance(one, Text) and one not in axis.texts]  # the titles
        for line, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
            low, high = sorted(limits)
            found += [tick.label1 for tick in line.get_major_ticks() if low <= tick.get_loc() <= high]
    return [(text, text.get_window_extent()) for text in found if text.get_text()]


def faults(chart):
    """What is too small, outside the picture, or over something else."""
    wide, tall = chart.get_size_inches() * chart.get_dpi()
    texts = all_texts(chart)
    small = [f"small: {text.get_text()}" for text, _ in texts if text.get_fontsize() < 6]
    outside = [
        f"outside: {text.get_text()}"
        for text, box in texts
        if box.x0 < 0 or box.y0 < 0 or box.x1 > wide or box.y1 > tall
    ]
    over = [
        f"over: {one.get_text()} and {other.get_text()}"
        for (one, a), (other, b) in combinations(texts, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]
    return small + outside + over


def five_sides():
    runs = sides(threshold=110.0)
    for name in ("ppo:clip=0.1,epochs=5", "reinforce:learning_rate=0.0003,baseline=leave-one-out", "dqn"):
        runs[name] = {env: [replace(run, score=1e5 + run.score) for run in each] for env, each in runs["bad"].items()}
    return RunComparison(runs)


def test_pictures_can_be_read_in_a_column_of_a_paper():
    for found in (five_sides(), RunComparison(sides(count=3, envs=("Left-v0",), threshold=110.0))):
        for chart in (found.figure(), found.clocks_figure()):
            assert chart is not None
            assert len(all_texts(chart)) >= 15
            assert faults(chart) == []
    assert found.figure().get_size_inches()[0] == 3.5
    assert found.figure().get_dpi() >= 200
    chart = five_sides().figure()
    chart.set_size_inches(2.0, 3.0)  # letters keep their size
    assert {fault.partition(":")[0] for fault in faults(chart)} == {"outside", "over"}
    chart.texts[0].set_fontsize(5)
    assert any(fault.startswith("small") for fault in faults(chart))


def test_the_caption_has_the_numbers_of_the_picture_and_stands_beside_it():
    found = RunComparison(sides())
    said = found.caption
    for env in found.envs:
        for side in found.sides:
            numbers = found.summary(side, env)["iqm"]
            low, high = (return_label(x) for x in numbers["interval"])
            assert f"{side} {return_label(numbers['value'])} [{low}, {high}], n = 6" in said
        assert f"{env}, 300 steps: IQM [95 % stratified bootstrap interval]" in said
    assert "bands: from the lowest to the highest run" in said
    assert found.to_json()["caption"] == said
    assert f"<p>{said}</p></details>".replace("'", "&#x27;") in found.page()
    drawn = " ".join(text.get_text() for text in reversed(found.figure().texts))
    assert drawn == said


def test_survival_by_steps_and_by_seconds():
    runs = sides(count=3, envs=("Left-v0",))
    runs["good"]["Left-v0"][1] = made("Left-v0", 1, 1.0, curve=(10, 20))
    runs["bad"]["Left-v0"] = [made("Left-v0", k, 1.0, seconds=0.5 + k) for k in range(3)]
    found = RunComparison(runs)
    assert found.survival("good", "Left-v0").times.tolist() == [300]
    slow = found.survival("bad", "Left-v0", "seconds")
    assert (slow.times.tolist(), slow.shares.tolist()) == ([150, 450, 750], pytest.approx([2 / 3, 1 / 3, 0]))
    assert (slow.median, slow.end, slow.last, slow.censored.tolist()) == (450, 750, pytest.approx(0), [])
    assert found.survival("good", "Left-v0").censored.tolist() == [200]
    clocks = found.clocks()["bad"]["Left-v0"]["to_threshold"]
    assert clocks["median_seconds"] == 450
    chart = found.clocks_figure()
    by_steps, by_seconds = chart.axes
    assert by_seconds.lines[-1].get_xdata().tolist() == [0, 150, 450, 750, 750]
    assert by_steps.lines[1].get_xdata().tolist() == [200]  # the bar across the line of the run that ended before
    assert "good 2 of n = 3 reached it, median 300 steps, 300 s; bad 3 of n = 3" in chart_text(chart)


def chart_text(chart):
    return " ".join(text.get_text() for text in reversed(chart.texts))


def test_runs_without_clocks_and_without_thresholds():
    runs = sides(count=3, envs=("Left-v0",))
    dark = {s: {e: [replace(r, seconds=np.full(3, np.nan)) for r in each] for e, each in envs.items()}
            for s, envs in runs.items()}  # fmt: skip
    found = RunComparison(dark)
    assert found.survival("good", "Left-v0", "seconds") is None
    assert "to_threshold" not in found.clocks()["good"]["Left-v0"]
    assert "have no clock" in found.clocks_figure().axes[1].texts[0].get_text()
    bare = {s: {e: [replace(r, threshold=None) for r in each] for e, each in envs.items()} for s, envs in runs.items()}
    assert RunComparison(bare).clocks_figure() is None


def test_only_files_with_seconds_depend_on_the_machine(tmp_path):
    runs = sides(count=3, envs=("Left-v0",))
    slow = {s: {e: [replace(r, seconds=r.seconds * 2) for r in each] for e, each in envs.items()}
            for s, envs in runs.items()}  # fmt: skip
    RunComparison(runs).write(tmp_path / "a")
    RunComparison(slow).write(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    differ = [name for name in names if (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()]
    assert names == ["clocks.json", "clocks.png", "compare.html", "compare.json", "compare.png"]
    assert differ == ["clocks.json", "clocks.png"]


def test_the_gap_to_the_best_run_is_in_the_summary_of_all_environments():
    found = RunComparison(sides())
    said = found.summary("bad", OVERALL)["optimality_gap"]
    assert said["value"] == pytest.approx(float(np.mean(1 - np.concatenate(found.normalized("bad")))))
    assert said["interval"][0] <= said["value"] <= said["interval"][1]
    assert "optimality_gap" not in found.summary("bad", "Left-v0")


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
