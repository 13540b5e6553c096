"""A second implementation of `total`: two threads in lock-step, each with a shard of the rollout, learn what one learns."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from threading import Barrier
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import policygrad as pg
from policygrad.algorithms.diagnosed import diagnosed_step
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain
from policygrad.models.critic import make_critic
from policygrad.total import Reducer, reducing
from policygrad.tree import take

OBS, ACT = spaces.Box(-1.0, 12.0, (1,)), spaces.Discrete(2)
SHARDS = ([0, 1], [2, 3, 4, 5, 6])  # columns: uneven on purpose
GAE, WHOLE = pg.Standardized(pg.GAE()), pg.RewardToGo()
CELLS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {  # estimator, rule, baseline (None: the critic's V)
    "ppo": lambda: (GAE, pg.ClippedSurrogate(0.01, epochs=3, minibatches=1, target_kl=0.02, ent_coef=0.01), None),
    "ppo_kl": lambda: (GAE, pg.PenalizedSurrogate(0.01, epochs=3, minibatches=1), None),
    "trpo": lambda: (GAE, pg.TrustRegion(0.01), None),
    "leave-one-out": lambda: (WHOLE, pg.VanillaGradient(0.01), pg.LeaveOneOut()),
    "running mean": lambda: (WHOLE, pg.VanillaGradient(0.01), pg.RunningMean()),
    "running moments": lambda: (
        pg.Standardized(WHOLE, over="running"),
        pg.VanillaGradient(0.01),
        pg.NoBaseline(),
    ),
    "time average": lambda: (WHOLE, pg.VanillaGradient(0.01), pg.TimeAverage()),
    "weighted": lambda: (pg.ImportanceWeighted(WHOLE, self_normalize=True), pg.VanillaGradient(0.01), pg.NoBaseline()),
    "per decision": lambda: (pg.PerDecision(WHOLE, self_normalize=True), pg.VanillaGradient(0.01), pg.NoBaseline()),
}


def learner(cell: str) -> pg.Learner:
    estimator, rule, baseline = CELLS[cell]()
    policy = pg.make_policy(OBS, ACT, hidden=(8,), normalize_obs=True).double()
    critic = None if baseline else make_critic(OBS, hidden=(8,), epochs=2, lr=0.01).double()
    return pg.Learner(policy, estimator, rule, critic=critic, baseline=baseline, reduction="trajectory")


def all_reduced(barrier: Barrier, slots: list[Any], rank: int, op: Callable[[Tensor], Tensor]) -> Reducer:
    def reduce(x: Tensor) -> Tensor:
        slots[rank] = x.clone()
        barrier.wait(20)
        result = op(torch.stack(slots))
        barrier.wait(20)  # everybody has read before anybody writes again
        return result

    return reduce


def shard_of(rollout: pg.Rollout, columns: list[int]) -> pg.Rollout:
    """These columns, up to the end of their own longest episode: the shards differ in T where episodes are whole."""
    part = rollout.columns(columns)
    T = int(part.mask.any(1).nonzero().max()) + 1
    return pg.Rollout(**{f.name: take(getattr(part, f.name), slice(T + (f.name == "obs"))) for f in fields(part)})


@pytest.mark.parametrize("cell", CELLS)
def test_two_shards_in_lock_step_learn_what_the_whole_learns(cell: str) -> None:
    whole, shards, barrier, slots = learner(cell), [learner(cell) for _ in SHARDS], Barrier(2), [None, None]
    lengths = iter((3, 4, 4, 5, 6, 6, 7))
    collector = Collector(make_envs(lambda: Chain((1.0, -2.0, 0.5, 3.0) * 2, terminate_after=next(lengths)), 7), seed=1)

    def step(rank: int, rollout: pg.Rollout) -> pg.Stats:
        ops: list[Callable[[Tensor], Tensor]] = [lambda x: x.sum(0), lambda x: x.amax(0)]
        with reducing(*(all_reduced(barrier, slots, rank, op) for op in ops)):
            return diagnosed_step(shards[rank], shard_of(rollout, SHARDS[rank]))

    for _ in range(2):
        record = collector.episodes(whole.policy, 7) if whole.needs_episodes else collector.steps(whole.policy, 12)
        rollout = pg.Rollout.of(record, whole.policy)
        rollout = replace(rollout, extra={"logp": rollout.logp + 0.3 * rollout.obs[:-1, :, 0].sin()})
        expected = diagnosed_step(whole, rollout)
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(step, range(2), [rollout] * 2))
        for shard, stats in zip(shards, found, strict=True):
            torch.testing.assert_close(shard.policy.flat, whole.policy.flat, rtol=0, atol=1e-6)
            assert stats == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)
        states = [shard.state_dict() for shard in shards]
        shards = [learner(cell) for _ in SHARDS]
        for shard, state in zip(shards, states, strict=True):
            shard.load_state_dict(state)
