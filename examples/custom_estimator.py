"""An estimator of your own: risk-averse REINFORCE, the gradient of an exponential utility.

E[ (exp(βR) − 1) / β ] is about E[R] + β/2 · Var[R]: β < 0 shuns risk, β > 0 seeks it, β → 0 is REINFORCE. By the
likelihood-ratio trick, what multiplies ∇log π is the utility of the whole return. `python examples/custom_estimator.py`
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

import policygrad as pg
from policygrad.lab.exact import tabular


@dataclass(frozen=True)
class Utility(pg.TotalReturn):  # or any class with the members of policygrad.gradient.estimators.Estimator
    beta: float = -1.0

    def __call__(self, rollout: pg.Rollout, values: pg.Values) -> pg.Estimate:
        estimate = super().__call__(rollout, values)
        return pg.Estimate(torch.expm1(self.beta * estimate.ret) / self.beta, estimate.target)


safe, risky = [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.4, 0.6]  # where the two actions lead
P = torch.tensor([[safe, risky], *[[[1.0, 0.0, 0.0, 0.0]] * 2] * 3], dtype=torch.float64)  # (S, A, S)
rewards = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0], [0.0, 0.0]])  # so risky is worth 1.2, on average
gamble = tabular.MDP(P, rewards, start=torch.tensor([1.0, 0.0, 0.0, 0.0]), horizon=2)

if __name__ == "__main__":
    for beta in (-1.0, 1e-6):  # the utilities 1 − exp(−R) and, nearly, R
        policy = tabular.tabular_policy(gamble, scale=0.0)
        rule = pg.VanillaGradient(lr=0.2, max_grad_norm=None)
        learner = pg.Learner(policy, Utility(beta=beta), rule, baseline=pg.LeaveOneOut(), reduction="trajectory")
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 100):
            every, probability = tabular.enumerate_trajectories(gamble, policy)
            learner.step(every.columns(torch.multinomial(probability, 64, replacement=True)))
        print(f"β = {beta:g}: π(risky) = {tabular.policy_matrix(gamble, policy)[0, 1]:.2f}")
