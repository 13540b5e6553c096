"""Markdown has one sentence per source line, so that a change of a sentence is a change of a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = {ROOT / "docs" / "claims.md"}
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/*/*.md")} - GENERATED)

ABBREVIATION = re.compile(r"(?:\be\.g|\bi\.e|\bet al|\bvs|\bcf|\beqs?|\bch|\bpp?)\.$", re.IGNORECASE)
END = re.compile(r"[.!?][)\"”*_`]*(?= +[\"“(*_\[]*[`A-Z])")  # the end of a sentence with another one behind it
ENDS_A_LINE = re.compile(r"[.!?:;,·][)\"”*_`\]]*$")  # a list with one item per line may end its lines with a comma
NO_PROSE = re.compile(r"\s*\||#|!\[|<!--|    ")
ITEM = re.compile(r"\s*(?:[-*]|\d+\.) ")


def paragraphs(text: str) -> Iterator[list[tuple[int, str]]]:
    """The (number, line) pairs of each paragraph or list item, without tables, headings, pictures, comments and code."""
    paragraph: list[tuple[int, str]] = []
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        prose = bool(line.strip()) and not (fence or fenced or NO_PROSE.match(line))
        if (not prose or ITEM.match(line)) and paragraph:
            yield paragraph
            paragraph = []
        if prose:
            paragraph.append((number, ITEM.sub("", line, count=1) if ITEM.match(line) else line))
    if paragraph:
        yield paragraph


def faults(text: str) -> list[str]:
    """Lines that hold the end of one sentence and the beginning of the next, and sentences that span two lines."""
    found = []
    for paragraph in paragraphs(text):
        for number, line in paragraph:
            ends = [m for m in END.finditer(line) if not ABBREVIATION.search(line[: m.start() + 1])]
            found += [f"line {number}: another sentence begins after {line[: m.end()][-30:]!r}" for m in ends]
        for (number, line), _ in pairwise(paragraph):
            if not ENDS_A_LINE.search(line):
                found.append(f"line {number}: the sentence goes on in the next line: {line[-30:]!r}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_sentence_has_a_source_line_of_its_own(page: Path) -> None:
    assert faults(page.read_text("utf8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "One sentence. Another one.",
        "- An item. `code` begins the next sentence.",
        "Is it so? (It is.)",
        "It ends with a word in **bold.** Then another one begins.",
        "A sentence that goes on\nin the next line.",
        "It has a [link](page.md). [Another](other.md) follows.",
    ],
)
def test_a_second_sentence_on_a_line_is_found(text: str) -> None:
    assert faults(f"# A page\n\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "One sentence.\nAnother one, e.g. This or Schulman et al. 2017, eq. 7.",
        "| a table. With two | sentences. In a cell |",
        "```python\nx = 1  # One. Two.\n```",
        "    A block of code. It is indented.",
        "It says 0.5. per cent, `pg.PPO`, and 3.2 to 3.4.",
    ],
)
def test_code_tables_numbers_and_abbreviations_are_no_sentences(text: str) -> None:
    assert faults(f"# A page\n\n{text}\n") == []
