"""Reports of rows whose story is known, every finding with a row that must not be found; reports of real runs."""

from __future__ import annotations

import json
import math
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from zoo import RECIPES, SCORED, home, quick

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.gradient.natural import dense
from policygrad.reports.columns import Updates, num, steps_text, stretches, when
from policygrad.reports.findings import Finding, findings
from policygrad.reports.report import Report, read_report
from policygrad.reports.report_plots import running_mean
from policygrad.reports.tracking import Z_LIMIT, Segment, joined, normal, run_segments, tracking
from policygrad.reports.value_findings import value_findings
from policygrad.stored.directory import RunDirectory, RunError
from policygrad.training.reporting import report
from policygrad.training.spectrum import spectrum, spectrum_batch, trace

TRPO = {"max_kl": 0.01, "damping": 0.1, "num_envs": 8, "num_steps": 125, "steps": 20_000}
GOOD = {  # of every row
    "gain": 0.02,
    "predicted_gain": 0.02,
    "kl": 0.008,
    "kl_quadratic": 0.008,
    "kl_k1": 0.007,
    "kl_k2": 0.0088,
    "kl_k3": 0.0082,
    "step_norm": 0.25,
    "policy_step": math.sqrt(0.016),
    "grad_norm": 0.1,
    "entropy": 0.6,
}
OWN = {
    "trpo": {"accepted": 1.0, "backtracks": 0, "cg_iterations": 10, "cg_residual": 1e-4, "cg_curvature": 0.2},
    "npg": {"cg_iterations": 10, "cg_residual": 1e-4, "cg_curvature": 0.2},
    "ppo": {"clip_fraction": 0.1, "epochs": 4},
    "ppo_kl": {"beta": 1.0, "epochs": 4},
}


def rows(algo: str = "trpo", count: int = 20, **columns: Any) -> list[dict[str, Any]]:
    """Rows every 1000 steps in which all is well, but for these columns: a number, or one a row; None takes it out."""
    made = []
    for k in range(count):
        row = {"steps": 1000 * (k + 1), "episodes": 10 * (k + 1), "return_mean": 10.0 * k, **GOOD, **OWN.get(algo, {})}
        row |= {name: x[k] if isinstance(x, list) else x for name, x in columns.items()}
        made.append({name: x for name, x in row.items() if x is not None})
    return made


def found(algo: str = "trpo", config: dict[str, Any] | None = None, **columns: Any) -> dict[str, Finding]:
    return {f.name: f for f in findings(Updates(algo, TRPO if config is None else config, rows(algo, **columns)))}


def at(*places: int, there: float, else_: float, count: int = 20) -> list[float]:
    return [there if k in places else else_ for k in range(count)]


# words


def test_stretches_are_first_and_last_steps_of_rows_that_follow_one_another():
    steps = np.arange(1, 7) * 1000.0
    assert stretches(steps, np.array([1, 1, 0, 0, 1, 0], bool)) == [[1000, 2000], [5000, 5000]]
    assert stretches(steps, np.zeros(6, bool)) == []
    assert when(steps, np.array([1, 1, 0, 0, 1, 0], bool)) == "at 1k to 2k and 5k steps"
    assert when(steps, np.array([0, 0, 0, 0, 1, 1], bool)) == "from 5k steps on"
    assert when(steps, np.ones(6, bool)) == "throughout"
    assert when(steps, np.array([0, 0, 0, 0, 0, 1], bool)) == "at 6k steps"
    assert when(np.arange(1, 12) * 1000.0, np.arange(11) % 2 == 0) == "at 1k, 3k, 5k steps and 3 times more"


def test_numbers_are_short_and_have_a_real_minus():
    assert [num(x) for x in (0.98765, -0.001234, 1234.5, 3.4e-8, 500.0)] == [
        "0.988",
        "−0.00123",
        "1,234",
        "3.4e−8",
        "500",
    ]
    assert [steps_text(x) for x in (512, 41_234, 1_048_576, 2e9)] == ["512", "41.2k", "1.05M", "2G"]


# findings


def test_a_run_in_which_all_is_well_has_nothing_to_look_at():
    for algo in SCORED:
        marks = {
            name: f.mark for name, f in found(algo, TRPO | {"target_kl": 0.01 if algo == "ppo_kl" else None}).items()
        }
        assert "!" not in marks.values(), marks
        assert marks["linear model"] == marks["KL model"] == marks["KL"] == "ok"


