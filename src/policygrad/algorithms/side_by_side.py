"""Two pieces of work at once, on two cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

MOST_THREADS = 64  # agents that learn at once, each in a thread of its own

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """The results of both, the second computed in a thread of its own; whatever the first raises, the second is waited for.

    They must not touch what the other changes. Compiled functions and matrix products hold no lock of Python's.
    """
    threads = torch.get_num_threads()

    def alone() -> B:
        torch.set_num_threads(threads)  # OpenMP's number is every thread's own
        return second()

    other = _pool().submit(alone)
    try:
        done = first()
    except BaseException:
        wait([other])
        raise
    return done, other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that wait for the next call: starting one takes as long as a small minibatch."""
    return ThreadPoolExecutor(MOST_THREADS, "policygrad side by side")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of these threads
