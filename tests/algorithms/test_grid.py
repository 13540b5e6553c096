"""The grid: every estimator with every update rule, and every baseline and critic under each, learns from a rollout."""

from __future__ import annotations

import math

import pytest
import torch
from zoo import BASELINES, ESTIMATORS, UPDATES

from policygrad.algorithms.diagnosed import diagnosed_step
from policygrad.algorithms.learner import Learner
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain
from policygrad.models.critic import NoCritic, make_critic, make_q_critic
from policygrad.models.policy import make_policy

GAMMA = 0.9


def chain() -> Chain:
    return Chain((1.0, -2.0, 0.5, 3.0), terminate_after=3)


CASES = [(update, "trajectory") for update in UPDATES]  # weights are the same numbers to every rule: one has the others
CASES += [(update, "step") for update in UPDATES if update.name in ("VanillaGradient", "TrustRegion")]


@pytest.mark.parametrize(("update", "reduction"), CASES, ids=lambda x: getattr(x, "name", x))
def test_every_cell_learns_from_whole_episodes_and_measures_what_it_did(update, reduction) -> None:
    envs = make_envs(chain, 4)
    policy = make_policy(envs.single_observation_space, envs.single_action_space, hidden=(8,))
    collector = Collector(envs, seed=0)
    start = policy.flat.clone()
    critics = {
        "none": NoCritic,
        "v": lambda: make_critic(envs.single_observation_space, hidden=(8,)),
        "q": lambda: make_q_critic(envs.single_observation_space, envs.single_action_space, hidden=(8,)),
    }
    seen = 0
    for estimator in ESTIMATORS:
        for baseline in BASELINES:
            for name, critic in critics.items():
                try:
                    learner = Learner(
                        policy,
                        estimator.make(GAMMA),
                        update.make(),
                        critic=critic(),
                        baseline=baseline.make(policy.encoding.width),
                        reduction=reduction,
                    )
                    if estimator.needs_q and name != "q":
                        continue
                except ValueError as error:  # a bootstrapping part without a critic
                    assert "give the learner a critic" in str(error)  # noqa: PT017
                    continue
                policy.flat.copy_(start)
                stats = diagnosed_step(learner, collector.episodes(policy, 4))
                assert torch.isfinite(policy.flat).all()
                assert math.isfinite(stats["gain"])
                assert math.isfinite(stats["kl_quadratic"])
                assert stats["kl"] <= getattr(learner.update, "max_kl", math.inf) * (1.0 + 0.2)
                seen += 1
    assert seen > 200
