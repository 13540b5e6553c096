"""The exact world: small Markov decision processes (MDPs) on which J, V, Q and ∇J are known, not estimated.

Everything is float64 and time-dependent, for the horizon is finite. States are shown to policies as one-hot observations,
so any `Policy` over discrete actions will do. Every trajectory can be listed with its probability: the expectation of any
estimator is then a finite sum, exact to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from policygrad.data import Rollout, Stats, Values
from policygrad.models.heads import Categorical
from policygrad.models.networks import TabularNetwork
from policygrad.models.policy import Policy

MAX_TRAJECTORIES = 1_000_000


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite MDP with horizon H: S states, A actions, J = E[ Σ_{t<H} γᵗ r(s_t, a_t) ].

    Entering a terminal state ends the episode; so does the H-th step, which is part of the task: both are `terminated`.
    Tables may be anything that `torch.as_tensor` takes.
    """

    transition: Tensor  # (S, A, S)  P(s'|s, a)
    reward: Tensor  # (S, A)
    start: Tensor  # (S,)            distribution of s_0, none of it on terminal states
    horizon: int
    gamma: float = 1.0
    terminal: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("transition", "reward", "start"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))
        object.__setattr__(self, "terminal", tuple(int(s) for s in self.terminal))
        if self.reward.ndim != 2 or 0 in self.reward.shape:
            raise ValueError(f"reward must be (S, A), got {tuple(self.reward.shape)}")
        S, A = self.reward.shape
        for name, shape in (("transition", (S, A, S)), ("start", (S,))):
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} must be {shape} to go with the reward, got {tuple(getattr(self, name).shape)}"
                )
        if not torch.isfinite(self.reward).all():
            raise ValueError("reward must be finite")
        for name, table in (("transition[s, a]", self.transition), ("start", self.start)):
            _check_distribution(name, table)
            object.__setattr__(self, name.partition("[")[0], table / table.sum(-1, keepdim=True))  # float32's rounding
        if self.horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {self.horizon}")
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1], got {self.gamma}")
        if any(not 0 <= s < S for s in self.terminal):
            raise ValueError(f"terminal states must be in 0..{S - 1}, got {self.terminal}")
        if (self.start[self.over] > 0).any():
            raise ValueError("start must give terminal states probability 0: an episode has at least one step")

    @property
    def states(self) -> int:
        """S."""
        return self.reward.shape[0]

    @property
    def actions(self) -> int:
        """A."""
        return self.reward.shape[1]

    @cached_property
    def over(self) -> Tensor:
        """(S,) bool: the terminal states."""
        over = torch.zeros(self.states, dtype=torch.bool)
        over[list(self.terminal)] = True
        return over


def _check_distribution(name: str, p: Tensor) -> None:
    # written so that NaN fails too
    wrong = ~((p >= 0).all(-1) & ((p.sum(-1) - 1.0).abs() <= 1e-6))
    if wrong.any():
        first = p[wrong][0] if p.ndim > 1 else p
        raise ValueError(f"{name} must be a probability distribution (entries ≥ 0, sum 1), got {first.tolist()}")


def random_mdp(
    states: int,
    actions: int,
    horizon: int,
    rng: np.random.Generator,
    gamma: float = 1.0,
    terminal: Sequence[int] = (),
) -> MDP:
    """Dirichlet(1) transitions and start (none on terminal states), standard normal rewards."""
    start = np.zeros(states)
    live = [s for s in range(states) if s not in terminal]
    start[live] = rng.dirichlet(np.ones(len(live)))
    transition = rng.dirichlet(np.ones(states), size=(states, actions))
    reward = rng.standard_normal((states, actions))
    P, r, d = (torch.from_numpy(table) for table in (transition, reward, start))
    return MDP(P, r, d, horizon, gamma, tuple(terminal))


