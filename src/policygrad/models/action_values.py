"""q(s, a) of continuous actions, by networks that take the action as input, and slowly moving copies to bootstrap from.

The state comes as features (B, F), the action as x (B, D) in [−1, 1]. Two networks make a twin critic (Fujimoto et al. 2018,
arXiv 1802.09477): the smaller value is the estimate, because the larger one is more often too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.data import Stats
from policygrad.forms import Form, form_of, table
from policygrad.models.flat import FlatModule
from policygrad.models.networks import WithAction
from policygrad.models.observations import Encoding
from policygrad.models.optim import Adam, check_norm, clip_by_norm
from policygrad.models.pictures import layouts_of
from policygrad.models.policy import Body, make_network
from policygrad.models.stacked import StackedKernel, StackedMLP
from policygrad.total import mean, total
from policygrad.tree import flat


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
    """Estimates q_k(s, a), k < K, each regressed on the same targets, and a copy of them that follows with rate τ.

    network: inputs (B, F + D), features and action side by side → (B, K). The mean squared error is descended by Adam, one step
    a minibatch: ∇ of Σ_k ½ · mean (target − q_k)².
    """

    def __init__(
        self, network: nn.Module, *, tau: float = 0.005, max_grad_norm: float | None = None, kernel: str = "auto"
    ) -> None:
        self.network = FlatNetwork(network, kernel)
        self.copy = deepcopy(self.network)
        self.optimizer = Adam()
        self.tau, self.max_grad_norm = tau, max_grad_norm
        self.last: tuple[Tensor, Tensor, float] | None = None  # values, targets and gradient norm of the last step

    def target_value(self, features: Tensor, x: Tensor) -> Tensor:
        """The smallest value of the copies, (B,)."""
        q = self.copy.kernel.forward(side_by_side(features, x), grad=False)
        return q.squeeze(-1) if q.shape[1] == 1 else q.amin(-1)

    def fit(self, features: Tensor, x: Tensor, target: Tensor, lr: float) -> None:
        """One step of Adam. Raises NotFiniteError where the gradient is not finite, before it moves anything."""
        net = self.network
        q = net.kernel.forward(side_by_side(features, x))
        target = target.unsqueeze(-1)
        grad = total(net.kernel.vjp((target - q).div_(total(len(q)))))
        norm = clip_by_norm(grad, self.max_grad_norm)
        self.check(norm)
        self.optimizer.step(net.flat, grad, lr)
        self.last = q, target, norm

    def check(self, norm: float) -> None:
        """Raises NotFiniteError for a gradient's norm that is not finite."""
        check_norm(norm, "the critic", "lower critic_lr, or set max_grad_norm")

    def action_gradient(self, features: Tensor, x: Tensor, smallest: bool = True) -> tuple[Tensor, Tensor]:
        """The value (B,) and its derivative by the action, ∂q/∂x (B, D). smallest: of the smallest of the K, which may be
        another one in every row; otherwise of the first. Moves nothing.
        """
        kernel = self.network.kernel
        if not smallest and isinstance(kernel, StackedKernel):
            kernel = kernel.first()
        q = kernel.forward(side_by_side(features, x))
        which = q.argmin(-1, keepdim=True) if smallest else torch.zeros(len(q), 1, dtype=torch.int64)
        slope = kernel.vjp_inputs(torch.zeros_like(q).scatter_(-1, which, 1.0))
        return q.gather(-1, which).squeeze(-1), slope[:, -x.shape[1] :]

    def follow(self) -> None:
        """Move the copy towards the network."""
        self.copy.follow(self.network, self.tau)

    def report(self) -> Stats:
        """q_mean, td_error (the root of the mean squared error) and critic_grad_norm of the last step."""
        if self.last is None:
            return {}
        q, target, norm = self.last
        error = mean((target - q).square()).sqrt()
        return {"q_mean": float(mean(q)), "td_error": float(error), "critic_grad_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """Network, copy and optimiser."""
        return {name: dict(getattr(self, name).state_dict()) for name in ("network", "copy", "optimizer")}

    def state_form(self) -> Form:
        """Of `state_dict`."""
        net = form_of(self.network)
        return table({"network": net, "copy": net, "optimizer": self.optimizer.state_form(self.network.flat)})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in ("network", "copy", "optimizer"):
            getattr(self, name).load_state_dict(state[name])


def side_by_side(features: Tensor, x: Tensor) -> Tensor:
    """(B, *) and (B, D) → (B, F + D)."""
    return torch.cat([flat(features), x], dim=-1)


def make_action_critic(
    observation_space: spaces.Space,
    dims: int,
    *,
    count: int = 2,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    body: Body | None = None,
    network: str = "auto",
    seed: int = 0,
    **keywords: Any,
) -> ActionCritic:
    """A critic of q(s, a) for D-dimensional actions, of `count` new networks; other keywords as in `ActionCritic`.

    body, network: as for policies; the features, as many as the first hidden layer is wide, and the action go through the
    hidden layers.
    """
    generator = torch.Generator().manual_seed(int(seed))
    encoding = Encoding(observation_space)
    if body is None and not any(layouts_of(encoding, network)):
        return ActionCritic(StackedMLP(count, encoding.width + dims, hidden, activation, generator), **keywords)
    width = hidden[0] if hidden else 64
    below = make_network(
        observation_space,
        width,
        hidden=hidden,
        activation=activation,
        output_gain=1.0,
        generator=generator,
        body=body,
        network=network,
    )
    top = StackedMLP(count, width + dims, hidden, activation, generator)
    return ActionCritic(WithAction(below, top, encoding.features_shape, dims), **keywords)
