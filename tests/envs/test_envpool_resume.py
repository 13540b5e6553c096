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
from policygrad.envs import calls, envpool
from policygrad.envs.envpool import EnvPoolVectorEnv, Public, installed

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

    def step(self, act: np.ndarray, ids: np.ndarray) -> tuple[Any, ...]:
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
        monkeypatch.setattr(envpool, "make_pool", Pool)
        monkeypatch.setattr(envpool, "raw_path_works", lambda env_id: False)
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
    assert isinstance(whole.envs._pool, Public) or installed()


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
