"""What is said of a gradient's noise: in the report, on the live line, and from the command line to the files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from policygrad.algorithms.meter import gradient_noise
from policygrad.cli import main
from policygrad.cli.arguments import parse_train
from policygrad.cli.board import words
from policygrad.cli.training import make_jobs
from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import RewardToGo, advantages
from policygrad.gradient.noise import MIN_PARTS
from policygrad.interop.sb3 import scalars
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import ExactCritic, enumerate_trajectories, policy_matrix, tabular_policy
from policygrad.lab.exact.worlds import make_mdp, two_states
from policygrad.models.policy import Policy
from policygrad.reports.columns import Updates
from policygrad.reports.findings import (
    MIN_MEASUREMENTS,
    MIN_TRAJECTORIES,
    Finding,
    findings,
    pooled_snr,
    snr_words,
    windows,
)
from policygrad.reports.report import Report
from policygrad.stored.directory import RunDirectory
from policygrad.training.agent import Agent
from policygrad.training.jobs import State
from policygrad.training.progress import Lines, fields, fit
from policygrad.training.trainer import METER_EVERY


def measured(snr: Sequence[float | None], groups: int = 16) -> list[dict[str, Any]]:
    """What rows with batches of 1000 steps, these SNRs and a noise of 2 have of the meter; None: it did not measure."""
    rows = []
    for x in snr:
        row = {
            "signal": None if x is None else 2.0 * x,
            "noise": 2.0,
            "snr": x,
            "meter_groups": groups,
            "meter_seconds": 0.05,
        }
        rows.append({} if x is None else row | {"noise_scale": 1000 / x if x > 0 else None})
    return rows


def finding(rows: Sequence[Any], algo: str = "ppo", **columns: Any) -> Finding:
    """Of rows every 1000 steps, given by their SNRs or by all that the meter wrote."""
    rows = rows if isinstance(rows[0], dict) else measured(rows)
    every = [{"steps": 1000 * k, "kl": 0.01, "seconds": float(k)} | row | columns for k, row in enumerate(rows, 1)]
    return {f.name: f for f in findings(Updates(algo, {}, every))}["gradient noise"]


# the words


def test_a_clear_signal_has_an_snr_of_each_half_and_a_batch() -> None:
    found = finding([4.0, None, 5.0, None, 4.0, None, 5.0, None] * 2 + [1.0, 3.0] * 4)
    assert found.mark == "ok"
    assert found.text.startswith(
        "SNR 4.5 ± 0.189 in the first half of 16 measured batches, 2 ± 0.378 in the second. It"
    )
    assert "It would be 1 with batches of 500 steps; these have 1k" in found.text
    assert "The meter took 3.33 % of the time" in found.text
    assert found.numbers["batch_suggested"] == pytest.approx(500.0)
    assert (found.numbers["measured"], found.numbers["counted"]) == (16, 16)
    assert found.numbers["meter_share"] == pytest.approx(16 * 0.05 / 24)


def test_the_batch_is_that_of_the_first_half_where_only_that_has_a_signal() -> None:
    found = finding([4.0, 5.0] * 4 + [3.0, -0.9, 0.5, -0.9] * 2)
    assert found.mark == "-"
    assert "0.425 ± 0.602 in the second, where it is not significantly above 0. In the first half it" in found.text
    assert "batches of 223 steps; these have 1k" in found.text
    assert found.numbers["batch_suggested"] == pytest.approx(1000 / 4.5)
    larger = [row | {"noise_scale": 3 * row["noise_scale"]} for row in measured([10.0] + [0.1] * 7)]
    found = finding(measured([4.0, 5.0] * 4) + larger)
    assert (found.numbers["batch"], found.numbers["batch_suggested"]) == pytest.approx((1000, 1000 / 4.5))
    found = finding([4.0, 5.0] * 4 + [0.1, -0.1] * 4)
    assert (found.mark, found.numbers["batch_suggested"]) == ("!", pytest.approx(1000 / 4.5))
    assert "Noise dominates in the second: use larger batches" in found.text


def test_no_signal_in_many_batches_is_something_to_look_at() -> None:
    found = finding([0.1, -0.1] * 8)
    assert found.mark == "!"
    assert "in the second: it is not significantly above 0" in found.text
    assert "at least 13.2k steps; these have 1k" in found.text
    assert "batch_suggested" not in found.numbers
    assert found.numbers["batch_least"] == pytest.approx(1000 / (2 * np.std([0.1, -0.1] * 4, ddof=1) / np.sqrt(8)))
    least = finding([-0.5, -0.4] * 4)
    assert least.mark == "!"
    assert "at least" not in least.text
    small = finding([0.1, 0.2] * 4)
    assert (small.mark, small.numbers["batch_suggested"]) == ("!", pytest.approx(1000 / 0.15))


def test_what_is_not_known_raises_no_alarm_is_not_ok_and_suggests_nothing() -> None:
    found = finding([3.0, -0.9, 0.5, -0.9] * 5)
    assert found.mark == "-"
    assert "batch_suggested" not in found.numbers
    assert "would be 1" not in found.text
    assert found.numbers["batch_least"] < 1000.0


def test_few_measurements_and_few_trajectories_are_said_to_be_too_few() -> None:
    few = finding([3.0] * 7)
    assert (few.mark, "snr" in few.numbers) == ("-", False)
    assert few.text.startswith("too few measured batches: 7, at least 8 are needed.")
    none = finding(measured([6.0] * 20, groups=7))
    assert (none.mark, none.numbers["counted"]) == ("-", 0)
    assert none.text.startswith("too few trajectories: none of 20 measured batches had 8 or more, at least 8")
    assert finding(measured([1.0] * 5) + measured([1.0] * 20, groups=2)).text.startswith("too few trajectories: 5 of")
    single = finding([{"meter_groups": 1, "meter_seconds": 0.1}] * 20, algo="actor_critic")  # it has no numbers at all
    assert single.text.startswith("too few trajectories: none of 20")
    nothing = measured([0.0] * 20)
    for row in nothing:
        row |= {"noise": 0.0, "snr": None}
    assert finding(nothing).text.startswith("too few batches with a gradient other than 0")
    assert MIN_PARTS == MIN_TRAJECTORIES


def test_rows_of_few_trajectories_do_not_count() -> None:
    found = finding(measured([4.0, 5.0] * 8) + measured([100.0] * 9, groups=3))
    assert found.numbers["snr"] == finding([4.0, 5.0] * 8).numbers["snr"]
    assert "first half of 16 measured batches (9 more have too few trajectories or no gradient)" in found.text


def test_shares_by_time_are_named_where_they_are() -> None:
    assert "variance" not in finding([1.0] * 8).numbers
    found = finding([1.0] * 8, variance_1=0.5, variance_2=0.3, variance_3=0.3, variance_4=-0.1)
    assert "four quarters of the steps contribute 50 %, 30 %, 30 %, −10 % of the variance" in found.text
    json.dumps(found.numbers, allow_nan=False)


def test_the_live_line_says_what_is_known_and_nothing_before() -> None:
    assert snr_words(measured([3.0] * 7)) == ""
    assert snr_words(measured([3.0, 1.0] * 4)) == "SNR 2 (1.24 to 2.76)"
    assert snr_words(measured([-0.2, 0.1] * 5)) == "SNR 0 (0 to 0.05), batch too small by a factor of at least 20"
    assert snr_words(measured([-0.5] * 8)) == "SNR 0 (0 to 0)"
    assert snr_words(measured([6.0] * 10, groups=3)) == "SNR unknown: too few trajectories"
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start(1000)
    lines.update(500, 100.0, 20.0, "SNR 2 (1 to 3)")
    assert stream.getvalue().endswith("return 20.0  SNR 2 (1 to 3)\n")
    assert words(State(0, "training", total=1000, steps=500, note="SNR 2"))[-1] == "SNR 2"


def test_the_picture_has_it_where_there_are_two_windows_of_it() -> None:
    def panels(rows: list[dict[str, Any]]) -> list[str]:
        every = [{"steps": 1000 * k, "kl": 0.01} | row for k, row in enumerate(rows, 1)]
        return [axis.texts[0].get_text() for axis in Report("x", "x", 0, Updates("ppo", {}, every), []).figure().axes]

    assert panels(measured([2.0, 1.0] * 8))[-1] == "SNR of the gradient"
    assert "SNR of the gradient" not in panels(measured([2.0, 1.0] * 7))
    assert "SNR of the gradient" not in panels(measured([2.0, 1.0] * 20, groups=7))


# the estimate


def test_windows_are_of_equal_size_and_hold_every_row() -> None:
    rows = measured([1.0] * (3 * MIN_MEASUREMENTS - 1))
    assert [len(part) for part in windows(rows, 6)] == [11, 12]
    assert [len(part) for part in windows(rows * 2, 6)] == [9, 9, 9, 9, 10]
    assert windows(rows[: MIN_MEASUREMENTS - 1], 6) == []


def test_it_is_the_ratio_of_the_sums_and_its_error_a_jackknife() -> None:
    signal, noise = np.array([[1.0, -0.5, 3.0, 0.2], [0.5, 2.0, 1.0, 0.1]])
    rows = [{"signal": a, "noise": b} for a, b in zip(signal, noise, strict=True)]
    pooled = pooled_snr(rows)
    assert pooled.snr == pytest.approx(3.7 / 3.6)
    left = [np.delete(signal, i).sum() / np.delete(noise, i).sum() for i in range(4)]
    assert pooled.error == pytest.approx(np.sqrt(3 / 4 * np.sum(np.square(np.array(left) - np.mean(left)))))
    equal = pooled_snr(
        [{"signal": a, "noise": 2.0} for a in signal]
    )  # of equal noise it is the mean and its usual error
    assert (equal.snr, equal.error) == pytest.approx((signal.mean() / 2, signal.std(ddof=1) / 2 / 2))
    alone = pooled_snr([{"signal": 1.0, "noise": 1.0}, *[{"signal": 1.0, "noise": 0.0}] * 7])
    assert alone.low == 0.0 < alone.error < np.inf
    assert np.isfinite(pooled_snr([{"signal": 1.0, "noise": 0.0}] * 8).snr)


def gradients(mdp: MDP, policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of every trajectory, (N, P), with its reward to go minus the exact V, and its probability (N,)."""
    rollout, p = enumerate_trajectories(mdp, policy)
    adv, _ = advantages(rollout, ExactCritic(mdp)(rollout, policy), RewardToGo(mdp.gamma), CriticValue())
    state = rollout.obs[:-1].argmax(-1)
    score = torch.eye(mdp.actions, dtype=torch.float64)[rollout.act] - policy_matrix(mdp, policy).detach()[state]
    weight = torch.where(rollout.mask, adv, 0.0)
    return torch.einsum("tn,tns,tna->nsa", weight, rollout.obs[:-1], score).flatten(1).numpy(), (p / p.sum()).numpy()


