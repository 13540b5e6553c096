"""The natural gradient: its step by definition, on finite MDPs by theory, and what it does not depend on."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from explicit import HEADS, batch_for, fisher_by_kl, make, plain_gradient, randn, share_of
from torch import Tensor, nn

from policygrad.data import Batch
from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import RewardToGo, advantages
from policygrad.gradient.natural import CurvatureError
from policygrad.lab.exact.tabular import (
    MDP,
    ExactCritic,
    chain,
    discounts,
    enumerate_trajectories,
    exact_gradient,
    objective,
    optimum,
    policy_matrix,
    random_mdp,
    solve,
    tabular_policy,
    visits,
)
from policygrad.models.heads import Categorical
from policygrad.models.policy import Policy
from policygrad.models.schedules import linear
from policygrad.updates import NaturalGradient, TrustRegion

ENOUGH = 400  # iterations of conjugate gradients, where they are to be exact


def step_of(rule: Any, policy: Policy, batch: Batch, progress: float = 0.0) -> Tensor:
    """Where the rule goes from here; the policy stays."""
    theta = policy.flat.clone()
    rule(policy, batch, progress)
    step = policy.flat - theta
    policy.flat.copy_(theta)
    return step


def curvature(policy: Policy, batch: Batch, damping: float) -> Tensor:
    """F + damping · I, written out."""
    F = fisher_by_kl(policy, batch.obs, share_of(batch), batch.extra)
    return F + damping * torch.eye(len(F), dtype=F.dtype)


def elsewhere(batch: Batch) -> Batch:
    """The same data as if another policy had acted, so that ratios are not 1."""
    return replace(batch, logp=batch.logp + 0.3 * randn(len(batch), seed=11))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("keywords", [{"cg_iterations": 2}, {"cg_iterations": ENOUGH}, {"solver": "dense"}], ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_the_step_is_as_long_as_the_budget_says_however_well_it_was_solved_for(
    head: str, keywords: dict[str, Any]
) -> None:
    policy = make(head)
    batch = elsewhere(batch_for(policy))
    step = step_of(NaturalGradient(0.02, damping=0.03, **keywords), policy, batch)
    assert 0.5 * float(step @ curvature(policy, batch, 0.03) @ step) == pytest.approx(0.02, rel=1e-8)
    assert float(step @ plain_gradient(policy, batch)) > 0.0


@pytest.mark.parametrize("ent_coef", [0.0, 0.7])
@pytest.mark.parametrize("keywords", [{"cg_iterations": ENOUGH}, {"solver": "dense"}], ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_at_a_fixed_rate_the_step_is_the_rate_times_the_solution_and_else_a_multiple_of_it(
    head: str, keywords: dict[str, Any], ent_coef: float
) -> None:
    """By torch.linalg.solve with the matrix written out and autograd's gradient of ratios, advantages and entropy."""
    policy = make(head)
    batch, keywords = elsewhere(batch_for(policy)), keywords | {"damping": 0.03, "ent_coef": ent_coef}
    gradient = plain_gradient(policy, batch, ent_coef)
    solution = torch.linalg.solve(curvature(policy, batch, 0.03), gradient)
    assert relative(step_of(NaturalGradient(lr=0.1, **keywords), policy, batch), 0.1 * solution) <= 1e-8
    length = math.sqrt(2.0 * 0.02 / float(gradient @ solution))
    assert relative(step_of(NaturalGradient(0.02, **keywords), policy, batch), length * solution) <= 1e-8
    assert relative(gradient, plain_gradient(policy, batch, 0.7 - ent_coef)) > 1e-2  # so the bonus is seen


def test_the_bonus_alone_raises_the_entropy() -> None:
    policy = make("gaussian, std of the network")
    batch = batch_for(policy)
    batch = replace(batch, adv=torch.zeros_like(batch.adv))
    before = policy.head.entropy(policy.dist(batch.obs, batch.extra))
    assert torch.equal(step_of(NaturalGradient(), policy, batch), torch.zeros_like(policy.flat))
    NaturalGradient(ent_coef=0.1)(policy, batch)
    assert float((batch.weight * (policy.head.entropy(policy.dist(batch.obs, batch.extra)) - before)).sum()) > 1e-3


