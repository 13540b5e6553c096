"""`policygrad tune`: its flags, its help, its lines, and its mistakes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from policygrad.algorithms.search_spaces import SPACES
from policygrad.cli import main
from policygrad.cli.tuning import TrialBoard, keywords_of, lines, parse
from policygrad.reports.tuning import Check, TrialRow, Tuning
from policygrad.training.jobs import State

ENV = "CartPole-v1"


def test_flags_become_keywords_and_hyperparameters_are_held_fixed():
    words = "ppo --env CartPole-v1 --over lr=1e-4..1e-2:log gamma=0.9,0.99 --trials 7 --seeds 2 --steps 20k --seed 3"
    words += " --prune_after 0.5 --check-seeds 0 --jobs 1 --num-envs 4 --hidden 32 32 --normalize-obs"
    algo, env, given, fixed = parse(words.split())
    assert (algo, env) == ("ppo", ENV)
    assert fixed == {"num_envs": 4, "hidden": (32, 32), "normalize_obs": True}
    keywords = keywords_of(given)
    assert keywords == {
        "over": ["lr=1e-4..1e-2:log", "gamma=0.9,0.99"],
        "trials": 7,
        "seeds": 2,
        "steps": 20_000,
        "hours": None,
        "check_seeds": 0,
        "prune": True,
        "prune_after": 0.5,
        "eval_episodes": 100,
        "seed": 3,
        "jobs": 1,
        "out": None,
    }
    assert parse(["ppo", ENV])[:2] == ("ppo", ENV)
    assert keywords_of(parse(["ppo", ENV])[2])["prune_after"] == 1 / 3
    assert keywords_of(parse(["ppo", ENV, "--timeout", "1800"])[2])["hours"] == 0.5
    assert keywords_of(parse(["ppo", ENV, "--hours", "2", "--no-prune"])[2])["prune"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "tune needs an algorithm and an environment"),
        ("ppo", "tune ppo needs an environment"),
        ("CartPole-v1 ppo", "the algorithm comes first"),
        ("ppo CartPole-v1 --env Acrobot-v1", "unexpected argument 'CartPole-v1'"),
        ("ppo CartPole", "Did you mean 'CartPole-v1'"),
        ("ppo CartPole-v1 --lrr 1", "Did you mean --lr"),
        ("ppo CartPole-v1 --trial 1", "Did you mean --trials"),
        ("ppo CartPole-v1 --trials 1 --trials 2", "--trials is given twice"),
        ("ppo CartPole-v1 --trials many", "--trials = 'many' must be a whole number"),
        ("ppo CartPole-v1 --hours 1 --timeout 1", "give one of the two"),
        ("ppo CartPole-v1 --over lr=1e-4..1 --lr 1", "lr has a fixed value and values to search"),
        ("ppo CartPole-v1 --over lrr=1e-4..1", "Did you mean 'lr'"),
        ("ppo CartPole-v1 --prune-after 3", "--prune-after = 3.0 must be a share"),
    ],
)
def test_mistakes_are_said_in_a_few_lines_and_nothing_is_written(words, message, capsys, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *words.split()]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") <= 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--help"], ["ppo", "--help"], ["sac", "Pendulum-v1", "-h"]])
def test_the_help_shows_what_is_searched(words, capsys):
    assert main(["tune", *words]) == 0
    said = capsys.readouterr().out
    assert "--over NAME=VALUES" in said
    if words[0] in SPACES:
        assert all(f"\n  {word}\n" in said for word in SPACES[words[0]])


def test_words_of_others_lead_here(capsys):
    for word in ("optimize", "hpo", "optuna"):
        assert main([word]) == 2
        assert "policygrad tune ALGO ENV" in capsys.readouterr().err


ROWS = [
    TrialRow(0, "finished", 20.0, {"lr": 0.01, "hidden": (64, 64)}, [20.0, 20.0], [1.0, 2.0]),
    TrialRow(1, "pruned", None, {"lr": 0.1, "hidden": (32,)}, [], [1.0, 1.5, None]),
    TrialRow(2, "failed", None, {"lr": 1.0, "hidden": (32,)}, [], [], "seed 1: NaN"),
    TrialRow(3, "finished", 40.0, {"lr": 0.02, "hidden": (32,)}, [30.0, 50.0], [1.0, 2.0]),
]


def test_every_trial_has_a_line_and_the_last_ones_are_a_table_and_a_verdict(capsys, tmp_path):
    board = TrialBoard(quiet=False)
    best = None
    for row in ROWS:
        best = row if row.value is not None else best
        board.hear(row, best)
    head, *said = capsys.readouterr().out.splitlines()
    assert head.split() == ["trial", "value", "best", "state", "hyperparameters"]
    assert [line.split()[0] for line in said] == ["0", "1", "2", "3"]
    assert "(1.500)" in said[1]  # of a trial that was given up, the return in training
    assert "seed 1: NaN; lr=1" in said[2]
    assert "40.0 (trial 3)" in said[3]
    assert said[3].endswith("lr=0.02 hidden=32")
    TrialBoard(quiet=True).hear(ROWS[0], None)
    assert not capsys.readouterr().out

    check = Check([1000, 1001, 1002], [30.0, 31.0, 32.0], [20.0, 21.0, 22.0], 1, "CartPole-v1: tuned is better.")
    found = Tuning({"algo": "ppo", "env": ENV}, ROWS, {"lr": 0.01}, tmp_path, {"lr": 0.7, "hidden": 0.3}, check)
    (tmp_path / "best.toml").write_text("")
    printed = "\n".join(lines(found))
    assert "ppo on CartPole-v1: 4 trials, 2 finished, 1 pruned, 1 failed" in printed
    assert printed.index("40.0") < printed.index("20.0")
    assert "CartPole-v1: tuned is better. The best is trial 3 of 4: in the search it had 40.0" in printed
    assert str(tmp_path / "best.toml") in printed
    assert str(found).endswith(found.verdict)


def test_a_terminal_sees_the_present_trial_in_a_line_that_goes_away(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    board = TrialBoard(quiet=False)
    states = [State(0, "training", steps=50, total=100, mean=3.0, side="trial 7"), State(1, "done", side="trial 7")]
    board.show(states)
    assert capsys.readouterr().out == "trial 7: 2 runs, 75%, mean return in training 3.0"
    board.stop()
    assert capsys.readouterr().out.strip(" \r") == ""


def test_the_picture_shows_finished_and_pruned_trials_and_the_importances(tmp_path):
    from policygrad.reports.tuning_plots import figure

    words = {"request": {"algo": "ppo", "env": ENV}, "standing": {}, "place": tmp_path}
    chart = figure(Tuning(**words, trials=ROWS, importances={"lr": 0.7, "hidden": 0.3}))
    history, bars = chart.axes
    best, finished, pruned = history.lines
    assert list(finished.get_xdata()) == [0, 3]
    assert list(best.get_ydata()) == [20.0, 40.0, 40.0]
    assert list(pruned.get_xdata()) == [1]
    assert list(pruned.get_ydata()) == [1.5]
    assert [bar.get_width() for bar in bars.patches] == [0.7, 0.3]
    assert len(figure(Tuning(**words, trials=ROWS[2:3])).axes) == 1  # nothing has finished
    out = figure(Tuning(**words, trials=ROWS)).write(Path(tmp_path) / "tune.png")
    assert out.stat().st_size > 10_000
