"""`policygrad plot`: learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from policygrad.cli.flags import plot_parser
from policygrad.cli.values import picture, positive
from policygrad.files import printable
from policygrad.stored.directory import RunDirectory, find_run, runs_at


def plot_command(words: Sequence[str]) -> None:
    """`policygrad plot`."""
    given = plot_parser().parse(words)
    chosen: dict[Path, RunDirectory] = {}
    for text in given.runs:
        chosen |= {run.path.resolve(): run for run in runs_at(find_run(text, given.runs_root))}
    directories = list(chosen.values())
    out = directories[0].curve_file if len(directories) == 1 else Path("learning_curves.png")
    out = picture(given.out) if given.out is not None else out
    from policygrad.reports.plots import plot_runs

    plot_runs(directories, out, given.by, given.metric.replace("-", "_"), positive("smooth", given.smooth))
    print(printable(str(out)))
