"""Texts, small tables and pictures as HTML, for notebooks, where everything is escaped; and intervals as texts."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

OF_WHAT = "The intervals are for the mean return of this policy over new episodes, not for other seeds of training."


def interval_text(ends: Sequence[float | None], digits: int | None = None) -> str:
    """An interval as text. digits: of each end, [as many as its width needs, 1 at least].

    An interval without ends is "not bounded"; one that is a point, as in files of before version 0.5, is "all equal", because
    that is all that is known.
    """
    low, high = (math.inf if end is None else float(end) for end in ends)
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not bounded"
    if low == high:
        return "all equal"
    digits = decimals(low, high) if digits is None else digits
    return f"[{low:,.{digits}f}, {high:,.{digits}f}]"


def decimals(low: float, high: float) -> int:
    """The digits behind the point that show two digits of a width, 1 at least and 6 at most."""
    width = high - low
    return min(6, max(1, 1 - math.floor(math.log10(width)))) if 0.0 < width < math.inf else 1


def text_html(text: str) -> str:
    """A text whose columns are aligned by spaces."""
    return f"<pre style='line-height:1.35;overflow-x:auto'>{escape(text)}</pre>"


def table_html(title: str, rows: Mapping[str, Any]) -> str:
    """A title, and a table of names and values."""
    cells = "".join(
        f"<tr><td style='text-align:left;color:#64748b'>{escape(str(name))}</td>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<div><b>{escape(title)}</b><table>{cells}</table></div>"


def grid_html(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """A title, and a table with names of columns. numbers: every column but the first is aligned to the right."""

    def line(tag: str, cells: Sequence[str]) -> str:
        sides = ["left", *["right" if numbers else "left"] * (len(cells) - 1)]
        made = (f"<{tag} style='text-align:{s}'>{escape(c)}</{tag}>" for s, c in zip(sides, cells, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(line("td", cells) for cells in rows)
    return f"<div><b>{escape(title)}</b><table><thead>{line('th', header)}</thead><tbody>{body}</tbody></table></div>"


def lines_html(lines: Iterable[str]) -> str:
    """Lines of text, as paragraphs."""
    return "".join(f"<p style='margin:0.3em 0'>{escape(line)}</p>" for line in lines)


def picture_html(png: bytes, what: str) -> str:
    """A picture inside the page itself. what: its description, for those who cannot see it."""
    return f"<img style='max-width:100%' alt='{escape(what)}' src='data:image/png;base64,{b64encode(png).decode()}'>"
