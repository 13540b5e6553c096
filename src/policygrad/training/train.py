"""The training loop around `Agent.learn`: run directory, metrics, checkpoints, progress, and the final evaluation."""

from __future__ import annotations

import platform
import time
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

import policygrad
from policygrad.data import Record, Rollout, Row
from policygrad.envs.single import EnvLike
from policygrad.gradient.importance import CollapsedError
from policygrad.interop.events import EventFile
from policygrad.interop.sb3 import EvaluationTable, MonitorFile, scalars, split
from policygrad.reports.findings import metered, snr_words
from policygrad.stored.directory import ROOT, RunDirectory, create
from policygrad.stored.trajectories import FOLDER, TrajectoryError, TrajectoryWriter
from policygrad.stored.trajectories import describe as describe_task
from policygrad.training.agent import LOG_EVERY, Agent, Callback
from policygrad.training.callbacks import set_directory
from policygrad.training.evaluate import Evaluation
from policygrad.training.interrupts import interrupts
from policygrad.training.progress import Progress, Silent

CHECKPOINTS = 10  # of a run, evenly spaced
MIN_ROWS = 50  # of metrics a run, at least: short runs log more often than LOG_EVERY
RECENT_MEASUREMENTS = 10  # measurements of the gradient's SNR that the display speaks of
GREEDY = {"greedy": True, "sampled": False}


def train(
    agent: Agent,
    run_dir: str | Path | None = None,
    *,
    steps: int | None = None,
    episodes: int = 100,
    eval_env: EnvLike | None = None,
    root: str | Path = ROOT,
    progress: Progress | None = None,
    callback: Callback | Sequence[Callback] | None = None,
    save_trajectories: bool = False,
) -> RunDirectory:
    """Train, evaluate the final policy greedily and sampled, and keep everything in a run directory.

    run_dir: an empty or new directory; default `<root>/<env>/<algo>/seed<k>-<utc>`. steps: default the configuration's.
    callback: one or several, called before the row of metrics is written (see `policygrad.training.callbacks`).
    save_trajectories: keep every finished training episode, see `policygrad.stored.trajectories`.
    Ctrl-C ends the iteration, saves checkpoint and policy, and then raises KeyboardInterrupt; a second one does not wait.
    Importance weights that collapse end training the same way, with CollapsedError.
    """
    eval_env = agent.evaluation_env() if eval_env is None else eval_env  # refused before training, not after it
    run = start(agent, run_dir, steps=steps, root=root)
    learn(agent, run, progress, callback, save_trajectories)
    assess(agent, run, episodes, eval_env)
    return run


def start(
    agent: Agent,
    run_dir: str | Path | None = None,
    *,
    steps: int | None = None,
    root: str | Path = ROOT,
    command: Sequence[str] = (),
) -> RunDirectory:
    """A run directory with its config.json."""
    run = create(run_dir, root, agent.algo, agent.env_name, agent.seed)
    config = describe(agent, command)
    if steps is not None:
        config["config"] |= {"steps": steps}
    run.write_config(config)
    return run


