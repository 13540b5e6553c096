"""The collector against single environments stepped one by one, in every autoreset mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps, same, same_state
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from policygrad.algorithms.learner import Learner
from policygrad.data import Batch, Rollout
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain, Counting
from policygrad.envs.serial import SerialVectorEnv
from policygrad.gradient.estimators import GAE, RewardToGo
from policygrad.models.critic import make_critic
from policygrad.models.policy import Policy, make_policy
from policygrad.updates import VanillaGradient

MODES = list(AutoresetMode)
LENGTHS = (2, 3, 5)
MAKERS = [partial(Counting, 2), partial(Counting, 3, truncates=True), partial(Counting, 5)]

Maker = Callable[[], gym.Env]
Transition = tuple[Any, ...]


def vector(makers: Sequence[Maker], mode: AutoresetMode) -> VectorEnv:
    return SyncVectorEnv(makers, copy=False, autoreset_mode=mode)


def policy_for(env: Maker) -> Policy:
    example = env()
    return make_policy(example.observation_space, example.action_space, hidden=(8,), seed=3)


def emitted(rollout: Rollout, n: int) -> list[Transition]:
    """The valid rows of a column."""
    rows = rollout.mask[:, n].nonzero().squeeze(-1).tolist()
    names = ("act", "rew", "terminated", "truncated", "time")
    return [
        (
            tuple(rollout.obs[t, n].tolist()),
            tuple(rollout.next_obs[t, n].tolist()),
            *(getattr(rollout, name)[t, n].item() for name in names),
        )
        for t in rows
    ]


def reference(make: Maker, actions: Sequence[int]) -> list[Transition]:
    """What one environment does when it is given these actions and reset wherever it ends."""
    env, transitions, time = make(), [], 0
    obs, _ = env.reset(seed=0)
    for act in actions:
        next_obs, rew, terminated, truncated, _ = env.step(act)
        transitions.append((tuple(obs), tuple(next_obs), act, rew, terminated, truncated, time))
        obs, time = next_obs, time + 1
        if terminated or truncated:
            obs, time = env.reset()[0], 0
    return transitions


def check_against_single_environments(envs: VectorEnv, pieces: Sequence[int]) -> None:
    """`.steps` in pieces of these sizes: every column's valid rows are its environment's transitions, none missing."""
    policy = policy_for(MAKERS[0])
    collector = Collector(envs, seed=1)
    rollouts = [roll_steps(collector, policy, T) for T in pieces]
    rows = sum(pieces)
    events, steps = [], 0
    for n, (make, length) in enumerate(zip(MAKERS, LENGTHS, strict=True)):
        found = [transition for rollout in rollouts for transition in emitted(rollout, n)]
        expected = reference(make, [transition[2] for transition in found])
        assert found == expected
        steps += len(found)
        mask = torch.cat([rollout.mask[:, n] for rollout in rollouts])
        row = np.arange(rows)
        valid = row % (length + 1) < length if collector.mode is AutoresetMode.NEXT_STEP else np.ones(rows, bool)
        np.testing.assert_array_equal(mask.numpy(), valid)
        episodes = [expected[i : i + length] for i in range(0, len(expected) - length + 1, length)]
        when = valid.nonzero()[0]
        events += [(when[(i + 1) * length - 1], n, sum(t[3] for t in e), length) for i, e in enumerate(episodes)]
    events.sort()
    assert collector.steps_done == steps
    assert collector.episodes_done == len(events)
    assert list(collector.returns) == [e[2] for e in events][-100:]
    assert list(collector.lengths) == [e[3] for e in events][-100:]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pieces", [(40,), (7, 4, 1, 1, 1, 13, 2, 11), (1,) * 24], ids=["one", "uneven", "ones"])
def test_steps_are_those_of_single_environments(mode: AutoresetMode, pieces: Sequence[int]) -> None:
    check_against_single_environments(vector(MAKERS, mode), pieces)


@pytest.mark.parametrize("pieces", [(40,), (7, 4, 1, 1, 1, 13, 2, 11)], ids=["one", "uneven"])
def test_steps_of_the_vector_environment_of_our_own_are_the_same(pieces: Sequence[int]) -> None:
    check_against_single_environments(SerialVectorEnv(MAKERS), pieces)


def test_steps_of_environments_in_other_processes_are_the_same() -> None:
    envs = AsyncVectorEnv(MAKERS, context="spawn", autoreset_mode=AutoresetMode.NEXT_STEP)
    try:
        check_against_single_environments(envs, (7, 1, 13))
    finally:
        envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_rows_join_up_and_only_unfinished_episodes_are_cut(mode: AutoresetMode) -> None:
    collector = Collector(vector(MAKERS, mode), seed=1)
    policy = policy_for(MAKERS[0])
    previous = None
    for T in (5, 1, 6, 9):
        rollout = roll_steps(collector, policy, T)
        inside = (rollout.mask & ~rollout.end)[:-1]
        assert torch.equal(rollout.obs[1:-1][inside], rollout.next_obs[:-1][inside])
        expected = torch.zeros_like(rollout.cut)
        expected[-1] = rollout.mask[-1] & ~rollout.terminated[-1] & ~rollout.truncated[-1]
        assert torch.equal(rollout.cut, expected)
        if previous is not None:
            assert torch.equal(rollout.obs[0], previous)
        previous = rollout.obs[-1]


def test_the_layout_of_next_step_needs_no_second_pass() -> None:
    policy = policy_for(MAKERS[0])
    for mode in MODES:
        rollout = roll_steps(Collector(vector(MAKERS, mode)), policy, 6)
        assert (rollout.next_obs.data_ptr() == rollout.obs[1:].data_ptr()) == (mode is AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize("mode", MODES)
def test_a_rollout_belongs_to_whoever_collected_it(mode: AutoresetMode) -> None:
    collector = Collector(vector(MAKERS, mode))
    policy = policy_for(MAKERS[0])
    rollout = roll_steps(collector, policy, 6)
    before = deepcopy(rollout)
    collector.steps(policy, 6)
    assert same(rollout, before)


@pytest.mark.parametrize("mode", MODES)
def test_terminated_and_truncated_at_once_is_terminated(mode: AutoresetMode) -> None:
    make = partial(Chain, [1.0, 2.0, 3.0, 4.0], terminate_after=3, truncate_after=3)
    policy = policy_for(make)
    for rollout in (
        roll_steps(Collector(vector([make], mode)), policy, 9),
        roll_episodes(Collector(vector([make], mode)), policy, 2),
    ):
        assert rollout.terminated.sum() >= 2
        assert not rollout.truncated.any()
        assert (rollout.time[rollout.terminated] == 2).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_rollout_of_one_reset_row_teaches_nothing(mode: AutoresetMode) -> None:
    make = partial(Chain, [1.0, 2.0], terminate_after=1)
    policy = policy_for(make)
    learner = Learner(policy, GAE(), VanillaGradient(0.1), critic=make_critic(spaces.Box(0.0, 2.0, (1,)), hidden=(8,)))
    collector = Collector(vector([make] * 2, mode))
    valid = []
    for _ in range(4):
        before = policy.flat.clone()
        rollout = roll_steps(collector, policy, 1)
        stats = learner.step(rollout)
        valid.append(rollout.steps)
        assert (stats == {}) == torch.equal(policy.flat, before) == (rollout.steps == 0)
    assert valid == ([2, 0, 2, 0] if mode is AutoresetMode.NEXT_STEP else [2, 2, 2, 2])
    assert collector.steps_done == sum(valid)
    assert list(collector.lengths) == [1] * sum(valid)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 30])
def test_episodes_come_whole_one_a_column_by_fixed_quotas(mode: AutoresetMode, n: int) -> None:
    collector = Collector(vector(MAKERS, mode), seed=1)
    policy = policy_for(MAKERS[0])
    owners = [i for i in range(3) for _ in range(n // 3 + (i < n % 3))]
    lengths = [LENGTHS[i] for i in owners]
    done = 0
    for repeat in range(2):
        rollout = roll_episodes(collector, policy, n)
        T = max(lengths)
        assert rollout.mask.shape == (T, n)
        assert rollout.whole_episodes
        assert torch.equal(rollout.mask, torch.arange(T)[:, None] < torch.tensor(lengths))
        assert torch.equal(rollout.end, torch.arange(1, T + 1)[:, None] == torch.tensor(lengths))
        assert torch.equal(rollout.truncated.any(0), torch.tensor([i == 1 for i in owners]))
        for i, make in enumerate(MAKERS):
            columns = [column for column, owner in enumerate(owners) if owner == i]
            found = [transition for column in columns for transition in emitted(rollout, column)]
            expected = reference(make, [transition[2] for transition in found])
            if repeat == 0:  # from then on an environment has played more episodes than it was asked for
                assert found == expected
            assert [t[-1] for t in found] == [t[-1] for t in expected]
        done += n
        assert collector.episodes_done == done
        assert list(collector.lengths)[-n:] == lengths
        assert list(collector.returns)[-n:] == torch.where(rollout.mask, rollout.rew, 0.0).sum(0).tolist()
    assert collector.steps_done == 2 * sum(lengths)


@pytest.mark.parametrize("mode", MODES)
def test_long_episodes_are_whole_too(mode: AutoresetMode) -> None:
    makers = [partial(Counting, 130), partial(Counting, 64), partial(Counting, 63)]
    rollout = roll_episodes(Collector(vector(makers, mode)), policy_for(makers[0]), 5)
    assert rollout.mask.sum(0).tolist() == [130, 130, 64, 64, 63]
    for column, (make, nth) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]):
        found = emitted(rollout, column)
        length = len(found)
        played = [0] * (nth * length) + [transition[2] for transition in found]
        assert found == reference(makers[make], played)[nth * length :]


def test_steps_after_episodes_start_afresh() -> None:
    collector = Collector(vector(MAKERS, AutoresetMode.NEXT_STEP))
    policy = policy_for(MAKERS[0])
    collector.steps(policy, 4)
    collector.episodes(policy, 3)
    rollout = roll_steps(collector, policy, 2)
    assert (rollout.time[0] == 0).all()
    assert (rollout.obs[0, :, 1] == 0).all()
    assert rollout.mask.all()
    rollout = roll_episodes(collector, policy, 3)
    assert rollout.whole_episodes
    assert list(collector.returns)[-3:] == torch.where(rollout.mask, rollout.rew, 0.0).sum(0).tolist()


def patient(make: Maker, steps: int) -> Maker:
    """An environment that would rather fail than be stepped for ever."""

    class Patient(gym.Wrapper):
        left = steps

        def step(self, action: Any) -> Any:
            self.left -= 1
            assert self.left > 0, "stepped on and on"
            return self.env.step(action)

    return lambda: Patient(make())


@pytest.mark.parametrize("makers", [[], MAKERS], ids=["alone", "among others that end"])
def test_waiting_for_an_episode_that_never_ends_is_an_error(makers: list[Maker]) -> None:
    makers = [patient(make, 2000) for make in (*makers, partial(Counting, 10**9))]
    collector = Collector(vector(makers, AutoresetMode.NEXT_STEP), max_episode_steps=500)
    with pytest.raises(RuntimeError, match=r"did not end its episode in \d+ steps: give it a time limit"):
        collector.episodes(policy_for(makers[0]), len(makers))


class FirstShortThenEndless(Counting):
    """The first episode has 3 steps, the second no end."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        result = super().reset(seed=seed, options=options)
        self.length = 3 if self.episode == 0 else 10**9
        return result


