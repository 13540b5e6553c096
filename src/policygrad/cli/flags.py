"""The flags of `train`, generated from the recipes' signatures, and those of the other commands."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from policygrad.algorithms.config import (
    aliases,
    find_preset,
    find_recipe,
    options,
    parameters,
    pieces,
    presets,
    resolve,
    show,
)
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.parser import Parser, Switch, same
from policygrad.cli.values import flag, inner
from policygrad.stored.directory import ROOT

BACKENDS = ("auto", "gymnasium", "async", "envpool")
LISTS = ("presets", "algorithms", "envs")
SHELLS = ("bash", "zsh", "fish")


RUN_FLAGS = {  # flag: what follows it, "" for a switch, and its help; --dataset is for recipes that take one
    "--seed": ("S", "random seed [0]; several seeds (0 1 2, or 0-2) are trained in parallel, one run per seed"),
    "--jobs": ("N", "number of runs trained at the same time [the number of cores]"),
    "--backend": ("{" + ",".join(BACKENDS) + "}", "implementation that steps the environments [auto]"),
    "--preset": (
        "FILE|ENV",
        "TOML file of hyperparameters, or the environment whose preset is used [ENV itself]",
    ),
    "--run-dir": (
        "DIR",
        "new or empty run directory [runs/ENV/ALGO/seed<S>-<UTC>]; several seeds: DIR/seed<S> per run",
    ),
    "--resume": ("", "go on with the run in --run-dir from its last checkpoint, if there is one [no]"),
    "--runs-root": ("DIR", "directory in which run directories are created [runs]"),
    "--env-kwargs": ("KEY=VALUE", "keywords that the environment is made with, e.g. is_slippery=false [none]"),
    "--wrapper": ("MODULE:NAME", "wrapper around the environment; may be repeated, the innermost first [none]"),
    "--eval-episodes": ("N", "episodes per final evaluation, greedy and sampled [100]"),
    "--fisher-eigenvalues": ("K", "number of largest Fisher eigenvalues in every row of metrics [0]"),
    "--gradient-meter": ("", "measure signal and noise of the gradient in every second row of metrics [no]"),
    "--save-trajectories": ("", "save every training episode in the run directory, as a dataset [no]"),
    "--dataset": (
        "DATA",
        "stored trajectories to learn from: a run, a file, a directory, or minari:NAME [none: it plays its own episodes]",
    ),
}


def train_parser(algo: str, env: str | None, preset: str | None = None) -> Parser:
    """The flags of an algorithm, with the defaults that hold in the environment, or with a preset that is named."""
    recipe = find_recipe(algo)
    given = find_preset(algo, env or "", preset) or {}
    config, tuned = resolve(algo, "", given)[0], {same(algo, name) for name in given}
    summary = (recipe.__doc__ or "").strip().split("\n\n")[0]
    parser = Parser(
        f"policygrad train {algo}{f' {env}' if env else ''}",
        usage=f"policygrad train {algo} {env or 'ENV'} [flags]",
        description=f"{summary} {_note(algo, env, preset, bool(tuned))}",
        argument_default=argparse.SUPPRESS,
    )
    run = parser.add_argument_group("run")
    for name, (metavar, text) in RUN_FLAGS.items():
        keywords: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
        if name in ("--seed", "--env-kwargs"):
            keywords["nargs"] = "+"
        if name in ("--env-kwargs", "--wrapper"):
            keywords["action"] = "append"
        if name != "--dataset" or recipe.spec.dataset:
            run.add_argument(name, help=text, **keywords)
    run.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    group = parser.add_argument_group("hyperparameters")
    for name, (kind, _) in parameters(algo).items():
        add_flag(group, algo, name, kind, show(config[name]) + "*" * (name in tuned))
    count = pieces(algo)
    if count is not None:
        group.add_argument("--batch-size", nargs=1, metavar="N", help=f"steps per minibatch; replaces {flag(count)}")
    return parser


def _note(algo: str, env: str | None, preset: str | None, tuned: bool) -> str:
    """What the defaults in brackets are."""
    if preset is not None:
        return f"Defaults in brackets; * marks values from {preset}."
    if env is not None:
        return f"Defaults in brackets; {'* marks values tuned' if tuned else 'there is no tuned preset'} for {env}."
    there = ", ".join(presets(algo))
    return "Defaults in brackets." + (f" Name an environment to see its tuned values: {there}." if there else "")


def add_flag(group: Any, algo: str, name: str, kind: Any, default: str) -> None:
    """One hyperparameter's flag, its aliases, its help."""
    strings = [
        flag(n) for n in (name, *(a for a, own in aliases(algo).items() if own == name)) if n != "normalize_advantage"
    ]
    strings = ["-n", *strings] if name == "steps" else strings
    text = f"{options(algo)[name].help if name in options(algo) else ''} [{default}]".strip().replace("%", "%%")
    kind, optional = inner(kind)
    if kind is bool:
        strings += [flag("no_" + name)]
        group.add_argument(*strings, dest=name, action=Switch, nargs="?", metavar="", help=text)
    elif get_origin(kind) is Literal:
        group.add_argument(*strings, dest=name, nargs=1, metavar="{" + ",".join(get_args(kind)) + "}", help=text)
    elif get_origin(kind) is tuple:
        group.add_argument(*strings, dest=name, nargs="+", metavar="N", help=text)
    else:
        metavar = ("N" if kind is int else "X") + ("|none" if optional else "")
        group.add_argument(*strings, dest=name, nargs=1, metavar=metavar, help=text)
    if name == "standardize":  # SB3's, a switch: True is "batch"
        hidden = ("--normalize-advantage", "--no-normalize-advantage")
        group.add_argument(*hidden, dest="normalize_advantage", action=Switch, nargs="?", help=argparse.SUPPRESS)


