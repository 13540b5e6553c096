"""`pg.tune`: trials of several seeds, what is given up, resumed and checked on fresh seeds, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import pytest

pytest.importorskip("optuna")

from in_process import Silent

import policygrad as pg
from policygrad.algorithms.config import ConfigError, presets, resolve
from policygrad.algorithms.recipes import RECIPES
from policygrad.algorithms.search_spaces import SPACES, default_space
from policygrad.errors import Interrupted
from policygrad.reports import comparison_result, plots
from policygrad.reports.tuning import Check, TrialRow, Tuning
from policygrad.stored.directory import RunDirectory
from policygrad.training import engines
from policygrad.training import seeds as several
from policygrad.training import trials as trials_module
from policygrad.training import tune as tuning
from policygrad.training.preset_file import preset_text
from policygrad.training.pruning import Rule
from policygrad.training.space import parse_space
from policygrad.training.study import Study
from policygrad.training.trials import Ending, Player, Search

ENV = "CartPole-v1"
OVER = ["lr=1e-4..1e-2:log", "gamma=0.9,0.99"]
HOW = {"over": OVER, "trials": 3, "seeds": 2, "steps": 384, "eval_episodes": 2, "check_seeds": 3}
FIXED = {"num_envs": 2, "num_steps": 16}


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Runs are trained in this process, one after the other; returns the list of jobs, and which of them end otherwise."""
    done, ends = [], {}

    def run_all(jobs, at_once, board):
        states = []
        for job in jobs:
            state = several.State(job.seed, side=job.side)
            end = ends.pop(len(done), None)
            done.append(job)
            if end == "interrupted":
                state.phase, state.signal = "stopped", 2
            elif end == "failed":
                state.phase, state.message = "failed", "training stopped: a loss is NaN\nand more"
            else:
                try:
                    for name, value in several.run_job(job, Silent(state), []).items():
                        setattr(state, name, value)
                except Exception as error:
                    state.phase, state.message = "failed", str(error)
            states.append(state)
        return states

    for module in (trials_module, engines):
        monkeypatch.setattr(module, "run_seeds", run_all)
    monkeypatch.setattr(comparison_result, "picture", lambda comparison: b"a picture")
    monkeypatch.setattr(plots, "plot_runs", lambda runs, out: out)  # the learning curve of every run
    monkeypatch.chdir(tmp_path)
    return done, ends


def test_a_search_gives_a_preset_with_its_evidence_and_goes_on_after_an_interruption(here, tmp_path):
    done, ends = here
    heard = []
    found = pg.tune(
        "a2c", ENV, **HOW, out=tmp_path / "whole", heard=lambda row, best: heard.append(row.number), **FIXED
    )
    assert heard == [0, 1, 2]
    assert [row.state for row in found.trials] == ["finished"] * 3
    for row in found.trials:
        runs = [RunDirectory(found.place / "trials" / f"{row.number:04d}" / f"seed{k}") for k in (0, 1)]
        scores = [(run.evaluation() or {})["greedy"]["mean"] for run in runs]
        assert row.scores == scores
        assert row.value == pytest.approx(sum(scores) / 2)
        assert runs[0].config()["config"]["lr"] == row.params["lr"]
    assert found.best is max(found.trials, key=lambda row: row.value or 0)
    assert found.check is not None
    assert found.check.seeds == [1000, 1001, 1002]
    assert not {0, 1} & set(found.check.seeds)
    assert found.shrinkage == pytest.approx((found.best.value or 0) - sum(found.check.tuned) / 3)

    config = resolve("a2c", ENV, {}, found.preset)[0]  # what `train --preset` reads
    assert config == resolve("a2c", ENV, {**FIXED, **found.params, "steps": 384})[0]
    assert config["num_envs"] == 2
    agent = pg.a2c(ENV, preset=found.preset)
    assert agent.config["lr"] == found.params["lr"]
    said = found.preset.read_text("utf8")
    assert f"trial {found.best.number} of 3" in said
    assert "fresh seeds" in said

    count = len(done)
    again = pg.tune("a2c", ENV, **HOW, out=tmp_path / "whole", **FIXED)
    assert len(done) == count  # nothing is trained twice
    assert again.to_json() == found.to_json()

    for number in (2, 5):  # in the middle of trial 1, and of the next trial that is begun
        ends[len(done) + number] = "interrupted"
        with pytest.raises(Interrupted, match="the same command goes on"):
            pg.tune("a2c", ENV, **HOW, out=tmp_path / "twice", **FIXED)
    pg.tune("a2c", ENV, **HOW, out=tmp_path / "twice", **FIXED)
    assert (tmp_path / "twice/tune.json").read_bytes() == (tmp_path / "whole/tune.json").read_bytes()
    assert (tmp_path / "twice/best.toml").read_bytes() == (tmp_path / "whole/best.toml").read_bytes()


