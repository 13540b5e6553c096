"""What textbooks and tutorials say about policy gradients, each claim an experiment with a verdict.

    from policygrad.lab import claims
    print(claims.check(89))        # runs the experiment
    claims.CLAIMS                  # all, by number, once `load` was called

A claim is a function that measures, and draws its verdict from what it measured: `@claim(number, text, topic, evidence)` on a
function that returns a `Outcome`. Evidence is "exact" (computed on finite MDPs), "simulated" (sampled, with intervals) or
"recorded" (of training runs that benchmarks/claims.py made). What is *not* here: the experiments, a module a topic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from policygrad.lab.exact.mdp import MDP

Verdict = Literal["holds", "holds with caveat", "fails as stated", "pending"]
Evidence = Literal["exact", "simulated", "recorded"]

TOPICS = {  # the topics in the order of the report, and the modules where their claims are
    "The gradient and its estimators": "estimates",
    "Baselines and advantages": "baselines",
    "Optimisation and derivatives": "optimisation",
    "Policy improvement, natural gradients, trust regions": "improvement",
    "Policies, exploration and rewards": "policies",
    "Learning": "learning",
}


@dataclass(frozen=True)
class Counterexample:
    """An MDP and a policy on which a claim fails: tables to type in, and what happens there."""

    name: str
    mdp: MDP
    pi: tuple[tuple[float, ...], ...]  # π(a|s), a row a state
    what: str  # one sentence, with the numbers


@dataclass(frozen=True)
class Outcome:
    """What an experiment found. numbers: every measured quantity that the verdict rests on, by a name with its unit."""

    verdict: Verdict
    because: str  # one to three sentences, with the numbers in them
    numbers: Mapping[str, float]
    counterexample: Counterexample | None = None


@dataclass(frozen=True)
class Claim:
    """A claim, and the experiment that gives its verdict."""

    number: int
    text: str
    topic: str
    evidence: Evidence
    experiment: Callable[[], Outcome] = field(repr=False, compare=False)


CLAIMS: dict[int, Claim] = {}


def claim(number: int, text: str, topic: str, evidence: Evidence) -> Callable[[Callable[[], Outcome]], Claim]:
    """Register an experiment under its number; what is named afterwards is the `Claim`."""
    if topic not in TOPICS:
        raise ValueError(f"topic must be one of {list(TOPICS)}, got {topic!r}")

    def register(experiment: Callable[[], Outcome]) -> Claim:
        if number in CLAIMS:
            raise ValueError(f"claim {number} is there twice")
        CLAIMS[number] = Claim(number, text, topic, evidence, experiment)
        return CLAIMS[number]

    return register


def decide(holds: bool, caveat: bool = False) -> Verdict:
    """The verdict of what was measured. holds: what is claimed was seen; caveat: but not always, or not only."""
    return "fails as stated" if not holds else "holds with caveat" if caveat else "holds"


def load() -> dict[int, Claim]:
    """All claims, by number."""
    for module in TOPICS.values():
        import_module(f"policygrad.lab.claims.{module}")
    return dict(sorted(CLAIMS.items()))


def check(number: int) -> Outcome:
    """Run the experiment of a claim. Raises KeyError for a number that there is not."""
    claims = load()
    if number not in claims:
        raise KeyError(f"there is no claim {number}: they are {min(claims)} to {max(claims)}")
    return claims[number].experiment()
