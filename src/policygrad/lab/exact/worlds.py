"""Small MDPs by name, and their batches: all trajectories weighted by probability, or sampled episodes.

A `Batch` from here is what an update rule is given in training, and `compare` in steps/rules.py shows what rules make of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from policygrad.data import Batch, Rollout
from policygrad.files import MIB, BadFileError, read_json
from policygrad.forms import Form, FormError, anything, each, maybe, number, table, whole
from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import RewardToGo, StateDiscounted, advantages
from policygrad.lab.exact.mdp import (
    MDP,
    bandit,
    chain,
    delayed,
    from_gymnasium,
    gridworld,
    random_mdp,
    rock_paper_scissors,
    switched_corridor,
)
from policygrad.lab.exact.policies import log_policy, policy_matrix, tabular_policy
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import ExactCritic, advantage, objective, occupancy
from policygrad.lab.results import find_by_name
from policygrad.models.heads import Categorical
from policygrad.models.policy import Policy

MAX_STEPS = 100  # of an episode, where Gymnasium sets no limit
# of a file; the first four must be there
TABLES = ("transition", "reward", "start", "horizon", "gamma", "terminal", "groups")
MAX_STATES, MAX_HORIZON = 10_000, 100_000  # of a file


def _nested(*depths: int) -> Form:
    """Numbers in lists, of one of these depths."""

    def check(name: str, value: Any, depth: int = 0) -> None:
        if isinstance(value, list) and depth < max(depths):
            each(lambda name, x: check(name, x, depth + 1), MAX_STATES)(name, value)
        elif depth not in depths or type(value) not in (int, float):
            number()(name, value if depth in depths else [value])

    return check


FORM = table(
    {"transition": _nested(3), "reward": _nested(2, 3), "start": _nested(1), "horizon": maybe(whole(1, MAX_HORIZON))},
    optional={
        "gamma": number(0, 1),
        "terminal": each(whole(), MAX_STATES),
        "groups": maybe(each(whole(), MAX_STATES)),
        "pi": maybe(_nested(2)),
    },
    others=anything,
)
TRUNCATED_AFTER = 1_000  # steps after which an episode without a horizon is truncated


def two_states(horizon: int = 8) -> MDP:
    """Two states: left leads left and pays 1 in the left state, right leads right and pays 2 in the right; P(start left) = 0.8.

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


GRID = ("...G", ".#.X", "S...")  # Russell & Norvig, 17.1
ALIASED = ("SSSSS", "X#G#X")  # after D. Silver's lecture 7: the second and the fourth cell look alike
GYMNASIUM = ("FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1", "Taxi-v4")

WORLDS: dict[str, Callable[[int], MDP]] = {
    "bandit": lambda seed: bandit([1.0, 0.0, 2.0, 0.5]),
    "two-states": lambda seed: two_states(),
    "chain": lambda seed: chain(6, horizon=12, slip=0.1),
    "gridworld": lambda seed: gridworld(GRID, 20, slip=0.2, step=-0.04),
    "random": lambda seed: random_mdp(8, 4, 10, np.random.default_rng(seed)),
    "small": lambda seed: random_mdp(3, 2, 4, np.random.default_rng(seed), gamma=0.9),
    "deceptive": lambda seed: bandit([1.0, 0.0]),
    "delayed": lambda seed: delayed(4),
    "aliased": lambda seed: gridworld(ALIASED, 20, gamma=0.9, aliased=True),
    "corridor": lambda seed: switched_corridor(),
    "rock-paper-scissors": lambda seed: rock_paper_scissors(6),
    **{env: _gymnasium(env) for env in GYMNASIUM},
}
DESCRIBED: dict[str, str] = {  # what each is for, as docs/mdps.md lists them
    "bandit": "one state, four actions, one step: ∂J/∂logit = π(a)(r(a) − J)",
    "two-states": "Kakade's plateau: the plain gradient long leads away from the better state",
    "chain": "a walk with slips, 1 at the right end",
    "gridworld": "Russell & Norvig's 4 × 3 cells: slips, a pit, a cost per step",
    "random": "random tables, by a seed",
    "small": "random, with so few trajectories that all pairs can be listed",
    "deceptive": "subtracting V makes the variance 64 times as large",
    "delayed": "the first action decides the reward four steps later; others are ±1 at random",
    "aliased": "a gridworld where two cells look alike: deterministic policies get stuck",
    "corridor": "Sutton & Barto's switched corridor: three states look alike, no horizon",
    "rock-paper-scissors": "the opponent beats your last action: deterministic policies lose",
    ", ".join(GYMNASIUM): "Gymnasium's tables and time limits",
}


