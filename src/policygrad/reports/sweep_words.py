"""A sweep in words: the tables, what each hyperparameter does, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from policygrad.reports.columns import num
from policygrad.reports.comparison_words import sentence
from policygrad.reports.curves import return_label
from policygrad.reports.sensitivity import Effect, Width, brief
from policygrad.reports.sweeps import Setting, SweptSettings, setting_text

ROWS = 20  # of settings that a terminal shows
DESCRIBED = {  # what each number is, as docs/sweep.md lists them
    "effect": "mean score at each value of a hyperparameter, over all values of the others; in the text, best minus worst",
    "its interval": "Student's t: in a grid over the seeds (one mean per seed and value), with random settings over the "
    "settings with this value or in this part of the range; best minus worst: adjusted for the number of pairs (Bonferroni)",
    "width": "how far a number can be moved from the best setting, the others unchanged, until the IQM is below the best "
    "setting's interval on fresh seeds",
    "like the best": "a test at the same level cannot tell its runs from the fresh runs of the best setting; with few seeds it "
    "can tell little",
    "shrinkage": "the best setting's IQM on the seeds that chose it, minus that on fresh ones",
}


def verdict(sweep: SweptSettings) -> str:
    """Whether the best setting is better than the preset's own, by the fresh seeds alone."""
    own, best = sweep.design.baseline, setting_text(sweep.winner.values)
    if sweep.difference is None:
        return f"{sweep.design.env}: the best setting of the sweep, {best}, is that of {own}."
    return sentence(sweep.design.env, (best, own), sweep.difference)


