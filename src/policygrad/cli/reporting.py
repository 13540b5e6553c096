"""`policygrad report`: what every update of a run predicted and did."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence

from policygrad.algorithms.config import ConfigError
from policygrad.cli.flags import report_parser
from policygrad.cli.playing import directory_of, load_run
from policygrad.cli.reports import as_usage_error, ended
from policygrad.cli.tables import paragraph
from policygrad.cli.values import UsageError, parse_number, picture
from policygrad.files import printable
from policygrad.reports.report import read_report
from policygrad.stored.directory import RunDirectory, find_run, runs_at
from policygrad.training.reporting import checked_eigenvalues


def report_command(words: Sequence[str]) -> None:
    """`policygrad report`."""
    given = report_parser().parse(words)
    with as_usage_error(ConfigError):
        eigenvalues = checked_eigenvalues(int(parse_number("eigenvalues", int, given.eigenvalues)))
    if given.env is not None and not eigenvalues:
        raise UsageError(
            "--env names the environment of the batch for the eigenvalues: give --eigenvalues as well, e.g. 5."
        )
    run = one_run(given)
    out = picture(given.out) if given.out is not None else None if given.json else run.report_file
    made = read_report(run)
    if eigenvalues:
        agent, _ = load_run(given, "report")
        from policygrad.training.spectrum import spectrum

        with ended("measuring"), as_usage_error(ValueError):
            made.add(spectrum(agent, eigenvalues))
    if out is not None:
        made.figure().write(out)
    if given.json:
        print(json.dumps(made.to_json(), indent=2, ensure_ascii=False))
        return
    print("\n".join(paragraph(line, "   ") for line in made.lines()))
    print(f"\npicture {printable(str(out))}")


def one_run(given: Namespace) -> RunDirectory:
    """The run that RUN names; a model file stands for its run."""
    path = find_run(given.run, given.runs_root)
    path = directory_of(path) if path.is_file() and path.suffix == ".safetensors" else path
    run = RunDirectory(path)
    if run.config_file.exists():
        return run
    below = runs_at(path)
    raise UsageError(f"{path} is a directory of runs: name one of its {len(below)}, e.g. {below[0].path}")
