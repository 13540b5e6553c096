"""The ascent loop and what it asks of a policy: any policy that keeps the contract, and objectives as data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from explicit import batch_for
from gymnasium import spaces
from torch import Tensor

from policygrad.data import Batch
from policygrad.models.ascent import epochs_of, mean_kl, minibatch_ascent
from policygrad.models.contracts import PolicyLike, Rows
from policygrad.models.optim import SGD
from policygrad.models.policy import Policy, make_policy
from policygrad.models.workspace import AscentPlan
from policygrad.updates import ClippedSurrogate, VanillaGradient

OBS, ACT = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(3)


class ByLogProbability:
    """One forward pass whose derivatives are by the log-probabilities: no outputs, no distribution."""

    def __init__(self, policy: Policy, logp: Tensor) -> None:
        self.policy, self.graph, self.logp = policy, logp, logp.detach()

    def score(self, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        if ent_weight is not None:
            raise NotImplementedError
        return weight

    def divergence(self, old: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def pull_back(self, derivative: Tensor) -> Tensor:
        return self.policy.gradient((derivative * self.graph).sum())


class InOrder:
    """log π(a|s) + a memory: half of the score of the segment's row before, whose first value comes with the batch."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.flat = policy, policy.flat

    def evaluate(self, batch: Rows) -> ByLogProbability:
        logp = self.policy.logp(batch.obs, batch.act, batch.extra).view(-1, 2)
        before = torch.cat([batch.extra["start"].view(-1, 2)[:, :1], logp[:, :1]], dim=1)
        return ByLogProbability(self.policy, (logp + 0.5 * before).view(-1))


def setting() -> tuple[PolicyLike, Policy, Batch]:
    policy, twin = (make_policy(OBS, ACT, hidden=(4,), seed=1).double() for _ in range(2))
    batch = batch_for(policy)
    start = torch.arange(len(batch), dtype=torch.float64) / len(batch)
    batch = replace(batch, extra={"start": start}, segment=2)
    memory = InOrder(policy)
    return memory, twin, replace(batch, logp=memory.evaluate(batch).logp)


@pytest.mark.parametrize("minibatches", [1, 3])
def test_a_rule_moves_any_policy_that_keeps_the_contract(minibatches: int) -> None:
    memory, twin, batch = setting()
    rule = ClippedSurrogate(0.1, epochs=2, minibatches=minibatches, optimizer="sgd", max_grad_norm=None, seed=3)
    rule(memory, batch)
    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        units = torch.randperm(6, generator=generator) if minibatches > 1 else torch.arange(6)
        for piece in units.tensor_split(minibatches):
            rows = torch.stack([2 * piece, 2 * piece + 1], 1).view(-1)
            logp = twin.logp(batch.obs[rows], batch.act[rows])
            before = torch.stack([batch.extra["start"][rows[::2]], logp[::2]], 1).view(-1)
            ratio = (logp + 0.5 * before - batch.logp[rows]).exp()
            adv, weight = batch.adv[rows], batch.weight[rows] * 12 / len(rows)
            twin.flat += 0.1 * twin.gradient((weight * torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv)).sum())
    torch.testing.assert_close(memory.flat, twin.flat, rtol=0, atol=1e-12)


def test_what_a_policy_does_not_have_is_said_by_it() -> None:
    memory, _, batch = setting()
    with pytest.raises(NotImplementedError):
        VanillaGradient(ent_coef=0.1)(memory, batch)


def test_an_objective_is_data_and_a_subclass_is_another_kind() -> None:
    class Mine(ClippedSurrogate):
        def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
            return torch.zeros_like(logp)

    clipped, mine = (rule(0.1, clip=0.3, ent_coef=lambda p: p).objective(0.25) for rule in (ClippedSurrogate, Mine))
    assert (clipped.kind, dict(clipped.numbers), clipped.ent_coef) == ("clipped", {"clip": 0.3}, 0.25)
    assert mine.kind != clipped.kind


def test_the_kl_of_policies_that_are_close_is_no_rounding() -> None:
    old, new = (make_policy(OBS, ACT, hidden=(4,), seed=1) for _ in range(2))
    new.flat.add_(1e-4 * torch.randn(len(new.flat), generator=torch.Generator().manual_seed(0)))
    obs = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    batch = Batch.of(obs, torch.zeros(50, dtype=torch.int64))
    found = mean_kl(new, old.dist(obs), batch)
    log_old, log_new = (policy.double().dist(obs.double()) for policy in (old, new))
    exact = (log_old.exp() * (log_old - log_new)).sum(-1).mean()
    assert 1e-10 < exact < 1e-7  # a difference of float32 numbers of about 1 is 1e-7 off
    assert found == pytest.approx(float(exact), rel=0.01)


@pytest.mark.parametrize("last", [1, 3])
def test_the_loop_ends_after_the_epoch_that_is_enough_and_says_whose_gradient_is_not_finite(last: int) -> None:
    theta, asked = torch.zeros(2), []

    def enough() -> bool:
        asked.append(theta.clone())
        return len(asked) == last

    def epoch(*pieces: float) -> Any:
        how = AscentPlan(SGD(), 0.5, None, len(pieces), torch.Generator())
        return epochs_of(theta, lambda: iter(pieces), lambda x: torch.full((2,), x), how)

    stats = minibatch_ascent(epoch(1.0, 3.0), 3, enough=enough)
    assert stats == {"epochs": last, "grad_norm": pytest.approx(2.0 * 2.0**0.5)}
    assert theta.tolist() == [2.0 * last] * 2
    with pytest.raises(FloatingPointError, match="the baker's gradient has norm nan: knead"):
        minibatch_ascent(epoch(torch.nan), owner="the baker", remedy="knead")
    assert theta.tolist() == [2.0 * last] * 2
