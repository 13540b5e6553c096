"""A policy as one torch module, from observations to actions of the environment: what TorchScript and ONNX are written from.

Everything is inside: the encoding of the observation, the normaliser, the network, the action mask, the most likely action or
a sample, scaling and clipping. The inputs are the parts of the observation, in the order of the space and in their own types
(floats as float32), each (n, *); then `action_mask` (n, A) bool, where there is one; then `memory` (n, M), of a policy that has
one, 0 where an episode begins; then `noise` (n, K), where actions are sampled, which the caller draws: a graph with a generator
of its own could be compared with nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.errors import UserError
from policygrad.models.continuous import BETA_MARGIN, LOG_STD_MAX, LOG_STD_MIN, Beta, Gaussian, SquashedGaussian
from policygrad.models.exploring import EDGE, ActionValues, Deterministic, ExploringPolicy
from policygrad.models.heads import MASK_PENALTY, Categorical, MultiCategorical
from policygrad.models.networks import WithLogStd
from policygrad.models.normalizer import Normalizer
from policygrad.models.observations import Encoding, Leaf
from policygrad.models.policy import NOISE, Policy
from policygrad.models.recurrent import RecurrentPolicy

HEADS = (Categorical, MultiCategorical, Gaussian, Beta, Deterministic)


class ExportError(UserError, ValueError):
    """A policy cannot be written in a format, or what was written does not act as the policy does."""


class Graph(nn.Module):
    """Inputs → actions (n, *) in the environment's type, and the memory (n, M) after them, of a policy that has one."""

    start: Tensor
    least: Tensor
    most: Tensor
    low: Tensor
    scale: Tensor

    def __init__(self, policy: Policy, action_space: spaces.Space, sample: bool) -> None:
        super().__init__()
        if not isinstance(policy.head, HEADS):
            raise ExportError(
                f"expected a head of policygrad, got {policy.head}: a head of your own cannot be exported"
            )
        if sample and isinstance(policy.head, Beta):
            raise ExportError(
                "samples of a Beta distribution need the inverse of its distribution function, which neither ONNX nor "
                "TorchScript has: export the most likely action, or use the format numpy"
            )
        assert policy.encoding is not None
        self.encoding: Encoding = policy.encoding
        self.network, self.head, self.sample = policy.network, policy.head, sample
        self.remembers = isinstance(policy, RecurrentPolicy)
        self.masked = bool(self.encoding.context)
        self.epsilon = float(policy.epsilon) if sample and isinstance(policy, ExploringPolicy) else 0.0
        self.parts = nn.ModuleList(PartFeatures(leaf) for leaf in self.encoding.leaves)
        self.normalizer = None if policy.normalizer is None else Frozen(policy.normalizer)
        self.choices = not isinstance(action_space, spaces.Box)
        self.action_shape, self.dtype = tuple(action_space.shape or ()), torch_type(action_space.dtype)
        for name, array in self._constants(action_space).items():
            self.register_buffer(name, torch.as_tensor(array))

    def _constants(self, space: spaces.Space) -> dict[str, Any]:
        """What actions are scaled, clipped and counted from with."""
        if not isinstance(space, spaces.Box):
            return {"start": np.asarray(getattr(space, "start", 0), np.int64)}
        bounds = {"least": space.low.astype(np.float64), "most": space.high.astype(np.float64)}
        scaled = not isinstance(self.head, Gaussian) or isinstance(self.head, SquashedGaussian)
        return bounds | ({"low": self.head.low, "scale": self.head.scale} if scaled else {})  # pyright: ignore

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        count = len(self.parts)
        features = [part(x) for part, x in zip(self.parts, inputs[:count], strict=True)]
        if self.encoding.parts:
            x = torch.cat(features, dim=-1)
        else:
            x = features[0]
        if self.normalizer is not None:
            x = self.normalizer(x)
        memory = self._remembered(x, inputs[count + self.masked]) if self.remembers else None
        out = (self.network(x) if memory is None else self._read(memory))[:, : self.head.size]
        mask = inputs[count].to(out.dtype) if self.masked else None
        if mask is not None:
            out = out + (mask - 1.0) * MASK_PENALTY
        noise = inputs[-1] if self.sample else None
        act = self.choose(out, mask, noise) if self.choices else self.steer(out, noise)
        return act if memory is None else (act, memory)

    def _remembered(self, x: Tensor, memory: Tensor) -> Tensor:
        """The memory after a step."""
        network: Any = self.network.mean if isinstance(self.network, WithLogStd) else self.network
        return network.advance(x, memory)

    def _read(self, memory: Tensor) -> Tensor:
        """What the network makes of a memory."""
        if not isinstance(self.network, WithLogStd):
            return self.network.read(memory)  # pyright: ignore[reportCallIssue]
        mean = self.network.mean.read(memory)  # pyright: ignore[reportCallIssue]
        return torch.cat([mean, self.network.log_std.expand_as(mean)], dim=-1)

    def choose(self, out: Tensor, mask: Tensor | None, noise: Tensor | None) -> Tensor:
        """Discrete actions."""
        values = isinstance(self.head, ActionValues)
        scores = out if noise is None or values else out + noise
        if isinstance(self.head, MultiCategorical):
            act = torch.stack([entry.argmax(-1) for entry in scores.split(self.head.sizes, dim=-1)], dim=-1)
            act = act.reshape(-1, *self.action_shape)
        else:
            act = scores.argmax(-1)
        if noise is not None and values:
            numbers = noise[:, 1:] if mask is None else noise[:, 1:] + (mask - 1.0) * MASK_PENALTY
            act = torch.where(noise[:, 0] < self.epsilon, numbers.argmax(-1), act)
        return (act + self.start).to(self.dtype)

    def steer(self, out: Tensor, noise: Tensor | None) -> Tensor:
        """Box actions."""
        head: Any = self.head
        d, squashed = head.dims, isinstance(head, SquashedGaussian)
        if isinstance(head, Beta):
            x = mode_of_beta(out, d)
        elif isinstance(head, Deterministic):
            x = torch.tanh(out)
            x = x if noise is None else (x + head.sigma * noise[:, :d]).clamp(-1.0, 1.0)
        elif noise is None:
            x = out[:, :d]
        else:
            x = out[:, :d] + out[:, d:].clamp(LOG_STD_MIN, LOG_STD_MAX).exp() * noise[:, :d]
        if noise is not None and self.epsilon > 0.0:
            uniform = 2.0 * noise[:, d + 1 :] - 1.0
            if squashed:  # the inverse tanh, which ONNX has for other types only
                u = uniform.clamp(EDGE - 1.0, 1.0 - EDGE)
                uniform = 0.5 * (torch.log(1.0 + u) - torch.log(1.0 - u))
            x = torch.where(noise[:, d : d + 1] < self.epsilon, uniform, x)
        x = (torch.tanh(x) if squashed else x).double().reshape(-1, *self.action_shape)
        if isinstance(head, Beta):
            x = self.low + self.scale * x
        elif squashed or isinstance(head, Deterministic):
            x = self.low + self.scale * (0.5 * (x + 1.0))
        return torch.minimum(torch.maximum(x, self.least), self.most).to(self.dtype)


