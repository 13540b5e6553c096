"""Tables in Markdown, and the places of a page that have them: how a script writes what it measured into a page."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], rest: str = "---:") -> str:
    """A table whose columns are numbers, but for the first; rest: "---" where they are texts."""
    lines = [head, ["---", *[rest] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def between(page: str, begin: str, end: str, made: str) -> str:
    """The page with `made` in place of what stands between two marks. Raises ValueError where it does not have both."""
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"the page has no place for the table: write {begin} and {end} into it")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def with_tables(page: str, made: dict[str, str], source: str) -> str:
    """The page with each table between the marks of its name, `<!-- NAME: from SOURCE -->` and `<!-- end of NAME -->`."""
    for name, table in made.items():
        page = between(page, f"<!-- {name}: from {source} -->", f"<!-- end of {name} -->", table)
    return page
