"""Planted faults of trainings and of learners, the rule that must find each, and what counts as harm: written, with the
thresholds, before the rules were, and before any of these runs was looked at.

`benchmarks/doctor_runs.py` trains them and counts. The rules are tuned on CartPole and Pendulum alone.

Harm. A setting is a fault where it does harm. The reference of a fault is the same algorithm with its preset (or its defaults),
for the same number of steps in the same environment, with n = 5 seeds, or as many as there was time for; `short` faults have
the reference of the full number. A run was harmed if the mean return of the last fifth of its training episodes is below the
95 % prediction interval of the reference, mean − t · s · √(1 + 1/n) with Student's t of n − 1 degrees of freedom, or if the run
was stopped by an error. Runs that were not harmed are listed as such, and count neither as found nor as missed. An environment
that is broken (`wrap`) or a network that is (`body`) is a fault in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from faults import Deaf, Endless, scaled, with_reward
from gymnasium import spaces
from torch import nn

# The thresholds, as the rules are to have them. With *: a proposal of ours; otherwise from the source that is named.
THRESHOLDS = {
    "first ratio": 1e-5,  # * mean |log ratio| before the update, median of the rows (Huang et al. 2022)
    "gradient clipping": 0.9,  # * share of the rows whose gradient is longer than max_grad_norm
    "momentum": 0.1,  # * cosine of the angle between the batch's gradient and the step, median (Petrenko)
    "entropy swings": (4, 0.2),  # * turns, each of at least this share of the first entropy (Jones)
    "clipped actions": 0.3,  # * share of the numbers of the actions, in half of the rows (Stable-Baselines3's tips)
    "no advantage": (1e-8, 0.2),  # * standard deviation, and share of the rows (TRL)
    "progress": 4.0,  # * standard deviations by which the best return rose, or standard errors of the lengths (Schulman)
    "limit": 20,  # episodes, all of the same length, in a run whose return does not rise
    "luck": (0.05, 4),  # p-value of the permutation of seeds, and least number of seeds per side (Henderson)
    "replay": (1.0, 1000.0),  # * times that a step is replayed
    "horizon": (5.0, 0.1),  # * steps of 1/(1 − γ), and share of the mean length of episodes
    "probes": (0.1, 0.9),  # * error of V, and least probability of the best action (Jones)
    "sweep width": 3.0,  # * between the largest and the smallest learning rate that work (Schulman)
}

BOXES = ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")
ALL = (*BOXES, "Taxi-v4")
CONTINUOUS = ("Pendulum-v1", "LunarLanderContinuous-v3")
STEPS = {  # of trainings with a fault, and of their references
    "CartPole-v1": 50_000,
    "Pendulum-v1": 50_000,
    "Acrobot-v1": 30_000,
    "LunarLander-v3": 50_000,
    "LunarLanderContinuous-v3": 50_000,
    "Taxi-v4": 30_000,
}
REPLAYED = 5_000  # the same, of algorithms with a replay buffer
SCREENED = 3  # a healthy run has the preset's steps divided by this


@dataclass(frozen=True)
class RunFault:
    """A fault of a training.

    rules: any of them counts as found. settings: the keywords that are wrong. wrap: a fault of the environment. body: one of
    the network. alter: what is done to the agent before it trains. short: whether its number of steps is the fault.
    """

    name: str
    rules: tuple[str, ...]
    algo: str
    settings: dict[str, Any] = field(default_factory=dict)
    wrap: Callable[[gym.Env], gym.Env] | None = None
    body: Callable[[spaces.Space], nn.Module] | None = None
    alter: Callable[[Any], None] | None = None
    envs: tuple[str, ...] = ALL
    short: bool = False

    @property
    def broken(self) -> bool:
        """Whether it is a fault in any case, and not only where it does harm."""
        return self.wrap is not None or self.body is not None


class Unreached(gym.Wrapper):
    """Nothing is ever terminated: a limit truncates every episode, as where the goal is out of reach. Rewards are noise."""

    def __init__(self, env: gym.Env, limit: int = 100) -> None:
        super().__init__(env)
        self.limit, self.time, self.noise = limit, 0, np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        if seed is not None:
            self.noise = np.random.default_rng(seed)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.time += 1
        obs, _, _, _, info = self.env.step(action)
        return obs, -1.0 - 0.1 * float(self.noise.random()), False, self.time >= self.limit, info


class Unsteady(nn.Module):
    """A body whose features are random from some call on, as those of a forgotten dropout are."""

    def __init__(self, space: spaces.Space, calls: int = 100) -> None:
        super().__init__()
        width = spaces.flatdim(space)
        self.body, self.calls = nn.Sequential(nn.Linear(width, 64), nn.Tanh()), calls

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        features = self.body(obs.reshape(len(obs), -1))
        self.calls -= 1
        return features if self.calls > 0 else nn.functional.dropout(features, 0.5, training=True)


def heavy_momentum(agent: Any) -> None:
    """Adam with β₁ = 0.999."""
    agent.learner.update.optimizer.beta1 = 0.999


def late_explosion(agent: Any) -> None:
    """A learning rate that is 1 from 70 % of the training on."""
    update = agent.learner.update
    before = update.lr
    rate = before if callable(before) else lambda progress: before
    update.lr = lambda progress: 1.0 if progress > 0.7 else rate(progress)


def seldom(self: Any, obs: Any, rew: float, over: bool) -> float:
    """1 at the end of one episode in fifty, and 0 otherwise."""
    return float(over and self.noise.random() < 0.02)


RUN_FAULTS = [
    RunFault("learning rate too high", ("KL", "settings", "entropy"), "ppo", {"lr": 0.3}),
    RunFault("learning rate too low", ("KL", "settings", "entropy"), "ppo", {"lr": 1e-8}),
    RunFault("entropy bonus too large", ("entropy",), "ppo", {"ent_coef": 10.0}),
    RunFault("entropy lost at once", ("entropy", "settings", "KL"), "ppo", {"ent_coef": 0.0, "lr": 0.1}),
    RunFault("a critic that does not fit", ("critic",), "ppo", {"critic_lr": 1e-10}),
    RunFault("one environment and tiny batches", ("batch",), "ppo", {"num_envs": 1, "num_steps": 8, "minibatches": 1}),
    RunFault("a training far too short", ("short run",), "ppo", {"steps": 4096}, short=True),
    RunFault("rewards of 0", ("equal returns", "no gradient"), "ppo", wrap=with_reward(lambda *_: 0.0)),
    RunFault("actions without an effect", ("not improving",), "ppo", wrap=Deaf),
    RunFault("no episode ends", ("no episodes",), "ppo", wrap=Endless),
    RunFault("too many epochs", ("clip", "KL"), "ppo", {"epochs": 60, "lr": 0.01}),
    RunFault("REINFORCE with a large step", ("KL", "entropy"), "reinforce", {"lr": 1.0}),
    # of rules that there are, which had no fault
    RunFault("a policy destroyed late", ("lost again",), "ppo", alter=late_explosion),
    RunFault("observations of 0", ("critic", "greedy", "not improving"), "ppo", wrap=scaled(0.0), envs=BOXES),
    RunFault(
        "action values that explode",
        ("action values", "settings"),
        "dqn",
        {"lr": 0.1, "target_every": None, "double": False},
    ),
    RunFault("sixteen steps per update", ("batch", "gradient noise"), "a2c", {"num_envs": 4, "num_steps": 4}),
    RunFault("one iteration of conjugate gradients", ("steps",), "trpo", {"cg_iterations": 1, "damping": 1e-6}),
    # of rules that are to come
    RunFault("features that are random", ("first ratio",), "ppo", body=Unsteady),
    RunFault(
        "gradients clipped to nothing",
        ("gradient clipping",),
        "a2c",
        {"optimizer": "sgd", "lr": 1e-2, "max_grad_norm": 1e-3},
    ),
    RunFault("a momentum of 0.999", ("momentum",), "a2c", alter=heavy_momentum),
    RunFault(
        "a rate at which entropy swings", ("entropy swings", "KL"), "ppo", {"lr": 0.05, "lr_schedule": "constant"}
    ),
    RunFault("actions beyond their bounds", ("clipped actions",), "ppo", {"log_std": 2.0}, envs=CONTINUOUS),
    RunFault(
        "a reward in few batches", ("no advantage",), "reinforce", {"baseline": "leave-one-out"}, with_reward(seldom)
    ),
    RunFault("stopped as it begins to learn", ("progress", "short run"), "ppo", {"steps": 8_000}, short=True),
    RunFault("an end that is never reached", ("limit",), "ppo", wrap=Unreached),
    RunFault("a buffer hardly replayed", ("replay",), "dqn", {"num_steps": 256, "gradient_steps": 1}),
    RunFault(
        "a buffer replayed too often",
        ("replay",),
        "dqn",
        {"num_steps": 4, "gradient_steps": 64, "batch_size": 128, "hidden": (32,), "steps": 2_000},
    ),
    RunFault("a discount of 0.1", ("horizon",), "ppo", {"gamma": 0.1}),
]

# Two settings that are one: five seeds with the preset's learning rate, and five with one that is larger by a ten-thousandth.
LUCK = ("better by luck", ("luck",), 1.0001)
