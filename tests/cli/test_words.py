"""What the command line says: of the length of training, of foreign words, of names that nearly exist."""

from __future__ import annotations

import inspect
import io
import json
import re
import warnings
from typing import get_args

import gymnasium as gym
import pytest

import policygrad as pg
from policygrad.algorithms.config import parameters
from policygrad.algorithms.foreign import COLUMNS, SWITCHED_OFF, VALUES, answer
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli import COMMANDS, foreign_words, main, warning_lines
from policygrad.cli.flags import LISTS
from policygrad.cli.reports import length
from policygrad.lab.auditing.page import bias_text
from policygrad.stored.directory import RunDirectory
from policygrad.stored.sources import at_hand, folder_name, same_source
from policygrad.training import functions
from policygrad.training.progress import Lines

WHOLE = "trains whole iterations"


@pytest.mark.parametrize(
    ("steps", "envs", "num_steps", "says"),
    [
        (4000, 8, 256, f"4,000 steps ({WHOLE} of 2,048 steps, of which 1 fits; --num-steps 250 would use all 4,000)"),
        (2000, 8, 256, "2,000 steps (trains one whole iteration of 2,048 steps)"),
        (2048, 8, 256, "2,048 steps"),
        (100_000, 8, 256, "100,000 steps"),  # 98,304, which is 1.7 % less
        (6100, 8, 256, f"6,100 steps ({WHOLE} of 2,048 steps, of which 2 fit; --num-steps 254 would use 6,096)"),
        (3, 2, 1, "3 steps (trains whole iterations of 2 steps, of which 1 fits)"),  # none is shorter
    ],
)  # fmt: skip
def test_steps_that_whole_iterations_leave_out_are_said_with_a_number_that_takes_them(steps, envs, num_steps, says):
    assert length({"steps": steps, "num_envs": envs, "num_steps": num_steps}, num_steps) == says
    advised = re.search(r"--num-steps (\d+) would use .*?([\d,]+)\)", says)
    if advised:  # the advice is true: whole iterations of so many steps fit, and nothing more is left out than it says
        size = int(advised[1]) * envs
        assert steps // size * size == int(advised[2].replace(",", ""))
        assert (
            length({"steps": steps, "num_envs": envs, "num_steps": int(advised[1])}, int(advised[1]))
            == f"{steps:,} steps"
        )


def test_a_training_that_left_steps_out_does_not_look_broken_off(tmp_path, capsys):
    words = ["ppo", "CartPole-v1", "--steps", "200", "--num-envs", "4", "--num-steps", "32", "--eval-episodes", "1"]
    assert main(["train", *words, "--run-dir", str(tmp_path / "a")]) == 0
    first, _, bar, last, *_ = capsys.readouterr().out.splitlines()
    assert (
        "200 steps (trains whole iterations of 128 steps, of which 1 fits; --num-steps 25 would use all 200)" in first
    )
    done = int(last.partition(" ")[0])
    assert bar.startswith(f"100 %  {done} of {done} steps")
    assert done < 128  # resets are not counted
    assert "another iteration of 128 would exceed 200; a step that only resets an environment is not counted" in last


def test_one_iteration_that_is_more_than_was_asked_for_says_what_is_not_counted(tmp_path, capsys):
    words = ["ppo", "CartPole-v1", "--steps", "100", "--num-envs", "4", "--num-steps", "32", "--eval-episodes", "1"]
    assert main(["train", *words, "--run-dir", str(tmp_path / "a")]) == 0
    last = capsys.readouterr().out.splitlines()[3]
    done = int(last.partition(" ")[0])
    assert (f"(the other {128 - done} of the iteration only reset an environment)" in last) == (done < 100)


