"""The report of a run: what every update predicted and did, as text and as a plot.

Reading a run needs neither torch nor matplotlib; the picture and the eigenvalues of its policy import them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.algorithms.recipe import RecipeSpec
from policygrad.html import grid_html, picture_html
from policygrad.reports.columns import Updates, as_number, steps_text, title
from policygrad.reports.findings import Finding, findings
from policygrad.reports.tracking import Segment, run_segments, tracking
from policygrad.reports.value_findings import value_findings
from policygrad.stored.directory import RunDirectory, RunError, environment

if TYPE_CHECKING:
    from policygrad.reports.plots import Chart

FEW_ROWS = 8  # rows below which the words say that they are few
LINE_WIDTH = 100  # characters per line, unless given


class Report:
    """The findings about a run's measured updates. `print(report)` prints them; a notebook shows them and the plot.

    updates: the rows of metrics as columns. found: the findings, in the order in which they are said. segments: what the
    surrogate promised and the return did, see `policygrad.reports.tracking`.
    """

    def __init__(self, name: str, env: str, seed: int, updates: Updates, returns: Sequence[float]) -> None:
        self.name, self.env, self.seed, self.updates = name, env, seed, updates
        promises = updates.has("kl")  # an update from replayed steps has no surrogate
        self.segments: list[Segment] = run_segments(updates, returns) if promises else []
        self.found: list[Finding] = findings(updates) if promises else value_findings(updates)
        if promises:
            self.found.insert(1, tracking(updates, self.segments, len(returns)))
        odd = sum(not math.isfinite(x) for x in returns)
        if odd:
            text = f"{odd} of {len(returns)} in monitor.csv are not finite and were left out."
            self.found.insert(2, Finding("returns", "!", text, {"not_finite": odd}))

    def heading(self) -> str:
        """The heading: the run, and the number of measured updates."""
        updates = self.updates
        first, last = steps_text(updates.steps[0]), steps_text(updates.steps[-1])
        text = f"{title(updates.algo)} on {self.env}, seed {self.seed}: {len(updates)} measured updates"
        text += f" ({updates.measured()})" if updates.measured() else ""
        text += f", {first} to {last} steps"
        return text + (", too few for reliable medians" if len(updates) < FEW_ROWS else "")

    def add(self, finding: Finding) -> None:
        """Add a finding, before those that are not possible."""
        last = next((i for i, f in enumerate(self.found) if f.name in ("missing", "not here")), len(self.found))
        self.found.insert(last, finding)

    def lines(self) -> list[str]:
        """The text, one line per finding."""
        return [self.heading(), self.summary(), "", *(f"{f.mark:<3}{f.name}: {f.text}" for f in self.found)]

    def summary(self) -> str:
        """The names of the findings to look at."""
        look = [finding.name for finding in self.found if finding.mark == "!"]
        return f"Look at: {', '.join(look)}." if look else "Nothing stands out."

    def __str__(self) -> str:
        fill = textwrap.TextWrapper(LINE_WIDTH, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False)
        return "\n".join(fill.fill(line) for line in self.lines())

    def __repr__(self) -> str:
        return str(self)

    def figure(self) -> Chart:
        """The plot, a matplotlib Figure."""
        from policygrad.reports.report_plots import report_figure

        return report_figure(self)

    def plot(self, path: str | Path | None = None) -> Chart:
        """The plot, as `figure`; with a path it is also written there, as png, pdf or svg."""
        return self.figure().written(path)

    def _repr_html_(self) -> str:
        rows = [[f.mark, f.name, f.text] for f in self.found]
        shown = grid_html(f"{self.heading()}. {self.summary()}", ["", "finding", "what was found"], rows)
        return shown + picture_html(self.figure()._repr_png_(), self.heading())

    def to_json(self) -> dict[str, Any]:
        """The findings as plain values: the mark, the text and the numbers of each."""
        updates = self.updates
        return {
            "run": self.name,
            "algo": updates.algo,
            "env": self.env,
            "seed": self.seed,
            "measured": len(updates),
            "steps": [int(updates.steps[0]), int(updates.steps[-1])],
            "findings": {f.name: {"mark": f.mark, "text": f.text, "numbers": f.numbers} for f in self.found},
        }


def read_report(run: RunDirectory) -> Report:
    """The report of a run directory. Raises RunError, naming the file."""
    if not run.config_file.exists():
        raise RunError(f"{run.path} is not a run directory: it has no config.json")
    config, rows = run.config(), run.metrics()
    try:
        spec = RecipeSpec.from_json(config["recipe"]) if "recipe" in config else None  # runs of 0.4 have none
    except ValueError as error:
        raise RunError(f"{run.config_file} is not a run's configuration: recipe, {error}") from error
    updates = Updates(str(config["algo"]), config["config"], rows, spec)
    if not len(updates):
        why = "no row of metrics yet" if not rows else "no row with the numbers of an update (kl or td_error)"
        raise RunError(f"{run.metrics_file} has {why}: there is nothing to report")
    return Report(str(run.path), environment(config), config["seed"], updates, list(map(as_number, run.returns())))
