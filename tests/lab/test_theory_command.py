"""`policygrad lab theory`: one report, one experiment, JSON, a picture; and what is refused in a line."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pytest

from policygrad.cli import lab_theory
from policygrad.cli.values import UsageError
from policygrad.lab.exact.tabular import random_mdp
from policygrad.lab.theory import experiments, plots
from policygrad.lab.theory.ascent import ascend, fixed, landscapes
from policygrad.lab.theory.delays import delayed_ascent
from policygrad.lab.theory.derivatives import three_ways
from policygrad.lab.theory.functions import two_hills
from policygrad.lab.theory.improvement import improvement
from policygrad.lab.theory.lemma import check_lemma
from policygrad.lab.theory.losses import losses
from policygrad.lab.theory.pathwise import pathwise
from policygrad.lab.theory.staleness import staleness
from policygrad.lab.theory.stochastic import decay
from policygrad.lab.theory.surrogate import surrogate_order
from policygrad.lab.values.comparison import compare
from policygrad.lab.values.triad import triad

matplotlib.use("agg")


def random_world():
    mdp = experiments.make_mdp("random")
    return mdp, experiments.starting_policy("random", mdp)


def test_the_flags_name_every_experiment():
    assert tuple(experiments.EXPERIMENTS) == lab_theory.WHICH
    text = lab_theory.parser().format_help()
    assert all(name in text for name in lab_theory.WHICH)


def test_one_experiment_is_a_title_what_theory_says_and_the_numbers(capsys):
    lab_theory.run(["surrogate", "--mdp", "aliased", "--seed", "3"])
    text = capsys.readouterr().out
    assert "The surrogate matches to first order" in text
    assert "second order" in text
    assert "bounds hold" in text
    lab_theory.run(["surrogate", "--mdp", "aliased", "--seed", "4"])
    assert capsys.readouterr().out != text


def test_json_holds_what_the_report_says(capsys):
    lab_theory.run(["lemma", "--json"])
    written = json.loads(capsys.readouterr().out)
    assert written["lemma"]["gap"] <= 1e-10
    assert written["refused"] == {}


def test_values_and_policies_are_compared_where_states_look_alike(capsys):
    lab_theory.run(["values", "--mdp", "corridor", "--json"])
    found = json.loads(capsys.readouterr().out)["values"]
    assert found["exact"]["policy gradient"][-1] == pytest.approx(-6.0 - 4.0 * 2.0**0.5, abs=1e-6)
    assert found["exact"]["Q-learning"][-1] is None  # −∞: the greedy policy never arrives
    assert found["best"] == pytest.approx(-3.0)
    assert found["transitions"][-1] == 8192


def test_the_triad_says_which_combination_diverges(capsys):
    lab_theory.run(["triad"])
    rows = [line for line in capsys.readouterr().out.splitlines() if " +0." in line]
    assert [row.split("  ")[0] for row in rows] == ["features + bootstrapping + off-policy"]


def test_all_on_one_mdp_leaves_out_what_it_is_not_for(capsys, monkeypatch):
    kept = {name: experiments.EXPERIMENTS[name] for name in ("surrogate", "derivatives", "loss")}
    monkeypatch.setattr(experiments, "EXPERIMENTS", kept)
    lab_theory.run(["--mdp", "corridor", "--json"])
    written = json.loads(capsys.readouterr().out)
    assert set(written) == {"surrogate", "refused"}
    assert set(written["refused"]) == {"derivatives", "loss"}
    lab_theory.run(["--mdp", "corridor"])
    assert "not measured: the closed form is" in capsys.readouterr().out


def test_several_experiments_are_measured_in_the_order_given_and_reported_as_they_come(capsys):
    lab_theory.run(["loss", "surrogate", "lemma", "lemma", "--mdp", "aliased"])
    text = capsys.readouterr().out
    titles = [line.rpartition("(")[2][:-1] for line in text.splitlines() if line.endswith(")") and "  (" in line]
    assert titles == ["surrogate", "lemma", "loss"]
    assert text.count("─" * 80) == 2
    assert text.index("not measured: a constant on all rewards") > text.index("100 pairs")


def test_a_terminal_is_told_what_is_being_measured_and_the_line_goes(capsys, monkeypatch):
    lab_theory.run(["lemma"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    lab_theory.run(["lemma", "--json"])
    said = capsys.readouterr()
    assert said.err == "measuring lemma …\r\x1b[K"
    assert json.loads(said.out)["lemma"]
    monkeypatch.setenv("TERM", "dumb")
    lab_theory.run(["lemma"])
    assert capsys.readouterr().err == ""


def test_large_mdps_get_less_of_everything(monkeypatch):
    asked = {}
    monkeypatch.setattr(experiments, "decay", lambda mdp, policy, **given: asked.update(given))
    monkeypatch.setattr(experiments, "check_lemma", lambda mdp, pairs, seed: asked.update(pairs=pairs))
    for name, budgets, runs, pairs in (
        ("random", (8, 32, 128, 512), 4, 100),
        ("corridor", (8, 32, 128), 4, 100),  # no horizon: episodes of 1,000 steps
        ("CliffWalking-v1", (8, 32, 128), 4, 100),
        ("Taxi-v4", (8, 32), 2, 20),
    ):
        experiments.measure("sgd", name)
        experiments.measure("lemma", name)
        assert (asked["budgets"], asked["runs"], asked["pairs"]) == (budgets, runs, pairs)


def test_a_picture_is_written_where_it_is_asked_for(tmp_path, capsys):
    out = tmp_path / "below" / "picture.png"
    lab_theory.run(["surrogate", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith(f"{out}\n")


def test_every_result_of_the_bench_has_panels_and_no_label_lies_beyond_the_figure():
    mdp = experiments.make_mdp("rock-paper-scissors")
    policy = experiments.starting_policy("rock-paper-scissors", mdp)
    results = [
        check_lemma(mdp, pairs=5, episodes=50),
        surrogate_order(mdp, policy),
        improvement(iterations=10, horizons=(5, 10)),
        landscapes(30),
        decay(mdp, policy, budgets=(2, 4), runs=2),
        three_ways(random_mdp(2, 2, 3, np.random.default_rng(0)), sizes=(2, 4)),
        losses(mdp, policy, steps=5),
        staleness(mdp, policy, ages=(0, 1, 2)),
        compare(mdp, policy, sweeps=5),
        triad(steps=20),
        delayed_ascent(mdp, policy, delays=(0, 1, 2), updates=6),
        pathwise(samples=100),
    ]
    assert {type(result) for result in results} == set(plots.PANELS)
    figure = plots.theory_figure(results, "title")
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert len(axes) == sum(map(len, plots.PANELS.values())) == 18
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    for axis in axes:
        assert axis.get_title(loc="left")
        for text in axis.texts:
            box = text.get_window_extent()
            assert 0.0 <= box.x0 <= box.x1 <= width, text.get_text()
            assert 0.0 <= box.y0 <= box.y1 <= height, text.get_text()


@pytest.mark.parametrize("result", [improvement(iterations=30, horizons=(5,)), losses(*random_world(), steps=100)])
def test_no_axis_runs_past_its_data(result):
    figure = plots.theory_figure([result], "title")
    axis = figure.axes[0]
    end = max(float(np.max(line.get_xdata())) for line in axis.lines)
    assert end in (24.0, 100.0)
    assert max(axis.get_xticks()) <= end < axis.get_xlim()[1]
    assert axis.spines["bottom"].get_bounds() == (0, end)


@pytest.mark.parametrize("name", ["deceptive", "corridor"])
def test_differences_that_are_rounding_and_bounds_that_are_not_there_are_not_drawn(name):
    mdp = experiments.make_mdp(name)
    figure = plots.theory_figure([surrogate_order(mdp, experiments.starting_policy(name, mdp))], "title")
    (axis,) = figure.axes
    drawn = [np.isfinite(line.get_ydata()).sum() for line in axis.lines]
    assert drawn == ([0] * 5 if name == "deceptive" else [21] * 3)
    words = [text.get_text().replace("\n", " ") for text in axis.texts]  # wrapped to the panel
    assert any("No bound" in w for w in words) is (name == "corridor")
    assert sum(w.endswith(": rounding") for w in words) == (3 if name == "deceptive" else 0)


def test_a_picture_of_something_else_is_refused():
    path = ascend(
        two_hills, experiments.starting_policy("two-states", experiments.make_mdp("two-states")).flat[:2], 3, fixed(0.1)
    )
    with pytest.raises(TypeError, match="there is no picture of a Path"):
        plots.panels_of(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["surogate"], "did you mean 'surrogate'"),
        (["lemma", "surogate"], "did you mean 'surrogate'"),
        (["nothing"], "lemma, surrogate"),
        (["lemma", "--mdp", "chian"], "did you mean 'chain'"),
        (["--mdp", "chian"], "did you mean 'chain'"),
        (["loss", "--mdp", "chain"], "a constant on all rewards changes the task"),
        (["staleness", "--mdp", "corridor"], "need a horizon"),
        (["triad", "--mdp", "chain"], "Baird's MDP"),
        (["pathwise", "--mdp", "chain"], "one continuous action"),
        (["lemma", "--seed", "x"], "--seed"),
        (["lemma", "--out", "x.jpg"], "must end in one of"),
        (["loss", "derivatives", "--mdp", "aliased"], "a constant on all rewards changes the task"),
        (["lemma", "--sed", "1"], "Did you mean --seed"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words, message):
    with pytest.raises(UsageError, match=message) as error:
        lab_theory.run(words)
    assert len(str(error.value).splitlines()) <= 3