def test_a_run_that_fails_makes_a_failed_trial_and_the_search_goes_on(here, tmp_path):
    _, ends = here
    ends[1] = "failed"
    found = pg.tune("a2c", ENV, **HOW | {"check_seeds": 0}, out=tmp_path / "s", **FIXED)
    assert [row.state for row in found.trials] == ["failed", "finished", "finished"]
    assert found.trials[0].reason == "seed 1: training stopped: a loss is NaN"
    assert "1 failed" in found.counts()
    assert "not checked" in found.verdict
    kept = json.loads((found.place / "tune.json").read_text("utf8"))
    assert kept["trials"][0]["reason"] == found.trials[0].reason


def test_settings_that_contradict_each_other_fail_alone(here, tmp_path):
    words = HOW | {"over": ["minibatches=1,32"], "trials": 4, "seeds": 1, "check_seeds": 0, "seed": 3}
    found = pg.tune("ppo", ENV, **words, out=tmp_path / "s", num_envs=1, num_steps=16)
    states = {row.params["minibatches"]: row.state for row in found.trials}
    assert states == {1: "finished", 32: "failed"}
    assert "must be at most num_envs × num_steps = 16" in next(row.reason for row in found.trials if row.reason)


def request_of(tmp_path, rule=None, seeds=(0, 1), steps=600):
    return Search("a2c", ENV, parse_space(OVER, "a2c"), FIXED, steps, seeds, 2, rule or Rule())


def test_all_seeds_of_a_trial_go_to_a_rung_together_and_pauses_leave_no_trace(here, tmp_path):
    done, _ = here
    request, params = request_of(tmp_path, steps=900), {"lr": 1e-3, "gamma": 0.99}
    player, curves, jobs = Player(request, 1, several.SilentBoard()), [], []

    def judge(curve):
        curves.append(curve)
        jobs.append(len(done))
        return False

    paused = player.play(0, params, tmp_path / "paused", judge, stops=True)
    assert [job.until for job in done] == [450, 450, 600, 600, 750, 750, None, None]
    assert [job.seed for job in done] == [0, 1] * 4
    assert [job.resume for job in done] == [False] * 2 + [True] * 6
    assert jobs == [2, 4, 6, 8]
    straight = player.play(0, params, tmp_path / "straight", judge, stops=False)
    assert paused == straight
    for seed in (0, 1):
        one, other = (tmp_path / name / f"seed{seed}" / "policy.safetensors" for name in ("paused", "straight"))
        assert one.read_bytes() == other.read_bytes()
    whole = curves[-1]  # of the one without pauses
    assert None not in whole
    assert curves[:-1] == [whole[:3], whole[:4], whole[:5], whole]


def test_the_value_at_a_rung_is_the_mean_over_all_seeds_of_the_last_row_before_it(tmp_path):
    rows = {0: [(100, 1.0), (290, 2.0), (310, 9.0)], 1: [(100, None), (300, 6.0), (500, 8.0)]}
    runs = {seed: RunDirectory(tmp_path / str(seed)) for seed in rows}
    for seed, run in runs.items():
        run.path.mkdir()
        for steps, value in rows[seed]:
            run.append_metrics({"steps": steps, "return_mean": value})
    # at 100 one seed had no episode yet; at 200 its last row is that one; at 300 both have
    assert trials_module.curve_of(runs, Rule(), 3, 600) == [None, None, 4.0]
    assert trials_module.curve_of(runs, Rule(), 6, 600) == [None, None, 4.0, 7.5, 8.5, 8.5]


