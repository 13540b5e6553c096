"""The training loop around `Agent.learn`: run directory, metrics, checkpoints, progress, and the final evaluation."""

from __future__ import annotations

import platform
import signal
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from threadpoolctl import threadpool_info

import policygrad
from policygrad.envs.families import FAMILIES
from policygrad.envs.single import EnvLike
from policygrad.errors import Interrupted, check_part
from policygrad.files import printable
from policygrad.gradient.importance import CollapsedError
from policygrad.interop.events import EventFile
from policygrad.interop.sb3 import EvaluationTable, scalars
from policygrad.models.kernels import DenseKernel, LogStdKernel
from policygrad.models.pictures import described
from policygrad.models.policy import Policy
from policygrad.stored.directory import ROOT, RunDirectory, create
from policygrad.stored.sources import files_of
from policygrad.stored.trajectories import FOLDER, TrajectoryError, TrajectoryWriter
from policygrad.stored.trajectories import describe as describe_task
from policygrad.training.agent import Agent, Callback
from policygrad.training.callbacks import as_list, set_directory, tell
from policygrad.training.evaluate import Evaluation, Told
from policygrad.training.following import begun, follow, greatest_of, refuse_callbacks, row_every, signal_of
from policygrad.training.interrupts import GRACE, interrupts, terminations
from policygrad.training.progress import Progress, Silent
from policygrad.training.recorder import Recorder
from policygrad.training.sizes import expected_steps
from policygrad.training.threads import threads_for

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
    """Train, evaluate the final policy with greedy and with sampled actions, and save everything in a run directory.

    run_dir: an empty or new directory; default `<root>/<env>/<algo>/seed<k>-<utc>`. steps: default the configuration's.
    callback: one or several, called before the row of metrics is written (see `policygrad.training.callbacks`).
    save_trajectories: keep every finished training episode, see `policygrad.stored.trajectories`.
    Ctrl-C, SIGTERM and SIGHUP end the iteration, save checkpoint and policy, and then raise Interrupted, a KeyboardInterrupt; a
    second one does not wait. Errors save what is whole, too, and are raised again. `policygrad.resume(run)` goes on.
    After `data_parallel()` all processes call it: rank 0 writes the run and calls callbacks, and all return when it is over.
    """
    check_part("agent", agent, ("evaluation_env", "learn"), 'an agent, such as policygrad.ppo("CartPole-v1")')
    as_list(callback)
    # refused before training, not after it
    eval_env = agent.evaluation_env("eval_env") if eval_env is None else eval_env
    run = start(agent, run_dir, steps=steps, root=root, episodes=episodes, save_trajectories=save_trajectories)
    learn(agent, run, progress, callback, save_trajectories)
    assess(agent, run, episodes, eval_env, callback=callback)
    if agent.ranks is not None:
        agent.ranks.wait()
    return run


def start(
    agent: Agent,
    run_dir: str | Path | None = None,
    *,
    steps: int | None = None,
    root: str | Path = ROOT,
    command: Sequence[str] = (),
    episodes: int = 100,
    save_trajectories: bool = False,
    trackers: Mapping[str, str] | None = None,
) -> RunDirectory:
    """A run directory with its config.json. episodes, save_trajectories: as for `train`, so that `resume` knows them.

    trackers: those of `policygrad.training.trackers.trackers` that follow it, so that they follow a resumed run, too.
    """
    return begun(
        agent.ranks, lambda: _start(agent, run_dir, steps, root, command, episodes, save_trajectories, trackers)
    )


def _start(
    agent: Agent,
    run_dir: str | Path | None,
    steps: int | None,
    root: str | Path,
    command: Sequence[str],
    episodes: int,
    save_trajectories: bool,
    trackers: Mapping[str, str] | None,
) -> RunDirectory:
    planned: int = agent.config["steps"] if steps is None else steps
    config = run_config(agent, planned, command) | {"episodes": episodes, "save_trajectories": save_trajectories}
    config |= {"trackers": dict(trackers)} if trackers else {}
    config["config"] |= {"steps": planned}
    return create(run_dir, root, config)


