"""A run that was stopped or killed goes on as if it had not been."""

from __future__ import annotations

import json
import os
import platform
import signal
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from explicit import same_state
from gymnasium import spaces
from interrupted import files, killed

import policygrad as pg
from policygrad.envs.journal import LONGEST
from policygrad.envs.make import LONG, make_envs
from policygrad.envs.probes import Target
from policygrad.errors import Interrupted
from policygrad.stored.directory import RunDirectory, RunError
from policygrad.stored.storage import ModelFileError, load_state, save_state
from policygrad.training.callbacks import CheckpointCallback, EvalCallback, Every, History, StopOnReward
from policygrad.training.resume import differences, lengthen, resume
from policygrad.training.train import start, train

SMALL: dict[str, Any] = {"hidden": (8,), "num_envs": 3}
# what there is to keep: fixed rows, whole episodes, a critic of q, a line search, a penalty that adapts, correlated noise, a
# normaliser, Box2D, baselines that are fitted
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ppo": ("ppo", "CartPole-v1", {"num_steps": 32, "epochs": 2, "lr_schedule": "linear"}),
    "shared": ("ppo", "CartPole-v1", {"num_steps": 32, "epochs": 2, "shared_body": True, "kernel": "closed_form"}),
    "shared, compiled": ("ppo_kl", "Pendulum-v1", {"num_steps": 32, "shared_body": True, "kernel": "compiled"}),
    "a2c": ("a2c", "FrozenLake-v1", {"num_steps": 5}),
    "trpo": ("trpo", "MountainCarContinuous-v0", {"num_steps": 32, "noise_autocorrelation": 0.7}),
    "ppo_kl": ("ppo_kl", "Pendulum-v1", {"num_steps": 32, "normalize_obs": True, "head": "squashed"}),
    "npg": ("npg", "Acrobot-v1", {"num_steps": 32}),
    "reinforce": ("reinforce", "CartPole-v1", {"episodes": 7, "baseline": "time-average"}),
    "actor_critic": ("actor_critic", "Taxi-v4", {"critic": "q"}),
    "box2d": ("ppo", "LunarLander-v3", {"num_steps": 32}),
    "walker": ("ppo", "BipedalWalker-v3", {"num_steps": 32}),
}


@pytest.mark.parametrize("name", RUNS)
def test_learning_in_two_halves_with_a_file_between_them_is_learning_at_once(name: str, tmp_path: Path) -> None:
    algo, env, keywords = RUNS[name]
    make = lambda: pg.Agent(algo, env, seed=3, **SMALL | keywords)  # noqa: E731
    whole = make().learn(500)
    done: list[int] = []

    def stop(agent: Any, row: Any) -> None:
        done.append(agent.collector.steps_done)
        agent.trainer.leave = len(done) == 2

    half = make().learn(500, stop)
    assert done[-1] < whole.collector.steps_done
    path = half.save(tmp_path / "half")
    half.go_on()
    loaded = pg.load(path).go_on()
    for other in (half, loaded):
        assert same_state(other.state_dict(), whole.state_dict())


def test_two_calls_with_one_horizon_are_one_call_of_both() -> None:
    agents = [pg.ppo("CartPole-v1", num_steps=32, lr_schedule="linear", **SMALL) for _ in range(3)]
    agents[0].learn(96 * 6)
    for agent, horizon in ((agents[1], 96 * 6), (agents[2], None)):
        agent.learn(96 * 3, horizon=horizon).learn(96 * 3, horizon=horizon)
    assert same_state(agents[1].learner.state_dict(), agents[0].learner.state_dict())
    assert not same_state(agents[2].learner.state_dict(), agents[0].learner.state_dict())
    with pytest.raises(ValueError, match="horizon = 10"):
        agents[1].learn(100, horizon=10)


class Fails(Target):
    """Raises what it is told to, at a step of the process."""

    calls, at, error = 0, 10**9, BaseException()

    def step(self, action: Any) -> Any:
        type(self).calls += 1
        if type(self).calls == type(self).at:
            raise type(self).error
        return super().step(action)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConnectionError("lost")], ids=["Ctrl-C", "error"])
@pytest.mark.parametrize("algo", ["a2c", "reinforce"])
def test_a_rollout_that_breaks_off_leaves_the_agent_at_its_last_whole_iteration(
    error: BaseException, algo: str
) -> None:
    make = lambda: pg.Agent(algo, Fails, seed=1, **SMALL)  # noqa: E731
    whole, broken = make().learn(600), make()
    Fails.calls, Fails.at, Fails.error = 0, 300, error
    with pytest.raises((type(error), RuntimeError)):
        broken.learn(600)
    assert same_state(pg_state(broken), pg_state(broken))  # nothing is lost by asking
    broken.go_on()
    assert same_state(pg_state(broken), pg_state(whole))


