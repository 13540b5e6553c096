"""`pg.sweep`: what is trained, reused and resumed; fresh seeds; runs that diverge; the same bytes however it was stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from in_process import Silent, train_here

import policygrad as pg
from policygrad.cli import main
from policygrad.cli.sweeping import NOT_HERE, keywords_of, split
from policygrad.errors import Interrupted, TrainingError
from policygrad.reports import sweep_result
from policygrad.stored.directory import RunDirectory, RunError, runs
from policygrad.training import seeds as several
from policygrad.training import sides
from policygrad.training.sides import Existing, divergence
from policygrad.training.sweep import drawn, read_request

sweeping = import_module("policygrad.training.sweep")
ENV = "CartPole-v1"
HOW = {"num_envs": 2, "num_steps": 16, "seeds": 2, "steps": 128, "episodes": 2}
OVER = ["lr=1e-3,1e-2"]
ASKED = {"points": 2, "random": None, "seeds": 2, "episodes": 2, "level": 0.95, "greedy": True, "root": "runs"}


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Runs are trained in this process, one after the other; returns the list of jobs that were trained or resumed."""
    monkeypatch.setattr(sweep_result, "picture", lambda sweep: b"a picture")
    return train_here(monkeypatch, tmp_path)


def test_settings_are_trained_and_the_best_again_on_fresh_seeds(here):
    found = pg.sweep("a2c", ENV, OVER, **HOW)
    best, second = (found.settings[k].values for k in found.order)
    trained = [(job.seed, job.keywords["lr"]) for job in here[:4]]
    assert trained == [(0, 1e-3), (0, 1e-2), (1, 1e-3), (1, 1e-2)]
    again = [(job.seed, job.keywords.get("lr", "own")) for job in here[4:]]
    assert again == [(s, lr) for s in (2, 3) for lr in (best["lr"], second["lr"], "own")]
    assert found.own.values == {"lr": pg.Agent("a2c", ENV).config["lr"]}
    assert {job.keywords["steps"] for job in here} == {128}
    for setting in found.settings:
        for run in setting.runs:
            directory = RunDirectory(Path(run.place))
            assert directory.path.is_relative_to(found.place)
            assert run.score == json.loads(directory.evaluation_file.read_text())["greedy"]["mean"]
            assert directory.config()["config"]["lr"] == setting.values["lr"]
    files = [path.name for path in found.place.iterdir() if path.is_file()]
    assert sorted(files) == ["clocks.json", "sweep.html", "sweep.json", "sweep.png"]

    written = (found.place / "sweep.json").read_bytes()
    here.clear()
    same = pg.sweep("a2c", ENV, OVER, **HOW)
    assert here == []
    assert (same.place, str(same), (same.place / "sweep.json").read_bytes()) == (found.place, str(found), written)

    shutil.rmtree(next(runs(found.place)))  # trained again, at another time
    again = pg.sweep("a2c", ENV, OVER, **HOW)
    assert len(here) == 1
    assert (found.place / "sweep.json").read_bytes() == written

    here.clear()  # a larger sweep, in another directory, uses what there is
    more = pg.sweep("a2c", ENV, {"lr": [1e-3, 2e-2, 1e-2]}, out="there", **HOW)
    assert more.place == Path("there")
    assert [(job.seed, job.keywords["lr"]) for job in here[:2]] == [(0, 2e-2), (1, 2e-2)]
    assert [run.place for run in more.settings[2].runs] == [run.place for run in again.settings[1].runs]


def test_fixed_and_swept_values_are_told_apart(here):
    with pytest.raises(ValueError, match="gamma has a fixed value and values to search"):
        pg.sweep("a2c", ENV, ["gamma=0.9,1"], gamma=0.98)
    assert here == []


def test_runs_of_train_are_those_of_a_sweep(here):
    words = ["train", "a2c", ENV, "--num-envs", "2", "--num-steps", "16", "--eval-episodes", "2", "--quiet"]
    assert main([*words, "--steps", "128", "--seed", "1", "--lr", "0.01"]) == 0
    pg.sweep("a2c", ENV, OVER, **HOW)
    assert [(job.seed, job.keywords["lr"]) for job in here[:3]] == [(0, 1e-3), (0, 1e-2), (1, 1e-3)]


