"""The trust region: its promise on hundreds of batches, planted faults that break it, and its limit of small steps."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from explicit import HEADS, batch_for, fisher_by_kl, make, moved, plain_gradient, randn, share_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor, nn

from policygrad.data import Batch, Stats
from policygrad.models.continuous import Gaussian
from policygrad.models.heads import Categorical
from policygrad.models.optim import Adam
from policygrad.models.policy import Policy
from policygrad.models.schedules import at, linear
from policygrad.tree import tree_map
from policygrad.updates import NaturalGradient, TrustRegion


@dataclass(frozen=True)
class Case:
    """A policy, the data it is updated with, and how."""

    head: str = "categorical"
    seed: int = 0
    scale: float = 1.0  # of the policy's parameters: at 3 it is nearly deterministic
    rows: int = 8
    adv: float = 1.0
    off: float = 0.0  # how far the policy that acted was from this one
    max_kl: float = 0.01
    damping: float = 0.1
    ent_coef: float = 0.0
    backtracks: int = 10
    shrink: float = 0.8

    def policy(self) -> Policy:
        hidden = ((), (4,), (4, 3))[self.seed % 3]
        activation, kernel = ("tanh", "relu", "silu")[self.seed % 5 % 3], ("auto", "autograd")[self.seed % 2]
        return make(self.head, hidden, activation, kernel, self.scale, self.seed)

    def batch(self, policy: Policy) -> Batch:
        batch = batch_for(policy, self.rows, self.seed)
        logp = batch.logp + self.off * randn(self.rows, seed=self.seed + 5)
        return replace(batch, adv=self.adv * batch.adv, logp=logp)

    def rule(self, kind: Callable[..., TrustRegion] = TrustRegion, **keywords: Any) -> TrustRegion:
        return kind(
            self.max_kl,
            damping=self.damping,
            ent_coef=self.ent_coef,
            backtracks=self.backtracks,
            shrink=self.shrink,
            **keywords,
        )


def surrogate(policy: Policy, batch: Batch, ent_coef: float) -> tuple[float, float]:
    """Σ weight · (ratio · adv + ent_coef · entropy) by the definition, and how far its rounding may be off."""
    dist = policy(batch.obs, batch.extra).detach()
    ratio = (policy.head.logp(dist, batch.act) - batch.logp).exp()
    terms = batch.weight * (ratio * batch.adv + ent_coef * policy.head.entropy(dist))
    return float(terms.sum()), 1e-12 * float(terms.abs().sum())


def broken_promises(rule: TrustRegion, policy: Policy, batch: Batch) -> list[str]:
    """What an update did against its word: within the trust region and no worse, or else not at all, bit for bit."""
    old, theta, max_kl = policy(batch.obs, batch.extra).detach(), policy.flat.clone(), at(rule.max_kl, 0.0)
    before, slack = surrogate(policy, batch, at(rule.ent_coef, 0.0))
    stats = rule(policy, batch)
    if torch.equal(policy.flat, theta):
        return []
    broken = [] if stats["accepted"] else ["moved by a step that was not accepted"]
    paths = (
        policy(batch.obs, batch.extra).detach(),
        policy.dist(batch.obs, batch.extra),
    )  # a std of e⁻²⁰ makes their rounding visible
    kl, same = (float((share_of(batch) * policy.head.kl(old, new)).sum()) for new in paths)
    if not kl <= max_kl * (1.0 + 1e-6) + abs(kl - same):
        broken.append("left the trust region")
    if not surrogate(policy, batch, at(rule.ent_coef, 0.0))[0] >= before - slack:
        broken.append("lost")
    return broken


CASES = st.builds(
    Case,
    head=st.sampled_from(list(HEADS)),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.1, 1.0, 3.0]),
    rows=st.integers(1, 20),
    adv=st.sampled_from([1e-100, 1e-12, 1e-3, 1.0, 1e3, 1e12, 1e100]),
    off=st.sampled_from([0.0, 0.5]),
    max_kl=st.floats(-6.0, 0.5).map(lambda x: 10.0**x),
    damping=st.sampled_from([0.0, 1e-8, 1e-3, 0.1, 10.0]),
    ent_coef=st.sampled_from([0.0, 0.01, 1.0]),
    backtracks=st.sampled_from([0, 3, 10]),
    shrink=st.sampled_from([0.3, 0.8]),
)


@settings(max_examples=100)
@given(CASES)
def test_an_update_stays_within_the_trust_region_and_loses_nothing_or_moves_nothing(case: Case) -> None:
    policy = case.policy()
    assert broken_promises(case.rule(), policy, case.batch(policy)) == []


ODD = [  # batches that whole steps go too far on, or lose on
    Case(head, seed, scale, 8, 1.0, off, max_kl, damping)
    for seed, head in enumerate(["categorical", "multi-categorical", "gaussian", "gaussian, std of the network"] * 4)
    for scale, off, max_kl, damping in [(1.0, 0.5, 1.0, 1e-3), (3.0, 0.0, 0.1, 0.1)]
]


def caught(kind: Callable[..., TrustRegion], cases: list[Case], **keywords: Any) -> dict[str, int]:
    """How often a rule breaks which of its promises."""
    counts: dict[str, int] = {}
    for case in cases:
        policy = case.policy()
        for broken in broken_promises(case.rule(kind, **keywords), policy, case.batch(policy)):
            counts[broken] = counts.get(broken, 0) + 1
    return counts


class Rewritten(TrustRegion):
    """The line search once more, with faults to switch on."""

    def __init__(self, *args: Any, restores: bool = True, backwards: bool = False, checks: str = "both", **keywords):
        super().__init__(*args, **keywords)
        self.restores, self.backwards, self.checks = restores, backwards, checks

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> Stats:
        start, theta = policy.evaluate(batch), policy.flat.clone()
        step, stats = self.propose(start, batch, progress)
        before = self.surrogate(start, batch, self.ent_coef)
        for i in range(self.backtracks + 1):
            policy.flat.copy_(theta + self.shrink**i * step)
            trial = policy.evaluate(batch)
            pair = (trial.dist, start.dist) if self.backwards else (start.dist, trial.dist)
            near = float((share_of(batch) * policy.head.kl(*pair)).sum()) <= self.max_kl
            gains = self.surrogate(trial, batch, self.ent_coef) >= before
            if (near or self.checks == "gain") and (gains or self.checks == "kl"):
                return stats | {"accepted": self.shrink**i}
        if self.restores:
            policy.flat.copy_(theta)
        return stats | {"accepted": 0.0}


def test_the_promises_hold_on_the_odd_batches_and_the_search_written_once_more_is_the_same() -> None:
    accepted = []
    for case in ODD:
        policy, twin = case.policy(), case.policy()
        batch = case.batch(policy)
        accepted.append(case.rule()(policy, batch)["accepted"])
        assert case.rule(Rewritten)(twin, batch)["accepted"] == pytest.approx(accepted[-1], rel=1e-12)
        torch.testing.assert_close(policy.flat, twin.flat, rtol=0, atol=1e-12)
    assert caught(TrustRegion, ODD) == caught(Rewritten, ODD) == {}
    assert min(accepted) < 0.5 < max(accepted) == 1.0  # so there is something to search for


def test_a_search_that_fails_and_does_not_restore_is_caught() -> None:
    cases = [replace(case, backtracks=0) for case in ODD]
    assert caught(TrustRegion, cases) == caught(Rewritten, cases) == {}
    assert caught(Rewritten, cases, restores=False)["moved by a step that was not accepted"] > 0


def test_a_bound_on_the_kl_of_new_to_old_is_caught() -> None:
    assert caught(Rewritten, ODD, backwards=True).keys() == {"left the trust region"}


def test_a_search_that_forgets_one_of_its_two_conditions_is_caught() -> None:
    assert caught(Rewritten, ODD, checks="kl").keys() == {"lost"}
    assert caught(Rewritten, ODD, checks="gain").keys() == {"left the trust region"}


class ThenAdam(TrustRegion):
    """What a shared optimiser does: the actor's parameters are stepped again, by the plain gradient."""

    def __call__(self, policy: Policy, batch: Batch, progress: float = 0.0) -> Stats:
        stats = super().__call__(policy, batch, progress)
        gradient = policy.evaluate(batch).gradient(batch.weight * batch.adv).clone()
        Adam().step(policy.flat, gradient, 0.01)
        return stats


