"""The loss whose gradient is the policy gradient, −Σ weight · x · log π, does not measure performance.

x is what multiplies ∇log π: advantages, or returns with any baseline. With data of the policy itself, all these losses have the
same expected gradient, but their *values* can be anything. A constant added to all rewards changes no policy, no gradient and
no learning, but a loss that fell now rises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from policygrad.lab.exact.tabular import MDP, advantage, log_policy, objective, occupancy, solve
from policygrad.lab.exact.worlds import exact_batch
from policygrad.lab.results import Result, align
from policygrad.lab.steps.relations import apply
from policygrad.models.policy import Policy
from policygrad.updates import VanillaGradient


@dataclass(frozen=True)
class Loss:
    """One loss along the path."""

    name: str
    values: tuple[float, ...]  # (K+1,)
    correlation: float  # with J, over the path; a good loss would have −1
    worse: float  # the share of steps on which both J and the loss rose


@dataclass(frozen=True)
class Losses(Result):
    """J and several losses along one path of exact gradient ascent."""

    J: tuple[float, ...]  # (K+1,)
    losses: tuple[Loss, ...]
    shift: float  # the constant that is added to every reward or subtracted

    def __getitem__(self, name: str) -> Loss:
        return {loss.name: loss for loss in self.losses}[name]

    def table(self) -> str:
        """One row per loss."""
        rows = [
            [x.name, f"{x.values[0]:.3f}", f"{x.values[-1]:.3f}", f"{x.correlation:+.3f}", f"{100.0 * x.worse:.0f} %"]
            for x in self.losses
        ]
        head = align(("−Σ w · x · log π, x:", "first", "last", "correlation with J", "J better, loss worse"), rows)
        return f"J rises from {self.J[0]:.3f} to {self.J[-1]:.3f} in {len(self.J) - 1} steps, the same for every row\n{head}"


def losses(mdp: MDP, policy: Policy, *, steps: int = 100, lr: float = 0.1, shift: float | None = None) -> Losses:
    """Losses along exact gradient ascent on J: with advantages, with returns, and with `shift` added to or taken from rewards.

    shift: [the largest |reward| · 2]. Raises ValueError if episodes may end early: there a constant on all rewards changes the
    task.
    """
    if mdp.terminal:
        raise ValueError("a constant on all rewards changes the task where episodes may end early: take another MDP")
    shift = 2.0 * float(mdp.outcome.abs().amax()) if shift is None else shift
    shifted = {c: replace(mdp, reward=mdp.outcome + c) for c in (0.0, shift, -shift)}
    rule, J, rows = VanillaGradient(lr, optimizer="sgd", max_grad_norm=None), [], []
    for step in range(steps + 1):
        logp = log_policy(mdp, policy).detach()
        pi = logp.exp()
        J.append(float(objective(mdp, pi)))
        weighted = occupancy(mdp, pi).unsqueeze(-1) * pi * logp
        multipliers = [advantage(mdp, pi), *(solve(m, pi)[1] for m in shifted.values())]
        rows.append([-float((weighted * x).sum()) for x in multipliers])
        if step < steps:
            policy = apply(rule, policy, exact_batch(mdp, policy))[1]
    names = ("advantages", "returns", f"returns, {shift:+.3g} per step", f"returns, {-shift:+.3g} per step")
    columns = torch.tensor(rows, dtype=torch.float64).T
    value = torch.tensor(J, dtype=torch.float64)
    found = [Loss(name, tuple(y.tolist()), *_against(value, y)) for name, y in zip(names, columns, strict=True)]
    return Losses(tuple(J), tuple(found), shift)


def _against(J: Tensor, loss: Tensor) -> tuple[float, float]:
    """The correlation of a loss with J, and the share of steps on which both rose."""
    worse = (J.diff() > 0.0) & (loss.diff() > 0.0)
    return float(np.corrcoef(J.numpy(), loss.numpy())[0, 1]), float(worse.double().mean())
