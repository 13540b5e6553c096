"""`compiled`, the decorator of compiled functions: machine code is kept in the user's cache directory, for every version."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba

from policygrad.files import read_bytes

SECONDS = 1.0  # of silence, before a user is told why nothing happens
SAID: set[str] = set()  # what users have been told of


class _Wait:
    """Somebody waits for what may have to be compiled."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.timer: threading.Timer | None = None

    def begin(self) -> None:
        """It has to be."""
        if self.timer is None:
            self.timer = threading.Timer(SECONDS, _say, (self.what,))
            self.timer.daemon = True
            self.timer.start()


WAITING: list[_Wait] = []


@cache
def folder() -> Path:
    """Where machine code of these sources is kept: numba itself looks at one file, not at those whose functions it calls."""
    system = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Caches")}
    variable, usual = system.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    base = Path(os.environ.get(variable) or Path.home() / usual)
    sources = hashlib.sha256(b"".join(read_bytes(file) for file in sorted(Path(__file__).parent.glob("*.py"))))
    return base / "policygrad" / f"compiled-{sources.hexdigest()[:16]}"


# No fast mathematics: the compiler may then order a sum as it likes, and does so differently in the process that compiles and
# in those that find the code in the cache.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
INNER: dict[str, Any] = OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def part(function: Callable[..., Any]) -> Any:
    """A function that compiled functions call. It is compiled with each of them, and never kept by itself."""
    return numba.njit(**INNER)(function)


def compiled(function: Callable[..., Any]) -> Any:
    """A function that Python calls. It holds no lock of Python's. Its machine code is kept on disk if it can be written there,
    and made again if it cannot be read.
    """
    before = numba.config.CACHE_DIR  # pyright: ignore
    numba.config.CACHE_DIR = before or str(folder())  # pyright: ignore
    try:
        made: Any = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # no place to write
        made = numba.njit(**OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = before  # pyright: ignore
    kept = made._cache
    kept.load_overload, kept.save_overload = _found(kept.load_overload), _or_nothing(kept.save_overload)
    return made


def _or_nothing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; None where it fails: a file of a cache may be damaged, and the disk full."""

    def tried(*given: Any) -> Any:
        with suppress(Exception):
            return function(*given)

    return tried


def _found(load: Callable[..., Any]) -> Callable[..., Any]:
    """The same for `load_overload`; where it finds nothing, something is about to be compiled."""
    load = _or_nothing(load)

    def tried(*given: Any) -> Any:
        found = load(*given)
        if found is None and WAITING:
            WAITING[-1].begin()
        return found

    return tried


@contextmanager
def patience(what: str = "the updates") -> Iterator[None]:
    """In this context a user is told, once a process, what is being compiled, where that takes more than a second."""
    wait = _Wait(what)
    WAITING.append(wait)
    try:
        yield
    finally:
        WAITING.remove(wait)
        if wait.timer is not None:
            wait.timer.cancel()


def _say(what: str) -> None:
    if what in SAID:
        return
    SAID.add(what)
    with suppress(OSError, ValueError):  # nobody reads it any more
        print(
            f"policygrad compiles {what} for this machine, once; it takes some seconds.",
            file=sys.stderr,
            flush=True,
        )
