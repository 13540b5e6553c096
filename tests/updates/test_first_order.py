"""The first-order rules: their weights by definition, and the minibatch ascent that all of them share."""

from __future__ import annotations

import io
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.data import Batch
from policygrad.models.policy import Policy, make_policy
from policygrad.models.schedules import linear
from policygrad.updates import ClippedSurrogate, PenalizedSurrogate, VanillaGradient
from policygrad.updates.first_order import FirstOrder

OBS = spaces.Box(-1.0, 1.0, (3,))
ACTIONS = [spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))]
B = 12


def make(action_space: spaces.Space = ACTIONS[0], **keywords: Any) -> Policy:
    policy = make_policy(OBS, action_space, hidden=(5,), **keywords).double()
    policy.flat += 0.3 * torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return policy


def batch_for(policy: Policy, rows: int = B, seed: int = 0) -> Batch:
    """Rows that this policy acted in, with advantages of both signs and uneven weights."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    if repr(policy.head).startswith("Categorical"):
        act = torch.randint(policy.head.size, (rows,), generator=generator)
    else:
        act = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    adv = torch.randn(rows, generator=generator, dtype=torch.float64)
    weight = torch.rand(rows, generator=generator, dtype=torch.float64) / rows
    return Batch(obs, act, policy.evaluate(Batch.of(obs, act)).logp, adv, weight, trajectories=3)


def without_advantages(batch: Batch) -> Batch:
    return replace(batch, adv=torch.zeros_like(batch.adv))


def plain_gradient(policy: Policy, batch: Batch) -> Tensor:
    """ĝ = Σ weight · adv · ∇log π, by autograd."""
    return policy.gradient((batch.weight * batch.adv * policy.logp(batch.obs, batch.act, batch.extra)).sum())


def small_batch(ratios: list[float], advs: list[float]) -> tuple[Tensor, Batch]:
    """Log-probabilities that give these ratios, and the batch they are the ratios to."""
    n = len(ratios)
    old = torch.linspace(-3.0, -0.5, n, dtype=torch.float64)
    none = torch.zeros(n, 1, dtype=torch.float64)
    weight = torch.full((n,), 1.0 / n, dtype=torch.float64)
    batch = Batch(none, none, old, torch.tensor(advs, dtype=torch.float64), weight, n)
    return old + torch.tensor(ratios, dtype=torch.float64).log(), batch


def test_the_clip_has_four_quadrants() -> None:
    """Above 1 + ε a positive advantage has had enough, below 1 − ε a negative one; the way back is always open."""
    logp, batch = small_batch([1.5, 0.5, 1.5, 0.5, 1.1, 0.9], [2.0, 2.0, -2.0, -2.0, 2.0, -2.0])
    expected = torch.tensor([0.0, 0.5, 1.5, 0.0, 1.1, 0.9], dtype=torch.float64) * batch.adv / 6
    torch.testing.assert_close(ClippedSurrogate(clip=0.2).score_weights(logp, batch), expected, rtol=0, atol=1e-15)
    assert ClippedSurrogate(clip=0.2).report(logp, batch) == {"clip_fraction": 2 / 6}
    assert ClippedSurrogate(clip=0.6).report(logp, batch) == {"clip_fraction": 0.0}


@pytest.mark.parametrize("clip", [0.05, 0.2, 1.0])
def test_the_clipped_weights_are_the_gradient_of_the_written_out_objective(clip: float) -> None:
    generator = torch.Generator().manual_seed(1)
    ratios = torch.exp(0.5 * torch.randn(500, generator=generator, dtype=torch.float64)).tolist()
    advs = torch.randn(500, generator=generator, dtype=torch.float64).tolist()
    logp, batch = small_batch(ratios, advs)
    leaf = logp.clone().requires_grad_()
    ratio = (leaf - batch.logp).exp()
    gain = (batch.weight * torch.min(ratio * batch.adv, ratio.clamp(1.0 - clip, 1.0 + clip) * batch.adv)).sum()
    weights = ClippedSurrogate(clip=clip).score_weights(logp, batch)
    torch.testing.assert_close(weights, torch.autograd.grad(gain, leaf)[0], rtol=0, atol=1e-12)
    assert 0.0 < float((weights == 0.0).double().mean()) < 1.0


def test_the_plain_weights_are_the_advantages_whatever_the_ratio() -> None:
    logp, batch = small_batch([1.5, 0.5, 1.0], [2.0, -1.0, 0.5])
    assert torch.equal(VanillaGradient().score_weights(logp, batch), batch.weight * batch.adv)


class Spy:
    """An optimiser that keeps the gradients and moves nothing."""

    def __init__(self) -> None:
        self.grads: list[Tensor] = []

    def step(self, params: Tensor, grad: Tensor, lr: float) -> None:
        self.grads.append(grad.clone())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
@pytest.mark.parametrize("kernel", ["closed_form", "autograd"])
def test_the_first_clipped_gradient_is_the_plain_one(action_space: spaces.Space, kernel: str) -> None:
    policy = make(action_space, kernel=kernel)
    batch, rule = batch_for(policy), ClippedSurrogate(epochs=1, minibatches=1, max_grad_norm=None)
    rule.optimizer = Spy()
    rule(policy, batch)
    torch.testing.assert_close(rule.optimizer.grads[0], plain_gradient(policy, batch), rtol=0, atol=1e-12)


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
@pytest.mark.parametrize("minibatches", [2, 3, 4])
def test_minibatch_gradients_average_to_the_batchs(action_space: spaces.Space, minibatches: int) -> None:
    policy = make(action_space)
    batch = batch_for(policy)
    rule = ClippedSurrogate(epochs=2, minibatches=minibatches, max_grad_norm=None)
    rule.optimizer = Spy()
    rule(policy, batch)
    assert len(rule.optimizer.grads) == 2 * minibatches
    for epoch in (rule.optimizer.grads[:minibatches], rule.optimizer.grads[minibatches:]):
        mean = torch.stack(epoch).mean(0)
        torch.testing.assert_close(mean, plain_gradient(policy, batch), rtol=0, atol=1e-12)
    assert not torch.allclose(rule.optimizer.grads[0], rule.optimizer.grads[minibatches])  # shuffled anew


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
@pytest.mark.parametrize("minibatches", [2, 3, 4])
def test_the_entropy_gradients_of_minibatches_average_to_the_batchs(
    action_space: spaces.Space, minibatches: int
) -> None:
    policy = make(action_space)
    batch = without_advantages(batch_for(policy))
    expected = 0.7 * policy.gradient((batch.weight * policy.head.entropy(policy(batch.obs, batch.extra))).sum())
    assert float(expected.norm()) > 1e-3
    rule = ClippedSurrogate(epochs=1, minibatches=minibatches, max_grad_norm=None, ent_coef=0.7)
    rule.optimizer = Spy()
    rule(policy, batch)
    torch.testing.assert_close(torch.stack(rule.optimizer.grads).mean(0), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
@pytest.mark.parametrize("minibatches", [1, 4, 5])
def test_an_epoch_of_sgd_on_surrogate_and_entropy_is_the_one_written_out(
    action_space: spaces.Space, minibatches: int
) -> None:
    """By autograd, in uneven pieces too: a piece of m of B rows has its weights scaled by B/m, the entropy's included."""
    policy, twin = make(action_space), make(action_space)
    batch = batch_for(policy)
    rule = ClippedSurrogate(
        0.05, optimizer="sgd", epochs=1, minibatches=minibatches, max_grad_norm=None, ent_coef=0.7, seed=3
    )
    rule(policy, batch)
    order = torch.arange(B) if minibatches == 1 else torch.randperm(B, generator=torch.Generator().manual_seed(3))
    for rows in order.tensor_split(minibatches):
        weight = batch.weight[rows] * B / len(rows)
        mb = batch.take(rows)
        ratio = (twin.logp(mb.obs, mb.act, mb.extra) - mb.logp).exp()
        adv = batch.adv[rows]
        surrogate = torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv)
        entropy = twin.head.entropy(twin(mb.obs, mb.extra))
        twin.flat += 0.05 * twin.gradient((weight * (surrogate + 0.7 * entropy)).sum())
    torch.testing.assert_close(policy.flat, twin.flat, rtol=0, atol=1e-12)


