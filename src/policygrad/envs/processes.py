"""Tools for starting processes: the usable cores, exit codes, and starts that do not run the user's script again.

Nothing heavy is imported here.
"""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

most_cores: int | None = None  # that one run may use: where several runs share the cores, each has one


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_for(num_envs: int) -> int:
    """The number of cores for this number of environments: one each, as far as there are cores."""
    cores = usable_cores()
    return min(num_envs, cores, most_cores or cores)


def exit_text(code: int | None) -> str:
    """An exit code, or the signal's name."""
    if code is None or code >= 0:
        return f"exit code {code}"
    text = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return text + (" (out of memory?)" if text == "SIGKILL" else "")


@contextmanager
def without_main() -> Iterator[None]:
    """In this context, new processes do not run the user's script again, which may have no `if __name__` guard.

    What they need of it travels by value: cloudpickle takes functions and classes of `__main__` along.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
