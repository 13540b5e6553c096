"""Epochs of a policy's ascent and of a critic's regression as compiled functions: the arrays that they are handed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from policygrad.compiled import epochs as functions
from policygrad.compiled.cache import patience
from policygrad.compiled.epochs import EpochMemory
from policygrad.compiled.heads import CHOICES, CLIPPED, PLAIN, RATIO, Aim, HeadData, Steps
from policygrad.compiled.networks import AdamState, Net
from policygrad.data import Batch
from policygrad.models.arrays import (
    NO_CHOICES,
    NO_HEAD,
    NO_NUMBERS,
    adam_state,
    head_data,
    largest_norm,
    net,
    numbers,
    others_of,
    vector,
    work_memory,
)
from policygrad.models.ascent import KLPenalty, Objective, ValueLoss
from policygrad.models.heads import MASK_PENALTY, Head
from policygrad.models.kernels import DenseKernel, LogStdKernel
from policygrad.models.optim import Adam
from policygrad.models.workspace import AscentPlan, Epochs, Workspace
from policygrad.pieces import even_pieces
from policygrad.total import is_shared

KINDS = {"plain": PLAIN, "ratio": RATIO, "clipped": CLIPPED}


def policy_epochs(space: Workspace, policy: Any, batch: Batch, terms: Sequence[Any], how: AscentPlan) -> Epochs | None:
    """See `compiling.policy_epochs`."""
    aim, value = _aim(terms), next((term for term in terms if type(term) is ValueLoss), None)
    if aim is None or batch.segment != 1 or type(how.optimizer) is not Adam or is_shared():
        return None
    given = _arrays(space, policy, policy.head, how, len(batch))
    if given is None:
        return None
    network, head, state, memory = given
    if value is not None and head.others == 0:
        return None  # the reference says what is wrong
    first = network, head, _steps(policy, batch, head, value), len(batch)
    return _epoch(functions.policy_epochs, how, len(batch), state, first, (aim,), memory)


def value_epochs(
    space: Workspace, critic: Any, features: Tensor, target: Tensor, act: Tensor | None, how: AscentPlan
) -> Epochs | None:
    """See `compiling.value_epochs`."""
    if type(how.optimizer) is not Adam or is_shared():
        return None
    given = _arrays(space, critic, None, how, len(target))
    if given is None:
        return None
    network, _, state, memory = given
    choice = NO_CHOICES if act is None else choices_of(act.numpy(), network.layers[-1:, 1])
    first = network, numbers(features, critic.flat), numbers(target, critic.flat), choice
    return _epoch(functions.value_epochs, how, len(target), state, first, (), memory)


def _epoch(
    function: Callable[..., Any],
    how: AscentPlan,
    rows: int,
    state: AdamState,
    first: Sequence[Any],
    last: Sequence[Any],
    memory: EpochMemory,
) -> Epochs:
    """Calls of the compiled function, in every pass with a new order of the rows."""
    optimizer, most = how.optimizer, largest_norm(how.max_grad_norm)
    assert isinstance(optimizer, Adam)

    def ascend(passes: int) -> Iterable[float]:
        order, cuts = _pieces(rows, how, passes)
        norms = np.empty(len(cuts) - 1)
        ascent = functions.AscentData(state, optimizer.t + 1, how.lr, most)
        with patience():
            taken = function(*first, order, cuts, *last, ascent, memory, norms)
        optimizer.t += taken
        return norms[: taken + 1].tolist()

    return ascend


def _pieces(rows: int, how: AscentPlan, passes: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of the rows in all passes (passes · B,), and where each piece begins and the last one ends."""
    orders, cuts = [], [0]
    for i in range(passes):
        found = even_pieces(rows, how.minibatches, how.generator)
        if found is None:  # nor is there anything to shuffle in the other passes
            return np.tile(np.arange(rows), passes), np.arange(passes + 1) * rows
        order, within = found
        orders.append(order.numpy())
        cuts += [i * rows + cut for cut in (*within, rows)]
    return np.concatenate(orders), np.array(cuts)