def test_an_optimiser_that_moves_the_actor_after_the_step_is_caught() -> None:
    broken = caught(ThenAdam, [replace(case, max_kl=1e-3) for case in ODD])
    assert broken["left the trust region"] > 0
    assert caught(TrustRegion, [replace(case, max_kl=1e-3) for case in ODD]) == {}


class Undamped(NaturalGradient):
    """The damping that was asked for is forgotten."""

    def solve(self, evaluation: Any, batch: Batch, b: Tensor) -> Any:
        damping, self.damping = self.damping, 0.0
        try:
            return super().solve(evaluation, batch, b)
        finally:
            self.damping = damping


def rare_success(probability: float) -> tuple[Policy, Batch]:
    """One state, two actions, and one lucky draw of the one that is hardly ever taken: F is p(1 − p), its gradient 1."""
    policy = Policy(nn.Linear(1, 2, bias=False), Categorical(2)).double()
    policy.flat.copy_(torch.tensor([math.log(probability), math.log1p(-probability)]))
    obs, act = torch.ones(4, 1, dtype=torch.float64), torch.tensor([0, 1, 1, 1])
    adv = torch.tensor([1.0, -0.3, -0.3, -0.4], dtype=torch.float64)
    return policy, Batch(obs, act, policy.evaluate(Batch.of(obs, act)).logp, adv, torch.full((4,), 0.25).double(), 4)


