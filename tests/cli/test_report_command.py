"""`policygrad report`, and `train --fisher-eigenvalues`: from the words to the files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from policygrad.cli import main
from policygrad.cli.arguments import parse_train
from policygrad.cli.training import make_jobs
from policygrad.stored.directory import RunDirectory
from policygrad.training.agent import Agent

SMALL = ["--steps", "1024", "--num-envs", "2", "--num-steps", "64", "--eval-episodes", "2", "--hidden", "8"]
TRAIN = ["train", "trpo", "CartPole-v1", *SMALL, "-q", "--run-dir"]
TIMES = ("seconds", "steps_per_second")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Where `runs` has a run without eigenvalues and one with them."""
    root = tmp_path_factory.mktemp("reports")
    runs = root / "runs" / "CartPole-v1" / "trpo"
    assert main([*TRAIN, str(runs / "seed0-plain")]) == 0
    assert main([*TRAIN, str(runs / "seed0-fisher"), "--fisher-eigenvalues", "2"]) == 0
    return root


def test_a_report_is_words_and_a_picture(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert main(["report", "seed0-plain"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("TRPO on CartPole-v1, seed 0: 8 measured updates, ")
    assert lines[-1] == "picture runs/CartPole-v1/trpo/seed0-plain/report.png"
    names = [line[3:].partition(":")[0] for line in lines[3:-2]]
    assert names[:4] == ["rejected steps", "surrogate and return", "linear model", "KL model"]
    image = imread("runs/CartPole-v1/trpo/seed0-plain/report.png")
    assert min(image.shape[:2]) > 1000
    assert image[..., :3].std() > 0.05  # not blank
    Path("runs/CartPole-v1/trpo/seed0-plain/report.png").unlink()


def test_a_model_file_stands_for_its_run_and_the_picture_goes_where_it_is_asked_for(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    model = "runs/CartPole-v1/trpo/seed0-plain/policy.safetensors"
    assert main(["report", model, "--out", "pictures/x.svg"]) == 0
    assert capsys.readouterr().out.endswith("picture pictures/x.svg\n")
    assert "<svg" in Path("pictures/x.svg").read_text()
    assert not Path("runs/CartPole-v1/trpo/seed0-plain/report.png").exists()


def test_json_holds_the_same_findings_and_draws_nothing(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert main(["report", "seed0-fisher", "--json", "--eigenvalues", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["algo"], printed["env"], printed["seed"], printed["measured"]) == ("trpo", "CartPole-v1", 0, 8)
    values = printed["findings"]["Fisher eigenvalues"]["numbers"]["values"]
    assert values == sorted(values, reverse=True)
    assert len(values) == 3
    assert printed["findings"]["Fisher matrix"]["mark"] == "ok"
    assert not Path("runs/CartPole-v1/trpo/seed0-fisher/report.png").exists()


def test_eigenvalues_on_request_are_in_every_row_and_change_no_bit(trained):
    plain, fisher = (RunDirectory(trained / "runs/CartPole-v1/trpo" / name) for name in ("seed0-plain", "seed0-fisher"))
    assert (plain.config()["fisher_eigenvalues"], fisher.config()["fisher_eigenvalues"]) == (0, 2)
    assert plain.policy_file.read_bytes() == fisher.policy_file.read_bytes()
    assert plain.evaluation_file.read_bytes() == fisher.evaluation_file.read_bytes()
    for a, b in zip(plain.metrics(), fisher.metrics(), strict=True):
        first, second = b.pop("fisher_1"), b.pop("fisher_2")
        assert first >= second > 0.0  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
        assert {k: v for k, v in a.items() if k not in TIMES} == {k: v for k, v in b.items() if k not in TIMES}


def test_jobs_of_several_seeds_have_them_too(tmp_path):
    words = [*TRAIN[1:], str(tmp_path / "several"), "--seed", "0", "1", "--fisher-eigenvalues", "1"]
    for seed, job in enumerate(make_jobs(parse_train(words), [])):
        assert Agent(job.algo, job.env, seed=seed, **job.keywords).fisher_eigenvalues == 1
    assert "fisher_eigenvalues" not in parse_train(TRAIN[1:-1]).keywords


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        ("report", ["RUN"]),
        ("report nothing", ["'nothing'", "CartPole-v1/trpo/seed0-fisher"]),
        ("report runs", ["directory of runs", "one of its 2", "seed0-fisher"]),
        ("report seed0-plain --out x.gif", ["'x.gif'", ".png, .pdf, .svg"]),
        ("report seed0-plain --eigenvalues -1", ["--eigenvalues = -1 must be in [0, 100]"]),
        ("report seed0-plain --eigenvalues 1000000", ["--eigenvalues = 1000000 must be in [0, 100]"]),
        (
            "report seed0-plain --env CartPole-v1",
            ["--env", "give --eigenvalues"],
        ),
        ("report seed0-plain --eigenvalues many", ["--eigenvalues", "'many'", "whole number"]),
        ("report seed0-plain --eigenvalues 2 --env Pendulum-v1", ["observation_space"]),
        ("report seed0-plain --env Pendulm-v1 --eigenvalues 2", ["Did you mean 'Pendulum-v1'"]),
        ("report bare", ["bare", "config.json"]),
        ("report begun", ["no row of metrics yet"]),
        ("report unfinished --eigenvalues 2", ["stopped before its first checkpoint"]),
        ("report damaged", ["metrics.jsonl, line 1"]),
        ("train trpo CartPole-v1 --fisher-eigenvalues -2", ["--fisher-eigenvalues = -2", "at least 0"]),
    ],
)
def test_mistakes_get_a_message(words, hints, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    run = RunDirectory(trained / "runs/CartPole-v1/trpo/seed0-plain")
    for name, metrics in (
        ("bare", None),
        ("begun", ""),
        ("unfinished", run.metrics_file.read_text()),
        ("damaged", "x\n"),
    ):
        Path(name).mkdir(exist_ok=True)
        if metrics is not None:
            Path(name, "metrics.jsonl").write_text(metrics)
            Path(name, "config.json").write_text(run.config_file.read_text())
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert 1 <= len(err.splitlines()) <= 3
    assert not [hint for hint in hints if hint not in err], err


def test_reading_a_run_needs_no_torch_and_no_matplotlib(trained):
    code = (
        "import sys; import policygrad as pg; text = str(pg.report('runs/CartPole-v1/trpo/seed0-plain')); "
        "sys.exit(repr({'torch', 'matplotlib', 'gymnasium', 'scipy'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=trained)
    assert done.stderr.strip() == "0"
