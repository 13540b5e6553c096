"""Baselines of least variance, and the variance with constant baselines.

With x = Σ_t w_t ret_t ∇log π_t, the estimate without a baseline, w_t = γᵗ or 1, and y = Σ_t w_t ∇log π_t, whose mean is 0, a
baseline b makes it x − b y. The trace of its covariance is quadratic in b, and least at

    one number          b* = E[x·y] / E[‖y‖²]                              total return: E[‖s‖² R] / E[‖s‖²], s = Σ_t ∇log π_t
    one a parameter     b*_p = E[x_p y_p] / E[y_p²]                        Peters & Schaal 2008, eq. 8
    one a state         b*(s) = E[x·y(s)] / E[‖y(s)‖²],  y(s): the terms of y at s; the same for (t, s)

The last needs no matrix: scores at different steps are uncorrelated. It is b of the whole estimate: x and not the step's own
term is in it (Greensmith, Bartlett & Baxter 2004), and it is in general not V. Expectations are sums over a list of all
trajectories with their probabilities, exact; or means of a sample, which must not be the one that b is subtracted from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policygrad.data import Rollout, Values
from policygrad.gradient.baselines import NoBaseline
from policygrad.lab.auditing.bench import Bench, Weighed
from policygrad.lab.auditing.cells import BEST, Cell, Chunk, make_cells
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.results import Result, align
from policygrad.models.policy import Policy


class Table(NoBaseline):
    """b(t, s) looked up: table (S,), (T, S), or () for one number; times beyond the table's get its last row."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        if self.table.ndim == 0:
            return self.table.expand_as(ret)
        state = rollout.obs[:-1].argmax(-1)
        if self.table.ndim == 1:
            return self.table[state]
        return self.table[rollout.time.clamp(max=len(self.table) - 1), state]


def optimal_baseline(kind: str, cell: Cell, data: Iterable[Weighed], scores: Tensor, steps: int) -> Tensor:
    """b* of the estimator and wrapper of a cell: kind "best" (), "best-state" (S,), "best-time-state" (steps, S),
    "best-parameter" (P,). Where nothing was seen b* is 0. scores: ∇log π(a|s), (S·A, P).

    Raises ValueError for another kind.
    """
    if kind not in BEST:
        raise ValueError(f"kind must be one of {', '.join(BEST)}, got {kind!r}")
    terms = [_terms(kind, cell, chunk, weight, scores, steps) for chunk, weight in data]
    top, bottom = (torch.stack(part).sum(0) for part in zip(*terms, strict=True))
    return torch.where(bottom > 0, top / bottom, 0.0)