def test_rejected_steps_are_counted_and_placed():
    few = found(accepted=[1.0] * 5 + [0.0, 0.64, 0.8] + [1.0] * 12)["rejected steps"]
    assert few.mark == "ok"
    assert few.text == "1 of 20 measured updates, at 6k steps; 2 shortened (median 0.72 of the step)."
    assert few.numbers["rejected_at"] == [[6000, 6000]]
    many = found(accepted=at(3, 4, 5, there=0.0, else_=1.0))["rejected steps"]
    assert many.mark == "!"
    assert many.text.startswith("3 of 20 measured updates, at 4k to 6k steps. ")
    assert many.numbers["rejected"] == 3
    none = found()["rejected steps"]
    assert none.text == "none of 20 measured updates."
    assert none.numbers["rejected_at"] == []


@pytest.mark.parametrize(
    ("algo", "words"), [("ppo", "clip"), ("ppo_kl", "β"), ("npg", "without a check"), ("a2c", "lr sets")]
)
def test_rules_that_reject_nothing_say_what_they_have_instead(algo, words):
    finding = found(algo)["rejected steps"]
    assert finding.mark == "-"
    assert words in finding.text


def test_a_linear_model_that_does_not_hold_is_found_where_it_lasts():
    wrong = found(gain=[0.02] * 10 + [0.008] * 10)["linear model"]
    assert wrong.mark == "!"
    assert "median 0.7 (quartiles 0.4 to 1). Below one half from 11k steps on" in wrong.text
    assert wrong.text.endswith("Lower max_kl.")
    assert found("ppo", gain=0.008)["linear model"].text.endswith(
        "throughout: the linear model does not hold for steps of this length. Lower lr, epochs or clip."
    )
    once = found(gain=at(10, there=0.0, else_=0.02))["linear model"]  # one row is an accident
    assert once.mark == "ok"
    assert once.text == "gain / predicted gain median 1 (quartiles 1 to 1)."


def test_steps_against_their_gradient_are_counted_and_are_no_ratio():
    finding = found("a2c", predicted_gain=at(0, 1, there=-0.02, else_=0.02))["linear model"]
    assert finding.numbers["against_gradient"] == 2
    assert finding.numbers["ratio"] == {"median": 1.0, "quartile_1": 1.0, "quartile_3": 1.0}
    assert "in 2 of 20 updates the step had a negative component" in finding.text
    assert "against" not in found("a2c")["linear model"].text


def test_a_quadratic_model_that_does_not_hold_is_found():
    for kl, where in ((0.02, "throughout"), ([0.008] * 15 + [0.02] * 5, "from 16k steps on")):
        finding = found(kl=kl)["KL model"]
        assert finding.mark == "!"
        assert f"Off by more than 2 times {where}" in finding.text
    assert found(kl=0.012)["KL model"].mark == "ok"
    assert found(kl=0.012)["KL model"].text == "KL / ½ sᵀFs median 1.5 (quartiles 1.5 to 1.5)."


def test_kls_of_zero_or_below_or_below_rounding_are_counted_and_are_no_ratio():
    finding = found("a2c", kl=[0.0, -1e-9, 1e-8] + [0.008] * 17, kl_quadratic=[0.0, 1e-9, 1e-12] + [0.008] * 17)
    assert "3 of 20 KLs are 0, or too small" in finding["KL model"].text
    assert finding["KL model"].numbers["ratio"] == {"median": 1.0, "quartile_1": 1.0, "quartile_3": 1.0}
    assert finding["KL"].numbers["not_positive"] == 2
    tiny = found("a2c", kl=[-1e-9] * 15 + [0.008] * 5, kl_quadratic=[1.5e-7] * 15 + [0.008] * 5)["KL model"]
    assert (tiny.mark, tiny.numbers["ratio"]["median"], tiny.numbers["below_rounding"]) == ("ok", 1.0, 15)
    nothing = found("a2c", **dict.fromkeys(GOOD, 0.0))
    assert nothing["KL model"].numbers["ratio"] is None
    assert "every KL is too small" in nothing["sampled KL"].text


