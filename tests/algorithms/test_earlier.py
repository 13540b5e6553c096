"""Replay of earlier episodes: an unbiased estimate from several policies' episodes, and a memory that is bounded and kept."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from explicit import same_state
from gymnasium import spaces
from test_off_policy import SMALL
from torch import Tensor
from zoo import MDPS

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.algorithms.earlier import EarlierEpisodes
from policygrad.algorithms.learner import Learner
from policygrad.forms import FormError
from policygrad.gradient.estimators import RewardToGo, Standardized, StateDiscounted
from policygrad.gradient.importance import ImportanceWeighted, PerDecision
from policygrad.lab.exact.tabular import enumerate_trajectories, exact_gradient, tabular_policy
from policygrad.models.policy import make_policy
from policygrad.stored.trajectories import collect
from policygrad.updates import VanillaGradient

WORLDS = {world.name: world for world in MDPS}
OWN = SMALL | {"episodes": 6, "replay_episodes": 10, "num_envs": 3}


def expected(name: str, estimator: Any) -> tuple[Tensor, Tensor]:
    """E[ĝ] over every fresh trajectory of π and every earlier one of μ₁ and μ₂, and ∇J; by the learner's own batches."""
    mdp = WORLDS[name].mdp
    pi, *mus = (tabular_policy(mdp, torch.Generator().manual_seed(seed)) for seed in range(3))
    fresh, p = enumerate_trajectories(mdp, pi)
    learner = Learner(pi, estimator, VanillaGradient(), reduction="trajectory", replay_episodes=2)
    mean = torch.zeros_like(pi.flat)
    for mu in mus:  # the other earlier one is fixed: the estimate is a mean, so each is tried alone
        old, q = enumerate_trajectories(mdp, mu)
        for j in range(len(q)):
            learner.earlier = EarlierEpisodes(1)
            learner.earlier.keep(old.columns([j]))
            for i in range(len(p)):
                iteration = learner.prepare(fresh.columns([i]))
                assert iteration is not None
                assert iteration.rollout.trajectories == 2
                batch = iteration.batch
                mean += 0.5 * p[i] * q[j] * pi.evaluate(batch).gradient(batch.weight * batch.adv)
    return mean, exact_gradient(mdp, pi)


@pytest.mark.parametrize("name", ["bandit", "crossing, γ=0.8"])
@pytest.mark.parametrize("weigh", [ImportanceWeighted, PerDecision])
def test_the_estimate_from_episodes_of_several_policies_is_unbiased(name: str, weigh: Any) -> None:
    found, truth = expected(name, weigh(StateDiscounted(RewardToGo(WORLDS[name].mdp.gamma))))
    assert float((found - truth).norm()) < 1e-12 * max(1.0, float(truth.norm()))


def test_without_weights_or_with_weights_that_are_normalised_it_is_not() -> None:
    estimator = StateDiscounted(RewardToGo(WORLDS["bandit"].mdp.gamma))
    unweighed = ImportanceWeighted(estimator, max_weight=1e-9, self_normalize=True)  # all weights alike
    for biased in (unweighed, ImportanceWeighted(estimator, self_normalize=True)):
        found, truth = expected("bandit", biased)
        assert float((found - truth).norm()) > 1e-3 * float(truth.norm())


def watched(agent: pg.Agent, steps: int) -> list[pg.Rollout]:
    seen: list[pg.Rollout] = []
    agent.learner.observers.append(lambda rollout: seen.append(deepcopy(rollout)))
    agent.learn(steps)
    return seen


def test_an_update_sees_the_new_episodes_then_the_last_earlier_ones_as_they_were() -> None:
    agent = pg.off_policy_pg(
        "CartPole-v1", seed=1, hidden=(8,), lr=0.01, episodes=3, replay_episodes=5, normalize_obs=True
    )
    seen = watched(agent, 400)
    assert len(seen) >= 4
    assert all(rollout.trajectories == 3 for rollout in seen)  # whoever looks on sees every episode once
    played, fresh = [(rollout, n) for rollout in seen for n in range(3)][-5:], seen[-1]
    iteration = agent.learner.prepare(fresh)
    joined = iteration.rollout
    assert iteration.fresh is fresh
    assert joined.whole_episodes
    assert joined.trajectories == 3 + 5
    T = len(fresh.rew)
    assert torch.equal(joined.rew[:T, :3], fresh.rew * fresh.mask + joined.rew[:T, :3] * ~fresh.mask)
    for column, (rollout, n) in enumerate(played, start=3):
        L = int(rollout.mask[:, n].sum())
        assert int(joined.mask[:, column].sum()) == L
        assert torch.equal(joined.obs[:L, column], rollout.obs[:L, n])
        assert torch.equal(joined.next_obs[:L, column], rollout.next_obs[:L, n])
        for name in ("act", "rew", "behavior", "terminated", "truncated", "time"):
            assert torch.equal(getattr(joined, name)[:L, column], getattr(rollout, name)[:L, n]), name
        own = agent.policy.log_probs(rollout.obs[:-1], rollout.act)[:L, n]
        torch.testing.assert_close(joined.logp[:L, column], own, rtol=0, atol=1e-5)
        assert not torch.equal(joined.logp[:L, column], joined.behavior[:L, column])


