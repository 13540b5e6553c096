"""The plot of `policygrad lab steps`: what several rules do with the same policy and batch, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from policygrad.lab.steps.plane import Plane, ellipse, look, most_kl
from policygrad.lab.steps.relations import Match, PenaltyPoint, SolverCost, TrustPoint
from policygrad.lab.steps.rules import Comparison
from policygrad.reports.style_plots import (
    BLUE,
    COLORS,
    DASHED,
    DOTTED,
    GREEN,
    INK,
    ORANGE,
    PALE,
    PINK,
    SKY,
    SUPERSCRIPTS,
    THIN,
    Chart,
    head,
    logarithmic_axes,
    panels_figure,
    say,
)

RULES = {"PG": ORANGE, "NPG": BLUE, "TRPO": GREEN, "PPO-clip": SKY, "PPO-penalty": PINK, "TRPO, exact": INK}
START, MAX_KL = (-1.0, -2.0), 0.02  # of the policy of two parameters
SPAN, CENTRES = np.linspace(-4.0, 4.0, 25), (-3.0, -1.0, 1.0, 3.0)
ARROW = "-|>,head_width=0.2,head_length=0.4"


@dataclass(frozen=True)
class Story:
    """The data of the plot. Without `trust` and `costs`, as for a trained run, it has three panels instead of six."""

    title: str
    about: str
    comparison: Comparison
    match: Match | None
    penalties: Sequence[PenaltyPoint]
    trust: Sequence[TrustPoint] = ()
    costs: Sequence[SolverCost] = ()


def draw_steps(story: Story, out: Path) -> Path:
    """Draw the data into a file."""
    return steps_figure(story).write(out)


def steps_figure(story: Story) -> Chart:
    """The figure of the data."""

    def gains(axis: Axes) -> None:
        draw_gains(axis, story.comparison)

    def penalties(axis: Axes) -> None:
        draw_penalties(axis, story.penalties, story.match)

    panels: list[Callable[[Axes], None]]
    if story.trust:
        plane = look(START, MAX_KL)
        panels = [lambda axis: draw_plane(axis, plane), draw_map, gains]
        panels += [
            penalties,
            lambda axis: draw_trust(axis, story.trust),
            lambda axis: draw_solver_costs(axis, story.costs),
        ]
    else:
        panels = [gains, lambda axis: draw_real(axis, story.comparison), penalties]
    return panels_figure(panels, story.title, story.about, margin=0.78)


def draw_plane(axis: Axes, plane: Plane) -> None:
    """Contours of J, the circle and the ellipse, and the best step on each."""
    subtitle = "A policy of two parameters; the darker, the higher J. Circle: steps as long as PG's.\n"
    subtitle += f"Ellipse: steps with ½ sᵀFs = {plane.max_kl:g}; dashed: exact KL(old ‖ new) = {plane.max_kl:g}"
    head(axis, "The best step depends on the ruler", subtitle)
    start, grid = np.array(plane.theta), (plane.x, plane.y)
    axis.grid(False)
    axis.contourf(*grid, plane.J, 16, cmap="Blues", alpha=0.55)
    axis.contour(*grid, plane.J, 16, colors="white", linewidths=0.5)
    axis.contour(*grid, plane.kl, [plane.max_kl], colors=INK, linewidths=0.8, linestyles="dashed")
    axis.plot(*plane.ellipse.T, color=BLUE)
    axis.add_patch(Circle(plane.theta, float(np.hypot(*plane.gradient)), fill=False, color=ORANGE))
    for name, step, color in (("PG", plane.gradient, ORANGE), ("NPG", plane.natural, BLUE)):
        tip = start + step
        arrow = {"arrowstyle": ARROW, "color": color, "lw": 1.7, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", tuple(tip), tuple(start), arrowprops=arrow)
        say(axis, name, (tip[0], tip[1]), (-5, 2), color, ha="right", fontsize=8)
    axis.plot(*start, "o", color=INK, ms=3.9)
    say(axis, "θ", plane.theta, (6, -3), INK, fontsize=8)
    axis.set(xlim=plane.x[[0, -1]], ylim=plane.y[[0, -1]])
    axis.set_aspect("equal", anchor="W")
    axis.set(xlabel="θ₁, logit of right in the left state", ylabel="θ₂, logit of right in the right state")


def draw_map(axis: Axes) -> None:
    """What a parameter step of length 1 may do to the policy, over the whole plane, and ellipses of equal KL."""
    subtitle = "Colour: the most KL that a step of length 1 can make, ½ λ_max(F), in nats.\n"
    subtitle += f"Ellipses: parameter steps that change the policy equally, by {MAX_KL / 2:g} nats"
    head(axis, "Small steps, big policy steps", subtitle)
    axis.grid(False)
    values, ends = np.log10(most_kl(SPAN)), (SPAN[0], SPAN[-1])
    how = {"cmap": "Oranges", "alpha": 0.85, "interpolation": "bicubic"}
    image = axis.imshow(values, extent=(*ends, *ends), origin="lower", **how)
    for a in CENTRES:
        for b in CENTRES:
            axis.plot(*ellipse((a, b), MAX_KL / 2).T, color=BLUE, lw=1)
            axis.plot(a, b, ".", color=BLUE, ms=2.3)
    assert axis.figure is not None
    powers = [-2.0, -1.5, -1.0]
    bar = axis.figure.colorbar(image, cax=axis.inset_axes((1.03, 0.0, 0.03, 1.0)), ticks=powers)
    bar.ax.set_yticklabels([f"{10**x:.1g}" for x in powers])
    bar.ax.tick_params(length=0)
    for spine in bar.ax.spines.values():
        spine.set_visible(False)
    axis.set(xlim=ends, ylim=ends)
    axis.set_aspect("equal", anchor="W")
    axis.set(xlabel="θ₁, logit of right in the left state", ylabel="θ₂, logit of right in the right state")


def list_rules(axis: Axes, comparison: Comparison, what: str) -> list[str]:
    """One line of text per rule, from the top, in its colour."""
    names = [step.rule for step in comparison.steps]
    axis.grid(axis="y", visible=False)
    axis.set_yticks(range(len(names)), names, fontweight="bold", color=INK)
    axis.set_ylim(len(names) - 0.4, -0.7)
    axis.axvline(0.0, color=PALE, lw=0.7)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_xlabel(what)
    return [RULES.get(name, COLORS[k % len(COLORS)]) for k, name in enumerate(names)]


def draw_gains(axis: Axes, comparison: Comparison) -> None:
    """Draw the predicted gain, the gain of the surrogate and, if it is exact, the gain of J for every rule."""
    exact = all(step.real_gain is not None and step.interval is None for step in comparison.steps)
    subtitle = "Ring: predicted, ĝᵀΔθ. Dot: the surrogate's, mean (ratio − 1) · adv.\n"
    head(axis, "What a step promises and gives", subtitle + ("Bar: the real gain, ΔJ, exact" if exact else ""))
    colors = list_rules(axis, comparison, "gain")
    beside = {"xycoords": ("axes fraction", "data"), "color": PALE, "ha": "right", "va": "center"}
    for y, (step, color) in enumerate(zip(comparison.steps, colors, strict=True)):
        if exact:
            axis.barh(y, step.real_gain or 0.0, height=0.55, color=color, alpha=0.28, linewidth=0)
        axis.plot([step.predicted_gain, step.gain], [y, y], color=color, lw=1)
        axis.plot(step.predicted_gain, y, "o", ms=5.9, mfc="white", mec=color, mew=1.2)
        axis.plot(step.gain, y, "o", ms=4.2, color=color)
        axis.annotate(f"{step.kl:.4f}", (1, y), **beside)
    axis.annotate("KL, nats", (1, -0.55), **beside)
    low, high = min(axis.get_xlim()[0], 0.0), axis.get_xlim()[1]
    axis.set_xlim(low, high + 0.22 * (high - low))


def draw_real(axis: Axes, comparison: Comparison) -> None:
    """The real gain, over episodes on the same seeds before and after."""
    start = "" if comparison.before is None else f"; before: {comparison.before:,.1f}"
    head(axis, "What the environment says", f"Rise of the mean return, actions sampled{start}.\nBar: 95 % interval")
    for y, (step, color) in enumerate(zip(comparison.steps, list_rules(axis, comparison, "return"), strict=True)):
        if step.real_gain is not None and step.interval is not None:
            axis.plot(step.interval, [y, y], color=color)
            axis.plot(step.real_gain, y, "o", color=color, ms=5.2, mec="white", mew=0.5)


def draw_penalties(axis: Axes, points: Sequence[PenaltyPoint], match: Match | None) -> None:
    """Draw the KL for every β, and the β that gives TRPO's KL."""
    limit = points[0].limit is not None
    subtitle = "KL(old ‖ new) of PPO's penalty for every β. Dots: after its epochs;\n"
    subtitle += "line: in the limit; " * limit + "dashed: if the gain were linear and KL quadratic"
    head(axis, "A penalty is a soft trust region", subtitle)
    logarithmic_axes(axis)
    beta = np.array([p.beta for p in points])
    if limit:
        axis.plot(beta, np.array([p.limit for p in points]), color=PINK)
    axis.plot(beta, [p.kl for p in points], "o", color=PINK, ms=4.2, mec="white", mew=0.5)
    if match is not None:
        axis.plot(beta, match.kl * (match.beta_quadratic / beta) ** 2, color=PALE, lw=THIN, ls=DASHED)
        axis.set_ylim(*axis.get_ylim())
        axis.axhline(match.kl, color=GREEN, lw=1)
        axis.plot([match.beta] * 2, [axis.get_ylim()[0], match.kl], color=INK, lw=THIN, ls=DOTTED)
        axis.plot(match.beta, match.kl, "D", color=GREEN, ms=5.9, mec="white", mew=0.5)
        say(axis, f"TRPO's KL, {match.kl:.4f}", (beta[-1], match.kl), (0, 6), GREEN, ha="right")
        say(axis, f"β* = {match.beta:.3g}", (match.beta, match.kl), (-6, -8), INK, ha="right")
    axis.set(xlabel="β, in units of the advantage a nat", ylabel="KL, nats")


