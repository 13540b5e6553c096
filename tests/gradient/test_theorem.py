"""The theorem: the expectation of the production estimate, over every trajectory or batch, is what the zoo says it is."""

from __future__ import annotations

import dataclasses
import inspect
from functools import cache

import pytest
import torch
from torch import Tensor
from zoo import (
    BASELINES,
    CRITICS,
    ESTIMATORS,
    MDPS,
    RECIPES,
    UPDATES,
    WRAPPERS,
    Cell,
    cells,
    shorter,
    worlds_and_sizes,
)

from policygrad import updates
from policygrad.data import Batch, Rollout, Values
from policygrad.gradient import baselines, estimators
from policygrad.gradient.baselines import CriticValue, NoBaseline
from policygrad.gradient.estimators import GAE, NStep, RewardToGo, StateDiscounted, TotalReturn, advantages
from policygrad.lab.exact.tabular import (
    ExactCritic,
    credited_gradient,
    discounts,
    enumerate_batches,
    enumerate_trajectories,
    exact_gradient,
    objective,
    policy_matrix,
    solve,
)
from policygrad.models.policy import Policy

EXACT = 1e-12
VISIBLE = 1e-6  # a bias smaller than this would not count as one
WORLDS = {world.name: world for world in MDPS}


@cache
def policy_of(world: str) -> Policy:
    return WORLDS[world].policy()


@cache
def batches(world: str, k: int) -> list[tuple[Rollout, Tensor]]:
    """Batches of k with their probabilities. k = 1: one rollout of all trajectories and a probability for each column."""
    rollout, probability = enumerate_trajectories(WORLDS[world].mdp, policy_of(world))
    if k == 1:
        return [(rollout, probability)]
    return list(enumerate_batches(rollout, probability, k))


@cache
def critic_values(world: str, k: int, critic: str) -> list[Values]:
    made = next(c for c in CRITICS if c.name == critic).make(WORLDS[world])
    return [made(rollout, policy_of(world)) for rollout, _ in batches(world, k)]


def expectation(policy: Policy, weighed: list[tuple[Rollout, Tensor, Tensor]], reduction: str = "trajectory") -> Tensor:
    """Σ p · ĝ over (rollout, adv, p): the production batch, p multiplied into its weights, one evaluation for all.

    p (N,): each column is a batch of its own, so flatten's 1/N is undone. p (): the rollout is one batch.
    """
    parts = []
    for rollout, adv, p in weighed:
        batch = rollout.flatten(adv, reduction)
        if p.ndim:
            p = len(p) * p.expand_as(adv)[rollout.mask]
        parts.append((batch.obs, batch.act, batch.weight * batch.adv * p))
    obs, act, weight = (torch.cat(x) for x in zip(*parts, strict=True))
    return policy.evaluate(Batch.of(obs, act)).gradient(weight).clone()


def expected_gradient(cell: Cell) -> Tensor:
    estimator, baseline = cell.made()
    weighed = [
        (rollout, advantages(rollout, values, estimator, baseline)[0], p)
        for (rollout, p), values in zip(
            batches(cell.world.name, cell.k), critic_values(cell.world.name, cell.k, cell.critic.name), strict=True
        )
    ]
    return expectation(policy_of(cell.world.name), weighed)


@cache
def truth(world: str) -> Tensor:
    return exact_gradient(WORLDS[world].mdp, policy_of(world))


@cache
def predicted_gradient(world: str, estimator: str, wrapper: str, critic: str) -> Tensor:
    """What the zoo's credit says, whatever the baseline."""
    names = (estimator, wrapper, critic)
    cell = next(c for c in cells(world, 1) if (c.estimator.name, c.wrapper.name, c.critic.name) == names)
    return credited_gradient(cell.world.mdp, policy_of(world), cell.credit())


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def distance_to_multiples(a: Tensor, direction: Tensor) -> float:
    """From a to the nearest multiple of the direction: a bias that no learning rate can undo."""
    return distance(a, (a @ direction) / (direction @ direction) * direction)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
