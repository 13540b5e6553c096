"""Estimators: what multiplies ∇log π.

    ∇J = E[ Σ_t  adv_t · ∇ log π(a_t | s_t) ],      adv = wrap(ret − baseline)

| estimator      | ret                                   | needs                  |
|----------------|---------------------------------------|------------------------|
| `TotalReturn`  | R(τ) on every step                    | whole episodes         |
| `RewardToGo`   | G_t                                   | whole episodes or a critic |
| `NStep`        | r_t + … + γⁿ V(s_{t+n})               | a critic               |
| `TDError`      | r_t + γ V(s_{t+1})                    | a critic               |
| `GAE`          | V(s_t) + Σ_k (γλ)ᵏ δ_{t+k}            | a critic               |
| `QValue`       | q(s_t, a_t)                           | a critic of q(s, a)    |

With the critic's own V as baseline (the default) `TDError` gives the TD error, `GAE` the generalised advantage, `QValue`
q(s,a) − Σ_a π(a|s) q(s,a).
`StateDiscounted` and `Standardized` wrap any of them; the weights of importance.py go around that, for trajectories that
another policy sampled. An estimator is a frozen value, which prints and compares. None has a state but
`Standardized(over="running")`, which learns a batch's moments after its update, as baselines do. What is *not* here:
baselines (baselines.py), importance weights (importance.py), the recursions (returns.py), these moments (running.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from policygrad.data import Estimate, Rollout, TooFewError, Values
from policygrad.errors import check_part
from policygrad.forms import Form
from policygrad.gradient import returns
from policygrad.gradient.baselines import Baseline
from policygrad.gradient.running import FORM, RunningMoments
from policygrad.total import total


class Estimator(Protocol):
    """The contract. Any object with these members is an estimator; subclassing nothing.

    One with a state also has `learns = True`, `fit(rollout, plain)`, called after every update with `Estimate.plain`, and
    `state_dict` and `load_state_dict`.
    """

    @property
    def gamma(self) -> float:
        """The discount γ."""
        ...

    @property
    def needs_critic(self) -> bool:
        """Whether it bootstraps from V and is refused without a critic."""
        ...

    def needs_episodes(self, bootstraps: bool) -> bool:
        """Whether it must see whole episodes, given whether a critic bootstraps at truncation and at cuts."""
        ...

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        """Return estimates and critic targets, (T, N) each."""
        ...

    def wrap(self, adv: Tensor, rollout: Rollout) -> Tensor:
        """The advantages from ret − baseline, (T, N) → (T, N)."""
        ...


def advantages(rollout: Rollout, values: Values, estimator: Estimator, baseline: Baseline) -> tuple[Tensor, Estimate]:
    """Adv = wrap(ret − baseline), (T, N), and the estimate it came from.

    Raises ValueError where one of these has another shape: (T, 1) and (T,) would broadcast, and mix the steps.
    """
    estimate = estimator(rollout, values)
    b = baseline(rollout, estimate.ret, values)
    for part, what, x in ((estimator, "ret", estimate.ret), (baseline, "b", b)):
        _check_shape(part, what, x, rollout)
    plain = estimate.ret - b
    adv = estimator.wrap(plain, rollout)
    _check_shape(estimator, "adv", adv, rollout)
    return adv, replace(estimate, plain=plain) if getattr(estimator, "learns", False) else estimate


def _check_shape(part: object, what: str, x: Tensor, rollout: Rollout) -> None:
    if x.shape != rollout.rew.shape:
        expected = tuple(rollout.rew.shape)
        raise ValueError(f"{type(part).__name__} must give {what} as (T, N) = {expected}, got {tuple(x.shape)}")


class _Plain:
    """The common defaults: no wrapping; a critic and no whole episodes needed."""

    needs_critic = True

    def needs_episodes(self, bootstraps: bool) -> bool:
        return False

    def wrap(self, adv: Tensor, rollout: Rollout) -> Tensor:
        return adv


def _check_gamma(gamma: float) -> None:
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")


@dataclass(frozen=True)
class TotalReturn(_Plain):
    """R(τ) = Σ_t γᵗ r_t on every step: the likelihood-ratio gradient itself.

    Unbiased; the highest variance of all, for every action is credited with rewards that came before it.
    Williams 1992, eq. 11 with b = 0. Critic target: reward-to-go.
    """

    gamma: float = 1.0
    needs_critic = False
    reads_logp = False

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def needs_episodes(self, bootstraps: bool) -> bool:
        return True

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        if not rollout.whole_episodes:
            raise ValueError(
                "TotalReturn needs whole episodes, one per column, from time 0 to their end: collect with .episodes, "
                "or use RewardToGo with a critic."
            )
        zeros = torch.zeros_like(rollout.rew)
        return Estimate(returns.total_return(rollout, self.gamma), returns.reward_to_go(rollout, zeros, self.gamma))


@dataclass(frozen=True)
class RewardToGo(_Plain):
    """G_t = Σ_{k≥t} γ^{k−t} r_k: an action is credited with what follows it.

    For γ = 1, or under `StateDiscounted`, it has the expectation of `TotalReturn`. With γ < 1 alone it is the usual deep-RL
    direction: γᵗ is dropped and the result is the gradient of no objective (Nota & Thomas 2020). With a critic, V stands in
    for the rewards after a truncation or cut; without one it needs whole episodes, and the time limit is the horizon.
    """

    gamma: float = 1.0
    needs_critic = False
    reads_logp = False

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def needs_episodes(self, bootstraps: bool) -> bool:
        return not bootstraps

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        if not values.bootstraps and rollout.cut.any():
            raise ValueError(
                "RewardToGo without a critic needs whole episodes, and this rollout cuts some: collect with .episodes, "
                "or give the learner a critic."
            )
        ret = returns.reward_to_go(rollout, values.next_val, self.gamma)
        return Estimate(ret, ret)


@dataclass(frozen=True)
class NStep(_Plain):
    """Gₜ⁽ⁿ⁾ = r_t + … + γⁿ⁻¹ r_{t+n−1} + γⁿ V(s_{t+n}). Unbiased only when V = V^π; n trades that bias for variance."""

    gamma: float = 0.99
    n: int = 5
    reads_logp = False

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        ret = returns.n_step(rollout, values.next_val, self.gamma, self.n)
        return Estimate(ret, ret)


@dataclass(frozen=True)
class TDError(_Plain):
    """r_t + γ V(s_{t+1}), whose advantage against V is the TD error δ_t: one-step actor-critic (Sutton & Barto, 13.5)."""

    gamma: float = 0.99
    reads_logp = False

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        ret = returns.rewards(rollout) + self.gamma * returns.bootstrap(rollout, values.next_val)
        return Estimate(ret, ret)


@dataclass(frozen=True)
class GAE(_Plain):
    """V(s_t) + Σ_k (γλ)ᵏ δ_{t+k}, the λ-return; minus V it is the generalised advantage (arXiv 1506.02438, eq. 16).

    λ = 1: reward-to-go, unbiased for any V (under `StateDiscounted`). λ = 0: the TD target. λ < 1 is biased unless V = V^π.
    """

    gamma: float = 0.99
    lam: float = 0.95
    reads_logp = False

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)
        if not 0.0 <= self.lam <= 1.0:
            raise ValueError(f"lam must be in [0, 1], got {self.lam}")

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        adv = returns.gae(rollout, values.val, values.next_val, self.gamma, self.lam)
        ret = adv + torch.where(rollout.mask, values.val, 0.0)
        return Estimate(ret, ret)


@dataclass(frozen=True)
class QValue(_Plain):
    """q(s_t, a_t): the critic's estimate of the return; nothing after a_t is sampled. Unbiased when q = Q^π (under
    `StateDiscounted`), biased by as much as q is wrong about the difference between actions.

    The gradient theorem with q for Q^π: Sutton et al. 2000, theorem 1. Critic target: r_t + γ Σ_a π(a|s_{t+1}) q(s_{t+1}, a),
    expected SARSA (van Seijen et al. 2009).
    """

    gamma: float = 0.99
    reads_logp = False

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        if values.act_val is None:
            raise ValueError("QValue needs a critic of q(s, a), but this one gives V(s): give the learner a QCritic")
        target = returns.rewards(rollout) + self.gamma * returns.bootstrap(rollout, values.next_val)
        return Estimate(torch.where(rollout.mask, values.act_val, 0.0), target)


@dataclass(frozen=True)
class _Wrapper:
    inner: Any  # an Estimator

    def __post_init__(self) -> None:
        check_part(
            f"the estimator inside {type(self).__name__}",
            self.inner,
            ("needs_episodes", "wrap"),
            "one such as RewardToGo()",
        )
        if getattr(self.inner, "outermost", False):
            inner, outer = type(self.inner).__name__, type(self).__name__
            raise ValueError(f"{inner} must be the outermost wrapper: write {inner}({outer}(…))")

    @property
    def gamma(self) -> float:
        return self.inner.gamma

    @property
    def needs_critic(self) -> bool:
        return self.inner.needs_critic

    @property
    def learns(self) -> bool:
        """Whether there is a state, which `fit` changes."""
        return getattr(self.inner, "learns", False)

    def needs_episodes(self, bootstraps: bool) -> bool:
        return self.inner.needs_episodes(bootstraps)

    def __call__(self, rollout: Rollout, values: Values) -> Estimate:
        return self.inner(rollout, values)

    def fit(self, rollout: Rollout, plain: Tensor) -> None:
        """Learn from this rollout, after the update, if there is a state. plain: ret − baseline, (T, N)."""
        if self.learns:
            self.inner.fit(rollout, plain)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.inner.state_dict() if self.learns else {}

    def state_form(self) -> Form:
        """Of `state_dict`."""
        return self.inner.state_form() if hasattr(self.inner, "state_form") else FORM

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if self.learns:
            self.inner.load_state_dict(state)


@dataclass(frozen=True)
class StateDiscounted(_Wrapper):
    """γᵗ · adv_t, t the step in the episode: the gradient of the discounted objective needs it, and deep RL leaves it out.

    Refuses `TotalReturn`, which is discounted from t = 0 already. Sutton et al. 2000, theorem 1; γ = 1: the identity.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.inner, Standardized):
            raise ValueError("Standardized must be the outermost wrapper: write Standardized(StateDiscounted(…))")
        if isinstance(self.inner, StateDiscounted):
            raise ValueError("StateDiscounted is applied already: applying it twice would discount by γ²ᵗ")
        if isinstance(self.inner, TotalReturn):
            raise ValueError("TotalReturn is discounted from t = 0 already: StateDiscounted would discount it twice")

    def wrap(self, adv: Tensor, rollout: Rollout) -> Tensor:
        return self.gamma ** rollout.time.to(adv.dtype) * self.inner.wrap(adv, rollout)


