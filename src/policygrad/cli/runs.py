"""`policygrad runs`: a table of many runs."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from policygrad.algorithms.checked import ConfigError
from policygrad.cli.parser import Parser
from policygrad.cli.reports import as_usage_error
from policygrad.cli.tables import aligned, paragraph, text_table
from policygrad.cli.values import UsageError, parse_number, positive
from policygrad.errors import Interrupted
from policygrad.files import printable
from policygrad.reports.run_table import DEAD, KEYS, check, document, head, notes, ordered, selected, table
from policygrad.stored.directory import ROOT
from policygrad.stored.overview import LOST_SECONDS, Overview
from policygrad.stored.standing import STATES, RunSummary

SHOWN = 50  # rows on a terminal
SECONDS = 2.0  # between two looks
LOW = 16  # lines of a terminal that are all needed for the table
SLOWEST = 86400.0

EPILOG = f"""states:
{chr(10).join(fill(f"  {state:9}  {text}", 79, subsequent_indent=" " * 13) for state, text in STATES.items())}

A run of this machine is lost if no process holds its lock. A run of another
machine is lost if it has written nothing for {LOST_SECONDS / 60:.0f} minutes.

examples:
  policygrad runs --state training --watch
  policygrad runs /shared/runs --state lost,failed --machine 'gpu*'
  policygrad runs --env CartPole-v1 --sort -return --limit 10"""


def runs_parser() -> Parser:
    """`policygrad runs`."""
    parser = Parser(
        "policygrad runs",
        usage="policygrad runs [DIR] [flags]",
        description="Show the runs under a directory: which train, how far they are and how fast, what has died, and where. "
        "Nothing is written into them, and no link is followed.",
        epilog=EPILOG,
    )
    parser.add_argument("directory", nargs="?", default=str(ROOT), metavar="DIR", help="directory of runs [runs]")
    group = parser.add_argument_group("which runs")
    state = group.add_argument(
        "--state", metavar="STATE", help="in this state; or in one of several: lost,failed [any]"
    )
    group.add_argument("--algo", metavar="ALGO", help="of this algorithm, or of one of several [any]")
    group.add_argument("--env", "--env-id", metavar="ENV", help="in this environment; 'ALE/*' is all of a kind [any]")
    group.add_argument("--machine", metavar="HOST", help="trained by this machine, or by one of several [any]")
    group.add_argument("--match", metavar="TEXT", help="with this text in the path [any]")
    group = parser.add_argument_group("the table")
    sort = group.add_argument(
        "--sort",
        default="age",
        metavar="COLUMN",
        help=f"{', '.join(KEYS)}; -COLUMN for the reverse [age: newest first]",
    )
    group.add_argument("--limit", metavar="N", help=f"rows at most [{SHOWN} on a terminal, all elsewhere]")
    group.add_argument(
        "--watch",
        nargs="?",
        const=str(SECONDS),
        metavar="SECONDS",
        help="draw the table anew, until Ctrl-C [every 2 s]",
    )
    group.add_argument("--json", action="store_true", help="print everything as one JSON document")
    state.words, sort.words = tuple(STATES), tuple(KEYS)  # pyright: ignore[reportAttributeAccessIssue]
    return parser


def runs_command(words: Sequence[str]) -> None:
    """`policygrad runs`."""
    given = runs_parser().parse(joined(words))
    chosen = {name: listed(getattr(given, name)) for name in ("state", "algo", "env", "machine")}
    limit = None if given.limit is None else positive("limit", given.limit)
    with as_usage_error(ConfigError):
        check(state=chosen["state"], sort=given.sort)
    seconds = None if given.watch is None else parse_seconds(given.watch)
    overview = Overview(given.directory)
    choice = chosen | {"match": given.match}
    if given.json:
        found, _ = look(overview, given, choice)
        print(json.dumps(document(found, overview, limit), indent=2))
    elif seconds is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        watch(overview, given, choice, limit, seconds)
    else:
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal else math.inf
        print("\n".join(lines(*look(overview, given, choice), overview, limit or (SHOWN if terminal else None), width)))


def joined(words: Sequence[str]) -> list[str]:
    """The words, `--sort -return` as one, because a word with a minus in front is a flag elsewhere."""
    words = list(words)
    if "--sort" in words[:-1] and words[words.index("--sort") + 1].removeprefix("-") in KEYS:
        at = words.index("--sort")
        words[at : at + 2] = [f"--sort={words[at + 1]}"]
    return words


def listed(text: str | None) -> list[str] | None:
    """The words between commas."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def parse_seconds(text: str) -> float:
    """The seconds after --watch. Raises UsageError."""
    try:
        seconds = float(parse_number("watch", float, text))
    except UsageError as error:
        raise UsageError(f"--watch = {text!r} must be a number of seconds; a directory stands before it.") from error
    if not 0.1 <= seconds <= SLOWEST:
        raise UsageError(f"--watch = {text} must be at least 0.1 and at most {SLOWEST:,.0f} seconds.")
    return seconds


def look(overview: Overview, given: Namespace, choice: dict[str, Any]) -> tuple[list[RunSummary], int]:
    """The runs that are asked for, in order, and how many there are in all."""
    found = overview.look()
    return ordered(selected(found, **choice), given.sort), len(found)


def lines(
    found: Sequence[RunSummary], of: int, overview: Overview, limit: int | None = None, width: float = math.inf
) -> list[str]:
    """The head, the table, and what is wrong with runs."""
    said = [paragraph(printable(head(found, of, overview.root)))]
    if found:
        header, rows, right = table(found[:limit], width)
        said += ["", text_table(header, rows, right)]
    if len(found) > (limit or len(found)):
        said.append(f"… and {len(found) - (limit or 0):,} more: see --limit")
    said += ["", *map(paragraph, notes(found))] if notes(found) else []
    return said


def watch(overview: Overview, given: Namespace, choice: dict[str, Any], limit: int | None, seconds: float) -> None:
    """Draw the table again and again, until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(picture(*look(overview, given, choice), overview, console, limit), refresh=True)
                time.sleep(seconds)
    except Interrupted as interrupt:
        if interrupt.number != 2:
            raise


def picture(found: Sequence[RunSummary], of: int, overview: Overview, console: Any, limit: int | None) -> Any:
    """The table, as high and as wide as the terminal."""
    from rich.text import Text

    below = notes(found, 3) if console.height >= LOW else []
    room = max(console.height - 5 - len(below) - bool(below), 1)
    header, rows, right = table(found[: min(room, limit or room)], console.width)
    drawn = aligned(header, rows, right)
    whole = Text(printable(head(found, of, overview.root)) + "\n\n", no_wrap=True, overflow="ellipsis")
    whole.append(drawn[0], "bold")
    for line, run in zip(drawn[1:], found, strict=False):
        whole.append("\n" + line, "red" if run.state in DEAD else "green" if run.state == "training" else "")
    more = len(found) - len(rows)
    whole.append(f"\n… and {more:,} more" if more else "", "bright_black")
    return whole.append("\n\n" + "\n".join(below) if below else "")
