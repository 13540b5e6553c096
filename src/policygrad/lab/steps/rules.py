"""Five update rules on the same batch: their steps from the same parameters, and the gains.

    mdp = worlds.make_mdp("FrozenLake-v1")
    policy = tabular.tabular_policy(mdp, torch.Generator().manual_seed(0))
    print(rules.compare(policy, worlds.exact_batch(mdp, policy), objective=worlds.exact_objective(mdp)))

The rules are the production ones, called on copies of the policy; what they did is read from the library's `UpdateDiagnostics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from policygrad.algorithms.config import ConfigError
from policygrad.data import Batch, Rollout, TooFewError
from policygrad.lab.results import Result, align
from policygrad.lab.steps.constrained import ExactTrustRegion, is_table
from policygrad.lab.steps.relations import (
    EPOCHS,
    STUCK,
    Rule,
    angle,
    apply,
    default_lr,
    matching_beta,
    natural_step,
    penalty,
    solver,
)
from policygrad.models.policy import Policy
from policygrad.reports.intervals import bca_interval
from policygrad.training.agent import Agent
from policygrad.training.evaluate import evaluate
from policygrad.updates import ClippedSurrogate, NaturalGradient, TrustRegion, VanillaGradient
from policygrad.updates.diagnostics import UpdateDiagnostics

Objective = Callable[[Policy], float | Sequence[float]]  # J; or returns of episodes, whose seeds are always the same

NONE = (None, None)  # of an interval that there is not
COLUMNS = {
    "‖Δθ‖": "step_norm",
    "° to PG": "angle_pg",
    "° to NPG": "angle_npg",
    "½ΔθᵀFΔθ": "kl_quadratic",
    "KL": "kl",
    "predicted": "predicted_gain",
    "surrogate": "gain",
}
HEADER = ("rule", *COLUMNS, "real ΔJ")


@dataclass(frozen=True)
class Step:
    """The step of one rule. Gains are in units of the advantages, KL in nats, angles in degrees; NaN if nothing moved."""

    rule: str
    step_norm: float  # ‖Δθ‖₂
    angle_pg: float  # to ĝ, that of the diagnostics
    angle_npg: float  # to the natural step
    kl_quadratic: float  # ½ Δθᵀ F Δθ
    kl: float  # mean KL(old ‖ new), exact
    predicted_gain: float  # ĝᵀΔθ
    gain: float  # Σ weight · (ratio − 1) · adv
    real_gain: float | None  # J(θ + Δθ) − J(θ)
    interval: tuple[float, float] | None  # 95 %, where J is a mean over episodes
    step: Tensor = field(repr=False, compare=False)  # Δθ (P,)


@dataclass(frozen=True)
class Comparison(Result):
    """The steps of several rules with the same policy and batch. `print` shows a table."""

    steps: tuple[Step, ...]
    before: float | None  # J(θ)

    def __getitem__(self, rule: str) -> Step:
        return {step.rule: step for step in self.steps}[rule]

    def cells(self) -> list[list[str]]:
        """One row per rule, for the columns of HEADER."""
        columns = [[step.rule for step in self.steps]]
        columns += [decimals([getattr(step, name) for step in self.steps]) for name in COLUMNS.values()]
        intervals = [step.interval or NONE for step in self.steps]
        real = [x for step, ends in zip(self.steps, intervals, strict=True) for x in (step.real_gain, *ends)]
        shown = iter(decimals(real))
        ends = [(" (all equal)" if a == b else " [{}, {}]") if (a, b) != NONE else "" for a, b in intervals]
        columns += [[x + end.format(a, b) for end, x, a, b in zip(ends, shown, shown, shown, strict=True)]]
        return [list(row) for row in zip(*columns, strict=True)]

    def table(self) -> str:
        """The rows, aligned."""
        return align(HEADER, self.cells())


def decimals(values: Sequence[float | None]) -> list[str]:
    """Numbers of a column with the same decimals, so many that the largest has three digits; "–" for NaN, "" for None.

    Below 1e-9 a column is 0: rounding.
    """
    largest = max((abs(x) for x in values if x is not None and math.isfinite(x)), default=0.0)
    digits = min(max(2 - math.floor(math.log10(largest)), 0), 9) if largest >= 1e-9 else 0
    rounded = [x if x is None else round(x, digits) + 0.0 for x in values]  # + 0.0: there is no -0
    return ["" if x is None else "–" if math.isnan(x) else f"{x:,.{digits}f}" for x in rounded]


def compare(
    policy: Policy,
    batch: Batch,
    rules: Mapping[str, Rule] | None = None,
    *,
    objective: Objective | None = None,
    max_kl: float = 0.01,
    damping: float | None = None,
    **keywords: Any,
) -> Comparison:
    """Call every rule on a copy of the policy with the batch, and measure its step. The policy and the rules do not change.

    rules: by name, [`five_rules`] with these keywords. objective: J of a policy, for the real gain, e.g. `exact_objective`
    or `sampled_objective`. damping: of the natural step that angles are measured to, [0 for tables, 0.1 for networks].
    Raises ValueError where the batch's gradient is 0, or the natural step.
    """
    rules = five_rules(policy, batch, max_kl=max_kl, damping=damping, **keywords) if rules is None else rules
    gradient = UpdateDiagnostics(deepcopy(policy), batch).gradient
    natural = natural_step(policy, batch, max_kl, damping)
    before = None if objective is None else np.asarray(objective(policy), np.float64)
    steps = []
    for name, rule in rules.items():
        diagnostics, moved = apply(rule, policy, batch)
        step = moved.flat - policy.flat
        real, interval = (None, None) if objective is None else _rise(before, objective(moved))
        angles = {"angle_pg": angle(step, gradient), "angle_npg": angle(step, natural)}
        measured = {key: diagnostics[key] for key in ("step_norm", "kl_quadratic", "kl", "predicted_gain", "gain")}
        steps.append(Step(name, **angles, **measured, real_gain=real, interval=interval, step=step))
    return Comparison(tuple(steps), None if before is None else float(before.mean()))


def _rise(before: Any, after: float | Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """J's rise; of returns of the same episodes before and after, their mean difference and its 95 % interval."""
    differences = np.asarray(after, np.float64) - before
    if differences.ndim == 0:
        return float(differences), None
    return float(np.mean(differences)), bca_interval(differences)


