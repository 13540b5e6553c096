"""A comparison as one self-contained HTML page."""

from __future__ import annotations

from html import escape

from policygrad.html import grid_html, lines_html, picture_html
from policygrad.reports.comparison import OVERALL, ComparedRuns
from policygrad.reports.comparison_words import caption, notes, overall, places, table, verdicts
from policygrad.reports.curves import return_label

STYLE = """
:root { color-scheme: light dark }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1.25rem 4rem; color: #1e293b; background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
@media (prefers-color-scheme: dark) { body { color: #e2e8f0; background: #0f172a } img { background: #fff } }
h1, h2, p { overflow-wrap: anywhere } h1 { font-size: 1.5rem }
h2 { font-size: 1.15rem; margin: 2rem 0 0.4rem } .wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px }
td, th { padding: 0.25rem 0.7rem; border-bottom: 1px solid #94a3b855; white-space: nowrap }
img { width: 35rem; max-width: 100% } details { max-width: 35rem; font-size: 13.5px }
"""


def page(comparison: ComparedRuns, png: bytes | None = None) -> str:
    """The whole page. png: the picture, if it is drawn already."""
    return document(" vs ".join(comparison.sides), body(comparison, png))


def document(title: str, content: str) -> str:
    """A whole page with this title above the content, which is HTML."""
    title = escape(title)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
    head += f"<style>{STYLE}</style>"
    content = f"<h1>{title}</h1>\n{content}"
    return f"<!doctype html>\n<html lang=en>\n<head>{head}</head>\n<body>\n{content}\n</body>\n</html>\n"


def body(comparison: ComparedRuns, png: bytes | None = None) -> str:
    """The result, the picture, tables and verdicts, every run's score, and how the numbers were made."""
    parts = [lines_html([overall(comparison)]), picture_html(png or picture(comparison), overall(comparison))]
    parts.append(f"<details><summary>The caption as text</summary><p>{escape(caption(comparison))}</p></details>")
    for env in places(comparison):
        parts.append(f"<h2>{escape(env)}</h2>" + lines_html(verdicts(comparison, env)))
        header, rows = table(comparison, env)
        parts.append(f"<div class=wide>{grid_html('', header, rows, numbers=True)}</div>")
        if env != OVERALL:
            parts.append(f"<div class=wide>{grid_html('Scores by seed', *seeds(comparison, env), numbers=True)}</div>")
    parts.append("<h2>How the numbers were made</h2>" + lines_html(notes(comparison)))
    return "\n".join(parts)


def seeds(comparison: ComparedRuns, env: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of all scores: a row per side, a column per seed."""
    numbers = sorted({run.seed for run in comparison.all_runs(env)})
    rows = []
    for side in comparison.sides:
        scores = {run.seed: return_label(run.score) for run in comparison.runs[side][env]}
        rows.append([side, *(scores.get(seed, "") for seed in numbers)])
    return ["side", *map(str, numbers)], rows


def picture(comparison: ComparedRuns) -> bytes:
    """The picture as a png."""
    from policygrad.reports.comparison_plots import figure

    return figure(comparison).png()