def test_an_environment_that_has_played_its_quota_may_go_on_for_ever() -> None:
    makers = [partial(Counting, 400), partial(FirstShortThenEndless, 3)]
    rollout = roll_episodes(
        Collector(vector(makers, AutoresetMode.NEXT_STEP), max_episode_steps=500), policy_for(makers[0]), 3
    )
    assert rollout.mask.sum(0).tolist() == [400, 400, 3]


class PaysForResets(SyncVectorEnv):
    """A vector environment whose reset rows carry a reward, which is nobody's."""

    def step(self, actions: Any) -> Any:
        resetting = self._autoreset_envs.copy()
        obs, rew, *rest = super().step(actions)
        return obs, np.where(resetting, 1000.0, rew), *rest


def test_what_a_reset_row_carries_enters_no_statistic() -> None:
    makers = [partial(Chain, [1.0, 2.0, 3.0], terminate_after=3)] * 2
    collector = Collector(PaysForResets(makers, autoreset_mode=AutoresetMode.NEXT_STEP))
    policy = policy_for(makers[0])
    rollouts = [roll_steps(collector, policy, T) for T in (3, 2, 9)] + [roll_episodes(collector, policy, 4)]
    assert any((rollout.rew == 1000.0).any() for rollout in rollouts)
    assert all((rollout.rew[rollout.mask] < 1000.0).all() for rollout in rollouts)
    assert list(collector.returns) == [6.0] * collector.episodes_done
    assert collector.episodes_done == 10