@pytest.mark.parametrize("probability", [1e-4, 1e-8])
def test_without_damping_the_quadratic_model_is_trusted_where_it_says_nothing_and_that_is_caught(
    probability: float,
) -> None:
    """½ sᵀFs is max_kl, the KL hundreds of times that. With damping s is short; the line search needs none to be safe."""

    def kl_of(rule: NaturalGradient) -> float:
        policy, batch = rare_success(probability)
        old, theta = policy.dist(batch.obs, batch.extra), policy.flat.clone()
        F = fisher_by_kl(policy, batch.obs, share_of(batch), batch.extra)
        rule(policy, batch)
        step = policy.flat - theta
        if type(rule) is not TrustRegion:
            quadratic = 0.5 * float(
                step @ F @ step + (rule.damping if type(rule) is NaturalGradient else 0.0) * step @ step
            )
            assert quadratic == pytest.approx(0.01, rel=1e-6)
        return float(policy.head.kl(old, policy.dist(batch.obs, batch.extra)).mean())

    assert kl_of(NaturalGradient(0.01, damping=0.1)) <= 0.01
    assert kl_of(Undamped(0.01, damping=0.1)) > 1.0
    assert kl_of(TrustRegion(0.01, damping=0.0, backtracks=100)) <= 0.01


def test_along_what_a_singular_matrix_does_not_see_no_solver_moves_with_or_without_damping() -> None:
    """A bias beside a feature that is always 1, and logits up to a constant: 5 of 9 directions change no probability."""
    policy = moved(Policy(nn.Linear(2, 3), Categorical(3)))
    obs = torch.stack([torch.ones(8, dtype=torch.float64), randn(8)], 1)
    act = torch.arange(8) % 3
    batch = Batch(
        obs, act, policy.evaluate(Batch.of(obs, act)).logp, randn(8, seed=3), torch.full((8,), 0.125).double(), 8
    )
    values, vectors = torch.linalg.eigh(fisher_by_kl(policy, obs, share_of(batch)))
    unseen = vectors[:, values < 1e-12]
    assert unseen.shape == (9, 5)
    theta = policy.flat.clone()
    for keywords in ({"damping": 1e-3}, {"damping": 0.0, "solver": "dense"}, {"damping": 0.0}):
        policy.flat.copy_(theta)
        NaturalGradient(0.01, cg_iterations=100, **keywords)(policy, batch)
        step = policy.flat - theta
        assert float(step.norm()) > 0.1
        assert float((unseen.T @ step).norm()) <= 1e-8


# interruptions


class Interrupting(Gaussian):
    """Somebody presses Ctrl-C when KL is asked for the n-th time."""

    def __init__(self, after: int, error: type[BaseException]) -> None:
        super().__init__((2,))
        self.left, self.error = after, error

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return super().kl(old, new) + 1e9  # never near enough


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("after", [1, 2, 5])
def test_an_interruption_of_the_line_search_leaves_the_parameters_bit_for_bit(
    after: int, error: type[BaseException]
) -> None:
    policy = make("gaussian")
    batch, theta = batch_for(policy), policy.flat.clone()
    policy.head = Interrupting(after, error)
    with pytest.raises(error):
        TrustRegion()(policy, batch)
    assert torch.equal(policy.flat, theta)
    assert all(p.data_ptr() for p in policy.network.parameters())
    torch.testing.assert_close(
        policy.dist(batch.obs, batch.extra), policy(batch.obs, batch.extra).detach(), rtol=0, atol=1e-12
    )


