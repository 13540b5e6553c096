"""Findings about the measured updates of a run, each from one formula. No files, no torch. docs/report.md has their docstrings.

With s a step in parameters, ĝ the gradient and F the Fisher matrix before it (`policygrad.updates.diagnostics`); a number is
looked at where it *lasts*: the median of a row and its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from policygrad.reports.columns import (
    Updates,
    as_number,
    ends,
    lasting,
    middle,
    num,
    percent,
    spread,
    spread_text,
    steps_text,
    stretches,
    title,
    when,
)

Mark = Literal["ok", "!", "-"]
Rows = Sequence[Mapping[str, Any]]  # of metrics

ROUNDING = 1e-7  # nats: below it an exact KL in 32 bits is mostly rounding
MAX_MODEL_ERROR = 2.0  # a model that is off by more says nothing
MAX_UPDATE_KL = 0.05  # nats: an update that moves the policy so far is too large, whatever the rule
MAX_SHARE = 0.1  # of the updates
MIN_MEASUREMENTS = 8  # measurements of an SNR: of fewer the standard error is too often too small
MIN_TRAJECTORIES = 8  # a measurement: with fewer it is too uncertain to count, as in `policygrad.gradient.noise`
LOW_SNR = 0.5  # an SNR: noise is the larger part of such a gradient


@dataclass(frozen=True)
class Finding:
    """A finding about the rows. mark: "ok"; "!" for a problem; "-" if nothing can be concluded, and the text says why."""

    name: str
    mark: Mark
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)


def findings(updates: Updates) -> list[Finding]:
    """All findings about the measured updates, and at the end those that are not possible."""
    found = [check(updates) for needs, check in CHECKS.items() if updates.has(*needs)]
    instead = updates.spec.no_rejection
    if instead is not None:
        found.insert(0, Finding("rejected steps", "-", f"{title(updates.algo)} rejects no step: {instead}."))
    absent = [needs for needs in CHECKS if not updates.has(*needs) and needs != ("accepted",)]
    foreign = [WHOSE[needs[0]] for needs in absent if needs[0] in WHOSE]
    old = [name for needs in absent if needs[0] not in WHOSE for name in needs if not updates.has(name)]
    if old:
        found.append(
            Finding("missing", "-", f"the rows of metrics have no {', '.join(old)}: an earlier version wrote them.")
        )
    if foreign:
        found.append(Finding("not here", "-", f"no {', no '.join(foreign)}."))
    return found


def rejected_steps(updates: Updates) -> Finding:
    """TRPO: updates that the line search rejected (`accepted` = 0) or shortened. `!`: above a tenth rejected."""
    accepted = updates["accepted"]
    rejected, shortened = accepted == 0.0, (accepted > 0.0) & (accepted < 1.0)
    measured, k = int(np.isfinite(accepted).sum()), int(rejected.sum())
    often = k > MAX_SHARE * measured
    text = f"{k or 'none'} of {measured} measured updates" + (f", {when(updates.steps, rejected)}" if k else "")
    if shortened.any():
        text += f"; {shortened.sum()} shortened (median {num(np.median(accepted[shortened]))} of the step)"
    text += (
        ". The quadratic model does not hold for steps of this length: raise damping or lower max_kl" if often else ""
    )
    numbers = {"measured": measured, "rejected": k, "rejected_at": stretches(updates.steps, rejected)}
    numbers |= {"shortened": int(shortened.sum()), "accepted": spread(accepted)}
    return Finding("rejected steps", "!" if often else "ok", text + ".", numbers)


def linear_model(updates: Updates) -> Finding:
    """`gain` / `predicted_gain`, which is ĝᵀs: did the gradient hold over the step. `!`: below one half."""
    gain, predicted = updates["gain"], updates["predicted_gain"]
    ratio = quotient(gain, predicted)
    against, short = int((predicted < 0.0).sum()), lasting(ratio) < 1.0 / MAX_MODEL_ERROR
    text = f"gain / predicted gain {spread_text(ratio)}"
    if against:
        text += f"; in {against} of {len(updates)} updates the step had a negative component along the batch's gradient"
        text += " (momentum can do that)"
    if short.any():
        text += (
            f". Below one half {when(updates.steps, short)}: the linear model does not hold for steps of this length. "
            f"Lower {updates.spec.shorter}"
        )
    numbers = {"ratio": spread(ratio), "below_half_at": stretches(updates.steps, short), "against_gradient": against}
    return Finding("linear model", "!" if short.any() else "ok", text + ".", numbers)


def kl_model(updates: Updates) -> Finding:
    """`kl` / `kl_quadratic`, which is ½ sᵀFs: did F predict the KL. `!`: wrong by more than a factor of two."""
    kl, quadratic = updates["kl"], updates["kl_quadratic"]
    ratio = np.where(kl > ROUNDING, quotient(kl, quadratic, ROUNDING), np.nan)
    off = (lasting(ratio) > MAX_MODEL_ERROR) | (lasting(ratio) < 1.0 / MAX_MODEL_ERROR)
    small = int((kl <= ROUNDING).sum())
    text = f"KL / ½ sᵀFs {spread_text(ratio)}"
    if small:
        text += f"; {small} of {len(kl)} KLs are 0, or too small for 32-bit numbers"
    if off.any():
        text += (
            f". Off by more than {MAX_MODEL_ERROR:g} times {when(updates.steps, off)}: steps leave the region in "
            f"which F describes the KL. Lower {updates.spec.shorter}"
        )
    numbers = {"ratio": spread(ratio), "off_at": stretches(updates.steps, off), "below_rounding": small}
    return Finding("KL model", "!" if off.any() else "ok", text + ".", numbers)


def kl(updates: Updates) -> Finding:
    """`kl` against `max_kl` or `target_kl`, if there is one.

    `!`: above 1.5 times the bound in more than a tenth of the updates, or, if there is none, above 0.05 in as many; PPO-KL:
    median a factor of three off.
    """
    kl, bound = updates["kl"], updates.bound()
    most = int(np.nanargmax(kl))
    text = f"median {num(np.nanmedian(kl))} nats, largest {num(kl[most])} at {steps_text(updates.steps[most])} steps"
    numbers: dict[str, Any] = {"kl": spread(kl), "largest": float(kl[most]), "not_positive": int((kl <= 0.0).sum())}
    if bound is None:
        far = kl > MAX_UPDATE_KL
        text += f"; nothing bounds the KL, and {int(far.sum())} of {len(kl)} are above {MAX_UPDATE_KL:g}"
        wrong = far.mean() > MAX_SHARE
    elif updates.spec.steers_kl:
        factor = kl / bound[1]
        numbers["near_target"] = near = int(((factor > 1 / 1.5) & (factor < 1.5)).sum())
        text += (
            f"; {near} of {len(kl)} are within a factor 1.5 of target_kl = {num(bound[1][0])}, where β is not changed"
        )
        wrong = not 1 / 3 < np.median(factor) < 3
    else:
        over, much = kl > bound[1], kl > 1.5 * bound[1]
        falling = " (decreasing)" if bound[1][-1] < bound[1][0] else ""
        text += f"; above {bound[0]} = {num(bound[1][0])}{falling} in {int(over.sum())} of {len(kl)}"
        text += f", by more than half {when(updates.steps, much)}" if much.any() else ""
        numbers |= {"above": int(over.sum()), "above_by_half_at": stretches(updates.steps, much)}
        wrong = much.mean() > MAX_SHARE
    text += f". For shorter steps, lower {updates.spec.shorter}" if wrong else ""
    return Finding("KL", "!" if wrong else "ok", text + ".", numbers)


def sampled_kl(updates: Updates) -> Finding:
    """k1, k2, k3 from the actions taken against the exact KL: medians of |k / KL − 1|. `!`: never, the exact KL is used."""
    exact = updates["kl"]
    off = {k: middle(np.abs(quotient(updates[f"kl_{k}"], exact, ROUNDING) - 1.0)) for k in ("k1", "k2", "k3")}
    negative = int((updates["kl_k1"] < 0.0).sum())
    parts = ", ".join(f"{k} {percent(x)}" for k, x in off.items() if x is not None)
    text = f"median error of the estimates from the sampled actions, relative to the exact KL: {parts}"
    text = f"{text}; no update uses them" if parts else "every KL is too small to judge the estimates"
    text += f"; k1 is negative in {negative} of {len(exact)}" if negative else ""
    return Finding("sampled KL", "ok", text + ".", {"off": off, "k1_negative": negative, "measured": len(exact)})


def step_lengths(updates: Updates) -> Finding:
    """`policy_step` / `step_norm`, the root of F's curvature along the step, in the run's first and last fifth. `!`: never."""
    step, moved = updates["step_norm"], updates["policy_step"]
    ratio = np.where(moved**2 > 2.0 * ROUNDING, quotient(moved, step), np.nan)
    text = f"‖s‖ = {num(middle(step) or 0.0)} in parameters, √(2 KL) = {num(middle(moved) or 0.0)} in policy space (medians)"
    numbers: dict[str, Any] = {"step_norm": spread(step), "policy_step": spread(moved), "ratio": spread(ratio)}
    if np.isfinite(ratio).sum() > 1:
        first, last = ends(ratio)
        numbers |= {"ratio_first": first, "ratio_last": last}
        text += f"; policy change per unit of parameter change: {num(first)} in the first fifth of the run, "
        text += f"{num(last)} in the last"
    return Finding("step lengths", "ok", text + ".", numbers)


def conjugate_gradients(updates: Updates) -> Finding:
    """NPG, TRPO: `cg_residual`, and `damping` against the smallest curvature. `!`: residual above a tenth."""
    residual, curvature = updates["cg_residual"], middle(updates["cg_curvature"])
    iterations, damping = middle(updates["cg_iterations"]) or 0.0, updates.setting("damping") or 0.0
    bad = lasting(residual) > MAX_SHARE
    text = "solved densely" if updates.config.get("solver") == "dense" else f"{num(iterations)} iterations"
    text += f", residual ‖ĝ − Ax‖ / ‖ĝ‖: median {num(np.nanmedian(residual))}, largest {num(np.nanmax(residual))}"
    if curvature is not None:
        share = f", of which damping is {percent(min(damping / curvature, 1.0))}" if damping and curvature > 0.0 else ""
        text += f"; smallest curvature {num(curvature)} (median){share}"
    text += f". Not converged {when(updates.steps, bad)}: raise cg_iterations or damping" if bad.any() else ""
    numbers = {"iterations": iterations, "residual": spread(residual), "largest_residual": float(np.nanmax(residual))}
    numbers |= {"curvature": curvature, "damping": damping, "unsolved_at": stretches(updates.steps, bad)}
    return Finding("conjugate gradients", "!" if bad.any() else "ok", text + ".", numbers)


def clip(updates: Updates) -> Finding:
    """PPO: `clip_fraction`, and updates that `target_kl` ended. `!`: above 0.3, or always 0."""
    fraction, asked = updates["clip_fraction"], updates.setting("epochs")
    much, idle = lasting(fraction) > 0.3, np.nanmax(fraction) == 0.0
    stops = asked is not None and updates.config.get("target_kl") is not None
    early = int((updates["epochs"] < asked).sum()) if stops else 0
    median, most = percent(np.nanmedian(fraction)), percent(np.nanmax(fraction))
    text = f"removes the gradient of {median} of the steps (median), {most} at most"
    text += f"; target_kl ended {early} of {len(fraction)} updates early" if early else ""
    if much.any():
        text += f". Above 30 % {when(updates.steps, much)}: later epochs have little effect, so lower lr or epochs"
    text += ". The clip has no effect: lr or epochs could be larger" if idle else ""
    numbers = {"clip_fraction": spread(fraction), "above_30_percent_at": stretches(updates.steps, much), "early": early}
    return Finding("clip", "!" if much.any() or idle else "ok", text + ".", numbers)


def beta(updates: Updates) -> Finding:
    """PPO-KL: changes of β. `!`: never."""
    path = updates["beta"][np.isfinite(updates["beta"])]
    first, last, least, most = (float(x) for x in (path[0], path[-1], path.min(), path.max()))
    text = f"{num(first)} at first, {num(last)} at the end, always between {num(least)} and {num(most)}"
    text += "; target_kl = none keeps it constant" if updates.setting("target_kl") is None else ""
    return Finding("beta", "ok", text + ".", {"first": first, "last": last, "least": least, "most": most})


def gradient_noise(updates: Updates) -> Finding:
    """The meter's Σ `signal` / Σ `noise` in both halves of the run. `!`: in the second half below ½ by two standard errors."""
    measured = metered(updates.rows)
    rows = telling(measured)
    numbers: dict[str, Any] = {"measured": len(measured), "counted": len(rows)}
    mark, text = signal_words(updates, rows, numbers) if len(rows) >= MIN_MEASUREMENTS else ("-", untold(measured))
    shares = [updates[f"variance_{k}"] for k in range(1, 5)]
    if all(np.isfinite(x).any() for x in shares):
        numbers["variance"] = [float(np.nanmean(x)) for x in shares]
        quarters = ", ".join(percent(x) for x in numbers["variance"])
        text += f". The four quarters of the steps contribute {quarters} of the variance"
    spent = float(np.nansum(updates["meter_seconds"]) / updates["seconds"][-1])
    if np.isfinite(spent):
        numbers["meter_share"] = spent
        text += f". The meter took {percent(spent)} of the time"
    return Finding("gradient noise", mark, text + ".", numbers)


