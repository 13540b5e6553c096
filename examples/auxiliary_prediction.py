"""One body for policy and values that also predicts the next observation. `python examples/auxiliary_prediction.py [steps]`

The prediction is an auxiliary gain. A layer that only the prediction uses stands in the body, so that the optimiser of
the policy trains it and model files hold it. The gain is minus the squared error of the prediction.
"""

from __future__ import annotations

import sys

import gymnasium as gym
import torch
from torch import Tensor, nn

import policygrad as pg

ACTIONS = 2


class PredictingBody(nn.Module):
    def __init__(self, space: gym.Space) -> None:
        super().__init__()
        assert space.shape is not None
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(space.shape[0], 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.predictor = nn.Linear(64 + ACTIONS, space.shape[0])

    def forward(self, obs: Tensor) -> Tensor:
        """The features (B, 64) of policy and values."""
        return self.trunk(obs)

    def prediction(self, obs: Tensor, act: Tensor) -> Tensor:
        """The next observation (B, *), as the features and the action say."""
        return self.predictor(torch.cat([self.trunk(obs), nn.functional.one_hot(act, ACTIONS)], dim=-1))


def squared_error(policy: pg.Policy, batch: pg.Batch) -> Tensor:
    """Of the prediction, (B,). A batch that is handed to an auxiliary gain knows what came of its steps."""
    body = policy.network.body
    assert isinstance(body, PredictingBody)
    error = body.prediction(policy.features(batch.obs), batch.act) - policy.features(batch.extra["next_obs"])
    return error.square().mean(dim=-1)


def auxiliary(policy: pg.Policy, batch: pg.Batch) -> Tensor:
    """The gain, whose gradient is added to that of every minibatch. Means are sums with the weights of the batch."""
    return -0.5 * (batch.weight * squared_error(policy, batch)).sum()


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    for gain in (None, auxiliary):
        agent = pg.ppo("CartPole-v1", body=PredictingBody, auxiliary=gain, shared_body=True, seed=0).learn(steps)
        record = agent.collector.collect(agent.policy, agent.plan.wants)
        batch = pg.Batch.of(
            torch.as_tensor(record.obs[:-1][record.mask]),
            torch.as_tensor(record.act[record.mask]),
            extra={"next_obs": torch.as_tensor(record.next_obs[record.mask])},
        )
        with torch.no_grad():
            error = squared_error(agent.policy, batch).mean()
        print(f"auxiliary gain: {gain is not None}, error of the prediction {error:.4f}, {agent.evaluate(episodes=20)}")
