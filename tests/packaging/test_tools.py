"""Versions and commands that stand in several files are the same: hooks, workflows, templates, citation, constraints."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import policygrad as pg
from policygrad.cli.lists import TABLES

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
UNTRUSTED = re.compile(r"\$\{\{[^}]*(github\.(event|head_ref)|inputs\.)[^}]*\}\}")  # what strangers write


def pins() -> dict[str, str]:
    """The versions in constraints.txt, by names as PyPI compares them."""
    lines = re.findall(r"^([\w.-]+)==([^;\s]+)", (ROOT / "constraints.txt").read_text("utf8"), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in lines}


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text("utf8"))


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_hooks_are_of_the_versions_that_are_tested():
    hooks = [hook for repo in load(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    used = [word.split("==") for hook in hooks for word in hook.get("additional_dependencies", [])]
    assert {name for name, _ in used} == {"ruff", "pre-commit-hooks"}
    assert all(pins()[name] == version for name, version in used)
    (pyright,) = (hook for hook in hooks if hook["id"] == "pyright")
    assert pyright["language"] == "system"  # that of the environment, which constraints.txt pins
    assert "pyright" in pins()


def test_the_tools_of_contributors_are_pinned():
    names = [re.split(r"[>=<\[]", word)[0] for word in PROJECT["optional-dependencies"]["dev"]]
    assert {"ruff", "pyright", "pre-commit", "build"} <= set(names)
    assert set(names) <= set(pins())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_bounded_and_runs_nothing_that_strangers_write(path):
    workflow = load(path)
    assert set(workflow[True]) <= {"push", "pull_request", "schedule", "workflow_dispatch"}  # YAML reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 360 for job in workflow["jobs"].values())
    assert all(("run" in step) != ("uses" in step) for step in steps(workflow))
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps(workflow) if "uses" in step)
    assert not [step for step in steps(workflow) if UNTRUSTED.search(step.get("run", ""))]


def test_text_of_strangers_in_a_command_is_noticed():
    assert UNTRUSTED.search("echo ${{ github.event.issue.title }}")
    assert UNTRUSTED.search("pytest ${{ inputs.seed }}")
    assert not UNTRUSTED.search("pytest -m '${{ matrix.tests }}'")


def test_workflows_install_the_pytorch_that_is_pinned():
    named = [x for path in WORKFLOWS for x in re.findall(r"torch==([\d.]+)\+cpu", path.read_text("utf8"))]
    assert named
    assert set(named) == {pins()["torch"]}


def test_the_tests_run_on_every_python_that_is_announced_and_on_three_systems():
    matrix = load(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["fast"]["strategy"]["matrix"]
    said = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert matrix["python"] == said
    assert PROJECT["requires-python"] == f">={said[0]}"
    assert [name.split("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_nightly_examples_are_random_and_their_seed_is_printed():
    workflow = load(ROOT / ".github" / "workflows" / "nightly.yml")
    assert workflow["env"]["POLICYGRAD_EXAMPLES"] == "random"  # a profile of tests/conftest.py
    commands = "\n".join(step.get("run", "") for step in steps(workflow))
    assert '--hypothesis-seed="$SEED"' in commands
    assert re.search(r"echo .*--hypothesis-seed=\$seed .*GITHUB_STEP_SUMMARY", commands)


def test_the_citation_names_this_version():
    said = load(ROOT / "CITATION.cff")
    assert said["version"] == PROJECT["version"] == pg.__version__
    assert said["license"] == PROJECT["license"]


def test_the_form_for_bugs_asks_for_a_command_that_there_is():
    form = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text("utf8")
    (what,) = re.findall(r"`policygrad list (\w+)`", form)
    assert what in TABLES


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda p: p.stem)
def test_a_form_has_what_github_asks_for(path):
    form = load(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in fields}) == len(fields)
    assert any(part.get("validations", {}).get("required") for part in fields)
