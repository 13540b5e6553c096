"""A network of your own, saved and loaded: residual blocks with layer norm. `python examples/custom_network.py [steps]`

`body` maps observations (B, *) to features (B, F); the library puts the layer to the actions, or to the value, after it.
"""

from __future__ import annotations

import sys

import gymnasium as gym
import torch
from torch import Tensor, nn

import policygrad as pg


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def body(space: gym.Space) -> nn.Module:
    """A function of the space is called twice: policy and critic get a network each. A module would be the policy's only."""
    torch.manual_seed(0)
    assert space.shape is not None
    return nn.Sequential(nn.Flatten(), nn.Linear(space.shape[0], 64), Residual(64), Residual(64), nn.LayerNorm(64))


if __name__ == "__main__":
    agent = pg.ppo("CartPole-v1", body=body, lr=5e-4)
    print(agent.policy.network)
    agent.learn(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
    path = agent.save("residual")  # weights only: the file cannot hold code, so load needs the body again
    print(f"{path}: mean return {pg.load(path, body=body).evaluate(episodes=20)}")
