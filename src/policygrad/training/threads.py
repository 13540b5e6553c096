"""One thread: for networks of this size more threads cost time, and results would depend on their number."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from policygrad.errors import UserError


class BusyError(UserError, RuntimeError):
    """The agent learns in another thread, or it has been closed."""


@contextmanager
def single_thread() -> Iterator[None]:
    """In this context torch and the BLAS under numpy use one thread; afterwards the old numbers are restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
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
