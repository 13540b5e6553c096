"""The policy: normaliser → network → head, on flat parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.models.flat import FlatModule
from policygrad.models.heads import Categorical, Gaussian, Head
from policygrad.models.kernels import Kernel, trainable
from policygrad.models.networks import MLP, BodyNetwork, WithLogStd
from policygrad.models.normalizer import Normalizer


@dataclass(frozen=True)
class Evaluation:
    """One forward pass of a policy on a batch, and the gradient of any weighted score at it.

    Valid until the policy's next forward pass, which reuses the memory; `gradient` raises RuntimeError after that.
    """

    kernel: Kernel
    head: Head
    dist: Tensor  # (B, P)
    act: Tensor  # (B, *)
    logp: Tensor  # (B,)
    passes: int  # the kernel's count at this pass

    def gradient(self, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        """Σ_b weight_b ∇log π(a_b|s_b) + ent_weight_b ∇entropy_b, the weights held constant: (P,)."""
        if self.kernel.passes != self.passes:
            raise RuntimeError("the policy has made another forward pass since: evaluate again, then take the gradient")
        return self.kernel.pull(self.head.gradient(self.dist, self.act, weight, ent_weight))


class Policy(FlatModule):
    """π(a|s) = head(network(normaliser(s))). `policy(obs)` is the autograd path, differentiable and for any use;
    `dist`, `evaluate` and `outputs` are the fast ones, through the kernel.
    """

    def __init__(
        self, network: nn.Module, head: Head, normalizer: Normalizer | None = None, kernel: str = "auto"
    ) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.normalizer = normalizer
        self.flatten(kernel)

    def features(self, obs: Tensor) -> Tensor:
        """Observations as the networks see them, the critic's included."""
        obs = obs.to(self.flat.dtype)
        return obs if self.normalizer is None else self.normalizer(obs)

    def forward(self, obs: Tensor) -> Tensor:
        """The distribution (B, P), with its graph."""
        return self.head.canonical(self.network(self.features(obs)))

    def logp(self, obs: Tensor, act: Tensor) -> Tensor:
        """Log π(a|s), (B,), with its graph."""
        return self.head.logp(self(obs), act)

    def dist(self, obs: Tensor) -> Tensor:
        """The distribution (B, P), no graph."""
        return self.head.canonical(self.kernel.forward(self.features(obs)))

    def evaluate(self, obs: Tensor, act: Tensor) -> Evaluation:
        """Log-probabilities of a batch, no graph, ready to be differentiated with `Evaluation.gradient`."""
        dist = self.dist(obs)
        return Evaluation(self.kernel, self.head, dist, act, self.head.logp(dist, act), self.kernel.passes)

    def outputs(self, obs: np.ndarray) -> np.ndarray:
        """The head's inputs for a batch of observations, in numpy: what acting needs."""
        if self.normalizer is not None:
            obs = self.features(torch.from_numpy(obs)).numpy()
        return self.kernel.outputs(obs)

    def gradient(self, gain: Tensor) -> Tensor:
        """∇θ of any scalar built from `policy(obs)`, by autograd, as one vector (P,)."""
        grads = torch.autograd.grad(gain, trainable(self.network))
        return torch.cat([g.reshape(-1) for g in grads])


Body = nn.Module | Callable[[spaces.Space], nn.Module]


def make_head(action_space: spaces.Space) -> Head:
    """The head for an action space: Discrete → Categorical, Box → Gaussian."""
    if isinstance(action_space, spaces.Discrete):
        return Categorical(int(action_space.n))
    if isinstance(action_space, spaces.Box) and np.issubdtype(action_space.dtype, np.floating):
        return Gaussian(action_space.shape)
    raise TypeError(f"unsupported action space {action_space}: expected Discrete or a floating-point Box")


def check_observation_space(space: spaces.Space) -> spaces.Box:
    """Box observations of any shape."""
    if not isinstance(space, spaces.Box):
        raise TypeError(f"unsupported observation space {space}: expected Box (wrap others, e.g. FlattenObservation)")
    return space


def make_network(
    observation_space: spaces.Space,
    outputs: int,
    *,
    hidden: Sequence[int],
    activation: str,
    output_gain: float,
    generator: torch.Generator,
    body: Body | None = None,
) -> nn.Module:
    """An MLP, or `body` (a module, or a function of the observation space that makes one) with a linear layer after it."""
    box = check_observation_space(observation_space)
    if body is None:
        return MLP(int(np.prod(box.shape)), hidden, outputs, activation, output_gain, generator)
    module = body if isinstance(body, nn.Module) else body(observation_space)
    return BodyNetwork(module, torch.zeros(2, *box.shape), outputs, output_gain, generator)


def make_policy(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
    log_std: float = 0.0,
    normalize_obs: bool = False,
    body: Body | None = None,
    kernel: str = "auto",
    seed: int = 0,
) -> Policy:
    """A policy for the given spaces, with a fresh network. Raises TypeError, naming the space, for spaces not supported."""
    head = make_head(action_space)
    outputs = head.dims if isinstance(head, Gaussian) else head.size
    generator = torch.Generator().manual_seed(seed)
    network = make_network(
        observation_space,
        outputs,
        hidden=hidden,
        activation=activation,
        output_gain=0.01,
        generator=generator,
        body=body,
    )
    if isinstance(head, Gaussian):
        network = WithLogStd(network, head.dims, log_std)
    normalizer = Normalizer(observation_space.shape or ()) if normalize_obs else None
    return Policy(network, head, normalizer, kernel)
