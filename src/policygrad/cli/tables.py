"""Plain tables."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned columns under a header, numbers (columns in `right`) to the right; the last column wraps on a terminal."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(_pad(cell, widths[i], i in right) for i, cell in enumerate(row)) for row in [header, *rows]]
    if sys.stdout.isatty():
        indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
        width = max(shutil.get_terminal_size().columns, indent + 20)
        lines = [textwrap.fill(line.rstrip(), width, subsequent_indent=" " * indent) for line in lines]
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return "\n".join(line.rstrip() for line in lines)


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
