"""V(history): a critic with a memory of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from policygrad.data import Rollout, Values, segments
from policygrad.forms import Form, array, table
from policygrad.models.ascent import epochs_of, minibatch_ascent
from policygrad.models.critic import Critic
from policygrad.models.memory import MemoryNetwork, Segments, make_memory_network
from policygrad.models.memory_kernel import make_memory_kernel
from policygrad.models.policy import Body, Policy
from policygrad.models.schedules import at
from policygrad.models.workspace import AscentPlan
from policygrad.pieces import shuffled
from policygrad.total import agreed, total
from policygrad.tree import Tree, in_chunks, take, tree_map


class RecurrentCritic(Critic):
    """V(o_0, …, o_t), of what was seen since the episode began, regressed on the estimator's targets in segments.

    Values of a rollout are one pass over its columns. V of what follows a step is that of the true next observation given the
    history, also where an episode was truncated or the rollout cut. Episodes that a rollout cuts go on in the next one from the
    memory that they had reached, computed by the parameters of that time. Segments are those of the policy, see
    `RecurrentPolicy`, and begin in the memories of the pass. Where an action says more of what is hidden than the observations
    after it do, V of the observations alone is biased as a bootstrap, though not as a baseline: show the last action then.
    """

    network: MemoryNetwork  # pyright: ignore[reportIncompatibleVariableOverride]
    known = False  # compiled functions have no memory
    kernel_of = staticmethod(make_memory_kernel)

    def __init__(self, network: MemoryNetwork, **keywords: Any) -> None:
        super().__init__(network, **keywords)  # pyright: ignore[reportArgumentType]
        self.reached = torch.zeros(0, network.width)  # (N, M) where the last rollout's columns go on, or (0, M)
        self._pass: tuple[Rollout, Tensor, Tensor, Tensor] | None = None  # the last one, which `fit` needs again

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        """V at every row, and at every next row."""
        self._pass = None  # the parameters may have moved
        shape, (_, after, _) = rollout.rew.shape, self._memories(rollout, policy)

        def following(rows: dict[str, Tree]) -> Tensor:
            return self.network.read(self.network.advance(policy.features(rows["obs"]), rows["memory"]))

        with torch.no_grad():
            val = self.network.read(after.flatten(0, 1))
            rows = {"obs": tree_map(lambda x: x.flatten(0, 1), rollout.next_obs), "memory": after.flatten(0, 1)}
            both = torch.stack([val, in_chunks(following, rows)]).view(2, *shape)
        val, following_val = both * self.std + self.mean
        return Values(val, following_val)

    def _memories(self, rollout: Rollout, policy: Policy) -> tuple[Tensor, Tensor, Tensor]:
        """The memory before and after every row, (T, N, M), and the features, all no graph."""
        if self._pass is not None and self._pass[0] is rollout:
            return self._pass[1:]
        T, N = rollout.rew.shape
        known = self.reached if len(self.reached) == N else self.flat.new_zeros(N, self.network.width)
        rows = tree_map(lambda x: x.flatten(0, 1), take(rollout.obs, slice(-1)))
        features = policy.features(rows)
        with torch.no_grad():
            encoded = in_chunks(self.network.encoder, features)
            x = encoded.view(T, N, -1).transpose(0, 1).flatten(0, 1)
            first = begins(rollout)
            start = Segments(features, known.repeat_interleave(T, 0), first.T.flatten(), T)
            after = self.network.memories(x, start).view(N, T, -1).transpose(0, 1)
        before = torch.cat([known[None], after[:-1]])
        self._pass = rollout, before, after, features.unflatten(0, (T, N))
        return self._pass[1:]

    def fit(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> dict[str, float]:
        """As `Critic.fit`, and the next rollout goes on from where the columns of this one end."""
        _, after, _ = self._memories(rollout, policy)
        goes_on = agreed(bool(rollout.cut.any()))[0]
        stats = super().fit(rollout, target, policy, progress)
        self.reached, self._pass = after[-1].clone() if goes_on else after.new_zeros(0, self.network.width), None
        return stats

    def regress(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> None:
        """The regression of `fit`, in the scale that there is: rows that are no steps have weight 0."""
        before, _, features = self._memories(rollout, policy)
        length = policy.segment or len(rollout.rew)
        target = torch.where(rollout.mask, (target - self.mean) / self.std, 0.0)
        columns = {"features": features, "memory": before, "first": begins(rollout), "target": target}
        columns["weight"] = rollout.mask.to(self.flat.dtype) / total(rollout.steps)
        rows = tree_map(lambda x: segments(x, length), columns)
        count = total(len(rows["target"]))
        how = AscentPlan(self.optimizer, at(self.lr, progress), self.max_grad_norm, self.minibatches, self.generator)

        def gradient(piece: tuple[dict[str, Tensor], int]) -> Tensor:  # of −½ mean error²
            mb, size = piece
            out = self.kernel.forward(Segments(mb["features"], mb["memory"], mb["first"], length))  # pyright: ignore
            share = mb["weight"] * (count / size)
            return self.kernel.vjp((mb["target"].unsqueeze(-1) - out) * share.unsqueeze(-1))

        ascent = epochs_of(self.flat, lambda: shuffled(rows, self.minibatches, self.generator, length), gradient, how)
        minibatch_ascent(ascent, self.epochs, owner="the critic", remedy="lower critic_lr")

    def value(self, features: Tensor) -> Tensor:
        """There is none without a memory: raises ValueError."""
        raise ValueError("the values of a recurrent critic depend on its memory: call it with a rollout")

    def get_extra_state(self) -> dict[str, Any]:
        """As `Critic` has it, and the memories of open episodes."""
        return super().get_extra_state() | {"reached": self.reached}

    def _forms(self) -> dict[str, Form]:
        own = super()._forms()
        rest, width = own["_extra_state"], self.network.width
        reached = table({"reached": array((None, width), str(self.flat.dtype).rpartition(".")[2])})

        def check(name: str, value: Any) -> None:
            given = value if isinstance(value, dict) else {}
            rest(name, {key: x for key, x in given.items() if key != "reached"})
            reached(name, {key: x for key, x in given.items() if key == "reached"})

        return own | {"_extra_state": check}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_extra_state`."""
        super().set_extra_state(state)
        self.reached = state["reached"].to(self.flat)

    def _apply(self, fn: Any, recurse: bool = True) -> RecurrentCritic:
        super()._apply(fn, recurse)
        self.reached, self._pass = fn(self.reached), None
        return self

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_pass": None}


def begins(rollout: Rollout) -> Tensor:
    """(T, N) bool: the steps with which an episode begins."""
    return rollout.mask & (rollout.time == 0)


def make_recurrent_critic(
    observation_space: spaces.Space,
    *,
    memory: str = "gru",
    memory_size: int = 64,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
    body: Body | None = None,
    network: str = "auto",
    seed: int = 0,
    **keywords: Any,
) -> RecurrentCritic:
    """A critic of V(history) with a new network; memory, memory_size as in `make_recurrent_policy`, others as in `Critic`."""
    made = make_memory_network(
        observation_space,
        1,
        cell=memory,
        size=memory_size,
        hidden=hidden,
        activation=activation,
        output_gain=1.0,
        generator=torch.Generator().manual_seed(int(seed)),
        body=body,
        network=network,
    )
    return RecurrentCritic(made, seed=seed, **keywords)
