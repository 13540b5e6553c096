"""What TensorBoard and Stable-Baselines3's tools read: checked with those tools where they are installed, and byte by byte."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

import policygrad as pg
from policygrad.envs.probes import Target
from policygrad.interop.events import EventFile
from policygrad.interop.sb3 import EvaluationTable, MonitorFile, scalars, split
from policygrad.stored.directory import RunDirectory
from policygrad.training.callbacks import EvalCallback
from policygrad.training.progress import Silent
from policygrad.training.train import Recorder, start, train

SMALL = {"num_envs": 2, "num_steps": 64, "epochs": 2, "minibatches": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    """A run of a thousand steps with two evaluations on the way."""
    agent = pg.ppo("CartPole-v1", seed=3, lr_schedule="linear", lr=1e-3, **SMALL)
    path = tmp_path_factory.mktemp("run") / "run"
    return train(agent, path, steps=1024, episodes=5, callback=EvalCallback(400, episodes=3))


def curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars by tag, as the TensorBoard package reads them."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def test_what_a_float_of_32_bits_cannot_hold_is_the_largest_it_can(tmp_path):
    EventFile(tmp_path).write(2**40, {"a/b": 1.5, "ü": -1e30, "too large": 1e300})
    found = {tag: points[0] for tag, points in curves(tmp_path).items()}
    assert found == {
        "a/b": (2**40, 1.5),
        "ü": (2**40, pytest.approx(-1e30)),
        "too large": (2**40, pytest.approx(3.4028235e38)),
    }


def test_tensorboard_reads_every_row_of_metrics_by_sb3s_tags(run):
    found, rows = curves(run.path), run.metrics()
    pairs = {
        "rollout/ep_rew_mean": "return_mean",
        "rollout/ep_len_mean": "length_mean",
        "time/fps": "steps_per_second",
        "train/approx_kl": "kl",
        "train/clip_fraction": "clip_fraction",
        "train/explained_variance": "explained_variance",
        "train/learning_rate": "lr",
        "train/grad_norm": "grad_norm",
        "train/gain": "gain",
    }
    for tag, name in pairs.items():
        expected = [(row["steps"], row[name]) for row in rows if row[name] is not None]
        assert [step for step, _ in found[tag]] == [step for step, _ in expected]
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert [v for _, v in found["train/entropy_loss"]] == pytest.approx([-float(row["entropy"] or 0) for row in rows])
    assert not {"train/seconds", "train/steps", "train/eval_steps"} & set(found)
    rates = [value for _, value in found["train/learning_rate"]]
    assert rates == pytest.approx([1e-3 * (1 - steps / 1024) for steps in [0, *(row["steps"] for row in rows[:-1])]])


def test_sb3_logs_under_the_same_names(tmp_path):
    ppo = pytest.importorskip("stable_baselines3").PPO
    from stable_baselines3.common.logger import KVWriter, Logger

    names = set()

    class Names(KVWriter):
        def write(self, key_values, key_excluded, step=0):
            names.update(key for key in key_values if "tensorboard" not in (key_excluded[key] or ()))

        def close(self): ...

    model = ppo("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=1)
    model.set_logger(Logger(str(tmp_path), [Names()]))
    model.learn(192)
    ours = set(scalars(dict.fromkeys(("return_mean", "length_mean", "steps_per_second", "kl", "entropy", "lr"), 1.0)))
    ours |= set(scalars(dict.fromkeys(("clip_fraction", "explained_variance", "value_loss"), 1.0)))
    assert ours <= names
    assert names - ours == {"train/policy_gradient_loss", "train/loss", "train/clip_range"}


def test_a_line_search_has_sb3_contribs_tag_beside_its_own():
    assert scalars({"accepted": 0.64}) == {"train/accepted": 0.64, "train/is_line_search_success": 1.0}
    assert scalars({"accepted": 0.0}) == {"train/accepted": 0.0, "train/is_line_search_success": 0.0}


def test_numbers_that_do_not_exist_and_words_are_left_out():
    assert scalars({"steps": 3, "return_mean": None, "note": "x", "kl": np.float32(0.5), "mine": 2}) == {
        "train/approx_kl": 0.5,
        "train/mine": 2.0,
    }
    training, evaluation = split(
        scalars({"eval_return_mean": 1.0, "eval_length_mean": 2.0, "eval_steps": 7, "kl": 3.0})
    )
    assert training == {"train/approx_kl": 3.0}
    assert evaluation == {"eval/mean_reward": 1.0, "eval/mean_ep_length": 2.0}


def test_evaluations_are_in_tensorboard_at_their_own_steps_and_the_final_policys_too(run):
    found, evaluation = curves(run.path), run.evaluation()
    assert evaluation is not None
    on_the_way = [(row["eval_steps"], row["eval_return_mean"]) for row in run.metrics() if "eval_steps" in row]
    final = (run.metrics()[-1]["steps"], evaluation["greedy"]["mean"])
    assert len(on_the_way) == 2
    assert np.array(found["eval/mean_reward"]) == pytest.approx(np.array([*on_the_way, final]))
    assert [step for step, _ in found["eval/mean_ep_length"]] == [step for step, _ in found["eval/mean_reward"]]


def test_rows_are_in_the_event_file_at_once(tmp_path):
    file = EventFile(tmp_path)
    assert not list(tmp_path.iterdir())  # nothing is known yet
    for step in range(3):
        file.write(step, {"a": step})
        assert [s for s, _ in curves(tmp_path)["a"]] == list(range(step + 1))


def test_a_run_that_goes_on_goes_on_in_its_event_file(tmp_path):
    before = EventFile(tmp_path)
    for step in (100, 200):
        before.write(step, {"a": 1.0})
    after = EventFile(tmp_path)
    after.write(300, {"a": 3.0})
    assert list(tmp_path.iterdir()) == [before.path] == [after.path]
    assert curves(tmp_path)["a"] == [(100, 1.0), (200, 1.0), (300, 3.0)]


def test_monitor_has_every_finished_training_episode(tmp_path):
    agent = pg.ppo("CartPole-v1", num_envs=4, num_steps=512, epochs=1, minibatches=1)
    run = start(agent, tmp_path / "run")
    recorder, seen = Recorder(run, agent, 10**6, Silent()), 0  # no checkpoint: rows of metrics alone

    def look(agent, row):
        nonlocal seen
        recorder(agent, row)
        seen = max(seen, len(run.monitor_file.read_text().splitlines()) - 2)
        assert recorder.finished == []

    agent.learn(8192, look, log_every=1)
    recorder.close()
    assert agent.collector.observers == []
    text = run.monitor_file.read_text().splitlines()
    header = json.loads(text[0].removeprefix("#"))
    assert header["env_id"] == "CartPole-v1"
    assert abs(header["t_start"] - time.time()) < 600
    assert text[1] == "r,l,t"
    rows = np.array([line.split(",") for line in text[2:]], float)
    assert len(rows) == agent.collector.episodes_done > 150  # more than the collector remembers
    assert seen == len(rows)
    assert rows[-100:, 0].tolist() == list(agent.collector.returns)
    assert rows[-100:, 1].tolist() == list(agent.collector.lengths)
    assert agent.collector.steps_done - rows[:, 1].sum() == agent.collector.time.sum()  # the rest is unfinished
    assert (np.diff(rows[:, 2]) > 0).all()
    assert 0 < rows[0, 2] < rows[-1, 2] < 600


def test_a_checkpoint_has_counted_the_episodes_that_are_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("policygrad.training.recorder.CHECKPOINT_SHARE", math.inf)  # however short the run is
    agent = pg.a2c(Target, num_envs=2, num_steps=5)
    run = start(agent, tmp_path / "run")
    recorder, counts = Recorder(run, agent, 1000, Silent()), []

    def look(agent, row):
        before = len(run.checkpoints())
        recorder(agent, row)
        if len(run.checkpoints()) > before:
            counts.append((agent.collector.episodes_done, len(run.monitor_file.read_text().splitlines()) - 2))

    agent.learn(300, look, log_every=10**6)
    assert len(counts) == 2  # and later ones push out those
    assert all(counted == kept > 0 for counted, kept in counts)


def test_episodes_are_kept_when_training_breaks_off(tmp_path):
    agent = pg.a2c(Target, num_envs=2, num_steps=5)

    def breaks(agent, row):
        if agent.collector.steps_done >= 50:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(agent, tmp_path / "run", steps=1000, callback=breaks)
    rows = (tmp_path / "run" / "monitor.csv").read_text().splitlines()[2:]
    assert len(rows) == agent.collector.episodes_done > 0
    assert agent.collector.observers == []


def test_sb3s_tools_read_the_monitor(run):
    pytest.importorskip("pandas")
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    plotter = pytest.importorskip("stable_baselines3.common.results_plotter")
    frame = monitor.load_results(str(run.path))
    lines = run.monitor_file.read_text().splitlines()[2:]
    assert frame.r.tolist() == [float(line.split(",")[0]) for line in lines]
    steps, returns = plotter.ts2xy(frame, plotter.X_TIMESTEPS)
    assert len(steps) == len(returns) == len(lines) > 10
    assert 700 < steps[-1] <= 1024
    hours, _ = plotter.ts2xy(frame, plotter.X_WALLTIME)
    assert 0 < hours[0] < hours[-1] < 1


def test_a_monitor_that_goes_on_keeps_its_clock(tmp_path):
    path = tmp_path / "monitor.csv"
    before = MonitorFile(path, "E")
    before.write([(1.5, 3), (2.25, 4)])
    head = path.read_text().splitlines()[0]
    after = MonitorFile(path, "E")
    assert path.read_text().splitlines()[0] == head
    assert after.started == pytest.approx(before.started, abs=5.0)
    after.write([])
    after.write([(7.0, 6)])
    rows = [line.split(",")[:2] for line in path.read_text().splitlines()[2:]]
    assert rows == [["1.5", "3"], ["2.25", "4"], ["7.0", "6"]]


def test_the_table_of_evaluations_is_what_sb3s_eval_callback_writes(tmp_path, run):
    callbacks = pytest.importorskip("stable_baselines3.common.callbacks")
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=1)
    environment = model.get_env()
    theirs = callbacks.EvalCallback(
        environment, n_eval_episodes=3, eval_freq=64, log_path=str(tmp_path), verbose=0, warn=False
    )
    model.learn(192, callback=theirs)
    with np.load(tmp_path / "evaluations.npz") as expected, np.load(run.evaluations_file) as found:
        assert set(found) == set(expected)
        for name in expected:
            assert found[name].dtype.kind == expected[name].dtype.kind
            assert found[name].ndim == expected[name].ndim
            assert found[name].shape[1:] == expected[name].shape[1:]


def test_the_last_row_of_the_table_is_the_final_policys_first_episodes(run):
    evaluation = run.evaluation()
    assert evaluation is not None
    with np.load(run.evaluations_file) as file:
        evaluated = [row["eval_steps"] for row in run.metrics() if "eval_steps" in row]
        assert sorted({*evaluated, run.metrics()[-1]["steps"]}) == file["timesteps"].tolist()
        assert file["results"].shape == file["ep_lengths"].shape == (len(file["timesteps"]), 3)
        assert file["results"][-1].tolist() == evaluation["greedy"]["returns"][:3]
        assert file["results"].tolist() == file["ep_lengths"].tolist()  # CartPole


def test_tables_go_on_and_rows_are_of_one_length(tmp_path):
    table = EvaluationTable(tmp_path / "x.npz").read()
    assert table.width == 0
    table.write(10, (1.0, 2.0), (3, 4))
    table.write(20, (5.0, 6.0, 7.0), (8, 9, 10))
    with pytest.raises(ValueError, match="2 episodes"):
        table.write(30, (1.0,), (1,))
    again = EvaluationTable(table.path).read(before=20)
    assert (again.steps, again.returns, again.lengths) == ([10], [[1.0, 2.0]], [[3, 4]])
    assert EvaluationTable(table.path).read().steps == [10, 20]
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_a_final_evaluation_of_fewer_episodes_leaves_the_table_alone(tmp_path):
    agent = pg.ppo("CartPole-v1", **SMALL)
    callback = EvalCallback(200, episodes=3)
    run = train(agent, tmp_path / "run", steps=512, episodes=2, callback=callback)
    assert EvaluationTable(run.evaluations_file).read().steps == list(callback.evaluations)
    plain = pg.ppo("CartPole-v1", **SMALL)
    run = train(plain, tmp_path / "plain", steps=256, episodes=2)
    assert EvaluationTable(run.evaluations_file).read().steps == [plain.collector.steps_done]


def test_a_row_costs_less_than_a_thousandth_of_a_second(tmp_path):
    agent = pg.a2c(Target, num_envs=2, num_steps=5).learn(10)
    recorder = Recorder(start(agent, tmp_path / "run"), agent, 10**9, Silent())
    row = {f"number{k}": 1.0 for k in range(14)} | {"steps": 1, "entropy": 1.0}
    seconds = []
    for _ in range(50):
        agent.collector.finished = [(1.0, 10)] * 20
        started = time.perf_counter()
        recorder(agent, row)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1e-3
