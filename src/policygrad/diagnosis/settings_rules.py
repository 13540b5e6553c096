"""Rules about runs that look at their settings: see `diagnosis/run.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from policygrad.diagnosis.run_case import JONES, MANY, SCHULMAN, RunCase
from policygrad.diagnosis.symptoms import CannotTell, Symptom
from policygrad.reports.columns import as_number, num

NEAR, SHARE = 5.0, 0.1  # steps that γ sees, and their share of an episode
SELDOM, OFTEN = 1.0, 1000.0  # times that a step is replayed
NARROW = 3.0  # between the largest and the smallest learning rate that work
WORKS = 0.9  # of the way from the worst to the best score


def horizon(case: RunCase) -> Symptom | None:
    """γ sees as far as it takes to earn a reward: 1/(1 − γ) is not a few steps of long episodes."""
    gamma = case.updates.setting("gamma")
    if gamma is None or len(case.lengths) < MANY:
        raise CannotTell("there is no γ" if gamma is None else f"fewer than {MANY} episodes ended")
    sees = 1.0 / (1.0 - gamma) if gamma < 1.0 else math.inf
    length = float(case.lengths.mean())
    if not (sees < NEAR and sees < SHARE * length):
        return None
    text = f"γ = {gamma:g} sees {num(sees)} steps, and episodes have {num(length)}: what comes later counts for nothing"
    limits = f"below {NEAR:g} steps and below {SHARE:g} of an episode"
    return Symptom("horizon", text, sees, limits, case.train("--gamma 0.99"), SCHULMAN)


def replay(case: RunCase) -> Symptom | None:
    """A step in the replay buffer is learned from more than once, and not thousands of times while the buffer is old."""
    sizes = [as_number(case.config.get(name)) for name in ("batch_size", "num_steps", "num_envs", "buffer_size")]
    if not all(map(math.isfinite, sizes)):
        raise CannotTell("there is no replay buffer")
    batch, played = sizes[0], sizes[1] * sizes[2]
    minibatches = as_number(case.config.get("gradient_steps"))
    times = batch * (minibatches if math.isfinite(minibatches) else played) / played
    if SELDOM <= times <= OFTEN:
        return None
    often = times > OFTEN
    text = f"every step is replayed about {num(times)} times: "
    text += "the networks fit old data over and over" if often else "most of what was played is never learned from"
    wanted = max(1, round((32 if often else 64) * played / batch))
    limits = f"outside {SELDOM:g} to {OFTEN:g}"
    return Symptom("replay", text, times, limits, case.train(f"--gradient-steps {wanted}"), JONES)


def lr_width(rates: Sequence[float], scores: Sequence[float]) -> float:
    """How wide the range of learning rates is that work: the largest divided by the smallest, next to the best one.

    A rate works if its score has at least `WORKS` of the way from the worst to the best; counted are the neighbours of the
    best one, as far as all of them work. 1 where the best stands alone. Below `NARROW`, a setting works at one learning rate
    only (Schulman 2016: not robust). Raises ValueError for other than positive rates, and for fewer than three.
    """
    lr, score = np.asarray(rates, float), np.asarray(scores, float)
    if lr.shape != score.shape or lr.ndim != 1 or len(lr) < 3 or not (lr > 0.0).all() or not np.isfinite(score).all():
        raise ValueError(f"expected a finite score for each of three or more positive rates, got {rates} and {scores}")
    order = np.argsort(lr)
    lr, score = lr[order], score[order]
    works = score >= score.min() + WORKS * (score.max() - score.min())
    best = int(score.argmax())
    low = best - int(np.argmin(np.append(works[best::-1], False))) + 1
    high = best + int(np.argmin(np.append(works[best:], False))) - 1
    return float(lr[high] / lr[low])
