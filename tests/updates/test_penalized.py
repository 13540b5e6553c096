"""The KL penalty: its gradient written out at and away from where the update began, and β's steering."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from explicit import HEADS, batch_for, every_action, make, plain_gradient, randn, scores, share_of
from torch import Tensor

from policygrad.data import Batch
from policygrad.models.ascent import mean_kl
from policygrad.models.kernels import trainable
from policygrad.models.policy import Policy
from policygrad.models.schedules import linear
from policygrad.updates import PenalizedSurrogate
from policygrad.updates.penalized import LEAST_BETA, MOST_BETA

ROWS = 12


class Leap:
    """An optimiser that keeps the gradients, moves by a given step on the first one and then never again."""

    def __init__(self, leap: Tensor | None = None, before: int = 1) -> None:
        self.grads: list[Tensor] = []
        self.leap, self.before = leap, before

    def step(self, params: Tensor, grad: Tensor, lr: float) -> None:
        self.grads.append(grad.clone())
        if self.leap is not None and len(self.grads) == self.before:
            params.add_(self.leap)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def rule_with(optimizer: Leap, **keywords: Any) -> PenalizedSurrogate:
    rule = PenalizedSurrogate(**{"max_grad_norm": None, "epochs": 1, "minibatches": 1} | keywords)
    rule.optimizer = optimizer
    return rule


def penalized_gradient(policy: Policy, batch: Batch, old: Tensor, beta: float, ent_coef: float = 0.0) -> Tensor:
    """∇θ of Σ weight · (ratio · adv − β KL(old ‖ π_θ) + ent_coef · entropy), by autograd through everything."""
    kl = (batch.weight * policy.head.kl(old, policy(batch.obs, batch.extra))).sum()
    grads = torch.autograd.grad(kl, trainable(policy.network), allow_unused=True, materialize_grads=True)
    return plain_gradient(policy, batch, ent_coef) - beta * torch.cat([g.reshape(-1) for g in grads])


@pytest.mark.parametrize("kernel", ["closed_form", "autograd"])
@pytest.mark.parametrize("head", HEADS)
def test_the_first_gradient_is_the_plain_one_whatever_beta(head: str, kernel: str) -> None:
    """KL(old ‖ π_θ) is least at θ_old, so its gradient there is 0."""
    policy = make(head, kernel=kernel)
    batch = batch_for(policy, ROWS)
    for beta in (1e-3, 1.0, 1e3):
        spy = Leap()
        rule_with(spy, beta=beta)(policy, batch)
        torch.testing.assert_close(spy.grads[0], plain_gradient(policy, batch), rtol=0, atol=1e-12)


@pytest.mark.parametrize("minibatches", [1, 2, 3])
@pytest.mark.parametrize("head", HEADS)
def test_after_a_leap_the_gradients_average_to_the_one_written_out(head: str, minibatches: int) -> None:
    """The second epoch is at θ ≠ θ_old: penalty, ratios and entropy all matter, minibatch by minibatch."""
    policy = make(head)
    batch, theta = batch_for(policy, ROWS), policy.flat.clone()
    old = policy(batch.obs, batch.extra).detach()
    spy = Leap(0.2 * randn(len(theta), seed=4), before=minibatches)
    rule_with(spy, beta=1.7, ent_coef=0.3, epochs=2, minibatches=minibatches, target_kl=None)(policy, batch)
    assert len(spy.grads) == 2 * minibatches
    here = penalized_gradient(policy, batch, old, 1.7, 0.3)
    torch.testing.assert_close(torch.stack(spy.grads[minibatches:]).mean(0), here, rtol=1e-11, atol=1e-11)
    for other in (penalized_gradient(policy, batch, old, 0.0, 0.3), penalized_gradient(policy, batch, old, 1.7)):
        assert float((here - other).norm()) > 1e-3  # so both are seen
    policy.flat.copy_(theta)
    before = plain_gradient(policy, batch, 0.3)
    torch.testing.assert_close(torch.stack(spy.grads[:minibatches]).mean(0), before, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("head", HEADS)
def test_the_penaltys_gradient_is_minus_the_old_policys_mean_score_with_all_actions_and_not_with_one(head: str) -> None:
    """β ∇KL(old ‖ π_θ) = −β E_old[∇log π_θ]: the constant drops out. A sample of it is unbiased, and noise."""
    policy = make(head, (4, 3), "silu")
    batch = batch_for(policy, ROWS)
    old, share = policy.dist(batch.obs, batch.extra), share_of(batch)
    act, probability = every_action(policy.head, old)
    policy.flat.add_(0.1 * randn(len(policy.flat), seed=4))
    evaluation = policy.evaluate(batch)
    exact = evaluation.gradient(torch.zeros_like(share), kl_weight=share, old=old).clone()
    count = act.shape[1]
    repeated = batch.take(torch.arange(ROWS).repeat_interleave(count))
    every = policy.evaluate(replace(repeated, act=act.flatten(0, 1)))
    mean_score = every.gradient((share[:, None] * probability).reshape(-1)).clone()
    # a Beta's nodes do not reach the bounds
    torch.testing.assert_close(-mean_score, exact, rtol=0, atol=1e-7 if head == "beta" else 1e-10)
    sampled = policy.evaluate(batch).gradient(share)
    assert float((sampled + exact).norm()) > 0.05
    new_score, new_probability = scores(policy, batch.obs, batch.extra)  # under the new policy's own mean it is 0
    own = torch.einsum("b,ba,bap->p", share, new_probability, new_score)
    assert float(own.abs().max()) <= (1e-7 if head == "beta" else 1e-10)


@pytest.mark.parametrize("minibatches", [1, 4, 5])
@pytest.mark.parametrize("head", ["categorical, masked", "gaussian", "correlated"])
def test_epochs_of_sgd_are_those_written_out_in_uneven_pieces_too(head: str, minibatches: int) -> None:
    policy, twin = make(head), make(head)
    batch = batch_for(policy, ROWS)
    old = twin.dist(batch.obs, batch.extra).clone()
    rule = PenalizedSurrogate(
        0.05, beta=2.0, optimizer="sgd", epochs=3, minibatches=minibatches, max_grad_norm=None, ent_coef=0.7, seed=3
    )
    rule(policy, batch)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        order = torch.arange(ROWS) if minibatches == 1 else torch.randperm(ROWS, generator=generator)
        for rows in order.tensor_split(minibatches):
            piece = batch.take(rows)
            piece = replace(piece, weight=piece.weight * ROWS / len(rows))
            twin.flat.add_(penalized_gradient(twin, piece, old[rows], 2.0, 0.7), alpha=0.05)
    torch.testing.assert_close(policy.flat, twin.flat, rtol=0, atol=1e-11)


def test_the_penalty_is_on_the_kl_from_old_to_new() -> None:
    """Negative control: of the other direction the gradient is another one."""
    policy = make("gaussian")
    batch = batch_for(policy, ROWS)
    old = policy(batch.obs, batch.extra).detach()
    spy = Leap(0.2 * randn(len(policy.flat), seed=4))
    rule_with(spy, beta=1.7, epochs=2, target_kl=None)(policy, batch)
    backwards = (batch.weight * policy.head.kl(policy(batch.obs, batch.extra), old)).sum()
    wrong = plain_gradient(policy, batch) - 1.7 * policy.gradient(backwards)
    assert float((spy.grads[1] - wrong).norm()) > 1e-2


@pytest.mark.parametrize("head", ["categorical", "gaussian"])
def test_a_larger_beta_keeps_the_policy_nearer(head: str) -> None:
    kls = []
    for beta in (1e-4, 1.0, 30.0):
        policy = make(head)
        batch = batch_for(policy, ROWS)
        old = policy.dist(batch.obs, batch.extra).clone()
        PenalizedSurrogate(0.02, beta=beta, target_kl=None, epochs=40, minibatches=1)(policy, batch)
        kls.append(mean_kl(policy, old, batch))
    assert kls[0] > 1.5 * kls[1] > 3.0 * kls[2] > 0.0


# β


def updated(keywords: dict[str, Any]) -> tuple[PenalizedSurrogate, float, dict[str, float]]:
    """The rule after one update, how far that went, and what it said."""
    policy = make("gaussian")
    batch = batch_for(policy, ROWS)
    old = policy(batch.obs, batch.extra).detach()
    rule = PenalizedSurrogate(**{"lr": 0.01, "epochs": 3, "minibatches": 2} | keywords)
    stats = rule(policy, batch)
    return rule, float((share_of(batch) * policy.head.kl(old, policy(batch.obs, batch.extra).detach())).sum()), stats


def test_beta_doubles_halves_or_stays_by_the_exact_kl_of_the_update_to_a_hair() -> None:
    """Halves below target / 1.5, doubles above 1.5 · target; what it steered this update by is what it says."""
    _, kl, _ = updated({"target_kl": None, "beta": 2.0})
    assert kl > 1e-5
    for target, factor in [
        (kl * 100.0, 0.5),
        (kl * 1.5 * (1.0 + 1e-6), 0.5),
        (kl * 1.5 * (1.0 - 1e-6), 1.0),
        (kl, 1.0),
        (kl / 1.5 * (1.0 + 1e-6), 1.0),
        (kl / 1.5 * (1.0 - 1e-6), 2.0),
        (kl / 100.0, 2.0),
    ]:
        rule, again, stats = updated({"target_kl": target, "beta": 2.0})
        assert again == kl  # the target steers the next update, not this one
        assert rule.beta == 2.0 * factor
        assert stats["beta"] == 2.0
        assert stats["epochs"] == 3


def test_a_fixed_beta_never_moves() -> None:
    policy = make("gaussian")
    rule = PenalizedSurrogate(0.1, beta=0.3, target_kl=None)
    for seed in range(5):
        stats = rule(policy, batch_for(policy, ROWS, seed))
        assert stats["beta"] == rule.beta == 0.3


@pytest.mark.parametrize(
    ("beta", "target_kl", "path"),
    [
        (3e-4, 1e6, [1.5e-4, LEAST_BETA, LEAST_BETA]),
        (4e3, 1e-12, [8e3, MOST_BETA, MOST_BETA]),
        (LEAST_BETA, 1e-12, [2e-4, 4e-4, 8e-4]),
    ],
)
def test_beta_stays_between_its_bounds_and_comes_back_from_them(beta: float, target_kl: float, path: list) -> None:
    policy, rule, seen = make("gaussian"), PenalizedSurrogate(1e-3, beta=beta, target_kl=target_kl), []
    for seed in range(3):
        rule(policy, batch_for(policy, ROWS, seed))
        seen.append(rule.beta)
    assert seen == pytest.approx(path, rel=1e-15)
    assert (LEAST_BETA, MOST_BETA) == (1e-4, 1e4)


def test_steering_brings_the_kl_of_an_update_to_its_target() -> None:
    """From a β a thousand times too small, and one a hundred times too large, to a factor of 2; a fixed one stays away."""

    def median_of_the_last(beta: float, target_kl: float | None) -> float:
        policy = make("categorical")
        rule, kls = PenalizedSurrogate(0.01, beta=beta, target_kl=target_kl, epochs=40, minibatches=1), []
        for seed in range(30):
            batch = batch_for(policy, 40, seed)
            batch = replace(batch, weight=torch.full_like(batch.weight, 1.0 / 40))
            old = policy.dist(batch.obs, batch.extra).clone()
            rule(policy, batch)
            kls.append(mean_kl(policy, old, batch))
        return sorted(kls[-15:])[7]

    for beta in (1e-3, 1e3):
        assert 0.005 <= median_of_the_last(beta, 0.01) <= 0.02
        assert not 0.005 <= median_of_the_last(beta, None) <= 0.02


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_two_updates_are_one_saved_loaded_and_another_bit_for_bit_with_beta(optimizer: str) -> None:
    keywords = {"lr": 0.03, "optimizer": optimizer, "epochs": 3, "minibatches": 4, "target_kl": 1e-9}
    policy, rule = make("gaussian"), PenalizedSurrogate(seed=0, **keywords)
    rule(policy, batch_for(policy, ROWS, 1))
    assert rule.beta == 2.0
    buffer = io.BytesIO()
    torch.save({"policy": policy.state_dict(), "rule": rule.state_dict()}, buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    twin, other = make("gaussian"), PenalizedSurrogate(seed=5, **keywords | {"beta": 7.0})
    other(twin, batch_for(twin, ROWS, 3))
    twin.load_state_dict(state["policy"])
    other.load_state_dict(state["rule"])
    assert other.beta == 2.0
    second = batch_for(policy, ROWS, 2)
    assert other(twin, second) == rule(policy, second)
    assert torch.equal(policy.flat, twin.flat)
    assert other.beta == rule.beta == 4.0


def test_schedules_drive_the_rate_and_the_bonus() -> None:
    batch = batch_for(make("gaussian"), ROWS)

    def moved(progress: float, **keywords: Any) -> Tensor:
        policy = make("gaussian")
        theta = policy.flat.clone()
        rule = PenalizedSurrogate(optimizer="sgd", epochs=1, minibatches=1, max_grad_norm=None, **keywords)
        rule(policy, batch, progress)
        return policy.flat - theta

    whole, bonus = moved(0.0, lr=0.1), moved(0.0, lr=0.1, ent_coef=1.0)
    assert float((bonus - whole).abs().max()) > 1e-3
    for progress in (0.25, 1.0):
        left = 1.0 - progress
        torch.testing.assert_close(moved(progress, lr=linear(0.1)), left * whole, rtol=0, atol=1e-14)
        expected = whole + left * (bonus - whole)
        torch.testing.assert_close(moved(progress, lr=0.1, ent_coef=linear(1.0)), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("field", ["obs", "act", "adv", "logp", "weight"])
def test_a_number_that_is_not_finite_stops_before_the_policy_moves(field: str) -> None:
    policy, rule = make("gaussian"), PenalizedSurrogate(minibatches=1)
    batch, theta = batch_for(policy, ROWS), policy.flat.clone()
    column = getattr(batch, field).clone()
    column[(5, 1) if column.ndim > 1 else 5] = torch.nan
    with pytest.raises(FloatingPointError, match="the policy's gradient has norm nan"):
        rule(policy, replace(batch, **{field: column}))
    assert torch.equal(policy.flat, theta)
    assert rule.beta == 1.0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beta": 0.0}, r"beta must be positive, got 0\.0"),
        ({"target_kl": 0.0}, r"target_kl must be positive, or None for a fixed beta, got 0\.0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ],
)
def test_bad_hyperparameters_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PenalizedSurrogate(**keywords)