class PartFeatures(nn.Module):
    """A part of the observation as features: floats, and choices one-hot."""

    entry: Tensor
    values: Tensor

    def __init__(self, leaf: Leaf) -> None:
        super().__init__()
        self.one_hot, self.flat = leaf.one_hot, bool(leaf.path) or leaf.one_hot
        if leaf.one_hot:
            entry, values = leaf._one_hot_columns
            self.register_buffer("entry", torch.from_numpy(entry))
            self.register_buffer("values", torch.from_numpy(values))

    def forward(self, x: Tensor) -> Tensor:
        if self.flat:
            x = x.reshape(x.shape[0], -1)
        if self.one_hot:
            x = x[:, self.entry] == self.values
        return x.float()


class Frozen(nn.Module):
    """The normaliser with its moments as they are now."""

    mean: Tensor
    inv_std: Tensor

    def __init__(self, normalizer: Normalizer) -> None:
        super().__init__()
        self.clip = normalizer.clip
        mean, inv_std = normalizer.cast(torch.float32)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("inv_std", inv_std.clone())

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * self.inv_std).clamp(-self.clip, self.clip)


def mode_of_beta(out: Tensor, dims: int) -> Tensor:
    """(α − 1)/(α + β − 2) with α, β = 1 + softplus(out), softplus(z) = max(z, 0) + log(1 + e^{−|z|})."""
    z = out.double()
    above = z.clamp(min=0.0) + torch.log(1.0 + torch.exp(-z.abs()))  # runtimes have no softplus of float64
    rest = above[:, :dims] + above[:, dims:]
    x = torch.where(rest > 1e-6, above[:, :dims] / rest.clamp(min=1e-6), 0.5)
    return x.clamp(BETA_MARGIN, 1.0 - BETA_MARGIN).float()


def torch_type(dtype: Any) -> torch.dtype:
    """The torch type of an array's type."""
    return getattr(torch, str(np.dtype(dtype)))


def draw(policy: Policy, rng: np.random.Generator, n: int) -> np.ndarray:
    """The noise of n samples as a graph takes it, (n, K) float32, drawn as `predict` draws it."""
    head: Any = policy.head
    begun: Any = policy.begin(policy.noise(rng, (n,))) if policy.stateful else None
    if isinstance(policy, RecurrentPolicy):
        begun = begun.get(NOISE)
    noise = policy.noise(rng, (n,))
    if begun is None:
        return noise.astype(np.float32)
    if isinstance(policy, ExploringPolicy):  # whose state is the noise itself
        return np.concatenate([begun, noise[:, head.dims :]], axis=-1).astype(np.float32)
    rho = head.rho
    return (rho * begun + math.sqrt(1.0 - rho**2) * noise[:, : head.dims]).astype(np.float32)
