"""Plain tables that fit into the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

MIN_LAST_COLUMN = 20  # columns that the last cell needs to be wrapped in


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned columns under a header, numbers (columns in `right`) to the right.

    On a terminal the last column wraps; where that would leave it too little, its cells go under their rows; and where even
    that is too wide every row is a paragraph: its first cell, and the others named.
    """
    lines = aligned(header, rows, right)
    if not sys.stdout.isatty():
        return "\n".join(lines)
    width = shutil.get_terminal_size().columns
    if max(map(len, lines)) > width:
        lines = _wrapped(header, rows, right, width)
    if "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return "\n".join(lines)


def paragraph(text: str, indent: str = "  ") -> str:
    """The text, wrapped between words if a terminal is too narrow for its lines."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = [
        textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False) if len(line) > width else line
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """The lines of a table, each column as wide as its longest cell."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return [
        "  ".join(_pad(cell, widths[i], i in right) for i, cell in enumerate(row)).rstrip() for row in [header, *rows]
    ]


def _wrapped(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int], width: int) -> list[str]:
    """The lines of a table that is too wide."""
    indent = sum(max(len(row[i]) for row in [header, *rows]) + 2 for i in range(len(header) - 1))
    if indent + MIN_LAST_COLUMN <= width and len(header) - 1 not in right:
        lines = aligned(header, rows, right)
        return [textwrap.fill(line, width, subsequent_indent=" " * indent) for line in lines]
    others = aligned(header[:-1], [row[:-1] for row in rows], right)
    if max(map(len, others)) <= width:
        below = [textwrap.fill(row[-1], width, initial_indent="  ", subsequent_indent="  ") for row in [header, *rows]]
        return ["\n".join(filter(None, pair)) for pair in zip(others, below, strict=True)]
    paragraphs = [", ".join(header)]
    for first, *rest in rows:
        named = [f"{name}: {cell}" for name, cell in zip(header[1:], rest, strict=True) if cell]
        paragraphs.append("; ".join([first, *named]))
    return [textwrap.fill(text, width, subsequent_indent="  ") for text in paragraphs]


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
