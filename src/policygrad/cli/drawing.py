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
    how = given.by, given.metric.replace("-", "_"), positive("smooth", given.smooth)
    from policygrad.reports.curves import picture_name
    from policygrad.reports.plots import plot_runs

    folder = directories[0].path if len(directories) == 1 else Path()
    out = folder / picture_name(len(directories) > 1, *how) if given.out is None else picture(given.out)
    plot_runs(directories, out, *how)
    print(printable(str(out)))
