"""Networks, optimisers and heads as compiled functions take them: arrays and numbers. Importing this imports numba."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.compiled.heads import CHOICES, NORMAL, HeadData
from policygrad.compiled.networks import CODES, AdamState, Net, Work
from policygrad.models.continuous import LOG_STD_MAX, LOG_STD_MIN, Gaussian, SquashedGaussian
from policygrad.models.heads import Categorical, Head, MultiCategorical
from policygrad.models.kernels import DenseKernel, LogStdKernel
from policygrad.models.optim import Adam
from policygrad.models.stacked import StackedKernel

NO_CHOICES, NO_NUMBERS = np.empty(0, np.int64), {dtype: np.empty(0, dtype) for dtype in (np.float32, np.float64)}


NO_HEAD = HeadData(
    CHOICES, NO_CHOICES, 0, False, 0.0, 0.0, 0.0, False, 0.0, NO_NUMBERS[np.float32], NO_NUMBERS[np.float32], 0
)  # of a critic


def net(module: Any, first: bool = False) -> Net:
    """The network of a `FlatModule`. first: of a stack of networks the first alone."""
    kernel = module.kernel.mean if isinstance(module.kernel, LogStdKernel) else module.kernel
    if isinstance(kernel, DenseKernel):
        shapes, starts, count = [w.shape for w, _ in kernel.layers], [s[:2] for s in kernel.spans], 1
    else:
        assert isinstance(kernel, StackedKernel)
        shapes, count = [w.shape[1:] for w in kernel.weights], len(kernel.weights[0])
        starts = [(w.flat[0], b.flat[0]) for w, b in zip(*kernel.spans, strict=True)]
    layers = [[*shape[::-1], *start] for shape, start in zip(shapes, starts, strict=True)]
    return Net(module.flat.numpy(), np.array(layers, np.int64), 1 if first else count, CODES[kernel.activation])


def check_widths(net: Net, outputs: int, inputs: int | None = None) -> None:
    """Raises ValueError for a network of other widths: compiled code would read beyond its arrays."""
    widths = int(net.layers[0, 0]), int(net.layers[-1, 1])
    if widths != (widths[0] if inputs is None else inputs, outputs):
        raise ValueError(f"expected a network with {inputs or widths[0]} inputs and {outputs} outputs, got {widths}")


def vector(count: int, dtype: torch.dtype) -> np.ndarray:
    """Memory that begins at a multiple of 64 bytes, as torch's does: the last bit of a product may depend on it."""
    return torch.empty(count, dtype=dtype).numpy()


def work_memory(nets: Sequence[Net], rows: int, dtype: torch.dtype) -> Work:
    """Enough for a pass of any of these networks over so many rows."""
    whole = max(n.stack * rows * int(n.layers[:, 1].sum()) for n in nets)
    widest = max(n.stack * rows * int(n.layers[:, :2].max()) for n in nets)
    return Work(*(vector(size, dtype) for size in (whole, whole, widest, widest)))


def adam_state(optimizer: Adam, params: Tensor) -> AdamState:
    """Adam's moments of these parameters."""
    m, v = optimizer.moments(params)
    return AdamState(m.numpy(), v.numpy(), optimizer.beta1, optimizer.beta2, optimizer.eps)


def largest_norm(max_grad_norm: float | None) -> float:
    """What a gradient's norm is clipped to, as a number."""
    return math.inf if max_grad_norm is None else max_grad_norm


def numbers(x: Tensor, like: Tensor) -> np.ndarray:
    """The numbers of x in a row, of the type of another tensor."""
    return np.ascontiguousarray((x if x.dtype is like.dtype else x.to(like.dtype)).numpy()).reshape(-1)


def others_of(policy: Any) -> int:
    """How many outputs a policy's MLP has after those of its head."""
    kernel, size = policy.kernel, policy.head.size
    if isinstance(kernel, LogStdKernel):
        kernel, size = kernel.mean, size // 2
    return len(kernel.layers[-1][1]) - size


def head_data(head: Head, own: bool, dtype: Any, others: int = 0) -> HeadData | None:
    """The head as data, where compiled code has it. own: whether log σ are parameters of their own. others: outputs of the
    network after the head's.
    """
    none = NO_NUMBERS[dtype]
    if type(head) is Categorical or type(head) is MultiCategorical:
        sizes = head.sizes if isinstance(head, MultiCategorical) else (head.size,)
        return HeadData(CHOICES, np.array(sizes, np.int64), 0, False, 0.0, 0.0, 0.0, False, 0.0, none, none, others)
    if type(head) is not Gaussian and type(head) is not SquashedGaussian:
        return None
    squashed = isinstance(head, SquashedGaussian)
    constant, nodes, weights = -0.5 * head.dims * math.log(2.0 * math.pi), none, none
    if isinstance(head, SquashedGaussian):
        constant -= head._log_scale()
        nodes, weights = head.nodes.numpy().astype(dtype), head.node_weights.numpy().astype(dtype)
    limits = LOG_STD_MIN, LOG_STD_MAX
    return HeadData(NORMAL, NO_CHOICES, head.dims, own, *limits, head.rho, squashed, constant, nodes, weights, others)
