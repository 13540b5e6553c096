"""Networks: the MLP, the table, and the wrapper that connects any body to a head."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from torch import Tensor, nn

from policygrad.models.body_trial import try_body
from policygrad.tree import flat

MAX_FOURIER = 10_000

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


class MLP(nn.Module):
    """obs (B, *) → flattened → hidden layers → (B, outputs), linear at the end.

    Orthogonal weights, zero biases: gain √2 for the hidden layers, `output_gain` for the last (0.01 makes the first policy
    nearly uniform, 1 suits a critic; Andrychowicz et al. 2020, arXiv 2006.05990).
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        activation: str = "tanh",
        output_gain: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden sizes must be positive, got {tuple(hidden)}")
        self.activation = activation
        sizes = [inputs, *hidden, outputs]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        for layer in self.layers:
            last = layer is self.layers[-1]
            init_linear(layer, output_gain if last else math.sqrt(2.0), generator)
        self.nonlinearity = ACTIVATIONS[activation]()

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers[-1](self.body(obs))

    def body(self, obs: Tensor) -> Tensor:
        """The outputs of the last hidden layer, (B, F)."""
        x = flat(obs)
        for layer in self.layers[:-1]:
            x = self.nonlinearity(layer(x))
        return x


class TabularNetwork(nn.Module):
    """A table with one number per state and output, for one-hot observations: (B, S) → (B, outputs). All are 0 at first."""

    def __init__(self, states: int, outputs: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(states, outputs))

    def forward(self, obs: Tensor) -> Tensor:
        return self.body(obs) @ self.table

    def body(self, obs: Tensor) -> Tensor:
        """The observations, as there is no hidden layer."""
        return obs


class FourierFeatures(nn.Module):
    """φ_c(s) = cos(π c·x) for every c in {0, …, order}ᵈ, x the d numbers of a bounded Box scaled to [0, 1]: (B, *) → (B, F).

    As a body it makes policies and critics linear in these features: `body=lambda space: FourierFeatures(space, 3)`, with
    logits θ_a·φ(s) and ∇ log π(a|s) = φ(s) (1[a = b] − π(b|s)) for each b. Konidaris, Osentoski & Thomas 2011, eq. 4.
    low, high: bounds instead of the space's, where those are infinite or far away; beyond them x is clipped.
    """

    frequencies: Tensor
    low: Tensor
    width: Tensor

    def __init__(
        self, space: spaces.Space, order: int, low: ArrayLike | None = None, high: ArrayLike | None = None
    ) -> None:
        super().__init__()
        if not isinstance(space, spaces.Box):
            raise TypeError(f"FourierFeatures need a Box to observe, got {space}")
        low = np.array(space.low if low is None else low, np.float64).reshape(-1)
        high = np.array(space.high if high is None else high, np.float64).reshape(-1)
        if not np.isfinite(high - low).all() or (high <= low).any():
            raise ValueError(f"FourierFeatures need finite bounds, low below high: {space}; give low= and high=")
        if order < 1 or (order + 1) ** len(low) > MAX_FOURIER:
            raise ValueError(f"order must be at least 1 and give at most {MAX_FOURIER:,} features, got {order}")
        grid = itertools.product(range(order + 1), repeat=len(low))
        self.register_buffer("frequencies", math.pi * torch.tensor(list(grid), dtype=torch.float32))
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32))
        self.register_buffer("width", torch.tensor(high - low, dtype=torch.float32))

    def forward(self, obs: Tensor) -> Tensor:
        x = ((flat(obs) - self.low) / self.width).clamp(0.0, 1.0)
        return torch.cos(x @ self.frequencies.T)


class Parts(nn.Module):
    """A body for Dict or Tuple observations: `tree` gives it what the space says, instead of rows of numbers."""

    def __init__(self, tree: Callable[[Tensor], Any], body: nn.Module) -> None:
        super().__init__()
        self.tree, self.body = tree, body

    def forward(self, features: Tensor) -> Tensor:
        return self.body(self.tree(features))


_BODIES: WeakSet[nn.Module] = WeakSet()  # modules in use: flat parameters can be views of one vector only


class BodyNetwork(nn.Module):
    """Any module as the body, obs (B, *) → features (B, F), followed by a linear output layer."""

    def __init__(
        self,
        body: nn.Module,
        example: Tensor,
        outputs: int,
        output_gain: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        own = body.body if isinstance(body, Parts) else body
        if own in _BODIES:
            raise ValueError("this module is the body of another network already: pass copy.deepcopy(module)")
        features = try_body(body, own, example)
        _BODIES.add(own)
        self.body = body
        self.output = nn.Linear(features, outputs)
        init_linear(self.output, output_gain, generator)

    def forward(self, obs: Tensor) -> Tensor:
        return self.output(self.body(obs))


class WithLogStd(nn.Module):
    """Puts a learned, state-independent log-std after a network's mean: (B, D) → (B, 2D). Outputs that are not the mean's, of
    which there may be K, stay the last: (B, D + K) → (B, 2D + K).
    """

    def __init__(self, mean: nn.Module, dims: int, log_std: float = 0.0) -> None:
        super().__init__()
        self.mean = mean
        self.log_std = nn.Parameter(torch.full((dims,), float(log_std)))

    def forward(self, obs: Tensor) -> Tensor:
        out, dims = self.mean(obs), len(self.log_std)
        if out.shape[-1] == dims:
            return torch.cat([out, self.log_std.expand_as(out)], dim=-1)
        mean, others = out[..., :dims], out[..., dims:]
        return torch.cat([mean, self.log_std.expand_as(mean), others], dim=-1)


class WithAction(nn.Module):
    """The features that a body makes of the observation, and the action, through MLPs: (B, F + D) → (B, K)."""

    def __init__(self, body: nn.Module, top: nn.Module, shape: tuple[int, ...], dims: int) -> None:
        super().__init__()
        self.body, self.top, self.shape, self.dims = body, top, shape, dims

    def forward(self, inputs: Tensor) -> Tensor:
        obs, act = inputs[:, : -self.dims], inputs[:, -self.dims :]
        return self.top(torch.cat([torch.relu(self.body(obs.reshape(-1, *self.shape))), act], dim=-1))


def inner_network(network: nn.Module) -> nn.Module:
    """The network whose outputs a log-std was put beside, or the network itself."""
    return network.mean if isinstance(network, WithLogStd) else network


def output_layer(network: nn.Module) -> nn.Linear:
    """The last linear layer of an MLP, or of a body's network."""
    layer = network.layers[-1] if isinstance(network, MLP) else network.output
    assert isinstance(layer, nn.Linear)
    return layer


def init_linear(layer: nn.Module, gain: float, generator: torch.Generator | None) -> None:
    """Orthogonal weight with the given gain, zero bias."""
    assert isinstance(layer, nn.Linear)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
