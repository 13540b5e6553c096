"""`policygrad lab theory`: predictions of the theory of policy gradients, measured."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from policygrad.cli.lab_flags import add_mdp
from policygrad.cli.parser import Parser
from policygrad.cli.reports import as_usage_error
from policygrad.cli.tables import paragraph
from policygrad.cli.values import UsageError, parse_seed, picture

if TYPE_CHECKING:
    from policygrad.lab.results import Result

WHICH = (
    "lemma",
    "surrogate",
    "improvement",
    "ascent",
    "sgd",
    "derivatives",
    "loss",
    "staleness",
    "delays",
    "pathwise",
    "values",
    "triad",
)
RULE = f"\n{'─' * 80}\n\n"


def parser() -> Parser:
    """The parser of `policygrad lab theory`."""
    made = Parser(
        "policygrad lab theory",
        usage="policygrad lab theory [WHICH …] [flags]",
        description="Measure what theory predicts about policy gradients on small MDPs, exactly wherever possible: the "
        "performance difference lemma, error order and bounds of the surrogate, policy iteration against trust regions, "
        "gradient ascent and stochastic ascent, three ways to compute a derivative, losses that do not measure performance, "
        "data from an older policy, gradients of one, the gradient by the score function or along the path, and methods that "
        "learn values.",
        epilog="examples:\n  policygrad lab theory\n  policygrad lab theory surrogate --mdp chain --out theory.png",
    )
    made.add_argument("which", nargs="*", metavar="WHICH", help=f"experiments: {', '.join(WHICH)} [all]")
    add_mdp(made, "MDP", "each experiment's own")
    made.add_argument("--seed", default="0", metavar="S", help="random seed of policies, samples and random MDPs [0]")
    made.add_argument("--json", action="store_true", help="print everything as JSON")
    made.add_argument("--out", metavar="FILE", help="file of a plot: png, pdf or svg")
    return made


def run(words: Sequence[str]) -> None:
    """`policygrad lab theory`."""
    given = parser().parse(words)
    seed, out = parse_seed(given.seed), None if given.out is None else picture(given.out)
    from policygrad.training.threads import single_thread

    with as_usage_error(ValueError, FloatingPointError), single_thread():
        found, refused = bench(given.which, given.mdp, seed, show=not given.json)
        if given.json:
            written = {name: result.to_json() for name, result in found.items()} | {"refused": refused}
            print(json.dumps(written, indent=2, ensure_ascii=False))
        if out is not None:
            from policygrad.lab.theory import plots

            title = "What theory predicts, measured" + (f": {given.mdp}" if given.mdp else "")
            drawn = plots.draw_theory(list(found.values()), title, out)
            if not given.json:
                print(f"\n{drawn}")


def bench(which: Sequence[str], mdp: str | None, seed: int, show: bool) -> tuple[dict[str, Result], dict[str, str]]:
    """The results by name, and the reasons why other experiments are not possible on this MDP. show: print each result.

    Raises UsageError if no experiment is possible on this MDP, and ValueError for unknown names.
    """
    from policygrad.lab.exact.worlds import make_mdp
    from policygrad.lab.theory.experiments import EXPERIMENTS, find_experiment

    chosen = {name: find_experiment(name) for name in which} or EXPERIMENTS
    if mdp is not None:
        make_mdp(mdp, seed)  # raises the error for an unknown name once
    found, refused = {}, {}
    for name, experiment in chosen.items():
        with doing(f"measuring {name} …"):
            try:
                found[name] = experiment.run(mdp, seed)
            except ValueError as error:
                refused[name] = str(error)
                continue
        if show:
            print(RULE * (len(found) > 1) + theory_text(name, found[name].table()), flush=True)
    if not found:
        raise UsageError(next(iter(refused.values())))
    if show:
        for name, reason in refused.items():
            print(RULE + theory_text(name, paragraph(f"not measured: {reason}")))
    return found, refused


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Show a line on stderr while something runs, if that is a terminal."""
    shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if shown:
        print(what, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def theory_text(name: str, numbers: str) -> str:
    """The title of an experiment, the prediction of theory, and the numbers."""
    from policygrad.lab.theory.experiments import EXPERIMENTS

    experiment = EXPERIMENTS[name]
    return f"{experiment.title}  ({name})\n{paragraph(experiment.says)}\n\n{numbers}"
