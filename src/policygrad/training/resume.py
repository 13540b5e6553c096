"""Resuming a run that was stopped or killed, with the same result as without the stop."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from policygrad.algorithms.config import Algo, ConfigError, check
from policygrad.algorithms.devices import CPU
from policygrad.envs.single import EnvLike, Wrapper
from policygrad.forms import FormError
from policygrad.models.ascent import Gain
from policygrad.models.policy import Body
from policygrad.stored.directory import ROOT, RunDirectory, RunError, find_run, named
from policygrad.stored.storage import ModelFileError, load_state
from policygrad.stored.trajectories import Trajectories
from policygrad.training.agent import Agent, Callback
from policygrad.training.following import greatest_of
from policygrad.training.loading import load
from policygrad.training.progress import Progress
from policygrad.training.ranks import current
from policygrad.training.recorder import RUN
from policygrad.training.shares import refuse_undivided
from policygrad.training.threads import threads_for
from policygrad.training.trackers import trackers
from policygrad.training.train import assess, is_compiled, kernel_of, learn, machine, run_config, versions


def resume(
    run: RunDirectory | str | Path,
    *,
    steps: int | None = None,
    env: EnvLike | None = None,
    recipe: Algo | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    parts: Mapping[str, Any] | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    dataset: Trajectories | str | Path | None = None,
    callback: Callback | Sequence[Callback] | None = None,
    eval_env: EnvLike | None = None,
    progress: Progress | None = None,
    root: str | Path = ROOT,
) -> RunDirectory:
    """Resume a run from its last checkpoint and evaluate its policy. A finished run is returned unchanged.

    The run is then the one that was never stopped, file by file, to the last bit, the clocks aside. A warning says where that
    cannot be: on another kind of machine, with other versions, or for environments that cannot be played again (see
    docs/reliability.md).
    run: what `train` returned, a run directory, or a run's name as on the command line. steps: as many in all instead of the
    configuration's, not fewer than were done; schedules then run to their end. env, recipe, body, critic_body, auxiliary,
    parts, env_kwargs, wrappers: as for `load`, for what a file may not name. dataset: needed where the run learns from
    trajectories that it was given as an object; a path is known. callback: the callbacks that the run was begun with, in
    order; None: the trackers of its command line.
    Raises RunError for a run without a checkpoint, or that another process trains.
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory(find_run(named(run), root))
    if finished(run, steps):
        return run
    given = {"env": env, "recipe": recipe, "body": body, "critic_body": critic_body, "dataset": dataset}
    given |= {"auxiliary": auxiliary, "parts": parts, "env_kwargs": env_kwargs, "wrappers": wrappers}
    agent, kept = prepare(run, steps, **given)
    eval_env = agent.evaluation_env("eval_env") if eval_env is None else eval_env
    config = run.config()
    callback = followers(run) if callback is None else callback
    learn(agent, run, progress, callback, bool(config.get("save_trajectories")), kept)
    assess(agent, run, int(config.get("episodes", 100)), eval_env, callback=callback)
    if agent.ranks is not None:
        agent.ranks.wait()
    return run


def followers(run: RunDirectory) -> list[Any]:
    """The callbacks of the trackers that followed a run on the command line. Raises TrackerError where one is missing."""
    return trackers(run.config().get("trackers", {}))


def finished(run: RunDirectory, steps: int | None = None) -> bool:
    """Whether a run is finished. steps: the total number of steps, if it is to be changed."""
    ranks = current()
    if ranks is not None and ranks.rank:  # rank 0 says it, who may be about to write it
        return bool(greatest_of(ranks, 0))
    done = run.state()["status"] == "finished" and (steps is None or steps <= run.config()["config"]["steps"])
    return bool(greatest_of(ranks, int(done)))


def prepare(run: RunDirectory, steps: int | None = None, **given: Any) -> tuple[Agent, dict[str, Any]]:
    """The agent of the last checkpoint, ready to go on, and the state of its run, for `learn`. given: as for `load`."""
    config = run.config()
    backend = config["backend"] if config.get("backend") in ("split", "async") else None
    if given.get("dataset") is None:
        given["dataset"] = config.get("dataset")
    agent, kept = continued(run, backend=backend, **given)
    before, now = config["config"].get("num_envs"), agent.config["num_envs"]
    if before not in (None, now):
        raise ConfigError(
            f"{run.path} has {before} environments, and this is one of {now}: give as many, or load a checkpoint"
        )
    for name in ("fisher_eigenvalues", "gradient_meter"):  # what is measured on the way
        setattr(agent, name, check(name, type(getattr(agent, name)), config.get(name, getattr(agent, name))))
    refuse_undivided(agent)
    for text in differences(config, agent):
        warnings.warn(text, stacklevel=3)
    if steps is not None:
        lengthen(run, agent, steps)
    return agent, kept


