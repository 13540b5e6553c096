"""Runs of Stable-Baselines3, read: two that version 2.9.2 wrote, with Monitor and EvalCallback.

They are A2C on CartPole-v1, seeds 0 and 1, with a learning rate of 0.003, 2,000 steps, and evaluations of 5 episodes every
500 steps.
"""

from __future__ import annotations

import csv
import json
import shutil
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from policygrad.interop.foreign_runs import foreign_runs
from policygrad.reports.comparison_result import RunComparison
from policygrad.stored.directory import RunError
from policygrad.training.compare import compare
from policygrad.training.sides import of_folder, read_side

RUNS = Path(__file__).with_name("sb3_runs")
LAST = {0: [84.0, 75.0, 83.0, 265.0, 97.0]}  # of a2c-0's last evaluation, as NumPy prints them


def episodes(place):
    """Return, length and seconds of every episode, as the csv module reads them."""
    lines = (place / "monitor.csv").read_text().splitlines()
    return [(float(row["r"]), int(row["l"]), float(row["t"])) for row in csv.DictReader(lines[1:])]


def test_runs_have_the_curve_and_the_score_that_their_files_say():
    found = foreign_runs(RUNS)
    assert [(run.place.name, run.seed, run.env) for run in found] == [
        ("a2c-0", 0, "CartPole-v1"),
        ("a2c-1", 1, "CartPole-v1"),
    ]
    for run in found:
        returns, lengths, seconds = zip(*episodes(run.place), strict=True)
        assert len(returns) > 30
        assert run.steps.tolist() == list(accumulate(lengths))
        assert run.steps[-1] <= 2000
        assert run.seconds.tolist() == list(seconds)
        assert run.episodes.tolist() == list(range(1, len(returns) + 1))
        means = [sum(returns[max(0, k - 100) : k]) / min(k, 100) for k in range(1, len(returns) + 1)]
        assert run.returns == pytest.approx(means, rel=1e-12)
        table = np.load(run.place / "evaluations.npz")
        assert run.score == table["results"][-1].mean()
    assert found[0].score == sum(LAST[0]) / 5


def test_evaluations_alone_are_a_curve(tmp_path):
    shutil.copytree(RUNS, tmp_path / "runs")
    for file in (tmp_path / "runs").rglob("monitor.csv"):
        file.unlink()
    run = foreign_runs(tmp_path / "runs")[0]
    assert run.env is None
    assert run.steps.tolist() == [500, 1000, 1500, 2000]
    assert run.returns[-1] == run.score == sum(LAST[0]) / 5
    assert np.isnan(run.seconds).all()


def test_episodes_alone_are_a_run(tmp_path):
    shutil.copytree(RUNS, tmp_path / "runs")
    for file in (tmp_path / "runs").rglob("evaluations.npz"):
        file.unlink()
    run = foreign_runs(tmp_path / "runs")[0]
    returns = [row[0] for row in episodes(run.place)][-100:]
    assert run.score == pytest.approx(sum(returns) / len(returns))


def test_stable_baselines_reads_the_same():
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    for run in foreign_runs(RUNS):
        table = monitor.load_results(str(run.place))
        assert run.steps.tolist() == np.cumsum(table["l"]).tolist()
        assert run.returns[-1] == pytest.approx(table["r"].tail(100).mean())


def test_they_are_a_side_of_a_comparison(tmp_path):
    side = of_folder(read_side(str(RUNS)), [], True)
    assert list(side) == ["CartPole-v1"]
    assert [run.threshold for run in side["CartPole-v1"]] == [475.0] * 2
    other = tmp_path / "others"
    shutil.copytree(RUNS, other)
    found = RunComparison(
        {"one": side, "other": of_folder(read_side(str(other)), [], True)}, thresholds={"CartPole-v1": 60.0}
    )
    assert found.verdict == "Overall, these runs cannot tell the sides apart on CartPole-v1."
    found.write(tmp_path / "out")
    clocks = json.loads((tmp_path / "out" / "clocks.json").read_text())
    assert clocks["one"]["CartPole-v1"]["0"]["seconds"] == episodes(RUNS / "a2c-0")[-1][2]
    assert (tmp_path / "out" / "clocks.png").stat().st_size > 10_000


def test_files_that_name_no_environment_are_of_the_one_that_is_asked_for(tmp_path):
    shutil.copytree(RUNS, tmp_path / "runs")
    for file in (tmp_path / "runs").rglob("monitor.csv"):
        file.write_text(file.read_text().replace('"CartPole-v1"', '"None"', 1))  # as VecMonitor writes
    side = read_side(str(tmp_path / "runs"))
    assert [*of_folder(side, ["Acrobot-v1"], True)] == ["Acrobot-v1"]
    with pytest.raises(RunError, match="does not say its environment"):
        of_folder(side, [], True)


def test_a_side_without_the_environment_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(RunError, match="has no runs in Acrobot-v1: it has runs in CartPole-v1"):
        compare(["ppo", str(RUNS)], "Acrobot-v1", seeds=2, steps=512, root=tmp_path)
    assert not any(tmp_path.iterdir())
