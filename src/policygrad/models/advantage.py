"""The regression of advantages A(s,a) on given data, for Discrete actions."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from policygrad.data import Batch
from policygrad.models.ascent import epochs_of, minibatch_ascent
from policygrad.models.flat import FlatModule
from policygrad.models.optim import Adam
from policygrad.models.policy import Policy
from policygrad.models.workspace import AscentPlan
from policygrad.pieces import shuffled
from policygrad.total import total


class AdvantageRegressor(FlatModule):
    """A(s,a) = f(s,a) − Σ_b π(b|s) f(s,b), f a network with one output per action: centred under π, E_{a∼π}[A(s,a)] = 0.

    For gains over old states and all actions, Σ_a π'(a|s) A(s,a), in place of the one action sampled. π is the policy that
    gave the data, kept as it was. Only differences between actions are learned: where the advantages' mean given (s, a) is
    A^π and f is rich enough, the minimum of E[(adv − A(s,a))²] is A^π.
    """

    scale: Tensor

    def __init__(self, network: nn.Module, policy: Policy, *, kernel: str = "auto", seed: int = 0) -> None:
        super().__init__()
        if policy.head.actions is None:
            raise TypeError(f"advantages of every action need Discrete ones, and the policy's head is {policy.head}")
        self.network = network
        self.policy = deepcopy(policy)
        self.register_buffer("scale", torch.ones(()))
        self.optimizer = Adam()
        self.generator = torch.Generator().manual_seed(int(seed))
        self.flatten(kernel)

    def __call__(self, obs: Tensor) -> Tensor:
        """A of every action: (B, A)."""
        return self.scale * self._centred(self.policy.features(obs), self._pi(self.policy, obs))

    def gain(self, policy: Policy, obs: Tensor) -> Tensor:
        """Σ_a π'(a|s) A(s,a) for another policy π', (B,): its expected advantage over π in these states; 0 for π itself."""
        return (self._pi(policy, obs) * self(obs)).sum(-1)

    @staticmethod
    def _pi(policy: Policy, obs: Tensor) -> Tensor:
        return policy.head.probabilities(policy.dist(obs))

    def _centred(self, features: Tensor, pi: Tensor) -> Tensor:
        f = self.kernel.forward(features)
        return f - (pi * f).sum(-1, keepdim=True)

    def fit(self, batch: Batch, lr: float, epochs: int, minibatches: int) -> None:
        """Least squares on the batch's advantages, with its weights: epochs × minibatches of Adam."""
        whole = total(batch.weight.sum())
        mean_square = total((batch.weight * batch.adv.square()).sum()) / whole
        self.scale.copy_(mean_square.sqrt().clamp(min=1e-8))
        rows = {
            "features": self.policy.features(batch.obs),
            "pi": self._pi(self.policy, batch.obs),
            "act": batch.act.unsqueeze(-1),
            "adv": (batch.adv / self.scale).unsqueeze(-1),
            "weight": (batch.weight / (whole / total(len(batch)))).unsqueeze(-1),  # 1 on average
        }

        def gradient(piece: tuple[dict[str, Tensor], int]) -> Tensor:
            mb, size = piece
            pi, act = mb["pi"], mb["act"]
            error = mb["adv"] - self._centred(mb["features"], pi).gather(1, act)
            error = mb["weight"] * error / size
            # ∂A(s,a)/∂f(s,b) = 1[b = a] − π(b|s)
            return self.kernel.vjp((-error * pi).scatter_add_(1, act, error))

        how = AscentPlan(self.optimizer, lr, None, minibatches, self.generator)
        ascent = epochs_of(self.flat, lambda: shuffled(rows, minibatches, self.generator), gradient, how)
        minibatch_ascent(ascent, epochs, owner="the advantage regressor", remedy="lower lr")


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
    """An advantage regressor fitted on the (obs, act, adv) of a batch from `policy`, which must not have changed since.

    network: features (B, *) → (B, A). Fit it on other trajectories than those it is then used on: on its own it is biased.
    """
    advantage = AdvantageRegressor(network, policy, seed=seed)
    advantage.fit(batch, lr, epochs, minibatches)
    return advantage
