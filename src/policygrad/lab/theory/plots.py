"""The plots of `policygrad lab theory`: one to three panels per experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from policygrad.lab.results import Result
from policygrad.lab.theory.ascent import Landscapes
from policygrad.lab.theory.delays import Delays
from policygrad.lab.theory.derivatives import ThreeWays
from policygrad.lab.theory.functions import two_hills
from policygrad.lab.theory.improvement import Improvement
from policygrad.lab.theory.lemma import LemmaCheck
from policygrad.lab.theory.line_plots import DOTS, label_ends, leave_room
from policygrad.lab.theory.losses import Losses
from policygrad.lab.theory.pathwise import ScoreOrPath
from policygrad.lab.theory.staleness import Staleness
from policygrad.lab.theory.stochastic import Decay
from policygrad.lab.theory.surrogate import SurrogateOrder
from policygrad.lab.theory.value_plots import (
    draw_comparison,
    draw_delays,
    draw_narrow,
    draw_rough,
    draw_spiral,
    draw_triad,
)
from policygrad.lab.values.comparison import MethodComparison
from policygrad.lab.values.triad import Triad
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
    Chart,
    head,
    logarithmic_axes,
    panels_figure,
    say,
)

Panel = Callable[[Axes], None]
RULES = {"PI, exact Q": SKY, "PI, fitted Q": PINK, "PG": ORANGE, "NPG": BLUE, "TRPO": GREEN}


def draw_theory(results: Sequence[Result], title: str, out: Path) -> Path:
    """Draw the results, and write the figure."""
    return theory_figure(results, title).write(out)


def theory_figure(results: Sequence[Result], title: str) -> Chart:
    """The figure."""
    return panels_figure([panel for result in results for panel in panels_of(result)], title)


def panels_of(result: Result) -> list[Panel]:
    """The panels of a result. Raises TypeError for a result that is not from one of the experiments."""
    for kind, panels in PANELS.items():
        if isinstance(result, kind):
            return [partial(panel, result=result) for panel in panels]
    raise TypeError(f"there is no picture of a {type(result).__name__}")


def draw_lemma(axis: Axes, result: LemmaCheck) -> None:
    """Both sides of the lemma."""
    subtitle = (
        f"{len(result.differences)} pairs of random policies, exact: the sides differ by {result.gap:.0e} at most.\n"
    )
    head(axis, "The performance difference lemma", subtitle + "Bar: 95 % interval of one right side from episodes")
    ends = [min(result.differences), max(result.differences)]
    axis.plot(ends, ends, color=PALE, lw=THIN, ls=DASHED)
    axis.plot(result.differences, result.expected, "o", color=BLUE, ms=3.2, alpha=0.6, mec="white", mew=0.5)
    x = result.first.difference
    axis.plot([x, x], result.sampled.interval, color=ORANGE, lw=3.2)
    axis.set(xlabel="J(π') − J(π)", ylabel="mean advantage of π along π'")


def draw_surrogate(axis: Axes, result: SurrogateOrder) -> None:
    """Errors of the right and of wrong surrogates by step length, and the bounds."""
    slopes, bounded = result.slopes, result.bounded
    second = "Dashed: the bounds, TRPO's above Achiam's" if bounded else "No bound: γ = 1 without a horizon"
    head(
        axis,
        "The surrogate matches to first order",
        f"|J − L| along a line, with slopes on logarithmic axes.\n{second}",
    )
    logarithmic_axes(axis)
    axis.set_xlim(0.6 * min(result.lengths), 1.6 * max(result.lengths))
    least, drawn = np.array(result.rounding), 0

    def above(y: Sequence[float]) -> np.ndarray:
        return np.where(np.array(y) > least, y, np.nan)

    for bound in (result.schulman, result.achiam) if bounded else ():
        axis.plot(result.lengths, above(bound), color=PALE, lw=THIN, ls=DASHED)
    for name, values, color, text, height in (
        ("error", result.error, BLUE, "right", 0.19),
        ("wrong_advantages", result.wrong_advantages, ORANGE, "advantages of another policy", 0.12),
        ("wrong_states", result.wrong_states, PINK, "states of another policy", 0.05),
    ):
        axis.plot(result.lengths, above(values), "o-", color=color, **DOTS)
        number = f": slope {slopes[name]:.2f}" if name in slopes else ": rounding"
        drawn += int(np.isfinite(above(values)).any())
        say(axis, text + number, (0.99, height), (0, 0), color, ha="right", xycoords="axes fraction")
    if not drawn:
        axis.set_yticks([])
    axis.set_xlabel("‖Δθ‖")


def draw_paths(axis: Axes, result: Improvement) -> None:
    """J after each step of each rule."""
    subtitle = "J after each step. All rules but the exact one use the same fit.\n"
    head(axis, "A greedy step can lower J", subtitle + f"Dashed: the best J, {result.best:.3g}")
    shown = {rule: path[:25] for rule, path in result.paths.items()}
    end = len(next(iter(shown.values()))) - 1
    axis.plot([0, end], [result.best] * 2, color=PALE, lw=THIN, ls=DASHED)
    for rule, path in shown.items():
        axis.plot(range(end + 1), path, color=RULES[rule])
    label_ends(axis, {rule: (float(np.mean(path[-2:])), RULES[rule]) for rule, path in shown.items()}, end)
    leave_room(axis, end, 1.3)
    axis.set(xlabel="step", ylabel="J")


def draw_bound(axis: Axes, result: Improvement) -> None:
    """The loss in J by one fitted step, and the largest possible loss, by horizon."""
    subtitle = "One step of fitted policy iteration on the MDP shortcut, γ = 1.\n"
    head(axis, "The bound is attained", subtitle + "Dashed: the bound, H times the worst advantage")
    logarithmic_axes(axis)
    H = [horizon for horizon, _ in result.horizons]
    axis.plot(H, [-c.bound for _, c in result.horizons], color=PALE, lw=THIN, ls=DASHED)
    axis.plot(H, [-c.rise for _, c in result.horizons], "o-", color=PINK, **DOTS)
    for horizon, c in result.horizons:
        say(axis, f"{100 * c.share:.0f} %", (horizon, -c.rise), (5, -5), PINK)
    axis.set(xlabel="horizon H", ylabel="J lost")


def draw_shifts(axis: Axes, result: Improvement) -> None:
    """The change of the visited states in each step."""
    subtitle = "TV between the visited states before and after each step.\nDot: the first step. Bar: all steps"
    head(axis, "Small steps keep the states close", subtitle)
    axis.grid(axis="y", visible=False)
    axis.set_yticks([])
    axis.set_ylim(len(result.shifts) - 0.5, -0.7)
    for y, (rule, moves) in enumerate(result.shifts.items()):
        axis.plot([min(moves), max(moves)], [y, y], color=RULES[rule], lw=3.2, alpha=0.35)
        axis.plot(moves[0], y, "o", color=RULES[rule], ms=5.2, mec="white", mew=0.5)
        say(axis, rule, (moves[0], y), (-2, 10), RULES[rule], ha="right" if moves[0] > 0.8 else "left")
    axis.set_xlim(-0.03, 1.03)
    axis.set_xlabel("total variation")


def draw_hills(axis: Axes, result: Landscapes) -> None:
    """The paths of ascent on `two_hills`."""
    subtitle = "Exact ascent from three starts: it reaches the maximum, a\nlower maximum, and does not leave a plateau"
    head(axis, "Ascent ends where the gradient is 0", subtitle)
    x, y = np.meshgrid(np.linspace(-5.2, 3.2, 85), np.linspace(-2.4, 3.2, 57))
    points = torch.from_numpy(np.stack([x, y], -1)).view(-1, 2)
    values = torch.stack([two_hills(p) for p in points]).view(x.shape)
    axis.grid(False)
    axis.contourf(x, y, values, 14, cmap="Blues", alpha=0.55)
    axis.contour(x, y, values, 14, colors="white", linewidths=0.5)
    hills = (case for case in result.cases if case.name.startswith("two hills"))
    for case, color in zip(hills, (GREEN, ORANGE, PINK), strict=True):
        path = case.path.theta.numpy()
        axis.plot(*path.T, color=color)
        axis.plot(*path[0], "o", color="white", mec=color, mew=1.3, ms=5.2)
        axis.plot(*path[-1], "o", color=color, ms=5.2, mec="white", mew=0.5)
        say(axis, f"{case.path.value[-1]:.2f}", tuple(path[-1]), (6, -6), INK)
    axis.set_aspect("equal", anchor="W")
    axis.set(xlabel="θ₁", ylabel="θ₂")


def draw_decay(axis: Axes, result: Decay) -> None:
    """The mean squared gradient by the number of steps."""
    bounded = [b for b in result.budgets if np.isfinite(b.bound)]
    subtitle = f"Mean ‖∇J‖² over the path of SGD, {result.episodes} episodes per step, α ∝ 1/√K.\n"
    subtitle += "Dashed: the bound" + (", where α ≤ 1/L" if len(bounded) < len(result.budgets) else "")
    head(axis, f"SGD: ‖∇J‖² falls as K^{result.slope:.2f}", subtitle)
    logarithmic_axes(axis)
    K = [b.steps for b in result.budgets]
    axis.plot([b.steps for b in bounded], [b.bound for b in bounded], color=PALE, lw=THIN, ls=DASHED)
    axis.axhline(result.before, color=GREEN, lw=THIN)
    say(axis, "at the start", (K[-1], result.before), (0, 6), GREEN, ha="right")
    means, errors = (np.array([getattr(b, x) for b in result.budgets]) for x in ("squared_norm", "standard_error"))
    axis.errorbar(K, means, 1.96 * errors, fmt="o-", color=BLUE, **DOTS)
    axis.plot(K, [b.last for b in result.budgets], "o-", color=ORANGE, **DOTS)
    say(axis, "mean over the path", (K[-1], means[-1]), (0, -10), BLUE, ha="right")
    say(axis, "at the end", (K[-1], result.budgets[-1].last), (-9, -1), ORANGE, ha="right")
    axis.set(xlabel="steps K", ylabel="‖∇J‖²")


def draw_derivatives(axis: Axes, result: ThreeWays) -> None:
    """The errors of differences by their step."""
    subtitle = "Error of ∇J, relative to its closed form: rounding on the left,\ntruncation on the right"
    head(axis, "Differences: truncation and rounding", subtitle)
    logarithmic_axes(axis)
    found = result.by_step
    for method, color, place in (("forward", ORANGE, 5), ("central", BLUE, 10), ("complex", GREEN, 1)):
        errors = np.maximum(found.errors[method], 1e-17)
        axis.plot(found.steps, errors, color=color)
        side = len(found.steps) * place // 12
        text = {"complex": "complex step"}.get(method, method)
        say(axis, text, (found.steps[side], errors[side]), (8, -6) if method == "central" else (4, 8), color)
    axis.axhline(max(found.automatic, 1e-17), color=INK, lw=THIN, ls=DASHED)
    say(axis, "automatic", (found.steps[-1], max(found.automatic, 1e-17)), (0, 6), INK, ha="right")
    axis.set(xlabel="h", ylabel="error")


def draw_gradient_costs(axis: Axes, result: ThreeWays) -> None:
    """The time of one gradient by the number of parameters."""
    head(axis, "They need an evaluation per parameter", "Time of one gradient, in evaluations of J")
    logarithmic_axes(axis)
    for method, color in (("central", BLUE), ("forward", ORANGE), ("automatic", INK)):
        rows = [c for c in result.costs if c.method == method]
        axis.plot([c.parameters for c in rows], [c.relative_seconds for c in rows], "o-", color=color, **DOTS)
        say(axis, method, (rows[-1].parameters, rows[-1].relative_seconds), (5, 0), color)
    axis.set_xlim(right=3.5 * max(c.parameters for c in result.costs))
    axis.set(xlabel="parameters", ylabel="evaluations")


def draw_losses(axis: Axes, result: Losses) -> None:
    """J and the losses along one path, each scaled to [0, 1]."""
    subtitle = "J and losses −Σ w · x · log π along exact ascent, each scaled to [0, 1].\nNumbers: correlation with J"
    head(axis, "The loss is not performance", subtitle)

    def scaled(y: Sequence[float]) -> np.ndarray:
        values = np.array(y)
        return (values - values.min()) / (np.ptp(values) or 1.0)

    axis.plot(scaled(result.J), color=INK, lw=2.3)
    ends = {}
    for loss, color in zip(result.losses, (SKY, BLUE, GREEN, ORANGE), strict=True):
        axis.plot(scaled(loss.values), color=color)
        ends[f"{loss.name}: {loss.correlation:+.2f}"] = (float(scaled(loss.values)[-1]), color)
    label_ends(axis, {"J": (1.06, INK)} | ends, len(result.J) - 1)
    leave_room(axis, len(result.J) - 1, 2.5)
    axis.set_xlabel("update")


def draw_bias(axis: Axes, result: Staleness) -> None:
    """The direction of gradients from old data, by the age of the data."""
    subtitle = "Cosine between ∇J and the mean gradient from data of an older\npolicy, exact"
    head(axis, "Old data gives another direction", subtitle)
    ages, ends = [row.age for row in result.rows], {}
    for values, color, text in (
        ([row.plain.cosine for row in result.rows], PINK, "no correction"),
        ([row.ratio.cosine for row in result.rows], BLUE, "ratios of actions"),
        ([1.0 for _ in result.rows if result.rows[0].weighted], GREEN, "weights of trajectories"),
    ):
        if values:
            axis.plot(ages, values, "o-", color=color, **DOTS)
            ends[text] = values[-1], color
    axis.set_ylim(top=max(1.0, axis.get_ylim()[1]))
    label_ends(axis, ends, max(ages))
    leave_room(axis, max(ages), 1.75)
    axis.set(xlabel="updates since", ylabel="cosine")


def draw_variance(axis: Axes, result: Staleness) -> None:
    """The variance of the corrected gradients, by the age of the data."""
    subtitle = "Variance of the unbiased estimate from old data, divided by\n"
    head(axis, "The correction raises the variance", subtitle + "that with new data, and E[w²] = 1 / ESS share")
    logarithmic_axes(axis)
    axis.set_xscale("linear")
    ages = [row.age for row in result.rows]
    axis.plot(ages, [1.0 / row.ess for row in result.rows], "o-", color=PALE, **DOTS)
    say(axis, "E[w²]", (ages[-2], 1.0 / result.rows[-2].ess), (6, -6), PALE)
    weighted = [row.weighted for row in result.rows if row.weighted is not None]
    if weighted:
        ratio = [x.relative for x in weighted]
        axis.plot(ages, ratio, "o-", color=GREEN, **DOTS)
        say(axis, "variance", (ages[-1], ratio[-1]), (-6, 3), GREEN, ha="right")
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.set_xlabel("updates since")


PANELS: dict[type[Result], tuple[Callable[..., None], ...]] = {
    LemmaCheck: (draw_lemma,),
    SurrogateOrder: (draw_surrogate,),
    Improvement: (draw_paths, draw_shifts, draw_bound),
    Landscapes: (draw_hills,),
    Decay: (draw_decay,),
    ThreeWays: (draw_derivatives, draw_gradient_costs),
    Losses: (draw_losses,),
    Staleness: (draw_bias, draw_variance),
    MethodComparison: (draw_comparison,),
    Triad: (draw_triad, draw_spiral),
    Delays: (draw_delays,),
    ScoreOrPath: (draw_narrow, draw_rough),
}
