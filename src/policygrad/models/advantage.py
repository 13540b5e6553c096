"""The regression of advantages A(s,a) on given data, for Discrete actions."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from policygrad.data import Batch, shuffled
from policygrad.models.flat import FlatModule
from policygrad.models.heads import Categorical
from policygrad.models.optim import Adam
from policygrad.models.policy import Policy


class AdvantageRegressor(FlatModule):
    """A(s,a) = f(s,a) − Σ_b π(b|s) f(s,b), f a network with an output an action: centred under π, E_{a∼π}[A(s,a)] = 0.

    For gains over old states and all actions, Σ_a π'(a|s) A(s,a), in place of the one action sampled. π is the policy that
    gave the data, kept as it was. Only differences between actions are learned: where the advantages' mean given (s, a) is
    A^π and f is rich enough, the minimum of E[(adv − A(s,a))²] is A^π.
    """

    scale: Tensor

    def __init__(self, network: nn.Module, policy: Policy, *, kernel: str = "auto", seed: int = 0) -> None:
        super().__init__()
        if not isinstance(policy.head, Categorical):
            raise TypeError(f"advantages of every action need Discrete ones, and the policy's head is {policy.head}")
        self.network = network
        self.policy = deepcopy(policy)
        self.register_buffer("scale", torch.ones(()))
        self.optimizer = Adam()
        self.generator = torch.Generator().manual_seed(seed)
        self.flatten(kernel)

    def __call__(self, obs: Tensor) -> Tensor:
        """A of every action: (B, A)."""
        return self.scale * self._centred(self.policy.features(obs), self.policy.dist(obs).exp())

    def gain(self, policy: Policy, obs: Tensor) -> Tensor:
        """Σ_a π'(a|s) A(s,a) for another policy π', (B,): its expected advantage over π in these states; 0 for π itself."""
        return (policy.dist(obs).exp() * self(obs)).sum(-1)

    def _centred(self, features: Tensor, pi: Tensor) -> Tensor:
        f = self.kernel.forward(features)
        return f - (pi * f).sum(-1, keepdim=True)

    def fit(self, batch: Batch, lr: float, epochs: int, minibatches: int) -> None:
        """Least squares on the batch's advantages, with its weights: epochs × minibatches of Adam."""
        mean_square = (batch.weight * batch.adv.square()).sum() / batch.weight.sum()
        self.scale.copy_(mean_square.sqrt().clamp(min=1e-8))
        parts = (
            self.policy.features(batch.obs),
            self.policy.dist(batch.obs).exp(),
            batch.act.unsqueeze(-1),
            (batch.adv / self.scale).unsqueeze(-1),
            (batch.weight / batch.weight.mean()).unsqueeze(-1),
        )
        for _ in range(epochs):
            for piece in shuffled(dict(enumerate(parts)), minibatches, self.generator):
                x, pi, act, adv, weight = piece.values()
                error = weight * (adv - self._centred(x, pi).gather(1, act)) / len(x)
                # ∂A(s,a)/∂f(s,b) = 1[b = a] − π(b|s)
                grad = self.kernel.vjp((-error * pi).scatter_add_(1, act, error))
                self.optimizer.step(self.flat, grad, lr)


def fit_advantage(
    policy: Policy,
    batch: Batch,
    network: nn.Module,
    *,
    lr: float = 3e-3,
    epochs: int = 100,
    minibatches: int = 4,
    seed: int = 0,
) -> AdvantageRegressor:
    """An advantage regressor fitted on the (obs, act, adv) of a batch from `policy`, which must not have moved since.

    network: features (B, *) → (B, A). Fit it on other trajectories than those it is then used on: on its own it is biased.
    """
    advantage = AdvantageRegressor(network, policy, seed=seed)
    advantage.fit(batch, lr, epochs, minibatches)
    return advantage
