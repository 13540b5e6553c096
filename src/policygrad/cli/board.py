"""Progress of several runs: one live line per seed on a terminal, plain lines elsewhere, or only what the runs print."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from policygrad.training.jobs import SilentBoard, State
from policygrad.training.progress import add_fields, fields, fit, utf


class LineBoard(SilentBoard):
    """A display that prints a line about the runs that progressed, every ten seconds, for logs."""

    interval = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, tuple[Any, ...]] = {}

    def show(self, states: Sequence[State]) -> None:
        for state in states:
            now = (state.phase, state.steps, state.path)
            if state.phase not in ("waiting", "starting") and self.told.get(state.name) != now:
                self.told[state.name] = now
                print(f"{state.name}: {'  '.join(words(state))}", flush=True)


class LiveBoard(SilentBoard):
    """A display with one line per seed, redrawn in place."""

    interval = 0.25

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self.console = console or Console()
        self.live = Live(console=self.console, auto_refresh=False)
        self.drawn = 0.0

    def show(self, states: Sequence[State]) -> None:
        now = time.monotonic()
        if now - self.drawn < self.interval and not all(state.over for state in states):
            return
        self.drawn = now
        self.live.start()  # once; later it does nothing
        self.live.update(self.lines(states), refresh=True)

    def lines(self, states: Sequence[State]) -> Any:
        """The lines to draw. Waiting seeds share a line; on a low terminal finished seeds do, too."""
        from rich.text import Text

        widths = {side: max(len(str(s.seed)) for s in states if s.side == side) for side in {s.side for s in states}}
        sides = max(map(len, widths))
        waiting = [state for state in states if state.phase == "waiting"]
        over = [state for state in states if state.over]
        rows, crowded = [], len(states) - len(waiting) + 2 > self.console.height
        if crowded and over:
            rows.append(Text(f"{len(over)} of {len(states)} seeds are finished", no_wrap=True, overflow="ellipsis"))
        for state in states:
            if state.phase != "waiting" and not (crowded and state.over):
                side = f"{state.side:<{sides}}  " if sides else ""
                rows.append(self.line(state, f"{side}seed {state.seed:>{widths[state.side]}}  "))
        if waiting:
            text = f"{len(waiting)} more wait{'s' if len(waiting) == 1 else ''}"
            rows.append(Text(text, "bright_black", no_wrap=True, overflow="ellipsis"))
        return Text("\n", no_wrap=True, overflow="ellipsis").join(rows)

    def line(self, state: State, head: str) -> Any:
        """The line of a seed, cut to the width."""
        from rich.text import Text

        text = Text(head, no_wrap=True, overflow="ellipsis")
        if state.phase != "training" or not state.steps:
            rest = "  ".join(words(state))
            text.append(rest, "red" if state.phase == "failed" else "")
            text.truncate(self.console.width, overflow="ellipsis")
            return text
        parts = fit(words(state), self.console.width - len(head))
        return add_fields(text, parts, state.steps / state.total, utf(self.console.encoding))

    def stop(self) -> None:
        self.live.stop()


def words(state: State) -> list[str]:
    """The text about a run."""
    if state.phase == "training":
        so_far = fields(state.steps, state.total, state.speed, state.mean, state.note)
        return so_far if state.steps else [state.path or state.phase]
    if state.phase == "done":
        means = [f"{name} {entry['mean']:,.1f}" for name, entry in state.evaluations.items()]
        return ["done", *means]
    if state.phase == "failed":
        return ["failed: " + (state.message.splitlines() or [""])[0]]
    return ["evaluating the final policy" if state.phase == "evaluating" else state.phase]


def make_board(quiet: bool) -> SilentBoard:
    """A live display on a terminal that can redraw, lines elsewhere."""
    if quiet:
        return SilentBoard()
    return LiveBoard() if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else LineBoard()
