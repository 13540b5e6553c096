"""Learning curves of many runs: what is one curve, what it is called, and that nothing is printed over anything."""

from __future__ import annotations

from itertools import combinations, count
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from policygrad.reports import plots
from policygrad.reports.plots import (
    COLORS,
    Chart,
    Curve,
    curves_figure,
    labels,
    marks_text,
    plot,
    plot_runs,
    read_curves,
    seeds_label,
)
from policygrad.reports.style_plots import LINE, THIN
from policygrad.stored.directory import RunDirectory, RunError


def a_run(path: Path, algo: str = "ppo", seed: int = 0, points: int = 20, done: bool = True, **config) -> RunDirectory:
    """A run of 1000 · points steps with returns that rise; without evaluation if it is not done."""
    path.mkdir(parents=True)
    run = RunDirectory(path)
    run.write_config(
        {"algo": algo, "env": "CartPole-v1", "seed": seed, "config": {"steps": 20_000, "lr": 1e-3} | config}
    )
    for k in range(1, points + 1):
        run.append_metrics({"steps": 1000 * k, "return_mean": 10.0 * k + seed})
    if done:
        run.write_evaluation({"greedy": {"mean": 200.0 + seed, "ci95": [190.0, 210.0]}})
    return run


NUMBERS = count()  # so that no two curves are equal


def texts(figure: Figure) -> list[Text]:
    return [text for axis in figure.axes for text in axis.texts if text.get_text()]


def test_an_interrupted_run_does_not_cut_the_curve_of_its_seeds(tmp_path):
    made = [a_run(tmp_path / f"{s}", seed=s) for s in range(3)] + [a_run(tmp_path / "i", seed=3, points=4, done=False)]
    finished, stopped = read_curves(made)["CartPole-v1"]
    assert finished.seeds == [0, 1, 2]
    assert finished.band()[0][-1] == 20_000
    assert stopped.seeds == [3]
    assert stopped.band()[0][-1] == 4_000
    assert labels([finished, stopped]) == ["PPO", "PPO, unfinished"]
    shown = [text.get_text() for text in texts(curves_figure({"CartPole-v1": [finished, stopped]}))]
    assert "PPO  201.0" in shown
    assert "PPO, unfinished" in shown


def a_curve(algo: str = "ppo", seeds: int = 1, evaluated: bool = True, **config) -> Curve:
    curve = (np.array([1.0, 2.0]), np.array([3.0, 4.0 + next(NUMBERS)]))
    evaluations = [{"mean": 1.0, "ci95": [0.0, 2.0]}] * (seeds * evaluated)
    return Curve(algo, config, list(range(seeds)), [curve] * seeds, evaluations, None)


def test_labels_show_two_settings_that_differ_with_lengths_and_environments_last():
    few = {"steps": 1, "num_envs": 1, "lr": 3e-4, "hidden": [64, 64], "clip": None}
    many = {"steps": 2, "num_envs": 2, "lr": 1e-3, "hidden": [], "clip": None}
    assert labels([a_curve(**few), a_curve(**many)]) == [
        "PPO\nlr 0.0003, hidden 64 64, …",
        "PPO\nlr 0.001, hidden none, …",
    ]
    one = {"num_envs": 8, "steps": 5, "normalize_obs": True}
    assert labels([a_curve(**one), a_curve(**one | {"steps": 6, "normalize_obs": False})]) == [
        "PPO\nnormalize_obs true, steps 5",
        "PPO\nnormalize_obs false, steps 6",
    ]
    assert labels([a_curve(steps=1, num_envs=1), a_curve(steps=2, num_envs=2)])[0] == "PPO\nnum_envs 1, steps 1"
    assert labels([a_curve(steps=1), a_curve("a2c", steps=2)]) == ["PPO", "A2C"]


