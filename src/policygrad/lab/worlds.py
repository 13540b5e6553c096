"""Small MDPs by name, and batches of them: every trajectory weighed by its probability, or episodes sampled.

A `Batch` from here is what an update rule is given in training, and `compare` in steps.py shows what rules make of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from policygrad.data import Batch, Rollout
from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import RewardToGo, StateDiscounted, advantages
from policygrad.lab.tabular import (
    MDP,
    ExactCritic,
    as_rollout,
    bandit,
    chain,
    discounts,
    from_gymnasium,
    log_policy,
    objective,
    policy_matrix,
    random_mdp,
    solve,
    visits,
)
from policygrad.models.heads import Categorical
from policygrad.models.policy import Policy

MAX_STEPS = 100  # of an episode, where Gymnasium sets no limit


def two_states(horizon: int = 8) -> MDP:
    """Left pays 1 in the left state, right pays 2 in the right one, and each leads there; the start is left with 0.8.

    Always right is best. To a policy that mostly goes left in the right state, going there is worth little, and the gradient
    leads it away: a plateau, after Kakade 2001, figure 1.
    """
    transition = torch.zeros(2, 2, 2)
    transition[:, 0, 0] = transition[:, 1, 1] = 1.0
    return MDP(transition, torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0.8, 0.2]), horizon)


def _gymnasium(env: str) -> Callable[[int], MDP]:
    def make(seed: int) -> MDP:
        import gymnasium as gym

        limit = None if gym.spec(env).max_episode_steps else MAX_STEPS
        return from_gymnasium(gym.make(env, max_episode_steps=limit))

    return make


WORLDS: dict[str, Callable[[int], MDP]] = {
    "bandit": lambda seed: bandit([1.0, 0.0, 2.0, 0.5]),
    "two-states": lambda seed: two_states(),
    "chain": lambda seed: chain(6, horizon=12, slip=0.1),
    "random": lambda seed: random_mdp(8, 4, 10, np.random.default_rng(seed)),
    **{env: _gymnasium(env) for env in ("FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1")},
}


def make_mdp(name: str, seed: int = 0) -> MDP:
    """An MDP by its name; seed: of the random one. Raises ValueError, with the nearest name, for one that is not there."""
    if name not in WORLDS:
        known = {world.lower(): world for world in WORLDS}
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {known[near[0]]!r}?" if near else f"there are {', '.join(WORLDS)}"
        raise ValueError(f"there is no MDP {name!r}: {hint}")
    return WORLDS[name](seed)


class TwoLogits(nn.Module):
    """One parameter a state, the logit of the second of two actions: (B, 2) → (B, 2), logits (0, θ_s)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(2))

    def forward(self, obs: Tensor) -> Tensor:
        second = obs @ self.theta
        return torch.stack([torch.zeros_like(second), second], -1)


def two_logit_policy(theta: tuple[float, float]) -> Policy:
    """The policy of two parameters for `two_states`, small enough to draw: π(right|s) = 1 / (1 + exp(−θ_s)), float64."""
    policy = Policy(TwoLogits(), Categorical(2)).double()
    policy.flat.copy_(torch.tensor(theta, dtype=torch.float64))
    return policy


def exact_batch(mdp: MDP, policy: Policy) -> Batch:
    """All trajectories, weighed by their probability; rows of equal state and action are added up, so there are S · A at most:

        weight(s,a) = w(s) π(a|s),  w(s) = Σ_t γᵗ P(s_t = s),     adv(s,a) = Σ_t γᵗ P(s_t = s) A_t(s,a) / w(s).

    Σ weight · adv · ∇log π is then ∇J, exactly; Σ weight · ratio · adv the surrogate L_π of Schulman et al. 2015, eq. 3, less
    its constant; and means over the batch are those over the states visited, discounted.
    """
    logp = log_policy(mdp, policy).detach()
    pi = logp.exp()
    V, Q = solve(mdp, pi)
    reached = discounts(mdp) * visits(mdp, pi).unsqueeze(-1)  # (H, S, 1)
    w = reached.sum(0)  # (S, 1)
    adv = torch.where(w > 0, (reached * (Q - V[:-1].unsqueeze(-1))).sum(0) / w, 0.0)
    s, a = (w * pi > 0).nonzero(as_tuple=True)
    obs = torch.eye(mdp.states, dtype=torch.float64)[s]
    return Batch(obs, a, logp[s, a], adv[s, a], (w * pi)[s, a], trajectories=1)


def sampled_batch(mdp: MDP, policy: Policy, episodes: int, seed: int = 0) -> Batch:
    """Episodes sampled with the policy, their advantages reward-to-go minus the exact V, times γᵗ: ĝ is unbiased."""
    rollout = sample_episodes(mdp, policy, episodes, seed)
    estimator = StateDiscounted(RewardToGo(mdp.gamma))
    adv, _ = advantages(rollout, ExactCritic(mdp)(rollout, policy), estimator, CriticValue())
    return rollout.flatten(adv, "trajectory")


def sample_episodes(mdp: MDP, policy: Policy, episodes: int, seed: int = 0) -> Rollout:
    """Episodes of the MDP, a column each, in the layout of `enumerate_trajectories`: sorted by length."""
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    generator = torch.Generator().manual_seed(seed)
    pi = log_policy(mdp, policy).detach().exp()
    states = torch.multinomial(mdp.start, episodes, True, generator=generator).unsqueeze(1)
    actions, finished = states[:, :0], []
    for t in range(mdp.horizon):
        a = torch.multinomial(pi[states[:, -1]], 1, generator=generator)
        s = torch.multinomial(mdp.transition[states[:, -1], a.squeeze(1)], 1, generator=generator)
        states, actions = torch.cat([states, s], 1), torch.cat([actions, a], 1)
        over = mdp.over[s.squeeze(1)] | (t == mdp.horizon - 1)
        finished.append((states[over], actions[over], torch.full((int(over.sum()),), 1.0 / episodes)))
        states, actions = states[~over], actions[~over]
    return as_rollout(mdp, policy, finished)


def exact_objective(mdp: MDP) -> Callable[[Policy], float]:
    """J of a policy, by dynamic programming."""
    return lambda policy: float(objective(mdp, policy_matrix(mdp, policy).detach()))
