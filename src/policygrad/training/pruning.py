"""Which trials of a search are given up before their end: late, at equal steps, and none that may still overtake.

The curve of a trial has one number per rung, of `Rule.rungs` equal parts of training: the mean, over all seeds of the trial, of
the mean return of the last 100 training episodes. A trial is **behind** at a rung if

1. its value there is below the median of all trials that came so far, and
2. it could not reach the median of the finished trials any more, if each part of training that is left raised the return by
   twice as much as the part before, beginning with the larger rise of the last two parts.

It is given up if it is behind at `patience` rungs in a row, none of them before `warmup`, when `finished` trials have finished.

The second condition is what makes the rule fair: successive halving and the median rule (Li et al. 2018, "Hyperband"; Golovin
et al. 2017, "Google Vizier", 3.2.2) compare values only, and so give up what learns slowly at first and is best in the end.
It follows that a trial which ends at the median of the others or above is never given up if no part of its training raises
the return by more than twice the larger rise of the two parts before. The price is that only trials which hardly rise are
given up. A return that hardly moves until late cannot be told from one that never will: where a task is like that, raise
`warmup`, or do not prune.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from policygrad.algorithms.checked import ConfigError

Curve = Sequence[float | None]  # the value at rung 1, 2, …; None where no episode had ended


@dataclass(frozen=True)
class Rule:
    """When trials are given up, see the head of this file.

    rungs: equal parts of training, at whose ends trials are compared. warmup: share of the steps before which none is.
    finished: trials that must have finished. patience: rungs in a row at which a trial must be behind.
    """

    rungs: int = 6
    warmup: float = 1 / 3
    finished: int = 5
    patience: int = 2

    def __post_init__(self) -> None:
        if not 0.0 <= self.warmup <= 1.0:
            raise ConfigError(f"warmup = {self.warmup} must be a share of the steps, from 0 to 1; 1: nothing is pruned")
        if min(self.rungs, self.finished, self.patience) < 1:
            raise ConfigError(f"rungs, finished and patience of {self} must be at least 1")

    @property
    def decisions(self) -> list[int]:
        """The rungs, counted from 1, at which a trial can be given up."""
        first = max(1, math.ceil(self.warmup * self.rungs - 1e-9)) + self.patience - 1
        return list(range(first, self.rungs))

    def steps_at(self, rung: int, steps: int) -> int:
        """The steps of a rung, in a training of so many steps."""
        return steps * rung // self.rungs


def gives_up(curve: Curve, others: Sequence[Curve], rule: Rule) -> bool:
    """Whether a trial is given up at the last rung of its curve. others: the curves of all trials that have ended."""
    rung, ended = len(curve), [other for other in others if len(other) == rule.rungs]
    if rung not in rule.decisions or len(ended) < rule.finished:
        return False
    return all(is_behind(curve[: rung - back], others, rule) for back in range(rule.patience))


def is_behind(curve: Curve, others: Sequence[Curve], rule: Rule) -> bool:
    """Whether a trial is behind at the last rung of its curve; not if there is nothing to tell it by."""
    rung, promise = len(curve), promised(curve, rule.rungs - len(curve))
    there = [other[rung - 1] for other in others if len(other) >= rung]
    final = [other[-1] for other in others if len(other) == rule.rungs]
    there, final = [x for x in there if x is not None], [x for x in final if x is not None]
    if promise is None or not there or not final:
        return False
    return float(curve[-1] or 0.0) < median(there) and promise < median(final)


def promised(curve: Curve, parts: int) -> float | None:
    """The value that a curve could reach after so many further parts, each with twice the rise of the part before.

    v + r (2 + 4 + … + 2ᵖ) = v + r (2ᵖ⁺¹ − 2), with r the larger rise of the last two parts, and r = 0 if it fell. None if the
    last two values are not known.
    """
    last = curve[-3:]
    if len(last) < 2 or last[-1] is None or last[-2] is None:
        return None
    rises = [b - a for a, b in pairwise(last) if a is not None and b is not None]
    return last[-1] + max(0.0, *rises) * (2 ** (parts + 1) - 2)
