"""Update diagnostics: every number by its definition for every rule, its limit of small steps; reading it moves nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from explicit import BODIES, HEADS, batch_for, fisher_by_kl, make, moved, plain_gradient, randn, share_of
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.algorithms.diagnosed import diagnosed_step
from policygrad.algorithms.learner import Learner
from policygrad.data import Batch
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain, Target
from policygrad.gradient.estimators import GAE
from policygrad.models.critic import make_critic
from policygrad.models.heads import Categorical
from policygrad.models.kernels import SecondDerivativeError
from policygrad.models.policy import Policy, make_policy
from policygrad.updates import ClippedSurrogate, NaturalGradient, PenalizedSurrogate, TrustRegion, VanillaGradient
from policygrad.updates.diagnostics import UpdateDiagnostics, top_eigenvalues

RULES: dict[str, Any] = {
    "vanilla": lambda: VanillaGradient(0.05, optimizer="sgd", max_grad_norm=None),
    "vanilla adam": lambda: VanillaGradient(0.02),
    "clipped": lambda: ClippedSurrogate(0.02, epochs=3, minibatches=4),
    "penalized": lambda: PenalizedSurrogate(0.02, epochs=3, minibatches=4, ent_coef=0.01),
    "natural": lambda: NaturalGradient(0.02),
    "natural at a rate": lambda: NaturalGradient(lr=0.1, damping=0.01, solver="dense"),
    "trust region": lambda: TrustRegion(0.05, damping=0.01),
}


def elsewhere(batch: Batch) -> Batch:
    """The same data as if another policy had acted, so that ratios are not 1 before the update either."""
    return replace(batch, logp=batch.logp + 0.3 * randn(len(batch), seed=11))


def kl_by_definition(policy: Policy, old: Tensor, new: Tensor) -> Tensor:
    """KL(old ‖ new) from log-probabilities of all actions, for a Categorical."""
    return (old.softmax(-1) * (old.log_softmax(-1) - new.log_softmax(-1))).sum(-1)


@pytest.mark.parametrize("head", ["categorical", "categorical, masked", "gaussian", "correlated", "squashed", "beta"])
@pytest.mark.parametrize("name", RULES)
def test_every_number_is_what_it_says_by_definition(name: str, head: str) -> None:
    policy, rule = make(head), RULES[name]()
    batch = elsewhere(batch_for(policy))
    share, theta = share_of(batch), policy.flat.clone()
    F, gradient = fisher_by_kl(policy, batch.obs, share, batch.extra), plain_gradient(policy, batch)
    old = policy(batch.obs, batch.extra).detach()
    diagnostics = UpdateDiagnostics(policy, batch)
    rule(policy, batch)
    step, new = policy.flat - theta, policy(batch.obs, batch.extra).detach()
    numbers, logp = diagnostics.compute(policy, batch)

    log_old, log_new = policy.head.logp(old, batch.act), policy.head.logp(new, batch.act)
    r = (log_new - log_old).exp()
    gains = ((log_new - batch.logp).exp() - (log_old - batch.logp).exp()) * batch.adv
    kl = policy.head.kl(old, new)
    if head == "categorical":
        torch.testing.assert_close(kl, kl_by_definition(policy, old, new), rtol=0, atol=1e-13)
    expected = {
        "gain": (batch.weight * gains).sum(),
        "predicted_gain": gradient @ step,
        "kl": (share * kl).sum(),
        "kl_quadratic": 0.5 * step @ F @ step,
        "kl_k1": (share * -r.log()).sum(),
        "kl_k2": (share * 0.5 * r.log() ** 2).sum(),
        "kl_k3": (share * (r - 1.0 - r.log())).sum(),
        "step_norm": step.norm(),
        "policy_step": (2.0 * (share * kl).sum()).sqrt(),
        "grad_norm": gradient.norm(),
        "entropy": (share * policy.head.entropy(new)).sum(),
        "adv_std": ((batch.adv - batch.adv.mean()) ** 2).mean().sqrt(),
        "ratio_error": (share * (log_old - batch.logp).abs()).sum(),
    }
    assert numbers.keys() == expected.keys()
    for key, value in expected.items():
        assert numbers[key] == pytest.approx(float(value), rel=1e-9, abs=1e-12), key
    torch.testing.assert_close(logp, log_new, rtol=0, atol=1e-12)
    assert numbers["kl"] > 1e-6
    assert numbers["kl_k3"] >= 0.0
    assert (
        len({round(numbers[k], 12) for k in ("kl", "kl_quadratic", "kl_k1", "kl_k2", "kl_k3")}) == 5
    )  # none is another


def test_the_sampled_estimates_have_the_exact_kl_as_their_mean_and_k2_has_not() -> None:
    """Over all actions, weighed by the old policy: k1 and k3 are KL(old ‖ new), k2 is not."""
    policy = make("categorical")
    obs = batch_for(policy, 6).take(torch.arange(6).repeat_interleave(4)).obs
    act = torch.arange(4).repeat(6)
    logp = policy.evaluate(Batch.of(obs, act)).logp
    batch = Batch(obs, act, logp, torch.zeros_like(logp), logp.exp() / 6.0, 6)
    diagnostics = UpdateDiagnostics(policy, batch)
    policy.flat.add_(0.3 * randn(len(policy.flat), seed=2))
    numbers, _ = diagnostics.compute(policy, batch)
    assert numbers["kl"] > 1e-2
    assert numbers["kl_k1"] == pytest.approx(numbers["kl"], rel=1e-12)
    assert numbers["kl_k3"] == pytest.approx(numbers["kl"], rel=1e-12)
    assert abs(numbers["kl_k2"] / numbers["kl"] - 1.0) > 1e-2


@pytest.mark.parametrize("head", HEADS)
def test_for_small_steps_the_models_become_true_at_the_rate_they_should(head: str) -> None:
    """Gain / predicted and KL / quadratic differ from 1 by O(‖s‖): half the step, half the difference."""
    policy = make(head, (4, 3), "silu")
    batch, theta = elsewhere(batch_for(policy)), policy.flat.clone()
    direction = plain_gradient(policy, batch) + 0.3 * randn(len(theta), seed=2)
    direction /= direction.norm()
    errors, sizes = [], [2.0**-k for k in range(8, 12)]
    for size in sizes:
        policy.flat.copy_(theta)
        diagnostics = UpdateDiagnostics(policy, batch)
        policy.flat.add_(direction, alpha=size)
        numbers, _ = diagnostics.compute(policy, batch)
        errors.append(
            (numbers["gain"] / numbers["predicted_gain"] - 1.0, numbers["kl"] / numbers["kl_quadratic"] - 1.0)
        )
    slopes = np.diff(np.log(np.abs(errors)), axis=0) / np.diff(np.log(sizes))[:, None]
    assert np.abs(slopes - 1.0).max() <= 0.2, errors
    assert np.abs(errors[-1]).max() <= 0.02


def test_a_step_of_nothing_has_a_card_of_zeros() -> None:
    policy = make("gaussian")
    batch = elsewhere(batch_for(policy))
    numbers, _ = UpdateDiagnostics(policy, batch).compute(policy, batch)
    zeros = ("gain", "predicted_gain", "kl", "kl_quadratic", "kl_k1", "kl_k2", "kl_k3", "step_norm", "policy_step")
    assert all(numbers[k] == 0.0 for k in zeros)
    assert numbers["grad_norm"] > 0.0


def test_the_natural_rules_cards_say_what_they_were_to_do() -> None:
    """½ sᵀFs is the budget but for damping's part, and the trust region's KL is within its bound."""
    for head in ("categorical", "gaussian"):
        policy = make(head)
        batch = batch_for(policy)
        diagnostics = UpdateDiagnostics(policy, batch)
        NaturalGradient(0.02, damping=0.0, cg_iterations=200)(policy, batch)
        numbers, _ = diagnostics.compute(policy, batch)
        assert numbers["kl_quadratic"] == pytest.approx(0.02, rel=1e-6)
        assert numbers["predicted_gain"] > 0.0
        diagnostics = UpdateDiagnostics(policy, batch)
        TrustRegion(0.01)(policy, batch)
        numbers, _ = diagnostics.compute(policy, batch)
        assert 0.0 < numbers["kl"] <= 0.01
        assert numbers["gain"] >= 0.0


# nothing moves


def attention(space: spaces.Space) -> nn.Module:
    """A body whose fast kernel torch can differentiate once."""
    layer = nn.TransformerEncoderLayer(3, 1, 8, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (1, 3)), layer, nn.Flatten())


def test_a_body_that_can_be_differentiated_once_trains_by_first_order_rules_and_natural_steps_say_why_not() -> None:
    policy = make_policy(spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2), body=attention)
    obs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    act = torch.arange(8) % 2
    logp = policy.evaluate(Batch.of(obs, act)).logp
    batch = Batch(obs, act, logp, torch.linspace(-1.0, 1.0, 8), torch.full((8,), 0.125), 8)
    diagnostics = UpdateDiagnostics(policy, batch)
    ClippedSurrogate(0.01, epochs=1, minibatches=1)(policy, batch)
    stats, _ = diagnostics.compute(policy, batch)
    assert math.isnan(stats["kl_quadratic"])
    assert stats["kl"] > 0.0
    before = policy.flat.clone()
    for rule in (NaturalGradient(), TrustRegion()):
        with pytest.raises(SecondDerivativeError, match="needs this network's second derivative"):
            rule(policy, batch)
        assert torch.equal(policy.flat, before)


@pytest.mark.parametrize("body", BODIES)
def test_opening_and_reading_change_no_bit_and_draw_nothing(body: str) -> None:
    space, policy = BODIES[body]()
    policy = moved(policy)
    batch = batch_for(policy, space=space)
    before = {k: x.clone() for k, x in policy.state_dict().items()}
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    diagnostics = UpdateDiagnostics(policy, batch, eigenvalues=2)
    assert all(torch.equal(policy.state_dict()[k], x) for k, x in before.items())
    policy.flat.add_(0.1 * randn(len(policy.flat), seed=2))
    after = {k: x.clone() for k, x in policy.state_dict().items()}
    first, second = diagnostics.compute(policy, batch)[0], diagnostics.compute(policy, batch)[0]
    assert first == second
    assert all(torch.equal(policy.state_dict()[k], x) for k, x in after.items())
    assert not torch.equal(diagnostics.theta, policy.flat)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_an_interruption_while_the_card_looks_back_brings_the_policy_forward_again() -> None:
    class Interrupted(Categorical):
        def fisher(self, dist: Tensor, tangent: Tensor) -> Tensor:
            raise KeyboardInterrupt

    policy = make("categorical")
    batch = batch_for(policy)
    diagnostics = UpdateDiagnostics(policy, batch)
    policy.flat.add_(0.1 * randn(len(policy.flat), seed=2))
    after = policy.flat.clone()
    policy.head = Interrupted(4)
    with pytest.raises(KeyboardInterrupt):
        diagnostics.compute(policy, batch)
    assert torch.equal(policy.flat, after)


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, through dicts."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


@pytest.mark.parametrize(
    "env", [lambda: Chain((1.0, -2.0, 0.5, 3.0, 0.0), terminate_after=4), Target], ids=["chain", "target"]
)
@pytest.mark.parametrize("name", RULES)
def test_training_is_the_same_bit_for_bit_with_and_without_diagnostics(name: str, env: Any) -> None:
    """Policy, normaliser, rule, critic and rollouts, through three iterations."""

    def trained(diagnose: bool) -> tuple[dict[str, Any], dict[str, float]]:
        example = env()
        policy = make_policy(example.observation_space, example.action_space, hidden=(6,), normalize_obs=True)
        critic = make_critic(example.observation_space, hidden=(6,), epochs=2, minibatches=2)
        learner = Learner(policy, GAE(), RULES[name](), critic=critic)
        collector, stats = Collector(make_envs(env, 3), seed=1), {}
        for i in range(3):
            record = collector.steps(policy, 12)
            stats = diagnosed_step(learner, record, i / 3, eigenvalues=3) if diagnose else learner.step(record, i / 3)
        return learner.state_dict(), stats

    (plain, fewer), (diagnosed, more) = trained(False), trained(True)
    assert same(plain, diagnosed)
    assert {"kl_quadratic", "gain", "predicted_gain", "fisher_1", "fisher_3"} <= more.keys() - fewer.keys()
    assert "fisher_4" not in more


# the spectrum


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("head", HEADS)
def test_the_top_eigenvalues_are_those_of_the_matrix_written_out(head: str, count: int) -> None:
    policy = make(head, (4, 3), "silu")
    batch = batch_for(policy)
    share = share_of(batch)
    expected = torch.linalg.eigvalsh(fisher_by_kl(policy, batch.obs, share, batch.extra)).flip(0)[:count].tolist()
    found = top_eigenvalues(policy, policy.evaluate(batch), share, count)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == sorted(found, reverse=True)
    numbers, _ = UpdateDiagnostics(policy, batch, count).compute(policy, batch)
    assert [numbers[f"fisher_{i}"] for i in range(1, count + 1)] == found


def test_the_spectrum_is_that_of_the_policy_before_the_update() -> None:
    policy, twin = make("gaussian"), make("gaussian")
    batch = batch_for(policy)
    diagnostics = UpdateDiagnostics(policy, batch, eigenvalues=2)
    NaturalGradient(1.0)(policy, batch)
    numbers, _ = diagnostics.compute(policy, batch)
    values = torch.linalg.eigvalsh(fisher_by_kl(twin, batch.obs, share_of(batch), batch.extra)).flip(0)
    assert [numbers["fisher_1"], numbers["fisher_2"]] == pytest.approx(values[:2].tolist(), rel=1e-5)
    moved_values = torch.linalg.eigvalsh(fisher_by_kl(policy, batch.obs, share_of(batch), batch.extra)).flip(0)
    assert numbers["fisher_1"] != pytest.approx(float(moved_values[0]), rel=1e-2)


def test_more_eigenvalues_than_there_are_give_all_but_one_and_one_parameter_none() -> None:
    policy = moved(Policy(nn.Linear(1, 2, bias=False), Categorical(2)))
    obs, act = randn(4, 1), torch.tensor([0, 1, 1, 0])
    evaluation, share = policy.evaluate(Batch.of(obs, act)), torch.full((4,), 0.25).double()
    (found,) = top_eigenvalues(policy, evaluation, share, 5)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(fisher_by_kl(policy, obs, share))[-1]), rel=1e-5)
    single = moved(Policy(nn.Linear(1, 1, bias=False), Categorical(1)))
    with pytest.raises(ValueError, match="eigenvalues need a policy of at least 2 parameters, this one has 1"):
        top_eigenvalues(single, single.evaluate(Batch.of(obs, torch.zeros(4, dtype=torch.int64))), share, 1)


def test_a_policy_that_nothing_can_change_has_eigenvalues_of_zero() -> None:
    """One action is legal everywhere: F = 0, and so is every number but the entropy's sign."""
    policy = make_policy(spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(3), hidden=(4,), mask_source="info").double()
    obs = {"obs": randn(5, 3), "action_mask": torch.tensor([[False, True, False]]).expand(5, 3)}
    act = torch.ones(5, dtype=torch.int64)
    batch = Batch(obs, act, policy.evaluate(Batch.of(obs, act)).logp, randn(5), torch.full((5,), 0.2).double(), 5)
    diagnostics = UpdateDiagnostics(policy, batch, eigenvalues=2)
    NaturalGradient()(policy, batch)
    numbers, _ = diagnostics.compute(policy, batch)
    assert numbers["fisher_1"] == numbers["fisher_2"] == numbers["kl"] == numbers["grad_norm"] == 0.0


def test_in_float32_the_spectrum_is_found_as_well() -> None:
    policy = make_policy(spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(3), hidden=(16, 16))
    policy.flat.add_(0.1 * randn(len(policy.flat)).float())
    obs, act = randn(40, 3).float(), torch.arange(40) % 3
    share = torch.full((40,), 1.0 / 40.0)
    found = top_eigenvalues(policy, policy.evaluate(Batch.of(obs, act)), share, 5)
    twin = policy.double()
    expected = torch.linalg.eigvalsh(fisher_by_kl(twin, obs.double(), share.double())).flip(0)[:5]
    assert found == pytest.approx(expected.tolist(), rel=1e-4)
    assert math.isfinite(sum(found))
