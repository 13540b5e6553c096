"""`policygrad compare`: which side is better, by how much, and how surely."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from policygrad.cli.arguments import check_env
from policygrad.cli.board import make_board
from policygrad.cli.flags import RUN_FLAGS
from policygrad.cli.parser import Parser
from policygrad.cli.reports import as_usage_error
from policygrad.cli.tables import paragraph, text_table
from policygrad.cli.training import engine_of
from policygrad.cli.values import UsageError, parse_number, parse_seeds, positive
from policygrad.files import printable
from policygrad.stored.directory import ROOT

if TYPE_CHECKING:
    from policygrad.reports.comparison_result import RunComparison

EPILOG = """SIDE is one of:
  ppo                    an algorithm, with its preset for the environment
  ppo:clip=0.1,epochs=5  the same with other hyperparameters
  my_module:mine         a recipe of your own, module:name or file.py:name
  runs/CartPole-v1/ppo   a directory of finished runs
  logs/sb3-ppo           a directory of Stable-Baselines3's runs, a folder each,
                         with evaluations.npz or monitor.csv

Runs of the same configuration, seed and version are reused, unfinished ones are
resumed. After Ctrl-C, or a kill, the same command goes on.

examples:
  policygrad compare ppo a2c --env CartPole-v1
  policygrad compare ppo ppo:clip=0.1 --env CartPole-v1 Acrobot-v1 --seeds 5
  policygrad compare runs/old runs/new"""


def compare_parser() -> Parser:
    """`policygrad compare`."""
    parser = Parser(
        "policygrad compare",
        usage="policygrad compare SIDE SIDE [SIDE ...] [--env ENV ...] [flags]",
        description="Train the sides with several seeds, and say which is better, by how much and how surely: interquartile "
        "means with bootstrap intervals, and a test that calls equal sides different in 5 % of comparisons at most.",
        epilog=EPILOG,
    )
    parser.add_argument("sides", nargs="+", metavar="SIDE", help="what is compared, see below")
    parser.add_argument(
        "--env", "--env-id", nargs="+", action="extend", default=[], metavar="ENV", help="one or several environments"
    )
    group = parser.add_argument_group("runs")
    group.add_argument(
        "--seeds", nargs="+", default=["10"], metavar="N", help="number of seeds, or a range such as 5-14 [10]"
    )
    group.add_argument(
        "--steps", metavar="N", help="environment steps of every run [the most that a side's preset has]"
    )
    group.add_argument("--eval-episodes", default="100", metavar="N", help="episodes of every final evaluation [100]")
    group.add_argument("--jobs", metavar="N", help="number of runs at the same time [one per core]")
    for flag in ("--shard", "--lease", "--engine"):
        metavar, text = RUN_FLAGS[flag]
        group.add_argument(flag, metavar=metavar, help=text)
    group.add_argument(
        "--runs-root", default=str(ROOT), metavar="DIR", help="directory in which runs are found and made [runs]"
    )
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--sampled", action="store_true", help="score policies with sampled actions, not with the most likely ones"
    )
    group.add_argument("--level", default="0.95", metavar="X", help="1 − the probability of a false verdict [0.95]")
    group.add_argument("--threshold", metavar="X", help="mean return that counts as solved [Gymnasium's]")
    group.add_argument(
        "--out", metavar="DIR", help="directory of the result [comparisons/NAME in the directory of runs]"
    )
    group.add_argument("--quiet", "-q", action="store_true", help="print only the result")
    return parser


def compare_command(words: Sequence[str]) -> None:
    """`policygrad compare`."""
    given = compare_parser().parse(words)
    keywords = keywords_of(given)
    from policygrad.training.compare import compare

    with as_usage_error(ValueError, TypeError):
        found = compare(given.sides, given.env, board=make_board(given.quiet), **keywords)
    print("\n".join(lines(found)))


def keywords_of(given: Namespace) -> dict[str, Any]:
    """The keywords of `policygrad.compare` that the flags mean."""
    for env in given.env:
        check_env(env)
    seeds: Any = positive("seeds", given.seeds[0], 2) if len(given.seeds) == 1 and given.seeds[0].isdigit() else None
    level = parse_number("level", float, given.level)
    if not 0.5 <= level < 1.0:
        raise UsageError(f"--level = {given.level} must be at least 0.5 and below 1, e.g. 0.95.")
    return {
        "seeds": parse_seeds(given.seeds) if seeds is None else seeds,
        "steps": None if given.steps is None else positive("steps", given.steps, most=2**53),
        "episodes": positive("eval_episodes", given.eval_episodes),
        "jobs": None if given.jobs is None else positive("jobs", given.jobs),
        **engine_of(given.engine, given.shard, given.lease),
        "root": given.runs_root,
        "greedy": not given.sampled,
        "level": level,
        "threshold": None if given.threshold is None else parse_number("threshold", float, given.threshold),
        "out": given.out,
    }


def lines(comparison: RunComparison) -> list[str]:
    """Tables, verdicts, and where the files are."""
    from policygrad.reports.comparison_words import notes, places, table, verdicts

    said: list[str] = []
    for env in places(comparison):
        header, rows = table(comparison, env)
        said += ["", env, text_table(header, rows, right=range(1, len(header))), ""]
        said += [paragraph(line) for line in verdicts(comparison, env)]
    said += ["", paragraph(comparison.verdict), "", *(paragraph(line) for line in notes(comparison)), ""]
    out = comparison.place
    files = ("compare.json", "compare.png", "compare.html", "clocks.png")
    return [*said, *(printable(str(out / name)) for name in files if out is not None and (out / name).exists())]
