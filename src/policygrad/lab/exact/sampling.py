"""Sampled episodes of a finite MDP, simulated many at a time.

    rollout = sample(mdp, policy, 1000, torch.Generator().manual_seed(0))

States and actions are drawn by inversion: the number of cumulative probabilities below a uniform number. Of every (s, a) only
the successors that can follow are looked at, so that Taxi's 500 states cost what one does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policygrad.data import Rollout
from policygrad.lab.exact.mdp import MDP, check_distribution
from policygrad.lab.exact.tabular import each_step, log_policy
from policygrad.lab.exact.trajectories import as_rollout, steps_seen
from policygrad.models.policy import Policy


def sample(
    mdp: MDP, policy: Policy | Tensor, episodes: int, generator: torch.Generator, limit: int | None = None
) -> Rollout:
    """Episodes of a policy, or of a table (S, A) or (H, S, A), as columns of a rollout, in float64.

    limit: episodes that are longer are truncated there; it must be given where the MDP has no horizon.
    Raises ValueError for less than one episode, and for a table that is no policy of this MDP.
    """
    log_pi = log_policy(mdp, policy).detach() if isinstance(policy, Policy) else policy.double().log()
    if log_pi.ndim == 3 and len(log_pi) == 1:  # stationary, as without a horizon
        log_pi = log_pi[0]
    return as_rollout(mdp, log_pi, *simulate(mdp, log_pi.exp(), episodes, generator, limit))


def simulate(
    mdp: MDP, pi: Tensor, episodes: int, generator: torch.Generator, limit: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """States (T+1, N), actions (T, N) and lengths (N,) of episodes, T the longest of them; rows beyond a length are 0."""
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    T, A = steps_seen(mdp, limit), mdp.actions
    check_distribution("pi(a|s)", each_step(mdp, pi, T))
    chosen, (after, arrives) = pi.cumsum(-1), _successors(mdp)
    length, running = torch.full((episodes,), T), torch.arange(episodes)  # the columns whose episode goes on
    s = _invert(mdp.start.cumsum(-1).expand(episodes, -1), generator)
    states, actions = [s], []
    for t in range(T):
        a = _invert((chosen if pi.ndim == 2 else chosen[t])[s], generator)
        pair = s * A + a
        s = after[pair, _invert(arrives[pair], generator)]
        if len(running) < episodes:
            a, arrived = (length.new_zeros(episodes).index_copy_(0, running, x) for x in (a, s))
        else:
            arrived = s
        actions.append(a)
        states.append(arrived)
        over = mdp.over[s]
        if over.any():
            length[running[over]] = t + 1
            running, s = running[~over], s[~over]
            if not len(running):
                break
    return torch.stack(states), torch.stack(actions), length


def _successors(mdp: MDP) -> tuple[Tensor, Tensor]:
    """Of every (s, a) the states that can follow and their cumulative probabilities, (S·A, K): K the most there are."""
    P = mdp.transition.flatten(0, 1)
    most = int((P > 0).sum(-1).max())
    p, after = P.topk(most, dim=-1)
    return after, p.cumsum(-1)


def _invert(cumulative: Tensor, generator: torch.Generator) -> Tensor:
    """Indices (N,), drawn from the N distributions that these are the cumulative probabilities of: (N, K)."""
    u = torch.rand(len(cumulative), 1, generator=generator, dtype=cumulative.dtype)
    return (cumulative[:, :-1] <= u * cumulative[:, -1:]).sum(-1)  # the last is 1, up to rounding