def test_the_subtitle_says_what_band_and_bar_are_and_how_many_seeds():
    assert seeds_label([a_curve()]) == "seed 0"
    assert seeds_label([a_curve(seeds=5)]) == "5 seeds"
    assert seeds_label([a_curve(evaluated=False)]) == "seed 0, unfinished"
    assert seeds_label([a_curve(seeds=5), a_curve(seeds=5)]) == "5 seeds each"
    assert seeds_label([a_curve(seeds=5), a_curve()]) == "1 to 5 seeds each"
    assert marks_text([a_curve()]) == "dot: final policy, greedy · bar: 95 % interval"
    several = "line: mean of seeds, band: their range · dot: final policy, greedy · bar: range of seeds"
    assert marks_text([a_curve(seeds=5), a_curve(seeds=2)]) == several
    assert marks_text([a_curve(seeds=5), a_curve()]) == several + " or 95 % interval (of one seed)"
    assert marks_text([a_curve(evaluated=False)]) == ""


@pytest.mark.parametrize("groups", [1, 2, 8, 10, 24])
@pytest.mark.parametrize("differs", [["lr"], ["lr", "gamma", "lam"], []])
def test_no_label_is_printed_over_another_and_all_are_in_the_picture(groups, differs, tmp_path):
    made = [
        a_run(tmp_path / str(k), "ppo" if differs else f"algo{k}", **dict.fromkeys(differs, float(k)))
        for k in range(groups)
    ]
    figure = curves_figure(read_curves(made))
    renderer = FigureCanvasAgg(figure).get_renderer()
    axis = figure.axes[0]
    boxes = [text.get_window_extent(renderer) for text in [*texts(figure), axis._left_title]]  # pyright: ignore
    assert len(boxes) >= groups
    for a, b in combinations(boxes, 2):
        assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1)
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_curves_that_share_a_color_differ_in_their_lines_and_markers(tmp_path):
    figure = curves_figure(read_curves([a_run(tmp_path / str(k), seed=k, lr=float(k)) for k in range(24)]))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 1]  # pyright: ignore
    drawn = {(line.get_color(), str(line._dash_pattern)) for line in lines}  # pyright: ignore
    assert len(lines) == len(drawn) == 24
    signs = {(text.get_color(), text.get_text()[0]) for text in texts(figure) if " PPO" in text.get_text()}
    assert len(signs) == 24
    few = curves_figure(read_curves([a_run(tmp_path / f"few{k}", lr=float(k)) for k in range(len(COLORS))]))
    assert not [text for text in texts(few) if text.get_text()[0] in plots.SIGNS]


def test_runs_of_one_algorithm_are_one_curve_whatever_their_settings(tmp_path):
    made = [a_run(tmp_path / f"{lr}-{seed}", seed=seed, lr=lr) for lr in (1e-3, 1e-2) for seed in (0, 5)]
    made += [a_run(tmp_path / "a2c", "a2c"), a_run(tmp_path / "left", seed=9, points=3, lr=7.0, done=False)]
    assert len(read_curves(made)["CartPole-v1"]) == 4
    together, other, stopped = curves = read_curves(made, "algo")["CartPole-v1"]
    assert (together.algo, other.algo, stopped.algo) == ("ppo", "a2c", "ppo")
    assert together.seeds == [0, 5, 0, 5]
    assert together.config == {"steps": 20_000}
    assert [curve.mixed for curve in curves] == [True, False, False]
    steps, returns = together.band()
    assert returns.mean(0).tolist() == [10.0 * k + 2.5 for k in range(1, 21)]
    assert together.final() == (202.5, 200.0, 205.0)
    assert steps[-1] == together.end() == 20_000
    assert labels(curves) == ["PPO", "A2C", "PPO, unfinished"]
    assert seeds_label(curves) == "1 to 4 runs each"
    assert seeds_label([together]) == "4 runs"
    assert "line: mean of runs, band: their range" in marks_text(curves)
    assert "bar: range of runs or 95 % interval (of one run)" in marks_text(curves)
    shown = {text.get_text() for text in texts(curves_figure({"CartPole-v1": curves}))}
    assert {"PPO  202.5", "A2C  200.0", "PPO, unfinished"} <= shown
    with pytest.warns(UserWarning, match=r"CartPole-v1: runs of one curve differ in lr$"):
        by_algorithm = plot_runs(made, tmp_path / "x.svg", by="algo")
    assert by_algorithm.read_text() != plot_runs(made, tmp_path / "y.svg").read_text()
    with pytest.raises(RunError, match=r"no run has a hyperparameter 'sed'; did you mean seed\?"):
        read_curves(made, "sed")