def test_a_run_that_diverges_is_a_result_and_not_trained_again(here):
    how = HOW | {"steps": 1024}
    found = pg.sweep("a2c", ENV, ["lr=1e-3,100"], **how)
    assert [setting.diverged for setting in found.settings] == [0, 2]
    assert found.order[0] == 0
    assert "is not finite" in found.settings[1].runs[0].reason
    assert [run.score for run in found.settings[1].runs] == [None, None]
    assert found.scores(1).tolist() == [found.scores(0).min()] * 2
    written = (found.place / "sweep.json").read_bytes()
    here.clear()
    pg.sweep("a2c", ENV, ["lr=1e-3,100"], **how)
    assert here == []
    assert (found.place / "sweep.json").read_bytes() == written
    with pytest.raises(RunError, match="every run diverged"):
        pg.sweep("a2c", ENV, ["gamma=0.9,1"], lr=100, **how)


def test_the_errors_that_mean_a_divergence_are_all_of_their_kind():
    for name in ("data", "gradient.natural", "gradient.importance", "training.agent"):
        import_module(f"policygrad.{name}")
    kinds, waiting = set(), [TrainingError]
    while waiting:
        below = [kind for kind in waiting.pop().__subclasses__() if kind.__module__.startswith("policygrad")]
        kinds |= {kind.__name__ for kind in below}
        waiting += below
    assert set(sides.DIVERGED) == kinds


def test_other_failures_end_the_sweep(here, monkeypatch):
    whole = several.run_job

    def failing(job, channel, run):
        if job.keywords["lr"] == 1e-2:
            raise OSError("no space left on the disk")
        return whole(job, channel, run)

    monkeypatch.setattr(several, "run_job", failing)
    with pytest.raises(
        RunError, match=r"2 of 4 runs failed, and not because of their numbers.\nlr=0.01, seed 0: no space"
    ):
        pg.sweep("a2c", ENV, OVER, **HOW)
    assert not list(Path("runs").rglob("sweep.json"))
    monkeypatch.setattr(several, "run_job", whole)
    here.clear()
    pg.sweep("a2c", ENV, OVER, **HOW)
    assert [(job.seed, job.keywords["lr"]) for job in here[:2]] == [(0, 1e-2), (1, 1e-2)]


def test_a_stopped_run_is_resumed_to_the_same_bytes(here, monkeypatch):
    how = HOW | {"steps": 256}
    written = pg.sweep("a2c", ENV, OVER, **how).place / "sweep.json"
    expected = written.read_bytes()
    shutil.rmtree("runs")
    whole, calls = several.run_job, []

    def stopping(job, channel, run):
        calls.append(job)
        if len(calls) == 1:
            return whole(job, channel, run)
        progress = Silent(several.State(0))
        progress.update = lambda *_: os.kill(os.getpid(), signal.SIGINT)
        from policygrad.training import train as training

        agent = pg.Agent(job.algo, job.env, seed=job.seed, **job.keywords)
        run.append(training.start(agent, None, root=job.root, episodes=job.episodes))
        with pytest.raises(Interrupted):
            training.learn(agent, run[0], progress)
        assert 0 < run[0].state()["steps"] < 256
        assert divergence(run[0]) is None
        raise OSError("stopped")

    monkeypatch.setattr(several, "run_job", stopping)
    with pytest.raises(RunError, match="3 of 4 runs failed"):
        pg.sweep("a2c", ENV, OVER, **how)
    monkeypatch.setattr(several, "run_job", whole)
    here.clear()
    pg.sweep("a2c", ENV, OVER, **how)
    assert [job.resume for job in here] == [True] * 3 + [False] * 6
    assert written.read_bytes() == expected


def test_the_environments_words_are_part_of_a_run(here):
    words = {"env_kwargs": {"is_slippery": False}, "name": "Lake"}
    found = pg.sweep("reinforce", "FrozenLake-v1", ["lr=0.05,0.2"], seeds=2, steps=64, episodes=2, num_envs=2, **words)
    assert len(here) == 4 + 6
    run = found.settings[0].runs[0]
    assert RunDirectory(Path(run.place)).config()["env_kwargs"] == {"is_slippery": False}
    assert found.design.env == "Lake"
    here.clear()
    pg.sweep("reinforce", "FrozenLake-v1", ["lr=0.05,0.2"], seeds=2, steps=64, episodes=2, num_envs=2, **words)
    assert here == []
    config = RunDirectory(Path(run.place)).config()["config"]
    existing = Existing.under(Path("runs"))
    assert existing.best("reinforce", "FrozenLake-v1", 0, config, 2, words) is not None
    for other in (
        {},
        words | {"env_kwargs": {}},
        words | {"name": "Pond"},
        words | {"device": "cuda"},
        words | {"backend": "x"},
    ):
        assert existing.best("reinforce", "FrozenLake-v1", 0, config, 2, other) is None


