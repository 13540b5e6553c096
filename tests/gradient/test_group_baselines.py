"""Leave-one-out within groups of trajectories: what it is, that it is unbiased, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import policygrad as pg
from policygrad.data import TooFewError
from policygrad.gradient.groups import groups_of
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.tabular import (
    enumerate_batches,
    enumerate_trajectories,
    exact_gradient,
    tabular_policy,
)

CONTEXTS = MDP(  # a contextual bandit: two contexts, three arms, very different returns
    torch.eye(2, dtype=torch.float64)[:, None, :].expand(2, 3, 2),
    torch.tensor([[1.0, 2.0, 4.0], [10.0, -7.0, 0.0]]),
    torch.tensor([0.3, 0.7]),
    horizon=1,
)


def context(rollout: pg.Rollout) -> Tensor:
    return rollout.obs[0]


def arm(rollout: pg.Rollout) -> Tensor:
    return rollout.act[0]


class OwnMean(pg.NoBaseline):
    """A defect: the mean of the group with the trajectory's own return in it."""

    needs_episodes = True

    def __call__(self, rollout: pg.Rollout, ret: Tensor, values: pg.Values) -> Tensor:
        group = groups_of(rollout, context)
        return torch.stack([ret[:, group == g].mean(1) for g in group], 1)


def expected(mdp: MDP, policy: pg.Policy, k: int, baseline: Any, keys: list[int] | None = None) -> Tensor:
    """E ĝ over all batches of k trajectories; keys: put into extra."""
    found = torch.zeros_like(policy.flat)
    for rollout, p in enumerate_batches(*enumerate_trajectories(mdp, policy), k):
        if keys is not None:
            rollout = replace(rollout, extra={"group": torch.tensor(keys).expand_as(rollout.rew)})
        adv, _ = pg.advantages(rollout, pg.Values.zeros(rollout), pg.RewardToGo(mdp.gamma), baseline)
        batch = rollout.flatten(adv, "trajectory")
        found += p * policy.evaluate(batch).gradient(batch.weight * batch.adv)
    return found


@pytest.fixture
def policy() -> pg.Policy:
    return tabular_policy(CONTEXTS, torch.Generator().manual_seed(0))


def test_leave_one_out_by_the_context_is_unbiased_whatever_the_sizes_of_the_groups(policy):
    true = exact_gradient(CONTEXTS, policy)
    for k in (1, 2, 3):  # groups of one have the baseline 1.7
        found = expected(CONTEXTS, policy, k, pg.LeaveOneOut(by=context, alone=1.7))
        assert (found - true).norm() <= 1e-12 * true.norm()
    assert (expected(CONTEXTS, policy, 2, OwnMean()) - true).norm() > 0.1 * true.norm()


def test_groups_that_are_fixed_in_advance_are_unbiased_and_groups_of_an_action_are_not():
    two_arms = replace(CONTEXTS, reward=CONTEXTS.reward[:, :2], transition=CONTEXTS.transition[:, :2])
    small = tabular_policy(two_arms, torch.Generator().manual_seed(1))
    true = exact_gradient(two_arms, small)
    found = expected(two_arms, small, 4, pg.LeaveOneOut(by="group"), [5, -2, 5, -2])
    assert (found - true).norm() <= 1e-12 * true.norm()
    wrong = expected(two_arms, small, 2, pg.LeaveOneOut(by=arm, alone=0.0))
    assert (wrong - true).norm() > 0.1 * true.norm()


def test_rloo_is_every_answer_against_the_mean_reward_of_the_others():
    reward = torch.tensor(
        [1.0, 0.0, 0.0, 1.0, 5.0, 1.0, 0.0, 0.0, 7.0, 0.0]
    )  # 3 of 8 are right; two belong to another prompt
    group = torch.tensor([4, 4, 4, 4, 1, 4, 4, 4, 1, 4])
    length = torch.tensor([1, 2, 3, 3, 2, 1, 1, 2, 3, 3])
    time = torch.arange(3)[:, None].expand(3, 10)
    end, none = time == length - 1, torch.zeros(3, 10, dtype=torch.bool)
    rew, obs = torch.where(end, reward, 0.0).double(), torch.zeros(4, 10, 1)
    rollout = pg.Rollout(
        obs, obs[1:], none.long(), rew, rew, end, none, none, time < length, time, {"group": group.expand(3, 10)}
    )
    adv, _ = pg.advantages(rollout, pg.Values.zeros(rollout), pg.TotalReturn(), pg.LeaveOneOut(by="group"))
    answers = torch.where(rollout.mask, adv, torch.nan)[0]
    assert answers[[0, 3, 5]].tolist() == pytest.approx([0.7143] * 3, abs=5e-5)
    assert answers[[1, 2, 6, 7, 9]].tolist() == pytest.approx([-0.4286] * 5, abs=5e-5)
    assert answers[[4, 8]].tolist() == [-2.0, 2.0]
    assert (adv == adv[0]).all()  # on every token


def test_one_group_is_the_whole_batch():
    rollout, _ = enumerate_trajectories(CONTEXTS, tabular_policy(CONTEXTS))
    values = pg.Values.zeros(rollout)
    one = pg.LeaveOneOut(by=lambda rollout: torch.zeros(rollout.rew.shape[1]))(rollout, rollout.rew, values)
    torch.testing.assert_close(one, pg.LeaveOneOut()(rollout, rollout.rew, values), rtol=1e-14, atol=1e-14)


def test_a_learner_takes_it_and_its_text_says_what_the_key_is(policy):
    rollout, _ = enumerate_trajectories(CONTEXTS, policy)
    rule = pg.VanillaGradient(0.1)
    learner = pg.Learner(policy, pg.TotalReturn(), rule, baseline=pg.LeaveOneOut(by=context), reduction="trajectory")
    before = policy.flat.clone()
    learner.step(rollout)
    assert not torch.equal(before, policy.flat)
    learner.load_state_dict(learner.state_dict())
    assert repr(learner.baseline) == "LeaveOneOut(by=context, alone=None)"
    assert repr(pg.LeaveOneOut()) == "LeaveOneOut()"


def test_what_is_no_group_is_refused(policy):
    rollout, _ = enumerate_trajectories(CONTEXTS, policy)
    values = pg.Values.zeros(rollout)

    def baseline(**keywords: Any) -> Tensor:
        return pg.LeaveOneOut(**keywords)(rollout, rollout.rew, values)

    with pytest.raises(ValueError, match=r"rollout.extra\['prompt'\], which is not there \(extra is empty\)"):
        baseline(by="prompt")
    with pytest.raises(ValueError, match=r"one key per trajectory, \(6, …\), got \(1, 6\)"):
        baseline(by=lambda rollout: rollout.act)
    with pytest.raises(ValueError, match="the key of trajectory 2 is not finite"):
        baseline(by=lambda rollout: torch.tensor([1.0, 1.0, torch.nan, 1.0, 1.0, 1.0]))
    with pytest.raises(TooFewError, match=r"trajectory 3 is the only one of its group.*alone=0\.0"):
        baseline(by=lambda rollout: torch.tensor([0, 0, 0, 1, 0, 0]))
    with pytest.raises(ValueError, match=r"alone = 0\.0 is for groups"):
        pg.LeaveOneOut(alone=0.0)