def learn(
    agent: Agent,
    run: RunDirectory,
    progress: Progress | None = None,
    callback: Callback | Sequence[Callback] | None = None,
    save_trajectories: bool = False,
    resumed: dict[str, Any] | None = None,
) -> None:
    """Train for the steps in config.json, with metrics and checkpoints, and save the policy.

    resumed: the state of the run in the checkpoint that the agent is from, to go on there, see `policygrad.training.resume`.
    However training ends, the last whole iteration is saved first: but where an update failed, the last checkpoint counts.
    Raises Interrupted for Ctrl-C, SIGTERM and SIGHUP.
    """
    callbacks, ranks = as_list(callback), agent.ranks
    refuse_callbacks(ranks, callbacks)
    if ranks is not None and ranks.rank:
        follow(agent, run, resumed)
        return
    steps, progress = greatest_of(ranks, run.config()["config"]["steps"]), progress or Silent()
    set_directory(callbacks, run.path)
    writer = make_writer(agent, run, steps) if save_trajectories else None
    # the first signal is a request: what is saved is a whole iteration
    with run.lock(), interrupts(most=1, grace=None if ranks else GRACE) as pressed:
        recorder = Recorder(run, agent, steps, progress, pressed, writer, callbacks, resumed)
        progress.start(steps if resumed is not None else expected_steps(agent, steps))
        try:
            log_every = row_every(steps)
            if resumed is None:
                agent.learn(steps, [*callbacks, recorder], log_every)
            else:
                agent.go_on([*callbacks, recorder], log_every)
            if not (pressed or agent.trainer.stopped):
                progress.finish(agent.collector.steps_done - recorder.first)
            recorder.draw(agent)
            number = signal_of(ranks, pressed)
        except BaseException as error:
            if isinstance(error, CollapsedError):  # before the update: what was learned until then is sound
                agent.trainer.learning = False
            recorder.torn = ranks is not None
            keep(agent, run, recorder, why(error))
            raise
        finally:
            recorder.close()
            progress.stop()
        keep(agent, run, recorder, signal.Signals(number).name if number else "")
    if number or pressed:  # which may have come while it was saved
        raise Interrupted(number=number or pressed[0])


def keep(agent: Agent, run: RunDirectory, recorder: Recorder, reason: str) -> None:
    """At the end of training, or when it was stopped, save the last whole iteration: checkpoint and policy."""
    # what is not whole is not kept, but for the episodes, which are cut off again to go on
    if agent.trainer.learning or recorder.torn:
        recorder.keep_episodes()
        run.write_state("stopped", recorder.saved_steps, reason)
        return
    recorder.save()
    recorder.flush()
    agent.save_policy(run.policy_file)
    run.write_state("stopped" if reason else "trained", agent.collector.steps_done, reason)


def why(error: BaseException) -> str:
    """The reason that stopped a run, as one line."""
    if isinstance(error, KeyboardInterrupt):
        return signal.Signals(getattr(error, "number", signal.SIGINT)).name
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return printable(f"{type(error).__name__}: {first}" if first else type(error).__name__)[:500]


def make_writer(agent: Agent, run: RunDirectory, steps: int) -> TrajectoryWriter:
    """The writer of training episodes into the run directory. Raises TrajectoryError if episodes cannot be stored."""
    if agent.ranks is not None:
        raise TrajectoryError(
            "there are no trajectories to save: each of several processes sees its own environments. Train in one process"
        )
    if agent.dataset is not None:
        raise TrajectoryError(
            "there are no trajectories to save: an agent that learns from a dataset plays no episodes"
        )
    if agent.plan.source is not None:
        raise TrajectoryError(
            "there are no trajectories to save: worker processes show parts of episodes in any order; take asynchrony = "
            "simulated"
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
    agent: Agent,
    run: RunDirectory,
    episodes: int = 100,
    eval_env: EnvLike | None = None,
    progress: Told | None = None,
    callback: Callback | Sequence[Callback] | None = None,
) -> dict[str, Evaluation]:
    """Evaluate the policy both ways; write evaluation.json, a last row of evaluations.npz, and learning_curve.png.

    progress: told of every episode that has ended, see `Agent.evaluate`. callback: those with `evaluated` are told of
    the means. Of several ranks the first does it all. Raises Interrupted for Ctrl-C, SIGTERM and SIGHUP.
    """
    if agent.ranks is not None and agent.ranks.rank:
        return {}
    with terminations() as came:
        from policygrad.reports.plots import plot_runs

        evaluations = {
            name: agent.evaluate(episodes, greedy, env=eval_env, progress=progress) for name, greedy in GREEDY.items()
        }
        run.write_evaluation({name: evaluation.to_json() for name, evaluation in evaluations.items()})
        means = _add_evaluation(run, agent.collector.steps_done, evaluations["greedy"])
        tell(as_list(callback), "evaluated", agent, means)
        plot_runs([run], run.curve_file)
        run.write_state("finished", agent.collector.steps_done)
    if came:  # and code in C has swallowed it
        raise Interrupted(number=came[0])
    return evaluations