@pytest.mark.parametrize("solver", ["cg", "dense"])
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e3, 1e9])
def test_a_step_of_the_budgets_length_does_not_depend_on_the_advantages_scale(scale: float, solver: str) -> None:
    policy = make("gaussian")
    batch = batch_for(policy)
    rule = NaturalGradient(0.02, damping=0.03, solver=solver)
    step = step_of(rule, policy, batch)
    assert relative(step_of(rule, policy, replace(batch, adv=scale * batch.adv)), step) <= 1e-10
    assert relative(step_of(rule, policy, replace(batch, weight=scale * batch.weight)), step) <= 1e-10
    fixed = NaturalGradient(lr=0.1, damping=0.03, solver=solver)  # negative control: with a rate it does
    assert relative(step_of(fixed, policy, replace(batch, adv=scale * batch.adv)), step_of(fixed, policy, batch)) > 0.9


class Mapped(nn.Module):
    """A table whose entries are a linear map of the parameters: the same policies, by other coordinates."""

    mixing: Tensor

    def __init__(self, states: int, actions: int, mixing: Tensor) -> None:
        super().__init__()
        self.shape = states, actions
        self.register_buffer("mixing", mixing)
        self.parameter = nn.Parameter(torch.zeros(len(mixing), dtype=torch.float64))

    def forward(self, obs: Tensor) -> Tensor:
        return obs @ (self.mixing @ self.parameter).view(self.shape)


