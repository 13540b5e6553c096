"""The numbers of a sweep: the winner's curse, simulated; effects, widths and maps; runs that diverged; words and pictures."""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from policygrad.reports.aggregates import iqm
from policygrad.reports.differences import compare_scores
from policygrad.reports.sensitivity import by_value, contrast, effect, width
from policygrad.reports.sweep_page import body
from policygrad.reports.sweep_result import SweepResult
from policygrad.reports.sweep_words import effect_sentence, shrinkage_sentence, text, width_sentence
from policygrad.reports.sweeps import Design, Setting, SweptRun, SweptSettings, fresh_settings, ranked
from policygrad.stored.directory import RunError

ALPHA, SEEDS = 0.05, 5


def most(count: int) -> int:
    """The number of false verdicts that `count` comparisons at the level of 5 % exceed with a probability of 1 ‰."""
    return int(stats.binom.ppf(0.999, count, ALPHA))


def design(values, seeds=SEEDS, random=False, logs=()):
    return Design("a2c", "CartPole-v1", ["lr=0.001,0.01"], list(values[0]), list(logs), random,
                  list(range(seeds)), list(range(seeds, 2 * seeds)))  # fmt: skip


def runs(scores, first=0, where="sweep"):
    return [
        SweptRun(
            first + k, None if x is None else float(x), f"{where}-{first + k}", 1.0, "it is NaN" if x is None else ""
        )
        for k, x in enumerate(scores)
    ]


def simulated(values, play, own=None, cls=SweptSettings, **how):
    """A sweep whose scores are `play(values)`, one array of scores per seed for each call."""
    said = design(values, **how)
    settings = [Setting(x, runs(play(x), 0, f"sweep {k}")) for k, x in enumerate(values)]
    fresh = [
        Setting(x.values, runs(play(x.values), 5, f"fresh {k}")) for k, x in enumerate(fresh_settings(said, settings))
    ]
    own = own or dict.fromkeys(values[0], 0)
    return cls(said, settings, fresh, Setting(own, runs(play(own), 5, "own")))


def test_the_best_of_many_equal_settings_looks_better_than_it_is():
    """Of 40 settings whose true score is 100 the best is above it, its fresh runs are not, and verdicts keep the level."""
    rng, sweeps = np.random.default_rng(0), 200
    values = [{"lr": k} for k in range(40)]
    before, after, verdicts, tempting = [], [], 0, 0
    for _ in range(sweeps):
        found = simulated(values, lambda _: rng.normal(100, 10, SEEDS))
        best, fresh, own = found.scores(found.order[0]), *map(found.fresh_scores, (found.fresh[0], found.own))
        before.append(iqm([best]))
        after.append(iqm([fresh]))
        verdicts += found.difference.verdict != 0
        tempting += compare_scores([best], [own]).verdict == 1
    error = np.std(after) / math.sqrt(sweeps)
    assert abs(np.mean(after) - 100) < 3 * error
    assert np.mean(before) - 100 > 20 * error
    # the largest of 40 IQMs of 5 normal scores, by other means: the mean of the middle three
    middle = np.sort(np.random.default_rng(1).normal(100, 10, (2000, 40, SEEDS)), -1)[..., 1:-1].mean(-1)
    assert np.mean(before) == pytest.approx(middle.max(1).mean(), abs=4 * np.std(before) / math.sqrt(sweeps))
    assert verdicts <= most(sweeps)
    assert tempting > most(sweeps)  # the negative control: the runs that it was chosen by


def test_shrinkage_is_what_the_best_settings_lost():
    found = simulated([{"lr": k} for k in range(3)], lambda x: np.full(SEEDS, 10.0 * x["lr"]))
    found.fresh[0].runs[:] = runs([17.0] * SEEDS, 5)
    assert found.order == [2, 1, 0]
    assert found.shrinkage == [3.0, 0.0]
    assert "has an IQM of 20.0 on the seeds that it was chosen by, and of 17.0 on fresh ones: 3.0 less" in (
        shrinkage_sentence(found)
    )
    assert found.difference is not None
    assert found.difference.estimate == 17.0
    assert found.to_json()["verdict"] == "best"


def grid_of(lrs, others):
    return [{"lr": a, "x": b} for a, b in product(lrs, others)]


