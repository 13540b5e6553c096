"""`policygrad lab`: what there is, `lab steps` on MDPs and trained runs, its picture, its mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from policygrad.cli import lab, main
from policygrad.cli.lab_flags import MDPS
from policygrad.cli.lab_steps import own_settings
from policygrad.lab.exact import worlds
from policygrad.lab.steps import plots

SMALL = ["--num-envs", "2", "--num-steps", "50", "--epochs", "1", "--minibatches", "2", "--hidden", "8"]
OWN = ["--lr", "1e-3", "--clip", "0.15", "--target-kl", "0.02"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lab") / "runs" / "CartPole-v1" / "ppo" / "seed0-a"
    words = [
        "train",
        "ppo",
        "CartPole-v1",
        "--steps",
        "300",
        *SMALL,
        *OWN,
        "--eval-episodes",
        "2",
        "--run-dir",
        str(path),
        "-q",
    ]
    assert main(words) == 0
    return path


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that are drawn."""
    drawn, make = [], plots.steps_figure

    def make_and_keep(story: plots.Story) -> plots.Chart:
        drawn.append(make(story))
        return drawn[-1]

    monkeypatch.setattr(plots, "steps_figure", make_and_keep)
    return drawn


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_lab_alone_says_what_there_is(words, capsys):
    assert main(["lab", *words]) == 0
    out = capsys.readouterr().out
    for name, (usage, what, _) in lab.EXPERIMENTS.items():
        assert usage.startswith(name)
        assert what in out


@pytest.mark.parametrize("name", lab.EXPERIMENTS)
def test_every_experiment_has_help_and_loads_nothing_heavy_for_it(name, capsys):
    assert main(["lab", name, "--help"]) == 0
    assert f"usage: policygrad lab {name}" in capsys.readouterr().out
    code = f"import sys; from policygrad.cli import main; main(['lab', '{name}', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_mdps_that_help_names_are_those_there_are():
    assert tuple(worlds.WORLDS) == MDPS


def test_steps_prints_a_table_beta_and_what_happens_as_delta_goes_to_0(capsys):
    assert main(["lab", "steps", "--mdp", "chain", "--seed", "1"]) == 0
    text = capsys.readouterr().out
    about, rows, notes, beta, trust = text.strip().split("\n\n")
    assert about.startswith(
        "chain: 6 states, 2 actions, horizon 12; the best J is 0.9916\npolicy: a table of 12 logits"
    )
    names = ["rule", "PG", "NPG", "TRPO", "PPO-clip", "PPO-penalty", "TRPO, exact"]
    assert [line[:12].strip() for line in rows.splitlines()] == names
    assert "KL(old ‖ new): exact" in notes
    assert beta.startswith("β* = ")
    assert [line.split()[0] for line in trust.splitlines()[1:]] == ["0.01", "0.001", "0.0001", "1e-05"]
    assert main(["lab", "steps", "--mdp", "chain", "--seed", "1"]) == 0
    assert capsys.readouterr().out == text
    assert main(["lab", "steps", "--mdp", "chain", "--seed", "2"]) == 0
    assert capsys.readouterr().out != text


