"""Claims about convergence: values that diverge, and the three things that it takes; exact."""

from __future__ import annotations

import itertools

import torch

from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.exact.policies import tabular_policy
from policygrad.lab.exact.tabular import optimum, solve
from policygrad.lab.theory.ascent import ascend, fixed
from policygrad.lab.theory.functions import performance
from policygrad.lab.theory.improvement import cautious, shortcut
from policygrad.lab.values.contests import climb, swings
from policygrad.lab.values.triad import (
    START,
    always,
    baird,
    baird_features,
    q_learning,
    q_learning_features,
    semigradient,
    triad,
)

RATES = (1e-4, 1e-2, 1.0)


def falls(values: tuple[float, ...]) -> int:
    """How often the next number is lower, by more than rounding."""
    return sum(b < a - 1e-9 * (1.0 + abs(a)) for a, b in itertools.pairwise(values))


@claim(
    "The convergence of methods based on values can be unstable; policy gradients converge, to a stationary point.",
    "exact",
)
def values_can_be_unstable() -> Outcome:
    """Q-learning on Baird's MDP with his features and with a table; aggregated states; and exact ascent on the same MDPs."""
    mdp, F = baird(), q_learning_features()
    w = torch.cat([torch.tensor(START, dtype=F.dtype), torch.zeros(F.shape[-1] - len(START), dtype=F.dtype)])
    table = torch.eye(F[..., 0].numel(), dtype=F.dtype).view(*F.shape[:2], -1)
    best, J = solve(mdp, always(mdp, 1))[1][0], optimum(mdp)
    errors = {
        name: (q_learning(mdp, x, w, 600, lr) - best).abs().amax((1, 2))[[0, -1]].tolist()
        for name, x, w, lr in (("features", F, w, 0.5), ("table", table, table.flatten(0, 1)[0] * 0.0, 10.0))
    }
    policy = tabular_policy(mdp, scale=0.0)
    path = climb(mdp, policy, 60)
    cycle, alike = swings(shortcut(), sweeps=150)[-100:], shortcut()
    start = cautious(alike)
    settled = ascend(performance(alike, start), start.flat, 100)
    long = ascend(performance(alike, start), start.flat, 100, fixed(5.0))
    diverges = errors["features"][1] > 1e6 * errors["features"][0] and errors["table"][1] < errors["table"][0]
    converges = falls(path.value) + falls(settled.value) == 0 and settled.grad_norm[-1] < 1e-3
    return Outcome(
        decide(diverges and max(cycle) - min(cycle) > 1.0 and converges, caveat=falls(long.value) > 0),
        f"On Baird's MDP the error of Q-learning with his features grows from {errors['features'][0]:.0f} to "
        f"{errors['features'][1]:.0e} in 600 sweeps, although they can represent q*; with a table it shrinks to "
        f"{errors['table'][1]:.1f}. Where a road and a swamp look alike, Q-learning neither diverges nor settles: J of its "
        f"ε-greedy policy swings between {min(cycle):.1f} and {max(cycle):.1f}. On both MDPs exact ascent with backtracking "
        f"never lowers J, and with look-alikes it stops at J = {settled.value[-1]:.2f} (‖∇J‖ = {settled.grad_norm[-1]:.0e}). "
        f"It takes short steps: with α = 5 J falls in {falls(long.value)} of {long.steps} steps, to {long.value[-1]:.2f} at "
        "the end.",
        {
            "error of q, Baird's features, after 600 sweeps": errors["features"][1],
            "error of q, table, after 600 sweeps": errors["table"][1],
            "J* − J of ascent on Baird's MDP": J - path.value[-1],
            "lowest J of the last 100 sweeps, look-alikes": min(cycle),
            "highest J of the last 100 sweeps, look-alikes": max(cycle),
            "J where ascent ends, look-alikes": settled.value[-1],
            "‖∇J‖ where ascent ends, look-alikes": settled.grad_norm[-1],
            "steps that lower J, α = 5": float(falls(long.value)),
            "J at the end, α = 5": long.value[-1],
        },
    )


@claim(
    "Function approximation, bootstrapping and off-policy data can diverge together (the deadly triad); without one of the "
    "three they do not.",
    "exact",
)
def deadly_triad() -> Outcome:
    """The spectrum of the expected updates on Baird's MDP, for all combinations; and a function that is not linear."""
    found = triad()
    (every,) = (c for c in found.corners if len(c.parts) == 3)
    others = [c for c in found.corners if len(c.parts) < 3]
    mdp = baird()
    other = torch.tensor([6.0 / 7.0, 1.0 / 7.0], dtype=torch.float64).expand(7, 2)
    updates = semigradient(mdp, always(mdp, 1), baird_features(), other)
    radii = [updates.radius(lr) for lr in RATES]
    calm = max(c.growth for c in others)
    grows = every.growth > 1e-3 and min(radii) > 1.0 and every.error[-1] > 1e6 * every.error[0]
    curved = found.spiral[-1] / found.spiral[0]
    return Outcome(
        decide(grows and calm <= 1e-9, caveat=curved > 100.0),
        f"With all three the matrix A of the expected updates w ← w + α (A w + b) has an eigenvalue of {every.growth:.2f} > "
        "0, so w diverges for every α > 0: the spectral radius of I + α A is "
        f"{', '.join(f'1 + {r - 1.0:.0e}' for r in radii)} for α = {', '.join(f'{lr:g}' for lr in RATES)}, and after "
        f"{len(every.error) - 1} updates with α = {found.lr:g} the error is {every.error[-1]:.0e}. In the {len(others)} other "
        f"combinations no eigenvalue has a positive real part (to {abs(calm):.0e}). That is a theorem of *linear* functions. "
        f"With one parameter that is not linear, bootstrapping diverges on-policy, too: ‖v‖ grows by a factor of {curved:.0f} "
        f"in {len(found.spiral) - 1} updates of Tsitsiklis & Van Roy's spiral, and shrinks to {found.on_table[-1]:.0e} with a "
        "table.",
        {
            "eigenvalue with all three": every.growth,
            "largest real part of an eigenvalue without one of them": calm,
            **{f"spectral radius, α = {lr:g}": r for lr, r in zip(RATES, radii, strict=True)},
            "error after 1000 updates, all three": every.error[-1],
            "growth of ‖v‖ on the spiral": curved,
            "‖v‖ at the end, a table on the same chain": found.on_table[-1],
        },
    )
