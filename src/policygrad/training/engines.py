"""Settling the runs that are wanted: those that are there are read or resumed, the others are trained.

How they are trained is an engine's business: processes of this machine, those and other machines' on a shared directory
(`shards`), or a Ray cluster (`ray_engine`). All train a run in the same way, so its files are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from policygrad.algorithms.config import ConfigError
from policygrad.envs.processes import usable_cores
from policygrad.errors import Interrupted
from policygrad.training.jobs import SilentBoard, State
from policygrad.training.seeds import run_seeds
from policygrad.training.shards import Shard, settle_shared
from policygrad.training.sides import Existing, wait_for
from policygrad.training.wanted import Wanted

Engine = Literal["processes", "ray"]
ENGINES = ("processes", "ray")


def read_engine(engine: str, shard: str | Shard | None) -> tuple[Engine, Shard | None]:
    """The engine and the shard that are asked for. Raises ConfigError."""
    if engine not in ENGINES:
        raise ConfigError(f"engine = {engine!r} is not one of: {', '.join(ENGINES)}")
    if engine == "ray" and shard is not None:
        raise ConfigError("shard divides work among machines, and so does engine = ray: give one of the two")
    return ("ray" if engine == "ray" else "processes"), None if shard is None else Shard.read(shard)


def settle(
    wanted: Sequence[Wanted],
    root: Path,
    existing: Existing,
    at_once: int | None,
    board: SilentBoard,
    shard: Shard | None = None,
    engine: Engine = "processes",
) -> list[State]:
    """How each run ended, in the order in which they are wanted: done, failed, or stopped from outside.

    root: the directory of runs. at_once: runs at the same time, by default one per core of this machine, or of the cluster.
    Raises Interrupted after Ctrl-C.
    """
    try:
        if engine == "ray":
            from policygrad.training.ray_engine import settle_on_ray

            states = settle_on_ray(wanted, existing, at_once, board)
        elif shard is not None:
            states = settle_shared(wanted, shard, root, existing, at_once or usable_cores(), board)
        else:
            states = settle_here(wanted, existing, at_once or usable_cores(), board)
    finally:
        board.stop()
    number = next((state.signal for state in states if state.phase == "stopped" and state.signal), None)
    if number is not None:
        done = sum(state.phase == "done" for state in states)
        raise Interrupted(f"interrupted: {done} of {len(states)} runs are finished; the same command goes on", number)
    return states


def settle_here(wanted: Sequence[Wanted], existing: Existing, at_once: int, board: SilentBoard) -> list[State]:
    """Train what is missing in processes of this machine. A run that another process trains is waited for."""
    states: list[State | None] = []
    jobs = []
    for one in wanted:
        run = one.run_among(existing)
        if run is not None and one.is_settled(run):
            states.append(one.state_of(run))
            continue
        if run is not None:
            wait_for(run)
        states.append(None)
        jobs.append(one.job_of(run))
    trained = iter(run_seeds(jobs, min(at_once, len(jobs)), board) if jobs else ())
    return [next(trained) if state is None else state for state in states]