def test_lines_end_with_all_there_is_where_no_other_iteration_fits():
    lines = Lines(stream := io.StringIO())
    lines.start(2048)
    lines.update(1984, 1.0, None)
    lines.finish(1984)
    lines.update(1984, 1.0, None)
    assert [line[:24] for line in stream.getvalue().splitlines()] == [
        " 96 %  1,984 of 2,048 st",
        "100 %  1,984 of 1,984 st",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train ppo CartPole-v1 --anneal-lr", "train ppo has no flag --anneal-lr: use --lr-schedule linear."),
        ("train ppo CartPole-v1 --no-anneal-lr", "use --lr-schedule constant."),
        ("train ppo CartPole-v1 --anneal_lr=False", "use --lr-schedule constant."),
        ("train ppo --anneal-lr False CartPole-v1", "use --lr-schedule constant."),
        ("train ppo CartPole-v1 --cuda True", "train ppo has no flag --cuda: use --device cuda."),
        ("train ppo --cuda False", "train ppo has no flag --cuda: use --device cpu"),  # False is no environment
        ("train ppo --track", "train ppo has no flag --track: use --wandb"),
        ("train ppo CartPole-v1 --track", "train ppo has no flag --track: use --wandb"),
        ("train ppo CartPole-v1 --exp-name e", "use --name NAME"),
        ("train ppo CartPole-v1 --dt", "hold seed and time"),
        ("train --load RUN", "use `policygrad resume RUN`"),
        ("train ppo CartPole-v1 --resume somewhere", "`policygrad resume RUN` continues"),
        ("train ppo CartPole-v1 --resume .", "`policygrad resume .` continues"),
        ("record latest", "Use `policygrad video RUN`: record"),
        ("enjoy latest", "Use `policygrad watch RUN`"),
        ("Evaluate latest", "Use `policygrad eval RUN`"),
        ("ppo CartPole-v1", "Use `policygrad train ALGO ENV`"),
        ("optimize ppo", "Use `policygrad tune ALGO ENV`: search"),
        ("trian ppo", "Did you mean 'train'?"),
        ("help bogus", "there is no command 'bogus'. Available: train"),
        ("eval latest --norender", "eval has no flag --norender: nothing is drawn"),
        ("plot latest --value Performance", "use --metric COL"),
        ("watch latest --stochastic", "use --sampled"),
        ("train reinforce CartPole-v1 --baseline V", "Did you mean 'value'?"),
        ("train reinforce CartPole-v1 --baseline loo", "Did you mean 'leave-one-out'?"),
        ("train reinforce CartPole-v1 --baseline bogus", "is not one of: value, leave-one-out"),
        ("lab audit --mdp Chain", "did you mean 'chain'?"),
        ("train ppo CartPole", "Did you mean 'CartPole-v1'?"),
    ],
)
def test_words_of_others_are_answered_with_ours(words, says, capsys):
    assert main(words.split()) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""


