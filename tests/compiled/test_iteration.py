"""A whole step of an actor-critic as one compiled function, against the learner's parts: the same numbers, and the same bits
whoever looks on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import policygrad as pg
from policygrad.algorithms import learner as learners
from policygrad.algorithms.learner import Learner
from policygrad.data import Rollout, Wants
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.errors import NotFiniteError
from policygrad.gradient.estimators import GAE, NStep, RewardToGo, Standardized, StateDiscounted, TDError
from policygrad.models.critic import make_critic
from policygrad.models.policy import make_policy
from policygrad.total import reducing
from policygrad.updates import ClippedSurrogate, VanillaGradient

GAE_, ONCE = GAE(0.97, 0.9), {"lr": 3e-3}
# the environment, the estimator, and keywords of the policy, the rule and the learner
CASES: dict[str, tuple[str, Any, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "choices": ("CartPole-v1", GAE_, {}, {}, {}),
    "entropy": ("CartPole-v1", GAE_, {}, {"ent_coef": 0.05}, {}),
    "standardised": ("CartPole-v1", Standardized(GAE_), {}, {}, {}),
    "by trajectory": ("CartPole-v1", RewardToGo(0.97), {}, {"max_grad_norm": None}, {"reduction": "trajectory"}),
    "one-hot observations": ("FrozenLake-v1", TDError(0.97), {}, {}, {}),
    "normalised observations": ("CartPole-v1", GAE_, {"normalize_obs": True}, {}, {}),
    "numbers": ("Pendulum-v1", GAE_, {}, {"ent_coef": 0.05}, {}),
    "numbers, std by the network": (
        "Pendulum-v1",
        Standardized(GAE_),
        {"std": "network", "activation": "relu"},
        {},
        {},
    ),
}


def learner_of(case: str, dtype: torch.dtype, kernel: str = "compiled") -> tuple[Learner, Any]:
    env_id, estimator, policy, rule, words = CASES[case]
    envs = make_envs(env_id, 3, "gymnasium")
    made = make_policy(
        envs.single_observation_space, envs.single_action_space, hidden=(16,), kernel=kernel, seed=1, **policy
    ).to(dtype)
    critic = make_critic(envs.single_observation_space, hidden=(8, 8), kernel="closed_form", seed=2, lr=1e-2).to(dtype)
    return Learner(made, estimator, VanillaGradient(**ONCE | rule), critic=critic, **words), envs


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_a_step_is_the_one_of_the_parts(case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    (fused, envs), (parts, _) = learner_of(case, dtype), learner_of(case, dtype)
    monkeypatch.setattr(parts, "_fused", lambda record: None)
    collector, ends, near = Collector(envs, seed=3), 0, 1e-12 if dtype is torch.float64 else 2e-5
    for step in range(100):
        record = collector.collect(fused.policy, Wants(num_steps=7))
        assert fused._fused(record) is not None
        ends += int(record.terminated.sum())
        a, b = fused.step(record, step / 100), parts.step(Rollout.of(record, parts.policy), step / 100)
        assert a == pytest.approx(b, rel=100 * near, abs=near)
        for x, y in ((fused.policy, parts.policy), (fused.critic, parts.critic)):
            torch.testing.assert_close(x.flat, y.flat, rtol=near, atol=near)
        for name in ("mean", "std", "var"):
            assert getattr(fused.critic, name) == pytest.approx(getattr(parts.critic, name), rel=near, abs=near)
    assert (ends > 5) == (case[:7] != "numbers")  # there are masked rows, and bootstraps from what is not the end
    assert fused.critic.seen == parts.critic.seen
    if fused.policy.normalizer is not None:
        assert fused.policy.normalizer.count == parts.policy.normalizer.count == 2100 - ends
    assert (
        [x.update.optimizer.t for x in (fused, parts)] == [x.critic.optimizer.t for x in (fused, parts)] == [100, 100]
    )


def weights(agent: Any) -> torch.Tensor:
    return torch.cat([agent.policy.flat, agent.learner.critic.flat])


def trained(see: bool = False, **words: Any) -> torch.Tensor:
    agent = pg.a2c("CartPole-v1", seed=4, num_steps=5, kernel="compiled", preset={})
    if see:
        agent.learner.observers.append(lambda rollout: None)
    return weights(agent.learn(800, **words))


def test_rows_of_metrics_observers_and_interruptions_change_no_bit(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained()
    for words in ({"log_every": 10**9}, {"log_every": 1}, {"see": True}):
        assert torch.equal(trained(**words), plain), words
    half = pg.a2c("CartPole-v1", seed=4, num_steps=5, kernel="compiled", preset={}).learn(400, horizon=800)
    half.save(tmp_path / "half.pt")
    assert torch.equal(weights(pg.load(tmp_path / "half.pt").learn(400, horizon=800)), plain)
    monkeypatch.setattr(Learner, "_fused", lambda self, record: None)
    assert not torch.equal(trained(), plain)  # so that the others were


class Doubled(Learner):
    """A learner of one's own."""


