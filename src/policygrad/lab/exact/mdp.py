"""Finite Markov decision processes (MDPs): checked tables, and functions that make them.

What is *not* here: what follows from a policy (tabular.py), episodes (sampling.py), MDPs by name (worlds.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

MAX_NAMED = 8  # terminal states


@dataclass(frozen=True, eq=False, repr=False)
class MDP:
    """A finite MDP: S states, A actions, J = E[ Σ_t γᵗ r(s_t, a_t) ] over H steps, or without end where the horizon is None.

    Entering a terminal state ends the episode; so does the H-th step, which is part of the task: both are `terminated`.
    Tables may be anything that `torch.as_tensor` takes. A reward (S, A, S) depends on the next state, too: it becomes
    `outcome`, and `reward` is its mean.

    groups: states that look alike to a policy share a number (aliasing); no two do by default.
    """

    transition: Tensor  # (S, A, S)  P(s'|s, a)
    reward: Tensor  # (S, A)     mean of what is paid
    start: Tensor  # (S,)        distribution of s_0, none of it on terminal states
    horizon: int | None
    gamma: float = 1.0
    terminal: tuple[int, ...] = ()
    groups: tuple[int, ...] | None = None
    outcome: Tensor = field(init=False)  # (S, A, S)  what is paid, given the next state

    def __post_init__(self) -> None:
        for name in ("transition", "reward", "start"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))
        object.__setattr__(self, "terminal", tuple(int(s) for s in self.terminal))
        if self.reward.ndim not in (2, 3) or 0 in self.reward.shape:
            raise ValueError(f"reward must be (S, A) or (S, A, S), got {tuple(self.reward.shape)}")
        S, A = self.reward.shape[:2]
        expected = {"transition": (S, A, S), "start": (S,)} | ({"reward": (S, A, S)} if self.reward.ndim == 3 else {})
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                given = tuple(getattr(self, name).shape)
                raise ValueError(f"{name} must be {shape} to go with the reward, got {given}")
        if not torch.isfinite(self.reward).all():
            raise ValueError("reward must be finite")
        for name, table in (("transition[s, a]", self.transition), ("start", self.start)):
            check_distribution(name, table)
            object.__setattr__(self, name.partition("[")[0], table / table.sum(-1, keepdim=True))  # float32's rounding
        paid = self.reward if self.reward.ndim == 3 else self.reward.unsqueeze(-1).expand(S, A, S)
        object.__setattr__(self, "outcome", paid)
        if self.reward.ndim == 3:
            object.__setattr__(self, "reward", (self.transition * paid).sum(-1))
        self._check_ends(S)
        if self.groups is not None:
            object.__setattr__(self, "groups", tuple(int(g) for g in self.groups))
            if len(self.groups) != S or sorted(set(self.groups)) != list(range(max(self.groups) + 1)):
                raise ValueError(f"groups must give each of {S} states a number, 0, 1, … without gaps: {self.groups}")

    def _check_ends(self, S: int) -> None:
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {self.horizon}")
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1], got {self.gamma}")
        if any(not 0 <= s < S for s in self.terminal):
            raise ValueError(f"terminal states must be in 0..{S - 1}, got {self.terminal}")
        if (self.start[self.over] > 0).any():
            raise ValueError("start must give terminal states probability 0: an episode has at least one step")
        if self.horizon is None and self.gamma == 1.0 and not self.terminal:
            raise ValueError("without a horizon, gamma must be below 1 or there must be terminal states: J has no end")

    def __repr__(self) -> str:
        ends = f", terminal {', '.join(map(str, self.terminal))}" if self.terminal else ""
        ends = f", {len(self.terminal)} terminal" if len(self.terminal) > MAX_NAMED else ends
        looks = "" if self.groups is None else f", aliased: {counted(max(self.groups) + 1, 'group')}"
        return f"MDP({self.size}{ends}{looks})"

    @property
    def size(self) -> str:
        """The size as text: 3 states, 2 actions, horizon 4, γ = 0.9."""
        horizon = "no horizon" if self.horizon is None else f"horizon {self.horizon}"
        return f"{counted(self.states, 'state')}, {counted(self.actions, 'action')}, {horizon}, γ = {self.gamma:g}"

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

    @cached_property
    def live(self) -> Tensor:
        """(S,) 1 where an episode goes on, 0 in terminal states."""
        return (~self.over).to(self.start.dtype)


def counted(number: int, what: str) -> str:
    """1 state, 2 states."""
    return f"{number} {what}{'s' * (number != 1)}"


def check_distribution(name: str, p: Tensor) -> None:
    """Raises ValueError where a row of p (…, K) is no probability distribution."""
    # written so that NaN fails too
    wrong = ~((p >= 0).all(-1) & ((p.sum(-1) - 1.0).abs() <= 1e-6))
    if wrong.any():
        first = p[wrong][0] if p.ndim > 1 else p
        raise ValueError(f"{name} must be a probability distribution (entries ≥ 0, sum 1), got {first.tolist()}")


def random_mdp(
    states: int,
    actions: int,
    horizon: int | None,
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


def chain(states: int, horizon: int | None, gamma: float = 1.0, slip: float = 0.0) -> MDP:
    """States in a row: action 0 goes left and 1 right, with probability `slip` the other way; reaching the right end pays 1.

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
    """A bandit with one state and one step: J = Σ_a π(a) r_a and ∂J/∂logit_a = π(a) (r_a − J)."""
    reward = torch.tensor([list(rewards)], dtype=torch.float64)
    return MDP(torch.ones(1, len(rewards), 1), reward, torch.ones(1), horizon=1)


