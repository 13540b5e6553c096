"""Baselines: what is subtracted from the return estimate. A baseline that ignores the action taken adds no bias:

    E[ b(s) · ∇log π(a|s) ] = b(s) · ∇ Σ_a π(a|s) = 0

| baseline         | b                                                   | looks at                        |
|------------------|-----------------------------------------------------|---------------------------------|
| `NoBaseline`     | 0                                                   | nothing                         |
| `Constant`       | a number                                            | nothing                         |
| `CriticValue`    | V(s), the critic's                                  | earlier batches                 |
| `RunningMean`    | the mean return                                     | earlier batches                 |
| `TimeAverage`    | the mean return at this time step                   | earlier batches                 |
| `LinearFeatures` | least squares on features of observation and time   | earlier batches                 |
| `Regressor`      | any model with fit and predict, scikit-learn's too  | earlier batches                 |
| `LeaveOneOut`    | the mean return at this time step                   | the batch's other trajectories  |
| `CrossFit`       | any of the fitted ones                              | the batch's other folds         |

A baseline is called before the update, `baseline(rollout, ret, values) -> (T, N)`, and fitted after it, `fit(rollout,
ret)`, so that adv saw the old one. Fitting on the very trajectories it is subtracted from would correlate it with the
actions and bias the gradient. The critic's own V is the default wherever there is a critic.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor

from policygrad.data import Rollout, TooFewError, Values
from policygrad.forms import LARGEST, Form, FormError, anything, array, each, form_of, maybe, number, table
from policygrad.gradient.features import Features, polynomial_features, raw_features
from policygrad.gradient.groups import Key, groups_of, mean_of_others
from policygrad.gradient.pooled import pooled
from policygrad.total import gathered, greatest, total
from policygrad.tree import to_numpy


class Baseline(Protocol):
    """The contract; subclassing nothing is needed."""

    needs_critic: bool
    needs_episodes: bool

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        """b_t, (T, N)."""
        ...

    def fit(self, rollout: Rollout, ret: Tensor) -> None:
        """Learn from this rollout, after the update."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        ...


class _Stateless:
    needs_critic = False
    needs_episodes = False

    def fit(self, rollout: Rollout, ret: Tensor) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def state_form(self) -> Form:
        return table({})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        form_of(self)("state of the baseline", state)
        self._load(state)

    def _load(self, state: dict[str, Any]) -> None:
        """Take in a state of the right form."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class NoBaseline(_Stateless):
    """b = 0."""

    reads_logp = False

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return torch.zeros_like(ret)


class Constant(_Stateless):
    """b = value on every step. Unbiased for any value; the variance is U-shaped in it, so a bad value raises it."""

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return torch.full_like(ret, self.value)


class CriticValue(_Stateless):
    """b_t = V(s_t), the critic's: the default wherever there is a critic. Near the best state baseline, not the best."""

    reads_logp = False
    needs_critic = True

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return values.val


