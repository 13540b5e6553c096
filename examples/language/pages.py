"""Tables in Markdown, and where a page has them."""

from __future__ import annotations

import re


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(page: str, made: dict[str, str], source: str) -> str:
    """The page with the tables between their markers. Raises ValueError where there are no such markers."""
    for name, table in made.items():
        start, end = f"<!-- {name}: from {source} -->", f"<!-- end of {name} -->"
        found = re.search(f"{re.escape(start)}.*?{re.escape(end)}", page, re.DOTALL)
        if found is None:
            raise ValueError(f"the page has no place for the table: write {start} and {end} into it")
        page = page.replace(found[0], f"{start}\n\n{table}\n\n{end}")
    return page
