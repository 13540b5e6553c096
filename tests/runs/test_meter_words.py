"""What is said of a gradient's noise: in the report, on the live line, and from the command line to the files."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from policygrad.cli import main
from policygrad.cli.arguments import parse_train
from policygrad.cli.board import words
from policygrad.cli.training import make_jobs
from policygrad.runs.agent import METER_EVERY, Agent
from policygrad.runs.columns import Updates
from policygrad.runs.directory import RunDirectory
from policygrad.runs.findings import Finding, findings, mean_and_error, snr_words
from policygrad.runs.progress import Lines, fields, fit
from policygrad.runs.sb3 import scalars
from policygrad.runs.seeds import State


def finding(snr: list[float | None], **columns: Any) -> Finding:
    """Of rows every 1000 steps with batches of 1000."""
    rows = []
    for k, x in enumerate(snr):
        row = {"steps": 1000 * (k + 1), "kl": 0.01, "seconds": float(k + 1)} | columns
        if x is not None:
            row |= {"snr": x, "noise_scale": 1000 / x if x > 0 else None, "meter_seconds": 0.05}
        rows.append(row)
    return {f.name: f for f in findings(Updates("ppo", {}, rows))}["gradient noise"]


def test_a_clear_signal_has_a_mean_of_each_half_and_a_batch() -> None:
    found = finding([4.0, None, 5.0, None, 4.0, None, 5.0, None, 4.5, None] + [1.0, 3.0] * 3)
    assert found.mark == "ok"
    assert found.text.startswith("SNR 4.5 ± 0.224 in the first half of 11 measured batches, 2 ± 0.447 in the second")
    assert "It would be 1 with batches of 500 steps; these have 1k" in found.text
    assert "The meter took 3.44 % of the time" in found.text
    assert found.numbers["batch_suggested"] == pytest.approx(500.0)
    assert found.numbers["meter_share"] == pytest.approx(11 * 0.05 / 16)


def test_no_signal_in_many_batches_is_something_to_look_at() -> None:
    found = finding([0.1, -0.1] * 10)
    assert found.mark == "!"
    assert "at least" in found.text
    assert "batch_suggested" not in found.numbers
    assert found.numbers["batch_least"] == pytest.approx(1000 / (2 * np.std([0.1, -0.1] * 5, ddof=1) / np.sqrt(10)))
    assert finding([-0.5, -0.4] * 10).text.count("many times too small") == 1


def test_what_is_not_known_raises_no_alarm_and_suggests_nothing() -> None:
    found = finding([3.0, -0.9, 0.5, -0.9] * 5)
    assert found.mark == "ok"
    assert "batch_suggested" not in found.numbers
    assert "would be 1" not in found.text
    few = finding([0.1, -0.1, 0.0])
    assert few.mark == "ok"
    assert few.text.startswith("SNR 0 ± 0.0577 over 3 measured batches")
    assert finding([2.0]).text.startswith("SNR 2 ± inf over 1 measured batches")


def test_shares_by_time_are_named_where_they_are() -> None:
    assert "variance" not in finding([1.0] * 5).numbers
    found = finding([1.0] * 5, variance_1=0.5, variance_2=0.3, variance_3=0.3, variance_4=-0.1)
    assert "Of the variance 50 %, 30 %, 30 %, −10 % is from the four quarters of the steps" in found.text
    json.dumps(found.numbers, allow_nan=False)


def test_the_mean_is_used_for_the_estimate_is_skewed() -> None:
    assert mean_and_error(np.array([0.0, 0.0, 3.0])) == pytest.approx((1.0, 1.0))
    assert mean_and_error(np.array([1.0]))[1] == float("inf")


def test_the_live_line_says_what_is_known_and_nothing_before() -> None:
    assert snr_words([3.0] * 4) == ""
    assert snr_words([3.0, 1.0] * 3) == "SNR 2 (1.11 to 2.89)"
    assert snr_words([-0.2, 0.1] * 5) == "SNR 0 (0 to 0.05), batch 20 times too small at least"
    assert snr_words([-0.5] * 5) == "SNR 0 (0 to 0)"
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start(1000)
    lines.update(500, 100.0, 20.0, "SNR 2 (1 to 3)")
    assert stream.getvalue().endswith("return 20.0  SNR 2 (1 to 3)\n")
    assert words(State(0, "training", total=1000, steps=500, note="SNR 2"))[-1] == "SNR 2"


def test_a_note_goes_before_the_return_does() -> None:
    parts = fields(57_344, 100_000, 20_480.0, 187.34, "SNR 0.3 (0 to 1.3)")
    assert fit(parts, 200)[-1] == "SNR 0.3 (0 to 1.3)"
    assert fit(parts, 60) == [" 57 %", "0:02 left", "return 187.3", "SNR 0.3 (0 to 1.3)"]
    assert fit(parts, 25) == [" 57 %", "return 187.3"]


def test_tensorboard_has_a_place_of_its_own_for_it() -> None:
    assert scalars({"snr": 1.0, "variance_2": 0.5}) == {"gradient/snr": 1.0, "gradient/variance_2": 0.5}


def test_from_the_command_to_the_report(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--steps", "1024", "--num-envs", "4", "--num-steps", "16", "--eval-episodes", "2", "--hidden", "8"]
    assert main(["train", "ppo", "CartPole-v1", *small, "--run-dir", "metered", "--gradient-meter"]) == 0
    assert "SNR" in capsys.readouterr().out
    assert main(["train", "ppo", "CartPole-v1", *small, "--run-dir", "plain", "-q"]) == 0
    plain, metered = (RunDirectory(tmp_path / name) for name in ("plain", "metered"))
    assert (plain.config()["gradient_meter"], metered.config()["gradient_meter"]) == (False, True)
    assert plain.policy_file.read_bytes() == metered.policy_file.read_bytes()
    assert plain.evaluation_file.read_bytes() == metered.evaluation_file.read_bytes()
    assert ["snr" in row for row in metered.metrics()] == [k % METER_EVERY == 0 for k in range(len(metered.metrics()))]
    assert main(["report", "metered", "--json"]) == 0
    assert "gradient noise" in json.loads(capsys.readouterr().out)["findings"]
    assert main(["report", "plain"]) == 0
    assert "no gradient noise (train with --gradient-meter)" in " ".join(capsys.readouterr().out.split())


def test_jobs_of_several_seeds_have_it_too(tmp_path) -> None:
    given = parse_train(
        ["ppo", "CartPole-v1", "--seed", "0", "1", "--gradient-meter", "--run-dir", str(tmp_path / "x")]
    )
    assert all(Agent(job.algo, job.env, seed=job.seed, **job.keywords).gradient_meter for job in make_jobs(given, []))
    assert "gradient_meter" not in parse_train(["ppo", "CartPole-v1"]).keywords
    with pytest.raises(ValueError, match="gradient_meter = 1 must be true or false"):
        Agent("ppo", "CartPole-v1", gradient_meter=1)  # pyright: ignore[reportArgumentType]