def exact_snr(g: np.ndarray, p: np.ndarray, trajectories: int) -> float:
    """Of the mean of so many."""
    mean = p @ g
    return float(trajectories * mean @ mean / (p @ np.square(g - mean).sum(1)))


def test_pooled_measurements_of_the_meter_cover_the_exact_snr_and_the_mean_of_their_ratios_does_not() -> None:
    mdp = two_states(4)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(3), 0.3)
    exact, generator, rows = exact_snr(*gradients(mdp, policy), 8), torch.Generator().manual_seed(0), []
    for _ in range(240):
        rollout = sample(mdp, policy, 8, generator)
        adv, _ = advantages(rollout, ExactCritic(mdp)(rollout, policy), RewardToGo(mdp.gamma), CriticValue())
        rows.append(gradient_noise(policy, rollout, rollout.flatten(adv, "trajectory"), "trajectory"))
    pooled = pooled_snr(rows)
    assert exact == pytest.approx(pooled.snr, abs=4.0 * pooled.error)
    assert pooled.error < 0.1 * exact
    for snr, error in finding(rows).numbers["snr"]:
        assert exact == pytest.approx(snr, abs=4.0 * error)
    ratios = np.array([row["snr"] for row in rows])
    assert ratios.mean() > exact + 4.0 * ratios.std(ddof=1) / np.sqrt(len(rows))
    assert ratios.mean() > 1.3 * exact


@pytest.mark.parametrize(("world", "scale"), [("two-states", 0.3), ("bandit", 0.5), ("random", 0.5)])
def test_two_errors_cover_the_exact_snr_about_as_often_as_they_say(world: str, scale: float) -> None:
    mdp = make_mdp(world, horizon=1 if world == "bandit" else 3)
    g, p = gradients(mdp, tabular_policy(mdp, torch.Generator().manual_seed(3), scale))
    A = g[np.random.default_rng(0).choice(len(p), (400, 40, 8), p=p)] / 8  # 400 runs of 40 batches of 8 trajectories
    mean = A.mean(2, keepdims=True)
    noise = np.square(A - mean).sum((2, 3)) * 8 / 7
    signal = np.square(8 * mean).sum((2, 3)) - noise
    exact, covered = exact_snr(g, p, 8), 0
    for s, v in zip(signal, noise, strict=True):
        pooled = pooled_snr([{"signal": a, "noise": b} for a, b in zip(s, v, strict=True)])
        covered += abs(pooled.snr - exact) <= 2.0 * pooled.error
    assert 0.89 < covered / 400 < 0.99


# where they are said


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
