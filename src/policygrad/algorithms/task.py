"""What recipes build with: the Task they are given and the Plan they return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gymnasium import spaces

from policygrad.algorithms.learner import Learner, UpdateRule
from policygrad.data import Wants
from policygrad.gradient.baselines import (
    Baseline,
    Constant,
    CriticValue,
    CrossFit,
    LeaveOneOut,
    LinearFeatures,
    NoBaseline,
    RunningMean,
    TimeAverage,
)
from policygrad.gradient.estimators import Estimator, Standardized, StateDiscounted
from policygrad.models.critic import Critic, NoCritic, QCritic, make_critic, make_q_critic
from policygrad.models.policy import Body, Policy, make_policy
from policygrad.models.schedules import make_schedule
from policygrad.streams import seeds
from policygrad.updates import VanillaGradient

BOX_ONLY = {"head": "gaussian", "std": "parameter", "log_std": 0.0, "noise_autocorrelation": 0.0}

__all__ = ["Plan", "Task", "make_baseline", "make_schedule"]


def make_baseline(name: str, constant: float = 0.0, cross_fit: int | None = None) -> Baseline:
    """A baseline by its name; cross_fit: folds, for the ones that are fitted."""
    made = {
        "value": CriticValue,
        "leave-one-out": LeaveOneOut,
        "running-mean": RunningMean,
        "time-average": TimeAverage,
        "linear": LinearFeatures,
        "constant": lambda: Constant(constant),
        "none": NoBaseline,
    }
    return made[name]() if cross_fit is None else CrossFit(made[name](), cross_fit)


@dataclass(frozen=True)
class Plan:
    """A learner and what it wants to see an iteration: steps of every environment, or whole episodes in all.

    clone_epochs: where the episodes are stored ones, the passes of maximum likelihood over them before the first update.
    """

    learner: Any  # a `Learner`, or another one
    num_steps: int | None = None
    episodes: int | None = None
    clone_epochs: int = 0

    @property
    def wants(self) -> Wants:
        """What the learner wants to see next: as said here, or as it says itself."""
        if self.num_steps is None and self.episodes is None:
            return self.learner.wants
        return Wants(self.num_steps, self.episodes)


@dataclass(frozen=True)
class Task:
    """What a recipe is given besides its own keywords. Each part draws its randomness from a seed of its own.

    network: the keywords of `recipes.network`, as `make_policy` takes them; what is missing has its default.
    """

    observation_space: spaces.Space
    action_space: spaces.Space
    seed: int = 0
    body: Body | None = None
    critic_body: Body | None = None
    kernel: str = "auto"
    network: dict[str, Any] = field(default_factory=dict)

    def _seeds(self) -> list[int]:
        return seeds(self.seed, "weights", 2)

    def policy(self) -> Policy:
        """A fresh policy for the task's spaces. Raises ValueError for what only Box actions have, where they are others."""
        for name, default in BOX_ONLY.items():
            if not isinstance(self.action_space, spaces.Box) and self.network.get(name, default) != default:
                raise ValueError(
                    f"{name} = {self.network[name]} is for Box actions; the action space is {self.action_space}"
                )
        return make_policy(
            self.observation_space,
            self.action_space,
            **self.network,
            body=self.body,
            kernel=self.kernel,
            seed=self._seeds()[0],
        )

    def critic(
        self,
        lr: float,
        lr_schedule: str,
        epochs: int,
        minibatches: int,
        max_grad_norm: float | None,
        *,
        of: str = "v",
        **keywords: Any,
    ) -> Critic | QCritic:
        """A fresh critic of V or q. Without a body of its own it gets the policy's architecture, never its weights."""
        keywords |= {name: self.network[name] for name in ("hidden", "activation") if name in self.network} | {
            "body": self.critic_body,
            "kernel": self.kernel,
            "seed": self._seeds()[1],
            "lr": make_schedule(lr_schedule, lr),
            "epochs": epochs,
            "minibatches": minibatches,
            "max_grad_norm": max_grad_norm,
        }
        if of == "q":
            return make_q_critic(self.observation_space, self.action_space, **keywords)
        return make_critic(self.observation_space, **keywords)

    def vanilla(
        self,
        lr: float,
        lr_schedule: str,
        ent_coef: float,
        ent_schedule: str,
        optimizer: str,
        max_grad_norm: float | None,
    ) -> VanillaGradient:
        """One gradient step a batch, with the schedules asked for."""
        return VanillaGradient(
            make_schedule(lr_schedule, lr),
            optimizer=optimizer,
            ent_coef=make_schedule(ent_schedule, ent_coef),
            max_grad_norm=max_grad_norm,
            seed=self.seed,
        )

    def learner(
        self,
        policy: Policy,
        estimator: Estimator,
        update: UpdateRule,
        critic: Critic | QCritic | NoCritic,
        baseline: Baseline | None,
        state_discount: bool,
        standardize: str,
        reduction: str,
        weigh: Callable[[Estimator], Estimator] | None = None,
    ) -> Learner:
        """The learner, with the estimator in the wrappers asked for; weigh: puts importance weights around them."""
        if state_discount:
            estimator = StateDiscounted(estimator)
        if standardize != "no":
            estimator = Standardized(estimator, over=standardize)
        if weigh is not None:
            estimator = weigh(estimator)
        return Learner(policy, estimator, update, critic=critic, baseline=baseline, reduction=reduction)
