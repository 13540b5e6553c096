"""What users set on an agent counts, or is refused: weights, parts of the learner, hyperparameters."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.models.flat import ReplacedError

SMALL: dict[str, Any] = {"num_envs": 2, "num_steps": 32, "minibatches": 2, "hidden": (8,), "preset": {}, "steps": 400}
OBS = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def by_vector(network: nn.Module, numbers: torch.Tensor) -> None:
    vector_to_parameters(numbers, network.parameters())


def by_parameter(network: nn.Module, numbers: torch.Tensor) -> None:
    start = 0
    for module in network.modules():
        for name, p in list(module._parameters.items()):
            assert p is not None
            setattr(module, name, nn.Parameter(numbers[start : start + p.numel()].view(p.shape).clone()))
            start += p.numel()


def by_layer(network: nn.Module, numbers: torch.Tensor) -> None:
    layers: Any = network.layers
    for i, layer in enumerate(layers):
        layers[i] = nn.Linear(layer.in_features, layer.out_features)
    vector_to_parameters(numbers, network.parameters())


WAYS = (by_vector, by_parameter, by_layer)


@pytest.mark.parametrize("assign", WAYS)
def test_weights_that_were_assigned_are_what_acts_learns_and_is_saved(assign, tmp_path: Path) -> None:
    agent, other = pg.ppo("CartPole-v1", **SMALL), pg.ppo("CartPole-v1", seed=5, **SMALL)
    before = agent.predict(OBS, deterministic=True)[0]
    numbers = parameters_to_vector(other.policy.network.parameters()).detach().clone()
    assign(agent.policy.network, numbers)
    acts = agent.predict(OBS, deterministic=True)[0]
    assert np.array_equal(acts, other.predict(OBS, deterministic=True)[0])
    assert not np.array_equal(acts, before)
    assert torch.equal(agent.policy.flat, numbers)
    agent.learn(400)
    assert not torch.equal(agent.policy.flat, numbers)
    assert torch.equal(parameters_to_vector(agent.policy.network.parameters()), agent.policy.flat)
    again = pg.load(agent.save(tmp_path / "agent"))
    assert again.evaluate(3) == agent.evaluate(3)


def test_the_same_weights_assigned_change_no_bit_of_a_training() -> None:
    for algo, env in ((pg.ppo, "CartPole-v1"), (pg.trpo, "Pendulum-v1"), (pg.sac, "Pendulum-v1")):
        flats = []
        for assigned in (False, True):
            small = SMALL if algo is pg.ppo else {"preset": {}, "hidden": (8,)}
            small = small | ({"warmup": 50} if algo is pg.sac else {})
            agent = algo(env, **small)
            agent.learn(200)
            critic = getattr(agent.learner, "critic", None)
            for network in [agent.policy, critic] if isinstance(critic, nn.Module) else [agent.policy]:
                by_vector(network, parameters_to_vector(network.parameters()).detach().clone()) if assigned else None
            agent.learn(200)
            flats.append(agent.policy.flat.clone())
        assert torch.equal(*flats)


def test_the_critic_that_was_assigned_says_the_values() -> None:
    agent = pg.ppo("CartPole-v1", **SMALL)
    agent.learn(200)
    by_vector(agent.learner.critic.network, torch.zeros(len(agent.learner.critic.flat)))
    assert (agent.value(OBS) == agent.learner.critic.mean).all()


def test_a_layer_of_another_size_is_refused() -> None:
    agent = pg.ppo("CartPole-v1", **SMALL)
    layers: Any = agent.policy.network.layers
    layers[-1] = nn.Linear(8, 3)
    with pytest.raises(ReplacedError, match="67 parameters in place of 58"):
        agent.predict(OBS)


class Slower(pg.FirstOrder):
    """A rule of one's own: ½ A ∇log π."""

    def score_weights(self, logp: torch.Tensor, batch: Any) -> torch.Tensor:
        return 0.5 * batch.weight * batch.adv


def with_own_rule() -> pg.Agent:
    agent = pg.ppo("CartPole-v1", **SMALL)
    agent.learner.update = Slower(1e-3)
    return agent