@pytest.mark.parametrize(("world", "k"), worlds_and_sizes())
def test_the_expected_gradient_of_every_cell_is_what_the_zoo_says(world, k, estimator):
    seen = [cell for cell in cells(world, k) if cell.estimator is estimator]
    assert seen
    for cell in seen:
        expected, exact = expected_gradient(cell), truth(world)
        if cell.verdict != "biased":
            assert distance(expected, cell.factor * exact) <= EXACT, str(cell)
        else:
            assert distance(expected, exact) > VISIBLE, str(cell)
        if cell.vanishes:
            assert distance(expected, torch.zeros_like(expected)) <= VISIBLE, str(cell)
        elif cell.wrapper.standardizes:
            assert distance_to_multiples(expected, exact) > VISIBLE, str(cell)
        else:
            predicted = predicted_gradient(world, cell.estimator.name, cell.wrapper.name, cell.critic.name)
            if cell.factor is None:
                assert distance(expected, predicted) > VISIBLE, str(cell)
            else:
                assert distance(expected, cell.factor * predicted) <= EXACT, str(cell)


def test_the_zoo_has_cells_of_every_verdict_and_every_member_is_in_some():
    every = [cell for world, k in worlds_and_sizes() for cell in cells(world, k)]
    assert {cell.verdict for cell in every} == {"unbiased", "scaled", "biased"}
    for field, members in (
        ("estimator", ESTIMATORS),
        ("wrapper", WRAPPERS),
        ("baseline", BASELINES),
        ("critic", CRITICS),
    ):
        assert {getattr(cell, field).name for cell in every} == {member.name for member in members}


def test_every_estimator_baseline_and_update_of_the_package_is_in_the_zoo():
    def public(module):
        return {
            c
            for name, c in inspect.getmembers(module, inspect.isclass)
            if c.__module__.startswith(module.__name__)
            and not name.startswith("_")
            and not getattr(c, "_is_protocol", 0)
        }

    def types(made):
        while made is not None:
            yield type(made)
            made = getattr(made, "inner", None)

    made = [w.wrap(e.make(1.0)) for w in WRAPPERS for e in ESTIMATORS if not (w.discounts and e.discounted)]
    assert public(estimators) <= {t for m in made for t in types(m)}
    assert public(baselines) <= {type(b.make(1)) for b in BASELINES}
    assert public(updates) - {updates.FirstOrder} <= {type(u.make()) for u in UPDATES}  # which is what they share
    assert RECIPES


@pytest.mark.parametrize("world", ["crossing, γ=0.8", "level, γ=0.8"])
def test_members_that_do_not_couple_trajectories_see_each_one_as_if_it_were_alone(world):
    (rollout, probability), policy = batches(world, 1)[0], policy_of(world)
    singles = [batch for batch, _ in enumerate_batches(rollout, probability, 1)]
    critics = {c.name: c.make(WORLDS[world]) for c in CRITICS}
    values = {name: [critic(single, policy) for single in singles] for name, critic in critics.items()}
    for cell in cells(world, 1):
        estimator, baseline = cell.made()
        together = advantages(rollout, critic_values(world, 1, cell.critic.name)[0], estimator, baseline)[0]
        for n, single in enumerate(singles):
            if cell.wrapper.standardizes and single.steps < 2:
                continue  # refused
            alone = advantages(single, values[cell.critic.name][n], estimator, baseline)[0]
            valid = single.mask[:, 0]
            assert distance(alone[valid, 0], together[valid, n]) <= EXACT, str(cell)


def end_to_end(rollout: Rollout, p: Tensor) -> tuple[Rollout, Tensor]:
    """All trajectories in one column, SAME_STEP's layout: the row after an end starts the next one. p: (T, 1)."""
    column, time = rollout.mask.T.nonzero().unbind(1)
    fields = {
        f.name: getattr(rollout, f.name)[time, column].unsqueeze(1)
        for f in dataclasses.fields(rollout)
        if f.name != "extra"
    }
    fields["obs"] = torch.cat([fields["obs"], fields["next_obs"][-1:]])
    return Rollout(**fields), p[column].unsqueeze(1)


@pytest.mark.parametrize("world", ["random, γ=0.8", "crossing, γ=0.8"])
def test_the_theorem_holds_for_trajectories_end_to_end_in_one_column(world):
    policy = policy_of(world)
    rollout, p = end_to_end(*batches(world, 1)[0])
    seen = [c for c in cells(world, 1) if not c.wrapper.standardizes and not c.estimator.make(1.0).needs_episodes(True)]
    assert {cell.verdict for cell in seen} == {"unbiased", "biased"}
    for cell in seen:
        adv, _ = advantages(rollout, cell.critic.make(cell.world)(rollout, policy), *cell.made())
        batch = rollout.flatten(adv, "trajectory")
        weight = batch.weight * batch.adv * p[rollout.mask] * rollout.trajectories
        expected = policy.evaluate(batch).gradient(weight)
        predicted = predicted_gradient(world, cell.estimator.name, cell.wrapper.name, cell.critic.name)
        assert distance(expected, predicted) <= EXACT, str(cell)
        if cell.verdict == "unbiased":
            assert distance(expected, truth(world)) <= EXACT, str(cell)


