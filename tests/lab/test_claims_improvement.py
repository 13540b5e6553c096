"""Claims about policy improvement, natural gradients and trust regions: verdicts. What changes them is in tests/sabotages/."""

from __future__ import annotations

import pytest

from policygrad.lab.claims import load_claims

CLAIMS = {slug: claim for slug, claim in load_claims().items() if claim.topic.startswith("Policy improvement")}


@pytest.mark.parametrize("slug", CLAIMS)
def test_verdicts(slug):
    claim = CLAIMS[slug]
    found = claim.experiment()
    assert found.verdict == ("holds with caveat" if slug == "gradient-steps-keep-states-close" else "holds"), found
    assert found.numbers
