"""`policygrad tune`: a search for hyperparameters, with the best ones checked on fresh seeds."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from policygrad.algorithms.config import algorithm, parameters
from policygrad.algorithms.search_spaces import SPACES
from policygrad.cli.arguments import TrainArguments, check_algo, check_env, fill_arguments
from policygrad.cli.flags import add_flag
from policygrad.cli.parser import Parser, dashed, is_flag, same
from policygrad.cli.reports import as_usage_error
from policygrad.cli.tables import paragraph, text_table
from policygrad.cli.values import UsageError, parse_number, parse_seed, positive
from policygrad.files import printable
from policygrad.training.jobs import SilentBoard, State

if TYPE_CHECKING:
    from policygrad.reports.tuning import TrialRow, Tuning

EPILOG = """Any hyperparameter of `policygrad train ALGO` is a flag here, too, and holds that
hyperparameter fixed in all runs: --num-envs 16.

The command ends with a comparison of the best trial and what stands without the
search (the preset, or the defaults), on seeds that the search has not seen. Only
that comparison can call the result better. best.toml is a preset file:
  policygrad train ppo CartPole-v1 --preset tuning/CartPole-v1/ppo/best.toml

After Ctrl-C, or a kill, the same command goes on. The same command in a second
terminal helps. More trials later: the same command with a larger --trials.