class Shifted(VanillaGradient):
    """A rule of one's own: it does not say that it is plain."""

    def score_weights(self, logp: torch.Tensor, batch: Any) -> torch.Tensor:
        return super().score_weights(logp, batch) + 1.0


def test_what_is_not_known_is_left_to_its_own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    known, envs = learner_of("choices", torch.float32)
    record = Collector(envs, seed=3).collect(known.policy, Wants(num_steps=7))
    assert known._fused(record) is not None
    policy, critic = known.policy, known.critic

    def made(estimator: Any = GAE_, rule: Any = None, kind: Any = Learner, **words: Any) -> Learner:
        return kind(policy, estimator, rule or VanillaGradient(), **{"critic": critic} | words)

    others = [
        made(NStep(0.97, 2)),
        made(StateDiscounted(GAE_)),
        made(Standardized(GAE_, over="episode")),
        made(rule=Shifted()),
        made(rule=ClippedSurrogate(epochs=1, minibatches=1)),
        made(rule=VanillaGradient(optimizer="sgd")),
        made(rule=VanillaGradient(target_kl=0.1)),
        made(rule=VanillaGradient(terms=[lambda evaluation, batch: evaluation.outputs])),
        made(baseline=pg.RunningMean()),
        made(kind=Doubled),
        made(reduction=lambda rollout: rollout.rew.new_ones(rollout.steps)),
        made(critic=make_critic(envs.single_observation_space, epochs=2)),
        made(critic=make_critic(envs.single_observation_space, minibatches=2)),
    ]
    assert [other._fused(record) for other in others] == [None] * len(others)
    apart = replace(record, next_obs=record.next_obs.copy())
    assert known._fused(apart) is None  # what follows is not the next row
    with reducing(lambda x: x, lambda x: x):
        assert known._fused(record) is None
    known.critic.fit = lambda *given: {}
    assert known._fused(record) is None
    monkeypatch.setattr(learners, "LONG_FIT", 21)  # two cores are better for long ones
    assert made()._fused(record) is None
    assert learner_of("choices", torch.float32, "closed_form")[0]._fused(record) is None


@pytest.mark.parametrize("where", ["rew", "policy", "critic"])
def test_numbers_that_are_not_finite_are_named_before_anything_moves(where: str) -> None:
    learner, envs = learner_of("choices", torch.float32)
    collector = Collector(envs, seed=3)
    learner.step(collector.collect(learner.policy, Wants(num_steps=7)))
    record, before = collector.collect(learner.policy, Wants(num_steps=7)), learner.state_dict()
    kept = learner.policy.flat.clone(), learner.critic.flat.clone()
    said = {"rew": "advantage is not finite", "policy": "policy's gradient", "critic": "advantage is not finite"}[where]
    if where == "rew":
        record.rew[3, 1] = np.inf
    else:
        getattr(learner, where).flat[0] = np.nan
        kept = learner.policy.flat.clone(), learner.critic.flat.clone()
    with pytest.raises(NotFiniteError, match=said):
        learner.step(record)
    assert np.array_equal(learner.policy.flat, kept[0], equal_nan=True)
    assert np.array_equal(learner.critic.flat, kept[1], equal_nan=True)
    assert learner.state_dict()["critic"]["_extra_state"]["scale"] == before["critic"]["_extra_state"]["scale"]


def test_records_without_valid_steps_move_nothing_and_strange_actions_are_refused() -> None:
    learner, envs = learner_of("choices", torch.float32)
    record = Collector(envs, seed=3).collect(learner.policy, Wants(num_steps=7))
    nobody = replace(record, mask=np.zeros_like(record.mask), cut=np.zeros_like(record.cut))
    nobody.terminated[:], nobody.truncated[:] = False, False
    kept = learner.policy.flat.clone()
    assert learner.step(nobody) == {}
    assert torch.equal(learner.policy.flat, kept)
    record.act[2, 1] = 2
    with pytest.raises(IndexError, match="not among"):
        learner.step(record)
    assert torch.equal(learner.policy.flat, kept)


def test_a_rollout_and_its_record_give_the_same_step() -> None:
    (a, envs), (b, _) = learner_of("choices", torch.float32), learner_of("choices", torch.float32)
    record = Collector(envs, seed=3).collect(a.policy, Wants(num_steps=7))
    a.step(record)
    b.step(Rollout.of(record, b.policy))
    assert torch.equal(a.policy.flat, b.policy.flat)
    assert torch.equal(a.critic.flat, b.critic.flat)