def chain(states: int, horizon: int, gamma: float = 1.0, slip: float = 0.0) -> MDP:
    """States in a row; action 0 goes left, 1 right, the other way with probability `slip`; 1 for reaching the right end.

    The start is the left end, where left stays; the right end is terminal. Slip 0: deterministic.
    """
    if states < 2:
        raise ValueError(f"a chain needs at least 2 states, got {states}")
    transition = torch.zeros(states, 2, states, dtype=torch.float64)
    for s in range(states):
        left, right = max(s - 1, 0), min(s + 1, states - 1)
        for action, p_right in ((0, slip), (1, 1.0 - slip)):
            transition[s, action, left] += 1.0 - p_right
            transition[s, action, right] += p_right
    reward = transition[:, :, -1].clone()
    reward[-1] = 0.0
    start = torch.eye(states, dtype=torch.float64)[0]
    return MDP(transition, reward, start, horizon, gamma, (states - 1,))


def bandit(rewards: Sequence[float]) -> MDP:
    """One state, one step: J = Σ_a π(a) r_a and ∂J/∂logit_a = π(a) (r_a − J)."""
    reward = torch.tensor([list(rewards)], dtype=torch.float64)
    return MDP(torch.ones(1, len(rewards), 1), reward, torch.ones(1), horizon=1)


def from_gymnasium(env: gym.Env, gamma: float = 1.0) -> MDP:
    """The MDP of a Gymnasium environment that has its table, P[s][a] = [(probability, s', reward, terminated)]: FrozenLake,
    Taxi, CliffWalking. The horizon is its time limit.
    """
    table, start = (getattr(env.unwrapped, name, None) for name in ("P", "initial_state_distrib"))
    horizon = env.spec.max_episode_steps if env.spec is not None else None
    if table is None or start is None or horizon is None:
        raise ValueError(f"{env} has no transition table, initial_state_distrib and time limit: write its MDP yourself")
    S, A = len(table), len(table[0])
    transition, reward = torch.zeros(S, A, S, dtype=torch.float64), torch.zeros(S, A, dtype=torch.float64)
    terminal = set()
    for s, a in itertools.product(range(S), range(A)):
        for p, after, r, terminated in table[s][a]:
            transition[s, a, after] += p
            reward[s, a] += p * r
            if terminated:
                terminal.add(int(after))
    return MDP(transition, reward, torch.as_tensor(start), horizon, gamma, tuple(sorted(terminal)))


def optimum(mdp: MDP) -> float:
    """J* = max_π J, over time-dependent policies: V_t(s) = max_a Q_t(s, a), backwards (Bellman)."""
    live, V = (~mdp.over).to(torch.float64), torch.zeros_like(mdp.start)
    for _ in range(mdp.horizon):
        V = (live[:, None] * (mdp.reward + mdp.gamma * mdp.transition @ V)).amax(1)
    return float(mdp.start @ V)


def greedy(pi: Tensor) -> Tensor:
    """The policy that takes the likeliest action, (S, A)."""
    return torch.nn.functional.one_hot(pi.argmax(-1), pi.shape[-1]).to(pi.dtype)


def tabular_policy(mdp: MDP, generator: torch.Generator | None = None, scale: float = 1.0) -> Policy:
    """The softmax policy with one logit for each (state, action), float64; the logits are N(0, scale²), uniform at 0."""
    policy = Policy(TabularNetwork(mdp.states, mdp.actions), Categorical(mdp.actions)).double()
    policy.flat.copy_(scale * torch.randn(policy.flat.shape, generator=generator, dtype=torch.float64))
    return policy


def log_policy(mdp: MDP, policy: Policy) -> Tensor:
    """Log π(a|s), (S, A), with its graph."""
    obs = torch.eye(mdp.states, dtype=torch.float64).repeat_interleave(mdp.actions, 0)
    return policy.logp(obs, torch.arange(mdp.actions).repeat(mdp.states)).view(mdp.states, mdp.actions)


def policy_matrix(mdp: MDP, policy: Policy) -> Tensor:
    """π(a|s), (S, A), with its graph."""
    return log_policy(mdp, policy).exp()


def solve(mdp: MDP, pi: Tensor) -> tuple[Tensor, Tensor]:
    """V (H+1, S) and Q (H, S, A) of π, by dynamic programming backwards; differentiable in π.

    Q_t(s,a) = r(s,a) + γ Σ_s' P(s'|s,a) V_{t+1}(s'),  V_t(s) = Σ_a π(a|s) Q_t(s,a),  V_H = 0; terminal states have 0.
    """
    live = (~mdp.over).to(pi.dtype)
    V, Q = [torch.zeros_like(mdp.start)], []
    for _ in range(mdp.horizon):
        Q.append(live[:, None] * (mdp.reward + mdp.gamma * mdp.transition @ V[-1]))
        V.append((pi * Q[-1]).sum(1))
    return torch.stack(V[::-1]), torch.stack(Q[::-1])