def test_random_settings_of_a_larger_sweep_begin_with_those_of_a_smaller():
    space = read_request("ppo", ENV, ["lr=1e-4..1e-2:log", "epochs=1..9"], {}, **ASKED).space
    assert drawn(space, 30)[:10] == drawn(space, 10)
    few = read_request("ppo", ENV, ["epochs=1,2", "normalize_obs=true,false"], {}, **ASKED | {"random": 30})
    assert len(few.settings) == 4
    assert few.random


def test_fresh_seeds_are_the_smallest_others():
    asked = ASKED | {"seeds": [1, 3, 4]}
    assert read_request("ppo", ENV, OVER, {}, **asked).fresh == [0, 2, 5]


def test_the_directory_is_named_after_the_request():
    names = [
        read_request("ppo", ENV, over, fixed, **ASKED | more).folder()
        for over, fixed, more in [
            (OVER, {}, {}),
            (["lr=1e-3,2e-2"], {}, {}),
            (OVER, {"gamma": 0.9}, {}),
            (OVER, {"preset": {}}, {}),
            (OVER, {}, {"seeds": 3}),
            (OVER, {}, {"greedy": False}),
        ]
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith("ppo_lr_CartPole-v1_") for name in names)
    assert names[0] == read_request("ppo", ENV, ["lr=0.001,0.01"], {}, **ASKED).folder()


