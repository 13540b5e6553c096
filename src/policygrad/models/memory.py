"""Networks with a memory: an encoder, a GRU or LSTM cell that reads its features in order, and a linear output layer.

A batch comes as segments: runs of rows in the order of time, each with the memory in which it begins. Where an episode begins
inside a segment the memory is 0 again, so that no gradient and no number of one episode reaches another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.models.networks import ACTIVATIONS, init_linear
from policygrad.models.observations import Encoding
from policygrad.models.pictures import layouts_of
from policygrad.models.policy import Body, make_network

CELLS = ("gru", "lstm")
# among a record's named arrays: the memory before a step, and whether an episode begins with it
MEMORY, FIRST = "memory", "first"


class Segments(NamedTuple):
    """What a network with a memory reads: B rows, those of a segment one after another."""

    features: Tensor  # (B, *)
    memory: Tensor  # (B, M)     before each row; only that of a segment's first row is read, as a constant
    first: Tensor  # (B,) bool   an episode begins with this row: its memory is 0
    length: int  # rows of a segment


class MemoryNetwork(nn.Module):
    """Encoder → cell → output: `Segments` of B rows → (B, outputs). The memory (B, M) has M = size numbers, an LSTM's 2 · size.

    GRU (Cho et al. 2014, arXiv 1406.1078) as torch.nn.GRU:  r, z = σ(·),  n = tanh(Wx + b + r (Uh + c)),  h' = (1 − z) n + z h.
    LSTM (Hochreiter & Schmidhuber 1997) as torch.nn.LSTM:   i, f, o = σ(·),  g = tanh(·),  c' = f c + i g,  h' = o tanh(c').
    Weights are orthogonal and biases 0, as CleanRL has them, but for the 1 of an LSTM's forget gate (Jozefowicz, Zaremba &
    Sutskever 2015): it remembers from the start. The loop over time is of plain operations: it can be
    differentiated twice, on every device, which natural steps need and torch's fused layers cannot.
    """

    def __init__(
        self,
        encoder: nn.Module,
        inputs: int,
        cell: str,
        size: int,
        outputs: int,
        output_gain: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"memory must be one of {CELLS}, got {cell!r}")
        self.encoder, self.size = encoder, size
        self.cell = nn.GRU(inputs, size) if cell == "gru" else nn.LSTM(inputs, size)
        W, U, b, c = self.weights
        for weight, bias in ((W, b), (U, c)):
            nn.init.orthogonal_(weight, generator=generator)
            nn.init.zeros_(bias)
        if cell == "lstm":
            nn.init.ones_(b[size : 2 * size])
        self.output = nn.Linear(size, outputs)
        init_linear(self.output, output_gain, generator)

    @property
    def weights(self) -> list[nn.Parameter]:
        """W, U, b, c of the gates W x + b + U h + c."""
        return list(self.cell.parameters())

    @property
    def width(self) -> int:
        """M, the numbers of a memory."""
        return self.size if isinstance(self.cell, nn.GRU) else 2 * self.size

    def forward(self, rows: Segments) -> Tensor:
        after = self.memories(self.encoder(rows.features), rows)
        return self.read(after)

    def read(self, memory: Tensor) -> Tensor:
        """The outputs (B, outputs) of the memory (B, M) after a row."""
        return self.output(memory[:, : self.size])

    def advance(self, features: Tensor, memory: Tensor) -> Tensor:
        """One step: the memory (B, M) after rows of features (B, *)."""
        return self._step(self._inputs(self.encoder(features)), memory)

    def memories(self, encoded: Tensor, rows: Segments) -> Tensor:
        """The memory (B, M) after every row of what the encoder made of the segments (B, F)."""
        x, first = (each.unflatten(0, (-1, rows.length)) for each in (self._inputs(encoded), rows.first))
        state = rows.memory.unflatten(0, (-1, rows.length))[:, 0]
        begins = first.any(0).tolist()
        after = []
        for t in range(rows.length):
            if begins[t]:
                state = torch.where(first[:, t, None], 0.0, state)
            state = self._step(x[:, t], state)
            after.append(state)
        return torch.stack(after, 1).flatten(0, 1)

    def _inputs(self, encoded: Tensor) -> Tensor:
        """W x + b of all gates, of all rows at once."""
        W, _, b, _ = self.weights
        return nn.functional.linear(encoded, W, b)

    def _step(self, x: Tensor, memory: Tensor) -> Tensor:
        H, h = self.size, memory[:, : self.size]
        _, U, _, c = self.weights
        own = nn.functional.linear(h, U, c)
        if isinstance(self.cell, nn.GRU):
            r, z = torch.sigmoid(x[:, : 2 * H] + own[:, : 2 * H]).chunk(2, 1)
            n = torch.tanh(torch.addcmul(x[:, 2 * H :], r, own[:, 2 * H :]))
            return n + z * (h - n)
        i, f, g, o = (x + own).chunk(4, 1)
        c = torch.sigmoid(f) * memory[:, H:] + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], 1)


def make_memory_network(
    observation_space: spaces.Space,
    outputs: int,
    *,
    cell: str,
    size: int,
    hidden: Sequence[int],
    activation: str,
    output_gain: float,
    generator: torch.Generator,
    body: Body | None = None,
    network: str = "auto",
) -> MemoryNetwork:
    """A network with a memory of `size` for an observation space. Other keywords as in `make_network`.

    The encoder are the hidden layers, after convolutions where there are pictures; or `body` with a linear layer of `size`
    outputs and the activation after it. Without any of these the cell reads the features themselves.
    """
    encoding = Encoding(observation_space)
    if body is None and not hidden and not any(layouts_of(encoding, network)):
        inputs, encoder = encoding.width, nn.Flatten()
    else:
        *others, inputs = hidden if body is None and hidden else (size,)
        shape = {"hidden": others, "activation": activation, "output_gain": math.sqrt(2.0)}
        below = make_network(observation_space, inputs, **shape, generator=generator, body=body, network=network)
        encoder = nn.Sequential(below, ACTIVATIONS[activation]())
    return MemoryNetwork(encoder, inputs, cell, size, outputs, output_gain, generator)