def make_mdp(name: str, seed: int = 0, *, horizon: float | None = None, gamma: float | None = None) -> MDP:
    """An MDP by its name. seed: of the random ones. horizon, gamma: others than its own; horizon = inf: without end.

    A name that ends with .json is a file of one's own tables, see `read_tables`.
    Raises ValueError, with the nearest name, for one that is not there, and for a file that holds no MDP.
    """
    if name.endswith(".json"):
        tables = {key: value for key, value in read_tables(name).items() if key in TABLES}
        try:
            mdp = MDP(**tables)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} holds no MDP: {error}") from error
    else:
        mdp = find_by_name("MDP", name, WORLDS)(seed)
    paid: dict[str, Any] = {"reward": mdp.outcome}
    if horizon is not None:
        paid["horizon"] = None if horizon == math.inf else int(horizon)
    if gamma is not None:
        paid["gamma"] = gamma
    return replace(mdp, **paid) if len(paid) > 1 else mdp


def read_tables(path: str) -> dict[str, Any]:
    """The tables of a JSON file: transition (S, A, S), reward (S, A) or (S, A, S), start (S,), horizon or null; if wanted
    gamma, terminal, groups, and a policy pi (S, A). Of the output of `policygrad lab claims --json`, the first counterexample.

    Raises ValueError for a file that is not there, or has something else in it.
    """
    try:
        found = read_json(path, 64 * MIB, memory=256 * MIB)
    except BadFileError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if isinstance(found, list):
        found = next((f["counterexample"] for f in found if isinstance(f, dict) and "counterexample" in f), None)
    tables = found if isinstance(found, dict) else {}
    missing = [key for key in TABLES[:4] if key not in tables]
    if missing:
        raise ValueError(f"{path} holds no MDP: {', '.join(missing)} missing")
    try:
        FORM("it", tables)
    except FormError as error:
        raise ValueError(f"{path} holds no MDP: {error}") from error
    return tables


def starting_policy(name: str, mdp: MDP, seed: int = 0, scale: float = 1.0) -> Policy:
    """The table of logits to study an MDP with, N(0, scale²).

    On "deceptive" the logits are (log 9, 0): V is near what the likely action gets, and the best baseline near what the other
    one does, whose score is long; subtracting V makes the variance larger than subtracting nothing. Of a file with a `pi`, that
    policy; where states look alike, the first one's row. Raises TypeError where name and MDP are swapped.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"expected the name of an MDP, then the MDP, got a {type(name).__name__} first: swap the arguments"
        )
    policy = tabular_policy(mdp, torch.Generator().manual_seed(seed), scale)
    if name.endswith(".json") and (given := read_tables(name).get("pi")) is not None:
        try:
            pi = torch.tensor(given, dtype=torch.float64)
        except ValueError as error:  # rows of different lengths
            raise ValueError(f"pi in {name}: {error}") from error
        if pi.shape != (mdp.states, mdp.actions) or not (pi > 0).all():
            raise ValueError(f"pi in {name} must be (S, A) = {(mdp.states, mdp.actions)}, every probability above 0")
        first = range(mdp.states) if mdp.groups is None else [mdp.groups.index(g) for g in range(max(mdp.groups) + 1)]
        policy.flat.copy_(pi[list(first)].log().flatten())
    if name == "deceptive":
        policy.flat.copy_(torch.tensor([math.log(9.0), 0.0], dtype=torch.float64))
    return policy


class TwoLogits(nn.Module):
    """A network with one parameter per state, the logit of the second action: (B, 2) → (B, 2), logits (0, θ_s)."""

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
    reached = occupancy(mdp, pi).unsqueeze(-1)  # (H, S, 1)
    w = reached.sum(0)  # (S, 1)
    adv = torch.where(w > 0, (reached * advantage(mdp, pi)).sum(0) / w, 0.0)
    s, a = (w * pi > 0).nonzero(as_tuple=True)
    obs = torch.eye(mdp.states, dtype=torch.float64)[s]
    return Batch(obs, a, logp[s, a], adv[s, a], (w * pi)[s, a], trajectories=1)


def sampled_batch(mdp: MDP, policy: Policy, episodes: int, seed: int = 0) -> Batch:
    """Episodes sampled with the policy, their advantages reward-to-go minus the exact V, times γᵗ: ĝ is unbiased.

    Without a horizon, V stands for what follows TRUNCATED_AFTER steps, and later actions are not seen.
    """
    rollout = sample_episodes(mdp, policy, episodes, seed)
    estimator = StateDiscounted(RewardToGo(mdp.gamma))
    adv, _ = advantages(rollout, ExactCritic(mdp)(rollout, policy), estimator, CriticValue())
    return rollout.flatten(adv, "trajectory")


def sample_episodes(mdp: MDP, policy: Policy, episodes: int, seed: int = 0) -> Rollout:
    """Episodes of the MDP, one per column, by `sampling.sample` with a seed; TRUNCATED_AFTER steps without a horizon."""
    return sample(mdp, policy, episodes, torch.Generator().manual_seed(seed), None if mdp.horizon else TRUNCATED_AFTER)


def exact_objective(mdp: MDP) -> Callable[[Policy], float]:
    """J of a policy, by dynamic programming."""
    return lambda policy: float(objective(mdp, policy_matrix(mdp, policy).detach()))
