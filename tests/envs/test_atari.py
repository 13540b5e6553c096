"""Atari games as they are prepared: against the wrappers of Gymnasium and Stable-Baselines3, and played again to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import policygrad as pg
from policygrad.algorithms.config import resolve
from policygrad.cli.reports import preset
from policygrad.envs import families
from policygrad.envs.checks import singles
from policygrad.envs.collector import Collector
from policygrad.envs.families import preparation
from policygrad.envs.make import make_envs, resolve_backend
from policygrad.envs.scores import game_of
from policygrad.envs.shaping import unshaped
from policygrad.envs.single import check_env_id, make_one
from policygrad.training.evaluate import evaluate

pytest.importorskip("ale_py")
pytest.importorskip("cv2")

BREAKOUT = "ALE/Breakout-v5"
CALM = {"noop_max": 0, "repeat_action_probability": 0.0}


def actions(count: int, choices: int = 4, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).integers(0, choices, count).tolist()


def played(env: gym.Env, given: list[int], seed: int = 3) -> list[tuple[Any, ...]]:
    """What is shown and given, resets included."""
    obs, _ = env.reset(seed=seed)
    out: list[tuple[Any, ...]] = [(np.array(obs), 0.0, False, False)]
    for action in given:
        obs, rew, terminated, truncated, _ = env.step(action)
        out.append((np.array(obs), float(rew), terminated, truncated))
        if terminated or truncated:
            out.append((np.array(env.reset()[0]), 0.0, False, False))
    return out


def same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(one, other, strict=True)
    )


def test_the_preprocessing_is_gymnasiums() -> None:
    """Without lives, signs and FIRE, and without the seeds of later games, it is nothing else."""
    ours = make_one("ALE/Pong-v5", fire=False, life_loss=False, clip_rewards=False, repeat_action_probability=0.25)
    bare = gym.make("ALE/Pong-v5", frameskip=1)
    theirs = gym.wrappers.FrameStackObservation(gym.wrappers.AtariPreprocessing(bare), 4)
    given = actions(60, 6)
    assert ours.observation_space == theirs.observation_space == gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert same(played(ours, given), played(theirs, given))
    assert not same(played(ours, given), played(theirs, given, seed=4))  # sticky actions and no-ops are the seed's


def test_lives_signs_and_fire_are_those_of_stable_baselines3() -> None:
    wrappers = pytest.importorskip("stable_baselines3.common.atari_wrappers")
    ours = make_one(BREAKOUT, **CALM, frame_stack=1)
    inner = gym.wrappers.AtariPreprocessing(gym.make(BREAKOUT, frameskip=1, repeat_action_probability=0.0), noop_max=0)
    theirs = wrappers.ClipRewardEnv(wrappers.FireResetEnv(wrappers.EpisodicLifeEnv(inner)))
    found, expected = played(ours, actions(230)), played(theirs, actions(230))
    assert same(found, expected)
    assert sum(row[2] for row in found) >= 4  # lives were lost, and the game went on
    without = played(make_one(BREAKOUT, **CALM, frame_stack=1, fire=False), actions(230))
    assert not same(without, expected)


def test_training_sees_lives_and_signs_and_evaluation_the_score() -> None:
    training, scored = make_one(BREAKOUT, **CALM), make_one(BREAKOUT, **CALM)
    given = actions(230)
    lives = [row[2] for row in played(training, given)]
    with unshaped(scored):
        game = [row[2] for row in played(scored, given)]
    assert sum(lives) >= 4
    assert sum(game) <= sum(lives) / 4
    (assault,) = singles(make_envs("ALE/Assault-v5"))  # whose hits are 21 points
    signs = {row[1] for row in played(assault, actions(120, 7))}
    with unshaped(assault):
        points = {row[1] for row in played(assault, actions(120, 7))}
    assert signs == {0.0, 1.0}
    assert max(points) > 1.0


class Presser:
    """An actor that takes the actions of a list in turn, for every environment the same."""

    stateful = begins_once = False
    encoding = None

    def __init__(self, given: list[int]) -> None:
        self.given, self.at = given, 0

    def noise(self, rng: Any, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape)

    def act(self, obs: Any, state: Any, noise: Any) -> Any:
        self.at += 1
        return np.full(len(obs), self.given[self.at % len(self.given)]), None, {}

    def mode(self, obs: Any, state: Any = None) -> Any:
        return self.act(obs, state, None)[:2]

    def to_env(self, act: Any) -> Any:
        return act


@pytest.mark.parametrize("backend", ["gymnasium", "split"])
def test_statistics_are_scores_of_whole_games(backend: str) -> None:
    envs = make_envs(BREAKOUT, 2, backend)
    collector = Collector(envs, 0)
    actor: Any = Presser(actions(97))
    records = [collector.steps(actor, 130) for _ in range(3)]
    ends = sum(int(record.terminated.sum()) for record in records)
    assert 1 <= collector.episodes_done <= ends / 3
    assert [ret for record in records for ret, _ in record.finished] == list(collector.returns)
    # a game has at least as many steps as its lives, and the first ones began with the first record
    assert all(length > 60 for length in collector.lengths)
    assert {float(x) for record in records for x in record.rew.ravel()} <= {0.0, 1.0}
    envs.close()


def test_evaluations_play_whole_games() -> None:
    evaluation = evaluate(Presser(actions(97)), BREAKOUT, episodes=1, num_envs=1)  # pyright: ignore
    env = make_one(BREAKOUT)
    env.reset(seed=10_000)
    score, steps, actor = 0.0, 0, Presser(actions(97))
    with unshaped(env):
        while True:
            _, rew, terminated, truncated, _ = env.step(int(actor.mode(np.zeros((1, 1)))[0][0]))
            score, steps = score + float(rew), steps + 1
            if terminated or truncated:
                break
    assert (evaluation.returns, evaluation.lengths) == ((score,), (steps,))
    game = game_of(env)
    assert game is not None
    assert game.scores[0][0] == score


def test_a_game_in_the_middle_of_its_lives_is_played_again_to_the_last_bit() -> None:
    given = np.random.default_rng(5).integers(0, 4, (200, 2))

    def go(envs: Any, first: int, stop: int) -> list[np.ndarray]:
        return [
            np.concatenate([np.ravel(x) for x in envs.step(row)[:4]], dtype=np.float64) for row in given[first:stop]
        ]

    envs = make_envs(BREAKOUT, 2)
    envs.reset(seed=[1, 2])
    before: Any = go(envs, 0, 130)
    snapshots: Any = envs.snapshot()  # pyright: ignore
    assert sum(int(x[-4:-2].sum()) for x in before) >= 4  # lives that were lost
    assert max(len(snapshot["actions"]) for snapshot in snapshots) > 100  # of the whole game
    expected = go(envs, 130, 200)
    for other in (envs, make_envs(BREAKOUT, 2)):
        assert other.restore(snapshots) == [None, None]  # pyright: ignore
        assert other.scores() == [[], []]  # pyright: ignore
        assert all(map(np.array_equal, go(other, 130, 200), expected))


def test_without_preparation_it_is_the_registered_environment() -> None:
    env = make_one(BREAKOUT, preprocess=False)
    assert env.observation_space.shape == (210, 160, 3)
    assert game_of(env) is None
    assert preparation(BREAKOUT, {"preprocess": False}) is None
    assert "lost life" in str(preparation(BREAKOUT))
    assert make_one(BREAKOUT, screen_size=64, grayscale=False, frame_stack=2).observation_space.shape == (2, 64, 64, 3)
    assert make_one("PongNoFrameskip-v4").observation_space.shape == (4, 84, 84)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"frame_skip": 0}, "frame_skip must be at least 1"),
        ({"noop_max": -1}, "noop_max"),
        ({"frameskip": 2}, "give frame_skip"),
    ],
)
def test_keywords_out_of_range_are_refused(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_one(BREAKOUT, **keywords)


@pytest.fixture
def without_ale(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(families, "import_module", missing)
    return iter(())  # pyright: ignore


@pytest.mark.usefixtures("without_ale")
@pytest.mark.parametrize(("env", "extra"), [("ALE/Pong-v5", "atari"), ("MiniGrid-Empty-5x5-v0", "minigrid")])
def test_a_package_that_is_missing_is_named_with_the_extra_that_has_it(env: str, extra: str) -> None:
    with pytest.raises(ValueError, match=rf'pip install "policygrad\[{extra}\]"'):
        check_env_id(env)


def test_presets_are_those_of_the_environment_or_of_its_family() -> None:
    found = {}
    for env in ("MiniGrid-DoorKey-6x6-v0", "MiniGrid-Empty-5x5-v0", "ALE/Pong-v5", "ALE/Breakout-v5"):
        found[env], tuned = resolve("ppo", env, {})
        assert tuned
        said = preset("ppo", env, found[env], tuned)
        assert said.startswith("tuned preset for MiniGrid-D" if "Door" in env else "common settings for ")
    assert [config["steps"] for config in found.values()] == [300_000, 500_000, 10_000_000, 10_000_000]
    assert found["ALE/Pong-v5"] == found["ALE/Breakout-v5"]
    assert found["ALE/Breakout-v5"]["hidden"] == ()
    assert not resolve("npg", "ALE/Breakout-v5", {})[1]
    assert resolve_backend("ALE/Breakout-v5", "gymnasium") == "gymnasium"


def test_an_agent_of_a_game_saves_and_loads_with_its_preparation(tmp_path: Any) -> None:
    agent = pg.ppo("ALE/Pong-v5", num_envs=1, num_steps=4, epochs=1, minibatches=1, env_kwargs={"screen_size": 36})
    agent.learn(4)
    again = pg.load(agent.save(tmp_path / "pong"))
    assert again.envs.single_observation_space.shape == (4, 36, 36)
    obs = np.zeros((4, 36, 36), np.uint8)
    assert agent.predict(obs, deterministic=True)[0] == again.predict(obs, deterministic=True)[0]