def signal_words(updates: Updates, rows: Rows, numbers: dict[str, Any]) -> tuple[Mark, str]:
    """The mark and the text for the pooled SNRs, and a batch size; adds them to the numbers.

    The batch with an SNR of 1 is from the second half of the measurements, or from the first if only that is two standard
    errors above 0; if neither is, it is the smallest that may be enough. Marks: `ok` for a signal in the second half, `-` for
    none, and `!` for one below ½ by two standard errors.
    """
    halves = windows(rows, 2)
    parts = [pooled_snr(half) for half in halves]
    numbers["snr"] = [(part.snr, part.error) for part in parts]
    over, more = f"{len(rows)} measured batches", numbers["measured"] - len(rows)
    over += f" ({more} more have too few trajectories or no gradient)" if more else ""
    said = [f"{num(part.snr)} ± {num(part.error)}" for part in parts]
    text = f"SNR {said[0]} in the first half of {over}, {said[-1]} in the second"
    text = text if len(parts) > 1 else f"SNR {said[0]} over {over}"
    clear = [k for k, part in enumerate(parts) if part.low > 0.0]
    last, told = parts[-1], len(parts) - 1 in clear
    text += "" if told else ", where it is not significantly above 0" if clear else ": it is not significantly above 0"
    batch = batch_steps(updates, halves[clear[-1]] if clear else rows)
    if batch is not None and clear:
        numbers |= {"batch": batch, "batch_suggested": batch / parts[clear[-1]].snr}
        text += f". {'It' if told else 'In the first half it'} would be 1 with batches of "
        text += f"{steps_text(math.ceil(numbers['batch_suggested']))} steps; these have {steps_text(batch)}"
    elif batch is not None and last.high > 0.0:
        numbers |= {"batch": batch, "batch_least": batch / last.high}
        text += f". SNR 1 needs batches of at least {steps_text(math.ceil(numbers['batch_least']))} steps; "
        text += f"these have {steps_text(batch)}"
    if last.high >= LOW_SNR:
        return ("ok" if told else "-"), text
    where = " in the second" if len(parts) > 1 else ""
    text += f". Noise dominates{where}: use larger batches or a better baseline. At an optimum, SNR is 0"
    return "!", text