def test_help_of_a_command_and_lists_by_other_names(capsys):
    for words in (["help", "train"], ["train", "--help"], ["--help", "train"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("usage: policygrad train ALGO ENV [flags]")
    for asked, ours in (
        ("environments", "envs"),
        ("ALGOS", "algorithms"),
        ("models", "policies"),
        ("info", "versions"),
        ("columns", "metrics"),
    ):
        assert main(["list", asked]) == 0
        said = capsys.readouterr().out
        assert main(["list", ours]) == 0
        assert capsys.readouterr().out == said


def test_what_is_answered_exists():
    """Commands, lists, values and columns that an answer names, and no word of ours is answered as if it were another's."""
    assert set(foreign_words.COMMANDS.values()) <= set(COMMANDS)
    assert not set(foreign_words.COMMANDS) & set(COMMANDS)
    assert set(foreign_words.LISTS.values()) <= set(LISTS)
    kinds = {name: get_args(kind) for algo in RECIPES for name, (kind, _) in parameters(algo).items()}
    for name, meant in VALUES.items():
        assert set(meant.values()) <= set(kinds[name])
        assert not set(meant) & set(kinds[name])
    assert all(answer(word) is not None for word in SWITCHED_OFF)
    with pytest.raises(pg.PolicygradError, match='lr_schedule="constant"'):
        pg.ppo("CartPole-v1", anneal_lr=False)
    with pytest.raises(pg.PolicygradError, match='lr_schedule="linear"'):
        pg.ppo("CartPole-v1", anneal_lr=True)


METRICS = {
    "Kl": "kl", "return": "return_mean", "performance": "return_mean", "AverageEpRet": "return_mean",
    "ep_rew_mean": "return_mean", "approx-kl": "kl", "LossV": "value_loss",
}  # fmt: skip


def test_metrics_and_hyperparameters_of_a_plot_are_suggested(tmp_path, capsys):
    words = [
        "train",
        "ppo",
        "CartPole-v1",
        "--steps",
        "64",
        "--num-envs",
        "2",
        "--num-steps",
        "32",
        "--eval-episodes",
        "1",
    ]
    run = tmp_path / "run"
    assert main([*words, "--run-dir", str(run), "-q"]) == 0
    columns = set().union(*RunDirectory(run).metrics())
    assert set(COLUMNS.values()) - columns == set()
    for asked, ours in METRICS.items():
        assert main(["plot", str(run), "--metric", asked]) == 2
        assert capsys.readouterr().err.rstrip().endswith(f"did you mean {ours}?")
    assert main(["plot", str(run), "--by", "learning_rate"]) == 2
    assert "did you mean lr?" in capsys.readouterr().err
    assert main(["plot", str(run), "--metric", "bogus"]) == 2
    assert "there are: " in capsys.readouterr().err


TANKS = """
import gymnasium as gym
import numpy as np

class Tank(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    def __init__(self, length=5):
        self.length = length
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, self.t == self.length, False, {}

def helper():
    return None
"""
SHORT = ["--steps", "32", "--num-envs", "2", "--num-steps", "16", "--eval-episodes", "2", "-q"]


def test_a_run_of_an_environment_in_a_file_is_seen_and_is_played_from_another_folder(tmp_path, monkeypatch, capsys):
    here, other = tmp_path / "here", tmp_path / "other"
    here.mkdir()
    other.mkdir()
    (here / "tanks.py").write_text(TANKS)
    monkeypatch.chdir(here)
    assert main(["train", "a2c", "./tanks.py:Tank", *SHORT, "--env-kwargs", "length=7"]) == 0
    (run,) = here.glob("runs/tanks-Tank/a2c/*")
    assert RunDirectory(run).config()["files"] == {"./tanks.py": str(here / "tanks.py")}
    assert main(["eval", str(run)]) == 2
    assert capsys.readouterr().err.rstrip().endswith("--env ./tanks.py:Tank")  # which is there
    monkeypatch.chdir(other)
    for command in ("eval", "resume", "video", "collect"):
        assert main([command, str(run)]) == 2
        assert capsys.readouterr().err.rstrip().endswith(f"policygrad {command} {run} --env {here}/tanks.py:Tank")
    assert main(["eval", str(run), "--env", f"{here}/tanks.py:Tank", "--episodes", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sampled"]["returns"] == [7.0, 7.0]  # it is the environment of the run, with its keywords
    (here / "tanks.py").rename(here / "gone.py")
    assert main(["eval", str(run)]) == 2
    assert capsys.readouterr().err.rstrip().endswith("--env ./tanks.py:Tank")  # nothing better is known


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ("tanks.py", "It has: Tank; give tanks.py:Tank."),
        ("tanks.py:", "It has: Tank, helper; give tanks.py:Tank"),
        ("./tank.py:Tank", "did you mean tanks.py?"),
        (".\\tanks.py:Tank", "paths have / here, give tanks.py"),
        ("other.py", "there is no file"),
        ("tanks:", "expected module:name or file.py:name"),
    ],
)
def test_a_file_without_a_class_and_paths_that_are_nearly_right(env, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "tanks.py").write_text(TANKS)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ppo", env]) == 2
    assert says in capsys.readouterr().err


def test_names_of_directories_are_those_of_before_but_for_files():
    names = {"CartPole-v1": "CartPole-v1", "ALE/Pong-v5": "ALE-Pong-v5", "pkg.envs:Mine-v0": "pkg.envs-Mine-v0"}
    names |= {"./envs.py:Tank": "envs-Tank", "/a/b/envs.py:Tank": "envs-Tank", "envs:Tank": "envs-Tank"}
    assert {name: folder_name(name) for name in names} == names
    assert same_source("./envs.py:Tank", "/a/envs.py:Tank")
    assert not same_source("./envs.py:Tank", "/a/envs.py:Tank2")
    assert not same_source("CartPole-v1", "CartPole-v0")
    assert at_hand("envs.py:Tank", {"envs.py": 3}) == at_hand("envs.py:Tank", None) == "envs.py:Tank"  # damaged


def test_atari_games_are_near_without_their_namespace(capsys):
    pytest.importorskip("ale_py")
    for asked, ours in (("Breakout", "ALE/Breakout-v5"), ("BreakoutNoFrameskip", "BreakoutNoFrameskip-v4")):
        assert main(["train", "ppo", asked]) == 2
        assert f"Did you mean '{ours}'?" in capsys.readouterr().err


def test_warnings_of_gymnasium_have_no_colours_and_come_once():
    line = warning_lines()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gym.make("CartPole-v0")
    said = [line(warning.message) for warning in caught]
    assert any("\x1b" in str(warning.message) for warning in caught)  # as Gymnasium says it
    assert said[0].startswith("policygrad: The environment CartPole-v0 is out of date.")
    assert not [text for text in said if "\x1b" in text or "WARN" in text]
    assert line(caught[0].message) == ""  # every environment of a training says it again
    assert line("another one") == "policygrad: another one\n"


def test_every_function_says_what_its_keywords_mean_and_has_none_that_it_refuses():
    shared = set(inspect.signature(pg.Agent).parameters) - {"algo", "overrides"}
    assert set(functions.KEYWORDS) == shared
    for name in RECIPES:
        function = getattr(pg, name)
        keywords = set(inspect.signature(function).parameters)
        assert {name for name in keywords if f"    {name}: " not in function.__doc__} == set()
        assert ("dataset" in keywords) == (name == "off_policy_pg")
        assert "`--" not in function.__doc__  # the command line's words
    assert "0x" not in str(inspect.signature(pg.Every))


def test_the_audit_says_in_whole_sentences_what_is_biased():
    assert bias_text(10, 0, 10) == "No row is proved unbiased; tests found no bias in any of the 10."
    assert bias_text(10, 0, 7) == "No row is proved unbiased; tests found no bias in 7 of 10; a bias is shown in 3."
    assert bias_text(10, 10, 0) == "10 of 10 rows are proved unbiased."
    assert (
        bias_text(10, 3, 4)
        == "3 of 10 rows are proved unbiased; tests found no bias in another 4; a bias is shown in 3."
    )
