"""`policygrad doctor`: what is wrong with an environment, or with a run that does not learn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain

from policygrad.algorithms.config import algorithm
from policygrad.algorithms.recipes import USUAL
from policygrad.cli.arguments import check_env
from policygrad.cli.flags import add_root
from policygrad.cli.parser import Parser
from policygrad.cli.reports import as_usage_error, ended
from policygrad.cli.tables import paragraph
from policygrad.cli.values import UsageError, parse_pairs, parse_seed, positive
from policygrad.diagnosis.doctor import STEPS, doctor, run_of

MOST = 10**8  # steps of random play
UNHEALTHY = 1  # exit code where there is a symptom


def doctor_parser() -> Parser:
    """`policygrad doctor`."""
    parser = Parser(
        "policygrad doctor",
        usage="policygrad doctor ENV [ALGO] [flags]\n       policygrad doctor RUN [--json]",
        description="Find what is wrong with an environment before training, by a few thousand steps of random play, or with "
        "a run that does not learn, by its files. Every symptom comes with its number, its threshold, its source and one thing "
        "to try. ! marks what is certain, ? what may be as it should be, - what could not be looked at. The exit code is 0 "
        "where nothing was found, 1 where something was, certain or not, and 2 for mistakes on the command line.",
        epilog="examples:\n  policygrad doctor LunarLander-v3\n  policygrad doctor my_module:MyEnv sac --steps 100000\n"
        "  policygrad doctor latest --probes --json",
    )
    parser.add_argument(
        "what",
        metavar="ENV|RUN",
        help="environment, as for train; or run directory, beginning of a run's name, or latest",
    )
    parser.add_argument(
        "algo", nargs="?", metavar="ALGO", help="algorithm whose preset has γ and normalize_obs [those of ppo]"
    )
    play = parser.add_argument_group("the random play in an environment")
    play.add_argument(
        "--steps", default=str(STEPS), metavar="N", help=f"at most; it ends after 300 episodes, too [{STEPS}]"
    )
    play.add_argument("--seed", default="0", metavar="S", help="random seed of environment and actions [0]")
    play.add_argument(
        "--env-kwargs",
        nargs="+",
        action="append",
        metavar="KEY=VALUE",
        help="keywords of the environment, e.g. is_slippery=false [none]",
    )
    play.add_argument(
        "--wrapper",
        action="append",
        metavar="MODULE:NAME",
        help="wrapper around the environment; repeat the flag for several, innermost first [none]",
    )
    parser.add_argument(
        "--probes",
        action="store_true",
        help="first train the algorithm, that of the run with its settings, on five tiny tasks whose answers are known: some "
        "seconds [no]",
    )
    parser.add_argument("--json", action="store_true", help="print the symptoms as JSON")
    add_root(parser)
    return parser


def doctor_command(words: Sequence[str]) -> None:
    """`policygrad doctor`. Exits with 1 where there is a symptom."""
    given = doctor_parser().parse(words)
    run = run_of(given.what, given.runs_root)
    if run is None:
        check_env(given.what)
        kwargs = None if given.env_kwargs is None else parse_pairs("env_kwargs", chain.from_iterable(given.env_kwargs))
        algo = None if given.algo is None else algorithm(given.algo)
        steps = positive("steps", given.steps, 100, MOST)
        with ended("random play"), as_usage_error(ValueError, TypeError):
            found = doctor(
                given.what,
                algo,
                steps=steps,
                seed=parse_seed(given.seed),
                env_kwargs=kwargs,
                wrappers=given.wrapper,
            )
    elif given.algo is not None or given.env_kwargs or given.wrapper:
        raise UsageError("ALGO, --env-kwargs and --wrapper are for environments, and this is a run: leave them out.")
    else:
        found = doctor(run)
    if given.probes:
        from policygrad.training.probing import probe, probe_run

        with ended("the probes"), as_usage_error(ValueError, TypeError):
            found = found.after(probe(given.algo or USUAL) if run is None else probe_run(run))
    if given.json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(paragraph(line, "   ") for line in found.lines()))
    if not found.healthy:
        raise SystemExit(UNHEALTHY)
