"""One thread: for small networks more threads cost time, and results would depend on their number. Convolutions over pictures
get one per core, and their last bits depend on that number, which config.json says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from policygrad.envs.processes import cores_for
from policygrad.errors import UserError
from policygrad.models.pictures import has_pictures

AVAILABLE = torch.get_num_threads()  # as many as OMP_NUM_THREADS says, or one per core
MOST_THREADS = 8
CPU = torch.device("cpu")


class BusyError(UserError, RuntimeError):
    """The agent learns in another thread, or it has been closed."""


def threads_for(actor: Any) -> int:
    """Threads of training and playing with this policy: one, or one per core for convolutions over pictures."""
    if not has_pictures(getattr(actor, "network", None)) or getattr(actor, "device", CPU).type != "cpu":
        return 1
    return min(cores_for(MOST_THREADS), AVAILABLE)


@contextmanager
def single_thread(threads: int = 1) -> Iterator[None]:
    """In this context torch and the BLAS under numpy use one thread; afterwards the old numbers are restored.

    threads: of torch, where it may have more.
    """
    before = torch.get_num_threads()
    try:
        with threadpool_limits(1):
            torch.set_num_threads(threads)
            yield
    finally:
        torch.set_num_threads(before)


class Turns:
    """Makes threads that use one network take turns, `with turns: …`, because its passes share memory."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.learner: int | None = None  # the thread that learns

    def __enter__(self) -> None:
        self.lock.acquire()
        if self.learner not in (None, threading.get_ident()):
            self.lock.release()
            raise BusyError(
                "this agent learns in another thread: wait until it has, or use a copy, copy.deepcopy(agent)"
            )

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    @contextmanager
    def learning(self) -> Iterator[None]:
        """In this context a thread learns, and other threads are refused instead of waiting for hours."""
        with self:
            before, self.learner = self.learner, threading.get_ident()
        try:
            yield
        finally:
            self.learner = before
