"""What the doctor says: symptoms, each with its number, its threshold and one thing to try. No files, no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from policygrad.errors import PolicygradError
from policygrad.html import grid_html

LINE_WIDTH = 100  # characters per line, unless given


@dataclass(frozen=True)
class Symptom:
    """One thing that was found.

    rule: the rule that found it. text: a sentence about it. number: what was measured. threshold: from where on it is a
    symptom, as text. advice: one command, or one line of Python, to try. source: where the rule is from. sure: whether it
    is wrong in any case; otherwise it may be as it should be, and is said with "maybe".
    """

    rule: str
    text: str
    number: float
    threshold: str
    advice: str
    source: str
    sure: bool = False

    @property
    def mark(self) -> str:
        """`!` for what is wrong in any case, `?` for what may be."""
        return "!" if self.sure else "?"

    def lines(self) -> list[str]:
        """As text: what was found, the number with its threshold, and what to try."""
        maybe = "" if self.sure else "maybe: "
        measured = f"{self.number:.4g}, a symptom {self.threshold} ({self.source})"
        return [f"{self.mark}  {self.rule}: {maybe}{self.text}", f"   {measured}", f"   try: {self.advice}"]


@dataclass
class Diagnosis:
    """What the doctor found. `print(diagnosis)` prints it, and a notebook shows it as a table.

    subject: what was looked at. symptoms: in the order of the rules, the cheapest first. healthy_rules: the rules that found
    nothing. silent: the rules that could not look, and why.
    """

    subject: str
    symptoms: list[Symptom] = field(default_factory=list)
    healthy_rules: list[str] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether nothing was found, not even a maybe."""
        return not self.symptoms

    def __iter__(self) -> Iterator[Symptom]:
        return iter(self.symptoms)

    def __len__(self) -> int:
        return len(self.symptoms)

    def after(self, first: Diagnosis) -> Diagnosis:
        """Both, what the first found first; the subject is this one's."""
        healthy, silent = first.healthy_rules + self.healthy_rules, first.silent | self.silent
        return Diagnosis(self.subject, first.symptoms + self.symptoms, healthy, silent)

    def summary(self) -> str:
        """One sentence: how much was found, and how sure it is."""
        if self.healthy:
            return f"No symptom, by {len(self.healthy_rules)} rules."
        sure = sum(symptom.sure for symptom in self.symptoms)
        parts = [f"{n} {what}" for n, what in ((sure, "certain"), (len(self.symptoms) - sure, "possible")) if n]
        plural = "s" if len(self.symptoms) > 1 else ""
        return f"{' and '.join(parts)} symptom{plural}; {len(self.healthy_rules)} rules found nothing."

    def lines(self) -> list[str]:
        """The text, before it is wrapped."""
        found = [line for symptom in self.symptoms for line in symptom.lines()]
        ok = [f"ok {', '.join(self.healthy_rules)}"] if self.healthy_rules else []
        whys: dict[str, list[str]] = {}
        for rule, why in self.silent.items():
            whys.setdefault(why, []).append(rule)
        silent = [f"-  not looked at: {', '.join(rules)} ({why})" for why, rules in whys.items()]
        return [self.subject, self.summary(), "", *found, *ok, *silent]

    def __str__(self) -> str:
        fill = textwrap.TextWrapper(LINE_WIDTH, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False)
        return "\n".join(fill.fill(line) for line in self.lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [[s.mark, s.rule, s.text, f"{s.number:.4g}", s.threshold, s.advice, s.source] for s in self.symptoms]
        rows += [["ok", name, "", "", "", "", ""] for name in self.healthy_rules]
        rows += [["-", name, why, "", "", "", ""] for name, why in self.silent.items()]
        return grid_html(
            f"{self.subject}. {self.summary()}",
            ["", "rule", "what was found", "number", "symptom", "try", "source"],
            rows,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "subject": self.subject,
            "healthy": self.healthy,
            "symptoms": [asdict(symptom) for symptom in self.symptoms],
            "healthy_rules": self.healthy_rules,
            "silent": self.silent,
        }


def percent(share: float) -> str:
    """A threshold as text, for the descriptions of rules."""
    return f"{100 * share:g} %"


class CannotTell(PolicygradError):
    """A rule cannot look, and the text says why."""


@dataclass(frozen=True)
class SymptomRule:
    """A rule, and what docs/doctor.md says of it.

    look: a function case → Symptom, symptoms, or None, which raises `CannotTell` where it cannot look. symptom: from where on
    something is one; thresholds with * are this package's proposals. sure: "yes", or in which case, if it may be wrong in any
    case. stalls: whether it speaks only of runs whose return does not rise, where most settings are wrong.
    """

    name: str
    look: Callable[[Any], Any]
    symptom: str = ""
    sure: str = ""
    stalls: bool = False


def examine(subject: str, rules: Sequence[SymptomRule], case: Any) -> Diagnosis:
    """The diagnosis of a case by rules, in their order."""
    found = Diagnosis(subject)
    for rule in rules:
        try:
            if rule.stalls:
                case.only_stalled()
            answer = rule.look(case)
        except CannotTell as why:
            found.silent[rule.name] = str(why)
            continue
        symptoms = [answer] if isinstance(answer, Symptom) else list(answer or ())
        found.symptoms += symptoms
        if not symptoms:
            found.healthy_rules.append(rule.name)
    return found
