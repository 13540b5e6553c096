"""Recurrent policies: π(a | everything seen since the episode began), by a GRU or an LSTM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policygrad.models.contracts import Rows
from policygrad.models.memory import FIRST, MEMORY, MemoryNetwork, Segments, make_memory_network
from policygrad.models.memory_kernel import MemoryKernel, make_memory_kernel
from policygrad.models.networks import WithLogStd
from policygrad.models.policy import NOISE, NOTHING, Policy, PolicyEvaluation, make_policy
from policygrad.tree import Tree, to_numpy


class RecurrentPolicy(Policy):
    """π(a_t | o_0, …, o_t) = head(read(m_t)), m_t = cell(encoder(o_t), m_{t−1}), m_{−1} = 0 where an episode begins.

    The memory is the actor's state, and what it was before each step is recorded: `extra["memory"]` (T, N, M), with
    `extra["first"]` (T, N), whether the step is an episode's first. A batch is read in segments of `segment` steps, each from
    the memory recorded at its beginning, which is a constant there: the gradient does not reach back beyond it (truncated
    backpropagation through time, Williams & Peng 1990). Where segments are whole episodes it is the whole gradient.
    segment = 0: whole columns of the rollout. Where the parameters have moved since, as in later epochs of PPO, recorded
    memories are those of the policy that acted, as in other libraries.
    `network` is a `MemoryNetwork`, or one in a `WithLogStd`.
    """

    begins_once = False
    known = False  # compiled functions have no memory
    segment: int = 0  # rows of a segment; 0: all rows of a column
    kernel_of = staticmethod(make_memory_kernel)

    @property
    def core(self) -> MemoryNetwork:
        """The network without a free log-std."""
        network = self.network.mean if isinstance(self.network, WithLogStd) else self.network
        assert isinstance(network, MemoryNetwork)
        return network

    @property
    def rolls(self) -> bool:
        """No whole rollouts are compiled."""
        return False

    @property
    def stateful(self) -> bool:
        """The memory is a state."""
        return True

    def begin(self, noise: np.ndarray) -> Any:
        """An empty memory, (N, M), and what else is the head's."""
        N, own = len(noise), {NOISE: self.head.first_noise(noise)} if self.head.stateful else {}
        return {MEMORY: np.zeros((N, self.core.width), self._dtype), FIRST: np.ones(N, bool), **own}

    def act(self, obs: Tree, state: Any, noise: np.ndarray) -> tuple[np.ndarray, Any, dict[str, Tree]]:
        """Sampled actions, the memory after this step, and the memory before it: see `Actor`."""
        out, after = self.advanced(obs, state)
        if self.head.stateful:
            after[NOISE] = self.head.next_noise(state[NOISE], noise)
        return self.head.sample(self.conditioned(out, obs, state.get(NOISE)), noise), after, state

    def acting(self, rows: int) -> Callable[..., tuple[np.ndarray, Any, dict[str, Tree]]]:
        """`act`: nothing here is compiled."""
        return self.act

    def mode(self, obs: Tree, state: Any = None) -> tuple[np.ndarray, Any]:
        """The most likely actions, and the memory after this step. state None: an episode begins."""
        N = len(self.inputs(obs))
        state = self.begin(self.noise(np.random.default_rng(0), (N,))) if state is None else state
        out, after = self.advanced(obs, state)
        return self.head.mode(self.conditioned(out, obs, None)), after

    def advanced(self, obs: Tree, state: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The network's outputs for one step of N environments, and the state after it, in NumPy."""
        if isinstance(self.kernel, MemoryKernel):
            out, after = self.kernel.advance(self.inputs(obs), state[MEMORY])
            return out, dict(state) | {MEMORY: after, FIRST: np.zeros(len(out), bool)}
        features = torch.from_numpy(self.inputs(obs)).to(self.flat)
        with torch.no_grad():
            memory = self.core.advance(features, torch.from_numpy(state[MEMORY]).to(self.flat))
            out = self.core.read(memory)
            if isinstance(self.network, WithLogStd):
                out = torch.cat([out, self.network.log_std.expand_as(out)], -1)
        return to_numpy(out), dict(state) | {MEMORY: to_numpy(memory), FIRST: np.zeros(len(out), bool)}

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(str(self.flat.dtype).rpartition(".")[2])

    def _segments(self, obs: Tree, extra: Mapping[str, Any], length: int) -> Any:
        if MEMORY not in extra:
            raise ValueError(
                "the actions of a recurrent policy depend on what was seen before: give the recorded arrays 'memory' and "
                "'first' in extra, or use act and mode with a state"
            )
        return Segments(self.features(obs), extra[MEMORY].to(self.flat), extra[FIRST], length)

    def forward(self, obs: Tree, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
        """The distribution (B, P) of single steps from the memories in extra, with its graph."""
        return self._distribution(self.network(self._segments(obs, extra, 1)), self.context(obs, extra))

    def dist(self, obs: Tree, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
        """The distribution (B, P) of single steps from the memories in extra, no graph."""
        out = self.kernel.forward(self._segments(obs, extra, 1), grad=False)
        return self._distribution(out, self.context(obs, extra))

    def distributions(self, batch: Rows) -> Tensor:
        """The distributions of a batch (B, P), read as segments."""
        out = self.kernel.forward(self._segments(batch.obs, batch.extra, _length(batch)), grad=False)
        return self._distribution(out, self.context(batch.obs, batch.extra))

    def evaluate(self, batch: Rows) -> PolicyEvaluation:
        """As `Policy.evaluate`; the rows of a segment are read in order."""
        context = self.context(batch.obs, batch.extra)
        out = self.kernel.forward(self._segments(batch.obs, batch.extra, _length(batch)))
        dist = self._distribution(out, context)
        logp = self.head.logp(dist, batch.act)
        return PolicyEvaluation(self.kernel, self.head, out, dist, batch.act, logp, context, self.kernel.passes)

    def outputs(self, obs: Tree, noise: np.ndarray | None = None) -> np.ndarray:
        """There are none without a memory: raises ValueError."""
        raise ValueError("the outputs of a recurrent policy depend on its memory: use act and mode with a state")


def _length(batch: Any) -> int:
    return getattr(batch, "segment", 1)


def make_recurrent_policy(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    *,
    memory: str = "gru",
    memory_size: int = 64,
    segment: int = 0,
    **keywords: Any,
) -> RecurrentPolicy:
    """A policy with a memory for the given spaces, with a new network.

    memory: "gru" or "lstm". memory_size: H, the numbers that it carries (an LSTM 2H). segment: see `RecurrentPolicy`. keywords:
    as in `make_policy`.
    """
    network = partial(make_memory_network, cell=memory, size=memory_size)
    policy = make_policy(observation_space, action_space, kind=RecurrentPolicy, network_of=network, **keywords)
    policy.segment = segment
    return policy