@pytest.mark.parametrize(
    ("over", "keywords", "words"),
    [
        (["lr=1e-3"], {}, "two settings or more"),
        ([], {}, "nothing to search"),
        (["lrr=1e-3,1e-2"], {}, "has no hyperparameter 'lrr'"),
        (OVER, {"seeds": 1}, "two or more"),
        (OVER, {"level": 95}, "level"),
        (OVER, {"episodes": 0}, "episodes"),
        (OVER, {"points": 1, "gamma": 0.9}, None),
        (["lr=1e-3..1e-2"], {"points": 1}, "at least 2"),
        (["lr=1e-3..1e-2"], {"random": 1}, "from 2 to 10,000"),
        (["lr=1e-3..1e-2", "gamma=0..1", "clip=0.1..0.2"], {"points": 100}, "1,000,000 settings, more than 10,000"),
        (OVER, {"lr": 0.1}, "lr has a fixed value"),
        (OVER, {"learning_rate": 0.1}, "learning_rate has a fixed value"),
        (OVER, {"steps": 0}, "steps"),
        (OVER, {"seed": 3}, "seed is no hyperparameter"),
        (OVER, {"clop": 3}, "clop"),
        (OVER, {"wrappers": [len]}, "list of names"),
        (OVER, {"device": "cpux"}, "device"),
        (["minibatches=1,1000000"], {}, "minibatches=1000000: minibatches = 1000000 must be at most"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(here, over, keywords, words):
    if words is None:
        assert read_request("ppo", ENV, over, {}, **ASKED | {"points": 1}).settings
        return
    with pytest.raises(ValueError, match=words):
        pg.sweep("ppo", ENV, over, **keywords)
    assert here == []
    assert not os.path.exists("runs")


def test_an_environment_that_does_not_exist_is_refused(here):
    with pytest.raises(ValueError, match="CartPole"):
        pg.sweep("ppo", "CartPole-v9", OVER)
    Path("file").write_text("")
    with pytest.raises(RunError, match="not a directory"):
        pg.sweep("ppo", ENV, OVER, out="file")
    assert here == []


WORDS = ["a2c", ENV, "--num-envs", "2", "--num-steps", "16", "--steps", "128", "--eval-episodes", "2", "--quiet"]


def test_the_command_prints_what_it_found(here, capsys):
    assert main(["sweep", *WORDS, "--over", "lr=1e-3,1e-2", "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    assert "What each hyperparameter does" in out
    assert "on fresh seeds" in out
    assert "sweep.html" in out
    assert len(here) == 4 + 6
    here.clear()
    pg.sweep("a2c", ENV, OVER, **HOW)
    assert here == []
    assert main(["sweep", "--help"]) == 0
    assert "NAME=VALUES is one of" in capsys.readouterr().out


def test_words_may_stand_anywhere():
    for words in (
        ["ppo", ENV, "--over", "lr=1e-3,1e-2", "gamma=0.9,1", "--lr_schedule", "constant", "--seeds", "3"],
        ["--seeds", "3", "--over=lr=1e-3,1e-2", "--over", "gamma=0.9,1", "ppo", "--lr-schedule=constant", ENV],
        ["ppo", "--env", ENV, "--over", "lr=1e-3,1e-2", "gamma=0.9,1", "--lr-schedule", "constant", "--seeds", "3"],
        ["--over", "lr=1e-3,1e-2", "gamma=0.9,1", "ppo", ENV, "--lr-schedule", "constant", "--seeds", "3"],
    ):
        given, rest = split(words)
        train = sweeping_words(rest)
        assert (train.algo, train.env, given.over) == ("ppo", ENV, ["lr=1e-3,1e-2", "gamma=0.9,1"])
        keywords = keywords_of(given, train)
        assert (keywords["seeds"], keywords["lr_schedule"]) == (3, "constant")
    given, rest = split(["ppo", ENV, "--over", "lr=1e-3,1e-2", "--seeds", "5-7", "9", "--random", "8", "--sampled"])
    keywords = keywords_of(given, sweeping_words(rest))
    assert (keywords["seeds"], keywords["random"], keywords["greedy"]) == ((5, 6, 7, 9), 8, False)


def sweeping_words(rest):
    from policygrad.cli.arguments import parse_train

    return parse_train(rest)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "--over"),
        (["--over"], "--over"),
        (["--over", "lr"], "expected NAME=LOW"),
        (["--over", "lrr=1,2"], "has no hyperparameter 'lrr'"),
        (["--over", "lr=1e-3,1e-2", "--lr", "1"], "lr has a fixed value"),
        (["--over", "lr=1e-3,1e-2", "--seeds", "1"], "--seeds = 1 must be at least 2"),
        (["--over", "lr=1e-3,1e-2", "--level", "95"], "--level"),
        (["--over", "lr=1e-3..1e-2", "--points", "1"], "--points = 1 must be at least 2"),
        (["--over", "lr=1e-3..1e-2", "--random", "x"], "--random"),
        (["--over", "lr=1e-3..1e-2", "--random", "9", "--points", "3"], "give one of the two"),
        (["--over", "lr=1e-3,1e-2", "--seed", "3"], "use --seeds"),
        (["--over", "lr=1e-3,1e-2", "--run-dir", "x"], "give --out"),
        (["--over", "lr=1e-3,1e-2", "--wandb", "x"], "no flag --wandb"),
        (["--over", "lr=1e-3,1e-2", "--stepps", "x"], "Did you mean --steps"),
    ],
)
def test_the_command_refuses_mistakes(here, capsys, words, expected):
    assert main(["sweep", *WORDS, *words]) == 2
    assert expected in capsys.readouterr().err
    assert here == []


def test_every_flag_that_a_sweep_refuses_is_one_of_train():
    from policygrad.cli.arguments import TrainArguments

    assert set(NOT_HERE) <= set(TrainArguments("ppo", ENV).__dict__)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_anywhere_the_same_command_ends_in_the_same_bytes(tmp_path):
    words = [sys.executable, "-m", "policygrad", "sweep", "a2c", ENV, "--over", "lr=1e-4,1e-3,100", "--seeds", "2"]
    words += ["--steps", "3000", "--eval-episodes", "3", "--jobs", "1", "--quiet", "--out", "there"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    subprocess.run(words, cwd=whole, check=True, stdout=subprocess.DEVNULL)
    for finished in (1, 3, 6):  # the last one while the best settings are trained again
        process = subprocess.Popen(words, cwd=broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(broken.rglob("evaluation.json"))) < finished:
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert not (broken / "there" / "sweep.json").exists()
    subprocess.run(words, cwd=broken, check=True, stdout=subprocess.DEVNULL)
    assert (broken / "there" / "sweep.json").read_bytes() == (whole / "there" / "sweep.json").read_bytes()
    finished = [run for run in runs(broken) if RunDirectory(run).evaluation() is not None]
    assert len(finished) == 4 + 6  # none twice
