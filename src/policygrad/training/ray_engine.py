"""Runs as the tasks of a Ray cluster (extra `ray`; Ray core alone): placed by cores, retried where a node or a worker dies.

A task is one run, trained in a process of its own as on one machine, so that its files are the same. All nodes see the
directory of runs and the code under the same paths; a retried task resumes what it finds there. Without a cluster one is
started on this machine. It listens on loopback alone, and wants a token of whoever connects; a cluster of several machines
must want one, too (RAY_AUTH_MODE=token), because whoever reaches a cluster can run code on it.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import policygrad
from policygrad.errors import UserError
from policygrad.stored.directory import RunDirectory
from policygrad.training.interrupts import interrupts
from policygrad.training.jobs import SilentBoard, State
from policygrad.training.seeds import run_seeds
from policygrad.training.shards import ATTEMPTS
from policygrad.training.sides import Existing, wait_for
from policygrad.training.wanted import Wanted

RETRIES = 20  # of a run whose node or worker dies
TELL_SECONDS = 1.0  # between what a run says of itself


class RayError(UserError):
    """Ray is missing, or its cluster cannot be used."""


def settle_on_ray(wanted: Sequence[Wanted], existing: Existing, at_once: int | None, board: SilentBoard) -> list[State]:
    """Train what is missing on the cluster, and return how each run ended. at_once: tasks at the same time, default all.

    Raises RayError where there is no cluster to be used.
    """
    states = [State(one.job.seed, side=one.job.side) for one in wanted]
    work: list[tuple[int, Wanted, str | None]] = []
    for k, one in enumerate(wanted):
        run = one.run_among(existing)
        if run is not None and one.is_settled(run):
            states[k] = one.state_of(run)
        else:
            root = str(Path(one.job.root).expanduser().resolve())
            work.append(
                (k, replace(one, job=replace(one.job, root=root)), None if run is None else str(run.path.resolve()))
            )
    if work:
        with connected() as ray:
            Tasks(ray, states, board, at_once or len(work)).play(work)
    return states


@contextmanager
def connected() -> Iterator[Any]:
    """Ray, connected to the cluster of RAY_ADDRESS, or to one on this machine that ends with this context."""
    address = os.environ.get("RAY_ADDRESS")
    module = sys.modules.get("ray")
    if module is not None and module.is_initialized():
        yield module
        return
    if address is None and module is None:
        # read when ray is imported: the address of this machine is then the loopback's, on which all its processes listen
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0")
    elif address is None:
        raise RayError(
            "ray was imported before, so what it listens on is not known: call ray.init first, or do not import it"
        )
    elif os.environ.get("RAY_AUTH_MODE") != "token":
        raise RayError(
            f"the cluster at RAY_ADDRESS={address} must want a token, because whoever reaches it can run code on it: start all "
            "nodes with RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN, and set both here (see docs/cluster.md)"
        )
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RayError("engine = ray needs Ray: pip install 'policygrad[ray]'") from error
    try:
        ray.init(
            address=address or "local", include_dashboard=None if address else False, logging_level=logging.WARNING
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise RayError(f"cannot use the Ray cluster {address or 'on this machine'}: {first}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


class Tasks:
    """The tasks of the runs, in the process that asked for them."""

    def __init__(self, ray: Any, states: list[State], board: SilentBoard, at_once: int) -> None:
        self.ray, self.states, self.board, self.at_once = ray, states, board, at_once
        from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
            NodeAffinitySchedulingStrategy,
        )

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.news = ray.remote(News).options(num_cpus=0, scheduling_strategy=here).remote()
        self.task = ray.remote(settle_one).options(num_cpus=1, max_retries=RETRIES)

    def play(self, work: Sequence[tuple[int, Wanted, str | None]]) -> None:
        """Run the tasks, the first ones first. After Ctrl-C those that run end their iteration and save it."""
        place = os.getcwd(), [path for path in sys.path if path], policygrad.__version__
        waiting, running = list(work), {}
        with interrupts() as pressed:
            while running or (waiting and not pressed):
                while waiting and len(running) < self.at_once and not pressed:
                    k, one, run = waiting.pop(0)
                    running[self.task.remote(one, run, place, self.news, k)] = k
                over, _ = self.ray.wait(list(running), timeout=TELL_SECONDS / 4)
                self._hear()
                for ref in over:
                    self._end(running.pop(ref), ref)
                if pressed:
                    for ref in running:
                        self.ray.cancel(ref, force=len(pressed) > 1)
                self.board.show(self.states)
            self._hear()
        for state in self.states:
            if pressed and not state.over:
                state.phase, state.signal = "stopped", pressed[0]
            elif pressed and state.phase == "stopped":
                state.signal = pressed[0]
        self.board.show(self.states)

    def _hear(self) -> None:
        """What the runs said since the last time."""
        for k, word, value in self.ray.get(self.news.take.remote()):
            if word == "say":
                self.board.say(self.states[k].name, *value)
            elif not self.states[k].over:
                vars(self.states[k]).update(value)

    def _end(self, k: int, ref: Any) -> None:
        """Take the state that a task ends with."""
        try:
            ended = self.ray.get(ref)
        except self.ray.exceptions.TaskCancelledError:
            ended = {"phase": "stopped"}
        except self.ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            ended = {"phase": "failed", "message": lines[-1].strip() if lines else type(error).__name__}
        vars(self.states[k]).update(ended)


class News:
    """What runs say of themselves, kept on the node that asked for them. An actor."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, str, Any]] = []

    def tell(self, k: int, word: str, value: Any) -> None:
        """Of run k: its state, or a line."""
        self.kept.append((k, word, value))

    def take(self) -> list[tuple[int, str, Any]]:
        """Everything that is new."""
        kept, self.kept = self.kept, []
        return kept


class Relay(SilentBoard):
    """The board of a task: it passes everything on."""

    interval = TELL_SECONDS

    def __init__(self, tell: Callable[[str, Any], None]) -> None:
        super().__init__()
        self.tell, self.told, self.next = tell, "", 0.0

    def show(self, states: Sequence[State]) -> None:
        state, now = states[0], time.monotonic()
        if state.phase != self.told or now >= self.next:
            self.told, self.next = state.phase, now + TELL_SECONDS
            self.tell("state", asdict(state))

    def say(self, name: str, text: str, warning: bool) -> None:
        self.tell("say", (text, warning))


def settle_one(one: Wanted, run: str | None, place: tuple[str, list[str], str], news: Any, k: int) -> dict[str, Any]:
    """Train a run to its end, from what is there of it; returns its state. The function of a task.

    run: where it was found. place: directory, paths of modules, and version of whoever asks.
    """
    folder, paths, version = place
    if version != policygrad.__version__:
        raise RayError(
            f"this node has policygrad {policygrad.__version__}, and who asks has {version}: install the same one"
        )
    os.chdir(folder)
    sys.path += [path for path in paths if path not in sys.path]
    existing = Existing.at([Path(run)] if run else [])
    for attempt in range(ATTEMPTS):
        existing.look(one.folder)
        found = one.run_among(existing)
        if found is not None and one.is_settled(found):
            return asdict(one.state_of(found))
        if found is not None:
            wait_for(RunDirectory(found.path))
        board = Relay(lambda word, value: news.tell.remote(k, word, value))
        state = run_seeds([one.job_of(found)], 1, board)[0]
        if not state.died or attempt == ATTEMPTS - 1:
            return asdict(state)
    raise AssertionError
