"""Whether the surrogate tracks the return: its predictions compared with the changes of the return, segment by segment.

The run is cut into segments of equal length in steps. With gain_i the rise of the surrogate in update i, and R(x) the mean
return of the training episodes that ended within half a segment of x steps, of the segment [a, b)

    promised = Σ gain_i over its measured updates          delivered = R(b) − R(a)

The two have different units (that of the advantage, often standardised, and that of the return), so signs are compared:
the surrogate *stopped tracking* where promised > 0 and delivered is below 0 by Welch's t test, at one in a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from policygrad.reports.columns import Updates, num, steps_text
from policygrad.reports.findings import Finding

SEGMENTS = 10
MIN_ROWS = 3  # a segment, at least
MIN_EPISODES = 5  # that a mean return needs
# A standard normal is above it once in a thousand: a false alarm in one of a hundred runs of ten segments (measured: 0.7 %
# with 6 episodes around an end, 0.9 % with 15, 1.1 % with 60).
Z_LIMIT = 3.09


@dataclass(frozen=True)
class Segment:
    """A segment between two steps: the surrogate's prediction, and the mean returns before and after."""

    start: float
    end: float
    promised: float
    before: float
    after: float
    error_before: float  # standard errors of the two means
    error_after: float
    episodes_before: int  # of which they are
    episodes_after: int

    @property
    def error(self) -> float:
        """The standard error of after − before: no episode is in both."""
        return math.hypot(self.error_before, self.error_after)

    @property
    def direction(self) -> int:
        """1, 0, −1: whether the return rose, neither, or fell beyond its error, by Welch's t test."""
        moved, error = self.after - self.before, self.error
        if moved == 0.0 or (error > 0.0 and normal(abs(moved) / error, self.freedom) <= Z_LIMIT):
            return 0
        return int(math.copysign(1.0, moved))

    @property
    def freedom(self) -> float:
        """The degrees of freedom of `error`, of whose square c is before: Welch and Satterthwaite."""
        c = (self.error_before / self.error) ** 2
        return 1.0 / (c**2 / (self.episodes_before - 1) + (1.0 - c) ** 2 / (self.episodes_after - 1))

    @property
    def broken(self) -> bool:
        """Whether a rise was predicted and the return fell."""
        return self.promised > 0.0 and self.direction < 0


def run_segments(updates: Updates, returns: Sequence[float]) -> list[Segment]:
    """The segments of a run that have enough episodes around both ends. returns: of all finished episodes, in order.

    As many as there are MIN_ROWS rows for, SEGMENTS at most; none of fewer than two. Returns that are not finite are left out.
    """
    count, steps, gain = min(SEGMENTS, len(updates) // MIN_ROWS), updates.steps, updates["gain"]
    if count < 2:
        return []
    edges = np.linspace(steps[0], steps[-1], count + 1)
    half = (edges[1] - edges[0]) / 2
    ended, played = episode_steps(updates, len(returns)), np.asarray(returns, float)
    played = played[: len(ended)]
    ended, played = ended[np.isfinite(played)], played[np.isfinite(played)]
    around = [played[(edge - half <= ended) & (ended < edge + half)] for edge in edges]
    found = []
    for (start, end), (before, after) in zip(pairwise(edges), pairwise(around), strict=True):
        if min(len(before), len(after)) >= MIN_EPISODES:
            promised = float(np.nansum(gain[(start <= steps) & (steps < end)]))
            errors = [float(x.std(ddof=1) / math.sqrt(len(x))) for x in (before, after)]
            means, counts = (float(before.mean()), float(after.mean())), (len(before), len(after))
            found.append(Segment(float(start), float(end), promised, *means, errors[0], errors[1], *counts))
    return found


def normal(t: float, freedom: float) -> float:
    """Student's t as the z of a normal with the same tail, to 2 % from 4 degrees of freedom on (Wallace 1959): no scipy."""
    return math.sqrt(freedom * math.log1p(t * t / freedom)) * (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0)


def episode_steps(updates: Updates, episodes: int) -> np.ndarray:
    """The steps at which the first episodes ended, as far as there are rows: spread evenly between two rows."""
    counted = np.nan_to_num(updates["episodes"])
    number = np.arange(1, min(episodes, int(counted[-1])) + 1)
    return np.interp(number, [0.0, *counted], [0.0, *updates.steps])


def joined(found: Sequence[Segment]) -> list[Segment]:
    """Consecutive segments as one."""
    whole: list[Segment] = []
    for s in found:
        if whole and whole[-1].end == s.start:
            first = whole.pop()
            s = replace(
                s,
                start=first.start,
                promised=first.promised + s.promised,
                before=first.before,
                error_before=first.error_before,
                episodes_before=first.episodes_before,
            )
        whole.append(s)
    return whole


def tracking(updates: Updates, found: Sequence[Segment], episodes: int) -> Finding:
    """Gain and change of return, segment by segment; the worst place first.

    `!`: the return fell against the prediction.

    episodes: how many there are in all.
    """
    if len(found) < 2:
        text = f"too little data: {len(updates)} rows of metrics and {episodes} episodes in monitor.csv; at least"
        text += f" {2 * MIN_ROWS} rows are needed, and {MIN_EPISODES} episodes at each end of two segments"
        return Finding("surrogate and return", "-", text + ".")
    broken = sorted(joined([s for s in found if s.broken]), key=lambda s: s.after - s.before)
    numbers = {"segments": [segment_to_json(s) for s in found], "broken": [segment_to_json(s) for s in broken]}
    rose, level = (sum(s.direction == d for s in found) for d in (1, 0))
    promised, first, last = sum(s.promised for s in found), found[0].before, found[-1].after
    whole = f"in total the surrogate predicted a gain of {num(promised)} and the return went from {num(first)} to {num(last)}"
    if not broken:
        text = f"it tracks: {whole}; of {len(found)} segments of the run the return rose in {rose}, changed without "
        text += f"significance in {level}, and fell against the prediction in none"
        return Finding("surrogate and return", "ok", text + ".", numbers)
    worst, *others = broken
    part = f" in the measured updates, {updates.measured()}," if updates.measured() else ""
    text = f"{segment_place(worst)} the surrogate predicted a gain of {num(worst.promised)}{part} and the return fell "
    text += f"from {num(worst.before)} to {num(worst.after)} (± {num(worst.error)})"
    if others:
        text += "; it also fell " + ", ".join(
            f"{segment_place(s)} ({num(s.before)} to {num(s.after)})" for s in others[:3]
        )
    text += f". {whole[0].upper()}{whole[1:]}. Steps may be too long. Lower {updates.spec.shorter}"
    return Finding("surrogate and return", "!", text + ".", numbers)


def segment_place(s: Segment) -> str:
    """The steps of a segment, as text."""
    return f"between {steps_text(s.start)} and {steps_text(s.end)} steps"


def segment_to_json(s: Segment) -> Mapping[str, Any]:
    """A segment as plain values."""
    return {
        "steps": [round(s.start), round(s.end)],
        "promised": s.promised,
        "return_before": s.before,
        "return_after": s.after,
        "standard_error": s.error,
    }
