"""Collecting signals that ask a run to end (Ctrl-C, SIGTERM, SIGHUP), so that it ends after a whole iteration.

Schedulers and `docker stop` send SIGTERM, a closed terminal SIGHUP. Windows has no SIGHUP, and of SIGTERM only what Python
itself sends.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from policygrad.errors import Interrupted

SIGNALS: list[int] = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
GRACE = 3.0  # seconds to end an iteration in, before it is broken off


@contextmanager
def interrupts(most: float = math.inf, grace: float | None = None) -> Iterator[list[int]]:
    """Collect such signals: the number of each that came. After `most` of them the next one interrupts at once, and so does
    the first after `grace` seconds, where the platform has a timer for that.
    """
    pressed: list[int] = []
    raised: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield pressed
        return

    def end(number: int) -> NoReturn:
        raised.append(number)
        raise Interrupted(number=number)

    def press(number: int, frame: Any) -> None:
        if len(pressed) >= most:
            end(number)
        pressed.append(number)
        if grace is not None and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, grace)

    def late(number: int, frame: Any) -> None:
        end(pressed[0])

    alarm: list[int] = [signal.SIGALRM] if hasattr(signal, "SIGALRM") else []
    with handled(dict.fromkeys(heard(), press) | dict.fromkeys(alarm, late)), unmistaken(raised):
        try:
            yield pressed
        finally:
            if grace is not None and hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0.0)


@contextmanager
def terminations() -> Iterator[list[int]]:
    """Let Ctrl-C, SIGTERM and SIGHUP interrupt at once, with an `Interrupted`; the numbers of those that came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def end(number: int, frame: Any) -> None:
        came.append(number)
        raise Interrupted(number=number)

    with handled(dict.fromkeys(heard(), end)), unmistaken(came):
        yield came


@contextmanager
def at_once() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end the process without another word, also while code in C waits, which Python's handlers
    have to wait for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handled(dict.fromkeys(heard(), signal.SIG_DFL)):
        yield


@contextmanager
def unmistaken(raised: Sequence[int]) -> Iterator[None]:
    """An error after an `Interrupted` was raised for one of these signals is that one still: code in C that it passes through
    may have made another error of it. Importing a module makes an ImportError.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if raised:
            raise Interrupted(number=raised[0]) from error
        raise


def heard() -> list[int]:
    """The signals that are not ignored; `nohup`, for example, ignores SIGHUP."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def handled(handlers: Mapping[int, Any]) -> Iterator[None]:
    """In this context these handlers are set; afterwards the old ones are restored."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
