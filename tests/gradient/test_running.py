"""Standardising by the moments of earlier batches: a scale and a constant baseline, and so no bias but for the scale."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from explicit import roll_episodes, same_state
from gymnasium import spaces
from torch import Tensor
from zoo import MDPS, earlier_batch

import policygrad as pg
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain
from policygrad.forms import FormError
from policygrad.gradient.running import RunningMoments
from policygrad.lab.exact.tabular import enumerate_batches, enumerate_trajectories, exact_gradient, tabular_policy

WORLDS = {world.name: world.mdp for world in MDPS}
SMALL = ["bandit", "level, γ=0.8", "crossing, γ=0.8"]
OBS, ACT = spaces.Box(-1.0, 12.0, (1,)), spaces.Discrete(2)


def expected(name: str, over: str, k: int = 2) -> tuple[Tensor, Tensor, Any]:
    """E[ĝ] over every batch of k trajectories, ∇J, and the estimator, which has seen another batch before."""
    mdp = WORLDS[name]
    policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
    estimator = pg.Standardized(pg.StateDiscounted(pg.RewardToGo(mdp.gamma)), over=over)
    rollout, p = enumerate_trajectories(mdp, policy)
    estimator.fit(rollout.columns([0, 1]), pg.RewardToGo(mdp.gamma)(rollout, pg.Values.zeros(rollout)).ret[:, :2])
    mean = torch.zeros_like(policy.flat)
    for batch, probability in enumerate_batches(rollout, p, k):
        adv, _ = pg.advantages(batch, pg.Values.zeros(batch), estimator, pg.Constant(0.4))
        rows = batch.flatten(adv, "trajectory")
        mean += probability * policy.evaluate(rows).gradient(rows.weight * rows.adv)
    return mean, exact_gradient(mdp, policy), estimator


@pytest.mark.parametrize("name", SMALL)
def test_its_mean_is_the_gradient_divided_by_the_earlier_standard_deviation(name: str) -> None:
    found, truth, estimator = expected(name, "running")
    assert estimator.moments.std > 0.01
    assert float((found * estimator.moments.std - truth).norm()) < 1e-12 * max(1.0, float(truth.norm()))


def test_by_its_own_moments_even_the_direction_is_another() -> None:
    found, truth, _ = expected("crossing, γ=0.8", "batch")
    assert float(torch.cosine_similarity(found, truth, dim=0)) < 0.9999


def test_the_audit_calls_it_unbiased_and_the_batch_moments_biased() -> None:
    policy = tabular_policy(WORLDS["crossing, γ=0.8"], torch.Generator().manual_seed(0))
    wrappers = "discount+standardize-running,discount+standardize,standardize-running,discount"
    audit = pg.lab.audit(WORLDS["crossing, γ=0.8"], policy, "to-go", "none,mean", wrappers, batch=2, repeats=20)
    verdicts = {(row.baseline, row.wrapper): (row.verdict, row.proof) for row in audit.rows}
    for baseline in ("none", "mean"):
        assert verdicts[baseline, "discount+standardize-running"] == ("unbiased", "exact")
        assert verdicts[baseline, "discount+standardize"] == ("biased", "exact")
        assert verdicts[baseline, "standardize-running"] == ("biased", "exact")  # it leaves out γᵗ
    assert 0.2 < audit["to-go", "none", "discount+standardize-running"].variance_exact < 50.0  # in units of ‖g‖²


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_moments_are_those_of_the_mixture_of_all_batches(decay: float) -> None:
    rng, running = np.random.default_rng(1), RunningMoments(decay)
    batches = [rng.normal(5.0 * k, 1.0 + k, 3 + k) for k in range(5)]
    for batch in batches:
        running.add(torch.from_numpy(batch))
    share = np.array([decay**4] + [(1.0 - decay) * decay ** (4 - k) for k in range(1, 5)])
    x = np.concatenate(batches)
    w = np.concatenate([np.full(len(b), s / len(b)) for b, s in zip(batches, share, strict=True)])
    assert running.mean == pytest.approx(w @ x)
    assert running.variance == pytest.approx(w @ (x - w @ x) ** 2)
    assert running.std == pytest.approx(np.sqrt(w @ (x - w @ x) ** 2) + 1e-8)


def made(estimator: Any = None, scale: float = 1.0) -> tuple[pg.Learner, Collector]:
    inner = estimator or pg.Standardized(pg.RewardToGo(0.9), over="running")
    policy = pg.make_policy(OBS, ACT, hidden=(8,))
    lengths = iter((3, 4, 5, 6, 5) * 9)
    rewards = tuple(scale * r for r in (1.0, -2.0, 0.5, 3.0, 4.0, 5.0))
    envs = make_envs(lambda: Chain(rewards, terminate_after=next(lengths)), 5)
    return pg.Learner(policy, inner, pg.VanillaGradient(0.01), reduction="trajectory"), Collector(envs, seed=1)


def test_the_first_batch_has_its_own_moments_and_the_next_one_those_of_the_first() -> None:
    learner, collector = made()
    first = roll_episodes(collector, learner.policy, 5)
    plain = pg.RewardToGo(0.9)(first, pg.Values.zeros(first)).ret
    own = pg.Standardized(pg.RewardToGo(0.9)).wrap(plain, first)
    iteration = learner.prepare(first)
    assert iteration is not None
    assert torch.equal(iteration.batch.adv, first.valid(own))
    assert learner.estimator.moments.mean is None  # preparing moves nothing
    learner.step(first)
    x = first.valid(plain).double()
    second = roll_episodes(collector, learner.policy, 5)
    iteration = learner.prepare(second)
    assert iteration is not None
    ret = second.valid(pg.RewardToGo(0.9)(second, pg.Values.zeros(second)).ret)
    expected = (ret - float(x.mean())) / (float(x.std(correction=0)) + 1e-8)
    torch.testing.assert_close(iteration.batch.adv, expected)


def test_masked_rows_are_0_and_enter_no_moment() -> None:
    rollout, ret = earlier_batch(2)
    estimator = pg.Standardized(pg.StateDiscounted(pg.RewardToGo(0.5)), over="running")
    estimator.fit(rollout, ret)  # ret is NaN where there is no step
    assert estimator.moments.mean == pytest.approx(float((0.5**rollout.time * ret)[rollout.mask].mean()))
    assert torch.equal(
        estimator.wrap(ret, rollout)[~rollout.mask], torch.zeros(int((~rollout.mask).sum()), dtype=ret.dtype)
    )


def test_the_scale_of_rewards_does_not_matter() -> None:
    learners = []
    for scale in (1.0, 1000.0):
        learner, collector = made(scale=scale)
        for _ in range(4):
            learner.step(roll_episodes(collector, learner.policy, 5))
        learners.append(learner)
    torch.testing.assert_close(learners[0].policy.flat, learners[1].policy.flat, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [lambda e: e, pg.ImportanceWeighted, lambda e: pg.PerDecision(e, self_normalize=True)],
    ids=["bare", "is", "per"],
)
def test_its_state_is_all_of_its_state_also_inside_weights(make: Any) -> None:
    inner = pg.Standardized(pg.StateDiscounted(pg.RewardToGo(0.9)), over="running")
    (one, collector), (other, _) = made(make(inner)), made(make(deepcopy(inner)))
    for _ in range(2):
        one.step(roll_episodes(collector, one.policy, 5))
    state = one.state_dict()
    assert state["estimator"]["variance"] > 0.0
    one.state_form()("state", state)
    other.load_state_dict(deepcopy(state))
    rollout = roll_episodes(collector, one.policy, 5)
    assert one.step(rollout) == other.step(replace(rollout))
    assert same_state(one.state_dict(), other.state_dict())
    assert "estimator" not in made(pg.Standardized(pg.RewardToGo()))[0].state_dict()


def test_agents_go_on_bit_for_bit_and_may_change_to_it_and_from_it(tmp_path) -> None:
    keywords: dict[str, Any] = {"episodes": 4, "num_envs": 2, "hidden": (8,), "lr": 0.01, "standardize": "running"}
    whole, half = (pg.reinforce("CartPole-v1", **keywords) for _ in range(2))
    whole.learn(300)
    whole.learn(300)
    half.learn(300)
    path = half.save(tmp_path / "half")
    loaded = pg.load(path)
    loaded.learn(300)
    assert loaded.save(tmp_path / "a").read_bytes() == whole.save(tmp_path / "b").read_bytes()
    assert pg.load(path, standardize="batch").learn(100).learner.estimator.over == "batch"
    for over in ("batch", "running", "no"):
        half.change(standardize=over).learn(100)
    assert (
        pg.a2c("CartPole-v1", num_envs=2, standardize="running").learn(200).learner.estimator.moments.mean is not None
    )


@pytest.mark.parametrize("wrong", [{"variance": -1.0}, {"mean": float("nan")}, {"mean": "0"}, {"std": 1.0}])
def test_a_state_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    learner, _ = made()
    state = learner.state_dict()
    state["estimator"] |= wrong
    with pytest.raises(FormError):
        learner.state_form()("state", state)
    with pytest.raises(FormError):
        learner.load_state_dict(state)


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'running', got 'ever'"):
        pg.Standardized(pg.RewardToGo(), over="ever")
