"""The results of claims as text, as JSON, and as the page docs/claims.md."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from policygrad.lab.claims import TOPICS, Claim, Outcome, Verdict
from policygrad.lab.exact.worlds import TABLES

HEAD = """# Claims

This page tests what textbooks and tutorials say about policy gradients. Each claim is an experiment with a verdict. **holds**:
the experiment shows what is claimed. **holds with caveat**: it does, but not always or not completely; the text says where it
does not. **undecided**: the runs are too few to tell, because the 95 % interval holds both answers, or the seeds differ.
**fails as stated**: the experiment shows that it is not so, or not in general. **pending**: the runs that decide it are not
recorded yet. The evidence is *exact* (computed on finite MDPs, to rounding), *simulated* (sampled, with an interval or several
seeds), or *recorded* (from training runs with all seeds, made by `benchmarks/claims.py`). "Equal to 1e-15" means that the
largest difference is 1e-15.
A verdict follows from its numbers by a rule that was written before, and each rule is tested: with a broken ingredient, or
with false numbers in place of the recorded ones, the verdict changes. Where the text calls a claim an identity, only an error
in the code could make it fail.

`policygrad lab claims --out docs/claims.md` writes this page from the numbers that it measures. Each claim has a name:
`policygrad lab claims reinforce-is-unbiased` repeats one experiment, and `policygrad lab claims baseline` repeats all that
have this word in their names or texts. `--verdict fails` shows the claims with this verdict alone. `--json` prints the numbers
and the tables of the counterexamples. In Python, `pg.lab.claims.load_claims()` gives all claims by name, and `check_claim` runs
one of them:

```python
import policygrad as pg

outcome = pg.lab.claims.check_claim("log-derivative-trick")
print(outcome.verdict)  # → holds
```

`print(outcome)` shows the verdict with its reason, the numbers and the counterexample; a notebook shows them as a table.
"""

# what a reader looks for first, and the words that choose it on the command line
ORDER: dict[str, Verdict] = {
    "fails": "fails as stated",
    "caveat": "holds with caveat",
    "undecided": "undecided",
    "pending": "pending",
    "holds": "holds",
}


@dataclass(frozen=True)
class CheckedClaim:
    """A claim, the outcome of its experiment, and the seconds that it took."""

    claim: Claim
    finding: Outcome
    seconds: float


def run_claims(claims: Iterable[Claim]) -> Iterator[CheckedClaim]:
    """Run the experiments of claims, one after the other."""
    for claim in claims:
        started = time.perf_counter()
        finding = claim.experiment()
        yield CheckedClaim(claim, finding, time.perf_counter() - started)


def verdict_counts(results: Sequence[CheckedClaim]) -> str:
    """The number of claims with each verdict, as a sentence."""
    count = Counter(r.finding.verdict for r in results)
    words = {
        "holds": "hold" if count["holds"] != 1 else "holds",
        "holds with caveat": "with a caveat",
        "undecided": "undecided",
        "fails as stated": "fail as stated" if count["fails as stated"] != 1 else "fails as stated",
        "pending": "pending",
    }
    said = ", ".join(f"{count[verdict]} {word}" for verdict, word in words.items() if count[verdict])
    return f"{len(results)} claim{'s' * (len(results) != 1)}" + (f": {said}" if said else "")


def by_verdict(results: Sequence[CheckedClaim]) -> str:
    """The names of the claims with each verdict but "holds", one line per verdict: what a reader looks for."""
    named = {v: [r.claim.slug for r in results if r.finding.verdict == v] for v in ORDER.values() if v != "holds"}
    return "\n".join(f"{verdict}: {', '.join(slugs)}" for verdict, slugs in named.items() if slugs)


def claim_text(result: CheckedClaim) -> str:
    """A paragraph about a claim: its verdict, the evidence, the seconds, the reason, and the counterexample."""
    claim, finding = result.claim, result.finding
    took = "" if claim.evidence == "recorded" else f", {result.seconds:.1f} s"
    evidence = "" if finding.verdict == "pending" else f" ({claim.evidence}{took})"
    lines = [claim.slug, claim.text, f"{finding.verdict}{evidence}. {finding.because}"]
    if finding.counterexample is not None:
        lines += [f"counterexample, {finding.counterexample.name}: {finding.counterexample.what}"]
        lines += finding.counterexample.lines()
    return "\n    ".join(lines)


def claim_to_json(result: CheckedClaim) -> dict[str, Any]:
    """The result as plain values, with the tables of the counterexample."""
    claim, finding = result.claim, result.finding
    found: dict[str, Any] = {
        "slug": claim.slug,
        "claim": claim.text,
        "topic": claim.topic,
        "evidence": claim.evidence,
        "verdict": finding.verdict,
        "because": finding.because,
        "numbers": {name: float(x) if math.isfinite(x) else None for name, x in finding.numbers.items()},
        "seconds": round(result.seconds, 2),
    }
    if (example := finding.counterexample) is not None:
        mdp = example.mdp
        tables = {name: getattr(mdp, name) for name in TABLES} | {"pi": example.pi}
        listed = {name: x.tolist() if isinstance(x, Tensor) else x for name, x in tables.items()}
        found["counterexample"] = {"name": example.name, "what": example.what} | listed
    return found


def markdown(results: Sequence[CheckedClaim]) -> str:
    """The page docs/claims.md: what does not simply hold, a table of verdicts per topic, and every claim with its numbers."""
    rows = [(r.claim.slug, r.claim.text, r.finding.verdict) for r in results]
    parts = [HEAD, f"{verdict_counts(results)}.\n", *first_table(rows)]
    for topic in TOPICS:
        chosen = [r for r in results if r.claim.topic == topic]
        if not chosen:
            continue
        table = verdict_table([(r.claim.slug, r.claim.text, r.finding.verdict) for r in chosen])
        parts.append(f"## {topic}\n\n{table}")
        parts += [_section(r) for r in chosen]
    return "\n".join(parts)


def first_table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """The section about the claims that do not simply hold, those that fail first. rows: slug, text and verdict of each."""
    chosen = [row for verdict in ORDER.values() if verdict != "holds" for row in rows if row[2] == verdict]
    return [f"## Fails, caveats and open questions\n\n{verdict_table(chosen)}"] if chosen else []


def verdict_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """A table in Markdown."""
    lines = "\n".join(f"| {slug} | {_cell(text)} | {verdict} |" for slug, text, verdict in rows)
    return f"| | claim | verdict |\n|---|---|---|\n{lines}\n"


def _section(result: CheckedClaim) -> str:
    claim, finding = result.claim, result.finding
    evidence = "" if finding.verdict == "pending" else f", {claim.evidence}"
    lines = [f"**{claim.text}** ({claim.slug}) *{finding.verdict}*{evidence}. {finding.because}"]
    if finding.numbers:
        listed = "; ".join(f"{name}: {x:.4g}" for name, x in finding.numbers.items())
        lines.append(f"Numbers. {listed}.")
    if finding.counterexample is not None:
        table = "\n".join(f"    {line}" for line in finding.counterexample.lines())
        lines += [f"Counterexample, {finding.counterexample.name}: {finding.counterexample.what}", table]
    return "\n\n".join(lines) + "\n"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