def _terms(kind: str, cell: Cell, data: Chunk, weight: Tensor, scores: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Above and below the line of b*."""
    x, y, w = parts(cell, data, scores)
    p = weight.unsqueeze(1)
    if kind == "best":
        return (p * x * y).sum(), (p * y * y).sum()
    if kind == "best-parameter":
        return (p * x * y).sum(0), (p * y * y).sum(0)
    valid, S = data.rollout.valid, data.rollout.obs.shape[-1]
    column, w = data.index // data.pairs, valid(w)
    shape, place = (S,), data.pair // data.actions
    if kind == "best-time-state":
        shape, place = (steps, S), place + S * valid(data.rollout.time)
    along = (x @ scores.T)[column, data.pair]  # x · ∇log π of the row
    zeros = x.new_zeros(math.prod(shape))
    top = zeros.index_add(0, place, weight[column] * w * along)
    bottom = zeros.index_add(0, place, weight[column] * w**2 * scores.square().sum(1)[data.pair])
    return top.view(shape), bottom.view(shape)


def parts(cell: Cell, data: Chunk, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X and y of every trajectory, (N, P), and w of every step, (T, N)."""
    w = cell.credit_weight(data.rollout)
    x = data.sums(without_baseline(cell).adv(data.rollout, data.values))
    return x @ scores, data.sums(w) @ scores, w


def without_baseline(cell: Cell) -> Cell:
    """The cell without its baseline."""
    return replace(cell, baseline=NoBaseline(), per_parameter=None)


@dataclass(frozen=True)
class BaselineCurve(Result):
    """The variance of one trajectory's estimate by its constant baseline b, a parabola: E‖x‖² − 2b E[x·y] + b² E‖y‖² − ‖E x‖².

    exact: from all trajectories; else from a sample of them.
    """

    constants: list[float]
    variances: list[float]  # at the constants, the trace of the covariance
    best: float  # b*
    least: float  # the variance there
    without: float  # at b = 0
    mean: float  # the mean of ret over the steps visited, the constant that is mostly taken
    at_mean: float  # the variance there
    exact: bool

    @property
    def marks(self) -> list[tuple[str, float, float]]:
        """Name, b and variance of three points: no baseline, the mean return, b*."""
        return [("b = 0", 0.0, self.without), ("mean return", self.mean, self.at_mean), ("b*", self.best, self.least)]

    def table(self) -> str:
        """B = 0, the mean return, b*."""
        return align(
            ("constant baseline", "b", "variance", "to the least"),
            [
                (name, f"{b:.4g}", f"{v:.4g}", f"{v / self.least:.3g}×" if self.least > 0 else "-")
                for name, b, v in self.marks
            ],
        )


def baseline_curve(
    mdp: MDP,
    policy: Policy,
    estimator: Any = "total",
    *,
    wrapper: Any = "plain",
    critic: Any = "exact",
    limit: int | None = None,
    points: int = 101,
    span: float = 3.0,
    episodes: int = 10_000,
    seed: int = 0,
) -> BaselineCurve:
    """The U-curve: the variance of one trajectory's estimate by its constant baseline, around b*.

    estimator, wrapper, critic, limit: as for `audit`. span: how far to go to each side, in distances from b* to 0 and to the
    mean return. episodes: a sample, where the trajectories are too many to list.
    Raises ValueError for what `audit` refuses.
    """
    bench = Bench(mdp, policy, critic, 1, limit)
    cells, left_out = make_cells([estimator], ["none"], [wrapper], mdp.gamma)
    if not cells:
        raise ValueError(": ".join(left_out[0]))
    cell = cells[0]
    bench.allowed(cell)
    data = bench.weighed(episodes, torch.Generator().manual_seed(seed))
    xx, xy, yy, ret, steps, squared = _moments(bench, cell, data)
    best, average = xy / yy if yy > 0 else 0.0, ret / steps

    def variance(b: float) -> float:
        return xx - 2.0 * b * xy + b * b * yy - squared

    reach = span * (max(abs(best), abs(best - average)) or 1.0)
    constants = torch.linspace(best - reach, best + reach, points, dtype=torch.float64).tolist()
    variances = [variance(b) for b in constants]
    at = {"least": variance(best), "without": variance(0.0), "at_mean": variance(average)}
    return BaselineCurve(constants, variances, best=best, mean=average, exact=bench.listed is not None, **at)


def _moments(bench: Bench, cell: Cell, data: Iterable[Weighed]) -> list[float]:
    """E‖x‖², E[x·y], E‖y‖², E Σ_t ret, E of the steps, and ‖E x‖²."""
    sums, mean = torch.zeros(5, dtype=torch.float64), torch.zeros_like(bench.reference)
    for chunk, p in data:
        x, y, _ = parts(cell, chunk, bench.scores)
        ret, mask = cell.estimator(chunk.rollout, chunk.values).ret, chunk.rollout.mask
        mean += p @ x
        products = [(x * x).sum(1), (x * y).sum(1), (y * y).sum(1)]
        sums += torch.stack([p @ z for z in (*products, torch.where(mask, ret, 0.0).sum(0), mask.sum(0).to(p.dtype))])
    return [*sums.tolist(), float(mean.square().sum())]
