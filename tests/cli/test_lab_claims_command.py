"""`policygrad lab claims`: what is chosen, what is printed, the page, and wrong input."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from policygrad.cli import lab_claims, main
from policygrad.lab import claims
from policygrad.lab.claims import Claim, Counterexample, Outcome, decide, report
from policygrad.lab.exact import worlds


def holds() -> Outcome:
    return Outcome("holds", "The gap is 3e-17.", {"gap": 3e-17})


def fails() -> Outcome:
    pi = ((0.5, 0.5),) * 3
    return Outcome(
        "fails as stated", "It rises.", {"rise": 2.0}, Counterexample("small", worlds.make_mdp("small"), pi, "it rises")
    )


def open_() -> Outcome:
    return Outcome("undecided", "P = 0.5 [0.3, 0.7].", {"P": 0.5})


def waits() -> Outcome:
    return Outcome("pending", "It needs DQN.", {})


TWO = "Baselines and advantages"
MADE = {
    "five-is-exact": Claim("five-is-exact", "Five is exact.", "Learning", "recorded", waits),
    "seven": Claim("seven", "Seven | is odd.", TWO, "exact", holds),
    "nine-is-square": Claim("nine-is-square", "Nine is square.", TWO, "simulated", fails),
}


@pytest.fixture(autouse=True)
def _three_claims(monkeypatch):
    monkeypatch.setattr(claims, "load_claims", lambda: MADE)


@pytest.mark.parametrize(
    ("which", "slugs"),
    [
        ([], ["five-is-exact", "seven", "nine-is-square"]),
        (["seven"], ["seven"]),
        (["five"], ["five-is-exact"]),
        (["nine-is-square", "five-is-exact"], ["five-is-exact", "nine-is-square"]),
        (["is-"], ["five-is-exact", "nine-is-square"]),
        (["odd"], ["seven"]),
        (["baselines"], ["seven", "nine-is-square"]),
    ],
)
def test_claims_are_chosen_by_slug_its_beginning_or_a_word(which, slugs, capsys):
    assert main(["lab", "claims", *which, "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == slugs


def test_a_whole_slug_is_that_claim_alone(monkeypatch, capsys):
    longer = replace(MADE["seven"], slug="seven-and-more")
    monkeypatch.setattr(claims, "load_claims", lambda: MADE | {longer.slug: longer})
    assert main(["lab", "claims", "seven", "--list"]) == 0
    assert "more" not in capsys.readouterr().out


def test_the_report_says_verdict_reason_counterexample_and_how_many(capsys):
    assert main(["lab", "claims"]) == 0
    out = capsys.readouterr().out
    assert "seven\n    Seven | is odd.\n    holds (exact, 0.0 s). The gap is 3e-17.\n\n" in out
    assert "fails as stated (simulated, 0.0 s). It rises.\n    counterexample, small: it rises" in out
    assert "s0 a0: π = 0.5" in out
    assert "pending. It needs DQN." in out
    assert " s]" not in out
    assert out.endswith("3 claims: 1 holds, 1 fails as stated, 1 pending\n")


def test_json_has_the_numbers_and_the_tables_of_the_counterexample(capsys):
    assert main(["lab", "claims", "nine", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["slug"], found["verdict"], found["numbers"]) == ("nine-is-square", "fails as stated", {"rise": 2.0})
    example, mdp = found["counterexample"], worlds.make_mdp("small")
    assert example["transition"] == mdp.transition.tolist()
    assert (example["horizon"], example["gamma"]) == (4, 0.9)


def test_the_page_has_every_claim_under_its_topic(tmp_path, capsys):
    page = tmp_path / "claims.md"
    assert main(["lab", "claims", "--out", str(page)]) == 0
    written = page.read_text()
    assert written.index("## Baselines and advantages") < written.index("## Learning")
    assert "| seven | Seven \\| is odd. | holds |" in written
    assert "Numbers. gap: 3e-17." in written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eight"], "no claim has 'eight'"),
        (["frobnicate"], "no claim has 'frobnicate'"),
        (["--out", "claims.txt"], "must end in .md"),
        (["--out", "nowhere/claims.md"], "there is no directory nowhere"),
        (["--verdict", "fails as stated"], "is not one of: fails, caveat, undecided, pending, holds"),
        (["--verdict", "fails", "--list"], "leave out --list or --verdict"),
    ],
)
def test_wrong_input_is_named(words, message, capsys):
    assert main(["lab", "claims", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_claims_that_do_not_hold_are_named_at_the_end_and_chosen_by_their_verdict(capsys):
    assert main(["lab", "claims"]) == 0
    assert "\nfails as stated: nine-is-square\npending: five-is-exact\n\n3 claims" in capsys.readouterr().out
    assert main(["lab", "claims", "--verdict", "fails"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("nine-is-square")
    assert "seven" not in out
    assert out.endswith("\n\n1 claim: 1 fails as stated\n")
    assert main(["lab", "claims", "--verdict", "caveat"]) == 0
    assert capsys.readouterr().out == "0 claims\n"
    assert main(["lab", "claims", "--verdict", "holds", "--json"]) == 0
    assert [found["slug"] for found in json.loads(capsys.readouterr().out)] == ["seven"]
    assert tuple(report.ORDER) == lab_claims.VERDICTS


def test_an_outcome_is_shown_with_its_numbers_and_its_counterexample_and_escaped():
    text, html = str(fails()), fails()._repr_html_()
    assert text.startswith("fails as stated. It rises.\n  rise: 2\ncounterexample, small: it rises\n  3 states")
    for part in ("<b>fails as stated</b>", "It rises.", ">rise</td>", ">2</td>", "s0 a0: π = 0.5"):
        assert part in html
    assert str(holds()) == "holds. The gap is 3e-17.\n  gap: 3e-17"
    assert "&lt;b&gt;" in Outcome("holds", "<b>", {"<b>": 1.0})._repr_html_().replace("<b>holds</b>", "")
    assert "<b>" not in Outcome("holds", "<b>", {"<b>": 1.0})._repr_html_().replace("<b>holds</b>", "")


def test_what_is_undecided_is_counted_and_explained(monkeypatch, capsys):
    monkeypatch.setitem(MADE, "six", Claim("six", "Six.", "Learning", "recorded", open_))
    assert main(["lab", "claims"]) == 0
    out = capsys.readouterr().out
    assert "undecided (recorded). P = 0.5" in out
    assert out.endswith("4 claims: 1 holds, 1 undecided, 1 fails as stated, 1 pending\n")
    assert main(["lab", "claims", "six", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["verdict"] == "undecided"
    assert "**undecided**" in report.HEAD
    assert main(["lab", "claims", "--help"]) == 0
    assert "undecided" in capsys.readouterr().out


def test_a_verdict_is_what_was_measured():
    assert decide(True) == "holds"
    assert decide(True, caveat=True) == "holds with caveat"
    assert decide(False) == decide(False, caveat=True) == "fails as stated"


def test_the_time_is_that_of_an_experiment_and_records_take_none():
    assert "holds (exact, 1.2 s). The" in report.claim_text(report.CheckedClaim(MADE["seven"], holds(), 1.23))
    assert "holds (recorded). The" in report.claim_text(
        report.CheckedClaim(replace(MADE["seven"], evidence="recorded"), holds(), 1.23)
    )
    assert "1.2 s)" not in report.markdown([report.CheckedClaim(MADE["seven"], holds(), 1.23)])


def test_one_state_is_not_states():
    example = Counterexample("bandit", worlds.make_mdp("deceptive"), ((0.9, 0.1),), "it fails")
    assert example.lines()[0] == "1 state, 2 actions, horizon 1, γ = 1; start s0: 1"


def test_a_large_counterexample_is_described_by_its_size():
    mdp = worlds.make_mdp("random")
    example = Counterexample("random", mdp, ((0.25,) * 4,) * 8, "it fails")
    lines = example.lines()
    assert len(lines) == 2
    assert lines[0].startswith("8 states, 4 actions, horizon 10, γ = 1")


def test_a_slug_and_a_module_are_checked(monkeypatch):
    monkeypatch.setattr(claims, "CLAIMS", {})
    register = claims.claim("Three.", "exact")
    with pytest.raises(ValueError, match="must be in TOPICS"):
        register(holds)
    monkeypatch.setitem(claims.TOPIC_OF, __name__, TWO)
    assert (register(holds).slug, register(fails).topic) == ("holds", TWO)
    with pytest.raises(ValueError, match="there is a claim 'holds' already"):
        register(holds)
    assert replace(MADE["seven"], text="x") != MADE["seven"]


def test_a_slug_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="no claim 'eight'"):
        claims.check_claim("eight")
