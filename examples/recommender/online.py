"""Learning on-line, from the clicks on one's own recommendations: exploration against exploitation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from click_model import ClickModel
from shop import Log, Shop, Soft, logged, probabilities

import policygrad as pg
from policygrad.models.networks import MLP

BATCH = 100  # recommendations between two updates
VISITS = 4  # of every user in a batch, where users are the groups of a baseline


def by_gradient(
    shop: Shop, updates: int, seed: int, epsilon: float = 0.0, ent_coef: float = 0.0, grouped: bool = False
) -> np.ndarray:
    """Values on the held-out users before each update, and at the end, of a policy gradient: (updates + 1,).

    epsilon: the policy keeps the probability ε / K for every item. grouped: each user is there VISITS times in a batch, and
    the baseline is the mean over the same user's other visits.
    """
    torch.manual_seed(seed)
    rng, train, test = np.random.default_rng([seed, 1]), shop.train, shop.held_out
    features, items = shop.users.shape[1], shop.clicks.shape[1]
    network = MLP(features, (64,), items)
    policy = pg.Policy(Soft(network, items, epsilon) if epsilon else network, pg.Categorical(items))
    rule = pg.VanillaGradient(1e-2, ent_coef=ent_coef)
    baseline = pg.LeaveOneOut(by="user" if grouped else None)
    learner = pg.Learner(policy, pg.TotalReturn(), rule, baseline=baseline, reduction="trajectory")
    values = [test.value(probabilities(policy, test.users))]
    for _ in range(updates):
        chosen = probabilities(policy, train.users)
        log = logged(train, chosen, BATCH, rng, visits=VISITS if grouped else 1)
        learner.step(episodes(log, train, policy))
        values.append(test.value(probabilities(policy, test.users)))
    return np.array(values)


def by_model(shop: Shop, updates: int, seed: int, epsilon: float = 0.0) -> np.ndarray:
    """The same of a click model that is fitted to everything seen so far, and shown greedily but for ε."""
    rng, train, test = np.random.default_rng([seed, 1]), shop.train, shop.held_out
    model, logs, values = ClickModel(np.zeros((1 + shop.users.shape[1], shop.clicks.shape[1]))), [], []
    for _ in range(updates):
        values.append(test.value(model.greedy(test.users, epsilon)))
        logs.append(logged(train, model.greedy(train.users, epsilon), BATCH, rng))
        model = ClickModel.fit(Log.join(logs), train)
    return np.array([*values, test.value(model.greedy(test.users, epsilon))])


SIDES: dict[str, Callable[[Shop, int, int], np.ndarray]] = {
    "greedy click model": by_model,
    "ε-greedy click model, ε = 0.1": partial(by_model, epsilon=0.1),
    "policy gradient": by_gradient,
    "policy gradient, entropy bonus 0.01": partial(by_gradient, ent_coef=0.01),
    "policy gradient, ε-soft, ε = 0.1": partial(by_gradient, epsilon=0.1),
    "policy gradient, baseline per user": partial(by_gradient, grouped=True),
}


def episodes(log: Log, shop: Shop, policy: pg.Policy) -> pg.Rollout:
    """Recommendations as episodes of one step, one per column, with the user in `extra["user"]`."""
    n = len(log)
    user, act = torch.as_tensor(log.user).unsqueeze(0), torch.as_tensor(log.item).unsqueeze(0)
    obs = torch.as_tensor(shop.users[log.user]).expand(2, n, -1)
    end, rew = torch.ones(1, n, dtype=torch.bool), torch.as_tensor(log.click, dtype=torch.float32).unsqueeze(0)
    time, logp = torch.zeros(1, n, dtype=torch.int64), policy.log_probs(obs[:-1], act)
    return pg.Rollout(obs, obs[1:], act, rew, logp, end, ~end, ~end, end, time, {"user": user})
