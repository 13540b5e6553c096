"""The least that an iteration costs: floating-point operations and bytes, counted from shapes; and how fast this machine
multiplies matrices and copies memory.

Of B rows through layers of i → o units, a forward pass takes 2 B Σ i·o operations. A backward pass takes as many for the
gradient and as many for the derivative by the inputs, which the first layer does not need: 4 B Σ i·o − 2 B i₁·o₁. Activations,
distributions, Adam, environments and diagnostics are not counted.

The GEMM peak is of float32 products by the BLAS routine that the updates call, in the same process: of a minibatch by width ×
width (same shape), or of 768 × 768 (large); of two threads where the policy's update and the critic's fit run side by side.
A minibatch's bytes are those of all arrays that the compiled functions pass over, set against copies of arrays as large as a
layer's outputs (same shape, cached), and of 64 MiB (large, not cached).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from policygrad.compiled.blas import NO, YES, gemm
from policygrad.compiled.cache import compiled

Sizes = Sequence[int]  # units of a network's layers, the inputs first
LARGE = 768  # rows and columns of large square matrices: 2.3 MB each
COPIED = 16 * 2**20  # numbers in a large copy: 64 MiB
TRIALS, TRIAL_SECONDS = 3, 0.03
FLOAT = 4  # bytes


def parameters(sizes: Sizes) -> int:
    """Weights and biases."""
    return sum((i + 1) * o for i, o in pairwise(sizes))


def forward_flops(sizes: Sizes, rows: int) -> int:
    """Operations of a forward pass."""
    return 2 * rows * sum(i * o for i, o in pairwise(sizes))


def backward_flops(sizes: Sizes, rows: int) -> int:
    """Operations of a gradient by the parameters, after the forward pass."""
    return 2 * forward_flops(sizes, rows) - 2 * rows * sizes[0] * sizes[1]


def ppo_flops(policy: Sizes, critic: Sizes, rows: int, valid: int, epochs: int) -> tuple[int, int]:
    """Operations of an iteration: before the update, to act and for log-probabilities and values of all rows; and of the epochs
    on the valid rows, policy and critic together.
    """
    before = 2 * forward_flops(policy, rows) + forward_flops(critic, rows)
    both = sum(forward_flops(sizes, valid) + backward_flops(sizes, valid) for sizes in (policy, critic))
    return before, epochs * both


def natural_flops(policy: Sizes, rows: int, products: int) -> int:
    """Operations of a natural step: a forward pass, a gradient, and products with the Fisher matrix, each of which pushes a
    direction forward, at the cost of a gradient, and pulls it back.
    """
    return forward_flops(policy, rows) + (1 + 2 * products) * backward_flops(policy, rows)


def minibatch_bytes(sizes: Sizes, rows: int) -> int:
    """Bytes that a network's step on a minibatch reads and writes, if every array that the compiled functions pass over comes
    from memory and goes back there.

    The rows are gathered. Forward, a layer reads weights and inputs and writes outputs; bias and activation read and write them
    again. Backward, it reads inputs and the derivative by its outputs, writes the gradient, and reads that derivative again for
    the biases. All layers but the first read it and the weights once more, write the derivative by their inputs, and read it
    and the inputs and write it for the activation below. The norm reads the gradient; Adam reads four vectors and writes three.
    """
    numbers = 2 * rows * sizes[0] + 8 * parameters(sizes)
    for layer, (i, o) in enumerate(pairwise(sizes)):
        numbers += i * o + rows * (i + 3 * o)
        numbers += i * o + rows * (i + 2 * o)
        numbers += (i * o + rows * (o + 4 * i)) if layer > 0 else 0
    return FLOAT * numbers


@compiled
def layer_products(
    repeats: int, rows: int, inputs: int, outputs: int, weights: np.ndarray, x: np.ndarray, up: np.ndarray,
    out: np.ndarray, grad: np.ndarray, down: np.ndarray,
) -> None:  # fmt: skip
    """The three matrix products of a layer, as in `compiled.networks`: outputs, gradient, derivative by the inputs."""
    for _ in range(repeats):
        gemm(YES, NO, outputs, rows, inputs, weights, 0, inputs, x, 0, inputs, out, 0, outputs)
        gemm(NO, YES, inputs, outputs, rows, x, 0, inputs, up, 0, outputs, grad, 0, inputs)
        gemm(NO, NO, inputs, rows, outputs, weights, 0, inputs, up, 0, outputs, down, 0, inputs)


@compiled
def copies(repeats: int, x: np.ndarray, y: np.ndarray) -> None:
    """Copy x to y and y to x."""
    for _ in range(repeats):
        for i in range(len(x)):
            y[i] = x[i]
        for i in range(len(x)):
            x[i] = y[i]


def gemm_rate(rows: int, width: int, threads: int) -> float:
    """Operations a second in float32 of products of (rows, width) by (width, width), in so many threads at once."""

    def make() -> Callable[[int], None]:
        rng = np.random.default_rng(0)
        sizes = width * width, *[rows * width] * 3, width * width, rows * width
        arrays = [rng.standard_normal(size).astype(np.float32) for size in sizes]
        return lambda repeats: layer_products(repeats, rows, width, width, *arrays)

    return fastest(make, 6 * rows * width * width, threads)


def copy_rate(numbers: int, threads: int) -> float:
    """Bytes a second, read and written, of copies of so many numbers, in so many threads at once."""

    def make() -> Callable[[int], None]:
        arrays = np.ones(numbers, np.float32), np.zeros(numbers, np.float32)
        return lambda repeats: copies(repeats, *arrays)

    return fastest(make, 4 * FLOAT * numbers, threads)


def fastest(make: Callable[[], Callable[[int], None]], amount: int, threads: int) -> float:
    """How much a second is done by threads that repeat, each on its own arrays, what does `amount` once: the best of trials."""
    works, best = [make() for _ in range(threads)], 0.0
    for work in works:
        work(1)  # compiled, and its memory touched
    start = time.perf_counter()
    works[0](2)
    repeats = max(2, round(2 * TRIAL_SECONDS / (time.perf_counter() - start)))
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(TRIALS):
            start = time.perf_counter()
            list(pool.map(lambda work: work(repeats), works))
            best = max(best, threads * repeats * amount / (time.perf_counter() - start))
    return best


def peaks(rows: int, width: int, threads: int) -> dict[str, float]:
    """GEMM in GFLOP/s and copies in GB/s, in matrices of this shape and in large ones, in one thread and in `threads`."""
    found = {}
    for name, count in (("one", 1), ("all", threads)):
        if name == "all" and threads == 1:
            return found | {key.replace("one", "all"): value for key, value in found.items()}
        found |= {
            f"gemm_{name}": gemm_rate(rows, width, count) / 1e9,
            f"gemm_large_{name}": gemm_rate(LARGE, LARGE, count) / 1e9,
            f"copy_{name}": copy_rate(rows * width, count) / 1e9,
            f"copy_large_{name}": copy_rate(COPIED, count) / 1e9,
        }
    return found
