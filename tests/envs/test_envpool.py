"""EnvPool against Gymnasium, fed with the same random numbers: the same episodes, not only the same distribution."""

from __future__ import annotations

import inspect
import math
import textwrap
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps
from gymnasium.envs.box2d import lunar_lander
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from policygrad.data import Rollout
from policygrad.envs import envpool as ours
from policygrad.envs import pools
from policygrad.envs.collector import Collector
from policygrad.envs.envpool import TESTED, EnvPoolVectorEnv, check_tested
from policygrad.envs.pools import Public, Raw, make_pool, raw_path_works
from policygrad.envs.serial import SerialVectorEnv
from policygrad.models.policy import make_policy

pytest.importorskip("envpool")

LUNAR = tuple(env_id for env_id in TESTED if env_id.startswith("LunarLander"))


class Twister:
    """C++'s std::mt19937 under std::uniform_real_distribution<double>, as libstdc++ has them: two draws a number."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.RandomState(seed)
        self.force: list[float] = []

    def number(self, low: float, high: float) -> float:
        first, second = (int(self.bits.randint(0, 2**32, dtype=np.uint32)) for _ in range(2))
        return (first + second * 2.0**32) / 2.0**64 * (high - low) + low

    def uniform(self, low: float, high: float, size: Any = None) -> Any:
        """What LunarLander calls, in EnvPool's order of drawing."""
        if size is not None:  # the heights of the ground; the five of the pad are not drawn
            return np.array([0.0 if 3 <= i <= 7 else self.number(low, high) for i in range(12)])
        if high != lunar_lander.INITIAL_RANDOM:
            return self.number(low, high)
        if not self.force:  # C++ may evaluate arguments from right to left, and does
            self.force = [self.number(low, high), self.number(low, high)]
        return self.force.pop()


