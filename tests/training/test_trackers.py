"""Trackers get what metrics.jsonl has; a notebook's curve is redrawn. The trackers here are stand-ins."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import policygrad as pg
from policygrad.cli import main
from policygrad.stored.directory import RunDirectory
from policygrad.training.trackers import TrackerError, trackers

SMALL: dict[str, Any] = {"num_envs": 1, "num_steps": 16, "minibatches": 1, "hidden": (2,), "steps": 64}


class Wandb(ModuleType):
    """As much of wandb as is used."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run: Any = None
        self.given: dict[str, Any] = {}
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, float] = {}
        self.finished = 0

    def init(self, **given: Any) -> Any:
        self.given = self.given or given
        self.begun.append(given)
        log, name = lambda row, step: self.rows.append((step, row)), given.get("id") or f"run{len(self.begun)}"
        self.run = SimpleNamespace(log=log, finish=self.finish, id=name, summary=self.summary)
        return self.run

    def finish(self) -> None:
        self.run, self.finished = None, self.finished + 1


class MLflow(ModuleType):
    """As much of MLflow as is used."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.active, self.told = False, []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *given, **keywords: self.told.append((name, given, keywords))

    def start_run(self, **keywords: Any) -> Any:
        self.told.append(("start_run", (), keywords))
        return SimpleNamespace(info=SimpleNamespace(run_id=keywords.get("run_id") or "run1"))

    def active_run(self) -> Any:
        return object() if self.active else None


@pytest.fixture
def wandb(monkeypatch) -> Wandb:
    made = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


@pytest.fixture
def mlflow(monkeypatch) -> MLflow:
    made = MLflow()
    monkeypatch.setitem(sys.modules, "mlflow", made)
    return made


def test_wandb_gets_every_row_of_metrics_at_its_steps_and_is_finished(wandb, tmp_path) -> None:
    agent = pg.ppo("CartPole-v1", **SMALL)
    run = pg.train(agent, tmp_path / "run", episodes=1, callback=pg.WandbCallback("poles", tags=["a"]))
    assert wandb.given["project"] == "poles"
    assert wandb.given["tags"] == ["a"]
    assert wandb.given["name"] == "ppo-CartPole-v1-seed0"
    assert wandb.given["config"]["algo"] == "ppo"
    assert wandb.given["config"]["num_steps"] == 16
    rows = list(run.metrics())
    assert [step for step, _ in wandb.rows] == [row["steps"] for row in rows]
    for (_, got), row in zip(wandb.rows, rows, strict=True):
        assert got == {k: v for k, v in row.items() if k != "steps" and v is not None}
    assert wandb.finished == 2  # at the end of training, and after the final evaluation
    assert wandb.summary["eval_return_mean"] == (run.evaluation() or {})["greedy"]["mean"]
    assert wandb.begun[1] == wandb.given | {"id": "run1", "resume": "allow"}


def test_a_run_of_wandb_that_is_open_stays_open_and_one_of_ours_ends_with_an_error(wandb) -> None:
    agent = pg.ppo("CartPole-v1", **SMALL)
    wandb.init()
    agent.learn(64, pg.WandbCallback(), log_every=1)
    assert wandb.finished == 0
    assert len(wandb.rows) > 1
    wandb.run = None

    def fail(agent: Any, row: Any) -> None:
        raise KeyError("a callback's")

    with pytest.raises(KeyError):
        agent.learn(64, [pg.WandbCallback(), fail])
    assert wandb.finished == 1


def test_mlflow_gets_settings_and_rows(mlflow) -> None:
    agent = pg.ppo("CartPole-v1", **SMALL)
    agent.learn(64, pg.MLflowCallback("poles"), log_every=1)
    names = [name for name, *_ in mlflow.told]
    assert names[:3] == ["set_experiment", "start_run", "log_params"]
    assert set(names[3:-1]) == {"log_metrics"}
    assert names[-1] == "end_run"
    assert mlflow.told[2][1][0]["lr"] == agent.config["lr"]
    assert mlflow.told[-2][2]["step"] == agent.num_timesteps
    mlflow.told.clear()
    mlflow.active = True
    agent.learn(64, pg.MLflowCallback())
    assert not {"start_run", "end_run"} & {name for name, *_ in mlflow.told}


def test_the_command_line_has_both(wandb, mlflow, tmp_path, capsys) -> None:
    words = (
        "train ppo CartPole-v1 --steps 32 --num-envs 1 --num-steps 16 --minibatches 1 --hidden 2 --eval-episodes 1 -q "
    )
    words += f"--runs-root {tmp_path} --wandb poles --mlflow sticks"
    assert main(words.split()) == 0
    assert wandb.given["project"] == "poles"
    assert ("set_experiment", ("sticks",), {}) in mlflow.told
    assert trackers({}) == []


@pytest.mark.parametrize("again", ["resume {run} -q", "{words} --resume"])
def test_a_resumed_run_goes_on_in_the_trackers_that_it_began_with(again, wandb, mlflow, tmp_path) -> None:
    def interrupt(row: dict[str, float], step: int) -> None:
        wandb.rows.append((step, row))
        if len(wandb.rows) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    init = wandb.init
    wandb.init = lambda **given: SimpleNamespace(**vars(init(**given)) | {"log": interrupt})
    words = (
        "train ppo CartPole-v1 --steps 128 --num-envs 1 --num-steps 16 --minibatches 1 --hidden 2 --eval-episodes 1 -q "
    )
    words += f"--run-dir {tmp_path}/run --wandb poles --mlflow sticks"
    assert main(words.split()) == 130
    assert len(wandb.rows) == 2
    assert main(again.format(run=f"{tmp_path}/run", words=words).split()) == 0
    rows = list(RunDirectory(tmp_path / "run").metrics())
    assert [step for step, _ in wandb.rows] == [row["steps"] for row in rows]
    assert [given.get("id") for given in wandb.begun] == [None, "run1", "run1"]
    names = [name for name, *_ in mlflow.told]
    assert names.count("log_params") == 1  # MLflow refuses a second value for a setting, as other steps would be
    assert [given for name, _, given in mlflow.told if name == "start_run"][1:] == [{"run_id": "run1"}] * 2
    _, (means,), at = [each for each in mlflow.told if each[0] == "log_metrics"][-1]
    assert at == {"step": rows[-1]["steps"]}
    assert means["eval_return_mean"] == wandb.summary["eval_return_mean"]


def test_what_is_not_installed_is_said_before_anything_is_written(monkeypatch, tmp_path, capsys) -> None:
    for name in ("wandb", "mlflow", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TrackerError, match=r"pip install 'policygrad\[mlflow\]'"):
        pg.MLflowCallback()
    assert main(f"train ppo CartPole-v1 --steps 32 --wandb x --runs-root {tmp_path}/runs".split()) == 2
    assert "pip install 'policygrad[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["pull", "a/b"]) == 2
    assert "pip install 'policygrad[hub]'" in capsys.readouterr().err


def imitate_ipython(monkeypatch, display: Any) -> None:
    """As much of IPython as is used, by us and by matplotlib."""
    package: Any = ModuleType("IPython")
    module: Any = ModuleType("IPython.display")
    package.version_info, module.display = (9, 0), display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)


def test_a_live_curve_is_shown_once_and_then_replaced(monkeypatch) -> None:
    pictures: list[Any] = []

    def display(figure: Any, display_id: bool = False) -> Any:
        pictures.append(("shown", figure))
        return SimpleNamespace(update=lambda figure: pictures.append(("replaced", figure)))

    imitate_ipython(monkeypatch, display)
    agent = pg.ppo("CartPole-v1", **SMALL)
    agent.learn(200, pg.LiveCurve(seconds=0.0), log_every=1)
    assert [how for how, _ in pictures] == ["shown", *["replaced"] * (len(pictures) - 1)]
    assert len(pictures) > 3
    assert pictures[-1][1]._repr_png_().startswith(b"\x89PNG")
    assert len(pictures[-1][1].axes[0].lines[0].get_xdata()) > len(pictures[1][1].axes[0].lines[0].get_xdata())
    monkeypatch.setitem(sys.modules, "IPython", None)
    agent.learn(64, pg.LiveCurve())  # nothing to show it in


def test_notebooks_show_tables_and_escape_names(tmp_path) -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, name="<b>pole</b>")
    run = pg.train(agent, tmp_path / "run", episodes=3)
    html = run._repr_html_()
    assert "&lt;b&gt;pole&lt;/b&gt;" in html
    assert "<b>pole" not in html
    assert "finished at" in html
    assert json.loads(run.evaluation_file.read_text())["greedy"]["mean"] is not None
    shown = agent.evaluate(3)._repr_html_()
    assert "mean return" in shown
    assert "95 % interval" in shown
    audit = pg.lab.audit("bandit", estimators=["to-go"], baselines=["none"], repeats=20)
    assert "<table" in audit._repr_html_()
    assert "to-go" in audit._repr_html_()


def test_a_notebook_shows_what_an_agent_is_and_what_was_given_otherwise() -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, lr=0.125, name="<b>pole</b>").learn(64)
    html = agent._repr_html_()
    assert "PPO on &lt;b&gt;pole&lt;/b&gt;" in html
    assert "<b>pole" not in html
    for part in (
        ">seed</td>",
        f">{agent.num_timesteps}</td>",
        ">CartPole-v1, tuned</td>",
        "lr = 0.125",
        "hidden = 2",
        "num_steps = 16",
    ):
        assert part in html
    assert "gamma" not in html
    plain = pg.ppo("CartPole-v1")
    assert "other than in the preset</td><td style='text-align:left'>nothing" in plain._repr_html_()
    assert "lr = 0.5" in plain.change(lr=0.5)._repr_html_()
    assert "lr = 0.5" in copy.deepcopy(plain)._repr_html_()
    assert "given as a mapping" in pg.ppo("CartPole-v1", preset={"lr": 0.5})._repr_html_()
    assert "nothing" in pg.ppo("CartPole-v1", preset={"lr": 0.5})._repr_html_()


def test_an_agent_whose_preset_file_is_gone_shows_all_hyperparameters(tmp_path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("lr = 0.5\n")
    agent = pg.ppo("CartPole-v1", preset=str(file))
    assert "own.toml" in agent._repr_html_()
    assert "lr = 0.5" not in agent._repr_html_()
    file.unlink()
    assert "lr = 0.5" in agent._repr_html_()


def test_a_notebook_shows_a_history_as_its_curve_and_last_row() -> None:
    history = pg.History()
    assert repr(history) == "History(0 rows, 0 episodes)"
    assert "pass it to agent.learn" in history._repr_html_()
    agent = pg.ppo("CartPole-v1", **SMALL, name="<b>")
    agent.learn(64, history, log_every=1)
    html = history._repr_html_()
    assert html.startswith("<img")
    assert "data:image/png;base64," in html
    assert f"<td style='text-align:left'>steps</td><td style='text-align:right'>{agent.num_timesteps}</td>" in html
    assert "<b>:" not in html
    assert "the last row of 4, after" in html
    assert repr(history).startswith("History(ppo on <b>: 4 rows")


@pytest.mark.parametrize("how", ["whole", "callback", "interrupted"])
def test_a_curve_says_unfinished_only_where_training_did_not_come_to_its_end(how, tmp_path) -> None:
    history, agent = pg.History(), pg.ppo("CartPole-v1", **SMALL)

    def stop(agent: Any, row: Any) -> bool | None:
        texts = [text.get_text() for text in history.plot().axes[0].texts]
        assert any("unfinished" in text for text in texts)  # meanwhile
        if how == "interrupted":
            raise KeyError("a callback's")
        return how != "callback"

    with pytest.raises(KeyError) if how == "interrupted" else nullcontext():
        agent.learn(48, [history, stop], log_every=1)
    figure = history.plot(tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")
    unfinished = any("unfinished" in text.get_text() for text in figure.axes[0].texts)
    assert unfinished == (how == "interrupted")


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_live_curve_needs_a_time_of_0_or_more(seconds) -> None:
    with pytest.raises(ValueError, match="seconds must be 0 or more"):
        pg.LiveCurve(seconds)


def test_a_live_curve_that_cannot_be_drawn_warns_once_and_training_goes_on(monkeypatch) -> None:
    def display(figure: Any, display_id: bool = False) -> Any:
        calls.append(figure)
        raise OSError("no fonts")

    calls: list[Any] = []
    imitate_ipython(monkeypatch, display)
    agent, live = pg.ppo("CartPole-v1", **SMALL), pg.LiveCurve(seconds=0.0)
    with pytest.warns(UserWarning, match=r"cannot draw \(OSError: no fonts\): training goes on") as caught:
        agent.learn(96, live, log_every=1)
    assert (len(caught), len(calls)) == (1, 1)
    assert agent.num_timesteps > 80
    with pytest.warns(UserWarning, match="cannot draw"):
        agent.learn(32, live, log_every=1)  # it is tried anew
