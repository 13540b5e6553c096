"""The largest eigenvalues of a policy's Fisher matrix on a new batch: how many directions move the policy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from policygrad.algorithms.config import check_measurements
from policygrad.data import Batch, Rollout, Wants
from policygrad.models.policy import Policy
from policygrad.reports.columns import num, percent, title
from policygrad.reports.findings import Finding
from policygrad.training.agent import Agent
from policygrad.training.threads import single_thread
from policygrad.updates.diagnostics import top_eigenvalues

BATCH_STEPS = 1_024  # of a batch, about: a mean over fewer states says little
MAX_EIGENVALUES = 100  # eigenvalues that can be asked for


def spectrum(agent: Agent, count: int) -> Finding:
    """The `count` largest eigenvalues λ of F = E_s E_{a∼π}[ ∇log π ∇log πᵀ ], and their share of its trace Σ λ.

    A step s along an eigenvector costs ½ λ ‖s‖² nats, and the natural step (F + damping · I)⁻¹ ĝ is ĝ divided by λ + damping:
    where λ is far below damping, it is a plain gradient step. count: 1 or more, as many as the policy has parameters but one.
    Raises ConfigError for a recipe without a score function.
    """
    check_measurements(agent.recipe, eigenvalues=count)
    with single_thread():
        batch = spectrum_batch(agent)
        share = batch.normalized_weight
        values = top_eigenvalues(agent.policy, agent.policy.evaluate(batch), share, count)
        whole = max(trace(agent.policy, batch, share), sum(values))  # it is an estimate, and they are not
    size, damping = len(agent.policy.flat), float(agent.config.get("damping") or 0.0)
    shown = ", ".join(map(num, values[:8])) + (", …" if len(values) > 8 else "")
    explained = sum(values) / whole if whole > 0.0 else 1.0
    text = (
        f"of the final policy, on {len(batch):,} steps: {shown}; of {size:,} in all, {percent(explained)} of their sum"
    )
    if damping:
        above = sum(value > damping for value in values)
        if above == len(values):
            more = ": ask for more to see how many" if len(values) < min(MAX_EIGENVALUES, size - 1) else ""
            text += f". At least {above} are above damping = {num(damping)}{more}"
        else:
            text += f". {above} of {len(values)} are above damping = {num(damping)}, so no others are"
        text += "; the natural step divides the gradient by λ + damping, so where λ is far smaller it is a plain gradient step"
    elif values[0] > 0.0:
        longest = math.sqrt(2 * 0.01 / values[0])
        text += (
            f". {title(agent.algo)} has no damping: along the first, a step of length {num(longest)} costs 0.01 nats"
        )
    numbers = {"values": values, "trace": whole, "explained": explained, "parameters": size, "batch": len(batch)}
    return Finding("Fisher eigenvalues", "ok", text + ".", numbers | {"damping": damping})


def spectrum_batch(agent: Agent) -> Batch:
    """A batch like that of the recipe, of about BATCH_STEPS steps or more, without reset rows. Advantages are 0."""
    wants = agent.plan.wants
    if wants.num_steps is not None:
        wants = Wants(max(wants.num_steps, math.ceil(BATCH_STEPS / agent.envs.num_envs)))
    rollout = Rollout.of(agent.collector.collect(agent.policy, wants), agent.policy)
    return rollout.flatten(torch.zeros_like(rollout.rew), agent.learner.reduction)


def trace(policy: Policy, batch: Batch, share: Tensor) -> float:
    """The trace Σ λ = E[ ‖∇log π(a|s)‖² ] over the batch's states, estimated from the actions taken there."""
    one, squares = torch.ones_like(policy.flat[:1]), []
    for i in range(len(batch)):
        score = policy.evaluate(batch.take(slice(i, i + 1))).gradient(one)
        squares.append(float(score @ score))
    return float(share.double().cpu() @ torch.tensor(squares, dtype=torch.float64))
