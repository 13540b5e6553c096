"""Learned values against policy gradients, on tasks where they differ. J of both is exact, whatever they learned from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policygrad.data import Batch
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import greedy, tabular_policy
from policygrad.lab.exact.tabular import objective, optimum
from policygrad.lab.theory.ascent import Path, ascend
from policygrad.lab.theory.functions import performance
from policygrad.lab.values.tables import (
    Choose,
    Sight,
    epsilon_greedy,
    expected_update,
    learn,
    performance_of,
    softmax,
)
from policygrad.models.continuous import Gaussian
from policygrad.models.policy import Policy

EPSILON = 0.1
TEMPERATURES = (0.03, 0.3, 3.0)


# --- tasks whose best policy is random -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Contest:
    """J of what is learned where some states look alike. Learners of values have one row of values for each group of them."""

    gradient: float  # where exact gradient ascent ends
    greedy: tuple[float, ...]  # of Q-learning, one per seed: the greedy policy
    acting: tuple[float, ...]  # of Q-learning, one per seed: the ε-greedy policy
    sarsa: tuple[float, ...]  # of expected SARSA, the first seed: the ε-greedy policy
    boltzmann: dict[float, float]  # of expected SARSA with a softmax of the values: temperature → J where it settles

    @property
    def softest(self) -> tuple[float, float]:
        """The best temperature for a softmax of the values, and J."""
        return max(self.boltzmann.items(), key=lambda item: item[1])


def climb(mdp: MDP, policy: Policy, steps: int) -> Path:
    """Exact gradient ascent from a policy. It turns away from policies that never end, whose J is −∞."""
    J = performance(mdp, policy)

    def bounded(theta: Tensor) -> Tensor:
        try:
            return J(theta)
        except ValueError:
            return theta.new_tensor(-math.inf)

    return ascend(bounded, policy.flat, steps)


def contest(mdp: MDP, seeds: Sequence[int] = (0, 1, 2), ascents: int = 30) -> Contest:
    """Exact gradient ascent, sampled Q-learning and expected SARSA, and a softmax of the values, on an MDP with look-alikes."""
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    end = climb(mdp, policy, ascents).value[-1]
    sight, acting = Sight.of_policies(mdp), epsilon_greedy(EPSILON)

    def learned(seed: int, of: Choose) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        found = learn(mdp, generator, learned=of, acting=acting, sight=sight, steps=100)
        return [performance_of(mdp, found.policy(choose)) for choose in (greedy, acting)]

    q = [learned(seed, greedy) for seed in seeds]
    sarsa = tuple(learned(seed, acting)[1] for seed in seeds[:1])
    soft = {t: settled(mdp, softmax(t), sight) for t in TEMPERATURES}
    return Contest(end, tuple(J for J, _ in q), tuple(J for _, J in q), sarsa, soft)


def settled(mdp: MDP, choose: Choose, sight: Sight, sweeps: int = 80) -> float:
    """The lowest J in the last ten sweeps of expected SARSA, with the states that the policy made of the values visits.

    The step size falls from 0.5 to 0.1. −∞ where that policy comes to play episodes without an end.
    """
    q, found = sight.zeros(mdp), []
    q += 0.1 * torch.randn(q.shape, generator=torch.Generator().manual_seed(0), dtype=q.dtype)
    for k in range(sweeps):
        pi = choose(q)[sight.rows]
        found.append(performance_of(mdp, pi))
        if found[-1] == -math.inf:
            return found[-1]
        q = expected_update(mdp, q, choose, sight, 0.5 / (1.0 + k / 20.0), pi)
    return min(found[-10:])


def swings(mdp: MDP, learned: Choose = greedy, sweeps: int = 400, lr: float = 0.1) -> tuple[float, ...]:
    """J of the ε-greedy policy after each sweep of expected updates, weighted by the states that this policy visits.

    Where states look alike, the values depend on the data and the data on the greedy action, so this need not settle.
    """
    sight, acting = Sight.of_policies(mdp), epsilon_greedy(EPSILON)
    q, found = sight.zeros(mdp), []
    for _ in range(sweeps):
        q = expected_update(mdp, q, learned, sight, lr, acting(q)[sight.rows])
        found.append(performance_of(mdp, acting(q)[sight.rows]))
    return tuple(found)


# --- a small change of the values ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Jump:
    """What a change of the difference of two values, or of two logits, from −δ/2 to δ/2 does."""

    delta: float
    greedy_tv: float  # total variation distance of the two policies in a state
    softmax_tv: float
    greedy_rise: float  # |change of J|
    softmax_rise: float


def jump(mdp: MDP, delta: float, temperature: float = 1.0) -> Jump:
    """The jump on an MDP whose states all look alike, with two actions."""
    policies = {}
    for name, choose in (("greedy", greedy), ("softmax", softmax(temperature))):
        pair = [choose(torch.tensor([0.0, x], dtype=torch.float64)) for x in (-0.5 * delta, 0.5 * delta)]
        tables = [pi.expand(mdp.states, 2) for pi in pair]
        rise = abs(float(objective(mdp, tables[1]) - objective(mdp, tables[0])))
        policies[name] = 0.5 * float((pair[1] - pair[0]).abs().sum()), rise
    return Jump(delta, policies["greedy"][0], policies["softmax"][0], policies["greedy"][1], policies["softmax"][1])


def loss_of_greedy(mdp: MDP, q: Tensor, delta: float, trials: int, generator: torch.Generator) -> float:
    """The largest J* − J of policies that are greedy for q (H | 1, S, A) ± δ, with random signs for every entry."""
    signs = torch.randint(0, 2, (trials, *q.shape), generator=generator).double() * 2.0 - 1.0
    best = optimum(mdp)
    return max(best - performance_of(mdp, greedy(q + delta * sign)) for sign in signs)


# --- two optima ----------------------------------------------------------------------------------------------------


def ascent_from(mdp: MDP, probability: float, steps: int = 100) -> Path:
    """Exact ascent with a row of logits per group of states, from π(1) = probability in all of them; two actions."""
    policy = tabular_policy(mdp, scale=0.0)
    policy.flat.view(-1, 2)[:, 1] = math.log(probability / (1.0 - probability))
    return climb(mdp, policy, steps)


# --- continuous actions --------------------------------------------------------------------------------------------


class Outputs(nn.Module):
    """A network that ignores its input: (B, 1) → (B, outputs), the same parameters in each row."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.out = nn.Parameter(torch.zeros(outputs))

    def forward(self, obs: Tensor) -> Tensor:
        return self.out.expand(len(obs), -1)