def test_a_trial_that_is_not_finite_is_not_accepted() -> None:
    class Poisoned(Gaussian):
        def kl(self, old: Tensor, new: Tensor) -> Tensor:
            return super().kl(old, new) * math.nan

    policy = make("gaussian")
    batch, theta = batch_for(policy), policy.flat.clone()
    policy.head = Poisoned((2,))
    assert TrustRegion()(policy, batch)["accepted"] == 0.0
    assert torch.equal(policy.flat, theta)


# the line search


def test_the_step_is_the_first_of_the_shrunk_natural_ones_that_keeps_both_conditions() -> None:
    seen = set()
    for case in ODD:
        policy = case.policy()
        batch, theta, old = case.batch(policy), policy.flat.clone(), None
        step, _ = case.rule().propose(policy.evaluate(batch), batch, 0.0)
        old = policy.dist(batch.obs, batch.extra)
        before, slack = surrogate(policy, batch, 0.0)
        assert slack < 1e-9
        stats = case.rule()(policy, batch)
        tried = round(math.log(stats["accepted"]) / math.log(0.8)) if stats["accepted"] else 11
        assert stats["backtracks"] == min(tried, 10)
        torch.testing.assert_close(policy.flat - theta, stats["accepted"] * step, rtol=1e-9, atol=1e-12)
        seen.add(tried)
        for i in range(tried):  # the ones before it do not
            policy.flat.copy_(theta + 0.8**i * step)
            kl = float((share_of(batch) * policy.head.kl(old, policy.dist(batch.obs, batch.extra))).sum())
            assert kl > case.max_kl or surrogate(policy, batch, 0.0)[0] < before
    assert 0 in seen
    assert len(seen) > 3


def test_without_a_gradient_nothing_moves() -> None:
    policy = make("gaussian")
    batch, theta = batch_for(policy), policy.flat.clone()
    TrustRegion()(policy, replace(batch, adv=torch.zeros_like(batch.adv)))
    assert torch.equal(policy.flat, theta)


def test_a_schedule_drives_the_bound_of_step_and_search() -> None:
    """Half-way down from twice the bound it is the bound, on batches that the search shortens the step on."""
    accepted = set()
    for case in ODD:
        policy, twin = case.policy(), case.policy()
        batch, keywords = case.batch(policy), {"damping": case.damping}
        accepted.add(TrustRegion(linear(2.0 * case.max_kl), **keywords)(policy, batch, 0.5)["accepted"])
        TrustRegion(case.max_kl, **keywords)(twin, batch)
        assert torch.equal(policy.flat, twin.flat)
        theta = policy.flat.clone()
        TrustRegion(linear(2.0 * case.max_kl), **keywords)(policy, batch, 1.0)  # and at the end nothing is left of it
        assert torch.equal(policy.flat, theta)
    assert len(accepted) > 3


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"backtracks": -1}, "backtracks must be at least 0, got -1"),
        ({"shrink": 1.0}, r"shrink must be between 0 and 1, got 1\.0"),
        ({"shrink": 0.0}, r"shrink must be between 0 and 1, got 0\.0"),
    ],
)
def test_bad_hyperparameters_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrustRegion(**keywords)


def test_the_step_comes_from_the_budget_so_there_is_no_rate() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        TrustRegion(**{"lr": 0.1})
    assert "lr" not in inspect.signature(TrustRegion).parameters
    assert "damping" in inspect.signature(TrustRegion).parameters


def test_in_float32_the_bound_holds_to_the_rounding_of_a_kl() -> None:
    """As agents are: the KL of the distributions before and after, in float64, to 1e-7."""
    for seed in range(40):
        case = Case(list(HEADS)[seed % len(HEADS)], seed, 1.0, 20, 1.0, 0.0, 10.0 ** (-1 - seed % 3), 0.1)
        policy = case.policy()
        batch = case.batch(policy)
        policy = policy.float()
        columns = {
            k: tree_map(lambda x: x.float(), getattr(batch, k)) for k in ("obs", "logp", "adv", "weight", "extra")
        }
        act = batch.act.float() if batch.act.is_floating_point() else batch.act
        single = replace(batch, act=act, **columns)
        old, theta = policy.dist(single.obs, single.extra).double(), policy.flat.clone()
        stats = case.rule()(policy, single)
        kl = float((share_of(batch) * policy.head.kl(old, policy.dist(single.obs, single.extra).double())).sum())
        assert kl <= case.max_kl + 1e-7
        assert (stats["accepted"] > 0.0) != torch.equal(policy.flat, theta)


# the limit of small steps


