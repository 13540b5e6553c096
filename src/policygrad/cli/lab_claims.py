"""`policygrad lab claims`: claims of textbooks about policy gradients, each an experiment with a verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from policygrad.cli.parser import Parser
from policygrad.cli.reports import as_usage_error
from policygrad.cli.tables import paragraph
from policygrad.cli.values import UsageError
from policygrad.files import write_atomically

if TYPE_CHECKING:
    from policygrad.lab.claims import Claim


VERDICTS = ("fails", "caveat", "undecided", "pending", "holds")  # as in `policygrad.lab.claims.report.ORDER`


def parser() -> Parser:
    """The parser of `policygrad lab claims`."""
    made = Parser(
        "policygrad lab claims",
        usage="policygrad lab claims [WHICH …] [flags]",
        description="Test what textbooks and tutorials say about policy gradients. Each claim is an experiment with a verdict: "
        "holds, holds with caveat, undecided, fails as stated, or pending. The numbers are shown, and a counterexample if "
        "there is one. All claims together take about half a minute.",
        epilog="examples:\n  policygrad lab claims reinforce-is-unbiased\n  policygrad lab claims baseline\n"
        "  policygrad lab claims --verdict fails",
    )
    made.add_argument("which", nargs="*", metavar="WHICH", help="names of claims, or words in their texts [all]")
    made.add_argument("--list", action="store_true", help="list the claims without running them")
    made.add_argument(
        "--verdict", metavar="{" + ",".join(VERDICTS) + "}", help="show claims with this verdict alone [all]"
    )
    made.add_argument("--json", action="store_true", help="print everything as JSON, with the counterexamples' tables")
    made.add_argument("--out", metavar="FILE.md", help="file of a Markdown page with the results")
    return made


def run(words: Sequence[str]) -> None:
    """`policygrad lab claims`."""
    given = parser().parse(words)
    if given.out is not None:
        _check_out(given.out)
    if given.verdict is not None:
        _check_verdict(given.verdict, given.list)
    from policygrad.lab import claims
    from policygrad.lab.claims import report
    from policygrad.training.threads import single_thread

    chosen = choose(claims.load_claims(), given.which)
    if given.list:
        print("\n".join(f"{c.slug:<40} {c.text}" for c in chosen))
        return
    wanted = None if given.verdict is None else report.ORDER[given.verdict]
    results = []
    with as_usage_error(ValueError, OSError), single_thread():
        for result in report.run_claims(chosen):
            if wanted not in (None, result.finding.verdict):
                continue
            results.append(result)
            if not given.json:
                print(paragraph(report.claim_text(result), " " * 4) + "\n", flush=True)
        if given.json:
            print(json.dumps([report.claim_to_json(r) for r in results], indent=2, ensure_ascii=False))
        else:
            if len(results) > 1 and wanted is None and (lists := report.by_verdict(results)):
                print(paragraph(lists, " " * 4) + "\n")
            print(report.verdict_counts(results))
        if given.out is not None:
            write_atomically(Path(given.out), report.markdown(results).encode())


def _check_verdict(verdict: str, listed: bool) -> None:
    if verdict not in VERDICTS:
        raise UsageError(f"--verdict = {verdict!r} is not one of: {', '.join(VERDICTS)}")
    if listed:
        raise UsageError("--list runs no experiment, so no verdict is known: leave out --list or --verdict.")


def _check_out(out: str) -> None:
    if not out.endswith(".md"):
        raise UsageError(f"--out = {out} must end in .md, as the page is written in Markdown.")
    if not Path(out).parent.is_dir():
        raise UsageError(f"--out = {out}: there is no directory {Path(out).parent}.")


def choose(claims: dict[str, Claim], which: Sequence[str]) -> list[Claim]:
    """The claims of these slugs, or with these words in slug, text or topic; all of them without any."""
    chosen: set[str] = set()
    for word in which:
        given = word.lower()
        found = {given} & set(claims) or {s for s, c in claims.items() if given in f"{s} {c.text} {c.topic}".lower()}
        if not found:
            raise UsageError(
                f"no claim has {word!r} in its name or text: `policygrad lab claims --list` lists the claims."
            )
        chosen |= found
    return [c for slug, c in claims.items() if slug in chosen or not which]
