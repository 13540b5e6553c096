"""K MLPs of one shape that see the same inputs, side by side: a twin critic is K = 2.

They have one vector of parameters, and are computed in few large products.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor, nn

from policygrad.models.activations import QUIET, activate, slope_of
from policygrad.models.networks import ACTIVATIONS, init_linear


class StackedMLP(nn.Module):
    """Inputs (B, I) → outputs (B, K), one number from each of K independent MLPs. Weights as in `MLP`, biases 0."""

    def __init__(
        self,
        count: int,
        inputs: int,
        hidden: Sequence[int],
        activation: str = "relu",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")
        self.activation, self.count = activation, count
        self.nonlinearity = ACTIVATIONS[activation]()
        sizes = list(itertools.pairwise([inputs, *hidden, 1]))
        self.weights = nn.ParameterList(torch.zeros(count, o, i) for i, o in sizes)
        self.biases = nn.ParameterList(torch.zeros(count, o) for _, o in sizes)
        for k in range(count):
            for weight in self.weights:
                last = weight is self.weights[-1]
                layer = nn.Linear(weight.shape[2], weight.shape[1])
                init_linear(layer, 1.0 if last else math.sqrt(2.0), generator)
                weight.data[k] = layer.weight.data

    def forward(self, inputs: Tensor) -> Tensor:
        h = inputs.expand(self.count, *inputs.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2))
            if i < len(self.weights) - 1:
                h = self.nonlinearity(h)
        return h.squeeze(-1).transpose(0, 1)


class StackedKernel:
    """`StackedMLP` in closed form, a `Kernel`: the equations of `DenseKernel` for arrays (K, B, width)."""

    name = "closed_form"

    def __init__(self, network: StackedMLP, flat: Tensor) -> None:
        self.activation = network.activation
        self.grad = torch.zeros_like(flat)
        self.weights, self.biases = self._views(network, flat.numpy())
        self.weight_grads, self.bias_grads = self._views(network, self.grad.numpy())
        self.spans = self._views(network, np.arange(len(flat)))
        self.dtype = flat.numpy().dtype
        self.inputs: list[np.ndarray] = []  # of every layer, (K, B, width); of the first, (B, I)
        self.scratch: dict[int, tuple[list[np.ndarray], list[np.ndarray]]] = {}
        self.slopes: dict[int, np.ndarray] = {}
        self.passes = 0
        self._first: StackedKernel | None = None

    @staticmethod
    def _views(network: StackedMLP, flat: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        parts, start = [], 0
        for p in [*network.weights, *network.biases]:
            parts.append(flat[start : start + p.numel()].reshape(p.shape))
            start += p.numel()
        return parts[: len(network.weights)], parts[len(network.weights) :]

    def first(self) -> StackedKernel:
        """The kernel of the first of the K alone, on the same parameters; it has no gradient by them."""
        if self._first is None:
            alone = self._first = copy(self)
            alone.weights, alone.biases = [w[:1] for w in self.weights], [b[:1] for b in self.biases]
            alone.scratch, alone.slopes = {}, {}
        return self._first

    def forward(self, obs: Tensor, grad: bool = True) -> Tensor:
        return torch.from_numpy(self.outputs(obs.numpy()))

    @QUIET
    def outputs(self, obs: np.ndarray) -> np.ndarray:
        self.passes += 1
        h = np.ascontiguousarray(obs, self.dtype)
        self.inputs = [h]
        self.slopes.clear()
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for (weight, bias), z in zip(hidden, self._scratch(len(h))[0], strict=True):
            np.matmul(h, weight.swapaxes(1, 2), out=z)
            z += bias[:, None]
            h = activate(self.activation, z)
            self.inputs.append(h)
        out = np.matmul(h, last[0].swapaxes(1, 2))[..., 0] if hidden else h.dot(last[0][:, 0].T).T
        return out.T + last[1].T

    @QUIET
    def vjp(self, grad_out: Tensor) -> Tensor:
        ones = np.ones((1, len(grad_out)), self.dtype)
        for i, g in self._backwards(grad_out):
            np.matmul(g.swapaxes(1, 2), self.inputs[i], out=self.weight_grads[i])
            np.matmul(ones, g, out=self.bias_grads[i][:, None])  # Σ_b g_b
        return self.grad

    @QUIET
    def vjp_inputs(self, grad_out: Tensor) -> Tensor:
        g = next(g for i, g in self._backwards(grad_out) if i == 0)
        return torch.from_numpy(np.matmul(g, self.weights[0]).sum(0))

    def _backwards(self, grad_out: Tensor) -> Iterator[tuple[int, np.ndarray]]:
        """Every layer from the last to the first, with ∂/∂z of its outputs, (K, B, width)."""
        g = np.ascontiguousarray(grad_out.numpy().T)[..., None]
        for i in range(len(self.weights) - 1, -1, -1):
            yield i, g
            if i:
                weight, below = self.weights[i], self._scratch(len(grad_out))[1][i - 1]
                g = np.multiply(g, weight, out=below) if weight.shape[1] == 1 else np.matmul(g, weight, out=below)
                g *= self._slope(i)

    @QUIET
    def jvp(self, v: Tensor) -> Tensor:
        direction, along = v.numpy(), None
        for i, weight in enumerate(self.weights):
            z = np.matmul(self.inputs[i], direction[self.spans[0][i]].swapaxes(1, 2))
            z += direction[self.spans[1][i]][:, None]
            if along is not None:
                z += np.matmul(along, weight.swapaxes(1, 2))
            if i < len(self.weights) - 1:
                z *= self._slope(i + 1)
            along = z
        assert along is not None
        return torch.from_numpy(along[..., 0].T)

    def _scratch(self, rows: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Memory for the hidden layers of so many rows, (K, rows, width): for the way forwards, and for the way back."""
        if rows not in self.scratch:
            if len(self.scratch) > 8:
                self.scratch.clear()
            shapes = [(len(b), rows, b.shape[1]) for b in self.biases[:-1]]
            forwards, backwards = ([np.empty(shape, self.dtype) for shape in shapes] for _ in range(2))
            self.scratch[rows] = forwards, backwards
        return self.scratch[rows]

    def _slope(self, i: int) -> np.ndarray:
        if i not in self.slopes:
            h = self.inputs[i]
            self.slopes[i] = slope_of(self.activation, h, self._scratch(h.shape[1])[0][i - 1])
        return self.slopes[i]