def test_a_picture_and_a_warning_say_in_what_runs_of_one_curve_differ(tmp_path):
    steps = [20_000, 10_000]
    made = [a_run(tmp_path / str(k), seed=k, steps=steps[k], clip=0.1, lam=0.1 * k, baseline="none") for k in range(2)]
    with pytest.warns(UserWarning, match="CartPole-v1: runs of one curve differ in steps, lam") as caught:
        figure = plot(made, by="baseline")
    assert caught[0].filename == __file__
    assert any("runs of one curve differ in steps, lam" in text.get_text() for text in texts(figure))
    assert not any("differ in" in text.get_text() for text in texts(plot(made, by="lam,steps")))  # and no warning
    many = [a_run(tmp_path / f"m{k}", **dict.fromkeys("abcde", k) | {"only" * (k + 1): 1}) for k in range(2)]
    (curve,) = read_curves(many, "algo")["CartPole-v1"]
    assert set(curve.differ) == {*"abcde", "only", "onlyonly"}
    assert plots.differences([curve]) == "runs of one curve differ in a, b, c and 4 settings more"


def test_runs_that_went_further_than_others_go_on_as_thin_lines(tmp_path):
    """Runs of 4, 20 and 21 rows: a mean up to 4,000 steps, then the two others by themselves; none of a row more."""
    made = [a_run(tmp_path / str(k), seed=k, points=n) for k, n in enumerate((4, 20, 21))]
    (curve,) = read_curves(made)["CartPole-v1"]
    assert curve.band()[0].tolist() == [1000, 2000, 3000, 4000]
    assert [(x[0], x[-1], y[0], y[-1]) for x, y in curve.alone()] == [(4e3, 2e4, 41, 201), (4e3, 2.1e4, 42, 212)]
    axis = curves_figure({"CartPole-v1": [curve]}).axes[0]
    assert sorted(line.get_linewidth() for line in axis.lines if len(line.get_xdata()) > 2) == [THIN, THIN, LINE]  # pyright: ignore
    assert any("thin: single runs" in text.get_text() for text in axis.texts)
    (near,) = read_curves(made[1:])["CartPole-v1"]  # the negative control
    assert near.alone() == []
    assert "thin" not in marks_text([near])
    late = Curve("ppo", {}, [0, 1], [(np.array([1.0, 9.0]), np.zeros(2)), (np.array([5.0, 9.0]), np.ones(2))], [], None)
    assert [(x.tolist(), y.tolist()) for x, y in late.alone()] == [([1.0, 5.0], [0.0, 0.0])]


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_curve_of_one_row_is_a_cross_also_beside_others(seeds, tmp_path):
    made = [a_run(tmp_path / str(k), seed=k, points=1) for k in range(seeds)]
    for runs in (made, [*made, a_run(tmp_path / "a2c", "a2c")]):
        figure = plot(runs)
        crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
        assert [np.asarray(line.get_xydata()).tolist() for line in crosses] == [[[1000.0, 9.0 + (seeds + 1) / 2]]]
        assert any("cross: one row of metrics" in text.get_text() for text in texts(figure))
    assert not any("cross" in text.get_text() for text in texts(plot(runs[-1])))
    apart = [(np.array([float(k)]), np.array([1.0])) for k in (1, 3)]  # one row each, at other steps
    axis = curves_figure({"E": [Curve("ppo", {}, [0, 1], apart, [], None)]}).axes[0]
    assert [line.get_marker() for line in axis.lines] == ["x", "x"]