@pytest.mark.parametrize("head", HEADS)
def test_for_a_small_bound_the_step_is_the_natural_one_bit_for_bit(head: str) -> None:
    """With damping the whole step is inside the region once the model is good; for a large bound it is another."""
    policy, twin = make(head), make(head)
    batch = batch_for(policy)
    theta = policy.flat.clone()
    assert TrustRegion(1e-6)(policy, batch)["accepted"] == 1.0
    NaturalGradient(1e-6)(twin, batch)
    assert torch.equal(policy.flat, twin.flat)
    assert not torch.equal(policy.flat, theta)


def tiny() -> tuple[Policy, Batch]:
    """A normal with two parameters, μ and log σ, and five actions: F is diag(1/σ², 2)."""

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parameter = nn.Parameter(torch.tensor([0.2, -0.3], dtype=torch.float64))

        def forward(self, obs: Tensor) -> Tensor:
            return self.parameter.expand(len(obs), 2)

    policy = Policy(Constant(), Gaussian((1,))).double()
    obs, act = torch.zeros(5, 1, dtype=torch.float64), torch.tensor([[-0.9], [0.1], [0.6], [1.1], [0.3]]).double()
    adv = torch.tensor([-0.6, 0.3, 1.2, -0.1, 0.4], dtype=torch.float64)
    return policy, Batch(obs, act, policy.evaluate(Batch.of(obs, act)).logp, adv, torch.full((5,), 0.2).double(), 5)


def best_step(max_kl: float) -> np.ndarray:
    """The maximiser of the surrogate subject to the exact KL, by brute force: it is on the boundary, at some angle."""
    policy, batch = tiny()
    theta, old = policy.flat.clone(), policy.dist(batch.obs, batch.extra)
    metric = np.array([math.exp(-0.3), 1.0 / math.sqrt(2.0)])  # from a circle to F's ellipse

    def to(step: np.ndarray) -> Tensor:
        policy.flat.copy_(theta + torch.from_numpy(step))
        return policy.dist(batch.obs, batch.extra)

    def boundary(angle: float) -> np.ndarray:
        direction = metric * np.array([math.cos(angle), math.sin(angle)])
        excess = lambda r: float(policy.head.kl(old, to(r * direction)).mean()) / max_kl - 1.0  # noqa: E731
        return optimize.brentq(excess, 0.2 * math.sqrt(max_kl), 5.0 * math.sqrt(max_kl), xtol=1e-14) * direction

    def loss(angle: float) -> float:
        to(boundary(angle))
        return -surrogate(policy, batch, 0.0)[0]

    natural = metric**2 * plain_gradient(*tiny()).numpy() / metric
    first = math.atan2(natural[1], natural[0])
    found = optimize.minimize_scalar(loss, bounds=(first - 1.0, first + 1.0), method="bounded", options={"xatol": 1e-9})
    return boundary(found.x)


def test_as_the_bound_goes_to_zero_the_exact_maximiser_turns_into_the_natural_step() -> None:
    """Angle and ratio of lengths, in the Fisher metric, differ from 0 and 1 by O(√δ), for both rules."""
    bounds, angles, lengths, accepted = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5], [], [], []
    to_circle = np.array([math.exp(0.3), math.sqrt(2.0)])
    for max_kl in bounds:
        exact = to_circle * best_step(max_kl)
        steps = []
        for rule in (
            TrustRegion(max_kl, damping=0.0, shrink=0.999, backtracks=1_000),
            NaturalGradient(max_kl, damping=0.0),
        ):
            policy, batch = tiny()
            theta = policy.flat.clone()
            rule(policy, batch)
            steps.append(to_circle * (policy.flat - theta).numpy())
        trust, natural = steps
        assert np.linalg.norm(natural) == pytest.approx(math.sqrt(2.0 * max_kl), rel=1e-9)
        assert abs(trust[0] * natural[1] - trust[1] * natural[0]) <= 1e-9 * max_kl  # the same direction
        angles.append(abs(math.atan2(exact[1], exact[0]) - math.atan2(natural[1], natural[0])))
        lengths.append(abs(np.linalg.norm(exact) / np.linalg.norm(natural) - 1.0))
        accepted.append(abs(np.linalg.norm(trust) / np.linalg.norm(natural) - 1.0))
    for errors in (angles, lengths):
        slopes = np.diff(np.log(errors)) / np.diff(np.log(bounds))
        assert np.abs(slopes[1:] - 0.5).max() <= 0.1, errors
    assert angles[0] > 0.05
    assert angles[-1] < 5e-3
    assert accepted[0] > 0.01
    assert accepted[-1] <= 1e-3 + lengths[-1]  # the search tries multiples of 0.999
