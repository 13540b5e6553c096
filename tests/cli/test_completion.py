"""Completion scripts, run by their shells."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from policygrad.algorithms.config import parameters, tuned_for
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli import COMMANDS, main

BASH = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_shtab_policygrad
printf '%s\\n' "${COMPREPLY[@]}"
"""
RUN = "CartPole-v1/ppo/seed0-20260101-000000"


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """A function shell → the file of its script, in a directory with a run."""
    monkeypatch.chdir(tmp_path)
    for name in (RUN, "mine"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("")

    def written(shell: str) -> Path:
        assert main(["completion", shell]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert not re.search(r"@\w+@", out)
        path = tmp_path / f"script.{shell}"
        path.write_text(out)
        return path

    return written


def bash(path: Path, line: str) -> list[str]:
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", str(path), "policygrad", *line.split(" ")],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def fish(path: Path, line: str) -> list[str]:
    done = subprocess.run(
        ["fish", "-N", "-c", f"source {path}; complete -C 'policygrad {line}'"],
        capture_output=True,
        text=True,
        env={"HOME": str(path.parent), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


FLAGS = {"a2c": "--num-envs", "actor_critic": "--critic", "ppo": "--clip", "reinforce": "--returns"}
LINES = [
    ("", [*COMMANDS]),
    ("tr", ["train"]),
    ("train ", [*RECIPES]),
    ("train pp", ["ppo"]),
    *((f"train {algo} ", tuned_for(algo)) for algo in RECIPES),
    ("train ppo Lun", [env for env in tuned_for("ppo") if env.startswith("Lun")]),
    *((f"train {algo} CartPole-v1 {flag[:-1]}", [flag]) for algo, flag in FLAGS.items()),
    ("train a2c CartPole-v1 --cl", []),
    ("train ppo CartPole-v1 --activation ", ["tanh", "relu", "silu"]),
    ("train ppo CartPole-v1 --activation r", ["relu"]),
    ("train ppo CartPole-v1 --backend e", ["envpool"]),
    ("train ppo CartPole-v1 --lr ", []),
    ("eval ", ["latest", RUN, "mine"]),
    ("eval Cart", [RUN]),
    ("collect Cart", [RUN]),
    ("export Cart", [RUN]),
    ("export mine --format ", ["onnx", "torchscript", "numpy"]),
    ("report Cart", [RUN]),
    ("report mine --eig", ["--eigenvalues"]),
    ("watch m", ["mine"]),
    ("video --ep", ["--episodes"]),
    ("plot --by ", ["config", "algo"]),
    ("lab ", ["steps"]),
    ("lab steps Cart", [RUN]),
    ("lab steps --ma", ["--max-kl"]),
    ("lab steps --mdp Fr", ["FrozenLake-v1", "FrozenLake8x8-v1"]),
    ("list ", ["presets", "algorithms", "envs", "policies"]),
    ("completion ", ["bash", "zsh", "fish"]),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_algorithms_environments_flags_values_and_runs(script):
    path = script("bash")
    for line, expected in LINES:
        assert set(bash(path, line)) >= set(expected), line
        assert bool(bash(path, line)) == bool(expected), line
    assert set(bash(path, "train ppo CartPole-v1 ")) == set()  # an environment is there
    assert bash(path, "eval mod") == ["model.safetensors"]
    assert bash(path, "train ppo CartPole-v1 --run-dir ru") == ["runs"]
    flags = set(bash(path, "train ppo CartPole-v1 -"))
    assert {f"--{name.replace('_', '-')}" for name in parameters("ppo")} <= flags
    assert {"--seed", "--jobs", "--quiet", "-q", "--gae-lambda", "--no-normalize-obs"} <= flags
    assert not {"--returns", "--normalize-advantage"} & flags


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_press_of_the_tab_key_takes_under_a_tenth_of_a_second(script):
    path = script("bash")
    for number in range(200):
        (Path("runs") / f"run{number}").mkdir()
        (Path("runs") / f"run{number}" / "config.json").touch()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        assert len(bash(path, "eval run")) == 200
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.1


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes_the_same(script):
    path = script("fish")
    for line, expected in LINES:
        assert set(fish(path, line)) >= set(expected), line
    assert "--returns" not in fish(path, "train ppo CartPole-v1 --r")


ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D; eval \"\$(<$1)\"; print -r READ''Y"
zpty -r -m shell line '*READY*'
zpty -w -n shell $'policygrad '$2$'\t'
sleep 1
while zpty -r -t shell line; do print -r -- $line; done
zpty -d shell
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("compl", "completion"),
        ("train ppo Cart", "CartPole-v1"),
        ("eval Cart", RUN),
        ("train a2c CartPole-v1 --gam", "--gamma"),
    ],
)
def test_zsh_completes_them_too(script, line, expected):
    done = subprocess.run(["zsh", "-f", "-c", ZSH, "zsh", str(script("zsh")), line], capture_output=True, text=True)
    rest = expected.removeprefix(line.rpartition(" ")[2])  # what was typed may be left as it is
    assert rest in done.stdout.replace("\r", ""), done.stdout
