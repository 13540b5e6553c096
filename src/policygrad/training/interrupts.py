"""Ctrl-C, collected, so that what runs is ended whole."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts(most: float = math.inf) -> Iterator[list[int]]:
    """Collect Ctrl-C: a number for each time that it was pressed. After so many of them it interrupts as ever."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield pressed
        return

    def press(number: int, frame: Any) -> None:
        if len(pressed) >= most:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