def test_main_effects_of_an_additive_truth_are_exact():
    values = grid_of([1e-4, 1e-3, 1e-2], [0, 1])
    score = {1e-4: 10.0, 1e-3: 40.0, 1e-2: 25.0}
    seeds = np.arange(SEEDS) * 2.0  # the same for all settings: it adds nothing to a difference
    found = simulated(values, lambda x: score.get(x["lr"], 0) + 3 * x["x"] + seeds)
    lr, x = found.effects
    assert lr.values == ["0.0001", "0.001", "0.01"]
    assert lr.means == pytest.approx([10 + 1.5 + 4, 40 + 1.5 + 4, 25 + 1.5 + 4])
    assert (lr.best, lr.worst, lr.difference) == (1, 0, pytest.approx(30))
    assert (lr.low, lr.high) == (pytest.approx(30), pytest.approx(30))
    assert (x.difference, x.matters) == (pytest.approx(3), True)
    expected = stats.t.interval(0.95, SEEDS - 1, 45.5, stats.sem(seeds))
    assert (lr.lows[1], lr.highs[1]) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_a_hyperparameter_that_does_nothing_seldom_matters():
    """Five values, two seeds to five; the negative control forgets that the best and the worst were chosen."""
    rng, count, said, naive = np.random.default_rng(0), 400, 0, 0
    tried = [k for k in range(5) for _ in range(3)]
    for _ in range(count):
        scores = rng.normal(0, 1, (15, 4)) + rng.normal(0, 5, 4)  # some seeds are easier, for all settings
        one = effect("x", tried, scores, random=False, level=0.95)
        said += one.matters
        units = [scores[members].mean(0) for _, _, members in by_value(tried)]
        naive += contrast(units[one.best], units[one.worst], ALPHA, paired=True)[0] > 0
    assert said <= most(count)
    assert naive > most(count)


def test_effects_of_random_settings_keep_the_level_too():
    rng, count, said = np.random.default_rng(0), 400, 0
    for _ in range(count):
        tried = rng.uniform(0, 1, 30).tolist()
        scores = rng.normal(0, 1, (30, 3)) + rng.normal(0, 5, (30, 1))  # what the other hyperparameters do
        one = effect("x", tried, scores, random=True, level=0.95)
        said += one.matters
        assert len(one.values) == 4
    assert said <= most(count)
    scores = np.array(tried)[:, None] * 10 + rng.normal(0, 1, (30, 3))
    one = effect("x", tried, scores, random=True, level=0.95)
    assert (one.matters, one.best, one.worst) == (True, 3, 0)


def test_a_width_is_the_good_region_around_the_best():
    good = {1e-5: True, 1e-4: False, 1e-3: True, 3e-3: True, 1e-2: True, 1e-1: False}
    found = width("lr", good, 3e-3, log=True)
    assert (found.low, found.high, found.below, found.above) == (1e-3, 1e-2, 1e-4, 1e-1)
    assert found.factor == pytest.approx(10)
    assert not found.narrow
    assert "from 0.001 to 0.01 (10×), and is below it at 0.0001 and at 0.1." in width_sentence(found)
    only = width("lr", {1e-4: False, 1e-3: True, 1e-2: False}, 1e-3, log=True)
    assert only.narrow
    assert "at 0.001 only" in width_sentence(only)
    assert "not robust" in width_sentence(only)
    edge = width("lr", {1e-3: True, 1e-2: False}, 1e-3, log=True)
    assert not edge.narrow  # nobody has tried lower ones
    assert width("gamma", {0.9: False, 0.99: True, 0.999: False}, 0.99, log=False).factor is None
    assert width("ent", {0.0: True, 0.1: False}, 0.0, log=False).factor is None


def test_the_width_of_a_sweep_is_measured_against_the_fresh_interval():
    truth = {1e-4: 50.0, 1e-3: 99.0, 1e-2: 100.0, 1e-1: 20.0}
    spread = np.array([-3.0, -1, 0, 1, 3])
    found = simulated([{"lr": x, "x": k} for x in truth for k in (0, 1)], lambda x: truth.get(x["lr"], 0) + spread,
                      logs=["lr"])  # fmt: skip
    lr = found.widths[0]
    assert (lr.low, lr.high, lr.below, lr.above) == (1e-3, 1e-2, 1e-4, 1e-1)
    found.fresh[0].runs[:] = runs(np.full(SEEDS, 45.0), 5)  # the fresh runs are worse, so more is as good as they are
    again = SweptSettings(found.design, found.settings, found.fresh, found.own)
    assert (again.widths[0].low, again.widths[0].below) == (1e-4, None)


def test_maps_go_through_the_best_setting():
    values = [{"a": a, "b": b, "c": c} for a, b, c in product([2, 1], ["u", "v"], [0.0, 0.5, 1.0])]
    found = simulated(values, lambda x: np.full(SEEDS, 100.0 * (x["c"] == 0.5) + 10 * x["a"] + (x["b"] == "v")),
                      own=values[0])  # fmt: skip
    assert found.winner.values == {"a": 2, "b": "v", "c": 0.5}
    assert found.pairs() == [("a", "b"), ("a", "c"), ("b", "c")]
    first, second, places = found.map_of(("a", "b"))
    assert (first, second) == ([1, 2], ["u", "v"])
    for i, j in product(range(2), range(2)):
        assert found.settings[places[i][j]].values == {"a": first[i], "b": second[j], "c": 0.5}
    assert found.like_best[found.order[0]]
    assert not found.like_best[found.order[-1]]


