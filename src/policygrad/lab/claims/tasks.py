"""Two families of MDPs for claims about learning, and a policy of two parameters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from policygrad.lab.exact.mdp import MDP
from policygrad.models.heads import Categorical
from policygrad.models.policy import Policy


def detour(length: int, far: float = 10.0) -> MDP:
    """An MDP where action 1, taken `length` times in a row, pays `far`; action 0 ends the episode, and pays 1 in the first one.

    There are two optima: taking the 1 at once, and going all the way. Under the uniform policy going on is worth
    far / 2^(length − 1), so that for long detours the first gradient leads away from it. J* = far, if that is more than 1.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    transition, reward = torch.zeros(length + 1, 2, length + 1), torch.zeros(length + 1, 2)
    for s in range(length):
        transition[s, 0, length] = transition[s, 1, s + 1] = 1.0
    transition[length, :, length] = 1.0
    reward[0, 0], reward[length - 1, 1] = 1.0, far
    return MDP(transition, reward, torch.eye(length + 1)[0], length, terminal=(length,))


def irregular(contexts: int, rng: np.random.Generator) -> MDP:
    """A bandit with many contexts x in a row: action 1 is right in the second half of them, action 0 in the first half.

    In each context the right action pays eᵘ more, u ~ N(0, 1.5²), and N(0, 1) is added to both rewards. So Q is irregular,
    while the best policy is a threshold.
    """
    right = torch.arange(contexts) >= contexts / 2
    stake, level = np.exp(1.5 * rng.standard_normal(contexts)), rng.standard_normal(contexts)
    sign = torch.stack([~right, right], -1).double() * 2.0 - 1.0  # (S, 2)
    reward = torch.from_numpy(level)[:, None] + 0.5 * torch.from_numpy(stake)[:, None] * sign
    uniform = torch.full((contexts,), 1.0 / contexts, dtype=torch.float64)
    return MDP(uniform.expand(contexts, 2, contexts), reward, uniform, horizon=1)


def positions(contexts: int) -> Tensor:
    """The position x of each context, evenly spaced in (−1, 1): (S,)."""
    return (2.0 * torch.arange(contexts, dtype=torch.float64) + 1.0) / contexts - 1.0


class Threshold(nn.Module):
    """Logits (0, w x + b) at a state's position x: (B, S) one-hot → (B, 2)."""

    x: Tensor

    def __init__(self, contexts: int) -> None:
        super().__init__()
        self.register_buffer("x", positions(contexts))
        self.line = nn.Linear(1, 1)

    def forward(self, obs: Tensor) -> Tensor:
        logit = self.line((obs @ self.x.to(obs.dtype)).unsqueeze(-1))
        return torch.cat([torch.zeros_like(logit), logit], -1)


def threshold_policy(contexts: int) -> Policy:
    """A policy π(1|x) = 1 / (1 + exp(−w x − b)) with two parameters, which are 0 at the start (uniform); float64."""
    policy = Policy(Threshold(contexts), Categorical(2)).double()
    policy.flat.zero_()
    return policy


def greedy_in_fit(mdp: MDP, degree: int) -> tuple[float, float]:
    """J of the greedy policy for a least-squares fit of Q, and the fit's R².

    The fit is a polynomial of x for each action, (degree + 1) · 2 numbers, fitted to the exact Q of a one-step MDP, with equal
    weights. This is the best case for methods that learn values.
    """
    x, Q = positions(mdp.states).numpy(), mdp.reward.numpy()
    basis = np.polynomial.legendre.legvander(x, degree)
    fitted = basis @ np.linalg.lstsq(basis, Q, rcond=None)[0]
    r2 = 1.0 - ((Q - fitted) ** 2).sum() / ((Q - Q.mean()) ** 2).sum()
    return float(Q[np.arange(len(x)), fitted.argmax(1)].mean()), float(r2)
