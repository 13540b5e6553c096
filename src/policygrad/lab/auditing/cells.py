"""The cells of an audit: combinations of an estimator, a baseline and a wrapper, by their names or as objects.

`OF_BASELINES` and `OF_WRAPPERS` say what each name is. Wrappers add up: discount+standardize. Everything but the defects is
production code. What is *not* here: the audit (audit.py), what least variance means (optimal_baselines.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from policygrad.data import Estimate, Rollout, Values
from policygrad.gradient import baselines as base
from policygrad.gradient import estimators as est
from policygrad.gradient.importance import ImportanceWeighted, PerDecision
from policygrad.lab.results import find_by_name

Choices = Sequence[Any] | Mapping[str, Any]
BEST = ("best", "best-state", "best-time-state", "best-parameter")


@dataclass(frozen=True)
class Cell:
    """One combination. reduction: as in `Rollout.flatten`. per_parameter (P,): a baseline that is a number for each.

    scale: a number that adv is multiplied by, to undo one that an estimator divides by whatever the batch is.
    """

    names: tuple[str, str, str]  # estimator, baseline, wrapper
    estimator: Any
    baseline: Any
    reduction: str = "trajectory"
    per_parameter: Tensor | None = None
    scale: float = 1.0

    def __str__(self) -> str:
        return " · ".join(self.names)

    def adv(self, rollout: Rollout, values: Values) -> Tensor:
        """What multiplies ∇log π, (T, N): `advantages`, as in training."""
        adv = est.advantages(rollout, values, self.estimator, self.baseline)[0]
        return adv if self.scale == 1.0 else self.scale * adv

    def credit_weight(self, rollout: Rollout) -> Tensor:
        """What a baseline of 1 would take from adv, (T, N): γᵗ, importance weights, or 1."""
        return self.estimator.wrap(torch.ones_like(rollout.rew), rollout)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Batches of `batch` episodes in the columns of one rollout, and the values of a critic.

    What several cells need of it is computed once.
    """

    rollout: Rollout
    values: Values
    batch: int
    actions: int

    @property
    def batches(self) -> int:
        """How many there are."""
        return self.rollout.rew.shape[1] // self.batch

    @cached_property
    def pair(self) -> Tensor:
        """s·A + a of every valid row, (B,)."""
        return self.rollout.valid(self.rollout.obs[:-1].argmax(-1) * self.actions + self.rollout.act)

    @cached_property
    def index(self) -> Tensor:
        """Where a valid row belongs in a table (batches, S·A), flat: (B,)."""
        number = torch.arange(self.rollout.rew.shape[1]) // self.batch
        return self.rollout.valid(number.expand_as(self.rollout.rew)) * self.pairs + self.pair

    @property
    def pairs(self) -> int:
        """S·A."""
        return self.rollout.obs.shape[-1] * self.actions

    @cached_property
    def steps(self) -> Tensor:
        """Steps of every batch, (batches,)."""
        return self.rollout.mask.sum(0).view(self.batches, self.batch).sum(1)

    @cached_property
    def parts(self) -> list[tuple[Rollout, Values]]:
        """Every batch by itself."""
        columns = torch.arange(self.rollout.rew.shape[1]).view(self.batches, self.batch)
        return [(self.rollout.columns(c), self.values.columns(c)) for c in columns]

    def adv(self, cell: Cell, coupled: bool) -> Tensor:
        """What multiplies ∇log π, (T, N): of all columns at once, or of every batch by itself where they are coupled."""
        if not coupled:
            return cell.adv(self.rollout, self.values)
        return torch.cat([cell.adv(*part) for part in self.parts], 1)

    def sums(self, adv: Tensor, reduction: str = "trajectory") -> Tensor:
        """Σ weight · adv of every batch and (s, a), (batches, S·A): times ∇log π(a|s) that is ĝ of `Rollout.flatten`."""
        table = adv.new_zeros(self.batches * self.pairs).index_add_(0, self.index, self.rollout.valid(adv))
        size = self.steps if reduction == "step" else self.batch
        return table.view(self.batches, -1) / torch.as_tensor(size, dtype=adv.dtype).view(-1, 1)


class SameBatchMean(base.NoBaseline):
    """A baseline that is wrong on purpose: the mean of the *same* batch, finished episodes counting 0. It scales ∇J by 1 − 1/N.

    A defect to demonstrate: every return is in its own baseline, which so depends on the action.
    """

    needs_episodes = True

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return ret.mean(1, keepdim=True).expand_as(ret)