def test_a_figure_is_written_where_a_path_is_given(tmp_path):
    figure = plot(a_run(tmp_path / "run"), path=tmp_path / "new" / "a.svg")
    assert isinstance(figure, Chart)
    assert (tmp_path / "new" / "a.svg").read_text().startswith("<?xml")


def test_seeds_alone_are_no_mixture(tmp_path):
    made = [a_run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    for by in ("config", "algo"):
        (curve,) = read_curves(made, by)["CartPole-v1"]
        assert not curve.mixed
        assert seeds_label([curve]) == "2 seeds"


def test_runs_that_have_no_steps_in_common_are_lines_of_one_color_with_a_label_where_the_longest_ends():
    early, late = (np.array([1.0, 2.0]), np.array([3.0, 4.0])), (np.array([5.0, 6.0]), np.array([7.0, 8.0]))
    curve = Curve("ppo", {}, [0, 1], [early, late], [], None)
    axis = curves_figure({"E": [curve, a_curve("a2c", evaluated=False)]}).axes[0]
    drawn = [np.asarray(line.get_xydata()).tolist() for line in axis.lines if line.get_color() == COLORS[0]]
    assert drawn == [[[1.0, 3.0], [2.0, 4.0]], [[5.0, 7.0], [6.0, 8.0]]]
    assert plots.last(curve) == 8.0


def test_a_plot_takes_runs_paths_and_names_and_is_shown_by_notebooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = a_run(tmp_path / "runs" / "CartPole-v1" / "ppo" / "seed0-1")
    a_run(tmp_path / "runs" / "CartPole-v1" / "a2c" / "seed0-1", "a2c")
    for one, curves in ((run, 1), (run.path, 1), (str(run.path), 1), ("latest", 1), ([run, run], 1), ("runs", 2)):
        figure = plot(one)
        assert isinstance(figure, Chart)
        assert len([line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]) == curves  # pyright: ignore
    assert plot(run)._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(RunError, match="no runs to draw"):
        plot([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"no config\.json"):
        plot("empty")


def test_runs_can_be_grouped_by_hyperparameters_and_by_seed(tmp_path):
    made = [a_run(tmp_path / f"{lr}-{s}", seed=s, lr=lr, clip=0.1 * s) for lr in (1e-3, 1e-2) for s in (0, 5)]
    by_lr = read_curves(made, "lr")["CartPole-v1"]
    assert [curve.seeds for curve in by_lr] == [[0, 5], [0, 5]]
    assert labels(by_lr) == ["PPO\nlr 0.001", "PPO\nthe same numbers as lr 0.001: lr 0.01"]
    assert len(read_curves(made, "lr, clip")["CartPole-v1"]) == 4
    assert labels(read_curves(made, "seed")["CartPole-v1"])[0] == "PPO\nseed 0"


def test_any_column_can_be_drawn_and_smoothed_by_the_rows_before(tmp_path):
    run = a_run(tmp_path / "run", points=4)
    for k, kl in enumerate((0.4, 0.2, 0.3, 0.1)):
        run.append_metrics({"steps": 5000 + 1000 * k, "kl": kl})
    (curve,) = read_curves([run], metric="kl", smooth=3)["CartPole-v1"]
    assert curve.curves[0][0].tolist() == [5000, 6000, 7000, 8000]
    assert curve.curves[0][1] == pytest.approx([0.4, 0.3, 0.3, 0.2])  # means of one, two, three, three
    assert read_curves([run], metric="kl")["CartPole-v1"][0].curves[0][1].tolist() == [0.4, 0.2, 0.3, 0.1]
    assert curve.final() is None  # an evaluation is of returns
    figure = plot(run, metric="kl", smooth=3)
    shown = [text.get_text() for text in texts(figure)]
    assert any(text.startswith("kl, moving average of 3 rows") for text in shown)
    assert not any("solved" in text or "unfinished" in text for text in shown)
    with pytest.raises(RunError, match=r"no run has a column 'klo'; did you mean kl\?"):
        read_curves([run], metric="klo")
    with pytest.raises(ValueError, match="smooth = 0"):
        read_curves([run], smooth=0)


def test_the_axis_is_that_of_the_curves_where_a_greedy_policy_is_far_above(tmp_path):
    """A curve up to 200 with a greedy policy at 205 shows it inside; with one at 2,000 the axis stays, and an arrow says so."""
    near, far = a_run(tmp_path / "near"), a_run(tmp_path / "far")
    sampled = {"mean": 190.0, "ci95": [180.0, 200.0]}
    near.write_evaluation({"greedy": {"mean": 205.0, "ci95": [190.0, 210.0]}, "sampled": sampled})
    far.write_evaluation({"greedy": {"mean": 2000.0, "ci95": [1990.0, 2010.0]}, "sampled": sampled})
    tops, markers = [], []
    for run in (near, far):
        axis = plot(run).axes[0]
        tops.append(axis.get_ylim()[1])
        markers.append({line.get_marker() for line in axis.lines} - {"None", None, ""})
        assert {"205.0", "2,000.0"} & {text.get_text() for text in axis.texts}
        assert "190.0" in {text.get_text() for text in axis.texts}
        assert any("ring: greedy" in text.get_text() for text in axis.texts)
        told = any("triangle: final policy beyond the axis" in text.get_text() for text in axis.texts)
        assert told == ("^" in markers[-1])
    assert tops[0] > 205.0
    assert tops[1] < 300.0
    assert "^" not in markers[0]
    assert "^" in markers[1]
    both = curves_figure(read_curves([near, a_run(tmp_path / "old", "a2c")]))  # of an older version: greedy alone
    assert {"PPO  190.0 (205.0 greedy)", "A2C  200.0"} <= {text.get_text() for text in texts(both)}


def test_a_mean_of_survivors_is_dotted_and_explained(tmp_path):
    """Episodes of 100 steps that reach the goal, and of 999 that do not: 8 environments, 8,000 steps before the latter end."""
    run = a_run(tmp_path / "car", points=0, done=False, num_envs=8)
    for steps, episodes, length, mean in (
        (2000, 2, 100, 92.0),
        (6000, 3, 100, 91.0),
        (9000, 11, 750, 5.0),
        (12000, 14, 800, 3.0),
    ):
        run.append_metrics({"steps": steps, "episodes": episodes, "length_mean": float(length), "return_mean": mean})
    (curve,) = read_curves([run])["CartPole-v1"]
    assert curve.early == 6000
    figure = plot(run)
    assert any(
        "dotted: open episodes were longer than those that had ended" in text.get_text() for text in texts(figure)
    )
    dashes = {str(line.get_linestyle()) for line in figure.axes[0].lines if len(line.get_xdata()) > 1}  # pyright: ignore
    assert len(dashes) == 2
    whole = a_run(tmp_path / "pole", points=0, done=False, num_envs=8)
    for k in range(1, 4):  # the negative control: short episodes, all of which end
        whole.append_metrics({"steps": 1000 * k, "episodes": 40 * k, "length_mean": 22.0, "return_mean": 22.0})
    assert read_curves([whole])["CartPole-v1"][0].early == 0.0


def test_curves_of_equal_numbers_are_named(tmp_path):
    made = [a_run(tmp_path / "npg", "npg"), a_run(tmp_path / "trpo", "trpo"), a_run(tmp_path / "ppo", seed=1)]
    assert labels(read_curves(made)["CartPole-v1"]) == ["NPG", "TRPO\nthe same numbers as NPG", "PPO"]


@pytest.mark.parametrize(("ends", "said"), [([None, None], "not bounded"), ([200.0, 200.0], "all equal")])
def test_an_interval_that_there_is_not_is_no_point(ends, said, tmp_path):
    """Without a bound, or in files of before version 0.5, where the interval of equal returns was a point."""
    run = a_run(tmp_path / "run")
    run.write_evaluation({"greedy": {"mean": 200.0, "ci95": ends}})
    figure = plot(run)
    axis = figure.axes[0]
    assert said in [text.get_text() for text in axis.texts]
    assert axis.get_ylim()[0] < 200.0 < axis.get_ylim()[1]
