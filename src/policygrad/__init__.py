"""policygrad: policy gradients, composed from estimators and update rules, checked against exact gradients, fast on a CPU.

    import policygrad as pg
    agent = pg.ppo("LunarLander-v3", seed=0)      # or pg.a2c, pg.actor_critic, pg.reinforce; keywords override the tuned preset
    agent.learn(500_000)
    agent.evaluate(episodes=100)

For those who compose: `pg.Learner(policy, pg.GAE(), pg.ClippedSurrogate(), critic=...)`. Everything is imported on first use;
`__init__.pyi`, written by benchmarks/stub.py, tells editors and type checkers what there is.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.5.0"

_HOMES = {  # module: its public names
    "policygrad.data": "Batch Estimate Record Rollout Values Wants",
    "policygrad.errors": "PolicygradError",
    "policygrad.gradient.estimators": "GAE NStep QValue RewardToGo Standardized "
    "StateDiscounted TDError TotalReturn advantages",
    "policygrad.gradient.baselines": "Constant CriticValue CrossFit LeaveOneOut LinearFeatures "
    "NoBaseline Regressor RunningMean TimeAverage",
    "policygrad.gradient.importance": "CollapsedError ImportanceWeighted PerDecision trajectory_kl",
    "policygrad.models.policy": "Policy make_policy",
    "policygrad.models.advantage": "AdvantageRegressor fit_advantage",
    "policygrad.models.critic": "Critic NoCritic QCritic make_critic make_q_critic",
    "policygrad.models.shared": "SharedCritic with_value",
    "policygrad.models.heads": "Categorical Head MultiCategorical",
    "policygrad.models.continuous": "Beta Gaussian SquashedGaussian",
    "policygrad.models.networks": "FourierFeatures",
    "policygrad.models.observations": "Encoding",
    "policygrad.models.recurrent": "RecurrentPolicy make_recurrent_policy",
    "policygrad.models.recurrent_critic": "RecurrentCritic make_recurrent_critic",
    "policygrad.models.schedules": "linear",
    "policygrad.models.action_values": "ActionCritic make_action_critic",
    "policygrad.models.exploring": "ActionValues Deterministic ExploringPolicy Squashed",
    "policygrad.replay": "ReplayBuffer Transitions",
    "policygrad.updates.pathwise": "Pathwise Smoothing Temperature",
    "policygrad.updates.q_learning": "QLearning",
    "policygrad.updates": "ClippedSurrogate FirstOrder NaturalGradient PenalizedSurrogate TrustRegion VanillaGradient",
    "policygrad.algorithms.diagnosed": "diagnosed_step",
    "policygrad.algorithms.learner": "Learner",
    "policygrad.algorithms.keywords": "Option",
    "policygrad.algorithms.q_lambda": "QLambdaLearner",
    "policygrad.algorithms.replay_learner": "ReplayLearner TransitionRule",
    "policygrad.algorithms.recipe": "RecipeSpec recipe",
    "policygrad.algorithms.task": "Plan Task",
    "policygrad.envs.collector": "Collector",
    "policygrad.envs.make": "make_envs",
    "policygrad.envs.shaping": "PotentialShaping ShapedReward",
    "policygrad.envs.wrappers": "ActionRepeat",
    "policygrad.serving.served": "load_policy",
    "policygrad.serving.export": "export",
    "policygrad.training.agent": "Agent",
    "policygrad.training.loading": "load",
    "policygrad.training.compare": "compare",
    "policygrad.training.space": "Choice Range",
    "policygrad.training.sweep": "sweep",
    "policygrad.reports.sweep_result": "SweepResult",
    "policygrad.reports.comparison_result": "RunComparison",
    "policygrad.training.callbacks": "CheckpointCallback EvalCallback Every History StopAfter StopOnReward",
    "policygrad.training.trackers": "LiveCurve MLflowCallback WandbCallback",
    "policygrad.training.hub": "pull push",
    "policygrad.training.evaluate": "Evaluation evaluate",
    "policygrad.reports.plots": "plot",
    "policygrad.reports.run_table": "runs",
    "policygrad.stored.standing": "RunSummary",
    "policygrad.training.ranks": "data_parallel",
    "policygrad.training.reporting": "report",
    "policygrad.diagnosis.doctor": "doctor",
    "policygrad.diagnosis.symptoms": "Diagnosis Symptom",
    "policygrad.training.probing": "probe",
    "policygrad.training.resume": "resume",
    "policygrad.training.train": "train",
    "policygrad.training.tune": "tune",
    "policygrad.reports.tuning": "Tuning",
    "policygrad.stored.trajectories": "Trajectories",
    "policygrad.training.video": "VideoCallback record",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in ("lab", "zoo"):
        return import_module({"lab": "policygrad.lab", "zoo": "policygrad.algorithms.zoo"}[name])
    from policygrad.algorithms.recipes import RECIPES

    if name == "__all__":
        return [*sorted(_HOME), *sorted(RECIPES), "__version__", "lab", "zoo"]
    if name not in RECIPES:
        from policygrad.algorithms.foreign import MODULE, algorithm_answer

        instead = MODULE.get(name) or algorithm_answer(name)
        hint = f": use policygrad.{name.lower()}" if name.lower() in RECIPES else f": {instead}" if instead else ""
        raise AttributeError(f"module 'policygrad' has no attribute {name!r}{hint}")
    from policygrad.training.functions import as_function

    return globals().setdefault(name, as_function(RECIPES[name]))


def __dir__() -> list[str]:
    return sorted(__getattr__("__all__"))