def test_every_reset_begins_another_episode() -> None:
    policy = policy_for(lambda: gym.make("CartPole-v1"))
    collector = Collector(make_envs("CartPole-v1", 2))
    starts = torch.cat([roll_episodes(collector, policy, 4).obs[0] for _ in range(3)])
    assert len(starts.unique(dim=0)) == 12


def test_the_same_seed_collects_the_same_and_another_seed_or_environment_does_not() -> None:
    policy = policy_for(lambda: gym.make("CartPole-v1"))

    def collected(seed: int) -> list[Rollout]:
        collector = Collector(make_envs("CartPole-v1", 3), seed)
        return [
            roll_steps(collector, policy, 30),
            roll_steps(collector, policy, 30),
            roll_episodes(collector, policy, 4),
        ]

    first, again, other = collected(0), collected(0), collected(1)
    for a, b in zip(first, again, strict=True):
        assert same(a, b)
    assert not torch.equal(first[0].obs, other[0].obs)
    assert not torch.equal(first[0].act, other[0].act)
    assert not torch.equal(first[0].obs[0, 0], first[0].obs[0, 1])


def test_noise_differs_between_rollouts() -> None:
    make = partial(Chain, [1.0] * 4)
    collector = Collector(vector([make] * 4, AutoresetMode.NEXT_STEP))
    policy = policy_for(make)
    assert not torch.equal(roll_steps(collector, policy, 16).act, roll_steps(collector, policy, 16).act)


