"""Policy and values on one body: V(s) is one more output of the policy's network, and a term of its update trains it."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from policygrad.data import Rollout, Stats, Values
from policygrad.forms import Form, table
from policygrad.models.ascent import ValueLoss
from policygrad.models.critic import Output, Scaled, values_of
from policygrad.models.networks import MLP, BodyNetwork, init_linear, inner_network, output_layer
from policygrad.models.policy import Policy
from policygrad.total import moments
from policygrad.tree import Tree

P = TypeVar("P", bound=Policy)


class SharedCritic(Scaled):
    """V(s) = mean + std · out, out the last output of the policy's network. See `with_value`, which adds it.

    It has no fit of its own. Its `term` is a term of a first-order rule, which ascends

        gain + ent_coef · entropy − value_coef · Σ_b weight_b ½ (out_b − (target_b − mean) / std)²

    with one optimiser, and clips one gradient norm. With mean = 0 and std = 1 this is the loss of CleanRL's ppo.py, and
    value_coef its vf_coef; Stable-Baselines3 has no ½, so that its vf_coef counts twice. Neither of them scales targets: here
    mean and std follow them, as in `Critic`, before every update. Where advantages are not standardised, the loss is
    multiplied by std, as the gain has the unit of rewards then. So value_coef means the same whatever that unit is.

    value_coef: at least 0, the weight of the values' loss. standardized: whether the advantages are. scale_rate: see `Scaled`.
    """

    bootstraps = True

    def __init__(self, value_coef: float = 0.5, *, standardized: bool = True, scale_rate: float = 0.05) -> None:
        if not value_coef >= 0.0:
            raise ValueError(f"value_coef must be at least 0, got {value_coef}")
        self.scale_rate = scale_rate
        self.term = ValueLoss(value_coef, self, standardized)

    def value(self, obs: Tree, policy: Policy) -> Tensor:
        """V of raw observations (B, *): (B,), no graph."""
        return policy.kernel.forward(policy.features(obs), grad=False)[:, -1] * self.std + self.mean

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        """V at every row and at every next row, see `values_of`. Raises ValueError for a policy without the output."""
        value_output(policy)
        return values_of(lambda obs: self.value(obs, policy), rollout)

    def rescale_to(self, rollout: Rollout, target: Tensor, policy: Policy) -> None:
        """Follow the scale of the targets (T, N) of the valid rows, before the update that regresses on them."""
        self.follow(*moments(rollout.valid(target)), value_output(policy))

    def fit(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> Stats:
        """Nothing: the policy's update has done it."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The scale of the targets; the weights are the policy's."""
        return self.scale_state()

    def state_form(self) -> Form:
        """Of `state_dict`."""
        return table(self.scale_forms())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.state_form()("state of the critic", state)
        self.seen = state["seen"]
        self.mean, self.std, self.var = state["scale"]


def with_value(policy: P, seed: int = 0) -> P:
    """The same policy, whose network has one more output now, linear in what its body makes of the observation: V(s).

    Its weights are orthogonal with gain 1, from the seed; the distribution is what it was. Raises ValueError for a policy
    without hidden layers, or one that has further outputs already.
    """
    network = inner_network(policy.network)
    if not isinstance(network, MLP | BodyNetwork) or (isinstance(network, MLP) and len(network.layers) == 1):
        raise ValueError("policy and values can share hidden layers or a body, and this policy has none: set hidden")
    if policy.segment > 1:
        raise ValueError("policy and values cannot share a recurrent body: give the critic a network of its own")
    layer = output_layer(network)
    if _outputs(policy) != policy.head.size:
        raise ValueError(
            f"the policy has {_outputs(policy)} outputs already, of which its head takes {policy.head.size}"
        )
    row = nn.Linear(layer.in_features, 1)
    init_linear(row, 1.0, torch.Generator().manual_seed(int(seed)))
    with torch.no_grad():
        layer.weight = nn.Parameter(torch.cat([layer.weight, row.weight.to(layer.weight)]))
        layer.bias = nn.Parameter(torch.cat([layer.bias, row.bias.to(layer.bias)]))
    layer.out_features += 1
    policy.flatten()
    return policy


def value_output(policy: Policy) -> Output:
    """The weight (1, F) and the bias (1,) of the value, on the policy's own memory. Raises ValueError if it has none."""
    if _outputs(policy) != policy.head.size + 1:
        raise ValueError(
            f"a SharedCritic reads the output after the {policy.head.size} of the policy's head, and this network has "
            f"{_outputs(policy)}: use with_value(policy)"
        )
    layer = output_layer(inner_network(policy.network))
    return layer.weight.data[-1:], layer.bias.data[-1:]


def _outputs(policy: Policy) -> int:
    """How many outputs the policy's network has, log-std included."""
    network = inner_network(policy.network)
    own = 0 if network is policy.network else policy.head.size // 2
    return own + output_layer(network).out_features