class RunningMean(_Stateless):
    """b = exponentially weighted mean of the returns of *earlier* batches: b ← decay · b + (1 − decay) · mean(ret).

    Independent of the batch it is subtracted from, hence unbiased; 0 until the first fit, which sets it outright.
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.mean: float | None = None

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return torch.full_like(ret, self.mean or 0.0)

    def fit(self, rollout: Rollout, ret: Tensor) -> None:
        new = float(total(torch.where(rollout.mask, ret, 0.0).sum()) / total(rollout.steps))
        self.mean = new if self.mean is None else self.decay * self.mean + (1.0 - self.decay) * new

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def state_form(self) -> Form:
        return table({"mean": maybe(number(-LARGEST, LARGEST))})

    def _load(self, state: dict[str, Any]) -> None:
        self.mean = state["mean"]


class LeaveOneOut(_Stateless):
    """b_t of a trajectory = mean of ret_t over the *other* trajectories; finished trajectories count as 0.

    (Σ_j ret_t^j − ret_t^i) / (N − 1): independent of the trajectory it is subtracted from, hence unbiased, where the plain
    batch mean shrinks the gradient by 1 − 1/N. Kool, van Hoof & Welling 2019. Needs whole episodes, one per column.

    by: the others are those of the same group, N its size: the name of an array in `rollout.extra`, or a function of the
        rollout, that gives each trajectory's key (see groups.py); None: all trajectories are one group. With `TotalReturn`
        and a prompt as the key it is RLOO (Ahmadian et al. 2024, arXiv 2402.14740). Shards must hold whole groups.
    alone: the baseline of a trajectory that is the only one of its group; None: TooFewError.
    """

    needs_episodes = True

    def __init__(self, by: Key | None = None, alone: float | None = None) -> None:
        if alone is not None and by is None:
            raise ValueError(f"alone = {alone} is for groups: give by=, the key of the groups, too")
        self.by, self.alone = by, alone

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        n = total(ret.shape[1])
        if n < 2 and self.alone is None:
            raise TooFewError(f"LeaveOneOut needs at least 2 trajectories, got {n}: collect more or use RunningMean")
        if not rollout.whole_episodes:
            raise ValueError("LeaveOneOut needs whole episodes, one per column: collect with .episodes")
        if self.by is not None:
            return mean_of_others(ret, groups_of(rollout, self.by), self.alone)
        sums = _lengthened(ret.sum(1, keepdim=True), greatest(len(ret)))
        return (total(sums)[: len(ret)] - ret) / (n - 1)

    def __repr__(self) -> str:
        return "LeaveOneOut()" if self.by is None else f"LeaveOneOut(by={_name(self.by)}, alone={self.alone})"


def _lengthened(x: Tensor, length: int) -> Tensor:
    """0 is put behind the last row: (T, *) → (length, *)."""
    return x if len(x) == length else torch.cat([x, x.new_zeros(length - len(x), *x.shape[1:])])


class TimeAverage(_Stateless):
    """b_t = mean of ret_t over the trajectories of *earlier* batches that were still running at step t of their episode.

    Every step's mean is exponentially weighted, m_t ← m_t + (n_t / w_t) (mean ret_t − m_t) with w_t ← decay · w_t + n_t and n_t
    the trajectories that were running: batches count by their size, and only those that reached step t wear the memory of it
    away. decay = 0: the last batch that got there alone; decay = 1: all of them alike. A time step never reached has the mean
    of the last one before it that was; before the first fit b = 0. Independent of the batch, hence unbiased.
    """

    def __init__(self, decay: float = 0.5) -> None:
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay must be in [0, 1], got {decay}")
        self.decay = decay
        self.mean = torch.zeros(0, dtype=torch.float64)  # (H,), H the longest episode so far
        self.weight = torch.zeros(0, dtype=torch.float64)  # (H,), 0: never reached

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        mean, weight = self.mean.to(ret.device), self.weight.to(ret.device)
        reached = weight.nonzero().squeeze(-1)
        if not len(reached):
            return torch.zeros_like(ret)
        # the last reached step at or before t; before the first one, that
        index = (torch.searchsorted(reached, rollout.time.contiguous(), right=True) - 1).clamp(min=0)
        return mean[reached[index]].to(ret.dtype)

    def fit(self, rollout: Rollout, ret: Tensor) -> None:
        time, ret = rollout.valid(rollout.time), rollout.valid(ret).double()
        length = greatest(max(len(self.mean), int(time.max()) + 1 if len(time) else 0))
        mean, weight = (_lengthened(x.to(ret.device), length) for x in (self.mean, self.weight))
        counted = torch.bincount(time, minlength=length).double()
        count, sums = total(counted), total(torch.zeros_like(counted).index_add_(0, time, ret))
        weight = torch.where(count > 0, self.decay * weight + count, weight)
        # the difference of means: nothing cancels where returns are large
        self.mean = torch.where(count > 0, mean + (sums - count * mean) / weight, mean)
        self.weight = weight

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "weight": self.weight}

    def state_form(self) -> Form:
        columns = table({"mean": array((None,), "float64"), "weight": array((None,), "float64", low=0.0)})

        def check(name: str, state: Any) -> None:
            columns(name, state)
            array(tuple(state["mean"].shape), "float64", None)(f"{name}/weight", state["weight"])

        return check

    def _load(self, state: dict[str, Any]) -> None:
        self.mean, self.weight = state["mean"].clone(), state["weight"].clone()

    def __repr__(self) -> str:
        return f"TimeAverage(decay={self.decay})"


def _name(features: Features | Key) -> str:
    return getattr(features, "__name__", repr(features))


class _OnFeatures(_Stateless):
    """The common part of regressions on features."""

    features: Features

    def _inputs(self, rollout: Rollout) -> Tensor:
        """The features of the valid rows: (B, F), float64."""
        time = rollout.valid(rollout.time)
        x = torch.as_tensor(self.features(rollout.valid_obs, time))
        if x.ndim != 2 or len(x) != len(time):
            raise ValueError(
                f"features(obs, time) must be (B, F) for the {len(time)} rows given, got {tuple(x.shape)}: one row per step"
            )
        return x.double()

    def _predict(self, x: Tensor) -> Tensor | None:
        """(B, F) → (B,); None before the first fit."""
        raise NotImplementedError

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        b = self._predict(self._inputs(rollout))
        return torch.zeros_like(ret) if b is None else rollout.scatter(b.to(ret.dtype))


class LinearFeatures(_OnFeatures):
    """b = wᵀφ(s, t), w the least-squares fit to the returns of the batch before: argmin Σ (ret − wᵀφ)² + ridge · ‖w‖².

    Fitted on *earlier* data, hence unbiased; 0 before the first fit. Solved in float64 by an SVD, so collinear features are
    no trouble, with ridge = 0 neither: the smallest of the solutions. features: (obs (B, *), time (B,)) → (B, F), the
    polynomials of the classic benchmark by default.
    """

    def __init__(self, features: Features = polynomial_features, ridge: float = 1e-5) -> None:
        if not ridge >= 0.0:
            raise ValueError(f"ridge must be at least 0, got {ridge}")
        self.features, self.ridge = features, ridge
        self.w: Tensor | None = None  # (F,)

    def _predict(self, x: Tensor) -> Tensor | None:
        if self.w is not None and len(self.w) != x.shape[1]:
            raise FormError(f"{self} has {len(self.w)} weights for {x.shape[1]} features: its state does not fit")
        return None if self.w is None else x @ self.w.to(x.device)

    def fit(self, rollout: Rollout, ret: Tensor) -> None:
        x, y = pooled(self._inputs(rollout), rollout.valid(ret).double())
        # the ridge as rows of data: normal equations would square the condition number
        penalty = self.ridge**0.5 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        x, y = torch.cat([x, penalty]).cpu(), torch.cat([y, y.new_zeros(len(penalty))]).cpu()  # gelsd is the CPU's
        self.w = torch.linalg.lstsq(x, y.unsqueeze(-1), driver="gelsd").solution.squeeze(-1)

    def state_dict(self) -> dict[str, Any]:
        return {"w": self.w}

    def state_form(self) -> Form:
        return table({"w": maybe(array((None,), "float64"))})

    def _load(self, state: dict[str, Any]) -> None:
        self.w = None if state["w"] is None else state["w"].clone()

    def __repr__(self) -> str:
        return f"LinearFeatures({_name(self.features)}, ridge={self.ridge})"


class Regressor(_OnFeatures):
    """b = model.predict(φ(s, t)) of any object with fit(X, y) and predict(X) on numpy arrays: scikit-learn's, or your own.

    Fitted anew on each batch after the update, hence unbiased; 0 before the first fit. features: (obs (B, *), time (B,)) →
    (B, F), by default the flat observation and the time step.

    A checkpoint keeps no model, for that would take pickle, but the batch it was fitted on, and fits again on loading. So
    fit must depend on X and y alone: give models that draw numbers a fixed random_state, and leave warm_start off.
    """

    def __init__(self, model: Any, features: Features = raw_features) -> None:
        for name in ("fit", "predict"):
            if not callable(getattr(model, name, None)):
                raise TypeError(f"model must have fit(X, y) and predict(X), and {model!r} has no {name}")
        self.model, self.features = model, features
        self.data: tuple[Tensor, Tensor] | None = None  # what the model was fitted on: X (B, F), y (B,)

    def _predict(self, x: Tensor) -> Tensor | None:
        if self.data is None:
            return None
        b = torch.as_tensor(self.model.predict(to_numpy(x)), device=x.device)
        if b.numel() != len(x):
            raise ValueError(f"predict must give one number per row, ({len(x)},), got {tuple(b.shape)}")
        return b.reshape(-1)

    def fit(self, rollout: Rollout, ret: Tensor) -> None:
        self._fit(gathered(self._inputs(rollout)), gathered(rollout.valid(ret).double()))

    def _fit(self, x: Tensor, y: Tensor) -> None:
        self.model.fit(to_numpy(x), to_numpy(y))
        self.data = (x, y)

    def state_dict(self) -> dict[str, Any]:
        return {"data": None if self.data is None else list(self.data)}

    def state_form(self) -> Form:
        pair = table({"data": maybe(each(anything, 2, least=2))})

        def check(name: str, state: Any) -> None:
            pair(name, state)
            if state["data"] is not None:
                x, y = state["data"]
                array((None,), "float64")(f"{name}/data/1", y)
                array((y.shape[0], None), "float64")(f"{name}/data/0", x)

        return check

    def _load(self, state: dict[str, Any]) -> None:
        self.data = None
        if state["data"] is not None:
            x, y = state["data"]
            self._fit(x.clone(), y.clone())

    def __repr__(self) -> str:
        return f"Regressor({self.model!r}, {_name(self.features)})"


class CrossFit(_Stateless):
    """The baseline of a fold's trajectories is `inner`, fitted on the other folds of the *same* batch.

    Every trajectory is used for the gradient and for K − 1 of the K fits, and none for its own baseline: unbiased, nothing
    wasted, nothing old. folds = K; whole trajectories, the n-th goes to fold n mod K. K = the number of trajectories:
    leave-one-out. inner: any baseline with a fit; a copy of it, as it was given, is fitted for every fold. Fitting on all
    and using it on all has a bias of O(1/N) instead. Needs whole episodes, one per column.
    """

    needs_episodes = True

    def __init__(self, inner: Baseline, folds: int = 4) -> None:
        if folds < 2:
            raise ValueError(f"folds must be at least 2, got {folds}")
        if inner.needs_critic:
            raise ValueError(
                f"{inner} is the critic's value and is not fitted here: cross-fit TimeAverage, LinearFeatures or Regressor"
            )
        self.inner, self.folds = inner, folds

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        n = ret.shape[1]
        if n < self.folds:
            raise TooFewError(
                f"CrossFit needs one trajectory per fold, {self.folds}, got {n}: collect more episodes or take fewer folds"
            )
        if not rollout.whole_episodes:
            raise ValueError("CrossFit needs whole episodes, one per column: collect with .episodes")
        b, fold = torch.zeros_like(ret), torch.arange(n, device=ret.device) % self.folds
        for k in range(self.folds):
            own, others = (fold == k).nonzero().squeeze(-1), (fold != k).nonzero().squeeze(-1)
            inner = deepcopy(self.inner)
            inner.fit(rollout.columns(others), ret[:, others])
            b[:, own] = inner(rollout.columns(own), ret[:, own], values.columns(own))
        return b

    def __repr__(self) -> str:
        return f"CrossFit({self.inner}, folds={self.folds})"