def objective(mdp: MDP, pi: Tensor) -> Tensor:
    """J = Σ_s P(s_0 = s) V_0(s), a scalar; differentiable in π."""
    return mdp.start @ solve(mdp, pi)[0][0]


def visits(mdp: MDP, pi: Tensor) -> Tensor:
    """d_t(s) = P(s_t = s and the episode is running), (H, S), forwards."""
    live = (~mdp.over).to(pi.dtype)
    d = [mdp.start]
    for _ in range(mdp.horizon - 1):
        d.append(live * torch.einsum("s,sa,sap->p", d[-1], pi, mdp.transition))
    return torch.stack(d)


def discounts(mdp: MDP) -> Tensor:
    """γᵗ, (H, 1, 1): multiplies a table (H, S, A)."""
    return mdp.gamma ** torch.arange(mdp.horizon, dtype=torch.float64).view(-1, 1, 1)


def exact_gradient(mdp: MDP, policy: Policy) -> Tensor:
    """∇J, (P,): autograd through the dynamic programme."""
    return policy.gradient(objective(mdp, policy_matrix(mdp, policy)))


def credited_gradient(mdp: MDP, policy: Policy, credit: Tensor) -> Tensor:
    """Σ_t Σ_s d_t(s) Σ_a π(a|s) credit_t(s,a) ∇log π(a|s), (P,): the mean of Σ_t adv_t ∇log π for any adv whose mean, given
    (t, s, a), is credit (H, S, A) up to a term without a. γᵗ Q_t gives ∇J; Q_t without γᵗ is what deep RL computes.
    """
    logp = log_policy(mdp, policy)
    pi = logp.detach().exp()
    weight = (visits(mdp, pi).unsqueeze(-1) * pi * credit).sum(0)
    return policy.gradient((weight * logp).sum())


def gradient_theorem(mdp: MDP, policy: Policy) -> Tensor:
    """∇J = Σ_t γᵗ Σ_s d_t(s) Σ_a π(a|s) Q_t(s,a) ∇log π(a|s): Sutton et al. 2000, theorem 1, for a finite horizon."""
    Q = solve(mdp, policy_matrix(mdp, policy).detach())[1]
    return credited_gradient(mdp, policy, discounts(mdp) * Q)


def gradient_by_differences(mdp: MDP, policy: Policy, step: float = 1e-5) -> Tensor:
    """∇J by central differences, error O(step²): needs no derivative at all."""
    theta, grad = policy.flat, torch.zeros_like(policy.flat)
    with torch.no_grad():
        for i, centre in enumerate(theta.tolist()):
            theta[i] = centre + step
            above = objective(mdp, policy_matrix(mdp, policy))
            theta[i] = centre - step
            grad[i] = (above - objective(mdp, policy_matrix(mdp, policy))) / (2.0 * step)
            theta[i] = centre
    return grad


def enumerate_trajectories(mdp: MDP, policy: Policy) -> tuple[Rollout, Tensor]:
    """Every trajectory of non-zero probability, one a column, padded with masked rows, and its probability (N,).

    The state after the last step is drawn too, as an environment would: columns may differ in it alone.
    """
    pi = policy_matrix(mdp, policy).detach()
    step = pi.unsqueeze(-1) * mdp.transition  # (S, A, S): P(a, s'|s)
    states = mdp.start.nonzero()
    actions, probability = states[:, :0], mdp.start[states[:, 0]]
    finished: list[tuple[Tensor, Tensor, Tensor]] = []
    for t in range(mdp.horizon):
        p = probability.view(-1, 1, 1) * step[states[:, -1]]
        i, a, s = p.nonzero(as_tuple=True)
        if len(i) > MAX_TRAJECTORIES:
            raise ValueError(f"more than {MAX_TRAJECTORIES} trajectories by step {t}: take a smaller MDP or horizon")
        states, actions = torch.cat([states[i], s[:, None]], 1), torch.cat([actions[i], a[:, None]], 1)
        probability = p[i, a, s]
        over = mdp.over[s] | (t == mdp.horizon - 1)
        finished.append((states[over], actions[over], probability[over]))
        states, actions, probability = states[~over], actions[~over], probability[~over]
    return as_rollout(mdp, policy, finished), torch.cat([p for _, _, p in finished])


