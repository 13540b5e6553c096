"""Epochs of a policy's ascent and of a critic's regression as compiled functions: the arrays that they are handed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.compiled import epochs as functions
from policygrad.compiled.cache import patience
from policygrad.compiled.epochs import EpochMemory
from policygrad.compiled.heads import CHOICES, CLIPPED, PLAIN, RATIO, Aim, HeadData, Steps
from policygrad.data import Batch
from policygrad.models.arrays import (
    NO_CHOICES,
    NO_NUMBERS,
    adam_state,
    check_widths,
    head_data,
    largest_norm,
    net,
    vector,
    work_memory,
)
from policygrad.models.ascent import KLPenalty, Objective
from policygrad.models.heads import MASK_PENALTY
from policygrad.models.kernels import DenseKernel, LogStdKernel
from policygrad.models.optim import Adam
from policygrad.models.workspace import AscentPlan, Epoch, Workspace
from policygrad.pieces import even_pieces
from policygrad.total import is_shared

KINDS = {"plain": PLAIN, "ratio": RATIO, "clipped": CLIPPED}


def policy_epoch(space: Workspace, policy: Any, batch: Batch, terms: Sequence[Any], how: AscentPlan) -> Epoch | None:
    """See `compiling.policy_epoch`."""
    aim, head = _aim(terms), _head(policy, batch)
    if aim is None or head is None or type(how.optimizer) is not Adam or is_shared():
        return None
    steps, rows = _steps(policy, batch, head), len(batch)
    outputs = policy.head.size // 2 if head.own_log_std else policy.head.size
    given = _arrays(space, policy, outputs, how, rows)
    return _epoch(functions.policy_epoch, space, how, rows, given, (head, steps), (aim,))


def value_epoch(
    space: Workspace, critic: Any, features: Tensor, target: Tensor, act: Tensor | None, how: AscentPlan
) -> Epoch | None:
    """See `compiling.value_epoch`."""
    if not isinstance(critic.kernel, DenseKernel) or type(how.optimizer) is not Adam or is_shared():
        return None
    outputs = len(critic.output[1])
    choice = NO_CHOICES if act is None else _choices(act, (outputs,))
    given = _arrays(space, critic, outputs, how, len(target))
    rows = (_numbers(features, critic.flat), _numbers(target, critic.flat), choice)
    return _epoch(functions.value_epoch, space, how, len(target), given, rows, ())


def _epoch(
    function: Callable[..., Any],
    space: Workspace,
    how: AscentPlan,
    rows: int,
    given: Any,
    first: Sequence[Any],
    last: Sequence[Any],
) -> Epoch:
    """Calls of the compiled function, each with a new order of the rows."""
    network, state, memory = given
    optimizer, most = how.optimizer, largest_norm(how.max_grad_norm)
    assert isinstance(optimizer, Adam)

    def epoch() -> Iterable[float]:
        order, cuts = _pieces(rows, how)
        norms = np.empty(len(cuts) - 1)
        ascent = functions.AscentData(state, optimizer.t + 1, how.lr, most)
        with nullcontext() if space.warm else patience():
            taken = function(network, *first, order, cuts, *last, ascent, memory, norms)
        space.warm, optimizer.t = True, optimizer.t + taken
        return norms[: taken + 1].tolist()

    return epoch


def _pieces(rows: int, how: AscentPlan) -> tuple[np.ndarray, np.ndarray]:
    """The order of the rows, and where each piece begins and the last one ends."""
    found = even_pieces(rows, how.minibatches, how.generator)
    if found is None:
        return np.arange(rows), np.array([0, rows])
    order, cuts = found
    return order.numpy(), np.array([0, *cuts, rows])


def _arrays(space: Workspace, module: Any, outputs: int, how: AscentPlan, rows: int) -> Any:
    """The network, its moments, and memory for the largest piece of so many rows."""
    optimizer, largest = how.optimizer, -(-rows // min(how.minibatches, rows))
    assert isinstance(optimizer, Adam)

    def make(rows: int) -> Any:
        network, dtype = net(module), module.flat.dtype
        check_widths(network, outputs)
        features, grad = rows * int(network.layers[0, 0]), len(network.theta)
        memory = EpochMemory(vector(features, dtype), work_memory([network], rows, dtype), vector(grad, dtype))
        return network, adam_state(optimizer, module.flat), memory

    return space.arrays(make, largest, [module.flat, optimizer.moments(module.flat)[0]])


def _aim(terms: Sequence[Any]) -> Aim | None:
    """The terms as data, where they are one `Objective` of a known kind and perhaps one `KLPenalty`."""
    if not terms or type(terms[0]) is not Objective or terms[0].kind not in KINDS or len(terms) > 2:
        return None
    aim, coef = terms[0], 0.0
    if len(terms) == 2:
        if type(terms[1]) is not KLPenalty:
            return None
        coef = terms[1].coef
    return Aim(KINDS[aim.kind], aim.numbers.get("clip", 0.0), aim.ent_coef, coef)


def _head(policy: Any, batch: Batch) -> HeadData | None:
    """The head as data, where the policy is an MLP with such a head and no other outputs, and rows are by themselves."""
    if (
        not vars(type(policy)).get("known")
        or batch.segment != 1
        or not isinstance(policy.kernel, DenseKernel | LogStdKernel)
    ):
        return None
    own = isinstance(policy.kernel, LogStdKernel)
    outputs = len((policy.kernel.mean if own else policy.kernel).layers[-1][1]) * (1 + own)
    return head_data(policy.head, own, policy.flat.numpy().dtype.type) if outputs == policy.head.size else None


def _steps(policy: Any, batch: Batch, head: HeadData) -> Steps:
    """The batch as arrays of the policy's own type."""
    like, nothing = policy.flat, NO_NUMBERS[policy.flat.numpy().dtype.type]
    context = policy.context(batch.obs, batch.extra)
    if context is not None and head.kind == CHOICES:
        context = (context - 1.0) * MASK_PENALTY
    choices = head.kind == CHOICES
    return Steps(
        features=_numbers(policy.features(batch.obs), like),
        context=nothing if context is None else _numbers(context, like),
        choice=_choices(batch.act, head.sizes) if choices else NO_CHOICES,
        act=nothing if choices else _numbers(batch.act, like),
        logp=_numbers(batch.logp, like),
        adv=_numbers(batch.adv, like),
        weight=_numbers(batch.weight, like),
        dist=nothing if batch.dist is None else _numbers(batch.dist, like),
    )


def _numbers(x: Tensor, like: Tensor) -> np.ndarray:
    """The numbers of x in a row, of the type of another tensor."""
    return x.to(like.dtype).contiguous().view(-1).numpy()


def _choices(act: Tensor, sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Actions (B, K) in a row. Raises IndexError for one that is not among 0 … size − 1: compiled code does not look."""
    table = act.reshape(len(act), -1).to(torch.int64).numpy()
    if ((table < 0) | (table >= np.asarray(sizes))).any():
        raise IndexError(f"an action of the batch is not among the {list(sizes)} that there are")
    return np.ascontiguousarray(table).reshape(-1)