def test_the_bound_on_kl_and_what_exceeds_it():
    npg = found("npg", kl=at(4, 5, 6, there=0.016, else_=0.008))["KL"]
    assert npg.mark == "!"
    assert "above max_kl = 0.01 in 3 of 20, by more than half at 5k to 7k steps" in npg.text
    assert found("npg", kl=at(4, 5, 6, there=0.011, else_=0.008))["KL"].mark == "ok"
    assert "above max_kl = 0.01 in 0 of 20." in found()["KL"].text
    free = found("ppo", {}, kl=at(1, 2, 3, there=0.06, else_=0.008))["KL"]
    assert free.mark == "!"
    assert "3 of 20 are above 0.05" in free.text
    assert found("npg", TRPO | {"lr": 0.1}, kl=0.02)["KL"].text.endswith("0 of 20 are above 0.05.")


def test_a_bound_that_falls_is_compared_where_it_was():
    updates = Updates("trpo", TRPO | {"kl_schedule": "linear"}, rows())
    name, bound = updates.bound() or ("", np.zeros(0))
    assert name == "max_kl"
    assert bound == pytest.approx(0.01 * (1 - np.arange(20) / 20))  # at the steps before every batch of 1000
    assert found(config=TRPO | {"kl_schedule": "linear"}, kl=0.0099 * (1 - 0.0))["KL"].numbers["above"] == 19


def test_ppo_kl_is_compared_with_its_target_and_its_beta_has_a_path():
    config = {"target_kl": 0.01}
    near = found("ppo_kl", config, kl=[0.008] * 10 + [0.016] * 10, beta=[1.0] * 5 + [2.0] * 5 + [0.5] * 10)
    assert near["KL"].mark == "ok"
    assert near["KL"].numbers["near_target"] == 10
    assert near["beta"].text == "1 at first, 0.5 at the end, always between 0.5 and 2."
    assert found("ppo_kl", config, kl=0.04)["KL"].mark == "!"
    fixed = found("ppo_kl", {"target_kl": None})
    assert "constant" in fixed["beta"].text
    assert "nothing bounds" in fixed["KL"].text


def test_sampled_kls_are_compared_with_the_exact_one():
    finding = found(kl_k1=at(0, 1, 2, there=-0.004, else_=0.006))["sampled KL"]
    assert finding.numbers["off"] == pytest.approx({"k1": 0.25, "k2": 0.1, "k3": 0.025})
    assert finding.text == (
        "median error of the estimates from the sampled actions, relative to the exact KL: k1 25 %, k2 10 %, k3 2.5 %; "
        "no update uses them; k1 is negative in 3 of 20."
    )
    assert "negative" not in found()["sampled KL"].text
    assert "k1 over 1,000 %" in found(kl_k1=1.0)["sampled KL"].text


def test_lengths_of_steps_in_parameters_and_policy():
    steps = [0.1, 0.1, 0.8, 0.1] + [0.2] * 12 + [0.4, 0.4, 0.4, 0.1]  # medians: an odd row says nothing
    finding = found(step_norm=steps, policy_step=0.1)["step lengths"]
    assert finding.numbers["ratio_first"] == pytest.approx(1.0)
    assert finding.numbers["ratio_last"] == pytest.approx(0.25)
    assert "unit of parameter change: 1 in the first fifth of the run, 0.25 in the last" in finding.text


def test_conjugate_gradients_that_did_not_solve_are_found():
    bad = found("npg", cg_residual=[1e-3] * 10 + [0.3] * 10)["conjugate gradients"]
    assert bad.mark == "!"
    assert "Not converged from 11k steps on" in bad.text
    good = found("npg", cg_residual=at(3, there=0.9, else_=1e-3))["conjugate gradients"]
    assert good.mark == "ok"
    assert good.text == (
        "10 iterations, residual ‖ĝ − Ax‖ / ‖ĝ‖: median 0.001, largest 0.9; "
        "smallest curvature 0.2 (median), of which damping is 50 %."
    )
    dense = found("npg", TRPO | {"solver": "dense"}, cg_curvature=None, cg_iterations=None)["conjugate gradients"]
    assert dense.text.startswith("solved densely, residual")


def test_a_clip_that_removes_much_or_nothing_and_epochs_that_were_saved():
    cut = {"clip_fraction": [0.1] * 10 + [0.4] * 10, "epochs": at(0, 1, there=2, else_=4)}
    much = found("ppo", {"epochs": 4, "target_kl": 0.01}, **cut)["clip"]
    assert much.mark == "!"
    assert "Above 30 % from 11k steps on" in much.text
    assert "target_kl ended 2 of 20 updates early" in much.text
    assert "target_kl" not in found("ppo", {"epochs": 4, "target_kl": None}, **cut)["clip"].text  # which ends nothing
    assert found("ppo", clip_fraction=0.0)["clip"].mark == "!"
    fine = found("ppo", {"epochs": 4})["clip"]
    assert (fine.mark, fine.text) == ("ok", "removes the gradient of 10 % of the steps (median), 10 % at most.")


