"""`pg.compare`: what is reused, resumed and trained; the same bytes however it was stopped; what is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from in_process import Silent, train_here

import policygrad as pg
from policygrad.cli import main
from policygrad.cli.comparing import compare_parser
from policygrad.errors import Interrupted
from policygrad.reports import comparison_result
from policygrad.stored.directory import RunDirectory, RunError, runs
from policygrad.training import compare as comparing
from policygrad.training import seeds as several
from policygrad.training import sides as sides_module
from policygrad.training.sides import Existing, as_value, changed_at, planned, read_side, read_sides, read_words

ENV = "CartPole-v1"
SIDES = ["ppo:num_envs=2,num_steps=16,minibatches=1", "a2c:num_envs=2,num_steps=16"]
HOW = {"seeds": 2, "steps": 256, "episodes": 2}


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Runs are trained in this process, one after the other; returns the list of jobs that were trained or resumed."""
    monkeypatch.setattr(comparison_result, "picture", lambda comparison: b"a picture")
    return train_here(monkeypatch, tmp_path)


def test_what_is_there_is_reused_and_gives_the_same_bytes(here):
    first = pg.compare(SIDES, ENV, **HOW)
    assert first.place is not None
    assert [(job.algo, job.seed, job.resume) for job in here] == [
        ("ppo", 0, False),
        ("a2c", 0, False),
        ("ppo", 1, False),
        ("a2c", 1, False),
    ]
    files = sorted(path.name for path in first.place.iterdir())
    assert files == ["clocks.json", "clocks.png", "compare.html", "compare.json", "compare.png"]
    written = (first.place / "compare.json").read_bytes()
    here.clear()
    second = pg.compare(SIDES, ENV, **HOW)
    assert here == []
    assert (second.place, str(second)) == (first.place, str(first))
    assert (second.place / "compare.json").read_bytes() == written

    shutil.rmtree(next(runs("runs")))  # trained again, elsewhere, at another time
    pg.compare(SIDES, ENV, **HOW)
    assert len(here) == 1
    assert (first.place / "compare.json").read_bytes() == written

    here.clear()
    pg.compare(SIDES, ENV, **(HOW | {"seeds": 3}))
    assert [job.seed for job in here] == [2, 2]
    here.clear()
    pg.compare([SIDES[0] + ",lr=0.1", SIDES[1]], ENV, **(HOW | {"seeds": [0, 2]}))
    assert [job.keywords.get("lr") for job in here] == [0.1, 0.1]


def test_the_scores_are_those_of_the_runs(here):
    found = pg.compare({"new": SIDES[0], "old": SIDES[1]}, ENV, **HOW)
    assert found.sides == ["new", "old"]
    for side in found.sides:
        for run in found.runs[side][ENV]:
            evaluation = json.loads((RunDirectory(Path(run.place)).evaluation_file).read_text())
            assert run.score == evaluation["greedy"]["mean"]
    sampled = pg.compare({"new": SIDES[0], "old": SIDES[1]}, ENV, greedy=False, **HOW)
    assert [run.score for run in sampled.runs["new"][ENV]] != [run.score for run in found.runs["new"][ENV]]
    assert len(here) == 4
    clocks = json.loads((found.place / "clocks.json").read_text())
    assert clocks["new"][ENV]["0"]["seconds"] > 0
    assert "seconds" not in (found.place / "compare.json").read_text()
    assert str(found.place.parent) not in (found.place / "compare.json").read_text()


def test_a_run_alone_is_the_run_of_a_comparison(here):
    """Trained by `policygrad train` before, it is reused; with another number of steps, it is not."""
    words = ["train", "a2c", ENV, "--num-envs", "2", "--num-steps", "16", "--eval-episodes", "2", "--quiet"]
    assert main([*words, "--steps", "256", "--seed", "1"]) == 0
    assert main([*words, "--steps", "288", "--seed", "0"]) == 0
    pg.compare(SIDES, ENV, **HOW)
    assert [(job.algo, job.seed) for job in here] == [("ppo", 0), ("a2c", 0), ("ppo", 1)]


