"""Symbolic differentiation: the rules of calculus applied to a formula, which gives another formula.

Its numbers are as exact as those of automatic differentiation, and it needs no step. But the function must be one formula,
without branches on θ, and a formula has no intermediate results: what a program computes once is written out wherever it is
used. So J of a policy grows by a factor with every step of the horizon, and its derivative by a larger one ("expression
swell", Baydin et al. 2018, section 2.2). `swell` measures it.

SymPy does the algebra. torch itself needs it, so it is always installed; it is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.lab.exact.tabular import MDP, gradient_theorem, random_mdp, tabular_policy

MAX_TERMS = 500  # of J written out, beyond which `three_ways` does without its formula
HORIZONS = (1, 2)

Formula = Callable[[Sequence[Any]], Any]  # symbols → an expression of SymPy


@dataclass(frozen=True)
class Derivative:
    """A gradient by symbolic differentiation, (P,), and the operations of the formulas, written out."""

    gradient: Tensor
    operations: int  # of the function
    derivative_operations: int  # of all its derivatives together


def symbolic(formula: Formula, theta: Tensor, components: Sequence[int] | None = None) -> Derivative:
    """∂f/∂θ_i at θ (P,), f a formula of P symbols, formula((θ_0, …, θ_{P−1})), in SymPy: `lambda x: sympy.exp(x[0]) * x[1]`.

    components: the i that are wanted, [all]. Raises ValueError for a function that is no formula because it branches on θ.
    """
    import sympy

    symbols = sympy.symbols(f"theta:{len(theta)}", real=True)
    try:
        expression = sympy.sympify(formula(symbols))
    except TypeError as error:
        raise ValueError(
            f"symbolic differentiation needs one formula, and this function cannot be written as one ({error}): give it "
            "symbols without branches, or use automatic differentiation"
        ) from error
    wanted = [symbols[i] for i in (range(len(theta)) if components is None else components)]
    found = [expression.diff(symbol) for symbol in wanted]
    values = sympy.lambdify(symbols, found, modules="math", cse=True)(*theta.tolist())
    counts = [int(sympy.count_ops(x)) for x in (expression, *found)]
    return Derivative(torch.tensor([float(x) for x in values], dtype=torch.float64), counts[0], sum(counts[1:]))


def performance_formula(mdp: MDP) -> Formula:
    """J as a formula of a table of logits, in the order of `table_performance`. Raises ValueError without a horizon."""
    horizon = mdp.horizon
    if horizon is None:
        raise ValueError("without a horizon J is the solution of linear equations, which no short formula gives")

    def J(x: Sequence[Any]) -> Any:
        import sympy

        exps = [[sympy.exp(x[s * mdp.actions + a]) for a in range(mdp.actions)] for s in range(mdp.states)]
        pi = [[e / sum(row) for e in row] for row in exps]
        reward, live = mdp.reward.tolist(), mdp.live.tolist()
        P = [[[(s, p) for s, p in enumerate(row) if p] for row in rows] for rows in mdp.transition.tolist()]
        V: list[Any] = [0] * mdp.states
        for _ in range(horizon):
            Q = [
                [r + mdp.gamma * sum(p * V[after] for after, p in P[s][a]) for a, r in enumerate(reward[s])]
                for s in range(mdp.states)
            ]
            V = [sum(p * q for p, q in zip(pi[s], Q[s], strict=True)) if live[s] else 0 for s in range(mdp.states)]
        return sum(p * V[s] for s, p in enumerate(mdp.start.tolist()) if p)

    return J


def terms(mdp: MDP) -> float:
    """How many products of J are written out, about: the number of paths through states and actions; ∞ without a horizon."""
    if mdp.horizon is None:
        return float("inf")
    ways = (mdp.transition > 0.0).double().sum(1)  # (S, S)
    count = torch.zeros_like(mdp.start)
    for _ in range(mdp.horizon):
        count = mdp.live * (mdp.actions + ways @ count)
    return float(count[mdp.start > 0.0].sum())


@dataclass(frozen=True)
class Swell:
    """J of a random MDP with this horizon as a formula, and its gradient: operations, and the error of their numbers."""

    horizon: int
    operations: int
    derivative_operations: int
    error: float  # relative to the closed form


@cache
def swell(horizons: tuple[int, ...] = HORIZONS, seed: int = 0) -> tuple[Swell, ...]:
    """How large J and ∇J are as formulas, of random MDPs with 2 states and 2 actions, for each horizon."""
    return tuple(_swell(horizon, seed) for horizon in horizons)


def _swell(horizon: int, seed: int) -> Swell:
    mdp = random_mdp(2, 2, horizon, np.random.default_rng(seed), 0.9)
    policy = tabular_policy(mdp, torch.Generator().manual_seed(seed))
    found, exact = symbolic(performance_formula(mdp), policy.flat), gradient_theorem(mdp, policy)
    error = float((found.gradient - exact).norm() / exact.norm())
    return Swell(horizon, found.operations, found.derivative_operations, error)
