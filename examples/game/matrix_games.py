"""Two-player zero-sum matrix games: payoffs, the Nash equilibrium by linear programming, and exploitability."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linprog


def rock_paper_scissors(stake: float = 1.0) -> np.ndarray:
    """Payoffs (3, 3) of the row player: 1 for a win, −1 for a loss, and ±stake where rock meets scissors.

    With stake = 1 the equilibrium is uniform; with another one it is not, so that a pull to uniform play is seen as a bias.
    """
    return np.array([[0.0, -1.0, stake], [1.0, 0.0, -1.0], [-stake, 1.0, 0.0]])


def random_game(actions: int = 5, seed: int = 0) -> np.ndarray:
    """Payoffs (A, A), uniform in [−1, 1]."""
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (actions, actions))


def blotto(soldiers: int = 3, fields: int = 3) -> np.ndarray:
    """Colonel Blotto: both divide their soldiers among fields, and whoever has more on a field wins it.

    Payoffs are (fields won − fields lost) / fields, in [−1, 1]. An action is a division: 10 for 3 soldiers on 3 fields.
    """
    everything = itertools.product(range(soldiers + 1), repeat=fields)
    divisions = np.array([division for division in everything if sum(division) == soldiers])
    return np.sign(divisions[:, None] - divisions[None]).mean(-1)


def nash(payoff: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """An equilibrium (x, y) and the value of the game to the row player, by two linear programs.

    x maximises v subject to xᵀA ≥ v for every column, the maximin strategy (von Neumann 1928); y is that of the column player,
    whose payoffs are −Aᵀ. Raises ValueError for payoffs that are not finite.
    """
    if not np.isfinite(payoff).all():
        raise ValueError("payoffs must be finite numbers: a game has one for every pair of actions")
    (x, value), (y, _) = _maximin(payoff), _maximin(-payoff.T)
    return x, y, value


def _maximin(payoff: np.ndarray) -> tuple[np.ndarray, float]:
    """The strategy whose worst case is best, and that worst case."""
    rows, columns = payoff.shape
    found = linprog(
        c=[*np.zeros(rows), -1.0],  # the variables are x and v
        A_ub=np.hstack([-payoff.T, np.ones((columns, 1))]),
        b_ub=np.zeros(columns),
        A_eq=[[*np.ones(rows), 0.0]],
        b_eq=[1.0],
        bounds=[*[(0.0, None)] * rows, (None, None)],
    )
    x = np.clip(found.x[:-1], 0.0, None)
    return x / x.sum(), -float(found.fun)


def exploitability(payoff: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """½ (maxᵢ (Ay)ᵢ − minⱼ (xᵀA)ⱼ): what a best response gains, averaged over the two players.

    At least 0, and 0 exactly at an equilibrium. The sum instead of the mean is called NashConv (Lanctot et al. 2017).
    """
    return 0.5 * float((payoff @ y).max() - (x @ payoff).min())