def test_what_is_not_there_is_said():
    assert found("ppo")["not here"].text.startswith("no conjugate gradients (NPG, TRPO), no β (PPO-KL), no Fisher")
    assert "missing" not in found("ppo")
    old = found(
        "ppo",
        **dict.fromkeys(("predicted_gain", "kl_quadratic", "kl_k1", "kl_k2", "kl_k3", "step_norm", "policy_step")),
    )
    assert set(old) == {"rejected steps", "KL", "clip", "missing", "not here"}
    assert "no predicted_gain, kl_quadratic, kl_k1" in old["missing"].text
    assert found(fisher_1=[4.0] * 4 + [6.0] * 12 + [1.0] * 4)["Fisher matrix"].numbers == {
        "first": 4.0,
        "last": 1.0,
        "most": 6.0,
    }
    assert "Fisher" not in found(fisher_1=1.0)["not here"].text


# the surrogate against the return


def story(
    *means: float, gain: float | list[float] = 0.02, noise: float = 1.0, rows_: int = 20
) -> tuple[Updates, list[float]]:
    """Episodes, ten between two rows, whose means follow these points over the run."""
    rng = np.random.default_rng(0)
    path = np.interp(np.linspace(0, 1, 10 * rows_), np.linspace(0, 1, len(means)), means)
    return Updates("trpo", TRPO, rows(count=rows_, gain=gain)), (path + noise * rng.standard_normal(len(path))).tolist()


def test_a_surrogate_that_tracks_is_said_to():
    updates, returns = story(0, 100, 200, 200)
    got = run_segments(updates, returns)
    assert len(got) == 6  # of three rows each
    finding = tracking(updates, got, len(returns))
    assert finding.mark == "ok"
    assert finding.text.startswith(
        "it tracks: in total the surrogate predicted a gain of 0.38 and the return went from "
    )
    assert "of 6 segments of the run the return rose in 5, changed without significance in 1, and fell" in finding.text
    assert sum(s.promised for s in got) == pytest.approx(0.02 * 19)  # the last update has no return after it


def test_where_the_return_fell_though_a_rise_was_promised_is_found_the_worst_place_first():
    updates, returns = story(0, 100, 100, 80, 80, 200, 200, 20, 20, 20, rows_=40)
    finding = tracking(updates, run_segments(updates, returns), len(returns))
    assert finding.mark == "!"
    worst, other = finding.numbers["broken"]
    assert worst["return_before"] - worst["return_after"] > 120
    assert 24_000 < worst["steps"][0] < 30_000 < worst["steps"][1] < 33_000
    assert 8_000 < other["steps"][0] < 14_000
    assert finding.text.startswith(
        f"between {steps_text(worst['steps'][0])} and {steps_text(worst['steps'][1])} steps the surrogate"
    )
    assert "; it also fell between" in finding.text
    assert finding.text.endswith("Lower max_kl.")


def test_a_fall_that_the_surrogate_saw_and_one_that_is_noise_are_none():
    updates, returns = story(0, 100, 100, 0, 0, gain=-0.02)
    assert not any(s.broken for s in run_segments(updates, returns))
    assert any(s.direction < 0 for s in run_segments(updates, returns))
    updates, returns = story(100, 98, noise=30.0)
    assert not any(s.direction for s in run_segments(updates, returns))


@pytest.mark.parametrize("episodes", [6, 9, 15, 60])
def test_pure_noise_raises_an_alarm_in_one_run_of_a_hundred_however_few_episodes_there_are(episodes):
    """Ten segments, 1,000 runs: with 3 standard errors it were about 63, 41, 27 and 17."""
    means = np.random.default_rng(1).standard_normal((1000, 11, episodes))
    mean, error = means.mean(2), means.std(2, ddof=1) / math.sqrt(episodes)
    alarms = sum(
        any(Segment(0, 0, 1, m[i], m[i + 1], e[i], e[i + 1], episodes, episodes).broken for i in range(10))
        for m, e in zip(mean, error, strict=True)
    )
    assert 2 <= alarms <= 19  # 10 ± 3 of their standard deviations, 3.1