def table(sweep: SweptSettings, most: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the settings, the best ones first; most: rows."""
    header = [*sweep.design.names, "IQM", "interval", "mean", "worst", "like the best", "scores by seed"]
    rows = []
    for k in sweep.order[:most]:
        setting, found = sweep.settings[k], sweep.summaries[k]
        like = "yes" if sweep.like_best[k] else "no"
        rows.append([*values(setting, sweep), *numbers(found), like, by_seed(setting)])
    return header, rows


def fresh_table(sweep: SweptSettings) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what was trained on fresh seeds."""
    header = [
        "", *sweep.design.names, "on the sweep's seeds", "on fresh seeds", "interval", "mean", "worst", "shrinkage",
        "scores by seed",
    ]  # fmt: skip
    rows = []
    names = ["best", "second best", sweep.design.baseline]
    before = [return_label(sweep.summaries[k]["iqm"]["value"]) for k in sweep.order[:2]]
    for k, setting in enumerate([*sweep.fresh, sweep.own]):
        swept = k < len(sweep.fresh)
        first, *others = numbers(sweep.fresh_summaries[k])
        shrinkage = return_label(sweep.shrinkage[k] + 0.0) if swept else ""
        said = [names[k], *values(setting, sweep), before[k] if swept else "", first, *others, shrinkage]
        rows.append([*said, by_seed(setting)])
    return header, rows


def values(setting: Setting, sweep: SweptSettings) -> list[str]:
    """The values of a setting as text."""
    return [brief(setting.values[name]) for name in sweep.design.names]


def numbers(found: dict) -> list[str]:
    """IQM, interval, mean and worst."""
    low, high = found["iqm"]["interval"]
    iqm, mean, worst = (return_label(x) for x in (found["iqm"]["value"], found["mean"], found["worst"]))
    return [iqm, f"{return_label(low)} to {return_label(high)}", mean, worst]


def by_seed(setting: Setting) -> str:
    """The score of every seed."""
    return " ".join("diverged" if run.score is None else return_label(run.score) for run in setting.runs)


def effect_sentence(one: Effect) -> str:
    """What a hyperparameter does to the score, averaged over the others."""
    best, worst = one.values[one.best], one.values[one.worst]
    if not math.isfinite(one.low):
        return f"{one.name}: too few settings to say what it does."
    interval = f"{return_label(one.low)} to {return_label(one.high)}"
    size = f"from {worst} to {best} the mean score rises by {return_label(one.difference)} ({interval})"
    return f"{one.name}: {size}." if one.matters else f"{one.name}: cannot tell whether it matters; {size}."


def width_sentence(one: Width) -> str:
    """How far a hyperparameter can be moved from the best setting."""
    if one.low == one.high:
        said = f"{one.name}: the score is within the best setting's interval at {brief(one.low)} only"
    else:
        factor = "" if one.factor is None else f" ({num(one.factor)}×)"
        span = f"{brief(one.low)} to {brief(one.high)}{factor}"
        said = f"{one.name}: the score stays within the best setting's interval from {span}"
    outside = " and ".join(f"at {brief(x)}" for x in (one.below, one.above) if x is not None)
    said += f", and is below it {outside}" if outside else ", which is all that was tried"
    warning = (
        " It works in a region of less than 3× only, as far as these values show: not robust." if one.narrow else ""
    )
    return f"{said}.{warning}"


def shrinkage_sentence(sweep: SweptSettings) -> str:
    """What the best setting lost on fresh seeds."""
    before, after = (x["iqm"]["value"] for x in (sweep.summaries[sweep.order[0]], sweep.fresh_summaries[0]))
    lost = before - after
    said = f"{return_label(lost)} less" if lost >= 0 else f"{return_label(-lost)} more"
    return (
        f"The best of {len(sweep.settings)} settings, {setting_text(sweep.winner.values)}, has an IQM of "
        f"{return_label(before)} on the seeds that it was chosen by, and of {return_label(after)} on fresh ones: {said}."
    )


def sentences(sweep: SweptSettings) -> list[tuple[str, list[str]]]:
    """Headings, and what is said under each."""
    found = [("What each hyperparameter does, averaged over the others", [effect_sentence(x) for x in sweep.effects])]
    if sweep.widths:
        found.append(
            (
                "How far each can be moved from the best setting, the others unchanged",
                [width_sentence(x) for x in sweep.widths],
            )
        )
    return found


def notes(sweep: SweptSettings) -> list[str]:
    """How the numbers were made."""
    design = sweep.design
    level = f"{100 * design.level:g} %"
    diverged = sum(setting.diverged for setting in [*sweep.settings, *sweep.fresh, sweep.own])
    lines = [
        f"{len(sweep.settings)} settings {'drawn at random' if design.random else 'of a grid'}, {len(design.seeds)} seeds "
        f"each; a score is the mean return of the final policy in {design.episodes:,} episodes, "
        f"{'greedy' if design.greedy else 'sampled'} actions.",
        f"IQM: mean of the middle half of the runs' scores; its interval: {level}, bootstrap, too short for few seeds.",
        f"Effects: Student's t over {'settings' if design.random else 'seeds'}, {level}, adjusted for the pairs of values.",
        f"Like the best: {DESCRIBED['like the best']}.",
        "The verdict is a test of fresh seeds alone, because the best of many settings was chosen for its luck, too.",
    ]
    if diverged:
        reasons = [run.reason for x in [*sweep.settings, *sweep.fresh, sweep.own] for run in x.runs if run.reason]
        lines.insert(
            1,
            f"{diverged} runs diverged and count as the lowest score, {return_label(sweep.floor)}: {reasons[0]}",
        )
    return lines


def text(sweep: SweptSettings) -> str:
    """Tables, sentences and notes as plain text."""
    parts = [f"{sweep.design.algo} on {sweep.design.env}", aligned(*table(sweep, ROWS))]
    if len(sweep.order) > ROWS:
        parts[-1] += f"\n… and {len(sweep.order) - ROWS} more settings"
    parts += [f"{heading}\n" + "\n".join(lines) for heading, lines in sentences(sweep)]
    parts += ["Fresh seeds\n" + aligned(*fresh_table(sweep)), f"{shrinkage_sentence(sweep)}\n{verdict(sweep)}"]
    return "\n\n".join([*parts, "\n".join(notes(sweep))])


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns are aligned by spaces."""
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join(lines)