def draw_trust(axis: Axes, points: Sequence[TrustPoint]) -> None:
    """Draw the angle and the gap between NPG and the exact solution as δ → 0."""
    subtitle = "NPG's step against the exact solution of TRPO's problem, KL(old ‖ new) ≤ δ.\n"
    head(axis, "NPG is TRPO to first order", subtitle + "Dashed: powers of δ through the first point")
    logarithmic_axes(axis)
    delta, middle = np.array([p.max_kl for p in points]), len(points) // 2
    for values, power, color, text, offset, ha in (
        (np.array([p.angle for p in points]), 0.5, BLUE, "angle in degrees ∝ √δ", (-4, 7), "right"),
        (np.array([100.0 * p.gap for p in points]), 1.0, ORANGE, "% of gain lost ∝ δ", (6, -6), "left"),
    ):
        axis.plot(delta, values[0] * (delta / delta[0]) ** power, color=PALE, lw=THIN, ls=DASHED)
        axis.plot(delta, values, "o-", color=color, ms=4.2, mec="white", mew=0.5)
        say(axis, text, (delta[middle], values[middle]), offset, color, ha=ha)
    axis.set_xlabel("δ, nats")


def draw_solver_costs(axis: Axes, costs: Sequence[SolverCost]) -> None:
    """Draw the time and the error of F⁻¹ĝ, dense and by conjugate gradients."""
    subtitle = "Seconds for (F + 0.1 I)⁻¹ĝ of an MLP on 256 states, one thread.\n"
    head(axis, "F⁻¹ĝ needs no F", subtitle + "Numbers: relative error of 10 conjugate gradients (CG)")
    logarithmic_axes(axis)
    dense = [c for c in costs if c.dense_seconds is not None]
    line: dict[str, Any] = {"ms": 4.2, "mec": "white", "mew": 0.5}
    axis.plot([c.parameters for c in costs], [c.cg_seconds for c in costs], "o-", color=BLUE, **line)
    axis.plot([c.parameters for c in dense], np.array([c.dense_seconds for c in dense]), "o-", color=ORANGE, **line)
    small: dict[str, Any] = {"textcoords": "offset points", "color": PALE, "ha": "center"}
    for cost in dense[::2]:
        mantissa, _, power = f"{cost.error:.0e}".partition("e")
        text = f"{mantissa}·10{str(int(power)).translate(SUPERSCRIPTS)}"
        axis.annotate(text, (cost.parameters, cost.cg_seconds), (0, -10), **small)
    axis.set_ylim(bottom=axis.get_ylim()[0] / 2.5)
    last = dense[-1]
    say(axis, "dense: P products,\nthen O(P³)", (last.parameters, last.dense_seconds or 0.0), (6, 0), ORANGE)
    say(axis, "CG: 10 products, O(P) each", (costs[-1].parameters, costs[-1].cg_seconds), (3, 9), BLUE, ha="right")
    axis.set(xlabel="P, parameters", ylabel="seconds")