def test_an_unfinished_run_is_resumed_to_the_same_bytes(here, monkeypatch):
    written = pg.compare(SIDES, ENV, **HOW).place / "compare.json"
    expected = written.read_bytes()
    shutil.rmtree("runs")
    here.clear()
    whole, calls = several.run_job, []

    def stopping(job, channel, run):
        """The second run is stopped in the middle of its training; the others do not begin."""
        calls.append(job)
        if len(calls) == 2:
            agent = pg.Agent(job.algo, job.env, seed=job.seed, **job.keywords)
            agent_run = several_train(agent, job)
            channel.tell(path=str(agent_run.path))
            raise RuntimeError("stopped")
        if len(calls) > 2:
            raise RuntimeError("not reached")
        return whole(job, channel, run)

    def several_train(agent, job):
        from policygrad.training import train as training

        run = training.start(agent, None, root=job.root, episodes=job.episodes)
        progress = Silent(several.State(0))
        progress.update = lambda *_: os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            training.learn(agent, run, progress)
        assert 0 < run.state()["steps"] < 256
        return run

    monkeypatch.setattr(several, "run_job", stopping)
    with pytest.raises(RunError, match="3 of 4 runs failed"):
        pg.compare(SIDES, ENV, **HOW)
    assert not written.exists()
    monkeypatch.setattr(several, "run_job", whole)
    here.clear()
    pg.compare(SIDES, ENV, **HOW)
    assert [(job.algo, job.seed, job.resume) for job in here] == [
        ("a2c", 0, True),
        ("ppo", 1, False),
        ("a2c", 1, False),
    ]
    assert written.read_bytes() == expected


OTHER = [  # what would make a run another one
    lambda said: said["versions"].update(torch="1.0"),
    lambda said: said["versions"].update(policygrad="0.4.0"),
    lambda said: said.pop("versions"),
    lambda said: said.update(custom=True),
    lambda said: said.update(env_kwargs={"x": 1}),
    lambda said: said.update(wrappers=["my:Wrapper"]),
    lambda said: said.update(dataset="some"),
    lambda said: said.update(device="cuda"),
    lambda said: said.update(episodes=3),
    lambda said: said.update(seed=7),
    lambda said: said["config"].update(gamma=0.5),
]


def test_runs_of_something_else_are_not_reused(here):
    pg.compare(SIDES, ENV, **HOW)
    config = comparing.planned(read_side(SIDES[1]), ENV, 256)
    existing = Existing.under(Path("runs"))
    assert existing.best("a2c", ENV, 0, config, 2) is not None
    for change in OTHER:
        changed = [(run, json.loads(json.dumps(said))) for run, said in existing.runs]
        for _, said in changed:
            change(said)
        assert Existing(changed).best("a2c", ENV, 0, config, 2) is None


def test_the_code_of_a_recipe_and_of_an_environment_has_a_time(tmp_path):
    """Runs that are older than it are not reused."""
    file = tmp_path / "own_side.py"
    file.write_text("def mine(task, *, steps: int = 256): ...\nclass World: ...\n")
    os.utime(file, (10**9, 10**9))
    assert changed_at("ppo") == changed_at(ENV) == 0.0
    assert changed_at(f"{file}:mine") == changed_at(f"{file}:World") == 10**9


def test_runs_that_are_older_than_their_code_are_not_reused(here, monkeypatch):
    pg.compare(SIDES, ENV, **HOW)
    config = comparing.planned(read_side(SIDES[1]), ENV, 256)
    monkeypatch.setattr(sides_module, "changed_at", lambda name: time.time() + 10 if name == "a2c" else 0.0)
    assert Existing.under(Path("runs")).best("a2c", ENV, 0, config, 2) is None


