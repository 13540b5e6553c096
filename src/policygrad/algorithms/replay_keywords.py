"""The keywords of recipes that learn from a replay buffer, in groups as in `keywords.py`. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from policygrad.algorithms.keywords import TINY, CriticHidden, Gamma, LrSchedule, MaxGradNorm, Option

TrainEvery = Annotated[
    int,
    Option(
        "steps per environment between updates, which come in groups of gradient_steps",
        1,
        10**7,
        tune=(1, 256, "log"),
        foreign=("train_freq", "train_frequency", "update_every"),
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReplayMemory:
    """The keywords of the replay buffer and of what is drawn from it."""

    buffer_size: Annotated[
        int,
        Option(
            "steps that the replay buffer keeps",
            1,
            10**9,
            tune=(10_000, 1_000_000, "log"),
            foreign=("replay_size",),
        ),
    ] = 100_000
    batch_size: Annotated[int, Option("transitions in a minibatch", 1, 10**6, tune=(32, 512, "log"))] = 64
    gradient_steps: Annotated[
        int | None,
        Option(
            "minibatches after every num_steps; none: as many as environment steps were played",
            1,
            10**6,
            tune=(1, 128, "log"),
        ),
    ] = None
    warmup: Annotated[
        int,
        Option(
            "steps with uniformly random actions, before anything is learned",
            0,
            tune=(100, 10_000, "log"),
            foreign=("learning_starts", "start_steps", "update_after"),
        ),
    ] = 1_000
    n_step: Annotated[
        int, Option("rewards that are summed before a value is bootstrapped from", 1, 1000, tune=(1, 10))
    ] = 1
    gamma: Gamma = 0.99

    def values(self) -> dict[str, Any]:
        """The keywords of a `ReplayLearner`."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """The keywords of ε-greedy exploration."""

    epsilon: Annotated[
        float,
        Option(
            "final probability of a random action; a schedule is that of the probability itself",
            0,
            1,
            tune=(0.01, 0.2),
            schedule=True,
            foreign=("exploration_final_eps", "end_e"),
        ),
    ] = 0.05
    epsilon_fraction: Annotated[
        float,
        Option(
            "share of training in which the probability of a random action falls from 1 to epsilon",
            0,
            1,
            tune=(0.05, 0.5),
            foreign=("exploration_fraction",),
        ),
    ] = 0.1

    def schedule(self) -> Any:
        """ε as a function of training's progress."""
        from policygrad.models.schedules import linear

        return self.epsilon if callable(self.epsilon) else linear(1.0, self.epsilon, self.epsilon_fraction)


Twin = Annotated[bool, Option("two critics, whose smaller value is bootstrapped from")]


@dataclass(frozen=True, kw_only=True)
class DeterministicActor:
    """The keywords of a deterministic policy: its noise, and the changes that make DDPG TD3."""

    noise: Annotated[
        float,
        Option(
            "standard deviation of the exploration noise, in units of half the action range",
            0,
            10,
            tune=(0.05, 0.5),
            schedule=True,
            foreign=("exploration_noise", "act_noise"),
        ),
    ] = 0.1
    twin: Twin = False
    delay: Annotated[
        int,
        Option(
            "steps of the critic for every step of the policy",
            1,
            100,
            tune=(1, 4),
            foreign=("policy_delay", "policy_frequency"),
        ),
    ] = 1
    smoothing: Annotated[
        float,
        Option(
            "standard deviation of the noise on the actions in targets; 0: none",
            0,
            10,
            tune=(0, 0.5),
            foreign=("target_policy_noise", "policy_noise", "target_noise"),
        ),
    ] = 0.0
    smoothing_limit: Annotated[
        float,
        Option(
            "largest size of the noise on the actions in targets",
            0,
            10,
            tune=(0.1, 1),
            foreign=("target_noise_clip", "noise_clip"),
        ),
    ] = 0.5


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The keywords of an actor and a critic of q(s, a) that share their learning rate unless told otherwise."""

    lr: Annotated[
        float,
        Option(
            "learning rate of the policy (Adam)",
            0,
            100,
            tune=(1e-4, 3e-3, "log"),
            schedule=True,
            foreign=("learning_rate", "pi_lr", "policy_lr"),
        ),
    ] = 1e-3
    critic_lr: Annotated[
        float | None,
        Option(
            "learning rate of the critic (Adam); none: that of the policy",
            0,
            100,
            tune=(1e-4, 1e-2, "log"),
            schedule=True,
            foreign=("q_lr",),
        ),
    ] = None
    lr_schedule: LrSchedule = "constant"
    tau: Annotated[
        float,
        Option(
            "share by which the copies of the networks move towards them at every step",
            TINY,
            1,
            tune=(0.001, 0.05, "log"),
        ),
    ] = 0.005
    max_grad_norm: MaxGradNorm = None
    critic_hidden: CriticHidden = None

    def rates(self) -> dict[str, Any]:
        """The learning rates and the clipping of a `Pathwise` rule."""
        from policygrad.models.schedules import make_schedule

        return {
            "lr": make_schedule(self.lr_schedule, self.lr),
            "critic_lr": make_schedule(self.lr_schedule, self.lr if self.critic_lr is None else self.critic_lr),
            "max_grad_norm": self.max_grad_norm,
        }