def first_line(function: Callable) -> str:
    """What an algorithm is."""
    return (function.__doc__ or "").strip().splitlines()[0]


def train_help() -> str:
    """`policygrad train --help`, before an algorithm is known."""
    rows = "\n".join(
        f"  {name:<14}{textwrap.shorten(first_line(function), 100, placeholder=' …')}"
        for name, function in RECIPES.items()
    )
    return f"""usage: policygrad train ALGO ENV [--steps N] [--seed S …] [--run-dir DIR] [--quiet] [flags]

Train a policy, evaluate it on fixed seeds with greedy and with sampled actions, and save everything in a run directory.

algorithms:
{rows}

  policygrad train ppo --help                     the flags of an algorithm
  policygrad train ppo LunarLander-v3 --help      the same, with the values tuned for the environment
  policygrad list                                 presets, algorithms, environments
"""


def resume_parser() -> Parser:
    """`policygrad resume`."""
    parser = Parser(
        "policygrad resume",
        description="Go on with a run that was stopped or killed, from its last checkpoint, as if it had not been; then "
        "evaluate its policy. A finished run is left alone.",
    )
    add_run(parser)
    parser.add_argument("--steps", metavar="N", help="steps in all, if they are to be more [those of the run]")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return parser


def eval_parser() -> Parser:
    """`policygrad eval`."""
    parser = Parser(
        "policygrad eval", description="Evaluate a trained policy on fixed seeds, with greedy and with sampled actions."
    )
    add_run(parser)
    parser.add_argument("--episodes", default="100", metavar="N", help="episodes per evaluation [100]")
    parser.add_argument("--json", action="store_true", help="print the contents of evaluation.json")
    return parser


def collect_parser() -> Parser:
    """`policygrad collect`."""
    parser = Parser(
        "policygrad collect",
        description="Play a trained policy with sampled actions and save the trajectories and their log-probabilities as a "
        "dataset for off_policy_pg.",
    )
    add_run(parser)
    parser.add_argument("--episodes", default="500", metavar="N", help="number of whole episodes [500]")
    parser.add_argument("--seed", default="20000", metavar="S", help="random seed of environments and actions [20000]")
    parser.add_argument(
        "--out", metavar="FILE", help=".safetensors file [trajectories.safetensors in the run directory]"
    )
    return parser


def video_parser() -> Parser:
    """`policygrad video`."""
    parser = Parser("policygrad video", description="Record whole episodes of a trained policy as an mp4 video.")
    add_run(parser)
    parser.add_argument("--out", metavar="FILE", help="output file, .mp4 [video.mp4 in the run directory]")
    add_film(parser, 1)
    return parser


def watch_parser() -> Parser:
    """`policygrad watch`."""
    parser = Parser("policygrad watch", description="Watch a trained policy play in a window.")
    add_run(parser)
    add_film(parser, 5)
    return parser


