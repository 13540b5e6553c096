"""MLPs in compiled code: outputs, gradients by parameters and by inputs, and Adam. The equations are `DenseKernel`'s.

A network is its flat parameters and where each layer's are. A stack of K networks is K times as many parameters. All
matrices lie row by row in vectors, one after the other; of K networks (K, B, width).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from policygrad.compiled.blas import NO, YES, gemm
from policygrad.compiled.cache import part
from policygrad.compiled.elementary import tanh

TANH, RELU, SILU = range(3)
TINY, LANES = 1e-30, 16
CODES = {"tanh": TANH, "relu": RELU, "silu": SILU}


class Net(NamedTuple):
    """What compiled code knows of a network."""

    theta: np.ndarray  # (P,)
    layers: np.ndarray  # (L, 4): inputs, outputs, and where the weights (outputs, inputs) and the biases begin
    stack: int  # K
    activation: int


class Work(NamedTuple):
    """Memory of the passes over B rows of K networks."""

    h: np.ndarray  # outputs of every layer
    z: np.ndarray  # the same before the activation; SiLU's slope, x σ'(x) + σ(x) with σ(x) = ½ (1 + tanh ½x), needs it
    up: np.ndarray  # ∂/∂z of a layer
    down: np.ndarray  # and of the layer below


class AdamState(NamedTuple):
    """The moments and the constants of Adam."""

    m: np.ndarray  # (P,)
    v: np.ndarray  # (P,)
    beta1: float
    beta2: float
    eps: float


@part
def fill(x: np.ndarray, count: int, value: float) -> None:
    """The first `count` numbers of x become `value`. A loop: an assignment to a slice takes a tenth of a second to compile."""
    for i in range(count):
        x[i] = value


@part
def copy_to(x: np.ndarray, start: int, y: np.ndarray, first: int, count: int) -> None:
    """x[start + i] = y[first + i] for i < count."""
    for i in range(count):
        x[start + i] = y[first + i]


@part
def forward(net: Net, x: np.ndarray, rows: int, work: Work) -> int:
    """Outputs (K, B, O) of inputs (B, I), the same for all K. Returns where in `work.h` they begin."""
    layers, last = net.layers, len(net.layers) - 1
    zero, half, one = net.theta.dtype.type(0.0), net.theta.dtype.type(0.5), net.theta.dtype.type(1.0)
    below, at = 0, 0
    for layer in range(last + 1):
        inputs, outputs, weights, biases = layers[layer]
        for k in range(net.stack):
            z, w = at + k * rows * outputs, weights + k * outputs * inputs
            if layer == 0:
                gemm(YES, NO, outputs, rows, inputs, net.theta, w, inputs, x, 0, inputs, work.h, z, outputs)
            else:
                h = below + k * rows * inputs
                gemm(YES, NO, outputs, rows, inputs, net.theta, w, inputs, work.h, h, inputs, work.h, z, outputs)
            bias = net.theta[biases + k * outputs : biases + (k + 1) * outputs]
            for r in range(rows):
                row = work.h[z + r * outputs : z + (r + 1) * outputs]
                if layer == last:
                    for j in range(outputs):
                        row[j] += bias[j]
                elif net.activation == RELU:
                    for j in range(outputs):
                        row[j] = max(row[j] + bias[j], zero)
                elif net.activation == TANH:
                    for j in range(outputs):
                        row[j] = tanh(row[j] + bias[j])
                else:
                    before = work.z[z + r * outputs : z + (r + 1) * outputs]
                    for j in range(outputs):
                        before[j] = row[j] + bias[j]
                        row[j] = half * before[j] * (one + tanh(half * before[j]))
        below, at = at, at + net.stack * rows * outputs
    return below


@part
def through_activation(net: Net, g: np.ndarray, work: Work, at: int, size: int) -> None:
    """Multiply g by f'(z), of a layer whose outputs begin at `at`."""
    number = g.dtype.type
    h, zero, half, one = work.h[at : at + size], number(0.0), number(0.5), number(1.0)
    if net.activation == RELU:
        for i in range(size):
            g[i] = g[i] if h[i] > zero else zero
    elif net.activation == TANH:
        for i in range(size):
            g[i] *= one - h[i] * h[i]
    else:
        z = work.z[at : at + size]
        for i in range(size):
            sigmoid = half * (one + tanh(half * z[i]))
            g[i] *= sigmoid * (one + z[i] * (one - sigmoid))


