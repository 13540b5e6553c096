"""Rules about runs that look at their episodes and at the runs beside them: see `diagnosis/run.py`."""

from __future__ import annotations

import math

import numpy as np

from policygrad.diagnosis.run_case import ERRORS, HENDERSON, MANY, SCHULMAN, RunCase
from policygrad.diagnosis.symptoms import CannotTell, Symptom
from policygrad.reports.columns import as_number, num

PARDO = "Pardo et al. 2018, Time limits in RL"

MOVED = 4.0  # standard deviations of returns, or standard errors of lengths
SEEDS = 4  # per side
LEVEL = 0.95


def progress(case: RunCase) -> Symptom | None:
    """The mean return does not rise, but the best returns or the lengths of episodes move, which comes first: wait."""
    rise, error = case.change()
    if rise > ERRORS * error or rise < -ERRORS * error:
        raise CannotTell(f"the return {'rises' if rise > 0.0 else 'falls'}")
    if np.ptp(case.returns) == 0.0:
        raise CannotTell("all returns are equal")
    fifth = len(case.returns) // 5
    first, last = case.returns[:fifth], case.returns[-fifth:]
    moved = beyond(first.max(), last.max(), float(first.std(ddof=1)))
    what, ends = "the best return", (first.max(), last.max())
    if moved <= MOVED:
        first, last = case.lengths[:fifth], case.lengths[-fifth:]
        error = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / fifth)
        moved = abs(beyond(first.mean(), last.mean(), error))
        what, ends = "the mean length of episodes", (first.mean(), last.mean())
    if moved <= MOVED:
        return None
    text = f"the mean return does not rise yet, but {what} went from {num(ends[0])} to {num(ends[1])}, which comes first: wait"
    advice = f"policygrad resume {case.name} --steps {int(3 * as_number(case.config.get('steps')))}"
    limits = f"beyond {MOVED:g} standard deviations of the first returns, or standard errors of the lengths"
    return Symptom("progress", text, moved, limits, advice, SCHULMAN)


def beyond(first: float, last: float, unit: float) -> float:
    """How far a number moved, in units; infinitely far where there is no unit."""
    gain = float(last) - float(first)
    return gain / unit if unit > 0.0 else math.copysign(math.inf, gain) if gain else 0.0


def limit(case: RunCase) -> Symptom | None:
    """Some episode ends by itself, and not at the time limit. Looked at where the return does not rise."""
    if len(case.lengths) < MANY:
        raise CannotTell(f"fewer than {MANY} episodes ended")
    steps = float(case.lengths[0])
    if np.ptp(case.lengths) > 0.0 or steps <= 1.0:
        return None
    text = f"all {len(case.lengths):,} episodes ended after {steps:,.0f} steps, at a limit: none reached an end of the task"
    advice = f"policygrad train {case.algo} {case.env} --env-kwargs max_episode_steps={10 * int(steps)}"
    return Symptom("limit", text, 1.0, f"at 1 length for at least {MANY} episodes", advice, PARDO)


def luck(case: RunCase) -> Symptom | None:
    """This run's setting is better than another one in the same folder by more than seeds differ."""
    ours, others = case.sides[0] if case.sides else [], case.sides[1:]
    others = [scores for scores in others if len(scores) >= SEEDS and np.mean(scores) < np.mean(ours or [-math.inf])]
    if len(ours) < SEEDS or not others:
        raise CannotTell(f"there are no {SEEDS} seeds of this setting and of a worse one in the same folder")
    from policygrad.reports.differences import compare_scores

    nearest = max(others, key=np.mean)
    found = compare_scores([np.array(ours)], [np.array(nearest)], level=LEVEL)
    if found.verdict > 0:
        return None
    means = num(float(np.mean(ours))), num(float(np.mean(nearest)))
    text = f"{len(ours)} seeds of this setting have mean return {means[0]}, and {len(nearest)} seeds of another "
    text += f"have {means[1]}: groups of seeds of one setting differ as much"
    advice = f"policygrad compare {case.algo} {case.algo}:KEY=VALUE --env {case.env} --seeds {2 * len(ours)}"
    return Symptom(
        "luck", text, found.p, f"above {1 - LEVEL:.2g}, p-value of a permutation of the seeds", advice, HENDERSON
    )