def plot_parser() -> Parser:
    """`policygrad plot`."""
    parser = Parser(
        "policygrad plot",
        description="Draw the learning curves of runs: the mean return of the last 100 episodes against steps. Runs that "
        "differ only in the seed are drawn as one curve, their mean, with a band from the lowest to the highest.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run directory, directory of runs, beginning of a run's name, or latest"
    )
    parser.add_argument(
        "--by",
        default="config",
        metavar="{config,algo}",
        help="draw one curve per configuration or per algorithm [config]",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="file of the plot, png, pdf or svg [the run's learning_curve.png; several runs: learning_curves.png]",
    )
    add_root(parser)
    return parser


def report_parser() -> Parser:
    """`policygrad report`."""
    parser = Parser(
        "policygrad report",
        description="Explain, in text and in a plot, what each measured update of a run predicted and achieved: where steps "
        "were rejected, where the linear and quadratic models were wrong, where the surrogate stopped tracking the return.",
    )
    parser.add_argument("run", metavar="RUN", help="run directory, beginning of a run's name, or latest")
    parser.add_argument(
        "--out", metavar="FILE", help="file of the plot, png, pdf or svg [report.png in the run directory]"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the findings as JSON; a plot is drawn only with --out"
    )
    parser.add_argument(
        "--eigenvalues",
        default="0",
        metavar="K",
        help="number of largest Fisher eigenvalues of the final policy to compute, at most 100 [0]",
    )
    parser.add_argument(
        "--env",
        help="with --eigenvalues: environment of the batch; its spaces must match [the one trained in]",
    )
    parser.add_argument(
        "--recipe",
        metavar="MODULE:NAME",
        help="with --eigenvalues: the run's recipe, if it is not one of the package's",
    )
    add_words(parser)
    add_root(parser)
    return parser


def list_parser() -> Parser:
    """`policygrad list`."""
    parser = Parser(
        "policygrad list", description="Show tuned presets, algorithms and environments; all three by default."
    )
    parser.add_argument("what", nargs="?", metavar="{" + ",".join(LISTS) + "}")
    return parser


def completion_parser() -> Parser:
    """`policygrad completion`."""
    parser = Parser(
        "policygrad completion",
        description="Print a script that completes commands, algorithms, environments, flags and runs with the Tab key.",
        epilog='bash and zsh: eval "$(policygrad completion bash)" in ~/.bashrc or ~/.zshrc. '
        "fish: policygrad completion fish > ~/.config/fish/completions/policygrad.fish",
    )
    parser.add_argument("shell", metavar="{" + ",".join(SHELLS) + "}")
    return parser


def add_run(parser: Parser) -> None:
    """A trained policy, and where it plays."""
    parser.add_argument("run", metavar="RUN", help="run directory, model file, beginning of a run's name, or latest")
    parser.add_argument("--env", help="environment to play in; its spaces must match [the one it was trained in]")
    parser.add_argument("--recipe", metavar="MODULE:NAME", help="the run's recipe, if it is not one of the package's")
    add_words(parser)
    add_root(parser)


def add_words(parser: Any) -> None:
    """What the environment is made with, and what is around it."""
    parser.add_argument(
        "--env-kwargs",
        nargs="+",
        action="append",
        metavar="KEY=VALUE",
        help="keywords that the environment is made with [those of the run]",
    )
    parser.add_argument(
        "--wrapper", action="append", metavar="MODULE:NAME", help="the run's wrappers, which a file may not import"
    )


def add_film(parser: Parser, episodes: int) -> None:
    """What is played for people to see."""
    parser.add_argument("--episodes", default=str(episodes), metavar="N", help=f"number of whole episodes [{episodes}]")
    parser.add_argument("--seed", metavar="S", help="random seed of the first episode [that of the evaluation]")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the most likely one")


def add_root(parser: Parser) -> None:
    """Where runs are."""
    parser.add_argument(
        "--runs-root", default=ROOT, metavar="DIR", help="directory in which runs are looked for [runs]"
    )


PARSERS = {
    "eval": eval_parser,
    "collect": collect_parser,
    "video": video_parser,
    "watch": watch_parser,
    "plot": plot_parser,
    "report": report_parser,
    "list": list_parser,
    "completion": completion_parser,
}
