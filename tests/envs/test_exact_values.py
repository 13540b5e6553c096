"""With the exact V of a deterministic environment every advantage is 0, whatever ends episodes and however they restart.

Whoever takes truncation for termination, or the reset observation for the final one, fails here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from policygrad.data import Rollout, Values
from policygrad.envs.collector import Collector
from policygrad.envs.probes import Chain
from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import GAE, NStep, RewardToGo, TDError, advantages
from policygrad.models.policy import make_policy

GAMMA = 0.9
STATES = 12
REWARDS = np.random.default_rng(0).normal(size=STATES).round(2).tolist()
ESTIMATORS = [GAE(GAMMA, 0.95), TDError(GAMMA), NStep(GAMMA, 3), RewardToGo(GAMMA)]
GARBAGE = 1e6  # V of states nobody may ask for


def chains(k: int) -> list[partial[Chain]]:
    """Truncated after k steps; after 11 − k from another start; terminated after k; and both at once."""
    return [
        partial(Chain, REWARDS, truncate_after=k),
        partial(Chain, REWARDS, start=5, truncate_after=11 - k),
        partial(Chain, REWARDS, terminate_after=k),
        partial(Chain, REWARDS, start=3, terminate_after=k, truncate_after=k),
    ]


def collect(k: int, mode: AutoresetMode, episodes: bool = False) -> tuple[Rollout, Values]:
    """A rollout in float64, and the exact values of its rows."""
    makers = chains(k)
    example = makers[0]()
    policy = make_policy(example.observation_space, example.action_space, hidden=())
    collector = Collector(SyncVectorEnv(makers, copy=False, autoreset_mode=mode))
    rollout = roll_episodes(collector, policy, 4) if episodes else roll_steps(collector, policy, 23)
    rollout = replace(rollout, rew=exact_rewards(rollout))

    def values(obs: Tensor) -> Tensor:
        states = obs.squeeze(-1).long() % STATES
        return torch.stack([column[states[:, n]] for n, column in enumerate(map(exact, makers))], 1)

    return rollout, Values(values(rollout.obs[:-1]), values(rollout.next_obs))


def exact(make: partial[Chain]) -> Tensor:
    chain = make()
    values = torch.from_numpy(chain.exact_values(GAMMA))
    if chain.terminate_after is not None:
        values[(chain.start + chain.terminate_after) % STATES] = GARBAGE
    return values


def exact_rewards(rollout: Rollout) -> Tensor:
    """The rewards again in float64, from the states: the rollout's were rounded to float32."""
    rewards = torch.tensor(REWARDS, dtype=torch.float64)[rollout.obs[:-1].squeeze(-1).long() % STATES]
    assert torch.equal(rewards.float()[rollout.mask], rollout.rew[rollout.mask])
    return rewards


def largest(rollout: Rollout, values: Values, estimator: Any) -> float:
    adv, _ = advantages(rollout, values, estimator, CriticValue())
    return float(adv[rollout.mask].abs().max())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_exact_values_leave_no_advantage(mode: AutoresetMode, estimator: Any) -> None:
    for k in range(1, 11):
        for episodes in (False, True):
            rollout, values = collect(k, mode, episodes)
            assert rollout.truncated.any()
            assert rollout.terminated.any()
            assert rollout.cut.any() != episodes
            assert largest(rollout, values, estimator) <= 1e-9


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_taking_an_end_for_another_leaves_some(mode: AutoresetMode, estimator: Any) -> None:
    for k in range(1, 11):
        rollout, values = collect(k, mode)
        none = torch.zeros_like(rollout.cut)
        ends = rollout.terminated | rollout.truncated
        assert largest(replace(rollout, terminated=ends, truncated=none), values, estimator) > 0.01
        assert largest(replace(rollout, terminated=none, truncated=ends), values, estimator) > 0.01


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_bootstrapping_from_the_reset_observation_leaves_some(mode: AutoresetMode, estimator: Any) -> None:
    for k in range(1, 11):
        rollout, values = collect(k, mode)
        first = values.val[0].expand_as(values.val)  # every episode of a column starts in the same state
        wrong = replace(values, next_val=torch.where(rollout.truncated, first, values.next_val))
        assert largest(rollout, wrong, estimator) > 0.01
