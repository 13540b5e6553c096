"""What EnvPool steps goes on exactly: the pool is made again and asked the same. A stub stands for it where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from explicit import same_state

import policygrad as pg
from policygrad.envs import calls, envpool, pools
from policygrad.envs.adapters import to_tensors
from policygrad.envs.envpool import EnvPoolVectorEnv, installed
from policygrad.envs.pools import Public

STUB = "stub"


class Pool:
    """EnvPool's interface: generators that only its making seeds, and that every episode draws from."""

    observation_space = None

    def __init__(self, env_id: str, seeds: list[int], num_threads: int) -> None:
        self.envs = [gym.make(env_id).unwrapped for _ in seeds]
        for env, seed in zip(self.envs, seeds, strict=True):
            env.reset(seed=seed)
        self.over, self.time = np.zeros(len(seeds), bool), np.zeros(len(seeds), int)

    def reset(self, ids: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        self.over[ids], self.time[ids] = False, 0
        return np.stack([self.envs[i].reset()[0] for i in ids]), {}

    def send(self, act: np.ndarray, ids: np.ndarray) -> None:
        self.sent = act.copy(), ids.copy()

    def recv(self) -> tuple[Any, ...]:
        act, ids = self.sent
        obs, rew = np.zeros((len(ids), *self.envs[0].observation_space.shape), np.float32), np.zeros(len(ids))  # pyright: ignore
        for k, i in enumerate(ids):
            if self.over[i]:
                obs[k] = self.reset(ids[k : k + 1])[0][0]
                continue
            given = int(act[k]) if act.ndim == 1 else act[k]
            obs[k], rew[k], self.over[i], _, _ = self.envs[i].step(given)
            self.time[i] += 1
        return (
            obs,
            rew.astype(np.float32),
            self.over[ids].copy(),
            np.zeros(len(ids), bool),
            {"elapsed_step": self.time[ids].copy()},
        )


@pytest.fixture(params=[STUB, pytest.param("real", marks=pytest.mark.skipif(not installed(), reason="EnvPool"))])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == STUB:
        monkeypatch.setattr(envpool, "installed", lambda: True)
        for module in (envpool, pools):
            monkeypatch.setattr(module, "make_pool", Pool)
            monkeypatch.setattr(module, "raw_path_works", lambda env_id: False)
        monkeypatch.setattr("policygrad.training.loading.installed", lambda: True)
        envpool._first_observation.cache_clear()
    yield
    envpool._first_observation.cache_clear()


def play(envs: Any, rows: int, seed: int = 0) -> list[np.ndarray]:
    rng, space = np.random.default_rng(seed), envs.single_action_space
    discrete = isinstance(space, gym.spaces.Discrete)
    size = (rows, envs.num_envs) if discrete else (rows, envs.num_envs, *space.shape)
    actions = rng.integers(space.n, size=size) if discrete else rng.uniform(-1, 1, size).astype(np.float32)
    return [x.copy() for act in actions for x in envs.step(act)[:4]]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCarContinuous-v0"])
def test_a_pool_that_is_asked_the_same_is_where_it_was_resets_pauses_and_time_limits_included(env_id: str) -> None:
    envs, other = EnvPoolVectorEnv(env_id, 3), EnvPoolVectorEnv(env_id, 3)
    envs.limit = other.limit = 9  # ends that EnvPool does not know of
    assert envs.snapshot() == envs.snapshot(marked=True) == [None] * 3
    envs.reset()  # on seeds that nobody chose
    play(envs, 20)
    envs.paused = np.array([False, True, False])
    play(envs, 12)
    envs.reset()
    play(envs, 5, seed=1)
    envs.mark()
    middle, shown = play(envs, 7, seed=2), envs.snapshot()
    for marked, expected in ((True, middle), (False, [])):
        assert other.restore(envs.snapshot(marked)) == [None] * 3
        assert same(play(other, 7, seed=2) if marked else [], expected)
    assert same(play(other, 30, seed=3), play(envs, 30, seed=3))
    envs.close()
    assert same_state(envs.snapshot()[0]["seed"], shown[0]["seed"])  # pyright: ignore  it can be told after closing


@pytest.mark.usefixtures("pool")
def test_what_was_not_asked_of_a_pool_is_refused_and_what_leads_elsewhere_is_noticed() -> None:
    envs, other = EnvPoolVectorEnv("CartPole-v1", 2), EnvPoolVectorEnv("CartPole-v1", 2)
    envs.reset(seed=1)
    play(envs, 8)
    good: Any = envs.snapshot()
    assert other.restore(good) == [None] * 2
    wrong = {
        "seed": [good[0] | {"seed": 3}, good[1]],
        "actions": [good[0] | {"actions": good[0]["actions"] + 2}, good[1]],
        "shape": [good[0] | {"actions": good[0]["actions"][:-1]}, good[1]],
        "unknown": [None, good[1]],
        "another backend's": [{k: v for k, v in each.items() if k != "asked"} for each in good],
    }
    for name, snapshots in wrong.items():
        assert any(other.restore(snapshots)), name
    assert other.restore(wrong["seed"]) == ["the same actions lead to another observation", None]
    assert other.restore(good) == [None] * 2


RUNS: dict[str, dict[str, Any]] = {"ppo": {"num_steps": 16, "epochs": 1}, "reinforce": {"episodes": 5}}


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("algo", RUNS)
def test_learning_in_two_halves_is_learning_at_once_pools_that_are_made_anew_included(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MOST", 150)
    make = lambda: pg.Agent(algo, "CartPole-v1", seed=3, backend="envpool", num_envs=3, hidden=(8,), **RUNS[algo])  # noqa: E731
    seeds: list[tuple[int, ...]] = []

    def stop(agent: Any, row: Any) -> None:
        seeds.append(tuple(agent.envs._calls.seeds))
        agent.trainer.leave = len(seeds) == 3

    whole, half = make().learn(700), make().learn(700, stop)
    path = half.save(tmp_path / "half")
    half.go_on(lambda agent, row: seeds.append(tuple(agent.envs._calls.seeds)))
    loaded = pg.load(path)
    assert isinstance(loaded.envs, EnvPoolVectorEnv)
    loaded.go_on()
    for other in (half, loaded):
        assert same_state(other.state_dict(), whole.state_dict())
    assert len(set(seeds)) > 2, "the pool was made anew on the way"
    assert isinstance(whole.envs, EnvPoolVectorEnv)
    assert isinstance(whole.envs._parts[0].pool, Public) or installed()


@pytest.mark.usefixtures("pool")
def test_ctrl_c_while_a_pool_is_asked_again_leaves_it_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = pg.a2c("CartPole-v1", backend="envpool", num_envs=2, num_steps=8, hidden=(8,)).learn(64)
    loaded = pg.load(agent.save(tmp_path / "half"))
    before = loaded.state_dict()

    def interrupted(self: Any, actions: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EnvPoolVectorEnv, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loaded.collector.restore()
    assert same_state(loaded.state_dict(), before)
    assert same_state(loaded.learn(64).state_dict(), agent.learn(64).state_dict())


class Cycling:
    """Acts by the observation and the noise of its rows, of which it expects so many."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, obs: np.ndarray, state: None, noise: np.ndarray) -> tuple[np.ndarray, None, dict[str, Any]]:
        assert len(obs) == len(noise) == self.rows
        return (obs.sum(-1) + noise > 0.1).astype(np.int64), None, {}


@pytest.mark.usefixtures("pool")
def test_acting_for_one_half_while_the_other_is_stepped_is_stepping_them_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(envpool, "CLASSIC_CONTROL", ())  # so that these are in two pools, too
    halves, other = EnvPoolVectorEnv("CartPole-v1", 5), EnvPoolVectorEnv("CartPole-v1", 5)
    halves.limit = other.limit = 10  # ends that EnvPool does not know of
    noise = np.random.default_rng(0).uniform(size=(60, 5))
    obs = np.zeros((61, 5, 4), np.float32)
    obs[0] = halves.reset(seed=4)[0]
    shown = other.reset(seed=4)[0]
    acts, *rest = halves.roll([Cycling(3), Cycling(2)], lambda act: act, obs, noise)
    for t in range(60):
        given = Cycling(5)(shown, None, noise[t])[0]
        np.testing.assert_array_equal(acts[t], given)
        shown, *played, _ = other.step(given)
        np.testing.assert_array_equal(obs[t + 1], shown)
        for found, expected in zip(rest, played, strict=True):
            np.testing.assert_array_equal(found[t], expected)
    assert rest[1].any()
    assert rest[2].any(), "episodes ended by the task and by the limit"
    assert same_state(to_tensors(halves.snapshot()), to_tensors(other.snapshot()))
    again = EnvPoolVectorEnv("CartPole-v1", 5)
    again.limit = 10
    assert again.restore(halves.snapshot()) == [None] * 5
    assert same(play(again, 20), play(halves, 20))


@pytest.mark.usefixtures("pool")
def test_an_agent_acts_in_halves_and_a_rollout_that_was_interrupted_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envpool, "CLASSIC_CONTROL", ())

    def make() -> pg.Agent:
        return pg.Agent(
            "ppo", "CartPole-v1", seed=3, backend="envpool", num_envs=4, num_steps=16, hidden=(8,), epochs=1
        )

    agent, whole, calls = make(), make().learn(192), 0
    agent.learn(192, lambda agent, row: setattr(agent.trainer, "leave", True))
    before = agent.num_timesteps
    kind: Any = type(agent.envs._parts[0].pool)  # pyright: ignore[reportAttributeAccessIssue]
    receive = kind.recv

    def interrupted(self: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KeyboardInterrupt
        return receive(self)

    with monkeypatch.context() as patched:
        patched.setattr(kind, "recv", interrupted)
        with pytest.raises(KeyboardInterrupt):
            agent.go_on()
    assert (agent.num_timesteps, calls) == (before, 20)
    agent.go_on()
    assert same_state(agent.state_dict(), whole.state_dict())
