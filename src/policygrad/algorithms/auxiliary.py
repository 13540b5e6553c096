"""Auxiliary gains of the user's own beside any recipe whose policy a first-order rule moves."""

from __future__ import annotations

from policygrad.algorithms.config import ConfigError
from policygrad.algorithms.learner import Learner
from policygrad.algorithms.task import Plan
from policygrad.models.ascent import Gain
from policygrad.updates.first_order import FirstOrder


def with_auxiliary(algo: str, plan: Plan, auxiliary: Gain | None) -> Plan:
    """The plan, whose rule ascends this gain as well. Raises ConfigError for a learner without such a rule."""
    if auxiliary is None:
        return plan
    if not callable(auxiliary):
        raise TypeError(f"auxiliary must be a function (policy, batch) → scalar gain, got {auxiliary!r}")
    learner = plan.learner
    rule = learner.update if isinstance(learner, Learner) and type(learner).step is Learner.step else None
    if not isinstance(rule, FirstOrder):
        raise ConfigError(
            f"{algo} takes no auxiliary gain, because it is not moved by minibatches of a first-order rule alone: use "
            "reinforce, off_policy_pg, actor_critic, a2c, ppo or ppo_kl"
        )
    rule.auxiliary = auxiliary
    return plan