class Twin(gym.Wrapper):
    """Gymnasium's environment drawing its random numbers as EnvPool's does."""

    def __init__(self, env_id: str, limit: int | None = None) -> None:
        env = gym.make(env_id, disable_env_checker=True)
        super().__init__(env if limit is None else TimeLimit(env.unwrapped, limit))
        self.env_id, self.twister = env_id, Twister(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.twister = Twister(seed)
        draw, bare = self.twister.number, self.env.unwrapped
        if self.env_id in LUNAR:
            bare._np_random = self.twister  # pyright: ignore[reportAttributeAccessIssue]
            return self.env.reset()
        self.env.reset(seed=0)
        if self.env_id == "CartPole-v1":
            state = np.array([draw(-0.05, 0.05) for _ in range(4)])
        elif self.env_id == "Acrobot-v1":
            state = np.array([draw(-0.1, 0.1) for _ in range(4)])
        else:
            state = np.array([draw(-0.6, -0.4), 0.0])
        bare.state = state  # pyright: ignore[reportAttributeAccessIssue]
        return bare._get_ob() if self.env_id == "Acrobot-v1" else state.astype(np.float32), {}  # pyright: ignore


@pytest.fixture
def _ground_of_envpool(monkeypatch: pytest.MonkeyPatch) -> None:
    """LunarLander's heights as the mean of three, where Gymnasium multiplies their sum by 0.33."""
    source = textwrap.dedent(inspect.getsource(lunar_lander.LunarLander.reset))
    assert source.count("0.33 * (") == 1
    source = source.replace("0.33 * (", "(1 / 3) * (").replace("super().reset(seed=seed)", "")
    namespace = dict(vars(lunar_lander))
    exec(source, namespace)
    monkeypatch.setattr(lunar_lander.LunarLander, "reset", namespace["reset"])


def random_action(space: gym.Space, rng: np.random.Generator) -> Any:
    if isinstance(space, gym.spaces.Discrete):
        return int(rng.integers(space.n))
    assert isinstance(space, gym.spaces.Box)
    return rng.uniform(-1.0, 1.0, space.shape).astype(np.float32)


def action_for(env: Twin, obs: np.ndarray, rng: np.random.Generator) -> Any:
    """Good enough to end episodes by the task, noisy enough to see every action."""
    lunar = env.env_id in LUNAR
    low = lunar and obs[1] < 0.5  # jolts on the ground multiply rounding errors without end
    if rng.random() < 0.2 and not low:
        return random_action(env.action_space, rng)
    if lunar:
        return lunar_lander.heuristic(env.unwrapped, obs)
    if env.env_id == "CartPole-v1":
        return int(rng.random() < 0.6)
    if env.env_id == "Acrobot-v1":
        return 0 if obs[5] < 0 else 2
    push = 1.0 if obs[1] >= 0 else -1.0
    return int(1 + push) if env.env_id == "MountainCar-v0" else np.array([push], np.float32)


def differences(env_id: str, seeds: list[int], rows: int) -> tuple[np.ndarray, int]:
    """Play both side by side: the largest differences of (obs, reward), and how many episodes terminated.

    The flags, and which rows are resets, must be the same.
    """
    envs = EnvPoolVectorEnv(env_id, len(seeds))
    twins = [Twin(env_id) for _ in seeds]
    rng = np.random.default_rng(0)
    obs, _ = envs.reset(seed=seeds)
    expected = [twin.reset(seed=seed)[0] for twin, seed in zip(twins, seeds, strict=True)]
    worst, ended, over = np.zeros(2), 0, [False] * len(seeds)
    worst[0] = np.abs(obs - np.stack(expected)).max()
    for _ in range(rows):
        actions = [action_for(twin, x, rng) for twin, x in zip(twins, expected, strict=True)]
        obs, rew, terminated, truncated, _ = envs.step(np.array(actions))
        for i, twin in enumerate(twins):
            if over[i]:
                expected[i], _ = twin.reset()
                row: tuple[Any, ...] = (0.0, False, False)
            else:
                expected[i], *row, _ = twin.step(actions[i])  # pyright: ignore
            assert (terminated[i], truncated[i]) == tuple(row[1:])
            ended += int(terminated[i])
            over[i] = bool(terminated[i] or truncated[i])
            worst = np.maximum(worst, (np.abs(obs[i] - expected[i]).max(), abs(rew[i] - float(row[0]))))
    envs.close()
    return worst, ended


@pytest.mark.parametrize("env_id", [env_id for env_id in TESTED if env_id not in LUNAR])
def test_classic_control_is_gymnasiums_to_rounding(env_id: str) -> None:
    # Gymnasium keeps MountainCarContinuous's state in float32, EnvPool in float64
    worst, terminated = differences(env_id, [3, 1, 2**31 - 1], 1200)
    assert worst.max() <= (0.0 if env_id in ("CartPole-v1", "MountainCar-v0") else 1e-4), worst
    assert terminated >= 3


@pytest.mark.parametrize(("env_id", "limit"), [("MountainCar-v0", 200), ("Acrobot-v1", 500)])
def test_time_limits_are_gymnasiums(env_id: str, limit: int) -> None:
    envs = EnvPoolVectorEnv(env_id, 2)
    envs.reset(seed=0)
    still = np.full(2, 1)  # no force
    flags = [envs.step(still)[2:4] for _ in range(2 * limit + 2)]
    ends = [i for i, (terminated, truncated) in enumerate(flags) if terminated.any() or truncated.any()]
    assert ends == [limit - 1, 2 * limit]  # one row of reset between them
    assert all(flags[i][1].all() and not flags[i][0].any() for i in ends)


@pytest.mark.parametrize("env_id", TESTED)
def test_limits_spaces_and_mode_are_gymnasiums(env_id: str) -> None:
    envs, env = EnvPoolVectorEnv(env_id, 3), gym.make(env_id)
    assert env.spec is not None
    assert envs.limit == env.spec.max_episode_steps
    assert (envs.single_observation_space, envs.single_action_space) == (env.observation_space, env.action_space)
    sync = SyncVectorEnv([lambda: gym.make(env_id)] * 3)
    assert (envs.observation_space, envs.action_space) == (sync.observation_space, sync.action_space)
    assert envs.spec is not None
    assert envs.spec.id == env_id
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    obs, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(obs)


def landing(env_id: str, seed: int) -> tuple[float, float]:
    """Play one episode side by side: the largest differences of observations before the first contact, and in all."""
    envs, twin, rng = EnvPoolVectorEnv(env_id, 1), Twin(env_id), np.random.default_rng(seed)
    obs, expected = envs.reset(seed=seed)[0], twin.reset(seed=seed)[0]
    air, worst, touched, over = 0.0, 0.0, False, False
    while not over:
        act = action_for(twin, expected, rng)
        obs, rew, terminated, truncated, _ = envs.step(np.array([act]))
        expected, reward, *flags, _ = twin.step(act)
        touched = touched or bool(expected[6:].any() or obs[0, 6:].any())
        worst = max(worst, float(np.abs(obs[0] - expected).max()))
        air = air if touched else worst
        over = any(flags) or bool(terminated[0] or truncated[0])
        if worst < 1e-3:
            assert (terminated[0], truncated[0]) == tuple(flags)
            assert rew[0] == pytest.approx(reward, abs=0.1)  # a hundred times differences of observations
    return air, worst


@pytest.mark.parametrize("env_id", LUNAR)
def test_lunar_lander_is_gymnasiums_landings_included_on_the_same_ground(
    env_id: str, request: pytest.FixtureRequest
) -> None:
    seeds = range(12)
    elsewhere = np.array([landing(env_id, seed) for seed in seeds])
    request.getfixturevalue("_ground_of_envpool")
    same_ground = np.array([landing(env_id, seed) for seed in seeds])
    assert elsewhere[:, 0].max() <= 1e-4, "in the air the ground does not matter"
    assert same_ground[:, 0].max() <= 1e-4
    # one jolt too many, and rounding errors are seen; another ground is seen in every landing
    assert (same_ground[:, 1] <= 1e-3).sum() >= 10
    assert (elsewhere[:, 1] <= 1e-3).sum() <= 3


@pytest.mark.parametrize("env_id", LUNAR)
def test_lunar_landers_ground_lies_one_per_cent_higher_than_gymnasiums_and_nothing_else_differs(env_id: str) -> None:
    envs, twin = EnvPoolVectorEnv(env_id, 1), Twin(env_id)
    obs, expected = envs.reset(seed=6)[0][0], twin.reset(seed=6)[0]
    air, over, over_there, reward, reward_there = 0, False, False, 0.0, 0.0
    while not (over and over_there):  # each on its own controls once one of them has touched the ground
        flying = not obs[6:].any() and not expected[6:].any() and not over
        if flying:
            np.testing.assert_allclose(obs, expected, atol=1e-4)
            air += 1
        if not over:
            act = lunar_lander.heuristic(twin.unwrapped, expected if flying else obs)
            stepped = envs.step(np.array([act]))
            obs, over = stepped[0][0], bool(stepped[2][0])
            reward = stepped[1][0]
        if not over_there:
            act = lunar_lander.heuristic(twin.unwrapped, expected)
            expected, reward_there, over_there, _, _ = twin.step(act)
    assert air > 50
    assert (reward, reward_there) == (100.0, 100.0), "both at rest"
    # the pad lies in a quarter of the picture's height, and heights are shown in halves of it
    assert obs[1] - expected[1] == pytest.approx(0.01 / 4 * 2, abs=1e-3)


def test_pendulum_is_not_gymnasiums_at_its_speed_limit() -> None:
    envs, env = EnvPoolVectorEnv("Pendulum-v1", 1), gym.make("Pendulum-v1").unwrapped
    obs = envs.reset(seed=3)[0][0].astype(float)
    env.reset(seed=0)
    slow, fast = [0.0], [0.0]
    for _ in range(190):
        push = np.array([2.0 if obs[2] >= 0 else -2.0], np.float32)
        env.state = np.array([math.atan2(obs[1], obs[0]), obs[2]])  # pyright: ignore[reportAttributeAccessIssue]
        obs = envs.step(push[None])[0][0].astype(float)
        difference = float(np.abs(env.step(push)[0] - obs).max())
        (fast if abs(obs[2]) == 8.0 else slow).append(difference)
    assert max(slow) <= 1e-5
    assert max(fast) > 1e-3


@pytest.mark.parametrize("limit", range(8, 20))
def test_an_end_in_the_last_allowed_step_is_both_terminated_and_truncated(limit: int) -> None:
    seeds: list[int | None] = list(range(6))
    envs = EnvPoolVectorEnv("CartPole-v1", len(seeds))
    envs.limit = limit
    twins = SyncVectorEnv([lambda: Twin("CartPole-v1", limit)] * len(seeds), autoreset_mode=AutoresetMode.NEXT_STEP)
    np.testing.assert_array_equal(envs.reset(seed=list(range(6)))[0], twins.reset(seed=seeds)[0])
    both = 0
    for _ in range(80):
        actions = np.zeros(len(seeds), int)
        *found, _ = envs.step(actions)
        *expected, _ = twins.step(actions)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        both += int((found[2] & found[3]).sum())
    if limit in (9, 10):
        assert both > 0


def played(envs: Any, rows: int, seed: int = 0) -> list[np.ndarray]:
    """What a fixed sequence of random actions leads to."""
    rng, space = np.random.default_rng(seed), envs.single_action_space
    actions = [np.array([random_action(space, rng) for _ in range(envs.num_envs)]) for _ in range(rows)]
    return [x.copy() for act in actions for x in envs.step(act)[:4]]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("env_id", TESTED)
def test_the_same_seed_gives_the_same_bits_whatever_the_threads_and_the_path(env_id: str) -> None:
    def collected(seed: Any, threads: int, raw: bool) -> list[np.ndarray]:
        envs = EnvPoolVectorEnv(env_id, 5, threads)
        assert envs.raw, "the installed version has the private calls"
        envs.raw = raw
        first = [envs.reset(seed=seed)[0].copy(), *played(envs, 150)]
        first += [envs.reset()[0].copy(), *played(envs, 50)]  # in the middle of episodes
        envs.close()
        return first

    reference = collected(3, 1, True)
    assert same(collected(3, 2, True), reference)
    assert same(collected([3, 4, 5, 6, 7], 1, True), reference)
    assert same(collected(3, 2, False), reference)
    assert not same(collected(4, 1, True), reference)


def test_a_seeded_reset_begins_anew_an_unseeded_one_goes_on_and_environments_differ() -> None:
    envs = EnvPoolVectorEnv("CartPole-v1", 3)
    first = envs.reset(seed=8)[0].copy()
    twins = [Twin("CartPole-v1") for _ in range(3)]
    np.testing.assert_array_equal(first, np.stack([twin.reset(seed=8 + i)[0] for i, twin in enumerate(twins)]))
    assert len(np.unique(first, axis=0)) == 3
    envs.step(np.zeros(3, int))
    np.testing.assert_array_equal(envs.reset()[0], np.stack([twin.reset()[0] for twin in twins]))
    np.testing.assert_array_equal(envs.reset(seed=8)[0], first)
    assert not np.array_equal(
        EnvPoolVectorEnv("CartPole-v1", 3).reset()[0], EnvPoolVectorEnv("CartPole-v1", 3).reset()[0]
    )


def test_paused_environments_sit_out_until_the_next_reset() -> None:
    seeds = [5, 6, 7, 8]
    envs = EnvPoolVectorEnv("CartPole-v1", 4)
    envs.limit = 12  # so that late ones are paused too
    twins = SerialVectorEnv([lambda: Twin("CartPole-v1", 12)] * 4)
    rng = np.random.default_rng(0)
    for episode in range(6):
        seed: Any = seeds if episode == 0 else None
        np.testing.assert_array_equal(envs.reset(seed=seed)[0], twins.reset(seed=seed)[0])
        paused = np.zeros(4, bool)
        for row in range(40):
            act = rng.integers(2, size=4)
            *found, _ = envs.step(act)
            *expected, _ = twins.step(act)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
            if row > 5:
                paused = paused | ((found[2] | found[3]) & (rng.random(4) < 0.5))
            envs.paused, twins.paused = paused, paused.copy()
        assert paused.any()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCarContinuous-v0"])
def test_collectors_gather_what_they_gather_from_gymnasium(env_id: str) -> None:
    envs = EnvPoolVectorEnv(env_id, 3)
    twins = SyncVectorEnv([lambda: Twin(env_id)] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
    found, expected = Collector(envs, seed=1), Collector(twins, seed=1)
    start = found.env_seeds[0] & (2**31 - 1)
    found.env_seeds = expected.env_seeds = [start, start + 1, start + 2]
    policy = make_policy(envs.single_observation_space, envs.single_action_space, hidden=(8,), seed=0)

    def pairs() -> list[tuple[Rollout, Rollout]]:
        both: list[tuple[Rollout, Rollout]] = [
            (roll_steps(found, policy, T), roll_steps(expected, policy, T)) for T in (30, 1, 97)
        ]
        return [
            *both,
            (roll_episodes(found, policy, 5), roll_episodes(expected, policy, 5)),
        ]

    for a, b in pairs():
        for field in (f for f in fields(Rollout) if f.name != "extra"):
            torch.testing.assert_close(getattr(a, field.name), getattr(b, field.name), rtol=1e-4, atol=1e-4)
        assert a.mask.any()
    assert (found.steps_done, found.episodes_done) == (expected.steps_done, expected.episodes_done)
    assert found.returns == pytest.approx(expected.returns, rel=1e-4)
    assert found.lengths == expected.lengths
    whole = [roll_episodes(found, policy, 4) for _ in range(2)]
    assert all(rollout.whole_episodes for rollout in whole)
    starts = torch.cat([rollout.obs[0] for rollout in whole])
    assert len(starts.unique(dim=0)) == 8, "every reset begins another episode"


def test_observations_belong_to_whoever_got_them() -> None:
    envs = EnvPoolVectorEnv("CartPole-v1", 2)
    kept = [envs.reset(seed=0)[0]]
    kept += [envs.step(np.zeros(2, int))[0] for _ in range(50)]
    assert len({x.tobytes() for x in kept}) == 51


@pytest.mark.parametrize("env_id", TESTED)
def test_the_private_calls_do_what_the_public_ones_do(env_id: str) -> None:
    raw_path_works.cache_clear()
    assert raw_path_works(env_id)


def swaps_rewards(self: Raw) -> Any:
    obs, rew, done, time = RAW_RECV(self)
    return obs, rew + 1e-6, done, time


def loses_order(self: Raw) -> Any:
    return tuple(x[::-1] for x in RAW_RECV(self))


def is_gone(self: Raw) -> Any:
    raise AttributeError("_recv")


RAW_RECV = Raw.recv


@pytest.mark.parametrize("broken", [swaps_rewards, loses_order, is_gone])
def test_private_calls_that_do_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    good = EnvPoolVectorEnv("CartPole-v1", 3)
    monkeypatch.setattr(Raw, "recv", broken)
    raw_path_works.cache_clear()
    try:
        envs = EnvPoolVectorEnv("CartPole-v1", 3)
        assert not envs.raw
        start = envs.reset(seed=0)[0].copy()
        found = played(envs, 50)
        assert isinstance(envs._parts[0].pool, Public)
    finally:
        monkeypatch.undo()
        raw_path_works.cache_clear()
    np.testing.assert_array_equal(good.reset(seed=0)[0], start)
    assert isinstance(good._parts[0].pool, Raw)
    assert same(played(good, 50), found)


def test_private_calls_with_other_keys_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        _state_keys, _action_keys = ("obs", "reward", "done", "elapsed_step"), ("env_id", "action")

    with pytest.raises(ValueError, match="unknown actions"):
        Raw(Other())
    monkeypatch.setattr(pools, "make_pool", lambda *args: Other())
    raw_path_works.cache_clear()
    assert not raw_path_works("CartPole-v1")
    raw_path_works.cache_clear()


def test_a_step_that_was_interrupted_needs_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = EnvPoolVectorEnv("CartPole-v1", 2)
    envs.reset(seed=0)

    def interrupted(self: Raw) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Raw, "recv", interrupted)
        with pytest.raises(KeyboardInterrupt):
            envs.step(np.zeros(2, int))
    with pytest.raises(RuntimeError, match="reset the environments first"):
        envs.step(np.zeros(2, int))
    envs.reset()
    assert [envs.step(np.zeros(2, int))[1].tolist() for _ in range(3)] == [[1.0, 1.0]] * 3


def test_nothing_is_stepped_before_a_reset_or_after_closing() -> None:
    envs = EnvPoolVectorEnv("CartPole-v1", 2)
    with pytest.raises(RuntimeError, match="reset the environments first"):
        envs.step(np.zeros(2, int))
    envs.reset(seed=0)
    envs.close()
    with pytest.raises(RuntimeError, match="reset the environments first"):
        envs.step(np.zeros(2, int))


def test_what_cannot_be_played_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for env_id in TESTED:
        check_tested(env_id)
    with pytest.raises(ValueError, match=r"EnvPool's Pendulum-v1 is not used .*: EnvPool moves the pendulum before"):
        check_tested("Pendulum-v1")
    with pytest.raises(ValueError, match=r"has not been compared with Gymnasium's\. Take backend='gymnasium'"):
        check_tested("CartPole-v0")
    with pytest.raises(ValueError, match="EnvPool has no MyCar-v0: take backend='gymnasium'"):
        make_pool("MyCar-v0", [0], 1)
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        EnvPoolVectorEnv("CartPole-v1", 0)
    with pytest.raises(TypeError, match="EnvPool's FrozenLake-v1 is not supported: expected a Box to observe"):
        EnvPoolVectorEnv("FrozenLake-v1", 1)
    with pytest.raises(TypeError, match=r"EnvPool's CartPole-v1 shows float32 \(4,\), Gymnasium's float32 \(5,\)"):
        ours.check_interface("CartPole-v1", gym.spaces.Box(-1.0, 1.0, (5,)), gym.spaces.Discrete(2))
    envs = EnvPoolVectorEnv("CartPole-v1", 2)
    with pytest.raises(ValueError, match="expected 2 seeds, one per environment, got 3"):
        envs.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="EnvPool has no reset options"):
        envs.reset(options={"reset_mask": np.ones(2, bool)})
    monkeypatch.setattr(ours, "installed", lambda: False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install policygrad\[envpool\]"):
        EnvPoolVectorEnv("CartPole-v1", 2)


def test_what_is_chosen_automatically_has_been_tested() -> None:
    assert set(ours.FASTER) <= set(TESTED)
    assert set(ours.DIFFERENT).isdisjoint(TESTED)
    assert ours.default_threads("CartPole-v1", 64) == 1
    assert 1 <= ours.default_threads("LunarLander-v3", 2) <= 2
