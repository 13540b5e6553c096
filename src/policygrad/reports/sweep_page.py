"""A sweep as one self-contained HTML page."""

from __future__ import annotations

import io
from html import escape

from policygrad.html import grid_html, lines_html, picture_html
from policygrad.reports.comparison_page import document
from policygrad.reports.sweep_words import fresh_table, notes, sentences, shrinkage_sentence, table, verdict
from policygrad.reports.sweeps import SweptSettings


def page(sweep: SweptSettings, png: bytes | None = None) -> str:
    """The whole page. png: the picture, if it is drawn already."""
    return document(f"{sweep.design.algo} on {sweep.design.env}: {', '.join(sweep.design.space)}", body(sweep, png))


def body(sweep: SweptSettings, png: bytes | None = None) -> str:
    """The verdict, the picture, what each hyperparameter does, all settings with all scores, and how they were made."""
    parts = [
        lines_html([verdict(sweep), shrinkage_sentence(sweep)]),
        picture_html(png or picture(sweep), verdict(sweep)),
    ]
    parts.append(f"<h2>Fresh seeds</h2><div class=wide>{grid_html('', *fresh_table(sweep), numbers=True)}</div>")
    for heading, lines in sentences(sweep):
        parts.append(f"<h2>{escape(heading)}</h2>" + lines_html(lines))
    parts.append(f"<h2>All settings</h2><div class=wide>{grid_html('', *table(sweep), numbers=True)}</div>")
    parts.append("<h2>How the numbers were made</h2>" + lines_html(notes(sweep)))
    return "\n".join(parts)


def picture(sweep: SweptSettings) -> bytes:
    """The picture as a png."""
    from policygrad.reports.sweep_plots import figure

    buffer = io.BytesIO()
    figure(sweep).savefig(buffer, format="png")
    return buffer.getvalue()