def test_directories_of_runs_are_sides(here):
    first = pg.compare(SIDES, ENV, **HOW)
    found = pg.compare({"a": f"runs/{ENV}/ppo", "b": f"runs/{ENV}/a2c"}, out="there")
    assert (found.envs, len(here)) == ([ENV], 4)
    assert (found.scores("a", ENV) == first.scores(first.sides[0], ENV)).all()
    with pytest.raises(RunError, match="several configurations"):
        pg.compare({"a": "runs", "b": f"runs/{ENV}/a2c"}, out="there")
    with pytest.raises(RunError, match="has no runs in Acrobot-v1: it has runs in CartPole-v1"):
        pg.compare({"a": f"runs/{ENV}/ppo", "b": f"runs/{ENV}/a2c"}, ["Acrobot-v1", ENV], out="there")
    one = next(runs(f"runs/{ENV}/a2c"))
    (one / "evaluation.json").unlink()
    with pytest.raises(RunError, match="not finished: policygrad resume"):
        pg.compare({"a": f"runs/{ENV}/ppo", "b": f"runs/{ENV}/a2c"}, out="there")


def test_a_failed_run_ends_the_comparison(here, monkeypatch):
    whole = several.run_job

    def failing(job, channel, run):
        if job.algo == "a2c":
            raise RuntimeError("training stopped: reward is nan")
        return whole(job, channel, run)

    monkeypatch.setattr(several, "run_job", failing)
    with pytest.raises(
        RunError, match=r"2 of 4 runs failed, and a comparison without them would be biased.\na2c:.*is nan"
    ):
        pg.compare(SIDES, ENV, **HOW)
    assert not os.path.exists("runs/comparisons")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("clip=0.1,epochs=5", {"clip": 0.1, "epochs": 5}),
        ("hidden=(32,32),lr=1e-3", {"hidden": (32, 32), "lr": 1e-3}),
        ("target-kl=none, normalize=true", {"target_kl": None, "normalize": True}),
        ("activation=relu", {"activation": "relu"}),
        ("steps=1e5", {"steps": 100_000}),
    ],
)
def test_a_variant_says_its_keywords(words, expected):
    assert read_words(words, "") == expected
    assert [type(x) for x in read_words(words, "").values()] == [type(x) for x in expected.values()]


def test_none_is_a_word_where_a_hyperparameter_chooses_among_words():
    side = read_side("reinforce:returns=total,baseline=none,max_grad_norm=none")
    assert side.keywords == {"returns": "total", "baseline": "none", "max_grad_norm": None}
    assert planned(side, "CartPole-v1", None)["baseline"] == "none"
    assert side.label == "reinforce:returns=total,baseline=none,max_grad_norm=None"


def test_values_are_plain():
    assert as_value("__import__('os')") == "__import__('os')"
    assert as_value("2.0") == 2.0
    assert isinstance(as_value("2.0"), float)


def test_words_mean_sides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo").mkdir()
    (tmp_path / "mine.py").write_text("def mine(task, *, steps: int = 10): ...\n")
    assert read_side("PPO-KL").algo == "ppo_kl"
    assert read_side("ppo").folder is None  # the algorithm, not the directory of this name
    assert read_side("./ppo").folder is not None
    side = read_side("mine.py:mine:steps=20")
    assert (side.algo, side.keywords) == ("mine.py:mine", {"steps": 20})
    assert read_side("ppo:clip=0.10, lr=1e-3").label == "ppo:clip=0.1,lr=0.001"
    assert [side.label for side in read_sides({"A": "ppo", "B": "ppo:clip=0.1"})] == ["A", "B"]