def from_gymnasium(env: gym.Env, gamma: float = 1.0) -> MDP:
    """The MDP of a Gymnasium environment that has its table, P[s][a] = [(probability, s', reward, terminated)]: FrozenLake,
    Taxi, CliffWalking. The horizon is its time limit. Where ways from s to s' pay differently, `outcome` is their mean: on
    slippery cliffs the start is where one falls to, −100, or stays, −1.

    Raises TypeError for what is no environment, such as its name; ValueError where there is no table, or where some ways into
    a state end the episode and others do not.
    """
    if not isinstance(env, gym.Env):
        hint = f": pass gym.make({env!r})" if isinstance(env, str) else ""
        raise TypeError(f"env must be a Gymnasium environment, got {env!r}{hint}")
    table, start = (getattr(env.unwrapped, name, None) for name in ("P", "initial_state_distrib"))
    horizon = env.spec.max_episode_steps if env.spec is not None else None
    if table is None or start is None or horizon is None:
        raise ValueError(f"{env} has no transition table, initial_state_distrib and time limit: write its MDP yourself")
    S, A = len(table), len(table[0])
    transition, paid = torch.zeros(S, A, S, dtype=torch.float64), torch.zeros(S, A, S, dtype=torch.float64)
    for s, a in itertools.product(range(S), range(A)):
        for p, after, r, _ in table[s][a]:
            if p > 0:
                transition[s, a, after] += p  # and a running mean, which leaves equal rewards what they are
                paid[s, a, after] += (p / transition[s, a, after]) * (r - paid[s, a, after])
    terminal = _terminal(table, np.flatnonzero(np.asarray(start)).tolist())
    return MDP(transition, paid, torch.as_tensor(start), horizon, gamma, terminal)


def _terminal(table: Any, start: list[int]) -> tuple[int, ...]:
    """The states that end an episode, of those an episode can reach."""
    ends: dict[int, bool] = dict.fromkeys(start, False)
    new = list(start)
    while new:
        for p, after, _, terminated in itertools.chain.from_iterable(table[new.pop()].values()):
            if p == 0:
                continue
            if after not in ends and not terminated:
                new.append(int(after))
            if ends.setdefault(int(after), bool(terminated)) != terminated:
                raise ValueError(f"state {after} ends the episode on some ways into it and not on others: no such MDP")
    return tuple(sorted(s for s, over in ends.items() if over))


MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # north, east, south, west