def test_runs_that_diverge_count_as_the_lowest_score():
    table = {0: [90, 90, None, 90, 90], 1: [80] * 5, 2: [None] * 5, 3: [70, 60, 70, 70, 70]}
    found = simulated([{"lr": k} for k in range(4)], lambda x: table[x["lr"]], cls=SweepResult)
    assert found.floor == 60
    assert found.scores(0).tolist() == [90, 90, 60, 90, 90]
    assert [setting.diverged for setting in found.settings] == [1, 0, 5, 0]
    assert found.order == [0, 1, 3, 2]
    said = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert said["settings"][2]["runs"][0] == {"seed": 0, "score": None, "diverged": "it is NaN"}
    assert said["settings"][2]["iqm"]["value"] == 60
    assert "8 runs diverged and count as the lowest score, 60.0: it is NaN" in text(found)
    assert "diverged diverged" in text(found)
    with pytest.raises(RunError, match="every run diverged, so there is nothing to compare: it is NaN"):
        ranked([Setting({"lr": 1}, runs([None, None]))])


def test_low_fresh_scores_do_not_change_who_has_won():
    """The score of a run that diverged in the sweep is that of the sweep, however low fresh runs are."""
    table = {0: [100, 100, 100, None, None], 1: [80] * 5}
    found = simulated([{"lr": k} for k in range(2)], lambda x: table[x["lr"]])
    before = found.order
    found.own.runs[:] = runs([-1e6] * SEEDS, 5)
    found = SweptSettings(found.design, found.settings, found.fresh, found.own)
    assert (found.order, found.floor, found.fresh_floor) == (before, 80, -1e6)
    assert found.fresh_scores(found.fresh[0]).tolist() == [100, 100, 100, -1e6, -1e6]


def test_settings_with_equal_scores_keep_their_order():
    settings = [Setting({"lr": k}, runs(x)) for k, x in enumerate([[5, 5, 5], [5, 5, 5], [4, 5, 6], [9, 9, 1]])]
    assert ranked(settings) == [3, 0, 1, 2]


def test_a_sweep_whose_best_setting_is_the_presets_own_says_so():
    found = simulated([{"lr": k} for k in range(2)], lambda x: np.full(SEEDS, x["lr"] * 1.0), cls=SweepResult)
    found = SweepResult(found.design, found.settings, found.fresh, Setting({"lr": 1}, found.fresh[0].runs))
    assert found.verdict == "CartPole-v1: the best setting of the sweep, lr=1, is that of the preset."
    assert found.to_json()["verdict"] is None
    assert found.to_json()["own_is_best"]


def test_effects_say_when_they_cannot_tell():
    rng = np.random.default_rng(0)
    one = effect("x", [0, 1], rng.normal(0, 1, (2, 3)), random=False, level=0.95)
    assert effect_sentence(one).startswith("x: cannot tell whether it matters; from ")
    two = effect("x", [0, 1], np.array([[1.0, 2, 3], [101, 102, 103]]), random=False, level=0.95)
    assert effect_sentence(two) == "x: from 0 to 1 the mean score rises by 100.0 (100.0 to 100.0)."
    three = effect("x", [0, 1], rng.normal(0, 1, (2, 3)), random=True, level=0.95)
    assert "too few settings" in effect_sentence(three)


@pytest.mark.parametrize("random", [False, True])
def test_pages_and_pictures_show_everything(random, tmp_path):
    rng = np.random.default_rng(0)
    values = [{"lr": a, "<b>": b, "on": c} for a, b, c in product([1e-4, 1e-3, 1e-2, 1e-1], [0.0, 0.1], [True, None])]
    if random:
        values = [{"lr": float(10 ** -rng.uniform(1, 4)), "<b>": x["<b>"], "on": x["on"]} for x in values]

    def play(x):
        scores = (100 - 9 * abs(math.log10(x["lr"] or 1) + 2) + rng.normal(0, 3, SEEDS)).tolist()
        return [None, *scores[1:]] if x["lr"] > 0.05 else scores

    own = {"lr": 1e-3, "<b>": 0.0, "on": None}
    found = simulated(values, play, own=own, cls=SweepResult, random=random, logs=["lr"])
    chart = found.figure()
    effects, maps = 3, 3
    assert len(chart.axes) == effects + maps + 1
    assert bool(found.widths) != random
    if random:
        return
    place = found.write(tmp_path / "there")
    page = (place / "sweep.html").read_text("utf8")
    assert sorted(path.name for path in place.iterdir()) == ["clocks.json", "sweep.html", "sweep.json", "sweep.png"]
    assert "<b>" not in page.replace("<b></b>", "")
    assert page.count("<tr>") >= len(values) + 3
    assert found.verdict in str(found)
    assert found.verdict.split(",")[0].replace("<", "&lt;").replace(">", "&gt;") in body(found, b"")
    said = (place / "sweep.json").read_text("utf8")
    assert "seconds" not in said
    assert "sweep 0-0" not in said  # a place
    assert json.loads(said)["order"] == found.order
