"""The probes give the answers they state."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policygrad.envs.probes import PROBES, Chain, Counting, Probe, Target


@pytest.mark.filterwarnings("ignore:.*(A Box observation space|For Box action spaces).*:UserWarning")
@pytest.mark.parametrize("make", [*PROBES, lambda: Chain([1.0, 2.0], truncate_after=3), lambda: Counting(3)])
def test_every_probe_is_a_proper_environment(make: type[Probe]) -> None:
    check_env(make(), skip_render_check=True)


@pytest.mark.parametrize("probe", [p for p in PROBES if p.values], ids=lambda p: p.__name__)
def test_the_stated_values_solve_the_bellman_equation(probe: type[Probe]) -> None:
    values, best, env = dict(probe.values), dict(probe.best), probe()
    env.reset(seed=0)
    for state, value in values.items():
        env.state, env.time = state, 0
        obs, rew, terminated, _, _ = env.step(best.get(state, 0))
        assert float(rew) + (0.0 if terminated else probe.gamma * values[float(obs[0])]) == pytest.approx(
            value, abs=1e-12
        )


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.__name__)
def test_the_starts_are_what_resets_show_and_the_values_cover_them(probe: type[Probe]) -> None:
    env = probe()
    env.reset(seed=0)
    assert {float(env.reset()[0][0]) for _ in range(50)} == set(probe.starts)
    assert probe is Target or set(probe.starts) <= set(dict(probe.values))


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.__name__)
def test_the_best_action_is_the_only_best_one_and_elsewhere_actions_change_nothing(probe: type[Probe]) -> None:
    env = probe()
    env.reset(seed=0)

    def reward(state: float, action: Any) -> float:
        env.state, env.time = state, 0
        return float(env.step(np.array([action], np.float32) if probe is Target else int(action))[1])

    actions = np.linspace(-2.0, 2.0, 9) if probe is Target else np.arange(2)
    for state in probe.starts:
        rewards = [reward(state, a) for a in actions]
        if not probe.best:
            assert len(set(rewards)) == 1
            continue
        best = dict(probe.best)[state]
        assert rewards.count(max(rewards)) == 1
        assert actions[int(np.argmax(rewards))] == best


@pytest.mark.parametrize("terminate_after", [None, 1, 4, 7])
def test_the_chains_values_are_the_discounted_sums_of_what_it_pays(terminate_after: int | None) -> None:
    gamma = 0.8
    env = Chain([1.0, -2.0, 0.5, 3.0, 0.25, -1.0, 2.0], start=2, terminate_after=terminate_after)
    env.reset(seed=0)
    total, discount, state, terminated = 0.0, 1.0, 2, False
    for _ in range(200 if terminate_after is None else terminate_after):  # 0.8²⁰⁰ ≈ 4e-20
        obs, rew, terminated, truncated, _ = env.step(0)
        total += discount * float(rew)
        discount *= gamma
        state = (state + 1) % 7
        assert obs[0] == state
        assert not truncated
    assert terminated == (terminate_after is not None)
    assert env.exact_values(gamma)[2] == pytest.approx(total, abs=1e-12)


def test_a_chain_that_meets_a_state_twice_before_terminating_has_no_values() -> None:
    with pytest.raises(ValueError, match="no function of the state"):
        Chain([1.0, 2.0], terminate_after=3).exact_values(0.9)


def test_no_two_transitions_of_a_counting_environment_are_alike() -> None:
    env: gym.Env = Counting(3)
    seen = []
    for _ in range(4):
        obs, _ = env.reset()
        end = False
        while not end:
            before = tuple(obs)
            obs, rew, terminated, truncated, _ = env.step(2)
            end = terminated or truncated
            seen.append((before, rew, tuple(obs)))
    assert len(set(seen)) == len(seen) == 12
    assert seen[4] == ((1, 1, 2), 112.0, (1, 2, 2))
