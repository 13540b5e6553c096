"""Texts and small tables as HTML, for notebooks. Everything is escaped."""

from __future__ import annotations

from collections.abc import Mapping
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
