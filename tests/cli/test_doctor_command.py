"""`policygrad doctor`: its words, its exit codes, and its JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from policygrad.cli import main
from policygrad.stored.directory import RunDirectory
from policygrad.training.probing import probe_run

TRAIN = ["train", "ppo", "CartPole-v1", "--steps", "2048", "--eval-episodes", "2", "--hidden", "8", "-q", "--run-dir"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of 2 % of the preset's steps."""
    path = tmp_path_factory.mktemp("doctor") / "runs" / "CartPole-v1" / "ppo" / "seed0-short"
    assert main([*TRAIN, str(path)]) == 0
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_healthy_environment_ends_with_0(capsys):
    assert main(["doctor", "CartPole-v1", "--steps", "1000"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("CartPole-v1: 1,000 steps and ")
    assert lines[1].startswith("No symptom, by ")


def test_a_symptom_ends_with_1_and_json_is_the_same(capsys):
    words = ["doctor", "MountainCar-v0", "dqn", "--steps", "400"]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "?  observation scale: maybe: " in out
    assert "   try: " in out
    assert main([*words, "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [symptom["rule"] for symptom in printed["symptoms"]] == ["observation scale"]
    assert printed["symptoms"][0]["advice"] in " ".join(out.split())
    assert printed["healthy"] is False


def test_keywords_and_wrappers_of_the_environment_are_used(capsys):
    wrapper = "gymnasium.wrappers:FlattenObservation"
    words = ["doctor", "FrozenLake-v1", "--steps", "400", "--env-kwargs", "is_slippery=false", "--wrapper", wrapper]
    assert main([*words, "--json"]) in (0, 1)
    assert "contract" in json.loads(capsys.readouterr().out)["healthy_rules"]


@pytest.mark.parametrize("name", ["path", "model", "prefix", "latest"])
def test_a_run_is_found_by_its_path_its_model_its_name_and_as_the_latest(name, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained.parents[3])
    words = {
        "path": trained,
        "model": trained / "policy.safetensors",
        "prefix": "CartPole-v1/ppo/seed0",
        "latest": "latest",
    }
    assert main(["doctor", str(words[name])]) == 1
    out = capsys.readouterr().out
    assert "ppo on CartPole-v1" in out
    assert "short run: maybe: 2.05k steps were asked for, and the tuned preset has 100k" in " ".join(out.split())


def test_a_directory_of_the_name_of_an_environment_is_no_run(trained, capsys):
    shutil.copytree(trained.parents[1], "CartPole-v1")
    assert main(["doctor", "CartPole-v1", "--steps", "300", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["subject"].startswith("CartPole-v1: 300 steps")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nothing-like-it"], "neither a run nor an environment"),
        (["CartPole-v1", "pppo"], "pppo"),
        (["CartPole-v1", "--steps", "5"], "--steps = 5 must be at least 100"),
        (["CartPole-v1", "--epochs", "5"], "doctor has no flag --epochs"),
        ([], "required"),
    ],
)
def test_mistakes_end_with_2(words, text, capsys):
    assert main(["doctor", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert len(err.splitlines()) <= 3


def test_an_algorithm_is_for_environments(trained, capsys):
    assert main(["doctor", str(trained), "ppo"]) == 2
    assert "leave them out" in capsys.readouterr().err


def test_help_says_the_exit_codes(capsys):
    assert main(["doctor", "--help"]) == 0
    assert "exit code is 0 where nothing was found, 1 where something was" in " ".join(capsys.readouterr().out.split())


def test_probes_come_first_with_the_settings_of_the_run(trained, capsys):
    assert main(["doctor", str(trained), "--probes", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["subject"].startswith(str(trained))
    assert found["healthy_rules"][:5] == [
        f"probe of {each}" for each in ("value", "observation", "discount", "action", "both")
    ]
    assert "short run" in [symptom["rule"] for symptom in found["symptoms"]]


def test_a_recipe_from_elsewhere_is_not_probed(tmp_path, trained):
    path = tmp_path / "run"
    shutil.copytree(trained, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"algo": "os:system"}))
    found = probe_run(RunDirectory(path))
    assert set(found.silent.values()) == {"the recipe is not of the package: policygrad.probe(recipe) tries it"}
