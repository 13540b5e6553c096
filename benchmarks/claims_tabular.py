"""Learning on exact MDPs, for benchmarks/claims.py: production estimators and update rules, sampled episodes, exact J."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from policygrad.algorithms.learner import Learner
from policygrad.gradient import baselines as base
from policygrad.gradient import estimators as est
from policygrad.lab.claims.tasks import detour, irregular, threshold_policy
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import (
    ExactCritic,
    ExactQCritic,
    exact_gradient,
    greedy,
    objective,
    policy_matrix,
    tabular_policy,
)
from policygrad.lab.exact.worlds import exact_objective, make_mdp
from policygrad.models.critic import Critic, NoCritic
from policygrad.models.networks import MLP
from policygrad.models.policy import Policy
from policygrad.updates import VanillaGradient

Measured = dict[str, Any]
Make = Callable[[Any], Any]

# name → estimator of γ, baseline, critic of the MDP
PARTS: dict[str, tuple[Make, Callable[[], Any], Make]] = {
    "total return": (est.TotalReturn, base.NoBaseline, lambda mdp: NoCritic()),
    "total return, leave-one-out": (est.TotalReturn, base.LeaveOneOut, lambda mdp: NoCritic()),
    "to-go": (est.RewardToGo, base.NoBaseline, lambda mdp: NoCritic()),
    "to-go, running mean": (est.RewardToGo, base.RunningMean, lambda mdp: NoCritic()),
    "to-go, leave-one-out": (est.RewardToGo, base.LeaveOneOut, lambda mdp: NoCritic()),
    "to-go, time average": (est.RewardToGo, base.TimeAverage, lambda mdp: NoCritic()),
    "to-go, exact V": (est.RewardToGo, base.CriticValue, ExactCritic),
    "GAE 0.95, exact V": (lambda gamma: est.GAE(gamma, 0.95), base.CriticValue, ExactCritic),
    "GAE 0.95, learned V": (lambda gamma: est.GAE(gamma, 0.95), base.CriticValue, lambda mdp: _learned(mdp)),
    "TD error, exact V": (est.TDError, base.CriticValue, ExactCritic),
    "exact Q − V": (est.QValue, base.CriticValue, ExactQCritic),
    "TD error, V = 0": (est.TDError, base.CriticValue, lambda mdp: ExactCritic(mdp, _nothing(mdp))),
    "to-go, standardised over the batch": (
        lambda gamma: est.Standardized(est.RewardToGo(gamma)),
        base.NoBaseline,
        lambda mdp: NoCritic(),
    ),
    "to-go, standardised over each episode": (
        lambda gamma: est.Standardized(est.RewardToGo(gamma), over="episode"),
        base.NoBaseline,
        lambda mdp: NoCritic(),
    ),
}


def _learned(mdp: MDP) -> Critic:
    """A table of V, fitted to each batch after its estimate was taken, as in training."""
    return Critic(MLP(mdp.states, (), 1), lr=0.05, epochs=4).double()


def _nothing(mdp: MDP) -> torch.Tensor:
    assert mdp.horizon is not None
    return torch.zeros(mdp.horizon + 1, mdp.states, dtype=torch.float64)


@dataclass(frozen=True)
class Tabular:
    """Arms on exact MDPs: updates by plain SGD on sampled episodes, and exact J after every interval of updates.

    An arm's keywords: task, parts (one of PARTS), lr, ent_coef, scale (of the initial logits), episodes (an update). trials:
    batches at the initial policy, a seed, for the error of the estimates.
    """

    about: str
    updates: int
    arms: dict[str, dict[str, Any]]
    shared: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = tuple(range(20))
    points: int = 40
    trials: int = 0

    def describe(self) -> dict[str, Any]:
        """What the file says besides the results."""
        return {
            "about": " ".join(self.about.split()),
            "task": "exact MDPs",
            "curve": "exact J after each interval of updates",
            "steps": self.updates,
            "points": self.points,
            "seeds": list(self.seeds),
            "shared": self.shared,
        }

    def given(self, arm: str) -> tuple[str, dict[str, Any]]:
        """The algorithm and what the arm sets."""
        return "reinforce", self.arms[arm]

    def run(self, arm: str, seed: int) -> tuple[Measured, dict[str, Any]]:
        """One seed of an arm."""
        defaults = {"parts": "to-go, leave-one-out", "lr": 1.0, "ent_coef": 0.0, "scale": 0.0, "episodes": 8}
        config = defaults | self.shared | self.arms[arm]
        mdp, policy = make(config["task"], seed, config["scale"])
        generator = torch.Generator().manual_seed(seed)
        measured: Measured = {}
        if self.trials:
            measured |= errors(mdp, policy, config, generator, self.trials)
        step = stepper(mdp, policy, config, generator, config["lr"], config["ent_coef"])
        J = exact_objective(mdp)
        every = self.updates // self.points
        measured["initial"] = J(policy)
        measured["return"] = []
        for k in range(1, self.updates + 1):
            step()
            if k % every == 0:
                measured["return"].append(J(policy))
        measured["greedy"] = float(objective(mdp, greedy(policy_matrix(mdp, policy).detach())))
        return measured, config


def make(task: str, seed: int, scale: float) -> tuple[MDP, Policy]:
    """An MDP and its initial policy. "detour n" and "irregular n" are of claims/tasks.py, the others of exact/worlds.py."""
    kind, _, size = task.partition(" ")
    if kind == "irregular":
        return irregular(int(size), np.random.default_rng(seed)), threshold_policy(int(size))
    mdp = detour(int(size)) if kind == "detour" else make_mdp(kind, horizon=float(size) if size else None)
    return mdp, tabular_policy(mdp, torch.Generator().manual_seed(seed), scale)


def stepper(
    mdp: MDP, policy: Policy, config: dict[str, Any], generator: torch.Generator, lr: float, ent_coef: float = 0.0
) -> Callable[[], Any]:
    """A function that makes one update."""
    estimator, baseline, critic = PARTS[config["parts"]]
    estimate = estimator(mdp.gamma)
    if mdp.gamma < 1.0:
        estimate = est.StateDiscounted(estimate)
    update = VanillaGradient(lr, optimizer="sgd", ent_coef=ent_coef, max_grad_norm=None)
    learner = Learner(policy, estimate, update, critic=critic(mdp), baseline=baseline(), reduction="trajectory")
    return lambda: learner.step(sample(mdp, policy, config["episodes"], generator))


def errors(
    mdp: MDP, policy: Policy, config: dict[str, Any], generator: torch.Generator, trials: int
) -> dict[str, float]:
    """Of estimates ĝ at a policy that stays: mse, E‖ĝ − ∇J‖² / ‖∇J‖²; and scaled_mse, that of c ĝ with the best c,
    1 − (E ĝ·∇J)² / (E‖ĝ‖² ‖∇J‖²). Baselines and critics that learn go on learning.
    """
    truth, theta = exact_gradient(mdp, policy), policy.flat.clone()
    step = stepper(mdp, policy, config, generator, 1.0)
    estimates = []
    for _ in range(trials):
        step()
        estimates.append(policy.flat - theta)
        policy.flat.copy_(theta)
    g, size = torch.stack(estimates), truth @ truth
    along, length = (g @ truth).mean(), g.square().sum(1).mean()
    error = (g - truth).square().sum(1).mean()
    return {"mse": float(error / size), "scaled_mse": float(1.0 - along.square() / (length * size))}


MDPS = ("random", "chain")

TABULAR: dict[str, Tabular] = {
    "estimators-mse": Tabular(
        """Errors of estimates of ∇J at the uniform policy of two MDPs, 8 states, 4 actions, 10 steps (random) and a
        chain of 6 states where only the end pays; 4 episodes an estimate, 100 estimates a seed. mse: E‖ĝ − ∇J‖² /
        ‖∇J‖²; scaled_mse: that of c ĝ with the best c.""",
        1,
        {f"{task}: {parts}": {"task": task, "parts": parts} for task in MDPS for parts in PARTS},
        shared={"episodes": 4, "lr": 0.0},
        points=1,
        trials=100,
    ),
    "estimators-tabular": Tabular(
        """The estimators of estimators-mse at work: 100 updates by SGD from the uniform policy, 4 episodes each, at two
        learning rates; exact J.""",
        100,
        {
            f"{task}: {parts}, lr {lr:g}": {"task": task, "parts": parts, "lr": lr}
            for task in MDPS
            for lr in (0.25, 1.0)
            for parts in PARTS
        },
        shared={"episodes": 4},
        points=20,
    ),
    "stochastic": Tabular(
        """Where the best policy is a stochastic one: an aliased gridworld, rock-paper-scissors against an opponent that
        answers the last throw, a corridor of switched actions (100 steps at most). REINFORCE with reward-to-go and the
        leave-one-out baseline, 16 episodes an update, SGD, from random logits, N(0, 1). greedy: exact J of the
        likeliest actions.""",
        600,
        {
            f"{task}, lr {lr:g}": {"task": task, "lr": lr}
            for task, rates in {
                "aliased": (0.3, 3.0),
                "rock-paper-scissors": (0.03, 0.3),
                "corridor 100": (0.0003, 0.003),
            }.items()
            for lr in rates
        },
        shared={"episodes": 16, "scale": 1.0},
    ),
    "simple-policy": Tabular(
        """Contextual choices with 32 contexts whose stakes and levels are random, another draw a seed, while the best
        policy is a threshold (irregular 32): a policy of two parameters, REINFORCE with the leave-one-out baseline, 32
        episodes of one step an update, SGD with learning rate 1.""",
        400,
        {"threshold policy": {"task": "irregular 32"}},
        shared={"episodes": 32},
    ),
    "local-optima": Tabular(
        """1 at once, or 10 after n right actions in a row (detour n), from the uniform policy and from a nearly certain
        one, logits N(0, 5²): REINFORCE with reward-to-go and the leave-one-out baseline, 8 episodes an update, SGD with
        learning rate 0.1, constant entropy bonus.""",
        1000,
        {
            f"detour {n}, {start}, entropy {ent:g}": {"task": f"detour {n}", "scale": scale, "ent_coef": ent}
            for n in (2, 4, 8)
            for start, scale, bonuses in (("uniform", 0.0, (0.0, 1.0)), ("nearly certain", 5.0, (0.0,)))
            for ent in bonuses
        },
        shared={"episodes": 8, "lr": 0.1},
        seeds=tuple(range(10)),
    ),
}
