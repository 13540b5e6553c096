"""The audit: estimators of the policy gradient compared with the exact gradient.

    print(pg.lab.audit(pg.lab.make_mdp("small")))

Every estimator × baseline × wrapper runs as in training, `advantages` on rollouts, on many batches of episodes of a finite MDP,
the same ones for all. A row says what came out: whether the mean is the gradient, how far from it it is, how much the estimates
scatter. Where all trajectories can be listed, mean and variance are exact as well, and the verdict needs no test.

Estimates are linear in Σ weight · adv of every (s, a), so these sums are kept and ∇log π(a|s) comes in last; `Batch` and
`Policy.evaluate` give the same numbers, one batch after the other. What is *not* here: the names (cells.py), the batches
(bench.py), the test (verdicts.py), baselines of least variance (optimal_baselines.py), the table, the picture and the
page (table.py, plots.py, page.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from policygrad.files import write_atomically
from policygrad.gradient.estimators import Standardized, advantages
from policygrad.lab.auditing.bench import Bench, Moments
from policygrad.lab.auditing.cells import BEST, FITTED, Cell, Choices, Chunk, label, make_cells
from policygrad.lab.auditing.optimal_baselines import BaselineCurve, Table, optimal_baseline, without_baseline
from policygrad.lab.auditing.table import audit_html, audit_table
from policygrad.lab.auditing.verdicts import ROUNDING, judge, mean_interval, variance_interval
from policygrad.lab.exact.tabular import MDP, exact_gradient, tabular_policy
from policygrad.lab.exact.worlds import make_mdp, starting_policy
from policygrad.lab.results import Result, least_seconds
from policygrad.models.policy import Policy

if TYPE_CHECKING:
    from policygrad.lab.auditing.plots import Chart

ESTIMATORS = ("total", "to-go", "td", "n-step:5", "gae:0.95", "q")
BASELINES = ("none", "value")
WRAPPERS = ("plain", "discount")

BASELINE_EPISODES = 2_000  # episodes that a baseline of least variance is estimated from, where they cannot be listed
LEVEL = 0.99  # of intervals
EARLIER_SEEDS = 2**32  # seeds beyond those of users: the earlier batches are others than the audited ones


@dataclass(frozen=True)
class Row:
    """The results of a cell, from R estimates of one batch each. `_exact`: from all trajectories, None if these are too many.

    Lengths are in units of ‖g‖, g the reference, and squares in units of ‖g‖²; where g is 0, as they are.
    """

    estimator: str
    baseline: str
    wrapper: str
    verdict: str  # "unbiased" or "biased"
    proof: str  # "exact", or "test": unbiased then means that the test found no bias
    p: float  # of the test, wherever the verdict is from
    bias: float  # ‖mean ĝ − g‖
    bias_interval: tuple[float, float]  # of ‖E ĝ − g‖, all rows at once with 1 − α; from 0 where no bias is found
    bias_exact: float | None
    along: float  # the part of the bias along g: −1/N says that ĝ is (1 − 1/N) g on average
    along_interval: tuple[float, float]
    along_exact: float | None
    variance: float  # the trace of the covariance
    variance_interval: tuple[float, float]
    variance_exact: float | None
    mse: float  # E‖ĝ − g‖² = bias² + variance
    mse_exact: float | None
    snr: float  # ‖E ĝ‖² / variance, NaN where all estimates are 0
    cosine: float  # the mean of cos(ĝ, g), 0 for a ĝ of 0
    angle: float  # between the mean of ĝ and g, degrees; NaN where g is 0, as the cosine
    episodes: float  # for an SNR of 1: batch / SNR, whatever the scale of ĝ
    microseconds: float  # to compute adv of one batch
    bias_vector: Tensor  # (P,), not in units of ‖g‖, as the rest of these
    bias_error: Tensor  # (P,) its standard errors
    bias_vector_exact: Tensor | None
    variances: Tensor  # (P,)
    variances_exact: Tensor | None

    def known(self, name: str) -> float:
        """bias, along, variance or mse: the exact one where there is one, else the sample's."""
        exact = getattr(self, f"{name}_exact")
        return getattr(self, name) if exact is None else exact

    @property
    def seen_bias(self) -> float | None:
        """The bias, exact or measured; None if there is none or none was detected."""
        return None if self.verdict == "unbiased" else self.known("bias")


