"""Which registered environment it is: callables, wrappers and vector environments keep their preset, or it is said why not."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import (
    FlattenObservation,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    TimeLimit,
    TransformReward,
)

import policygrad as pg
from policygrad.envs.advice import AdviceWarning
from policygrad.envs.naming import HandedOut, identify, registered_task

ID = "CartPole-v1"
TUNED = 1e-3  # the learning rate of ppo's preset; the default is 3e-4


def pole() -> gym.Env:
    return gym.make(ID)


def halved() -> gym.Env:
    return TransformReward(pole(), lambda rew: 0.5 * rew)


def neutral() -> gym.Env:
    return RecordEpisodeStatistics(TimeLimit(pole(), 500))


class Own(gym.Env):
    """Registered nowhere."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)

    def reset(self, **_: Any) -> Any:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, True, False, {}


@pytest.mark.parametrize(
    ("env", "name"),
    [
        (ID, ID),
        (pole, ID),
        (lambda: pole(), ID),
        (neutral, ID),
        (lambda: gym.make(ID, render_mode="rgb_array"), ID),
        (lambda: SyncVectorEnv([pole] * 4), ID),
        (lambda: SyncVectorEnv([neutral] * 2), ID),
        (lambda: gym.wrappers.vector.RecordEpisodeStatistics(SyncVectorEnv([pole] * 2)), ID),
        (lambda: gym.make_vec(ID, 2), ID),
        (lambda: gym.make_vec(ID, 2, vectorization_mode="sync"), ID),
    ],
)
def test_the_preset_is_taken_through_what_changes_nothing(env: Any, name: str) -> None:
    made = env() if callable(env) and "Vector" in str(getattr(env, "__code__", "").__class__) else env
    if callable(env) and env.__name__ == "<lambda>" and isinstance(first := env(), gym.vector.VectorEnv):
        made = first
    agent = pg.ppo(made, hidden=(2,))
    assert (agent.tuned, agent.config["lr"], agent.env_name) == (True, TUNED, name)
    agent.close()


@pytest.mark.parametrize(
    "env",
    [halved, lambda: SyncVectorEnv([halved] * 2), lambda: FlattenObservation(pole())],
    ids=["reward", "vector", "obs"],
)
def test_it_is_not_taken_where_a_wrapper_may_change_the_task_and_that_is_said(env: Any) -> None:
    made = env() if isinstance(first := env(), gym.vector.VectorEnv) else env
    with pytest.warns(
        AdviceWarning, match=r"CartPole-v1 has a tuned preset, which was not taken, because \w+ may change"
    ):
        agent = pg.ppo(made, hidden=(2,))
    assert (agent.tuned, agent.config["lr"]) == (False, 3e-4)
    assert agent.env_name != ID  # a file that says CartPole-v1 would be loaded without the wrapper
    first.close()
    quiet = pg.ppo(env if made is env else env(), preset=ID, hidden=(2,))
    assert (quiet.tuned, quiet.config["lr"]) == (True, TUNED)
    assert pg.ppo(env if made is env else env(), preset={}, hidden=(2,)).config["lr"] == 3e-4


def test_an_environment_that_is_registered_nowhere_has_no_preset_and_no_warning() -> None:
    assert identify(Own).id is None
    assert identify(Own).name == "Own"
    assert not pg.ppo(Own, hidden=(2,)).tuned


def test_other_keywords_and_limits_keep_the_preset_but_not_the_name() -> None:
    """The name says how to make the environment again, from a file alone."""
    for make in (lambda: gym.make("FrozenLake-v1", is_slippery=False), lambda: TimeLimit(pole(), 50)):
        known = identify(make)
        assert known.preset in ("FrozenLake-v1", ID)
        assert known.name == "lambda"
    assert identify(lambda: gym.make("FrozenLake-v1")).name == "FrozenLake-v1"


def test_a_callable_is_called_as_often_as_there_are_environments() -> None:
    calls = []

    def make() -> gym.Env:
        calls.append(1)
        return pole()

    agent = pg.ppo(make, num_envs=3, num_steps=8, minibatches=1, hidden=(2,))
    assert len(calls) == 3
    agent.learn(24)
    assert len(calls) == 3
    first = HandedOut(make, None)
    assert first.__name__ == "make"


def test_the_numbers_are_those_of_the_id(tmp_path) -> None:
    """The same preset, seeds and steps: equal weights; and a file of it loads without the callable."""
    words: dict[str, Any] = {"num_envs": 2, "num_steps": 16, "minibatches": 1, "hidden": (4,), "steps": 64}
    one, other = (pg.ppo(env, backend="gymnasium", **words).learn() for env in (ID, lambda: pole()))
    assert one.policy.flat.tolist() == other.policy.flat.tolist()
    assert pg.load(other.save(tmp_path / "agent")).env_name == ID


def test_environments_in_other_processes_are_asked() -> None:
    envs = AsyncVectorEnv([pole, pole])
    try:
        assert identify(envs).preset == ID
    finally:
        envs.close()


def test_a_name_of_ones_own_is_in_files_and_keeps_the_preset(tmp_path) -> None:
    agent = pg.ppo(pole, name="my-pole", num_envs=1, num_steps=8, minibatches=1, hidden=(2,), steps=8)
    assert (agent.name, agent.env_name, agent.tuned) == ("my-pole", ID, True)
    assert repr(agent).startswith("ppo('my-pole'")
    run = pg.train(agent, root=tmp_path, episodes=1)
    assert run.path.parts[-3] == "my-pole"
    assert pg.load(run.path).env_name == ID  # the file still says how to make the environment
    assert "my-pole" in pg.plot(run).axes[0].get_title("left")
    with pytest.raises(pg.PolicygradError, match="name = 3 must be text"):
        pg.ppo(pole, name=3)


