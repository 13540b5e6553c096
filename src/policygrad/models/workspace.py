"""What compiled epochs and steps are handed by those who call them, without importing numba."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from policygrad.models.optim import Optimizer

Epochs = Callable[[int], Iterable[float]]  # takes the steps of so many passes; the norm of each one's gradient


class Workspace:
    """Arrays that are made once and used as long as what they were made of is there. Copies and pickles go without them."""

    def __init__(self) -> None:
        self.made: Any = None
        self.of: list[Any] = []  # the number of rows, and the tensors

    def arrays(self, make: Callable[..., Any], rows: int, tensors: Sequence[Any], *given: Any) -> Any:
        """`make(*given, rows)`; again for another number of rows, or where one of the tensors is another object."""
        same = self.of[:1] == [rows] and len(self.of) == len(tensors) + 1
        if not (same and all(a is b for a, b in zip(self.of[1:], tensors, strict=True))):
            self.of, self.made = [rows, *tensors], make(*given, rows)
        return self.made

    def __getstate__(self) -> dict[str, Any]:
        return {"made": None, "of": []}


@dataclass(frozen=True)
class AscentPlan:
    """How an epoch goes: the optimiser, its rate, the largest norm of a gradient, the pieces of a pass and their shuffling."""

    optimizer: Optimizer
    lr: float
    max_grad_norm: float | None
    minibatches: int
    generator: torch.Generator
