"""Worker processes, seen from the process that started them: how they are made, watched and ended."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection
from typing import Any

import gymnasium as gym

from policygrad.envs.block import CLOSE, pack, serve
from policygrad.envs.processes import without_main
from policygrad.envs.shared import Memory
from policygrad.errors import EnvError, UserError

CLOSE_SECONDS = 1.0  # seconds for the environments to close themselves; then their processes are killed


class WorkerError(EnvError, RuntimeError):
    """An environment in a worker process raised an error, or its process ended or does not answer."""


class SendError(UserError, TypeError):
    """What makes the environments cannot be sent to another process."""


class Worker:
    """A worker process, seen from here. block: the numbers of its environments."""

    def __init__(self, context: Any, memory: Memory, payload: bytes, index: int, block: range) -> None:
        self.index, self.block, self.rows = index, block, slice(block.start, block.stop)
        self.pipe, theirs = context.Pipe()
        args = theirs, memory, payload, index, block.start
        self.process = context.Process(target=serve, args=args, name=f"environments from {block.start}")
        with without_main():
            self.process.start()
        theirs.close()
        self.busy = True  # it has to say what it made

    def send(self, message: bytes) -> None:
        """Ask it something. Whether it is still there, `receive` finds out."""
        self.busy = True
        with suppress(OSError):
            self.pipe.send_bytes(message)

    def receive(self) -> bytes | None:
        """The reply that has come; None: the process has ended without one."""
        try:
            reply = self.pipe.recv_bytes() if self.pipe.poll() else None
        except (EOFError, OSError):
            reply = None
        self.busy = False
        return reply

    def end(self, until: float) -> None:
        """Wait for the end of the process until then, and kill it."""
        self.process.join(max(0.0, until - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join(1.0)
        self.pipe.close()


class Watch:
    """Waits for the pipes and the ends of processes, of all workers at once."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers: dict[Any, Worker] = {}
        self.poll = select.poll() if hasattr(select, "poll") else None  # Windows has none
        for worker in workers:
            if worker.pipe.closed:  # it is lost, and will be replaced
                continue
            for x in (worker.pipe.fileno() if self.poll else worker.pipe, worker.process.sentinel):
                self.workers[x] = worker
                if self.poll:
                    self.poll.register(x, select.POLLIN)

    def ready(self, seconds: float) -> list[Worker]:
        """Who has something to say, or is gone."""
        if self.poll is None:
            return [self.workers[x] for x in connection.wait(list(self.workers), seconds)]
        return [self.workers[fd] for fd, _ in self.poll.poll(seconds * 1000.0)]


def payload(makers: Sequence[Callable[[], gym.Env]]) -> bytes:
    """What a worker needs to make its environments, the user's registered ids and the environment variables among it."""
    registered = []
    for spec in gym.registry.values():
        if not str(spec.entry_point).startswith("gymnasium."):
            with suppress(Exception):  # this one cannot be sent: whoever needs it will say so
                pack(spec)
                registered.append(spec)
    try:
        return pack((list(makers), registered, dict(os.environ)))
    except Exception as error:
        raise SendError(
            f"what makes the environments cannot be sent to another process ({type(error).__name__}: {error}): make "
            "everything that it needs inside the callable, or take backend='gymnasium'"
        ) from error


def end(workers: list[Worker], memory: Memory) -> None:
    """Ask workers to close their environments, and kill those that do not end."""
    until = time.monotonic() + CLOSE_SECONDS
    for worker in workers:
        worker.send(CLOSE)
    for worker in workers:
        worker.end(until)
    memory.close()