def pg_state(agent: pg.Agent) -> dict[str, Any]:
    return agent.state_dict()


def test_every_field_of_the_state_matters(tmp_path: Path) -> None:
    """With any one of them as it is in a fresh agent, going on ends elsewhere; without it the file is refused."""
    keywords = {"num_steps": 32, "lr_schedule": "linear", "minibatches": 2, "noise_autocorrelation": 0.5}
    make = lambda: pg.ppo("Pendulum-v1", seed=3, **SMALL | keywords)  # noqa: E731
    agent = make().learn(576, lambda a, row: setattr(a.trainer, "leave", a.collector.steps_done > 200))
    path = agent.save(tmp_path / "half")
    (state, meta), fresh = load_state(path), make().state_dict()
    whole = agent.go_on().state_dict()
    assert same_state(pg.load(path).go_on().state_dict(), whole)
    assert same_state(pg.load(agent.save(tmp_path / "whole")).go_on().state_dict(), whole)  # nothing is left to do
    for part, fields in state.items():
        for name, value in fields.items():
            if same_state(value, fresh[part][name]) or (part, name) in (
                ("collector", "env_seeds"),
                ("trainer", "last"),
            ):
                continue  # seeds are all used by then; what the last iteration took matters at the end
            save_state(path, state | {part: fields | {name: fresh[part][name]}}, meta)
            with warnings.catch_warnings(action="ignore"), suppress(TypeError, ZeroDivisionError):
                assert not same_state(pg.load(path).go_on().state_dict(), whole), (part, name)
            save_state(path, state | {part: {k: v for k, v in fields.items() if k != name}}, meta)
            with pytest.raises(ModelFileError):
                pg.load(path)


def callbacks() -> list[Any]:
    return [EvalCallback(200, 2), CheckpointCallback(300, keep=2), History(), StopOnReward(1e9), Every(10**9, print)]


