"""CartPole and Pendulum as functions of tensors: all environments in one call, on any device that torch has.

A game is three functions of batches: `begin` makes first states of uniform numbers, `play` is a step, and `show` is what is
seen of a state. Dynamics, rewards and ends are Gymnasium's, in 32 bits, where Gymnasium has 64 for its states. Random numbers
are torch's, so the same seed gives other episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from policygrad.envs.single import EnvLike, make_one

CLASSIC = "gymnasium.envs.classic_control"


class TensorGame(Protocol):
    """The rules of an environment. No function changes what it is given, and none waits for the device."""

    width: int  # numbers of a state

    def begin(self, uniform: Tensor) -> Tensor:
        """First states (N, width), of numbers in [0, 1) of the same shape."""
        ...

    def play(self, state: Tensor, act: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next states, the rewards (N,) and whether the episodes are over, (N,) bool."""
        ...

    def show(self, state: Tensor) -> Tensor:
        """The observations, (N, *)."""
        ...


class TensorCartPole:
    """A cart that balances a pole, (x, ẋ, θ, θ̇): Barto, Sutton & Anderson 1983, as `CartPoleEnv` has it."""

    width = 4
    gravity, force, tau = 9.8, 10.0, 0.02
    mass, pole_mass, half_length = 1.1, 0.1, 0.5  # mass: of cart and pole
    far, tilted = 2.4, 12.0 * 2.0 * math.pi / 360.0

    def begin(self, uniform: Tensor) -> Tensor:
        return 0.1 * uniform - 0.05

    def play(self, state: Tensor, act: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, speed, angle, turning = state.unbind(-1)
        cos, sin, force = angle.cos(), angle.sin(), (2 * act - 1).to(state.dtype) * self.force
        pull = self.pole_mass * self.half_length
        push = (force + pull * turning.square() * sin) / self.mass
        lever = self.half_length * (4.0 / 3.0 - self.pole_mass * cos.square() / self.mass)
        turn = (self.gravity * sin - cos * push) / lever
        rates = torch.stack([speed, push - pull * turn * cos / self.mass, turning, turn], -1)
        state = state + self.tau * rates
        over = (state[:, 0].abs() > self.far) | (state[:, 2].abs() > self.tilted)
        return state, torch.ones_like(x), over

    def show(self, state: Tensor) -> Tensor:
        return state


class TensorPendulum:
    """A pendulum that is to be swung up, (θ, θ̇), as `PendulumEnv` has it; it never terminates."""

    width = 2
    fastest, strongest, dt, gravity = 8.0, 2.0, 0.05, 10.0

    def begin(self, uniform: Tensor) -> Tensor:
        angle, turning = (2.0 * uniform - 1.0).unbind(-1)
        return torch.stack([math.pi * angle, turning], -1)

    def play(self, state: Tensor, act: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        angle, turning = state.unbind(-1)
        torque = act.reshape(-1).to(state.dtype).clamp(-self.strongest, self.strongest)
        off = torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi
        cost = off.square() + 0.1 * turning.square() + 0.001 * torque.square()
        turning = turning + (1.5 * self.gravity * angle.sin() + 3.0 * torque) * self.dt
        turning = turning.clamp(-self.fastest, self.fastest)
        return torch.stack([angle + turning * self.dt, turning], -1), -cost, torch.zeros_like(angle, dtype=torch.bool)

    def show(self, state: Tensor) -> Tensor:
        angle, turning = state.unbind(-1)
        return torch.stack([angle.cos(), angle.sin(), turning], -1)


GAMES: dict[str, Callable[[], TensorGame]] = {
    f"{CLASSIC}.cartpole:CartPoleEnv": TensorCartPole,
    f"{CLASSIC}.pendulum:PendulumEnv": TensorPendulum,
}


def why_not_torch(env: EnvLike) -> str | None:
    """The reason why an environment cannot be stepped as tensors, or None where it can."""
    spec = gym.registry.get(env) if isinstance(env, str) else None
    if spec is None:
        return "it is not an id without keywords and wrappers"
    if str(spec.entry_point) not in GAMES or spec.kwargs or spec.additional_wrappers:
        return "only CartPole and Pendulum are, as Gymnasium registers them"
    return None


class World(NamedTuple):
    """Where N environments are."""

    state: Tensor  # (N, width)
    time: Tensor  # (N,) int64, steps into the episodes
    ret: Tensor  # (N,) float64, their returns so far
    over: Tensor  # (N,) bool: the episode has ended, and the next row is a reset


class Shown(NamedTuple):
    """What a step shows: rewards, ends, and of each episode the number of the step and the return so far, (N,) each."""

    rew: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    time: Tensor
    ret: Tensor


class TorchVectorEnv(VectorEnv):
    """`num_envs` environments of an id that `GAMES` knows, in NEXT_STEP mode: their rules and spaces.

    Where they are is a `World`, which `new` makes and `advance` moves. Raises ValueError for another environment.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012, as in the base class

    def __init__(self, env_id: str, num_envs: int) -> None:
        if (why := why_not_torch(env_id)) is not None:
            raise ValueError(f"{env_id} cannot be stepped as tensors: {why}")
        single = make_one(env_id)
        self.spec, self.num_envs = gym.registry[env_id], num_envs
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = batch_space(single.observation_space, num_envs)
        self.action_space = batch_space(single.action_space, num_envs)
        self.game = GAMES[str(self.spec.entry_point)]()
        self.limit = self.spec.max_episode_steps or 2**62

    def new(self, uniform: Tensor) -> World:
        """Environments at the beginning of their episodes, of numbers in [0, 1), (N, width)."""
        none = torch.zeros_like(uniform[:, 0], dtype=torch.int64)
        return World(self.game.begin(uniform), none, none.double(), none.bool())

    def advance(self, world: World, act: Tensor, uniform: Tensor) -> tuple[World, Shown]:
        """A step of all environments with actions (N, *), or the reset of those that are over, of numbers in [0, 1)."""
        mask = ~world.over
        state, rew, terminated = self.game.play(world.state, act)
        state = torch.where(mask.unsqueeze(-1), state, self.game.begin(uniform))
        rew, terminated = torch.where(mask, rew, 0.0), terminated & mask
        time = torch.where(mask, world.time, 0)
        after = time + mask
        truncated = (after >= self.limit) & ~terminated & mask
        over = terminated | truncated
        ret = torch.where(mask, world.ret, 0.0) + rew
        return World(state, after, ret, over), Shown(rew, terminated, truncated, mask, time, ret)

    def compile(self, **options: Any) -> None:
        """Have torch.compile make one kernel of a step. It needs a C++ compiler, or on a GPU Triton, and takes some seconds."""
        self.advance = torch.compile(self.advance, **options)
