"""q(s, a) of continuous actions, by networks that take the action as input, and slowly moving copies to bootstrap from.

The state comes as features (B, F), the action as x (B, D) in [−1, 1]. Two networks make a twin critic (Fujimoto et al. 2018,
arXiv 1802.09477): the smaller value is the estimate, because the larger one is more often too large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.data import Stats
from policygrad.errors import NotFiniteError
from policygrad.forms import Form, form_of, table
from policygrad.models.flat import FlatModule
from policygrad.models.networks import MLP, WithAction
from policygrad.models.observations import Encoding
from policygrad.models.optim import Adam, clip_by_norm
from policygrad.models.policy import Body, make_network


class FlatNetwork(FlatModule):
    """A network on a flat vector, with nothing around it."""

    def __init__(self, network: nn.Module, kernel: str = "auto") -> None:
        super().__init__()
        self.network = network
        self.flatten(kernel)

    def follow(self, other: FlatModule, tau: float) -> None:
        """θ ← (1 − τ) θ + τ θ_other; τ = 1 copies."""
        self.flat.lerp_(other.flat, tau)


class ActionCritic:
    """One or more estimates q_i(s, a), each regressed on the same targets, and a copy of each that follows with rate τ.

    The mean squared error is descended by Adam, one step a minibatch: ∇ of ½ · mean (target − q_i)².
    """

    def __init__(
        self, networks: Sequence[nn.Module], *, tau: float = 0.005, max_grad_norm: float | None = None, kernel: str = "auto"
    ) -> None:
        self.networks = [FlatNetwork(network, kernel) for network in networks]
        self.copies = deepcopy(self.networks)
        self.optimizers = [Adam() for _ in networks]
        self.tau, self.max_grad_norm = tau, max_grad_norm
        self.last: tuple[Tensor, Tensor, float] | None = None  # values, targets and gradient norm of the last step

    def target_value(self, features: Tensor, x: Tensor) -> Tensor:
        """The smallest value of the copies, (B,)."""
        return _smallest([net.kernel.forward(side_by_side(features, x), grad=False) for net in self.copies])[0]

    def fit(self, features: Tensor, x: Tensor, target: Tensor, lr: float) -> None:
        """One step of Adam for each network. Raises NotFiniteError where a gradient is not finite, before it moves anything."""
        inputs, target = side_by_side(features, x), target.unsqueeze(-1)
        for net, optimizer in zip(self.networks, self.optimizers, strict=True):
            q = net.kernel.forward(inputs)
            grad = net.kernel.vjp((target - q).div_(len(q)))
            norm = clip_by_norm(grad, self.max_grad_norm)
            if not math.isfinite(norm):
                raise NotFiniteError(f"the critic's gradient has norm {norm}: lower critic_lr, or set max_grad_norm")
            optimizer.step(net.flat, grad, lr)
            self.last = q, target, norm

    def action_gradient(self, features: Tensor, x: Tensor, smallest: bool = True) -> tuple[Tensor, Tensor]:
        """The value (B,) and its derivative by the action, ∂q/∂x (B, D). smallest: of the smallest of the networks, which may
        be another one in every row; otherwise of the first. Moves nothing.
        """
        inputs = side_by_side(features, x)
        networks = self.networks if smallest else self.networks[:1]
        q, which = _smallest([net.kernel.forward(inputs) for net in networks])
        slopes = torch.zeros_like(inputs)
        for i, net in enumerate(networks):
            slopes += net.kernel.vjp_inputs((which == i).to(q.dtype).unsqueeze(-1))
        return q, slopes[:, -x.shape[1] :]

    def follow(self) -> None:
        """Move the copies towards the networks."""
        for copy, net in zip(self.copies, self.networks, strict=True):
            copy.follow(net, self.tau)

    def report(self) -> Stats:
        """q_mean, td_error (the root of the mean squared error) and critic_grad_norm of the last step of the last network."""
        if self.last is None:
            return {}
        q, target, norm = self.last
        error = (target - q).square().mean().sqrt()
        return {"q_mean": float(q.mean()), "td_error": float(error), "critic_grad_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """Networks, copies and optimisers."""
        parts = {"networks": self.networks, "copies": self.copies, "optimizers": self.optimizers}
        return {name: {str(i): dict(part.state_dict()) for i, part in enumerate(each)} for name, each in parts.items()}

    def state_form(self) -> Form:
        """Of `state_dict`."""
        nets = table({str(i): form_of(net) for i, net in enumerate(self.networks)})
        moments = {str(i): o.state_form(net.flat) for i, (o, net) in enumerate(zip(self.optimizers, self.networks, strict=True))}
        return table({"networks": nets, "copies": nets, "optimizers": table(moments)})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name, parts in (("networks", self.networks), ("copies", self.copies), ("optimizers", self.optimizers)):
            for i, part in enumerate(parts):
                part.load_state_dict(state[name][str(i)])


def side_by_side(features: Tensor, x: Tensor) -> Tensor:
    """(B, *) and (B, D) → (B, F + D)."""
    return torch.cat([features.reshape(len(features), -1), x], dim=-1)


def _smallest(values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of values (B, 1): the smallest of every row, and which it is, (B,)."""
    if len(values) == 1:
        return values[0].squeeze(-1), torch.zeros(len(values[0]), dtype=torch.int64)
    return torch.cat(values, -1).min(-1)


def make_action_critic(
    observation_space: spaces.Space,
    dims: int,
    *,
    count: int = 2,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    body: Body | None = None,
    seed: int = 0,
    **keywords: Any,
) -> ActionCritic:
    """A critic of q(s, a) for D-dimensional actions, of `count` new networks; other keywords as in `ActionCritic`.

    body: as for policies; its features and the action go through the hidden layers together.
    """
    generator = torch.Generator().manual_seed(int(seed))
    encoding = Encoding(observation_space)
    networks: list[nn.Module] = []
    for _ in range(count):
        if body is None:
            networks.append(MLP(encoding.width + dims, hidden, 1, activation, 1.0, generator))
            continue
        made = make_network(
            observation_space, hidden[0] if hidden else 1, hidden=(), activation=activation, output_gain=1.0,
            generator=generator, body=deepcopy(body) if isinstance(body, nn.Module) else body,
        )  # fmt: skip
        top = MLP((hidden[0] if hidden else 1) + dims, hidden, 1, activation, 1.0, generator)
        networks.append(WithAction(made, top, encoding.features_shape, dims))
    return ActionCritic(networks, **keywords)