def untold(measured: Rows) -> str:
    """The reason why the measurements do not determine the SNR."""
    wide = sum(row["meter_groups"] >= MIN_TRAJECTORIES for row in measured)
    if len(measured) < MIN_MEASUREMENTS:
        return f"too few measured batches: {len(measured)}, at least {MIN_MEASUREMENTS} are needed"
    if wide >= MIN_MEASUREMENTS:
        return "too few batches with a gradient other than 0: it is 0 where all advantages are 0"
    return (
        f"too few trajectories: {wide or 'none'} of {len(measured)} measured batches had {MIN_TRAJECTORIES} or more, "
        f"at least {MIN_MEASUREMENTS} such batches are needed. Collect more episodes, environments or steps per batch"
    )


def metered(rows: Rows) -> Rows:
    """The rows with a measurement of the gradient meter."""
    return [row for row in rows if math.isfinite(as_number(row.get("meter_groups")))]


def telling(measured: Rows) -> Rows:
    """The rows whose SNR counts: they have enough trajectories, and a gradient that is not 0."""
    wide = [row for row in measured if row["meter_groups"] >= MIN_TRAJECTORIES]
    whole = [row for row in wide if all(math.isfinite(as_number(row.get(name))) for name in ("signal", "noise"))]
    return [row for row in whole if row["signal"] or row["noise"]]


