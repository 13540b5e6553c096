"""A shop whose truth is known: users with features, items, and the probability of a click of every user on every item.

The logit of a click is linear in the features, plus a product of two of them, which linear models miss. The logging policy
prefers popular items, reads the features a little, and gives every item at least 2 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import policygrad as pg
from policygrad.stored.trajectories import describe


@dataclass(frozen=True)
class Shop:
    """Users whose features are x (U, F), and the probability of a click p (U, K). The first half is to learn from.

    logit p(u, k) = bias_k + x_u · w_k + c_k x_u1 x_u2: a model that is linear in the features is wrong by the product.
    """

    users: np.ndarray
    clicks: np.ndarray

    @staticmethod
    def make(seed: int = 0, users: int = 1000, items: int = 10, features: int = 5) -> Shop:
        """A shop that is drawn at random: users and tastes are normal; some items are liked by more people than others."""
        rng = np.random.default_rng([seed, 0])
        x = rng.normal(size=(users, features))
        linear, product = rng.normal(0.0, 0.7, (features, items)), rng.normal(0.0, 1.0, items)
        logits = rng.normal(-2.0, 0.7, items) + x @ linear + (x[:, :1] * x[:, 1:2]) * product
        return Shop(x.astype(np.float32), 1.0 / (1.0 + np.exp(-logits)))

    @property
    def train(self) -> Shop:
        """The users to learn from."""
        half = len(self.users) // 2
        return Shop(self.users[:half], self.clicks[:half])

    @property
    def held_out(self) -> Shop:
        """The users that nothing is learned from."""
        half = len(self.users) // 2
        return Shop(self.users[half:], self.clicks[half:])

    def value(self, chosen: np.ndarray) -> float:
        """V(π) = mean over users of Σ π(k|u) p(u, k), of probabilities (U, K): the truth, without sampling."""
        return float((chosen * self.clicks).sum(1).mean())


class Recommendations(gym.Env):
    """One step: the observation is the features of a user drawn at random, the action an item, the reward 1 for a click."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, shop.users.shape[1:])
        self.action_space = gym.spaces.Discrete(shop.clicks.shape[1])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.user = int(self.np_random.integers(len(self.shop.users)))
        return self.shop.users[self.user], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        click = self.np_random.random() < self.shop.clicks[self.user, int(action)]
        return self.shop.users[self.user], float(click), True, False, {}


class Soft(nn.Module):
    """Logits of the policy (1 − ε) softmax(of a network) + ε / K: every item keeps at least the probability ε / K."""

    def __init__(self, network: nn.Module, items: int, epsilon: float) -> None:
        super().__init__()
        self.network, self.items, self.epsilon = network, items, epsilon

    def forward(self, obs: Tensor) -> Tensor:
        return ((1.0 - self.epsilon) * self.network(obs).softmax(-1) + self.epsilon / self.items).log()


def logging_policy(shop: Shop, seed: int = 0, epsilon: float = 0.2, sharpness: float = 6.0) -> pg.Policy:
    """ε-soft popularity: softmax of sharpness · (an item's click-through rate over all users), which knows no user's taste,
    and a little of the features, as a rule by hand would.
    """
    features, items = shop.users.shape[1], shop.clicks.shape[1]
    network = nn.Linear(features, items)
    with torch.no_grad():
        network.bias.copy_(torch.as_tensor(sharpness * shop.clicks.mean(0)))
        network.weight.copy_(0.3 * torch.randn(items, features, generator=torch.Generator().manual_seed(seed)))
    return pg.Policy(Soft(network, items, epsilon), pg.Categorical(items))


def probabilities(policy: pg.Policy, users: np.ndarray) -> np.ndarray:
    """π(k|u), (U, K), float64."""
    with torch.no_grad():
        return policy(torch.as_tensor(users)).double().softmax(-1).numpy()


@dataclass(frozen=True)
class Log:
    """N recommendations that were made: the user, the item, its probability, and the click, (N,) each."""

    user: np.ndarray  # int, a row of shop.users
    item: np.ndarray  # int
    probability: np.ndarray
    click: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    @staticmethod
    def join(logs: Sequence[Log]) -> Log:
        """One after another."""
        columns = ([getattr(log, name) for log in logs] for name in ("user", "item", "probability", "click"))
        return Log(*map(np.concatenate, columns))


def logged(shop: Shop, chosen: np.ndarray, n: int, rng: np.random.Generator, visits: int = 1) -> Log:
    """N users at random, an item for each by the probabilities chosen (U, K), and their clicks.

    visits: how many recommendations each of them gets, a divisor of N.
    """
    user = rng.integers(len(shop.users), size=n // visits).repeat(visits)
    item = (rng.random((n, 1)) > chosen[user].cumsum(1)).sum(1).clip(max=chosen.shape[1] - 1)
    click = rng.random(n) < shop.clicks[user, item]
    return Log(user, item, chosen[user, item], click.astype(np.float64))


def stored(log: Log, shop: Shop, policy: pg.Policy) -> pg.Trajectories:
    """A log as the library's stored trajectories: N episodes of one step. policy: any for the same items, for its spaces."""
    env, n = Recommendations(shop), len(log)
    return pg.Trajectories(
        obs=torch.as_tensor(shop.users[log.user]).repeat_interleave(2, 0),  # a user, and what is seen after the step
        act=torch.as_tensor(log.item),
        rew=torch.as_tensor(log.click, dtype=torch.float32),
        logp=torch.as_tensor(log.probability, dtype=torch.float64).log().float(),
        policy=torch.zeros(n, dtype=torch.int64),
        length=torch.ones(n, dtype=torch.int64),
        terminated=torch.ones(n, dtype=torch.bool),
        about=describe(policy, env.observation_space, env.action_space, "Recommendations"),
    )
