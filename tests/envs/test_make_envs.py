"""Environments from ids, instances and callables, and what is said of those that cannot be."""

from __future__ import annotations

import multiprocessing
import sys
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from policygrad.envs import processes
from policygrad.envs.make import make_envs, resolve_backend
from policygrad.envs.probes import Chain, ConstantReward, Counting
from policygrad.envs.serial import SerialVectorEnv
from policygrad.envs.single import check_env_id, env_name, make_one


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("CartPole-v7", "CartPole-v1"),
        ("Pendulum", "Pendulum-v1"),
        ("LunarLandr-v3", "LunarLander-v3"),
    ],
)
def test_an_unknown_id_is_refused_with_the_nearest_one(typed: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown environment '{typed}'\. Did you mean '{meant}'\?"):
        check_env_id(typed)


def test_an_id_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(ValueError, match=r"unknown environment 'qwertyuiop'\. .policygrad list envs"):
        make_envs("qwertyuiop")


@pytest.mark.parametrize("name", ["LunarLander", "LunarLanderContinuous"])
def test_an_old_version_is_refused_with_the_new_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}-v2 is {name}-v3 now"):
        make_envs(f"{name}-v2", 2)
    assert check_env_id(f"{name}-v3") == f"{name}-v3"


def test_gymnasiums_physics_is_split_over_the_cores_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(env: Any = "LunarLander-v3", steps: int = 50_000, num_envs: int = 8) -> str:
        return resolve_backend(env, "auto", steps, num_envs)

    monkeypatch.setattr("policygrad.envs.envpool.installed", lambda: False)
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    assert found() == ("split" if sys.platform == "linux" else "gymnasium")
    assert {found(steps=49_999), found(num_envs=7), found(partial(gym.make, "LunarLander-v3"))} == {"gymnasium"}
    assert found("Blackjack-v1") == "gymnasium"  # it has no physics
    monkeypatch.setattr(processes, "most_cores", 1)  # other seeds have the others
    assert found() == "gymnasium"
    monkeypatch.setattr(processes, "most_cores", None)
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})  # it may have no children
    assert found() == "gymnasium"


def test_with_one_core_there_is_nothing_to_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 1)
    assert type(make_envs("CartPole-v1", 4, "split")) is SerialVectorEnv


def test_one_instance_cannot_be_several() -> None:
    with pytest.raises(ValueError, match="one environment instance cannot make 2 environments: pass a callable"):
        make_envs(ConstantReward(), 2)
    assert make_envs(ConstantReward(), 1).num_envs == 1


@pytest.mark.parametrize("number", [0, -1])
def test_there_is_at_least_one_environment(number: int) -> None:
    with pytest.raises(ValueError, match=f"num_envs must be at least 1, got {number}"):
        make_envs("CartPole-v1", number)


def test_a_callable_makes_every_environment_anew() -> None:
    envs = make_envs(partial(Counting, 3), 4)
    assert isinstance(envs, SyncVectorEnv)
    assert len({id(env) for env in envs.envs}) == 4
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_a_callable_must_return_an_environment() -> None:
    def wrong() -> Any:
        return "CartPole-v1"

    with pytest.raises(TypeError, match=r"must return a gymnasium\.Env, got str"):
        make_envs(wrong, 2)


def test_a_vector_environment_passes_as_it_is_but_is_not_one_environment() -> None:
    envs = SyncVectorEnv([ConstantReward] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    assert make_envs(envs, 7) is envs
    with pytest.raises(TypeError, match="got a vector environment"):
        make_one(envs)


@pytest.mark.parametrize("backend", ["gymnasium", "compiled"])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_our_vector_environment_does_what_gymnasiums_does(env: str, backend: str) -> None:
    ours, theirs = make_envs(env, 3, backend), SyncVectorEnv([lambda: gym.make(env)] * 3)
    theirs.action_space.seed(0)
    for _ in range(2):  # a second reset, in the middle of episodes
        first, second = ours.reset(seed=[1, 2, 3])[0], theirs.reset(seed=[1, 2, 3])[0]  # pyright: ignore[reportArgumentType]
        np.testing.assert_array_equal(first, second)
        ends = 0
        for _ in range(250):
            actions = theirs.action_space.sample()
            a, b = ours.step(actions)[:4], theirs.step(actions)[:4]
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y)
            ends += int((b[2] | b[3]).sum())
        assert ends >= 3


def test_training_environments_draw_nothing() -> None:
    envs = make_envs("CartPole-v1", 2, "gymnasium")
    assert isinstance(envs, SyncVectorEnv)
    assert [env.render_mode for env in envs.envs] == [None, None]


def test_names() -> None:
    assert env_name("CartPole-v1") == env_name(gym.make("CartPole-v1")) == "CartPole-v1"
    assert env_name(ConstantReward) == env_name(ConstantReward()) == "ConstantReward"
    assert env_name(lambda: Chain([1.0])) == "lambda"


class WrongShape(ConstantReward):
    """Its space promises more numbers than its steps give."""

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        return np.asarray(obs).reshape(-1)[:1], *rest


def test_an_observation_of_another_shape_than_the_space_says_is_refused() -> None:
    class Wide(WrongShape):
        observation_space = gym.spaces.Box(-1.0, 1.0, (4,))

        def reset(self, **kwargs: Any) -> Any:
            super().reset(**kwargs)
            return np.zeros(4, np.float32), {}

    def make() -> gym.Env:
        env = Wide()
        env.observation_space = Wide.observation_space
        return env

    envs = make_envs(make, 2)
    envs.reset()
    with pytest.raises(ValueError, match=r"observation of shape \(1,\), .* has \(4,\), at step 0"):
        envs.step(np.zeros(2, int))


def test_a_missing_physics_engine_is_named_with_the_extra_that_brings_a_tested_one(monkeypatch) -> None:
    def missing(*_, **__):
        raise gym.error.DependencyNotInstalled('MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`')

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(ValueError, match=r'Hopper-v5 needs a package that is not installed.*"policygrad\[mujoco\]"'):
        make_one("Hopper-v5")
