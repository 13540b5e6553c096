"""Policies on a finite MDP as tables π(a|s): of logits, one row per state or group of states, and of any `Policy`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policygrad.lab.exact.mdp import MDP
from policygrad.models.heads import Categorical
from policygrad.models.networks import TabularNetwork
from policygrad.models.policy import Policy


class Grouped(nn.Module):
    """A network that gets the group of a state instead of the state: (B, S) one-hot → (B, G) one-hot → network."""

    membership: Tensor

    def __init__(self, groups: tuple[int, ...], network: nn.Module) -> None:
        super().__init__()
        self.register_buffer("membership", nn.functional.one_hot(torch.tensor(groups)).double())
        self.network = network

    def forward(self, obs: Tensor) -> Tensor:
        return self.network(obs @ self.membership.to(obs.dtype))


def tabular_policy(mdp: MDP, generator: torch.Generator | None = None, scale: float = 1.0) -> Policy:
    """The softmax policy with one logit for each (state, action), or (group, action) where states look alike; float64.

    The logits are N(0, scale²): uniform at 0.
    """
    if mdp.groups is None:
        network: nn.Module = TabularNetwork(mdp.states, mdp.actions)
    else:
        network = Grouped(mdp.groups, TabularNetwork(max(mdp.groups) + 1, mdp.actions))
    policy = Policy(network, Categorical(mdp.actions)).double()
    policy.flat.copy_(scale * torch.randn(policy.flat.shape, generator=generator, dtype=torch.float64))
    return policy


def log_policy(mdp: MDP, policy: Policy) -> Tensor:
    """Log π(a|s), (S, A), with its graph."""
    obs = torch.eye(mdp.states, dtype=torch.float64).repeat_interleave(mdp.actions, 0)
    return policy.logp(obs, torch.arange(mdp.actions).repeat(mdp.states)).view(mdp.states, mdp.actions)


def policy_matrix(mdp: MDP, policy: Policy) -> Tensor:
    """π(a|s), (S, A), with its graph."""
    return log_policy(mdp, policy).exp()


def greedy(pi: Tensor) -> Tensor:
    """The policy that takes the action of the largest number: (…, A) → (…, A), 0 or 1."""
    return nn.functional.one_hot(pi.argmax(-1), pi.shape[-1]).to(pi.dtype)