def test_the_quantiles_of_a_fall_are_those_of_student_and_welch():
    from scipy.stats import t, ttest_ind

    for freedom in (4.0, 6.5, 10.0, 30.0, 1000.0):
        assert normal(float(t.isf(1e-3, freedom)), freedom) == pytest.approx(Z_LIMIT, rel=0.02)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(6), 3.0 * rng.standard_normal(20)
    s = Segment(0, 0, 1, 0, 0, a.std(ddof=1) / math.sqrt(6), b.std(ddof=1) / math.sqrt(20), 6, 20)
    assert s.freedom == pytest.approx(ttest_ind(a, b, equal_var=False).df)  # pyright: ignore
    for before, after, direction in ((1.0, 1.0, 0), (1.0, 0.5, -1), (1.0, 1.5, 1)):  # no spread at all
        assert Segment(0, 0, 1, before, after, 0.0, 0.0, 5, 5).direction == direction


@pytest.mark.parametrize("odd", [math.nan, -math.inf])
def test_returns_that_are_not_finite_are_left_out_and_said_to_be(odd, tmp_path):
    updates, returns = story(0, 200)
    returns[55], returns[120] = odd, odd
    assert [s.direction for s in run_segments(updates, returns)] == [1] * 6
    made = report(write(tmp_path / "run", rows(fisher_1=2.0, fisher_x=1.0), returns=returns))
    assert "!  returns: 2 of 200 in monitor.csv are not finite and were left out." in str(made)
    made.figure()  # a column that is no eigenvalue is not drawn as one
    json.dumps(made.to_json(), allow_nan=False)


def test_the_numbers_of_a_segment_are_the_means_of_the_episodes_around_its_ends():
    updates, returns = story(0, 100, rows_=6, noise=5.0)
    first, second = run_segments(updates, returns)
    assert (first.start, first.end, second.end) == (1000.0, 3500.0, 6000.0)
    ended = np.arange(1, 61) * 100.0  # ten episodes every thousand steps
    around = np.array(returns)[(ended >= 2250) & (ended < 4750)]
    assert first.after == second.before == pytest.approx(around.mean())
    assert first.error_after == pytest.approx(around.std(ddof=1) / math.sqrt(len(around)))
    whole = joined([first, second])
    assert whole == [
        Segment(
            1000.0,
            6000.0,
            first.promised + second.promised,
            first.before,
            second.after,
            first.error_before,
            second.error_after,
            first.episodes_before,
            second.episodes_after,
        )
    ]
    assert (first.episodes_after, len(around)) == (25, 25)
    assert joined([first, Segment(9e3, 1e4, 0, 0, 0, 0, 0, 5, 5)])[0] == first


@pytest.mark.parametrize(("count", "episodes"), [(5, 100), (20, 0), (20, 8), (1, 0)])
def test_too_little_to_tell_from_is_said(count, episodes):
    updates = Updates("trpo", TRPO, rows(count=count))
    finding = tracking(updates, run_segments(updates, [1.0] * episodes), episodes)
    assert finding.mark == "-"
    assert f"{count} rows of metrics and {episodes} episodes" in finding.text


# whole reports


def write(
    path: Path, made: list[dict[str, Any]], algo: str = "trpo", returns: list[float] | None = None
) -> RunDirectory:
    path.mkdir(parents=True)
    run = RunDirectory(path)
    run.write_config({"algo": algo, "env": "CartPole-v1", "seed": 3, "config": TRPO})
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in made))
    lines = [f"{x},10,0.0\n" for x in returns or []]
    run.monitor_file.write_text('#{"t_start": 0.0}\nr,l,t\n' + "".join(lines))
    return run


def test_a_report_says_what_is_to_be_looked_at_and_is_whole_in_json(tmp_path):
    _, returns = story(0, 100, 200)
    made = report(write(tmp_path / "run", rows(gain=0.004), returns=returns))
    first, second, *_ = str(made).splitlines()
    assert first == "TRPO on CartPole-v1, seed 3: 20 measured updates, 1k to 20k steps"
    assert second == "Look at: linear model."
    assert max(map(len, str(made).splitlines())) <= 100
    plain = json.loads(json.dumps(made.to_json()))
    assert (plain["algo"], plain["seed"], plain["measured"], plain["steps"]) == ("trpo", 3, 20, [1000, 20_000])
    assert plain["findings"]["linear model"]["mark"] == "!"
    assert plain["findings"]["linear model"]["numbers"]["below_half_at"] == [[1000, 20_000]]
    assert len(plain["findings"]["surrogate and return"]["numbers"]["segments"]) == 6
    assert "Nothing stands out." in str(report(write(tmp_path / "good", rows(), returns=returns)))


