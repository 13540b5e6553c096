"""Two pieces of work at once, on two cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

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

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(alone)
        return first(), other.result()
