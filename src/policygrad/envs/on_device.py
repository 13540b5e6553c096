"""Rollouts in environments of tensors: everything that a record holds is made on the policy's device, and stays there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Record, Wants
from policygrad.envs.adapters import is_known, to_tensors
from policygrad.envs.torch_envs import TorchVectorEnv, World
from policygrad.errors import EnvError
from policygrad.forms import RECENT, Form, FormError, collector_form
from policygrad.models.continuous import Gaussian
from policygrad.models.heads import Categorical, Head
from policygrad.models.policy import Policy
from policygrad.streams import stream

NEEDED = {"time": "time", "ret": "ret", "resetting": "over"}  # names in a state, and those of a `World`
COUNTED = ("steps_done", "episodes_done")


class OnDeviceError(EnvError, ValueError):
    """Environments of tensors cannot play what is asked for."""


class DeviceCollector:
    """Steps environments of tensors with a policy: an `ExperienceSource`, as `Collector` is for the others.

    Each of the two can load the other's state, but for where the environments were: these then begin new episodes. wants: what
    the learner will ask for. Raises OnDeviceError where that is whole episodes, and for policies that act otherwise than by a
    network with a plain softmax or normal head.
    """

    def __init__(self, envs: TorchVectorEnv, policy: Any, wants: Wants, seed: int = 0) -> None:
        check_policy(policy)
        if wants.num_steps is None:
            raise OnDeviceError(
                "environments of tensors play so many steps at a time, and this recipe wants whole episodes: leave "
                "backend = torch out"
            )
        self.envs, self.num_envs = envs, envs.num_envs
        self.rng = np.random.default_rng(stream(seed, "acting"))
        self.world: World | None = None
        self.steps_done = self.episodes_done = 0
        self.returns: deque[float] = deque(maxlen=RECENT)
        self.lengths: deque[int] = deque(maxlen=RECENT)
        self.observers: list[Callable[[Record], None]] = []
        self.begun, self.progress = True, 0.0

    def begin(self, actor: Any) -> None:
        """Nothing to do before the first record."""

    def restore(self) -> None:
        """The environments are where they are to be."""

    def collect(self, actor: Policy, wants: Wants) -> Record:
        """So many rows of every environment, unfinished episodes `cut` at the edge. Where it fails, all is as it was before."""
        before = self.state_dict()
        try:
            assert wants.num_steps is not None
            record = self._steps(actor, wants.num_steps)
            for observer in self.observers:
                observer(record)
        except BaseException:
            self.load_state_dict(before)
            raise
        return record

    @torch.no_grad()
    def _steps(self, policy: Policy, T: int) -> Record:
        N, game = self.num_envs, self.envs.game
        generator = torch.Generator(policy.device).manual_seed(int(self.rng.integers(2**63)))
        like: dict[str, Any] = {"dtype": policy.flat.dtype, "device": policy.device}
        uniform = torch.rand(T + 1, N, game.width, generator=generator, **like)
        noise = draw(policy.head, (T, N), generator, like)
        world = self._placed(like) or self.envs.new(uniform[T])
        seen, acts, rows = [game.show(world.state)], [], []
        for t in range(T):
            out = policy.kernel.forward(policy.features(seen[t]), grad=False)[:, : policy.head.size]
            acts.append(sample(policy.head, out, noise[t]))
            world, row = self.envs.advance(world, acts[t], uniform[t])
            rows.append(row)
            seen.append(game.show(world.state))
        self.world = world
        rew, terminated, truncated, mask, time, ret = map(torch.stack, zip(*rows, strict=True))
        end = terminated | truncated
        finished = list(zip(ret[end].tolist(), (time[end] + 1).tolist(), strict=True))
        self._count(mask, finished)
        obs, cut = torch.stack(seen), torch.zeros_like(mask)
        cut[-1] = mask[-1] & ~end[-1]
        given = obs, obs[1:], torch.stack(acts), rew, terminated, truncated, cut, mask, time
        return Record(*given, finished=finished)  # pyright: ignore[reportArgumentType]

    def _placed(self, like: dict[str, Any]) -> World | None:
        """Where the environments are, on this device; None where they are to begin."""
        if self.world is None:
            return None
        state, *others = self.world
        return World(state.to(**like), *(x.to(like["device"]) for x in others))

    def _count(self, mask: Tensor, finished: list[tuple[float, int]]) -> None:
        self.steps_done += int(torch.count_nonzero(mask))
        self.episodes_done += len(finished)
        for ret, length in finished[-RECENT:]:
            self.returns.append(ret)
            self.lengths.append(length)

    def state_dict(self) -> dict[str, Any]:
        """The generator and the counters, and where the environments are."""
        known = {"state": None} | dict.fromkeys(NEEDED)
        if self.world is None:
            N = self.num_envs
            known |= {"time": np.zeros(N, np.int64), "ret": np.zeros(N), "resetting": np.zeros(N, bool)}
        else:
            known |= {"state": self.world.state} | {k: getattr(self.world, name) for k, name in NEEDED.items()}
        own = {name: getattr(self, name) for name in COUNTED}
        recent = {"returns": list(self.returns), "lengths": list(self.lengths)}
        rest = {"rng": self.rng.bit_generator.state, "obs": None, "env_seeds": [], "envs": None}
        return to_tensors(known | own | recent | rest)

    def state_form(self) -> Form:
        """Of `state_dict`."""
        return collector_form(self.num_envs)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. The environments begin anew where the state does not say where they were."""
        self.rng.bit_generator.state = state["rng"]
        for name in COUNTED:
            setattr(self, name, state[name])
        self.returns, self.lengths = deque(state["returns"], RECENT), deque(state["lengths"], RECENT)
        self.world = None
        place = state.get("state")
        if not isinstance(place, Tensor) or state.get("envs") is not None:  # that of an actor, of another collector
            return
        shape = (self.num_envs, self.envs.game.width)
        if tuple(place.shape) != shape or not place.is_floating_point():
            raise FormError(f"the environments' states must be {shape}, got {tuple(place.shape)} of {place.dtype}")
        self.world = World(place, *(state[name] for name in NEEDED))


def check_policy(policy: Any) -> None:
    """Raises OnDeviceError for a policy that cannot act in tensors."""
    if not is_known(policy):
        hint = ": set memory = none" if getattr(policy, "stateful", False) else ""
        raise OnDeviceError(
            f"backend = torch plays policies of the class Policy itself, got {type(policy).__name__}{hint}"
        )
    if type(policy.head) not in (Categorical, Gaussian) or policy.head.context:
        raise OnDeviceError(
            f"backend = torch samples from Categorical and Gaussian heads without a context, got {policy.head}"
        )


def draw(head: Head, shape: tuple[int, ...], generator: torch.Generator, like: dict[str, Any]) -> Tensor:
    """The randomness of so many steps: Gumbel noise for choices, and normal numbers for the others."""
    if isinstance(head, Categorical):
        e = torch.empty(*shape, head.size, **like).exponential_(generator=generator)
        return -e.clamp_(min=torch.finfo(e.dtype).tiny).log_()
    assert isinstance(head, Gaussian)
    return torch.randn(*shape, head.dims, generator=generator, **like)


def sample(head: Head, out: Tensor, noise: Tensor) -> Tensor:
    """Actions from outputs (N, P) and noise (N, …), as `Head.sample` has them in NumPy."""
    if isinstance(head, Categorical):
        return (out + noise).argmax(-1)
    assert isinstance(head, Gaussian)
    mean, log_std = head.canonical(out).split(head.dims, -1)
    return (mean + log_std.exp() * noise).reshape(-1, *head.shape)
