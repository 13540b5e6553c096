"""A verdict changes where what it rests on is broken: every claim has a sabotage, in tests/sabotages/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sabotages import Sabotage, all_sabotages

from policygrad.lab.claims import load_claims, tools, variance

CLAIMS = load_claims()
SABOTAGES = all_sabotages()
PAGE = (Path(__file__).parents[2] / "docs" / "claims.md").read_text("utf8")
ON_PAGE = dict(re.findall(r"^\| ([a-z0-9-]+) \| .* \| ([a-z ]+) \|$", PAGE, re.MULTILINE))

pytestmark = pytest.mark.xdist_group("sabotages")  # what is kept is computed once


@pytest.fixture(scope="module", autouse=True)
def _kept() -> None:
    """What the cases keep is computed before anything is broken, so that no other test sees something broken."""
    for c in (*tools.small(), *tools.simple(tools.MAX_SEARCHED), *tools.simple(tools.MAX_SEARCHED, ends=True)):
        for name in ("rollout", "gradient", "score", "pi", "V", "Q"):
            getattr(c, name)
    for algo in ("reinforce", "actor_critic"):
        variance.first_updates(algo)


def test_every_claim_has_a_sabotage() -> None:
    """A rule that nothing can turn shows nothing."""
    without = sorted(set(CLAIMS) - {s.slug for s in SABOTAGES})
    files = {slug: f"tests/sabotages/{CLAIMS[slug].experiment.__module__.rsplit('.', 1)[-1]}.py" for slug in without}
    assert not without, f"claims without a sabotage: {files}; add Sabotage(slug, …) to the list SABOTAGES there"
    assert not {s.slug for s in SABOTAGES} - set(CLAIMS), "sabotages of claims that are not there"


def test_every_sabotage_changes_the_verdict_of_the_page() -> None:
    same = [s.slug for s in SABOTAGES if s.verdict == ON_PAGE.get(s.slug)]
    others = [slug for slug in same if all(s.verdict == ON_PAGE[slug] for s in SABOTAGES if s.slug == slug)]
    assert not others, f"no sabotage of {others} changes the verdict that is on the page"


def named(s: Sabotage, k: int) -> object:
    return pytest.param(s, id=f"{s.slug}-{k}", marks=[pytest.mark.slow] if s.slow else [])


@pytest.mark.parametrize("sabotage", [named(s, k) for k, s in enumerate(SABOTAGES)])
def test_a_verdict_changes_where_what_it_rests_on_is_broken(
    monkeypatch: pytest.MonkeyPatch, sabotage: Sabotage
) -> None:
    sabotage.breaks(monkeypatch)
    found = CLAIMS[sabotage.slug].experiment()
    assert found.verdict == sabotage.verdict, found
