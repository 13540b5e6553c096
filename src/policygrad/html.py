"""Texts, small tables and pictures as HTML, for notebooks. Everything is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


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