def gridworld(
    plan: Sequence[str],
    horizon: int | None,
    *,
    gamma: float = 1.0,
    slip: float = 0.0,
    step: float = 0.0,
    aliased: bool = False,
) -> MDP:
    """Cells of a plan: `S` start (all with the same probability), `G` goal, 1, `X` pit, −1, both terminal; `#` wall; `.` free.

    Actions: north, east, south, west; into a wall or over the edge one stays. slip: the chance of going at a right angle, half
    of it each way. step: paid for every step. aliased: cells whose four neighbours are walls in the same way look alike.

    Raises ValueError for rows of different lengths, other letters, and a plan without a start.
    """
    if len(set(map(len, plan))) > 1:
        raise ValueError(f"the rows of a plan must be equally long, got {list(plan)}")
    cells = {(i, j): c for i, row in enumerate(plan) for j, c in enumerate(row) if c != "#"}
    if any(c not in "SGX." for c in cells.values()) or "S" not in cells.values():
        raise ValueError(f"a plan is of S, G, X, # and ., with an S in it, got {list(plan)}")
    number = {cell: n for n, cell in enumerate(cells)}
    S = len(cells)
    transition, reward = torch.zeros(S, 4, S, dtype=torch.float64), torch.full((S, 4, S), step, dtype=torch.float64)
    for (i, j), s in number.items():
        ahead = [number.get((i + di, j + dj), s) for di, dj in MOVES]
        for a in range(4):
            for turn, p in ((0, 1.0 - slip), (1, slip / 2), (-1, slip / 2)):
                transition[s, a, ahead[(a + turn) % 4]] += p
    kind = list(cells.values())
    for s, c in enumerate(kind):
        reward[:, :, s] += {"G": 1.0, "X": -1.0}.get(c, 0.0)
    start = torch.tensor([float(c == "S") for c in kind], dtype=torch.float64)
    walls = [tuple((i + di, j + dj) in cells for di, dj in MOVES) for i, j in cells]
    looks = {look: n for n, look in enumerate(dict.fromkeys(walls))}
    groups = tuple(looks[look] for look in walls) if aliased else None
    terminal = tuple(s for s, c in enumerate(kind) if c in "GX")
    return MDP(transition, reward, start / start.sum(), horizon, gamma, terminal, groups)


def delayed(delay: int, noise: float = 1.0) -> MDP:
    """The first action decides the reward `delay` steps later, 1 or 0; every step between pays ±noise by a coin flip.

    What is done on the way changes nothing. One good action, drowned in rewards that it has no part in.
    """
    if delay < 1:
        raise ValueError(f"delay must be at least 1, got {delay}")
    S = 2 + 4 * delay  # the start; (branch, steps gone, coin); the end
    end = S - 1
    transition, reward = torch.zeros(S, 2, S, dtype=torch.float64), torch.zeros(S, 2, S, dtype=torch.float64)

    def place(branch: int, gone: int, coin: int) -> int:
        return 1 + 4 * (gone - 1) + 2 * branch + coin

    for branch, coin in itertools.product(range(2), range(2)):
        transition[0, branch, place(branch, 1, coin)] = 0.5
        for gone in range(1, delay):
            transition[place(branch, gone, coin), :, place(branch, gone + 1, 0)] = 0.5
            transition[place(branch, gone, coin), :, place(branch, gone + 1, 1)] = 0.5
        transition[place(branch, delay, coin), :, end] = 1.0
        reward[place(branch, delay, coin), :, end] = float(branch)
    for s in range(1, end):
        reward[:, :, s] = noise if (s - 1) % 2 else -noise
    transition[end, :, end] = 1.0
    return MDP(transition, reward, torch.eye(S)[0], delay + 1, terminal=(end,))


def rock_paper_scissors(rounds: int) -> MDP:
    """Rounds against an opponent that plays what beats one's last throw; a policy sees nothing, so it cannot take turns.

    States: the last throw; the first one is random. 1 for winning, −1 for losing. Every deterministic policy repeats itself and
    loses all rounds but the first; the best one is uniform and gets 0 in each.
    """
    last, throw = torch.arange(3)[:, None], torch.arange(3)[None, :]
    ahead = (throw - (last + 1)) % 3  # of the opponent's throw: 1 wins, 2 loses
    reward = torch.where(ahead == 1, 1.0, torch.where(ahead == 2, -1.0, 0.0))
    return MDP(torch.eye(3).expand(3, 3, 3), reward, torch.full((3,), 1 / 3), rounds, groups=(0, 0, 0))


def switched_corridor() -> MDP:
    """Three states in a row that look alike, left and right exchanged in the middle one; −1 per step (Sutton & Barto, 13.1).

    A deterministic policy never arrives. The best one goes right with probability 2 − √2 = 0.586: J = −11.66.
    """
    transition = torch.zeros(4, 2, 4)
    for s, (left, right) in enumerate([(0, 1), (2, 0), (1, 3), (3, 3)]):
        transition[s, 0, left] = transition[s, 1, right] = 1.0
    reward = torch.tensor([[-1.0, -1.0]] * 3 + [[0.0, 0.0]])
    return MDP(transition, reward, torch.eye(4)[0], None, terminal=(3,), groups=(0, 0, 0, 0))