def test_a_notebook_shows_words_and_picture_and_escapes_names(tmp_path):
    made = Report("x", "<b>E</b>", 0, Updates("ppo", {}, rows("ppo")), [])
    html = made._repr_html_()
    assert html.count("<tr>") == len(made.found) + 1
    assert "PPO on &lt;b&gt;E&lt;/b&gt;, seed 0" in html
    assert "<b>E" not in html
    assert all(escape(finding.text) in html for finding in made.found)
    assert "data:image/png;base64," in html
    made.plot(tmp_path / "report.svg")
    assert (tmp_path / "report.svg").read_text().startswith("<?xml")


def test_how_many_updates_were_measured_is_said_where_it_is_not_all():
    made = Report("x", "E", 0, Updates("a2c", TRPO | {"num_steps": 10}, rows("a2c")), [])
    assert "20 measured updates (about 1 in 12), 1k" in made.heading()
    assert "few" in Report("x", "E", 0, Updates("a2c", {}, rows("a2c", count=3)), []).heading()


def test_the_picture_has_a_panel_for_what_there_is_and_marks_rejected_steps_and_falls(tmp_path):
    updates, returns = story(0, 100, 100, 20, 20)
    updates.rows[7]["accepted"] = 0.0
    figure = Report("x", "CartPole-v1", 0, updates, returns).figure()
    words = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert [w for w in words if w in ("return", "surrogate", "line search", "clip", "penalty", "conjugate gradients")] == [
        "return", "surrogate", "line search", "conjugate gradients",
    ]  # fmt: skip
    assert {"× rejected", "bound, max_kl = 0.01"} <= set(words)
    assert all(len(axis.patches) == 1 for axis in figure.axes)  # the region
    figure.savefig(tmp_path / "report.png", dpi=40)
    image = imread(tmp_path / "report.png")
    assert len(np.unique((image[..., :3] * 255).astype(int).reshape(-1, 3), axis=0)) > 50
    good = Report("x", "CartPole-v1", 0, Updates("ppo", {}, rows("ppo", return_mean=None)), []).figure()
    words = [text.get_text() for axis in good.axes for text in axis.texts]
    assert "× rejected" not in words
    assert ("clip" in words, "return" in words) == (True, False)
    assert not any(axis.patches for axis in good.axes)


def test_no_name_in_the_picture_is_over_another(tmp_path):
    updates, returns = story(0, 100, 100, 20, 20)
    for row in updates.rows:
        row |= {"fisher_1": 2.0, "fisher_2": 0.5}
    figure = Report("x", "CartPole-v1", 0, updates, returns).figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [*figure.texts, *(t for axis in figure.axes for t in axis.texts)]
    boxes = [text.get_window_extent(renderer) for text in texts]
    for a, b in combinations(boxes, 2):
        assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1)
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_a_running_mean_leaves_out_what_is_no_number():
    y = np.array([1.0, np.nan, 3.0, 5.0])
    assert running_mean(y, 3) == pytest.approx([1.0, np.nan, 4.0, 4.0], nan_ok=True)


def test_what_is_damaged_or_old_is_named_or_left_out(tmp_path):
    run = write(tmp_path / "odd", [*rows(count=8, gain="x", kl_quadratic=True), {"steps": 9000, "return_mean": None}])
    made = report(run)
    assert len(made.updates) == 8
    assert "no gain, kl_quadratic" in str(made)
    made.figure()
    with pytest.raises(RunError, match="no row of metrics yet"):
        report(write(tmp_path / "empty", []))
    with pytest.raises(RunError, match="no row with the numbers of an update"):
        report(write(tmp_path / "none", [{"steps": 5}]))
    with pytest.raises(RunError, match=r"no config\.json"):
        report(tmp_path)
    run.monitor_file.write_text("#{}\nr,l,t\n1.0,2,3\nnonsense,1,1\n")
    with pytest.raises(RunError, match=r"monitor\.csv, line 4 is not an episode"):
        report(run)
    run.monitor_file.write_text("#{}\nr,l,t\n1.0,2,3\n2.0,")  # a killed run's half a line
    assert run.returns() == [1.0]
    run.monitor_file.unlink()
    assert "0 episodes in monitor.csv" in str(report(run)).replace("\n   ", " ")
    config = json.loads(run.config_file.read_text())
    run.write_config(config | {"config": [1]})
    with pytest.raises(RunError, match=r"it/config must be a table"):
        report(run)


