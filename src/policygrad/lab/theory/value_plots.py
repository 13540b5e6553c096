"""The panels of `policygrad lab theory` about values, delays, and the two kinds of gradient."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from policygrad.lab.theory.delays import Delays
from policygrad.lab.theory.line_plots import DOTS, label_ends, leave_room
from policygrad.lab.theory.pathwise import ScoreOrPath
from policygrad.lab.values.comparison import MethodComparison
from policygrad.lab.values.triad import PARTS, Triad
from policygrad.reports.style_plots import (
    BLUE,
    DASHED,
    GREEN,
    LINE,
    ORANGE,
    PALE,
    PINK,
    SKY,
    THIN,
    head,
    logarithmic,
    logarithmic_axes,
    say,
)


def draw_comparison(axis: Axes, result: MethodComparison) -> None:
    """J of each method by the number of sweeps or steps."""
    subtitle = "J after sweeps of expected updates, or steps of exact ascent.\n"
    head(axis, "Values or policies", subtitle + f"Dashed: the best J, {result.best:.3g}")
    axis.set_xscale("log")
    axis.plot([1, result.sweeps[-1]], [result.best] * 2, color=PALE, lw=THIN, ls=DASHED)
    ends = {}
    for (name, J), color in zip(result.exact.items(), (BLUE, SKY, ORANGE), strict=True):
        shown = np.where(np.isfinite(J), J, np.nan)
        axis.plot(result.sweeps, shown, "o-", color=color, **DOTS)
        ends[name if np.isfinite(J[-1]) else f"{name}: −∞"] = (
            J[-1] if np.isfinite(J[-1]) else axis.get_ylim()[0],
            color,
        )
    label_ends(axis, ends, result.sweeps[-1])
    axis.set_xticks(result.sweeps, [str(k) for k in result.sweeps])
    axis.minorticks_off()
    axis.set_xlim(right=160.0 * result.sweeps[-1])
    axis.set(xlabel="sweeps or steps", ylabel="J")


def draw_triad(axis: Axes, result: Triad) -> None:
    """The errors on Baird's MDP, for all combinations of the three parts."""
    subtitle = (
        "Largest error of v on Baird's MDP after expected updates.\nPink: all three parts. Others: without some of them"
    )
    head(axis, "The deadly triad", subtitle)
    axis.set_yscale("log")
    axis.set_ylim(1e-6, 1e14)
    logarithmic(axis.yaxis)
    names = {
        (): ("all three", PINK, 0),
        ("features",): ("a table", GREEN, 8),
        ("off-policy",): ("on-policy", BLUE, -8),
    }
    names[("bootstrapping",)] = ("no bootstrapping", SKY, 0)
    last = len(result.corners[0].error) - 1
    for corner in result.corners:
        missing = tuple(part for part in PARTS if part not in corner.parts)
        text, color, high = names.get(missing, ("", PALE, 0))
        axis.plot(np.maximum(corner.error, 1e-12), color=color, lw=LINE if text else THIN)
        say(axis, text, (last, max(corner.error[-1], 4e-6)), (4, high), color, annotation_clip=False)
    leave_room(axis, last, 1.55)
    axis.set(xlabel="updates", ylabel="error")


def draw_spiral(axis: Axes, result: Triad) -> None:
    """‖v‖ on a chain of three states, with a function that is not linear and with a table."""
    subtitle = "‖v‖ after on-policy TD(0) updates on a ring of three states.\nAll rewards are 0, so it should be 0"
    head(axis, "Not linear: two of the three are enough", subtitle)
    axis.set_yscale("log")
    axis.set_ylim(1e-4, 1e4)
    logarithmic(axis.yaxis)
    axis.plot(result.spiral, color=PINK)
    axis.plot(result.on_table, color=GREEN)
    last = len(result.spiral) - 1
    say(axis, "one parameter, a spiral", (last, result.spiral[-1]), (0, 8), PINK, ha="right")
    below = next((k for k, x in enumerate(result.on_table) if x < 1e-3), last)
    say(axis, "a table", (below, 1e-3), (6, 0), GREEN)
    axis.set(xlabel="updates", ylabel="‖v‖")


def draw_delays(axis: Axes, result: Delays) -> None:
    """The bias of delayed gradients by the delay, for every step size."""
    subtitle = "Error of ∇J of k updates ago, relative to ‖∇J‖, exact: it grows as\n"
    subtitle += f"k^{result.delay_order:.2f}, and as step size^{result.rate_order:.2f}"
    head(axis, "Asynchronous updates are biased", subtitle)
    logarithmic_axes(axis)
    delays = [k for k in result.delays if k > 0]
    for rate, color in zip(result.rates, (GREEN, BLUE, PINK), strict=False):
        bias = [result.find(k, rate).bias for k in delays]
        axis.plot(delays, bias, "o-", color=color, **DOTS)
        say(axis, f"step size {rate:g}", (delays[-1], bias[-1]), (-5, 5), color, ha="right")
    axis.set_xlim(0.8 * delays[0], 1.25 * delays[-1])
    axis.set_xticks(delays, [str(k) for k in delays])
    axis.set(xlabel="delay k, updates", ylabel="bias")


def draw_narrow(axis: Axes, result: ScoreOrPath) -> None:
    """The variance of both estimates on a smooth q, by the width of the policy."""
    subtitle = "Variance of ĝ from one sample on a smooth q, by the policy's σ.\n"
    head(axis, "The narrower, the better the path", subtitle + "As σ → 0 it is the deterministic policy gradient")
    logarithmic_axes(axis)
    sigma = [row.width for row in result.widths]
    for name, text, color, offset in (
        ("score function", "score function", PINK, (6, 5)),
        ("score function, q − E q", "with a baseline", BLUE, (5, -10)),
        ("pathwise", "pathwise", ORANGE, (9, -2)),
    ):
        variance = [row[name].variance for row in result.widths]
        axis.plot(sigma, variance, "o-", color=color, **DOTS)
        say(axis, text, (sigma[-1], variance[-1]), offset, color)
    axis.set_xlabel("σ")


def draw_rough(axis: Axes, result: ScoreOrPath) -> None:
    """The variance of both estimates on a hill with ripples, by their frequency."""
    cliff = result.cliff["pathwise"].bias / np.hypot(*result.cliff.gradient)
    subtitle = f"Variance on a hill with ripples sin(ωx), σ = {result.ripples[0].width:g}.\n"
    head(axis, "A rough q is no slope to follow", subtitle + f"On a cliff, the pathwise bias is {cliff:.0%} of ‖∇J‖")
    logarithmic_axes(axis)
    for name, color, offset in (("score function, q − E q", BLUE, (3, 6)), ("pathwise", ORANGE, (3, 6))):
        variance = [row[name].variance for row in result.ripples]
        axis.plot(result.frequencies, variance, "o-", color=color, **DOTS)
        say(axis, name.partition(",")[0], (result.frequencies[0], variance[0]), offset, color)
    if np.isfinite(result.crossover):
        axis.axvline(result.crossover, color=PALE, lw=THIN, ls=DASHED)
    axis.set_xlabel("ω")
