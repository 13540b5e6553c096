"""`policygrad train`: one seed in this process, several seeds in a process each."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.algorithms.config import find_recipe, resolve
from policygrad.cli.arguments import TrainArguments, parse_train
from policygrad.cli.board import make_board
from policygrad.cli.nproc import refuse_more, several
from policygrad.cli.reports import (
    as_usage_error,
    failures,
    length,
    preset,
    saved_seeds,
    seeds_table,
    seeds_text,
    stepped,
)
from policygrad.cli.resuming import resume_given, train_to_the_end
from policygrad.cli.tables import paragraph
from policygrad.cli.values import UsageError, parse_number
from policygrad.envs.families import preparation
from policygrad.envs.processes import usable_cores
from policygrad.errors import Interrupted
from policygrad.stored.directory import ROOT, RunDirectory, RunError, environment
from policygrad.training.jobs import Job, SilentBoard, State
from policygrad.training.progress import clock
from policygrad.training.seeds import run_seeds

if TYPE_CHECKING:
    from policygrad.training.engines import Engine
    from policygrad.training.shards import Shard


def train_command(words: Sequence[str]) -> None:
    """`policygrad train`."""
    given = parse_train(words)
    command = ["policygrad", "train", *words]
    if given.lease is not None or given.shard is not None or given.engine != "processes":
        if given.nproc > 1:
            raise UsageError("--nproc divides one run, --shard and --engine divide several: give one of them.")
        train_several(given, command, **engine_of(given.engine, given.shard, given.lease))
        return
    if given.nproc > 1:  # refused once, before processes are started
        with as_usage_error(ValueError, TypeError):
            num_envs = resolve(given.algo, given.env, given.overrides, given.preset)[0]["num_envs"]
        refuse_more(given.nproc, num_envs)
    ranks = several(given.nproc, command[1:], given.seeds)
    if ranks is not None and ranks.rank:
        given.quiet, given.wandb, given.mlflow = True, None, None  # rank 0 says it all
    if len(given.seeds) == 1:
        train_one(given, command)
    else:
        train_several(given, command)


def has_run(run_dir: str | None) -> bool:
    """Whether this directory contains a run."""
    return run_dir is not None and RunDirectory(Path(run_dir)).config_file.exists()


def train_one(given: TrainArguments, command: list[str]) -> None:
    """Train one run in this process."""
    from policygrad.training import train as training
    from policygrad.training.agent import Agent
    from policygrad.training.following import greatest_of

    with as_usage_error(Exception, SystemExit):  # an environment's code may do anything
        agent = Agent(given.algo, given.env, seed=given.seeds[0], **given.keywords)
    if given.resume and greatest_of(agent.ranks, int(has_run(given.run_dir))):
        resume_given(agent, given)
        return
    from policygrad.training.trackers import trackers

    callbacks = trackers(given.trackers)  # refused before anything is written
    run = training.start(
        agent,
        given.run_dir,
        root=given.runs_root or ROOT,
        command=command,
        episodes=given.eval_episodes,
        save_trajectories=given.save_trajectories,
        trackers=given.trackers,
    )
    if not given.quiet:
        text = preset(agent.algo, agent.env_name, agent.config, agent.tuned, given.preset)
        text += (
            source(given, agent.backend)
            + "".join(f"; {said}" for said in training.pictures_of(agent))
            + left_out(given)
        )
        name = environment({"env": agent.env_name, "name": agent.name} | agent.env_words())
        said = length(agent.config, agent.plan.num_steps, agent.plan.episodes)
        said += f", in {agent.ranks.size} processes" if agent.ranks else ""
        print(paragraph(f"{agent.algo} on {name}, seed {agent.seed}, {said}; {text}"))
        print(f"run directory: {run.path}", flush=True)
    train_to_the_end(agent, run, given.quiet, given.eval_episodes, given.save_trajectories, callbacks=callbacks)


def train_several(
    given: TrainArguments, command: list[str], engine: Engine = "processes", shard: Shard | None = None
) -> None:
    """Train one run per seed, in a process each; shards and clusters reuse finished runs and resume others."""
    from policygrad.envs.make import resolve_backend
    from policygrad.envs.single import with_words
    from policygrad.training.trackers import trackers

    trackers(given.trackers)  # refused once, not by every seed, and so is what follows
    with as_usage_error(ValueError, TypeError):
        config, tuned = resolve(given.algo, given.env, given.overrides, given.preset)
        env = with_words(given.env, given.env_kwargs, given.wrappers)
        backend = resolve_backend(env, given.backend or "auto", config["steps"], config["num_envs"])
    shared = engine != "processes" or shard is not None
    jobs = make_jobs(given, command)
    at_once = min(given.jobs or usable_cores(), len(jobs))
    if not given.quiet:
        text = preset(given.algo, given.env, config, tuned, given.preset)
        text += source(given, backend) + left_out(given)
        said = length(config, config.get("num_steps"), config.get("episodes"))
        where = "on Ray" if engine == "ray" else f"{at_once} at once" + (f", shard {shard}" if shard else "")
        seeds = f"{seeds_text(given.seeds)} ({where})"
        name = environment(
            {"env": given.env, "name": given.name, "env_kwargs": given.env_kwargs, "wrappers": given.wrappers}
        )
        print(paragraph(f"{given.algo} on {name}, {seeds}, {said}; {text}"), flush=True)
    started, board = time.perf_counter(), make_board(given.quiet)
    try:
        if shared:
            states = train_shared(given, jobs, config, board, engine, shard)
        else:
            states = run_seeds(jobs, at_once, board)
    finally:
        board.stop()
    stopped = any(state.phase == "stopped" and state.signal for state in states)
    if not stopped:
        out = draw_curves(states, picture_file(states, given.run_dir))
        if not given.quiet and out is not None:
            spent = clock(time.perf_counter() - started)
            print(f"\n{seeds_table(states)}\n\ntime   {spent}\nruns   {parent(states)}\ncurves {out}")
    failed = failures(states)
    if stopped:
        if failed:
            print(f"policygrad: {failed}", file=sys.stderr)
        raise Interrupted(f"interrupted: {saved_seeds(states)}", next((s.signal for s in states if s.signal), 2))
    if failed:
        raise UsageError(failed)


def train_shared(
    given: TrainArguments,
    jobs: Sequence[Job],
    config: Mapping[str, Any],
    board: SilentBoard,
    engine: Engine,
    shard: Shard | None,
) -> list[State]:
    """Train the seeds that are missing, in shards or on a cluster. Raises Interrupted after Ctrl-C."""
    from policygrad.training.engines import settle
    from policygrad.training.sides import Existing
    from policygrad.training.wanted import Wanted

    names = ("name", "env_kwargs", "wrappers", "device", "backend", "dataset", "gradient_meter")
    words = {name: value for name in names if (value := getattr(given, name))}
    plain = {name: list(x) if isinstance(x, tuple) else x for name, x in config.items()}
    root = Path(given.runs_root or ROOT).expanduser()
    wanted = [Wanted(job, plain, words) for job in jobs]
    return settle(wanted, root, Existing.under(root), given.jobs, board, shard, engine)


def engine_of(engine: str | None, shard: str | None, lease: str | None) -> dict[str, Any]:
    """What trains the runs, `engine` and `shard`, as the flags --engine, --shard and --lease say."""
    from policygrad.training.claims import LEASE_SECONDS
    from policygrad.training.engines import read_engine
    from policygrad.training.shards import Shard

    if lease is not None and shard is None:
        raise UsageError("--lease is that of a shard: give --shard, too, such as --shard 0/4.")
    seconds = LEASE_SECONDS if lease is None else parse_number("lease", float, lease)
    with as_usage_error(ValueError):
        found, own = read_engine(engine or "processes", None if shard is None else Shard.read(shard, seconds))
    return {"engine": found, "shard": own}


def source(given: TrainArguments, backend: str) -> str:
    """The text about the source of episodes, if it is not Gymnasium in this process, and how environments are prepared."""
    if given.dataset is not None:
        return f"; from {given.dataset}"
    prepared = preparation(given.env, given.env_kwargs)
    prepared = "" if prepared is None else f"; {prepared}"
    alone = "; no --dataset: the policy plays its own episodes" if find_recipe(given.algo).spec.dataset else ""
    return stepped(backend) + alone + prepared


def left_out(given: TrainArguments) -> str:
    """The text about words of RL Zoo's file that mean nothing here."""
    said = given.preset.said() if hasattr(given.preset, "said") else ""
    return f"; {said}" if said else ""


