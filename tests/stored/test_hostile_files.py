"""Damaged, forged and malformed files: some of each campaign of benchmarks/survival, and what no campaign shows."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import policygrad as pg
from policygrad.cli import main
from policygrad.files import BadFileError
from policygrad.forms import FormError
from policygrad.gradient.baselines import LinearFeatures, Regressor, TimeAverage
from policygrad.interop.sb3 import EvaluationTable, MonitorFile
from policygrad.models.optim import Adam
from policygrad.stored.directory import RunDirectory, RunError
from policygrad.stored.storage import load_state, open_state, save_state

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def survival() -> Any:
    sys.path.insert(0, BENCHMARKS)
    try:
        from survival import files
    finally:
        sys.path.remove(BENCHMARKS)
    return files


def faults(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(case, outcome) for case, outcome in rows if not outcome.startswith(("refused", "shown"))]


def test_no_damaged_file_is_accepted(survival: Any) -> None:
    rows = survival.corruptions(300, show=False)
    assert len(rows) == 300
    assert faults(rows) == []


def test_no_forged_file_is_accepted_or_takes_memory(survival: Any) -> None:
    rows = survival.forged(show=False)
    assert len(rows) > 200
    assert faults(rows) == []


def test_malformed_json_is_refused_at_once_or_read_as_what_it_is(survival: Any) -> None:
    rows = survival.malformed(show=False, step=5, drawn=False)
    assert len(rows) > 100
    assert faults(rows) == []
    assert any(outcome.startswith("shown") for _, outcome in rows)


@pytest.mark.slow
def test_the_whole_campaigns(survival: Any) -> None:
    assert faults(survival.corruptions(10_000)) == []
    assert faults(survival.malformed()) == []


def test_the_campaign_notices_what_is_accepted_what_crashes_and_what_takes_memory(
    survival: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, checkpoint, stored = survival.samples(tmp_path)
    assert [survival.attempt(path) for path in (policy, checkpoint, stored)] == ["ACCEPTED"] * 3
    with survival.memory() as grown:
        held = np.ones(2**23)
        assert grown() > 2**25 or grown() == 0
    del held
    assert survival.command(["list"]).startswith("shown")
    monkeypatch.setattr(survival, "main", lambda words: 1 / 0)
    assert survival.command(["list"]).startswith("CRASHED")
    monkeypatch.setattr(survival.pg, "load", lambda path: 1 / 0)
    assert survival.attempt(policy).startswith("CRASHED")


def test_a_tensor_that_is_not_expected_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policygrad.stored.states.SMALL", 0)
    path = pg.ppo("CartPole-v1", num_envs=1, hidden=(4,)).save_policy(tmp_path / "policy")
    state, meta = load_state(path)
    assert pg.load(path).policy.flat.isfinite().all()
    state["learner"]["policy"]["more"] = torch.zeros(9)
    save_state(path, state, meta)
    monkeypatch.setattr("policygrad.stored.states.StateFile._tensors", lambda self: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"policy\.safetensors .*state/learner/policy has 'more'"):
        pg.load(path)


def test_a_part_may_check_its_state_itself(tmp_path: Path) -> None:
    save_state(tmp_path / "x", {"own": {"rows": [torch.zeros(3), {"a": 1}]}}, {"a": 1})
    with open_state(tmp_path / "x") as file:
        assert file.tree["own"]["rows"][0].shape == (3,)
        assert torch.equal(file.state()["own"]["rows"][0], torch.zeros(3))


def test_adam_moves_no_parameters_but_those_of_its_moments() -> None:
    adam, params = Adam(), torch.zeros(4000)
    adam.load_state_dict({"t": 1, "m": torch.zeros(3), "v": torch.zeros(3)})  # whose they are, nobody knows yet
    with pytest.raises(FormError, match=r"3 parameters.*4,000"):
        adam.step(params, torch.ones(4000), 0.1)
    with pytest.raises(FormError, match="v must"):
        adam.load_state_dict({"t": 1, "m": torch.zeros(3), "v": -torch.ones(3)})
    fresh = Adam()
    fresh.load_state_dict(Adam().state_dict())
    fresh.step(params, torch.ones(4000), 0.1)
    assert fresh.t == 1


class Mean:
    """The mean, as a model."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.mean = y.mean()

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), self.mean)


DOUBLES = torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("baseline", "state", "token"),
    [
        (TimeAverage(), {"mean": DOUBLES, "weight": DOUBLES[:2]}, "weight"),
        (TimeAverage(), {"mean": DOUBLES, "weight": DOUBLES - 1.0}, "weight"),
        (LinearFeatures(), {"w": DOUBLES.float()}, "float64"),
        (LinearFeatures(), {}, "has no w"),
        (Regressor(Mean()), {"data": [DOUBLES, DOUBLES]}, "data/0"),
        (Regressor(Mean()), {"data": [DOUBLES[:, None], DOUBLES[:2]]}, "data/0"),
    ],
)
def test_a_baseline_takes_no_state_but_its_own(baseline: Any, state: Any, token: str) -> None:
    with pytest.raises(FormError, match=token):
        baseline.load_state_dict(state)


