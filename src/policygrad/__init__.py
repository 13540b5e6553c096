"""policygrad: policy gradients, composed from estimators and update rules, checked against exact gradients, fast on a CPU.

    import policygrad as pg
    agent = pg.ppo("LunarLander-v3", seed=0)      # or pg.a2c, pg.actor_critic, pg.reinforce; keywords override the tuned preset
    agent.learn(500_000)
    agent.evaluate(episodes=100)

For those who compose: `pg.Learner(policy, pg.GAE(), pg.ClippedSurrogate(), critic=...)`. Everything is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.4.0"

_HOMES = {
    "policygrad.data": ("Batch", "Estimate", "Rollout", "Values"),
    "policygrad.gradient.estimators": (
        "GAE",
        "NStep",
        "QValue",
        "RewardToGo",
        "Standardized",
        "StateDiscounted",
        "TDError",
        "TotalReturn",
        "advantages",
    ),
    "policygrad.gradient.baselines": (
        "Constant",
        "CriticValue",
        "CrossFit",
        "LeaveOneOut",
        "LinearFeatures",
        "NoBaseline",
        "Regressor",
        "RunningMean",
        "TimeAverage",
    ),
    "policygrad.gradient.importance": ("CollapsedError", "ImportanceWeighted", "PerDecision"),
    "policygrad.models.policy": ("Policy", "make_policy"),
    "policygrad.models.advantage": ("AdvantageRegressor", "fit_advantage"),
    "policygrad.models.critic": ("Critic", "NoCritic", "QCritic", "make_critic", "make_q_critic"),
    "policygrad.models.heads": ("Beta", "Categorical", "Gaussian", "Head", "MultiCategorical", "SquashedGaussian"),
    "policygrad.models.networks": ("FourierFeatures",),
    "policygrad.models.schedules": ("linear",),
    "policygrad.updates": (
        "ClippedSurrogate",
        "FirstOrder",
        "NaturalGradient",
        "PenalizedSurrogate",
        "TrustRegion",
        "VanillaGradient",
    ),
    "policygrad.algorithms.learner": ("Learner",),
    "policygrad.algorithms.keywords": ("Option",),
    "policygrad.algorithms.recipe": ("RecipeSpec", "recipe"),
    "policygrad.algorithms.task": ("Plan", "Task"),
    "policygrad.envs.collector": ("Collector",),
    "policygrad.envs.make": ("make_envs",),
    "policygrad.envs.shaping": ("PotentialShaping", "ShapedReward"),
    "policygrad.envs.wrappers": ("ActionRepeat",),
    "policygrad.training.agent": ("Agent", "load"),
    "policygrad.training.callbacks": (
        "CheckpointCallback",
        "EvalCallback",
        "Every",
        "History",
        "StopAfter",
        "StopOnReward",
    ),
    "policygrad.training.evaluate": ("Evaluation", "evaluate"),
    "policygrad.reports.plots": ("plot",),
    "policygrad.training.reporting": ("report",),
    "policygrad.training.train": ("train",),
    "policygrad.stored.trajectories": ("Trajectories",),
    "policygrad.training.video": ("record",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_RECIPES = ("a2c", "actor_critic", "npg", "off_policy_pg", "ppo", "ppo_kl", "reinforce", "trpo")

__all__ = [*sorted(_HOME), *_RECIPES, "__version__", "lab"]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from policygrad import lab as lab
    from policygrad.algorithms.keywords import Option as Option
    from policygrad.algorithms.learner import Learner as Learner
    from policygrad.algorithms.recipe import RecipeSpec as RecipeSpec
    from policygrad.algorithms.recipe import recipe as recipe
    from policygrad.algorithms.task import Plan as Plan
    from policygrad.algorithms.task import Task as Task
    from policygrad.data import Batch as Batch
    from policygrad.data import Estimate as Estimate
    from policygrad.data import Rollout as Rollout
    from policygrad.data import Values as Values
    from policygrad.envs.collector import Collector as Collector
    from policygrad.envs.make import make_envs as make_envs
    from policygrad.envs.shaping import PotentialShaping as PotentialShaping
    from policygrad.envs.shaping import ShapedReward as ShapedReward
    from policygrad.envs.wrappers import ActionRepeat as ActionRepeat
    from policygrad.gradient.baselines import Constant as Constant
    from policygrad.gradient.baselines import CriticValue as CriticValue
    from policygrad.gradient.baselines import CrossFit as CrossFit
    from policygrad.gradient.baselines import LeaveOneOut as LeaveOneOut
    from policygrad.gradient.baselines import LinearFeatures as LinearFeatures
    from policygrad.gradient.baselines import NoBaseline as NoBaseline
    from policygrad.gradient.baselines import Regressor as Regressor
    from policygrad.gradient.baselines import RunningMean as RunningMean
    from policygrad.gradient.baselines import TimeAverage as TimeAverage
    from policygrad.gradient.estimators import GAE as GAE
    from policygrad.gradient.estimators import NStep as NStep
    from policygrad.gradient.estimators import QValue as QValue
    from policygrad.gradient.estimators import RewardToGo as RewardToGo
    from policygrad.gradient.estimators import Standardized as Standardized
    from policygrad.gradient.estimators import StateDiscounted as StateDiscounted
    from policygrad.gradient.estimators import TDError as TDError
    from policygrad.gradient.estimators import TotalReturn as TotalReturn
    from policygrad.gradient.estimators import advantages as advantages
    from policygrad.gradient.importance import CollapsedError as CollapsedError
    from policygrad.gradient.importance import ImportanceWeighted as ImportanceWeighted
    from policygrad.gradient.importance import PerDecision as PerDecision
    from policygrad.models.advantage import AdvantageRegressor as AdvantageRegressor
    from policygrad.models.advantage import fit_advantage as fit_advantage
    from policygrad.models.critic import Critic as Critic
    from policygrad.models.critic import NoCritic as NoCritic
    from policygrad.models.critic import QCritic as QCritic
    from policygrad.models.critic import make_critic as make_critic
    from policygrad.models.critic import make_q_critic as make_q_critic
    from policygrad.models.heads import Beta as Beta
    from policygrad.models.heads import Categorical as Categorical
    from policygrad.models.heads import Gaussian as Gaussian
    from policygrad.models.heads import Head as Head
    from policygrad.models.heads import MultiCategorical as MultiCategorical
    from policygrad.models.heads import SquashedGaussian as SquashedGaussian
    from policygrad.models.networks import FourierFeatures as FourierFeatures
    from policygrad.models.policy import Policy as Policy
    from policygrad.models.policy import make_policy as make_policy
    from policygrad.models.schedules import linear as linear
    from policygrad.reports.plots import plot as plot
    from policygrad.stored.trajectories import Trajectories as Trajectories
    from policygrad.training.agent import Agent as Agent
    from policygrad.training.agent import load as load
    from policygrad.training.callbacks import CheckpointCallback as CheckpointCallback
    from policygrad.training.callbacks import EvalCallback as EvalCallback
    from policygrad.training.callbacks import Every as Every
    from policygrad.training.callbacks import History as History
    from policygrad.training.callbacks import StopAfter as StopAfter
    from policygrad.training.callbacks import StopOnReward as StopOnReward
    from policygrad.training.evaluate import Evaluation as Evaluation
    from policygrad.training.evaluate import evaluate as evaluate
    from policygrad.training.reporting import report as report
    from policygrad.training.train import train as train
    from policygrad.training.video import record as record
    from policygrad.updates import ClippedSurrogate as ClippedSurrogate
    from policygrad.updates import FirstOrder as FirstOrder
    from policygrad.updates import NaturalGradient as NaturalGradient
    from policygrad.updates import PenalizedSurrogate as PenalizedSurrogate
    from policygrad.updates import TrustRegion as TrustRegion
    from policygrad.updates import VanillaGradient as VanillaGradient


def __getattr__(name: str) -> Any:
    if name == "lab":
        return import_module("policygrad.lab")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'policygrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def reinforce(env: Any, *, seed: int = 0, **overrides: Any) -> Agent:
    """REINFORCE as an `Agent`; keywords as in `policygrad.algorithms.recipes.reinforce`."""
    return _agent("reinforce", env, seed, overrides)


def actor_critic(env: Any, *, seed: int = 0, **overrides: Any) -> Agent:
    """One-step actor-critic as an `Agent`; keywords as in `policygrad.algorithms.recipes.actor_critic`."""
    return _agent("actor_critic", env, seed, overrides)


def a2c(env: Any, *, seed: int = 0, **overrides: Any) -> Agent:
    """A2C as an `Agent`; keywords as in `policygrad.algorithms.recipes.a2c`."""
    return _agent("a2c", env, seed, overrides)


def npg(env: Any, *, seed: int = 0, **overrides: Any) -> Agent:
    """Natural policy gradient as an `Agent`; keywords as in `policygrad.algorithms.recipes.npg`."""
    return _agent("npg", env, seed, overrides)


def off_policy_pg(env: Any, *, seed: int = 0, **overrides: Any) -> Agent:
    """Off-policy REINFORCE as an `Agent`; dataset: where it learns from; keywords as in `recipes.off_policy_pg`."""
    return _agent("off_policy_pg", env, seed, overrides)


def trpo(env: Any, *, seed: int = 0, **overrides: Any) -> Agent:
    """TRPO as an `Agent`; keywords as in `policygrad.algorithms.recipes.trpo`."""
    return _agent("trpo", env, seed, overrides)


def ppo(env: Any, *, seed: int = 0, **overrides: Any) -> Agent:
    """PPO as an `Agent`; keywords as in `policygrad.algorithms.recipes.ppo`."""
    return _agent("ppo", env, seed, overrides)


def ppo_kl(env: Any, *, seed: int = 0, **overrides: Any) -> Agent:
    """PPO with a KL penalty as an `Agent`; keywords as in `policygrad.algorithms.recipes.ppo_kl`."""
    return _agent("ppo_kl", env, seed, overrides)


def _agent(algo: str, env: Any, seed: int, overrides: dict[str, Any]) -> Agent:
    from policygrad.training.agent import Agent

    return Agent(algo, env, seed=seed, **overrides)