@dataclass(frozen=True)
class Standardized(_Wrapper):
    """(adv − mean) / (std + 1e-8) over the valid rows: steps do not depend on the scale. The outermost wrapper.

    over = "batch": moments of all B rows; the ratio couples the trajectories, a bias of O(1/B).
    over = "episode": moments of each trajectory alone, as tutorials do. That removes the difference between good and bad
    episodes and makes late steps "bad" whatever they did; the bias does not shrink with the batch. A trajectory of one
    step gets 0.
    over = "running": moments of the earlier batches, exponentially weighted. They do not depend on the batch, so it is
    multiplied by a positive number and has a constant baseline more: no bias but for the scale. The first batch has its own.
    std is the population's (n, not n − 1).
    """

    over: str = "batch"
    moments: RunningMoments = field(default_factory=RunningMoments, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over not in ("batch", "episode", "running"):
            raise ValueError(f"over must be 'batch', 'episode' or 'running', got {self.over!r}")
        if isinstance(self.inner, Standardized):
            raise ValueError("Standardized is applied already")

    @property
    def learns(self) -> bool:
        return self.over == "running"

    def wrap(self, adv: Tensor, rollout: Rollout) -> Tensor:
        adv = torch.where(rollout.mask, self.inner.wrap(adv, rollout), 0.0)
        if self.learns and self.moments.mean is not None:
            return torch.where(rollout.mask, adv - self.moments.mean, 0.0) / self.moments.std
        steps = total(rollout.steps)
        if steps < 2:
            raise TooFewError(f"Standardized needs at least 2 valid steps, got {steps}: collect more steps")
        if self.over == "episode":
            return _standardize_episodes(adv, rollout)
        mean = total(adv.sum()) / steps
        centred = torch.where(rollout.mask, adv - mean, 0.0)
        return centred / ((total(centred.square().sum()) / steps).sqrt() + 1e-8)

    def fit(self, rollout: Rollout, plain: Tensor) -> None:
        if self.learns:
            self.moments.add(rollout.valid(self.inner.wrap(plain, rollout)))

    def state_dict(self) -> dict[str, Any]:
        return self.moments.state_dict() if self.learns else {}

    def state_form(self) -> Form:
        return FORM

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.learns:
            self.moments.load_state_dict(state)


def _standardize_episodes(adv: Tensor, rollout: Rollout) -> Tensor:
    """Standardise each trajectory by its own moments. A trajectory's index: the ends before it, column after column."""
    end, mask = rollout.end.T.reshape(-1), rollout.mask.T.reshape(-1)
    index = end.cumsum(0) - end.long()
    index = index.clamp(max=rollout.trajectories - 1)  # padding after the last end
    x = adv.T.reshape(-1)
    zeros = x.new_zeros(rollout.trajectories)
    count = zeros.index_add(0, index, mask.to(x.dtype))
    mean = zeros.index_add(0, index, x) / count
    centred = torch.where(mask, x - mean[index], 0.0)
    std = (zeros.index_add(0, index, centred.square()) / count).sqrt()
    return (centred / (std[index] + 1e-8)).reshape(adv.T.shape).T
