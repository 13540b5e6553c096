"""The progress of an evaluation, on the terminal."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO


class Episodes:
    """Told of every episode that has ended; it says so on one line of a terminal that is drawn anew and taken away in the end,
    and elsewhere in a line every ten seconds, so that a short evaluation says nothing.
    """

    def __init__(self, stream: TextIO | None = None, label: str = "evaluating") -> None:
        self.stream, self.label = stream or sys.stderr, label
        self.redraws = self.stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self.interval = 0.25 if self.redraws else 10.0
        self.next = time.perf_counter() + self.interval
        self.drawn = False

    def __call__(self, done: int, episodes: int) -> None:
        """Show that this number of episodes has ended."""
        now = time.perf_counter()
        if done == episodes and self.drawn:
            self.write("\r\x1b[K")
            self.drawn = False
        elif done < episodes and now >= self.next:
            self.next = now + self.interval
            text = f"{self.label}: {done:,} of {episodes:,} episodes"
            self.drawn = self.redraws
            self.write(f"\r{text}\x1b[K" if self.redraws else f"{text}\n")

    def write(self, text: str) -> None:
        """Write, unless the output is closed."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # a reader that is gone ends nothing
            self.next = float("inf")
