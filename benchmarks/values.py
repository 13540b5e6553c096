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
from policygrad.lab.steps.plots import BLUE, DASHED, GREEN, ORANGE, PINK, PURPLE, head, name_axes, say
from policygrad.lab.theory.improvement import cautious, shortcut
from policygrad.lab.theory.plots import DOTS, LINE, draw_triad
from policygrad.lab.values.contests import ascent_from, climb, contest, reach, swings
from policygrad.lab.values.triad import triad
from policygrad.reports.plots import INK, PALE, Chart

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
    axis.minorticks_off()
    for name, y, color, high in (
        ("a table: cells of a grid", [r.cells for r in found], BLUE, 0),
        ("REINFORCE: sampled actions", [r.sampled for r in found], ORANGE, 12),
        ("a quadratic Q: fitted actions", [r.quadratic for r in found], PURPLE, 10),
    ):
        axis.plot(D, y, "o-", color=color, **DOTS)
        say(axis, name, (D[-1], y[-1]), (-12 if high == 0 else 0, high), color, ha="right")
    name_axes(axis, "dimensions D", "number")


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
            ("policy gradient", c.gradient, ORANGE, 15),
            ("softmax of values", c.softest[1], PURPLE, -15),
            ("ε-greedy", max(c.acting), BLUE, 15),
            ("greedy", max(c.greedy), PINK, -15),
        ]
        finite = [J for _, J, _, _ in points if np.isfinite(J)]
        low, high = min(finite), max(finite)
        axis.plot([0, 1], [y, y], color=PALE, lw=1.3)
        say(axis, world, (0, y), (0, 34), INK, ha="left")
        for name, J, color, up in points:
            x = (J - low) / (high - low) if np.isfinite(J) else -0.06
            axis.plot(x, y, "o" if np.isfinite(J) else "<", color=color, ms=9, mec="white")
            text = f"{name} {J + 0.0:.2f}".replace("-0.00", "0.00").replace("-inf", "−∞")
            say(axis, text, (x, y), (0, up), color, ha="right" if x > 0.5 else "left", fontsize=9)
    axis.set_xlim(-0.1, 1.05)
    axis.set_ylim(len(WORLDS) - 0.55, -0.75)


def draw_jump(axis: Axes) -> None:
    """J of the greedy and of the softmax policy of two values, by their difference."""
    subtitle = "J of policies made of two values, where a road and a swamp\nlook alike: greedy, and softmax"
    head(axis, "A small change of the values", subtitle)
    mdp, difference = shortcut(), np.linspace(-6, 2, 161)

    def J(p: float) -> float:
        return float(objective(mdp, torch.tensor([[1.0 - p, p]], dtype=torch.float64).expand(2, 2)))

    axis.plot([-6, 0], [J(0.0)] * 2, color=BLUE, **LINE)
    axis.plot([0, 2], [J(1.0)] * 2, color=BLUE, **LINE)
    axis.plot([0, 0], [J(0.0), J(1.0)], color=BLUE, lw=1.3, ls=DASHED)
    axis.plot(difference, [J(float(1.0 / (1.0 + np.exp(-x)))) for x in difference], color=ORANGE, **LINE)
    say(axis, "greedy", (2, J(1.0)), (0, 12), BLUE, ha="right")
    say(axis, "softmax", (-1.2, J(0.23)), (0, 12), ORANGE, ha="center")
    axis.set_ylim(top=5)
    name_axes(axis, "value of the short cut, less that of the road", "J")


def draw_optima(axis: Axes) -> None:
    """J by the probability of going on, where all states share it, and where ascent ends."""
    subtitle = (
        "Pays 1 at once, or 10 after three right actions.\nAll states share π(1). Full dot: where exact ascent ends"
    )
    head(axis, "Local optima", subtitle)
    p = np.linspace(0, 1, 101)
    axis.plot(p, 1 - p + 10 * p**3, color=PALE, lw=1.3)
    mdp = replace(detour(3), groups=(0,) * 4)
    for start, color in ((0.1, PINK), (0.25, GREEN), (0.5, ORANGE)):
        end = ascent_from(mdp, start).theta[-1]
        q = float(torch.softmax(end, -1)[1])
        way = np.linspace(start, q, 40)
        axis.plot(way, 1 - way + 10 * way**3, color=color, **LINE)
        axis.plot(start, 1 - start + 10 * start**3, "o", color="white", mec=color, mew=2.0, ms=8)
        axis.plot(q, 1 - q + 10 * q**3, "o", color=color, ms=8, mec="white")
    axis.axhline(10.0, color=BLUE, lw=1.3, ls=DASHED)
    say(axis, "Q-learning with a table", (0, 10.0), (0, -12), BLUE)
    say(axis, "from 0.1", (0.1, 1.0), (0, 18), PINK, ha="center")
    say(axis, "from 0.25", (0.25, 1.0), (8, -8), GREEN)
    say(axis, "from 0.5", (0.5, 1.75), (10, -4), ORANGE)
    name_axes(axis, "π(1)", "J")


def draw_swings(axis: Axes) -> None:
    """J of Q-learning where states look alike, and of ascent."""
    subtitle = (
        "A road and a swamp look alike. J after sweeps of Q-learning\nwith ε-greedy data, and steps of exact ascent"
    )
    head(axis, "Values that do not settle", subtitle)
    mdp = shortcut()
    J = swings(mdp, sweeps=80)
    axis.plot(range(1, 81), J, color=BLUE, lw=1.3)
    path = climb(mdp, cautious(mdp), 80).value
    value = [*path, *[path[-1]] * (81 - len(path))]
    axis.plot(range(81), value, color=ORANGE, **LINE)
    say(axis, "policy gradient", (80, value[-1]), (0, 12), ORANGE, ha="right")
    say(axis, "Q-learning", (80, min(J)), (0, -12), BLUE, ha="right")
    axis.set_ylim(-18, 6)
    name_axes(axis, "sweeps or steps", "J")


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
    figure = Chart(figsize=(17.5, 11.2), dpi=92, facecolor="white")
    for axis, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
        panel(axis)
    bold = {"fontsize": 16, "fontweight": "bold", "color": INK}
    figure.suptitle("Values or policies", x=0.03, y=0.982, ha="left", va="top", **bold)
    figure.subplots_adjust(left=0.05, right=0.98, bottom=0.055, top=0.87, wspace=0.26, hspace=0.42)
    print(figure.write(OUT))


if __name__ == "__main__":
    main()