def test_an_object_of_a_family_is_not_what_its_id_would_be(tmp_path) -> None:
    race = gym.make("CarRacing-v3", continuous=False)
    with pytest.warns(AdviceWarning, match=r"lacks what its id alone would have \(grey 84 × 84 pixels of the road"):
        agent = pg.ppo(race, **SMALL)
    assert not agent.tuned
    assert agent.observation_space.shape == (96, 96, 3)
    path = agent.save(tmp_path / "race")
    with pytest.raises(ValueError, match="cannot be made from the file alone: pass env="):
        pg.load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pg.load(path, env=race).env_name == "CarRacing-v3, as given"
        pg.ppo(race, preset={}, **SMALL)


SMALL: dict[str, Any] = {"num_steps": 16, "minibatches": 1, "hidden": (4,)}


class Masked(gym.Wrapper):
    """A CartPole whose info says which actions are legal."""

    def reset(self, **given: Any) -> Any:
        obs, info = self.env.reset(**given)
        return obs, info | {"action_mask": np.ones(2, np.int8)}

    def step(self, action: Any) -> Any:
        obs, rew, terminated, truncated, info = self.env.step(action)
        return obs, rew, terminated, truncated, info | {"action_mask": np.ones(2, np.int8)}


class Contrib(CartPoleEnv):
    """A CartPole that sb3-contrib would ask for its masks."""

    def action_masks(self) -> np.ndarray:
        return np.ones(2, bool)


def test_masks_that_nobody_looks_at_are_pointed_out_once() -> None:
    agent = pg.ppo(lambda: Masked(pole()), preset={}, num_envs=2, **SMALL)
    with pytest.warns(AdviceWarning, match="mask_source='info' makes the policy keep to it") as said:
        agent.learn(100)
    assert len(said) == 1
    with pytest.warns(AdviceWarning, match=r"method action_masks\(\), which is not called"):
        pg.ppo(Contrib, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pg.ppo(lambda: Masked(pole()), preset={}, mask_source="info", **SMALL).learn(50)
        pg.ppo(pole, **SMALL).learn(50)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (lambda: NormalizeReward(pole()), "scales the rewards that evaluations count"),
        (lambda: NormalizeObservation(pole()), "take normalize_obs=True instead"),
        (gym.wrappers.vector.NormalizeReward(gym.make_vec(ID, 2)), "scales the rewards that evaluations count"),
    ],
)
def test_wrappers_that_standardise_are_advised_against(env: Any, says: str) -> None:
    with pytest.warns(AdviceWarning, match=says):
        pg.ppo(env, preset={}, **SMALL)


def limited() -> gym.Env:
    return gym.make(ID, max_episode_steps=20)


def other_pole() -> gym.Env:
    env = gym.make(ID)
    env.unwrapped.gravity = 1.0  # pyright: ignore[reportAttributeAccessIssue]
    return env


SAME = {
    "sync": lambda: SyncVectorEnv([pole] * 2),
    "async": lambda: AsyncVectorEnv([pole] * 2),
    "make_vec": lambda: gym.make_vec(ID, 2, vectorization_mode="sync"),
    "vector class": lambda: gym.make_vec(ID, 2),
    "recorded": lambda: gym.wrappers.vector.RecordEpisodeStatistics(SyncVectorEnv([pole] * 2)),
}
OTHER = {
    "limit": lambda: SyncVectorEnv([limited] * 2),
    "limit in processes": lambda: AsyncVectorEnv([limited] * 2),
    "one of them": lambda: SyncVectorEnv([pole, limited]),
    "one of them in processes": lambda: AsyncVectorEnv([pole, limited]),
    "wrapped": lambda: SyncVectorEnv([halved] * 2),
    "wrapped in processes": lambda: AsyncVectorEnv([halved] * 2),
    "keyword": lambda: gym.make_vec(ID, 2, vectorization_mode="sync", sutton_barto_reward=True),
    "keyword of a vector class": lambda: gym.make_vec(ID, 2, sutton_barto_reward=True),
    "changed": lambda: SyncVectorEnv([pole, other_pole]),
    "registered nowhere": lambda: SyncVectorEnv([Own]),
}


@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_a_vector_environment_is_a_registered_task_where_it_is_exactly_that(name: str) -> None:
    envs = (SAME | OTHER)[name]()
    try:
        assert registered_task(envs) == (ID if name in SAME else None)
        envs.reset(seed=0)
        envs.step(envs.action_space.sample())  # which is no change of a setting
        assert registered_task(envs) == (ID if name in SAME else None)
    finally:
        envs.close()


def test_an_agent_is_evaluated_in_the_task_of_its_vector_environment_and_asks_for_another() -> None:
    small = {"num_steps": 8, "minibatches": 1, "hidden": (2,), "preset": {}}
    agent = pg.ppo(SyncVectorEnv([pole] * 2), **small)
    assert agent.evaluate(3) == agent.evaluate(3, env=ID)
    with pytest.raises(ValueError, match="made from a vector environment: pass env="):
        pg.ppo(SyncVectorEnv([limited] * 2), **small).evaluate(3)