@pytest.mark.parametrize("end", ["truncated", "cut"])
@pytest.mark.parametrize("world", ["random, γ=0.8", "long crossing, γ=0.7"])
def test_bootstrapping_at_a_limit_gives_the_full_gradients_first_terms_and_ending_there_another_tasks(world, end):
    """The negative control is the most common bug in RL: a truncation taken for a termination."""
    mdp, policy, limit = WORLDS[world].mdp, WORLDS[world].policy(), 2
    V, Q = solve(mdp, policy_matrix(mdp, policy).detach())
    first_terms = credited_gradient(shorter(mdp, limit), policy, (discounts(mdp) * Q)[:limit])
    rollout, p = enumerate_trajectories(shorter(mdp, limit), policy)
    at_limit = rollout.terminated & (rollout.time == limit - 1) & ~mdp.over[rollout.next_obs.argmax(-1)]
    assert at_limit.any()
    assert (rollout.terminated & ~at_limit).any()
    limited = dataclasses.replace(rollout, terminated=rollout.terminated & ~at_limit, **{end: at_limit})
    for inner in (RewardToGo(mdp.gamma), GAE(mdp.gamma, 1.0), GAE(mdp.gamma, 0.5), NStep(mdp.gamma, 2)):
        values = ExactCritic(mdp, V)(rollout, policy)
        right, wrong = (
            expectation(policy, [(r, advantages(r, values, StateDiscounted(inner), CriticValue())[0], p)])
            for r in (limited, rollout)
        )
        assert distance(right, first_terms) <= EXACT
        assert distance(wrong, first_terms) > VISIBLE
    ended = expectation(policy, [(rollout, advantages(rollout, values, TotalReturn(mdp.gamma), NoBaseline())[0], p)])
    assert distance(ended, exact_gradient(shorter(mdp, limit), policy)) <= EXACT


def test_a_baseline_that_looks_at_the_action_taken_is_biased():
    class Peeking(NoBaseline):
        def __call__(self, rollout, ret, values):
            return values.next_val  # depends on s_{t+1}, hence on a_t

    world = WORLDS["random, γ=1"]
    (rollout, p), policy = batches(world.name, 1)[0], world.policy()
    adv, _ = advantages(rollout, ExactCritic(world.mdp)(rollout, policy), RewardToGo(1.0), Peeking())
    assert distance(expectation(policy, [(rollout, adv, p)]), truth(world.name)) > VISIBLE


def test_dividing_by_steps_instead_of_trajectories_is_another_scale_and_biased():
    """E[ĝ / length] is not E[ĝ] / E[length] where episodes differ in length: reduction="step" is a ratio estimator."""
    world = WORLDS["crossing, γ=1"]
    policy, weighed = world.policy(), []
    for rollout, p in enumerate_batches(*batches(world.name, 1)[0], 2):
        adv, _ = advantages(rollout, Values.zeros(rollout), RewardToGo(1.0), NoBaseline())
        weighed.append((rollout, adv, p))
    assert distance(expectation(policy, weighed), truth(world.name)) <= EXACT
    assert distance_to_multiples(expectation(policy, weighed, "step"), truth(world.name)) > VISIBLE


@pytest.mark.parametrize("world", [w.name for w in MDPS if w.mdp.horizon > 1])
@pytest.mark.parametrize("update", UPDATES, ids=lambda u: u.name)
def test_every_update_rule_given_every_trajectory_climbs_and_first_order_ones_follow_the_exact_gradient(update, world):
    (rollout, p), policy, mdp = batches(world, 1)[0], WORLDS[world].policy(), WORLDS[world].mdp
    adv, _ = advantages(
        rollout, ExactCritic(mdp)(rollout, policy), StateDiscounted(RewardToGo(mdp.gamma)), CriticValue()
    )
    flat = rollout.flatten(adv, "trajectory")
    batch = Batch(
        flat.obs, flat.act, flat.logp, flat.adv, rollout.flatten(p.expand_as(adv), "step").adv, flat.trajectories
    )
    before, theta = objective(mdp, policy_matrix(mdp, policy)), policy.flat.clone()
    rule = update.make()
    rule(policy, batch, 0.0)
    assert objective(mdp, policy_matrix(mdp, policy)) > before
    if update.first_order:
        assert distance((policy.flat - theta) / rule.lr, truth(world)) <= 1e-11  # the division by lr costs a digit
