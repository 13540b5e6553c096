"""`policygrad resume RUN` and `policygrad train … --resume`: resuming a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.cli.arguments import TrainArguments, check_env
from policygrad.cli.episodes import Episodes
from policygrad.cli.flags import resume_parser
from policygrad.cli.nproc import refuse_more, several
from policygrad.cli.playing import refuse_import
from policygrad.cli.reports import as_usage_error, evaluation_table, saved, why_fewer
from policygrad.cli.tables import paragraph
from policygrad.cli.values import UsageError, parse_pairs, positive
from policygrad.errors import Interrupted
from policygrad.stored.directory import RunDirectory, find_run
from policygrad.training.progress import clock, make_progress
from policygrad.training.seeds import failure

if TYPE_CHECKING:
    from policygrad.training.agent import Agent


def resume_command(words: Sequence[str]) -> None:
    """`policygrad resume`."""
    given = resume_parser().parse(words)
    steps = None if given.steps is None else positive("steps", given.steps)
    path = find_run(given.run, given.runs_root)
    if not path.is_dir():
        raise UsageError(f"{path} is a file: give the run directory that it is in.")
    if given.env is not None:
        check_env(given.env)
    run = RunDirectory(path)
    config = run.config()
    refuse_import("resume", given.run, config, given.env, given.recipe, given.wrapper, config.get("files"))
    nproc = positive("nproc", given.nproc)
    num_envs = config["config"].get("num_envs")
    if isinstance(num_envs, int):
        refuse_more(nproc, num_envs)
    ranks = several(nproc, ["resume", *words])
    kwargs = None if given.env_kwargs is None else parse_pairs("env_kwargs", chain.from_iterable(given.env_kwargs))
    quiet = given.quiet or (ranks is not None and ranks.rank > 0)
    go_on(run, steps, quiet, env=given.env, recipe=given.recipe, env_kwargs=kwargs, wrappers=given.wrapper)


def resume_given(agent: Agent, given: TrainArguments) -> None:
    """`train … --resume` with an existing run, whose configuration must be the one on the command line."""
    from policygrad.training.resume import check_same_configuration

    run = RunDirectory(Path(given.run_dir or ""))
    with as_usage_error(ValueError):
        check_same_configuration(run, agent)
    agent.close()
    asked = agent.config["steps"] if "steps" in given.overrides else None
    steps = asked if asked != run.config()["config"]["steps"] else None
    own = ":" in given.algo or given.algo.endswith(".py")
    words = {"env_kwargs": given.env_kwargs or None, "wrappers": given.wrappers or None, "dataset": given.dataset}
    go_on(run, steps, given.quiet, env=given.env, recipe=given.algo if own else None, **words)


def go_on(run: RunDirectory, steps: int | None, quiet: bool, **given: Any) -> None:
    """Train the rest of a run, if it is not finished. given: as for `policygrad.training.loading.load`."""
    from policygrad.training.resume import finished, followers, prepare

    if finished(run, steps):
        if not quiet:
            print(f"{run.path} is finished: nothing is left to do")
        return
    with as_usage_error(ValueError, TypeError, ImportError):
        callbacks = followers(run)
        agent, kept = prepare(run, steps, **given)
    config = run.config()
    if not quiet:
        done, total = agent.collector.steps_done, config["config"]["steps"]
        print(f"{agent.algo} on {agent.env_name}, seed {agent.seed}: resumed at {done:,} of {total:,} steps")
        print(f"run directory: {run.path}", flush=True)
    episodes, save = int(config.get("episodes", 100)), bool(config.get("save_trajectories"))
    train_to_the_end(agent, run, quiet, episodes, save, kept, callbacks)


def train_to_the_end(
    agent: Agent,
    run: RunDirectory,
    quiet: bool,
    episodes: int,
    save_trajectories: bool,
    resumed: dict[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
) -> None:
    """Train, evaluate, and print the results. resumed, callbacks: as for `policygrad.training.train.learn`."""
    from policygrad.training import train as training

    started = time.perf_counter()
    try:
        training.learn(agent, run, make_progress(quiet), list(callbacks), save_trajectories, resumed)
        if not quiet:
            spent = clock(time.perf_counter() - started)
            why = why_fewer(agent, run.config()["config"]["steps"])
            text = f"{agent.collector.steps_done:,} steps in {spent}{why}; evaluating the final policy"
            print(paragraph(text), flush=True)
        told = None if quiet else Episodes()
        evaluations = training.assess(agent, run, episodes, progress=told, callback=callbacks)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(f"interrupted: {saved(run)}", getattr(interrupt, "number", 2)) from None
    except (Exception, SystemExit) as error:
        raise UsageError(f"{failure(error, run)}\n{saved(run)}") from error
    if not quiet:
        print("\n" + evaluation_table(evaluations) + "\n")
        print("\n".join(f"{name:<7}{path}" for name, path in (("policy", run.policy_file), ("curve", run.curve_file))))
