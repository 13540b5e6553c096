"""Wrappers: action repeat, and Gymnasium's own under the collector."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
from explicit import roll_episodes, roll_steps
from gymnasium.wrappers import FrameStackObservation, RescaleAction, TimeAwareObservation, TimeLimit

from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Counting
from policygrad.envs.wrappers import ActionRepeat
from policygrad.models.policy import make_policy


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("times", [1, 2, 3, 7, 9])
def test_a_repeated_action_sums_the_rewards_up_to_the_end(times: int, truncates: bool) -> None:
    env = ActionRepeat(Counting(7, truncates), times)
    for episode in range(2):
        env.reset(seed=0 if episode == 0 else None)
        taken = 0
        while taken < 7:
            obs, rew, terminated, truncated, _ = env.step(3)
            now = min(times, 7 - taken)
            assert rew == sum(100.0 * episode + 10.0 * (taken + i) + 3.0 for i in range(now))
            taken += now
            assert obs.tolist() == [episode, taken, 3]
            assert (terminated, truncated) == (taken == 7 and not truncates, taken == 7 and truncates)


def test_action_repeat_is_refused_below_one() -> None:
    with pytest.raises(ValueError, match="times must be at least 1, got 0"):
        ActionRepeat(Counting(7), 0)


MAKERS: dict[str, tuple[Callable[[], gym.Env], tuple[int, ...]]] = {
    "TimeLimit": (lambda: TimeLimit(gym.make("CartPole-v1"), 5), (4,)),
    "FrameStackObservation": (lambda: FrameStackObservation(gym.make("CartPole-v1"), 3), (3, 4)),
    "TimeAwareObservation": (lambda: TimeAwareObservation(gym.make("CartPole-v1")), (5,)),
    "RescaleAction": (lambda: RescaleAction(gym.make("Pendulum-v1"), np.float32(-1.0), np.float32(1.0)), (3,)),
    "ActionRepeat": (lambda: ActionRepeat(gym.make("CartPole-v1"), 2), (4,)),
    "together": (lambda: FrameStackObservation(ActionRepeat(gym.make("Pendulum-v1"), 4), 2), (2, 3)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_wrapped_environments_are_collected(name: str) -> None:
    make, shape = MAKERS[name]
    envs = make_envs(make, 2)
    policy = make_policy(envs.single_observation_space, envs.single_action_space, hidden=(8,), seed=0)
    collector = Collector(envs, seed=0)
    rollout = roll_steps(collector, policy, 40)
    assert rollout.obs.shape == (41, 2, *shape)
    assert rollout.mask.any(0).all()
    whole = roll_episodes(collector, policy, 2)
    assert whole.whole_episodes
    if name == "TimeLimit":
        assert int(whole.time.max()) == 4
        assert bool(whole.truncated[4].all())
    if name == "together":
        assert whole.mask.sum(0).tolist() == [50, 50], "the limit of 200 steps inside is one of 50 decisions"