def learn(
    agent: Agent,
    run: RunDirectory,
    progress: Progress | None = None,
    callback: Callback | Sequence[Callback] | None = None,
    save_trajectories: bool = False,
) -> None:
    """Train for the steps in config.json, with metrics and checkpoints, and save the policy."""
    steps, progress = run.config()["config"]["steps"], progress or Silent()
    callbacks = [] if callback is None else [callback] if callable(callback) else list(callback)
    set_directory(callbacks, run.path)
    writer = make_writer(agent, run, steps) if save_trajectories else None
    collapsed: CollapsedError | None = None
    with interrupts(most=1) as pressed:  # the first is a request, so that what is saved is a whole iteration
        recorder = Recorder(run, agent, steps, progress, pressed, writer)
        progress.start(steps)
        try:
            agent.learn(steps, [*callbacks, recorder], min(LOG_EVERY, max(1, steps // MIN_ROWS)))
            recorder.draw(agent)
        except CollapsedError as error:  # before the update: what was learned until then is sound
            collapsed = error
        finally:
            recorder.close()
            progress.stop()
        run.save_checkpoint(agent.save, agent.collector.steps_done)
        agent.save_policy(run.policy_file)
    if collapsed is not None:
        raise collapsed
    if pressed:
        raise KeyboardInterrupt


def make_writer(agent: Agent, run: RunDirectory, steps: int) -> TrajectoryWriter:
    """Who keeps the episodes of training, in the run directory. Raises TrajectoryError where there are none."""
    if agent.dataset is not None:
        raise TrajectoryError(
            "there are no trajectories to save: an agent that learns from a dataset plays no episodes"
        )
    if not hasattr(agent.learner, "observers"):
        kind = type(agent.learner).__name__
        raise TrajectoryError(
            f"{kind} shows no rollouts, so there are no trajectories to save: give it a list `observers`"
        )
    spaces = agent.envs.single_observation_space, agent.envs.single_action_space
    about = describe_task(agent.policy, *spaces, agent.env_name)
    return TrajectoryWriter(run.path / FOLDER, about, agent.collector.steps_done, steps)


def assess(
    agent: Agent, run: RunDirectory, episodes: int = 100, eval_env: EnvLike | None = None
) -> dict[str, Evaluation]:
    """Evaluate the policy both ways; write evaluation.json, a last row of evaluations.npz, and learning_curve.png."""
    from policygrad.reports.plots import plot_runs

    evaluations = {name: agent.evaluate(episodes, greedy, env=eval_env) for name, greedy in GREEDY.items()}
    run.write_evaluation({name: evaluation.to_json() for name, evaluation in evaluations.items()})
    _add_evaluation(run, agent.collector.steps_done, evaluations["greedy"])
    plot_runs([run], run.curve_file)
    return evaluations


def _add_evaluation(run: RunDirectory, steps: int, evaluation: Evaluation) -> None:
    """The final policy's, where SB3's tools and TensorBoard look for it, beside those of an EvalCallback, if there was one."""
    table = EvaluationTable(run.evaluations_file).read(before=steps)
    if len(evaluation.returns) >= table.width:  # the first episodes of both are the same
        table.write(steps, evaluation.returns, evaluation.lengths)
    means = {"eval_return_mean": evaluation.mean, "eval_length_mean": float(np.mean(evaluation.lengths))}
    EventFile(run.path, reopen=True).write(steps, scalars(means))


def describe(agent: Agent, command: Sequence[str] = ()) -> dict[str, Any]:
    """The contents of config.json."""
    kernel = getattr(agent.policy, "kernel", None)  # an actor of one's own need not have one
    spec = gymnasium.registry.get(agent.env_name.rpartition(":")[2])  # of module:id, the id is registered
    return {
        "algo": agent.algo,
        "recipe": agent.recipe.spec.to_json(),
        "env": agent.env_name,
        "seed": agent.seed,
        "tuned": agent.tuned,
        "config": dict(agent.config),
        "custom": agent.custom,
        "kernel": kernel if kernel is None else kernel.name,
        "backend": agent.backend,
        "fisher_eigenvalues": agent.fisher_eigenvalues,
        "gradient_meter": agent.gradient_meter,
        "dataset": agent.dataset,
        "reward_threshold": spec.reward_threshold if spec is not None else None,
        "versions": versions(agent),
        "command": list(command),
    } | agent.env_words()


def versions(agent: Agent) -> dict[str, str]:
    """What a run's figures depend on; of physics engines the ones that its environment uses."""
    own = {
        "policygrad": policygrad.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
    }
    spec = gymnasium.registry.get(agent.env_name.rpartition(":")[2])
    engines = {"gymnasium.envs.mujoco": "mujoco", "gymnasium.envs.box2d": "box2d"}
    used = [engine for module, engine in engines.items() if spec and str(spec.entry_point).startswith(module)]
    return own | {name: version(name) for name in [*used, *(["envpool"] if agent.backend == "envpool" else [])]}


class Recorder:
    """The callback of every iteration. Mostly it has nothing to do, and finds that out in under a microsecond."""

    def __init__(
        self,
        run: RunDirectory,
        agent: Agent,
        steps: int,
        progress: Progress,
        pressed: Sequence[int] = (),
        writer: TrajectoryWriter | None = None,
    ) -> None:
        self.run, self.agent, self.progress, self.pressed = run, agent, progress, pressed
        self.first = agent.collector.steps_done
        self.every = max(1, steps // CHECKPOINTS)
        self.next_checkpoint = self.first + self.every
        self.monitor = MonitorFile(run.monitor_file, agent.env_name, agent.collector.episodes_done)
        self.events = EventFile(run.path)
        self.measured: deque[Mapping[str, Any]] = deque(maxlen=RECENT_MEASUREMENTS)
        self.writer = writer
        self.finished: list[tuple[float, int]] = []  # return and length of the episodes not yet written
        agent.collector.observers.append(self.see)
        if writer is not None:
            agent.learner.observers.append(self.see_rollout)
        self.started = time.perf_counter()
        self.next_draw = self.started + progress.interval

    def __call__(self, agent: Agent, row: Row | None) -> bool | None:
        steps = agent.collector.steps_done
        if row is not None:
            self.keep(agent, row)
        if steps >= self.next_checkpoint:
            self.keep_episodes()  # as many as the checkpoint has counted
            self.flush()
            self.run.save_checkpoint(agent.save, agent.collector.steps_done)
            self.next_checkpoint = steps + self.every
        if time.perf_counter() >= self.next_draw:
            self.draw(agent)
        return False if self.pressed else None

    def keep(self, agent: Agent, row: Row) -> None:
        """Write a row of metrics, for us and for TensorBoard, and the episodes that ended since the last one."""
        self.run.append_metrics(row)
        self.measured.extend(metered([row]))
        training, evaluation = split(scalars(row))
        if evaluation:
            self.events.write(int(row["eval_steps"] or 0), evaluation)
        self.events.write(int(row["steps"] or 0), training)
        self.keep_episodes()

    def see(self, record: Record) -> None:
        """Of the source: the episodes that ended."""
        self.finished.extend(record.finished)

    def see_rollout(self, rollout: Rollout) -> None:
        """Of the learner: what the trajectories are made of, and by the policy of how many steps."""
        assert self.writer is not None
        self.writer.add(rollout, self.agent.collector.steps_done - rollout.steps)

    def keep_episodes(self) -> None:
        """Write the finished episodes to monitor.csv."""
        if self.finished:
            self.monitor.write(self.finished)
            self.finished.clear()

    def flush(self) -> None:
        """Write the trajectories that have ended."""
        if self.writer is not None:
            self.writer.flush(self.agent.collector.steps_done)

    def close(self) -> None:
        """Training is over, or has failed."""
        self.keep_episodes()
        self.flush()
        self.agent.collector.observers.remove(self.see)
        if self.writer is not None:
            self.agent.learner.observers.remove(self.see_rollout)

    def draw(self, agent: Agent) -> None:
        """Tell the progress display where training is."""
        now = time.perf_counter()
        self.next_draw = now + self.progress.interval
        steps, returns = agent.collector.steps_done - self.first, agent.collector.returns
        mean = float(np.mean(returns)) if returns else None
        self.progress.update(steps, steps / (now - self.started), mean, snr_words(self.measured))