SMALL = {
    "actor_critic": {"num_envs": 2},
    "reinforce": {"episodes": 4},
    "off_policy_pg": {"episodes": 4},
    "a2c": {},
    "a3c": {},
    "ppo": {"num_steps": 32, "epochs": 2},
    "ppo_kl": {"num_steps": 32, "epochs": 2},
    "npg": {"num_steps": 32},
    "trpo": {"num_steps": 32},
}


@pytest.mark.parametrize("algo", SCORED)
def test_a_run_of_every_recipe_with_a_score_function_has_a_report_and_a_picture(algo, tmp_path):
    agent = pg.Agent(algo, "CartPole-v1", fisher_eigenvalues=2, hidden=(8,), **SMALL[algo])
    run = pg.train(agent, tmp_path / "run", steps=600, episodes=2)
    assert run.config()["fisher_eigenvalues"] == 2
    made = read_report(run)
    names = [finding.name for finding in made.found]
    assert {"rejected steps", "surrogate and return", "linear model", "KL model", "KL", "sampled KL"} <= set(names)
    assert ("conjugate gradients" in names) == (algo in ("npg", "trpo"))
    assert "Fisher matrix" in names
    assert "missing" not in names
    assert made.figure().axes
    json.dumps(made.to_json(), allow_nan=False)


@pytest.mark.parametrize("algo", [algo for algo in RECIPES if algo not in SCORED])
def test_a_run_without_a_score_function_has_a_report_and_a_picture(algo, tmp_path):
    agent = pg.Agent(algo, home(algo), hidden=(8,), **quick(algo))
    run = pg.train(agent, tmp_path / "run", steps=300, episodes=1)
    made = read_report(run)
    names = {finding.name for finding in made.found}
    assert names >= {"action values", "TD error", "exploration", "not here"}
    assert ("temperature" in names) == (algo == "sac")
    assert ("replay" in names) == ("buffer_size" in agent.config)
    assert made.figure().axes
    json.dumps(made.to_json(), allow_nan=False)
    with pytest.raises(ConfigError, match="follows no score function"):
        report(run, eigenvalues=2)


VALUES = {
    "q_mean": 50.0,
    "td_error": 2.0,
    "epsilon": 0.05,
    "replay_steps": 900.0,
    "return_mean": 80.0,
    "length_mean": 80.0,
}


def valued(algo: str = "dqn", config: dict[str, Any] | None = None, **columns: Any) -> dict[str, Finding]:
    settings = {
        "gamma": 0.99,
        "buffer_size": 1000,
        "batch_size": 32,
        "num_envs": 1,
        "num_steps": 4,
        "gradient_steps": 1,
    }
    made = [{"steps": 1000 * (k + 1), **VALUES, **{n: x[k] for n, x in columns.items()}} for k in range(20)]
    return {f.name: f for f in value_findings(Updates(algo, settings | (config or {}), made))}


def test_a_good_off_policy_run_has_nothing_to_look_at():
    found = valued("sac", {"alpha": 1.0}, alpha=at(0, there=1.0, else_=0.1), entropy=[-1.0] * 20)
    assert [f.mark for f in found.values()] == ["ok"] * 5 + ["-"]
    assert found["replay"].numbers == {"held": 900.0, "minibatches_per_step": 0.25, "draws_per_step": 8.0}


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("action values", {"q_mean": [10.0 * 2**k for k in range(20)]}, "diverge"),
        ("TD error", {"td_error": [500.0] * 20}, "do not follow"),
        ("exploration", {"epsilon": [1.0 - 0.03 * k for k in range(20)]}, "epsilon_fraction"),
        ("temperature", {"alpha": [2.0**k for k in range(20)], "entropy": [-5.0] * 20}, "target_entropy"),
    ],
)
def test_an_off_policy_run_that_goes_wrong_is_said_so(name, columns, words):
    finding = valued("sac", {"alpha": 1.0}, **columns)[name]
    assert finding.mark == "!"
    assert words in finding.text


