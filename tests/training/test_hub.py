"""Runs on the Hugging Face hub: what is uploaded, the card, what is downloaded. The hub is a folder of this test."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import policygrad as pg
from policygrad.cli import main
from policygrad.stored.directory import RunDirectory
from policygrad.training.hub import FILES, HubError, model_card, pull, push

REPO = "me/pole"


@dataclass
class Added:
    path_in_repo: str
    path_or_fileobj: bytes


class Hub(ModuleType):
    """As much of huggingface_hub as is used, on a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.CommitOperationAdd, self.HfApi = folder, Added, lambda: self
        self.told: list[Any] = []

    def create_repo(self, repo_id: str, **keywords: Any) -> None:
        self.told.append((repo_id, keywords))
        (self.folder / repo_id).mkdir(parents=True, exist_ok=keywords["exist_ok"])

    def create_commit(self, repo_id: str, operations: list[Added], commit_message: str, **_: Any) -> None:
        self.told.append(commit_message)
        for each in operations:
            (self.folder / repo_id / each.path_in_repo).write_bytes(each.path_or_fileobj)

    def snapshot_download(self, repo_id: str, local_dir: str, allow_patterns: list[str], revision: str | None) -> None:
        self.told.append(revision)
        if not (self.folder / repo_id).exists():
            raise OSError(f"404: {repo_id}\nmore lines")
        Path(local_dir).mkdir(parents=True)
        for name in allow_patterns:
            if (self.folder / repo_id / name).exists():
                shutil.copy(self.folder / repo_id / name, local_dir)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    agent = pg.ppo(
        "CartPole-v1", num_envs=1, num_steps=16, minibatches=1, hidden=(4,), steps=64, clip=pg.linear(0.3, 0.1)
    )
    return pg.train(agent, tmp_path_factory.mktemp("hub") / "run", episodes=5)


def test_a_run_comes_back_as_it_was_and_says_nothing_of_the_machine(hub, run, tmp_path) -> None:
    assert push(run, REPO, private=True) == "https://huggingface.co/me/pole"
    assert hub.told == [
        (REPO, {"repo_type": "model", "private": True, "exist_ok": True}),
        "ppo on CartPole-v1, seed 0",
    ]
    there = {path.name for path in (hub.folder / REPO).iterdir()}
    assert there == {*FILES, "README.md"}
    config = json.loads((hub.folder / REPO / "config.json").read_text())
    assert not {"command", "machine"} & set(config)
    (hub.folder / REPO / "evil.py").write_text("raise SystemExit")
    back = pull(REPO, tmp_path / "back", revision="v1")
    assert hub.told[-1] == "v1"
    assert sorted(path.name for path in back.path.iterdir()) == sorted(FILES)
    one, other = pg.load(run.path), pg.load(back.path)
    assert one.policy.flat.tolist() == other.policy.flat.tolist()
    assert back.evaluation() == run.evaluation()


def test_the_card_is_made_from_the_run(run) -> None:
    card = model_card(run, REPO)
    front, _, body = card.removeprefix("---\n").partition("---\n")
    evaluation = run.evaluation()
    assert evaluation is not None
    yaml = pytest.importorskip("yaml")
    heading = yaml.safe_load(front)
    assert heading["tags"][:2] == ["CartPole-v1", "ppo"]
    metric = heading["model-index"][0]["results"][0]["metrics"][0]
    assert metric["value"] == f"{evaluation['greedy']['mean']:.2f} +/- {evaluation['greedy']['std']:.2f}"
    low, high = evaluation["sampled"]["ci95"]
    assert f"| sampled | {evaluation['sampled']['mean']:.1f} | [{low:.1f}, {high:.1f}] | 5 |" in body
    assert "mean return of this policy" in body
    assert "| clip | linear(0.3, 0.1) |" in body
    assert "64 environment steps, seed 0" in body
    assert f"policygrad pull {REPO}" in body


def test_names_in_the_card_cannot_break_it(run, tmp_path) -> None:
    copy = shutil.copytree(run.path, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["env"] = 'x": - evil: true | `#'
    config["config"]["activation"] = "tanh | relu"
    (copy / "config.json").write_text(json.dumps(config))
    yaml = pytest.importorskip("yaml")
    card = model_card(RunDirectory(copy), REPO)
    heading = yaml.safe_load(card.split("---\n")[1])
    assert all(isinstance(tag, str) for tag in heading["tags"])
    assert "tanh \\| relu" in card


def test_what_cannot_be_is_one_sentence(hub, run, tmp_path) -> None:
    for repo in ("pole", "a/b/c", "../x", "a/..", "a b/c", ""):
        with pytest.raises(HubError, match="a repository is OWNER/NAME"):
            push(run, repo)
    with pytest.raises(HubError, match=r"^downloading me/none failed: 404: me/none$"):
        pull("me/none", tmp_path / "new")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(HubError, match="is there already"):
        pull(REPO, tmp_path / "full")
    hub.create_repo("me/empty", exist_ok=True)
    with pytest.raises(HubError, match="holds no run of policygrad"):
        pull("me/empty", tmp_path / "empty")
    unfinished = shutil.copytree(run.path, tmp_path / "unfinished")
    (unfinished / "policy.safetensors").unlink()
    with pytest.raises(HubError, match="training has not ended"):
        push(RunDirectory(unfinished), REPO)


def test_the_command_line_pushes_and_pulls(hub, run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["push", str(run.path), REPO]) == 0
    assert capsys.readouterr().out == "https://huggingface.co/me/pole\n"
    assert main(["pull", REPO]) == 0
    assert capsys.readouterr().out == "runs/hub/me/pole\n"
    assert main(["eval", "runs/hub/me/pole", "--episodes", "2"]) == 0
    assert main(["push", str(run.path), "pole"]) == 2
    assert "OWNER/NAME" in capsys.readouterr().err