def check_same_configuration(run: RunDirectory, agent: Agent) -> None:
    """Refuse to resume a run with another configuration than the agent's, except for more steps. Raises ConfigError."""
    # runs of 0.4 do not say the device
    before: dict[str, Any] = {"device": CPU} | run.config()
    now = run_config(agent, agent.config["steps"])
    names = ("algo", "env", "seed", "env_kwargs", "wrappers", "dataset", "custom", "auxiliary", "device")
    other = [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]
    then, asked = before["config"], {k: list(x) if isinstance(x, tuple) else x for k, x in agent.config.items()}
    other += [(name, then.get(name), x) for name, x in asked.items() if name != "steps" and then.get(name) != x]
    if other:
        shown = "; ".join(f"{name}: {old!r} in the run, {new!r} now" for name, old, new in other)
        raise ConfigError(f"{run.path} has another configuration, which cannot change when a run is resumed: {shown}")


def continued(run: RunDirectory, **given: Any) -> tuple[Agent, dict[str, Any]]:
    """The agent of the last checkpoint that can be read, and the state of its run. given: as for `load`.

    Raises RunError where there is none.
    """
    failed: ModelFileError | None = None
    for path in reversed(run.checkpoints()):
        try:
            kept = load_state(path)[0].get("run")
            if kept is None:
                raise RunError(f"{path} cannot be resumed: version 0.4 did not save enough of the run")
            RUN("run", kept)
            return load(path, **given), kept
        except FormError as error:
            failed = failed or ModelFileError(f"{path} does not hold what it should: {error}")
            warnings.warn(f"{failed}: resuming from the checkpoint before it", stacklevel=3)
        except ModelFileError as error:
            failed = failed or error
            warnings.warn(f"{error}: resuming from the checkpoint before it", stacklevel=3)
    raise failed or RunError(
        f"{run.path} holds no checkpoint: it was stopped before training began, so train again in another directory"
    )


def lengthen(run: RunDirectory, agent: Agent, steps: int) -> None:
    """Change the total number of steps of a run. Raises ConfigError for fewer steps than it has taken."""
    steps, trainer = int(check("steps", int, steps)), agent.trainer
    if steps < trainer.done:
        raise ConfigError(f"steps = {steps:,}, but {run.path} has taken {trainer.done:,} already")
    if steps != trainer.total:
        warnings.warn(
            f"schedules run over {steps:,} steps from here on, over {trainer.total:,} before: this is another run than one of "
            f"{steps:,} steps from the beginning, unless nothing in it has a schedule",
            stacklevel=3,
        )
    config = run.config()
    if is_compiled(agent, trainer.total) != is_compiled(agent, steps):
        now = "is not compiled: there it would not pay" if is_compiled(agent, trainer.total) else "is compiled"
        warnings.warn(f"a training of {steps:,} steps {now}, so the last bits may differ from here on", stacklevel=3)
        used = {name: x for name, x in versions(agent, steps).items() if name == "numba"}
        before = {name: x for name, x in config.get("versions", {}).items() if name != "numba"}
        config |= {"versions": before | used, "kernel": kernel_of(agent, steps)}
    agent.change(steps=steps)
    trainer.stopped = False
    trainer.total = trainer.until = steps
    if agent.ranks is None or agent.ranks.rank == 0:
        run.write_config(config | {"config": config["config"] | {"steps": steps}})


def differences(config: Mapping[str, Any], agent: Agent) -> list[str]:
    """The differences between this machine and that on which the run began, in sentences."""
    found = []
    idle = find_spec("numba") is not None and not is_compiled(agent, config["config"]["steps"])
    if idle and config.get("kernel") == "compiled":
        found.append("the run goes on without compiled functions: its last bits may differ")
    for what, now in (("versions", versions(agent, config["config"]["steps"])), ("machine", machine())):
        before = config.get(what)
        before = before if isinstance(before, dict) else {}
        other = [
            f"{name} {before[name]!r} → {now.get(name)!r}"
            for name in dict.fromkeys([*now, "envpool"] if idle else [*now, "envpool", "numba"])  # which may be gone
            if name in before and before[name] != now.get(name)
        ]
        if other:
            found.append(f"the run goes on with other {what} ({'; '.join(other)}): its last bits may differ")
    threads = config.get("threads", 1), threads_for(agent.policy)
    if threads[0] != threads[1]:
        found.append(f"the run goes on with {threads[1]} threads in place of {threads[0]}: its last bits may differ")
    ranks = config.get("ranks", 1), 1 if agent.ranks is None else agent.ranks.size
    if ranks[0] != ranks[1]:
        now, before = ("one process" if n == 1 else f"{n} processes" for n in (ranks[1], ranks[0]))
        found.append(f"the run goes on in {now} in place of {before}: its last bits may differ")
    device = config.get("device", CPU)
    if device != agent.device:
        found.append(f"the run goes on on another device ({device!r} → {agent.device!r}): its numbers will differ")
    return found