class Register(FirstOrder):
    """A rule that notes which rows it was given, by their advantages, and wants nothing."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(optimizer="sgd", **keywords)
        self.seen: list[list[int]] = []

    def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
        self.seen.append([int(a) for a in batch.adv])
        assert torch.equal(batch.obs[:, 0].long(), batch.adv.long())  # the fields of a row stay together
        assert torch.equal(batch.logp.long(), batch.adv.long())
        return torch.zeros_like(logp)


@pytest.mark.parametrize(("rows", "minibatches"), [(12, 1), (12, 4), (13, 4), (7, 7), (10, 3), (3, 8)])
def test_every_epoch_gives_every_row_once_in_even_pieces(rows: int, minibatches: int) -> None:
    policy = make()
    numbers = torch.arange(rows, dtype=torch.float64)
    obs = torch.zeros(rows, 3, dtype=torch.float64)
    obs[:, 0] = numbers
    batch = Batch(obs, numbers.long() % 3, numbers, numbers, torch.ones(rows, dtype=torch.float64), rows)
    rule = Register(epochs=3, minibatches=minibatches)
    rule(policy, batch)
    minibatches = min(minibatches, rows)  # never an empty one
    assert len(rule.seen) == 3 * minibatches
    orders = []
    for epoch in range(3):
        pieces = rule.seen[epoch * minibatches : (epoch + 1) * minibatches]
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
        orders.append([row for piece in pieces for row in piece])
        assert sorted(orders[-1]) == list(range(rows))
    assert minibatches == 1 or (orders[0] != orders[1] != orders[2])


def test_an_update_changes_nothing_but_the_policy() -> None:
    policy = make()
    batch = batch_for(policy)
    before = deepcopy(batch)
    ClippedSurrogate(0.1, epochs=3, minibatches=2, ent_coef=0.1, target_kl=1.0)(policy, batch)
    assert all(torch.equal(getattr(batch, f), getattr(before, f)) for f in ("obs", "act", "logp", "adv", "weight"))


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
def test_a_plain_step_by_sgd_is_the_rate_times_the_gradient(action_space: spaces.Space) -> None:
    policy = make(action_space)
    batch, theta = batch_for(policy), policy.flat.clone()
    gradient = plain_gradient(policy, batch)
    stats = VanillaGradient(0.1, optimizer="sgd", max_grad_norm=None)(policy, batch)
    torch.testing.assert_close(policy.flat, theta + 0.1 * gradient, rtol=0, atol=1e-15)
    assert stats["grad_norm"] == pytest.approx(float(gradient.norm()), rel=1e-12)
    assert float((policy.logp(batch.obs, batch.act, batch.extra) * batch.weight * batch.adv).detach().sum()) > float(
        (batch.logp * batch.weight * batch.adv).sum()
    )


def test_the_gradients_norm_is_clipped() -> None:
    policy = make()
    batch, theta = batch_for(policy), policy.flat.clone()
    gradient = plain_gradient(policy, batch)
    bound = 0.3 * float(gradient.norm())
    VanillaGradient(1.0, optimizer="sgd", max_grad_norm=bound)(policy, batch)
    torch.testing.assert_close(policy.flat - theta, 0.3 * gradient, rtol=1e-4, atol=0)


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
def test_the_entropy_bonus_is_the_gradient_of_the_weighted_entropy(action_space: spaces.Space) -> None:
    policy = make(action_space)
    batch, theta = batch_for(policy), policy.flat.clone()
    entropy = (batch.weight * policy.head.entropy(policy(batch.obs, batch.extra))).sum()
    expected = plain_gradient(policy, batch) + 0.7 * policy.gradient(entropy)
    VanillaGradient(1.0, optimizer="sgd", max_grad_norm=None, ent_coef=0.7)(policy, batch)
    torch.testing.assert_close(policy.flat - theta, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", [VanillaGradient, ClippedSurrogate, PenalizedSurrogate])
@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
def test_without_advantages_entropy_rises_with_the_bonus_and_nothing_moves_without(
    action_space: spaces.Space, rule: Any
) -> None:
    policy = make(action_space)
    batch = without_advantages(batch_for(policy))

    def entropy() -> float:
        return float((batch.weight * policy.head.entropy(policy.dist(batch.obs, batch.extra))).sum())

    before, theta = entropy(), policy.flat.clone()
    rule(0.01)(policy, batch)
    assert torch.equal(policy.flat, theta)
    rule(0.01, ent_coef=0.1)(policy, batch)
    assert entropy() > before + 1e-6


@pytest.mark.parametrize(("target_kl", "epochs"), [(1e-9, 1), (None, 6), (1e9, 6)])
def test_the_climb_stops_after_the_epoch_that_went_too_far(target_kl: float | None, epochs: int) -> None:
    policy = make()
    rule = ClippedSurrogate(0.05, epochs=6, minibatches=2, target_kl=target_kl)
    assert rule(policy, batch_for(policy))["epochs"] == epochs


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
def test_the_kl_that_stops_is_the_exact_one_of_old_to_new(action_space: spaces.Space) -> None:
    """A target a hair below the KL after an epoch stops there, one a hair above an epoch later."""
    batch = batch_for(make(action_space))
    share = batch.weight / batch.weight.sum()

    def climb(epochs: int, target_kl: float | None = None) -> tuple[Policy, float]:
        policy = make(action_space)
        rule = ClippedSurrogate(
            0.1, clip=5.0, epochs=epochs, minibatches=1, optimizer="sgd", max_grad_norm=None, target_kl=target_kl
        )
        return policy, rule(policy, batch)["epochs"]

    old = make(action_space).dist(batch.obs)
    kls = [float((share * p.head.kl(old, p.dist(batch.obs))).sum()) for p, _ in map(climb, range(1, 5))]
    assert kls == sorted(kls)
    for i in range(3):
        assert climb(10, kls[i] * (1.0 - 1e-6))[1] == i + 1
        assert climb(10, kls[i] * (1.0 + 1e-6))[1] == i + 2


def test_schedules_drive_the_rate_and_the_bonus() -> None:
    batch = batch_for(make())

    def moved(progress: float, **keywords: Any) -> Tensor:
        policy = make()
        theta = policy.flat.clone()
        VanillaGradient(**keywords, optimizer="sgd", max_grad_norm=None)(policy, batch, progress)
        return policy.flat - theta

    whole = moved(0.0, lr=0.1)
    for progress in (0.0, 0.25, 1.0):
        torch.testing.assert_close(moved(progress, lr=linear(0.1)), (1.0 - progress) * whole, rtol=0, atol=1e-15)
    bonus = moved(0.0, lr=0.1, ent_coef=1.0) - whole
    assert float(bonus.abs().max()) > 1e-4
    for progress in (0.0, 0.25, 1.0):
        torch.testing.assert_close(
            moved(progress, lr=0.1, ent_coef=linear(1.0)) - whole, (1.0 - progress) * bonus, rtol=0, atol=1e-15
        )


RULES: dict[str, Any] = {
    "vanilla": lambda seed: VanillaGradient(0.01, seed=seed),
    "vanilla sgd": lambda seed: VanillaGradient(0.01, optimizer="sgd", seed=seed),
    "clipped": lambda seed: ClippedSurrogate(0.01, epochs=3, minibatches=4, seed=seed),
    "penalized": lambda seed: PenalizedSurrogate(0.01, epochs=3, minibatches=4, seed=seed),
}


@pytest.mark.parametrize("name", RULES)
def test_two_updates_are_one_saved_loaded_and_another_bit_for_bit(name: str) -> None:
    policy, rule = make(), RULES[name](0)
    rule(policy, batch_for(policy, seed=1))
    buffer = io.BytesIO()
    torch.save({"policy": policy.state_dict(), "rule": rule.state_dict()}, buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)

    twin, other = make(), RULES[name](5)
    other(twin, batch_for(twin, seed=3))  # a history of its own, to be overwritten
    twin.load_state_dict(state["policy"])
    other.load_state_dict(state["rule"])
    second = batch_for(policy, seed=2)
    stats = rule(policy, second)
    assert other(twin, second) == stats
    assert torch.equal(policy.flat, twin.flat)


def test_the_shuffling_comes_from_the_rules_own_seed() -> None:
    batch = batch_for(make())

    def after(seed: int) -> Tensor:
        torch.rand(1)
        policy = make()
        ClippedSurrogate(0.01, epochs=2, minibatches=3, seed=seed)(policy, batch)
        return policy.flat

    assert torch.equal(after(0), after(0))
    assert not torch.equal(after(0), after(1))


@pytest.mark.parametrize("keywords", [{"epochs": 2}, {"minibatches": 2}])
def test_the_plain_gradient_refuses_to_use_data_twice(keywords: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"VanillaGradient takes one step per batch: .* ratio"):
        VanillaGradient(**keywords)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"minibatches": -1}, "minibatches must be at least 1, got -1"),
        ({"clip": 0.0}, r"clip must be positive, got 0\.0"),
        ({"optimizer": "rmsprop"}, r"optimizer must be one of .* got 'rmsprop'"),
    ],
)
def test_bad_hyperparameters_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClippedSurrogate(**keywords)


@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
@pytest.mark.parametrize(
    ("old", "adv", "norm"),
    [(-1e5, -1.0, "nan"), (float("nan"), -1.0, "nan"), (-1.0, -1e200, "inf")],
    ids=["ratio overflows", "log-probability is nan", "norm overflows"],
)
def test_a_gradient_that_is_not_finite_stops_before_the_policy_moves(
    old: float, adv: float, norm: str, max_grad_norm: float | None
) -> None:
    policy = make()
    rule = ClippedSurrogate(0.1, epochs=2, minibatches=1, max_grad_norm=max_grad_norm)
    rule(policy, batch_for(policy))
    before, state = policy.flat.clone(), deepcopy(rule.state_dict())
    batch = batch_for(policy)
    logp = batch.logp.clone()
    logp[4] = old
    advs = torch.full_like(batch.adv, adv)  # negative: the clip keeps large ratios
    with pytest.raises(FloatingPointError, match=rf"the policy's gradient has norm {norm}: lower lr"):
        rule(policy, replace(batch, logp=logp, adv=advs))
    assert torch.equal(policy.flat, before)
    after = rule.state_dict()
    assert after["optimizer"]["t"] == state["optimizer"]["t"]
    assert all(torch.equal(after["optimizer"][k], state["optimizer"][k]) for k in ("m", "v"))


def test_a_policy_that_left_the_numbers_stops_the_climb_at_the_next_minibatch() -> None:
    policy = make()
    rule = ClippedSurrogate(float("inf"), optimizer="sgd", epochs=1, minibatches=2, max_grad_norm=None)
    with pytest.raises(FloatingPointError, match="lower lr"):
        rule(policy, batch_for(policy))


@pytest.mark.filterwarnings("ignore:Dropout drops nothing", "ignore:BatchNorm1d in the body")
@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(6)], ids=["dropout", "batch norm"])
def test_every_ratio_is_one_before_the_first_step_whatever_the_body_does_in_training(layer: nn.Module) -> None:
    body = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), deepcopy(layer))
    policy = make_policy(OBS, ACTIONS[0], body=body).double()
    policy.flat += 0.3 * torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    batch, ratios = batch_for(policy), []

    class Watched(ClippedSurrogate):
        def score_weights(self, logp: Tensor, batch: Batch) -> Tensor:
            ratios.append((logp - batch.logp).exp())
            return super().score_weights(logp, batch)

    rule = Watched(0.05, epochs=2, minibatches=2)
    rule(policy, batch)
    torch.testing.assert_close(ratios[0], torch.ones(B // 2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert not torch.allclose(ratios[-1], torch.ones(B // 2, dtype=torch.float64), atol=1e-6)
    torch.testing.assert_close(
        policy.dist(batch.obs, batch.extra), policy(batch.obs, batch.extra).detach(), rtol=0, atol=1e-12
    )