def test_values_may_run_ahead_of_returns_for_a_while():
    assert valued(q_mean=at(3, 4, there=900.0, else_=50.0))["action values"].mark == "ok"


# eigenvalues


def test_eigenvalues_and_trace_are_the_fisher_matrixs():
    agent = pg.ppo("FrozenLake-v1", hidden=(), num_envs=4)
    batch = spectrum_batch(agent)
    assert len(batch) > 900
    share = batch.weight / batch.weight.sum()
    evaluation = agent.policy.evaluate(batch)
    matrix = dense(lambda v: evaluation.fisher_product(v, share), agent.policy.flat)
    assert trace(agent.policy, batch, share) == pytest.approx(float(matrix.trace()), rel=1e-5)  # uniform: no noise
    finding = spectrum(pg.ppo("FrozenLake-v1", hidden=(), num_envs=4), 5)
    largest = torch.linalg.eigvalsh(matrix.double()).flip(0)[:5]
    assert finding.numbers["values"] == pytest.approx(largest.tolist(), rel=1e-4)
    assert finding.numbers["explained"] == pytest.approx(float(largest.sum() / matrix.trace()), rel=1e-4)
    assert "PPO has no damping" in finding.text


def test_damping_is_compared_with_the_eigenvalues(tmp_path):
    agent = pg.trpo("CartPole-v1", hidden=(8,), num_envs=2, damping=0.1)
    finding = spectrum(agent, 10)
    above = sum(value > 0.1 for value in finding.numbers["values"])
    assert 0 < above < 10
    assert f"{above} of 10 are above damping = 0.1" in finding.text
    path = agent.save_policy(tmp_path / "policy")
    run = write(tmp_path / "run", rows())
    path.rename(run.policy_file)
    names = [f.name for f in report(run, eigenvalues=2).found]
    assert names[-2:] == ["Fisher eigenvalues", "not here"]


@pytest.mark.parametrize("wrong", [-1, 1.5, "2", 101, True])
def test_a_number_of_eigenvalues_that_is_none_is_refused_before_anything_is_read(wrong, tmp_path):
    with pytest.raises(ConfigError, match=rf"^eigenvalues = '?{wrong}'? must be (in \[0, 100\]|a whole number)"):
        report(tmp_path, eigenvalues=wrong)


def test_where_all_eigenvalues_that_were_found_are_above_damping_more_are_to_be_asked_for():
    agent = pg.trpo("CartPole-v1", hidden=(8,), num_envs=2, damping=1e-3)
    text = spectrum(agent, 2).text
    assert "At least 2 are above damping = 0.001: ask for more to see how many" in text
    assert "all others" not in text
    assert "ask for more" not in spectrum(pg.trpo("CartPole-v1", hidden=(8,), num_envs=2, damping=100.0), 2).text


def test_a_deterministic_policy_has_eigenvalues_of_0_and_trains_on():
    agent = pg.ppo("CartPole-v1", hidden=(8,), num_envs=2, num_steps=32, fisher_eigenvalues=2)
    agent.policy.flat.mul_(1e7)
    assert spectrum(agent, 2).numbers["values"] == [0.0, 0.0]
    history = pg.History()
    agent.learn(128, history, log_every=1)
    assert history.rows[0]["fisher_2"] == 0.0


def test_eigenvalues_of_a_policy_change_no_bit_of_its_training():
    agents = [pg.trpo("CartPole-v1", num_steps=32, hidden=(8,), fisher_eigenvalues=k) for k in (0, 3)]
    histories = [pg.History(), pg.History()]
    for agent, history in zip(agents, histories, strict=True):
        agent.learn(1_000, history, log_every=200)
    plain, with_them = (history.rows for history in histories)
    assert torch.equal(agents[0].policy.flat, agents[1].policy.flat)
    assert not any("fisher_1" in row for row in plain)
    for row in with_them:
        assert row["fisher_1"] >= row["fisher_2"] >= row["fisher_3"] > 0.0  # pyright: ignore[reportOptionalOperand]
    timed = {"seconds", "steps_per_second", "fisher_1", "fisher_2", "fisher_3"}
    for a, b in zip(plain, with_them, strict=True):
        assert {k: v for k, v in a.items() if k not in timed} == {k: v for k, v in b.items() if k not in timed}
    with pytest.raises(ValueError, match=r"fisher_eigenvalues = -1 must be in \[0, 100\]"):
        pg.trpo("CartPole-v1", fisher_eigenvalues=-1)