def _add_evaluation(run: RunDirectory, steps: int, evaluation: Evaluation) -> dict[str, float]:
    """The final policy's, where SB3's tools and TensorBoard look for it, beside those of an EvalCallback, if there was one.

    Returns its means.
    """
    table = EvaluationTable(run.evaluations_file).read(before=steps)
    if len(evaluation.returns) >= table.width:  # the first episodes of both are the same
        table.write(steps, evaluation.returns, evaluation.lengths)
    means = {"eval_return_mean": evaluation.mean, "eval_length_mean": float(np.mean(evaluation.lengths))}
    EventFile(run.path).write(steps, scalars(means))
    return means


def run_config(agent: Agent, steps: int, command: Sequence[str] = ()) -> dict[str, Any]:
    """The contents of config.json, of a training of so many steps."""
    spec = gymnasium.registry.get(agent.env_name.rpartition(":")[2])  # of module:id, the id is registered
    said = {
        "algo": agent.algo,
        "recipe": agent.recipe.spec.to_json()
        | {k: v for k, v in agent.replaced().items() if k in ("update", "estimator")},
        "env": agent.env_name,
        "seed": agent.seed,
        "tuned": agent.tuned,
        "config": dict(agent.config),
        "custom": agent.custom,
        "kernel": kernel_of(agent, steps),
        "device": agent.device,
        "backend": agent.backend,
        "fisher_eigenvalues": agent.fisher_eigenvalues,
        "gradient_meter": agent.gradient_meter,
        "threads": threads_for(agent.policy),
        "pictures": pictures_of(agent),
        "dataset": agent.dataset,
        "reward_threshold": spec.reward_threshold if spec is not None else None,
        "versions": versions(agent, steps),
        "machine": machine() | {"hostname": platform.node()},
        "command": list(command),
    }
    said |= agent.more_words() | ({} if agent.name is None else {"name": agent.name})
    said |= {} if agent.ranks is None else {"ranks": agent.ranks.size}
    own = files_of([agent.algo, agent.env_name, *said.get("wrappers", [])])
    return said | ({"files": own} if own else {})


def kernel_of(agent: Agent, steps: int) -> str | None:
    """What computes the policy's network in a training of so many steps; None for an actor of one's own that does not say."""
    kernel = getattr(agent.policy, "kernel", None)
    return "compiled" if is_compiled(agent, steps) else kernel if kernel is None else kernel.name


def versions(agent: Agent, steps: int) -> dict[str, str]:
    """The versions that a run's numbers depend on; of physics engines, those that its environment uses."""
    own = {
        "policygrad": policygrad.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
    }
    spec = gymnasium.registry.get(agent.env_name.rpartition(":")[2])
    engines = {"gymnasium.envs.mujoco": "mujoco", "gymnasium.envs.box2d": "box2d"}
    engines |= {family.module: family.module.replace("_", "-") for family in FAMILIES}
    used = [engine for module, engine in engines.items() if spec and str(spec.entry_point).startswith(module)]
    optional = {"envpool": agent.backend == "envpool", "numba": is_compiled(agent, steps)}
    used += [name for name, there in optional.items() if there]
    return own | {name: version(name) for name in used}


def pictures_of(agent: Agent) -> list[str]:
    """What the agent's network takes for pictures, in sentences."""
    encoding = getattr(agent.policy, "encoding", None)
    return [] if encoding is None else described(agent.policy.network, encoding)


def is_compiled(agent: Agent, steps: int) -> bool:
    """Whether compiled functions will run, where there are any: for MLPs, and with numba."""
    policy = agent.policy
    known = isinstance(policy, Policy) and isinstance(policy.kernel, DenseKernel | LogStdKernel)
    return known and policy.compiles_in(agent.plan.is_long(steps))


def machine() -> dict[str, str]:
    """The machine that the last bits of a run depend on: the processor, and how torch and NumPy use it."""
    features = getattr(getattr(np, "_core", None), "_multiarray_umath", None)
    used = sorted(name for name, there in getattr(features, "__cpu_features__", {}).items() if there)
    kernels = {f"{x['internal_api']} {x.get('architecture', '')}" for x in threadpool_info() if x["user_api"] == "blas"}
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.backends.cpu.get_cpu_capability(),
        "numpy": " ".join(used),
        "blas": ", ".join(sorted(kernels)),
    }
