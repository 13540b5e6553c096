"""The tests behind the rules about environments, on recorded random play."""

from __future__ import annotations

import math

import numpy as np

from policygrad.diagnosis.play import RandomPlay
from policygrad.diagnosis.symptoms import CannotTell

ROWS = 4000  # of the permutation test
PERMUTATIONS = 199  # so that the smallest p-value is 1/200
KERNEL_ROWS = 800  # to fit, and as many to measure
WIDE = 64  # features beyond which kernels say nothing
UNEXPLAINED, LEFT = 0.2, 0.5  # shares: without the past, and what the past leaves of it
CLEAR = 4.0  # standard errors by which the past must help
TIME_SHOWN = 0.99  # R² of the time from the observation


def standardised(x: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and variance 1; constant ones are left out."""
    x = x.astype(float)
    std = x.std(0)
    keep = std > 1e-9 * np.maximum(1.0, np.abs(x.mean(0)))
    return (x[:, keep] - x[:, keep].mean(0)) / std[keep]


def action_effect(played: RandomPlay) -> float | None:
    """The p-value of the hypothesis that what follows does not depend on the action, by permutation of the actions.

    Random actions are independent of each other and of all that was before them, so that under the hypothesis every order
    of them is equally likely and the level is exact (Fisher 1935; Good 2005). Where legal actions depend on the state, this
    holds for the actions of steps with the same legal ones, and those alone change places. The statistic is Σ c², over the
    correlations c of features of the action, alone and times those of the observation, with what the observation leaves
    unexplained of the change and the reward. None where nothing varies.
    """
    rows = min(ROWS, played.steps)
    at = played.at[:rows]
    obs = narrowed(standardised(played.obs[at]))
    outcome = np.column_stack([narrowed(played.obs[at + 1].astype(float) - played.obs[at]), played.rew[:rows]])
    base = np.column_stack([np.ones(rows), obs])
    left = standardised(outcome - base @ np.linalg.lstsq(base, outcome, rcond=None)[0])
    act = standardised(played.act[:rows])
    if not left.size or not act.size:
        return None
    crossed = obs[:, : max(1, 200 // act.shape[1])] if obs.size else np.ones((rows, 1))

    def statistic(order: np.ndarray) -> float:
        a = act[order]
        products = (a[:, :, None] * crossed[:, None, :]).reshape(rows, -1)
        return float((((a.T @ left) / rows) ** 2).sum() + (((products.T @ left) / rows) ** 2).sum())

    rng = np.random.default_rng(0)
    seen = statistic(np.arange(rows))
    beyond = sum(statistic(shuffled(played.legal[:rows], rng)) >= seen for _ in range(PERMUTATIONS))
    return (1 + beyond) / (1 + PERMUTATIONS)


def shuffled(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A uniformly random permutation of the rows (N,) that leaves everyone in its group."""
    order = np.empty(len(groups), int)
    order[np.argsort(groups, kind="stable")] = np.lexsort((rng.random(len(groups)), groups))
    return order


def narrowed(x: np.ndarray, most: int = 32) -> np.ndarray:
    """At most so many columns: random combinations of more."""
    if x.shape[1] <= most:
        return x
    return x @ np.random.default_rng(0).normal(size=(x.shape[1], most)) / math.sqrt(most)


def few_above(above: int, count: int, share: float, level: float = 0.05) -> bool:
    """Whether so few of so many contradict a share at least this large: P(X ≤ above | count, share) < level, exactly."""
    terms = (math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(above + 1))
    return sum(terms) < level


def shows_time(played: RandomPlay) -> bool:
    """Whether the time of the episode is a linear function of the observation, nearly."""
    rows = min(ROWS, played.steps)
    base = np.column_stack([np.ones(rows), narrowed(played.obs[played.at[:rows]].astype(float), 64)])
    time = played.time[:rows].astype(float)
    rest = time - base @ np.linalg.lstsq(base, time, rcond=None)[0]
    return bool(rest.var() <= (1.0 - TIME_SHOWN) * time.var())


def past_helps(played: RandomPlay) -> tuple[float, float, str | None]:
    """Whether the step before and the episode's first observation predict what follows much better than the present alone.

    Kernel ridge regression of the change of every number of the observation, and of the reward, once on (oₜ, aₜ) and once
    with (oₜ₋₁, aₜ₋₁, o₀) besides; in a Markov decision process the second can explain no more, up to the error of the fit.
    Rare events decide nothing: the gain must be larger than its standard error over the rows by a factor of 4.
    Returns the shares of variance that both leave unexplained on other rows, and of what; None where the past does not help.
    """
    n = np.flatnonzero((played.time > 0) & (np.arange(played.steps) > 0))[: 2 * KERNEL_ROWS]
    if len(n) < 200:
        raise CannotTell("too few steps follow a step of the same episode")
    if played.obs.shape[1] > WIDE:
        raise CannotTell(f"observations have more than {WIDE} features")
    obs, act, at = played.obs.astype(float), played.act, played.at
    began = at[n] - played.time[n]
    present = [obs[at[n]], act[n]]
    past = [obs[at[n - 1]], act[n - 1], obs[began]]
    outcome = np.column_stack([obs[at[n] + 1] - obs[at[n]], played.rew[n]])
    errors = [squared_errors(standardised(np.column_stack(x)), outcome) for x in (present, present + past)]
    alone, both = (unexplained(error, outcome) for error in errors)
    gain = errors[0] - errors[1]
    clear = gain.mean(0) > CLEAR * gain.std(0) / math.sqrt(len(gain))  # of few rows, such as one rare event, it is not
    helped = (alone > UNEXPLAINED) & (both < LEFT * alone) & clear
    if not helped.any():
        return float(alone.mean()), float(both.mean()), None
    k = int(np.argmax(np.where(helped, alone - both, -1.0)))
    return float(alone[k]), float(both[k]), "reward" if k == obs.shape[1] else f"observation's number {k}"


def squared_errors(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared errors (N/2, K) of the second half of the rows, predicted by Gaussian kernels on x that the first half fits.

    Of every column the best of four widths of the kernel, times the median distance, and two penalties.
    """
    half = len(x) // 2
    fit, rest = x[:half], x[half:]
    squares = distances(fit, fit), distances(rest, fit)
    scale, centre = float(np.median(squares[0])) or 1.0, y[:half].mean(0)
    best = (y[half:] - centre) ** 2
    for width in (0.1, 0.5, 2.0, 10.0):
        inner, outer = (np.exp(-square / (width * scale)) for square in squares)
        for penalty in (1e-4, 1e-1):
            weights = np.linalg.solve(inner + penalty * np.eye(half), y[:half] - centre)
            error = (y[half:] - centre - outer @ weights) ** 2
            best = np.where(error.mean(0) < best.mean(0), error, best)
    return best


def unexplained(errors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The share of the variance of every column of y that is left, on the rows of the errors. 0 for constant columns."""
    spread = np.maximum(y[len(y) - len(errors) :].var(0), 1e-12 + 1e-9 * np.abs(y).max(0) ** 2)
    return np.where(y.std(0) > 1e-9, np.minimum(errors.mean(0) / spread, 1.0), 0.0)


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances of all rows, (len(x), len(y))."""
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2.0 * x @ y.T, 0.0)
