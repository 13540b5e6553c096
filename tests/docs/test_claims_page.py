"""docs/claims.md is what `policygrad lab claims --out docs/claims.md` writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policygrad.lab import claims
from policygrad.lab.claims import report

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"


def verdicts(page: str) -> dict[str, tuple[str, str]]:
    """The rows of the tables: slug → claim, verdict."""
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (.*) \| ([a-z ]+) \|$", page, re.MULTILINE)
    return {slug: (text.replace("\\|", "|"), verdict) for slug, text, verdict in rows}


def test_the_page_has_every_claim_by_slug_and_nothing_else() -> None:
    made = claims.load_claims()
    assert len(made) == 79
    assert {n: text for n, (text, _) in verdicts(PAGE.read_text("utf8")).items()} == {
        n: c.text for n, c in made.items()
    }


def test_the_page_begins_as_it_is_written_now() -> None:
    assert PAGE.read_text("utf8").startswith(report.HEAD)


def test_the_page_lists_first_what_fails_then_caveats_and_what_is_undecided() -> None:
    """The first section is what the code writes of the verdicts below it."""
    page = PAGE.read_text("utf8")
    first, topics = page.split("\n## ")[1], page.partition("## The gradient and its estimators")[2]
    rows = [(slug, text, verdict) for slug, (text, verdict) in verdicts(topics).items()]
    assert report.first_table(rows) == [f"## {first}"]
    listed = [verdict for _, verdict in verdicts(first).values()]
    assert listed == sorted(listed, key=list(report.ORDER.values()).index)
    assert len(listed) == sum(verdict != "holds" for *_, verdict in rows) > 20
    assert "holds" not in listed


@pytest.mark.slow
def test_the_verdicts_on_the_page_are_those_that_are_measured() -> None:
    results = list(report.run_claims(claims.load_claims().values()))
    assert verdicts(report.markdown(results)) == verdicts(PAGE.read_text("utf8"))
    assert all(result.finding.numbers for result in results if result.finding.verdict != "pending")
