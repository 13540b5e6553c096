"""Auxiliary gains: a function of policy and batch whose gradient is added to the update's, in recipes and by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explicit import OBS, moved, same_state
from gymnasium import spaces
from interrupted import killed
from torch import Tensor, nn

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.envs.probes import Chain
from policygrad.errors import NotFiniteError
from policygrad.models.ascent import gradient_of
from policygrad.models.policy import make_policy
from policygrad.training.callbacks import Every

SMALL: dict[str, Any] = {"hidden": (8,), "num_envs": 2, "num_steps": 16}
ROWS = 12


class Predicting(nn.Module):
    """A body with a layer that only the auxiliary gain uses: it predicts the next observation."""

    def __init__(self, space: Any, actions: int = 2) -> None:
        super().__init__()
        width = space.shape[0]
        self.actions = actions
        self.trunk = nn.Sequential(nn.Linear(width, 16), nn.Tanh())
        self.predictor = nn.Linear(16 + actions, width)

    def forward(self, obs: Tensor) -> Tensor:
        return self.trunk(obs)

    def predicted(self, obs: Tensor, act: Tensor) -> Tensor:
        return self.predictor(torch.cat([self.trunk(obs), nn.functional.one_hot(act, self.actions)], -1))


def prediction(policy: Any, batch: pg.Batch) -> Tensor:
    """Minus the squared error of the next observation."""
    guess = policy.network.body.predicted(policy.features(batch.obs), batch.act)
    error = (guess - policy.features(batch.extra["next_obs"])).square().mean(-1)
    return -(batch.weight * error).sum()


def sharpness(policy: Any, batch: pg.Batch) -> Tensor:
    """Something that depends on every parameter of the distribution."""
    return (batch.weight * policy(batch.obs).square().sum(-1)).sum()


def batch_of(policy: pg.Policy) -> pg.Batch:
    g = torch.Generator().manual_seed(1)
    obs = torch.randn(ROWS, 3, generator=g, dtype=torch.float64)
    act, adv = torch.randint(3, (ROWS,), generator=g), torch.randn(ROWS, generator=g, dtype=torch.float64)
    weight = torch.full((ROWS,), 1.0 / ROWS, dtype=torch.float64)
    return pg.Batch(obs, act, policy.evaluate(pg.Batch.of(obs, act)).logp, adv, weight, 1, target=2.0 * adv)


@pytest.mark.parametrize("kernel", ["closed_form", "autograd"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_gain_with_coefficient_c_moves_the_gradient_by_c_times_its_own(shared: bool, kernel: str) -> None:
    policy = make_policy(OBS, spaces.Discrete(3), hidden=(8, 6), kernel=kernel)
    policy, critic = moved(pg.with_value(policy) if shared else policy), pg.SharedCritic()
    batch, rule = batch_of(policy), pg.ClippedSurrogate(terms=(critic.term,) if shared else ())
    terms = [rule.objective(0.0), *rule.terms]
    plain = gradient_of(terms, policy, batch).clone()
    own = policy.gradient(sharpness(policy, batch))
    assert float(own.norm()) > 0.1
    for c in (-0.7, 2.0):
        found = gradient_of(terms, policy, batch, lambda *given, c=c: c * sharpness(*given))
        torch.testing.assert_close(found, plain + c * own, rtol=0, atol=1e-12)


def test_its_gradient_is_in_the_norm_that_is_clipped() -> None:
    policy = moved(make_policy(OBS, spaces.Discrete(3), hidden=(8,)))
    batch, before = batch_of(policy), policy.flat.clone()
    words: dict[str, Any] = {"optimizer": "sgd", "epochs": 1, "minibatches": 1}
    rule = pg.ClippedSurrogate(1.0, max_grad_norm=1e-3, auxiliary=lambda *given: 1e3 * sharpness(*given), **words)
    assert rule(policy, batch)["grad_norm"] > 100.0
    assert float((policy.flat - before).norm()) == pytest.approx(1e-3, rel=1e-4)


def test_parameters_that_a_gain_does_not_reach_have_gradient_0() -> None:
    policy = moved(make_policy(OBS, spaces.Discrete(3), body=lambda space: Predicting(space)))
    batch = batch_of(policy)
    found = policy.gradient(policy.latent(batch.obs).square().sum())  # of the trunk alone
    network: Any = policy.network
    reached = sum(p.numel() for p in network.body.trunk.parameters())
    assert float(found[:reached].norm()) > 0.0
    assert not found[reached:].any()
    torch.testing.assert_close(network.output(policy.latent(batch.obs)), network(batch.obs), rtol=0, atol=0)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_the_output_layer_is_linear_in_what_is_latent(hidden: tuple[int, ...]) -> None:
    for space in (OBS, spaces.Discrete(4)):
        policy = make_policy(space, spaces.Box(-1.0, 1.0, (2,)), hidden=hidden)
        assert policy.encoding is not None
        obs = torch.eye(4) if isinstance(space, spaces.Discrete) else torch.ones(4, 3)
        network: Any = policy.network
        mean = network.mean
        last = (lambda x: x @ mean.table) if hasattr(mean, "table") else mean.layers[-1]  # noqa: B023
        torch.testing.assert_close(last(policy.latent(obs)), network(obs)[:, :2])


@pytest.mark.parametrize(
    ("gain", "message"),
    [
        (lambda policy, batch: policy(batch.obs), r"a tensor with one number.*got a tensor \(\d+, 3\)"),
        (lambda policy, batch: 0.5, "a tensor with one number.*got 0.5"),
        (lambda policy, batch: policy(batch.obs).detach().sum(), "has no gradient"),
    ],
)
def test_what_is_no_gain_is_refused(gain: Any, message: str) -> None:
    policy = moved(make_policy(OBS, spaces.Discrete(3)))
    with pytest.raises(ValueError, match=message):
        pg.ClippedSurrogate(auxiliary=gain)(policy, batch_of(policy))


def test_a_gain_that_is_not_finite_moves_nothing() -> None:
    policy = moved(make_policy(OBS, spaces.Discrete(3)))
    before = policy.flat.clone()
    with pytest.raises(NotFiniteError):
        pg.ClippedSurrogate(auxiliary=lambda p, b: torch.nan * p(b.obs).sum())(policy, batch_of(policy))
    assert torch.equal(policy.flat, before)


def test_a_batch_tells_the_gain_what_came_of_its_steps() -> None:
    seen: list[pg.Batch] = []

    def look(policy: Any, batch: pg.Batch) -> Tensor:
        seen.append(batch)
        return 0.0 * policy(batch.obs).sum()

    chain = lambda: Chain((1.0, -2.0, 0.5), terminate_after=3)  # noqa: E731
    agent = pg.a2c(chain, auxiliary=look, hidden=(8,), num_envs=2, num_steps=7, seed=0).learn(28)
    assert len(seen) == 2
    for batch in seen:
        obs, rew = batch.obs[:, 0], batch.extra["rew"]
        assert torch.equal(batch.extra["next_obs"][:, 0], (obs + 1.0) % 3.0)
        assert torch.equal(rew, torch.tensor([1.0, -2.0, 0.5])[obs.long()])
        assert torch.equal(batch.extra["terminated"], obs == 2.0)
        assert batch.target is not None
    plain = pg.a2c(chain, hidden=(8,), num_envs=2, num_steps=7, seed=0).learn(28)
    torch.testing.assert_close(agent.policy.flat, plain.policy.flat, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_the_next_observation_is_learned_beside_the_policy(shared: bool) -> None:
    words: dict[str, Any] = SMALL | {"num_steps": 64, "minibatches": 4, "lr": 3e-3, "shared_body": shared, "seed": 1}
    errors = []
    for auxiliary in (prediction, None):
        agent = pg.ppo("CartPole-v1", body=Predicting, auxiliary=auxiliary, **words).learn(128 * 10)
        told = agent.collector.collect(agent.policy, agent.plan.wants)
        obs = torch.from_numpy(told.obs[:-1].reshape(-1, 4))
        after, act = torch.from_numpy(told.next_obs.reshape(-1, 4)), torch.from_numpy(told.act.reshape(-1))
        network: Any = agent.policy.network
        valid = torch.from_numpy(told.mask.reshape(-1))
        errors.append(float((network.body.predicted(obs, act) - after)[valid].detach().square().mean()))
    assert errors[0] < 0.1 * errors[1]


def test_recipes_whose_step_is_no_first_order_rule_refuse_it_by_name() -> None:
    for algo, env in (("npg", "CartPole-v1"), ("trpo", "CartPole-v1"), ("a3c", "CartPole-v1"), ("sac", "Pendulum-v1")):
        with pytest.raises(ConfigError, match=f"{algo} takes no auxiliary gain"):
            pg.Agent(algo, env, auxiliary=sharpness)
    with pytest.raises(TypeError, match="auxiliary must be a function"):
        pg.a2c("CartPole-v1", auxiliary=0.5)


def test_a_file_to_learn_on_from_asks_for_the_gain(tmp_path: Path) -> None:
    agent = pg.ppo("CartPole-v1", auxiliary=sharpness, shared_body=True, **SMALL).learn(64)
    path, policy = agent.save(tmp_path / "whole"), agent.save_policy(tmp_path / "policy")
    with pytest.raises(ValueError, match="pass auxiliary="):
        pg.load(path)
    again = pg.load(path, auxiliary=sharpness)
    assert same_state(agent.state_dict(), again.state_dict())
    for one in (agent, again):
        one.learn(64)
    assert same_state(agent.state_dict(), again.state_dict())
    with pytest.warns(UserWarning, match="pass auxiliary= to learn on with it"):
        acts = pg.load(policy)
    assert np.array_equal(
        acts.predict(np.ones(4), True)[0], pg.load(path, auxiliary=sharpness).predict(np.ones(4), True)[0]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pg.load(pg.ppo("CartPole-v1", **SMALL).save_policy(tmp_path / "plain"))


def test_a_run_is_resumed_with_the_gain_and_not_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: dict[str, Any] = SMALL | {"steps": 192, "auxiliary": sharpness, "seed": 2}
    monkeypatch.setattr("policygrad.training.recorder.CHECKPOINT_SHARE", np.inf)
    whole, path = pg.train(pg.ppo("CartPole-v1", **words), tmp_path / "whole", episodes=1), tmp_path / "half"
    dies = Every(10**9, print)
    killed(path, 100, monkeypatch, lambda: pg.train(pg.ppo("CartPole-v1", **words), path, episodes=1, callback=dies))
    with pytest.raises(ValueError, match="pass auxiliary="):
        pg.resume(path)
    run = pg.resume(path, auxiliary=sharpness, callback=dies)
    assert run.config()["auxiliary"] is True
    assert run.policy_file.read_bytes() == whole.policy_file.read_bytes()


def test_an_agent_keeps_its_gain_when_it_is_changed() -> None:
    agent = pg.ppo("CartPole-v1", auxiliary=sharpness, **SMALL).learn(32)
    assert agent.change(lr=1e-4).learner.update.auxiliary is sharpness
