"""The keywords of recurrent policies and critics, in groups as in `keywords.py`. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from policygrad.algorithms.keywords import Option


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """The keywords of recurrent policies and critics."""

    memory: Annotated[
        Literal["none", "gru", "lstm"],
        Option(
            "memory of policy and critic, each its own: a GRU or LSTM layer after the hidden layers; none: no memory"
        ),
    ] = "none"
    memory_size: Annotated[
        int,
        Option("number of units of the memory's layer", 1, 65536, tune=(16, 256, "log"), foreign=("lstm_hidden_size",)),
    ] = 64


@dataclass(frozen=True, kw_only=True)
class SegmentedRecurrence(Recurrence):
    """The same where iterations are a number of steps, which may be cut into segments."""

    segment_steps: Annotated[
        int | None,
        Option(
            "with a memory: steps of the segments that gradients go back through, which must divide num_steps; none: whole "
            "rollouts",
            1,
            10**7,
        ),
    ] = None