def five_rules(
    policy: Policy,
    batch: Batch,
    *,
    max_kl: float = 0.01,
    clip: float = 0.2,
    beta: float | None = None,
    lr: float | None = None,
    epochs: int = EPOCHS,
    damping: float | None = None,
) -> dict[str, Rule]:
    """PG, NPG, TRPO, PPO-clip, PPO-penalty and, for a table of logits, the exact solution of TRPO's problem.

    PG's learning rate is made such that its step has the quadratic KL of NPG's: max_kl without damping, less with it. PPO
    climbs with Adam, the whole batch in every epoch. beta: of the penalty, [β*, with which it ends at TRPO's KL, see
    `matching_beta`]. lr: PPO's, [0.02 for tables, 3e-4 for networks].
    """
    rate = _pg_rate(policy, batch, natural_step(policy, batch, max_kl, damping))
    trpo = TrustRegion(max_kl, **solver(policy, damping))
    lr = default_lr(policy) if lr is None else lr
    if beta is None:
        kl = apply(trpo, policy, batch)[0]["kl"]
        beta = matching_beta(policy, batch, kl, lr=lr, epochs=epochs, damping=damping).beta
    rules: dict[str, Rule] = {
        "PG": VanillaGradient(rate, optimizer="sgd", max_grad_norm=None),
        "NPG": NaturalGradient(max_kl, **solver(policy, damping)),
        "TRPO": trpo,
        "PPO-clip": ClippedSurrogate(lr, clip=clip, epochs=epochs, minibatches=1, max_grad_norm=None),
        "PPO-penalty": penalty(beta, lr, epochs),
    }
    return rules | ({"TRPO, exact": ExactTrustRegion(max_kl)} if is_table(policy) else {})


def _pg_rate(policy: Policy, batch: Batch, natural: Tensor) -> float:
    """The learning rate α with which PG's step αg has the quadratic KL of the natural step s: α² gᵀFg = sᵀFs."""
    evaluation = policy.evaluate(batch)
    direction = evaluation.gradient(batch.weight * batch.adv).clone()  # VanillaGradient's: without the ratio
    length, reached = (evaluation.fisher_norm(v, batch.normalized_weight) for v in (direction, natural))
    if not (length > 0.0 and reached > 0.0):
        raise ValueError(STUCK)
    return math.sqrt(reached / length)


def training_batch(agent: Agent) -> Batch:
    """The batch of the agent's next update: a rollout of its collector, with its critic, estimator and baseline.

    Raises TooFewError where the rollout holds no step, as one of a single row may that is a reset, and ConfigError where the
    learner makes no batch.
    """
    if not hasattr(agent.learner, "prepare"):
        raise ConfigError(
            f"update rules are compared on a Learner's batch, and {type(agent.learner).__name__} makes none (no `prepare`)"
        )
    record = agent.collector.collect(agent.policy, agent.plan.wants)
    iteration = agent.learner.prepare(Rollout.of(record, agent.policy))
    if iteration is None:
        raise TooFewError("the next rollout has no step, only a reset: collect more steps with num_steps")
    return iteration.batch


def sampled_objective(agent: Agent, episodes: int) -> Objective:
    """The returns of episodes with sampled actions, in the agent's environment on the seeds of evaluations."""
    env = agent.evaluation_env()
    return lambda policy: evaluate(policy, env, episodes, greedy=False).returns
