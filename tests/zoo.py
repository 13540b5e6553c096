"""The one list of members, and what theory says of each. Adding a member is one line here, and the whole suite applies.

Facts are declared, one a member; `verdict` derives from them what the expected gradient of a cell (world × estimator ×
wrapper × baseline × critic) must be:

- unbiased: ∇J;
- scaled: a known multiple of ∇J;
- biased: not ∇J. Without a standardiser its exact value is known all the same: `Estimator.credit`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.algorithms.recipes import RECIPES as RECIPES  # the registry is the list
from policygrad.data import Rollout, Values
from policygrad.gradient import baselines as base
from policygrad.gradient import estimators as est
from policygrad.lab.exact.tabular import (
    MDP,
    ExactCritic,
    ExactQCritic,
    bandit,
    chain,
    discounts,
    policy_matrix,
    random_mdp,
    solve,
    tabular_policy,
)
from policygrad.models.critic import NoCritic
from policygrad.models.policy import Policy
from policygrad.updates import ClippedSurrogate, NaturalGradient, PenalizedSurrogate, TrustRegion, VanillaGradient

SCORED = [
    algo for algo in RECIPES if RECIPES[algo].spec.gradient == "score function"
]  # recipes with ∇log π, to be measured


def home(algo: str, discrete: Any = "CartPole-v1", box: Any = "Pendulum-v1") -> Any:
    """An environment whose actions the recipe can take."""
    return box if RECIPES[algo].spec.gradient == "pathwise" else discrete


def quick(algo: str) -> dict[str, Any]:
    """Keywords with which a recipe that replays learns something within some dozens of steps."""
    few = {"buffer_size": 500, "batch_size": 8, "warmup": 20, "gradient_steps": 1}
    return {name: value for name, value in few.items() if name in RECIPES[algo].keywords and algo not in SCORED}


# (mdp, π (S, A), critic's V (H+1, S), critic's Q (H+1, S, A) if it has one) → E[ret | t, s, a], (H, S, A)
Credit = Callable[[MDP, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class World:
    """An MDP and the policy whose gradient is asked for. batches: sizes of the batches to enumerate for coupling members."""

    name: str
    mdp: MDP
    batches: tuple[int, ...] = ()
    seed: int = 0

    def policy(self) -> Policy:
        """A fresh one, always the same."""
        return tabular_policy(self.mdp, torch.Generator().manual_seed(self.seed))

    @cached_property
    def pi(self) -> Tensor:
        """The policy's probabilities, (S, A)."""
        return policy_matrix(self.mdp, self.policy()).detach()

    @cached_property
    def V(self) -> Tensor:
        """Exact, (H+1, S)."""
        return solve(self.mdp, self.pi)[0]

    @cached_property
    def Q(self) -> Tensor:
        """Exact, (H+1, S, A)."""
        Q = solve(self.mdp, self.pi)[1]
        return torch.cat([Q, torch.zeros_like(Q[:1])])


@dataclass(frozen=True)
class Estimator:
    """credit: the exact conditional mean of `ret`, up to a term without the action.

    reach: how many rewards it sees before it trusts the critic; at least the horizon: never. discounted: from t = 0.
    needs_q: the critic must say q(s, a).
    """

    name: str
    make: Callable[[float], Any]
    credit: Credit
    reach: float
    discounted: bool = False
    needs_q: bool = False


@dataclass(frozen=True)
class Wrapper:
    """discounts: multiplies by γᵗ. standardizes: "", "batch" (couples the trajectories) or "episode"."""

    name: str
    wrap: Callable[[Any], Any]
    discounts: bool = False
    standardizes: str = ""


@dataclass(frozen=True)
class Baseline:
    """make: for observations of this width. factor(world, k): what it multiplies the gradient by in a batch of k trajectories,
    None if the bias is no factor. couples: it looks at the other ones.

    by_step: it differs between the steps of an episode even where `ret` does not. refits: it is fitted for every batch anew,
    which takes its time; fewer cells then.
    """

    name: str
    make: Callable[[int], Any]
    couples: bool = False
    factor: Callable[[World, int], float | None] = lambda world, k: 1.0
    by_step: bool = False
    refits: bool = False