@part
def pull_back(net: Net, x: np.ndarray, rows: int, work: Work, grad: np.ndarray) -> None:
    """Write Σ_b g_b ∂out_b/∂θ into grad (P,), for g (K, B, O) in `work.up` and the outputs of the last `forward`."""
    up, down, at, zero = work.up, work.down, 0, grad.dtype.type(0.0)
    for layer in range(len(net.layers)):
        at += net.stack * rows * net.layers[layer, 1]
    for layer in range(len(net.layers) - 1, -1, -1):
        inputs, outputs, weights, biases = net.layers[layer]
        at -= net.stack * rows * outputs
        below = at - net.stack * rows * inputs
        for k in range(net.stack):
            g, w, b = k * rows * outputs, weights + k * outputs * inputs, biases + k * outputs
            if layer == 0 and inputs < outputs and inputs * outputs <= len(down):
                # the transposed product, in memory that nothing needs any more, is five times faster where inputs are few
                gemm(NO, YES, outputs, inputs, rows, up, g, outputs, x, 0, inputs, down, 0, outputs)
                for j in range(outputs):
                    for i in range(inputs):
                        grad[w + j * inputs + i] = down[i * outputs + j]
            elif layer == 0:
                gemm(NO, YES, inputs, outputs, rows, x, 0, inputs, up, g, outputs, grad, w, inputs)
            else:
                h = below + k * rows * inputs
                gemm(NO, YES, inputs, outputs, rows, work.h, h, inputs, up, g, outputs, grad, w, inputs)
            total = grad[b : b + outputs]
            fill(total, outputs, zero)
            for r in range(rows):
                row = up[g + r * outputs : g + (r + 1) * outputs]
                for j in range(outputs):
                    total[j] += row[j]
            if layer > 0:
                d = k * rows * inputs
                gemm(NO, NO, inputs, rows, outputs, net.theta, w, inputs, up, g, outputs, down, d, inputs)
        if layer > 0:
            size = net.stack * rows * inputs
            through_activation(net, down[:size], work, below, size)
            up, down = down, up


@part
def pull_back_inputs(net: Net, rows: int, work: Work, dims: int, out: np.ndarray) -> None:
    """Write Σ_k g_k ∂out_k/∂x of the last D inputs into out (B, D), for g (K, B, O) in `work.up`."""
    up, down, at = work.up, work.down, 0
    for layer in range(len(net.layers)):
        at += net.stack * rows * net.layers[layer, 1]
    for layer in range(len(net.layers) - 1, 0, -1):
        inputs, outputs, weights, _ = net.layers[layer]
        at -= net.stack * rows * outputs
        size = net.stack * rows * inputs
        for k in range(net.stack):
            g, w, d = k * rows * outputs, weights + k * outputs * inputs, k * rows * inputs
            gemm(NO, NO, inputs, rows, outputs, net.theta, w, inputs, up, g, outputs, down, d, inputs)
        through_activation(net, down[:size], work, at - size, size)
        up, down = down, up
    inputs, outputs, weights, _ = net.layers[0]
    fill(out, len(out), out.dtype.type(0.0))
    for k in range(net.stack):
        g, w = k * rows * outputs, weights + k * outputs * inputs + inputs - dims
        gemm(NO, NO, dims, rows, outputs, net.theta, w, inputs, up, g, outputs, down, 0, dims)
        for i in range(rows * dims):
            out[i] += down[i]


@part
def clip_by_norm(grad: np.ndarray, most: float) -> float:
    """Scale grad to an ℓ₂ norm of at most `most`. Returns the norm before."""
    sums = np.zeros(LANES)  # one for every lane of a vector register
    for start in range(0, len(grad) - len(grad) % LANES, LANES):
        for lane in range(LANES):
            sums[lane] += float(grad[start + lane]) ** 2
    for i in range(len(grad) - len(grad) % LANES, len(grad)):
        sums[0] += float(grad[i]) ** 2
    norm = math.sqrt(sums.sum())
    if norm > most:
        scale = grad.dtype.type(most / (norm + 1e-6))
        for i in range(len(grad)):
            grad[i] *= scale
    return norm


@part
def adam(theta: np.ndarray, grad: np.ndarray, state: AdamState, t: int, lr: float) -> None:
    """θ ← θ + lr · m̂ / (√v̂ + eps), the step number t from 1 on: see `models.optim.Adam`.

    Moments below TINY become 0. Those of a unit that is never active any more would otherwise end among the denormal numbers,
    with which a processor is a hundred times slower, and stay there.
    """
    number = theta.dtype.type
    keep, rest = number(1.0 - state.beta1), number(1.0 - state.beta2)
    root = number(1.0 / math.sqrt(1.0 - state.beta2**t))
    length, eps, beta2 = number(lr / (1.0 - state.beta1**t)), number(state.eps), number(state.beta2)
    m, v, tiny, zero = state.m, state.v, number(TINY), number(0.0)
    for i in range(len(theta)):
        g = grad[i]
        first, second = m[i] + keep * (g - m[i]), beta2 * v[i] + rest * g * g
        m[i] = first if abs(first) > tiny else zero
        v[i] = second if second > tiny else zero
        theta[i] += length * m[i] / (math.sqrt(v[i]) * root + eps)


@part
def follow(theta: np.ndarray, other: np.ndarray, tau: float) -> None:
    """θ ← (1 − τ) θ + τ θ_other."""
    rate = theta.dtype.type(tau)
    for i in range(len(theta)):
        theta[i] += rate * (other[i] - theta[i])
