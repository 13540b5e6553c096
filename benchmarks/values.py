"""Draw docs/images/value-or-policy.png: what learned values and policy gradients do where they differ.

python benchmarks/values.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

from policygrad.lab.claims.tasks import detour
from policygrad.lab.exact.tabular import objective
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.theory.improvement import cautious, shortcut
from policygrad.lab.theory.plots import DOTS, draw_triad
from policygrad.lab.values.contests import ascent_from, climb, contest, reach, swings
from policygrad.lab.values.triad import triad
from policygrad.reports.style_plots import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    ORANGE,
    PALE,
    PINK,
    SKY,
    THIN,
    head,
    logarithmic,
    panels_figure,
    say,
)

OUT = Path(__file__).parents[1] / "docs" / "images" / "value-or-policy.png"
WORLDS = ("rock-paper-scissors", "aliased", "corridor")


def draw_actions(axis: Axes) -> None:
    """Numbers of values and of actions, by dimensions."""
    subtitle = (
        "To find the best of D continuous actions to 0.01: cells of a grid,\nand actions that are sampled or fitted"
    )
    head(axis, "A maximum over continuous actions", subtitle)
    found = [reach(D) for D in range(1, 7)]
    D = [r.dimensions for r in found]
    axis.set_yscale("log")
    logarithmic(axis.yaxis)
    for name, y, color, high in (
        ("a table: cells of a grid", [r.cells for r in found], BLUE, 0),
        ("REINFORCE: sampled actions", [r.sampled for r in found], ORANGE, 8),
        ("a quadratic Q: fitted actions", [r.quadratic for r in found], SKY, 6),
    ):
        axis.plot(D, y, "o-", color=color, **DOTS)
        say(axis, name, (D[-1], y[-1]), (-8 if high == 0 else 0, high), color, ha="right")
    axis.set(xlabel="dimensions D", ylabel="number")


def draw_random(axis: Axes) -> None:
    """J of each learner, on three tasks whose best policy is random."""
    subtitle = "J on three tasks, each from the lowest to the highest.\nQ-learning from samples, exact ascent, softmax"
    head(axis, "Where the best policy is random", subtitle)
    axis.grid(visible=False)
    axis.set_yticks([])
    axis.set_xticks([])
    for y, world in enumerate(WORLDS):
        c = contest(make_mdp(world))
        points = [
            ("policy gradient", c.gradient, ORANGE, 9),
            ("softmax of values", c.softest[1], SKY, -9),
            ("ε-greedy", max(c.acting), BLUE, 9),
            ("greedy", max(c.greedy), PINK, -9),
        ]
        finite = [J for _, J, _, _ in points if np.isfinite(J)]
        low, high = min(finite), max(finite)
        axis.plot([0, 1], [y, y], color=PALE, lw=THIN)
        say(axis, world, (0, y), (0, 22), INK, ha="left")
        for name, J, color, up in points:
            x = (J - low) / (high - low) if np.isfinite(J) else -0.06
            axis.plot(x, y, "o" if np.isfinite(J) else "<", color=color, ms=5.9, mec="white", mew=0.5)
            text = f"{name} {J + 0.0:.2f}".replace("-0.00", "0.00").replace("-inf", "−∞")
            say(axis, text, (x, y), (0, up), color, ha="right" if x > 0.5 else "left")
    axis.set_xlim(-0.1, 1.05)
    axis.set_ylim(len(WORLDS) - 0.55, -0.75)


def draw_jump(axis: Axes) -> None:
    """J of the greedy and of the softmax policy of two values, by their difference."""
    subtitle = "J of policies made of two values, where a road and a swamp\nlook alike: greedy, and softmax"
    head(axis, "A small change of the values", subtitle)
    mdp, difference = shortcut(), np.linspace(-6, 2, 161)

    def J(p: float) -> float:
        return float(objective(mdp, torch.tensor([[1.0 - p, p]], dtype=torch.float64).expand(2, 2)))

    axis.plot([-6, 0], [J(0.0)] * 2, color=BLUE)
    axis.plot([0, 2], [J(1.0)] * 2, color=BLUE)
    axis.plot([0, 0], [J(0.0), J(1.0)], color=BLUE, lw=THIN, ls=DASHED)
    axis.plot(difference, [J(float(1.0 / (1.0 + np.exp(-x)))) for x in difference], color=ORANGE)
    say(axis, "greedy", (2, J(1.0)), (0, 8), BLUE, ha="right")
    say(axis, "softmax", (-1.2, J(0.23)), (0, 8), ORANGE, ha="center")
    axis.set_ylim(top=5)
    axis.set(xlabel="value of the short cut, less that of the road", ylabel="J")


def draw_optima(axis: Axes) -> None:
    """J by the probability of going on, where all states share it, and where ascent ends."""
    subtitle = (
        "Pays 1 at once, or 10 after three right actions.\nAll states share π(1). Full dot: where exact ascent ends"
    )
    head(axis, "Local optima", subtitle)
    p = np.linspace(0, 1, 101)
    axis.plot(p, 1 - p + 10 * p**3, color=PALE, lw=THIN)
    mdp = replace(detour(3), groups=(0,) * 4)
    for start, color in ((0.1, PINK), (0.25, GREEN), (0.5, ORANGE)):
        end = ascent_from(mdp, start).theta[-1]
        q = float(torch.softmax(end, -1)[1])
        way = np.linspace(start, q, 40)
        axis.plot(way, 1 - way + 10 * way**3, color=color)
        axis.plot(start, 1 - start + 10 * start**3, "o", color="white", mec=color, mew=1.3, ms=5.2)
        axis.plot(q, 1 - q + 10 * q**3, "o", color=color, ms=5.2, mec="white", mew=0.5)
    axis.axhline(10.0, color=BLUE, lw=THIN, ls=DASHED)
    say(axis, "Q-learning with a table", (0, 10.0), (0, -8), BLUE)
    say(axis, "from 0.1", (0.1, 1.0), (0, 12), PINK, ha="center")
    say(axis, "from 0.25", (0.25, 1.0), (5, -5), GREEN)
    say(axis, "from 0.5", (0.5, 1.75), (6, -3), ORANGE)
    axis.set(xlabel="π(1)", ylabel="J")


def draw_swings(axis: Axes) -> None:
    """J of Q-learning where states look alike, and of ascent."""
    subtitle = (
        "A road and a swamp look alike. J after sweeps of Q-learning\nwith ε-greedy data, and steps of exact ascent"
    )
    head(axis, "Values that do not settle", subtitle)
    mdp = shortcut()
    J = swings(mdp, sweeps=80)
    axis.plot(range(1, 81), J, color=BLUE, lw=THIN)
    path = climb(mdp, cautious(mdp), 80).value
    value = [*path, *[path[-1]] * (81 - len(path))]
    axis.plot(range(81), value, color=ORANGE)
    say(axis, "policy gradient", (80, value[-1]), (0, 8), ORANGE, ha="right")
    say(axis, "Q-learning", (80, min(J)), (0, -8), BLUE, ha="right")
    axis.set_ylim(-18, 6)
    axis.set(xlabel="sweeps or steps", ylabel="J")


def main() -> None:
    """Draw the six panels and write the picture."""
    panels: list[Callable[[Axes], None]] = [
        draw_actions,
        draw_random,
        draw_jump,
        lambda axis: draw_triad(axis, triad()),
        draw_swings,
        draw_optima,
    ]
    figure = panels_figure(panels, "Values or policies")
    print(figure.write(OUT))


if __name__ == "__main__":
    main()