examples:
  policygrad tune ppo --env CartPole-v1
  policygrad tune ppo --env Acrobot-v1 --over lr=1e-4..1e-2:log gamma=0.98,0.99,0.999
  policygrad tune sac --env Pendulum-v1 --trials 30 --steps 20k --hours 8"""


def tune_parser() -> Parser:
    """`policygrad tune`."""
    parser = Parser(
        "policygrad tune",
        usage="policygrad tune ALGO ENV [flags]",
        description="Search for hyperparameters with which ALGO learns ENV better. Each trial trains several seeds; Optuna "
        "proposes what to try next; trials that cannot catch up any more are given up.",
        epilog=EPILOG,
    )
    parser.add_argument("algo", nargs="?", metavar="ALGO", help="algorithm, or your own recipe as module:name")
    parser.add_argument("positional_env", nargs="?", metavar="ENV", help="environment; also as --env ENV")
    parser.add_argument("--env", "--env-id", metavar="ENV", help="environment")
    group = parser.add_argument_group("search")
    group.add_argument(
        "--over",
        nargs="+",
        action="extend",
        metavar="NAME=VALUES",
        help="what is searched: lr=1e-4..1e-2:log is a range in logarithms, epochs=4..20 a range, gamma=0.98,0.99 a list "
        "[the algorithm's own, see `policygrad tune ALGO --help`]",
    )
    group.add_argument(
        "--trials", default="50", metavar="N", help="trials in all, those of earlier commands included [50]"
    )
    group.add_argument("--seeds", default="3", metavar="N", help="seeds per trial; a trial's value is their mean [3]")
    group.add_argument("--hours", metavar="X", help="begin no trial after so many hours [none]")
    group.add_argument("--timeout", metavar="SECONDS", help="the same in seconds, as in RL Zoo [none]")
    group.add_argument(
        "--check-seeds", default="10", metavar="N", help="fresh seeds for the final comparison; 0: none [10]"
    )
    group.add_argument("--no-prune", action="store_true", help="train every trial to its end")
    group.add_argument("--prune-after", metavar="X", help="share of the steps before which no trial is judged [1/3]")
    group.add_argument("--seed", default="0", metavar="S", help="first seed of the trials, and of the proposals [0]")
    group = parser.add_argument_group("runs")
    group.add_argument("--steps", "-n", metavar="N", help="environment steps of every run [the preset's]")
    group.add_argument("--eval-episodes", default="100", metavar="N", help="episodes of every final evaluation [100]")
    group.add_argument("--jobs", metavar="N", help="number of runs at the same time [one per core]")
    group.add_argument("--out", metavar="DIR", help="directory of the search [tuning/ENV/ALGO]")
    group.add_argument("--quiet", "-q", action="store_true", help="print only the result")
    return parser


def fixed_parser(algo: str) -> Parser:
    """The flags of the hyperparameters that are held fixed."""
    parser = Parser(f"policygrad tune {algo}", add_help=False)
    for name, (kind, _) in parameters(algo).items():
        if name != "steps":
            add_flag(parser, algo, name, kind, "")
    parser.set_defaults(**{action.dest: None for action in parser._actions})
    return parser


def tune_command(words: Sequence[str]) -> None:
    """`policygrad tune`."""
    algo, env, given, fixed = parse(words)
    from policygrad.training.tune import tune

    board = TrialBoard(given.quiet)
    with as_usage_error(ValueError, TypeError):
        found = tune(algo, env, board=board, heard=board.hear, **keywords_of(given), **fixed)
    print("\n".join(lines(found)))


def parse(words: Sequence[str]) -> tuple[str, str, Namespace, dict[str, Any]]:
    """Algorithm, environment, the flags of the search, and what is held fixed."""
    parser = tune_parser()
    if {"-h", "--help"} & set(words):
        print_help(parser, words)
    words = [dashed(word) for word in words]
    parser.refuse_twice(words)
    known, rest = parser.parse_known_args(words)
    if known.algo is None:
        raise UsageError("tune needs an algorithm and an environment, e.g. `policygrad tune ppo --env CartPole-v1`.")
    env = known.env or known.positional_env
    algo = check_algo(known.algo, env)
    if env is None:
        raise UsageError(f"tune {algo} needs an environment, e.g. `policygrad tune {algo} --env CartPole-v1`.")
    if known.env and known.positional_env:
        raise UsageError(f"unexpected argument {known.positional_env!r}: the environment is {known.env}.")
    fixing = fixed_parser(algo)
    for word in rest:
        if is_flag(word) and (name := word.partition("=")[0]) not in fixing._option_string_actions:
            raise UsageError(fixing.unknown_flag(name, list(parser._option_string_actions)))
    held = fixing.parse(rest, lambda dest: same(algo, dest))
    held = {name: value for name, value in vars(held).items() if value is not None}
    return algo, check_env(env), known, fill_arguments(TrainArguments(algo, env), held).overrides


def print_help(parser: Parser, words: Sequence[str]) -> None:
    """The help, with what is searched for an algorithm that is named; ends the command."""
    named = next((word for word in words if word.lower().replace("-", "_") in SPACES), None)
    if named is not None:
        own = algorithm(named)
        rows = "\n".join(f"  {word}" for word in SPACES[own])
        parser.epilog = f"searched for {own} without --over:\n{rows}\n\n{parser.epilog}"
    parser.print_help()
    raise SystemExit(0)


def keywords_of(given: Namespace) -> dict[str, Any]:
    """The keywords of `policygrad.tune` that the flags mean."""
    hours = None if given.hours is None else parse_number("hours", float, given.hours)
    if given.timeout is not None:
        if hours is not None:
            raise UsageError("--hours and --timeout both say when the search ends: give one of the two.")
        hours = parse_number("timeout", float, given.timeout) / 3600
    share = 1 / 3 if given.prune_after is None else parse_number("prune_after", float, given.prune_after)
    return {
        "over": given.over,
        "trials": positive("trials", given.trials),
        "seeds": positive("seeds", given.seeds),
        "steps": None if given.steps is None else positive("steps", given.steps, most=2**53),
        "hours": hours,
        "check_seeds": positive("check_seeds", given.check_seeds, 0),
        "prune": not given.no_prune,
        "prune_after": share,
        "eval_episodes": positive("eval_episodes", given.eval_episodes),
        "seed": parse_seed(given.seed),
        "jobs": None if given.jobs is None else positive("jobs", given.jobs),
        "out": given.out,
    }


class TrialBoard(SilentBoard):
    """A line for every trial that has ended, and on a terminal one below it about the runs of the present one."""

    interval = 1.0

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self.quiet, self.headed, self.shown = quiet, False, 0
        self.live = not quiet and sys.stdout.isatty()

    def hear(self, row: TrialRow, best: TrialRow | None) -> None:
        """Print a trial that has ended."""
        if self.quiet:
            return
        from policygrad.reports.tuning import HEADER, trial_cells

        self._wipe()
        if not self.headed:
            print(_columns(HEADER), flush=True)
            self.headed = True
        print(_columns(trial_cells(row, best)), flush=True)

    def show(self, states: Sequence[State]) -> None:
        """The share of the steps that the present runs have taken."""
        if not self.live or not states:
            return
        share = sum(1.0 if state.over else state.steps / max(state.total, 1) for state in states) / len(states)
        means = [state.mean for state in states if state.mean is not None]
        mean = f", mean return in training {sum(means) / len(means):,.1f}" if means else ""
        sides = {state.side for state in states}  # two in the comparison at the end
        name = states[0].side if len(sides) == 1 else "check on fresh seeds"
        text = f"{name}: {len(states)} run{'s' * (len(states) > 1)}, {share:.0%}{mean}"
        self._wipe()
        sys.stdout.write(text)
        sys.stdout.flush()
        self.shown = len(text)

    def _wipe(self) -> None:
        if self.shown:
            sys.stdout.write("\r" + " " * self.shown + "\r")
            self.shown = 0

    def say(self, name: str, text: str, warning: bool) -> None:
        """What a run prints is lost in a search, but for warnings, each once."""
        if warning:
            self._wipe()
            super().say(name, text, warning)

    def stop(self) -> None:
        """End the line."""
        self._wipe()


def _columns(cells: Sequence[str]) -> str:
    """A row of the live table, whose columns cannot know what comes."""
    number, value, best, state, said = cells
    return f"{number:>5}  {value:>11}  {best:<22}  {state:<8}  {said}".rstrip()


def lines(found: Tuning) -> list[str]:
    """The best trials, the verdict, and where the files are."""
    from policygrad.reports.tuning import HEADER

    rows = [[number, value, state, said] for number, value, _, state, said in found.table()]
    said = ["", f"{found.request['algo']} on {found.request['env']}: {len(found.trials)} trials, {found.counts()}"]
    if rows:
        said += ["", text_table([HEADER[0], HEADER[1], *HEADER[3:]], rows, right=(0, 1))]
    said += ["", paragraph(found.verdict), ""]
    names = ("best.toml", "tune.json", "tune.png") if not found.running else ()
    return [*said, *(printable(str(found.place / name)) for name in names if (found.place / name).exists())]