def windows(rows: Rows, most: int) -> list[Rows]:
    """The rows cut into windows of equal size, so many at most, with MIN_MEASUREMENTS rows each; none where there are fewer."""
    count = min(most, len(rows) // MIN_MEASUREMENTS)
    return [rows[len(rows) * k // count : len(rows) * (k + 1) // count] for k in range(count)]


@dataclass(frozen=True)
class Pooled:
    """The SNR of several batches, its standard error, and an interval of two standard errors, not below 0.

    low = 0: it cannot be told from 0.
    """

    snr: float
    error: float

    @property
    def low(self) -> float:
        """The lower end, or 0."""
        return max(self.snr - 2.0 * self.error, 0.0)

    @property
    def high(self) -> float:
        """The upper end."""
        return max(self.snr + 2.0 * self.error, 0.0)


def pooled_snr(rows: Rows) -> Pooled:
    """The SNR of several measurements together, Σ signal / Σ noise, two rows at least; its error by the jackknife.

    Not the mean of the rows' own ratios: the noise is their denominator, and they are biased, mostly upward, and without bound
    for few trajectories; no number of rows mends that. Signal and noise are unbiased each, so that the bias of the ratio of
    their sums goes to 0 as rows are added. The jackknife leaves out a row at a time (Efron & Tibshirani 1993, chapter 11).
    """
    signal, noise = (np.array([row[name] for row in rows], float) for name in ("signal", "noise"))
    least = 1e-12 * (signal + 2.0 * noise).sum()  # what is below is rounding: one row may have all the noise, or none
    without = (signal.sum() - signal) / np.maximum(noise.sum() - noise, least)
    return Pooled(float(signal.sum() / max(noise.sum(), least)), float(np.sqrt((len(rows) - 1) * without.var())))


def batch_steps(updates: Updates, rows: Rows) -> float | None:
    """The median steps of the rows' batches: noise scale · SNR, where it is positive; else what the settings say."""
    scales = [as_number(row.get("noise_scale")) * as_number(row.get("snr")) for row in rows]
    steps = [scale for scale in scales if math.isfinite(scale)]
    return float(np.median(steps)) if steps else updates.batch()


def snr_words(measured: Rows) -> str:
    """The SNR of the last measurements and two standard errors, as text for a live display; empty if there are too few."""
    if len(measured) < MIN_MEASUREMENTS:
        return ""
    rows = telling(measured)
    if len(rows) < MIN_MEASUREMENTS:
        return "SNR unknown: too few trajectories" if measured[-1]["meter_groups"] < MIN_TRAJECTORIES else "SNR unknown"
    pooled = pooled_snr(rows)
    text = f"SNR {num(max(pooled.snr, 0.0))} ({num(pooled.low)} to {num(pooled.high)})"
    return text + (
        f", batch too small by a factor of at least {num(1.0 / pooled.high)}" if 0.0 < pooled.high < LOW_SNR else ""
    )


def fisher_matrix(updates: Updates) -> Finding:
    """`fisher_1` in the first and last fifth, if rows have it. `!`: never."""
    (first, last), most = ends(updates["fisher_1"]), float(np.nanmax(updates["fisher_1"]))
    text = (
        f"largest eigenvalue {num(first)} in the first fifth of the run, {num(last)} in the last, at most {num(most)}"
    )
    return Finding("Fisher matrix", "ok", text + ".", {"first": first, "last": last, "most": most})


def quotient(a: np.ndarray, b: np.ndarray, above: float = 0.0) -> np.ndarray:
    """The ratio a / b, NaN where b is not above the limit."""
    counts = b > above
    return np.where(counts, a / np.where(counts, b, 1.0), np.nan)


CHECKS: dict[tuple[str, ...], Callable[[Updates], Finding]] = {  # the numbers that a finding needs
    ("accepted",): rejected_steps,
    ("gain", "predicted_gain"): linear_model,
    ("kl_quadratic",): kl_model,
    ("kl",): kl,
    ("kl_k1", "kl_k2", "kl_k3"): sampled_kl,
    ("step_norm", "policy_step"): step_lengths,
    ("cg_residual",): conjugate_gradients,
    ("clip_fraction",): clip,
    ("beta",): beta,
    ("fisher_1",): fisher_matrix,
    ("meter_groups",): gradient_noise,
}
WHOSE = {  # the numbers that not every run has, and which do
    "cg_residual": "conjugate gradients (NPG, TRPO)",
    "clip_fraction": "clip (PPO)",
    "beta": "β (PPO-KL)",
    "fisher_1": "Fisher eigenvalues in the rows (train with --fisher-eigenvalues)",
    "meter_groups": "gradient noise (train with --gradient-meter)",
}