@pytest.mark.parametrize("words", [["corridor"], ["corridor", "--episodes", "5"], ["rock-paper-scissors"], ["aliased"]])
def test_policies_that_cannot_tell_states_apart_are_compared_with_the_settings_of_tables(words, capsys):
    assert main(["lab", "steps", "--mdp", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["about"][0].endswith(", a policy that tells all states apart")
    assert (found["settings"]["damping"], found["settings"]["lr"]) == (0.0, 0.02)
    assert [step["rule"] for step in found["steps"]] == ["PG", "NPG", "TRPO", "PPO-clip", "PPO-penalty"]
    assert all(step["real_gain"] > 0.0 for step in found["steps"])


def test_what_is_0_to_rounding_is_shown_as_0(capsys):
    assert main(["lab", "steps", "--mdp", "deceptive", "--scale", "3"]) == 0  # one direction: all rules agree
    out = capsys.readouterr().out
    assert "logits, log 9 and 0\n" in out
    assert "0.000000" not in out
    assert "e-1" not in out


def test_every_setting_arrives(capsys):
    flags = ["--max-kl", "0.02", "--clip", "0.1", "--beta", "3", "--epochs", "7", "--lr", "0.005", "--damping", "0.3"]
    assert main(["lab", "steps", "--mdp", "random", "--episodes", "5", "--scale", "0.5", *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {
        "max_kl": 0.02,
        "damping": 0.3,
        "clip": 0.1,
        "beta": 3.0,
        "epochs": 7,
        "lr": 0.005,
    }
    assert found["about"][1:] == [
        "policy: a table of 32 logits, standard deviation 0.5, seed 0",
        "batch: 5 episodes sampled, 50 steps in all",
    ]
    by_rule = {step["rule"]: step for step in found["steps"]}
    assert by_rule["PG"]["kl_quadratic"] == pytest.approx(by_rule["NPG"]["kl_quadratic"])
    assert by_rule["NPG"]["kl_quadratic"] < 0.02  # the damping takes its share
    assert all(step["real_gain"] is not None and step["interval"] is None for step in found["steps"])
    assert found["match"]["kl"] == pytest.approx(by_rule["TRPO"]["kl"])
    assert [point["max_kl"] for point in found["trust_path"]] == pytest.approx([0.02, 0.002, 0.0002, 0.00002])


def test_a_run_is_compared_at_its_last_checkpoint_with_intervals(trained, capsys, figures):
    words = ["lab", "steps", str(trained), "--eval-episodes", "3", "--epochs", "20"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "CartPole-v1"
    assert re.fullmatch(r"policy: ppo after 2\d\d steps; 58 parameters", found["about"][1])
    assert [step["rule"] for step in found["steps"]] == ["PG", "NPG", "TRPO", "PPO-clip", "PPO-penalty"]
    for step in found["steps"]:
        low, high = step["interval"]
        assert low <= step["real_gain"] <= high
    own = {"max_kl": 0.02, "clip": 0.15, "lr": 1e-3}  # the run's
    assert found["settings"] == own | {"damping": 0.1, "beta": None, "epochs": 20}
    assert found["trust_path"] == []
    checkpoint = next((trained / "checkpoints").glob("*"))
    assert main(["lab", "steps", str(checkpoint), *words[3:], "--out", "pictures/run.png"]) == 0
    out = capsys.readouterr().out
    assert "95 % interval" in out
    assert out.endswith("\npictures/run.png\n")
    assert imread("pictures/run.png").shape[1] == 1400  # a page of 7 inches, 200 dots each
    assert [axis.get_title(loc="left") for axis in figures[0].axes] == [
        "What a step promises and gives",
        "What the environment says",
        "A penalty is a soft trust region",
    ]
    check_texts(figures[0])


def test_settings_of_a_run_are_the_defaults_where_they_are_the_same_rules():
    assert own_settings("npg", {"max_kl": 0.03, "damping": 0.0, "lr": 0.5, "hidden": (8,)}) == {
        "max_kl": 0.03,
        "damping": 0.0,
    }
    assert own_settings("ppo_kl", {"target_kl": 0.02, "beta": 2.0, "lr": 1e-3}) == {"max_kl": 0.02, "lr": 1e-3}
    assert own_settings("ppo", {"target_kl": None, "clip": 0.1, "lr": 0.0}) == {"clip": 0.1}


def test_a_penalty_that_cannot_go_as_far_as_trpo_is_said_to(trained, capsys):
    assert main(["lab", "steps", str(trained), "--eval-episodes", "2", "--epochs", "1", "--lr", "1e-6"]) == 0
    assert "no β reproduces TRPO's KL: the penalty's steps stay short of KL = " in capsys.readouterr().out


def test_the_picture_has_six_panels_and_nothing_is_printed_over_anything_or_beyond_the_edge(capsys, figures):
    assert main(["lab", "steps", "--mdp", "bandit", "--out", "steps.svg"]) == 0
    assert capsys.readouterr().out.endswith("\nsteps.svg\n")
    assert "<svg" in Path("steps.svg").read_text("utf8")
    titles = [axis.get_title(loc="left") for axis in figures[0].axes if axis.get_title(loc="left")]
    assert len(titles) == 6
    check_texts(figures[0])


def check_texts(figure: Figure) -> None:
    """All texts of a panel are apart from each other, and in the picture."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    box, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    assert 0.0 <= box.x0 < box.x1 <= width
    assert 0.0 <= box.y0 < box.y1 <= height
    for axis in figure.axes:
        said = [axis._left_title, *axis.texts]  # pyright: ignore
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in said if t.get_text()]
        for (one, a), (other, b) in combinations(boxes, 2):
            assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1), (one, other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("stps", "there is no experiment 'stps'. Did you mean 'steps'?"),
        ("xyzzy", "audit, steps, theory, claims."),
        ("steps --mdp frozenlake-v1", "there is no MDP 'frozenlake-v1': did you mean 'FrozenLake-v1'?"),
        ("steps --max-kl 0", "--max-kl = 0 must be above 0"),
        ("steps --max-kl 1e3", "--max-kl = 1e3 must be in [1e-08, 100]"),
        ("steps --max-kl 1e-30", "--max-kl = 1e-30 must be in [1e-08, 100]"),
        ("steps --mdp bandit --scale 100", "so certain on this batch that its Fisher matrix is 0 to rounding"),
        ("steps --damping -1", "--damping = -1 must be at least 0"),
        ("steps --beta many", "--beta = 'many' must be a number, such as 0.5 or 3e-4 or match"),
        ("steps --epochs 0", "--epochs = 0 must be at least 1"),
        ("steps --episodes some", "--episodes = 'some' must be a whole number"),
        ("steps --seed -1", "--seed = -1 must be in"),
        ("steps --out steps.txt", "--out = 'steps.txt' must end in one of: .png, .pdf, .svg"),
        ("steps --env CartPole-v1", "--env needs a RUN"),
        ("steps --eval-episodes 3", "--eval-episodes needs a RUN"),
        ("steps --maxkl 1", "lab steps has no flag --maxkl. Did you mean --max-kl?"),
        ("steps a b", "unexpected argument 'b'"),
        ("steps nothing", "there is no run 'nothing'"),
        ("steps {run} --mdp chain", "--mdp cannot be used with a RUN"),
        ("steps {run} --seed 1", "--seed cannot be used with a RUN"),
        ("steps {run}/policy.safetensors", "a batch needs the critic"),
        ("steps {run}/..", "holds no checkpoint, but a batch needs the critic: is it a run directory?"),
        ("steps {run}/config.json", "is not a policygrad model"),
    ],
)
def test_mistakes_are_answered_in_a_few_lines(words, message, trained, capsys):
    assert main(["lab", *words.format(run=trained).split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("policygrad: ")
    assert len(err.splitlines()) <= 3
