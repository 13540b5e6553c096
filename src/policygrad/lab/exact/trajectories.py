"""Every trajectory of a finite MDP with its probability, so that the expectation of any estimator is a finite sum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from policygrad.data import Rollout
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import log_policy, policy_matrix
from policygrad.models.policy import Policy

MAX_TRAJECTORIES = 1_000_000


def enumerate_trajectories(mdp: MDP, policy: Policy, limit: int | None = None) -> tuple[Rollout, Tensor]:
    """Every trajectory of positive probability, one per column, padded with masked rows, and its probability (N,).

    The state after the last step is drawn too, as an environment would: columns may differ in it alone. limit: trajectories
    that are longer are truncated there; it must be given where there is no horizon.
    Raises ValueError for more than MAX_TRAJECTORIES.
    """
    pi, H = policy_matrix(mdp, policy).detach(), steps_seen(mdp, limit)
    step = pi.unsqueeze(-1) * mdp.transition  # (S, A, S): P(a, s'|s)
    first = mdp.start.nonzero().squeeze(1)
    states = first.new_zeros(H + 1, len(first))  # what follows an end stays 0 and is masked
    states[0] = first
    actions, probability = first.new_zeros(H, len(first)), mdp.start[first]
    finished: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for t in range(H):
        p = probability.view(-1, 1, 1) * step[states[t]]
        i, a, s = p.nonzero(as_tuple=True)
        if len(i) > MAX_TRAJECTORIES:
            raise ValueError(f"more than {MAX_TRAJECTORIES} trajectories by step {t}: take a smaller MDP or horizon")
        states, actions, probability = states[:, i], actions[:, i], p[i, a, s]
        states[t + 1], actions[t] = s, a
        over = mdp.over[s] | (t == H - 1)
        length = torch.full((int(over.sum()),), t + 1)
        finished.append((states[:, over], actions[:, over], probability[over], length))
        states, actions, probability = states[:, ~over], actions[:, ~over], probability[~over]
    s, a, p, length = (torch.cat(parts, -1) for parts in zip(*finished, strict=True))
    return as_rollout(mdp, log_policy(mdp, policy).detach(), s, a, length), p


def steps_seen(mdp: MDP, limit: int | None) -> int:
    """The most steps an episode has: the horizon, or a smaller limit. Raises ValueError where there is neither."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if limit is None and mdp.horizon is None:
        raise ValueError("this MDP has no horizon: give a limit, the steps after which episodes are truncated")
    return min(x for x in (limit, mdp.horizon) if x is not None)


def as_rollout(mdp: MDP, log_pi: Tensor, states: Tensor, actions: Tensor, length: Tensor) -> Rollout:
    """Episodes as columns of a rollout: states (T+1, N), actions (T, N), and how many of the T rows count, (N,).

    log_pi: of the policy that acted, (S, A) or (T, S, A). An episode that ends neither in a terminal state nor at the horizon
    was truncated.
    """
    T = len(actions)
    obs = torch.nn.functional.one_hot(states, mdp.states).double()
    time = torch.arange(T).unsqueeze(1).expand_as(actions)
    obs[1:] *= (time < length).unsqueeze(-1)
    mask, last = time < length, time == length - 1
    terminated = last & (mdp.over[states[1:]] | (time + 1 == mdp.horizon))
    rew = torch.where(mask, mdp.outcome[states[:-1], actions, states[1:]], 0.0)
    logp = log_pi[states[:-1], actions] if log_pi.ndim == 2 else log_pi[time, states[:-1], actions]
    logp, none = torch.where(mask, logp, 0.0), torch.zeros_like(mask)
    return Rollout(obs, obs[1:], actions, rew, logp, terminated, last & ~terminated, none, mask, time)


def trajectory_count(mdp: MDP, pi: Tensor | None = None, limit: int | None = None) -> float:
    """How many trajectories `enumerate_trajectories` would list; ∞ without a horizon and limit. pi: (S, A), [every action].

    More than 1e18 are not counted to the end.
    """
    if mdp.horizon is None and limit is None:
        return math.inf
    possible = (mdp.transition > 0.0).double()
    follows = (possible if pi is None else (pi > 0.0).unsqueeze(-1) * possible).sum(1)  # (S, S): so many ways
    ways = torch.ones_like(mdp.start)
    for _ in range(steps_seen(mdp, limit)):
        ways = follows @ torch.where(mdp.over, 1.0, ways)
        if ways.max() > 1e18:
            break
    return float(ways[mdp.start > 0.0].sum())


def seen_by(rollout: Rollout, log_pi: Tensor) -> Rollout:
    """Trajectories of one policy, for another policy: `logp` is that of the other, `behavior` that of the policy that acted.

    log_pi: log π(a|s) of the one that looks, (S, A).
    """
    logp = log_pi[rollout.obs[:-1].argmax(-1), rollout.act]
    return rollout.seen_with(torch.where(rollout.mask, logp, 0.0))


def enumerate_batches(rollout: Rollout, probability: Tensor, k: int) -> Iterator[tuple[Rollout, Tensor]]:
    """All Nᵏ ordered batches of k independent trajectories, with their probabilities: for members that couple them."""
    for index in itertools.product(range(len(probability)), repeat=k):
        yield rollout.columns(index), probability[list(index)].prod()