class SameBatchFit(base.NoBaseline):
    """A baseline that is wrong on purpose: it is fitted to the same episodes that it is subtracted from."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        inner = deepcopy(self.inner)
        inner.fit(rollout, ret)
        return inner(rollout, ret, values)


@dataclass(frozen=True)
class Own:
    """Any `f(rollout, values)` that gives (T, N), or an `Estimate`, as an estimator: with γ, and no wrapping of its own."""

    f: Callable[[Rollout, Values], Tensor | Estimate]
    gamma: float
    needs_critic = False

    def needs_episodes(self, bootstraps: bool) -> bool:
        """It says so itself, by an error."""
        return False

    def wrap(self, adv: Tensor, rollout: Rollout) -> Tensor:
        """Nothing."""
        return adv

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        ret = self.f(rollout, values)
        if isinstance(ret, Estimate):
            return ret
        ret = torch.as_tensor(ret, dtype=rollout.rew.dtype)
        if ret.shape != rollout.rew.shape:
            expected = tuple(rollout.rew.shape)
            raise ValueError(f"{label(self.f)} must give (T, N) = {expected}, got {tuple(ret.shape)}")
        return Estimate(ret, ret)


ESTIMATORS: dict[str, Callable[..., Any]] = {
    "total": lambda gamma: est.TotalReturn(gamma),
    "to-go": lambda gamma: est.RewardToGo(gamma),
    "td": lambda gamma: est.TDError(gamma),
    "n-step": lambda gamma, n=5.0: est.NStep(gamma, int(n)),
    "gae": lambda gamma, lam=0.95: est.GAE(gamma, lam),
    "q": lambda gamma: est.QValue(gamma),
}
BASELINES: dict[str, Callable[..., Any]] = {
    "none": base.NoBaseline,
    "const": lambda value=1.0: base.Constant(value),
    "value": base.CriticValue,
    "mean": base.RunningMean,
    "time": base.TimeAverage,
    "linear": base.LinearFeatures,
    "loo": base.LeaveOneOut,
    "crossfit": lambda folds=4.0: base.CrossFit(base.TimeAverage(), int(folds)),
    "same-mean": SameBatchMean,
    "same-time": lambda: SameBatchFit(base.TimeAverage()),
}
FITTED = ("mean", "time", "linear")
WRAPPERS: dict[str, Callable[..., Any]] = {
    "plain": lambda inner: inner,
    "discount": est.StateDiscounted,
    "standardize": est.Standardized,
    "standardize-running": lambda inner: est.Standardized(inner, over="running"),
    "standardize-episode": lambda inner: est.Standardized(inner, over="episode"),
    "step": lambda inner: inner,
    "is": lambda inner, limit=None: ImportanceWeighted(inner, max_weight=limit),
    "is-normalized": lambda inner: ImportanceWeighted(inner, self_normalize=True),
    "per-decision": PerDecision,
}
OF_BASELINES = {  # what each is, as docs/audit.md lists them
    "none, const:1.5, value": "0, a number, V",
    ", ".join(FITTED): "`RunningMean`, `TimeAverage`, `LinearFeatures`, fitted to an earlier batch (by `--seed`)",
    "loo, crossfit": "`LeaveOneOut`, `CrossFit(TimeAverage())`: the batch's other episodes or folds",
    ", ".join(BEST): "[of least variance](#baselines-of-least-variance)",
    "same-mean, same-time": "fitted to the same episodes, a common defect",
}
OF_WRAPPERS = {
    "plain": "nothing",
    "discount": "multiplies by γᵗ (`StateDiscounted`)",
    "standardize, standardize-episode": "mean 0, standard deviation 1, per batch or episode",
    "standardize-running": 'by an earlier batch (by `--seed`): `Standardized(…, over="running")`',
    "step": 'divides by steps, not episodes: `reduction="step"`',
    "is, is:2, is-normalized, per-decision": "importance weights, for `--off-policy` or `behavior=`",
}
TAKES_NUMBER = ("n-step", "gae", "const", "crossfit", "is")
WHOLE = ("n-step", "crossfit")  # of these, a whole one


def named(kind: str, table: dict[str, Callable[..., Any]], text: str) -> tuple[Callable[..., Any], tuple[float, ...]]:
    """The maker for a name, and the number after the colon. Raises ValueError for an unknown name, with the nearest one."""
    name, colon, number = text.partition(":")
    make = find_by_name(kind, name, table, [f"{n}:X" if n in TAKES_NUMBER else n for n in table])
    if not colon:
        return make, ()
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    fine = math.isfinite(value) and (name not in WHOLE or value.is_integer())
    if not fine or name not in TAKES_NUMBER:
        takes = "nothing" if name not in TAKES_NUMBER else "a whole number" if name in WHOLE else "a number"
        raise ValueError(f"{kind} {text!r}: {name} takes {takes} after the colon")
    return make, (value,)


def make_estimator(given: Any, gamma: float) -> tuple[str, Any]:
    """Name and object of an estimator that is given by name, as an estimator, or as f(rollout, values)."""
    if isinstance(given, str):
        make, number = named("estimator", ESTIMATORS, given)
        return given, make(gamma, *number)
    if isinstance(given, type) or not callable(given):
        raise ValueError(f"an estimator is a name or something that is called with (rollout, values), got {given!r}")
    return label(given), given if hasattr(given, "wrap") else Own(given, gamma)  # pyright: ignore[reportArgumentType]


def named_baseline(given: Any) -> tuple[str, Any]:
    """Name and object of a baseline; of one of least variance, which depends on the rest of the cell, its name twice."""
    if not isinstance(given, str):
        return label(given), given
    if given in BEST:
        return given, given
    make, number = named("baseline", {**BASELINES, **dict.fromkeys(BEST, base.NoBaseline)}, given)
    return given, make(*number)


def make_wrapper(given: Any) -> tuple[str, Callable[[Any], Any], str]:
    """Name, what wraps an estimator, and the reduction."""
    if not isinstance(given, str):
        return label(given), given, "trajectory"
    parts = [named("wrapper", WRAPPERS, part) for part in given.split("+")]

    def wrap(inner: Any) -> Any:
        for make, number in parts:
            inner = make(inner, *number)
        return inner

    return given, wrap, "step" if "step" in given.split("+") else "trajectory"


def label(thing: Any) -> str:
    """The name of an object in a table."""
    name = getattr(thing, "__name__", None)
    if name is None:
        name = repr(thing)
        name = type(thing).__name__ if " object at 0x" in name else name
    return str(name)


def _made(kind: str, given: Choices, make: Callable[[Any], Any], known: Mapping[str, Any]) -> list[Any]:
    """What `make` gives for each choice, its name first; those of a mapping have its keys as names.

    Raises ValueError for a mapping to a name, and for a name of an object that means another one already.
    """
    if not isinstance(given, Mapping):
        return [make(each) for each in given]
    for name, each in given.items():
        if isinstance(each, str) or not isinstance(name, str):
            raise ValueError(f"a dict of {kind}s has names of your own and objects, got {name!r}: {each!r}")
        if any(part.partition(":")[0] in known for part in name.split("+")):
            raise ValueError(f"the {kind} {name!r} is one of the package: give yours another name")
    return [(name, *make(each)[1:]) for name, each in given.items()]


def make_cells(
    estimators: Choices, baselines: Choices, wrappers: Choices, gamma: float
) -> tuple[list[Cell], list[tuple[str, str]]]:
    """The valid cells of a grid, and the others with the reasons. Choices: names and objects, or a mapping name → object."""
    cells, left_out = [], []
    made_baselines = _made("baseline", baselines, named_baseline, {**BASELINES, **dict.fromkeys(BEST)})
    made_wrappers = _made("wrapper", wrappers, make_wrapper, WRAPPERS)
    for estimator_name, estimator in _made("estimator", estimators, lambda e: make_estimator(e, gamma), ESTIMATORS):
        for wrapper_name, wrap, reduction in made_wrappers:
            if gamma == 1.0 and "discount" in wrapper_name.split("+"):
                left_out.append((f"{estimator_name} · {wrapper_name}", "γ = 1, so there is nothing to discount"))
                continue
            try:
                wrapped = wrap(estimator)
            except ValueError as error:
                left_out.append((f"{estimator_name} · {wrapper_name}", str(error)))
                continue
            for baseline_name, baseline in made_baselines:
                why = no_formula(baseline_name, wrapper_name)
                if why:
                    left_out.append((f"{estimator_name} · {baseline_name} · {wrapper_name}", why))
                    continue
                cells.append(Cell((estimator_name, baseline_name, wrapper_name), wrapped, baseline, reduction))
    return cells, left_out


def no_formula(baseline: str, wrapper: str) -> str:
    """The reason why a baseline of least variance cannot be computed under a wrapper; empty if it can."""
    parts = [part.partition(":")[0] for part in wrapper.split("+")]
    if baseline not in BEST:
        return ""
    if any(part.startswith("standardize") or part in ("step", "is-normalized") for part in parts):
        return "there is no formula for the best baseline of an estimate that is standardised or divided by the batch's steps"
    if "is" in parts and "state" in baseline:
        return (
            "there is no formula for a baseline of states with weights of whole trajectories, which correlate the steps"
        )
    return ""
