"""The closed form of networks with a memory, in NumPy on the same memory: backpropagation through time, and its tangent.

torch's autograd is the reference. On a CPU it costs several times as much, since a step in time is a dozen small operations,
and torch's fused layers reset no memory inside a segment and are differentiated only once.

Arrays are time-major here: L steps of S segments, H units. x are the cell's inputs W e + b of all gates, u = U h + c what it
adds of its own, and d… are derivatives by these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from policygrad.models.activations import QUIET, activate, slope_of
from policygrad.models.kernels import DenseKernel, Kernel, make_kernel
from policygrad.models.memory import MemoryNetwork, Segments
from policygrad.models.networks import MLP, WithLogStd
from policygrad.tree import flat


def make_memory_kernel(network: nn.Module, flat: Tensor, choice: str) -> Kernel:
    """The closed form where the encoder is an MLP or nothing, on a CPU; autograd otherwise, or where it is asked for."""
    core = network.mean if isinstance(network, WithLogStd) else network
    assert isinstance(core, MemoryNetwork)
    whole = len(flat) == sum(p.numel() for p in network.parameters())
    known = encoder_of(core) is not None and whole and flat.is_cpu and flat.dtype in (torch.float32, torch.float64)
    if known and choice != "autograd":
        return MemoryKernel(core, flat, len(network.log_std) if isinstance(network, WithLogStd) else 0)
    return make_kernel(network, flat, choice)


def encoder_of(network: MemoryNetwork) -> MLP | nn.Flatten | None:
    """The encoder's MLP, its nothing, or None for a module of one's own."""
    encoder = network.encoder
    if isinstance(encoder, nn.Flatten):
        return encoder
    first = encoder[0] if isinstance(encoder, nn.Sequential) else None
    return first if isinstance(first, MLP) and type(first) is MLP else None


class MemoryKernel:
    """See `kernels.Kernel`, for `Segments`. dims: of a free log-std, which leads the flat vector and follows the outputs."""

    name = "closed_form"

    def __init__(self, network: MemoryNetwork, flat: Tensor, dims: int = 0) -> None:
        self.passes = 0
        self.grad = torch.zeros_like(flat)
        self.dims, self.theta, grads = dims, flat.numpy(), self.grad.numpy()
        found = encoder_of(network)
        self.encoder = DenseKernel(found, flat, dims, self.grad) if isinstance(found, MLP) else None
        self.activation = found.activation if isinstance(found, MLP) else ""
        start = dims + sum(p.numel() for p in network.encoder.parameters())
        parts = [*network.weights, *network.output.parameters()]  # W, U, b, c of the cell, V, d of the output
        stops = np.cumsum([start, *(p.numel() for p in parts)])
        self.places = [(slice(a, b), tuple(p.shape)) for a, b, p in zip(stops, stops[1:], parts, strict=False)]
        self.parts, self.grads = self._split(self.theta), self._split(grads)
        self.cell = GRU(network.size) if isinstance(network.cell, nn.GRU) else LSTM(network.size)

    def _split(self, vector: np.ndarray) -> list[np.ndarray]:
        return [vector[place].reshape(shape) for place, shape in self.places]

    @QUIET
    def advance(self, features: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One step, for acting: outputs (N, outputs) and the memory after it, of features (N, *) and the memory (N, M)."""
        W, U, b, c, V, d = self.parts
        self.passes += 1
        after = self.cell.step(self._encode(features) @ W.T + b, memory, U, c)
        return self._with_log_std(after[:, : self.cell.H] @ V.T + d), after

    @QUIET
    def forward(self, obs: Any, grad: bool = True) -> Tensor:
        W, U, b, c, V, d = self.parts
        rows: Segments = obs
        self.passes += 1
        self.shape = len(rows.first) // rows.length, rows.length
        self.encoded = self._encode(rows.features.numpy())
        first = self._by_time(rows.first.numpy())
        self.first = [np.nonzero(row)[0] for row in first]  # the segments in which an episode begins, of every step
        start = rows.memory.numpy()[:: rows.length].astype(self.theta.dtype)
        self.h = self._by_row(self.cell.forward(self._by_time(self.encoded @ W.T + b), start, self.first, U, c))
        return torch.from_numpy(self._with_log_std(self.h @ V.T + d))

    def outputs(self, obs: np.ndarray) -> np.ndarray:
        raise NotImplementedError("a network with a memory has no outputs of single observations: use advance")

    @QUIET
    def vjp(self, grad_out: Tensor) -> Tensor:
        W, U, _, _, V, _ = self.parts
        to_W, to_U, to_b, to_c, to_V, to_d = self.grads
        g = grad_out.numpy()
        if self.dims:
            self.grad.numpy()[: self.dims] = g[:, self.dims :].sum(0)
            g = g[:, : self.dims]
        np.dot(g.T, self.h, out=to_V)
        g.sum(0, out=to_d)
        dx, du, before = self.cell.backward(self._by_time(g @ V), self.first, U)
        np.dot(du.reshape(-1, du.shape[-1]).T, before.reshape(-1, self.cell.H), out=to_U)
        du.sum((0, 1), out=to_c)
        dx = self._by_row(dx)
        np.dot(dx.T, self.encoded, out=to_W)
        dx.sum(0, out=to_b)
        if self.encoder is not None:
            self.encoder.vjp(torch.from_numpy((dx @ W) * self._slope()))
        return self.grad

    @QUIET
    def jvp(self, v: Tensor) -> Tensor:
        W, U, _, _, V, _ = self.parts
        along = v.numpy()
        W_v, U_v, b_v, c_v, V_v, d_v = self._split(along)
        dx = self.encoded @ W_v.T + b_v
        if self.encoder is not None:
            dx += (self.encoder.jvp(v).numpy() * self._slope()) @ W.T
        dh = self._by_row(self.cell.tangent(self._by_time(dx), self.first, U, U_v, c_v))
        out = dh @ V.T + self.h @ V_v.T + d_v
        return torch.from_numpy(self._with_log_std(out, along[: self.dims]))

    def vjp_inputs(self, grad_out: Tensor) -> Tensor:
        raise NotImplementedError("the derivative of a network with a memory by its observations is not there")

    def _encode(self, features: np.ndarray) -> np.ndarray:
        if self.encoder is None:
            return flat(features).astype(self.theta.dtype, copy=False)
        self.linear = self.encoder.outputs(features)
        return activate(self.activation, self.linear)

    def _slope(self) -> np.ndarray:
        return slope_of(self.activation, self.encoded, self.linear)

    def _with_log_std(self, out: np.ndarray, log_std: np.ndarray | None = None) -> np.ndarray:
        if not self.dims:
            return out
        log_std = self.theta[: self.dims] if log_std is None else log_std
        return np.concatenate([out, np.broadcast_to(log_std, out.shape)], -1)

    def _by_time(self, x: np.ndarray) -> np.ndarray:
        """(S · L, *) → (L, S, *)."""
        return np.ascontiguousarray(x.reshape(*self.shape, *x.shape[1:]).swapaxes(0, 1))

    def _by_row(self, x: np.ndarray) -> np.ndarray:
        """(L, S, *) → (S · L, *)."""
        return np.ascontiguousarray(x.swapaxes(0, 1)).reshape(-1, *x.shape[2:])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e⁻ˣ), in place, by the tangent, which overflows nowhere."""
    x *= 0.5
    np.tanh(x, out=x)
    x *= 0.5
    x += 0.5
    return x


class GRU:
    """r, z = σ(x + u);  n = tanh(x_n + r u_n);  h' = n + z (h − n)."""

    def __init__(self, H: int) -> None:
        self.H = H

    def step(self, x: np.ndarray, memory: np.ndarray, U: np.ndarray, c: np.ndarray) -> np.ndarray:
        """The memory after one step."""
        return self.forward(x[None], memory, [np.zeros(0, int)], U, c)[0]

    def forward(
        self, x: np.ndarray, start: np.ndarray, first: list[np.ndarray], U: np.ndarray, c: np.ndarray
    ) -> np.ndarray:
        """What h (L, S, H) is after every step. x (L, S, 3H); start (S, H); first: in which segments an episode begins."""
        H, (L, S, _) = self.H, x.shape
        self.rz, self.n = np.empty((L, S, 2 * H), x.dtype), np.empty((L, S, H), x.dtype)
        self.u, self.before = np.empty_like(x), np.empty((L, S, H), x.dtype)
        h, U_t = np.empty((L, S, H), x.dtype), np.ascontiguousarray(U.T)
        now = start
        for t in range(L):
            before, u, rz, n = self.before[t], self.u[t], self.rz[t], self.n[t]
            before[...] = now
            if len(first[t]):
                before[first[t]] = 0.0
            np.dot(before, U_t, out=u)
            u += c
            np.add(x[t, :, : 2 * H], u[:, : 2 * H], out=rz)
            sigmoid(rz)
            np.multiply(rz[:, :H], u[:, 2 * H :], out=n)
            n += x[t, :, 2 * H :]
            np.tanh(n, out=n)
            now = h[t]
            np.subtract(before, n, out=now)
            now *= rz[:, H:]
            now += n
        return h

    def backward(
        self, dh: np.ndarray, first: list[np.ndarray], U: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives by x and by u, (L, S, 3H), from those by h; and h before every step."""
        H, r, z = self.H, self.rz[..., : self.H], self.rz[..., self.H :]
        by_n = (1.0 - z) * (1.0 - self.n * self.n)
        by_z = (self.before - self.n) * z * (1.0 - z)
        by_r = self.u[..., 2 * H :] * r * (1.0 - r)
        dx, du = np.empty_like(self.u), np.empty_like(self.u)
        carried = np.zeros_like(dh[0])
        for t in range(len(dh) - 1, -1, -1):
            g, x, u = dh[t] + carried, dx[t], du[t]
            n = np.multiply(g, by_n[t], out=x[:, 2 * H :])
            np.multiply(n, by_r[t], out=u[:, :H])
            np.multiply(g, by_z[t], out=u[:, H : 2 * H])
            np.multiply(n, r[t], out=u[:, 2 * H :])
            np.dot(u, U, out=carried)
            g *= z[t]
            carried += g
            if len(first[t]):
                carried[first[t]] = 0.0
        dx[..., : 2 * H] = du[..., : 2 * H]
        return dx, du, self.before

    def tangent(
        self, dx: np.ndarray, first: list[np.ndarray], U: np.ndarray, U_v: np.ndarray, c_v: np.ndarray
    ) -> np.ndarray:
        """How h (L, S, H) moves where x moves by dx, U by U_v and c by c_v."""
        H, z = self.H, self.rz[..., self.H :]
        own = self.before @ U_v.T + c_v
        slope, by_n = self.rz * (1.0 - self.rz), 1.0 - self.n * self.n
        dh, now = np.empty_like(self.n), np.zeros_like(self.n[0])
        for t in range(len(dx)):
            if len(first[t]):
                now[first[t]] = 0.0
            u = now @ U.T + own[t]
            rz = slope[t] * (dx[t, :, : 2 * H] + u[:, : 2 * H])
            n = rz[:, :H] * self.u[t, :, 2 * H :] + self.rz[t, :, :H] * u[:, 2 * H :] + dx[t, :, 2 * H :]
            n *= by_n[t]
            dh[t] = n + rz[:, H:] * (self.before[t] - self.n[t]) + z[t] * (now - n)
            now = dh[t].copy()
        return dh


class LSTM:
    """i, f, o = σ(x + u);  g = tanh(x + u);  c' = f c + i g;  h' = o tanh(c'). The memory is (h, c)."""

    def __init__(self, H: int) -> None:
        self.H = H

    def step(self, x: np.ndarray, memory: np.ndarray, U: np.ndarray, c: np.ndarray) -> np.ndarray:
        """The memory after one step."""
        h = self.forward(x[None], memory, [np.zeros(0, int)], U, c)[0]
        return np.concatenate([h, self.after[0]], -1)

    def forward(
        self, x: np.ndarray, start: np.ndarray, first: list[np.ndarray], U: np.ndarray, c: np.ndarray
    ) -> np.ndarray:
        """What h (L, S, H) is after every step. x (L, S, 4H); start (S, 2H); first: in which segments an episode begins."""
        H, (L, S, _) = self.H, x.shape
        self.gates = np.empty_like(x)  # i, f, g, o
        self.before, self.cells = np.empty((L, S, H), x.dtype), np.empty((L, S, H), x.dtype)
        self.after, self.tanh, h = (np.empty((L, S, H), x.dtype) for _ in range(3))
        U_t, now, cell = np.ascontiguousarray(U.T), start[:, :H], start[:, H:]
        x = x + c
        for t in range(L):
            before, cells, gates = self.before[t], self.cells[t], self.gates[t]
            before[...], cells[...] = now, cell
            if len(first[t]):
                before[first[t]] = cells[first[t]] = 0.0
            np.dot(before, U_t, out=gates)
            gates += x[t]
            sigmoid(gates[:, : 2 * H])
            np.tanh(gates[:, 2 * H : 3 * H], out=gates[:, 2 * H : 3 * H])
            sigmoid(gates[:, 3 * H :])
            cell, now = self.after[t], h[t]
            np.multiply(gates[:, H : 2 * H], cells, out=cell)
            cell += gates[:, :H] * gates[:, 2 * H : 3 * H]
            np.tanh(cell, out=self.tanh[t])
            np.multiply(gates[:, 3 * H :], self.tanh[t], out=now)
        return h

    def _slopes(self) -> np.ndarray:
        """The derivatives of the gates by what goes into them."""
        H, slopes = self.H, self.gates * (1.0 - self.gates)
        slopes[..., 2 * H : 3 * H] = 1.0 - np.square(self.gates[..., 2 * H : 3 * H])
        return slopes

    def backward(
        self, dh: np.ndarray, first: list[np.ndarray], U: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `GRU.backward`, (L, S, 4H): x and u enter as their sum."""
        H = self.H
        i, f, g, o = (self.gates[..., k * H : (k + 1) * H] for k in range(4))
        slopes = self._slopes()
        by_i, by_f, by_g = slopes[..., :H] * g, slopes[..., H : 2 * H] * self.cells, slopes[..., 2 * H : 3 * H] * i
        by_o, by_c = slopes[..., 3 * H :] * self.tanh, o * (1.0 - self.tanh * self.tanh)
        dx = np.empty_like(self.gates)
        carried, cell = np.zeros_like(dh[0]), np.zeros_like(dh[0])
        for t in range(len(dh) - 1, -1, -1):
            now, x = dh[t] + carried, dx[t]
            cell += now * by_c[t]
            np.multiply(cell, by_i[t], out=x[:, :H])
            np.multiply(cell, by_f[t], out=x[:, H : 2 * H])
            np.multiply(cell, by_g[t], out=x[:, 2 * H : 3 * H])
            np.multiply(now, by_o[t], out=x[:, 3 * H :])
            np.dot(x, U, out=carried)
            cell *= f[t]
            if len(first[t]):
                carried[first[t]] = cell[first[t]] = 0.0
        return dx, dx, self.before

    def tangent(
        self, dx: np.ndarray, first: list[np.ndarray], U: np.ndarray, U_v: np.ndarray, c_v: np.ndarray
    ) -> np.ndarray:
        """As `GRU.tangent`."""
        H, slopes = self.H, self._slopes()
        i, f, g, o = (self.gates[..., k * H : (k + 1) * H] for k in range(4))
        moved = dx + self.before @ U_v.T + c_v
        dh = np.empty_like(self.tanh)
        now, cell = np.zeros_like(dh[0]), np.zeros_like(dh[0])
        for t in range(len(dx)):
            if len(first[t]):
                now[first[t]] = cell[first[t]] = 0.0
            d = slopes[t] * (moved[t] + now @ U.T)
            cell = d[:, H : 2 * H] * self.cells[t] + f[t] * cell + d[:, :H] * g[t] + i[t] * d[:, 2 * H : 3 * H]
            dh[t] = d[:, 3 * H :] * self.tanh[t] + o[t] * (1.0 - self.tanh[t] ** 2) * cell
            now = dh[t].copy()
        return dh
