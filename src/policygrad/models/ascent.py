"""Minibatch ascent: epochs × minibatches of gradient ascent on a policy, the driver that first-order update rules share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.errors import NotFiniteError
from policygrad.models.optim import Optimizer, clip_by_norm
from policygrad.models.policy import Policy

ScoreWeights = Callable[[Tensor, Batch], Tensor]  # (logp (B,), batch) → the weights w (B,) of Σ w ∇log π


def minibatch_ascent(
    policy: Policy,
    batch: Batch,
    score_weights: ScoreWeights,
    *,
    optimizer: Optimizer,
    lr: float,
    generator: torch.Generator,
    epochs: int = 1,
    minibatches: int = 1,
    ent_coef: float = 0.0,
    kl_coef: float = 0.0,
    max_grad_norm: float | None = None,
    target_kl: float | None = None,
) -> Stats:
    """Ascend Σ w ∇log π + ent_coef · mean entropy − kl_coef · mean KL(old ‖ new), minibatch by minibatch.

    `score_weights` gives w at the current policy; means have the batch's weights.

    target_kl: stop after the first epoch whose exact mean KL(old ‖ new) exceeds it. With it, or a kl_coef, the stats have `kl`.
    """
    old = policy.dist(batch.obs) if target_kl is not None or kl_coef else None
    batch = replace(batch, dist=old) if kl_coef else batch
    flat, norms, steps, epoch, stats = policy.flat, 0.0, 0, 0, Stats()
    for epoch in range(1, epochs + 1):  # noqa: B007
        for mb in batch.minibatches(minibatches, generator):
            evaluation = policy.evaluate(mb.obs, mb.act)
            ent_weight = mb.weight * ent_coef if ent_coef else None
            kl_weight = mb.weight * -kl_coef if kl_coef else None
            grad = evaluation.gradient(score_weights(evaluation.logp, mb), ent_weight, kl_weight, mb.dist)
            norm = clip_by_norm(grad, max_grad_norm)
            if not math.isfinite(norm):
                raise NotFiniteError(f"the policy's gradient has norm {norm}: lower lr, or set max_grad_norm")
            norms += norm
            optimizer.step(flat, grad, lr)
            steps += 1
        if old is not None and target_kl is not None:
            stats["kl"] = mean_kl(policy, old, batch)
            if stats["kl"] > target_kl:
                break
    if old is not None and "kl" not in stats:
        stats["kl"] = mean_kl(policy, old, batch)
    return stats | {"epochs": epoch, "grad_norm": norms / max(steps, 1)}


def mean_kl(policy: Policy, old: Tensor, batch: Batch, new: Tensor | None = None) -> float:
    """Exact mean KL(old ‖ new) over the batch, with the batch's weights; new: the policy's distribution (B, P), if at hand.

    In float64, and `canonical` once more: of two float32 distributions that are close, the difference would be rounding, and
    their log-probabilities do not quite sum to 1.
    """
    head, new = policy.head, policy.dist(batch.obs) if new is None else new
    kl = head.kl(head.canonical(old.double()), head.canonical(new.double()))
    return float((batch.share.double() * kl).sum())
