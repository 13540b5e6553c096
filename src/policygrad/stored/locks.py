"""Locks of runs: at most one process trains a run, and others can ask whether one does.

The system gives a lock back however a process ends. Where there are no such locks (Windows, some network disks) nothing is
locked, and nobody can tell.
"""

from __future__ import annotations

import time
from io import BufferedReader
from pathlib import Path

from policygrad.files import opened

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PAUSES = (0.0, 0.01, 0.1)  # seconds before each attempt: who asks, `is_taken`, has the lock for some microseconds


def take(file: BufferedReader) -> bool:
    """Lock an open file for this process until it is closed. Returns False if another process has it."""
    if fcntl is None:
        return True
    for pause in PAUSES:
        time.sleep(pause)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            continue
        except OSError:  # no locks on this disk
            return True
    return False


def is_taken(path: Path) -> bool | None:
    """Whether a process has locked a file; None where its disk has no locks. Raises BadFileError.

    It asks for a lock that many may share, so that those who ask do not take each other for the one that trains. A network
    disk may give that one and refuse the one of `take`, so `take`'s is asked for next.
    """
    if fcntl is None:
        return None
    with opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another one asks
            return False
        except OSError:
            return None
    return False