def test_a_loaded_collector_goes_on_with_the_same_noise_and_counters() -> None:
    make = partial(Chain, [1.0, 2.0, 3.0], truncate_after=5)
    policy = policy_for(make)
    collector = Collector(vector([make] * 2, AutoresetMode.NEXT_STEP), seed=0)
    collector.episodes(policy, 3)
    collector.steps(policy, 17)
    twin = Collector(vector([make] * 2, AutoresetMode.NEXT_STEP), seed=7)
    twin.load_state_dict(deepcopy(collector.state_dict()))
    assert same_state(twin.state_dict(), collector.state_dict())
    with pytest.warns(UserWarning, match="cannot be brought back"):  # Gymnasium's own vector environments
        a, b = roll_episodes(collector, policy, 5), roll_episodes(twin, policy, 5)
    assert same(a, b)
    assert same_state(twin.state_dict(), collector.state_dict())


class Recorder(gym.Env):
    """Keeps the actions it was given, each of which must be in its space; episodes of 7 steps."""

    def __init__(self, space: spaces.Space) -> None:
        self.observation_space, self.action_space = spaces.Box(-1.0, 1.0, (2,)), space
        self.given: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(np.asarray(action) if np.ndim(action) == 0 else action), action
        self.given.append(np.array(action))
        self.time += 1
        return np.zeros(2, np.float32), 0.0, self.time == 7, False, {}


