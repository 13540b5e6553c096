"""Worker processes in the process that started them: making, watching and ending them."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from multiprocessing import connection
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from policygrad.envs.block import CLOSE, ECHO, pack, serve
from policygrad.envs.families import packages
from policygrad.envs.own_block import OwnHandle
from policygrad.envs.processes import without_main
from policygrad.envs.shared import Memory
from policygrad.errors import EnvError, UserError

CLOSE_SECONDS = 1.0  # seconds for the environments to close themselves; then their processes are killed


class WorkerError(EnvError, RuntimeError):
    """An environment in a worker process raised an error, or its process ended or does not answer."""


class SendError(UserError, TypeError):
    """The makers of environments cannot be sent to another process."""


class WorkerHandle:
    """A worker process, seen from here. block: the numbers of its environments.

    target: its main function, of (pipe, memory, payload, index, number of its first environment, *more).
    """

    own = False

    def __init__(
        self,
        context: Any,
        memory: Memory,
        payload: bytes,
        index: int,
        block: range,
        target: Callable[..., None] = serve,
        more: tuple[Any, ...] = (),
    ) -> None:
        self.index, self.block, self.rows = index, block, slice(block.start, block.stop)
        self.pipe, theirs = context.Pipe()
        args = theirs, memory, payload, index, block.start, *more
        self.process = context.Process(target=target, args=args, name=f"environments from {block.start}")
        with without_main():
            self.process.start()
        theirs.close()
        self.pid = self.process.pid
        self.busy = True  # it has to say what it made

    def send(self, message: bytes) -> None:
        """Send a message. `receive` finds out whether the worker is still running."""
        self.busy = True
        with suppress(OSError):
            self.pipe.send_bytes(message)

    def receive(self, by_pipe: bool) -> bytes | None:
        """The reply of a worker that has replied or ended; None if it has ended without one. by_pipe: the pipe said so."""
        try:  # its own children may hold the other end of the pipe
            reply = self.pipe.recv_bytes() if by_pipe or self.pipe.poll() else None
        except (EOFError, OSError):
            reply = None
        self.busy = False
        return reply

    def settle(self, seconds: float) -> bool:
        """Discard all its messages, because Ctrl-C may have cut one in two. False: it does not answer."""
        word, said, until = ECHO + os.urandom(16), b"", time.monotonic() + seconds
        self.send(word)
        try:
            while not said.endswith(word):
                if not self.pipe.poll(max(0.0, until - time.monotonic())):
                    return False
                more = self.pipe.recv_bytes() if sys.platform == "win32" else os.read(self.pipe.fileno(), 2**16)
                if not more:
                    return False
                said = (said + more)[-len(word) :]
        except (EOFError, OSError):
            return False
        self.busy = False
        return True

    def gone(self) -> bool:
        """Whether the process has ended, when its sentinel says so.

        It says so, too, when the server that forked it has ended: SIGTERM to a whole process group ends the server.
        """
        if sys.platform == "win32":
            return True
        try:
            os.kill(self.process.pid or 0, 0)
        except ProcessLookupError:
            return True
        return False

    def wait(self, seconds: float) -> None:
        """Wait for the end of the process, but not longer than that."""
        if not self.pipe.closed:
            self.process.join(max(0.0, seconds))

    def end(self) -> None:
        """Kill the process, if it has not ended, and let go of it."""
        if self.pipe.closed:
            return
        if self.process.is_alive():
            self.process.kill()
            self.process.join(1.0)
        self.pipe.close()
        with suppress(ValueError):  # it does not die: some system calls cannot be interrupted
            self.process.close()


class Watch:
    """Waits for the pipes and the ends of processes, of all workers at once, and stays `awake` for so many seconds."""

    def __init__(self, workers: Sequence[WorkerHandle | OwnHandle], awake: float = 0.0) -> None:
        self.awake = awake
        self.sources: dict[
            Any, tuple[WorkerHandle, bool]
        ] = {}  # what is waited for: whose it is, and whether it is the pipe
        self.poll = select.poll() if hasattr(select, "poll") else None  # Windows has none
        for worker in workers:
            if (
                isinstance(worker, OwnHandle) or worker.pipe.closed
            ):  # this process, or one that is lost, and will be replaced
                continue
            pipe: Any = worker.pipe.fileno() if self.poll else worker.pipe
            self.sources |= {pipe: (worker, True), worker.process.sentinel: (worker, False)}
        if self.poll:
            for fd in self.sources:
                self.poll.register(fd, select.POLLIN)

    def ready(self, seconds: float) -> list[tuple[WorkerHandle, bool]]:
        """The workers that have a message (True) or have ended (False)."""
        if self.poll is None:
            return [self.sources[x] for x in connection.wait(list(self.sources), seconds)]
        until = time.perf_counter() + min(self.awake, seconds)
        while not (found := self.poll.poll(0)) and time.perf_counter() < until:
            pass
        return [self.sources[fd] for fd, _ in found or self.poll.poll(seconds * 1000.0)]

    def forget(self, worker: WorkerHandle) -> None:
        """The sentinel of this worker says nothing any more."""
        fd = worker.process.sentinel
        if self.sources.pop(fd, None) and self.poll:
            self.poll.unregister(fd)


def payloads(blocks: Sequence[Sequence[Callable[[], gym.Env]]]) -> list[bytes]:
    """The message from which each worker makes its environments, with the user's registered ids and environment variables."""
    registered: list[Any] = list(packages())
    for spec in gym.registry.values():
        if not str(spec.entry_point).startswith(("gymnasium.", *(f"{name}." for name in packages()))):
            with suppress(Exception):  # this one cannot be sent: whoever makes it will hear that it is not known
                pack(sent := by_name(spec))
                registered.append(sent)
    try:
        return [pack((list(makers), registered, dict(os.environ))) for makers in blocks]
    except Exception as error:
        raise SendError(
            f"what makes the environments cannot be sent to another process ({type(error).__name__}: {error}): make "
            "everything that it needs inside the callable, or take backend='gymnasium'"
        ) from error


def by_name(spec: EnvSpec) -> EnvSpec:
    """The spec with the names of its classes instead of these, so that a worker imports their module only to make one.

    The module of one registered class may import torch, which takes seconds, in workers that make something else.
    """
    sent = copy(spec)
    for entry in ("entry_point", "vector_entry_point"):
        made = getattr(spec, entry)
        module, name = (getattr(made, x, None) for x in ("__module__", "__qualname__"))
        if name and module not in (None, "__main__") and getattr(sys.modules.get(module), name, None) is made:
            setattr(sent, entry, f"{module}:{name}")
    return sent


def end(workers: Sequence[WorkerHandle | OwnHandle], memory: Memory) -> None:
    """Ask workers to close their environments, and kill those that do not end."""
    until = time.monotonic() + CLOSE_SECONDS
    try:
        for worker in workers:
            worker.send(CLOSE)
        for worker in workers:
            worker.wait(until - time.monotonic())
    finally:  # whoever waits presses Ctrl-C once more
        for worker in workers:
            worker.end()
        memory.close()
