"""Critics: V(s) by a network and an optimiser of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.data import Rollout, Stats, Values, shuffled
from policygrad.models.flat import FlatModule
from policygrad.models.networks import MLP, BodyNetwork
from policygrad.models.optim import Adam, clip_by_norm
from policygrad.models.policy import Body, Policy, make_network
from policygrad.models.schedules import Schedule, at


class NoCritic:
    """No critic: V = 0 and nothing bootstraps."""

    bootstraps = False

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        return Values.zeros(rollout)

    def fit(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> Stats:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Critic(FlatModule):
    """V(s) = mean + std · network(s): regression on targets standardised inside, ½ squared error, Adam.

    mean and std follow the targets, an exponential average; when they move, the output layer is rescaled so that V does not
    (van Hasselt et al. 2016, arXiv 1602.07714, eq. 9). Observations go through the policy's normaliser. No value clipping:
    it hurts (Andrychowicz et al. 2020).
    """

    bootstraps = True

    def __init__(
        self,
        network: MLP | BodyNetwork,
        *,
        lr: Schedule = 3e-4,
        epochs: int = 1,
        minibatches: int = 1,
        max_grad_norm: float | None = 0.5,
        scale_rate: float = 0.05,
        kernel: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.lr, self.epochs, self.minibatches, self.max_grad_norm = lr, epochs, minibatches, max_grad_norm
        self.scale_rate = scale_rate
        self.optimizer = Adam()
        self.generator = torch.Generator().manual_seed(seed)
        self.seen = 0
        self.mean, self.std, self.var = 0.0, 1.0, 1.0
        self.flatten(kernel)

    def value(self, features: Tensor) -> Tensor:
        """V of normalised observations (B, *): (B,)."""
        return self.kernel.forward(features).squeeze(-1) * self.std + self.mean

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        """V at every row and at every next row. One pass where next_obs is a view of obs[1:], two where it is not."""
        T, N = rollout.rew.shape
        val = self.value(policy.features(rollout.obs.flatten(0, 1))).view(T + 1, N)
        if rollout.next_obs.data_ptr() == rollout.obs[1:].data_ptr():
            return Values(val[:-1], val[1:])
        next_val = self.value(policy.features(rollout.next_obs.flatten(0, 1))).view(T, N)
        return Values(val[:-1], next_val)

    def fit(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> Stats:
        """Regress on the targets (T, N) of the valid rows: epochs × minibatches of Adam."""
        features = policy.features(rollout.valid(rollout.obs[:-1]))
        target = rollout.valid(target)
        if not math.isfinite(float(target.sum())):
            raise FloatingPointError("a target of the critic is not finite: nothing was fitted")
        self._follow(target)
        target = ((target - self.mean) / self.std).unsqueeze(-1)
        lr = at(self.lr, progress)
        kernel, flat = self.kernel, self.flat
        for _ in range(self.epochs):
            for x, y in shuffled((features, target), self.minibatches, self.generator):
                error = y - kernel.forward(x)
                grad = kernel.pull(error.div_(len(y)))  # of −½ mean error²
                norm = clip_by_norm(grad, self.max_grad_norm)
                if not math.isfinite(norm):
                    raise FloatingPointError(f"the critic's gradient has norm {norm}: lower critic_lr")
                self.optimizer.step(flat, grad, lr)
        return {}

    def _follow(self, target: Tensor) -> None:
        """Move mean and std towards the targets' and rescale the output layer so that V stays what it was."""
        first = self.seen == 0
        self.seen += len(target)
        rate = max(len(target) / self.seen, self.scale_rate)
        old_mean, old_std = self.mean, self.std
        delta = float(target.mean()) - self.mean
        self.mean += rate * delta
        # of the mixture; E[x²] − E[x]² would cancel where the mean is large
        self.var = (1.0 - rate) * (self.var + rate * delta**2) + rate * float(target.var(correction=0))
        self.std = max(math.sqrt(self.var), 0.01)
        if first:
            return
        layer = output_layer(self.network)
        with torch.no_grad():
            layer.weight.mul_(old_std / self.std)
            layer.bias.mul_(old_std / self.std).add_((old_mean - self.mean) / self.std)

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` keeps besides parameters: the optimiser, the shuffling, the scale of the targets."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "seen": self.seen,
            "scale": [self.mean, self.std, self.var],
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_extra_state`; `load_state_dict` calls it."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.seen = state["seen"]
        self.mean, self.std, self.var = state["scale"]


def output_layer(network: nn.Module) -> nn.Linear:
    """The last linear layer of a critic's network."""
    layer = network.layers[-1] if isinstance(network, MLP) else network.output
    assert isinstance(layer, nn.Linear)
    return layer


def make_critic(
    observation_space: spaces.Space,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
    body: Body | None = None,
    kernel: str = "auto",
    seed: int = 0,
    lr: Schedule = 3e-4,
    epochs: int = 1,
    minibatches: int = 1,
    max_grad_norm: float | None = 0.5,
) -> Critic:
    """A V critic for an observation space, with a fresh network."""
    network = make_network(
        observation_space,
        1,
        hidden=hidden,
        activation=activation,
        output_gain=1.0,
        generator=torch.Generator().manual_seed(seed),
        body=body,
    )
    assert isinstance(network, MLP | BodyNetwork)
    return Critic(
        network, lr=lr, epochs=epochs, minibatches=minibatches, max_grad_norm=max_grad_norm, kernel=kernel, seed=seed
    )