@dataclass(frozen=True)
class Critic:
    """exact: V = V^π, time-dependent, and Q = Q^π. q: it says q(s, a)."""

    name: str
    make: Callable[[World], Any]
    exact: bool = False
    q: bool = False


@dataclass(frozen=True)
class Update:
    """first_order: with plain SGD its first step is lr · ĝ."""

    name: str
    make: Callable[[], Any]
    first_order: bool = False


def lambda_credit(lam: float) -> Credit:
    """q_t = r + γ P [ (1 − λ) V_{t+1} + λ Σ_a π q_{t+1} ]: the mean λ-return; λ = 1: Q, whatever V."""

    def credit(mdp: MDP, pi: Tensor, V: Tensor, Q: Tensor | None) -> Tensor:
        q = torch.zeros(mdp.horizon, mdp.states, mdp.actions, dtype=torch.float64)
        for t in reversed(range(mdp.horizon)):
            ahead = torch.zeros(mdp.states, dtype=torch.float64)
            if t + 1 < mdp.horizon:
                ahead = torch.where(mdp.over, 0.0, (1.0 - lam) * V[t + 1] + lam * (pi * q[t + 1]).sum(1))
            q[t] = mdp.reward + mdp.gamma * mdp.transition @ ahead
        return q

    return credit


def n_step_credit(n: int) -> Credit:
    """N backups of V: the mean n-step return."""

    def credit(mdp: MDP, pi: Tensor, V: Tensor, Q: Tensor | None) -> Tensor:
        ahead, q = V[1:], V
        for _ in range(min(n, mdp.horizon)):
            ahead = torch.where(mdp.over, 0.0, ahead).clone()
            ahead[-1] = 0.0  # the horizon
            q = mdp.reward + mdp.gamma * torch.einsum("sap,tp->tsa", mdp.transition, ahead)
            ahead = torch.cat([(pi * q).sum(-1)[1:], ahead[-1:]])
        return q

    return credit


def total_credit(mdp: MDP, pi: Tensor, V: Tensor, Q: Tensor | None) -> Tensor:
    """γᵗ Q_t; the rewards before t do not depend on a_t."""
    return discounts(mdp) * lambda_credit(1.0)(mdp, pi, V, Q)


def q_credit(mdp: MDP, pi: Tensor, V: Tensor, Q: Tensor | None) -> Tensor:
    """What the critic says, nothing else."""
    assert Q is not None
    return Q[:-1]


class BatchMean(base.NoBaseline):
    """What LeaveOneOut is not: the mean of the *same* batch, finished trajectories counting 0. Shrinks ∇J by 1 − 1/N."""

    needs_episodes = True

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        return ret.mean(1, keepdim=True).expand_as(ret)


class SameBatch(base.CrossFit):
    """What CrossFit is not: fitted on the very trajectories it is subtracted from."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        inner = copy.deepcopy(self.inner)
        inner.fit(rollout, ret)
        return inner(rollout, ret, values)


def same_batch_time_average_factor(world: World, k: int) -> float | None:
    """1 − 1/k where all trajectories are equally long; elsewhere the number that reaches a step is random."""
    return None if world.mdp.terminal else 1.0 - 1.0 / k


class OneNearest:
    """A regressor in the shape of scikit-learn's: the target of the nearest row it has seen."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> OneNearest:
        self.X, self.y = X, y
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.y[((X[:, None] - self.X) ** 2).sum(-1).argmin(1)]


def earlier_batch(width: int) -> tuple[Rollout, Tensor]:
    """Four trajectories of five, four, three and two steps with observations of this width; and returns."""
    rng = np.random.default_rng(0)
    T, N = 5, 4
    time = torch.arange(T)[:, None].expand(T, N)
    length = torch.tensor([5, 4, 3, 2])
    obs = torch.from_numpy(rng.standard_normal((T + 1, N, width)))
    rew, ret = torch.from_numpy(rng.standard_normal((2, T, N)))
    none = torch.zeros(T, N, dtype=torch.bool)
    rollout = Rollout(
        obs, obs[1:], none.long(), rew, rew, time == length - 1, truncated=none, cut=none, mask=time < length, time=time
    )
    return rollout, torch.where(rollout.mask, ret, torch.nan)


