"""Recorded runs: the files are what the committed table makes, the reader reads them right, and verdicts follow the numbers."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from policygrad.lab.claims import Outcome, decide, every, policies, recorded, some
from policygrad.lab.claims import load_claims as claims
from policygrad.lab.claims.recorded import (
    RecordError,
    difference,
    interval,
    load_recorded,
    parse,
    probability_of_improvement,
)
from policygrad.lab.claims.tasks import detour, greedy_in_fit, irregular, positions, threshold_policy
from policygrad.lab.exact.tabular import objective, optimal_policy, optimum, policy_matrix

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CLAIMS = {slug: claim for slug, claim in claims().items() if claim.evidence == "recorded"}
PENDING = {  # until these runs are recorded
    "on-policy-needs-many-rollouts": "off-policy",
    "replay-is-sample-efficient": "off-policy",
    "stochastic-policies": "stochastic-values",
}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("claims")


def record(**changed) -> str:
    """A file of two arms, two seeds, five points."""
    arm = {"algo": "a2c", "given": {}, "config": {}}
    low = {"return": [[1, 2, None, 2, 1], [None, 1, 1, 1, 1]], "greedy": [3, 4]}
    high = {"return": [[0, 8, 2, 9, 9], [5, 5, 5, 5, 5]], "greedy": [7, 7]}
    data = {
        "name": "x", "about": "", "task": "", "curve": "", "command": "", "versions": {}, "steps": 100, "points": 5,
        "seeds": [0, 1], "arms": {"low": arm | {"measures": low}, "high": arm | {"measures": high}},
    }  # fmt: skip
    return json.dumps(data | changed)


# --- the reader ----------------------------------------------------------------------------------------------------


def test_curves_have_what_was_before_where_nothing_ended():
    runs = parse(record(), "x")
    assert runs.curves("low").tolist() == [[1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]
    assert runs.at().tolist() == [20, 40, 60, 80, 100]
    assert runs.final("low").tolist() == [1, 1]
    assert runs.final("low", "greedy").tolist() == [3, 4]
    assert runs.speed("low").tolist() == [1.6, 1.0]
    assert runs.steps_to("high", 8.0).tolist() == [40, np.inf]
    assert runs.falls("high", 8.0).tolist() == [True, False]
    assert runs.falls("high", 8.0, share=0.2).tolist() == [False, False]
    assert runs.falls("high", 9.0).tolist() == [False, False]  # what was low before is no fall


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no record of runs"),
        (json.dumps({"name": "x"}), "KeyError: 'arms'"),
        (record(name="y"), "says it is 'y'"),
        (record(seeds=[0, 1, 2]), "has shape"),
        (record(points=4), "has shape"),
        (record(arms={}), "0 arms"),
    ],
)
def test_a_file_that_is_no_record_is_refused(text, said):
    with pytest.raises(RecordError, match=said):
        parse(text, "x")


def test_names_that_are_not_there_are_said():
    with pytest.raises(RecordError, match=r"no recorded runs 'nope': python benchmarks/claims.py nope .*stability"):
        load_recorded("nope")
    runs = parse(record(), "x")
    with pytest.raises(ValueError, match=r"x has no arm 'middle': there are 'low', 'high'"):
        runs.final("middle")
    with pytest.raises(ValueError, match=r"x has no 'entropy' of 'low': there are return, greedy"):
        runs.speed("low", "entropy")
    with pytest.raises(ValueError, match="no curve"):
        runs.curves("low", "greedy")


def test_intervals_and_comparisons_are_those_of_the_definitions():
    assert str(interval([2.0, 2.0])) == "2 (all equal)"
    x, y = np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0])
    assert difference(x, y).mean == 1.0
    assert probability_of_improvement(x, y).mean == pytest.approx((1 + 1 + 0 + 1 + 0.5 + 1) / 6)  # a tie is half
    assert probability_of_improvement(y, x).mean == pytest.approx(1 - probability_of_improvement(x, y).mean)
    assert probability_of_improvement(np.arange(10.0) + 9.5, np.arange(10.0) - 9).low == pytest.approx(0.80, abs=0.005)
    assert recorded.iqm([0.0, 1.0, 2.0, 99.0]) == 1.5
    assert recorded.iqm_ratio(2.0 * x, x).mean == 2.0
    assert recorded.rank_correlation([1.0, 2.0, 3.0, 5.0], [1.0, 4.0, 9.0, 8.0]).mean == pytest.approx(0.8)
    for wrong in ([], [np.nan], [np.inf, 1.0], [[1.0]]):
        with pytest.raises(ValueError, match="expected finite numbers"):
            interval(np.array(wrong))


def test_an_interval_that_holds_both_answers_does_not_decide():
    assert [recorded.Interval(1.0, 0.5, 2.0).above(x) for x in (0.4, 1.0, 2.1)] == [True, None, False]
    assert [every(x) for x in ([True, True], [True, None], [None, False], [])] == [True, None, False, True]
    assert [some(x) for x in ([True, None], [False, None], [False, False], [])] == [True, None, False, False]
    assert decide(None, caveat=True) == "undecided"


def test_shares_are_never_points():
    """The intervals of the definitions: 0.025^(1/10), and an example of Newcombe (1998), table II, 56/70 and 48/80."""
    assert recorded.share(10, 10).low == pytest.approx(0.025**0.1)
    gap = recorded.share_difference(56, 70, 48, 80)
    assert (gap.low, gap.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    assert recorded.share_difference(56, 70, 48, 80, several=3).low < gap.low
    assert recorded.share_difference(0, 9, 0, 9).low < 0.0 < recorded.share_difference(0, 9, 0, 9).high


def test_the_seconds_are_those_at_the_threshold_or_at_the_end():
    runs = parse(record(), "x")
    arm = dataclasses.replace(
        runs.arms["high"], measures=runs.arms["high"].measures | {"seconds": np.arange(10.0).reshape(2, 5)}
    )
    runs = dataclasses.replace(runs, arms={"high": arm})
    assert runs.seconds_to("high", 8.0).tolist() == [1.0, 9.0]


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_the_interval_of_a_probability_covers(shift):
    """Of 300 comparisons of 10 and 10 normal numbers at least 92 % hold the true P(X > Y), near 1 as well."""
    rng, true = np.random.default_rng(0), NormalDist().cdf(shift / 2**0.5)
    found = [probability_of_improvement(shift + rng.standard_normal(10), rng.standard_normal(10)) for _ in range(300)]
    assert sum(i.low <= true <= i.high for i in found) >= 0.92 * 300


def test_the_intervals_cover():
    """Of 200 samples of 20 normal numbers the 95 % interval misses 0 in 3 to 30, but for one chance in 10⁵."""
    rng = np.random.default_rng(0)
    found = [interval(rng.standard_normal(20)) for _ in range(200)]
    assert 3 <= sum(not i.low <= 0.0 <= i.high for i in found) <= 30
    pairs = [difference(*rng.standard_normal((2, 20))) for _ in range(200)]
    assert 3 <= sum(not i.low <= 0.0 <= i.high for i in pairs) <= 30


# --- the files -----------------------------------------------------------------------------------------------------


def test_every_file_is_what_the_committed_table_makes(script):
    experiments = script.EXPERIMENTS | script.TABULAR
    names = recorded.recorded_names()
    assert names == sorted(set(experiments) - {name for name in PENDING.values() if not recorded.is_recorded(name)})
    for name, experiment in ((name, experiments[name]) for name in names):
        runs, said = load_recorded(name), script.plain(experiment.describe())
        data = json.loads((recorded.FOLDER / f"{name}.json").read_text())
        assert {key: data[key] for key in said} == said, name
        assert list(runs.arms) == list(experiment.arms), name
        for arm, found in runs.arms.items():
            assert [found.algo, found.given] == script.plain(experiment.given(arm)), (name, arm)
            settings = {key: value for key, value in (said["shared"] | found.given).items() if key in found.config}
            assert found.config | settings == found.config, (name, arm)


def test_every_seed_has_numbers():
    for name in recorded.recorded_names():
        runs = load_recorded(name)
        for arm in runs.arms:
            assert np.isfinite(runs.curves(arm)).all(), (name, arm)
            assert np.isfinite(runs.final(arm)).all(), (name, arm)


def test_a_recorded_seed_repeats(script):
    experiment, arm = script.TABULAR["estimators-mse"], "random: GAE 0.95, exact V"
    measured, _ = experiment.run(arm, 3)
    assert measured["mse"] == pytest.approx(load_recorded("estimators-mse").final(arm, "mse")[3], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arm"), [("estimators-cartpole", "to-go, V"), ("stability", "trpo, max_kl 0.03"), ("shaping", "potential")]
)
def test_a_recorded_run_repeats(script, name, arm):
    experiment = script.EXPERIMENTS[name]
    measured, config = experiment.run(arm, 1)
    assert script.plain(config) == load_recorded(name).arms[arm].config
    curve = np.array(measured["return"], float)  # None: NaN
    np.testing.assert_allclose(
        curve, load_recorded(name).arms[arm].measures["return"][1], rtol=1e-3
    )  # files have 4 digits


# --- the script ----------------------------------------------------------------------------------------------------


def test_a_curve_is_the_mean_of_the_episodes_that_ended_in_each_interval(script):
    curve = script.Curve(steps=100, points=4, rows=("kl",))
    for steps, ended, row in (
        (20, [1.0, 3.0], {"kl": 0.5}),
        (25, [5.0], None),
        (26, [10.0], {"kl": None}),
        (100, [], {"kl": 2.0}),
    ):
        curve.finished += [(ret, 1) for ret in ended]
        curve(SimpleNamespace(collector=SimpleNamespace(steps_done=steps)), row)
    assert curve.read() == {"return": [3.0, 10.0, None, None], "kl": [0.5, None, None, 2.0]}


def test_a_timed_run_keeps_the_seconds_until_each_point(script):
    experiment = script.EXPERIMENTS["off-policy"]
    tiny = dataclasses.replace(experiment, steps=512, points=4, seeds=(0,), arms={"a": ("a2c", {})})
    seconds = tiny.run("a", 0)[0]["seconds"]
    assert len(seconds) == 4
    assert 0.0 < seconds[0] <= seconds[1] <= seconds[2] <= seconds[3]


def test_worlds_are_played_as_their_tables_say(script):
    """In the corridor nothing is random: always right gives −100, and so does the table of that policy."""
    env, total = script.WorldEnv("corridor"), 0.0
    assert env.reset(seed=0)[0].tolist() == [1.0]
    over = False
    while not over:
        _, rew, over, _, _ = env.step(1)
        total += rew
    assert (total, env.time) == (-100.0, 100)
    assert env.exact(lambda obs: 1) == -100.0
    tiny = dataclasses.replace(
        script.EXPERIMENTS["stochastic-values"], steps=512, points=4, arms={"aliased": ("a2c", {"task": "aliased"})}
    )
    assert tiny.run("aliased", 0)[0]["exact"] <= policies.best_certain(policies.make_mdp("aliased")) + 1e-9


def test_arms_that_are_there_are_not_run_again(script, tmp_path, capsys, monkeypatch):
    tiny = dataclasses.replace(
        script.EXPERIMENTS["sensitivity"], steps=256, points=2, seeds=(0, 1), arms={"a": ("a2c", {"lam": 0.5})}
    )
    script.record("tiny", tiny, tmp_path)
    runs = parse((tmp_path / "tiny.json").read_text(), "tiny")
    assert runs.arms["a"].config["lam"] == 0.5
    assert runs.curves("a").shape == (2, 2)
    capsys.readouterr()
    script.record("tiny", tiny, tmp_path)
    assert capsys.readouterr().out == ""
    more = dataclasses.replace(tiny, arms=tiny.arms | {"b": ("a2c", {"lam": 0.9})})
    script.record("tiny", more, tmp_path)
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["b"]
    script.record("tiny", dataclasses.replace(tiny, seeds=(0,)), tmp_path)  # other seeds: all of it
    assert "tiny: a" in capsys.readouterr().out


# --- the tasks -----------------------------------------------------------------------------------------------------


def test_the_detour_is_worth_what_it_says():
    for n in (1, 2, 5):
        mdp = detour(n)
        uniform = torch.full((n + 1, 2), 0.5, dtype=torch.float64)
        assert float(objective(mdp, uniform)) == pytest.approx(0.5 + 0.5 * 10.0 / 2 ** (n - 1))
        assert optimum(mdp) == 10.0
    with pytest.raises(ValueError, match="length must be at least 1"):
        detour(0)


def test_the_best_policy_of_irregular_contexts_is_a_threshold_and_q_is_not_simple():
    mdp = irregular(32, np.random.default_rng(1))
    best = optimal_policy(mdp)[0].argmax(-1)
    assert best.tolist() == [int(x > 0) for x in positions(32)]
    policy = threshold_policy(32)
    assert policy.flat.numel() == 2
    policy.flat.copy_(torch.tensor([200.0, 0.0], dtype=torch.float64))
    assert float(objective(mdp, policy_matrix(mdp, policy).detach())) == pytest.approx(optimum(mdp), abs=1e-3)
    J, r2 = greedy_in_fit(mdp, 31)  # as many numbers as there are
    assert (J, r2) == (pytest.approx(optimum(mdp)), pytest.approx(1.0))
    J, r2 = greedy_in_fit(mdp, 1)
    assert optimum(mdp) > J
    assert r2 < 0.5


# --- the verdicts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", sorted(CLAIMS))
def test_a_claim_has_a_verdict_with_numbers_once_its_runs_are_recorded(slug, monkeypatch):
    exact = Outcome("holds", "", {})  # of the claim's other half, which test_claims_policies.py is about
    monkeypatch.setattr(policies, "stochastic_optima", lambda: exact)
    finding = CLAIMS[slug].experiment()
    assert (finding.verdict == "pending") == (not recorded.is_recorded(PENDING.get(slug, "stability")))
    assert len(finding.numbers) >= 4 or finding.verdict == "pending"
    assert np.isfinite(list(finding.numbers.values())).all()