@pytest.mark.parametrize("algo", ["ppo", "reinforce"])
def test_a_run_that_was_killed_twice_is_the_run_that_was_not_file_by_file(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policygrad.training.recorder.CHECKPOINT_SHARE", np.inf)
    make = lambda: pg.Agent(algo, "CartPole-v1", seed=2, **SMALL)  # noqa: E731
    keywords: dict[str, Any] = {"steps": 1200, "episodes": 3, "save_trajectories": True}
    whole = train(make(), tmp_path / "whole", callback=callbacks(), **keywords)
    path = tmp_path / "killed"
    killed(path, 500, monkeypatch, lambda: train(make(), path, callback=callbacks(), **keywords))
    killed(path, 900, monkeypatch, lambda: resume(path, callback=callbacks()))
    run = resume(path, callback=(mine := callbacks()))
    assert files(run) == files(whole)
    assert mine[2].returns == run.returns()  # of the whole run, from its first episode on
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    assert resume(path).path == path  # finished: nothing happens
    assert before == {p: p.stat().st_mtime_ns for p in path.rglob("*")}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_iteration_and_saves_it(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    agent, path = pg.a2c(Target, seed=1, **SMALL), tmp_path / "run"
    send = Every(100, lambda agent, row: os.kill(os.getpid(), number) if agent.collector.steps_done < 150 else None)
    with pytest.raises(Interrupted) as interrupted:
        train(agent, path, steps=600, episodes=2, callback=send)
    assert interrupted.value.code == 128 + number
    run = RunDirectory(path)
    steps = agent.collector.steps_done
    assert run.state() == {"status": "stopped", "steps": steps, "reason": name, "hostname": platform.node()}
    assert run.checkpoints()[-1].stem == f"step-{steps}"
    assert run.policy_file.exists()
    resume(path, env=Target, callback=Every(100, lambda agent, row: None))
    assert run.state()["status"] == "finished"


def test_a_signal_does_not_wait_for_an_environment_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr("policygrad.training.train.GRACE", 0.2)

    class Hangs(Target):
        calls = 0

        def step(self, action: Any) -> Any:
            Hangs.calls += 1
            if Hangs.calls == 200:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(20)
            return super().step(action)

    started = time.perf_counter()
    with pytest.raises(Interrupted):
        train(pg.a2c(Hangs, seed=1, **SMALL), tmp_path / "run", steps=3000, episodes=2)
    assert time.perf_counter() - started < 5
    assert resume(tmp_path / "run", env=Hangs).state()["status"] == "finished"


def test_an_error_of_the_environment_saves_what_is_whole(tmp_path: Path) -> None:
    Fails.calls, Fails.at, Fails.error = 0, 400, ConnectionError("lost")
    with pytest.raises((ConnectionError, RuntimeError)):
        train(pg.a2c(Fails, seed=1, **SMALL), tmp_path / "run", steps=900, episodes=2)
    state = RunDirectory(tmp_path / "run").state()
    assert state["status"] == "stopped"
    assert "lost" in state["reason"]
    assert 330 < state["steps"] < 400
    whole = train(pg.a2c(Fails, seed=1, **SMALL), tmp_path / "whole", steps=900, episodes=2)
    assert files(resume(tmp_path / "run", env=Fails)) == files(whole)


def test_a_run_from_stored_trajectories_and_what_it_measures_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policygrad.training.recorder.CHECKPOINT_SHARE", np.inf)
    pg.a2c("CartPole-v1", seed=1, **SMALL).collect(30).save(tmp_path / "stored.safetensors")
    stored: dict[str, Any] = {"dataset": str(tmp_path / "stored.safetensors"), "episodes": 10, "min_ess": 0.0}
    measured = {"fisher_eigenvalues": 1, "gradient_meter": True}
    for name, make in {
        "stored": lambda: pg.Agent("off_policy_pg", "CartPole-v1", seed=1, hidden=(8,), **stored),
        "measured": lambda: pg.ppo("CartPole-v1", seed=1, num_steps=32, **measured, **SMALL),
    }.items():
        whole = train(make(), tmp_path / name, steps=900, episodes=2, callback=Every(9, print))
        path = tmp_path / f"killed {name}"
        killed(path, 400, monkeypatch, lambda: train(make(), path, steps=900, episodes=2, callback=Every(9, print)))  # noqa: B023
        assert files(resume(path, callback=Every(9, print))) == files(whole)


def test_the_state_of_a_run_is_checked_before_it_is_used(tmp_path: Path) -> None:
    run = train(pg.a2c(Target, seed=1, **SMALL), tmp_path / "run", steps=300, episodes=2)
    run.write_state("stopped", 300)
    path = run.checkpoints()[-1]
    (state, meta), forged = load_state(path), {"generators": {}, "files": {"metrics.jsonl": -1}, "first": "0"}
    for name, value in forged.items():
        for other in run.checkpoints()[:-1]:
            other.unlink()
        save_state(path, state | {"run": state["run"] | {name: value}}, meta)
        with pytest.warns(UserWarning, match="does not hold"), pytest.raises(ModelFileError, match=f"run/{name}"):
            resume(run, env=Target)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policygrad.training.recorder.CHECKPOINT_SHARE", np.inf)
    make = lambda: pg.a2c(Target, seed=1, **SMALL)  # noqa: E731
    whole = train(make(), tmp_path / "whole", steps=600, episodes=2)
    path = tmp_path / "run"
    killed(path, 400, monkeypatch, lambda: train(make(), path, steps=600, episodes=2, callback=Every(9, print)))
    last = RunDirectory(path).checkpoints()[-1]
    last.write_bytes(last.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="resuming from the checkpoint before it"):
        run = resume(path, env=Target, callback=Every(9, print))
    assert files(run) == files(whole)


def test_what_cannot_go_on_is_refused(tmp_path: Path) -> None:
    run = train(pg.a2c(Target, seed=1, **SMALL), tmp_path / "run", steps=300, episodes=2, callback=History())
    run.write_state("stopped", 300)
    with pytest.raises(ValueError, match="began with the callbacks History"):
        resume(run, env=Target)
    run.write_state("stopped", 300)
    with pytest.raises(ValueError, match="steps = 20"):
        resume(run, env=Target, steps=20, callback=History())
    with run.lock(), pytest.raises(RunError, match="another process"):
        resume(run, env=Target, callback=History())
    for path in run.checkpoints():
        path.unlink()
    with pytest.raises(RunError, match="holds no checkpoint"):
        resume(run, env=Target, callback=History())


def test_a_run_may_take_more_steps_and_says_what_becomes_of_its_schedules(tmp_path: Path) -> None:
    run = train(pg.a2c(Target, seed=1, **SMALL), tmp_path / "run", steps=300, episodes=2)
    with pytest.warns(UserWarning, match="schedules run over 600 steps"):
        resume(run, env=Target, steps=600)
    assert run.config()["config"]["steps"] == 600
    assert 550 < run.metrics()[-1]["steps"] <= 600  # pyright: ignore[reportOperatorIssue]


def test_another_machine_or_version_is_said(tmp_path: Path) -> None:
    run = train(pg.a2c(Target, seed=1, **SMALL), tmp_path / "run", steps=300, episodes=2)
    config = json.loads(run.config_file.read_text())
    config["versions"]["torch"] = "1.0"
    config["versions"]["envpool"] = "0.1"  # which does not step this agent's environments
    config["machine"]["torch"] = "ALTIVEC"
    run.write_config(config)
    run.write_state("stopped", 300)
    with pytest.warns(UserWarning, match="last bits may differ") as warned:
        resume(run, env=Target)
    texts = " ".join(str(w.message) for w in warned)
    assert "torch '1.0'" in texts
    assert "envpool '0.1' → None" in texts
    assert "ALTIVEC" in texts


def test_a_budget_that_is_too_short_to_compile_for_is_no_other_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    agent = pg.a2c("CartPole-v1", seed=1, steps=2 * LONG, **SMALL)
    run = start(agent, tmp_path / "run")
    agent.trainer.begin(2 * LONG)
    long = run.config()
    assert long["kernel"] == "compiled"
    assert "numba" in long["versions"]
    assert differences(long, agent) == []
    with pytest.warns(UserWarning, match="steps") as told:
        lengthen(run, agent, 300)
    texts = [str(w.message) for w in told]
    assert texts[1:] == [
        "a training of 300 steps is not compiled: there it would not pay, so the last bits may differ from here on"
    ]
    short = run.config()
    assert (short["kernel"], short["config"]["steps"]) == ("closed_form", 300)
    assert differences(short, agent) == []
    # a run that was shortened when config.json did not follow
    found = differences(long | {"config": short["config"]}, agent)
    assert found == ["the run goes on without compiled functions: its last bits may differ"]
    with pytest.warns(UserWarning, match="steps") as told:
        lengthen(run, agent, 2 * LONG)
    assert "is compiled, so the last bits may differ" in str(told[1].message)
    assert run.config() == long
    monkeypatch.setattr("policygrad.training.resume.find_spec", lambda name: None)
    monkeypatch.setattr("policygrad.training.train.is_compiled", lambda agent, steps: False)
    assert f"numba {long['versions']['numba']!r} → None" in differences(long, agent)[0]


class Private(gym.Env):
    """Random numbers from where nobody looks, and a dictionary to show: a number of the episode, or nothing that differs."""

    observation_space = spaces.Dict({"a": spaces.Box(-9.0, 9.0, (2,)), "b": spaces.Discrete(9)})
    action_space = spaces.MultiDiscrete([2, 3])

    def __init__(self) -> None:
        self.own = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return {"a": self.own.uniform(-1, 1, 2).astype(np.float32), "b": 0}, {}

    def step(self, action: Any) -> Any:
        self.t += 1
        action[:] = 0  # as some do
        return {"a": np.zeros(2, np.float32) + self.own.uniform(), "b": self.t}, 1.0, self.t == 8, False, {}


def test_what_cannot_be_played_again_is_noticed() -> None:
    envs, others = (make_envs(Private, 2) for _ in range(2))
    envs.reset(seed=[1, 2])
    for _ in range(5):
        envs.step(np.ones((2, 2), np.int64))
    assert others.restore(envs.snapshot()) == ["the same actions lead to another observation"] * 2  # pyright: ignore


def test_a_long_episode_is_not_kept_and_a_mark_is_of_its_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policygrad.envs.journal.LONGEST", 50)
    assert LONGEST > 50
    envs: Any = make_envs("CartPole-v1", 1, "gymnasium")
    envs.reset(seed=[1])
    envs.step(np.array([0]))
    envs.mark()
    shown = envs.snapshot()
    for action in (1, 0):
        envs.step(np.array([action]))
    marked = envs.snapshot(marked=True)[0]
    assert np.array_equal(marked["actions"], shown[0]["actions"])
    assert marked["shown"] == shown[0]["shown"]
    pendulum: Any = make_envs("Pendulum-v1", 1, "gymnasium")
    pendulum.reset(seed=[1])
    pendulum.journal.full = 55
    for _ in range(60):
        pendulum.step(np.zeros((1, 1), np.float32))
    assert pendulum.snapshot() == [None]
    assert len(pendulum.journal.actions) < 10