def fitted(make: Callable[[], Any]) -> Callable[[int], Any]:
    """A persistent baseline as it is after an earlier batch."""

    def made(width: int) -> Any:
        baseline = make()
        baseline.fit(*earlier_batch(width))
        return baseline

    return made


def running_mean(mean: float) -> base.RunningMean:
    baseline = base.RunningMean()
    baseline.load_state_dict({"mean": mean})
    return baseline


def wrong_values(world: World) -> ExactCritic:
    """The exact V plus noise everywhere, also where V is 0 by definition and must not be looked up."""
    noise = torch.randn(world.V.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return ExactCritic(world.mdp, world.V + noise)


def wrong_action_values(world: World) -> ExactQCritic:
    """The exact Q plus noise everywhere."""
    noise = torch.randn(world.Q.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return ExactQCritic(world.mdp, world.Q + noise)


def crossing(horizon: int, gamma: float) -> MDP:
    """Two live states that lead to each other or out: few trajectories, of different lengths, so that batches are few too.

    From 0: action 0 → 1; action 1 → 1 or out (2). From 1: action 0 → out; action 1 → 0.
    """
    transition = torch.zeros(3, 2, 3)
    transition[0, 0, 1] = transition[1, 0, 2] = transition[1, 1, 0] = 1.0
    transition[0, 1] = torch.tensor([0.0, 0.75, 0.25])
    transition[2, :, 2] = 1.0
    reward = torch.tensor([[1.0, -0.5], [0.3, 2.0], [9.0, 9.0]])
    return MDP(transition, reward, torch.tensor([1.0, 0.0, 0.0]), horizon, gamma, (2,))


def level(horizon: int, gamma: float) -> MDP:
    """Two states and no way out: action 0 stays, action 1 goes over. All trajectories are equally long, and few."""
    transition = torch.zeros(2, 2, 2)
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, 0, 1] = transition[1, 1, 0] = 1.0
    return MDP(transition, torch.tensor([[1.0, -0.5], [0.3, 2.0]]), torch.tensor([1.0, 0.0]), horizon, gamma)


def random_world(seed: int, gamma: float) -> MDP:
    return random_mdp(3, 2, 3, np.random.default_rng(seed), gamma, terminal=(2,))


MDPS = [
    World("random, γ=1", random_world(0, 1.0)),
    World("random, γ=0.8", random_world(1, 0.8)),
    World("chain, γ=0.9", chain(4, horizon=5, gamma=0.9, slip=0.2)),
    World("bandit", bandit([1.0, -0.5, 2.0]), batches=(2, 3)),
    World("level, γ=0.8", level(2, 0.8), batches=(2, 3)),
    World("crossing, γ=1", crossing(2, 1.0), batches=(2,)),
    World("crossing, γ=0.8", crossing(2, 0.8), batches=(2, 3)),
    World("long crossing, γ=0.7", crossing(3, 0.7), batches=(2,)),
]

ESTIMATORS = [
    Estimator("TotalReturn", est.TotalReturn, total_credit, reach=math.inf, discounted=True),
    Estimator("RewardToGo", est.RewardToGo, lambda_credit(1.0), reach=math.inf),
    Estimator("TDError", est.TDError, lambda_credit(0.0), reach=1),
    Estimator("NStep(1)", lambda g: est.NStep(g, 1), n_step_credit(1), reach=1),
    Estimator("NStep(2)", lambda g: est.NStep(g, 2), n_step_credit(2), reach=2),
    Estimator("NStep(99)", lambda g: est.NStep(g, 99), n_step_credit(99), reach=99),
    Estimator("GAE(0)", lambda g: est.GAE(g, 0.0), lambda_credit(0.0), reach=1),
    Estimator("GAE(0.6)", lambda g: est.GAE(g, 0.6), lambda_credit(0.6), reach=1),
    Estimator("GAE(1)", lambda g: est.GAE(g, 1.0), lambda_credit(1.0), reach=math.inf),
    Estimator("QValue", est.QValue, q_credit, reach=0, needs_q=True),
]

WRAPPERS = [
    Wrapper("plain", lambda e: e),
    Wrapper("StateDiscounted", est.StateDiscounted, discounts=True),
    Wrapper("Standardized", est.Standardized, standardizes="batch"),
    Wrapper("Standardized(episode)", lambda e: est.Standardized(e, over="episode"), standardizes="episode"),
    Wrapper(
        "Standardized(StateDiscounted)",
        lambda e: est.Standardized(est.StateDiscounted(e)),
        discounts=True,
        standardizes="batch",
    ),
    Wrapper(
        "Standardized(StateDiscounted, episode)",
        lambda e: est.Standardized(est.StateDiscounted(e), over="episode"),
        discounts=True,
        standardizes="episode",
    ),
]

BASELINES = [
    Baseline("NoBaseline", lambda width: base.NoBaseline()),
    Baseline("Constant", lambda width: base.Constant(0.7)),
    Baseline("RunningMean", lambda width: running_mean(1.3)),
    Baseline("CriticValue", lambda width: base.CriticValue(), by_step=True),
    Baseline("TimeAverage", fitted(base.TimeAverage), by_step=True),
    Baseline("LinearFeatures", fitted(base.LinearFeatures), by_step=True),
    Baseline("Regressor", fitted(lambda: base.Regressor(OneNearest())), by_step=True),
    Baseline("LeaveOneOut", lambda width: base.LeaveOneOut(), couples=True),
    Baseline("BatchMean", lambda width: BatchMean(), couples=True, factor=lambda world, k: 1.0 - 1.0 / k),
    Baseline("CrossFit(TimeAverage)", lambda width: base.CrossFit(base.TimeAverage(), 2), couples=True, refits=True),
    Baseline("CrossFit(Linear)", lambda width: base.CrossFit(base.LinearFeatures(), 2), couples=True, refits=True),
    Baseline(
        "CrossFit(Regressor)",
        lambda width: base.CrossFit(base.Regressor(OneNearest()), 2),
        couples=True,
        refits=True,
    ),
    Baseline(
        "SameBatch(TimeAverage)",
        lambda width: SameBatch(base.TimeAverage()),
        couples=True,
        refits=True,
        factor=same_batch_time_average_factor,
    ),
]

PERSISTENT = ("TimeAverage", "LinearFeatures", "Regressor")

CRITICS = [
    Critic("no critic", lambda world: NoCritic()),
    Critic("exact V", lambda world: ExactCritic(world.mdp), exact=True),
    Critic("wrong V", wrong_values),
    Critic("exact q", lambda world: ExactQCritic(world.mdp), exact=True, q=True),
    Critic("wrong q", wrong_action_values, q=True),
]

UPDATES = [
    Update("VanillaGradient", lambda: VanillaGradient(0.01, optimizer="sgd", max_grad_norm=None), first_order=True),
    Update(
        "ClippedSurrogate",
        lambda: ClippedSurrogate(0.01, optimizer="sgd", max_grad_norm=None, epochs=1, minibatches=1),
        first_order=True,
    ),
    Update(
        "PenalizedSurrogate",
        lambda: PenalizedSurrogate(0.01, optimizer="sgd", max_grad_norm=None, epochs=1, minibatches=1),
        first_order=True,
    ),
    Update("NaturalGradient", lambda: NaturalGradient(1e-4)),
    Update("NaturalGradient(dense)", lambda: NaturalGradient(1e-4, damping=0.0, solver="dense")),
    Update("TrustRegion", lambda: TrustRegion(1e-4)),
]


@dataclass(frozen=True)
class Cell:
    """One combination, in batches of k trajectories."""

    world: World
    estimator: Estimator
    wrapper: Wrapper
    baseline: Baseline
    critic: Critic
    k: int

    def __str__(self) -> str:
        parts = (self.world, self.estimator, self.wrapper, self.baseline, self.critic)
        return " | ".join(part.name for part in parts) + f" | k={self.k}"

    def made(self) -> tuple[Any, Any]:
        """Estimator and baseline, as a learner gets them."""
        mdp = self.world.mdp
        return self.wrapper.wrap(self.estimator.make(mdp.gamma)), self.baseline.make(mdp.states)

    @property
    def factor(self) -> float | None:
        return self.baseline.factor(self.world, self.k)

    @property
    def verdict(self) -> str:
        mdp = self.world.mdp
        discounted = mdp.gamma == 1.0 or mdp.horizon == 1 or self.estimator.discounted or self.wrapper.discounts
        trusts_wrong_values = self.estimator.reach < mdp.horizon and not self.critic.exact
        if self.wrapper.standardizes or not discounted or trusts_wrong_values or self.factor is None:
            return "biased"
        return "unbiased" if self.factor == 1.0 else "scaled"

    @property
    def vanishes(self) -> bool:
        """One number an episode, standardised within it, is 0: nothing is left of the gradient."""
        return self.wrapper.standardizes == "episode" and self.estimator.discounted and not self.baseline.by_step

    def credit(self) -> Tensor:
        """The exact mean of what multiplies ∇log π, given (t, s, a), for batches of one and no standardiser: (H, S, A)."""
        world, critic = self.world, self.critic.make(self.world)
        V, Q = getattr(critic, "V", None), getattr(critic, "Q", world.Q)
        if self.critic.q:
            Q = world.Q if Q is None else Q
            V = (world.pi * Q).sum(-1)
        credit = self.estimator.credit(world.mdp, world.pi, world.V if V is None else V, Q)
        return discounts(world.mdp) * credit if self.wrapper.discounts else credit

    def allowed(self) -> bool:
        """Whether the library accepts the combination, and enumerating batches of k says something about it."""
        bootstraps = self.critic.name != "no critic"
        needs_critic = self.estimator.make(1.0).needs_critic or self.baseline.make(1).needs_critic
        couples = self.baseline.couples or self.wrapper.standardizes == "batch"
        return (
            (bootstraps or not needs_critic)
            and (self.critic.q or not self.estimator.needs_q)
            and not (self.wrapper.discounts and self.estimator.discounted)
            and couples == (self.k > 1)
            # standardised credit of one row is 0, of two it is ±1: nothing is left that could show a bias
            and not (self.wrapper.standardizes and not self.world.mdp.terminal and self.world.mdp.horizon <= 2)
            # a bias seen in the smallest batches needs no larger ones
            and not (self.wrapper.standardizes and self.k > 1 and self.k * self.world.mdp.horizon > 4)
            and not self.repeats()
        )

    def repeats(self) -> bool:
        """Whether the cell would take its time to say what others say already.

        A q critic's V is a V critic's: estimators that use no q meet it in batches of one, not standardised. A baseline that
        is fitted for every batch meets the critic that its estimator needs, in the larger batches reward-to-go alone, and
        standardisers meet the other baselines.
        """
        if self.critic.q and not self.estimator.needs_q:
            return self.k > 1 or bool(self.wrapper.standardizes)
        if self.baseline.refits:
            fewest = (
                "exact q" if self.estimator.needs_q else "no critic" if self.estimator.reach == math.inf else "exact V"
            )
            large = self.k * self.world.mdp.horizon > 4 and self.estimator.name != "RewardToGo"
            return bool(self.wrapper.standardizes) or self.critic.name != fewest or large
        return self.k > 1 and self.wrapper.standardizes == "batch" and self.baseline.name in PERSISTENT


@cache
def cells(world_name: str, k: int) -> list[Cell]:
    """Every allowed combination in this world, in batches of k."""
    world = next(w for w in MDPS if w.name == world_name)
    members = itertools.product(ESTIMATORS, WRAPPERS, BASELINES, CRITICS)
    made = [Cell(world, estimator, wrapper, baseline, critic, k) for estimator, wrapper, baseline, critic in members]
    return [cell for cell in made if cell.allowed()]


def worlds_and_sizes() -> list[tuple[str, int]]:
    """Every world with k = 1, and with the batch sizes that it is small enough for."""
    return [(world.name, k) for world in MDPS for k in (1, *world.batches)]


def shorter(mdp: MDP, horizon: int) -> MDP:
    """The same MDP with another horizon."""
    return dataclasses.replace(mdp, horizon=horizon)