def test_a_rule_that_was_set_is_asked_for_when_its_file_is_loaded(tmp_path: Path) -> None:
    agent = with_own_rule()
    path = agent.save(tmp_path / "agent")
    with pytest.raises(
        ValueError, match=r"update = Slower, which a file cannot hold: pass parts=\{'update': Slower\(…\)\}"
    ):
        pg.load(path)
    again = pg.load(path, parts={"update": Slower(1e-3)})
    assert isinstance(again.learner.update, Slower)
    assert copy.deepcopy(again).replaced() == {"update": "Slower"}
    with pytest.raises(ValueError, match=r"no part .rule.; it has: update, estimator"):
        pg.load(path, parts={"update": Slower(1e-3), "rule": None})
    with pytest.raises(ConfigError, match=r"agent\.learner\.update"):
        again.change(lr=1e-4)
    with pytest.warns(UserWarning, match="to act, they are not needed"):
        pg.load(agent.save_policy(tmp_path / "policy"))
    assert pg.load(pg.ppo("CartPole-v1", **SMALL).save(tmp_path / "plain")).replaced() == {}


def test_a_run_with_a_rule_that_was_set_says_so_and_is_resumed_with_it(tmp_path: Path) -> None:
    whole = pg.train(with_own_rule(), tmp_path / "whole", episodes=2)
    assert json.loads(whole.config_file.read_text())["recipe"]["update"] == "Slower"

    stops: list[int] = []

    def stop(agent: Any, row: Any) -> None:
        if agent.num_timesteps > 150 and not stops:
            stops.append(agent.num_timesteps)
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        pg.train(with_own_rule(), tmp_path / "half", episodes=2, callback=stop)
    with pytest.raises(ValueError, match="pass parts="):
        pg.resume(tmp_path / "half", callback=stop)
    half = pg.resume(tmp_path / "half", parts={"update": Slower(1e-3)}, callback=stop)
    assert half.policy_file.read_bytes() == whole.policy_file.read_bytes()


@pytest.mark.parametrize(
    ("name", "own"), [("lr", "lr"), ("learning_rate", "lr"), ("n_steps", "num_steps"), ("gamma", "gamma")]
)
def test_a_hyperparameter_set_as_an_attribute_is_refused(name: str, own: str) -> None:
    agent = pg.ppo("CartPole-v1", **SMALL)
    with pytest.raises(AttributeError, match=rf"agent\.change\({own}=0\.5\)"):
        setattr(agent, name, 0.5)
    agent.note = "an attribute of the user's own"


SET: dict[str, Any] = {"update.ent_coef": 0.05, "update.lr": pg.linear(1e-3), "critic.lr": 1e-4, "update.epochs": 2}


@pytest.mark.parametrize("place", SET)
def test_a_number_that_was_set_on_a_part_is_not_lost_by_a_file(place: str, tmp_path: Path) -> None:
    agent = pg.ppo("CartPole-v1", **SMALL).learn(400)
    part, name = place.split(".")
    assert agent.replaced() == {}, "training sets nothing"
    before = getattr(getattr(agent.learner, part), name)
    setattr(getattr(agent.learner, part), name, SET[place])
    kind = type(getattr(agent.learner, part)).__name__
    assert agent.replaced() == {part: kind}
    with pytest.raises(ValueError, match=rf"parts of its learner set, {part} = {kind}, which a file cannot hold"):
        pg.load(agent.save(tmp_path / "agent"))
    with pytest.raises(ConfigError, match=rf"agent\.learner\.{part}"):
        agent.change(gamma=0.9)
    setattr(getattr(agent.learner, part), name, before)
    assert agent.change(gamma=0.9, ent_coef=0.02, lr=1e-3).replaced() == {}
    assert pg.load(agent.save(tmp_path / "agent")).config["ent_coef"] == 0.02


def test_schedules_set_no_number_of_a_part() -> None:
    words = {"clip": pg.linear(0.3, 0.1), "ent_coef": pg.linear(0.1), "critic_lr": pg.linear(1e-3)}
    agent = pg.ppo("CartPole-v1", **SMALL, **words).learn(400)
    assert agent.replaced() == {}
    agent.learner.update.schedule = None
    agent.learner.update.clip = 0.5
    assert agent.replaced() == {"update": "ClippedSurrogate"}


@pytest.mark.parametrize(
    "algo", ["reinforce", "actor_critic", "a2c", "npg", "trpo", "ppo_kl", "off_policy_pg", "pqn", "dqn"]
)
def test_training_sets_no_number_of_a_part(algo: str) -> None:
    small = {"warmup": 100} if algo == "dqn" else {"num_envs": 2}
    agent = pg.Agent(algo, "CartPole-v1", preset={}, hidden=(8,), **small)
    agent.learn(400)
    assert agent.replaced() == {}