Arrays = tuple[Net, HeadData, AdamState, EpochMemory]


def _arrays(space: Workspace, module: Any, head: Head | None, how: AscentPlan, rows: int) -> Arrays | None:
    """See `arrays_of`, for the largest of the pieces of a batch."""
    optimizer, largest = how.optimizer, -(-rows // min(how.minibatches, rows))
    assert isinstance(optimizer, Adam)
    room = 1 << (largest - 1).bit_length()  # so that batches of other sizes seldom need other memory
    moments = optimizer.moments(module.flat)[0]
    return space.arrays(arrays_of, room, [module.flat, head, moments], module, head, optimizer)


def arrays_of(module: Any, head: Head | None, optimizer: Adam, rows: int) -> Arrays | None:
    """A policy's network and head, or a critic's network (head None), its moments, and memory for minibatches of so many rows;
    None where there is no compiled function for them.
    """
    own = isinstance(module.kernel, LogStdKernel)
    if not isinstance(module.kernel, DenseKernel | LogStdKernel) or not vars(type(module)).get("known"):
        return None
    network, dtype = net(module), module.flat.dtype
    data = NO_HEAD
    if head is not None:
        known = head_data(head, own, module.flat.numpy().dtype.type, others_of(module))
        if known is None or known.others < 0:
            return None
        data = known
    memory = EpochMemory(
        vector(rows * int(network.layers[0, 0]), dtype),
        work_memory([network], rows, dtype),
        vector(len(network.theta), dtype),
    )
    return network, data, adam_state(optimizer, module.flat), memory


def _aim(terms: Sequence[Any]) -> Aim | None:
    """The terms as data, where they are one `Objective` of a known kind and perhaps a `KLPenalty` and a `ValueLoss`."""
    if not terms or type(terms[0]) is not Objective:
        return None
    aim, coefs = terms[0], {KLPenalty: 0.0, ValueLoss: 0.0}
    kind, others = KINDS.get(aim.kind or ""), [type(term) for term in terms[1:]]
    if kind is None or not coefs.keys() >= set(others) or len(set(others)) < len(others):
        return None
    coefs |= {type(term): term.coef for term in terms[1:]}
    return Aim(kind, aim.numbers.get("clip", 0.0), aim.ent_coef, coefs[KLPenalty], coefs[ValueLoss])


def _steps(policy: Any, batch: Batch, head: HeadData, value: ValueLoss | None) -> Steps:
    """The batch as arrays of the policy's own type."""
    like, nothing = policy.flat, NO_NUMBERS[policy.flat.numpy().dtype.type]
    context = policy.context(batch.obs, batch.extra)
    if context is not None and head.kind == CHOICES:
        context = (context - 1.0) * MASK_PENALTY
    choices = head.kind == CHOICES
    return Steps(
        features=numbers(policy.features(batch.obs), like),
        context=nothing if context is None else numbers(context, like),
        choice=choices_of(batch.act.numpy(), head.sizes) if choices else NO_CHOICES,
        act=nothing if choices else numbers(batch.act, like),
        logp=numbers(batch.logp, like),
        adv=numbers(batch.adv, like),
        weight=numbers(batch.weight, like),
        dist=nothing if batch.dist is None else numbers(batch.dist, like),
        target=nothing if value is None else numbers(value.scaled(batch), like),
    )


def choices_of(act: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Actions (B, K) in a row. Raises IndexError for one that is not among 0 … size − 1: compiled code does not look."""
    table = np.ascontiguousarray(act, np.int64).reshape(-1, len(sizes))
    if (table.view(np.uint64) >= sizes.astype(np.uint64)).any():  # of these, negative numbers are the largest
        raise IndexError(f"an action of the batch is not among the {sizes.tolist()} that there are")
    return table.reshape(-1)