def test_critic_baseline_and_normaliser_learn_from_each_episode_once() -> None:
    agent = pg.off_policy_pg("Steps-v0", **OWN | {"baseline": "value", "normalize_obs": True})
    fitted, critic = [], agent.learner.critic
    fit = critic.fit
    critic.fit = lambda rollout, target, *more: (
        fitted.append((rollout.steps, target.shape)) or fit(rollout, target, *more)
    )
    agent.learn(24 * 5)
    assert fitted == [(24, (4, 6))] * 5
    assert int(agent.policy.normalizer.count) == 24 * 5


@pytest.mark.parametrize("env", ["Steps-v0", "CartPole-v1"])
@pytest.mark.parametrize("log_every", [1, 10**9])
def test_it_is_resumed_bit_for_bit_and_keeps_no_more_than_it_may(env: str, log_every: int, tmp_path) -> None:
    whole, half = (pg.off_policy_pg(env, **OWN | {"lr": 0.02, "min_ess": 0.0}) for _ in range(2))
    whole.learn(400, log_every=log_every, horizon=800)
    half.learn(400, log_every=log_every, horizon=800)
    loaded = pg.load(half.save(tmp_path / "half"))
    assert len(loaded.learner.earlier) == 10
    for agent in (whole, loaded):
        agent.learn(400, log_every=log_every, horizon=800)
        assert len(agent.learner.earlier) == 10
    assert loaded.save(tmp_path / "a").read_bytes() == whole.save(tmp_path / "b").read_bytes()
    assert not same_state(half.learner.state_dict(), whole.learner.state_dict())


def test_it_learns_something_else_than_without_and_the_weights_say_how_far_the_policy_went() -> None:
    history = pg.History()
    agent = pg.off_policy_pg("Steps-v0", **OWN | {"min_ess": 0.0})
    agent.learn(24 * 20, history, log_every=1)
    plain = pg.off_policy_pg("Steps-v0", **OWN | {"replay_episodes": 0}).learn(24 * 20)
    assert not torch.equal(agent.policy.flat, plain.policy.flat)
    assert history.rows[0]["ess"] == pytest.approx(6)
    assert 6 < min(row["ess"] for row in history.rows[3:]) < max(row["ess"] for row in history.rows[3:]) < 16
    assert "earlier" not in plain.learner.state_dict()


def test_steps_that_are_too_long_are_refused_before_anything_moves() -> None:
    agent = pg.off_policy_pg("Steps-v0", **OWN | {"lr": 50.0, "min_ess": 0.9})
    agent.learn(24)
    before = deepcopy(agent.learner.state_dict())
    with pytest.raises(pg.CollapsedError, match="replay fewer old trajectories"):
        agent.learn(24)
    assert same_state(agent.learner.state_dict(), before)


def test_the_number_may_change_while_it_learns() -> None:
    agent = pg.off_policy_pg("Steps-v0", **OWN).learn(24 * 3)
    for most in (4, 0, 8):
        agent.change(replay_episodes=most)
        assert len(agent.learner.earlier) == (4 if most == 4 else 0)
        agent.learn(24 * 2)
        assert len(agent.learner.earlier) == most


def test_what_has_no_weights_is_refused() -> None:
    policy = make_policy(spaces.Discrete(5), spaces.Discrete(2), hidden=())
    with pytest.raises(ValueError, match=r"needs importance weights.*got RewardToGo"):
        Learner(policy, RewardToGo(), VanillaGradient(), replay_episodes=1)
    with pytest.raises(ValueError, match=r"replay_episodes .*got -1"):
        Learner(policy, PerDecision(RewardToGo()), VanillaGradient(), replay_episodes=-1)
    with pytest.raises(ValueError, match="noise_autocorrelation = 0"):
        pg.off_policy_pg("MountainCarContinuous-v0", replay_episodes=1, noise_autocorrelation=0.5)
    stored = collect(policy, "Steps-v0", 8, name="Steps-v0")
    with pytest.raises(ConfigError, match="a dataset is replayed"):
        pg.off_policy_pg("Steps-v0", dataset=stored, replay_episodes=1)
    learner = Learner(policy, PerDecision(Standardized(RewardToGo())), VanillaGradient(), replay_episodes=1)
    grouped = stored.rollout(policy)
    grouped.extra["group"] = torch.zeros_like(grouped.rew)
    with pytest.raises(ValueError, match=r"named arrays.*group"):
        learner.step(grouped)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("length", lambda x: x + 1, "do not fit together"),
        ("terminated", lambda x: x[1:], "do not fit together"),
        ("rew", lambda x: x * float("nan"), "finite"),
        ("behavior", lambda x: x.long(), "float32"),
        ("act", lambda x: x + 7, "another task|none that the policy"),
        ("obs", lambda x: x[:, :3], "another task"),
        ("last_obs", lambda x: x[:, :3], "another task"),
        ("length", lambda x: x.tolist(), "array"),
    ],
)
def test_a_state_of_something_else_is_refused(name: str, change: Any, words: str) -> None:
    agent = pg.off_policy_pg("Steps-v0", **OWN).learn(24)
    state = deepcopy(agent.state_dict())
    agent.load_state_dict(state)
    earlier = state["learner"]["earlier"]
    earlier[name] = change(earlier[name])
    with pytest.raises(FormError, match=words):
        agent.load_state_dict(state)
