"""`policygrad sweep`: how the score depends on hyperparameters, and whether the best setting is better than the preset."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from policygrad.cli.arguments import TrainArguments, parse_train
from policygrad.cli.board import make_board
from policygrad.cli.parser import Parser, dashed
from policygrad.cli.reports import as_usage_error
from policygrad.cli.tables import paragraph, text_table
from policygrad.cli.training import engine_of
from policygrad.cli.values import UsageError, parse_number, parse_seeds, positive
from policygrad.files import printable
from policygrad.stored.directory import ROOT

if TYPE_CHECKING:
    from policygrad.reports.sweep_result import SweepResult

MOST = 10_000
EPILOG = """NAME=VALUES is one of:
  lr=1e-4..1e-2:log      a range, even in logarithms
  gamma=0.9..0.999       a range, even; of whole numbers, whole numbers
  ent_coef=0,0.01,0.1    a list
  'hidden=(32,32),(64,)' a list of tuples, quoted for the shell

Every flag of `policygrad train ALGO ENV` holds for all settings, such as --steps,
--num-envs, --preset, --env-kwargs, --jobs, --runs-root and --eval-episodes.

Finished runs are reused, unfinished ones are resumed. After Ctrl-C, or a kill,
the same command goes on.

examples:
  policygrad sweep ppo CartPole-v1 --over lr=1e-4..1e-2:log --over ent_coef=0,0.01
  policygrad sweep a2c CartPole-v1 --over lr=1e-4..1e-1:log gamma=0.9..1 --random 30"""
NOT_HERE = {  # attributes of TrainArguments: the reason why a sweep takes no such flag
    "run_dir": "give --out, the directory of the sweep",
    "resume": "the same command goes on by itself",
    "save_trajectories": "collect trajectories of a finished run with `policygrad collect RUN`",
    "dataset": "it trains in the environment",
    "gradient_meter": "measure one run, with `policygrad train`",
    "fisher_eigenvalues": "measure one run, with `policygrad train`",
    "wandb": "it would send hundreds of runs; `policygrad train` has it",
    "mlflow": "it would send hundreds of runs; `policygrad train` has it",
}


def sweep_parser() -> Parser:
    """`policygrad sweep`, without the flags of `train` that it takes, too."""
    parser = Parser(
        "policygrad sweep",
        usage="policygrad sweep ALGO ENV --over NAME=VALUES [--over NAME=VALUES ...] [flags]",
        description="Train many settings of hyperparameters with several seeds each: what each hyperparameter does to the "
        "score, and how far it can be moved. The best setting is trained once more on fresh seeds, which alone decide whether "
        "it is better than the preset.",
        epilog=EPILOG,
    )
    parser.add_argument("words", nargs="*", metavar="ALGO ENV", help="as for `policygrad train`")
    group = parser.add_argument_group("sweep")
    group.add_argument(
        "--over", nargs="+", action="extend", default=[], metavar="NAME=VALUES", help="hyperparameters and their values"
    )
    group.add_argument("--points", metavar="N", help="values of each range, in a grid [5]")
    group.add_argument("--random", metavar="N", help="number of settings drawn at random, instead of a grid [a grid]")
    group.add_argument(
        "--seeds", nargs="+", default=["5"], metavar="N", help="seeds per setting, how many or a range as 5-14 [5]"
    )
    group.add_argument(
        "--sampled", action="store_true", help="score policies with sampled actions, not with the most likely ones"
    )
    group.add_argument("--level", default="0.95", metavar="X", help="1 − the probability of a false verdict [0.95]")
    group.add_argument(
        "--out", metavar="DIR", help="directory of runs and result [sweeps/NAME in the directory of runs]"
    )
    return parser


def sweep_command(words: Sequence[str]) -> None:
    """`policygrad sweep`."""
    given, rest = split(words)
    train = parse_train(rest)
    refuse(train)
    keywords = keywords_of(given, train)
    from policygrad.training.sweep import sweep

    with as_usage_error(ValueError, TypeError):
        found = sweep(train.algo, train.env, given.over, board=make_board(train.quiet), **keywords)
    print("\n".join(lines(found)))


def split(words: Sequence[str]) -> tuple[Namespace, list[str]]:
    """The flags of a sweep, and the words that mean what they mean to `train`. Prints the help if it is asked for."""
    parser = sweep_parser()
    words = [dashed(word) for word in words]
    if "--help" in words or "-h" in words:
        parser.parse(["--help"])
    own = {flag: action for action in parser._actions for flag in action.option_strings}
    mine: list[str] = []
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        action = own.get(word.partition("=")[0])
        (rest if action is None else mine).append(word)
        if action is None or "=" in word or action.nargs == 0:
            continue
        first = index
        while index < len(words) and follows(words[index], action.nargs, index - first):
            index += 1
        mine += words[first:index]
    given = parser.parse(mine)
    if not given.over:
        raise UsageError("sweep needs --over NAME=VALUES, such as --over lr=1e-4..1e-2:log --over ent_coef=0,0.01")
    return given, rest


def follows(word: str, nargs: Any, count: int) -> bool:
    """Whether a word is a value of the flag before it, which has `count` already; those of --over and --seeds are several."""
    if word.startswith("-") or (count and nargs != "+"):
        return False
    return not count or "=" in word or word[:1].isdigit()


def refuse(train: TrainArguments) -> None:
    """Raise UsageError for flags of `train` that mean nothing here."""
    for name, reason in NOT_HERE.items():
        if getattr(train, name):
            raise UsageError(f"sweep has no flag --{name.replace('_', '-')}: {reason}.")
    if train.nproc > 1:
        raise UsageError("sweep has no flag --nproc: it trains runs beside each other, with --jobs.")
    if train.seeds != (0,):
        raise UsageError("sweep has no flag --seed: use --seeds, how many or a range such as 5-14.")


def keywords_of(given: Namespace, train: TrainArguments) -> dict[str, Any]:
    """The keywords of `policygrad.sweep` that the flags mean."""
    count = len(given.seeds) == 1 and given.seeds[0].isdigit()
    level = parse_number("level", float, given.level)
    if not 0.5 <= level < 1.0:
        raise UsageError(f"--level = {given.level} must be at least 0.5 and below 1, e.g. 0.95.")
    if given.points is not None and given.random is not None:
        raise UsageError("--points is the size of a grid, and --random draws settings instead: give one of the two.")
    return train.keywords | {
        "points": positive("points", given.points or "5", 2, MOST),
        "random": None if given.random is None else positive("random", given.random, 2, MOST),
        "seeds": positive("seeds", given.seeds[0], 2) if count else parse_seeds(given.seeds),
        "episodes": train.eval_episodes,
        "jobs": train.jobs,
        **engine_of(train.engine, train.shard, train.lease),
        "root": train.runs_root or ROOT,
        "greedy": not given.sampled,
        "level": level,
        "out": given.out,
    }


def lines(found: SweepResult) -> list[str]:
    """Tables, sentences, the verdict, and where the files are."""
    from policygrad.reports.sweep_words import (
        ROWS,
        fresh_table,
        notes,
        sentences,
        shrinkage_sentence,
        table,
        verdict,
    )

    def shown(header: list[str], rows: list[list[str]]) -> str:
        return text_table(header, rows, right=range(len(header) - 1))

    said = [f"{found.design.algo} on {found.design.env}", shown(*table(found, ROWS))]
    more = len(found.order) - ROWS
    said += [f"and {more} more settings, all of them in sweep.html"] if more > 0 else []
    for heading, each in sentences(found):
        said += ["", heading, *(paragraph(line) for line in each)]
    said += ["", "Fresh seeds", shown(*fresh_table(found)), ""]
    said += [paragraph(line) for line in (shrinkage_sentence(found), verdict(found))]
    said += ["", *(paragraph(line) for line in notes(found)), ""]
    out = found.place
    files = ("sweep.json", "sweep.png", "sweep.html")
    return [*said, *(printable(str(out / name)) for name in files if out is not None)]
