"""The `Task` that a recipe is given and the `Plan` that it returns."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gymnasium import spaces

from policygrad.algorithms.keywords import Network
from policygrad.algorithms.learner import Learner
from policygrad.algorithms.memory_keywords import Recurrence
from policygrad.algorithms.sharing import Sharing
from policygrad.data import Wants
from policygrad.envs.make import LONG
from policygrad.gradient import baselines as base
from policygrad.models.action_values import ActionCritic, make_action_critic
from policygrad.models.ascent import Term
from policygrad.models.critic import Critic, QCritic, make_critic, make_q_critic
from policygrad.models.exploring import ExploringPolicy
from policygrad.models.heads import Head
from policygrad.models.pictures import standardize
from policygrad.models.policy import Body, Policy, make_policy
from policygrad.models.recurrent import make_recurrent_policy
from policygrad.models.recurrent_critic import make_recurrent_critic
from policygrad.models.schedules import make_schedule
from policygrad.models.shared import SharedCritic, with_value
from policygrad.streams import seeds

BOX_ONLY = ("head", "std", "log_std", "noise_autocorrelation")

__all__ = ["Learner", "Plan", "Task", "make_baseline", "make_schedule"]


def make_baseline(name: str, constant: float = 0.0, cross_fit: int | None = None) -> base.Baseline:
    """A baseline by its name. cross_fit: the number of folds for fitted baselines."""
    made = {
        "value": base.CriticValue,
        "leave-one-out": base.LeaveOneOut,
        "running-mean": base.RunningMean,
        "time-average": base.TimeAverage,
        "linear": base.LinearFeatures,
        "constant": lambda: base.Constant(constant),
        "none": base.NoBaseline,
    }
    return made[name]() if cross_fit is None else base.CrossFit(made[name](), cross_fit)


@dataclass(frozen=True)
class Plan:
    """A learner, and how much experience it needs per iteration: steps per environment, or a number of whole episodes.

    clone_epochs: where the episodes are stored ones, the passes of maximum likelihood over them before the first update.
    source: where experience comes from, if not from environments that this process steps: a function (env, num_envs, backend,
    seed) → `ExperienceSource`.
    compile_from: with kernel = "auto", trainings of so many steps run compiled functions where there are any. Shorter ones do
    not wait for the compiler, which takes some seconds once on a machine. None: none does.
    Raises ValueError for both, and for neither where the learner has no `wants` of its own.
    """

    learner: Any  # a `Learner`, or another one
    num_steps: int | None = None
    episodes: int | None = None
    clone_epochs: int = 0
    source: Callable[[Any, int, str, int], Any] | None = None
    compile_from: int | None = LONG

    def __post_init__(self) -> None:
        if self.num_steps is not None or self.episodes is not None:
            Wants(self.num_steps, self.episodes)
        elif not hasattr(self.learner, "wants"):
            raise ValueError(
                f"expected num_steps or episodes, got neither, and {type(self.learner).__name__} has no `wants`: give one"
            )

    def is_long(self, steps: int) -> bool:
        """Whether a training of so many steps is worth compiling for."""
        return self.compile_from is not None and steps >= self.compile_from

    @property
    def wants(self) -> Wants:
        """The experience that the learner needs next, as given here or by the learner itself."""
        if self.num_steps is None and self.episodes is None:
            return self.learner.wants
        return Wants(self.num_steps, self.episodes)


@dataclass(frozen=True)
class Task:
    """The task that a recipe is given besides its keywords. Each part gets its own random seed.

    device: where policies and critics of V or q are; first weights do not depend on it. network: widths, activation and head,
    which every recipe's users set. memory: of policy and critic, which a recipe that takes the keywords hands on with
    `remembering`. segment: the steps of a recurrent policy's segments, 0 for whole columns.
    """

    observation_space: spaces.Space
    action_space: spaces.Space
    seed: int = 0
    body: Body | None = None
    critic_body: Body | None = None
    kernel: str = "auto"
    device: str = "cpu"
    network: Network = field(default_factory=Network)
    memory: Recurrence = field(default_factory=Recurrence)
    segment: int = 0

    def remembering(self, memory: Recurrence, num_steps: int | None = None) -> Task:
        """The task with a memory. num_steps: of an iteration, where there are segments of steps.

        Raises ValueError where the segments do not divide an iteration, or are asked for without a memory.
        """
        segment = getattr(memory, "segment_steps", None)
        if segment is not None and memory.memory == "none":
            raise ValueError(f"segment_steps = {segment} is for policies with a memory: set memory = gru or lstm")
        if segment is not None and num_steps is not None and num_steps % segment:
            raise ValueError(f"segment_steps = {segment} must divide num_steps = {num_steps}")
        return replace(self, memory=memory, segment=segment or 0)

    @property
    def _remembers(self) -> dict[str, Any]:
        """The keywords of a memory, where there is one."""
        kind, size = self.memory.memory, self.memory.memory_size
        return {} if kind == "none" else {"memory": kind, "memory_size": size}

    def _seeds(self) -> list[int]:
        return seeds(self.seed, "weights", 2)

    def policy(self) -> Policy:
        """A new policy for the task's spaces. Raises ValueError for keywords of Box actions if the actions are not Box."""
        for name in () if isinstance(self.action_space, spaces.Box) else BOX_ONLY:
            value = getattr(self.network, name)
            if value != getattr(Network, name):
                raise ValueError(f"{name} = {value} is for Box actions; the action space is {self.action_space}")
        where, words = (self.observation_space, self.action_space), vars(self.network) | self._remembers
        words |= {"body": self.body, "kernel": self.kernel, "seed": self._seeds()[0]}
        if self._remembers:
            return make_recurrent_policy(*where, segment=self.segment, **words).to(self.device)
        return make_policy(*where, **words).to(self.device)

    def exploring_policy(self, head: Callable[[bool], Head], takes: Collection[str] = ()) -> ExploringPolicy:
        """A new policy that explores, with a head of its own: a function, told whether actions are masked, see `make_policy`.

        takes: the keywords of Box actions that this head has. Raises ValueError for the others, TypeError for masks of Box
        actions.
        """
        for name in sorted({*BOX_ONLY} - {*takes}):
            value = getattr(self.network, name)
            if value != getattr(Network, name):
                raise ValueError(f"{name} = {value} has no meaning here: the policy of this recipe is {head(False)}")
        if isinstance(self.action_space, spaces.Box) and self.network.mask_source not in ("auto", "none"):
            raise TypeError(f"action masks are for discrete actions; the action space is {self.action_space}")
        words = vars(self.network) | {"head": head, "std": "network"}
        seed = self._seeds()[0]
        return make_policy(
            self.observation_space,
            self.action_space,
            **words,
            body=self.body,
            kernel=self.kernel,
            seed=seed,
            kind=ExploringPolicy,
        )

    def actor_critic(
        self, sharing: Sharing, standardized: bool, **keywords: Any
    ) -> tuple[Policy, Critic | QCritic | SharedCritic, tuple[Term, ...]]:
        """A new policy, its critic, and the terms by which the policy's update trains that: none where it has its own network.

        standardized: whether the advantages are, see `SharedCritic`. keywords: of `critic`, which mean nothing where policy and
        values share one. Raises ValueError where they cannot.
        """
        if not sharing.shared_body:
            return self.policy(), self.critic(**keywords), ()
        if self._remembers:
            raise ValueError(
                f"shared_body = true is for networks without a memory, got memory = {self.memory.memory}: set one of them back"
            )
        if self.critic_body is not None and self.critic_body is not self.body:
            raise ValueError("with shared_body = true the critic has no body of its own: leave critic_body out")
        critic = SharedCritic(
            sharing.value_coef, standardized=standardized, scale_rate=keywords.get("scale_rate", 0.05)
        )
        return with_value(self.policy(), self._seeds()[1]), critic, (critic.term,)

    def action_critic(self, dims: int, *, hidden: tuple[int, ...] | None = None, **keywords: Any) -> ActionCritic:
        """A new critic of q(s, a) for D-dimensional actions, with the architecture of the policy, but for other widths.

        keywords: as in `ActionCritic`, and `count`, how many networks.
        """
        critic = make_action_critic(
            self.observation_space,
            dims,
            hidden=self.network.hidden if hidden is None else hidden,
            activation=self.network.activation,
            network=self.network.network,
            body=self.critic_body,
            kernel=self.kernel,
            seed=self._seeds()[1],
            **keywords,
        )
        if self.network.normalize_obs:
            standardize(critic.network.network)
            standardize(critic.copy.network)
        return critic

    def critic(
        self,
        lr: float,
        lr_schedule: str = "constant",
        *,
        epochs: int = 1,
        minibatches: int = 1,
        max_grad_norm: float | None = None,
        of: Literal["v", "q"] = "v",
        hidden: tuple[int, ...] | None = None,
        scale_rate: float = 0.05,
    ) -> Critic | QCritic:
        """A new critic of V or q. Without a body of its own it gets the architecture of the policy, never its weights.

        hidden: other widths than the policy's. scale_rate: how fast the scale of its targets is followed, see `Critic`.
        Raises TypeError for a critic of q where actions are not Discrete, ValueError for one with a memory.
        """
        keywords: dict[str, Any] = {
            "hidden": self.network.hidden if hidden is None else hidden,
            "activation": self.network.activation,
            "network": self.network.network,
            "body": self.critic_body,
            "kernel": self.kernel,
            "seed": self._seeds()[1],
            "lr": make_schedule(lr_schedule, lr),
            "epochs": epochs,
            "minibatches": minibatches,
            "max_grad_norm": max_grad_norm,
            "scale_rate": scale_rate,
        }
        if self._remembers and of == "q":
            raise ValueError("a critic of q(s, a) has no memory: use a critic of V (critic = v), or memory = none")
        if self._remembers:
            critic = make_recurrent_critic(self.observation_space, **keywords, **self._remembers)
        elif of == "q":
            critic = make_q_critic(self.observation_space, self.action_space, **keywords)
        else:
            critic = make_critic(self.observation_space, **keywords)
        if self.network.normalize_obs:
            standardize(critic.network)
        return critic.to(self.device)