@dataclass(frozen=True)
class Audit(Result):
    """The result of an audit: its rows and its setting. `print` shows the table, `rows` has the numbers.

    reference: g, what the estimates are held against: ∇J, or with a limit its terms of the first so many steps.
    alpha: of the whole table, see `audit`. truncated: how far these are from ∇J, in units of ‖∇J‖.
    """

    rows: list[Row]
    left_out: list[tuple[str, str]]  # a cell and the reason
    batch: int
    repeats: int
    limit: int | None
    critic: str
    alpha: float
    seed: int
    listed: int | None  # how many trajectories there are; None: too many to list
    truncated: float
    norm: float  # ‖g‖
    reference: Tensor = field(repr=False)
    about: str = ""

    def __getitem__(self, names: tuple[str, str, str]) -> Row:
        """The row of (estimator, baseline, wrapper). Raises KeyError where there is none."""
        for row in self.rows:
            if (row.estimator, row.baseline, row.wrapper) == names:
                return row
        raise KeyError(f"no row {names}: there are {[(r.estimator, r.baseline, r.wrapper) for r in self.rows]}")

    def table(self) -> str:
        """The table with one line per row, the setting, and one line about each column."""
        return audit_table(self)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values, with the gradients and variances of each parameter as lists."""
        vectors = ("bias_vector", "bias_error", "bias_vector_exact", "variances", "variances_exact")
        made = super().to_json()
        for row, named in zip(self.rows, made["rows"], strict=True):
            found = {name: getattr(row, name) for name in vectors}
            named |= {name: None if x is None else x.tolist() for name, x in found.items()}
        return made | {"reference": self.reference.tolist()}

    def _repr_html_(self) -> str:
        return audit_html(self)

    def plot(self, path: str | Path | None = None, curve: BaselineCurve | None = None) -> Chart:
        """Draw bias and variance of every row, as a Figure; with a path it is also written there, as png, pdf or svg.

        curve: a U-curve beside them.
        """
        from policygrad.lab.auditing.plots import audit_figure

        return audit_figure(self, curve).written(path)

    def html(self, path: str | Path, curve: BaselineCurve | None = None) -> Path:
        """Write one self-contained page: the table, plots, the formula of each estimator, and how to read them."""
        from policygrad.lab.auditing.page import page

        path = Path(path)
        write_atomically(path, page(self, curve).encode())
        return path


def audit(
    mdp: MDP | str,
    policy: Policy | None = None,
    estimators: Choices | str = ESTIMATORS,
    baselines: Choices | str = BASELINES,
    wrappers: Choices | str = WRAPPERS,
    *,
    critic: Any = "exact",
    batch: int = 16,
    repeats: int = 1000,
    limit: int | None = None,
    behavior: Policy | None = None,
    seed: int = 0,
    alpha: float = 0.01,
) -> Audit:
    """Hold estimators against the exact gradient: every estimator × baseline × wrapper on the same `repeats` batches of `batch`
    episodes.

    mdp: also one by its name, see `make_mdp`. policy: over discrete actions, shown states one-hot; a table of random logits by
    default, on a named MDP that of `starting_policy`. Estimators, baselines, wrappers: names (cells.py), one by one or
    "to-go,gae:0.9", or objects; any f(rollout, values) that gives (T, N) is an estimator, and a dict {"mine": f} names objects.
    critic: exact, wrong, zero, none, or what is called with (rollout, policy) and gives `Values`. limit: steps after which
    episodes are truncated; it must be given where the MDP has no horizon. behavior: a policy that samples instead, for
    importance weights. alpha: the probability that any row is called biased though it is not, of those whose mean is not known
    exactly (Bonferroni).

    Raises ValueError for names that are not there, numbers out of their range, estimates that are not finite, and where no
    combination makes sense.
    """
    if repeats < 2:
        raise ValueError(f"repeats must be at least 2, got {repeats}")
    if isinstance(mdp, str):
        name, mdp = mdp, make_mdp(mdp, seed)
        policy = starting_policy(name, mdp, seed) if policy is None else policy
    elif policy is None:
        policy = tabular_policy(mdp, torch.Generator().manual_seed(seed))
    bench = Bench(mdp, policy, critic, batch, limit, behavior, seed)
    cells, left_out = make_cells(_names(estimators), _names(baselines), _names(wrappers), mdp.gamma)
    tried = _try(bench, cells, left_out, seed)
    for chunk in bench.sample(repeats, torch.Generator().manual_seed(seed)):
        for one in tried:
            one.found.append(bench.estimates(one.cell, chunk, one.coupled))
    truth = exact_gradient(mdp, policy)
    exact = [bench.exact(one.cell, one.coupled) for one in tried]
    level = alpha / max(1, exact.count(None))  # Bonferroni, over the rows that are tested
    rows = [
        row(bench, one.cell, torch.cat(one.found), known, level, one.microseconds)
        for one, known in zip(tried, exact, strict=True)
    ]
    return Audit(
        rows,
        left_out,
        batch=batch,
        repeats=repeats,
        limit=limit,
        critic=critic if isinstance(critic, str) else label(critic),
        alpha=alpha,
        seed=seed,
        listed=bench.trajectories if bench.listed else None,
        truncated=_relative(float((bench.reference - truth).norm()), float(truth.norm())),
        norm=float(bench.reference.norm()),
        reference=bench.reference,
        about=f"{mdp.size}; a policy of {len(bench.reference):,} parameters",
    )


def _try(bench: Bench, cells: Sequence[Cell], left_out: list[tuple[str, str]], seed: int) -> list[_Tried]:
    """The cells that run on a trial of two batches, with what is fitted before; the others join left_out, with the reason.

    Raises ValueError where none runs.
    """
    trial = next(bench.sample(2, torch.Generator().manual_seed(seed + EARLIER_SEEDS)))  # one, where two are too large
    tried = []
    for cell in cells:
        try:
            bench.allowed(cell)
            made = fitted(bench, cell, torch.Generator().manual_seed(seed + 2 * EARLIER_SEEDS))
            bench.estimates(made, trial, coupled=True)
            seconds = least_seconds(lambda made=made: made.adv(*trial.parts[0]), repeats=5)
            tried.append(_Tried(made, bench.couples(made, trial), 1e6 * seconds))
        except ValueError as error:
            left_out.append((str(cell), str(error)))
    if not tried:
        reasons = {reason: cell for cell, reason in reversed(left_out)}  # a cell for each
        why = "; ".join(f"{cell}: {reason}" for reason, cell in [*reasons.items()][:3])
        raise ValueError(f"nothing is left to audit: {why or 'give an estimator'}")
    return tried


def _names(given: Choices | str) -> Choices:
    return given.split(",") if isinstance(given, str) else given


@dataclass
class _Tried:
    """A cell that ran, and the estimates so far."""

    cell: Cell
    coupled: bool
    microseconds: float
    found: list[Tensor] = field(default_factory=list)


def fitted(bench: Bench, cell: Cell, generator: torch.Generator) -> Cell:
    """The cell with what is fitted before: named baselines, to an earlier batch; those of least variance."""
    learns = getattr(cell.estimator, "learns", False)
    if cell.names[1] in FITTED or learns:
        (chunk,) = bench.sample(1, generator)
        cell = replace(cell, estimator=deepcopy(cell.estimator), baseline=deepcopy(cell.baseline))
        if cell.names[1] in FITTED:
            cell.baseline.fit(chunk.rollout, cell.estimator(chunk.rollout, chunk.values).ret)
        return learned(cell, chunk) if learns else cell
    if cell.baseline not in BEST:
        return cell
    best = optimal_baseline(cell.baseline, cell, bench.weighed(BASELINE_EPISODES, generator), bench.scores, bench.steps)
    if cell.baseline == "best-parameter":
        return replace(without_baseline(cell), per_parameter=best)
    return replace(cell, baseline=Table(best))


def learned(cell: Cell, chunk: Chunk) -> Cell:
    """The cell with an estimator that has learned from an earlier batch, without its scale, which is no bias."""
    estimate = advantages(chunk.rollout, chunk.values, cell.estimator, cell.baseline)[1]
    cell.estimator.fit(chunk.rollout, estimate.plain)
    innermost = cell.estimator
    while not isinstance(innermost, Standardized) and hasattr(innermost, "inner"):
        innermost = innermost.inner
    return replace(cell, scale=innermost.moments.std) if isinstance(innermost, Standardized) else cell


def row(
    bench: Bench,
    cell: Cell,
    estimates: Tensor,
    exact: Moments | None,
    alpha: float = 0.01,
    microseconds: float = math.nan,
) -> Row:
    """The row of a cell, from estimates (R, P) and exact moments."""
    if not torch.isfinite(estimates).all():
        raise ValueError(f"{cell}: some estimate is not finite")
    g, R = bench.reference, len(estimates)
    norm = float(g.norm()) or 1.0
    judged = judge(estimates, g, alpha)
    trace, *ends = variance_interval(estimates, LEVEL)
    errors = estimates - g
    mse = float(errors.square().sum(1).mean())
    if not math.isclose(mse, judged.length**2 + trace * (R - 1) / R, rel_tol=1e-9, abs_tol=1e-18 * norm**2):
        raise ArithmeticError(f"{cell}: MSE {mse} is not bias² + variance, {judged.length**2} + {trace}")
    along, *along_ends = mean_interval(errors @ g / norm**2, LEVEL)
    known = _exact(exact, g, norm)
    mean, variance = (estimates.mean(0), trace) if exact is None else (exact.mean, float(exact.variances.sum()))
    tolerance = ROUNDING * (1.0 + math.sqrt(variance) / norm) + bench.rounding / norm
    unbiased = not judged.biased if exact is None else known["bias_exact"] <= tolerance
    snr = _snr(g if unbiased else mean, variance, 0.0 if unbiased or exact is not None else trace / R)
    cosines = _cosines(torch.cat([mean.unsqueeze(0), estimates]), g)
    return Row(
        *cell.names,
        verdict="unbiased" if unbiased else "biased",
        proof="test" if exact is None else "exact",
        p=judged.p,
        bias=judged.length / norm,
        bias_interval=(judged.interval[0] / norm, judged.interval[1] / norm),
        along=along,
        along_interval=(along_ends[0], along_ends[1]),
        variance=trace / norm**2,
        variance_interval=(ends[0] / norm**2, ends[1] / norm**2),
        mse=mse / norm**2,
        snr=snr,
        cosine=float(cosines[1:].mean()),
        angle=math.degrees(float(cosines[0].clamp(-1.0, 1.0).acos())),
        episodes=math.inf if math.isnan(snr) or snr == 0.0 else bench.batch / snr,
        microseconds=microseconds,
        bias_vector=judged.bias,
        bias_error=estimates.std(0) / math.sqrt(R),
        variances=estimates.var(0),
        **known,
    )


def _exact(exact: Moments | None, g: Tensor, norm: float) -> dict[str, Any]:
    """The fields of a row that are of all trajectories; None where these are too many."""
    names = ("bias_exact", "along_exact", "variance_exact", "mse_exact", "bias_vector_exact", "variances_exact")
    if exact is None:
        return dict.fromkeys(names)
    bias = exact.mean - g
    length, variance = float(bias.norm()) / norm, float(exact.variances.sum()) / norm**2
    values = (length, float(bias @ g) / norm**2, variance, length**2 + variance, bias, exact.variances)
    return dict(zip(names, values, strict=True))


def _snr(signal: Tensor, variance: float, excess: float) -> float:
    """‖signal‖² / variance; excess: what ‖mean‖² of a sample is too large by. NaN where there is neither."""
    squared = float(signal.square().sum()) - excess
    if variance > ROUNDING**2 * squared:
        return max(squared, 0.0) / variance
    return math.inf if squared > 0.0 else math.nan


def _cosines(x: Tensor, g: Tensor) -> Tensor:
    """Of the angles between vectors (N, P) and g; of a vector that is 0, 0; NaN where g is."""
    lengths = x.norm(dim=1)
    return torch.where(lengths > 0.0, (x @ g) / (lengths * g.norm()), 0.0 * g.norm() / g.norm())


def _relative(x: float, to: float) -> float:
    return x / to if to > 0.0 else x
