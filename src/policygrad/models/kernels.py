"""Network backends: forward, vector-Jacobian and Jacobian-vector products with the flat parameter vector.

    out  = kernel.forward(obs)          (B, *) → (B, outputs), no graph
    grad = kernel.vjp(grad_out)         (B, outputs) → (P,): Σ_b grad_outᵀ ∂out_b/∂θ, for the last forward
    out' = kernel.jvp(v)                (P,) → (B, outputs): ∂out_b/∂θ · v, for the last forward
    g    = kernel.vjp_inputs(grad_out)  (B, outputs) → (B, *): grad_outᵀ ∂out_b/∂obs_b, for the last forward

`AutogradKernel` works for every nn.Module and is the reference in the tests. `DenseKernel` is the closed form for MLPs in
numpy, on the same memory: on a CPU its calls cost a third of torch's and its tanh a sixth. Both return a buffer of their
own from `vjp`, which the next one overwrites.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from policygrad.errors import UserError
from policygrad.models.activations import QUIET, activate, slope_of
from policygrad.models.networks import MLP, TabularNetwork, WithLogStd
from policygrad.models.stacked import StackedKernel, StackedMLP
from policygrad.tree import flat, to_numpy

KERNELS = ("auto", "autograd", "closed_form", "compiled")


class SecondDerivativeError(UserError, RuntimeError):
    """A network can be differentiated only once: it has gradients, but no Fisher-vector products."""


class Kernel(Protocol):
    """The contract of network backends."""

    name: str

    @property
    def passes(self) -> int:
        """Forward passes so far: an `PolicyEvaluation` knows by it whether the kernel has moved on."""
        ...

    def forward(self, obs: Tensor, grad: bool = True) -> Tensor:
        """Outputs (B, outputs), detached. grad: whether a `vjp` or `jvp` may follow; without, there is no graph."""
        ...

    def outputs(self, obs: np.ndarray) -> np.ndarray:
        """`forward` in numpy, for acting."""
        ...

    def vjp(self, grad_out: Tensor) -> Tensor:
        """Σ_b grad_out_b · ∂out_b/∂θ, (P,), at the observations of the last forward."""
        ...

    def jvp(self, v: Tensor) -> Tensor:
        """∂out_b/∂θ · v, (B, outputs), for a direction v (P,), at the observations of the last forward."""
        ...

    def vjp_inputs(self, grad_out: Tensor) -> Tensor:
        """grad_out_bᵀ ∂out_b/∂obs_b of every row, in the shape of the observations of the last forward."""
        ...


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that gradients move."""
    return [p for p in network.parameters() if p.requires_grad]


def make_kernel(network: nn.Module, flat: Tensor, choice: str) -> Kernel:
    """The kernel by its name; "auto" and "compiled": the closed form if there is one (for an MLP on a CPU), autograd otherwise.
    Compiled functions take whole epochs, see `compiling.py`; for single passes there is the closed form.
    """
    if choice not in KERNELS:
        raise ValueError(f"kernel must be one of {KERNELS}, got {choice!r}")
    whole = len(flat) == sum(p.numel() for p in network.parameters())
    if choice != "autograd" and whole and flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        if isinstance(network, MLP):
            return DenseKernel(network, flat)
        if isinstance(network, TabularNetwork):
            return TableKernel(network, flat)
        if isinstance(network, StackedMLP):
            return StackedKernel(network, flat)
        if isinstance(network, WithLogStd) and isinstance(network.mean, MLP):
            return LogStdKernel(network, flat)
    if choice == "closed_form":
        raise ValueError("a closed form exists for MLPs and tables on a CPU only: use kernel='autograd'")
    return AutogradKernel(network, flat)