@dataclass(frozen=True)
class Reach:
    """What it takes to come within a tolerance of the best of D continuous actions in [−1, 1]ᴰ, r(a) = −‖a − a*‖²."""

    dimensions: int
    cells: float  # of the smallest grid whose nearest cell is within the tolerance, whatever a* is: a table of so many values
    sampled: float  # actions that REINFORCE with a Gaussian policy samples; ∞ if it did not arrive
    quadratic: int  # actions that a quadratic Q is fitted on
    quadratic_loss: float  # of the maximum of this fit


def grid_cells(dimensions: int, tolerance: float) -> float:
    """The number of cells: with k per dimension the centre of the nearest one is at most 1/k away, in each dimension."""
    return float(math.ceil(math.sqrt(dimensions / tolerance))) ** dimensions


def reach(dimensions: int, tolerance: float = 0.01, seed: int = 0, batch: int = 32, updates: int = 100) -> Reach:
    """A grid, REINFORCE and a quadratic fit. REINFORCE: the mean action counts; the baseline is leave-one-out."""
    generator = torch.Generator().manual_seed(seed)
    best = 1.6 * torch.rand(dimensions, generator=generator, dtype=torch.float64) - 0.8

    def reward(act: Tensor) -> Tensor:
        return -(act - best).square().sum(-1)

    policy = Policy(Outputs(2 * dimensions), Gaussian((dimensions,))).double()
    policy.flat[dimensions:] = math.log(0.3)
    obs, sampled = torch.ones(batch, 1, dtype=torch.float64), math.inf
    for k in range(updates):
        mean, std = policy.flat[:dimensions], policy.flat[dimensions:].exp()
        if -float(reward(mean)) <= tolerance:
            sampled = float(k * batch)
            break
        act = mean + std * torch.randn(batch, dimensions, generator=generator, dtype=torch.float64)
        r = reward(act)
        adv = (r - r.mean()) * batch / (batch - 1.0)
        policy.flat.add_(0.05 * policy.evaluate(Batch.of(obs, act)).gradient(adv / batch))
    count, loss = quadratic_fit(dimensions, reward, generator)
    return Reach(dimensions, grid_cells(dimensions, tolerance), sampled, count, loss)


def quadratic_fit(dimensions: int, reward: Callable[[Tensor], Tensor], generator: torch.Generator) -> tuple[int, float]:
    """As many random actions as a quadratic function has coefficients, and the loss of the maximum of the fit."""
    i, j = torch.triu_indices(dimensions, dimensions)
    count = 1 + dimensions + len(i)
    act = 2.0 * torch.rand(count, dimensions, generator=generator, dtype=torch.float64) - 1.0
    basis = torch.cat([torch.ones(count, 1, dtype=torch.float64), act, act[:, i] * act[:, j]], -1)
    c = torch.linalg.solve(basis, reward(act))
    curvature = torch.zeros(dimensions, dimensions, dtype=torch.float64)
    curvature[i, j] = c[1 + dimensions :]
    top = torch.linalg.solve(curvature + curvature.T, -c[1 : 1 + dimensions])
    return count, -float(reward(top))
