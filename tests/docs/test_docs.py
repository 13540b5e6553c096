"""Every Python block in README and docs/ runs: the blocks of a page one after the other, as a reader would type them.

What a page says that it prints, behind `# →`, is printed in this order.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text("utf8"))]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_python_blocks_of_a_page_run_in_order_and_print_what_they_say(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    text, namespace = page.read_text("utf8"), {"__name__": "documentation"}
    for block in BLOCK.finditer(text):
        above = text.count("\n", 0, block.start(1))  # so that a traceback names the line of the page
        exec(compile("\n" * above + block[1], str(page), "exec", dont_inherit=True), namespace)
        printed = iter(capsys.readouterr().out.splitlines())
        for line in re.findall(r"# → (.*)$", block[1], re.MULTILINE):
            assert line in printed, (
                f"{page.name}, line {above + 1} and below: {line!r} is not printed, or not in this place"
            )


def test_links_and_pictures_of_the_documentation_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text("utf8")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}, which is not there"


def test_links_to_sections_of_the_documentation_exist():
    for page in PAGES:
        for target, section in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", page.read_text("utf8")):
            there = page.parent / target if target else page
            assert section in anchors(there), f"{page.name} points to {there.name}#{section}, which is not there"


def anchors(page: Path) -> set[str]:
    """The sections of a page as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_of_the_documentation_can_be_reached_from_the_index():
    seen, waiting = set(), [ROOT / "docs" / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        links = re.findall(r"\]\((?!https?://)([^)#]+\.md)", page.read_text("utf8"))
        waiting += [(page.parent / link).resolve() for link in links]
    unreachable = set(PAGES) - seen
    assert not unreachable, f"no link leads to {sorted(page.name for page in unreachable)}"