def as_rollout(mdp: MDP, policy: Policy, finished: list[tuple[Tensor, Tensor, Tensor]]) -> Rollout:
    """Trajectories as columns, padded with masked rows. The t-th group has t + 1 steps: states (n, t+2), actions (n, t+1), and
    what belongs to each trajectory, (n,).
    """
    T, columns = mdp.horizon, [len(p) for _, _, p in finished]
    length = torch.repeat_interleave(torch.arange(1, T + 1), torch.tensor(columns))
    obs = torch.zeros(T + 1, len(length), mdp.states, dtype=torch.float64)
    act = torch.zeros(T, len(length), dtype=torch.int64)
    first = 0
    for states, actions, _ in finished:
        group = slice(first, first + len(states))
        obs[: states.shape[1], group] = torch.eye(mdp.states, dtype=torch.float64)[states.T]
        act[: actions.shape[1], group] = actions.T
        first += len(states)
    time = torch.arange(T).unsqueeze(1).expand_as(act)
    mask, end, none = time < length, time == length - 1, torch.zeros(act.shape, dtype=torch.bool)
    rew = torch.where(mask, mdp.reward[obs[:-1].argmax(-1), act], 0.0)
    logp = policy.evaluate(obs[:-1].flatten(0, 1), act.flatten()).logp.view(act.shape)
    return Rollout(obs, obs[1:], act, rew, logp, terminated=end, truncated=none, cut=none, mask=mask, time=time)


def enumerate_batches(rollout: Rollout, probability: Tensor, k: int) -> Iterator[tuple[Rollout, Tensor]]:
    """All Nᵏ ordered batches of k independent trajectories, with their probabilities: for members that couple them."""
    for index in itertools.product(range(len(probability)), repeat=k):
        yield rollout.columns(index), probability[list(index)].prod()


class ExactCritic:
    """The exact, time-dependent V^π of the policy it is called with; or any table V (H+1, S), e.g. a deliberately wrong one.

    Called like `models.critic.Critic`; it has nothing to learn. `ExactQCritic` is the same with Q.
    """

    bootstraps = True

    def __init__(self, mdp: MDP, V: Tensor | None = None) -> None:
        if V is not None and V.shape != (mdp.horizon + 1, mdp.states):
            raise ValueError(f"V must be (H+1, S) = {(mdp.horizon + 1, mdp.states)}, got {tuple(V.shape)}")
        self.mdp, self.V = mdp, V

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        V = solve(self.mdp, policy_matrix(self.mdp, policy).detach())[0] if self.V is None else self.V
        state, after = rollout.obs[:-1].argmax(-1), rollout.next_obs.argmax(-1)
        return Values(V[rollout.time, state], V[rollout.time + 1, after])

    def fit(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> Stats:
        """Nothing to learn."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


class ExactQCritic(ExactCritic):
    """The exact, time-dependent Q^π of the policy it is called with; or any table Q (H+1, S, A): V = Σ_a π(a|s) Q(s,a)."""

    def __init__(self, mdp: MDP, Q: Tensor | None = None) -> None:
        super().__init__(mdp)
        shape = (mdp.horizon + 1, mdp.states, mdp.actions)
        if Q is not None and Q.shape != shape:
            raise ValueError(f"Q must be (H+1, S, A) = {shape}, got {tuple(Q.shape)}")
        self.Q = Q

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        pi = policy_matrix(self.mdp, policy).detach()
        Q = self.Q
        if Q is None:
            Q = solve(self.mdp, pi)[1]
            Q = torch.cat([Q, torch.zeros_like(Q[:1])])
        V = (pi * Q).sum(-1)
        state, after = rollout.obs[:-1].argmax(-1), rollout.next_obs.argmax(-1)
        return Values(V[rollout.time, state], V[rollout.time + 1, after], act_val=Q[rollout.time, state, rollout.act])
