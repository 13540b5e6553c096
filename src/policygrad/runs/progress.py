"""Progress of a training run: a live bar on a terminal, a plain line now and then elsewhere, or nothing."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO


class Progress(Protocol):
    """What the training loop tells. `interval`: seconds between updates, asked for before anything is computed."""

    interval: float

    def start(self, total: int) -> None:
        """Training begins."""
        ...

    def update(self, steps: int, speed: float, mean_return: float | None) -> None:
        """So far: steps, steps per second, mean return of the last 100 episodes."""
        ...

    def stop(self) -> None:
        """Training is over, or has failed."""
        ...


class Silent:
    """Says nothing."""

    interval = float("inf")

    def start(self, total: int) -> None: ...

    def update(self, steps: int, speed: float, mean_return: float | None) -> None: ...

    def stop(self) -> None: ...


class Lines:
    """A line every ten seconds, for logs."""

    def __init__(self, stream: TextIO | None = None, interval: float = 10.0) -> None:
        self.stream, self.interval, self.total = stream or sys.stdout, interval, 0

    def start(self, total: int) -> None:
        self.total = total

    def update(self, steps: int, speed: float, mean_return: float | None) -> None:
        share = min(100 * steps // self.total, 100)
        left = clock((self.total - steps) / (speed or 1.0))
        line = f"{share:3d} %  {steps:,} of {self.total:,} steps  {speed:,.0f} steps/s  {left} left"
        print(f"{line}  return {number(mean_return)}", file=self.stream, flush=True)

    def stop(self) -> None: ...


class Bar:
    """A live bar. It draws when told to and has no thread of its own, which would take turns with the training."""

    interval = 0.25

    def __init__(self) -> None:
        from rich import progress

        self.bar = progress.Progress(
            progress.BarColumn(bar_width=28),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.completed:,.0f}[dim] of {task.total:,.0f} steps[/]"),
            progress.TextColumn("{task.fields[speed]:,.0f}[dim] steps/s[/]"),
            progress.TextColumn("{task.fields[left]}[dim] left[/]"),
            progress.TextColumn("[dim]return[/] [bold]{task.fields[mean]}[/]"),
            auto_refresh=False,
        )
        self.task: Any = None

    def start(self, total: int) -> None:
        self.bar.start()
        self.task = self.bar.add_task("", total=total, speed=0.0, left="–:––", mean="–")
        self.bar.refresh()

    def update(self, steps: int, speed: float, mean_return: float | None) -> None:
        total = self.bar.tasks[0].total or 1
        left = clock((total - steps) / (speed or 1.0))
        self.bar.update(self.task, completed=min(steps, total), speed=speed, left=left, mean=number(mean_return))
        self.bar.refresh()

    def stop(self) -> None:
        self.bar.stop()


def make_progress(quiet: bool = False) -> Progress:
    """A bar on a terminal, lines elsewhere."""
    return Silent() if quiet else Bar() if sys.stdout.isatty() else Lines()


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where needed."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def number(value: float | None) -> str:
    """A mean return, or – before the first episode has ended."""
    return "–" if value is None else f"{value:.1f}"
