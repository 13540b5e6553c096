"""Run directories, the loop that fills them, and what reads them: names, rows, checkpoints, progress, plots."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from matplotlib.figure import Figure

import policygrad as pg
from policygrad.envs.probes import Target
from policygrad.reports import plots
from policygrad.reports.columns import steps_text
from policygrad.stored.directory import RunDirectory, RunError, create, find_run, runs
from policygrad.stored.storage import load_state
from policygrad.training.progress import Bar, Lines, Silent, clock, make_progress
from policygrad.training.train import Recorder, start, train


def a_run(path: Path, algo: str = "ppo", env: str = "CartPole-v1", seed: int = 0, **config) -> RunDirectory:
    """A run with a config.json and nothing else."""
    path.mkdir(parents=True)
    run = RunDirectory(path)
    run.write_config({"algo": algo, "env": env, "seed": seed, "config": {"lr": 1.0} | config})
    return run


def with_rows(run: RunDirectory, points: list[tuple[int, float | None]]) -> RunDirectory:
    for steps, mean in points:
        run.append_metrics({"steps": steps, "return_mean": mean})
    return run


class Telling(Silent):
    """Remembers what it was told."""

    interval = 0.0

    def __init__(self):
        self.told: list[tuple] = []

    def start(self, total):
        self.told.append(("start", total))

    def update(self, steps, speed, mean_return, note=""):
        self.told.append((steps, speed, mean_return))

    def stop(self):
        self.told.append(("stop",))


def words(algo: str = "ppo", env: str = "ALE/Pong-v5") -> dict[str, Any]:
    return {"algo": algo, "env": env, "seed": 3, "config": {}}


def test_new_runs_get_directories_of_their_own_even_in_the_same_second(tmp_path):
    made = {create(None, tmp_path, words()).path for _ in range(5)}
    assert len(made) == 5
    assert {p.parent for p in made} == {tmp_path / "ALE-Pong-v5" / "ppo"}
    assert all(p.name.startswith("seed3-") for p in made)
    hostile = create(None, tmp_path / "in", words(env="../../out:x\x00")).path
    assert (tmp_path / "in") in hostile.resolve().parents


def test_a_given_directory_must_be_empty(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/.config.json.5.2147483647.tmp").touch()  # of a process that was killed
    run = create(tmp_path / "a/b", "", words())
    assert [path.name for path in run.path.iterdir()] == ["config.json"]
    assert run.config() == words()
    for path in (tmp_path / "a/b", tmp_path / "a"):
        with pytest.raises(RunError, match="not empty"):
            create(path, "", words())
    for path in (run.config_file, run.config_file / "below", "null\0"):
        with pytest.raises(RunError, match="cannot make"):
            create(path, "", words())


@pytest.mark.parametrize("links", [True, False], ids=["", "without links"])
def test_of_several_that_want_one_directory_at_the_same_time_one_gets_it(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))

    def race(k: int) -> list[str]:
        together = threading.Barrier(4)

        def one(algo: int) -> str:
            together.wait()
            try:
                return create(tmp_path / str(k), "", words(str(algo))).config()["algo"]
            except RunError as error:
                return str(error)

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(one, range(4)))

    for k in range(20):
        found = race(k)
        (winner,) = (x for x in found if x.isdigit())
        assert sum("not empty" in x for x in found) == 3
        assert RunDirectory(tmp_path / str(k)).config() == words(winner)
        assert [path.name for path in (tmp_path / str(k)).iterdir()] == ["config.json"]


def test_a_disk_without_locks_locks_nothing(tmp_path, monkeypatch):
    fcntl, run = pytest.importorskip("fcntl"), a_run(tmp_path / "r")
    with run.lock(), pytest.raises(RunError, match="another process"), run.lock():
        pass

    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with run.lock(), run.lock():
        pass


def test_runs_are_found_by_path_name_prefix_and_the_latest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["CartPole-v1/ppo/seed0-1", "CartPole-v1/ppo/seed0-10", "CartPole-v1/a2c/seed7-1", "mine"]
    for number, name in enumerate(names):
        os.utime(a_run(Path("runs", name)).config_file, (number, number))
    os.utime(Path("runs", names[2], "config.json"), (99, 99))
    root = Path("runs")
    assert {p.relative_to(root).as_posix() for p in runs(root)} == set(names)
    assert find_run("latest") == root / names[2]
    assert find_run("mine") == root / "mine"
    assert find_run("mi") == root / "mine"
    assert find_run("seed7") == root / names[2]
    assert find_run("CartPole-v1/a2c") == root / names[2]
    assert find_run("CartPole-v1/a2c/") == root / names[2]
    assert find_run("CartPole-v1/ppo/seed0-1") == root / names[0]  # a whole name, though another one begins so
    assert find_run("seed0-10") == root / names[1]
    assert find_run("runs/mine") == root / "mine"
    for text, hint in (("seed0", "2 runs"), ("CartPole", "3 runs"), ("nothing", "Available: CartPole-v1/a2c/seed7-1")):
        with pytest.raises(RunError, match=hint):
            find_run(text)
    with pytest.raises(RunError, match="no runs under"):
        find_run("latest", tmp_path / "elsewhere")


def test_the_last_line_of_a_killed_runs_metrics_may_be_half_written(tmp_path):
    run = with_rows(a_run(tmp_path / "r"), [(1, None), (2, 3.0)])
    with run.metrics_file.open("a") as file:
        file.write('{"steps": 3, "retu')
    assert [row["steps"] for row in run.metrics()] == [1, 2]
    with run.metrics_file.open("a") as file:
        file.write("\n")
    with pytest.raises(RunError, match="line 3"):
        run.metrics()


def test_training_from_python_fills_a_run_directory(tmp_path):
    agent = pg.a2c(lambda: gym.make("CartPole-v1"), seed=4, num_envs=2, num_steps=10)
    progress = Telling()
    run = train(agent, tmp_path / "run", steps=500, episodes=3, progress=progress)
    rows = run.metrics()
    steps = [row["steps"] for row in rows]
    assert steps == sorted(set(steps))
    assert len(rows) >= 20
    assert run.config()["config"]["steps"] == 500
    assert run.config()["reward_threshold"] == 475.0  # the id is known through the callable
    assert [p.stem for p in run.checkpoints()][-1] == f"step-{agent.collector.steps_done}"
    assert len(run.checkpoints()) == 2
    assert run.model_file() == run.policy_file
    assert load_state(run.policy_file)[0].keys() == {"learner"}
    assert load_state(run.checkpoints()[-1])[0].keys() == {"learner", "collector", "trainer", "rng", "run"}
    loaded = pg.load(run.policy_file, env="CartPole-v1")
    evaluation = run.evaluation()
    assert evaluation is not None
    assert list(loaded.evaluate(3).returns) == evaluation["greedy"]["returns"]
    assert list(loaded.evaluate(3, greedy=False).returns) == evaluation["sampled"]["returns"]
    assert run.curve_file.exists()
    assert progress.told[0] == ("start", 500)
    assert progress.told[-1] == ("stop",)
    assert progress.told[-2][0] == agent.collector.steps_done
    assert progress.told[-2][2] == pytest.approx(np.mean(agent.collector.returns))


def test_checkpoints_are_taken_every_tenth_of_the_steps_and_the_last_two_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("policygrad.training.recorder.CHECKPOINT_SHARE", math.inf)  # however short the run is
    agent, seen = pg.a2c(Target, num_envs=2, num_steps=5), []
    run = start(agent, tmp_path / "run")
    recorder = Recorder(run, agent, 500, Silent())

    def callback(agent, row):
        recorder(agent, row)
        seen.extend(p.stem for p in run.checkpoints() if p.stem not in seen)
        assert len(run.checkpoints()) <= 2

    agent.learn(500, callback)
    steps = [int(name[5:]) for name in seen]
    assert 8 <= len(steps) <= 10
    assert min(np.diff([0, *steps])) >= 50
    assert max(np.diff([0, *steps])) < 50 + 10 + 1


def test_metrics_are_in_the_file_before_the_next_iteration(tmp_path):
    agent = pg.a2c(Target, num_envs=2, num_steps=5)
    run = start(agent, tmp_path / "run")
    recorder, counts = Recorder(run, agent, 100, Silent()), []
    agent.learn(
        100, lambda a, row: recorder(a, row) or counts.append(len(run.metrics_file.read_text().splitlines())), 1
    )
    assert counts == list(range(1, len(counts) + 1))


def test_recording_changes_nothing_in_training(tmp_path):
    plain = pg.ppo("CartPole-v1", num_envs=2, num_steps=50, epochs=2, minibatches=2).learn(500)
    recorded = pg.ppo("CartPole-v1", num_envs=2, num_steps=50, epochs=2, minibatches=2)
    train(recorded, tmp_path / "run", steps=500, episodes=1, progress=Telling())
    assert np.array_equal(plain.policy.flat.numpy(), recorded.policy.flat.numpy())


def test_the_callback_of_an_iteration_costs_next_to_nothing(tmp_path):
    agent = pg.a2c(Target, num_envs=2, num_steps=5).learn(10)
    recorder = Recorder(start(agent, tmp_path / "run"), agent, 10**9, Silent())
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(2000):
            recorder(agent, None)
        seconds.append((time.perf_counter() - started) / 2000)
    assert min(seconds) < 5e-6


def test_progress_lines_say_how_far_how_fast_and_how_well():
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start(10_000)
    lines.update(2_500, 1_000.0, None)
    lines.update(5_000, 1_000.0, 123.45)
    first, second = stream.getvalue().splitlines()
    assert all(word in first for word in ("25 %", "2,500 of 10,000", "1,000 steps/s", "0:08 left", "–"))
    assert all(word in second for word in ("50 %", "0:05 left", "123.5" if "123.5" in second else "123.4"))
    assert lines.interval == 10.0


def test_the_bar_draws_at_most_five_times_a_second_without_a_thread(capsys):
    import threading

    bar, before = Bar(), threading.active_count()
    assert 1 / bar.interval <= 5
    bar.start(100)
    bar.update(120, 50.0, 7.0)
    assert threading.active_count() == before
    bar.stop()
    assert "7.0" in capsys.readouterr().out


def test_progress_is_quiet_lines_or_a_bar(monkeypatch):
    assert isinstance(make_progress(quiet=True), Silent)
    assert isinstance(make_progress(), Lines)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_progress(), Bar)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (-5, "0:00")]
)
def test_times_are_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(("steps", "text"), [(0, "0"), (500, "500"), (20_000, "20k"), (1_500_000, "1.5M"), (2e9, "2G")])
def test_steps_are_written_in_thousands_and_millions(steps, text):
    assert steps_text(steps) == text


def test_runs_that_differ_in_the_seed_alone_are_one_curve_with_its_mean(tmp_path):
    a = with_rows(a_run(tmp_path / "a", seed=0), [(10, None), (20, 1.0), (40, 3.0)])
    b = with_rows(a_run(tmp_path / "b", seed=1), [(30, 10.0), (50, 30.0)])
    other = with_rows(a_run(tmp_path / "c", lr=0.5), [(10, 5.0)])
    pendulum = with_rows(a_run(tmp_path / "d", env="Pendulum-v1"), [(10, 5.0)])
    panels = plots.read_curves([a, b, other, pendulum])
    assert list(panels) == ["CartPole-v1", "Pendulum-v1"]
    together, alone = panels["CartPole-v1"]
    assert together.seeds == [0, 1]
    steps, returns = together.band()
    assert steps.tolist() == [30.0, 40.0]
    assert returns.tolist() == [[2.0, 3.0], [10.0, 20.0]]
    assert plots.labels([together, alone]) == ["PPO, unfinished\nlr 1", "PPO, unfinished\nlr 0.5"]
    assert together.final() is None


def test_the_final_evaluation_is_marked_with_its_interval_or_with_the_range_of_seeds(tmp_path):
    made = [a_run(tmp_path / str(k), seed=k) for k in range(2)]
    for run, mean in zip(made, (4.0, 8.0), strict=True):
        run.write_evaluation({"greedy": {"mean": mean, "ci95": [mean - 1, mean + 2], "std": 0, "returns": []}})
        with_rows(run, [(5, mean)])
    (one,), (both,) = plots.read_curves(made[:1])["CartPole-v1"], plots.read_curves(made)["CartPole-v1"]
    assert one.final() == (4.0, 3.0, 6.0)
    assert both.final() == (6.0, 4.0, 8.0)


def test_seeds_that_share_no_steps_are_drawn_one_by_one(tmp_path):
    a = with_rows(a_run(tmp_path / "a", seed=0), [(10, 1.0), (20, 2.0)])
    b = with_rows(a_run(tmp_path / "b", seed=1), [(100, 3.0), (200, 4.0)])
    assert plots.plot_runs([a, b], tmp_path / "x.png").exists()


def test_a_run_in_which_no_episode_ended_is_drawn_all_the_same(tmp_path):
    run = with_rows(a_run(tmp_path / "a"), [(10, None)])
    assert plots.plot_runs([run], tmp_path / "x.svg").read_text().count("<svg") == 1


def test_labels_are_moved_apart_and_keep_their_order():
    heights = plots.apart([1.0, 1.01, 5.0, 0.99], (0.0, 10.0), [0.065] * 4)
    assert min(np.diff(sorted(heights))) >= 0.65 - 1e-9
    assert np.argsort(heights).tolist() == [3, 0, 1, 2]
    top = plots.apart([10.0, 10.0, 10.0], (0.0, 10.0), [0.065] * 3)
    assert max(top) <= 10.0
    assert min(np.diff(sorted(top))) >= 0.65 - 1e-9


def test_plots_leave_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.plot_runs([with_rows(a_run(tmp_path / "a"), [(10, 1.0), (20, 2.0)])], tmp_path / "x.png")
    assert dict(matplotlib.rcParams) == before
    assert Figure().axes == []


def test_the_file_of_a_runs_configuration_is_json_for_people(tmp_path):
    text = a_run(tmp_path / "a").config_file.read_text()
    assert text.endswith("}\n")
    assert json.loads(text)["algo"] == "ppo"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["config.json"]
