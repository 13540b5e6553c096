"""Trajectories of policies that explore: their log-probabilities count ε, other policies can weigh them, or a refusal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import policygrad as pg
from policygrad.models.policy import make_policy
from policygrad.stored.trajectories import TrajectoryError

FEW: dict[str, Any] = {"preset": {}, "hidden": (8,), "warmup": 20, "batch_size": 8, "gradient_steps": 1}


def test_epsilon_greedy_actions_have_the_log_probabilities_of_their_definition():
    agent = pg.dqn("CartPole-v1", **FEW)
    policy = agent.policy
    obs = torch.randn(5, 3, 4)
    greedy = torch.from_numpy(policy.mode(obs.flatten(0, 1).numpy())[0]).view(5, 3)
    for epsilon, best, other in ((1.0, 0.5, 0.5), (0.2, 0.9, 0.1), (0.0, 1.0, 0.0)):
        policy.epsilon = epsilon
        for act, p in ((greedy, best), (1 - greedy, other)):
            assert policy.log_probs(obs, act).exp().tolist() == pytest.approx(np.full((5, 3), p))


def test_a_uniform_action_of_a_squashed_policy_has_the_density_of_the_action_space():
    agent = pg.sac("Pendulum-v1", **FEW)  # actions in [−2, 2]
    obs, u = torch.randn(4, 2, 3), torch.randn(4, 2, 1)
    assert agent.policy.epsilon == 1.0
    assert agent.policy.log_probs(obs, u).tolist() == pytest.approx(np.full((4, 2), -math.log(4.0)))
    agent.policy.epsilon = 0.0
    own = agent.policy.log_probs(obs, u)
    agent.policy.epsilon = 0.25
    mixed = (0.25 * 0.25 + 0.75 * own.exp()).log()
    torch.testing.assert_close(agent.policy.log_probs(obs, u), mixed)


@pytest.mark.parametrize("algo", ["dqn", "sac"])
def test_saved_episodes_can_be_learned_from_by_importance_sampling(algo, tmp_path):
    env = {"dqn": "CartPole-v1", "sac": "Pendulum-v1"}[algo]
    run = pg.train(pg.Agent(algo, env, **FEW), tmp_path / "run", steps=250, episodes=1, save_trajectories=True)
    stored = pg.Trajectories.read(run.path)
    assert len(stored) >= 1
    uniform = -math.log(2.0 if algo == "dqn" else 4.0)
    assert stored.logp is not None
    assert stored.logp[:20].tolist() == pytest.approx([uniform] * 20)  # of the warmup, whatever was learned later
    later = stored.logp[20:]
    assert not torch.allclose(later, torch.full_like(later, uniform))
    head = {"head": "squashed"} if algo == "sac" else {}
    learner = pg.off_policy_pg(env, dataset=stored, hidden=(8,), min_ess=0.0, clone_epochs=0, **head)
    assert learner.learn(10).collector.steps_done > 0


def test_deterministic_policies_are_refused_and_so_is_another_distribution():
    with pytest.raises(TrajectoryError, match=r"Deterministic.*sac and dqn have them"):
        pg.td3("Pendulum-v1", **FEW).collect(1)
    agent = pg.sac("Pendulum-v1", **FEW)
    stored, spaces = agent.collect(1), (agent.envs.single_observation_space, agent.envs.single_action_space)
    with pytest.raises(TrajectoryError, match="another head"):
        stored.check(make_policy(*spaces, head="gaussian"), *spaces)
