"""The deadly triad: function approximation, bootstrapping and off-policy data, which together can diverge.

The semi-gradient TD(0) update of v(s) = w·x(s) in the mean over the states and transitions of the data is linear in w,

    w ← w + α (A w + b),    A = Xᵀ D (γ P − I) X,    b = Xᵀ D r,

with the features X (S, K), the transitions P and rewards r of the policy that is evaluated, and the distribution D of states in
the data. So w diverges from almost every start if the spectral radius of I + α A is above 1, for every α > 0 if A has an
eigenvalue with a positive real part. On Baird's MDP it has one (Baird 1995; Sutton & Barto 2018, 11.2 and 11.3). It has none

- with a table, X = I, whatever D is,
- with the states of the policy that is evaluated as D (Tsitsiklis & Van Roy 1997, theorem 1),
- without bootstrapping, where the targets are returns and A = −Xᵀ D X.

All this is for linear functions. For functions that are not linear, TD(0) can diverge on-policy, too: `spiral`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.tabular import occupancy, solve
from policygrad.lab.results import Result, align

UPPER = 6  # states of Baird's MDP that look up, and one that looks down
START = (1.0,) * UPPER + (10.0, 1.0)  # the weights that Sutton & Barto begin with, figure 11.2
PARTS = ("features", "bootstrapping", "off-policy")


def baird(gamma: float = 0.99) -> MDP:
    """Baird's MDP: action 0 leads to one of six upper states at random, and action 1 to the seventh, the lower one.

    Here action 1 pays 1, so that v = 1 / (1 − γ) everywhere if it is always taken, which is optimal. Baird's reward is 0; what
    w does is the same but for the fixed point.
    """
    states = UPPER + 1
    transition = torch.zeros(states, 2, states, dtype=torch.float64)
    transition[:, 0, :UPPER], transition[:, 1, UPPER] = 1.0 / UPPER, 1.0
    reward = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(states, 2)
    return MDP(transition, reward, torch.full((states,), 1.0 / states, dtype=torch.float64), None, gamma)


def baird_features() -> Tensor:
    """(7, 8): v(s) = 2 w_s + w_8 in the upper states and w_7 + 2 w_8 in the lower one. They can represent any v."""
    X = torch.zeros(UPPER + 1, UPPER + 2, dtype=torch.float64)
    X[range(UPPER), range(UPPER)] = 2.0
    X[:UPPER, -1], X[UPPER, UPPER], X[UPPER, -1] = 1.0, 1.0, 2.0
    return X


def always(mdp: MDP, action: int) -> Tensor:
    """The policy that always takes this action, (S, A)."""
    pi = torch.zeros(mdp.states, mdp.actions, dtype=torch.float64)
    pi[:, action] = 1.0
    return pi


@dataclass(frozen=True, eq=False)
class Semigradient:
    """The expected semi-gradient updates w ← w + α (A w + b)."""

    A: Tensor  # (K, K)
    b: Tensor  # (K,)

    @property
    def growth(self) -> float:
        """The largest real part of the eigenvalues of A: above 0, w diverges for every α > 0."""
        return float(torch.linalg.eigvals(self.A).real.max())

    def radius(self, lr: float) -> float:
        """The spectral radius of I + α A: above 1, w diverges for this α."""
        return float(torch.linalg.eigvals(torch.eye(len(self.A), dtype=self.A.dtype) + lr * self.A).abs().max())

    def path(self, w: Tensor, steps: int, lr: float) -> Tensor:
        """The weights of so many updates from w (K,), (steps + 1, K)."""
        path = [w]
        for _ in range(steps):
            path.append(path[-1] + lr * (self.A @ path[-1] + self.b))
        return torch.stack(path)


def semigradient(mdp: MDP, pi: Tensor, features: Tensor, data: Tensor, bootstrap: bool = True) -> Semigradient:
    """The updates that learn v^π with features (S, K) from the states that the policy `data` visits, (S, A) both.

    The actions are those of π, or weighted by importance, which has the same mean. bootstrap=False: towards the returns, whose
    mean is v^π itself, instead of r + γ v(s'). The MDP has no horizon.
    """
    P, r = torch.einsum("sa,sap->sp", pi, mdp.transition), mdp.live * (pi * mdp.reward).sum(-1)
    P = mdp.gamma * mdp.live[:, None] * P * mdp.live
    d = occupancy(mdp, data)[0]
    weighted = features.T * (d / d.sum())
    eye = torch.eye(mdp.states, dtype=features.dtype)
    if not bootstrap:
        return Semigradient(-weighted @ features, weighted @ torch.linalg.solve(eye - P, r))
    return Semigradient(weighted @ (P - eye) @ features, weighted @ r)


@dataclass(frozen=True, eq=False)
class Corner:
    """One of the eight combinations of the three parts."""

    parts: tuple[str, ...]  # of PARTS
    growth: float
    radius: float
    error: tuple[float, ...]  # max_s |v − v^π| after each update

    @property
    def name(self) -> str:
        """The parts, as text."""
        return " + ".join(self.parts) or "none of the three"


@dataclass(frozen=True, eq=False)
class Triad(Result):
    """Baird's MDP with all combinations of features, bootstrapping and off-policy data; and the spiral."""

    lr: float
    corners: tuple[Corner, ...]
    spiral: tuple[
        float, ...
    ]  # ‖v‖ after each update of the spiral: on-policy, bootstrapped, one parameter that is not linear
    on_table: tuple[float, ...]  # ‖v‖ with a table on the same chain

    @property
    def diverging(self) -> tuple[str, ...]:
        """The combinations that diverge for every α > 0."""
        return tuple(c.name for c in self.corners if c.growth > 1e-9)

    def table(self) -> str:
        """One row per combination, and one per function on the chain of the spiral."""
        rows = [
            [
                c.name,
                f"{c.growth:+.3f}".replace("-0.000", "0").replace("+0.000", "0"),
                f"{c.radius:.4f}",
                f"{c.error[-1]:.3g}",
            ]
            for c in self.corners
        ]
        header = (
            f"Baird's MDP, α = {self.lr:g}",
            "growth",
            "spectral radius",
            f"error after {len(self.corners[0].error) - 1}",
        )
        chain = [
            [name, f"{v[0]:.3g}", f"{v[-1]:.3g}", f"{len(v) - 1}"]
            for name, v in (("the spiral, one parameter", self.spiral), ("a table", self.on_table))
        ]
        note = "growth: the largest real part of the eigenvalues of A; above 0, w diverges for every α > 0"
        last = align(("a chain of three states, on-policy", "‖v‖ at the start", "at the end", "updates"), chain)
        return f"{align(header, rows)}\n{note}\n\n{last}"


def triad(mdp: MDP | None = None, features: Tensor | None = None, lr: float = 0.1, steps: int = 1000) -> Triad:
    """The combinations of the three parts on Baird's MDP [or another one without a horizon], and the spiral.

    The policy that is evaluated always takes action 1; off-policy data is of the uniform distribution over the states, where
    Baird's other policy leads. The weights begin at START, and a table at the same values.
    """
    mdp = baird() if mdp is None else mdp
    X = baird_features() if features is None else features
    pi = always(mdp, 1)
    other = torch.tensor([UPPER / (UPPER + 1.0), 1.0 / (UPPER + 1.0)], dtype=X.dtype).expand(mdp.states, 2)
    start, v = torch.tensor(START, dtype=X.dtype), solve(mdp, pi)[0][0]
    corners = []
    for chosen in itertools.product((True, False), repeat=len(PARTS)):
        approximate, bootstrap, off_policy = chosen
        x, w = (X, start) if approximate else (torch.eye(mdp.states, dtype=X.dtype), X @ start)
        found = semigradient(mdp, pi, x, other if off_policy else pi, bootstrap)
        error = (found.path(w, steps, lr) @ x.T - v).abs().amax(-1)
        parts = tuple(itertools.compress(PARTS, chosen))
        corners.append(Corner(parts, found.growth, found.radius(lr), tuple(error.tolist())))
    curved, table = spiral(), spiral(table=True)
    return Triad(lr, tuple(corners), curved, table)


def spiral(
    gamma: float = 0.99, outward: float = 0.1, lr: float = 1.0, steps: int = 300, table: bool = False
) -> tuple[float, ...]:
    """‖v‖ after each expected on-policy TD(0) update of Tsitsiklis & Van Roy's function of one parameter, ‖v‖ = √2 at first.

    Three states in a ring, each of which stays or moves to the one before; all rewards are 0, so v should be 0. The function is
    v(θ) = exp((M + outward · I) θ) v(0), M = [[1, ½, 3/2], [3/2, 1, ½], [½, 3/2, 1]]: a circle around 0 that opens outwards.
    Every update raises θ, by an amount ∝ α ‖v‖². α = lr · ‖v(0)‖² / ‖v‖² keeps all steps of θ as short as the first one, so
    that long steps are not the reason. table=True: v is a table, and α = lr.
    """
    eye = torch.eye(3, dtype=torch.float64)
    P = 0.5 * (eye + eye.roll(-1, 1))
    turn = torch.tensor([[1.0, 0.5, 1.5], [1.5, 1.0, 0.5], [0.5, 1.5, 1.0]], dtype=torch.float64)
    start = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    theta, v, norms = 0.0, start, [float(start.norm())]
    for _ in range(steps):
        delta = (gamma * P @ v - v) / 3.0  # each state is visited as often
        if table:
            v = v + lr * delta
        else:
            theta += lr * (norms[0] / max(norms[0], norms[-1])) ** 2 * float((turn @ v + outward * v) @ delta)
            angle = 0.75**0.5 * theta  # turn² = −¾ I where v lies, in the plane of vectors whose sum is 0
            v = math.exp(outward * theta) * (math.cos(angle) * start + math.sin(angle) / 0.75**0.5 * (turn @ start))
        norms.append(float(v.norm()))
    return tuple(norms)


def q_learning_features() -> Tensor:
    """(7, 2, 15): Baird's features for action 1, and a number of its own for action 0 in each state."""
    states, K = UPPER + 1, UPPER + 2
    F = torch.zeros(states, 2, K + states, dtype=torch.float64)
    F[:, 1, :K] = baird_features()
    F[range(states), 0, range(K, K + states)] = 1.0
    return F


def q_learning(mdp: MDP, features: Tensor, w: Tensor, steps: int, lr: float) -> Tensor:
    """Expected semi-gradient Q-learning with q(s,a) = w·x(s,a), all states and actions equally often: q after each, (·, S, A).

    features: (S, A, K). The MDP has no horizon.
    """
    path = [features @ w]
    for _ in range(steps):
        v = mdp.live * path[-1].amax(-1)
        delta = mdp.live[:, None] * (mdp.reward + mdp.gamma * mdp.transition @ v - path[-1]) / path[-1].numel()
        w = w + lr * torch.einsum("sa,sak->k", delta, features)
        path.append(features @ w)
    return torch.stack(path)