def given(collector: Collector) -> np.ndarray:
    """The actions all environments were given, (steps, N, *); a reset row's action is not given to anybody."""
    assert isinstance(collector.envs, SyncVectorEnv)
    return np.stack([np.stack(env.given) for env in collector.envs.envs], 1)  # pyright: ignore[reportAttributeAccessIssue]


def test_discrete_actions_count_from_the_spaces_start() -> None:
    space = spaces.Discrete(3, start=-1)
    envs = vector([partial(Recorder, space)] * 2, AutoresetMode.NEXT_STEP)
    collector = Collector(envs)
    rollout = roll_steps(collector, make_policy(spaces.Box(-1.0, 1.0, (2,)), space), 200)
    assert set(rollout.act.unique().tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(given(collector), rollout.act[rollout.mask[:, 0]].numpy() - 1)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_box_actions_are_clipped_at_the_environments_edge_and_kept_raw(shape: tuple[int, ...], dtype: Any) -> None:
    space = spaces.Box(-0.5, 0.25, shape, dtype)
    collector = Collector(vector([partial(Recorder, space)] * 3, AutoresetMode.NEXT_STEP))
    policy = make_policy(spaces.Box(-1.0, 1.0, (2,)), space, log_std=1.0)
    rollout = roll_steps(collector, policy, 100)
    assert rollout.act.shape == (100, 3, *shape)
    raw = rollout.act[rollout.mask[:, 0]]
    np.testing.assert_array_equal(given(collector), np.clip(raw.numpy(), -0.5, 0.25))
    out_of_bounds = (raw < -0.5) | (raw > 0.25)
    assert out_of_bounds.float().mean() >= 0.5

    obs, act = rollout.obs[:-1][rollout.mask], rollout.act[rollout.mask]
    difference = policy.evaluate(Batch.of(obs, act)).logp - rollout.logp[rollout.mask]
    assert float(difference.abs().max()) <= 1e-6
    # the control: with clipped actions the first ratio would not be 1
    assert (
        float((policy.evaluate(Batch.of(obs, act.clamp(-0.5, 0.25))).logp - rollout.logp[rollout.mask]).abs().max())
        > 0.1
    )


class Poisoned(gym.Env):
    """Gives a non-finite number once: in a reward, an observation, the last observation of an episode, or a reset's."""

    def __init__(self, where: str, value: float, step: int = 4) -> None:
        self.where, self.value, self.step_number = where, value, step
        self.observation_space, self.action_space = spaces.Box(-np.inf, np.inf, (2,)), spaces.Discrete(2)
        self.resets = self.time = self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.resets, self.time = self.resets + 1, 0
        bad = (self.where == "first" and self.resets == 1) or (self.where == "reset" and self.resets == 2)
        return np.array([0.0, self.value if bad else 0.0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.time, self.steps = self.time + 1, self.steps + 1
        terminated = self.time == 6
        at = {"reward": 4, "observation": 4, "final": 6}.get(self.where) == self.steps
        obs = np.array([0.0, self.value if at and self.where != "reward" else 0.0], np.float32)
        return obs, self.value if at and self.where == "reward" else 1.0, terminated, False, {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["reward", "observation", "final", "reset", "first"])
@pytest.mark.parametrize("collect", ["steps", "episodes"])
def test_a_non_finite_number_stops_the_run_before_it_reaches_a_parameter(
    mode: AutoresetMode, value: float, where: str, collect: str
) -> None:
    makers = [partial(Poisoned, "nowhere", 0.0), partial(Poisoned, where, value)]
    policy = policy_for(makers[0])
    learner = Learner(
        policy, RewardToGo(), VanillaGradient(0.1), critic=make_critic(spaces.Box(-1.0, 1.0, (2,)), hidden=(8,))
    )
    collector = Collector(vector(makers, mode))
    before = policy.flat.clone()
    what = "reward" if where == "reward" else r"observation\[1\]"
    with pytest.raises(FloatingPointError, match=rf"{what} is {value} in environment 1, .*Nothing was updated"):
        learner.step(roll_steps(collector, policy, 12) if collect == "steps" else roll_episodes(collector, policy, 4))
    assert torch.equal(policy.flat, before)


def test_large_numbers_are_not_mistaken_for_infinite_ones() -> None:
    make = partial(Chain, [3e38, 3e38, 3e38], terminate_after=3)
    rollout = roll_steps(Collector(vector([make] * 2, AutoresetMode.NEXT_STEP)), policy_for(make), 3)
    assert torch.isfinite(rollout.rew).all()


def test_logp_is_that_of_the_policy_that_acted_in_the_states_it_acted_in() -> None:
    policy = policy_for(lambda: gym.make("Pendulum-v1"))
    rollout = roll_steps(Collector(make_envs("Pendulum-v1", 3)), policy, 20)
    mean, log_std = policy(rollout.obs[:-1].flatten(0, 1)).detach().split(1, -1)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(rollout.act.flatten(0, 1)).view(20, 3)
    torch.testing.assert_close(rollout.logp, expected, rtol=0, atol=1e-5)
    shifted = replace(rollout, logp=expected.roll(1, 0))
    assert not torch.allclose(shifted.logp, rollout.logp, atol=1e-3)


class Counted(gym.Wrapper):
    """Counts its steps."""

    steps = 0

    def step(self, action: Any) -> Any:
        type(self).steps += 1
        return super().step(action)


def test_every_step_of_our_environments_is_one_that_somebody_learns_from() -> None:
    class Meter(Counted):
        pass

    lengths = iter([2, 40, 100])
    envs = SerialVectorEnv([partial(lambda: Meter(Counting(next(lengths))))] * 3)
    collector = Collector(envs)
    for _ in range(2):
        rollout = roll_episodes(collector, policy_for(MAKERS[0]), 7)
    assert Meter.steps == collector.steps_done == 2 * (3 * 2 + 2 * 40 + 2 * 100)
    assert rollout.whole_episodes
    before = Meter.steps
    assert roll_episodes(collector, policy_for(MAKERS[0]), 1).steps == Meter.steps - before == 2
    collector.steps(policy_for(MAKERS[0]), 10)
    assert not envs.paused.any()


def test_a_native_vector_environment_is_seeded_by_one_number() -> None:
    envs = [gym.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point") for _ in range(2)]
    policy = policy_for(lambda: gym.make("CartPole-v1"))
    first, second = (roll_steps(Collector(e, seed=5), policy, 30) for e in envs)
    assert torch.equal(first.obs, second.obs)
    assert first.steps < 120  # there were reset rows


def test_after_loading_the_environments_are_where_they_were() -> None:
    policy = policy_for(lambda: gym.make("CartPole-v1"))
    collector = Collector(make_envs("CartPole-v1", 2), seed=1)
    roll_steps(collector, policy, 30)
    twin = Collector(make_envs("CartPole-v1", 2), seed=7)
    twin.load_state_dict(collector.state_dict())
    assert same(roll_steps(twin, policy, 30), roll_steps(collector, policy, 30))


def test_environments_that_cannot_be_played_again_begin_new_episodes_and_say_so() -> None:
    policy = policy_for(lambda: gym.make("CartPole-v1"))
    collector = Collector(SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2), seed=1)
    first = roll_steps(collector, policy, 30)
    again = []
    for _ in range(2):
        twin = Collector(SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2), seed=1)
        twin.load_state_dict(collector.state_dict())
        with pytest.warns(UserWarning, match="environment 0 of 2 .*: all of them begin new episodes"):
            again.append(roll_steps(twin, policy, 30))
    assert torch.equal(again[0].obs, again[1].obs)
    assert not torch.equal(again[0].obs[0], first.obs[0])
    assert torch.equal(again[0].time[0], torch.zeros(2, dtype=torch.int64))


def test_an_action_that_is_not_finite_is_laid_to_the_policy() -> None:
    policy = policy_for(lambda: gym.make("Pendulum-v1"))
    policy.flat.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"action\[0\] is nan .* policy's parameters are not finite any more"):
        Collector(make_envs("Pendulum-v1", 2)).steps(policy, 3)