@pytest.mark.parametrize("keywords", [{}, {"lr": 0.7}, {"solver": "dense"}, {"lr": 0.7, "solver": "dense"}], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_natural_step_is_the_same_whatever_the_coordinates_and_the_plain_one_is_not(
    keywords: dict[str, Any], seed: int
) -> None:
    """Of a table's parameters by a linear map: the whole step, not only its beginning, gives the same policy."""
    mixing = torch.eye(12, dtype=torch.float64) + 0.4 * randn(12, 12, seed=seed)
    table, mapped = (Policy(Mapped(3, 4, m), Categorical(4)) for m in (torch.eye(12, dtype=torch.float64), mixing))
    theta = randn(12, seed=seed + 10)
    table.flat.copy_(theta)
    mapped.flat.copy_(torch.linalg.solve(mixing, theta))
    batch = batch_for(table)
    before = table.dist(batch.obs).exp()
    torch.testing.assert_close(mapped.dist(batch.obs).exp(), before, rtol=0, atol=1e-12)
    rule = NaturalGradient(0.5, damping=0.0, cg_iterations=ENOUGH, cg_tolerance=1e-13, **keywords)
    plain = [plain_gradient(policy, batch) for policy in (table, mapped)]
    for policy in (table, mapped):
        rule(policy, batch)
    after = [policy.dist(batch.obs, batch.extra).exp() for policy in (table, mapped)]
    assert float((after[0] - before).abs().max()) > 0.1
    torch.testing.assert_close(after[1], after[0], rtol=0, atol=1e-7)
    # the plain gradient, at either's length of the natural step
    for policy, gradient in zip((table, mapped), plain, strict=True):
        policy.flat.copy_(theta if policy is table else torch.linalg.solve(mixing, theta))
        policy.flat.add_(gradient, alpha=0.5 / float(gradient.norm()))
    plainly = [policy.dist(batch.obs, batch.extra).exp() for policy in (table, mapped)]
    assert float((plainly[0] - plainly[1]).abs().max()) > 1e-2


# on finite MDPs


def every_trajectory(mdp: MDP, policy: Policy, discounted: bool = True) -> Batch:
    """All of them, weighed by their probability and the discounted visits, each with its advantage against the exact V."""
    rollout, p = enumerate_trajectories(mdp, policy)
    values = ExactCritic(mdp)(rollout, policy)
    adv, _ = advantages(rollout, values, RewardToGo(mdp.gamma), CriticValue())
    batch = rollout.flatten(adv, "step")
    gamma = mdp.gamma if discounted else 1.0
    weight = (p * gamma ** rollout.time.double())[rollout.mask]
    return replace(batch, weight=weight)


def mean_advantage(mdp: MDP, policy: Policy) -> tuple[Tensor, Tensor, Tensor]:
    """Σ_t γᵗ d_t(s) A_t(s, a) / Σ_t γᵗ d_t(s), (S, A); the visits below the line, (S,); and all A_t, (H, S, A)."""
    pi = policy_matrix(mdp, policy).detach()
    V, Q = solve(mdp, pi)
    A = Q - V[:-1].unsqueeze(-1)
    d = discounts(mdp) * visits(mdp, pi).unsqueeze(-1)
    total = d.sum(0)
    return torch.where(total > 0, (d * A).sum(0) / total, 0.0), total.squeeze(-1), A


def layered(states: int, actions: int, horizon: int, seed: int, gamma: float = 1.0) -> MDP:
    """A random MDP whose state knows the time, so that A_t(s, a) is one table and the best policy a table, too."""
    rng = np.random.default_rng(seed)
    S = states * horizon + 1  # and where it ends
    transition, reward = torch.zeros(S, actions, S), torch.zeros(S, actions)
    for t in range(horizon):
        here = slice(t * states, (t + 1) * states)
        reward[here] = torch.from_numpy(rng.standard_normal((states, actions)))
        if t + 1 < horizon:
            after = slice((t + 1) * states, (t + 2) * states)
            transition[here, :, after] = torch.from_numpy(rng.dirichlet(np.ones(states), (states, actions))).float()
        else:
            transition[here, :, -1] = 1.0
    transition[-1, :, -1] = 1.0
    start = torch.zeros(S, dtype=torch.float64)
    start[:states] = torch.from_numpy(rng.dirichlet(np.ones(states)))
    return MDP(transition, reward, start, horizon, gamma, (S - 1,))


WORLDS = {
    "random, γ=1": random_mdp(3, 2, 3, np.random.default_rng(0), terminal=(2,)),
    "random, γ=0.8": random_mdp(3, 3, 3, np.random.default_rng(1), gamma=0.8),
    "chain, γ=0.9": chain(4, horizon=5, gamma=0.9, slip=0.2),
    "layered, γ=1": layered(2, 3, 3, seed=2),
    "layered, γ=0.7": layered(3, 2, 3, seed=3, gamma=0.7),
}


@pytest.mark.parametrize("keywords", [{"solver": "dense"}, {"cg_iterations": ENOUGH}], ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_the_natural_gradient_of_a_table_is_its_advantage_up_to_a_constant_a_state(
    world: str, keywords: dict[str, Any]
) -> None:
    """F⁺∇J, with F under the discounted visits: Kakade 2001, theorem 1; with time, the visits' mean of A_t."""
    mdp = WORLDS[world]
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    batch = every_trajectory(mdp, policy)
    A, seen, by_time = mean_advantage(mdp, policy)
    step = step_of(NaturalGradient(lr=1.0, damping=0.0, **keywords), policy, batch)
    F = fisher_by_kl(policy, batch.obs, share_of(batch), batch.extra)
    gradient = plain_gradient(policy, batch)
    torch.testing.assert_close(gradient, exact_gradient(mdp, policy), rtol=0, atol=1e-12)
    torch.testing.assert_close(step, torch.linalg.pinv(F, rtol=1e-12, hermitian=True) @ gradient, rtol=0, atol=1e-8)
    table = step.view(A.shape) / seen.sum()  # F is a mean over the visits, ∇J a sum
    differences = table - A
    spread = differences.amax(1) - differences.amin(1)
    assert float(spread[seen > 0].max()) <= 1e-8
    assert torch.equal(table[seen == 0], torch.zeros_like(table[seen == 0]))
    centred = table - table.mean(1, keepdim=True)
    assert float((A - A.mean(1, keepdim=True) - centred)[seen > 0].abs().max()) <= 1e-8
    # negative control: the plain gradient is no such thing
    plain = gradient.view(A.shape) / seen.sum() - A
    assert float((plain.amax(1) - plain.amin(1)).max()) > 0.1
    if world.startswith("layered"):  # a state is seen at one time only: there it is A_t itself
        pi = policy_matrix(mdp, policy).detach()
        for t, d in enumerate(visits(mdp, pi)):
            torch.testing.assert_close(A[d > 0], by_time[t][d > 0], rtol=0, atol=1e-12)


def test_without_the_discount_in_the_visits_it_is_another_mean() -> None:
    """What deep RL does: states are weighed as they are seen. The states' constants stay, the mean over time changes."""
    mdp = WORLDS["random, γ=0.8"]
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    A, seen, _ = mean_advantage(mdp, policy)
    rule = NaturalGradient(lr=1.0, damping=0.0, solver="dense")
    other = step_of(rule, policy, every_trajectory(mdp, policy, discounted=False)).view(A.shape) / mdp.horizon
    differences = other - A
    assert float((differences.amax(1) - differences.amin(1)).max()) > 1e-3
    assert float(seen.sum()) == pytest.approx(sum(0.8**t for t in range(mdp.horizon)))


def gap(mdp: MDP, policy: Policy) -> float:
    """J* − J."""
    return optimum(mdp) - float(objective(mdp, policy_matrix(mdp, policy).detach()))


@pytest.mark.parametrize("rate", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("seed", range(3))
def test_exact_natural_steps_of_any_size_never_lose_and_large_ones_find_the_optimum(seed: int, rate: float) -> None:
    """Agarwal et al. 2021 (JMLR 22), lemma 17: with exact advantages the return rises monotonically at every rate."""
    mdp = layered(2, 3, 3, seed=seed)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(seed))
    rule = NaturalGradient(lr=rate / mdp.horizon, damping=0.0, solver="dense")
    left = gap(mdp, policy)
    assert left > 0.5
    for _ in range(20):
        rule(policy, every_trajectory(mdp, policy))
        before, left = left, gap(mdp, policy)
        assert left <= before
        if left <= 1e-5:
            break
    assert (left <= 1e-5) == (rate == 8.0)


def test_plain_steps_of_the_same_rate_are_far_from_the_optimum_still() -> None:
    """Negative control of the one above: what moves there is the natural gradient, not the rate."""
    mdp = layered(2, 3, 3, seed=0)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    for _ in range(20):
        policy.flat.add_(exact_gradient(mdp, policy), alpha=8.0)
    assert gap(mdp, policy) > 1e-3


# the rule as a part


def test_schedules_drive_budget_rate_and_bonus() -> None:
    policy = make("gaussian")
    batch = batch_for(policy)
    whole, rated = (step_of(NaturalGradient(**k), policy, batch) for k in ({"max_kl": 0.02}, {"lr": 0.1}))
    for progress in (0.0, 0.25, 1.0):
        left = 1.0 - progress
        step = step_of(NaturalGradient(linear(0.02)), policy, batch, progress)
        torch.testing.assert_close(step, math.sqrt(left) * whole, rtol=1e-9, atol=1e-12)
        step = step_of(NaturalGradient(lr=linear(0.1)), policy, batch, progress)
        torch.testing.assert_close(step, left * rated, rtol=1e-9, atol=1e-12)
        step = step_of(NaturalGradient(ent_coef=linear(0.7)), policy, batch, progress)
        torch.testing.assert_close(step, step_of(NaturalGradient(ent_coef=0.7 * left), policy, batch), rtol=0, atol=0)


RULES: dict[str, Any] = {
    "natural": NaturalGradient,
    "natural at a rate": lambda: NaturalGradient(lr=0.1, ent_coef=0.01),
    "natural, dense": lambda: NaturalGradient(solver="dense"),
    "trust region": TrustRegion,
}


@pytest.mark.parametrize("name", RULES)
def test_two_updates_are_one_saved_loaded_and_another_bit_for_bit(name: str) -> None:
    policy, rule = make("gaussian"), RULES[name]()
    rule(policy, batch_for(policy, seed=1))
    assert rule.state_dict() == {}
    twin, other = make("gaussian"), RULES[name]()
    other(twin, batch_for(twin, seed=3))
    twin.load_state_dict(policy.state_dict())
    other.load_state_dict(rule.state_dict())
    second = batch_for(policy, seed=2)
    theta = policy.flat.clone()
    assert other(twin, second) == rule(policy, second)
    assert torch.equal(policy.flat, twin.flat)
    assert not torch.equal(policy.flat, theta)


@pytest.mark.parametrize("name", RULES)
def test_an_update_changes_the_policy_alone_and_draws_nothing(name: str) -> None:
    policy = make("categorical, masked")
    batch = batch_for(policy)
    before = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    copies = {k: x.clone() for k, x in before.items() if isinstance(x, Tensor)}
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    rule = RULES[name]()
    stats = rule(policy, batch)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(torch.equal(getattr(batch, k), x) for k, x in copies.items())
    assert rule.report(batch.logp, batch) == {}
    assert {"grad_norm", "cg_iterations", "cg_residual", "cg_curvature"} <= stats.keys()


def test_the_numbers_of_an_update_are_those_of_its_gradient_and_its_solver() -> None:
    policy = make("gaussian")
    batch = elsewhere(batch_for(policy))
    gradient, A = plain_gradient(policy, batch), curvature(policy, batch, 0.1)
    rule = NaturalGradient(lr=1.0, cg_iterations=5)
    step = step_of(rule, policy, batch)
    stats = rule(policy, batch)
    assert stats["grad_norm"] == pytest.approx(float(gradient.norm()), rel=1e-12)
    assert stats["cg_iterations"] == 5
    assert stats["cg_residual"] == pytest.approx(float((gradient - A @ step).norm() / gradient.norm()), rel=1e-6)
    values = torch.linalg.eigvalsh(A)
    assert float(values[0]) * (1.0 - 1e-9) <= stats["cg_curvature"] <= float(values[-1])


def test_fewer_iterations_are_a_worse_solution() -> None:
    policy = make("gaussian")
    batch = batch_for(policy)
    exact = step_of(NaturalGradient(solver="dense"), policy, batch)
    errors = [relative(step_of(NaturalGradient(cg_iterations=k), policy, batch), exact) for k in (1, 4, 16)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] > 0.1
    assert errors[2] < 1e-3


@pytest.mark.parametrize("solver", ["cg", "dense"])
@pytest.mark.parametrize("rule", [NaturalGradient, TrustRegion])
@pytest.mark.parametrize(
    ("field", "bad"),
    # tanh of an infinite observation is a number, and so is a ratio to an infinite density
    [
        *((field, math.nan) for field in ("obs", "act", "adv", "logp", "weight")),
        ("adv", math.inf),
        ("weight", math.inf),
    ],
)
def test_a_number_that_is_not_finite_stops_before_the_policy_moves(
    field: str, bad: float, rule: Any, solver: str
) -> None:
    policy = make("gaussian", kernel="autograd" if solver == "dense" else "closed_form")
    batch, theta = batch_for(policy), policy.flat.clone()
    column = getattr(batch, field).clone()
    column[(5, 1) if column.ndim > 1 else 5] = bad
    with pytest.raises(FloatingPointError, match="Nothing was updated"):
        rule(solver=solver)(policy, replace(batch, **{field: column}))
    assert torch.equal(policy.flat, theta)


@pytest.mark.parametrize("rule", [NaturalGradient, TrustRegion])
def test_a_matrix_that_curves_downwards_stops_before_the_policy_moves(rule: Any) -> None:
    class Saddle(Categorical):
        def fisher(self, dist: Tensor, tangent: Tensor) -> Tensor:
            return -super().fisher(dist, tangent)

    policy = make("categorical")
    batch, theta = batch_for(policy), policy.flat.clone()
    policy.head = Saddle(4)
    for solver in ("cg", "dense"):
        with pytest.raises(CurvatureError, match="raise damping"):
            rule(damping=0.0, solver=solver)(policy, batch)
        assert torch.equal(policy.flat, theta)


@pytest.mark.parametrize("rule", [NaturalGradient, TrustRegion])
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_kl": 0.0}, r"max_kl must be positive, got 0\.0"),
        ({"damping": -0.1}, r"damping must be at least 0, got -0\.1"),
        ({"cg_iterations": 0}, "cg_iterations must be at least 1, got 0"),
        ({"solver": "lu"}, r"solver must be one of \('cg', 'dense'\), got 'lu'"),
    ],
)
def test_bad_hyperparameters_are_refused(keywords: dict[str, Any], message: str, rule: Any) -> None:
    with pytest.raises(ValueError, match=message):
        rule(**keywords)