class AutogradKernel:
    """Reverse mode by torch, for any network."""

    name = "autograd"

    def __init__(self, network: nn.Module, flat: Tensor) -> None:
        self.network = network
        self.parameters = trainable(network)
        self.grad = torch.zeros_like(flat)
        self.obs: Tensor | None = None
        self.out: Tensor | None = None
        self.pullback: tuple[Tensor, tuple[Tensor, ...]] | None = None
        self.passes = 0

    def forward(self, obs: Tensor, grad: bool = True) -> Tensor:
        self.passes += 1
        self.obs = self.out = self.pullback = None
        if grad and isinstance(obs, Tensor):  # a policy of one's own may hand more to its network
            self.obs = obs.detach().requires_grad_(obs.is_floating_point())
            obs = self.obs.clone()  # which a body may change in place
        with torch.set_grad_enabled(grad):
            out = self.network(obs)
        if grad:
            self.out = out
        return out.detach()

    def outputs(self, obs: np.ndarray) -> np.ndarray:
        return to_numpy(self.forward(torch.from_numpy(obs).to(self.grad), grad=False))

    def _graph(self) -> Tensor:
        if self.out is None:
            raise RuntimeError("the last pass was made without a graph: make a forward pass with grad=True first")
        return self.out

    def vjp(self, grad_out: Tensor) -> Tensor:
        grads = torch.autograd.grad(
            self._graph(), self.parameters, grad_out, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([g.reshape(-1) for g in grads], out=self.grad)

    def vjp_inputs(self, grad_out: Tensor) -> Tensor:
        out = self._graph()
        assert self.obs is not None
        return torch.autograd.grad(
            out, self.obs, grad_out, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]

    def jvp(self, v: Tensor) -> Tensor:
        # uᵀ(∂out/∂θ) is linear in u, so its derivative along v is ∂out/∂θ · v: forward mode out of two reverse passes, for
        # every operation that can be differentiated twice; forward-mode rules of torch's own are fewer
        out = self._graph()
        try:
            return self._jvp(out, v)
        except RuntimeError as error:
            raise SecondDerivativeError(
                f"a Fisher-vector product needs this network's second derivative, and torch has none ({error}). NPG and TRPO "
                "need a body without that operation; attention has one inside torch.nn.attention.sdpa_kernel(SDPBackend.MATH)."
            ) from error

    def _jvp(self, out: Tensor, v: Tensor) -> Tensor:
        if self.pullback is None:
            with torch.enable_grad():
                u = torch.zeros_like(out, requires_grad=True)
                grads = torch.autograd.grad(
                    out, self.parameters, u, create_graph=True, allow_unused=True, materialize_grads=True
                )
            self.pullback = u, grads
        u, grads = self.pullback
        parts = [part.view_as(g) for part, g in zip(v.split([g.numel() for g in grads]), grads, strict=True)]
        used = [i for i, g in enumerate(grads) if g.requires_grad]  # a parameter that does nothing has no graph
        return torch.autograd.grad(
            [grads[i] for i in used], u, [parts[i] for i in used], retain_graph=True, materialize_grads=True
        )[0]


class DenseKernel:
    """The MLP in closed form: with h₀ = obs, z_l = h_{l−1}Wᵀ + b, h_l = f(z_l) and g = ∂/∂z of the layer above,

    ∂/∂W = gᵀh_{l−1},   ∂/∂b = Σ_b g_b,   g ← (gW) · f'(z_{l−1}),

    and along a direction (V, v) of the parameters,   z' = h_{l−1}Vᵀ + v + h'_{l−1}Wᵀ,   h' = z' · f'(z).
    """

    name = "closed_form"

    def __init__(self, network: MLP, flat: Tensor, offset: int = 0, grad: Tensor | None = None) -> None:
        self.activation = network.activation
        self.grad = torch.zeros_like(flat) if grad is None else grad
        theta, grads = flat.numpy(), self.grad.numpy()
        self.spans: list[tuple[int, int, int]] = []  # of every layer: where its weight begins, its bias, the next layer
        self.layers: list[tuple[np.ndarray, np.ndarray]] = []
        self.layer_grads: list[tuple[np.ndarray, np.ndarray]] = []
        for layer in network.layers:
            assert isinstance(layer, nn.Linear)
            outputs, inputs = layer.weight.shape
            split, stop = offset + outputs * inputs, offset + outputs * inputs + outputs
            self.spans.append((offset, split, stop))
            self.layers.append((theta[offset:split].reshape(outputs, inputs), theta[split:stop]))
            self.layer_grads.append((grads[offset:split].reshape(outputs, inputs), grads[split:stop]))
            offset = stop
        *self.hidden, self.last = [(weight.T, bias) for weight, bias in self.layers]
        self.dtype = theta.dtype
        self.ones = np.ones(0, theta.dtype)
        self.buffers: dict[int, list[np.ndarray]] = {}
        self.shape: tuple[int, ...] = ()  # of the last observations
        self.inputs: list[np.ndarray] = []
        self.slopes: dict[int, np.ndarray] = {}
        self.passes = 0

    def forward(self, obs: Tensor, grad: bool = True) -> Tensor:
        return torch.from_numpy(self.outputs(obs.numpy()))

    @QUIET
    def outputs(self, obs: np.ndarray) -> np.ndarray:
        self.passes += 1
        self.shape = obs.shape
        h = np.ascontiguousarray(flat(obs), self.dtype)
        self.inputs = [h]
        for (weight_t, bias), z in zip(self.hidden, self._scratch(len(h)), strict=True):
            h.dot(weight_t, z)  # the method: of a batch of eight, `np.dot` costs half as much again
            z += bias
            h = activate(self.activation, z)
            self.inputs.append(h)
        self.slopes.clear()
        weight_t, bias = self.last
        out = h.dot(weight_t)
        out += bias
        return out

    @QUIET
    def vjp(self, grad_out: Tensor) -> Tensor:
        g = grad_out.numpy()
        if len(self.ones) < len(g):
            self.ones = np.ones(len(g), self.dtype)
        ones = self.ones[: len(g)]
        for i in range(len(self.layers) - 1, -1, -1):
            h, (grad_weight, grad_bias) = self.inputs[i], self.layer_grads[i]
            g.T.dot(h, grad_weight)
            ones.dot(g, grad_bias)
            if i:
                g = g.dot(self.layers[i][0])
                g *= self._slope(i)
        return self.grad

    @QUIET
    def vjp_inputs(self, grad_out: Tensor) -> Tensor:
        g = grad_out.numpy()
        for i in range(len(self.layers) - 1, -1, -1):
            g = g.dot(self.layers[i][0])
            if i:
                g *= self._slope(i)
        return torch.from_numpy(g).view(self.shape)

    @QUIET
    def jvp(self, v: Tensor) -> Tensor:
        direction, along = v.numpy(), None
        for i, ((start, split, stop), (weight, _)) in enumerate(zip(self.spans, self.layers, strict=True)):
            z = np.dot(self.inputs[i], direction[start:split].reshape(weight.shape).T)
            z += direction[split:stop]
            if along is not None:
                z += np.dot(along, weight.T)
            if i < len(self.layers) - 1:
                z *= self._slope(i + 1)
            along = z
        return torch.from_numpy(along)

    def _scratch(self, rows: int) -> list[np.ndarray]:
        if rows not in self.buffers:
            if len(self.buffers) > 8:
                self.buffers.clear()
            self.buffers[rows] = [np.empty((rows, len(bias)), self.dtype) for _, bias in self.layers[:-1]]
        return self.buffers[rows]

    def _slope(self, i: int) -> np.ndarray:
        """f'(z) of the layer that made inputs[i]; computed once a forward pass."""
        if i not in self.slopes:
            h = self.inputs[i]
            self.slopes[i] = slope_of(self.activation, h, self._scratch(len(h))[i - 1])
        return self.slopes[i]


class TableKernel:
    """One linear map without a bias: out = obs · table, ∂/∂table = obsᵀ g."""

    name = "closed_form"

    def __init__(self, network: TabularNetwork, flat: Tensor) -> None:
        self.table = flat.numpy().reshape(network.table.shape)
        self.grad = torch.zeros_like(flat)
        self.obs = np.zeros((0, len(self.table)), self.table.dtype)
        self.passes = 0

    def forward(self, obs: Tensor, grad: bool = True) -> Tensor:
        return torch.from_numpy(self.outputs(obs.numpy()))

    @QUIET
    def outputs(self, obs: np.ndarray) -> np.ndarray:
        self.passes += 1
        self.obs = np.ascontiguousarray(obs, self.table.dtype)
        return np.dot(self.obs, self.table)

    @QUIET
    def vjp(self, grad_out: Tensor) -> Tensor:
        np.dot(self.obs.T, grad_out.numpy(), out=self.grad.numpy().reshape(self.table.shape))
        return self.grad

    @QUIET
    def vjp_inputs(self, grad_out: Tensor) -> Tensor:
        return torch.from_numpy(np.dot(grad_out.numpy(), self.table.T))

    @QUIET
    def jvp(self, v: Tensor) -> Tensor:
        return torch.from_numpy(np.dot(self.obs, v.numpy().reshape(self.table.shape)))


class LogStdKernel:
    """A DenseKernel for the mean and what is not the head's, see `WithLogStd`, and the log-std's own part of the vector: its
    gradient is the sum over the batch.
    """

    name = "closed_form"

    def __init__(self, network: WithLogStd, flat: Tensor) -> None:
        # network.parameters() lists a module's own parameters first: log_std leads the flat vector
        self.dims = len(network.log_std)
        self.log_std = flat[: self.dims]
        self.grad = torch.zeros_like(flat)
        assert isinstance(network.mean, MLP)
        self.mean = DenseKernel(network.mean, flat, self.dims, self.grad)

    @property
    def passes(self) -> int:
        return self.mean.passes

    def outputs(self, obs: np.ndarray) -> np.ndarray:
        out = self.mean.outputs(obs)
        mean = out[:, : self.dims]
        return np.concatenate([mean, np.broadcast_to(self.log_std.numpy(), mean.shape), out[:, self.dims :]], axis=-1)

    def forward(self, obs: Tensor, grad: bool = True) -> Tensor:
        return self._joined(self.mean.forward(obs), self.log_std)

    def vjp(self, grad_out: Tensor) -> Tensor:
        self.mean.vjp(self._without_log_std(grad_out))
        torch.sum(grad_out[:, self.dims : 2 * self.dims], 0, out=self.grad[: self.dims])
        return self.grad

    def vjp_inputs(self, grad_out: Tensor) -> Tensor:
        return self.mean.vjp_inputs(self._without_log_std(grad_out))  # which sees no observation

    def jvp(self, v: Tensor) -> Tensor:
        return self._joined(self.mean.jvp(v), v[: self.dims])

    def _joined(self, out: Tensor, log_std: Tensor) -> Tensor:
        mean = out[:, : self.dims]
        return torch.cat([mean, log_std.expand_as(mean), out[:, self.dims :]], dim=-1)

    def _without_log_std(self, grad_out: Tensor) -> Tensor:
        mean, others = grad_out[:, : self.dims], grad_out[:, 2 * self.dims :]
        return torch.cat([mean, others], dim=-1) if others.shape[1] else mean