def make_jobs(given: TrainArguments, command: list[str]) -> list[Job]:
    """One job per seed; with --run-dir DIR in DIR/seed<k>, which must be new or empty."""
    root, jobs = str(given.runs_root or ROOT), []
    if given.run_dir is not None and (given.shard is not None or given.engine != "processes"):
        raise UsageError(
            "--run-dir is for one machine: shards and clusters find and make their runs under --runs-root."
        )
    if given.run_dir is not None and RunDirectory(Path(given.run_dir)).config_file.exists():
        raise RunError(f"{given.run_dir} is a run directory: give another one for the runs of several seeds")
    if given.run_dir is not None and Path(given.run_dir).is_file():
        raise RunError(f"{given.run_dir} exists and is not a directory: the runs of several seeds need a directory")
    for seed in given.seeds:
        path = None if given.run_dir is None else Path(given.run_dir) / f"seed{seed}"
        again = given.resume and has_run(str(path))
        if path is not None and path.is_dir() and any(path.iterdir()) and not again:
            raise RunError(f"{path} is not empty: give a new directory, or remove this one first")
        run_dir = None if path is None else str(path)
        job = Job(given.algo, given.env, seed, given.keywords, run_dir, root, given.eval_episodes, command)
        jobs.append(replace(job, save_trajectories=given.save_trajectories, resume=again, trackers=given.trackers))
    return jobs


def parent(states: Sequence[State]) -> Path:
    """The directory that the runs are in."""
    return next((Path(state.path).parent for state in states if state.path is not None), Path())


def picture_file(states: Sequence[State], run_dir: str | None) -> Path:
    """The file for the curves of all seeds: beside the runs, in DIR or with a name made from theirs."""
    if run_dir is not None:
        return parent(states) / "learning_curves.png"
    seeds, paths = [state.seed for state in states], [state.path for state in states if state.path is not None]
    begun = Path(paths[0]).name.partition("-")[2] if paths else ""
    return parent(states) / f"seeds{min(seeds)}-{max(seeds)}-{begun}.png"


def draw_curves(states: Sequence[State], out: Path) -> Path | None:
    """Draw all learning curves in one figure; None if no run has metrics yet."""
    from policygrad.reports.plots import plot_runs

    directories = [RunDirectory(Path(state.path)) for state in states if state.path is not None]
    drawn = [run for run in directories if run.metrics_file.exists()]
    return plot_runs(drawn, out) if drawn else None