@pytest.mark.parametrize(
    ("sides", "keywords", "words"),
    [
        (["ppo"], {}, "two or more different sides"),
        (["ppo", "ppo"], {}, "ppo twice"),
        ("ppo", {}, "must be a list"),
        (["ppo", "pppo"], {}, "Did you mean 'ppo'"),
        (["ppo", "ppo:clop=0.1"], {}, "clop"),
        (["ppo", "ppo:clip=-1"], {}, "clip"),
        (["ppo", "ppo:clip"], {}, "clip"),
        (["ppo", "ppo:seed=3"], {}, "seeds are those of the comparison"),
        (["ppo", "ppo:clip=0.1,clip=0.2"], {}, "cannot read"),
        (["ppo", "no/such/place"], {}, "no directory"),
        (["ppo", "a2c"], {"env": ()}, "needs an environment"),
        (["ppo", "a2c"], {"env": "CartPole-v9"}, "CartPole"),
        (["ppo", "a2c"], {"seeds": 1}, "two or more"),
        (["ppo", "a2c"], {"seeds": [3, 3]}, "two or more"),
        (["ppo", "a2c"], {"seeds": [-1, 3]}, "seed"),
        (["ppo", "a2c"], {"level": 95}, "level"),
        (["ppo", "a2c"], {"episodes": 0}, "episodes"),
        (["ppo", "a2c"], {"steps": 0}, "steps"),
        (["ppo", "a2c"], {"threshold": math.nan}, "threshold"),
        (["ppo", "a2c"], {"threshold": {"Acrobot-v1": 1.0}}, "threshold"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(here, sides, keywords, words):
    with pytest.raises(ValueError, match=words):
        pg.compare(sides, **({"env": ENV} | keywords))
    assert here == []
    assert not os.path.exists("runs")


def test_all_sides_take_the_same_steps(here):
    request = comparing.read_request(["ppo", "a2c"], ENV, 2, None, 2, "runs", True)
    steps = comparing.same_steps(request.sides, ENV)
    presets = [pg.Agent(algo, ENV).config["steps"] for algo in ("ppo", "a2c")]
    assert steps == max(presets)
    wanted = [comparing.wanted_run(request, side, ENV, 0, steps) for side in request.sides]
    assert [one.job.keywords["steps"] for one in wanted] == [steps, steps]


def test_a_configuration_that_an_agent_would_have_is_the_planned_one():
    for text in ("ppo", "a2c:lr=1e-3", "trpo", "reinforce", "dqn"):
        side = read_side(text)
        planned = comparing.planned(side, ENV, 1000)
        agent = pg.Agent(side.algo, ENV, steps=1000, **side.keywords)
        assert planned == {k: list(x) if isinstance(x, tuple) else x for k, x in agent.config.items()}


@pytest.fixture
def stable_baselines(tmp_path):
    """Two runs, as EvalCallback and Monitor write them."""
    for seed, level in ((3, 100.0), (4, 200.0)):
        place = tmp_path / "logs" / f"PPO_{seed}"
        place.mkdir(parents=True)
        np.savez(
            place / "evaluations.npz",
            timesteps=np.array([500, 1000]),
            results=np.array([[10.0, 30.0], [level, level + 10]]),
            ep_lengths=np.array([[10, 30], [100, 110]]),
        )
        lines = [f"{r},{n},{t}" for r, n, t in [(10.0, 10, 0.5), (30.0, 30, 1.0), (50.0, 50, 2.0)]]
        head = '#{"t_start": 1.0, "env_id": "CartPole-v1"}\nr,l,t\n'
        (place / "0.monitor.csv").write_text(head + "\n".join(lines) + "\n90.0,9")  # half a line
        (place / "1.monitor.csv").write_text(head + "20.0,20,0.75\n")
    return tmp_path / "logs"


def test_runs_of_stable_baselines_are_sides(here, stable_baselines):
    pg.compare(SIDES, ENV, **HOW)
    found = pg.compare({"sb3": str(stable_baselines), "ours": f"runs/{ENV}/a2c"}, out="there")
    assert [run.seed for run in found.runs["sb3"][ENV]] == [3, 4]
    assert found.scores("sb3", ENV).tolist() == [105.0, 205.0]
    run = found.runs["sb3"][ENV][0]
    assert run.steps.tolist() == [10, 30, 60, 110]
    assert run.returns.tolist() == [10, 15, 20, 27.5]
    assert run.seconds.tolist() == [0.5, 0.75, 1.0, 2.0]
    for file in stable_baselines.rglob("*.csv"):
        file.unlink()
    found = pg.compare({"sb3": str(stable_baselines), "ours": f"runs/{ENV}/a2c"}, ENV, out="there")
    assert found.runs["sb3"][ENV][1].returns.tolist() == [20.0, 205.0]
    assert json.loads((found.place / "clocks.json").read_text())["sb3"][ENV]["3"]["seconds"] is None
    with pytest.raises(RunError, match="does not say its environment"):
        pg.compare({"sb3": str(stable_baselines), "ours": f"runs/{ENV}/a2c"}, out="there")


def test_damaged_files_of_stable_baselines_are_named(here, stable_baselines):
    next(stable_baselines.rglob("0.monitor.csv")).write_text("#{}\nr,l,t\n1,x,2\n3,4,5\n")
    with pytest.raises(ValueError, match=r"0\.monitor\.csv, line 3"):
        pg.compare({"a": str(stable_baselines), "b": "a2c"}, ENV, **HOW)
    next(stable_baselines.rglob("0.monitor.csv")).write_text("r,l,t\n")
    with pytest.raises(ValueError, match="not a monitor file"):
        pg.compare({"a": str(stable_baselines), "b": "a2c"}, ENV, **HOW)
    assert here == []


def test_the_command_prints_what_it_found(here, capsys):
    words = ["compare", *SIDES, "--env", ENV, "--seeds", "0", "1", "--steps", "256", "--eval-episodes", "2", "--quiet"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "IQM" in out
    assert "Overall, these runs cannot tell the sides apart on CartPole-v1." in out
    assert "compare.html" in out
    assert "so few seeds cannot bound it; about " in out
    assert main(["compare", "--help"]) == 0
    assert "SIDE is one of" in capsys.readouterr().out
    assert len(here) == 4


def test_environments_may_be_named_together_or_one_by_one() -> None:
    for words in (["--env", "A-v1", "B-v1"], ["--env", "A-v1", "--env", "B-v1"]):
        assert compare_parser().parse(["ppo", "a2c", *words]).env == ["A-v1", "B-v1"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ppo"], "two or more"),
        (["ppo", "a2c"], "environment"),
        (["ppo", "a2c", "--env", "CartPole-v9"], "CartPole"),
        (["ppo", "a2c", "--env", ENV, "--seeds", "1"], "--seeds = 1 must be at least 2"),
        (["ppo", "a2c", "--env", ENV, "--level", "95"], "--level"),
        (["ppo", "a2c", "--env", ENV, "--jobs", "0"], "--jobs"),
        (["ppo", "a2c", "--env", ENV, "--step", "5"], "--steps"),
    ],
)
def test_the_command_refuses_mistakes(here, capsys, words, expected):
    assert main(["compare", *words]) == 2
    assert expected in capsys.readouterr().err
    assert here == []


@pytest.mark.slow
def test_killed_anywhere_the_same_command_ends_in_the_same_bytes(tmp_path):
    words = [
        sys.executable,
        "-m",
        "policygrad",
        "compare",
        "ppo",
        "a2c",
        "--env",
        ENV,
        "--seeds",
        "2",
        "--steps",
        "6000",
    ]
    words += ["--eval-episodes", "3", "--quiet", "--out", "there"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    subprocess.run(words, cwd=whole, check=True, stdout=subprocess.DEVNULL)
    for seconds in (3.0, 4.5, 6.0):
        process = subprocess.Popen(words, cwd=broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
    subprocess.run(words, cwd=broken, check=True, stdout=subprocess.DEVNULL)
    assert (broken / "there" / "compare.json").read_bytes() == (whole / "there" / "compare.json").read_bytes()
    finished = [run for run in runs(broken / "runs") if RunDirectory(run).evaluation() is not None]
    assert len(finished) == 4
