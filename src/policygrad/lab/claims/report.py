"""Claims and what was found, as text, as JSON and as the page docs/claims.md."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from policygrad.lab.claims import TOPICS, Claim, Counterexample, Outcome
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.worlds import TABLES

LINES = 16  # of a counterexample's table, at most

HEAD = """# Claims

What textbooks and tutorials say about policy gradients, each claim an experiment with a verdict. **holds**: what is claimed was
seen. **holds with caveat**: it was, but not always, or not only; the text says what to mind. **fails as stated**: it was not.
**pending**: it needs an algorithm that is not here yet. Evidence is *exact*: computed on finite MDPs, to rounding; *simulated*:
sampled, with intervals; or *recorded*: of training runs, with all seeds, that `benchmarks/claims.py` made.

This page is written by `policygrad lab claims --out docs/claims.md`, from the numbers it measures. Each claim has a name:
`policygrad lab claims reinforce-is-unbiased` repeats one experiment, `policygrad lab claims baseline` all with that word;
`--json` gives the numbers and the tables of the counterexamples.
"""


@dataclass(frozen=True)
class CheckedClaim:
    """A claim, what was found, and how long that took."""

    claim: Claim
    finding: Outcome
    seconds: float


def run(claims: Iterable[Claim]) -> Iterator[CheckedClaim]:
    """The experiments, one after the other."""
    for claim in claims:
        started = time.perf_counter()
        finding = claim.experiment()
        yield CheckedClaim(claim, finding, time.perf_counter() - started)


def summary(results: Sequence[CheckedClaim]) -> str:
    """How many claims got which verdict."""
    count = Counter(r.finding.verdict for r in results)
    words = {
        "holds": "hold" if count["holds"] != 1 else "holds",
        "holds with caveat": "with a caveat",
        "fails as stated": "fail as stated" if count["fails as stated"] != 1 else "fails as stated",
        "pending": "pending",
    }
    said = ", ".join(f"{count[verdict]} {word}" for verdict, word in words.items() if count[verdict])
    return f"{len(results)} claim{'s' * (len(results) != 1)}: {said}"


def text(result: CheckedClaim) -> str:
    """A paragraph: the claim, the verdict, its evidence and how long that took, why, and the counterexample."""
    claim, finding = result.claim, result.finding
    took = "" if claim.evidence == "recorded" else f", {result.seconds:.1f} s"
    evidence = "" if finding.verdict == "pending" else f" ({claim.evidence}{took})"
    lines = [claim.slug, claim.text, f"{finding.verdict}{evidence}. {finding.because}"]
    if finding.counterexample is not None:
        lines += [f"counterexample, {finding.counterexample.name}: {finding.counterexample.what}"]
        lines += describe(finding.counterexample)
    return "\n    ".join(lines)


def describe(example: Counterexample) -> list[str]:
    """The MDP and the policy in lines, a line a state and action; of large ones the size alone."""
    mdp = example.mdp
    start = " ".join(f"s{s}: {p:.3g}" for s, p in enumerate(mdp.start.tolist()) if p > 0)
    lines = [f"{mdp.size}; start {start}"]
    rows = [(s, a) for s in range(mdp.states) if s not in mdp.terminal for a in range(mdp.actions)]
    if len(rows) > LINES:
        return [*lines, f"its {len(rows)} rows are in --json"]
    return [*lines, *(_row(mdp, example.pi, s, a) for s, a in rows)]


def _row(mdp: MDP, pi: Sequence[Sequence[float]], s: int, a: int) -> str:
    reached = ((n, p) for n, p in enumerate(mdp.transition[s, a].tolist()) if p > 0)
    after = [f"s{n}{' (end)' * (n in mdp.terminal)} {p:.3g}" for n, p in reached]
    return f"s{s} a{a}: π = {pi[s][a]:.3g}, r = {float(mdp.reward[s, a]):.3g}, → {', '.join(after)}"


def to_json(result: CheckedClaim) -> dict[str, Any]:
    """Everything, the tables of the counterexample included."""
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
    """The page: a table of verdicts, then every claim with its numbers."""
    parts = [HEAD, f"{summary(results)}.\n"]
    for topic in TOPICS:
        chosen = [r for r in results if r.claim.topic == topic]
        if not chosen:
            continue
        table = "\n".join(f"| {r.claim.slug} | {_cell(r.claim.text)} | {r.finding.verdict} |" for r in chosen)
        parts.append(f"## {topic}\n\n| | claim | verdict |\n|---|---|---|\n{table}\n")
        parts += [_section(r) for r in chosen]
    return "\n".join(parts)


def _section(result: CheckedClaim) -> str:
    claim, finding = result.claim, result.finding
    evidence = "" if finding.verdict == "pending" else f", {claim.evidence}"
    lines = [f"**{claim.text}** ({claim.slug}) *{finding.verdict}*{evidence}. {finding.because}"]
    if finding.numbers:
        listed = "; ".join(f"{name}: {x:.4g}" for name, x in finding.numbers.items())
        lines.append(f"Numbers. {listed}.")
    if finding.counterexample is not None:
        table = "\n".join(f"    {line}" for line in describe(finding.counterexample))
        lines += [f"Counterexample, {finding.counterexample.name}: {finding.counterexample.what}", table]
    return "\n\n".join(lines) + "\n"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
