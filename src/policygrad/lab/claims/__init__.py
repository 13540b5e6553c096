"""Claims of textbooks and tutorials about policy gradients. Each claim is an experiment with a verdict.

    import policygrad as pg
    print(pg.lab.claims.check_claim("value-is-the-best-baseline"))  # runs the experiment
    pg.lab.claims.load_claims()                                     # all of them, by slug

A claim is a function that measures something and derives its verdict from the numbers: `@claim(text, evidence)` decorates a
function that returns an `Outcome`, and the function's name is the claim's slug. Evidence is "exact" (computed on finite MDPs),
"simulated" (sampled, with intervals) or "recorded" (from training runs that benchmarks/claims.py made). The experiments are in
modules by topic. A claim's rule is written before its numbers are looked at, in the docstring of its function where the verdict
does not follow from an identity, and it is not changed because of a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from policygrad.html import lines_html, table_html, text_html

if TYPE_CHECKING:
    from policygrad.lab.exact.mdp import MDP

Verdict = Literal["holds", "holds with caveat", "undecided", "fails as stated", "pending"]
Evidence = Literal["exact", "simulated", "recorded"]

TOPICS = {  # the topics in the order of the report, and the modules where their claims are
    "The gradient and its estimators": ("estimators", "variance", "ordering", "off_policy", "loss"),
    "Baselines and advantages": ("baselines", "advantages"),
    "Optimisation and derivatives": ("optimisation", "stationary", "asynchronous"),
    "Policy improvement, natural gradients, trust regions": ("improvement", "natural", "trust_regions"),
    "Policies, exploration and rewards": ("policies", "exploration"),
    "Values or policies": ("values", "instability"),
    "Learning": ("learning",),
}
LINES = 16  # the largest number of lines of a counterexample's table
TOPIC_OF = {f"{__name__}.{module}": topic for topic, modules in TOPICS.items() for module in modules}


@dataclass(frozen=True)
class Counterexample:
    """An MDP and a policy on which a claim fails, as tables, and a sentence that says what happens there."""

    name: str
    mdp: MDP
    pi: tuple[tuple[float, ...], ...]  # π(a|s), one row per state
    what: str  # one sentence, with the numbers

    def lines(self) -> list[str]:
        """The MDP and the policy: its size, then π, reward and next states of every state and action, or how many."""
        mdp, pi = self.mdp, self.pi
        start = " ".join(f"s{s}: {p:.3g}" for s, p in enumerate(mdp.start.tolist()) if p > 0)
        rows = [(s, a) for s in range(mdp.states) if s not in mdp.terminal for a in range(mdp.actions)]
        lines = [f"{mdp.size}; start {start}"]
        if len(rows) > LINES:
            return [*lines, f"--json prints its {len(rows)} rows"]
        for s, a in rows:
            reached = ((n, p) for n, p in enumerate(mdp.transition[s, a].tolist()) if p > 0)
            after = ", ".join(f"s{n}{' (end)' * (n in mdp.terminal)} {p:.3g}" for n, p in reached)
            lines.append(f"s{s} a{a}: π = {pi[s][a]:.3g}, r = {float(mdp.reward[s, a]):.3g}, → {after}")
        return lines

    def __str__(self) -> str:
        return "\n".join([f"counterexample, {self.name}: {self.what}", *(f"  {line}" for line in self.lines())])


@dataclass(frozen=True)
class Outcome:
    """The outcome of an experiment. numbers: the measured quantities behind the verdict; names include units.

    `print` shows the verdict, the reason, the numbers and the counterexample, and a notebook shows them as a table.
    """

    verdict: Verdict
    because: str  # the reason: a few sentences with the numbers
    numbers: Mapping[str, float]
    counterexample: Counterexample | None = None

    def __str__(self) -> str:
        lines = [f"{self.verdict}. {self.because}", *(f"  {name}: {x:.4g}" for name, x in self.numbers.items())]
        return "\n".join([*lines, *([] if self.counterexample is None else [str(self.counterexample)])])

    def _repr_html_(self) -> str:
        found = table_html(self.verdict, {name: f"{x:.4g}" for name, x in self.numbers.items()})
        example = "" if self.counterexample is None else text_html(str(self.counterexample))
        return found + lines_html([self.because]) + example


@dataclass(frozen=True)
class Claim:
    """A claim and the experiment that gives its verdict. slug: its name on the command line."""

    slug: str
    text: str
    topic: str
    evidence: Evidence
    experiment: Callable[[], Outcome] = field(repr=False, compare=False)


CLAIMS: dict[str, Claim] = {}


def claim(text: str, evidence: Evidence) -> Callable[[Callable[[], Outcome]], Claim]:
    """A decorator that registers an experiment and replaces the function by its `Claim`. The slug is the function's name.

    The topic is that of the experiment's module. Raises ValueError for a slug that exists, and for a module outside `TOPICS`.
    """

    def register(experiment: Callable[[], Outcome]) -> Claim:
        slug, topic = experiment.__name__.replace("_", "-"), TOPIC_OF.get(experiment.__module__)
        if topic is None:
            raise ValueError(f"the module of a claim must be in TOPICS: add {experiment.__module__}")
        if slug in CLAIMS:
            raise ValueError(f"there is a claim {slug!r} already: give the function another name")
        CLAIMS[slug] = Claim(slug, text, topic, evidence, experiment)
        return CLAIMS[slug]

    return register


def decide(holds: bool | None, caveat: bool = False) -> Verdict:
    """The verdict. holds: whether the experiment shows what is claimed, None where it cannot tell; caveat: but not always."""
    if holds is None:
        return "undecided"
    return "fails as stated" if not holds else "holds with caveat" if caveat else "holds"


def every(answers: Iterable[bool | None]) -> bool | None:
    """Whether all are true: not if one is false, and None (not known) if one is None and none is false."""
    known = list(answers)
    return False if any(x is False for x in known) else None if None in known else True


def some(answers: Iterable[bool | None]) -> bool | None:
    """Whether at least one is true; None if none is, and one is None."""
    known = list(answers)
    return True if any(x is True for x in known) else None if None in known else False


def agreed(answers: Iterable[bool]) -> bool | None:
    """What all answers say, of a few seeds, say; None (not known) where they differ."""
    return None if len(known := set(answers)) > 1 else known.pop()


def both(exact: Outcome, recorded: Outcome) -> Outcome:
    """One outcome of an exact and a recorded one, with the weaker of the two verdicts and the finite numbers."""
    weaker: tuple[Verdict, ...] = ("holds", "holds with caveat", "undecided", "pending", "fails as stated")
    return Outcome(
        weaker[max(weaker.index(exact.verdict), weaker.index(recorded.verdict))],
        f"{exact.because} {recorded.because}",
        {name: x for name, x in {**exact.numbers, **recorded.numbers}.items() if math.isfinite(x)},
        exact.counterexample,
    )


def load_claims() -> dict[str, Claim]:
    """All claims by slug, in the order of the topics and of their modules."""
    for module in TOPIC_OF:
        import_module(module)
    order = list(TOPIC_OF)
    return dict(sorted(CLAIMS.items(), key=lambda item: order.index(item[1].experiment.__module__)))


def check_claim(slug: str) -> Outcome:
    """Run the experiment of a claim. Raises KeyError for an unknown slug."""
    claims = load_claims()
    if slug not in claims:
        raise KeyError(f"there is no claim {slug!r}: `policygrad lab claims --list` lists them")
    return claims[slug].experiment()
