"""Environments in other processes: the collector gathers what it gathers from the same environments in this one."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps, same, same_state
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from policygrad.data import Rollout
from policygrad.envs.collector import Collector
from policygrad.envs.probes import Counting
from policygrad.models.policy import make_policy

COUNTING = [partial(Counting, 2), partial(Counting, 3, truncates=True), partial(Counting, 5)]
CART_POLE = [partial(gym.make, "CartPole-v1")] * 2  # its observations are drawn, and its actions matter


@pytest.mark.parametrize("shared_memory", [True, False], ids=["shared", "pipes"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("makers", [COUNTING, CART_POLE], ids=["counting", "CartPole"])
def test_rollouts_from_other_processes_are_those_from_this_one(
    makers: list[Any], mode: AutoresetMode, shared_memory: bool
) -> None:
    resets_twice = mode is AutoresetMode.NEXT_STEP and not shared_memory  # see the next test
    there = AsyncVectorEnv(makers, shared_memory=shared_memory, copy=False, context="spawn", autoreset_mode=mode)
    try:
        here = SyncVectorEnv(makers, copy=False, autoreset_mode=mode)
        policy = make_policy(here.single_observation_space, here.single_action_space, hidden=(8,), seed=0)
        first, second = Collector(there, seed=1), Collector(here, seed=1)
        kept: list[tuple[Rollout, Rollout]] = []
        for T in (7, 1, 1, 40):
            kept.append((roll_steps(first, policy, T), roll_steps(second, policy, T)))
        if not resets_twice:
            kept.append((roll_episodes(first, policy, 5), roll_episodes(second, policy, 5)))
        kept.append((roll_steps(first, policy, 9), roll_steps(second, policy, 9)))
        for a, b in kept:  # now, when the environments have long written over their memory
            assert same(a, b)
        assert same_state(first.state_dict(), second.state_dict())
        assert first.episodes_done >= 4
    finally:
        there.close()


def test_no_row_is_learned_from_that_a_forgotten_reset_threw_away() -> None:
    envs = AsyncVectorEnv(COUNTING, shared_memory=False, context="spawn", autoreset_mode=AutoresetMode.NEXT_STEP)
    try:
        policy = make_policy(envs.single_observation_space, envs.single_action_space, hidden=(8,), seed=0)
        collector = Collector(envs, seed=1)
        for rollout in (
            roll_steps(collector, policy, 7),
            roll_episodes(collector, policy, 5),
            roll_steps(collector, policy, 9),
        ):
            counted = rollout.valid(rollout.obs[:-1])[:, 1]
            assert torch.equal(counted.long(), rollout.valid(rollout.time))
    finally:
        envs.close()


@pytest.mark.parametrize("shared_memory", [True, False], ids=["shared", "pipes"])
def test_without_shared_memory_gymnasium_forgets_that_a_reset_was_asked_for(shared_memory: bool) -> None:
    there = AsyncVectorEnv(
        [partial(Counting, 2)], shared_memory=shared_memory, context="spawn", autoreset_mode=AutoresetMode.NEXT_STEP
    )
    try:
        action = np.zeros(1, int)
        there.reset(seed=0)
        there.step(action)
        assert there.step(action)[2][0], "the episode has ended"
        there.reset()
        obs = there.step(action)[0]
        # (episode, step, action); a step of the episode that was asked for, or the start of another one
        assert obs[0].tolist() == ([1, 1, 0] if shared_memory else [2, 0, -1])
    finally:
        there.close()
