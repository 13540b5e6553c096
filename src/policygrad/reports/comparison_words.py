"""A comparison in words: the tables and the verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from policygrad.html import decimals
from policygrad.reports.columns import num, percent, steps_text
from policygrad.reports.comparison import OVERALL, ComparedRuns
from policygrad.reports.curves import return_label
from policygrad.reports.differences import Difference

HEADER = ("side", "seeds", "IQM", "interval", "mean", "median", "worst", "collapsed", "solved", "steps to solve")
DESCRIBED = {  # what each number is, as docs/compare.md lists them
    "IQM": "interquartile mean: mean of the middle half of the scores "
    "([Agarwal et al. 2021](https://arxiv.org/abs/2108.13264))",
    "interval": "95 % percentile interval of the IQM, stratified bootstrap: runs drawn with replacement within their "
    "environment",
    "mean, median, worst": "of the scores",
    "P(improvement)": "probability that a run of one side scores above one of the other; ties count half",
    "collapsed": "share of runs whose mean training return ends below the middle of its first and highest value",
    "solved": "share of runs whose mean return of 100 training episodes reached the environment's threshold",
    "steps to solve": "median steps until then by Kaplan–Meier: a run that never gets there is not there yet",
}


def places(comparison: ComparedRuns) -> list[str]:
    """The environments, and all of them together if there are several."""
    return [*comparison.envs, *[OVERALL] * (len(comparison.envs) > 1)]


def rows(comparison: ComparedRuns, env: str) -> list[list[str]]:
    """One row of the table per side."""
    digits = 3 if env == OVERALL else 1
    return [_row(comparison, side, env, digits) for side in comparison.sides]


def _row(comparison: ComparedRuns, side: str, env: str, digits: int) -> list[str]:
    found = comparison.summary(side, env)
    digits = max(digits, decimals(*found["iqm"]["interval"]))
    numbers = [found["iqm"]["value"], found["mean"]["value"], found["median"]["value"], found["worst"]]
    iqm, mean, median, worst = (return_label(x, digits) for x in numbers)
    runs = sum(len(comparison.runs[side][one]) for one in ([env] if env != OVERALL else comparison.envs))
    goal = found.get("to_threshold")
    solved, steps = "", ""
    if goal is not None:
        solved = percent(goal["reached"])
        steps = "not reached" if goal["median_steps"] is None else steps_text(goal["median_steps"])
    interval = interval_label(found["iqm"]["interval"], digits)
    return [side, str(runs), iqm, interval, mean, median, worst, percent(found["collapsed"]), solved, steps]


def interval_label(ends: Sequence[float], digits: int) -> str:
    """The interval of a bootstrap; one without width says nothing, and is none."""
    low, high = ends
    return "none" if low == high else f"{return_label(low, digits)} to {return_label(high, digits)}"


def sentence(env: str, pair: tuple[str, str], found: Difference) -> str:
    """The verdict about a pair of sides as one sentence."""
    ahead = found.estimate >= 0  # the side with the higher scores is named first
    better, worse = pair if ahead else pair[::-1]
    sign, level = (1 if ahead else -1), f"{100 * found.level:g} %"
    unit, digits = (" of the common scale", 3) if env == OVERALL else ("", 1)
    ends = sorted([sign * found.low, sign * found.high])
    bounded, varies = math.isfinite(ends[0]) and math.isfinite(ends[1]), ends[0] < ends[1]
    digits = max(digits, decimals(*ends))
    interval = (
        f"{level} interval {interval_label(ends, digits)}" if varies else "no interval, as its scores do not vary"
    )
    size = return_label(sign * found.estimate + 0.0, digits) + unit
    chance = found.improvement if sign > 0 else 1 - found.improvement
    if found.verdict:
        beats = f"a run of {better} beats a run of {worse} with probability {num(chance)}"
        return f"{env}: {better} is better than {worse} by {size} ({interval}; {beats})."
    why = "scores that do not vary" if bounded else "so few seeds"
    known = f"the difference is {size}" + (f" ({interval})" if bounded and varies else f", and {why} cannot bound it")
    return f"{env}: cannot tell {better} from {worse} yet: {known}; {_more(found)}."


def _more(found: Difference) -> str:
    if found.more_seeds is None:
        return "these runs do not say how many more seeds would tell"
    seeds = "seed" if found.more_seeds == 1 else "seeds"
    return f"about {found.more_seeds:,} more {seeds} per side would be needed to confirm a difference like this"


def verdicts(comparison: ComparedRuns, env: str) -> list[str]:
    """One sentence per pair of sides."""
    return [sentence(env, pair, found) for pair, found in comparison.differences[env].items()]


def overall(comparison: ComparedRuns) -> str:
    """One sentence about everything."""
    where = places(comparison)[-1]
    pairs = comparison.differences[where]
    wins = dict.fromkeys(comparison.sides, 0)
    for pair, found in pairs.items():
        if found.verdict:
            wins[pair[0] if found.verdict > 0 else pair[1]] += 1
    best = max(wins, key=lambda side: wins[side])
    place = "over all environments" if where == OVERALL else f"on {where}"
    if wins[best] == len(comparison.sides) - 1:
        others = "the other side" if len(comparison.sides) == 2 else "each of the others"
        return f"Overall, {best} is better than {others} {place}."
    if any(wins.values()):
        losers = [pair[1] if f.verdict > 0 else pair[0] for pair, f in pairs.items() if f.verdict]
        worse = list(dict.fromkeys(losers))
        said = f"{worse[0]} is" if len(worse) == 1 else f"{', '.join(worse[:-1])} and {worse[-1]} are each"
        return f"Overall, no side is better than all others {place}; {said} worse than another one."
    return f"Overall, these runs cannot tell the sides apart {place}."


def notes(comparison: ComparedRuns) -> list[str]:
    """How the numbers were made."""
    level = f"{100 * comparison.level:g} %"
    lines = [
        "IQM: mean of the middle half of the runs' scores; a score is the mean return of the final policy. "
        f"Interval of an IQM: {level}, stratified bootstrap.",
        f"Verdicts: permutation test of P(improvement) at the {num(100 * (1 - comparison.level))} % level"
        + _adjusted(comparison),
        "Collapsed: the mean return of training ends below the middle between its first and its highest value.",
    ]
    ends = [comparison.summary(side, env)["iqm"]["interval"] for env in places(comparison) for side in comparison.sides]
    if any(low == high for low, high in ends):
        lines.append(
            "No interval: there is one run, or nearly all have the same score, which says nothing about others."
        )
    solved = {env: value for env, value in comparison.thresholds.items() if value is not None}
    if solved:
        said = ", ".join(f"{return_label(value, 0)} on {env}" for env, value in solved.items())
        lines.append(f"Solved: the mean return of 100 training episodes reached {said}; median steps by Kaplan–Meier.")
    if len(comparison.envs) > 1:
        lines.append("Common scale: 0 is the runs' mean first return, 1 the highest score of any run, per environment.")
    return lines


def _adjusted(comparison: ComparedRuns) -> str:
    welch = any(found.method == "welch" for pairs in comparison.differences.values() for found in pairs.values())
    pairs = len(comparison.differences[comparison.envs[0]])
    text = ", adjusted by Bonferroni for the pairs of an environment" if pairs > 1 else ""
    return text + ("; of 3 seeds, Welch's t test." if welch else ".")


def table(comparison: ComparedRuns, env: str) -> tuple[Sequence[str], list[list[str]]]:
    """Header and rows, without the columns that say nothing here."""
    made = rows(comparison, env)
    kept = [k for k in range(len(HEADER)) if any(row[k] for row in made)]
    return [HEADER[k] for k in kept], [[row[k] for k in kept] for row in made]


def text(comparison: ComparedRuns) -> str:
    """Tables, verdicts and notes as plain text."""
    parts = []
    for env in places(comparison):
        header, made = table(comparison, env)
        widths = [max(len(row[k]) for row in [header, *made]) for k in range(len(header))]
        lines = ["  ".join(c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True)))
                 for row in [header, *made]]  # fmt: skip
        parts.append("\n".join([env, *lines, "", *verdicts(comparison, env)]))
    return "\n\n".join([*parts, overall(comparison), "\n".join(notes(comparison))])


def caption(comparison: ComparedRuns) -> str:
    """The caption of the picture, for a paper: the verdict, per environment the numbers, and what is drawn."""
    parts = [overall(comparison)]
    for env in comparison.envs:
        said = []
        for side in comparison.sides:
            found = comparison.summary(side, env)["iqm"]
            interval = interval_label(found["interval"], max(1, decimals(*found["interval"]))).replace(" to ", ", ")
            said.append(f"{side} {return_label(found['value'])} [{interval}], n = {len(comparison.runs[side][env])}")
        numbers = f"IQM [{_level(comparison)} stratified bootstrap interval]"
        parts.append(f"{env}, {_steps(comparison, env)}: {numbers} of final scores: {'; '.join(said)}.")
    lines = "Lines: IQM of the runs' mean returns in training; bands: from the lowest to the highest run."
    return " ".join([*parts, lines, "Below: final scores, a dot per run; bars: IQM and interval."])


def clocks_caption(comparison: ComparedRuns) -> str:
    """The caption of the picture about the time until the threshold."""
    parts = ["Share of runs whose mean return of 100 training episodes has not reached the threshold (Kaplan–Meier)."]
    for env in comparison.envs:
        said = []
        for side in comparison.sides:
            steps, seconds = (comparison.survival(side, env, by) for by in ("steps", "seconds"))
            if steps is not None:
                reached = f"{steps.reached} of n = {steps.runs} reached it"
                medians = [] if steps.median is None else [f"{steps_text(steps.median)} steps"]
                medians += [] if seconds is None or seconds.median is None else [f"{num(seconds.median)} s"]
                said.append(f"{side} {reached}" + (f", median {', '.join(medians)}" if medians else ""))
        if said:
            goal = return_label(comparison.thresholds[env] or 0.0, 0)
            parts.append(f"{env}, threshold {goal}, {_steps(comparison, env)}: {'; '.join(said)}.")
    return " ".join([*parts, "Bars across a line: runs that ended without. Seconds are of this machine."])


def _level(comparison: ComparedRuns) -> str:
    return f"{num(100 * comparison.level)} %"


def _steps(comparison: ComparedRuns, env: str) -> str:
    """How long the runs of an environment were, from the fewest to the most steps."""
    ends = [run.steps[-1] for run in comparison.all_runs(env) if len(run.steps)]
    if not ends:
        return "steps not known"
    low, high = steps_text(min(ends)), steps_text(max(ends))
    return f"{high} steps" if low == high else f"{low} to {high} steps"
