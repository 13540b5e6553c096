"""Sums over ranks of one machine in memory that they share, which takes some ten microseconds; sockets take some hundred, and
milliseconds where a thread that should answer waits for a core.

Every rank has a slot. It writes its numbers there, then counts, waits until all have counted as far, and adds all slots in the
order of ranks, so that every rank gets the same bits. Two sets of slots take turns: who writes sum k + 2 knows from the counts
of sum k + 1 that all have read sum k.
"""

from __future__ import annotations

import os
import platform
import select
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policygrad.files import mapped

CAPACITY = 2**20  # bytes of a slot: larger sums are gloo's
LINE = 64  # bytes of a counter, so that no two share a cache line
SPIN = 2e-3  # seconds of waiting without sleeping
NAP = 5e-5  # seconds between looks after that
ALIVE = 0.2  # seconds between looks whether the others live
MACHINES = ("x86_64", "AMD64")  # whose cores see each other's writes in the order in which they were made


class NearbySums:
    """The shared memory of the ranks of one machine, in a file. pids: their processes, in order.

    lost: called when one of them has ended; it raises.
    """

    def __init__(self, path: Path, rank: int, pids: Sequence[int], lost: Callable[[], None]) -> None:
        self.rank, self.lost = rank, lost
        self.others = [os.pidfd_open(pid) for pid in pids if pid != os.getpid()]  # readable once the process has ended
        size = len(pids)
        self.memory = mapped(path, bytes_of(size))
        self.counts = np.frombuffer(self.memory, np.int64, size * LINE // 8)[:: LINE // 8]
        every = torch.frombuffer(self.memory, dtype=torch.uint8, offset=size * LINE)
        self.slots = every.view(2, size, CAPACITY)
        self.number = 0

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor has room in a slot."""
        return x.device.type == "cpu" and 0 < x.numel() * x.element_size() <= CAPACITY

    def reduce(self, x: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """All ranks' x combined, two at a time, in the order of ranks; in new memory."""
        flat = x.detach().reshape(-1)
        slots = self.slots[self.number % 2, :, : flat.numel() * flat.element_size()].view(flat.dtype)
        slots[self.rank].copy_(flat)
        self.number += 1
        self.counts[self.rank] = self.number
        self._wait()
        y = slots[0].clone()
        for each in slots[1:]:
            y = combine(y, each)
        return y.view(x.shape)

    def _wait(self) -> None:
        """Until all ranks have counted as far as this one."""
        began = looked = time.perf_counter()
        while self.counts.min() < self.number:
            now = time.perf_counter()
            if now - began < SPIN:
                os.sched_yield()  # other threads and processes go first
            else:
                time.sleep(NAP)
            if now - looked > ALIVE:
                looked = now
                if select.select(self.others, [], [], 0.0)[0] and self.counts.min() < self.number:
                    self.lost()


def bytes_of(size: int) -> int:
    """What the file of so many ranks has."""
    return size * LINE + 2 * size * CAPACITY


def make_memory(path: Path, size: int) -> bool:
    """Make the file, and say whether that was possible: on machines that keep the order of writes, with room on the disk."""
    if platform.machine() not in MACHINES or not hasattr(os, "pidfd_open"):  # of Linux
        return False
    try:
        mapped(path, bytes_of(size), new=True).close()
    except OSError:
        return False
    return True