def test_a_trial_that_is_given_up_stops_at_its_rung(here, tmp_path):
    done, _ = here
    player = Player(request_of(tmp_path), 1, several.SilentBoard())
    outcome = player.play(0, {"lr": 1e-3, "gamma": 0.99}, tmp_path / "t", lambda curve: len(curve) == 4, stops=True)
    assert outcome == Ending(pruned=True)
    assert [job.until for job in done] == [300, 300, 400, 400]
    assert 400 <= RunDirectory(tmp_path / "t/seed1").state()["steps"] < 500


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(here, tmp_path):
    request = request_of(tmp_path, seeds=(0,))
    player = Player(request, 1, several.SilentBoard())
    player.play(0, {"lr": 1e-3, "gamma": 0.99}, tmp_path / "whole", lambda _: False, stops=False)
    (tmp_path / "killed/seed0").mkdir(parents=True)
    config = (tmp_path / "whole/seed0/config.json").read_bytes()
    (tmp_path / "killed/seed0/config.json").write_bytes(config)
    (tmp_path / "killed/seed0/state.json").write_text('{"status": "running", "steps": 0}')
    player.play(0, {"lr": 1e-3, "gamma": 0.99}, tmp_path / "killed", lambda _: False, stops=False)
    one, other = (tmp_path / name / "seed0/policy.safetensors" for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()


def faked(values):
    """Trials without training: `values(number)` is the curve, an error, or None for one that is not to be asked."""

    def play(number, params, folder, judge, stops):
        curve = values(number)
        if isinstance(curve, str):
            return Ending(reason=curve)
        if stops and any(judge(curve[:k]) for k in (3, 4, 5)):
            return Ending(pruned=True)
        judge(curve)
        return Ending({0: curve[-1], 1: curve[-1] + 2})

    return play


def test_a_slow_starter_survives_in_a_search_a_hopeless_trial_does_not_and_nothing_is_pruned_at_first(tmp_path):
    request = request_of(tmp_path)
    study = Study(tmp_path, request.space, 0, request.rule, request.steps)
    good, hopeless, slow = [30.0, 50, 60, 65, 68, 70], [1.0] * 6, [0.0, 1, 6, 25, 70, 100]
    kinds = {0: hopeless, 6: hopeless, 7: slow, 8: "NaN"}
    told = []
    tuning.search(
        study, request, faked(lambda k: kinds.get(k, good)), 9, heard=lambda row, best: told.append((row, best))
    )
    states = [row.state for row in study.rows()]
    assert states[0] == "finished"  # there was nothing to judge it by
    assert states[6:] == ["pruned", "finished", "failed"]
    assert len(study.rows()[6].curve) == 3
    assert told[-1][1] is not None
    assert told[-1][1].number == 7  # the slow starter is the best
    assert [row.number for row, _ in told] == list(range(9))


def test_no_trial_begins_after_the_hours_are_over(tmp_path, monkeypatch):
    request = request_of(tmp_path)
    study, now = Study(tmp_path, request.space, 0, request.rule, request.steps), [0.0]

    def values(number):
        now[0] += 2000
        return [1.0] * 6

    monkeypatch.setattr(tuning.time, "monotonic", lambda: now[0])
    tuning.search(study, request, faked(values), 50, hours=1.0)
    assert len(study.rows()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"trials": 0}, "trials = 0 must be a whole number, at least 1"),
        ({"seeds": 2.5}, "seeds = 2.5 must be a whole number"),
        ({"check_seeds": 2}, "check_seeds = 2 must be 0"),
        ({"hours": 0}, "hours = 0 must be above 0"),
        ({"prune_after": 1.5}, "prune_after = 1.5 must be a share"),
        ({"over": ["lrr=1e-4..1e-2"]}, "Did you mean 'lr'"),
        ({"over": ["steps=100,200"]}, "steps is the same in all trials"),
        ({"over": ["max_grad_norm=none,0.5"]}, "max_grad_norm = none cannot be kept in a preset file"),
        ({"lr": 0.1}, "lr has a fixed value and values to search"),
        ({"clip": -1.0}, "no hyperparameter 'clip'"),
        ({"eval_episodes": 0}, "eval_episodes = 0"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_written(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        pg.tune("a2c", ENV, **HOW | words)
    assert not list(tmp_path.iterdir())


def test_a_directory_of_another_search_is_refused(here, tmp_path):
    how = HOW | {"trials": 1, "seeds": 1, "check_seeds": 0, "out": tmp_path / "s"}
    pg.tune("a2c", ENV, **how, **FIXED)
    pg.tune("a2c", ENV, **how | {"trials": 2}, **FIXED)  # more trials are the same search
    for words in ({"steps": 500}, {"over": ["lr=1e-4,1e-3"]}, {"seeds": 2}, {"seed": 1}, {"lam": 0.9}):
        with pytest.raises(tuning.TuneError, match="has another search: its "):
            pg.tune("a2c", ENV, **how | FIXED | words)


def test_without_optuna_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "policygrad.training.study")
    with pytest.raises(tuning.TuneError, match=r"pip install 'policygrad\[tune\]'"):
        pg.tune("a2c", ENV, **HOW)
    assert not list(tmp_path.iterdir())


def test_every_algorithm_has_a_space_and_nearly_all_presets_are_in_it():
    assert set(SPACES) == set(RECIPES)
    outside = []
    for algo in RECIPES:
        space = parse_space(default_space(algo), algo)
        rule, steps = Rule(), 100
        for env in ["", *presets(algo)]:
            config = resolve(algo, env, {})[0]
            holder = Study.__new__(Study)
            holder.space, holder.rule, holder.steps = space, rule, steps
            outside += [] if holder.holds(config) else [(algo, env)]
    tables = {"FrozenLake-v1", "Taxi-v4"}  # whose policies are tables, with learning rates above 0.01
    schedules = {"LunarLander-v3"}  # A2C's entropy bonus is a schedule, and spaces hold numbers
    assert {env for _, env in outside} - tables - schedules == {"MountainCarContinuous-v0"}


def test_a_recipe_of_one_s_own_is_searched_where_its_options_say_so():
    def declared(task, *, lr: float = 1e-3, gain: float = 1.0): ...

    assert default_space(declared) == ["lr=1e-05..0.01:log"]  # the package's own range of a keyword of this name

    def silent(task, *, gain: float = 1.0): ...

    with pytest.raises(ConfigError, match="give --over"):
        default_space(silent)


def test_preset_files_say_what_differs_from_the_defaults():
    config = resolve("ppo", ENV, {"hidden": (32, 32), "normalize_obs": True, "lr": 1.5e-5, "steps": 1000}, {})[0]
    text = preset_text("ppo", ENV, config, ["a comment", ""])
    assert tomllib.loads(text) == {ENV: {"steps": 1000, "hidden": [32, 32], "normalize_obs": True, "lr": 1.5e-5}}
    assert text.startswith("# a comment\n#\n")


def row(number, value, state="finished", lr=0.01, **words):
    return TrialRow(number, state, value, {"lr": lr}, [] if value is None else [value], [], **words)


def test_only_fresh_seeds_make_a_verdict(tmp_path):
    rows = [row(0, 10.0, lr=0.1), row(1, 30.0), row(2, None, "failed", reason="NaN")]
    words = {"request": {"algo": "a2c", "env": ENV}, "trials": rows, "place": tmp_path}
    assert "not checked on fresh seeds" in Tuning(**words, standing={"lr": 0.1}).verdict
    assert "The standing hyperparameters scored best" in Tuning(**words, standing={"lr": 0.01}).verdict
    assert "works on trial 1" in Tuning(**words, standing={}, running=[1]).verdict
    assert "The first failure: NaN" in Tuning(**words | {"trials": rows[2:]}, standing={}).verdict
    checked = Check([1000, 1001, 1002], [20.0, 21.0, 22.0], [19.0, 20.0, 21.0], 0, "It cannot tell.")
    found = Tuning(**words, standing={"lr": 0.1}, check=checked)
    assert found.shrinkage == 9.0
    assert found.verdict.startswith(
        "It cannot tell. The best is trial 1 of 3: in the search it had 30.0, on 3 fresh seeds"
    )
    assert found.verdict.endswith("21.0, which is 9.000 less.")
    assert "cannot be checked: why" in Tuning(**words, standing={}, check=Check([1], failed="why")).verdict
    with pytest.raises(ValueError, match="no trial has finished"):
        _ = Tuning(**words | {"trials": []}, standing={}).params


def test_a_check_whose_runs_fail_is_no_verdict(here, tmp_path):
    _, ends = here
    ends[1] = "failed"  # the first run after the only trial
    how = HOW | {"trials": 1, "seeds": 1, "check_seeds": 3, "out": tmp_path / "s"}
    found = pg.tune("a2c", ENV, **how, **FIXED)
    assert found.check is not None
    assert "a loss is NaN" in found.check.failed
    assert "cannot be checked" in found.verdict
    again = pg.tune("a2c", ENV, **how, **FIXED)
    assert again.check is not None
    assert not again.check.failed


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path):
    command = [sys.executable, "-m", "policygrad", "tune", "a2c", "--env", ENV, "--over", *OVER, "--trials", "4"]
    command += ["--seeds", "2", "--steps", "5000", "--eval-episodes", "5", "--check-seeds", "3", "--quiet"]

    def run(out):
        return subprocess.Popen([*command, "--out", str(out)], env=os.environ | {"OMP_NUM_THREADS": "1"})

    assert run(tmp_path / "whole").wait(600) == 0
    for begun in ("trials/0001/seed0", "trials/0002/seed1"):  # the first row of metrics of a run is there
        process = run(tmp_path / "killed")
        while not (tmp_path / "killed" / begun / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run(tmp_path / "killed").wait(600) == 0
    for name in ("tune.json", "best.toml"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
