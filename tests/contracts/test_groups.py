"""Leave-one-out within groups of trajectories that share a key, which rides in `Rollout.extra`: a baseline of one's own."""

from __future__ import annotations

from dataclasses import replace

import torch
from gymnasium import spaces
from torch import Tensor

import policygrad as pg
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain
from policygrad.gradient.baselines import _Stateless

OBS, ACT = spaces.Box(-1.0, 12.0, (1,)), spaces.Discrete(2)
KEYS = torch.tensor([7, 3, 7, 3, 3])  # of every trajectory


class GroupLeaveOneOut(_Stateless):
    """The mean of ret over the other trajectories with the same key."""

    needs_episodes = True

    def __call__(self, rollout: pg.Rollout, ret: Tensor, values: pg.Values) -> Tensor:
        key = rollout.extra["group"][0]
        same = (key.unsqueeze(0) == key.unsqueeze(1)).to(ret.dtype)
        return (ret @ same - ret) / (same.sum(0) - 1.0)


def learner() -> pg.Learner:
    policy, rule = pg.make_policy(OBS, ACT, hidden=(8,)), pg.ClippedSurrogate(0.01, epochs=2, minibatches=3)
    return pg.Learner(policy, pg.RewardToGo(), rule, baseline=GroupLeaveOneOut(), reduction="trajectory")


def rollouts(policy: pg.Policy, count: int) -> list[pg.Rollout]:
    lengths = iter((3, 4, 4, 5, 6))
    envs = make_envs(lambda: Chain((1.0, -2.0, 0.5, 3.0, 4.0, 5.0), terminate_after=next(lengths)), len(KEYS))
    records = [Collector(envs, seed=seed).episodes(policy, len(KEYS)) for seed in range(count)]
    made = [pg.Rollout.of(record, policy) for record in records]
    return [replace(r, extra={"group": KEYS.expand_as(r.rew)}) for r in made]


def test_every_group_has_the_baseline_it_would_have_alone() -> None:
    (rollout,) = rollouts(learner().policy, 1)
    ret, values = torch.randn(rollout.rew.shape, generator=torch.Generator().manual_seed(0)), pg.Values.zeros(rollout)
    b = GroupLeaveOneOut()(rollout, ret, values)
    for key in (3, 7):
        own = (key == KEYS).nonzero().squeeze(-1)
        part = rollout.columns(own)
        assert (part.extra["group"] == key).all()
        alone = pg.LeaveOneOut()(part, ret[:, own], values.columns(own))
        torch.testing.assert_close(b[:, own], alone, rtol=0, atol=1e-6)


def test_the_key_goes_with_its_rows_and_learning_goes_on_from_a_saved_state() -> None:
    first, again = learner(), learner()
    one, two = rollouts(first.policy, 2)
    seen = rows = 0
    for mb in one.flatten(torch.where(one.mask, KEYS.float(), 0.0), "step").minibatches(3, torch.Generator()):
        seen, rows = seen + int((mb.extra["group"] == mb.adv).sum()), rows + len(mb)
    assert seen == rows == one.steps
    first.step(one)
    again.load_state_dict(first.state_dict())
    assert first.step(two) == again.step(two)
    assert torch.equal(first.policy.flat, again.policy.flat)