def test_weights_for_other_features_are_named() -> None:
    baseline = LinearFeatures()
    baseline.load_state_dict({"w": DOUBLES})
    with pytest.raises(FormError, match="3 weights for 5 features"):
        baseline._predict(torch.zeros(2, 5, dtype=torch.float64))


def a_run(path: Path) -> RunDirectory:
    sys.path.insert(0, BENCHMARKS)
    try:
        from survival import malformations
    finally:
        sys.path.remove(BENCHMARKS)
    return malformations.a_run(path)


@pytest.mark.parametrize("command", ["plot", "report"])
def test_pictures_replace_links_and_leave_their_targets(command: str, tmp_path: Path) -> None:
    run, victim = a_run(tmp_path / "run"), tmp_path / "victim"
    victim.write_text("mine")
    picture = run.curve_file if command == "plot" else run.report_file
    picture.symlink_to(victim)
    assert main([command, str(run.path)]) == 0
    assert victim.read_text() == "mine"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not picture.is_symlink()


def test_a_run_is_not_written_through_links(tmp_path: Path) -> None:
    run, victim = a_run(tmp_path / "run"), tmp_path / "victim"
    victim.mkdir()
    (run.path / "checkpoints").symlink_to(victim)
    with pytest.raises(BadFileError, match="link"):
        run.save_checkpoint(lambda path: path, 3)
    run.metrics_file.unlink()
    run.metrics_file.symlink_to(victim / "metrics")
    with pytest.raises(BadFileError, match="link"):
        run.append_metrics({"steps": 1})
    assert list(victim.iterdir()) == []


def test_numbers_that_do_not_exist_are_written_as_none(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    run.metrics_file.unlink()
    run.append_metrics({"steps": 1, "a": float("nan"), "b": np.float32("inf"), "c": np.float32(0.5), "d": None})  # pyright: ignore
    assert run.metrics() == [{"steps": 1, "a": None, "b": None, "c": 0.5, "d": None}]
    with pytest.raises(FloatingPointError, match=r"evaluation\.json was not written"):
        run.write_evaluation({"mean": float("nan")})


def test_terminals_are_not_told_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("seed0-\x1b[2Ja", "seed0-\x1b[2Jb"):
        (tmp_path / "runs").mkdir(exist_ok=True)
        a_run(tmp_path / "runs" / name)
    assert main(["report", "seed0", "--runs-root", str(tmp_path / "runs")]) == 2
    assert main(["plot", str(tmp_path / "runs" / "seed0-\x1b[2Ja")]) == 0
    printed = "".join(capsys.readouterr())
    assert r"\x1b[2Ja" in printed
    assert "\x1b" not in printed


def npz(**arrays: Any) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def packed() -> bytes:
    data = io.BytesIO()
    zeros = np.zeros((1000, 1000))
    np.savez_compressed(data, timesteps=zeros[0].astype(int), results=zeros, ep_lengths=zeros.astype(int))
    return data.getvalue()


STEPS, RETURNS, LENGTHS = np.array([1]), np.array([[1.0, 2.0]]), np.array([[3, 4]])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        packed(),
        npz(timesteps=STEPS, results=RETURNS),
        npz(timesteps=np.array([None]), results=RETURNS, ep_lengths=LENGTHS),
        npz(timesteps=STEPS, results=RETURNS[0], ep_lengths=LENGTHS),
        npz(timesteps=STEPS, results=RETURNS.astype(str), ep_lengths=LENGTHS),
        npz(timesteps=STEPS, results=RETURNS, ep_lengths=LENGTHS)[:-30],
    ],
)
def test_evaluations_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "evaluations.npz"
    path.write_bytes(npz(timesteps=STEPS, results=RETURNS, ep_lengths=LENGTHS))
    assert EvaluationTable(path).read().returns == [[1.0, 2.0]]
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"evaluations\.npz"):
        EvaluationTable(path).read()


@pytest.mark.parametrize("first", ["", "#{}", "#[]", '#{"t_start": NaN}', '#{"t_start": "x"}', "t_start"])
def test_a_monitor_file_that_is_none_is_refused(first: str, tmp_path: Path) -> None:
    path = tmp_path / "monitor.csv"
    path.write_text(f"{first}\nr,l,t\n")
    with pytest.raises(BadFileError, match=r"monitor\.csv"):
        MonitorFile(path, "x")


@pytest.mark.parametrize(
    ("change", "token"),
    [
        ({"mean": None}, "greedy/mean"),
        ({"ci95": [1.0]}, "greedy/ci95"),
        ({"ci95": [1.0, "2"]}, "greedy/ci95/1"),
        ({"mean": 1e300}, "greedy/mean"),
    ],
)
def test_an_evaluation_names_what_is_wrong_in_it(change: Any, token: str, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    evaluation: Any = run.evaluation()
    run.write_evaluation({"greedy": evaluation["greedy"] | change})
    with pytest.raises(RunError, match=rf"evaluation\.json is not an evaluation.*{token}"):
        run.evaluation()


def test_a_configuration_names_what_is_wrong_in_it(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    run.write_config(run.config() | {"reward_threshold": "475"})
    with pytest.raises(RunError, match=r"config\.json .*reward_threshold must be a finite number .*'475'"):
        run.config()
    os.remove(run.config_file)
    with pytest.raises(RunError, match=r"cannot read .*config\.json"):
        run.config()
