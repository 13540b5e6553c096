"""Policies on a finite MDP as tables π(a|s): of logits, one row per state or group of states, and of any `Policy`."""

from __future__ import annotations

from typing import Any

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


def check_mdp(mdp: Any) -> None:
    """Raises TypeError for what is no MDP."""
    if not isinstance(mdp, MDP):
        hint = f": pg.lab.make_mdp({mdp!r}) makes one of this name" if isinstance(mdp, str) else ""
        raise TypeError(f"expected an MDP, got {_kind(mdp)}{hint}")


def check_policy(mdp: Any, policy: Any) -> None:
    """Raises TypeError where these are no MDP and policy, or are swapped."""
    if isinstance(policy, MDP):
        raise TypeError(f"expected an MDP, then a policy, got {_kind(mdp)}, then an MDP: swap the arguments")
    check_mdp(mdp)
    if not (hasattr(policy, "logp") and hasattr(policy, "gradient")):
        raise TypeError(f"expected a policy, got {_kind(policy)}: pg.lab.tabular_policy(mdp) makes one")


def _kind(thing: Any) -> str:
    return "None" if thing is None else repr(thing) if isinstance(thing, str) else f"a {type(thing).__name__}"


def tabular_policy(mdp: MDP, generator: torch.Generator | None = None, scale: float = 1.0) -> Policy:
    """The softmax policy with one logit for each (state, action), or (group, action) where states look alike; float64.

    The logits are N(0, scale²): uniform at 0. Raises TypeError for what is no MDP.
    """
    check_mdp(mdp)
    if mdp.groups is None:
        network: nn.Module = TabularNetwork(mdp.states, mdp.actions)
    else:
        network = Grouped(mdp.groups, TabularNetwork(max(mdp.groups) + 1, mdp.actions))
    policy = Policy(network, Categorical(mdp.actions)).double()
    policy.flat.copy_(scale * torch.randn(policy.flat.shape, generator=generator, dtype=torch.float64))
    return policy


def log_policy(mdp: MDP, policy: Policy) -> Tensor:
    """Log π(a|s), (S, A), with its graph. Raises TypeError for what is no MDP or no policy."""
    check_policy(mdp, policy)
    obs = torch.eye(mdp.states, dtype=torch.float64).repeat_interleave(mdp.actions, 0)
    return policy.logp(obs, torch.arange(mdp.actions).repeat(mdp.states)).view(mdp.states, mdp.actions)


def policy_matrix(mdp: MDP, policy: Policy) -> Tensor:
    """π(a|s), (S, A), with its graph."""
    return log_policy(mdp, policy).exp()


def greedy(pi: Tensor) -> Tensor:
    """The policy that takes the action of the largest number: (…, A) → (…, A), 0 or 1."""
    return nn.functional.one_hot(pi.argmax(-1), pi.shape[-1]).to(pi.dtype)
