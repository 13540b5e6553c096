"""Progress of a training run: a live bar on a terminal, lines at intervals elsewhere, or nothing."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.text import Text


class SafeStream:
    """A text stream whose reader may end, such as `| head`; later output is then lost without an error.

    stream: None where the process was started without one. lost: why nothing can be written any more.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream, self.lost = stream, None if stream is not None else OSError("it is closed")

    @property
    def encoding(self) -> str:
        """Of the stream."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        if self.stream is not None and self.lost is None:
            try:
                return self.stream.write(text)
            except (OSError, ValueError) as error:  # a ValueError: it was closed by this process
                self._lose(self.stream, error)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        if self.stream is not None and self.lost is None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._lose(self.stream, error)

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        with suppress(OSError, ValueError):
            return self.stream is not None and self.lost is None and self.stream.isatty()
        return False

    def _lose(self, stream: TextIO, error: Exception) -> None:
        if isinstance(error, UnicodeError):
            raise error
        self.lost = error
        with suppress(OSError, ValueError):  # what is still in the buffer must go somewhere when Python ends
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Progress(Protocol):
    """A display of progress. `interval`: seconds between updates."""

    interval: float

    def start(self, total: int) -> None:
        """Training begins."""

    def update(self, steps: int, speed: float, mean_return: float | None, note: str = "") -> None:
        """Show the steps so far, steps per second, the mean return of the last 100 episodes, and a note."""

    def finish(self, steps: int) -> None:
        """No other whole iteration fits: these steps are all that there are, also where more were asked for."""

    def stop(self) -> None:
        """Training is over, or has failed."""


class Silent(Progress):
    """A display that shows nothing."""

    interval = float("inf")


class Lines(Progress):
    """A display that prints a line every ten seconds, for logs."""

    def __init__(self, stream: TextIO | None = None, interval: float = 10.0) -> None:
        self.stream, self.interval, self.total, self.steps = SafeStream(stream or sys.stdout), interval, 0, -1

    def start(self, total: int) -> None:
        self.total, self.steps = total, -1

    def finish(self, steps: int) -> None:
        if steps < self.total:
            self.total, self.steps = max(steps, 1), -1

    def update(self, steps: int, speed: float, mean_return: float | None, note: str = "") -> None:
        if steps != self.steps:  # the last line comes when training ends, which may be just now
            self.steps = steps
            line = "  ".join(fields(steps, self.total, speed, mean_return, note))
            print(line if utf(self.stream.encoding) else line.replace("–", "-"), file=self.stream, flush=True)


class Bar(Progress):
    """A live bar. It draws when it is updated and has no thread of its own, which would slow the training."""

    interval = 0.25

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self.live = Live(console=console or Console(file=SafeStream(sys.stdout)), auto_refresh=False)  # pyright: ignore
        self.total = 0

    def start(self, total: int) -> None:
        self.total = total
        self.live.start()

    def finish(self, steps: int) -> None:
        self.total = max(steps, 1)

    def update(self, steps: int, speed: float, mean_return: float | None, note: str = "") -> None:
        self.live.update(self.line(steps, speed, mean_return, note), refresh=True)

    def line(self, steps: int, speed: float, mean_return: float | None, note: str = "") -> Text:
        """What is drawn."""
        from rich.text import Text

        console = self.live.console
        parts = fit(fields(steps, self.total, speed, mean_return, note), console.width)
        return add_fields(Text(no_wrap=True), parts, steps / self.total, utf(console.encoding))

    def stop(self) -> None:
        self.live.stop()


BAR_WIDTH = 28
BAR = "-" * BAR_WIDTH


def fields(steps: int, total: int, speed: float, mean_return: float | None, note: str = "") -> list[str]:
    """The fields of a display: per cent, steps, steps per second, time left, mean return, and a note if there is one."""
    of = f" of {total:,}" if steps <= total else ""  # an iteration may be more than was asked for
    return [
        f"{min(100 * steps // total, 100):3d} %",
        f"{steps:,}{of} steps",
        f"{speed:,.0f} steps/s",
        f"{clock((total - steps) / (speed or 1.0))} left",
        f"return {return_text(mean_return)}",
        *([note] if note else []),
    ]


def fit(parts: list[str], width: int) -> list[str]:
    """The bar and the fields that fit into the width; the least important fields are left out first."""
    share, steps, speed, left, mean, *note = parts
    bare = f"{steps.partition(' ')[0]} steps"
    layouts = [
        [BAR, share, steps, speed, left, mean, *note],
        [share, steps, speed, left, mean, *note],
        [share, steps, left, mean, *note],
        [share, bare, left, mean, *note],
        [share, left, mean, *note],
        [share, mean, *note],
        [share, mean],
        [share],
    ]
    return next((layout for layout in layouts if len("  ".join(layout)) <= width), layouts[-1])


def add_fields(text: Text, parts: list[str], share: float, unicode: bool) -> Text:
    """The text with the fields, the bar drawn as a share of its width; unicode: whether more than ASCII can be written."""
    stroke = "━" if unicode else "-"
    for k, part in enumerate(parts):
        text.append("  " if k else "")
        if part == BAR:
            done = round(BAR_WIDTH * min(share, 1.0))
            text.append(stroke * done, "blue").append(stroke * (BAR_WIDTH - done), "bright_black")
        else:
            text.append(part if unicode else part.replace("–", "-"), "bold" if part.startswith("return") else "")
    return text


@contextmanager
def shown(trainer: Any, wanted: bool = True) -> Iterator[list[Any]]:
    """In this context a callback shows the progress of a trainer, if that is wanted: a list of it, or an empty one."""
    if not wanted:
        yield []
        return
    display, first, started = make_progress(), trainer.source.steps_done, time.perf_counter()
    drawn = started

    def show(agent: Any, row: Any) -> None:
        nonlocal drawn
        now = time.perf_counter()
        if now - drawn >= display.interval or trainer.done >= trainer.until:
            drawn = now
            update()

    def update() -> None:
        steps, returns = trainer.source.steps_done - first, trainer.source.returns
        mean = sum(returns) / len(returns) if returns else None
        display.update(steps, steps / max(time.perf_counter() - started, 1e-9), mean)

    display.start(trainer.until - trainer.done)
    try:
        yield [show]
        if not trainer.stopped:
            display.finish(trainer.source.steps_done - first)
        update()
    finally:
        display.stop()


def make_progress(quiet: bool = False) -> Progress:
    """A bar on a terminal that can redraw a line, lines elsewhere."""
    if quiet:
        return Silent()
    return Bar() if SafeStream(sys.stdout).isatty() and os.environ.get("TERM") not in ("dumb", "unknown") else Lines()


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def plain(warning: str) -> str:
    """The text of a warning without colours, and without Gymnasium's "WARN: "."""
    return COLOUR.sub("", warning).removeprefix("WARN: ")


def utf(encoding: str | None) -> bool:
    """Whether the stream can write more than ASCII; a stream without an encoding (None) can."""
    return encoding is None or encoding.lower().startswith("utf")


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where needed."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def return_text(value: float | None) -> str:
    """A mean return, or – before the first episode has ended."""
    return "–" if value is None else f"{value:.1f}"
